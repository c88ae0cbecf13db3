"""What crossings and fits say of a critical point, as JSON, as a table and as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isingflow.errors import FileError, InvalidInput
from isingflow.lattice import Lattice, critical_beta
from isingflow.observables.crossing import Crossing
from isingflow.observables.reweighted import Reweighted
from isingflow.observables.thermal import ThermalSeries
from isingflow.runtime.files import write_atomically
from isingflow.runtime.numbers import finite_or_none
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.scaling import ScalingFit

UNKNOWN = {"value": None, "stderr": None}
WORDS = {"binder": "Binder ratio", "correlation_length_over_size": "xi/L"}
WIDTHS = {"beta": 24, "temperature": 22, "nu": 18, "value": 20}
"""Of the columns of estimates."""


@dataclass(frozen=True)
class FittedQuantity:
    """A fit by finite-size scaling, and of what."""

    quantity: str
    fit: ScalingFit


@dataclass(frozen=True, eq=False)
class CrossingReport:
    """The critical point from several sizes; made by `isingflow.crossings`. As a string it is a table.

    Attributes:
        series: by size L, ascending, those at every temperature.
        curves: by size, all temperatures taken together.
        rows: by size, the observables at every temperature.
        crossings: of neighbouring sizes, by quantity.
        fits: by quantity, to all sizes, to all but the smallest, and so on.
        notes: what does not cross, and why.
        resamples: draws of the bootstrap.
    """

    series: Mapping[int, tuple[ThermalSeries, ...]]
    curves: Mapping[int, Reweighted]
    rows: Mapping[int, list[dict[str, Estimate | None]]]
    crossings: tuple[Crossing, ...]
    fits: tuple[FittedQuantity, ...]
    notes: tuple[str, ...]
    resamples: int

    @property
    def lattice(self) -> Lattice:
        """The largest."""
        return self.series[max(self.series)][0].lattice

    @property
    def critical_beta(self) -> float | None:
        """The exact one of the infinite lattice, where it is known."""
        try:
            return critical_beta(self.lattice).value
        except InvalidInput:
            return None

    @property
    def best(self) -> FittedQuantity | None:
        """The fit to quote: with a correction if there is one, of the largest sizes otherwise; None without any.

        Of those whose chi^2 is acceptable; of both quantities the one with the smaller error.
        """
        accepted = [one for one in self.fits if one.fit.accepted and one.fit.beta.stderr > 0]
        corrected = [one for one in accepted if one.fit.omega is not None]
        least = max((one.fit.sizes[0] for one in accepted), default=0)
        among = corrected or [one for one in accepted if one.fit.sizes[0] == least]
        return min(among, key=lambda one: one.fit.beta.stderr, default=None)

    @property
    def warnings(self) -> list[str]:
        """Why the numbers should not be trusted, if so."""
        found = list(self.notes)
        lost = [one for one in self.crossings if math.isnan(one.beta.stderr)]
        for one in lost:
            found.append(
                f"{WORDS[one.quantity]} of L = {one.sizes[0]} and {one.sizes[1]}: many draws have no crossing, so that "
                "its error is not known; more samples, or temperatures farther from the crossing, are needed"
            )
        if not self.fits:
            found.append("too few temperatures near the transition for a fit by finite-size scaling")
        elif self.best is None:
            found.append("no fit has an acceptable chi^2: do not trust their errors; larger sizes are needed")
        elif self.best.fit.omega is None:
            found.append(
                "the fit leaves corrections of small sizes out, for which three sizes are needed: its error is that of "
                "statistics alone"
            )
        return found

    def table_rows(self) -> list[dict[str, Any]]:
        """Crossings and fits, one a row, all with the same entries."""
        rows = []
        for one in self.crossings:
            rows.append(_row(one.quantity, "crossing", one.sizes, one.beta, one.nu, one.value))
        for fitted in self.fits:
            found = fitted.fit
            row = _row(fitted.quantity, "fit", found.sizes, found.beta, found.nu, found.value)
            row |= {
                "omega": found.omega,
                "correction": found.correction.as_dict() if found.omega else UNKNOWN,
                "chi_squared": found.chi_squared,
                "degrees_of_freedom": found.degrees,
                "probability": found.probability,
                "points": found.points,
            }
            rows.append(row)
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow crossing --json`."""
        best, exact = self.best, self.critical_beta
        rows = self.table_rows()
        return finite_or_none(
            {
                "lattice": self.lattice.kind,
                "sizes": list(self.series),
                "temperatures": {str(size): [one.beta for one in of_size] for size, of_size in self.series.items()},
                "exact_beta": exact,
                "exact_temperature": None if exact is None else 1 / exact,
                "best": None if best is None else rows[len(self.crossings) + self.fits.index(best)],
                "crossings": rows[: len(self.crossings)],
                "fits": rows[len(self.crossings) :],
                "resamples": self.resamples,
                "warnings": self.warnings,
            }
        )

    @property
    def title(self) -> str:
        """The magnets in words."""
        lattice, sizes = self.lattice, ", ".join(map(str, self.series))
        return f"{lattice.dimensions}D Ising, {lattice.kind}, L = {sizes}"

    def write(self, table: Path, figure: Path) -> None:
        """Write crossings and fits as comma-separated values, and the figure.

        Raises:
            FileError: they cannot be written.
        """
        from isingflow.evaluation.tables import write_table
        from isingflow.plots.crossings import crossings_figure
        from isingflow.plots.style import png

        shown = {one.quantity: one.fit for one in reversed(self.fits) if one.fit.accepted}
        figures = crossings_figure(self.curves, self.rows, self.series, self.crossings, shown, self.critical_beta)
        drawn = png(figures, self.title)
        write_table(table, self.table_rows())
        try:
            write_atomically(figure, drawn)
        except OSError as error:
            raise FileError(f"cannot write {figure}: {error.strerror or error}") from None

    def __str__(self) -> str:
        lines = [
            f"{self.title}: {sum(len(of_size) for of_size in self.series.values())} series, {self.resamples} draws",
            f"  {'quantity':<14}{'sizes':<24}"
            + "".join(f"{name:>{width}}" for name, width in WIDTHS.items())
            + f"{'chi^2':>18}",
        ]
        for row in self.table_rows():
            fitted = row["chi_squared"] is not None
            chi = f"{row['chi_squared']:.1f} / {row['degrees_of_freedom']}" if fitted else ""
            sizes = ("fit " if fitted else "") + row["sizes"] + (f", L^-{row['omega']}" if row["omega"] else "")
            cells = "".join(f"{_shown(row[name]):>{width}}" for name, width in WIDTHS.items())
            lines.append(f"  {WORDS[row['quantity']]:<14}{sizes:<24}{cells}{chi:>18}")
        best, exact = self.best, self.critical_beta
        if exact is not None:
            lines.append(f"  {'exact, infinite lattice':<38}{exact:>24.8f}{1 / exact:>22.8f}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        if best is not None:
            there = best.fit.beta
            far = "" if exact is None else f", {abs(there.value - exact) / there.stderr:.1f} sigma from the exact value"
            lines.append(f"  verdict: beta_c = {there}, by {WORDS[best.quantity]} of L = {_sizes(best.fit.sizes)}{far}")
        return "\n".join(lines)


def _sizes(sizes: tuple[float, ...]) -> str:
    return " ".join(f"{size:g}" for size in sizes)


def _shown(entry: dict[str, float | None]) -> str:
    """An estimate in words; nothing where it is not known."""
    if entry["value"] is None:
        return ""
    error = entry["stderr"]
    return (
        str(Estimate(entry["value"], math.nan if error is None else error))
        if error is not None
        else (f"{entry['value']:.6f} ± ?")
    )


def _row(
    quantity: str, method: str, sizes: tuple[float, ...], beta: Estimate, nu: Estimate, value: Estimate
) -> dict[str, Any]:
    temperature = Estimate(1 / beta.value, beta.stderr / beta.value**2)
    return {
        "quantity": quantity,
        "method": method,
        "sizes": _sizes(sizes),
        "beta": beta.as_dict(),
        "temperature": temperature.as_dict(),
        "nu": nu.as_dict(),
        "value": value.as_dict(),
        "omega": None,
        "correction": UNKNOWN,
        **dict.fromkeys(("chi_squared", "degrees_of_freedom", "probability", "points")),
    }
