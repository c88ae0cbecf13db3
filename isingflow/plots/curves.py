"""Figures of ln Z against temperature."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from isingflow.plots.style import EXACT, FLOW, HEIGHT, LOWER, NEUTRAL, STYLE, WIDTH
from isingflow.statistics.estimate import Estimate


@matplotlib.rc_context(STYLE)
def log_z_figure(
    betas: Sequence[float],
    lower: Sequence[Estimate],
    estimates: Sequence[Estimate],
    upper: Sequence[Estimate],
    exact: Sequence[float | None],
) -> Figure:
    """ln Z against beta, and below it both bounds as they differ from the exact answer, or else from the estimate.

    Args:
        betas: inverse temperatures.
        lower, estimates, upper: of ln Z, one for each of them.
        exact: as far as it is known.
    """
    figure = Figure(figsize=(WIDTH, 1.5 * HEIGHT), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    known = np.array([np.nan if value is None else value for value in exact])
    value, error = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "stderr"))
    above.errorbar(betas, value, error, fmt="o", markersize=4, color=FLOW, label="annealing")
    if np.isfinite(known).any():
        above.plot(betas, known, color=EXACT, label="exact")
    above.set(ylabel="ln Z")
    above.legend()
    reference = np.where(np.isfinite(known), known, value)
    below.axhline(0, color=EXACT if np.isfinite(known).all() else FLOW, linewidth=1)
    for word, bounds, color, marker in (
        ("upper bound", upper, LOWER, "v"),
        ("estimate", estimates, NEUTRAL, "o"),
        ("lower bound", lower, FLOW, "^"),
    ):
        heights = np.array([e.value for e in bounds]) - reference
        errors = [e.stderr if np.isfinite(e.stderr) else np.nan for e in bounds]
        below.errorbar(betas, heights, errors, fmt=f"{marker}-", markersize=4, linewidth=1, color=color, label=word)
    below.set(xlabel=r"$\beta$", ylabel=f"ln Z $-$ {'exact' if np.isfinite(known).all() else 'estimate'} (nats)")
    below.legend()
    return figure
