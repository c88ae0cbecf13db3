"""The command line: parse, call, print. Anything that it can do, Python can.

Results go to standard output, one JSON document with `--json`; notes and progress go to standard error. A request that
cannot be met is one line, `isingflow: error: ...`, and exit code 2. Commands import what they need when they run, so
that `--help` does not wait for torch.

A command is one module of this package, and one line in `COMMANDS`.
"""

from __future__ import annotations

from importlib import import_module

import click

import isingflow
from isingflow.cli.output import Commands, show_notes

COMMANDS = (
    "exact",
    "train",
    "evaluate",
    "sample",
    "hmc",
    "monte_carlo",
    "anneal",
    "crossing",
    "observables",
    "density",
    "plot",
    "sweep",
)
"""Modules of this package; what each adds to the command line is its `command`."""


def _show_version(ctx: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(f"isingflow {isingflow.__version__}")
        ctx.exit()


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Free energies of Ising magnets by normalizing flows: checked bounds beside the exact answer."""
    show_notes(quiet=True)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for name in COMMANDS:
    main.add_command(import_module(f"isingflow.cli.{name}").command)
