"""Figures of OT-Flow's paper beside that of the toys: what the penalties do, and what the exact trace costs."""

from __future__ import annotations

import tempfile
import time
import trace as traces
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import toys
from figures.item import Item, Options
from matplotlib.figure import Figure
from msgspec.structs import replace

from isingflow import datasets
from isingflow.evaluation.data import evaluate_density
from isingflow.flows import Flow, gradient_flows
from isingflow.flows.diagnostics import inverse_error, steps_needed, trajectories
from isingflow.plots.style import FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH, png
from isingflow.plots.transport import trace_figure, trajectories_figure
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import load
from isingflow.training import train

CPU = torch.device("cpu")
PATHS, SHOWN, TESTED = 500, 60, 512
ACCURACY = 0.005
"""Nats, to which steps are counted."""
STEPS = (2, 4, 8, 16)
PUBLISHED = {"transport_cost": 0.01, "hjb": 0.05}
"""OT-Flow's weights on toys, in units of that of the likelihood: 1, 5 and 100 in its code."""
WITHOUT = {"transport_cost": 0.0, "hjb": 0.0}
CURVED = {"width": 32, "layers": 2, "steps": 8, "steepness": 3.0}
"""The published network on toys: with two layers, paths are free to bend in time."""
PENALTIES = {
    "none": WITHOUT,
    "transport": WITHOUT | {"transport_cost": PUBLISHED["transport_cost"]},
    "residual": WITHOUT | {"hjb": PUBLISHED["hjb"]},
    "both, as published": PUBLISHED,
}


def trained(name: str, seed: int, iterations: int, penalties: dict[str, float]) -> tuple[Flow, dict[str, Any]]:
    """OT-Flow with the published network on a toy, and what it and its paths are like."""
    data = datasets.load(name, seed=seed)
    config = DensityConfig.from_preset("quick", data, flow="ot", seed=seed, iterations=iterations)
    training = replace(config.training, learning_rate=1e-2, balance=3.0, **penalties)
    config = replace(config, flow=replace(config.flow, **CURVED), training=training)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", config)
        started = time.process_time()
        train(run, device=CPU, data=data)
        seconds = time.process_time() - started
        report = evaluate_density(run, data, device=CPU)
        flow = load(run.path)
    assert report.straightness is not None
    latent, x = (
        flow.noise(PATHS, torch.Generator().manual_seed(seed)),
        next(data.test.batches(TESTED, torch.Generator())),
    )
    return flow, {
        "seconds": seconds,
        "test": report.test.as_dict(),
        "transport_cost": report.transport_cost.value,
        "straightness": report.straightness.value,
        "steps_in_training": report.integration_steps,
        "steps_needed": steps_needed(flow, x, ACCURACY),
        "inverse_error": {steps: _inverse_error(flow, latent, steps) for steps in STEPS},
    }


def _inverse_error(flow: Flow, latent: torch.Tensor, steps: int) -> float:
    """Relative distance of noise from its image under the flow and its inverse, both with so many steps."""
    (gradient,) = gradient_flows(flow)
    usual, gradient.steps = gradient.steps, steps
    error = inverse_error(flow, latent).value
    gradient.steps = usual
    return error


def standard(name: str, seed: int, iterations: int, latent: torch.Tensor) -> tuple[np.ndarray, dict[str, Any]]:
    """zuko's continuous flow as `toys` trains it: paths of points of noise, in whitened coordinates, and numbers."""
    data = datasets.load(name, seed=seed)
    flow = toys.StandardCNF(data, seed, batch=256, rate=toys.RATE)
    seconds = sum(toys.timed(flow.step) for _ in range(iterations))
    test = toys.loss(flow, next(data.test.batches(toys.TESTED, torch.Generator().manual_seed(seed))))
    noise = torch.randn(PATHS, data.dimension, generator=torch.Generator().manual_seed(seed))
    path = _integrated(flow.flow.transform().f, noise)
    lengths, chords = path.diff(dim=0).norm(dim=-1).sum(0), (path[-1] - path[0]).norm(dim=-1)
    numbers = {
        "seconds": seconds,
        "test": {"value": test},
        "transport_cost": chords.square().mean().item(),
        "straightness": (lengths.square().sum() / chords.square().sum()).item(),
    }
    return _integrated(flow.flow.transform().f, latent).numpy(), numbers


