"""The figure of overlaps between replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
from matplotlib.figure import Figure

from isingflow.plots.style import FLOW, STYLE, new_figure

if TYPE_CHECKING:
    from isingflow.observables.overlap import Overlap


@matplotlib.rc_context(STYLE)
def overlap_figure(found: Overlap) -> Figure:
    """The distribution P(q) of the overlap, with its errors as a band.

    Args:
        found: what `observables.overlap` gave.
    """
    figure, ax = new_figure()
    value, error = found.distribution.value, found.distribution.stderr
    ax.stairs(value, found.edges, color=FLOW, label=f"{found.pairs} pairs of replicas")
    ax.stairs(value + error, found.edges, baseline=value - error, fill=True, color=FLOW, alpha=0.25)
    ax.set(xlabel="overlap q", ylabel="P(q)", xlim=(-1.05, 1.05), ylim=(0, None))
    ax.legend()
    return figure
