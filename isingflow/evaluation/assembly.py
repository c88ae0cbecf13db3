"""An evaluation of a flow on a target, put together: what it is asked for, what was sampled, what that says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.evaluation.annealing import PATHS as SPIN_PATHS
from isingflow.evaluation.bridging import Annealed
from isingflow.evaluation.budget import MOST_STEPS, Meter
from isingflow.evaluation.free_energies import BothSides, Evaluation, SampleSet
from isingflow.evaluation.warmer import AnnealedTo
from isingflow.flows import Flow, gradient_flows
from isingflow.lattice import Lattice
from isingflow.observables import Series, per_sample
from isingflow.runs.config import heading
from isingflow.runs.folder import AnyRun
from isingflow.runtime import stopping
from isingflow.runtime.checks import count, flag
from isingflow.sampling.chains import magnet
from isingflow.statistics.free_energy import entropy, internal_energy, reweighted_free_energy, variational_free_energy
from isingflow.statistics.jackknife import jackknife_mean
from isingflow.statistics.weights import effective_sample_size, pareto_k
from isingflow.targets.base import Magnetic, Referenced, SolvedOnce, Target
from isingflow.training.progress import RECENT

PATHS = 1024
"""Of a bridge from either side."""
EXACT_SHARE = 0.25
"""Of a limit of time, what an exact answer may take, as estimated."""


@dataclass(frozen=True)
class Asked:
    """What an evaluation is asked for, checked."""

    samples: int
    of_target: int
    goal: float | None
    steps: int | None
    paths: int
    resample: bool
    seed: int

    @classmethod
    def of(
        cls,
        run: AnyRun,
        samples: int,
        reference: int | None,
        anneal: int | None,
        paths: int | None,
        resample: bool,
        seed: int,
    ) -> Asked:
        """Raises InvalidInput: a number out of range, or paths of nothing; WrongType: no whole number."""
        samples, goal = count("samples", samples, least=2), run.config.goal
        of_target = max(samples // 4, 2) if reference is None else count("reference_samples", reference, least=2)
        resample = flag("resample", resample)
        if goal is None and anneal is None and (paths is not None or resample):
            raise InvalidInput("paths and resampling are of a bridge (anneal): give its number of steps too")
        if goal is not None and resample:
            raise InvalidInput(f"resampling is of a bridge to the target: this run anneals spins to beta = {goal:g}")
        steps = None if anneal is None else count("anneal", anneal, most=MOST_STEPS)
        usual_paths = min(samples, PATHS) if goal is None else SPIN_PATHS
        paths = usual_paths if paths is None else count("paths", paths, least=2)
        return cls(samples, of_target, goal, steps, paths, resample, seed)

    def meter(self, target: Target, samples: int, of_target: int, report: Callable[[int, int], None] | None) -> Meter:
        """Of so many samples, and of the paths of a bridge."""
        of_bridge = 0 if self.steps is None or self.goal is not None else self.paths
        total = samples + of_bridge + (of_target + of_bridge if isinstance(target, Referenced) else 0)
        return Meter(report, total)


@dataclass(frozen=True)
class Sampled:
    """Samples of the flow, log-weights of those of the target if there are any, and the integration error of both."""

    drawn: SampleSet
    reverse: np.ndarray | None
    error: float
    meter: Meter


def evaluation_of(
    run: AnyRun,
    flow: Flow,
    target: Target,
    state: dict[str, Any],
    asked: Asked,
    known: tuple[float, str] | None,
    sampled: Sampled,
    annealed: Annealed | AnnealedTo | None,
    limit: float,
) -> Evaluation:
    """All that was found.

    Args:
        run, flow, target, state: as they were loaded.
        asked: of the evaluation.
        known: -ln Z and its method.
        sampled: with one sample of the flow at least.
        annealed: what a bridge, or paths to the goal, have added.
        limit: of time, in seconds, or infinity.
    """
    drawn, (exact, method) = sampled.drawn, known or (None, None)
    weights = drawn.log_weight
    energies = -weights - drawn.log_prob
    limited = math.isfinite(limit)
    evaluation = Evaluation(
        title=heading(run.config),
        target=target.name,
        parameters_by_name=target.parameters_by_name,
        size=tuple(target.shape),
        sites=target.sites,
        beta=target.beta if isinstance(target, Magnetic) else None,
        bounds=run.config.training.bounds,
        parameters=flow.parameter_count + sum(part.potential.fitted for part in gradient_flows(flow)),
        training_seconds=float(state["seconds"]),
        integration_steps=int(state["steps"]),
        integration_error=sampled.error,
        tolerance=run.config.training.tolerance,
        mean_field=target.mean_field().free_energy if isinstance(target, Magnetic) else None,
        variational=variational_free_energy(weights),
        reweighted=reweighted_free_energy(weights),
        internal_energy=internal_energy(energies, weights),
        entropy=entropy(energies, weights),
        effective_sample_size=effective_sample_size(weights),
        pareto_k=pareto_k(weights),
        both_sides=None if sampled.reverse is None else BothSides.of(weights, sampled.reverse, exact),
        exact=exact,
        method=method,
        log_z_ising=None,
        **_of_spins(target, drawn),
        samples=drawn,
        sampled_loss=_sampled_loss(run),
        shortened=len(weights) < asked.samples
        or stopping.requested()
        or (annealed is not None and annealed.paths < asked.paths),
        left_out=_left_out(target, asked, sampled, annealed) if limited and not stopping.requested() else (),
        exact_within=EXACT_SHARE * limit if limited and isinstance(target, SolvedOnce) else None,
        annealed=annealed if isinstance(annealed, Annealed) else None,
        annealed_to=annealed if isinstance(annealed, AnnealedTo) else None,
    )
    if not isinstance(target, Magnetic):
        return evaluation
    return replace(evaluation, log_z_ising=target.log_z_ising(evaluation.best[0]))


def _left_out(
    target: Target, asked: Asked, sampled: Sampled, annealed: Annealed | AnnealedTo | None
) -> tuple[str, ...]:
    """What a limit of time left no room for, in words."""
    found = []
    if isinstance(target, Referenced):
        taken = 0 if sampled.reverse is None else sampled.reverse.size
        if taken == 0:
            found.append("no samples of the target, and so no lower bound")
        elif taken < asked.of_target:
            found.append(f"only {taken} of {asked.of_target} samples of the target")
    if annealed is None and asked.goal is not None:
        found.append(f"no paths to beta {asked.goal:g}")
    elif annealed is None and asked.steps is not None:
        found.append("no bridge")
    return tuple(found)


def _sampled_loss(run: AnyRun) -> float | None:
    """The mean over the last iterations of what a flow with a sampled average was trained for; None of other flows."""
    last = [record["sampled_loss"] for record in run.metrics()[-RECENT:] if record.get("sampled_loss") is not None]
    return sum(last) / len(last) if last else None


def _of_spins(target: Target, samples: SampleSet) -> dict[str, Any]:
    """Energy and magnetisation of a magnet's spins, and its exact solution; None of other targets."""
    lattice, beta = magnet(target)
    if lattice is None or samples.spins is None:
        return dict.fromkeys(("energy_per_site", "magnetisation_abs", "exact_spins"))
    series = per_sample(lattice, spins=samples.spins, field=samples.field, beta=beta)
    assert series.magnetisation_abs is not None
    return {
        "energy_per_site": jackknife_mean(series.energy, samples.log_weight) / lattice.sites,
        "magnetisation_abs": jackknife_mean(series.magnetisation_abs, samples.log_weight),
        **({} if lattice.field is None else _in_field(lattice, series, samples)),
        "exact_spins": target.known if isinstance(target, SolvedOnce) else None,
    }


def _in_field(lattice: Lattice, series: Series, samples: SampleSet) -> dict[str, Any]:
    """What an external field adds: the field itself, and the magnetisation with its sign."""
    magnetisation = jackknife_mean(series.magnetisation, samples.log_weight)
    return {"field": np.asarray(lattice.field).tolist(), "magnetisation": magnetisation}