@torch.no_grad()
def _integrated(field: Any, x: torch.Tensor, steps: int = 32) -> torch.Tensor:
    """Positions from noise to data, shape (steps + 1, n, d), of a flow whose time runs from data to noise."""
    h, path = torch.tensor(1 / steps), [x]
    for step in range(steps):
        t = 1 - step * h
        first = field(t, x)
        second = field(t - h / 2, x - h / 2 * first)
        third = field(t - h / 2, x - h / 2 * second)
        x = x - h / 6 * (first + 2 * second + 2 * third + field(t - h, x - h * third))
        path.append(x)
    return torch.stack(path)


def one_dimension(options: Options) -> dict[str, Any]:
    """Figure 1: trajectories from noise to a mixture of two Gaussians, of a standard flow and of ours."""
    seed, iterations = options.seeds[0], 40 if options.quick else 400
    noise = torch.linspace(-2.2, 2.2, 23)[:, None]
    path, numbers = standard("bimodal", seed, 5 if options.quick else 100, noise)
    found, paths = {"standard flow": numbers}, {"standard flow": path[..., 0]}
    for title, penalties in (("OT-Flow without penalties", WITHOUT), ("OT-Flow", PUBLISHED)):
        flow, found[title] = trained("bimodal", seed, iterations, penalties)
        paths[title] = trajectories(flow, noise)[0].numpy()[..., 0]
    (options.output / "ot-flow-figure-1.png").write_bytes(png(_in_time(paths), "Bimodal density, from noise to data"))
    return {"runs": found}


@matplotlib.rc_context(STYLE)
def _in_time(paths: dict[str, np.ndarray]) -> Figure:
    """Positions in one dimension against time, a panel for every flow."""
    figure = Figure(figsize=(WIDTH, HEIGHT * 0.8), layout="constrained")
    for ax, (title, positions) in zip(figure.subplots(1, len(paths), sharey=True), paths.items(), strict=True):
        clock = np.linspace(0, 1, len(positions))
        ax.plot(clock, positions, color=FLOW, linewidth=0.9)
        straight = positions[:1] + clock[:, None] * (positions[-1:] - positions[:1])
        ax.plot(clock, straight, color=NEUTRAL, linewidth=0.5, linestyle=":")
        ax.set(title=title, xlabel="time")
    figure.axes[0].set_ylabel("x")
    return figure


def penalties(options: Options, *, name: str, drawn: bool) -> dict[str, Any]:
    """Figure 2 and the ablation: the same network with and without the penalties."""
    iterations = 40 if options.quick else 800
    chosen = {title: PENALTIES[title] for title in (("none", "both, as published") if drawn else PENALTIES)}
    runs, paths = [], {}
    for seed in options.seeds:
        for title, weights in chosen.items():
            flow, numbers = trained("eight-gaussians", seed, iterations, weights)
            runs.append({"penalties": title, "seed": seed, **weights, **numbers})
            print(title, seed, numbers["test"]["value"], numbers["straightness"], numbers["steps_needed"], flush=True)
            if seed == options.seeds[0]:
                latent = flow.noise(SHOWN, torch.Generator().manual_seed(seed))
                paths[title] = trajectories(flow, latent)[0].numpy()
    (options.output / f"{name}.png").write_bytes(png(trajectories_figure(paths), "Eight Gaussians, from noise to data"))
    return {"runs": runs}


def exact_trace(options: Options) -> dict[str, Any]:
    """The run time of the exact trace against Hutchinson's estimator, by the benchmark of the same name."""
    torch.set_num_threads(1)
    dimensions = [min(traces.PROBES)] if options.quick else list(traces.PROBES)
    results = [traces.measure(dimension, 1 if options.quick else 7) for dimension in dimensions]
    (options.output / "ot-flow-trace.png").write_bytes(png(trace_figure(results)))
    return {"width": traces.WIDTH, "batch": traces.BATCH, "results": results}


def _item(name: str, what: str, minutes: float, make: Any) -> Item:
    return Item(name, "OT-Flow", what, "", minutes, make)


def _penalties(name: str, what: str, minutes: float, *, drawn: bool) -> Item:
    return _item(name, what, minutes, partial(penalties, name=name, drawn=drawn))


ITEMS = [
    _item(
        "ot-flow-figure-1",
        "trajectories in one dimension, beside those of a standard flow",
        1,
        one_dimension,
    ),
    _penalties("ot-flow-figure-2", "eight Gaussians with penalties and without: paths, inverse, steps", 2, drawn=True),
    _penalties("ot-flow-penalties", "ablation of both penalties on eight Gaussians", 4, drawn=False),
    _item("ot-flow-trace", "run time of the exact trace against Hutchinson's", 5, exact_trace),
]
