"""What a run is worth and what it looks like, whatever it was trained on: one entry for every kind of run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from isingflow.datasets import Dataset
from isingflow.errors import InvalidInput
from isingflow.evaluation.data import DensityEvaluation, evaluate_density, stream_points
from isingflow.evaluation.families import FamilyEvaluation, evaluate_family
from isingflow.evaluation.free_energies import Evaluation, SampleSet
from isingflow.evaluation.targets import draw_samples, evaluate_target
from isingflow.flows import Flow
from isingflow.plots import data as data_plots
from isingflow.plots import families as family_plots
from isingflow.plots import magnets as target_plots
from isingflow.runs.config import DensityConfig, FamilyConfig, RunConfig, TargetConfig
from isingflow.runs.folder import AnyRun
from isingflow.runs.loading import is_certified, opened, trained
from isingflow.runs.shared import shared
from isingflow.runtime import devices
from isingflow.runtime.checks import flag, function, instance, number
from isingflow.runtime.launched import follows
from isingflow.runtime.processes import placed
from isingflow.targets.base import TargetLike, as_target
from isingflow.training.train import Trained

AnyEvaluation = Evaluation | FamilyEvaluation | DensityEvaluation
Drawn = SampleSet | np.ndarray | Sequence[Mapping[str, Any]]
"""What figures are made of: samples; of a family, its rows."""
PLOT_SAMPLES = 4096


def evaluate(
    run: AnyRun | Trained | Path | str,
    *,
    target: TargetLike | None = None,
    flow: Flow | None = None,
    data: Dataset | None = None,
    samples: int | None = None,
    reference_samples: int | None = None,
    betas: Sequence[float] | None = None,
    fields: Sequence[float] | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    save: bool = True,
    time_limit: float | None = None,
    anneal: int | None = None,
    paths: int | None = None,
    resample: bool = False,
    report_progress: Callable[[int, int], None] | None = None,
) -> AnyEvaluation:
    """Evaluate a trained run; the result prints as a table.

    Args:
        run: a run folder with a checkpoint, its path, or what `train` returned.
        target, flow: of a run on a user's own; what `train` returned knows them.
        data: what a run on data was trained on.
        samples: of the flow, or of the test data; the run's own number, or all data, if not given.
        reference_samples: of the target's own, see `evaluate_target`.
        betas, fields: of a family, inverse temperatures and external fields within its ranges; nine members, evenly
            over the ranges, if neither is given.
        seed: of what is random.
        device: where to evaluate.
        save: whether the result becomes the report of the run; the exact answer of a magnet is kept there anyway.
        time_limit: in seconds, for which fewer samples are taken if need be; the result says so.
        anneal, paths, resample: steps of a bridge between flow and target, its paths, and whether those from the flow
            are resampled, see `evaluate_target`.
        report_progress: called with samples done and in all.

    Of several processes (torchrun) all make this call and share the work; the first one alone reports and saves.

    Raises:
        InvalidInput: a number out of range, or the target or the data set is missing, or another one; WrongType:
            something else than these.
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
    folder, given = _opened(run, target=target, flow=flow, data=data)
    where, save = placed(devices.resolve(device)), flag("save", save)
    function("report_progress", report_progress)
    if time_limit is not None:
        time_limit = number("time_limit", time_limit, finite=False, above=0)
    if isinstance(folder.config, FamilyConfig):
        given |= {"betas": betas, "fields": fields}
    elif betas is not None or fields is not None:
        name = "fields" if betas is None else "betas"
        raise InvalidInput(f"{name} are of a family of flows; {folder.path} is a run on {folder.config.on}")
    folder = shared(folder)
    with folder.results() if save else nullcontext():
        evaluation = _KINDS[type(folder.config)].evaluate(
            folder,
            **given,
            samples=samples,
            reference_samples=reference_samples,
            seed=seed,
            device=where,
            time_limit=time_limit,
            anneal=anneal,
            paths=paths,
            resample=resample,
            report_progress=None if follows() else report_progress,
        )
        if save:
            folder.save_report(evaluation.as_dict(), evaluation.table())
    return evaluation


def plot(
    run: AnyRun | Trained | Path | str,
    *,
    target: TargetLike | None = None,
    flow: Flow | None = None,
    data: Dataset | None = None,
    samples: int | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
) -> list[Path]:
    """Draw the figures of a trained run into its folder, from fresh samples; returns the paths of the PNG files.

    Args:
        run, target, flow, data, seed, device: as in `evaluate`.
        samples: of the flow; 4096 if not given.

    Of several processes (torchrun) only the first one draws; the others have no paths.
    """
    if follows():
        return []
    folder, given = _opened(run, target=target, flow=flow, data=data)
    where = devices.resolve(device)
    kind, count = _KINDS[type(folder.config)], PLOT_SAMPLES if samples is None else samples
    with folder.results():
        drawn = kind.draw(folder, **given, samples=count, seed=seed, device=where)
        return draw_figures(folder, drawn, given["data"], flow=given["flow"])


