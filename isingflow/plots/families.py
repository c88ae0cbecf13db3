"""The figures of a family of flows: averages of its members against temperature or field, and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice, critical_beta
from isingflow.plots.style import EXACT, FLOW, HEIGHT, LOWER, NEUTRAL, STYLE, WIDTH, save
from isingflow.plots.training import gap_figure
from isingflow.runs.config import FamilyConfig

if TYPE_CHECKING:
    from isingflow.runs.folder import AnyRun

FREE_ENERGY = ("free_energy_ising_per_site", "exact_free_energy_ising_per_site", "F per site")
ENERGY = ("energy_per_site", "exact_energy_per_site", "E per site")
CURVES = {
    "beta": (FREE_ENERGY, ENERGY, ("heat_capacity_per_site", "exact_heat_capacity_per_site", "C per site")),
    "field": (FREE_ENERGY, ENERGY, ("magnetisation", "exact_magnetisation", "m per site")),
}
"""What is drawn against which parameter: estimate, exact answer, label."""
AXES = {"beta": r"$\beta$", "field": "H"}
FILES = {"beta": "temperatures.png", "field": "fields.png"}


def plot_family(run: AnyRun, rows: Sequence[Mapping[str, Any]], *, certified: bool = True) -> list[Path]:
    """Write the figures of a family into its folder; returns their paths.

    Args:
        run: of the family.
        rows: of its evaluation.
        certified: whether its integration is; if not, the figures say so.
    """
    metrics, config = run.metrics(), run.config
    assert isinstance(config, FamilyConfig)
    figures = {FILES[one.name]: members_figure(rows, one.name, config.geometry) for one in config.varied}
    if any(record.get("gap_nats") is not None for record in metrics):
        figures["gap.png"] = gap_figure(metrics)
    return save(run, figures, certified=certified)


@matplotlib.rc_context(STYLE)
def members_figure(rows: Sequence[Mapping[str, Any]], across: str = "beta", lattice: Lattice | None = None) -> Figure:
    """Averages per site against temperature or field, with errors and exact curves, and the gap below.

    Against temperature they are free energy, energy and heat capacity, against a field the magnetisation in place of
    the latter. Where both vary, the members of one field, or of one temperature, are a curve.

    Args:
        rows: as `FamilyEvaluation.as_dict` gives them.
        across: "beta" or "field".
        lattice: whose critical temperature is marked, where it is known.
    """
    figure = Figure(figsize=(1.6 * WIDTH, 1.7 * HEIGHT), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).ravel()
    other = "field" if across == "beta" else "beta"
    curves = sorted({row.get(other, 0.0) for row in rows})
    for place, value in enumerate(curves):
        own = sorted((row for row in rows if row.get(other, 0.0) == value), key=lambda row: row[across])
        one = len(curves) == 1
        _draw_curve(axes, own, across, FLOW if one else f"C{place}", "" if one else f", {AXES[other]} = {value:g}")
    axes[3].axhline(0, color=EXACT, linewidth=1)
    critical = _critical(lattice) if across == "beta" else None
    betas = [row["beta"] for row in rows]
    for place, ax in enumerate(axes):
        if critical is not None and min(betas) <= critical <= max(betas):
            ax.axvline(critical, color=NEUTRAL, linestyle=":", linewidth=1.2, label=r"$\beta_c$, infinite lattice")
        ax.legend()
        if place >= 2:
            ax.set(xlabel=AXES[across])
    return figure


def _draw_curve(axes: Sequence[Axes], rows: Sequence[Mapping[str, Any]], across: str, color: str, which: str) -> None:
    """Members that differ in one parameter."""
    values = np.array([row[across] for row in rows])
    for ax, (name, known, label) in zip(axes, CURVES[across], strict=False):
        value, error = _estimates(rows, name)
        exact = _numbers(rows, known)
        if np.isfinite(exact).any():
            ax.plot(values, exact, color=color if which else EXACT, label=None if which else "exact")
        ax.errorbar(values, value, error, fmt="o", markersize=4, color=color, label=f"family, reweighted{which}")
        ax.set(ylabel=label)
    gap, error = _estimates(rows, "gap_nats")
    size = _numbers(rows, "effective_sample_size")
    axes[3].errorbar(values, gap, error, fmt="o-", markersize=4, color=color, label=f"gap (nats){which}")
    size_color, size_label = (color, None) if which else (LOWER, "sample size")
    axes[3].plot(values, size, "s-", markersize=4, color=size_color, label=size_label)
    axes[3].set(ylabel="gap (nats); squares: sample size" if which else "")


def _critical(lattice: Lattice | None) -> float | None:
    try:
        return None if lattice is None else critical_beta(lattice).value
    except InvalidInput:
        return None


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)


def _estimates(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    known = [row[name] or {"value": None, "stderr": None} for row in rows]
    value, error = (_numbers(known, part) for part in ("value", "stderr"))
    return value, error
