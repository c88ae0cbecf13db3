"""What Monte Carlo at a range of temperatures has found, as JSON, as a table and as a figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isingflow.errors import FileError, InvalidInput
from isingflow.evaluation.known import exact_answers
from isingflow.exact.thermodynamics import Thermodynamics
from isingflow.lattice import Lattice, critical_beta, external
from isingflow.observables.reweighted import Reweighted
from isingflow.observables.thermal import ThermalSeries
from isingflow.runtime import stopping
from isingflow.runtime.files import write_atomically
from isingflow.runtime.numbers import finite_or_none
from isingflow.statistics.chains import MOST_R_HAT
from isingflow.statistics.estimate import Estimate

EXACT = {
    "energy_per_site": "energy_per_site",
    "heat_capacity_per_site": "heat_capacity_per_site",
    "magnetisation": "magnetisation_per_site",
}
"""Observables that have exact answers, with their names among those."""
CURVE_POINTS = 201
"""Of smooth curves in figures."""
CURVE_SECONDS = 5.0
"""For the exact answers of these."""
UNKNOWN = {"value": None, "stderr": None}


@dataclass(frozen=True)
class ScanRow:
    """What chains at one temperature say.

    Attributes:
        beta: inverse temperature.
        observables: by name, as `ThermalSeries.observables` has them; None for what is not defined.
        r_hat: whether the chains agree, the worse of energy and m^2.
        exact: the exact answers, or None.
    """

    beta: float
    observables: dict[str, Estimate | None]
    r_hat: float
    exact: Thermodynamics | None

    def exact_value(self, name: str) -> float | None:
        """The exact answer for an observable; None where it is not known."""
        return None if self.exact is None or name not in EXACT else getattr(self.exact, EXACT[name])

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: a row of the table."""
        found: dict[str, Any] = {"beta": self.beta}
        for name, estimate in self.observables.items():
            found[name] = UNKNOWN if estimate is None else estimate.as_dict()
            if name in EXACT:
                found[f"exact_{name}"] = self.exact_value(name)
        return finite_or_none(found | {"r_hat": self.r_hat})


