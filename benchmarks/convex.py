"""CP-Flow: optimal maps between Gaussians, the bias of its gradient, its stochastic log-determinants.

    python benchmarks/convex.py --output docs/benchmarks/convex.json --figure docs/figures/convex_gaussians.png

Gaussians: z = grad F(x) is trained by maximum likelihood on x ~ Normal(0, Sigma), Sigma = B B^T / 2d with B a d x 2d
matrix of standard normal numbers. The closed forms: ln p(x), and Bures' distance to the standard normal,
W_2^2 = tr(Sigma) + d - 2 tr(Sigma^1/2), the least E|x - z|^2 of any map. Transport costs are half of that.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe
from torch import Tensor

from isingflow.flows import CholeskyLogdet, ConvexFlow, Flow, Inverted, LanczosLogdet, Transform
from isingflow.flows.logdet import LogDeterminant
from isingflow.lattice.symmetry import square_torus_group
from isingflow.plots.convex import transport_figure
from isingflow.plots.style import png
from isingflow.potentials import ConvexPotential, LatticeConvexPotential

DIMENSIONS = [2, 4, 8, 16]
GAIN = 0.25
"""A small one: the potential of a linear map is quadratic, and a network of small gain starts as one."""


class Triangular(Transform):
    """z = L x + b, L lower triangular: the linear autoregressive map, which can make any Gaussian."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.lower = torch.nn.Parameter(torch.zeros(dimension, dimension))
        self.log_diagonal = torch.nn.Parameter(torch.zeros(dimension))
        self.shift = torch.nn.Parameter(torch.zeros(dimension))

    @property
    def matrix(self) -> Tensor:
        """L."""
        return self.lower.tril(-1) + self.log_diagonal.exp().diag()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.linalg.solve_triangular(self.matrix, (z - self.shift).T, upper=False).T
        return x, -self.log_diagonal.double().sum().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.matrix.T + self.shift, self.log_diagonal.double().sum().expand(len(x))


def gaussian_map(
    dimension: int,
    seed: int,
    iterations: int,
    batch: int,
    width: int,
    *,
    flow: str = "CP-Flow",
    logdet: Callable[[], LogDeterminant] = CholeskyLogdet,
) -> dict:
    """KL to the data and transport cost of a trained map while it learns, beside the closed form.

    Both are measured with exact determinants, whatever `logdet` a CP-Flow is trained with.
    """
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(dimension, 2 * dimension, generator=generator, dtype=torch.float64) / math.sqrt(2 * dimension)
    covariance = root @ root.T
    factor = torch.linalg.cholesky(covariance)
    exact = torch.distributions.MultivariateNormal(torch.zeros(dimension).double(), covariance)
    spread = torch.linalg.eigvalsh(covariance).sqrt()
    closed_form = (spread - 1).square().sum().item() / 2

    def data(count: int) -> Tensor:
        return torch.randn(count, dimension, generator=generator) @ factor.T.float()

    potential = ConvexPotential((dimension,), width=width, layers=1, gain=GAIN, generator=generator)
    convex = ConvexFlow(potential, logdet=logdet())
    learnt = Flow((dimension,), [Inverted(convex) if flow == "CP-Flow" else Triangular(dimension)])
    test = data(20000)

    @torch.no_grad()
    def measured() -> dict:
        kl, cost = [], []
        training, convex.logdet = convex.logdet, CholeskyLogdet()
        for x in test.split(2000):
            z, volume = learnt.inverse(x)
            kl.append(exact.log_prob(x.double()) - learnt.base_log_prob(z) - volume)
            cost.append((z - x).double().square().sum(1) / 2)
        convex.logdet = training
        return {
            "kl": torch.cat(kl).mean().item(),
            "kl_stderr": torch.cat(kl).std().item() / math.sqrt(len(test)),
            "cost": torch.cat(cost).mean().item(),
        }

    # The closed form's cost on the test points themselves: the optimal map is x -> Sigma^-1/2 x.
    values, axes = torch.linalg.eigh(covariance)
    optimal = ((test.double() @ axes) * (values.rsqrt() - 1)).square().sum(1).mean().item() / 2
    optimiser = torch.optim.Adam(learnt.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=iterations)
    curve, start = [], time.process_time()
    for iteration in range(iterations):
        if iteration in (0, *(iterations >> k for k in range(1, 7))):
            curve.append({"iteration": iteration, **measured()})
        learnt.redraw(generator)
        loss = -learnt.log_prob(data(batch)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    seconds = time.process_time() - start
    curve.append({"iteration": iterations, **measured()})
    return {
        "flow": flow,
        "dimension": dimension,
        "seed": seed,
        **curve[-1],
        "closed_form": closed_form,
        "closed_form_on_test": optimal,
        "ratio": curve[-1]["cost"] / optimal,
        "cpu_seconds": seconds,
        "curve": curve,
    }


def lively(potential: torch.nn.Module, generator: torch.Generator, strength: float) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=generator))
    return potential.double()


