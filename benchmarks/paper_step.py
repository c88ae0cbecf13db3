"""One training step of the published configuration: time, floor and memory.

    python benchmarks/paper_step.py --output docs/benchmarks/paper-step.json

The floor is the time of the matrix products alone: 200 stages, 2 products forward and 5 backward (one recomputed), each
of 2 x batch x sites x hidden floating-point operations, at the rate that this machine reaches for one product of that
shape.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import describe

from isingflow.lattice import CRITICAL_BETA, square
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runtime.parallel import workers
from isingflow.training.trainer import Trainer

PRODUCTS = 7


def peak_megabytes() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    config = RunConfig.from_preset("paper", square(16), CRITICAL_BETA)
    flow, training, sites = config.flow, config.training, config.lattice.sites
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as scratch, workers(device) as pool:
        trainer = Trainer(RunFolder.create(Path(scratch) / "run", config), device, None, pool)
        before = peak_megabytes()
        seconds = []
        for _ in range(arguments.steps):
            started = time.perf_counter()
            trainer.iterate()
            seconds.append(time.perf_counter() - started)
        after = peak_megabytes()

    a, b = torch.randn(training.batch, sites), torch.randn(sites, flow.hidden)
    products = []
    for _ in range(200):
        started = time.perf_counter()
        a @ b
        products.append(time.perf_counter() - started)
    floor = statistics.median(products) * PRODUCTS * 4 * flow.steps
    result = {
        "step_seconds_median": statistics.median(seconds),
        "floor_seconds": floor,
        "ratio_to_floor": statistics.median(seconds) / floor,
        "peak_megabytes_before": before,
        "peak_megabytes": after,
        "step_megabytes": after - before,
    }
    command = f"python benchmarks/paper_step.py --output {arguments.output}"
    arguments.output.write_text(json.dumps({"command": command, **describe(), **result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
