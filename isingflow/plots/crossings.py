"""Figures of curves that cross at a critical point, and of their collapse onto one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from isingflow.observables.reweighted import Reweighted
from isingflow.observables.thermal import ThermalSeries
from isingflow.plots.style import ERROR, EXACT, FLOW, HEIGHT, LOWER, NEUTRAL, STYLE, WIDTH
from isingflow.plots.temperatures import PANELS, POINTS, Rows, values_of

if TYPE_CHECKING:
    from isingflow.observables.crossing import Crossing
    from isingflow.statistics.scaling import ScalingFit

COLORS = (FLOW, LOWER, ERROR, NEUTRAL, "#cc79a7", "#56b4e9")
FINE = 101


@matplotlib.rc_context(STYLE)
def crossings_figure(
    curves: Mapping[int, Reweighted],
    rows: Mapping[int, Rows],
    series: Mapping[int, Sequence[ThermalSeries]],
    crossings: Sequence[Crossing],
    fits: Mapping[str, ScalingFit],
    critical: float | None,
) -> Figure:
    """Above, a dimensionless quantity against beta for every size; below, against the scaling variable of its fit.

    Args:
        curves: by size, all temperatures taken together.
        rows: by size, the observables at every temperature.
        series: by size, those at every temperature.
        crossings: of neighbouring sizes.
        fits: by quantity.
        critical: the exact critical inverse temperature, if it is known.
    """
    quantities = list(dict.fromkeys(one.quantity for one in crossings))
    figure = Figure(figsize=(0.8 * WIDTH * len(quantities), 2 * HEIGHT), layout="constrained")
    panels = figure.subplots(2, len(quantities), squeeze=False)
    for (above, below), quantity in zip(panels.T, quantities, strict=True):
        if critical is not None:
            above.axvline(critical, color=EXACT, linewidth=1, linestyle="--", label="exact, infinite lattice")
        fit = fits.get(quantity)
        for (size, curve), color in zip(curves.items(), COLORS * (len(curves) // len(COLORS) + 1), strict=False):
            betas = np.array([one.beta for one in series[size]])
            fine = np.linspace(curve.low, curve.high, FINE)
            value, _ = values_of(curve.at(fine), quantity)
            above.plot(fine, value, color=color, linewidth=1)
            above.errorbar(betas, *values_of(rows[size], quantity), **POINTS, color=color, label=f"L = {size}")
            if fit is not None:
                scaled = (betas - fit.beta.value) * size ** (1 / fit.nu.value)
                value, error = values_of(rows[size], quantity)
                below.errorbar(scaled, fit.corrected(value, size), error, **POINTS, color=color)
        above.set(xlabel=r"$\beta$", ylabel=PANELS[quantity])
        above.legend()
        if fit is None:
            below.text(0.5, 0.5, "no fit", transform=below.transAxes, ha="center", color=NEUTRAL)
            continue
        x = np.linspace(-fit.width, fit.width, FINE)
        below.plot(x, np.polynomial.polynomial.polyval(x, fit.coefficients), color="black", linewidth=1, label="fit")
        less = "" if fit.omega is None else rf" $-\ b\, L^{{-{fit.omega}}}$"
        below.set(xlabel=r"$(\beta - \beta_c)\, L^{1/\nu}$", ylabel=PANELS[quantity] + less)
        below.set_title(rf"$\beta_c$ = {fit.beta}, $\nu$ = {fit.nu}", fontsize=10)
    return figure