def gradient_of(potential: torch.nn.Module, scalar: Tensor) -> Tensor:
    gradients = torch.autograd.grad(scalar, list(potential.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


def gradient_bias(tolerances: list[float], dimension: int = 64, probes: int = 64) -> list[dict]:
    """Of the surrogate's gradient: the same probes solved to a tolerance and to 1e-12, over the exact norm."""
    generator = torch.Generator().manual_seed(0)
    potential = lively(ConvexPotential((dimension,), width=96, generator=generator), generator, 0.5)
    with torch.no_grad():
        potential.log_scale.add_(3.0)
        potential.log_alpha.sub_(2.0)
    x = torch.randn(16, dimension, generator=generator, dtype=torch.float64)
    expansion = potential.expand(x)
    eigenvalues = torch.linalg.eigvalsh(expansion.hessian())
    exact = gradient_of(potential, CholeskyLogdet()(expansion, x).mean())
    signs = LanczosLogdet(probes).draw(x)

    def solved(tolerance: float) -> tuple[Tensor, float]:
        surrogate, solution = LanczosLogdet(probes, tolerance=tolerance).surrogate(expansion, signs)
        return gradient_of(potential, surrogate.mean()), solution.iterations.double().mean().item()

    tight, _ = solved(1e-12)
    noise = ((tight - exact).norm() / exact.norm()).item()
    rows = []
    for tolerance in tolerances:
        gradient, iterations = solved(tolerance)
        bias = ((gradient - tight).norm() / exact.norm()).item()
        rows.append({"tolerance": tolerance, "bias": bias, "iterations": iterations})
        print(f"  tolerance {tolerance:<8g} bias {bias:.2e}   {iterations:.1f} iterations", flush=True)
    condition = (eigenvalues[:, -1] / eigenvalues[:, 0]).median().item()
    return [{"dimension": dimension, "condition": condition, "noise_of_64_probes": noise, "rows": rows}]


def lanczos_errors(probes: list[int]) -> list[dict]:
    """z-scores of stochastic log-determinants against Cholesky's, and how the stderr shrinks."""
    generator = torch.Generator().manual_seed(1)
    lattice = LatticeConvexPotential(square_torus_group(8, 8), radial=4, oriented=2, width=16, generator=generator)
    cases = {
        "dense, d = 64": lively(ConvexPotential((64,), width=96, generator=generator), generator, 0.5),
        "lattice 8x8": lively(lattice, generator, 0.3),
    }
    rows = []
    for name, potential in cases.items():
        x = torch.randn(32, *potential.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            expansion = potential.expand(x)
            exact = CholeskyLogdet()(expansion, x)
        for count in probes:
            estimate = LanczosLogdet(count, steps=20).estimate(expansion, x)
            z = (estimate.value - exact) / estimate.stderr
            mean_error = (estimate.value - exact).mean().item()
            mean_stderr = estimate.stderr.square().sum().sqrt().item() / len(x)
            row = {
                "case": name,
                "probes": count,
                "logdet": exact.mean().item(),
                "stderr": estimate.stderr.square().mean().sqrt().item(),
                "rms_z": z.square().mean().sqrt().item(),
                "worst_z": z.abs().max().item(),
                "z_of_mean": mean_error / mean_stderr,
                "truncation": estimate.truncation.max().item(),
            }
            rows.append(row)
            print(
                f"  {name:<14} {count:>4} probes: stderr {row['stderr']:.4f}   rms z {row['rms_z']:.2f}   "
                f"z of the mean {row['z_of_mean']:+.2f}   truncation < {row['truncation']:.1e}",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--figure", type=Path, help="write the figure of transport cost against KL as PNG")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    print("bias of the gradient (target at 1e-3: 0.01)")
    bias = gradient_bias([1e-1, 1e-2, 1e-3, 1e-4, 1e-6])
    print("stochastic Lanczos quadrature (target: within 3 stderr)")
    errors = lanczos_errors([8, 32, 128])
    print("maps between Gaussians (target: KL 0.01, cost within 2 % of the closed form)")
    maps, medians = [], []
    for dimension in DIMENSIONS:
        runs = []
        for seed in range(arguments.seeds):
            run = gaussian_map(dimension, seed, arguments.iterations, arguments.batch, arguments.width)
            runs.append(run)
            kl, cost, least = f"{run['kl']:.5f} ± {run['kl_stderr']:.5f}", run["cost"], run["closed_form_on_test"]
            print(
                f"  d = {dimension:<3} seed {seed}: KL {kl}   cost {cost:.5f} of {least:.5f} "
                f"({100 * (cost / least - 1):+.2f} %)   {run['cpu_seconds']:.0f} s",
                flush=True,
            )
        maps += runs
        keys = ("kl", "ratio", "cpu_seconds")
        medians.append({"dimension": dimension, **{key: statistics.median(run[key] for run in runs) for key in keys}})
    if arguments.figure:
        arguments.figure.parent.mkdir(parents=True, exist_ok=True)
        arguments.figure.write_bytes(png(transport_figure(maps)))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        command = f"python benchmarks/convex.py {' '.join(sys.argv[1:])}"
        options = {name: value for name, value in vars(arguments).items() if name not in ("output", "figure")}
        result = {
            "command": command,
            **describe(),
            "options": options,
            "gaussian_medians": medians,
            "gaussians": maps,
            "gradient_bias": bias,
            "lanczos": errors,
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
