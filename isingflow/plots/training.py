"""The figures of a training: bounds against the exact answer, and the gap between them.

The first is figure 4 of Zhang, E and Wang (2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from isingflow.lattice import Lattice
from isingflow.plots.configurations import TILES, draw, per_row
from isingflow.plots.style import ERROR, EXACT, FLOW, HEIGHT, LOWER, NEUTRAL, STYLE, WIDTH, new_figure, running_mean

Record = Mapping[str, Any]
Estimated = Mapping[str, float]
"""An estimate of a report: `value` and `stderr`."""

INSETS_FROM = 0.53
"""Part of the training figure's height, from below, that is left to the curve."""
DECADES = 1e-3
"""How far below the smallest running mean of the gap the axis may go."""


@matplotlib.rc_context(STYLE)
def training_figure(
    metrics: Sequence[Record],
    sites: int,
    exact_free_energy: float | None = None,
    snapshots: Mapping[int, np.ndarray] | None = None,
    lattice: Lattice | None = None,
    evaluated: Estimated | None = None,
) -> Figure:
    """Bounds per site against iterations, the exact line, and configurations from start, middle and end of a training.

    The axis holds the bound from above but for a few outliers, the exact answer, and the running mean of the bound
    from below as far as it is no further from these than the bound from above was.

    Args:
        metrics: records of `metrics.jsonl`.
        sites: number of spins.
        exact_free_energy: -ln Z of the continuous representation, total, in nats.
        snapshots: spins or fields by iteration, shape (n, *shape); three of them are shown, 25 configurations each.
        lattice: on which these live.
        evaluated: the upper bound that the evaluation found, with its standard error, total, in nats.
    """
    snapshots = snapshots or {}
    iterations, bound = column(metrics, "iteration"), column(metrics, "variational_free_energy") / sites
    what = "upper bound"
    if not np.isfinite(bound).any() and np.isfinite(sampled := column(metrics, "sampled_loss")).any():
        bound, what = sampled / sites, "loss of sampled stages, no bound"
    smooth, window = running_mean(bound)
    lower, _ = running_mean(column(metrics, "lower_bound") / sites)
    exact = None if exact_free_energy is None else exact_free_energy / sites
    chosen = _stages(sorted(i for i in snapshots if i <= max(iterations.max(initial=1), 2)))
    final = None if evaluated is None else evaluated["value"] / sites
    low, high = _limits(np.append(bound, [] if final is None else final), lower, exact)
    top = low + (high - low) / (INSETS_FROM if chosen else 0.95)
    bottom = low - 0.06 * (top - low)

    figure, ax = new_figure()
    ax.plot(iterations, bound, color=FLOW, alpha=0.3, linewidth=0.8, label=f"{what}, one batch")
    ax.plot(iterations, smooth, color=FLOW, label=f"{what}, running mean of {window}")
    if np.isfinite(lower).any():
        unseen = iterations[np.isfinite(lower) & (lower < bottom)]
        note = f" (below the axis until {unseen[-1]:.0f})" if unseen.size else ""
        ax.plot(iterations, lower, color=LOWER, label=f"lower bound, running mean{note}")
    if exact is not None:
        ax.axhline(exact, color=EXACT, linestyle="--", linewidth=1.4, label=f"exact, {exact:.5f}".replace("-", "−"))
    last = max(iterations.max(initial=1), 2)
    if evaluated is not None:
        _mark_evaluated(ax, last, evaluated, 1 / sites, "upper bound, evaluated")
    ax.set(xlabel="iteration", ylabel="$-$ln Z of the field per site (nats)", xlim=(-0.015 * last, 1.015 * last))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_ylim(bottom, top)
    for position, iteration in enumerate(chosen):
        level = np.interp(iteration, iterations, smooth) if len(iterations) else low
        _inset(ax, position, len(chosen), snapshots[iteration], lattice, iteration, level)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def gap_figure(metrics: Sequence[Record], evaluated: Estimated | None = None) -> Figure:
    """The gap to the exact free energy on a log axis against iterations and seconds, with the integration errors.

    A batch can lie below the exact answer: by the scatter of its mean, or because its integration is wrong. Those that
    do are marked at the foot of the axis and counted in the legend.

    Args:
        metrics: records of `metrics.jsonl`; where `gap_nats` is null throughout, the figure says so.
        evaluated: the gap that the evaluation found, with its standard error: of the final weights, and with all that
            was fitted after the last iteration.
    """
    iterations, gap = column(metrics, "iteration"), column(metrics, "gap_nats")
    error = column(metrics, "integration_error_nats")
    known, measured = np.isfinite(gap), np.isfinite(error) & (error > 0)
    figure, ax = new_figure()
    ax.set_yscale("log", nonpositive="mask")
    if known.any():
        smooth, window = running_mean(gap)
        if not (gap > 0).any():
            ax.set_ylim(0.1, 10)
        ax.plot(iterations, gap, color=FLOW, alpha=0.3, linewidth=0.8, label="bound $-$ exact, one batch")
        ax.plot(iterations, smooth, color=FLOW, label=f"running mean of {window}")
        above = smooth[smooth > 0].min(initial=gap[gap > 0].max(initial=1.0))
        small = np.concatenate([gap[known & (gap > 0)], error[measured]]).min(initial=above)
        floor = min(max(small, DECADES * above), above / 4) / 1.5
        ax.set_ylim(bottom=floor)
        for values, size, alpha, what in ((gap, 4, 0.7, "batches"), (smooth, 7, 1.0, "running means")):
            below = np.isfinite(values) & (values <= 0)
            if below.any():
                _mark_at_foot(ax, iterations[below], size, alpha, f"{below.sum()} {what} below zero")
    else:
        floor = 0.0
        ax.text(0.5, 0.5, "no exact answer is known: no gap", transform=ax.transAxes, ha="center", color=NEUTRAL)
    if measured.any():
        below = measured & (error < floor)
        dots = np.where(below, floor, error)[measured]
        label = "integration error" + (f" ({below.sum()} below the axis)" if below.any() else "")
        ax.plot(iterations[measured], dots, "o", color=ERROR, markersize=4, clip_on=False, label=label)
    if known.any() and evaluated is not None:
        if evaluated["value"] > DECADES * above:
            _mark_evaluated(ax, iterations[-1], evaluated, 1.0, "evaluated")
            ax.set_ylim(bottom=min(floor, evaluated["value"] / 1.5))
        else:
            _mark_at_foot(ax, iterations[-1:], 7, 1.0, f"evaluated: {evaluated['value']:.2g}")
    ax.set(xlabel="iteration", ylabel="gap (nats)")
    ax.grid(axis="y", color="0.9")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _add_seconds(ax, iterations, column(metrics, "seconds"))
    if known.any() or measured.any():
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def exact_free_energy(metrics: Sequence[Record], report: Record | None = None) -> float | None:
    """The exact free energy that the gaps were measured from; where there are bounds alone, that of the evaluation."""
    bounded = [record for record in metrics if record.get("variational_free_energy") is not None]
    for record in bounded:
        if record.get("gap_nats") is not None:
            return record["variational_free_energy"] - record["gap_nats"]
    return (report or {}).get("exact_free_energy") if bounded else None


