"""Whether resampling pays on bridges between flow and target: a trained flow and a poor one, on the critical 8x8 torus.

    OMP_NUM_THREADS=1 python benchmarks/resampling.py

The preset `quick`, and the same stopped after 20 iterations, by bridges of 4, 8 and 16 steps, each planned once, with
three seeds of paths. The same seed gives independent paths, the same ones averaged over islands before the logarithm,
and resampled ones. What islands alone gain is no gain of resampling. `--runs FOLDER` keeps the trained runs, and takes
those that are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe

import isingflow
from isingflow.evaluation.bridging import CHAINS, ISLANDS, PLANNED_ON
from isingflow.lattice import CRITICAL_BETA, square
from isingflow.sampling.bridge import Bridge, Plan
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import (
    acceptance_ratio_free_energy,
    reweighted_free_energy,
    variational_free_energy,
)
from isingflow.statistics.islands import islands_free_energy, log_means
from isingflow.statistics.weights import effective_sample_size

FLOWS = {"quick": None, "quick, 20 iterations": 20}
ESTIMATES = ("bound", "bound_of_islands", "resampled_bound", "reweighted", "resampled", "acceptance_ratio")
SHARES = ("effective_sample_size", "resampled_effective_sample_size", "times", "ancestors")
SECONDS = ("seconds", "resampled_seconds")


def trained(folder: Path, size: int, name: str) -> Path:
    """The folder of a run, trained if it is not there."""
    run = folder / f"{size}-{name.replace(', ', '-').replace(' ', '-')}"
    if not run.exists():
        target = isingflow.HubbardStratonovich(square(size), CRITICAL_BETA)
        isingflow.train(target, preset="quick", iterations=FLOWS[name], output=run, progress=False)
    return run


def fields(target: isingflow.HubbardStratonovich, number: int, seed: int) -> torch.Tensor:
    """Of the target, shape (chains, samples, *shape)."""
    spins = target.reference(number // CHAINS, chains=CHAINS, seed=seed)
    return target.sample_field(spins.float(), torch.Generator().manual_seed(seed))


def measured(bridge: Bridge, plan: Plan, paths: int, seed: int, exact: float) -> dict:
    """Paths of one seed in all ways, in nats from the exact -ln Z, and processor seconds of those from the flow."""
    found: dict[str, Estimate] = {}
    weights, seconds = [], []
    for islands in (None, ISLANDS):
        generator, began = torch.Generator().manual_seed(seed), time.process_time()
        path = bridge.forward(bridge.at(bridge.flow.noise(paths, generator)), plan, generator, islands=islands)
        seconds.append(time.process_time() - began)
        weights.append(path.log_weight.numpy())
    alone, resampled = weights
    lineage = path.lineage
    chains = fields(bridge.target, paths, seed + 1)
    back = bridge.backward(bridge.of_fields(chains.flatten(0, 1)), plan, generator).log_weight.view(CHAINS, -1).numpy()
    found["bound"] = variational_free_energy(alone)
    found["bound_of_islands"] = variational_free_energy(log_means(alone.reshape(ISLANDS, -1)))
    found["resampled_bound"] = variational_free_energy(log_means(resampled.reshape(ISLANDS, -1)))
    found["reweighted"] = reweighted_free_energy(alone)
    found["resampled"] = islands_free_energy(resampled.reshape(ISLANDS, -1))
    found["acceptance_ratio"] = acceptance_ratio_free_energy(alone, back)
    shares = [effective_sample_size(alone), effective_sample_size(resampled)]
    counts = [int(lineage.times.sum()), lineage.survivors]
    return {
        "seed": seed,
        **{name: (estimate - exact).as_dict() for name, estimate in found.items()},
        **dict(zip((*SHARES, *SECONDS), (*shares, *counts, *seconds), strict=True)),
    }


def over_seeds(runs: list[dict]) -> dict:
    """Of bounds and estimates the mean, the root of the mean square, and what they say of their error; medians else."""
    rows: dict = {}
    for name in ESTIMATES:
        values = np.array([run[name]["value"] for run in runs])
        said = math.sqrt(statistics.fmean((run[name]["stderr"] or math.inf) ** 2 for run in runs))
        rows[name] = {"mean": float(values.mean()), "off": float(np.sqrt(np.square(values).mean())), "stderr": said}
    return rows | {name: statistics.median(run[name] for run in runs) for name in (*SHARES, *SECONDS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--paths", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/resampling.json"))
    arguments = parser.parse_args()
    target = isingflow.HubbardStratonovich(square(arguments.size), CRITICAL_BETA)
    exact, rows = target.exact_free_energy()[0], []
    command = " ".join(["python", "benchmarks/resampling.py", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as temporary:
        for steps, name in itertools.product(arguments.steps, FLOWS):
            flow = isingflow.load(trained(arguments.runs or Path(temporary), arguments.size, name))
            bridge, generator = Bridge(flow, target), torch.Generator().manual_seed(100)
            known = bridge.of_fields(fields(target, PLANNED_ON, 100).flatten(0, 1))
            plan = bridge.plan(steps, bridge.at(flow.noise(PLANNED_ON, generator)), known, generator)
            runs = [measured(bridge, plan, arguments.paths, seed, exact) for seed in arguments.seeds]
            rows.append({"flow": name, "steps": steps, **over_seeds(runs), "runs": runs})
            print({key: value for key, value in rows[-1].items() if key != "runs"}, flush=True)
            kept = {"command": command, "threads": torch.get_num_threads(), **describe(), "paths": arguments.paths}
            arguments.output.write_text(json.dumps({**kept, "size": arguments.size, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
