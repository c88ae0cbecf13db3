"""What an evaluation of a flow on a target has found: bounds, estimates, the exact answer, as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import (
    HEAVY_TAIL,
    LITTLE_OVERLAP,
)

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
        if overlap == 0:
            found.append(
                "samples of flow and target do not overlap: the acceptance-ratio estimate lies somewhere between them, "
                "with an unknown error; the bounds hold"
            )
        elif overlap < LITTLE_OVERLAP:
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
            known = (str(ratio), ratio.value) if sides.overlap else ("no overlap", math.nan)
            rows.append(("acceptance-ratio estimate", both, *known))
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
