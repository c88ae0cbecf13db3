"""`isingflow plot`: the figures of a trained run."""

from __future__ import annotations

from pathlib import Path

import click

from isingflow.cli.options import (
    DATA,
    DEVICE,
    JSON,
    MOST_SAMPLES,
    RUN,
    SEED,
    TORCH,
    Command,
    Whole,
    check_certified,
    open_run,
)
from isingflow.cli.output import print_result, show_notes


@click.command("plot", cls=Command, address_space=TORCH)
@RUN
@click.option("--samples", type=Whole(2, MOST_SAMPLES), metavar="N", help="Samples to draw from; 4096 by default.")
@DATA
@SEED
@DEVICE
@JSON
def command(run: Path, samples: int | None, root: Path | None, seed: int, device: str, as_json: bool) -> None:
    """Draw the figures of a trained run into its folder."""
    show_notes(quiet=as_json)
    folder, where = open_run(run, device)
    from isingflow.evaluation import reports

    figures = reports.plot(folder, data=folder.config.data_set(root), samples=samples, device=where, seed=seed)
    paths = [str(path) for path in figures]
    document = {"run": str(run), "certified": check_certified(folder), "figures": paths}
    print_result(document, as_json, lambda: "\n".join(paths))
