"""The figures of a run on data: likelihood while training, samples beside data, and data on their way to noise.

For MNIST they are figures 3(a) and 3(b) of Zhang, E and Wang (2018). Functions from data to a matplotlib `Figure`;
`plot_run` writes them to a folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from isingflow.data_model import fitted_part
from isingflow.flows import Flow, GradientFlow
from isingflow.loading import trained
from isingflow.model import new_flow
from isingflow.plots import ERROR, EXACT, FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH, png, running_mean

if TYPE_CHECKING:
    from isingflow.datasets import Dataset
    from isingflow.runs import RunFolder

PUBLISHED = {"MADE": 1380.8, "Real NVP": 1323.2, "MAF": 1300.5, "Monge-Ampère": 1255.5}
"""Negative log-likelihoods of MNIST in nats, in logit space, as quoted by Zhang, E and Wang (2018)."""
SHOWN_IMAGES, STRIPS, TIMES = 100, 10, 8
SCATTERED = 2000


def plot_run(run: RunFolder, samples: np.ndarray, data: Dataset) -> list[Path]:
    """Write the figures of a run on data into its folder.

    Args:
        run: with a checkpoint.
        samples: of the flow, points of model space, shape (n, d).
        data: what it was trained on.

    Returns:
        The paths of the PNG files written.
    """
    published = PUBLISHED if run.config.data == "mnist" else {}
    start = (run.report() or {}).get("start_negative_log_likelihood", {}).get("value")
    figures = {"training.png": likelihood_figure(run.metrics(), start, published)}
    flow, _ = trained(run, new_flow(run.config), torch.device("cpu"))
    generated = torch.from_numpy(samples)
    test = next(data.test.batches(SCATTERED, torch.Generator().manual_seed(0)))
    if data.image_shape is not None:
        figures["samples.png"] = tiles_figure(_images(data, generated[:SHOWN_IMAGES]), columns=10)
        # Standard normal numbers are uniform grey levels under their distribution function.
        stages = [torch.special.ndtr(z).numpy() for z in gaussianised(flow, test[:STRIPS])]
        levels = _images(data, test[:STRIPS]) / run.config.levels
        strips = np.stack([levels, *(stage.reshape(levels.shape) for stage in stages)], 1)
        columns = strips.shape[1]
        figures["gaussianisation.png"] = tiles_figure(strips.reshape(-1, *data.image_shape), columns=columns)
    else:
        figures["samples.png"] = samples_figure(test.numpy(), generated.numpy())
        if data.dimension == 2:
            figures["paths.png"] = paths_figure([points.numpy() for points in gaussianised(flow, test[:400])])
    return [run.save_figure(name, png(figure)) for name, figure in figures.items()]


@matplotlib.rc_context(STYLE)
def likelihood_figure(
    metrics: Sequence[Mapping[str, Any]], start: float | None = None, published: Mapping[str, float] | None = None
) -> Figure:
    """Negative log-likelihood against iterations: of batches, of validation data, and of others.

    Args:
        metrics: records of `metrics.jsonl`.
        start: of what was fitted before training.
        published: of other methods, by name.
    """
    iterations = np.array([record["iteration"] for record in metrics])
    values = np.array([record["negative_log_likelihood"] for record in metrics], dtype=float)
    checked = [
        (record["iteration"], record["validation_negative_log_likelihood"])
        for record in metrics
        if record.get("validation_negative_log_likelihood") is not None
    ]
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    ax = figure.subplots()
    smooth, window = running_mean(values)
    ax.plot(iterations, values, color=FLOW, alpha=0.3, linewidth=0.8, label="one batch")
    ax.plot(iterations, smooth, color=FLOW, label=f"running mean of {window}")
    if checked:
        ax.plot(*zip(*checked, strict=True), "o", color=ERROR, markersize=4, label="validation data")
    levels = list(smooth[len(smooth) // 20 :])
    if start is not None:
        ax.axhline(start, color=EXACT, linestyle="--", linewidth=1.4, label="fitted in closed form")
        levels.append(start)
    for name, level in (published or {}).items():
        ax.axhline(level, color=NEUTRAL, linestyle=":", linewidth=1.2)
        ax.annotate(
            name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=NEUTRAL, size=9
        )
        levels.append(level)
    low, high = np.nanmin(levels), np.nanmax(levels)
    margin = 0.08 * (high - low) or 1.0
    ax.set(xlabel="iteration", ylabel="negative log-likelihood (nats)", ylim=(low - margin, high + margin))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@matplotlib.rc_context(STYLE)
def tiles_figure(images: np.ndarray, columns: int) -> Figure:
    """Images, shape (n, height, width), in rows of so many columns."""
    count, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * height, columns * width))
    for index, image in enumerate(images):
        top, left = divmod(index, columns)
        sheet[top * height : (top + 1) * height, left * width : (left + 1) * width] = image
    figure = Figure(figsize=(WIDTH, WIDTH * rows * height / (columns * width)))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(sheet, cmap="gray", interpolation="nearest", vmin=0)
    ax.set_axis_off()
    return figure


@matplotlib.rc_context(STYLE)
def samples_figure(data: np.ndarray, generated: np.ndarray) -> Figure:
    """Data beside samples of the flow: points of the first two columns, or histograms in one dimension."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    if data.shape[1] == 1:
        ax = figure.subplots()
        edges = np.histogram_bin_edges(data, 60)
        ax.hist(data[:, 0], edges, density=True, color=NEUTRAL, alpha=0.5, label="data")
        ax.hist(generated[:, 0], edges, density=True, histtype="step", color=FLOW, linewidth=1.8, label="flow")
        ax.set(xlabel="x", ylabel="density")
        figure.legend(loc="outside lower center", ncols=2)
        return figure
    low, high = np.quantile(data[:, :2], [0.001, 0.999], axis=0)
    room = 0.1 * (high - low)
    for ax, points, title in zip(figure.subplots(1, 2), (data, generated), ("data", "flow"), strict=True):
        ax.plot(points[:, 0], points[:, 1], ".", color=FLOW if title == "flow" else NEUTRAL, markersize=2, alpha=0.6)
        ax.set(title=title, xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
    return figure


@matplotlib.rc_context(STYLE)
def paths_figure(points: Sequence[np.ndarray]) -> Figure:
    """Points in the plane at successive times, from whitened data to noise, with their paths."""
    path = np.stack(points)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharex=True, sharey=True)
    for ax, positions, title in ((left, path[0], "whitened data"), (right, path[-1], "noise")):
        ax.plot(positions[:, 0], positions[:, 1], ".", color=FLOW, markersize=2)
        ax.set(title=title, aspect="equal")
    middle.plot(path[:, :100, 0], path[:, :100, 1], color=NEUTRAL, linewidth=0.5)
    middle.set(title="between", aspect="equal")
    return figure


@torch.no_grad()
def gaussianised(flow: Flow, x: torch.Tensor, times: int = TIMES) -> list[torch.Tensor]:
    """Data on their way to noise: after what was fitted in closed form, then along every trained map.

    Args:
        flow: trained.
        x: points of model space, shape (n, d).
        times: points along each gradient flow; other maps give one.

    Returns:
        Positions of x's shape, the last of them the noise z.
    """
    fitted = fitted_part(flow)
    found = [fitted.inverse(x)[0]]
    for transform in reversed(flow.transforms[: len(flow.transforms) - len(fitted.transforms)]):
        if isinstance(transform, GradientFlow):
            edges = [step / times for step in range(times, -1, -1)]
            for late, early in pairwise(edges):
                found.append(transform.integrate(found[-1], [late, early])[0])
        else:
            found.append(transform.inverse(found[-1])[0])
    return found


def _images(data: Dataset, x: torch.Tensor) -> np.ndarray:
    """Grey levels of points of model space, shape (n, height, width)."""
    return data.to_data(x).reshape(-1, *data.image_shape).numpy()