def with_gaps(metrics: Sequence[Record], exact: float | None) -> Sequence[Record]:
    """Records of a training that was not told the exact answer, with the gaps that it would have seen."""
    if exact is None:
        return metrics
    return [
        {**record, "gap_nats": record["variational_free_energy"] - exact}
        if record.get("gap_nats") is None and record.get("variational_free_energy") is not None
        else record
        for record in metrics
    ]


def column(metrics: Sequence[Record], name: str) -> np.ndarray:
    """One entry of every record, float64; nan where it is missing or null."""
    return np.array([math.nan if record.get(name) is None else record[name] for record in metrics], dtype=float)


def _mark_evaluated(ax: Axes, iteration: float, found: Estimated, unit: float, label: str) -> None:
    """What came out in the end: it may be better than the last batches, by what was fitted after them."""
    value, stderr = found["value"] * unit, found["stderr"] * unit
    below = min(stderr, 0.9 * value) if ax.get_yscale() == "log" else stderr
    style: dict[str, Any] = {"color": NEUTRAL, "markersize": 5, "capsize": 3, "clip_on": False, "zorder": 6}
    ax.errorbar([iteration], [value], yerr=[[below], [stderr]], fmt="D", label=label, **style)


def _mark_at_foot(ax: Axes, iterations: np.ndarray, size: float, alpha: float, label: str) -> None:
    """Triangles that point out of the axis, for what a logarithm cannot show."""
    style: dict[str, Any] = {"color": EXACT, "alpha": alpha, "markersize": size, "clip_on": False, "zorder": 5}
    ax.plot(iterations, np.full(len(iterations), 0.01), "v", transform=ax.get_xaxis_transform(), label=label, **style)


