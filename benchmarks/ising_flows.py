"""Three flows on one magnet: the `quick` presets of Monge-Ampere flow, OT-Flow and CP-Flow on critical tori.

    python benchmarks/ising_flows.py --sizes 4 8 --seeds 0 1 2 --output docs/benchmarks/ising-flows.json

Every run is a fresh process of `isingflow train`. Time per step and time to a gap come from its metrics; memory is the
largest resident size of the process, Python and torch included; the inverse error is |z - f^-1(f(z))| / |z|.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from machine import describe

import isingflow
from isingflow.flows.diagnostics import inverse_error
from isingflow.runs.presets import MAGNET_PRESETS

GAP = 1.0
WINDOW = 10
INVERTED = 256


def run(size: int, flow: str, seed: int, preset: str) -> dict:
    """Train one flow; what it reached and what it took."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = ["isingflow", "train", "--critical", "--json", "--size", str(size), "--flow", flow]
        command += ["--preset", preset, "--seed", str(seed), "--output", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} failed")
        report = json.loads(output)
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        trained = isingflow.load(folder)
        latent = trained.noise(INVERTED, torch.Generator().manual_seed(seed))
        inverse = inverse_error(trained, latent).value
    seconds = [after["seconds"] - before["seconds"] for before, after in pairwise(metrics)]
    gaps = [record["gap_nats"] for record in metrics]
    reached = (i for i in range(WINDOW, len(gaps)) if statistics.mean(gaps[i - WINDOW : i]) < GAP)
    first = next(reached, None)
    return {
        "size": size,
        "flow": flow,
        "seed": seed,
        "parameters": report["parameters"],
        "seconds_per_step": statistics.median(seconds),
        "seconds_to_gap": None if first is None else metrics[first]["seconds"],
        "training_seconds": report["training_seconds"],
        "gap_nats": report["gap_nats"],
        "effective_sample_size": report["effective_sample_size"],
        "integration_error_nats": report["integration_error_nats"],
        "certified": report["certified"],
        "integration_steps": report["integration_steps"],
        "inverse_error": inverse,
        "peak_megabytes": usage.ru_maxrss / 1024,
    }


def median(runs: list[dict]) -> dict:
    """Of the numbers of several seeds."""
    names = ("seconds_per_step", "training_seconds", "effective_sample_size", "inverse_error", "peak_megabytes")
    found = {name: statistics.median(r[name] for r in runs) for name in names}
    reached = [r["seconds_to_gap"] for r in runs]
    found["seconds_to_gap"] = None if None in reached else statistics.median(reached)
    found["gap_nats"] = statistics.median(r["gap_nats"]["value"] for r in runs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--flows", nargs="+", default=list(MAGNET_PRESETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    runs, medians = [], []
    for size in arguments.sizes:
        for flow in arguments.flows:
            found = [run(size, flow, seed, arguments.preset) for seed in arguments.seeds]
            runs += found
            medians.append({"size": size, "flow": flow, **median(found)})
            print(json.dumps(medians[-1]), flush=True)
    document = {
        "command": f"python benchmarks/ising_flows.py {' '.join(sys.argv[1:])}",
        **describe(),
        "threads": torch.get_num_threads(),
        "median": medians,
        "runs": runs,
    }
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
