"""Densities in one and two dimensions: the flow's beside that of the data, in the units of the data.

What the data's density is, is known in closed form of some toys; of all others it is a histogram: a fine one of as many
samples as it takes where they are drawn afresh, else one of the rows that there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure, SubFigure

from isingflow.datasets import Dataset
from isingflow.datasets.base import Rows
from isingflow.flows import Flow
from isingflow.plots.points import label, limits
from isingflow.plots.style import ERROR, EXACT, FLOW, HEIGHT, LOWER, NEUTRAL, STYLE, WIDTH
from isingflow.runtime import stopping

CELLS = {1: 400, 2: 100}
"""Along an axis, by dimension."""
DRAWN = 1_000_000
"""Samples of a histogram of data that are drawn afresh."""
ROWS_OF_A_CELL = 20
"""Least mean number of rows in a cell of a histogram where there are only so many."""
BATCH = 2000
BLOCK = 100_000
SHOWN_ROWS = 5000
COLOURS = (FLOW, LOWER, ERROR)
BRIGHTEST = 0.998
"""Quantile of the data's density that is as bright as an image becomes."""


class Grid(NamedTuple):
    """Cells of one or two axes, and the density of the data in them.

    Attributes:
        edges: of the cells in the units of the data, one array an axis.
        points: centres of the cells in model space, float32, shape (cells, d), the last axis first.
        density: of the data, in their units, shape (cells,) of all axes.
        known: whether it is in closed form.
        rows: of which it is a histogram; 0 if it is none.
    """

    edges: tuple[np.ndarray, ...]
    points: torch.Tensor
    density: np.ndarray
    known: bool
    rows: int

    @property
    def words(self) -> str:
        """What the density of the data is, for titles."""
        return "data: closed form" if self.known else f"data: {self.rows:,} samples"


def grid_of(data: Dataset, generator: torch.Generator) -> Grid:
    """A grid around the data, in one or two dimensions, with their density.

    Example:
        >>> from isingflow.datasets import load
        >>> grid = grid_of(load("claw"), torch.Generator().manual_seed(0))
        >>> grid.density.shape, round(float((grid.density * np.diff(grid.edges[0])).sum()), 3)
        ((400,), 1.0)
    """
    finite = isinstance(data.train, Rows)
    rows = next(data.train.batches(SHOWN_ROWS, generator))
    low, high = limits(rows.numpy())
    count = CELLS[data.dimension]
    if data.log_prob is None and finite:
        count = max(min(math.ceil((len(data.train) / ROWS_OF_A_CELL) ** (1 / data.dimension)), count), 4)
    axes = [np.linspace(low[j], high[j], count + 1) for j in range(data.dimension)]
    edges = data.to_data(torch.from_numpy(np.stack(axes, 1)).float()).double().numpy().T
    centres = np.stack(np.meshgrid(*[(axis[1:] + axis[:-1]) / 2 for axis in axes], indexing="ij"), -1)
    points = torch.from_numpy(centres.reshape(-1, data.dimension)).float()
    shape = (count,) * data.dimension
    if data.log_prob is not None:
        density = data.data_log_prob(data.log_prob(points), points).exp().numpy().reshape(shape)
        return Grid(tuple(edges), points, density, True, 0)
    found, total = np.zeros(shape), len(data.train) if finite else DRAWN
    blocks = data.train.batches(SHOWN_ROWS, generator) if finite else _drawn(data, total, generator)
    for block in blocks:
        stopping.check()
        found += np.histogramdd(block.numpy(), axes)[0]
    volume = math.prod(float(axis[1] - axis[0]) for axis in axes)
    slope = data.space.log_slope(points).exp().numpy().reshape(shape)
    return Grid(tuple(edges), points, found / (total * volume * slope), False, total)


@torch.no_grad()
def density_of(flow: Flow, data: Dataset, grid: Grid) -> np.ndarray:
    """The density of a flow at the cells of a grid, in the units of the data, shape as `Grid.density`."""
    found = []
    for block in grid.points.split(BATCH):
        stopping.check()
        found.append(data.data_log_prob(flow.log_prob(block), block).exp())
    return torch.cat(found).numpy().reshape(grid.density.shape)


@matplotlib.rc_context(STYLE)
def density_figure(grid: Grid, flows: Mapping[str, np.ndarray], columns: Sequence[str] = ()) -> Figure:
    """The data's density beside that of flows: curves in one dimension, images of one scale in two.

    Args:
        grid: as from `grid_of`.
        flows: densities by name, as from `density_of`.
        columns: what the axes are called.

    Example:
        >>> from isingflow.datasets import load
        >>> grid = grid_of(load("claw"), torch.Generator().manual_seed(0))
        >>> density_figure(grid, {"flow": grid.density}).axes[0].get_ylabel()
        'density'
    """
    height = HEIGHT if len(grid.edges) == 1 else 0.52 * WIDTH * math.ceil((1 + len(flows)) / 2)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    draw_densities(figure, grid, flows, columns)
    return figure


def draw_densities(
    figure: Figure | SubFigure, grid: Grid, flows: Mapping[str, np.ndarray], columns: Sequence[str] = ()
) -> None:
    """The panels of `density_figure` in an empty figure or a part of one."""
    names = [label(name) for name in columns] or (["x"] if len(grid.edges) == 1 else ["x1", "x2"])
    if len(grid.edges) == 1:
        ax = figure.subplots()
        (edges,) = grid.edges
        centres = (edges[1:] + edges[:-1]) / 2
        ax.fill_between(centres, grid.density, color=NEUTRAL, alpha=0.25, linewidth=0)
        ax.plot(centres, grid.density, color=EXACT, linestyle="--", label=grid.words)
        for (name, density), colour in zip(flows.items(), COLOURS, strict=False):
            ax.plot(centres, density, color=colour, label=name)
        ax.set(xlabel=names[0], ylabel="density", ylim=(0, None), xlim=(edges[0], edges[-1]))
        figure.legend(loc="outside lower center", ncols=4)
        return
    panels = {grid.words: grid.density} | dict(flows)
    brightest = float(np.quantile(grid.density, BRIGHTEST)) or None
    axes = list(figure.subplots(math.ceil(len(panels) / 2), 2, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax, (title, density) in zip(axes, panels.items(), strict=False):
        image = ax.pcolormesh(*grid.edges, density.T, vmin=0, vmax=brightest, cmap="viridis", rasterized=True)
        ax.set(xlabel=names[0], ylabel=names[1])
        ax.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes[: len(panels)], label="density", shrink=0.8, extend="max")


def _drawn(data: Dataset, count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    return (data.train.draw(min(BLOCK, count - start), generator) for start in range(0, count, BLOCK))
