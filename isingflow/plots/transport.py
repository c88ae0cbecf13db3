"""The figures of OT-Flow's poster: paths of a curved flow beside a straight one, and what an exact trace costs.

Functions from data to a matplotlib `Figure`, in the style of `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isingflow.plots.style import ERROR, EXACT, FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH

SHADES = (FLOW, ERROR, NEUTRAL)


@matplotlib.rc_context(STYLE)
def trajectories_figure(paths: Mapping[str, np.ndarray]) -> Figure:
    """Paths in the plane, one panel for every flow on the same axes: from the start (dots) to the samples (crosses).

    Args:
        paths: positions by the flow's title, shape (points, n, 2) each, as `flows.diagnostics.trajectories` gives them.

    Example:
        >>> t = np.linspace(0, 1, 9)[:, None]
        >>> curved = np.stack([np.cos(t), np.sin(t)], axis=2)
        >>> figure = trajectories_figure({"curved": curved, "straight": curved[:1] * (1 + t[..., None])})
    """
    figure = Figure(figsize=(WIDTH, WIDTH / len(paths) + 0.35), layout="constrained")
    panels = figure.subplots(1, len(paths), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (title, positions) in zip(panels, paths.items(), strict=True):
        positions = np.asarray(positions, dtype=float)
        ax.plot(positions[..., 0], positions[..., 1], color=FLOW, alpha=0.45, linewidth=0.7)
        ax.plot(*positions[0].T, "o", color=NEUTRAL, markersize=2, label="start")
        ax.plot(*positions[-1].T, "x", color=EXACT, markersize=3, markeredgewidth=0.8, label="samples")
        ax.set(title=title, aspect="equal", xlabel="$x_1$")
    panels[0].set_ylabel("$x_2$")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def trace_figure(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Run time of the exact trace against estimators of more and more probes in each dimension, and their errors.

    Args:
        results: as `benchmarks/trace.py` writes them: "dimension", "exact_ms", "reference_ms", and "hutchinson", with
            rows of "probes", "ms" and "error"; times are {"processor", "wall"}.
    """
    figure = Figure(figsize=(1.9 * WIDTH, HEIGHT), layout="constrained")
    *panels, errors = figure.subplots(1, len(results) + 1)
    for ax, result in zip(panels, results, strict=True):
        rows = result["hutchinson"]
        probes = [row["probes"] for row in rows]
        ax.plot(probes, [row["ms"]["processor"] for row in rows], "o-", color=FLOW, markersize=4, label="Hutchinson")
        for name, label, color, line in (
            ("reference_ms", "exact, by Jacobians", NEUTRAL, ":"),
            ("exact_ms", "exact, by the Gram matrix", EXACT, "--"),
        ):
            ax.axhline(result[name]["processor"], color=color, linestyle=line, label=label)
        _logarithmic(ax, f"d = {result['dimension']}")
    lows, highs = zip(*(ax.get_ylim() for ax in panels), strict=True)
    for ax in panels:
        ax.set_ylim(min(lows), max(highs))
    panels[0].set_ylabel("gradient and trace (ms)")
    for result, color in zip(results, SHADES, strict=False):
        rows = result["hutchinson"]
        values = [row["probes"] for row in rows], [row["error"] for row in rows]
        errors.plot(*values, "o-", color=color, markersize=4, label=f"d = {result['dimension']}")
    _logarithmic(errors, "error of the estimators")
    errors.set_ylabel("relative error")
    errors.legend(loc="best")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _logarithmic(ax: Axes, title: str) -> None:
    ax.set(xscale="log", yscale="log", xlabel="probes", title=title)
    ax.grid(axis="y", color="0.9")
