"""What annealing has found, as JSON and as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isingflow.errors import FileError
from isingflow.evaluation.verdict import verdict_of_annealing
from isingflow.lattice import Lattice, external, heading
from isingflow.monte_carlo.paths import Paths
from isingflow.runtime.files import write_atomically
from isingflow.runtime.numbers import finite_or_none
from isingflow.statistics.chains import MOST_R_HAT
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import LITTLE_OVERLAP


@dataclass(frozen=True)
class AnnealedRow:
    """ln Z of the spins at one temperature, in nats.

    Attributes:
        beta: inverse temperature.
        log_z: the best estimate, by its `method`, "acceptance ratio" or "reweighting".
        lower_bound, upper_bound: from forward paths, and from paths in reverse.
        effective_sample_size: of the forward weights, 0..1; `reverse_effective_sample_size` is the same, seen from the
            reverse paths.
        counting: reverse paths that count for the upper bound here: all of them at the last temperature.
        overlap: forward and reverse paths that overlap, see `statistics.free_energy.overlap`.
        exact: exact ln Z and its method, or None.
    """

    beta: float
    log_z: Estimate
    method: str
    lower_bound: Estimate
    upper_bound: Estimate
    effective_sample_size: float
    reverse_effective_sample_size: float
    counting: float
    overlap: float
    exact: tuple[float, str] | None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        value, method = self.exact or (None, None)
        return {
            "beta": self.beta,
            "log_z": self.log_z.as_dict(),
            "estimator": self.method,
            "lower_bound": self.lower_bound.as_dict(),
            "upper_bound": self.upper_bound.as_dict(),
            "exact_log_z": value,
            "exact_method": method,
            "effective_sample_size": self.effective_sample_size,
            "reverse_effective_sample_size": self.reverse_effective_sample_size,
            "overlap": self.overlap,
        }


@dataclass(frozen=True, eq=False)
class AnnealingReport:
    """ln Z by annealing from both sides; made by `isingflow.anneal`. As a string it is a table.

    Attributes:
        lattice: the spins.
        paths: with their log-weights and their schedule.
        rows: what they say at each temperature, from the start to the end.
        notes: what is not as it was asked for.
        seconds: that it took, before an interruption too.
    """

    lattice: Lattice
    paths: Paths
    rows: tuple[AnnealedRow, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def end(self) -> AnnealedRow:
        """The last temperature, where paths in reverse begin."""
        return self.rows[-1]

    @property
    def log_z(self) -> Estimate:
        """At the last temperature."""
        return self.end.log_z

    @property
    def lower_bound(self) -> Estimate:
        """At the last temperature."""
        return self.end.lower_bound

    @property
    def upper_bound(self) -> Estimate:
        """At the last temperature."""
        return self.end.upper_bound

    @property
    def exact_log_z(self) -> float | None:
        """At the last temperature; None where it is not known."""
        return self.end.exact and self.end.exact[0]

    @property
    def moves(self) -> str:
        """What moved the spins."""
        return self.paths.moves

    @property
    def chains_agree(self) -> bool:
        """Whether the chains that paths in reverse begin with agree with each other."""
        return self.paths.at_end.r_hat <= MOST_R_HAT

    @property
    def starts_agree(self) -> bool:
        """Whether those do that forward paths begin with; at beta = 0 they are independent."""
        return self.paths.at_start is None or self.paths.at_start.r_hat <= MOST_R_HAT

    @property
    def warnings(self) -> list[str]:
        """Why the numbers should not be trusted, if so."""
        found = list(self.notes)
        for agree, chains, what in (
            (self.starts_agree, self.paths.at_start, "the bound from below"),
            (self.chains_agree, self.paths.at_end, "the bound from above"),
        ):
            if chains is not None and chains.shortened:
                found.append(f"the chains ({chains.sampler}) that {what} begins with are cut short by the time limit")
            if chains is not None and not agree:
                found.append(
                    f"the chains ({chains.sampler}) that {what} begins with do not agree (R-hat {chains.r_hat:.3f}, "
                    f"above {MOST_R_HAT}): do not trust it"
                )
        if self.end.overlap < LITTLE_OVERLAP:
            found.append(
                f"paths of both directions hardly overlap ({self.end.overlap:.2g} of them do): do not trust the "
                "estimate and its error; more sweeps bring them together"
            )
        few = [row.beta for row in self.rows if row.counting < LITTLE_OVERLAP <= self.paths.reverse.shape[0]]
        if few:
            found.append(
                f"fewer than {LITTLE_OVERLAP:g} paths in reverse count at beta {few[0]:g}"
                + (" and others" if len(few) > 1 else "")
                + ": do not trust the bound from above there; more sweeps or paths, or a range that ends there, help"
            )
        return found

    @property
    def verdict(self) -> str:
        """What of all this can be trusted, in one line."""
        return verdict_of_annealing(self)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow anneal --json`; a range of temperatures is a list of `rows`."""
        paths, pilot, chains = self.paths, self.paths.pilot, self.paths.at_end
        rows = [row.as_dict() for row in self.rows]
        if self.rows[0].beta > self.end.beta:
            rows.reverse()
        steps = np.searchsorted(np.abs(paths.betas - paths.start), np.abs(pilot.betas - paths.start))
        found = {
            "lattice": self.lattice.kind,
            "size": list(self.lattice.size),
            "sites": self.lattice.sites,
            **external.entry(self.lattice.field),
            **(rows[0] if len(rows) == 1 else {"beta": [row["beta"] for row in rows], "rows": rows}),
            "from_beta": paths.start,
            "method": self.moves,
            "paths": len(paths.forward),
            "reverse_paths": len(paths.reverse),
            "sweeps": paths.sweeps,
            "seed": paths.seed,
            "schedule": {
                "thermodynamic_length": float(pilot.lengths[-1]),
                "beta": pilot.betas.tolist(),
                "step": np.minimum(steps, paths.sweeps).tolist(),
                "heat_capacity_per_site": (pilot.betas**2 * pilot.variance / self.lattice.sites).tolist(),
                "friction": pilot.friction.tolist(),
            },
            "chains": {
                "sampler": chains.sampler,
                "chains": chains.states.shape[0],
                "samples": chains.states.shape[1],
                "r_hat": chains.r_hat,
                **({} if paths.at_start is None else {"start_r_hat": paths.at_start.r_hat}),
            },
            "lower_bound_checked": self.starts_agree,
            "upper_bound_checked": self.starts_agree and self.chains_agree,
            "warnings": self.warnings,
            "verdict": self.verdict,
            "seconds": self.seconds,
        }
        return finite_or_none(found)

    @property
    def title(self) -> str:
        """The magnet in words."""
        title = heading(self.lattice, self.end.beta)
        if len(self.rows) == 1:
            return title
        first, last = sorted((self.rows[0].beta, self.end.beta))
        return title.partition(", beta =")[0] + f", beta = {first:g} to {last:g}"

    def write(self, table: Path, figure: Path) -> None:
        """Write a row for each temperature as comma-separated values, and the curve as a figure.

        Raises:
            FileError: they cannot be written.
        """
        from isingflow.evaluation.tables import write_table
        from isingflow.plots.curves import log_z_figure
        from isingflow.plots.style import png

        rows = sorted(self.rows, key=lambda row: row.beta)
        write_table(table, [row.as_dict() for row in rows])
        drawn = log_z_figure(
            [row.beta for row in rows],
            lower=[row.lower_bound for row in rows],
            estimates=[row.log_z for row in rows],
            upper=[row.upper_bound for row in rows],
            exact=[row.exact and row.exact[0] for row in rows],
        )
        try:
            write_atomically(figure, png(drawn, self.title))
        except OSError as error:
            raise FileError(f"cannot write {figure}: {error.strerror or error}") from None

    def __str__(self) -> str:
        paths = self.paths
        begin = "" if paths.at_start is None else f" and {paths.at_start.r_hat:.3f}"
        chains = f"chains by {paths.at_end.sampler}, R-hat {paths.at_end.r_hat:.3f}{begin}"
        lines = [
            f"{self.title}: annealed from beta = {paths.start:g}",
            f"  {self.moves}, {len(paths.forward)} + {len(paths.reverse)} paths of {paths.sweeps} sweeps, {chains}; "
            f"{self.seconds:.3g} s",
            *(self._lines(self.end) if len(self.rows) == 1 else self._table()),
            *(f"  warning: {warning}" for warning in self.warnings),
            f"  verdict: {self.verdict}",
        ]
        return "\n".join(lines)

    def _lines(self, row: AnnealedRow) -> list[str]:
        """One temperature, a quantity a line."""
        sites, beta = self.lattice.sites, row.beta
        mark = "" if self.chains_agree and self.starts_agree else ", CHAINS DO NOT AGREE"
        below = "" if self.starts_agree else ", CHAINS DO NOT AGREE"
        rows: list[tuple[str, str, Estimate | float]] = [
            ("lower bound", f"from below, forward paths{below}", row.lower_bound),
            ("ln Z", row.method, row.log_z),
            ("upper bound", f"from above, paths in reverse{mark}", row.upper_bound),
        ]
        if row.exact is not None:
            rows.append(("exact", row.exact[1].replace("-", " ").capitalize(), row.exact[0]))
        if beta:
            rows.append(("free energy -T ln Z", row.method, row.log_z * (-1 / beta)))
        lines = [f"  {'Ising spins':<60}{'total':>20}{'per site':>25}"]
        for name, note, value in rows:
            decimals = row.log_z.decimals + 1
            known = isinstance(value, Estimate)
            shown = str(value) if known else f"{value:.{decimals}f}"
            each = str(value / sites) if known else f"{value / sites:.{(row.log_z / sites).decimals + 1}f}"
            lines.append(f"  {f'  {name:<24}{note}':<60}{shown:>20}{each:>25}")
        share, back = 100 * row.effective_sample_size, 100 * row.reverse_effective_sample_size
        lines.append(f"  effective sample size {share:.2g} % forward, {back:.2g} % in reverse")
        return lines

    def _table(self) -> list[str]:
        """A range of temperatures, one a line, the coldest last."""
        lines = [
            f"  {'beta':>10}{'lower bound':>22}{'ln Z':>24}{'upper bound':>22}{'exact':>18}{'sample size':>13}",
        ]
        for row in sorted(self.rows, key=lambda row: row.beta):
            exact = "" if row.exact is None else f"{row.exact[0]:.{row.log_z.decimals + 1}f}"
            lines.append(
                f"  {row.beta:>10.6g}{row.lower_bound!s:>22}{row.log_z!s:>24}{row.upper_bound!s:>22}{exact:>18}"
                f"{100 * row.effective_sample_size:>11.0f} %"
            )
        return lines

    @property
    def bounds_apart(self) -> float:
        """Distance of the two bounds at the last temperature, in nats."""
        return self.upper_bound.value - self.lower_bound.value

    def distance_from_exact(self) -> tuple[AnnealedRow, float] | None:
        """The row whose estimate lies farthest from the exact answer in its standard errors, and how far that is."""
        far = [
            (row, abs(row.log_z.value - row.exact[0]) / (row.log_z.stderr or math.inf))
            for row in self.rows
            if row.exact is not None and row.beta != self.paths.start
        ]
        return max(far, key=lambda pair: pair[1], default=None)
