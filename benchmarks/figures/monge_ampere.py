"""The figures and the table of the Monge-Ampere flow's paper (Zhang, E and Wang 2018), by its own recipe.

Trainings take from a quarter of an hour to weeks. They keep their run folders in the output folder and go on where they
were stopped: Ctrl-C or SIGTERM ends one, and the item then shows what has been reached.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from figures.item import Item, Options
from matplotlib.figure import Figure
from msgspec.structs import replace

from isingflow import datasets
from isingflow.datasets import Dataset
from isingflow.evaluation.data import evaluate_density
from isingflow.evaluation.targets import evaluate_target
from isingflow.lattice import CRITICAL_BETA, square
from isingflow.plots.configurations import tile
from isingflow.plots.data import plot_run
from isingflow.plots.style import EXACT, FLOW, LOWER, NEUTRAL, WIDTH, png
from isingflow.runs.config import DensityConfig, RunConfig
from isingflow.runs.folder import AnyRun, RunFolder
from isingflow.training import train

PUBLISHED = json.loads(Path(__file__).with_name("monge_ampere_published.json").read_text())
WINDOW = 10
"""Iterations that losses are averaged over, as in the published curve kept here."""
PLATEAU, ESCAPE = (450, 550), -2.22
COLORS = (FLOW, LOWER, NEUTRAL)
EPOCH = 500


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Signals that ask to end, as they come: a training looks for them, what follows it does not."""
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def trained(folder: Path, config: RunConfig | DensityConfig, data: Dataset | None = None) -> AnyRun:
    """The run in a folder, trained until done or stopped."""
    run = RunFolder.open(folder) if (folder / "config.json").exists() else RunFolder.create(folder, config)
    with stoppable() as heard:
        train(run, data=data, device="cpu", progress=False, should_stop=lambda: bool(heard))
    return run


def evaluated(run: AnyRun) -> dict[str, Any]:
    """The report of a run on a magnet, made where there is none since its last iteration."""
    report, (_, state) = run.report(), run.load_checkpoint()
    if report is None or report["training_seconds"] != state["seconds"]:
        found = evaluate_target(run, samples=run.config.training.evaluation_samples, device="cpu")
        report = found.as_dict()
        run.save_report(report, found.table())
    return report


