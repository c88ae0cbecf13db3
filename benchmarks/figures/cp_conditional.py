"""Conditional CP-Flow (partially input-convex networks): densities that depend on a number, and on a label.

weights   p(x | c) = c N(x; -2, 1/2) + (1 - c) N(x; 2, 1/2) on the line, c uniform on [0, 1]: the context is a number.
pairs     p(x | k): of eight Gaussians on a circle the two opposite ones k and k + 4, k = 0 ... 3: a context that is a
          label, one-hot.

The truth is known in closed form, so the conditional likelihood of fresh samples is compared with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import torch
from figures.item import Item, Options
from matplotlib.figure import Figure
from torch import Tensor

from isingflow.flows import ActNorm, ConditionalConvexFlow, ConditionalFlow
from isingflow.plots.convex import density_panel
from isingflow.plots.style import HEIGHT, STYLE, WIDTH
from isingflow.potentials import PartiallyConvexPotential
from isingflow.statistics.free_energy import mean

SPREAD = 0.5
RADIUS = 2.0
LABELS = 4
TEST = 20_000


@dataclass(frozen=True)
class Toy:
    """A conditional density.

    Attributes:
        features, context: entries of x and c.
        draw: so many pairs of x and c.
        log_prob: ln p(x | c), float64.
        blocks, layers, width, iterations: of the flow, and of its training.
    """

    features: int
    context: int
    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    log_prob: Callable[[Tensor, Tensor], Tensor]
    blocks: int
    layers: int
    width: int
    iterations: int


def _normal(x: Tensor, centre: Tensor, spread: float) -> Tensor:
    """ln N(x; centre, spread), summed over the last axis."""
    squares = ((x.double() - centre.double()) / spread).square().sum(-1)
    return -squares / 2 - x.shape[-1] * math.log(spread * math.sqrt(2 * math.pi))


def _weights_draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    c = torch.rand(n, 1, generator=generator)
    centre = torch.where(torch.rand(n, 1, generator=generator) < c, -RADIUS, RADIUS)
    return centre + SPREAD * torch.randn(n, 1, generator=generator), c


def _weights_log_prob(x: Tensor, c: Tensor) -> Tensor:
    left, right = (_normal(x, torch.full_like(x, centre), SPREAD) for centre in (-RADIUS, RADIUS))
    share = c[:, 0].double()
    return torch.logaddexp(share.log() + left, torch.log1p(-share) + right)


def _centres(labels: Tensor) -> Tensor:
    """Of the two Gaussians of a label, shape (n, 2, 2)."""
    angle = labels[:, None] * (math.pi / LABELS) + torch.tensor([0.0, math.pi])
    return RADIUS * torch.stack([angle.cos(), angle.sin()], -1)


def _pairs_draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(LABELS, (n,), generator=generator)
    which = torch.randint(2, (n,), generator=generator)
    x = _centres(labels)[torch.arange(n), which] + SPREAD * torch.randn(n, 2, generator=generator)
    return x, torch.nn.functional.one_hot(labels, LABELS).float()


def _pairs_log_prob(x: Tensor, c: Tensor) -> Tensor:
    parts = _normal(x[:, None], _centres(c.argmax(1)), SPREAD)
    return torch.logsumexp(parts, 1) - math.log(2)


TOYS = {
    "weights": Toy(1, 1, _weights_draw, _weights_log_prob, blocks=1, layers=4, width=32, iterations=1500),
    "pairs": Toy(2, LABELS, _pairs_draw, _pairs_log_prob, blocks=1, layers=4, width=48, iterations=1500),
}


def trained(
    toy: Toy, seed: int, iterations: int, batch: int = 256, rate: float = 1e-2
) -> tuple[ConditionalFlow, float]:
    """A flow trained by maximum likelihood on fresh samples, and the processor seconds that it took."""
    generator = torch.Generator().manual_seed(seed)
    maps: list[Any] = []
    for _ in range(toy.blocks):
        potential = PartiallyConvexPotential(
            toy.features,
            toy.context,
            width=toy.width,
            layers=toy.layers,
            activation="gaussian",
            gain=2.0,
            generator=generator,
        )
        maps += [ConditionalConvexFlow(potential, inverted=True), ActNorm((toy.features,))]
    flow = ConditionalFlow(toy.features, maps)
    optimiser = torch.optim.Adam(flow.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=iterations, pct_start=0.1)
    started = time.process_time()
    for _ in range(iterations):
        x, c = toy.draw(batch, generator)
        loss = -flow.log_prob(x, c).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    return flow.eval(), time.process_time() - started


@torch.no_grad()
def measured(toy: Toy, flow: ConditionalFlow, samples: int) -> dict[str, Any]:
    """Negative log-likelihoods of fresh samples: of the truth, of the flow, and their difference in nats."""
    x, c = toy.draw(samples, torch.Generator().manual_seed(2**20))
    truth, ours = toy.log_prob(x, c), flow.log_prob(x, c)
    return {
        "truth": mean(-truth).as_dict(),
        "flow": mean(-ours).as_dict(),
        "kl": mean(truth - ours).as_dict(),
    }


def make(options: Options) -> dict[str, Any]:
    """Both toys for every seed; the figure shows the first."""
    runs: dict[str, list[dict[str, Any]]] = {}
    shown: dict[str, ConditionalFlow] = {}
    for name, toy in TOYS.items():
        for seed in options.seeds:
            flow, seconds = trained(toy, seed, 150 if options.quick else toy.iterations)
            found = measured(toy, flow, 2000 if options.quick else TEST)
            runs.setdefault(name, []).append({"seed": seed, "training_processor_seconds": seconds, **found})
            shown.setdefault(name, flow)
    figure = conditional_figure(shown)
    figure.savefig(options.output / "cp-flow-conditional.png", dpi=100)
    return {"runs": runs}


@matplotlib.rc_context(STYLE)
@torch.no_grad()
def conditional_figure(flows: dict[str, ConditionalFlow]) -> Figure:
    """Densities on the line at nine weights, full as they are and dashed as learned; below, the plane by label."""
    figure = Figure(figsize=(WIDTH, 1.6 * HEIGHT), layout="constrained")
    line, plane = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    ax = line.subplots()
    x = torch.linspace(-4.5, 4.5, 400)[:, None]
    colours = matplotlib.colormaps["coolwarm"]
    for weight in np.linspace(0.1, 0.9, 9):
        c = torch.full_like(x, float(weight))
        colour = colours(float(weight))
        ax.plot(x[:, 0], TOYS["weights"].log_prob(x, c).exp(), color=colour, linewidth=1.2, label=f"{weight:.1f}")
        ax.plot(x[:, 0], flows["weights"].log_prob(x, c).exp(), "--", color=colour, linewidth=1.2)
    ax.set(xlabel="x", ylabel="p(x | c)", title="full: the truth, dashed: CP-Flow; weight c of the left one")
    ax.legend(fontsize=8, ncols=3, loc="upper center")
    for label, panel in enumerate(plane.subplots(1, LABELS)):
        context = torch.eye(LABELS)[label : label + 1]
        density_panel(panel, lambda points, c=context: _plane(flows["pairs"], points, c), 4.0)
        panel.plot(*_centres(torch.tensor([label]))[0].T, "x", color="#d55e00", markersize=5)
        panel.set(title=f"label {label}", xticks=[], yticks=[])
    return figure


def _plane(flow: ConditionalFlow, points: np.ndarray, context: Tensor) -> np.ndarray:
    return flow.log_prob(torch.as_tensor(points, dtype=torch.float32), context).numpy()


ITEMS = [
    Item(
        "cp-flow-conditional",
        "CP-Flow",
        "conditional densities by partially input-convex networks, against the truth",
        "",
        1.5,
        make,
    )
]
