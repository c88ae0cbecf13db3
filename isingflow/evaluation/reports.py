"""What a run is worth and what it looks like, whatever it was trained on: magnets and data told apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from isingflow.evaluation.data import DensityEvaluation, evaluate_density, stream_points
from isingflow.evaluation.magnets import Evaluation, SampleSet, draw_samples, evaluate
from isingflow.plots import data as data_plots
from isingflow.plots import magnets as magnet_plots
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import is_certified

if TYPE_CHECKING:
    from isingflow.datasets import Dataset

AnyEvaluation = Evaluation | DensityEvaluation


def evaluate_run(
    run: RunFolder,
    *,
    device: torch.device,
    samples: int | None = None,
    seed: int = 0,
    reference_samples: int | None = None,
    data: Dataset | None = None,
) -> AnyEvaluation:
    """Evaluate a trained run.

    Args:
        run: a run folder with a checkpoint.
        device: where to evaluate.
        samples: of a magnet's flow, or of the test data; the run's own number, or all data, if not given.
        seed: of what is random.
        reference_samples: of a magnet by Monte Carlo, see `evaluation.evaluate`.
        data: what a run on data was trained on.
    """
    if isinstance(run.config, RunConfig):
        count = samples or run.config.training.evaluation_samples
        return evaluate(run, samples=count, device=device, seed=seed, reference_samples=reference_samples)
    return evaluate_density(run, data, device=device, samples=samples, seed=seed)


def draw_samples_of(run: RunFolder, *, samples: int, device: torch.device, seed: int = 0) -> SampleSet | np.ndarray:
    """Samples of a trained run for its figures: spins with their weights, or points of model space, shape (n, d)."""
    if isinstance(run.config, RunConfig):
        return draw_samples(run, samples=samples, device=device, seed=seed)
    return np.concatenate(
        [points.numpy() for points, _ in stream_points(run, samples=samples, device=device, seed=seed)]
    )


def draw_figures(run: RunFolder, samples: SampleSet | np.ndarray, data: Dataset | None = None) -> list[Path]:
    """Write the figures of a run into its folder; returns their paths.

    Args:
        run: evaluated, for a likelihood before training to be shown.
        samples: as from `draw_samples_of`.
        data: what a run on data was trained on.
    """
    if isinstance(run.config, RunConfig):
        return magnet_plots.plot_run(run, samples, certified=is_certified(run))
    return data_plots.plot_run(run, samples, data, certified=is_certified(run))
