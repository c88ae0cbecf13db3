"""What an evaluation of a flow on a target has found: bounds, estimates, the exact answer, as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isingflow.evaluation.verdict import checked, verdict
from isingflow.runtime.resources import duration
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import (
    HEAVY_TAIL,
    LITTLE_OVERLAP,
    acceptance_ratio_free_energy,
    lower_bound,
    overlap,
    reverse_effective_sample_size,
)

if TYPE_CHECKING:
    from isingflow.evaluation.bridging import Annealed
    from isingflow.evaluation.warmer import AnnealedTo
    from isingflow.exact.thermodynamics import Thermodynamics

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

    @classmethod
    def of(cls, forward: np.ndarray, reverse: np.ndarray, exact: float | None) -> BothSides:
        """From log-weights of the flow, shape (n,), and of the target, shape (chains, samples), and -ln Z if known."""
        ratio = acceptance_ratio_free_energy(forward, reverse)
        return cls(
            lower_bound=lower_bound(reverse),
            acceptance_ratio=ratio,
            overlap=overlap(forward, reverse, ratio.value),
            effective_sample_size=reverse_effective_sample_size(reverse, ratio.value if exact is None else exact),
            samples=reverse.size,
        )


@dataclass(frozen=True)
class Evaluation:
    """Free energies of a run, in nats for the whole field, -ln Z of the continuous representation of a magnet.

    Attributes:
        title: of the run, as `runs.config.heading` gives it.
        energy_per_site, magnetisation_abs: of a magnet's spins, averages over the samples with their weights.
        exact_spins: of a magnet that has an exact solution.
        sampled_loss: what the training ended at, of a flow with a sampled average: as published, and no bound.
        shortened: whether there was time for fewer samples than were asked for, or a stop was requested.
        left_out: what a limit of time left no room for at all, or little, in words.
        exact_within: seconds that an exact answer might take, where there was a limit.
        field, magnetisation: of a magnet in an external field, which a number or a nested list gives; else None.
        annealed: what a bridge between flow and target adds, if one was asked for.
        annealed_to: of a run with a goal: ln Z of the spins there; all else is at the temperature of the training.
    """

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
    energy_per_site: Estimate | None
    magnetisation_abs: Estimate | None
    exact_spins: Thermodynamics | None
    samples: SampleSet
    sampled_loss: float | None = None
    shortened: bool = False
    left_out: tuple[str, ...] = ()
    exact_within: float | None = None
    field: float | list[Any] | None = None
    magnetisation: Estimate | None = None
    annealed: Annealed | None = None
    annealed_to: AnnealedTo | None = None

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
        if self.annealed is not None:
            return self.annealed.best
        if self.both_sides is None:
            return self.reweighted, "reweighting"
        return self.both_sides.acceptance_ratio, "acceptance ratio"

    @property
    def misses_part(self) -> bool:
        """Whether far more samples count seen from the flow than from the target: it misses part of it."""
        sides = self.both_sides
        return sides is not None and self.effective_sample_size > DISAGREEMENT * sides.effective_sample_size

    @property
    def warnings(self) -> list[str]:
        """Why the estimates should not be trusted, if so."""
        found = []
        if not self.certified:
            found.append(f"check failed: the integration error is above its tolerance of {self.tolerance:g} nats")
        if self.shortened:
            found.append("fewer samples than asked for: a time limit or a stop left no room for all")
        found += [f"{what}: the time limit left no room" for what in self.left_out]
        if self.pareto_k > HEAVY_TAIL:
            found.append(
                f"heavy-tailed weights (Pareto k = {self.pareto_k:.2f}, above {HEAVY_TAIL}): do not trust "
                "the reweighted estimate and its error"
            )
        if self.annealed is not None:
            found += self.annealed.warnings
        if self.annealed_to is not None:
            found += self.annealed_to.warnings
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
        if self.misses_part:
            found.append(
                f"the effective sample size is {100 * self.effective_sample_size:.2g} % seen from the flow but "
                f"{100 * reverse:.2g} % from the target: the flow misses part of it; " + ADVICE[self.bounds]
            )
        return found

    @property
    def verdict(self) -> str:
        """What of all this can be trusted, and if little, what to do, in one line."""
        own = verdict(self)
        if self.annealed_to is None or not self.certified:
            return own
        goal = self.annealed_to.verdict(self.integration_error)
        return f"at beta {self.annealed_to.beta:g}: {goal}. At beta {self.beta:g}, of the flow: {own}"

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
            **({} if self.field is None else {"field": self.field}),
            "bounds": self.bounds,
            "samples": len(self.samples.log_weight),
            "shortened": self.shortened or bool(self.left_out),
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
            **({} if self.magnetisation is None else {"magnetisation": self.magnetisation.as_dict()}),
            **({} if self.annealed is None else {"annealed": self.annealed.as_dict()}),
            **({} if self.annealed_to is None else {"annealed_to": self.annealed_to.as_dict()}),
            "warnings": self.warnings,
            "verdict": self.verdict,
        }

    def table(self) -> str:
        """For people: of the spins what a physicist asks for, of the field what flows bound; one quantity a line."""
        rows = [*self._heading(), *self._spin_rows(), *self._field_rows(), *self._goal_rows()]
        summary = [
            "" if self.gap is None else f"gap {self.gap} nats",
            f"effective sample size {100 * self.effective_sample_size:.2g} % (Pareto k {self.pareto_k:.2f})",
            *self._annealed_summary(),
            checked(self.certified, self.integration_error, self.tolerance),
        ]
        notes = [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join([*rows, "  " + "    ".join(filter(None, summary)), *notes, f"  verdict: {self.verdict}"])

    def _heading(self) -> list[str]:
        title, _, rest = self.title.partition("; ")
        return [title, f"{rest}; {self.parameters} parameters, trained for {self.training_seconds:.3g} s"]

    def _spin_rows(self) -> list[str]:
        """Of magnets: free energy, ln Z, energy and magnetisation of the spins."""
        if self.log_z_ising is None:
            return []
        how, exact = self.best[1], self.exact_spins
        known = "" if exact is None else f"exact ({_in_words(exact.method)})"
        exact_magnetisation = None if exact is None else exact.magnetisation_per_site
        rows: list[tuple[str, str, Estimate | None, float | None]] = []
        if self.beta:
            scale = -1 / (self.beta * self.sites)
            answer = None if exact is None else scale * exact.log_z
            rows.append(("free energy per site", f"-T ln Z / N, {how}", scale * self.log_z_ising, answer))
        rows += [
            ("ln Z", how, self.log_z_ising, None if exact is None else exact.log_z),
            ("energy per site", "reweighted", self.energy_per_site, None if exact is None else exact.energy_per_site),
            ("magnetisation m per site", "reweighted", self.magnetisation, exact_magnetisation),
            ("magnetisation |m| per site", "reweighted", self.magnetisation_abs, None),
        ]
        lines = [_row("  Ising spins, in units of J (k_B = 1)", "", "estimate", known)]
        for name, note, estimate, answer in rows:
            if estimate is not None:
                beside = "" if answer is None else f"{answer:.{min(estimate.decimals + 1, 12)}f}"
                lines.append(_row(f"    {name}", note, str(estimate), beside))
        return lines

    def _field_rows(self) -> list[str]:
        """Bounds, estimates and the exact answer for -ln Z of the field."""
        count, sides = len(self.samples.log_weight), self.both_sides
        rows: list[tuple[str, str, Estimate | float | None]] = []
        if self.mean_field is not None:
            rows.append(("mean-field Gaussian bound", "from above", self.mean_field))
        if self.sampled_loss is not None:
            rows.append(("training, as published", "stages of sampled elements: no bound", self.sampled_loss))
        rows += [
            ("variational bound", f"from above, {count} samples", self.variational),
            ("reweighted estimate", f"{count} samples", self.reweighted),
        ]
        if sides is None:
            taken = self.shortened or bool(self.left_out)
            why = "no samples of the target were taken" if taken else "the target has no samples of its own"
            rows.append(("lower bound", why, None))
        else:
            both = f"{count} + {sides.samples} samples" if sides.overlap else "no overlap"
            rows.append(("acceptance-ratio estimate", both, sides.acceptance_ratio))
            rows.append(("lower bound", f"from below, {sides.samples} Monte Carlo", sides.lower_bound))
        rows += self._annealed_rows()
        if self.exact is None:
            within = "" if self.exact_within is None else f" that takes less than {duration(self.exact_within)}"
            rows.append(("exact", f"no method known{within}", None))
        else:
            rows.append((f"exact ({_in_words(self.method)})", "", self.exact))
        what = "continuous field, -ln Z in nats" if self.log_z_ising is not None else "-ln Z in nats"
        lines = [_row(f"  {what}", "", "total", "per site")]
        for name, note, value in rows:
            if isinstance(value, Estimate):
                shown = str(value), str(value / self.sites)
            else:
                shown = ("", "") if value is None else (f"{value:.4f}", f"{value / self.sites:.6f}")
            lines.append(_row(f"    {name}", note, *shown))
        return lines

    def _goal_rows(self) -> list[str]:
        """ln Z of the spins at the goal, if there is one."""
        if self.annealed_to is None or self.beta is None:
            return []
        share, seconds = self.effective_sample_size, self.training_seconds
        return self.annealed_to.lines(self.beta, self.gap, share, seconds)

    def _annealed_summary(self) -> list[str]:
        if self.annealed is None:
            return []
        found = self.annealed
        gap = "" if self.exact is None else f"gap {found.upper_bound - self.exact} nats, "
        return [f"annealed: {gap}effective sample size {100 * found.effective_sample_size:.2g} %"]

    def _annealed_rows(self) -> list[tuple[str, str, Estimate | float | None]]:
        """Of the bridge, if there is one."""
        if self.annealed is None:
            return []
        found = self.annealed
        alone = f"{found.paths} paths"
        if found.resampled is not None:
            alone = f"{found.resampled.islands} x {found.paths // found.resampled.islands} paths"
        paths = f"{found.paths} + {found.reference_paths} paths" if found.both_ways else alone
        rows: list[tuple[str, str, Estimate | float | None]] = [
            (f"annealed bound, {found.plan.steps} steps", f"from above, {alone}", found.upper_bound),
            ("annealed estimate", paths, found.best[0]),
        ]
        if found.lower_bound is not None:
            rows.append(("annealed lower bound", f"from below, {found.reference_paths} paths", found.lower_bound))
        return rows


def _row(name: str, note: str, first: str, second: str) -> str:
    """A line of the table."""
    return f"{f'{name:<32}{note}':<61} {first:>20}{second:>25}".rstrip()


def _in_words(method: str | None) -> str:
    """An exact method, as "Transfer matrix"."""
    return str(method).replace("-", " ").capitalize()
