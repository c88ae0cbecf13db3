"""A training step of OT-Flow beside one of the reference code: likelihood, both penalties and all gradients.

    git clone https://github.com/EmoryMLIP/OT-Flow REFERENCE
    OMP_NUM_THREADS=1 python benchmarks/transport_step.py --reference REFERENCE --output FILE

Both have the same network, float32, so many Runge-Kutta steps and the same batch, and take turns; times are medians of
processor time of the loss and its gradient, without the optimiser. Freed memory is kept for both, as in our trainings.
The reference code is not part of the package, and is read from a folder; without one our own times are printed alone.

The floor is what the three largest products of every stage take by themselves, in their turn beside the others: of the
width x width kernel with the width x (d batch) derivatives, one forward and two backward. No exact trace by these
formulas has fewer. On narrow networks other work outweighs them.
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

from isingflow.flows import GradientFlow
from isingflow.potentials import ResidualPotential
from isingflow.runtime.devices import keep_freed_memory

CASES = (
    {"what": "toys, as published", "dimension": 2, "width": 32, "batch": 2048, "steps": 8},
    {"what": "power-like", "dimension": 6, "width": 64, "batch": 1024, "steps": 10},
    {"what": "hepmass-like", "dimension": 21, "width": 64, "batch": 1024, "steps": 6},
    {"what": "miniboone-like", "dimension": 43, "width": 256, "batch": 256, "steps": 6},
    {"what": "bsds-like", "dimension": 63, "width": 256, "batch": 128, "steps": 6},
)
"""Two layers each; dimensions of the paper's sets, smaller batches than published."""
PENALTIES = 1.0, 100.0, 5.0


def ours(dimension: int, width: int, batch: int, steps: int) -> Callable[[], None]:
    """Loss and gradient of our flow."""
    generator = torch.Generator().manual_seed(0)
    potential = ResidualPotential((dimension,), width=width, layers=2, generator=generator)
    with torch.no_grad():
        potential.weight.fill_(0.1)
    flow, x = GradientFlow(potential, steps=steps), torch.randn(batch, dimension, generator=generator)
    transport, likelihood, residual = PENALTIES
    parameters = list(flow.parameters())

    def step() -> None:
        z, logdet, cost = flow.inverse_with_cost(x, hjb=True)
        nats = z.square().sum(1) / 2 - logdet
        loss = transport * cost.transport.mean() + likelihood * nats.mean() + residual * cost.hjb.mean()
        torch.autograd.grad(loss, parameters)

    return step


def products(dimension: int, width: int, batch: int, steps: int) -> Callable[[], None]:
    """The largest products alone: three at each of four stages of a step."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(width, width, generator=generator)
    rows = torch.randn(width, min(dimension, width) * batch, generator=generator)
    back, by_kernel = torch.empty_like(rows), torch.empty_like(kernel)

    def step() -> None:
        for _ in range(4 * steps):
            torch.mm(kernel, rows, out=back)
            torch.mm(kernel.T, rows, out=back)
            torch.mm(rows, back.T, out=by_kernel)

    return step


def theirs(folder: Path, dimension: int, width: int, batch: int, steps: int) -> Callable[[], None]:
    """The same of the reference code."""
    sys.path.insert(0, str(folder))
    try:
        from src.OTFlowProblem import OTFlowProblem
        from src.Phi import Phi
    finally:
        sys.path.remove(str(folder))
    torch.manual_seed(0)
    network, x = Phi(nTh=2, m=width, d=dimension, alph=list(PENALTIES)), torch.randn(batch, dimension)
    with torch.no_grad():
        network.w.weight.fill_(0.1)
    # The constant moves nothing, and has no gradient.
    parameters = [parameter for name, parameter in network.named_parameters() if name != "c.bias"]

    def step() -> None:
        loss, _ = OTFlowProblem(x, network, [0.0, 1.0], nt=steps, stepper="rk4", alph=network.alph)
        torch.autograd.grad(loss, parameters, allow_unused=True)

    return step


def milliseconds(works: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median processor times, the works taking turns."""
    times = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            before = time.process_time()
            work()
            if repeat:
                times[name].append(1e3 * (time.process_time() - before))
    return {f"{name}_ms": statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder of the reference code")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for case in CASES:
        sizes = {name: value for name, value in case.items() if name != "what"}
        works = {"ours": ours(**sizes), "floor": products(**sizes)}
        if arguments.reference is not None:
            works["reference"] = theirs(arguments.reference, **sizes)
        row = case | milliseconds(works, arguments.repeats)
        if "reference_ms" in row:
            row["ratio"] = row["reference_ms"] / row["ours_ms"]
        rows.append(row)
        print(row, flush=True)
    if arguments.output:
        command = "OMP_NUM_THREADS=1 python benchmarks/transport_step.py --reference REFERENCE --output ..."
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        document = {"command": command, **describe(), "repeats": arguments.repeats, "rows": rows}
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
