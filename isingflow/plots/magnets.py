"""The figures of a run on a target: training, gap, configurations, log-weights, the flow in time; and of its chains.

Functions from data to a matplotlib `Figure`, without pyplot's global state: they draw the same in a script, a notebook
and a terminal without a display; `plot_run` writes them to a folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isingflow.plots.configurations import TILES, per_row, resample, tiles_figure
from isingflow.plots.in_time import evolution, flow_in_time_figure
from isingflow.plots.style import EXACT, FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH, new_figure, save
from isingflow.plots.training import exact_free_energy, gap_figure, training_figure, with_gaps
from isingflow.runs.loading import learnt_in, new_flow, trained
from isingflow.statistics.chains import autocorrelation
from isingflow.statistics.weights import effective_fraction

if TYPE_CHECKING:
    from isingflow.flows import Flow
    from isingflow.runs.folder import AnyRun

LEFT = 6.0
"""Widths below the mean from which log-weights, of hardly any weight, are counted instead of drawn."""
TRACES, TRACE_SAMPLES = 3, 600
"""Chains whose traces are shown, and how many samples of them, the last ones."""


class Samples(Protocol):
    """What `plot_run` needs of samples: fields, spins where there are some, and log-weights in nats, shape (n,)."""

    @property
    def spins(self) -> np.ndarray | None: ...

    @property
    def field(self) -> np.ndarray: ...

    @property
    def log_weight(self) -> np.ndarray: ...


def plot_run(run: AnyRun, samples: Samples, *, flow: Flow | None = None, certified: bool = True) -> list[Path]:
    """Write the figures of a run into its folder.

    Args:
        run: with a checkpoint, with or without metrics; where no exact answer is known there is no gap to draw.
        samples: drawn from the run's flow.
        flow: the trained one; that of the checkpoint if not given.
        certified: whether the flow is; if not, the figures say so.

    Returns:
        The paths of the PNG files written.

    Raises:
        RunFolderError: the run folder cannot be read or written.
        CheckpointError: the checkpoint is missing or unusable.
    """
    learnt, lattice = learnt_in(run), run.config.geometry
    curves = _curves(learnt)
    figures: dict[str, Figure] = {}
    name, shown = ("fields.png", samples.field) if samples.spins is None else ("spins.png", samples.spins)
    columns = per_row(lattice, 2 * TILES)
    count = columns * (columns - 1 if 1 < columns < 2 * TILES else TILES)
    figures[name] = tiles_figure(resample(shown, samples.log_weight, count), columns, lattice)
    figures["log_weights.png"] = log_weight_figure(samples.log_weight)
    if flow is None:
        flow = trained(run, new_flow(run.config), torch.device("cpu"))[0]
    beta = getattr(run.config, "beta", 0.0)
    spins = samples.spins is not None
    figures["flow_in_time.png"] = flow_in_time_figure(evolution(flow), lattice, spins=spins, beta=beta)
    return [
        *save(run, curves, of=learnt.config, certified=certified),
        *save(run, figures, certified=certified),
    ]


def _curves(run: AnyRun) -> dict[str, Figure]:
    """The figures of a training, with what its report says in the end."""
    metrics, report = run.metrics(), run.report() or {}
    exact = exact_free_energy(metrics, report)
    sites, found = math.prod(run.config.sample[1]), report.get("variational_free_energy")
    figures: dict[str, Figure] = {}
    if metrics:
        figures["training.png"] = training_figure(metrics, sites, exact, run.snapshots(), run.config.geometry, found)
    if exact is not None:
        figures["gap.png"] = gap_figure(with_gaps(metrics, exact), report.get("gap_nats"))
    return figures


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
    left = max(centred.min(), -LEFT * width)
    further = int((centred < left).sum()) + len(log_weights) - len(finite)
    label = f"{len(log_weights)} samples" + (f", {further} further left" if further else "")
    bins = int(np.clip(math.sqrt(centred.size), 10, 80))
    edges = np.linspace(left, centred.max(), bins + 1) if width >= 1e-12 else np.linspace(-0.5, 0.5, 11)
    heights = np.histogram(centred, edges)[0] / (max(len(log_weights), 1) * np.diff(edges))
    ax.stairs(heights, edges, fill=True, color=FLOW, alpha=0.45, label=label)
    if width >= 1e-12:
        x = np.linspace(min(left, -3 * width), max(centred.max(), 3 * width), 300)
        density = np.exp(-((x / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
        ax.plot(x, density, color=NEUTRAL, linewidth=1.4, label=f"Gaussian of width {width:.2g}")
    ax.axvline(0, color=FLOW, linewidth=1.4, label="mean (minus the bound)")
    ax.axvline(gap, color=EXACT, linestyle="--", linewidth=1.4, label=f"ln mean weight ({gap:+.2g})")
    ax.set(xlabel="log-weight about its mean (nats)", ylabel="density (per nat)")
    ax.set_title(f"effective sample size {100 * effective:.2g} %")
    figure.legend(loc="outside lower center", ncols=2)
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
