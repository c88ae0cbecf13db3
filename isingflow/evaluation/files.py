"""Samples of a trained run in a file: drawn in blocks, and written as they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from isingflow.datasets import Dataset
from isingflow.errors import InvalidInput
from isingflow.evaluation.data import stream_points
from isingflow.evaluation.targets import stream_samples
from isingflow.flows import Flow
from isingflow.observables.files import sample_writer
from isingflow.runs.config import DensityConfig, FamilyConfig, RunConfig, TargetConfig
from isingflow.runs.folder import AnyRun, of_kind
from isingflow.runs.loading import is_certified, opened
from isingflow.runs.shared import shared
from isingflow.runtime import devices, stopping
from isingflow.runtime.checks import LARGEST_SEED, count, function, instance
from isingflow.runtime.files import ArrayWriter, Columns
from isingflow.runtime.launched import follows
from isingflow.runtime.parallel import Workers
from isingflow.runtime.processes import placed
from isingflow.runtime.sharing import sharing
from isingflow.targets.base import TargetLike, as_target


class Asked(NamedTuple):
    """What is asked of samples of every kind."""

    output: Path
    samples: int
    draws: int
    seed: int
    device: torch.device
    certified: bool
    pool: Workers


class Stream(NamedTuple):
    """Samples on their way to a file: the file, the rows by block, and what is to be said of them."""

    writer: ArrayWriter
    blocks: Iterable[dict[str, np.ndarray]]
    facts: dict[str, Any]


def write_samples(
    run: AnyRun | Path | str,
    output: Path | str,
    *,
    samples: int,
    draws: int = 1,
    seed: int = 0,
    device: torch.device | str = "auto",
    target: TargetLike | None = None,
    flow: Flow | None = None,
    data: Dataset | None = None,
    report_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Independent samples of a trained run in a .npz file; they need not fit in memory.

    Of a magnet: spins, field, log_prob and log_weight. Of another target: the same without spins. They follow the flow;
    averages over the target need the weights exp(log_weight). Of data: samples and log_prob, in the data's units, and
    columns, the names of the columns where they have names.

    Args:
        run: a run folder with a checkpoint, or where it is.
        output: the file, new.
        samples: number of fields.
        draws: of the spins of a magnet, for every field.
        seed: of what is drawn.
        device: where to draw.
        target, flow: of a run on a user's own.
        data: of a run on data.
        report_progress: called with the number written and that of all.

    Of several processes (torchrun) all make this call and share the work; the first one alone reports and writes.

    Returns:
        What was written, as `isingflow sample --json` says it.

    Raises:
        InvalidInput: a number out of range, several draws where there are no spins, or a target or data set that is
            missing; WrongType: something else than these.
        FileError: the file cannot be written.
    """
    folder = opened(run)
    samples, draws = count("samples", samples), count("draws", draws)
    seed = count("seed", seed, least=0, most=LARGEST_SEED)
    instance("output", output, Path | str, "a path")
    instance("data", data, Dataset | None, "a data set")
    function("report_progress", report_progress)
    where = placed(devices.resolve(device))
    given = None if target is None else as_target(target)
    with sharing(where) as pool:
        folder = shared(folder)
        asked = Asked(Path(output), samples, draws, seed, where, is_certified(folder), pool)
        stream = _STREAMS[type(folder.config)](folder, asked, target=given, flow=flow, data=data)
        written = 0
        with nullcontext() if follows() else stream.writer as writer:
            for block in stream.blocks:
                stopping.check()
                if writer is None:
                    continue
                writer.append(**block)
                written += len(block["log_prob"])
                if report_progress is not None:
                    report_progress(written, samples)
    return {"output": str(output), "samples": samples, **stream.facts, "certified": asked.certified}


def _of_target(run: AnyRun, asked: Asked, *, data: Dataset | None, **own: Any) -> Stream:
    """Fields with their probabilities and weights."""
    _one_draw(run, asked)
    shape = run.config.sample[1]
    columns: Columns = {"field": (np.float32, shape), "log_prob": (np.float64, ()), "log_weight": (np.float64, ())}
    writer = ArrayWriter(asked.output, asked.samples, columns, certified=np.bool_(asked.certified))
    blocks = stream_samples(run, samples=asked.samples, device=asked.device, seed=asked.seed, pool=asked.pool, **own)
    rows = ({name: getattr(block, name) for name in columns} for block in blocks)
    return Stream(writer, rows, {"size": list(shape)})


def _of_magnet(run: AnyRun, asked: Asked, *, data: Dataset | None, **own: Any) -> Stream:
    """The same with spins, of a file that knows its lattice."""
    config = of_kind(run, RunConfig).config
    lattice, beta, draws = config.lattice, config.beta, asked.draws
    columns: Columns = {
        "spins": (np.int8, lattice.shape if draws == 1 else (draws, *lattice.shape)),
        "field": (np.float32, lattice.shape),
        "log_prob": (np.float64, ()),
        "log_weight": (np.float64, ()),
    }
    certified = np.bool_(asked.certified)
    writer = sample_writer(asked.output, asked.samples, columns, lattice=lattice, beta=beta, certified=certified)
    blocks = stream_samples(
        run, samples=asked.samples, device=asked.device, seed=asked.seed, draws=draws, pool=asked.pool, **own
    )
    return Stream(writer, map(vars, blocks), {"draws": draws, "size": list(lattice.size), "beta": beta})


def _of_data(run: AnyRun, asked: Asked, *, data: Dataset | None, **own: Any) -> Stream:
    """Samples and ln p in the units of the data."""
    _one_draw(run, asked)
    config = of_kind(run, DensityConfig).config
    if data is None:
        raise InvalidInput(f"the run is on data, {config}: hand it the data set")
    columns: Columns = {"samples": (data.space.dtype, (data.dimension,)), "log_prob": (np.dtype(np.float64), ())}
    writer = ArrayWriter(asked.output, asked.samples, columns, certified=np.bool_(asked.certified))
    if data.columns:
        writer.constants["columns"] = np.array(data.columns)
    blocks = (
        {"samples": data.to_data(x).numpy(), "log_prob": data.data_log_prob(log_prob, x).numpy()}
        for x, log_prob in stream_points(
            run, samples=asked.samples, device=asked.device, seed=asked.seed, pool=asked.pool
        )
    )
    return Stream(writer, blocks, {"data": config.data, "dimension": data.dimension})


def _one_draw(run: AnyRun, asked: Asked) -> None:
    if asked.draws != 1:
        raise InvalidInput(f"{asked.draws} draws: a run on {run.config.on} has no spins to draw")


def _of_family(run: AnyRun, asked: Asked, **own: Any) -> Stream:
    run.config.target()  # which says to choose a member
    raise AssertionError


_STREAMS: dict[type, Callable[..., Stream]] = {
    RunConfig: _of_magnet,
    TargetConfig: _of_target,
    DensityConfig: _of_data,
    FamilyConfig: _of_family,
}
"""By kind of run."""