def draw_figures(run: AnyRun, samples: Drawn, data: Dataset | None = None, *, flow: Flow | None = None) -> list[Path]:
    """Write the figures of a run into its folder; returns their paths.

    Args:
        run: evaluated, for a likelihood before training to be shown.
        samples: of its flow.
        data: what a run on data was trained on.
        flow: the user's own, of a run on a target; that of any other run is in its checkpoint.
    """
    with run.drawing():
        return _KINDS[type(run.config)].figures(run, samples, data, flow, certified=is_certified(run))


class _Kind(NamedTuple):
    """What can be done with a run of one kind."""

    evaluate: Callable[..., AnyEvaluation]
    draw: Callable[..., Drawn]
    figures: Callable[..., list[Path]]


def _evaluate_target(run: AnyRun, *, data: None, samples: int | None, **options: Any) -> Evaluation:
    count = run.config.training.evaluation_samples if samples is None else samples
    return evaluate_target(run, samples=count, **options)


def _evaluate_family(
    run: AnyRun, *, data: None, target: None, flow: None, samples: int | None, **options: Any
) -> FamilyEvaluation:
    count = run.config.training.evaluation_samples if samples is None else samples
    return evaluate_family(run, samples=count, **options)


def _evaluate_data(
    run: AnyRun,
    *,
    target: None,
    flow: None,
    data: Dataset,
    reference_samples: int | None,
    anneal: int | None,
    paths: int | None,
    resample: bool,
    **options: Any,
) -> DensityEvaluation:
    if reference_samples is not None:
        raise InvalidInput("reference samples are of targets; a run on data has its test data")
    if anneal is not None or paths is not None or resample:
        raise InvalidInput("a bridge (anneal) leads from a flow to a target with an energy; a run on data has none")
    return evaluate_density(run, data, **options)


def _draw_target(run: AnyRun, *, data: None, **options: Any) -> SampleSet:
    return draw_samples(run, **options)


def _rows_of_family(
    run: AnyRun, *, data: None, target: None, flow: None, **options: Any
) -> Sequence[Mapping[str, Any]]:
    report = run.report()
    rows: Sequence[Mapping[str, Any]] = evaluate_family(run, **options).samples if report is None else report["rows"]
    return rows


def _draw_data(run: AnyRun, *, target: None, flow: None, data: Dataset, **options: Any) -> np.ndarray:
    return np.concatenate([points.numpy() for points, _ in stream_points(run, **options)])


def _target_figures(run: AnyRun, samples: SampleSet, data: None, flow: Flow | None, *, certified: bool) -> list[Path]:
    flow = None if flow is None else trained(run, flow, flow.device)[0]
    return target_plots.plot_run(run, samples, flow=flow, certified=certified)


def _family_figures(run: AnyRun, rows: Any, data: None, flow: None, *, certified: bool) -> list[Path]:
    return family_plots.plot_family(run, rows, certified=certified)


def _data_figures(run: AnyRun, samples: np.ndarray, data: Dataset, flow: None, *, certified: bool) -> list[Path]:
    return data_plots.plot_run(run, samples, data, certified=certified)


_TARGETS = _Kind(_evaluate_target, _draw_target, _target_figures)
_KINDS: dict[type, _Kind] = {
    RunConfig: _TARGETS,
    TargetConfig: _TARGETS,
    FamilyConfig: _Kind(_evaluate_family, _rows_of_family, _family_figures),
    DensityConfig: _Kind(_evaluate_data, _draw_data, _data_figures),
}
"""By kind of run."""


def _opened(run: AnyRun | Trained | Path | str, **given: Any) -> tuple[AnyRun, dict[str, Any]]:
    """The run folder, and what of the user's own it is on, from a folder, a path or a finished training."""
    if isinstance(run, Trained):
        folder, config, problem = run.run, run.run.config, run.problem
        own = {
            "target": config.kind in ("magnet", "target"),
            "flow": config.flow.kind == "own",
            "data": config.kind == "data",
        }
        given = {name: getattr(problem, name) if own[name] and was is None else was for name, was in given.items()}
    else:
        folder = opened(run)
    instance("data", given["data"], Dataset | None, "a data set")
    target = given["target"]
    return folder, given | {"target": None if target is None else as_target(target)}
