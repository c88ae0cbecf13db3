"""A lattice drawn: its sites and its bonds."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from isingflow.lattice import Lattice


def plot_lattice(lattice: Lattice, ax: Axes | None = None) -> Axes:
    """Draw sites and bonds (blue: J > 0, red: J < 0; a bond across the boundary as two stubs); returns the axes."""
    from matplotlib import pyplot

    ax = pyplot.subplots(layout="constrained")[1] if ax is None else ax
    ends = lattice.coordinates()[lattice.bonds]
    steps = ends[:, 1] - ends[:, 0]
    if lattice.boundary == "periodic":
        axes = lattice.coordinates()[[lattice.shape[1], 1]]
        first, second = (np.stack(np.unravel_index(sites, lattice.shape), axis=-1) for sites in lattice.bonds.T)
        offsets = second - first
        wraps = np.any((offsets < 0), axis=1)
        steps = (offsets % lattice.shape) @ axes
    else:
        wraps = np.zeros(len(steps), bool)
    reach = np.where(wraps, 0.5, 1.0)[:, None] * steps
    forward = np.stack([ends[:, 0], ends[:, 0] + reach], axis=1)
    backward = np.stack([ends[:, 1] - reach, ends[:, 1]], axis=1)[wraps]
    strengths = np.concatenate([lattice.strengths, lattice.strengths[wraps]])
    widths = 2.0 * np.abs(strengths) / max(np.abs(strengths).max(), 1e-300)
    colors = np.where(strengths > 0, "tab:blue", "tab:red")
    ax.add_collection(LineCollection([*forward, *backward], colors=colors, linewidths=widths, zorder=1))
    x, y = lattice.coordinates().T
    ax.scatter(x, y, s=400 / math.sqrt(lattice.sites), color="black", zorder=2)
    ax.set(aspect="equal", title=lattice.description)
    ax.axis("off")
    return ax
