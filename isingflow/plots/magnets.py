"""The figures of a run: training against the exact answer, the gap, configurations, log-weights.

The first is figure 4 of Zhang, E and Wang (2018). Functions from data to a matplotlib `Figure`, without pyplot's global
state: they draw the same in a script, a notebook and a terminal without a display; `plot_run` writes them to a folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from isingflow.plots.style import (
    ERROR,
    EXACT,
    FLOW,
    HEIGHT,
    LOWER,
    NEUTRAL,
    STYLE,
    WIDTH,
    new_figure,
    png,
    running_mean,
)
from isingflow.statistics.chains import autocorrelation
from isingflow.statistics.weights import effective_fraction

if TYPE_CHECKING:
    from isingflow.runs.folder import AnyRun

Record = Mapping[str, Any]

UP, DOWN, GRID = 1.0, 0.0, 0.6
"""Grey levels of spins up and down, and of the lines between tiles."""
TILES = 5
TRACES, TRACE_SAMPLES = 3, 600
"""Chains whose traces are shown, and how many samples of them, the last ones."""
INSETS_FROM = 0.53
"""Part of the training figure's height, from below, that is left to the curve."""


class Samples(Protocol):
    """What `plot_run` needs of samples: fields, spins where there are some, and log-weights in nats, shape (n,)."""

    @property
    def spins(self) -> np.ndarray | None: ...

    @property
    def field(self) -> np.ndarray: ...

    @property
    def log_weight(self) -> np.ndarray: ...


def plot_run(run: AnyRun, samples: Samples, *, certified: bool = True) -> list[Path]:
    """Write the figures of a run into its folder.

    Args:
        run: with or without metrics; where no exact answer is known there is no gap to draw.
        samples: drawn from the run's flow.
        certified: whether the flow is; if not, the figures say so.

    Returns:
        The paths of the PNG files written.

    Raises:
        RunFolderError: the run folder cannot be read or written.
    """
    metrics = run.metrics()
    exact = _exact_free_energy(metrics)
    figures: dict[str, Figure] = {}
    if metrics:
        figures["training.png"] = training_figure(metrics, samples.field[0].size, exact, run.snapshots())
    if exact is not None:
        figures["gap.png"] = gap_figure(metrics)
    name, shown = ("fields.png", samples.field) if samples.spins is None else ("spins.png", samples.spins)
    figures[name] = tiles_figure(resample(shown, samples.log_weight, 2 * TILES**2), columns=2 * TILES)
    figures["log_weights.png"] = log_weight_figure(samples.log_weight)
    return [run.save_figure(name, png(figure, certified=certified)) for name, figure in figures.items()]


