"""Time of a step of training with the local potential, against the number of sites; and what path gradients cost.

    python benchmarks/local_step.py --output docs/benchmarks/local-step.json

On +-J glasses of L x L sites, whose sites share nothing: the trained map alone, six Runge-Kutta steps, without the
closed-form start, whose diagonalisation is of another order. Processor time, the least of several repeats.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe

from isingflow.flows import Flow, GradientFlow
from isingflow.lattice import edwards_anderson
from isingflow.potentials import LocalPotential

BETA, OFFSET = 0.5, 2.0


def flow_on(length: int, units: int, radius: int) -> Flow:
    """The trained map of a glass, moved away from the identity."""
    lattice, generator = edwards_anderson(length, seed=0), torch.Generator().manual_seed(0)
    bonds, strengths = torch.tensor(lattice.bonds.T), torch.tensor(BETA * lattice.strengths)
    sites = torch.arange(lattice.sites).expand(2, -1)
    places = torch.cat([bonds, bonds.flip(0), sites], 1)
    values = torch.cat([strengths, strengths, torch.full((lattice.sites,), OFFSET, dtype=torch.float64)])
    metric = torch.sparse_coo_tensor(places, values, [lattice.sites] * 2, check_invariants=True)
    potential = LocalPotential(
        lattice.symmetry, lattice.bonds, units=units, radius=radius, metric=metric, generator=generator
    )
    with torch.no_grad():
        potential.amplitude += 0.01 * torch.randn(potential.amplitude.shape, generator=generator)
    return Flow(lattice.shape, [GradientFlow(potential, steps=6)])


def seconds(flow: Flow, samples: int, repeats: int, *, path: bool) -> float:
    """Of the gradient of the free energy of a Gaussian, E = |x|^2 / 2."""
    parameters, z = list(flow.parameters()), flow.noise(samples, torch.Generator().manual_seed(1))

    def step() -> None:
        if path:
            x, _, score = flow.forward_with_score(z)
            loss = (x * (score + x.detach())).sum()
        else:
            x, logdet = flow(z)
            loss = (x.square().flatten(1).sum(1) / 2 - logdet).sum()
        torch.autograd.grad(loss, parameters)

    step()
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        step()
        found.append(time.process_time() - begun)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--radius", type=int, default=2)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for length in arguments.lengths:
        flow = flow_on(length, arguments.units, arguments.radius)
        times = [seconds(flow, arguments.samples, arguments.repeats, path=path) for path in (False, True)]
        rows.append({"sites": length**2, "total_seconds": times[0], "path_seconds": times[1]})
        print(json.dumps(rows[-1]), flush=True)
    sites, path = (np.log([row[name] for row in rows]) for name in ("sites", "path_seconds"))
    document = {
        "command": " ".join(["python", "benchmarks/local_step.py", *sys.argv[1:]]),
        **describe(),
        "units": arguments.units,
        "radius": arguments.radius,
        "samples": arguments.samples,
        "rows": rows,
        "slope": float(np.polyfit(sites, path, 1)[0]),
    }
    print(f"slope of path_seconds in sites: {document['slope']:.3f}")
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
