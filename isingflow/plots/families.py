"""The figures of a family of flows: averages of its members against temperature or field, and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import thermodynamics
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
FINE, PATIENCE = 101, 10.0
"""Points of an exact curve, and seconds that it may take."""


def plot_family(run: AnyRun, rows: Sequence[Mapping[str, Any]], *, certified: bool = True) -> list[Path]:
    """Write the figures of a family into its folder; returns their paths.

    Args:
        run: of the family.
        rows: of its evaluation.
        certified: whether its integration is; if not, the figures say so.
    """
    metrics, config = run.metrics(), run.config
    assert isinstance(config, FamilyConfig)
    figures = {
        FILES[one.name]: members_figure(rows, one.name, config.geometry, between(config, rows, one.name))
        for one in config.varied
    }
    if any(record.get("gap_nats") is not None for record in metrics):
        figures["gap.png"] = gap_figure(metrics)
    return save(run, figures, certified=certified)


def between(config: FamilyConfig, rows: Sequence[Mapping[str, Any]], across: str) -> list[dict[str, float | None]]:
    """Exact answers between the members, close enough together for smooth curves; none where they take long.

    Args:
        config: of the family.
        rows: as `FamilyEvaluation.as_dict` gives them.
        across: "beta" or "field", what the curves are drawn against.
    """
    other = "field" if across == "beta" else "beta"
    values = [row[across] for row in rows]
    found = []
    for fixed in sorted({row[other] for row in rows if other in row}) or [None]:
        for value in np.linspace(min(values), max(values), FINE):
            point = {across: float(value)} | ({} if fixed is None else {other: fixed})
            try:
                found.append(point | _exact(config, point))
            except NoExactSolution:
                return []
    return found


def _exact(config: FamilyConfig, point: Mapping[str, float]) -> dict[str, float | None]:
    """The exact answers of one member, named as in its row."""
    lattice = config.lattice if config.fields is None else config.lattice.with_field(point["field"])
    beta = point["beta"]
    exact = thermodynamics(lattice, beta, longest=PATIENCE / FINE)
    return {
        "exact_free_energy_ising_per_site": -exact.log_z_per_site / beta if beta else None,
        "exact_energy_per_site": exact.energy_per_site,
        "exact_heat_capacity_per_site": exact.heat_capacity_per_site,
        "exact_magnetisation": exact.magnetisation_per_site,
    }


@matplotlib.rc_context(STYLE)
def members_figure(
    rows: Sequence[Mapping[str, Any]],
    across: str = "beta",
    lattice: Lattice | None = None,
    exact: Sequence[Mapping[str, Any]] = (),
) -> Figure:
    """Averages per site against temperature or field, with errors and exact curves, and the gap below.

    Against temperature they are free energy, energy and heat capacity, against a field the magnetisation in place of
    the latter. Where both vary, the members of one field, or of one temperature, are a curve.

    Args:
        rows: as `FamilyEvaluation.as_dict` gives them.
        across: "beta" or "field".
        lattice: whose critical temperature is marked, where it is known.
        exact: answers that make the exact curves, see `between`; those of the rows if there are none.
    """
    figure = Figure(figsize=(1.6 * WIDTH, 1.7 * HEIGHT), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).ravel()
    other = "field" if across == "beta" else "beta"
    curves = sorted({row.get(other, 0.0) for row in rows})
    for place, value in enumerate(curves):
        own, known = (
            sorted((row for row in some if row.get(other, 0.0) == value), key=lambda row: row[across])
            for some in (rows, exact or rows)
        )
        color, which = (FLOW, "") if len(curves) == 1 else (f"C{place}", f", {AXES[other]} = {value:g}")
        _draw_exact(axes, known, across, color if which else EXACT, None if which else "exact")
        _draw_curve(axes, own, across, color, which)
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


def _draw_exact(
    axes: Sequence[Axes], rows: Sequence[Mapping[str, Any]], across: str, color: str, label: str | None
) -> None:
    """Where it is known."""
    for ax, (_, known, _) in zip(axes, CURVES[across], strict=False):
        exact = _numbers(rows, known)
        if np.isfinite(exact).any():
            ax.plot([row[across] for row in rows], exact, color=color, label=label)


def _draw_curve(axes: Sequence[Axes], rows: Sequence[Mapping[str, Any]], across: str, color: str, which: str) -> None:
    """Members that differ in one parameter."""
    values = np.array([row[across] for row in rows])
    for ax, (name, _, label) in zip(axes, CURVES[across], strict=False):
        value, error = _estimates(rows, name)
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
