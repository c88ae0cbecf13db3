"""The exact trace of OT-Flow's potential against its reference formulation and against Hutchinson's estimators.

    OMP_NUM_THREADS=1 python benchmarks/trace.py --output docs/benchmarks/trace.json

Gradient and trace of one batch (float32, width 64, two layers, 512 samples, weights as OT-Flow starts): in closed
form with the Gram matrix of the opening layer, all that depends on the parameters alone included; in closed form with
the Jacobian of width x d numbers a sample, as in OT-Flow's code; and as the mean over 1 to d Rademacher probes v of
v.H.v, each a Hessian-vector product by automatic differentiation. Errors are root mean square over samples, relative to
the exact trace in float64; those of estimators are means over repeats. Times are medians of processor time, with wall
time beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe
from torch import Tensor

from isingflow.plots.style import png
from isingflow.plots.transport import trace_figure
from isingflow.potentials import ResidualPotential
from isingflow.potentials.layers.residual import antiderivative
from isingflow.potentials.resnet import OPENING_START

BATCH, WIDTH, TIME = 512, 64, 0.3
PROBES = {43: (1, 10, 20, 30, 43), 63: (1, 10, 20, 30, 40, 50, 63), 784: (1, 10, 50, 100, 200, 400, 784)}


def milliseconds(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median times of one call."""
    work()
    processor, wall = [], []
    for _ in range(repeats):
        before = time.process_time(), time.perf_counter()
        work()
        processor.append(1e3 * (time.process_time() - before[0]))
        wall.append(1e3 * (time.perf_counter() - before[1]))
    return {"processor": statistics.median(processor), "wall": statistics.median(wall)}


def jacobian_formulation(potential: ResidualPotential, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Gradient and trace of a network of two layers by the Jacobian of its first one, shape (width, d, n)."""
    columns, k0, (k1,), (b1,) = x.T, potential.opening, potential.kernels, potential.biases
    a, w = potential.quadratic, potential.weight[:, None]
    p0 = torch.addmm(potential.opening_bias[:, None] + t * k0[:, -1:], k0[:, :-1], columns)
    d0, d1 = torch.tanh(p0), torch.tanh(torch.addmm(b1[:, None], k1, antiderivative(p0)))
    z = w + k1.T @ (d1 * w)
    jacobian = k0[:, :-1, None] * d0[:, None, :]
    product = (k1 @ jacobian.flatten(1)).view(jacobian.shape)
    trace = ((1 - d0**2) * z * k0[:, :-1].square().sum(1, keepdim=True)).sum(0)
    trace = trace + (((1 - d1**2) * w)[:, None] * product.square()).sum((0, 1)) + a[:, :-1].square().sum()
    gradient = k0[:, :-1].T @ (d0 * z) + a[:, :-1].T @ (a[:, :-1] @ columns + t * a[:, -1:])
    return -(gradient + potential.linear[:-1, None]).T, -trace


def hutchinson(potential: ResidualPotential, x: Tensor, t: float, probes: int, generator: torch.Generator) -> Tensor:
    """v.H.v of every probe and sample, shape (probes, n)."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(potential.value(x, t).sum(), x, create_graph=True)
    estimates = []
    for _ in range(probes):
        v = 2.0 * torch.randint(2, x.shape, generator=generator) - 1
        (product,) = torch.autograd.grad(gradient, x, v, retain_graph=True)
        estimates.append((product * v).sum(1))
    return torch.stack(estimates)


def relative_error(estimate: Tensor, exact: Tensor) -> float:
    """Root mean square over all entries, relative to that of the exact trace."""
    return float((estimate.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def measure(d: int, repeats: int) -> dict:
    """All times and errors in one dimension."""
    generator = torch.Generator().manual_seed(d)
    potential = ResidualPotential((d,), width=WIDTH, layers=2, generator=generator).requires_grad_(False)
    potential.weight.fill_(1.0)
    potential.opening.div_(OPENING_START)
    potential.opening_bias.div_(OPENING_START)
    x = torch.randn(BATCH, d, generator=generator)

    def exact() -> tuple[Tensor, Tensor]:
        return potential.bind()(x, TIME)

    def trained() -> None:
        gradient, trace = exact()
        (gradient.sum() + trace.sum()).backward()

    result = {
        "dimension": d,
        "value_ms": milliseconds(lambda: potential.value(x, TIME), repeats),
        "exact_ms": milliseconds(exact, repeats),
        "reference_ms": milliseconds(lambda: jacobian_formulation(potential, x, TIME), repeats),
    }
    potential.requires_grad_(True)
    result["exact_with_backward_ms"] = milliseconds(trained, repeats)
    potential.requires_grad_(False)
    ours, reference = exact()[1], jacobian_formulation(potential, x, TIME)[1]
    truth = potential.double().bind()(x.double(), TIME)[1]
    potential.float()
    result |= {"exact_error": relative_error(ours, truth), "reference_error": relative_error(reference, truth)}

    errors = []
    for _ in range(max(3, 500 // d)):
        estimates = hutchinson(potential, x, TIME, d, generator).double().cumsum(0)
        errors.append([relative_error(estimates[probes - 1] / probes, truth) for probes in PROBES[d]])
    result["hutchinson"] = [
        {
            "probes": probes,
            "ms": milliseconds(lambda: hutchinson(potential, x, TIME, probes, generator), max(repeats // probes, 3)),  # noqa: B023
            "error": statistics.mean(column),
        }
        for probes, column in zip(PROBES[d], zip(*errors, strict=True), strict=True)
    ]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=51, help="timings per number (default 51)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--figure", type=Path, help="draw them as PNG")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    results = []
    for d in PROBES:
        results.append(measure(d, arguments.repeats))
        times = {name: f"{results[-1][f'{name}_ms']['processor']:.2f} ms" for name in ("value", "exact", "reference")}
        print(f"d = {d}:", ", ".join(f"{name} {text}" for name, text in times.items()))
        for row in results[-1]["hutchinson"]:
            print(f"  {row['probes']:4} probes {row['ms']['processor']:9.2f} ms, error {row['error']:.3f}", flush=True)
    if arguments.output:
        command = f"OMP_NUM_THREADS=1 python benchmarks/trace.py {' '.join(sys.argv[1:])}"
        settings = {"width": WIDTH, "layers": 2, "batch": BATCH, "dtype": "float32", "repeats": arguments.repeats}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        result = {"command": command, **describe(), **settings, "results": results}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.figure:
        arguments.figure.parent.mkdir(parents=True, exist_ok=True)
        arguments.figure.write_bytes(png(trace_figure(results)))


if __name__ == "__main__":
    main()
