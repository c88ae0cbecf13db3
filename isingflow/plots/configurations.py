"""Configurations side by side, as their lattice is: squares of a grid, hexagons, graphs with their bonds, lines.

Spins are white (up) or black (down); fields have colours, in which zero is white.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from isingflow.lattice import Lattice
from isingflow.plots.lattices import add_bonds, add_sites, radius_of, sign_handles
from isingflow.plots.style import STYLE, WIDTH

UP, DOWN, GRID = 1.0, 0.0, 0.6
"""Grey levels of spins up and down, and of the lines between tiles."""
TILES = 5
FIELD_MAP = "PuOr"
REACH = 2.0
"""Fields of so many times their root mean square have the strongest colours."""
SLICES = 8
"""Planes shown of a configuration in three or more dimensions."""
GRAPHS = 5
"""Graphs in a row of a figure: they need more room than tiles."""
GAP = 0.6
"""Between hexagonal lattices, in bond lengths."""


class Colors(NamedTuple):
    """From values to colours: a norm and a map, and whether the values are fields."""

    norm: Normalize
    cmap: Colormap
    fields: bool

    @property
    def mapping(self) -> ScalarMappable:
        """For a colour bar."""
        return ScalarMappable(self.norm, self.cmap)

    def of(self, values: np.ndarray) -> np.ndarray:
        """The colour of every value, shape (n, 4)."""
        return np.asarray(self.cmap(self.norm(values.ravel().astype(float))))


def colors_of(configurations: np.ndarray) -> Colors:
    """Of spins, integers: black and white; of fields, floats: a scale about zero."""
    values = np.asarray(configurations)
    if values.dtype.kind != "f":
        return Colors(Normalize(-1, 1), matplotlib.colormaps["gray"], fields=False)
    reach = REACH * math.sqrt(np.mean(np.square(values, dtype=float))) or 1.0
    return Colors(Normalize(-reach, reach), matplotlib.colormaps[FIELD_MAP].with_extremes(bad=str(GRID)), fields=True)


def as_graph(lattice: Lattice | None) -> bool:
    """Whether configurations are drawn with their bonds: on graphs, and where some couplings are negative."""
    if lattice is None or lattice.dimensions not in (None, 2):
        return False
    return lattice.kind == "graph" or bool(sign_handles(lattice))


def per_row(lattice: Lattice | None, usual: int) -> int:
    """Configurations in a row: as many as usual, fewer of graphs, one of those that are shown in slices."""
    if lattice is not None and len(lattice.shape) > 2:
        return 1
    return min(usual, GRAPHS if usual > TILES else 2) if as_graph(lattice) else usual


@matplotlib.rc_context(STYLE)
def tiles_figure(configurations: np.ndarray, columns: int = TILES, lattice: Lattice | None = None) -> Figure:
    """Configurations side by side: spin up white, spin down black; fields in colours, with their scale.

    Args:
        configurations: spins +1 or -1, shape (n, *shape), or fields of floats.
        columns: configurations in a row.
        lattice: on which they live; a grid if not given, or, for fields of one axis, a line of sites.

    Example:
        >>> figure = tiles_figure(np.ones((10, 4, 4), dtype=np.int8))
    """
    colors = colors_of(configurations)
    figure = Figure(figsize=(WIDTH, 0.7 * WIDTH), layout="constrained")
    ax = figure.add_subplot()
    draw(ax, configurations, columns, lattice, colors, inches=WIDTH / columns)
    (left, right), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    legend = sign_handles(lattice) if as_graph(lattice) and lattice is not None else []
    if ax.get_aspect() != "auto":
        share = 0.9 if colors.fields else 1.0
        figure.set_figheight(share * WIDTH * (top - bottom) / (right - left) + (0.4 if legend else 0.05))
    if legend:
        figure.legend(handles=legend, loc="outside lower center", ncols=2)
    if np.ndim(configurations) > 3:
        figure.supxlabel("every row a configuration, plane by plane", fontsize=9)
    if colors.fields:
        figure.colorbar(colors.mapping, ax=ax, label="field x", extend="both", fraction=0.06, pad=0.02)
    return figure


def draw(
    ax: Axes,
    configurations: np.ndarray,
    columns: int,
    lattice: Lattice | None = None,
    colors: Colors | None = None,
    *,
    inches: float = 1.4,
) -> None:
    """Draw configurations on axes, in rows; the limits of the axes are set to hold them.

    Args:
        ax: where.
        configurations: spins or fields, shape (n, *shape).
        columns: configurations in a row.
        lattice: as in `tiles_figure`.
        colors: of the values; their own if not given.
        inches: about how wide one configuration will be, for the width of lines.
    """
    values = np.asarray(configurations)
    colors = colors or colors_of(values)
    if values.ndim > 3:
        values, columns = slices(values)
    shown: dict[str, Any] = {"norm": colors.norm, "cmap": colors.cmap, "interpolation": "nearest"}
    if as_graph(lattice) and lattice is not None:
        _graphs(ax, values, columns, lattice, colors, inches)
    elif lattice is not None and lattice.kind == "triangular":
        _hexagons(ax, values, columns, lattice, colors, inches)
    elif values.ndim == 2:
        ax.imshow(values, aspect="auto", **shown)
        ax.set(xlabel="site", ylabel="sample")
        return
    elif len(values) == 1:
        ax.imshow(values.reshape(-1, values.shape[-1]), aspect="equal", **shown)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color=str(GRID), linewidth=0.6)
        return
    elif colors.fields:
        ax.imshow(tile(values, columns, line=math.nan), aspect="equal", **shown)
    else:
        ax.imshow(tile(values, columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def slices(configurations: np.ndarray) -> tuple[np.ndarray, int]:
    """Planes of configurations in three or more dimensions, at most `SLICES` of each, evenly spaced.

    Args:
        configurations: shape (n, ..., ly, lz).

    Returns:
        Planes, shape (n * planes, ly, lz), and how many belong to a configuration.
    """
    planes = configurations.reshape(len(configurations), -1, *configurations.shape[-2:])
    shown = min(SLICES, planes.shape[1])
    chosen = planes[:, np.arange(shown) * planes.shape[1] // shown]
    return chosen.reshape(-1, *planes.shape[2:]), shown


def tile(configurations: np.ndarray, columns: int, line: float = GRID) -> np.ndarray:
    """One image of configurations, shape (n, lx, ly), with lines of pixels between them.

    Args:
        configurations: spins, which become grey levels; or fields, which stay as they are.
        columns: in a row.
        line: value of the lines.
    """
    values = np.asarray(configurations)
    values = values.reshape(len(values), -1, values.shape[-1])
    levels = values if values.dtype.kind == "f" else np.where(values > 0, UP, DOWN)
    rows = -(-len(values) // columns)
    width = max(1, round(min(values.shape[1:]) / 12))
    down, across = (length + width for length in values.shape[1:])
    image = np.full((rows * down + width, min(columns, len(values)) * across + width), line)
    for index, configuration in enumerate(levels):
        row, column = width + index // columns * down, width + index % columns * across
        image[row : row + down - width, column : column + across - width] = configuration
    return image


def resample(configurations: np.ndarray, log_weights: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Configurations drawn with probabilities proportional to their weights, so that they follow the target.

    Args:
        configurations: shape (n, ...).
        log_weights: in nats, shape (n,).
        count: how many to draw, with replacement.

    Returns:
        Shape (count, ...).
    """
    log_weights = np.nan_to_num(np.asarray(log_weights, dtype=float), nan=-np.inf)
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(configurations)[
        np.random.default_rng(seed).choice(len(weights), count, p=weights / weights.sum())
    ]


