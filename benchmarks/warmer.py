"""From a warmer flow, on critical tori: the flow alone, with annealing, and annealing alone in the same processor time.

    OMP_NUM_THREADS=1 python benchmarks/warmer.py 128 --seeds 0 1 2

A training at beta_0 for every seed, evaluated at the critical beta. Gaps are those of the bound from below, in nats; of
the flow alone it is that of the variational bound at beta_0. `warmer.json` has a row for every preset and size, which a
run replaces. With `--keep FOLDER` a training that was cut goes on where it was; processor seconds are then those of its
last part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import describe

import isingflow
from isingflow.lattice import CRITICAL_BETA, square
from isingflow.runs.folder import RunFolder
from isingflow.runs.warmer import warmer_beta

FILE = Path("docs/benchmarks/warmer.json")


def measured(size: int, preset: str, seed: int, keep: Path | None, options: dict, evaluation: dict) -> dict:
    """A run of one seed, and the three columns of its evaluation."""
    with tempfile.TemporaryDirectory() as scratch:
        output = (keep or Path(scratch)) / f"{preset}-{size}-{seed}"
        processor = time.process_time()
        if (output / "config.json").exists():
            run = isingflow.train(RunFolder.open(output), progress=False)
        else:
            target = isingflow.HubbardStratonovich(square(size), CRITICAL_BETA)
            run = isingflow.train(target, preset=preset, seed=seed, output=output, progress=False, **options)
        processor = time.process_time() - processor
        report = isingflow.evaluate(run, **evaluation).as_dict()
    training = {"seconds": report["training_seconds"], "processor_seconds": processor}
    with_flow = report["annealed_to"]
    alone = with_flow.pop("alone")
    own = {name: report[name] for name in ("beta", "gap_nats", "effective_sample_size", "integration_error_nats")}
    return {
        "seed": seed,
        "training": training,
        "flow_alone": own,
        "flow_and_annealing": with_flow,
        "annealing_alone": alone,
        "verdict": report["verdict"],
    }


def medians(runs: list[dict]) -> dict[str, dict[str, float]]:
    """Over seeds, of every column."""

    def median(column: str, name: str) -> float:
        values = [run[column][name] for run in runs]
        return statistics.median(value["value"] if isinstance(value, dict) else value for value in values)

    annealed = ("gap_nats", "effective_sample_size", "sweeps", "seconds", "processor_seconds")
    columns = {"flow_alone": annealed[:2], "flow_and_annealing": annealed, "annealing_alone": annealed}
    columns["training"] = annealed[-2:]
    return {column: {name: median(column, name) for name in names} for column, names in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--preset", default="accurate")
    parser.add_argument("--from-beta", type=float, help="where flows are trained; 0.40 by default")
    parser.add_argument("--steps", type=int, help="iterations of training, if not the preset's own")
    parser.add_argument("--samples", type=int, help="of the flow, if not the preset's own")
    parser.add_argument("--anneal", type=int, help="sweeps of paths from the flow, if not as many as they need")
    parser.add_argument("--paths", type=int, help="of each direction")
    parser.add_argument("--keep", type=Path, help="folder to keep the runs in")
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    start = warmer_beta(square(arguments.size)) if arguments.from_beta is None else arguments.from_beta
    options = {"from_beta": start, "iterations": arguments.steps}
    evaluation = {name: getattr(arguments, name) for name in ("samples", "anneal", "paths")}
    runs = []
    for seed in arguments.seeds:
        runs.append(measured(arguments.size, arguments.preset, seed, arguments.keep, options, evaluation))
        print(arguments.size, arguments.preset, seed, json.dumps(medians(runs[-1:])), flush=True)
    rows = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else {}
    rows[f"{arguments.size}x{arguments.size}, {arguments.preset}"] = {
        "command": " ".join(["python", "benchmarks/warmer.py", *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
        **describe(),
        "medians": medians(runs),
        "runs": runs,
    }
    arguments.output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
