"""How every figure looks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isingflow.runtime import stopping

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

FLOW = "#1f5fa8"

EXACT = "#c0392b"

LOWER = "#2a8a6a"

ERROR = "#d98a00"

NEUTRAL = "#555555"

WIDTH, HEIGHT = 7.0, 4.2

STYLE: dict[RcKeyType, Any] = {
    "font.size": 11,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
    "figure.dpi": 150,
}


def running_mean(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Centred running mean and its window: a fiftieth of the values, at least 5. Values that are nan are left out.

    At the start, where a loss falls steeply, the window shrinks to stay centred; at the end it is cut off.
    """
    window = max(len(values) // 50, 5) | 1
    present = np.isfinite(values)
    totals = np.concatenate([[0.0], np.cumsum(np.where(present, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(present)])
    index, half = np.arange(len(values)), window // 2
    first, end = index - np.minimum(half, index), np.minimum(index + np.minimum(half, index) + 1, len(values))
    number = counts[end] - counts[first]
    return (totals[end] - totals[first]) / np.where(number > 0, number, np.nan), window


def png(figure: Figure, *, certified: bool = True) -> bytes:
    """The figure as a PNG file; one that shows a flow which is not certified says so in a corner."""
    if not certified:
        figure.text(0.995, 0.99, "not certified", ha="right", va="top", color=EXACT, fontsize="small")
    stopping.check()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=STYLE["savefig.dpi"])
    return buffer.getvalue()


def new_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.add_subplot()
