"""How every figure looks, and how it becomes a file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from isingflow.runs.config import AnyRunConfig
from isingflow.runs.config import heading as heading_of
from isingflow.runtime import stopping

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

    from isingflow.runs.folder import AnyRun

# Okabe and Ito's colours, which the colour-blind tell apart.
FLOW = "#0072b2"

EXACT = "#d55e00"

LOWER = "#009e73"

ERROR = "#e69f00"

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

HEADING = 9.0
"""Size of the letters of a heading, in points."""
LINE = 1.3
"""Height of a line, in units of that."""
CORNER = "not checked"


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


def entitled(figure: Figure, heading: str, *, certified: bool = True) -> Figure:
    """The figure with a heading, for which it grows; and, of a flow that is not certified, a word in the corner.

    Args:
        figure: without a heading.
        heading: wrapped to the figure's width, after semicolons first; none if empty.
        certified: whether the flow shown is.

    Example:
        >>> figure, ax = new_figure()
        >>> entitled(figure, "2D Ising, periodic 8x8").get_suptitle()
        '2D Ising, periodic 8x8'
    """
    corner = "" if certified else CORNER
    letters = max(_letters(heading + corner, figure.get_figwidth() * 72) - len(corner), 20)
    parts = [heading] if len(heading) <= letters else heading.split("; ")
    lines = [line for part in parts for line in textwrap.wrap(part, letters)] or ([""] if corner else [])
    room = (len(lines) * LINE + 0.4) * HEADING / 72 if lines else 0.0
    before = figure.get_figheight()
    figure.set_figheight(before + room)
    top = 1 - 0.25 * HEADING / 72 / (before + room)
    style: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": HEADING, "linespacing": 1.1}
    if figure.get_layout_engine() is None:
        style["y"] = top  # a layout places it itself
        for ax in figure.axes:
            x, y, width, height = ax.get_position().bounds
            ax.set_position((x, y * before / (before + room), width, height * before / (before + room)))
    if lines:
        figure.suptitle("\n".join(lines), **style)
    if corner:
        figure.text(0.995, top, corner, ha="right", va="top", color=EXACT, fontsize=HEADING)
    return figure


def _letters(text: str, width: float) -> int:
    """Letters of such a text that fit into a line of so many points, with a little room for wider ones."""
    extent = TextPath((0, 0), text, size=HEADING).get_extents().width if text.strip() else 0.0
    return int(0.93 * width * len(text) / extent) if extent else 1


def png(figure: Figure, heading: str = "", *, certified: bool = True) -> bytes:
    """The figure as a PNG file, with a heading as in `entitled`, which is also the file's title."""
    stopping.check()
    buffer = io.BytesIO()
    title = entitled(figure, heading, certified=certified).get_suptitle().replace("\n", " ")
    figure.savefig(buffer, format="png", dpi=STYLE["savefig.dpi"], metadata={"Title": title} if title else {})
    return buffer.getvalue()


def save(
    run: AnyRun, figures: Mapping[str, Figure], *, of: AnyRunConfig | None = None, certified: bool = True
) -> list[Path]:
    """Write figures, by name, into the folder of a run; returns their paths.

    Args:
        run: whose folder it is.
        figures: by name.
        of: what their heading says; the run, if nothing.
        certified: whether the integration is; if not, the figures say so.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    heading = heading_of(run.config if of is None else of)
    return [run.save_figure(name, png(figure, heading, certified=certified)) for name, figure in figures.items()]


def new_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.add_subplot()
