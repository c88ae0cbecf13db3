"""What the discussion of Zhang, E and Wang (2018) proposes: Wasserstein training, an integrator that can be undone."""

from __future__ import annotations

import io
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures.item import Item, Options
from matplotlib.figure import Figure
from PIL import Image

from isingflow import datasets
from isingflow.datasets import Dataset
from isingflow.flows import Flow, GradientFlow
from isingflow.plots.style import FLOW, LOWER, NEUTRAL, WIDTH, png
from isingflow.potentials import DensePotential
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.training.likelihood import Likelihood
from isingflow.training.loop import fit
from isingflow.training.wasserstein import WassersteinDistance, sliced_wasserstein

TOYS = ("moons", "eight-gaussians", "rings")
PROBLEMS = {"likelihood": Likelihood, "wasserstein": WassersteinDistance}
POINTS = 4000
STEPS = (2, 4, 8, 16, 32)


def wasserstein(options: Options) -> dict[str, Any]:
    """The same flow and the same iterations, trained for the likelihood and for the sliced Wasserstein distance."""
    rows: list[dict[str, Any]] = []
    shown: dict[str, dict[str, np.ndarray]] = {}
    for toy in TOYS[:1] if options.quick else TOYS:
        for seed in options.seeds:
            data = datasets.load(toy, seed=seed)
            config = DensityConfig.from_preset("quick", data, seed=seed, iterations=10 if options.quick else None)
            points = data.test.draw(POINTS, _generator(seed))
            found = {name: _trained(problem, data, config) for name, problem in PROBLEMS.items()}
            for name, flow in found.items():
                with torch.no_grad():
                    samples, _ = flow.sample(POINTS, generator=_generator(seed + 1))
                    rows.append(
                        {
                            "toy": toy,
                            "seed": seed,
                            "trained_for": name,
                            "sliced_wasserstein": float(sliced_wasserstein(samples, points, _generator(seed + 2))),
                            "nats": float(-flow.log_prob(points).mean()),
                        }
                    )
                shown.setdefault(toy, {"data": points.numpy()}).setdefault(name, samples.numpy())
            noise = [data.test.draw(POINTS, _generator(seed + s)) for s in (3, 4)]
            rows.append(
                {
                    "toy": toy,
                    "seed": seed,
                    "trained_for": "two samples of the data",
                    "sliced_wasserstein": float(sliced_wasserstein(*noise, _generator(seed + 2))),
                    "nats": None,
                }
            )
    image = Image.open(io.BytesIO(png(_samples(shown)))).convert("RGB")
    image.quantize(32).save(options.output / "monge-ampere-wasserstein.png", optimize=True)
    return {"points": POINTS, "rows": rows}


def _trained(problem: type[Likelihood], data: Dataset, config: DensityConfig) -> Flow:
    made = problem(data, config, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        fit(RunFolder.create(Path(folder) / "run", config), made)
    return made.flow.eval()


def _samples(shown: dict[str, dict[str, np.ndarray]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.5 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False)
    for row, (toy, columns) in zip(axes, shown.items(), strict=True):
        reach = 1.1 * float(np.abs(columns["data"]).max())
        for ax, (name, points) in zip(row, columns.items(), strict=True):
            ax.plot(*points[:2000].T, ".", markersize=1.5, color=NEUTRAL if name == "data" else FLOW, alpha=0.5)
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
            ax.set_title(f"{toy}, data" if name == "data" else f"trained for {name}", fontsize=9)
    return figure


def reversible(options: Options) -> dict[str, Any]:
    """What a step is worth and whether it is undone: Runge-Kutta and the reversible method made of it."""
    dimension, hidden, points = (4, 16, 16) if options.quick else (16, 64, 64)
    rows = []
    for seed in options.seeds:
        potential = DensePotential(
            (dimension,), hidden, activation="softplus", time_terms=3, generator=_generator(seed)
        )
        with torch.no_grad():
            for parameter in potential.double().parameters():
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=_generator(seed + 1)).double())
        z = torch.randn(points, dimension, dtype=torch.float64, generator=_generator(seed + 2))
        exact, logdet = GradientFlow(potential, steps=256, tableau="dopri5")(z)
        for steps in STEPS:
            for undone in (False, True):
                flow = GradientFlow(potential, steps=steps, reversible=undone)
                x, found = flow(z)
                back, _ = flow.inverse(x)
                rows.append(
                    {
                        "seed": seed,
                        "steps": steps,
                        "reversible": undone,
                        "error_of_points": float((x - exact).abs().max().detach()),
                        "error_of_logdet": float((found - logdet).abs().max().detach()),
                        "error_of_inverse": float((back - z).abs().max().detach()),
                        "bytes_kept_for_gradients": _kept(flow, z),
                    }
                )
    (options.output / "monge-ampere-reversible.png").write_bytes(png(_integrators(rows)))
    return {"dimension": dimension, "hidden": hidden, "points": points, "rows": rows}


def _kept(flow: GradientFlow, z: torch.Tensor) -> int:
    """Bytes of the tensors that the graph of a pass keeps for its gradients."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        x, _ = flow(z.clone().requires_grad_())
    del x
    return sum(kept.values())


def _integrators(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3), layout="constrained")
    panels = (("error_of_points", "error of points"), ("bytes_kept_for_gradients", "bytes kept for gradients"))
    for ax, (key, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for undone, color, name in ((False, LOWER, "Runge-Kutta"), (True, FLOW, "reversible")):
            chosen = [row for row in rows if row["reversible"] == undone and row["seed"] == rows[0]["seed"]]
            ax.loglog([row["steps"] for row in chosen], [row[key] for row in chosen], "o-", color=color, label=name)
        ax.set(xlabel="steps", ylabel=title)
        ax.legend()
    return figure


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


_Item = partial(Item, paper="Monge-Ampere", needs="")
ITEMS = [
    _Item(
        "monge-ampere-wasserstein",
        what="toys trained for the Wasserstein distance, beside the likelihood (discussion)",
        minutes=3,
        make=wasserstein,
    ),
    _Item(
        "monge-ampere-reversible",
        what="an integrator whose steps are undone: errors, memory (discussion)",
        minutes=0.1,
        make=reversible,
    ),
]
