"""`isingflow anneal`: ln Z of the spins by annealing alone, from both sides, without a flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from isingflow.cli.lattices import MAGNETS, betas_from, lattice_from, size_option
from isingflow.cli.options import (
    JSON,
    QUIET,
    STRONGEST,
    TORCH,
    Command,
    Number,
    OneOf,
    Place,
    Size,
    Whole,
    check_new_file,
    lock_file,
    seed_option,
)
from isingflow.cli.output import print_result, show_notes
from isingflow.cli.processes import by_first
from isingflow.cli.signals import to_continue
from isingflow.errors import InvalidInput
from isingflow.runtime import launched
from isingflow.runtime.progress import progress_of
from isingflow.runtime.stopping import Stopped

MOST_SITES = 2**24
MOST = 10**9
"""Paths, and sweeps."""
KEPT, TABLE, FIGURE = ".npz", ".csv", ".png"


@click.command("anneal", cls=Command, address_space=TORCH, together=True)
@size_option(Size(sites=MOST_SITES))
@MAGNETS
@click.option("--paths", type=Whole(2, MOST), metavar="N", help="Paths of each direction; 64 by default.")
@click.option(
    "--sweeps", type=Whole(1, MOST), metavar="N", help="Sweeps of each path; by default what the lattice needs."
)
@click.option(
    "--moves",
    type=OneOf("swendsen-wang", "heat-bath"),
    metavar="swendsen-wang|heat-bath",
    help="What moves the spins; by default clusters where couplings and field are unfrustrated.",
)
@click.option(
    "--from-beta",
    type=Number(most=STRONGEST),
    metavar="B",
    help="Where forward paths begin; 0 by default, elsewhere ln Z must be known exactly.",
)
@click.option(
    "--output",
    type=Place(),
    metavar="FILE.npz|FILE.csv",
    help="A new file that keeps the paths; or a table, with FILE.npz for the paths and FILE.png, a figure.",
)
@click.option("--resume", is_flag=True, help="Go on with the paths of --output, as if they had not been interrupted.")
@seed_option(default=None)
@QUIET
@JSON
@click.pass_context
def command(
    ctx: click.Context,
    size: tuple[int, ...] | None,
    output: Path | None,
    resume: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """ln Z of the Ising model by annealing, from both sides, without a flow, beside the exact answer if there is one.

    Paths of spins from beta = 0 bound ln Z from below, paths in reverse, from states of Markov chains, from above; the
    acceptance ratio takes both for the estimate. A range of temperatures costs one set of paths. With --output, paths
    that are done are saved about every ten seconds; --resume goes on with them, and knows what they are of.
    """
    kept = by_first(lambda: _kept(output, resume))
    show_notes(quiet or as_json)
    asked = by_first(lambda: _asked(kept)) if resume and kept is not None else {}
    chosen = {name: options.pop(name) for name in ("paths", "sweeps", "moves", "from_beta", "seed")}
    chosen = {name: asked.get(name) if value is None else value for name, value in chosen.items()}
    from isingflow.lattice import from_dict

    lattice = lattice_from(size, options, from_dict(asked["lattice"]) if asked else None)
    given = options["critical"] or options["beta"] is not None or options["temperature"] is not None
    betas = betas_from(options, lattice) if given or not asked else tuple(asked["beta"])
    from isingflow.evaluation.annealing import anneal

    try:
        with progress_of("sweeps", quiet=quiet or as_json) as report_progress:
            report = anneal(
                lattice,
                betas,
                output=kept,
                resume=resume,
                report_progress=report_progress,
                **{name: value for name, value in chosen.items() if value is not None},
            )
    except Stopped:
        if kept is not None and kept.exists():
            to_continue(ctx, [*launched.words(), "anneal", "--resume", "--output", str(output)])
        raise
    except InvalidInput as error:
        if str(error).startswith("from_beta"):
            raise InvalidInput("--from-beta" + str(error).removeprefix("from_beta")) from None
        raise
    if launched.follows():
        return
    document = report.as_dict() | ({} if output is None else {"output": str(output)})
    print_result(document, as_json, lambda: str(report))
    if output is not None and output.suffix == TABLE:
        report.write(output, output.with_suffix(FIGURE))


def _kept(output: Path | None, resume: bool) -> Path | None:
    """The file that keeps the paths of this output, to be made or to be resumed; None if nothing is to be kept."""
    if output is None:
        if resume:
            raise InvalidInput("--resume: which paths? give their file with --output FILE.npz")
        return None
    if not resume:
        check_new_file(output, (KEPT, TABLE))
        if output.suffix == TABLE:
            for suffix in (KEPT, FIGURE):
                check_new_file(output.with_suffix(suffix), (suffix,))
    elif output.suffix not in (KEPT, TABLE):
        raise InvalidInput(f"--output {output}: expected a file name that ends in {KEPT} or {TABLE}")
    else:
        lock_file(output.with_suffix(KEPT))
    return output.with_suffix(KEPT)


def _asked(kept: Path) -> dict[str, Any]:
    """What the paths of a file were asked for."""
    from isingflow.monte_carlo.path_files import PathFile

    return PathFile.read(kept).request
