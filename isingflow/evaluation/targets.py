"""What a flow trained on a target is worth: its samples, and its free energies beside the exact answer.

The bound from above needs samples of the flow alone. The bound from below, and the estimate that combines both, need
samples of the target: for a magnet Monte Carlo of the spins, x drawn from p(x | s), and x pushed back through the flow.
What a target cannot do is left out, in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow.flows import Flow
from isingflow.flows.certificate import integration_error, likelihood_error, log_weights, pushed
from isingflow.runs.folder import AnyRun
from isingflow.runs.loading import new_flow, trained
from isingflow.runtime.parallel import Workers, workers
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import (
    HEAVY_TAIL,
    LITTLE_OVERLAP,
    acceptance_ratio_free_energy,
    effective_sample_size,
    entropy,
    internal_energy,
    lower_bound,
    overlap,
    reverse_effective_sample_size,
    reweighted_free_energy,
    variational_free_energy,
)
from isingflow.statistics.weights import pareto_k
from isingflow.targets.base import Drawing, ExactlySolved, Magnetic, Referenced, Target

BATCH = 256
MOST_SPINS = 2**24
"""Spins drawn at once."""
ERROR_SAMPLES = 512
REFERENCE_CHAINS = 64
DISAGREEMENT = 3.0
"""Ratio of effective sample sizes, forward to reverse, from which the flow is said to miss part of the target."""


ADVICE = {
    "upper": "training for both bounds (isingflow train --bounds both) sees that part",
    "both": "a longer training or a wider flow may reach it",
}
"""To those whose flow misses part of the target, by what it was trained for."""


@dataclass(frozen=True)
class SampleSet:
    """Independent samples of a flow; averages over the target need the weights exp(log_weight).

    Attributes:
        spins: int8, shape (n, *size), drawn from p(s | x); (n, draws, *size) for several draws of every field; None
            where no spins stand behind the field.
        field: float32, shape (n, *size).
        log_prob: ln p(x), float64, shape (n,).
        log_weight: -E(x) - ln p(x), float64, shape (n,).
    """

    spins: np.ndarray | None
    field: np.ndarray
    log_prob: np.ndarray
    log_weight: np.ndarray

    @classmethod
    def join(cls, blocks: Iterable[SampleSet]) -> SampleSet:
        """The samples of all blocks, in order."""
        joined = list(blocks)
        spins = [block.spins for block in joined if block.spins is not None]
        return cls(
            spins=np.concatenate(spins) if spins else None,
            field=np.concatenate([block.field for block in joined]),
            log_prob=np.concatenate([block.log_prob for block in joined]),
            log_weight=np.concatenate([block.log_weight for block in joined]),
        )


@dataclass(frozen=True)
class BothSides:
    """What samples of the target add to those of the flow."""

    lower_bound: Estimate
    acceptance_ratio: Estimate
    overlap: float
    effective_sample_size: float
    samples: int


@dataclass(frozen=True)
class Evaluation:
    """Free energies of a run, in nats for the whole field, -ln Z of the continuous representation of a magnet."""

    title: str
    target: str
    parameters_by_name: dict[str, Any]
    size: tuple[int, ...]
    sites: int
    beta: float | None
    bounds: str
    parameters: int
    training_seconds: float
    integration_steps: int
    integration_error: float
    tolerance: float
    mean_field: float | None
    variational: Estimate
    reweighted: Estimate
    internal_energy: Estimate
    entropy: Estimate
    effective_sample_size: float
    pareto_k: float
    both_sides: BothSides | None
    exact: float | None
    method: str | None
    log_z_ising: Estimate | None
    samples: SampleSet

    def __str__(self) -> str:
        return self.table()

    @property
    def certified(self) -> bool:
        """Whether the integration error is within the run's tolerance."""
        return self.integration_error <= self.tolerance

    @property
    def gap(self) -> Estimate | None:
        """The bound minus the exact answer; None where that is unknown."""
        return None if self.exact is None else self.variational - self.exact

    @property
    def best(self) -> tuple[Estimate, str]:
        """The best estimate of -ln Z, and how it was found."""
        if self.both_sides is None:
            return self.reweighted, "reweighting"
        return self.both_sides.acceptance_ratio, "acceptance ratio"

    @property
    def warnings(self) -> list[str]:
        """Why the estimates should not be trusted, if so."""
        found = []
        if not self.certified:
            found.append(f"not certified: the integration error is above its tolerance of {self.tolerance:g} nats")
        if self.pareto_k > HEAVY_TAIL:
            found.append(
                f"heavy-tailed weights (Pareto k = {self.pareto_k:.2f}, above {HEAVY_TAIL}): do not trust "
                "the reweighted estimate and its error"
            )
        if self.both_sides is None:
            return found
        overlap, reverse = self.both_sides.overlap, self.both_sides.effective_sample_size
        if overlap < LITTLE_OVERLAP:
            found.append(
                f"samples of flow and target hardly overlap ({overlap:.2g} of them do): do not trust the "
                "acceptance-ratio estimate and its error; the bounds hold"
            )
        if self.effective_sample_size > DISAGREEMENT * reverse:
            found.append(
                f"the effective sample size is {100 * self.effective_sample_size:.2g} % seen from the flow but "
                f"{100 * reverse:.2g} % from the target: the flow misses part of it; " + ADVICE[self.bounds]
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow evaluate --json`; null for what is not known."""
        sides = self.both_sides
        ising = self.log_z_ising
        scale = -1 / (self.beta * self.sites) if self.beta else None
        return {
            "target": {"name": self.target, "parameters": self.parameters_by_name},
            "size": list(self.size),
            "sites": self.sites,
            "beta": self.beta,
            "bounds": self.bounds,
            "samples": len(self.samples.log_weight),
            "parameters": self.parameters,
            "training_seconds": self.training_seconds,
            "certified": self.certified,
            "integration_error_nats": self.integration_error if math.isfinite(self.integration_error) else None,
            "integration_steps": self.integration_steps,
            "mean_field_free_energy": self.mean_field,
            "variational_free_energy": self.variational.as_dict(),
            "exact_free_energy": self.exact,
            "gap_nats": None if self.gap is None else self.gap.as_dict(),
            "acceptance_ratio_free_energy": sides and sides.acceptance_ratio.as_dict(),
            "overlap": sides and sides.overlap,
            "reweighted_free_energy": self.reweighted.as_dict(),
            "lower_bound": sides and sides.lower_bound.as_dict(),
            "reference_samples": sides and sides.samples,
            "internal_energy": self.internal_energy.as_dict(),
            "entropy": self.entropy.as_dict(),
            "effective_sample_size": self.effective_sample_size,
            "reverse_effective_sample_size": sides and sides.effective_sample_size,
            "pareto_k": self.pareto_k if math.isfinite(self.pareto_k) else None,
            "log_z_ising": ising and ising.as_dict() | {"method": self.best[1]},
            "free_energy_ising_per_site": (scale * ising).as_dict() if ising and scale else None,
            "warnings": self.warnings,
        }

    def table(self) -> str:
        """Bounds, estimates and the exact answer, one a line, for people."""
        count, sides = len(self.samples.log_weight), self.both_sides
        rows: list[tuple[str, str, str, float]] = []
        if self.mean_field is not None:
            rows.append(("mean-field Gaussian bound", "", f"{self.mean_field:.2f}", self.mean_field))
        rows += [
            ("variational bound", f"({count} samples)", str(self.variational), self.variational.value),
            ("reweighted estimate", f"({count})", str(self.reweighted), self.reweighted.value),
        ]
        if sides is None:
            rows.append(("lower bound", "(the target has no samples of its own)", "", math.nan))
        else:
            both, ratio = f"({count} + {sides.samples})", sides.acceptance_ratio
            rows.append(("acceptance-ratio estimate", both, str(ratio), ratio.value))
            lower = sides.lower_bound
            rows.append(("lower bound", f"({sides.samples} Monte Carlo)", str(lower), lower.value))
        if self.exact is None:
            rows.append(("exact", "(no method known)", "", math.nan))
        else:
            rows.append((f"exact ({str(self.method).title()})", "", f"{self.exact:.4f}", self.exact))
        lines = [f"{self.title:<58}{'total (nats)':>22}{'per site':>13}"]
        for name, note, total, value in rows:
            per_site = "" if math.isnan(value) else f"{value / self.sites:.6f}"
            lines.append(f"  {name:<28}{note:<28}{total:>22}{per_site:>13}".rstrip())
        verdict = "certified" if self.certified else f"NOT CERTIFIED: above its tolerance of {self.tolerance:g}"
        summary = [
            "" if self.gap is None else f"gap {self.gap} nats",
            f"effective sample size {100 * self.effective_sample_size:.2g} % (Pareto k {self.pareto_k:.2f})",
            f"integration error {self.integration_error:.2g} nats ({verdict})",
        ]
        notes = [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join([*lines, "  " + "    ".join(filter(None, summary)), *notes])


def load_run(
    run: AnyRun, device: torch.device, target: Target | None = None, flow: Flow | None = None
) -> tuple[Flow, Target, dict[str, Any]]:
    """The flow of a run on a target in evaluation mode, its target, and the state saved with it.

    Args:
        run: a run folder with a checkpoint.
        device: where to put them.
        target: of a run on a user's own.
        flow: of a run whose flow is the user's own: one of the same make.

    Raises:
        InvalidInput: the run is on data, or on a user's own target, and none or another one is given.
    """
    found = run.config.target(target)
    flow, state = trained(run, new_flow(run.config, found) if flow is None else flow, device)
    return flow, found.to(device), state


def draw_samples(
    run: AnyRun,
    *,
    samples: int,
    device: torch.device,
    seed: int = 0,
    draws: int = 1,
    target: Target | None = None,
    flow: Flow | None = None,
) -> SampleSet:
    """Samples of a trained flow with their log-probabilities, log-weights and spins, all kept in memory."""
    blocks = stream_samples(run, samples=samples, device=device, seed=seed, draws=draws, target=target, flow=flow)
    return SampleSet.join(blocks)


def stream_samples(
    run: AnyRun,
    *,
    samples: int,
    device: torch.device,
    seed: int = 0,
    draws: int = 1,
    target: Target | None = None,
    flow: Flow | None = None,
) -> Iterator[SampleSet]:
    """The samples of `draw_samples`, for the same arguments, in blocks.

    Args:
        run: a run folder with a checkpoint, which is read at once.
        samples: number of fields.
        device: where to sample.
        seed: of fields and spins.
        draws: of spins, for every field.
        target, flow: of a run on a user's own.
    """
    flow, found, _ = load_run(run, device, target, flow)
    generator = torch.Generator(device).manual_seed(seed)

    def blocks() -> Iterator[SampleSet]:
        with workers(device) as pool:
            yield from _draw(flow, found, samples, generator, pool, draws)

    return blocks()


def evaluate_target(
    run: AnyRun,
    *,
    samples: int,
    device: torch.device,
    seed: int = 0,
    reference_samples: int | None = None,
    target: Target | None = None,
    flow: Flow | None = None,
) -> Evaluation:
    """Evaluate a trained flow on fresh samples of its own and, where the target has some, of the target.

    The integration error is the mean absolute change of ln p + E at half the step, over the first samples of the flow
    and, backwards, of the target: the larger of the two. Statistical errors are one sigma.

    Args:
        run: a run folder with a checkpoint.
        samples: at least 2.
        device: where to evaluate.
        seed: of the samples.
        reference_samples: of the target, about; a quarter as many as of the flow if not given.
        target, flow: of a run on a user's own.

    Raises:
        InvalidInput: the flow gives weights that are not numbers.
    """
    flow, found, state = load_run(run, device, target, flow)
    generator = torch.Generator(device).manual_seed(seed)
    exact, method = (found.exact_free_energy() if isinstance(found, ExactlySolved) else None) or (None, None)
    reverse = None
    with workers(device) as pool:
        latent = flow.noise(min(samples, ERROR_SAMPLES), generator)
        error = integration_error(flow, found.energy, latent, pool).value
        drawn = SampleSet.join(_draw(flow, found, samples, generator, pool))
        if isinstance(found, Referenced):
            count = max(samples // 4, 2) if reference_samples is None else reference_samples
            reverse, first_fields = _reverse_log_weights(flow, found, count, seed, generator, pool)
            error = max(error, likelihood_error(flow, first_fields, pool).value)
    weights = drawn.log_weight
    energies = -weights - drawn.log_prob
    both_sides = None if reverse is None else _both_sides(weights, reverse, exact)
    reweighted = reweighted_free_energy(weights)
    best = reweighted if both_sides is None else both_sides.acceptance_ratio
    return Evaluation(
        title=found.title(),
        target=found.name,
        parameters_by_name=found.parameters_by_name,
        size=tuple(found.shape),
        sites=found.sites,
        beta=found.beta if isinstance(found, Magnetic) else None,
        bounds=run.config.training.bounds,
        parameters=flow.parameter_count,
        training_seconds=float(state["seconds"]),
        integration_steps=int(state["steps"]),
        integration_error=error,
        tolerance=run.config.training.tolerance,
        mean_field=found.mean_field().free_energy if isinstance(found, Magnetic) else None,
        variational=variational_free_energy(weights),
        reweighted=reweighted,
        internal_energy=internal_energy(energies, weights),
        entropy=entropy(energies, weights),
        effective_sample_size=effective_sample_size(weights),
        pareto_k=pareto_k(weights),
        both_sides=both_sides,
        exact=exact,
        method=method,
        log_z_ising=found.log_z_ising(best) if isinstance(found, Magnetic) else None,
        samples=drawn,
    )


def _both_sides(forward: np.ndarray, reverse: Tensor, exact: float | None) -> BothSides:
    """The bound from below and the estimate that combines both, from log-weights of flow and target."""
    ratio = acceptance_ratio_free_energy(forward, reverse)
    return BothSides(
        lower_bound=lower_bound(reverse),
        acceptance_ratio=ratio,
        overlap=overlap(forward, reverse, ratio.value),
        effective_sample_size=reverse_effective_sample_size(reverse, ratio.value if exact is None else exact),
        samples=reverse.numel(),
    )


@torch.no_grad()
def _draw(
    flow: Flow,
    target: Target,
    samples: int,
    generator: torch.Generator,
    pool: Workers,
    draws: int = 1,
) -> Iterator[SampleSet]:
    def push(latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        field, log_prob = pushed(flow, latent)
        return field, log_prob, log_weights(target.energy, field, log_prob)

    batch = min(BATCH, max(1, MOST_SPINS // (draws * target.sites)))
    for start in range(0, samples, batch):
        latent = flow.noise(min(batch, samples - start), generator)
        field, log_prob, weights = map(torch.cat, zip(*pool.map(push, latent), strict=True))
        spins = None
        if isinstance(target, Drawing):
            drawn = torch.stack([target.draw(field, generator)["spins"] for _ in range(draws)], 1)
            spins = (drawn.squeeze(1) if draws == 1 else drawn).cpu().numpy()
        yield SampleSet(spins, *(tensor.cpu().numpy() for tensor in (field, log_prob, weights)))


@torch.no_grad()
def _reverse_log_weights(
    flow: Flow, target: Referenced, samples: int, seed: int, generator: torch.Generator, pool: Workers
) -> tuple[Tensor, Tensor]:
    """Log-weights of samples of the target by Monte Carlo, shape (chains, samples per chain), and the first fields."""
    chains = min(REFERENCE_CHAINS, samples)
    states = target.reference(-(-samples // chains), chains=chains, seed=seed)

    def pull(field: Tensor) -> Tensor:
        return log_weights(target.energy, field, flow.log_prob(field))

    def drawn(batch: Tensor) -> Tensor:
        return target.sample_field(batch.to(generator.device, torch.float32), generator)

    batch, *others = states.flatten(0, 1).split(BATCH)
    first = drawn(batch)
    parts = pool.map(pull, first)
    for batch in others:
        parts += pool.map(pull, drawn(batch))
    return torch.cat(parts).view(chains, -1).cpu(), first
