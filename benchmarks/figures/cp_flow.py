"""CP-Flow: densities of toys, potential and encoding, maps between Gaussians, memory and tolerance of the gradient.

Figures 1 to 4 of Huang et al. (2021), and the ablation of the tolerance of conjugate gradients. Toys are trained by the
package's presets; everything else is built here from its parts.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from convex import gaussian_map, gradient_bias, lively
from figures.item import Item, Options
from matplotlib.figure import Figure
from msgspec.structs import replace
from PIL import Image
from torch import Tensor

from isingflow import datasets
from isingflow.datasets import Dataset
from isingflow.flows import CholeskyLogdet, ConvexFlow, Flow, LanczosLogdet
from isingflow.plots.convex import densities_figure, encoding_figure, transport_figure
from isingflow.plots.style import EXACT, FLOW, NEUTRAL, STYLE, WIDTH, png
from isingflow.potentials import ConvexPotential
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.training.loop import fit
from isingflow.training.problems import problem_of

NAMES = ("eight-gaussians", "swiss-roll", "rings", "moons")
"""The toys of the reference's `train_toy.py`."""
HARD = ("eight-gaussians", "checkerboard")
SHOWN = 2000
"""Points of a figure."""
GAUSSIANS = (2, 4, 8, 16)
CONDITION_DIMENSION = 64
TOLERANCES = (3e-1, 1e-1, 1e-2, 1e-3, 1e-5)
CPU = torch.device("cpu")


def write(figure: Figure, path: Path) -> None:
    """The figure as a PNG file of few colours, which is small."""
    image = Image.open(io.BytesIO(png(figure))).convert("RGB")
    image = image.resize((round(0.6 * image.width), round(0.6 * image.height)), Image.Resampling.LANCZOS)
    image.quantize(64).save(path, optimize=True)


def trained(
    data: Dataset, seed: int, quick: bool, *, preset: str = "quick", iterations: int | None = None, **flow: Any
) -> tuple[Flow, float]:
    """CP-Flow by a preset, with other settings of the flow if they are given, and the processor seconds it took."""
    config = DensityConfig.from_preset(preset, data, flow="convex", seed=seed, iterations=40 if quick else iterations)
    config = replace(config, flow=replace(config.flow, **flow))
    problem = problem_of(config, device=CPU, data=data)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        fit(RunFolder.create(Path(folder) / "run", config), problem)
        seconds = time.process_time() - started
    return problem.flow.eval(), seconds


@torch.no_grad()
def tested(flow: Flow, data: Dataset, seed: int) -> float:
    """Mean of -ln p of the test part."""
    batches = data.test.batches(1000, torch.Generator().manual_seed(seed))
    return float(torch.cat([-flow.log_prob(x) for x in batches]).mean())


