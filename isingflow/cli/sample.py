"""`isingflow sample`: independent samples of a trained run, in a file."""

from __future__ import annotations

from pathlib import Path

import click

from isingflow.cli.options import (
    DEVICE,
    JSON,
    MOST_STREAMED,
    OUTPUT,
    QUIET,
    RUN,
    SEED,
    Whole,
    check_certified,
    check_new_file,
    open_run,
)
from isingflow.cli.output import print_result, show_notes
from isingflow.cli.progress import Clock, progress_display

MOST_DRAWS = 10**4


@click.command("sample")
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
@SEED
@DEVICE
@QUIET
@JSON
def command(
    run: Path, samples: int, draws: int, output: Path, seed: int, device: str, quiet: bool, as_json: bool
) -> None:
    """Independent samples of a trained run: spins, field, log_prob and log_weight in one .npz file.

    They follow the flow; averages over the Ising model need the weights exp(log_weight), as `isingflow observables`
    knows. Samples go to disk as they are drawn: they need not fit in memory.
    """
    check_new_file(output)
    show_notes(quiet or as_json)
    folder, where = open_run(run, device)
    import numpy as np

    from isingflow.evaluation import stream_samples
    from isingflow.samples import sample_writer

    lattice, beta = folder.config.lattice, folder.config.beta
    certified = check_certified(folder)
    blocks = stream_samples(folder, samples=samples, device=where, seed=seed, draws=draws)
    columns = {
        "spins": (np.int8, lattice.shape if draws == 1 else (draws, *lattice.shape)),
        "field": (np.float32, lattice.shape),
        "log_prob": (np.float64, ()),
        "log_weight": (np.float64, ()),
    }
    written, clock = 0, Clock()
    with (
        sample_writer(output, samples, columns, lattice=lattice, beta=beta, certified=np.bool_(certified)) as writer,
        progress_display(quiet or as_json) as show,
    ):
        for block in blocks:
            writer.append(**vars(block))
            written += len(block.field)
            show(written, samples, clock.left(written, samples))
    document = {
        "output": str(output),
        "samples": samples,
        "draws": draws,
        "size": list(lattice.size),
        "beta": beta,
        "certified": certified,
    }
    print_result(document, as_json, lambda: f"{samples} samples in {output}")
