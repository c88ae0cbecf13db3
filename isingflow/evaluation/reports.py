"""What a run is worth and what it looks like, whatever it was trained on: one entry for every kind of run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from isingflow.evaluation.data import DensityEvaluation, evaluate_density, stream_points
from isingflow.evaluation.targets import Evaluation, SampleSet, draw_samples, evaluate_target
from isingflow.plots import data as data_plots
from isingflow.plots import magnets as target_plots
from isingflow.runs.config import DensityConfig, RunConfig, TargetConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import is_certified
from isingflow.runtime import devices
from isingflow.targets.base import Target, as_target

if TYPE_CHECKING:
    from isingflow.datasets import Dataset

AnyEvaluation = Evaluation | DensityEvaluation
PLOT_SAMPLES = 4096


def evaluate(
    run: Any,
    *,
    target: Any = None,
    data: Dataset | None = None,
    samples: int | None = None,
    reference_samples: int | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    save: bool = True,
) -> AnyEvaluation:
    """Evaluate a trained run; the result prints as a table.

    Args:
        run: a run folder with a checkpoint, its path, or what `train` returned.
        target: of a run on a user's own target; what `train` returned knows it.
        data: what a run on data was trained on.
        samples: of the flow, or of the test data; the run's own number, or all data, if not given.
        reference_samples: of the target's own, see `evaluate_target`.
        seed: of what is random.
        device: where to evaluate.
        save: whether the result becomes the report of the run.

    Raises:
        InvalidInput: the target or the data set is missing, or another one.
        CheckpointError: the checkpoint is missing or unusable.

    Example:
        >>> import tempfile
        >>> import isingflow
        >>> magnet = isingflow.HubbardStratonovich(isingflow.lattice.square(4), beta=0.3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained = isingflow.train(magnet, output=f"{folder}/run", iterations=20, progress=False)
        ...     found = evaluate(trained, samples=256)
        >>> found.certified, found.gap.value < 1
        (True, True)
    """
    folder, target, data = _opened(run, target, data)
    where = devices.resolve(device) if isinstance(device, str) else device
    evaluation = _KINDS[type(folder.config)].evaluate(
        folder, target, data, samples=samples, reference_samples=reference_samples, seed=seed, device=where
    )
    if save:
        folder.save_report(evaluation.as_dict())
    return evaluation


def plot(
    run: Any,
    *,
    target: Any = None,
    data: Dataset | None = None,
    samples: int = PLOT_SAMPLES,
    seed: int = 0,
    device: torch.device | str = "auto",
) -> list[Path]:
    """Draw the figures of a trained run into its folder, from fresh samples; returns the paths of the PNG files.

    Args:
        run, target, data, seed, device: as in `evaluate`.
        samples: of the flow.
    """
    folder, target, data = _opened(run, target, data)
    where = devices.resolve(device) if isinstance(device, str) else device
    drawn = _KINDS[type(folder.config)].draw(folder, target, samples=samples, seed=seed, device=where)
    return draw_figures(folder, drawn, data)


def draw_figures(run: RunFolder, samples: SampleSet | np.ndarray, data: Dataset | None = None) -> list[Path]:
    """Write the figures of a run into its folder; returns their paths.

    Args:
        run: evaluated, for a likelihood before training to be shown.
        samples: of its flow.
        data: what a run on data was trained on.
    """
    return _KINDS[type(run.config)].figures(run, samples, data, certified=is_certified(run))


class _Kind(NamedTuple):
    """What can be done with a run of one kind."""

    evaluate: Callable[..., AnyEvaluation]
    draw: Callable[..., SampleSet | np.ndarray]
    figures: Callable[..., list[Path]]


def _evaluate_target(
    run: RunFolder, target: Target | None, data: None, *, samples: int | None, **options: Any
) -> Evaluation:
    count = run.config.training.evaluation_samples if samples is None else samples
    return evaluate_target(run, target=target, samples=count, **options)


def _evaluate_data(
    run: RunFolder, target: None, data: Dataset, *, reference_samples: int | None, **options: Any
) -> DensityEvaluation:
    return evaluate_density(run, data, **options)


def _draw_target(run: RunFolder, target: Target | None, **options: Any) -> SampleSet:
    return draw_samples(run, target=target, **options)


def _draw_data(run: RunFolder, target: None, **options: Any) -> np.ndarray:
    return np.concatenate([points.numpy() for points, _ in stream_points(run, **options)])


def _target_figures(run: RunFolder, samples: SampleSet, data: None, *, certified: bool) -> list[Path]:
    return target_plots.plot_run(run, samples, certified=certified)


_TARGETS = _Kind(_evaluate_target, _draw_target, _target_figures)
_KINDS = {
    RunConfig: _TARGETS,
    TargetConfig: _TARGETS,
    DensityConfig: _Kind(_evaluate_data, _draw_data, data_plots.plot_run),
}
"""By kind of run."""


def _opened(run: Any, target: Any, data: Dataset | None) -> tuple[RunFolder, Target | None, Dataset | None]:
    """The run folder, and what it is on, from a folder, a path or a finished training."""
    if not isinstance(run, RunFolder):
        problem = getattr(run, "problem", None)
        target = getattr(problem, "target", None) if target is None else target
        data = getattr(problem, "data", None) if data is None else data
        run = RunFolder.open(run.path if problem is not None else run)
    return run, None if target is None else as_target(target), data
