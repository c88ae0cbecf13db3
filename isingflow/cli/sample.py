"""`isingflow sample`: independent samples of a trained run, in a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

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
    Whole,
    check_certified,
    check_new_file,
    data_of,
    open_run,
)
from isingflow.cli.output import print_result, show_notes
from isingflow.errors import InvalidInput
from isingflow.runtime.progress import Clock, progress_display

if TYPE_CHECKING:
    import numpy as np
    import torch

    from isingflow.datasets import Dataset
    from isingflow.runs.config import DensityConfig, RunConfig
    from isingflow.runs.folder import AnyRun
    from isingflow.runtime.files import ArrayWriter, Columns

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
    check_new_file(output)
    show_notes(quiet or as_json)
    folder, where = open_run(run, device)
    from isingflow.runs.config import DensityConfig, RunConfig

    certified, config = check_certified(folder), folder.config
    common: _Common = {"output": output, "samples": samples, "seed": seed, "device": where, "certified": certified}
    if isinstance(config, RunConfig):
        stream = _of_magnet(folder, config, draws=draws, **common)
    elif not isinstance(config, DensityConfig):
        raise InvalidInput(f"{run} is a run on {config}, a target of your own: its samples are drawn in Python")
    elif draws == 1:
        stream = _of_data(folder, config, data_of(config, root), **common)
    else:
        raise InvalidInput(f"--draws {draws}: data have no spins to draw")
    written, clock = 0, Clock()
    with stream.writer as writer, progress_display(quiet or as_json) as show:
        for block in stream.blocks:
            writer.append(**block)
            written += len(block["log_prob"])
            show(written, samples, clock.left(written, samples))
    document = {"output": str(output), "samples": samples, **stream.facts, "certified": certified}
    print_result(document, as_json, lambda: f"{samples} samples in {output}")


class _Common(TypedDict):
    """What is asked of samples of every kind."""

    output: Path
    samples: int
    seed: int
    device: torch.device
    certified: bool


class Stream(NamedTuple):
    """Samples on their way to a file: the file, the rows by block, and what the document says of them."""

    writer: ArrayWriter
    blocks: Iterable[dict[str, np.ndarray]]
    facts: dict[str, Any]


def _of_magnet(
    run: AnyRun,
    config: RunConfig,
    *,
    draws: int,
    output: Path,
    samples: int,
    seed: int,
    device: torch.device,
    certified: bool,
) -> Stream:
    import numpy as np

    from isingflow.evaluation.targets import stream_samples
    from isingflow.observables.files import sample_writer

    lattice, beta = config.lattice, config.beta
    columns: Columns = {
        "spins": (np.int8, lattice.shape if draws == 1 else (draws, *lattice.shape)),
        "field": (np.float32, lattice.shape),
        "log_prob": (np.float64, ()),
        "log_weight": (np.float64, ()),
    }
    writer = sample_writer(output, samples, columns, lattice=lattice, beta=beta, certified=np.bool_(certified))
    blocks = stream_samples(run, samples=samples, device=device, seed=seed, draws=draws)
    return Stream(writer, map(vars, blocks), {"draws": draws, "size": list(lattice.size), "beta": beta})


def _of_data(
    run: AnyRun,
    config: DensityConfig,
    data: Dataset,
    *,
    output: Path,
    samples: int,
    seed: int,
    device: torch.device,
    certified: bool,
) -> Stream:
    """Samples and ln p in the units of the data."""
    import numpy as np

    from isingflow.evaluation.data import stream_points
    from isingflow.runtime.files import ArrayWriter

    columns: Columns = {"samples": (np.dtype(np.float32), (data.dimension,)), "log_prob": (np.dtype(np.float64), ())}
    writer = ArrayWriter(output, samples, columns, certified=np.bool_(certified))
    blocks = (
        {"samples": data.to_data(x).numpy(), "log_prob": data.data_log_prob(log_prob, x).numpy()}
        for x, log_prob in stream_points(run, samples=samples, device=device, seed=seed)
    )
    return Stream(writer, blocks, {"data": config.data, "dimension": data.dimension})
