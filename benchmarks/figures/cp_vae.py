"""Table 3 of CP-Flow: variational autoencoders whose posterior is a Gaussian, or a CP-Flow that starts from it.

    ln p(x) >= E_q [ ln p(x | z) + ln p(z) - ln q(z | x) ],    z = m(x) + exp(s(x)) grad F(noise; e(x))

Binarised MNIST (each grey level once, by a fixed seed), a standard normal prior, Bernoulli pixels. Encoder and decoder,
their seeds, batches, rates and numbers of iterations are the same for both posteriors; so are the warm-up of the KL
term and the Gaussian's head. F is a partially input-convex network, the context is what the encoder gives to that head,
and ln det of the Hessian is exact. A third column trains the Gaussian for the CP-Flow's processor time.

Bounds are those of the 10,000 test images, five posterior samples each.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import torch
from figures.item import Item, Options
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from isingflow.datasets import mnist
from isingflow.flows import ConditionalAffine, ConditionalConvexFlow, ConditionalFlow
from isingflow.plots.style import EXACT, FLOW, HEIGHT, NEUTRAL, STYLE, WIDTH
from isingflow.potentials import PartiallyConvexPotential
from isingflow.statistics.free_energy import mean

PIXELS = 784
LATENT, HIDDEN, UNITS = 32, 200, 64
ITERATIONS, BATCH, RATE = 9000, 100, 3e-3
WARM_UP = 0.3
"""Share of the iterations over which the weight of the KL term grows to one."""
DRAWS = 5
VALIDATION = 2000
CHECKS = 12
CHUNK = 1000


@dataclass(frozen=True)
class Digits:
    """Binary images as rows of 0 and 1, float32, and the mean grey levels of the train part."""

    train: Tensor
    validation: Tensor
    test: Tensor
    mean: Tensor


def digits(folder: Any) -> Digits:
    """MNIST, each pixel once drawn with its grey level as probability; the same for every run."""
    arrays = mnist.read(folder)
    generator = torch.Generator().manual_seed(0)
    grey = {key: torch.tensor(arrays[key]).flatten(1) / 255 for key in ("train_images", "test_images")}
    train, test = (torch.bernoulli(levels, generator=generator) for levels in grey.values())
    return Digits(train[:50_000], train[50_000 : 50_000 + VALIDATION], test, grey["train_images"][:50_000].mean(0))


class Autoencoder(nn.Module):
    """Two hidden layers each way; the posterior is a conditional flow.

    Args:
        kind: "gaussian" or "cp-flow".
        average: mean image, where the decoder starts.
        seed: of the initial weights; encoder and decoder do not depend on the kind.
    """

    def __init__(self, kind: str, average: Tensor, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encoder = _network([PIXELS, HIDDEN, HIDDEN], generator)
        self.encoder.append(nn.SiLU())
        self.decoder = _network([LATENT, HIDDEN, HIDDEN, PIXELS], generator)
        chance = average.clamp(1e-3, 1 - 1e-3)
        with torch.no_grad():
            self.decoder[-1].bias.copy_(chance.logit())
            self.decoder[-1].weight.mul_(0.3)
        maps: list[Any] = []
        if kind == "cp-flow":
            potential = PartiallyConvexPotential(
                LATENT, HIDDEN, width=UNITS, layers=1, embedding=UNITS, generator=generator
            )
            maps.append(ConditionalConvexFlow(potential))
        self.posterior = ConditionalFlow(LATENT, [*maps, ConditionalAffine(LATENT, HIDDEN)])

    def bound(self, x: Tensor, weight: float = 1.0) -> Tensor:
        """One sample's estimate of the bound of every image, in nats, the KL term times a weight; shape (n,)."""
        z, log_q = self.posterior.sample(self.encoder(x))
        log_prior = -z.double().square().sum(1) / 2 - LATENT * math.log(2 * math.pi) / 2
        likelihood = -binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1)
        return likelihood.double() + weight * (log_prior - log_q)


