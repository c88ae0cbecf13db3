"""`isingflow evaluate`: free energies of a trained run."""

from __future__ import annotations

from pathlib import Path

import click

from isingflow.cli.options import DEVICE, JSON, MOST_SAMPLES, RUN, SEED, Whole, open_run
from isingflow.cli.output import print_result, show_notes


@click.command("evaluate")
@RUN
@click.option("--samples", type=Whole(2, MOST_SAMPLES), metavar="N", help="Samples; by default the run's own number.")
@click.option(
    "--reference-samples",
    type=Whole(2, MOST_SAMPLES),
    metavar="N",
    help="Monte Carlo samples of the target, in whole chains; a quarter as many as of the flow by default.",
)
@SEED
@DEVICE
@JSON
def command(
    run: Path, samples: int | None, reference_samples: int | None, seed: int, device: str, as_json: bool
) -> None:
    """Free energies of a trained run, with error bars, beside the exact answer; also written to its report.json."""
    show_notes(quiet=as_json)
    folder, where = open_run(run, device)
    from isingflow.evaluation import evaluate

    count = samples or folder.config.training.evaluation_samples
    evaluation = evaluate(folder, samples=count, device=where, seed=seed, reference_samples=reference_samples)
    folder.save_report(evaluation.as_dict())
    print_result(evaluation.as_dict(), as_json, evaluation.table)