@dataclass(frozen=True, eq=False)
class ScanReport:
    """Monte Carlo at several temperatures; made by `isingflow.scan`. As a string it is a table.

    Attributes:
        lattice: the spins.
        series: along the chains at each temperature, in ascending order of beta.
        samplers: what moved the spins there.
        rows: what they say there.
        notes: what is not as it was asked for.
        seed: of the chains.
        seconds: that it took.
    """

    lattice: Lattice
    series: tuple[ThermalSeries, ...]
    samplers: tuple[str, ...]
    rows: tuple[ScanRow, ...]
    notes: tuple[str, ...]
    seed: int
    seconds: float

    @property
    def critical_beta(self) -> float | None:
        """Of the infinite lattice; None where it is not known, or in an external field."""
        try:
            return None if self.lattice.field is not None else critical_beta(self.lattice).value
        except InvalidInput:
            return None

    @property
    def warnings(self) -> list[str]:
        """Why the numbers should not be trusted, if so."""
        far = [row for row in self.rows if row.r_hat > MOST_R_HAT]
        found = list(self.notes)
        if far:
            worst = max(far, key=lambda row: row.r_hat)
            found.append(
                f"chains at {len(far)} of {len(self.rows)} temperatures do not agree (R-hat {worst.r_hat:.3f} at beta "
                f"{worst.beta:g}, above {MOST_R_HAT}): more samples, or more sweeps to thermalise, are needed there"
            )
        return found

    def reweighted(self) -> Reweighted:
        """All temperatures taken together: observables at every beta between.

        Raises:
            InvalidInput: their energies do not overlap.

        Example:
            >>> from isingflow.evaluation.temperatures import scan
            >>> from isingflow.lattice import square
            >>> between = scan(square(4), [0.3, 0.36], samples=400).reweighted().at([0.33])
            >>> -1.1 < between[0]["energy_per_site"].value < -0.8
            True
        """
        return Reweighted(self.series, seed=self.seed)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow monte-carlo --beta FIRST:LAST:COUNT --json`."""
        chains, samples = self.series[0].energy.shape
        return {
            "lattice": self.lattice.kind,
            "size": list(self.lattice.size),
            "sites": self.lattice.sites,
            **external.entry(self.lattice.field),
            "beta": [row.beta for row in self.rows],
            "critical_beta": self.critical_beta,
            "samples": chains * samples,
            "chains": chains,
            "sampler": sorted(set(self.samplers))[0] if len(set(self.samplers)) == 1 else list(self.samplers),
            "rows": [row.as_dict() for row in self.rows],
            "warnings": self.warnings,
            "seconds": self.seconds,
        }

    @property
    def title(self) -> str:
        """The magnet in words."""
        model = "Ising" if self.lattice.dimensions is None else f"{self.lattice.dimensions}D Ising"
        return f"{model}, {self.lattice}, beta = {self.rows[0].beta:g} to {self.rows[-1].beta:g}"

    def write(self, table: Path, series: Path, figure: Path) -> None:
        """Write a row for each temperature as comma-separated values, the series of all chains, and the figure.

        Raises:
            FileError: they cannot be written.
        """
        from isingflow.evaluation.tables import write_table
        from isingflow.observables.series_files import write_series
        from isingflow.plots.style import png

        drawn = png(self.figure(), self.title)
        write_series(series, self.series, self.samplers)
        write_table(table, [row.as_dict() for row in self.rows])
        try:
            write_atomically(figure, drawn)
        except OSError as error:
            raise FileError(f"cannot write {figure}: {error.strerror or error}") from None

    def figure(self) -> Any:
        """Every observable against beta: chains with their errors, reweighted and exact curves, the transition."""
        from isingflow.plots.temperatures import temperatures_figure

        betas = np.array([row.beta for row in self.rows])
        fine = np.linspace(betas[0], betas[-1], CURVE_POINTS) if len(betas) > 1 else betas
        exact, late = stopping.watched(exact_answers, self.lattice, fine.tolist(), seconds=CURVE_SECONDS)
        if late is not None:
            fine, exact = betas, [row.exact for row in self.rows]
        known = {name: np.array([getattr(one, there, None) for one in exact], float) for name, there in EXACT.items()}
        try:
            between = None if len(betas) == 1 else stopping.watched(self.reweighted().at, fine)
        except InvalidInput:
            between = None
        return temperatures_figure(
            betas,
            [row.observables for row in self.rows],
            curve=None if between is None else (fine, between),
            exact=(fine, known),
            critical=self.critical_beta,
        )

    def __str__(self) -> str:
        chains, samples = self.series[0].energy.shape
        shown = (
            "energy_per_site",
            "heat_capacity_per_site",
            "magnetisation_abs",
            "binder",
            "correlation_length_over_size",
        )
        names = ("energy", "heat capacity", "|m|", "Binder", "xi/L")
        lines = [
            f"{self.title}: {chains} chains of {samples} samples at each ({', '.join(sorted(set(self.samplers)))}); "
            f"{self.seconds:.3g} s",
            f"  {'beta':>10}"
            + "".join(f"{name:>24}" for name in names)
            + f"{'exact energy':>16}{'exact heat capacity':>22}",
        ]
        for row in self.rows:
            exact = [row.exact_value(name) for name in shown[:2]]
            cells = "".join(f"{'' if row.observables.get(n) is None else str(row.observables[n]):>24}" for n in shown)
            known = "".join(
                f"{'' if value is None else f'{value:.6f}':>{width}}"
                for value, width in zip(exact, (16, 22), strict=True)
            )
            lines.append(f"  {row.beta:>10.6g}{cells}{known}")
        if self.critical_beta is not None:
            lines.append(f"  critical beta of the infinite lattice {self.critical_beta:.8g}")
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])