@matplotlib.rc_context(STYLE)
def training_figure(
    metrics: Sequence[Record],
    sites: int,
    exact_free_energy: float | None = None,
    snapshots: Mapping[int, np.ndarray] | None = None,
) -> Figure:
    """Bounds per site against iterations, the exact line, and configurations from start, middle and end of a training.

    Args:
        metrics: records of `metrics.jsonl`.
        sites: number of spins.
        exact_free_energy: -ln Z of the continuous representation, total, in nats.
        snapshots: spins or fields by iteration, shape (n, lx, ly); three of them are shown, 25 configurations each.
    """
    snapshots = snapshots or {}
    iterations, bound = _column(metrics, "iteration"), _column(metrics, "variational_free_energy") / sites
    lower = _column(metrics, "lower_bound") / sites
    smooth, window = running_mean(bound)
    figure, ax = new_figure()
    ax.plot(iterations, bound, color=FLOW, alpha=0.3, linewidth=0.8, label="bound of one batch")
    ax.plot(iterations, smooth, color=FLOW, label=f"running mean of {window}")
    smooth_lower, _ = running_mean(lower)
    if np.isfinite(lower).any():
        ax.plot(iterations, smooth_lower, color=LOWER, label="lower bound, running mean")
    if exact_free_energy is not None:
        exact = exact_free_energy / sites
        ax.axhline(exact, color=EXACT, linestyle="--", linewidth=1.4, label=f"exact, {exact:.5f}".replace("-", "−"))
    last = max(iterations.max(initial=1), 2)
    ax.set(xlabel="iteration", ylabel="free energy (nats per site)", xlim=(-0.015 * last, 1.015 * last))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    chosen = _stages(sorted(i for i in snapshots if i <= last))
    late = smooth_lower[-max(len(lower) // 4, 1) :]
    values = np.concatenate([bound, late, [] if exact_free_energy is None else [exact]])
    values = values[np.isfinite(values)]
    low, high = _range(values)
    top = low + (high - low) / (INSETS_FROM if chosen else 0.95)
    ax.set_ylim(low - 0.06 * (top - low), top)
    for position, iteration in enumerate(chosen):
        level = np.interp(iteration, iterations, smooth) if len(iterations) else low
        _inset(ax, position, len(chosen), snapshots[iteration], iteration, level)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@matplotlib.rc_context(STYLE)
def gap_figure(metrics: Sequence[Record]) -> Figure:
    """The gap to the exact free energy on a log axis against iterations and seconds, with the integration errors.

    Args:
        metrics: records of `metrics.jsonl`; where `gap_nats` is null throughout, the figure says so.
    """
    iterations, gap = _column(metrics, "iteration"), _column(metrics, "gap_nats")
    error = _column(metrics, "integration_error_nats")
    known, measured = np.isfinite(gap), np.isfinite(error) & (error > 0)
    figure, ax = new_figure()
    ax.set_yscale("log", nonpositive="mask")
    if known.any():
        smooth, window = running_mean(gap)
        ax.plot(iterations, gap, color=FLOW, alpha=0.3, linewidth=0.8, label="gap of one batch")
        ax.plot(iterations, smooth, color=FLOW, label=f"running mean of {window}")
        positive = np.concatenate([gap[known & (gap > 0)], error[measured]])
        floor = min(np.min(np.append(smooth[smooth > 0], 1.0)) / 4, np.min(positive, initial=1.0))
        ax.set_ylim(bottom=max(floor, 1e-6) / 1.5)
    else:
        ax.text(0.5, 0.5, "no exact answer is known: no gap", transform=ax.transAxes, ha="center", color=NEUTRAL)
    if measured.any():
        ax.plot(iterations[measured], error[measured], "o", color=ERROR, markersize=4, label="integration error")
    ax.set(xlabel="iteration", ylabel="nats")
    ax.grid(axis="y", color="0.9")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _add_seconds(ax, iterations, _column(metrics, "seconds"))
    if known.any() or measured.any():
        ax.legend(loc="best")
    return figure


@matplotlib.rc_context(STYLE)
def tiles_figure(spins: np.ndarray, columns: int = TILES) -> Figure:
    """Configurations side by side: spin up white, spin down black; fields in grey levels.

    Args:
        spins: +1 or -1, shape (n, lx, ly), or fields of floats.
        columns: tiles in a row.

    Example:
        >>> figure = tiles_figure(np.ones((10, 4, 4), dtype=np.int8))
    """
    image = tile(spins, columns)
    scale = WIDTH / max(image.shape)
    figure = Figure(figsize=(image.shape[1] * scale, image.shape[0] * scale), layout="none")  # type: ignore[arg-type]  # the stub lacks it
    _show_tiles(figure.add_axes((0.0, 0.0, 1.0, 1.0)), image)
    return figure


@matplotlib.rc_context(STYLE)
def log_weight_figure(log_weights: np.ndarray) -> Figure:
    """Histogram of log-weights about their mean, beside the Gaussian of the same width.

    The mean log-weight is minus the variational bound; ln of the mean weight is minus the reweighted free energy, and
    lies above it by the gap. Weights far to the right of that line dominate the estimate.

    Args:
        log_weights: -E(x) - ln p(x) in nats, shape (n,).
    """
    log_weights = np.asarray(log_weights, dtype=float)
    finite = log_weights[np.isfinite(log_weights)]
    centred = finite - finite.mean() if finite.size else np.zeros(1)
    width = float(centred.std())
    weights = np.exp(centred - centred.max())
    effective = effective_fraction(weights) * len(finite) / max(len(log_weights), 1)
    gap = centred.max() + math.log(weights.mean())

    figure, ax = new_figure()
    bins = np.linspace(-0.5, 0.5, 11).tolist() if width < 1e-12 else int(np.clip(math.sqrt(centred.size), 10, 80))
    ax.hist(centred, bins, density=True, color=FLOW, alpha=0.45, label=f"{len(log_weights)} samples")
    if width >= 1e-12:
        x = np.linspace(min(centred.min(), -3 * width), max(centred.max(), 3 * width), 300)
        density = np.exp(-((x / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
        ax.plot(x, density, color=NEUTRAL, linewidth=1.4, label=f"Gaussian of width {width:.2g}")
    ax.axvline(0, color=FLOW, linewidth=1.4, label="mean (minus the bound)")
    ax.axvline(gap, color=EXACT, linestyle="--", linewidth=1.4, label=f"ln mean weight ({gap:+.2g})")
    ax.set(xlabel="log-weight about its mean (nats)", ylabel="density (per nat)")
    ax.set_title(f"effective sample size {100 * effective:.2g} %")
    ax.legend(loc="upper left")
    return figure


@matplotlib.rc_context(STYLE)
def chains_figure(series: Mapping[str, np.ndarray], exact: Mapping[str, float] | None = None) -> Figure:
    """Traces of a few Markov chains, and autocorrelations over all of them: one row for every quantity.

    Args:
        series: quantities by name, each of shape (chains, samples), at least 2 samples.
        exact: their exact means, where known.

    Example:
        >>> figure = chains_figure({"energy per site": np.random.default_rng(0).normal(size=(8, 100))})
    """
    exact = exact or {}
    figure = Figure(figsize=(1.4 * WIDTH, 0.6 * HEIGHT * len(series)), layout="constrained")
    rows = figure.subplots(len(series), 2, squeeze=False, sharex="col", width_ratios=(2, 1))
    for (trace, decay), (name, values) in zip(rows, series.items(), strict=True):
        values = np.asarray(values, dtype=float)
        shown, samples = values[:TRACES, -TRACE_SAMPLES:], values.shape[1]
        for chain, shade in zip(shown, np.linspace(1, 0.35, len(shown)), strict=True):
            trace.plot(np.arange(samples - len(chain), samples) + 1, chain, color=FLOW, alpha=shade, linewidth=0.8)
        if name in exact:
            trace.axhline(exact[name], color=EXACT, linestyle="--", linewidth=1.4, label="exact mean")
            trace.legend(loc="best")
        trace.set_ylabel(name)
        rho = autocorrelation(values)
        below = np.flatnonzero(rho < 0.05)
        lags = min(samples - 1, max(10, 3 * int(below[0] if below.size else samples)))
        decay.axhline(0, color="0.8", linewidth=1)
        decay.plot(np.arange(lags + 1), rho[: lags + 1], "o-", color=FLOW, markersize=3, linewidth=1.2)
        decay.set(ylabel="autocorrelation", ylim=(min(-0.1, 1.1 * rho[: lags + 1].min()), 1.05))
    rows[0, 0].set_title(f"{len(shown)} of {len(values)} chains")
    for ax, label in zip(rows[-1], ("sample", "lag (samples)"), strict=True):
        ax.set_xlabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def resample(spins: np.ndarray, log_weights: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Configurations drawn with probabilities proportional to their weights, so that they follow the Ising model.

    Args:
        spins: shape (n, ...).
        log_weights: in nats, shape (n,).
        count: how many to draw, with replacement.

    Returns:
        Shape (count, ...).
    """
    log_weights = np.nan_to_num(np.asarray(log_weights, dtype=float), nan=-np.inf)
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(spins)[np.random.default_rng(seed).choice(len(spins), count, p=weights / weights.sum())]


def tile(spins: np.ndarray, columns: int) -> np.ndarray:
    """One image of grey levels from configurations, shape (n, lx, ly), with a line of pixels between tiles.

    Spins, integers, are white or black; of fields, floats, zero is grey, and twice the root mean square white or black.
    """
    spins = np.asarray(spins)
    spins = spins.reshape(len(spins), -1, spins.shape[-1])
    reach = 4 * math.sqrt(np.mean(np.square(spins, dtype=float))) if spins.dtype.kind == "f" else 0.0
    levels = np.clip(0.5 + spins / max(reach, 1e-30), DOWN, UP) if reach else np.where(spins > 0, UP, DOWN)
    rows = -(-len(spins) // columns)
    line = max(1, round(min(spins.shape[1:]) / 12))
    height, width = (length + line for length in spins.shape[1:])
    image = np.full((rows * height + line, min(columns, len(spins)) * width + line), GRID)
    for index, configuration in enumerate(levels):
        row, column = line + index // columns * height, line + index % columns * width
        image[row : row + height - line, column : column + width - line] = configuration
    return image


def _column(metrics: Sequence[Record], name: str) -> np.ndarray:
    """One entry of every record, float64; nan where it is missing or null."""
    return np.array([math.nan if record.get(name) is None else record[name] for record in metrics], dtype=float)


def _exact_free_energy(metrics: Sequence[Record]) -> float | None:
    """The exact free energy that the gaps were measured from."""
    for record in metrics:
        bound, gap = record.get("variational_free_energy"), record.get("gap_nats")
        if bound is not None and gap is not None:
            return bound - gap
    return None


def _stages(iterations: Sequence[int]) -> list[int]:
    """The first, a middle and the last of the snapshots."""
    return sorted({iterations[0], iterations[len(iterations) // 2], iterations[-1]}) if iterations else []


def _range(values: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value, a few outliers above left out."""
    if values.size == 0:
        return 0.0, 1.0
    low, usual = values.min(), np.quantile(values, 0.97)
    high = min(values.max(), low + 3 * (usual - low)) if usual > low else values.max()
    return low, max(high, low + 1e-6 * max(1.0, abs(low)))


def _show_tiles(ax: Axes, image: np.ndarray) -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _inset(ax: Axes, position: int, count: int, spins: np.ndarray, iteration: int, level: float) -> None:
    """Tiles of configurations above the curve, tied to the point of the curve where they were drawn."""
    image = tile(spins[: TILES**2], TILES)
    bottom, top = INSETS_FROM + 0.05, 0.93
    height = top - bottom
    width = height * HEIGHT / WIDTH * image.shape[1] / image.shape[0]
    width, height = min(width, 0.3), height * min(1, 0.3 / width)
    left = 0.04 + position * (0.94 - width) / max(count - 1, 1)
    inset = ax.inset_axes((left, top - height, width, height), zorder=5)
    _show_tiles(inset, image)
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
