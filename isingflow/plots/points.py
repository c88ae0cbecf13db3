"""Samples as points: data beside the flow's, in the units and words of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isingflow.plots.style import FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH

FAR = 3.0
"""Range of points, in units of that of all but the outermost thousandth, from which some are left out of a figure."""
LONGEST_NAME = 20
CORNER_COLUMNS = 6
"""Most columns of a corner plot."""
BINS = 40
"""Most cells of a histogram; of few points there are fewer."""
FEW = 300
"""Points up to which each is drawn larger."""


@matplotlib.rc_context(STYLE)
def samples_figure(data: np.ndarray, generated: np.ndarray, columns: Sequence[str] = ()) -> Figure:
    """Data beside samples of the flow: points of the first two columns, or histograms in one dimension.

    Args:
        data, generated: shape (n, d).
        columns: what they are called; x1, x2 if not given.

    Example:
        >>> figure = samples_figure(np.eye(3), np.eye(3), ["height", "mass", "age"])
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel(), figure.axes[1].get_title()
        ('height', 'mass', 'flow')
    """
    names = [label(name) for name in columns[:2]] or ["x1", "x2"]
    sets = {"data": data[:, :2], "flow": generated[:, :2]}
    low, high = limits(np.concatenate(list(sets.values())))
    titles = {name: name + outside(points, low, high) for name, points in sets.items()}
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    if data.shape[1] == 1:
        ax = figure.subplots()
        edges = np.linspace(low[0], high[0], 61).tolist()
        ax.hist(data[:, 0], edges, density=True, color=NEUTRAL, alpha=0.5, label=titles["data"])
        kept = generated[(generated >= low) & (generated <= high)]
        ax.hist(kept, edges, density=len(kept) > 0, histtype="step", color=FLOW, linewidth=1.8, label=titles["flow"])
        ax.set(xlabel=names[0] if columns else "x", ylabel="density")
        figure.legend(loc="outside lower center", ncols=2)
        return figure
    for ax, (name, points) in zip(figure.subplots(1, 2), sets.items(), strict=True):
        ax.plot(points[:, 0], points[:, 1], ".", color=FLOW if name == "flow" else NEUTRAL, markersize=2, alpha=0.6)
        ax.set(title=titles[name], xlabel=names[0], ylabel=names[1])
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return figure


@matplotlib.rc_context(STYLE)
def corner_figure(data: np.ndarray, generated: np.ndarray, columns: Sequence[str] = ()) -> Figure:
    """Every column of a table beside every other: data below the diagonal, the flow above, both on it.

    Of more than `CORNER_COLUMNS` columns the first ones are shown, and the figure says so.

    Args:
        data, generated: shape (n, d).
        columns: what they are called; x1, x2, .. if not given.

    Example:
        >>> figure = corner_figure(np.eye(3), np.eye(3), ["height", "mass", "age"])
        >>> len(figure.axes), figure.axes[-1].get_xlabel(), figure.axes[3].get_ylabel()
        (9, 'age', 'mass')
    """
    width = data.shape[1]
    count = min(width, CORNER_COLUMNS)
    names = [label(name) for name in columns[:count]] or [f"x{j + 1}" for j in range(count)]
    sets = {"data": data[:, :count], "flow": generated[:, :count]}
    low, high = limits(np.concatenate(list(sets.values())))
    titles = {name: name + outside(points, low, high) for name, points in sets.items()}
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    panels = figure.subplots(count, count, squeeze=False)
    for row in range(count):
        for column in range(count):
            ax = panels[row, column]
            if row == column:
                _histograms(ax, sets, row, (low[row], high[row]))
            else:
                points, colour = (sets["data"], NEUTRAL) if row > column else (sets["flow"], FLOW)
                ax.plot(
                    points[:, column],
                    points[:, row],
                    ".",
                    color=colour,
                    markersize=3 if len(points) < FEW else 1.2,
                    alpha=0.5,
                )
                ax.set(ylim=(low[row], high[row]))
            ax.set(xlim=(low[column], high[column]))
            ax.tick_params(labelsize=7, labelbottom=row == count - 1, labelleft=column == 0 and row > 0)
            ax.locator_params(nbins=3)
            ax.ticklabel_format(useOffset=True, scilimits=(-3, 4))
            for axis in (ax.xaxis, ax.yaxis):
                axis.get_offset_text().set_fontsize(6)
            if row == count - 1:
                ax.set_xlabel(names[column], fontsize=8)
            if column == 0:
                ax.set_ylabel("density" if row == 0 else names[row], fontsize=8)
    shown = f"columns 1 to {count} of {width}: " if count < width else ""
    words = f"{shown}below the diagonal {titles['data']}, above it {titles['flow']}"
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, title=words, title_fontsize=9
    )
    return figure


def _histograms(ax: Axes, sets: Mapping[str, np.ndarray], column: int, within: tuple[float, float]) -> None:
    """Of one column of data and of the flow, as densities."""
    cells = min(BINS, max(6, int(2 * min(map(len, sets.values())) ** 0.5)))
    edges = np.linspace(*within, cells + 1).tolist()
    styles = {"data": {"color": NEUTRAL, "alpha": 0.5}, "flow": {"color": FLOW, "histtype": "step", "linewidth": 1.2}}
    for name, points in sets.items():
        kept = points[(points[:, column] >= within[0]) & (points[:, column] <= within[1]), column]
        ax.hist(kept, edges, density=len(kept) > 0, label=name, **styles[name])  # type: ignore[arg-type]
    ax.set(yticks=[])


def limits(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of axes that show all finite points, shape (n, d); where some are far out, of the bulk of them."""
    points = points[np.isfinite(points).all(1)]
    if len(points) == 0:
        return np.zeros(points.shape[1]), np.ones(points.shape[1])
    low, high = points.min(0), points.max(0)
    inner, outer = np.quantile(points, [0.001, 0.999], axis=0)
    far = high - low > FAR * (outer - inner)
    room = np.where(far, (outer - inner) / 2, 0.05 * (high - low))
    room = np.where(room > 0, room, 1.0)
    return np.where(far, inner, low) - room, np.where(far, outer, high) + room


def outside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """How many points, shape (n, d), are not within these limits, in words."""
    within = ((points >= low) & (points <= high)).all(1)
    return "" if within.all() else f" ({np.count_nonzero(~within)} of {len(points)} outside)"


def label(name: str) -> str:
    """A name as the label of an axis, in which a dollar sign is no formula."""
    return (name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...").replace("$", r"\$")