def _network(sizes: list[int], generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for entries, units in pairwise(sizes):
        layer = nn.Linear(entries, units)
        with torch.no_grad():
            layer.weight.copy_(math.sqrt(2 / entries) * torch.randn(units, entries, generator=generator))
            layer.bias.zero_()
        layers += [layer, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def bounds(model: Autoencoder, images: Tensor, draws: int) -> Tensor:
    """The bound of every image, averaged over posterior samples, shape (n,)."""
    return torch.cat([sum(model.bound(x) for _ in range(draws)) / draws for x in images.split(CHUNK)])


def trained(kind: str, data: Digits, seed: int, iterations: int) -> tuple[Autoencoder, float, list[dict[str, float]]]:
    """A trained autoencoder, its processor seconds, and the validation bound on the way."""
    model = Autoencoder(kind, data.mean, seed)
    torch.manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=iterations, pct_start=0.1)
    curve, seconds = [], 0.0
    for iteration in range(1, iterations + 1):
        started = time.process_time()
        x = data.train[torch.randint(len(data.train), (BATCH,))]
        loss = -model.bound(x, min(1.0, iteration / (WARM_UP * iterations))).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 500.0)
        optimiser.step()
        schedule.step()
        seconds += time.process_time() - started
        if iteration % max(iterations // CHECKS, 1) == 0:
            found = float(bounds(model, data.validation, 1).mean())
            curve.append({"iteration": iteration, "processor_seconds": seconds, "validation_bound": found})
    return model.eval(), seconds, curve


def make(options: Options) -> dict[str, Any]:
    """Both posteriors for every seed, and the Gaussian for the CP-Flow's time."""
    data = digits(options.data)
    iterations = 60 if options.quick else ITERATIONS
    draws = 1 if options.quick else DRAWS
    test = data.test[:1000] if options.quick else data.test
    runs = []
    for seed in options.seeds:
        found: dict[str, Any] = {"seed": seed}
        per_image: dict[str, Tensor] = {}
        length = iterations
        for name, kind in (("gaussian", "gaussian"), ("cp_flow", "cp-flow"), ("gaussian_equal_time", "gaussian")):
            if name == "gaussian_equal_time":
                if seed != options.seeds[0]:
                    continue
                length = round(
                    iterations * found["cp_flow"]["processor_seconds"] / found["gaussian"]["processor_seconds"]
                )
            model, seconds, curve = trained(kind, data, seed, length)
            per_image[name] = bounds(model, test, draws)
            found[name] = {
                "iterations": length,
                "processor_seconds": seconds,
                "bound": mean(per_image[name]).as_dict(),
                "curve": curve,
            }
            print(f"seed {seed}, {name}: {mean(per_image[name])} nats, {seconds:.0f} s", flush=True)
        found["gain"] = mean(per_image["cp_flow"] - per_image["gaussian"]).as_dict()
        if "gaussian_equal_time" in per_image:
            found["gain_at_equal_time"] = mean(per_image["cp_flow"] - per_image["gaussian_equal_time"]).as_dict()
        runs.append(found)
    bounds_figure(runs).savefig(options.output / "cp-flow-table-3.png", dpi=100)
    gains = [run["gain"]["value"] for run in runs]
    return {"latent": LATENT, "hidden": HIDDEN, "median_gain_nats": float(np.median(gains)), "runs": runs}


@matplotlib.rc_context(STYLE)
def bounds_figure(runs: list[dict[str, Any]]) -> Figure:
    """Validation bounds against iterations, a line a run, and against processor time."""
    figure = Figure(figsize=(1.3 * WIDTH, HEIGHT), layout="constrained")
    kinds = {"gaussian": NEUTRAL, "cp_flow": FLOW, "gaussian_equal_time": EXACT}
    for ax, across in zip(figure.subplots(1, 2, sharey=True), ("iteration", "processor_seconds"), strict=True):
        for name, colour in kinds.items():
            for number, run in enumerate(run for run in runs if name in run):
                curve = run[name]["curve"]
                points = [[point[key] for point in curve] for key in (across, "validation_bound")]
                label = name.replace("_", " ") if number == 0 else None
                ax.plot(*points, color=colour, linewidth=1.2, label=label)
        ax.set(xlabel=across.replace("_", " "))
        ax.legend(loc="lower right")
        best = max(run[name]["curve"][-1]["validation_bound"] for run in runs for name in kinds if name in run)
        ax.set_ylim(best - 25, best + 1)
    figure.axes[0].set_ylabel("validation bound on ln p(x) (nats)")
    return figure


ITEMS = [
    Item(
        "cp-flow-table-3",
        "CP-Flow",
        "variational autoencoder of MNIST: bound of a CP-Flow posterior against a Gaussian one",
        "MNIST",
        4,
        make,
    )
]
