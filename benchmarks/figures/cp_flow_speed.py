"""CP-Flow's step and inversion against the reference implementation, in processor time.

The reference is CW-Huang/CP-Flow, a checkout of which lies in the data folder as `CP-Flow`. On eight Gaussians its
network is that of its `train_toy.py`, 20 layers of 32 units in double precision, and ours the quick preset; both are
first trained for as many steps. In dimensions 2, 8 and 16 its algorithms (products by automatic differentiation,
conjugate gradients, torch's L-BFGS) are run on the very function that ours are: two layers of 64 units, shaken.
Inverses are ours to a relative residual of 1e-6 and the reference's to its own criterion.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from convex import lively
from figures.item import Item, Options
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from isingflow import datasets
from isingflow.flows import ConvexFlow
from isingflow.potentials import ConvexPotential
from isingflow.runs.config import DensityConfig
from isingflow.training.problems import problem_of

BATCH = 128
TOLERANCE = 1e-6


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median processor milliseconds, after a first call that does not count."""
    work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - started))
    return statistics.median(times)


class Same(nn.Module):
    """Our network's value alone, as the reference's own networks are written: F without its factor and quadratic."""

    def __init__(self, potential: ConvexPotential) -> None:
        super().__init__()
        network = potential.network
        self.skips, self.biases, self.raw = network.skips, network.biases, network.raw
        self.linear = nn.Parameter((potential.linear / potential.scale).detach())

    def forward(self, x: Tensor) -> Tensor:
        p = linear(x, self.skips[0], self.biases[0])
        z = softplus(p) - p / 2
        for raw, bias, skip in zip(self.raw, self.biases[1:], self.skips[1:], strict=False):
            z = softplus(linear(z - math.log(2), softplus(raw)) / raw.shape[1] + linear(x, skip, bias))
        return linear(z, softplus(self.raw[-1])) / self.raw[-1].shape[1] + (x @ self.linear)[:, None]


def their_step(flow: nn.Module, x: Tensor) -> Callable[[], None]:
    """A step of likelihood training as the reference takes it."""
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-3)

    def step() -> None:
        z, logdet = flow.forward_transform(x, x.new_zeros(len(x)))
        optimiser.zero_grad()
        (z.square().sum(1) / 2 - logdet).mean().backward()
        optimiser.step()

    return step


def their_inverse(flow: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """The minimisation of its `reverse`, without the check that follows."""
    y = flow.forward(x).detach()

    def inverse() -> Tensor:
        z = y.clone().requires_grad_()
        search = torch.optim.LBFGS(
            [z], max_iter=10**6, tolerance_grad=1e-12, tolerance_change=1e-12, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            loss = flow.get_potential(z).sum() - (z * y).sum()
            z.grad = torch.autograd.grad(loss, z)[0]
            return loss

        search.step(closure)
        return z

    return inverse


def same_function(dimension: int, seed: int, repeats: int, deep: type) -> dict[str, Any]:
    """Times of both on one function, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    potential = lively(ConvexPotential((dimension,), width=64, layers=2, generator=generator), generator, 0.3)
    ours = ConvexFlow(potential, tolerance=TOLERANCE)
    theirs = deep(Same(potential), dimension).double().train()
    with torch.no_grad():
        theirs.w1.copy_(potential.scale.expm1().log())
        theirs.w0.copy_(potential.alpha.expm1().log())
    x = torch.randn(BATCH, dimension, generator=generator, dtype=torch.float64)
    same = float((theirs.forward(x) - ours(x)[0]).detach().abs().max())
    y = ours(x)[0].detach()
    optimiser = torch.optim.Adam(ours.parameters(), lr=1e-6)

    def step() -> None:
        z, logdet = ours(x)
        optimiser.zero_grad()
        (z.square().sum(1) / 2 - logdet).mean().backward()
        optimiser.step()

    inverse = torch.no_grad()(lambda: ours.minimise(y))
    return _compared(
        {"dimension": dimension, "difference": same},
        (inverse, their_inverse(theirs, x), repeats),
        (step, their_step(theirs, x), repeats),
    )


def toy(seed: int, repeats: int, steps: int, flows: Any, icnn: Any) -> dict[str, Any]:
    """Times of the quick preset and of the reference's network for toys, on eight Gaussians."""
    data = datasets.load("eight-gaussians", seed=seed)
    config = DensityConfig.from_preset("quick", data, flow="convex", seed=seed)
    problem = problem_of(config, device=torch.device("cpu"), data=data)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(problem.flow.parameters(), lr=config.training.learning_rate)
    problem.prepare(config.training.batch, seed)
    x = data.train.draw(BATCH, generator)

    def step() -> None:
        loss, _ = problem.objective(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    torch.manual_seed(seed)
    network = icnn.ICNN3(2, 32, 20, symm_act_first=True, softplus_type="gaussian_softplus", zero_softplus=True)
    theirs = flows.SequentialFlow([flows.ActNorm(2), flows.DeepConvexFlow(network, 2)]).double().train()
    their = their_step(theirs, x.double())
    for _ in range(steps):
        step()
        their()
    inner = theirs.flows[0].forward_transform(x.double())[0].detach()
    convex = [deepcopy(module).double() for module in problem.flow.modules() if isinstance(module, ConvexFlow)]
    points = [torch.randn(BATCH, 2, generator=generator, dtype=torch.float64) for _ in convex]
    images = [block(z)[0].detach() for block, z in zip(convex, points, strict=True)]
    for block in convex:
        block.tolerance = TOLERANCE

    @torch.no_grad()
    def inverse() -> None:
        for block, image in zip(convex, images, strict=True):
            block.minimise(image)

    inverted = inverse, their_inverse(theirs.flows[1], inner), max(repeats // 4, 1)
    return _compared({"toy": "eight-gaussians", "steps": steps}, inverted, (step, their, repeats))


def _compared(
    facts: dict[str, Any],
    inverses: tuple[Callable[[], object], Callable[[], object], int],
    steps: tuple[Callable[[], object], Callable[[], object], int],
) -> dict[str, Any]:
    row = dict(facts)
    for name, (ours, theirs, repeats) in (("inverse", inverses), ("step", steps)):
        row[f"{name}_ms"], row[f"{name}_reference_ms"] = timed(ours, repeats), timed(theirs, repeats)
        row[f"{name}_ratio"] = row[f"{name}_reference_ms"] / row[f"{name}_ms"]
    print(row, flush=True)
    return row


def speed(options: Options) -> dict[str, Any]:
    """Both comparisons, for every seed."""
    folder = (options.data or Path()) / "CP-Flow"
    if not (folder / "lib").is_dir():
        raise SystemExit(f"{folder} is no checkout of CW-Huang/CP-Flow: give its parent as --data")
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lib import flows, icnn

        repeats, steps = (2, 5) if options.quick else (8, 30)
        rows = [toy(seed, repeats, steps, flows, icnn) for seed in options.seeds]
        rows += [
            same_function(dimension, seed, repeats, flows.DeepConvexFlow)
            for dimension in (2, 8, 16)
            for seed in options.seeds
        ]
    return {"batch": BATCH, "runs": rows}


ITEMS = [Item("cp-flow-speed", "CP-Flow", "step and inversion against the reference", "CW-Huang/CP-Flow", 1, speed)]
