"""Flows of several kinds on the same data in one figure: likelihoods while training, and what they have learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isingflow.plots.densities import COLOURS, Grid, draw_densities
from isingflow.plots.style import EXACT, HEIGHT, STYLE, WIDTH, running_mean

Metrics = Mapping[str, Sequence[Mapping[str, Any]]]
"""Lines of `metrics.jsonl` by kind of flow."""
PANEL = 0.42 * WIDTH


@matplotlib.rc_context(STYLE)
def likelihoods(metrics: Metrics, start: float | None) -> Figure:
    """Running means of the likelihoods of batches against seconds of training.

    Args:
        metrics: of every run.
        start: what was fitted in closed form before training.

    Example:
        >>> lines = [{"seconds": 1.0, "negative_log_likelihood": 2.0}, {"seconds": 2.0, "negative_log_likelihood": 1.0}]
        >>> likelihoods({"ot": lines}, 3.0).axes[0].get_xlabel()
        'seconds of training'
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    _draw_likelihoods(figure.subplots(), metrics, start)
    return figure


@matplotlib.rc_context(STYLE)
def with_densities(
    metrics: Metrics, start: float | None, grid: Grid, densities: Mapping[str, np.ndarray], columns: Sequence[str] = ()
) -> Figure:
    """The same above densities in one or two dimensions, see `densities.density_figure`."""
    rows = 1 if len(grid.edges) == 1 else -(-(1 + len(densities)) // 2)
    figure = Figure(figsize=(WIDTH, HEIGHT + rows * PANEL), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(HEIGHT, rows * PANEL), squeeze=False).flat
    _draw_likelihoods(above.subplots(), metrics, start)
    draw_densities(below, grid, densities, columns)
    return figure


@matplotlib.rc_context(STYLE)
def with_images(metrics: Metrics, start: float | None, images: Mapping[str, np.ndarray]) -> Figure:
    """The same above rows of images, shape (n, height, width) each, of the data and of every flow."""
    figure = Figure(figsize=(WIDTH, HEIGHT + len(images) * WIDTH / 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(HEIGHT, len(images) * WIDTH / 8), squeeze=False).flat
    _draw_likelihoods(above.subplots(), metrics, start)
    for ax, (name, row) in zip(below.subplots(len(images), 1, squeeze=False).flat, images.items(), strict=True):
        ax.imshow(np.concatenate(list(row), 1), cmap="gray", interpolation="nearest", vmin=0)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, fontsize=8)
    return figure


def _draw_likelihoods(ax: Axes, metrics: Metrics, start: float | None) -> None:
    levels = [] if start is None else [start]
    for (kind, records), colour in zip(metrics.items(), COLOURS, strict=False):
        values = np.array([record.get("negative_log_likelihood") for record in records], dtype=float)
        smooth, _ = running_mean(values)
        ax.plot([record["seconds"] for record in records], smooth, color=colour, label=kind)
        levels += list(smooth[len(smooth) // 20 :])
    if start is not None:
        ax.axhline(start, color=EXACT, linestyle="--", linewidth=1.4, label="fitted in closed form")
    levels = [level for level in levels if np.isfinite(level)] or [0.0]
    margin = 0.08 * (max(levels) - min(levels)) or 1.0
    ax.set(xlabel="seconds of training", ylabel="-ln p of batches (nats)")
    ax.set(ylim=(min(levels) - margin, max(levels) + margin))
    ax.legend()
