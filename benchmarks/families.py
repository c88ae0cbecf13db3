"""One flow for all temperatures beside dedicated ones: gaps, free energy, energy, heat capacity, and processor time.

    python benchmarks/families.py 8 --beta 0.2:0.6:21 --preset accurate --seeds 0 --dedicated 0.3 0.44 0.5

A family of the preset for every seed, evaluated at temperatures that its training never saw, and flows of the same
preset at some temperatures of their own. `families.json` has a row for every size and preset, which a run replaces.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe

import isingflow
from isingflow.cli.options import Setting
from isingflow.cli.ranges import Betas
from isingflow.lattice import square

FILE = Path("docs/benchmarks/families.json")
ESTIMATES = (
    ("log_z_ising", "exact_log_z"),
    ("energy_per_site", "exact_energy_per_site"),
    ("heat_capacity_per_site", "exact_heat_capacity_per_site"),
)


def trained(magnet: isingflow.HubbardStratonovich, output: str, **options: Any) -> tuple[Any, dict[str, float]]:
    """A training, and its seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    run = isingflow.train(magnet, output=output, progress=False, **options)
    return run, {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}


def family(size: int, betas: list[float], seed: int, preset: str, iterations: int | None, settings: dict) -> dict:
    """A family of one seed."""
    magnet = isingflow.HubbardStratonovich(square(size), betas[0])
    with tempfile.TemporaryDirectory() as folder:
        run, seconds = trained(
            magnet,
            f"{folder}/family",
            betas=(betas[0], betas[-1]),
            preset=preset,
            seed=seed,
            iterations=iterations,
            settings=settings,
        )
        report = isingflow.evaluate(run, betas=betas)
    print(report.table(), flush=True)
    rows = report.as_dict()["rows"]
    for row in rows:
        del row["run"], row["verdict"]
        for name, known in ESTIMATES:
            row[f"{name}_deviation_stderr"] = (row[name]["value"] - row[known]) / row[name]["stderr"]
    return {"seed": seed, **seconds, "parameters": report.parameters, "certified": report.certified, "rows": rows}


def dedicated(size: int, beta: float, preset: str) -> dict:
    """A flow for one temperature."""
    with tempfile.TemporaryDirectory() as folder:
        run, seconds = trained(
            isingflow.HubbardStratonovich(square(size), beta), f"{folder}/run", preset=preset, seed=0
        )
        report = isingflow.evaluate(run).as_dict()
    found = {"beta": beta, **seconds, **{name: report[name] for name in ("gap_nats", "effective_sample_size")}}
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int)
    parser.add_argument("--beta", default="0.2:0.6:21", help="temperatures of the evaluation; its ends are the range")
    parser.add_argument("--preset", default="accurate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, help="in place of the preset's own")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings in place of the preset's")
    parser.add_argument("--dedicated", type=float, nargs="*", default=[], help="temperatures of flows of their own")
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    betas = list(Betas().read(arguments.beta))
    settings = dict(map(Setting().read, arguments.set))
    runs = [
        family(arguments.size, betas, seed, arguments.preset, arguments.iterations, settings)
        for seed in arguments.seeds
    ]
    gaps = np.array([[row["gap_nats"]["value"] for row in run["rows"]] for run in runs])
    document = {
        "command": f"python benchmarks/families.py {' '.join(sys.argv[1:])}",
        "machine": describe(),
        "threads": torch.get_num_threads(),
        "median_gaps_nats": dict(zip(map(str, betas), np.median(gaps, 0).tolist(), strict=True)),
        "runs": runs,
        "dedicated": [dedicated(arguments.size, beta, arguments.preset) for beta in arguments.dedicated],
    }
    rows = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else {}
    rows[f"{arguments.size}x{arguments.size}, {arguments.preset}"] = document
    arguments.output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
