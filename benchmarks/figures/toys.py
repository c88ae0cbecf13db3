"""The seven toys of OT-Flow's paper: the three flows and a neural spline flow, at equal processor time.

Every flow is trained by its `quick` preset, and by `accurate` where that is asked for. The spline flow is zuko's, on
the same whitened coordinates, trained for `BUDGET` seconds of processor time, about what `quick` takes; its size
and rate were chosen on seed 10, see docs/papers/ot-flow.md. All are tested on the same 10,000 points. Every flow is an
item of its own, which writes after every toy and seed, and goes on from there when it is begun again with the same
settings; `toys` makes the table and the figure of what they have left in the output folder, and trains those that have
left nothing.
"""

from __future__ import annotations

import io
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import zuko
from figures.item import Item, Options
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from isingflow import datasets
from isingflow.datasets import Dataset
from isingflow.datasets.toy import TOYS
from isingflow.evaluation.data import evaluate_density
from isingflow.flows import GaussianWhitening
from isingflow.plots.style import STYLE, WIDTH, png
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import load
from isingflow.training import train
from isingflow.training.schedules import learning_rate

NAMES = ("eight-gaussians", "two-spirals", "moons", "pinwheel", "checkerboard", "rings", "swiss-roll")
FLOWS = ("monge-ampere", "ot", "convex")
TITLES = {"monge-ampere": "Monge-Ampère", "ot": "OT-Flow", "convex": "CP-Flow", "spline": "spline flow"}
ACCURATE = ("eight-gaussians", "checkerboard")
BUDGET = 20.0
SPLINE = {"transforms": 3, "hidden_features": (64, 64), "bins": 16}
SPLINE_RATE, SPLINE_BATCH = 1e-2, 512
CELLS, FINE_CELLS = 160, 1200
"""Of the figures' grids and of the entropy's, each way."""

Density = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trained:
    """A trained density, and what is known of it.

    Attributes:
        log_prob: ln p of points, shape (n, 2) to (n,).
        numbers: as JSON holds them.
    """

    log_prob: Density
    numbers: dict[str, Any]


def entropy(name: str) -> float | None:
    """Mean of -ln p, where p is known: a sum over cells of the toy's square, of which p is normalised."""
    log_prob = TOYS[name].log_prob
    if log_prob is None:
        return None
    density = torch.cat([log_prob(part).exp() for part in grid(name, FINE_CELLS).split(100_000)])
    return float(torch.special.entr(density).sum() / density.sum())


def test_entropy(data: Dataset) -> float | None:
    """Mean of -ln p over the test part, where p is known: what a perfect flow would have there."""
    if data.log_prob is None:
        return None
    values = [data.log_prob(x) for x in data.test.batches(1000, torch.Generator())]
    return float(-torch.cat(values).mean())


def config(kind: str, preset: str, data: Dataset, seed: int, quick: bool) -> DensityConfig:
    """The run of one of the package's flows."""
    return DensityConfig.from_preset(preset, data, flow=kind, seed=seed, iterations=40 if quick else None)


def settings(kind: str, preset: str, data: Dataset, seed: int, quick: bool) -> dict[str, Any]:
    """All that a row of numbers depends on, but for the code."""
    if kind != "spline":
        return config(kind, preset, data, seed, quick).to_dict()
    network = SPLINE | {"hidden_features": list(SPLINE["hidden_features"])}
    return {"data": data.name, "seed": seed, "seconds": BUDGET, "rate": SPLINE_RATE, "batch": SPLINE_BATCH} | network


