"""`isingflow evaluate`: free energies or likelihoods of a trained run."""

from __future__ import annotations

from pathlib import Path

import click

from isingflow.cli.options import (
    DATA,
    DEVICE,
    JSON,
    MOST_SAMPLES,
    MOST_STREAMED,
    QUIET,
    RUN,
    SEED,
    STRONGEST,
    TORCH,
    Command,
    Number,
    Whole,
    hold,
    open_run,
)
from isingflow.cli.output import print_result, show_notes
from isingflow.cli.ranges import Betas, Fields
from isingflow.evaluation.budget import MOST_STEPS
from isingflow.runtime import launched, stopping
from isingflow.runtime.progress import progress_of


@click.command("evaluate", cls=Command, address_space=TORCH, together=True)
@RUN
@click.option("--samples", type=Whole(2, MOST_SAMPLES), metavar="N", help="Samples; by default the run's own number.")
@click.option(
    "--reference-samples",
    type=Whole(2, MOST_SAMPLES),
    metavar="N",
    help="Monte Carlo samples of a magnet, in whole chains; a quarter as many as of the flow by default.",
)
@click.option(
    "--anneal",
    type=Whole(1, MOST_STEPS),
    metavar="N",
    help="Steps of a bridge between flow and target; of a run trained --from-beta, sweeps of its paths to the goal.",
)
@click.option("--paths", type=Whole(2, MOST_STREAMED), metavar="N", help="Of either, in both directions.")
@click.option("--resample", is_flag=True, help="Resample the bridge's paths from the flow, in 16 islands.")
@click.option("--time-limit", type=Number(positive=True), metavar="S", help="Seconds; fewer samples if need be.")
@click.option(
    "--beta",
    type=Betas(most=STRONGEST),
    metavar="B|FIRST:LAST:COUNT",
    help="Of a family of flows: temperatures, linear, ends included: 0.2:0.6:21; nine of its range by default.",
)
@click.option(
    "--field",
    type=Fields(most=STRONGEST),
    metavar="H|FIRST:LAST:COUNT",
    help="Of a family of flows with a range of them: external fields, as temperatures.",
)
@DATA
@SEED
@DEVICE
@QUIET
@JSON
def command(
    run: Path,
    samples: int | None,
    reference_samples: int | None,
    anneal: int | None,
    paths: int | None,
    resample: bool,
    time_limit: float | None,
    beta: float | tuple[float, ...] | None,
    field: float | tuple[float, ...] | None,
    root: Path | None,
    seed: int,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Free energies of a trained run beside the exact answer, or likelihoods of data; also in its report.json.

    Of a family of flows, a table of temperatures or fields with free energy, energy and heat capacity beside the exact
    ones, and magnetisation in fields; its figure; and for every member a run folder in FAMILY/members, for all other
    commands.

    Of a magnet or an energy, Ctrl-C prints what the samples that are there say, and leaves the report as it was.
    """
    show_notes(quiet or as_json)
    folder, where = open_run(run, device)
    from isingflow.evaluation.reports import evaluate
    from isingflow.runs.shared import shared

    hold(shared(folder).results())
    data = folder.config.data_set(root)
    with progress_of("samples", quiet=quiet or as_json) as report_progress:
        evaluation = evaluate(
            folder,
            device=where,
            samples=samples,
            seed=seed,
            reference_samples=reference_samples,
            data=data,
            save=False,
            time_limit=time_limit,
            anneal=anneal,
            paths=paths,
            resample=resample,
            betas=_several(beta),
            fields=_several(field),
            report_progress=report_progress,
        )
    if not launched.follows():
        print_result(evaluation.as_dict(), as_json, evaluation.table)
    stopping.check()
    if not launched.follows():
        folder.save_report(evaluation.as_dict(), evaluation.table())


def _several(values: float | tuple[float, ...] | None) -> tuple[float, ...] | None:
    """One value or those of a range, as evaluations take them."""
    return values if values is None or isinstance(values, tuple) else (values,)
