"""Networks of a CP-Flow on toys: how layers are connected, their activations and normalisation, at equal time.

Every variant has the same processor time on the same toy, one cycle of the rate, and one convex map, but for the soft
maximum, which has two as in the preset `quick`. The published network of toys, halves of 20 layers and 32 units, is
there too. What a variant is made of is in VARIANTS. The rate is the best of 3e-3, 1e-2 and 3e-2 for halves on seed 11.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import matplotlib
import torch
from figures.cp_flow import HARD, tested, write
from figures.item import Item, Options
from figures.toys import entropy
from matplotlib.figure import Figure
from msgspec.structs import replace

from isingflow import datasets
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.datasets import Dataset
from isingflow.plots.style import EXACT, FLOW, NEUTRAL, STYLE, WIDTH
from isingflow.runs.config import DensityConfig
from isingflow.training.problems import problem_of
from isingflow.training.schedules import learning_rate

BUDGET, BATCH, CLIP = 12.0, 256, 10.0
BASE = ConvexFlowConfig(
    network="halves",
    blocks=1,
    width=32,
    layers=6,
    normalised=True,
    activation="gaussian",
    radial=0,
    oriented=0,
)
SOFT_MAXIMUM = ConvexFlowConfig(network="log-sum-exp", blocks=2, width=256, radial=0, oriented=0)


@dataclass(frozen=True)
class Variant:
    """Settings of a flow, and the rate that they are trained with."""

    flow: ConvexFlowConfig
    rate: float = 3e-2


VARIANTS = {
    "halves": Variant(BASE),
    "layers": Variant(replace(BASE, network="layers")),
    "residual": Variant(replace(BASE, network="residual")),
    "dense": Variant(replace(BASE, network="dense")),
    "halves, not normalised": Variant(replace(BASE, normalised=False)),
    "halves, softplus": Variant(replace(BASE, activation="softplus")),
    "halves, laplace": Variant(replace(BASE, activation="laplace")),
    "halves, cauchy": Variant(replace(BASE, activation="cauchy")),
    "halves, squareplus": Variant(replace(BASE, activation="squareplus")),
    "halves, 20 layers": Variant(replace(BASE, layers=20)),
    "log-sum-exp": Variant(SOFT_MAXIMUM),
}


def trained(variant: Variant, data: Dataset, seed: int, budget: float) -> dict[str, Any]:
    """Nats of the test part after so many processor seconds, and how many steps they were."""
    config = DensityConfig.from_preset("quick", data, flow="convex", seed=seed)
    problem = problem_of(replace(config, flow=variant.flow), device=torch.device("cpu"), data=data)
    problem.prepare(BATCH, seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(problem.flow.parameters(), variant.rate, betas=(0.9, 0.99))
    seconds, steps = 0.0, 0
    while seconds < budget:
        started = time.process_time()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate("one-cycle", variant.rate, seconds / budget)
        loss = problem.objective(data.train.draw(BATCH, generator))[0].mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(problem.flow.parameters(), CLIP)
        optimiser.step()
        seconds, steps = seconds + time.process_time() - started, steps + 1
    flow = problem.flow.eval()
    found = {"nats": tested(flow, data, seed), "steps": steps, "step_ms": 1e3 * seconds / steps}
    return found | {"parameters": flow.parameter_count, "rate": variant.rate}


def make(options: Options) -> dict[str, Any]:
    """Every variant on both toys."""
    rows = []
    for seed in options.seeds:
        for toy in HARD[:1] if options.quick else HARD:
            data = datasets.load(toy, seed=seed)
            for name, variant in VARIANTS.items():
                found = trained(variant, data, seed, 1.0 if options.quick else BUDGET)
                rows.append({"network": name, "toy": toy, "seed": seed, "entropy": entropy(toy), **found})
                print(rows[-1], flush=True)
    write(networks_figure(rows), options.output / "cp-flow-networks.png")
    return {"budget": BUDGET, "batch": BATCH, "runs": rows}


@matplotlib.rc_context(STYLE)
def networks_figure(rows: list[dict[str, Any]]) -> Figure:
    """Nats above the entropy of every variant, a panel for each toy."""
    toys, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("toy", "network"))
    figure = Figure(figsize=(1.7 * WIDTH, 0.9 * WIDTH), layout="constrained")
    panels = figure.subplots(1, len(toys), sharey=True, squeeze=False)[0]
    for ax, toy in zip(panels, toys, strict=True):
        for row in rows:
            if row["toy"] == toy:
                colour = FLOW if row["network"] == "log-sum-exp" else NEUTRAL
                ax.plot(row["nats"] - row["entropy"], names.index(row["network"]), "o", color=colour)
        ax.axvline(0, color=EXACT, linestyle="--")
        ax.set(title=toy, xlabel="nats above the entropy", yticks=range(len(names)))
    panels[0].set_yticklabels(names)
    panels[0].invert_yaxis()
    return figure


ITEMS = [
    Item(
        "cp-flow-networks",
        "CP-Flow",
        "networks, activations and normalisation on two toys, at equal time",
        "",
        5,
        make,
    )
]
