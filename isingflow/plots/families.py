"""The figures of a family of flows: free energy, energy and heat capacity against temperature, and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice, critical_beta
from isingflow.plots.style import EXACT, FLOW, HEIGHT, LOWER, NEUTRAL, STYLE, WIDTH, save
from isingflow.plots.training import gap_figure

if TYPE_CHECKING:
    from isingflow.runs.folder import AnyRun

CURVES = (
    ("free_energy_ising_per_site", "exact_free_energy_ising_per_site", "F per site"),
    ("energy_per_site", "exact_energy_per_site", "E per site"),
    ("heat_capacity_per_site", "exact_heat_capacity_per_site", "C per site"),
)


def plot_family(run: AnyRun, rows: Sequence[Mapping[str, Any]], *, certified: bool = True) -> list[Path]:
    """Write the figures of a family into its folder; returns their paths.

    Args:
        run: of the family.
        rows: of its evaluation.
        certified: whether its integration is; if not, the figures say so.
    """
    metrics, lattice = run.metrics(), run.config.geometry
    figures = {"temperatures.png": temperatures_figure(rows, lattice)}
    if any(record.get("gap_nats") is not None for record in metrics):
        figures["gap.png"] = gap_figure(metrics)
    return save(run, figures, certified=certified)


@matplotlib.rc_context(STYLE)
def temperatures_figure(rows: Sequence[Mapping[str, Any]], lattice: Lattice | None = None) -> Figure:
    """Free energy, energy and heat capacity per site against beta, with errors and exact curves, and the gap below.

    Args:
        rows: as `FamilyEvaluation.as_dict` gives them.
        lattice: whose critical temperature is marked, where it is known.
    """
    rows = sorted(rows, key=lambda row: row["beta"])
    betas = np.array([row["beta"] for row in rows])
    figure = Figure(figsize=(1.6 * WIDTH, 1.7 * HEIGHT), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True).ravel()
    for ax, (name, known, label) in zip(axes, CURVES, strict=False):
        value, error = _estimates(rows, name)
        exact = _numbers(rows, known)
        if np.isfinite(exact).any():
            ax.plot(betas, exact, color=EXACT, label="exact")
        ax.errorbar(betas, value, error, fmt="o", markersize=4, color=FLOW, label="family, reweighted")
        ax.set(ylabel=label)
    gap, error = _estimates(rows, "gap_nats")
    axes[3].errorbar(betas, gap, error, fmt="o-", markersize=4, color=FLOW, label="gap (nats)")
    axes[3].plot(betas, _numbers(rows, "effective_sample_size"), "s-", markersize=4, color=LOWER, label="sample size")
    axes[3].axhline(0, color=EXACT, linewidth=1)
    critical = _critical(lattice)
    for place, ax in enumerate(axes):
        if critical is not None and betas.min() <= critical <= betas.max():
            ax.axvline(critical, color=NEUTRAL, linestyle=":", linewidth=1.2, label=r"$\beta_c$, infinite lattice")
        ax.legend()
        if place >= 2:
            ax.set(xlabel=r"$\beta$")
    return figure


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
