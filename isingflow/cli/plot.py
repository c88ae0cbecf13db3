"""`isingflow plot`: the figures of a trained run."""

from __future__ import annotations

from pathlib import Path

import click

from isingflow.cli.options import DEVICE, JSON, MOST_SAMPLES, RUN, SEED, Whole, check_certified, open_run
from isingflow.cli.output import print_result, show_notes

PLOT_SAMPLES = 4096


@click.command("plot")
@RUN
@click.option("--samples", type=Whole(2, MOST_SAMPLES), default=PLOT_SAMPLES, metavar="N", help="Samples to draw from.")
@SEED
@DEVICE
@JSON
def command(run: Path, samples: int, seed: int, device: str, as_json: bool) -> None:
    """Draw the figures of a trained run into its folder."""
    show_notes(quiet=as_json)
    folder, where = open_run(run, device)
    from isingflow import plots
    from isingflow.evaluation import draw_samples

    figures = plots.plot_run(folder, draw_samples(folder, samples=samples, device=where, seed=seed))
    document = {"run": str(run), "certified": check_certified(folder), "figures": [str(path) for path in figures]}
    print_result(document, as_json, lambda: "\n".join(document["figures"]))
