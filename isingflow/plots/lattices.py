"""A lattice drawn: its sites and its bonds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.lines import Line2D

from isingflow.lattice import Lattice
from isingflow.plots.style import EXACT, FLOW

COLORS = {True: FLOW, False: EXACT}
DASHES: dict[bool, Any] = {True: "solid", False: (0, (2, 1))}
"""Of bonds with J > 0, and of those with J < 0."""
MOST_LABELS, LONGEST_LABEL = 100, 12
"""Sites that are labelled, and letters of a label that are shown."""
RADIUS = 0.22
"""Of a site, in units of the usual distance to its nearest neighbour."""


def plot_lattice(lattice: Lattice, ax: Axes | None = None) -> Axes:
    """Draw sites and bonds (blue: J > 0; red, dashed: J < 0; a bond across the boundary as two stubs).

    Sites of a graph whose nodes have names are labelled, if they are not more than 100.

    Args:
        lattice: of any kind; a graph is laid out by networkx.
        ax: where to draw; a new figure if not given.

    Returns:
        The axes.
    """
    from matplotlib import pyplot

    ax = pyplot.subplots(layout="constrained")[1] if ax is None else ax
    positions = positions_of(lattice)
    add_bonds(ax, lattice, positions, np.zeros((1, 2)))
    add_sites(ax, positions, 0.6 * radius_of(positions), np.zeros((len(positions), 3)))
    if lattice.names is not None and lattice.sites <= MOST_LABELS:
        add_labels(ax, lattice, positions)
        ax.margins(0.12)
    ax.set(aspect="equal", title=lattice.description)
    ax.axis("off")
    ax.autoscale_view()
    handles = sign_handles(lattice)
    if handles:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def positions_of(lattice: Lattice) -> np.ndarray:
    """Where sites are drawn, shape (N, 2): further directions than two lie between the axes, each a little shorter."""
    coordinates = lattice.coordinates()
    dimensions = coordinates.shape[1]
    if dimensions == 2:
        return coordinates
    oblique = [[0.45 * 0.8**i * math.cos(0.6 + i), 0.45 * 0.8**i * math.sin(0.6 + i)] for i in range(dimensions - 2)]
    return coordinates @ np.array([*oblique, [1.0, 0.0], [0.0, 1.0]][-dimensions:])


def add_bonds(ax: Axes, lattice: Lattice, positions: np.ndarray, corners: np.ndarray, scale: float = 1.0) -> None:
    """Draw the bonds of copies of a lattice, each as wide as it is strong.

    Args:
        ax: where to draw.
        lattice: whose bonds.
        positions: of its sites, shape (N, 2).
        corners: where each copy's origin lies, shape (copies, 2).
        scale: of the widths.
    """
    segments, strengths = _segments(lattice, positions)
    widths = scale * np.clip(2.0 * np.abs(strengths) / max(np.abs(strengths).max(), 1e-300), 0.4, None)
    for positive in (True, False):
        chosen = (strengths > 0) == positive
        if chosen.any():
            lines = (segments[chosen][None] + corners[:, None, None]).reshape(-1, 2, 2)
            style: dict[str, Any] = {"colors": COLORS[positive], "linestyles": [DASHES[positive]], "zorder": 1}
            ax.add_collection(LineCollection(list(lines), linewidths=np.tile(widths[chosen], len(corners)), **style))


def add_sites(ax: Axes, positions: np.ndarray, radius: float, colors: np.ndarray) -> None:
    """Draw sites as discs, in the units of the axes.

    Args:
        ax: where to draw.
        positions: shape (n, 2).
        radius: of a disc.
        colors: shape (n, 3 or 4).
    """
    size = np.full(len(positions), 2 * radius)
    places: dict[str, Any] = {"units": "xy", "offsets": positions, "offset_transform": ax.transData}
    style: dict[str, Any] = {"facecolors": colors, "edgecolors": "black", "linewidths": 0.6, "zorder": 2}
    ax.add_collection(EllipseCollection(size, size, 0 * size, **places, **style))


def add_labels(ax: Axes, lattice: Lattice, positions: np.ndarray) -> None:
    """Write what sites are called beside them.

    Args:
        ax: where to draw.
        lattice: whose sites.
        positions: of its sites, shape (N, 2).
    """
    for name, place in zip(lattice.labels, positions, strict=True):
        shown = name if len(name) <= LONGEST_LABEL else f"{name[:LONGEST_LABEL]}..."
        plain = shown.replace("$", r"\$")
        ax.annotate(plain, place, (3, 3), textcoords="offset points", fontsize="x-small", zorder=3)


def radius_of(positions: np.ndarray) -> float:
    """The radius of a site: a fraction of the median distance to the nearest neighbour."""
    from scipy.spatial import KDTree

    distances, _ = KDTree(positions).query(positions, 2)
    return RADIUS * float(np.median(np.asarray(distances)[:, 1]))


def sign_handles(lattice: Lattice) -> list[Line2D]:
    """Lines for a legend of the signs of couplings, where there are both."""
    if not lattice.strengths.min() < 0 < lattice.strengths.max():
        return []
    words = {True: "J > 0", False: "J < 0"}
    return [Line2D([], [], color=COLORS[sign], linestyle=DASHES[sign], label=word) for sign, word in words.items()]


def _segments(lattice: Lattice, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines of the bonds, shape (lines, 2, 2), and their strengths; a bond across the boundary gives two stubs."""
    ends = positions[lattice.bonds]
    steps = ends[:, 1] - ends[:, 0]
    wraps = np.zeros(len(steps), bool)
    if lattice.dimensions is not None and not all(lattice.open_axes):
        axes = positions[np.ravel_multi_index(np.eye(lattice.dimensions, dtype=int), lattice.shape)] - positions[0]
        first, second = (np.stack(np.unravel_index(sites, lattice.shape), axis=-1) for sites in lattice.bonds.T)
        offsets = second - first
        wraps = np.any(offsets < 0, axis=1)
        steps = (offsets % lattice.shape) @ axes
    reach = np.where(wraps, 0.5, 1.0)[:, None] * steps
    forward = np.stack([ends[:, 0], ends[:, 0] + reach], axis=1)
    backward = np.stack([ends[:, 1] - reach, ends[:, 1]], axis=1)[wraps]
    return np.concatenate([forward, backward]), np.concatenate([lattice.strengths, lattice.strengths[wraps]])
