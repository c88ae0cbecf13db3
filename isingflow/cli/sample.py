"""`isingflow sample`: independent samples of a trained run, in a file."""

from __future__ import annotations

from pathlib import Path

import click

from isingflow.cli.options import (
    DATA,
    DEVICE,
    JSON,
    MOST_STREAMED,
    OUTPUT,
    QUIET,
    RUN,
    SEED,
    TORCH,
    Command,
    Whole,
    check_certified,
    check_new_file,
    open_run,
)
from isingflow.cli.output import print_result, show_notes
from isingflow.cli.processes import by_first
from isingflow.runtime.progress import progress_of

MOST_DRAWS = 10**4


@click.command("sample", cls=Command, address_space=TORCH, together=True)
@RUN
@click.option("--samples", type=Whole(1, MOST_STREAMED), required=True, metavar="N", help="How many fields.")
@click.option(
    "--draws",
    type=Whole(1, MOST_DRAWS),
    default=1,
    metavar="D",
    help="Draws of the spins for each of them; 1 by default.",
)
@OUTPUT
@DATA
@SEED
@DEVICE
@QUIET
@JSON
def command(
    run: Path,
    samples: int,
    draws: int,
    output: Path,
    root: Path | None,
    seed: int,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Independent samples of a trained run in one .npz file.

    Of a magnet: spins, field, log_prob and log_weight. They follow the flow; averages over the Ising model need the
    weights exp(log_weight), as `isingflow observables` knows. Of data: samples and log_prob, in the units of the data.
    Samples go to disk as they are drawn: they need not fit in memory.
    """
    by_first(lambda: check_new_file(output))
    show_notes(quiet or as_json)
    folder, where = open_run(run, device)
    from isingflow.evaluation.files import write_samples

    check_certified(folder)
    with progress_of("samples", quiet=quiet or as_json) as report_progress:
        document = write_samples(
            folder,
            output,
            samples=samples,
            draws=draws,
            seed=seed,
            device=where,
            data=folder.config.data_set(root),
            report_progress=report_progress,
        )
    print_result(document, as_json, lambda: f"{samples} samples in {output}")
