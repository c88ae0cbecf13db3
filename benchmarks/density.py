"""A preset on data, timed from the shell prompt: what its likelihood and integration error are, over seeds.

    python benchmarks/density.py mnist --preset accurate --seeds 0 1 2 --output docs/benchmarks/mnist.json

Every run is a fresh process of `isingflow density`; the seed is that of the split into training and validation data
too. Nothing is chosen by the test data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="as for isingflow density: a name, and a file for tabular")
    parser.add_argument("--flow", default="monge-ampere")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--keep", type=Path, help="folder to keep the runs in")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            folder = (arguments.keep or Path(scratch)) / f"{arguments.data[0]}-{arguments.flow}-{seed}"
            command = ["isingflow", "density", *arguments.data, "--json", "--flow", arguments.flow]
            command += ["--preset", arguments.preset, "--seed", str(seed), "--output", str(folder)]
            command += [] if arguments.start is None else ["--start", arguments.start]
            command += [] if arguments.time_limit is None else ["--time-limit", str(arguments.time_limit)]
            started = time.perf_counter()
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode:
                sys.exit(f"{' '.join(command)} failed:\n{process.stderr}")
            report = json.loads(process.stdout)
            report.pop("run")
            runs.append({"seed": seed, "wall_seconds": time.perf_counter() - started, **report})
            likelihood = report["negative_log_likelihood"]["value"]
            print(
                f"seed {seed}: {runs[-1]['wall_seconds']:.0f} s, -ln p {likelihood:.2f}, "
                f"integration error {report['integration_error_nats']:.2g}, certified {report['certified']}",
                flush=True,
            )
    median = {
        "wall_seconds": statistics.median(run["wall_seconds"] for run in runs),
        "integration_error_nats": statistics.median(run["integration_error_nats"] for run in runs),
    }
    for name in ("start_negative_log_likelihood", "negative_log_likelihood", "bits_per_dimension"):
        if runs[0][name] is not None:
            median[name] = statistics.median(run[name]["value"] for run in runs)
    document = {
        "command": f"python benchmarks/density.py {' '.join(sys.argv[1:])}",
        **describe(),
        "threads": torch.get_num_threads(),
        "median": median,
        "runs": runs,
    }
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(median))


if __name__ == "__main__":
    main()
