"""The flow in time: the same samples from noise to the target, in the coordinates of the field.

A Monge-Ampère or OT flow integrates dx/dt = grad phi(x, t), and shows where it is on the way. A map without time, like
CP-Flow's gradient of a convex potential, is shown as the straight line between its ends: along that line an optimal
map carries mass at the least cost (McCann's interpolation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from isingflow.flows import Flow, approximations, gradient_flows
from isingflow.flows.diagnostics import trajectories
from isingflow.lattice import Lattice
from isingflow.plots.configurations import colors_of, draw
from isingflow.plots.style import ERROR, FLOW, NEUTRAL, STYLE, WIDTH

SAMPLES, FEWEST, SITES = 64, 8, 2**18
"""Samples whose way is computed, at most and at least, and sites of all of them together."""
POINTS = 24
"""Of a way, at least: steps that are fewer are refined."""
ROWS, TIMES = 3, 5
"""Samples that are shown as configurations, and times at which they are."""
LINES = 16
"""Samples of fields of one axis without a lattice, which are shown as lines of sites."""
BINS = 50


@dataclass(frozen=True)
class Evolution:
    """Samples on their way from noise to the target.

    Attributes:
        noise: z, shape (n, *shape).
        times: from 0, one unit for each map that has a path, shape (points,).
        field: positions in the coordinates of x, shape (points, n, *shape).
        straight: whether the way is the straight line between the ends, for want of a path.
    """

    noise: np.ndarray
    times: np.ndarray
    field: np.ndarray
    straight: bool


def evolution(flow: Flow, samples: int | None = None, seed: int = 0) -> Evolution:
    """Samples of a flow on their way.

    Args:
        flow: trained.
        samples: how many; if not given 64, of large fields fewer.
        seed: of the noise.

    Example:
        >>> found = evolution(Flow((4,), []), samples=3)
        >>> found.field.shape, found.straight
        ((5, 3, 4), True)
    """
    if samples is None:
        samples = min(SAMPLES, max(SITES // flow.dimension, FEWEST))
    latent = flow.noise(samples, torch.Generator(flow.device).manual_seed(seed))
    steps = max((part.steps for part in approximations(flow)), default=POINTS)
    paths = _without_fitted(flow, trajectories(flow, latent, refinement=math.ceil(POINTS / steps)))
    if paths:
        times = np.concatenate([index + np.linspace(0, 1, len(path)) for index, path in enumerate(paths)])
        field = torch.cat(paths)
    else:
        times = np.linspace(0, 1, TIMES)
        fixed = [transform for transform in flow.transforms if not any(p.numel() for p in transform.parameters())]
        with torch.no_grad():
            start, end = Flow(flow.shape, fixed).to(flow.device)(latent)[0], flow(latent)[0]
        field = torch.stack([start + t * (end - start) for t in times.tolist()])
    return Evolution(latent.cpu().numpy(), times, field.cpu().numpy(), straight=not paths)


def _without_fitted(flow: Flow, paths: list[torch.Tensor]) -> list[torch.Tensor]:
    """The paths, of which that along what was fitted after the training takes no time: the one before ends with it."""
    moving = [parts for parts in map(gradient_flows, flow.transforms) if any(not part.resting for part in parts)]
    if len(moving) != len(paths):  # maps of the user's own may have paths as well
        return paths
    kept: list[torch.Tensor] = []
    for parts, path in zip(moving, paths, strict=True):
        if kept and all(part.potential.fitted for part in parts):
            kept[-1] = torch.cat([kept[-1][:-1], path[-1:]])
        else:
            kept.append(path)
    return kept


@matplotlib.rc_context(STYLE)
def flow_in_time_figure(
    found: Evolution, lattice: Lattice | None = None, *, spins: bool = False, beta: float = 0.0
) -> Figure:
    """A few samples from noise to the target; the distribution of the field, and of its mean, on the way.

    Args:
        found: as from `evolution`.
        lattice: on which the fields live.
        spins: whether Ising spins stand behind the field: they are drawn, and the magnetisation is their mean given x.
        beta: inverse temperature of these spins, which matters in an external field alone.

    Example:
        >>> figure = flow_in_time_figure(evolution(Flow((4, 4), []), samples=8), spins=True)
    """
    chosen = [int(np.abs(found.times - t).argmin()) for t in np.linspace(0, found.times[-1], TIMES)]
    stages = [("noise z", found.noise), *((f"t = {found.times[i]:.2g}", found.field[i]) for i in chosen)]
    tilt = 0.0 if lattice is None or lattice.field is None else beta * lattice.field_by_site
    if spins:
        up = np.random.default_rng(0).random(found.noise.shape) < (1 + np.tanh(found.field[-1] + tilt)) / 2
        stages.append(("spins", np.where(up, 1, -1).astype(np.int8)))
    lines = lattice is None and found.noise.ndim == 2
    rows = 1 if lines else min(ROWS, len(found.noise))
    width = 0.9 * WIDTH / len(stages)
    height = width * (1.6 if lines else rows) + 0.3
    figure = Figure(figsize=(WIDTH, height + 2.7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(height, 2.7), squeeze=False)[:, 0]
    colors = colors_of(found.field[-1])
    grid = above.subplots(rows, len(stages), squeeze=False)
    for place, (title, values) in enumerate(stages):
        for row in range(rows):
            shown = values[:LINES] if lines else values[row : row + 1]
            draw(grid[row, place], shown, 1, lattice, colors if values.dtype.kind == "f" else None, inches=width)
            grid[row, place].set(xticks=[], yticks=[], xlabel="", ylabel="")
        grid[0, place].set_title(title, fontsize=9)
    if lines:
        grid[0, 0].set(xlabel="site", ylabel="sample")
    bar = above.colorbar(colors.mapping, ax=grid, extend="both", fraction=0.03, pad=0.01, aspect=25)
    bar.set_label("field x", fontsize=9)
    bar.ax.tick_params(labelsize=8)

    left, right = below.subplots(1, 2)
    _histograms(left, found, [chosen[0], chosen[TIMES // 2], chosen[-1]])
    sites = tuple(range(2, found.field.ndim))
    mean = (np.tanh(found.field + tilt) if spins else found.field).mean(sites)
    right.plot(found.times, mean, color=FLOW, alpha=0.3, linewidth=0.8)
    right.plot(found.times, np.sqrt((mean**2).mean(1)), color=NEUTRAL, label="root mean square")
    words = "t, straight between the ends" if found.straight else "time t of the flow"
    right.set(
        xlabel=words,
        ylabel=("m = mean of tanh x" if np.ndim(tilt) == 0 else "m = mean of tanh(x + beta H)")
        if spins
        else "mean of x over sites",
    )
    right.legend(loc="upper left", fontsize=8)
    right.set_ylim(top=1.3 * max(right.get_ylim()[1], 1e-12))
    return figure


def _histograms(ax: matplotlib.axes.Axes, found: Evolution, chosen: list[int]) -> None:
    """Of the field at a site, at some times."""
    reach = np.abs(found.field[chosen]).max()
    edges = np.linspace(-reach, reach, BINS + 1).tolist()
    for index, color, style in zip(chosen, (NEUTRAL, ERROR, FLOW), (":", "--", "-"), strict=True):
        values = found.field[index].ravel()
        label = f"t = {found.times[index]:.2g}"
        ax.hist(values, edges, density=True, histtype="step", color=color, linestyle=style, linewidth=1.5, label=label)
    ax.set(xlabel="field x at a site", ylabel="density")
    ax.set_ylim(top=1.3 * ax.get_ylim()[1])
    ax.legend(loc="upper center", ncols=3, fontsize=8)