def flow(data: Dataset, seed: int, quick: bool, *, kind: str, preset: str = "quick") -> Trained:
    """One of the package's flows, trained by a preset."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", config(kind, preset, data, seed, quick))
        started = time.process_time()
        train(run, device=torch.device("cpu"), data=data)
        seconds = time.process_time() - started
        report = evaluate_density(run, data, device=torch.device("cpu"))
        trained = load(run.path)
    straightness = None if report.straightness is None else report.straightness.value
    return Trained(
        trained.log_prob,
        {
            "seconds": seconds,
            "test": report.test.as_dict(),
            "start": report.start.as_dict(),
            "integration_error": report.integration_error,
            "steps": report.integration_steps,
            "certified": report.certified,
            "inverse_error": report.inverse_error,
            "straightness": straightness,
            "parameters": report.parameters,
        },
    )


def spline(data: Dataset, seed: int, quick: bool) -> Trained:
    """zuko's neural spline flow on whitened coordinates, trained for a fixed processor time with a one-cycle rate."""
    budget = 2.0 if quick else BUDGET
    generator = torch.Generator().manual_seed(seed + 1)
    whitening = GaussianWhitening.fit(data.train.batches(SPLINE_BATCH, torch.Generator().manual_seed(seed)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = zuko.flows.NSF(data.dimension, **SPLINE)
    optimiser = torch.optim.Adam(network.parameters(), lr=SPLINE_RATE)

    def log_prob(x: Tensor) -> Tensor:
        y, logdet = whitening.inverse(x)
        return network().log_prob(y.float()) + logdet

    seconds, iterations = 0.0, 0
    while seconds < budget:
        started = time.process_time()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate("one-cycle", SPLINE_RATE, seconds / budget)
        loss = -log_prob(data.train.draw(SPLINE_BATCH, generator)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        iterations += 1
        seconds += time.process_time() - started
    with torch.no_grad():
        values = torch.cat([-log_prob(x) for x in data.test.batches(1000, generator)])
    parameters = sum(parameter.numel() for parameter in network.parameters())
    test = {"value": float(values.mean()), "stderr": float(values.std() / math.sqrt(len(values)))}
    return Trained(
        torch.no_grad()(log_prob),
        {"seconds": seconds, "test": test, "iterations": iterations, "parameters": parameters},
    )


TRAIN: dict[str, Callable[..., Trained]] = {kind: partial(flow, kind=kind) for kind in FLOWS} | {"spline": spline}


def cells(options: Options, kind: str, names: tuple[str, ...], **how: str) -> dict[str, Any]:
    """All toys and seeds of one flow; what there is so far is in the output folder at any time.

    The densities of the first seed go to a file beside the numbers, for the figure.
    """
    names, preset = names[:1] if options.quick else names, how.get("preset", "quick")
    stem = options.output / f"toys-{kind}{'' if preset == 'quick' else f'-{preset}'}"
    partial_file, image_file = stem.with_suffix(".partial.json"), stem.with_suffix(".npz")
    earlier = json.loads(partial_file.read_text()) if partial_file.exists() else []
    images = dict(np.load(image_file)) if earlier else {}
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for name in names:
            data = datasets.load(name, seed=seed)
            described = settings(kind, preset, data, seed, options.quick)
            row = next((row for row in earlier if row["settings"] == described), None)
            if row is None:
                trained = TRAIN[kind](data, seed, options.quick, **how)
                known = {"entropy": entropy(name), "test_entropy": test_entropy(data)}
                row = {"toy": name, "seed": seed, **known, **trained.numbers, "settings": described}
                value, seconds = row["test"]["value"], row["seconds"]
                print(f"{kind} {preset} {name} {seed}: {value:.4f} in {seconds:.1f} s", flush=True)
                if seed == options.seeds[0]:
                    images[name] = density_image(trained.log_prob, name).astype(np.float32)
                    np.savez_compressed(image_file, **images)
            rows.append(row)
            others = [row for row in earlier if row not in rows]
            partial_file.write_text(json.dumps(rows + others, indent=1) + "\n")
    partial_file.unlink()
    return {"flow": kind, "preset": preset, "runs": rows}


def limits(name: str) -> tuple[float, float]:
    """Left and right end of a toy's square."""
    reach = float(TOYS[name].sample(10_000, torch.Generator().manual_seed(0)).abs().max())
    return -1.1 * reach, 1.1 * reach


def grid(name: str, cells: int) -> Tensor:
    """Centres of the cells of a toy's square, shape (cells^2, 2), the second coordinate upwards."""
    low, high = limits(name)
    axis = low + (high - low) * (torch.arange(cells) + 0.5) / cells
    return torch.cartesian_prod(axis, axis).flip(1)


@torch.no_grad()
def density_image(log_prob: Density, name: str) -> np.ndarray:
    """p on a grid of the toy's square, the second coordinate upwards; shape (CELLS, CELLS)."""
    values = torch.cat([log_prob(part) for part in grid(name, CELLS).split(2000)])
    return values.double().exp().view(CELLS, CELLS).numpy()


def table(options: Options) -> dict[str, Any]:
    """What all flows have left, trained first where there is nothing: medians over seeds, and densities beside data."""
    found, images = {}, {}
    for kind in TITLES:
        numbers, densities = (options.output / f"toys-{kind}.{ending}" for ending in ("json", "npz"))
        left = numbers.exists() and densities.exists() and not options.quick
        found[kind] = (json.loads(numbers.read_text()) if left else cells(options, kind, NAMES))["runs"]
        images[kind] = dict(np.load(densities))
    names = [name for name in NAMES if any(run["toy"] == name for run in found["spline"])]
    median = {
        name: {
            kind: statistics.median(run["test"]["value"] for run in runs if run["toy"] == name)
            for kind, runs in found.items()
        }
        for name in names
    }
    figure = densities_figure(names, images)
    image = Image.open(io.BytesIO(png(figure, "Densities of the toys; quick presets, first seed"))).convert("RGB")
    image = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    image.quantize(64).save(options.output / "toys.png", optimize=True)
    return {"median": median, "entropy": {name: entropy(name) for name in names}, "runs": found}


@matplotlib.rc_context(STYLE)
def densities_figure(names: list[str], images: dict[str, dict[str, np.ndarray]]) -> Figure:
    """A column for every toy: data on top, then the density of every flow."""
    columns, rows = len(names), 1 + len(images)
    figure = Figure(figsize=(2 * WIDTH * columns / 7, 2 * WIDTH * rows / 7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for name, column in zip(names, panels.T, strict=True):
        low, high = limits(name)
        points = TOYS[name].sample(200_000, torch.Generator().manual_seed(0)).numpy()
        edges = np.linspace(low, high, CELLS + 1)
        counts = np.histogram2d(points[:, 1], points[:, 0], bins=[edges, edges])[0]
        truth = counts / len(points) / (edges[1] - edges[0]) ** 2
        brightest = np.quantile(truth[truth > 0], 0.98)
        for ax, image in zip(column, [truth, *(of[name] for of in images.values())], strict=True):
            ax.imshow(image, origin="lower", cmap="viridis", vmin=0, vmax=brightest, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
        column[0].set_title(name, fontsize=10)
    for ax, title in zip(panels[:, 0], ["data", *(TITLES[kind] for kind in images)], strict=True):
        ax.set_ylabel(title, fontsize=10)
    return figure


def _item(name: str, what: str, minutes: float, make: Callable[[Options], dict[str, Any]]) -> Item:
    return Item(name, "OT-Flow", what, "zuko" if "spline" in name or name == "toys" else "", minutes, make)


ITEMS = [
    *(
        _item(f"toys-{kind}", f"seven toys: {title}, quick", 3.5, partial(cells, kind=kind, names=NAMES))
        for kind, title in TITLES.items()
    ),
    *(
        _item(
            f"toys-{kind}-accurate",
            f"two toys: {TITLES[kind]}, accurate",
            20,
            partial(cells, kind=kind, names=ACCURATE, preset="accurate"),
        )
        for kind in FLOWS
    ),
    _item("toys", "seven toys: table and densities of all that is there, like figure 3", 14, table),
]