def _stages(iterations: Sequence[int]) -> list[int]:
    """The first, a middle and the last of the snapshots."""
    return sorted({iterations[0], iterations[len(iterations) // 2], iterations[-1]}) if iterations else []


def _limits(bound: np.ndarray, lower: np.ndarray, exact: float | None) -> tuple[float, float]:
    """Lowest and highest value to be shown: all but a few outliers above, and the bound from below where it is near."""
    values = np.append(bound, [] if exact is None else exact)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, usual = values.min(), np.quantile(values, 0.97)
    high = min(values.max(), low + 3 * (usual - low)) if usual > low else values.max()
    lower = lower[np.isfinite(lower)]
    late = lower[-max(len(lower) // 4, 1) :]
    near = np.concatenate([late, lower[lower > low - (high - low)]])
    low = min(low, near.min(initial=low))
    return low, max(high, low + 1e-6 * max(1.0, abs(low)))


def _inset(
    ax: Axes, position: int, count: int, samples: np.ndarray, lattice: Lattice | None, iteration: int, level: float
) -> None:
    """Configurations above the curve, tied to the point of the curve where they were drawn."""
    bottom, top = INSETS_FROM + 0.05, 0.93
    width, height = (top - bottom) * HEIGHT / WIDTH, top - bottom
    left = 0.04 + position * (0.94 - width) / max(count - 1, 1)
    inset = ax.inset_axes((left, top - height, width, height), zorder=5)
    columns = per_row(lattice, TILES)
    shown = samples[: TILES**2 if lattice is None else columns**2]
    draw(inset, shown, columns, lattice, inches=height * HEIGHT / columns)
    inset.set(xticks=[], yticks=[], xlabel="", ylabel="", anchor="N")
    inset.set_title(f"iteration {iteration}", fontsize=9, pad=3)
    across = ax.transLimits.transform((iteration, level))[0]
    corner = float(np.clip((across - left) / width, 0, 1))
    ends = (corner, 0), (iteration, level), inset.transAxes, ax.transData
    ax.add_artist(ConnectionPatch(*ends, color=NEUTRAL, linewidth=0.8, shrinkA=2, zorder=4))
    ax.plot(iteration, level, "o", color=NEUTRAL, markersize=4, zorder=6)


def _add_seconds(ax: Axes, iterations: np.ndarray, seconds: np.ndarray) -> None:
    """A second axis on top with the time that had passed, where times are known and grow."""
    if len(seconds) < 2 or not np.all(np.diff(seconds) > 0) or not np.all(np.diff(iterations) > 0):
        return
    forward, backward = _interpolation(iterations, seconds), _interpolation(seconds, iterations)
    top = ax.secondary_xaxis("top", functions=(forward, backward))
    top.set_xlabel("seconds", fontsize=STYLE["font.size"])
    top.xaxis.set_major_locator(MaxNLocator(6))


def _interpolation(x: np.ndarray, y: np.ndarray) -> Callable[[ArrayLike], ArrayLike]:
    """The increasing function through these points, continued in straight lines."""
    reach = x[-1] - x[0]
    first, last = (y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[0]) / reach
    x = np.concatenate([[x[0] - reach], x, [x[-1] + reach]])
    y = np.concatenate([[y[0] - first * reach], y, [y[-1] + last * reach]])
    return lambda points: np.interp(np.asarray(points, dtype=float), x, y)
