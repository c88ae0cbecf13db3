"""Figures of observables against temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from isingflow.plots.style import EXACT, FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH
from isingflow.statistics.estimate import Estimate

PANELS = {
    "energy_per_site": "energy per site",
    "heat_capacity_per_site": "heat capacity per site",
    "magnetisation_abs": r"$\langle|m|\rangle$",
    "susceptibility": "susceptibility",
    "binder": "Binder ratio",
    "correlation_length_over_size": r"$\xi/L$",
}
"""Observables of the figure, with the names of their axes."""

POINTS: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "linewidth": 1}
"""How estimates with their errors are drawn."""

Rows = Sequence[Mapping[str, Estimate | None]]


@matplotlib.rc_context(STYLE)
def temperatures_figure(
    betas: np.ndarray,
    rows: Rows,
    *,
    curve: tuple[np.ndarray, Rows] | None,
    exact: tuple[np.ndarray, Mapping[str, np.ndarray]],
    critical: float | None,
) -> Figure:
    """Every observable against beta, a panel each.

    Args:
        betas: inverse temperatures of the chains.
        rows: their observables by name.
        curve: inverse temperatures between, and the reweighted observables there; None without them.
        exact: inverse temperatures, and exact answers by name, NaN where they are not known.
        critical: the critical inverse temperature, marked where it is within the range.
    """
    figure = Figure(figsize=(1.5 * WIDTH, 2 * HEIGHT), layout="constrained")
    for ax, (name, label) in zip(figure.subplots(3, 2, sharex=True).flat, PANELS.items(), strict=True):
        if critical is not None and betas.min() <= critical <= betas.max():
            ax.axvline(critical, color=NEUTRAL, linewidth=1, linestyle=":", label=r"$\beta_c$, infinite lattice")
        if curve is not None:
            between, (value, error) = curve[0], values_of(curve[1], name)
            ax.plot(between, value, color=FLOW, linewidth=1, label="reweighted")
            ax.fill_between(between, value - error, value + error, color=FLOW, alpha=0.25, linewidth=0)
        ax.errorbar(betas, *values_of(rows, name), **POINTS, color=FLOW, label="Monte Carlo")
        if name in exact[1] and np.isfinite(exact[1][name]).any():
            ax.plot(exact[0], exact[1][name], color=EXACT, linewidth=1, linestyle="--", label="exact")
        ax.set(ylabel=label)
        if ax.get_subplotspec().is_last_row():
            ax.set(xlabel=r"$\beta$")
        if name == next(iter(PANELS)):
            ax.legend()
        if all(row.get(name) is None for row in rows):
            ax.text(0.5, 0.5, "not defined", transform=ax.transAxes, ha="center", color=NEUTRAL)
    return figure


def values_of(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors of one observable, NaN where it is not defined."""
    known = [row.get(name) for row in rows]
    value = np.array([np.nan if one is None else one.value for one in known])
    error = np.array([np.nan if one is None or not np.isfinite(one.stderr) else one.stderr for one in known])
    return value, error