def in_numpy(function: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """The function of arrays of points, a few thousand at a time."""

    @torch.no_grad()
    def wrapped(points: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.asarray(points, np.float32)).split(4000)
        return torch.cat([function(part).double() for part in parts]).numpy()

    return wrapped


def toys(options: Options, *, preset: str = "quick", names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    """Figure 3: data, and the density that a flow has learnt of them."""
    rows, panels = [], {}
    for seed in options.seeds:
        for name in names[:1] if options.quick else names:
            data = datasets.load(name, seed=seed)
            flow, seconds = trained(data, seed, options.quick, preset=preset)
            rows.append({"toy": name, "seed": seed, "seconds": seconds, "nats": tested(flow, data, seed)})
            print(rows[-1], flush=True)
            if seed == options.seeds[0]:
                samples = data.train.draw(SHOWN, torch.Generator().manual_seed(seed)).numpy()
                panels[name] = samples, in_numpy(flow.log_prob)
    stem = "cp-flow-figure-3" if preset == "quick" else f"cp-flow-figure-3-{preset}"
    write(densities_figure(panels), options.output / f"{stem}.png")
    found = {
        name: statistics.median(row["nats"] for row in rows if row["toy"] == name)
        for name in dict.fromkeys(row["toy"] for row in rows)
    }
    return {"preset": preset, "median": found, "runs": rows}


def encoding(options: Options) -> dict[str, Any]:
    """Figure 1: eight Gaussians, one convex potential, the grid that its gradient moves, and the encoding."""
    seed = options.seeds[0]
    data = datasets.load("eight-gaussians", seed=seed)
    flow, seconds = trained(data, seed, options.quick, iterations=5000, blocks=1)
    convex = next(module for module in flow.modules() if isinstance(module, ConvexFlow))
    whitening = flow.transforms[-1]

    def potential(x: Tensor) -> Tensor:
        return convex.potential.value(whitening.inverse(x)[0].float())

    def gradient(x: Tensor) -> Tensor:
        return flow.inverse(x)[0]

    samples = data.train.draw(SHOWN, torch.Generator().manual_seed(seed)).numpy()
    labels = np.round(np.arctan2(samples[:, 1], samples[:, 0]) / (np.pi / 4)) % 8
    figure = encoding_figure(samples, in_numpy(potential), in_numpy(gradient), labels=labels)
    write(figure, options.output / "cp-flow-figure-1.png")
    return {"nats": tested(flow, data, seed), "entropy": 2.832, "seconds": seconds}


def gaussians(options: Options) -> dict[str, Any]:
    """Figure 4: transport cost of maps between Gaussians, of a gradient and of a triangular matrix, and the least."""
    dimensions, iterations = (GAUSSIANS[:1], 60) if options.quick else (GAUSSIANS, 1000)
    runs = [
        gaussian_map(dimension, seed, iterations, batch=256, width=64, flow=kind)
        for kind in ("CP-Flow", "linear autoregressive")
        for dimension in dimensions
        for seed in options.seeds
    ]
    write(transport_figure(runs), options.output / "cp-flow-figure-4.png")
    return {"iterations": iterations, "runs": runs}


def kept(work: Callable[..., object], *arguments: Any) -> int:
    """Bytes of tensors that a graph keeps for its backward pass, each storage once."""
    storages: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive.append(work(*arguments))
    return sum(storages.values())


def through_series(expansion: Any, probes: Tensor, terms: int) -> Tensor:
    """r.ln(H / L).r by its power series, all products with the Hessian in the graph: what the surrogate avoids."""
    vector, total = probes, torch.zeros(())
    with torch.no_grad():
        bound = 2 * float(expansion.product(probes).norm() / probes.norm())
    for k in range(1, terms + 1):
        vector = vector - expansion.product(vector) / bound
        total = total - (probes * vector).sum() / k
    return total


def memory(options: Options) -> dict[str, Any]:
    """Figure 2: memory of the log-determinant's graph against iterations and probes, of the three ways to it."""
    dimension = 16 if options.quick else CONDITION_DIMENSION
    generator = torch.Generator().manual_seed(options.seeds[0])
    potential = lively(ConvexPotential((dimension,), width=96, generator=generator), generator, 0.5).float()
    x = torch.randn(64, dimension, generator=generator)
    expansion = potential.expand(x)
    by_probes, by_iterations = [], []
    for count in (1, 2, 4, 8, 16):
        logdet = LanczosLogdet(count, tolerance=1e-3)
        signs = logdet.draw(x)
        by_probes.append({"probes": count, "bytes": kept(logdet.surrogate, expansion, signs)})
    signs = LanczosLogdet(1).draw(x)
    for tolerance in (5e-1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        logdet = LanczosLogdet(1, tolerance=tolerance)
        used = kept(logdet.surrogate, expansion, signs)
        most = int(logdet.surrogate(expansion, signs)[1].iterations.max())
        series = kept(through_series, expansion, signs, most)
        by_iterations.append({"tolerance": tolerance, "iterations": most, "bytes": used, "through_bytes": series})
    exact = kept(CholeskyLogdet(), expansion, x)
    result = {"dimension": dimension, "batch": len(x), "exact_bytes": exact}
    result |= {"probes": by_probes, "iterations": by_iterations}
    write(memory_figure(result), options.output / "cp-flow-figure-2.png")
    return result


@matplotlib.rc_context(STYLE)
def memory_figure(result: dict[str, Any]) -> Figure:
    """Megabytes against iterations, and against probes."""
    figure = Figure(figsize=(1.6 * WIDTH, 0.75 * WIDTH), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = result["iterations"]
    steps = [row["iterations"] for row in rows]
    left.plot(steps, [row["bytes"] / 2**20 for row in rows], "o-", color=FLOW, label="conjugate gradients, surrogate")
    left.plot(steps, [row["through_bytes"] / 2**20 for row in rows], "s-", color=NEUTRAL, label="series in the graph")
    left.set(
        xlabel="products with the Hessian",
        ylabel="memory of the graph (MB)",
        ylim=(0, 1.1 * result["exact_bytes"] / 2**20),
    )
    right.plot(
        [row["probes"] for row in result["probes"]],
        [row["bytes"] / 2**20 for row in result["probes"]],
        "o-",
        color=FLOW,
        label="conjugate gradients, surrogate",
    )
    right.set_xlabel("probes")
    for ax in (left, right):
        ax.axhline(result["exact_bytes"] / 2**20, color=EXACT, linestyle="--", label="Hessian and its factor")
    left.legend(loc=(0.03, 0.6))
    return figure


def tolerance(options: Options) -> dict[str, Any]:
    """Ablation: what a loose solution by conjugate gradients does to the gradient, and to a likelihood."""
    chosen, iterations = (TOLERANCES[1:4:2], 40) if options.quick else (TOLERANCES, 400)
    bias = gradient_bias(list(chosen))
    runs = []
    for seed in options.seeds:
        for each in chosen:
            logdet = partial(LanczosLogdet, 1, tolerance=each)
            run = gaussian_map(8, seed, iterations, batch=256, width=64, logdet=logdet)
            runs.append({"tolerance": each, "seed": seed, **{key: run[key] for key in ("kl", "ratio", "cpu_seconds")}})
        run = gaussian_map(8, seed, iterations, batch=256, width=64)
        runs.append({"tolerance": 0.0, "seed": seed, **{key: run[key] for key in ("kl", "ratio", "cpu_seconds")}})
    write(tolerance_figure(bias[0]["rows"], runs), options.output / "cp-flow-tolerance.png")
    return {"gradient": bias, "iterations": iterations, "likelihood": runs}


@matplotlib.rc_context(STYLE)
def tolerance_figure(rows: list[dict[str, float]], runs: list[dict[str, float]]) -> Figure:
    """The gradient's bias, and the KL divergence after training, against the tolerance."""
    figure = Figure(figsize=(1.6 * WIDTH, 0.75 * WIDTH), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog([row["tolerance"] for row in rows], [row["bias"] for row in rows], "o-", color=FLOW)
    left.set(xlabel="tolerance", ylabel="bias of the gradient over its norm")
    loose = [run for run in runs if run["tolerance"]]
    right.loglog([run["tolerance"] for run in loose], [run["kl"] for run in loose], "o", color=FLOW, label="trained")
    exact = statistics.median(run["kl"] for run in runs if not run["tolerance"])
    right.axhline(exact, color=EXACT, linestyle="--", label="exact determinants")
    right.set(xlabel="tolerance", ylabel="KL divergence after training (nats)")
    right.legend()
    return figure


def _item(name: str, what: str, minutes: float, make: Callable[[Options], dict[str, Any]]) -> Item:
    return Item(f"cp-flow-{name}", "CP-Flow", what, "", minutes, make)


ITEMS = [
    _item("figure-1", "potential, moved grid and encoding of eight Gaussians", 0.5, encoding),
    _item("figure-2", "memory of the gradient's graph against products and probes", 0.1, memory),
    _item("figure-3", "densities of four toys, quick preset", 2, toys),
    _item(
        "figure-3-accurate",
        "densities of two toys, accurate preset",
        4,
        partial(toys, preset="accurate", names=HARD),
    ),
    _item("figure-4", "transport cost of maps between Gaussians, beside an autoregressive one", 4, gaussians),
    _item("tolerance", "tolerance of conjugate gradients: bias and likelihood", 2, tolerance),
]
