"""The figures of a run on data: likelihood, densities and samples beside those of the data, data on their way to noise.

For MNIST they are figures 3(a) and 3(b) of Zhang, E and Wang (2018). Functions from data to a matplotlib `Figure`;
`plot_run` writes them to a folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from isingflow.architectures.start import fitted_part
from isingflow.datasets.spaces import Pixels
from isingflow.flows import Flow, GradientFlow
from isingflow.plots.densities import density_figure, density_of, grid_of
from isingflow.plots.points import corner_figure, samples_figure
from isingflow.plots.style import ERROR, EXACT, FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH, running_mean, save
from isingflow.runs.entries import estimate_in
from isingflow.runs.loading import new_flow, trained

if TYPE_CHECKING:
    from isingflow.datasets import Dataset
    from isingflow.runs.entries import estimate_in
from isingflow.runs.folder import AnyRun

PUBLISHED = {"MADE": 1380.8, "Real NVP": 1323.2, "MAF": 1300.5, "Monge-Ampère": 1255.5}
"""Negative log-likelihoods of MNIST in nats, in logit space, as quoted by Zhang, E and Wang (2018)."""
SHOWN_IMAGES, STRIPS, TIMES = 100, 10, 8
SCATTERED = 2000


def plot_run(run: AnyRun, samples: np.ndarray, data: Dataset, *, certified: bool = True) -> list[Path]:
    """Write the figures of a run on data into its folder.

    Args:
        run: with a checkpoint.
        samples: of the flow, points of model space, shape (n, d).
        data: what it was trained on.
        certified: whether the flow is; if not, the figures say so.

    Returns:
        The paths of the PNG files written.
    """
    published = PUBLISHED if data.name == "mnist" else {}
    start = estimate_in(run.report(), "start_negative_log_likelihood")
    figures = {"training.png": likelihood_figure(run.metrics(), start, published)}
    flow, _ = trained(run, new_flow(run.config), torch.device("cpu"))
    generated = torch.from_numpy(samples)
    test = next(data.test.batches(SCATTERED, torch.Generator().manual_seed(0)))
    if data.image_shape is not None and isinstance(data.space, Pixels):
        figures["samples.png"] = tiles_figure(_images(data, generated[:SHOWN_IMAGES]), columns=10)
        # Standard normal numbers are uniform grey levels under their distribution function.
        stages = [torch.special.ndtr(z).numpy() for z in gaussianised(flow, test[:STRIPS])]
        levels = _images(data, test[:STRIPS]) / data.space.levels
        strips = np.stack([levels, *(stage.reshape(levels.shape) for stage in stages)], 1)
        columns = strips.shape[1]
        figures["gaussianisation.png"] = tiles_figure(strips.reshape(-1, *data.image_shape), columns=columns)
    else:
        ours, theirs = (data.to_data(points).numpy() for points in (generated, test))
        shown = samples_figure if data.dimension <= 2 else corner_figure
        figures["samples.png"] = shown(theirs, ours, data.columns)
        if data.dimension <= 2:
            grid = grid_of(data, torch.Generator().manual_seed(0))
            figures["density.png"] = density_figure(grid, {"flow": density_of(flow, data, grid)}, data.columns)
        if data.dimension == 2:
            figures["paths.png"] = paths_figure([points.numpy() for points in gaussianised(flow, test[:400])])
    return save(run, figures, certified=certified)


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
    values = np.array([record.get("negative_log_likelihood") for record in metrics], dtype=float)
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
    levels = [level for level in levels if np.isfinite(level)] or [0.0]
    low, high = min(levels), max(levels)
    margin = 0.08 * (high - low) or 1.0
    ax.set(xlabel="iteration", ylabel="negative log-likelihood (nats)", ylim=(low - margin, high + margin))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@matplotlib.rc_context(STYLE)
def tiles_figure(images: np.ndarray, columns: int) -> Figure:
    """Images, shape (n, height, width), in rows of so many columns."""
    sheet = _sheet(images, columns)
    figure = Figure(figsize=(WIDTH, WIDTH * sheet.shape[0] / sheet.shape[1]))
    _show(figure.add_axes((0, 0, 1, 1)), sheet)
    return figure


@matplotlib.rc_context(STYLE)
def synthesis_figure(samples: np.ndarray, interpolations: np.ndarray) -> Figure:
    """OT-Flow's figure of images by way of codes: samples, and below them ways from one image to another.

    Args:
        samples: images, shape (n, height, width); in rows as long as the ways.
        interpolations: shape (ways, images of a way, height, width). The first and the last image of each are
            originals, boxed in red.

    Example:
        >>> random = np.random.default_rng(0)
        >>> figure = synthesis_figure(random.random((10, 8, 8)), random.random((3, 5, 8, 8)))
    """
    ways, columns, height, width = interpolations.shape
    above, below = _sheet(samples, columns), _sheet(interpolations.reshape(-1, height, width), columns)
    figure = Figure(figsize=(WIDTH, WIDTH * (len(above) + len(below)) / (columns * width) + 0.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(len(above), len(below)))
    _show(top, above)
    top.set_title("samples")
    _show(bottom, below)
    bottom.set_title("from one image to another (originals boxed)")
    for way, column in product(range(ways), (0, columns - 1)):
        corner = column * width - 0.5, way * height - 0.5
        bottom.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=EXACT, linewidth=2, clip_on=False))
    return figure


@matplotlib.rc_context(STYLE)
def paths_figure(points: Sequence[np.ndarray]) -> Figure:
    """Points in the plane at successive times, from whitened data to noise, with their paths."""
    path = np.stack(points)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharex=True, sharey=True)
    for ax, positions, title in ((left, path[0], "whitened data"), (right, path[-1], "noise")):
        ax.plot(positions[:, 0], positions[:, 1], ".", color=FLOW, markersize=2)
        ax.set(title=title, aspect="equal", xlabel="first coordinate")
    left.set_ylabel("second coordinate")
    middle.plot(path[:, :100, 0], path[:, :100, 1], color=NEUTRAL, linewidth=0.5)
    middle.set(title="between", aspect="equal", xlabel="first coordinate")
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


@torch.no_grad()
def interpolated(flow: Flow, start: torch.Tensor, end: torch.Tensor, count: int) -> torch.Tensor:
    """Points on the way from one to another: images of the arc cos(a) z + sin(a) z' between their preimages.

    Where z and z' are independent noise, so is every point of the arc; points of the chord between them are too close
    to the origin for noise in many dimensions.

    Args:
        flow: trained.
        start, end: shape (n, d).
        count: points of each way, its ends included; at least 2.

    Returns:
        Shape (n, count, d); the ends are those given, to the flow's inverse error.
    """
    first, last = flow.inverse(start)[0], flow.inverse(end)[0]
    angle = torch.linspace(0, math.pi / 2, count, device=start.device)[:, None]
    arc = angle.cos() * first[:, None] + angle.sin() * last[:, None]
    return flow(arc.flatten(0, 1))[0].view(arc.shape)


def _sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """One image of images, shape (n, height, width), in rows of so many columns."""
    count, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * height, columns * width))
    for index, image in enumerate(images):
        top, left = divmod(index, columns)
        sheet[top * height : (top + 1) * height, left * width : (left + 1) * width] = image
    return sheet


def _show(ax: Axes, sheet: np.ndarray) -> None:
    ax.imshow(sheet, cmap="gray", interpolation="nearest", vmin=0)
    ax.set_axis_off()


def _images(data: Dataset, x: torch.Tensor) -> np.ndarray:
    """Grey levels of points of model space, shape (n, height, width)."""
    assert data.image_shape is not None
    return data.to_data(x).reshape(-1, *data.image_shape).numpy()