def _graphs(ax: Axes, values: np.ndarray, columns: int, lattice: Lattice, colors: Colors, inches: float) -> None:
    """Sites as discs with their bonds, at the lattice's own positions."""
    positions = lattice.coordinates()
    margin = 0.12 * np.ptp(positions, axis=0).max() if lattice.kind == "graph" else 0.9
    corners = _corners(ax, len(values), columns, positions, margin)
    add_bonds(ax, lattice, positions, corners, scale=0.5 * inches)
    sites = (positions + corners[:, None]).reshape(-1, 2)
    add_sites(ax, sites, 1.3 * radius_of(positions), colors.of(values))


def _hexagons(ax: Axes, values: np.ndarray, columns: int, lattice: Lattice, colors: Colors, inches: float) -> None:
    """Every site as the hexagon of points nearest to it; a torus is cut so that it fits a rectangle."""
    positions = lattice.coordinates()
    if lattice.boundary == "periodic":
        positions = np.stack([positions[:, 0] % lattice.shape[0], positions[:, 1]], axis=1)
    angles = np.pi / 6 + np.arange(6) * np.pi / 3
    corner = np.stack([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(3)
    corners = _corners(ax, len(values), columns, positions, 0.5 + GAP / 2)
    centres = (positions + corners[:, None]).reshape(-1, 2)
    outline: dict[str, Any] = {"edgecolors": str(GRID), "linewidths": 0.25 * inches}
    ax.add_collection(PolyCollection(list(centres[:, None] + corner), facecolors=colors.of(values), **outline))
    ax.set_facecolor(str(GRID))


def _corners(ax: Axes, count: int, columns: int, positions: np.ndarray, margin: float) -> np.ndarray:
    """Shifts of copies of a lattice in rows from above, shape (count, 2); the axes are set to hold all of them."""
    low, high = positions.min(0) - margin, positions.max(0) + margin
    width, height = high - low
    rows = -(-count // columns)
    ax.set(xlim=(low[0], low[0] + min(columns, count) * width), ylim=(high[1] - rows * height, high[1]), aspect="equal")
    index = np.arange(count)
    return np.stack([index % columns * width, -(index // columns) * height], axis=1)
