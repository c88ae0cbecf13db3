"""Figures of convex flows: densities, transport cost against the closed form, and a potential with the map it makes.

After figures 1, 3 and 4 of Huang et al. (2021). Functions from data to a matplotlib `Figure`, in the style of `plots`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isingflow.plots.style import EXACT, FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH

Function = Callable[[np.ndarray], np.ndarray]
"""Points, shape (n, 2), to numbers, shape (n,), or points."""

RESOLUTION = 160
"""Points along each axis at which a density or potential is drawn."""
DENSITY_MAP, POTENTIAL_MAP = "Blues", "viridis"
SEEDS = ("#1f5fa8", "#d98a00", "#3a8f4d", "#7a4fa3", "#555555")
MARKERS = ("o-", "s:")
"""Of the first map and of the second."""
GRID_LINES, GRID_POINTS = 17, 101


@matplotlib.rc_context(STYLE)
def densities_figure(panels: Mapping[str, tuple[np.ndarray, Function]], reach: float = 4.0) -> Figure:
    """Samples above and the density that a flow has learned from them below, a column for each data set.

    Args:
        panels: by name, samples, shape (n, 2), and ln p of points.
        reach: half the side of the squares shown.

    Example:
        >>> normal = lambda x: -(x**2).sum(1) / 2 - np.log(2 * np.pi)
        >>> figure = densities_figure({"normal": (np.random.default_rng(0).normal(size=(100, 2)), normal)})
    """
    side = 0.45 * WIDTH
    figure = Figure(figsize=(side * len(panels), 2 * side), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False)
    for (above, below), (name, (samples, log_prob)) in zip(axes.T, panels.items(), strict=True):
        above.plot(*np.asarray(samples).T, ".", color=FLOW, markersize=1.5, alpha=0.5)
        above.set_title(name)
        density_panel(below, log_prob, reach)
        for ax in (above, below):
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
    return figure


def density_panel(ax: Axes, log_prob: Function, reach: float) -> None:
    """A density of the plane as an image, white where it vanishes.

    Args:
        ax: where to draw.
        log_prob: ln p of points.
        reach: half the side of the square shown.
    """
    points, extent = _lattice(reach)
    density = np.exp(np.asarray(log_prob(points))).reshape(RESOLUTION, RESOLUTION)
    ax.imshow(density, origin="lower", extent=extent, cmap=DENSITY_MAP, vmin=0, interpolation="bilinear")


@matplotlib.rc_context(STYLE)
def transport_figure(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Transport cost against KL while maps between Gaussians learn; each dimension's line is the closed form.

    Args:
        runs: records with `dimension`, `seed`, `closed_form` (the least cost) and `curve`, records of `kl` and `cost`,
            as `benchmarks/convex.py` makes them, and `flow`, the name of the map, where there are several. Costs are
            shown over the closed form: covariances differ by seed.

    Example:
        >>> curve = [{"kl": 1.0, "cost": 0.2}, {"kl": 0.01, "cost": 0.51}]
        >>> figure = transport_figure([{"dimension": 2, "seed": 0, "closed_form": 0.5, "curve": curve}])
    """
    dimensions = sorted({run["dimension"] for run in runs})
    kinds = list(dict.fromkeys(run.get("flow", "") for run in runs))
    columns = min(len(dimensions), 2)
    rows = -(-len(dimensions) // columns)
    figure = Figure(figsize=(0.75 * WIDTH * columns, 0.75 * HEIGHT * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax in axes[len(dimensions) :]:
        ax.set_visible(False)
    for ax, dimension in zip(axes, dimensions, strict=False):
        ax.axhline(1, color=EXACT, linestyle="--", linewidth=1.4, label="closed form")
        for run in (run for run in runs if run["dimension"] == dimension):
            kl = np.maximum([point["kl"] for point in run["curve"]], 1e-5)
            ratio = np.array([point["cost"] for point in run["curve"]]) / run["closed_form"]
            color, name = SEEDS[run["seed"] % len(SEEDS)], f"seed {run['seed']}"
            marker = MARKERS[kinds.index(run.get("flow", ""))]
            label = f"{run['flow']}, {name}" if len(kinds) > 1 else name
            ax.plot(kl, ratio, marker, color=color, markersize=3.5, linewidth=1.2, label=label)
        ax.set_xscale("log")
        ax.set_title(f"d = {dimension}")
        ax.grid(color="0.9")
    axes[0].invert_xaxis()
    axes[0].legend(loc="best")
    figure.supxlabel("KL divergence (nats)")
    figure.supylabel("transport cost over the least")
    return figure


@matplotlib.rc_context(STYLE)
def encoding_figure(
    samples: np.ndarray, potential: Function, gradient: Function, reach: float = 4.0, labels: np.ndarray | None = None
) -> Figure:
    """Figure 1 of the paper: data on the potential's level lines, the grid that its gradient distorts, the encoding.

    Args:
        samples: of the data, shape (n, 2).
        potential: F of points.
        gradient: grad F of points, the encoding z.
        reach: half the side of the square of the data shown.
        labels: of the samples, shape (n,), for their colours; the angle about their mean if not given.

    Example:
        >>> samples = np.random.default_rng(0).normal(size=(100, 2))
        >>> figure = encoding_figure(samples, lambda x: (x**2).sum(1), lambda x: 2 * x)
    """
    samples = np.asarray(samples)
    centred = samples - samples.mean(0)
    colors = np.arctan2(centred[:, 1], centred[:, 0]) if labels is None else labels
    style = {"c": colors, "s": 3, "cmap": "hsv" if labels is None else "tab10", "linewidths": 0}
    figure = Figure(figsize=(2 * WIDTH, 0.72 * WIDTH), layout="constrained")
    left, middle, right = figure.subplots(1, 3)

    points, extent = _lattice(reach)
    height = np.asarray(potential(points)).reshape(RESOLUTION, RESOLUTION)
    left.contour(height - height.min(), 20, extent=extent, cmap=POTENTIAL_MAP, linewidths=0.8)
    left.scatter(*samples.T, **style)
    left.set(title="data and potential", xlim=(-reach, reach), ylim=(-reach, reach))

    lines = np.linspace(-reach, reach, GRID_LINES)
    along = np.linspace(-reach, reach, GRID_POINTS)
    for at in lines:
        for line in (np.stack([np.full(GRID_POINTS, at), along], 1), np.stack([along, np.full(GRID_POINTS, at)], 1)):
            middle.plot(*np.asarray(gradient(line)).T, color=NEUTRAL, linewidth=0.7)
    middle.set_title("grid moved by its gradient")

    right.scatter(*np.asarray(gradient(samples)).T, **style)
    for radius in (1, 2, 3):
        angle = np.linspace(0, 2 * np.pi, 200)
        right.plot(radius * np.cos(angle), radius * np.sin(angle), color="0.8", linewidth=0.8, zorder=0)
    right.set(title="encoding", xlim=(-4, 4), ylim=(-4, 4))
    for ax in (left, middle, right):
        ax.set(xticks=[], yticks=[], aspect="equal")
    return figure


def _lattice(reach: float) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Points of a square lattice, rows from below, shape (RESOLUTION^2, 2), and the extent of their pixels."""
    axis = (np.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 * reach - reach
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], 1), (-reach, reach, -reach, reach)