def means(values: np.ndarray) -> np.ndarray:
    """Of ten iterations each, an incomplete last part left out."""
    return values[: len(values) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(1)


def beside_the_log(losses: np.ndarray) -> dict[str, Any]:
    """How far a curve is from the published one, per site, in the parts that it has reached."""
    ours = means(losses)
    log = np.array(PUBLISHED["ising"]["loss"])
    both = min(len(ours), len(log))
    gap = ours[:both] - log[:both]

    def largest(start: int, end: int) -> float | None:
        part = gap[start // WINDOW : end // WINDOW]
        return float(np.abs(part).max()) if len(part) == (end - start) // WINDOW else None

    escaped = np.flatnonzero(ours < ESCAPE)
    plateau = losses[slice(*PLATEAU)]
    return {
        "loss_at": {str(i): float(ours[i // WINDOW]) for i in range(100, WINDOW * len(ours), 100)},
        "published_at": {str(i): float(log[i // WINDOW]) for i in range(100, WINDOW * both, 100)},
        "largest_difference_to_400": largest(0, 400),
        "plateau": float(plateau.mean()) if len(plateau) == PLATEAU[1] - PLATEAU[0] else None,
        "below_the_plateau_from": int(escaped[0]) * WINDOW if len(escaped) else None,
        "largest_difference_from_1500": largest(1500, 2000),
        "mean_from_1500": float(losses[1500:].mean()) if len(losses) >= 2000 else None,
    }


def figure_4(options: Options) -> dict[str, Any]:
    """Loss per site of trainings by the published recipe, and the honest value of each network."""
    length = 4 if options.quick else 16
    runs: list[AnyRun] = []
    numbers: list[dict[str, Any]] = []
    for seed in options.seeds:
        config = RunConfig.from_preset("paper", square(length), CRITICAL_BETA, seed=seed)
        if options.quick:
            config = replace(config, flow=replace(config.flow, hidden=32), training=config.training.scaled(40))
        folder = options.output / "monge-ampere-figure-4-runs" / f"{'quick' if options.quick else 'seed'}-{seed}"
        run = trained(folder, config)
        runs.append(run)
        losses = np.array([record["loss"] for record in run.metrics()])
        report = evaluated(run)
        bound, gap = report["variational_free_energy"], report["gap_nats"]
        numbers.append(
            {
                "seed": seed,
                "iterations": len(losses),
                "training_seconds": report["training_seconds"],
                **({} if options.quick else beside_the_log(losses)),
                "bound_per_site": bound["value"] / length**2,
                "bound_stderr": bound["stderr"] / length**2,
                "bound_samples": report["samples"],
                "exact_per_site": report["exact_free_energy"] / length**2,
                "gap_nats": gap,
                "integration_error_nats": report["integration_error_nats"],
                "integration_steps": report["integration_steps"],
                "certified": report["certified"],
            }
        )
    (options.output / "monge-ampere-figure-4.png").write_bytes(png(_curves(runs, numbers, length)))
    return {"runs": numbers, "published": PUBLISHED["source"]}


def _curves(runs: list[AnyRun], numbers: list[dict[str, Any]], length: int) -> Figure:
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(3, 1.5))
    ax = top.subplots()
    if length == 16:
        log = PUBLISHED["ising"]["loss"]
        ax.plot(WINDOW * (np.arange(len(log)) + 0.5), log, color=EXACT, label="published")
    for run, row, color in zip(runs, numbers, COLORS * len(runs), strict=False):
        losses = means(np.array([record["loss"] for record in run.metrics()]))
        ax.plot(
            WINDOW * (np.arange(len(losses)) + 0.5), losses, color=color, label=f"seed {row['seed']}", linewidth=1.2
        )
        ax.plot(row["iterations"], row["bound_per_site"], "o", color=color, markersize=5)
    exact = numbers[0]["exact_per_site"]
    ax.axhline(exact, color="black", linewidth=1, linestyle="--", label=f"exact, {exact:.4f}")
    ax.plot([], [], "o", color=NEUTRAL, markersize=5, label="bound of the exactly averaged potential")
    ax.set(xlabel="iteration", ylabel="loss per site")
    ax.legend(loc="upper right", ncols=2)
    snapshots = runs[0].snapshots()
    for part, iteration in zip(bottom.subplots(1, len(snapshots), squeeze=False)[0], sorted(snapshots), strict=True):
        part.imshow(tile(snapshots[iteration][:9], 3), cmap="gray", interpolation="nearest")
        part.set_title(f"iteration {iteration}", fontsize=9)
        part.axis("off")
    return figure


def figure_3(options: Options) -> dict[str, Any]:
    """MNIST from a standard normal by the published recipe, and table 1."""
    data = datasets.load("mnist", root=options.data, seed=options.seeds[0])
    seed = options.seeds[0]
    config = DensityConfig.from_preset("paper", data, seed=seed, iterations=2 if options.quick else None)
    if options.quick:
        config = replace(config, flow=replace(config.flow, hidden=16, steps=10))
    folder = options.output / "monge-ampere-figure-3-runs" / f"{'quick' if options.quick else 'seed'}-{seed}"
    run = trained(folder, config, data)
    metrics = run.metrics()
    iterations = len(metrics)
    samples = 100 if options.quick or iterations < EPOCH else None
    found = evaluate_density(run, data, device=torch.device("cpu"), samples=samples, seed=seed)
    run.save_report(found.as_dict())
    for path in plot_run(run, found.samples, data, certified=found.certified):
        if path.name in ("training.png", "gaussianisation.png"):
            part = {"training.png": "a", "gaussianisation.png": "b"}[path.name]
            (options.output / f"monge-ampere-figure-3{part}.png").write_bytes(path.read_bytes())
    log = PUBLISHED["mnist"]
    last = [
        (epoch, test)
        for epoch, test in zip(log["epoch"], log["test"], strict=True)
        if EPOCH * (epoch + 1) <= iterations
    ]
    return {
        "iterations": iterations,
        "epochs": iterations / EPOCH,
        "loss_at": {str(r["iteration"]): r["negative_log_likelihood"] for r in metrics if _shown(r["iteration"])},
        "test_samples": found.test_samples,
        "test": found.test.as_dict(),
        "integration_error_nats": found.integration_error,
        "published_at_equal_iterations": last[-1] if last else None,
        "published_end": log["test"][-1],
        "table_1_published": {"MADE": 1380.8, "Real NVP": 1323.2, "MAF": 1300.5, "Monge-Ampère": 1255.5},
        "published": PUBLISHED["source"],
    }


def _shown(iteration: int) -> bool:
    """1, 2, 5, 10, 20, 50, ..."""
    leading = iteration / 10 ** math.floor(math.log10(iteration))
    return leading in (1, 2, 5)


_Item = partial(Item, paper="Monge-Ampere")
ITEMS = [
    _Item(
        "monge-ampere-figure-4",
        what="variational free energy of the 16x16 magnet, by the published recipe",
        needs="",
        minutes=18,
        make=figure_4,
    ),
    _Item(
        "monge-ampere-figure-3",
        what="MNIST from a standard normal, likelihood and gaussianisation; table 1",
        needs="MNIST",
        minutes=18000,
        make=figure_3,
    ),
]
