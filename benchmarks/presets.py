"""Presets, timed from the shell prompt: the whole command, the time to a gap under 5.63 nats, and what the run reached.

    python benchmarks/presets.py --preset quick --size 16 --seeds 0 1 2 --output docs/benchmarks/quick-16.json

Every run is a fresh process of `isingflow train` with its own empty numba cache, so compilation is included. 5.63 nats
is the gap of the network published with Zhang, E and Wang (2018).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

PUBLISHED_GAP = 5.63
WINDOW = 5
POLL_SECONDS = 0.1


def timed_run(command: list[str], folder: Path) -> dict:
    """Run the command; returns its report, wall seconds, and seconds until the running gap fell below the published."""
    with tempfile.TemporaryDirectory() as cache:
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"NUMBA_CACHE_DIR": cache}
        )
        reached = None
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if reached is None and _running_gap(folder / "metrics.jsonl") < PUBLISHED_GAP:
                reached = time.perf_counter() - started
        wall = time.perf_counter() - started
    output, notes = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{notes.decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    times = {"wall_seconds": wall, "processor_seconds": processor, "seconds_to_published_gap": reached}
    return times | json.loads(output)


def _running_gap(metrics: Path) -> float:
    if not metrics.exists():
        return float("inf")
    lines = metrics.read_text().splitlines()[-WINDOW - 1 : -1]
    gaps = [json.loads(line)["gap_nats"] for line in lines]
    return statistics.mean(gaps) if len(gaps) == WINDOW and None not in gaps else float("inf")


def losses(metrics: Path, sites: int) -> dict[str, float]:
    """The bound per site, a mean over 20 iterations, at the iterations for which the published log is quoted."""
    values = [json.loads(line)["variational_free_energy"] / sites for line in metrics.read_text().splitlines()]
    return {str(end): statistics.mean(values[end - 20 : end]) for end in (500, 1000, 2000) if end <= len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--size", default="16")
    parser.add_argument("--beta", help="critical by default")
    parser.add_argument("--bounds", default="upper")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--keep", type=Path, help="folder to keep the runs in")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    runs = []
    named = [] if arguments.beta is None else [arguments.beta]
    named += [] if arguments.bounds == "upper" else [arguments.bounds]
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            name = "-".join(map(str, [arguments.preset, arguments.size, *named, seed]))
            folder = (arguments.keep or Path(scratch)) / name
            command = ["isingflow", "train", "--json", "--size", arguments.size, "--bounds", arguments.bounds]
            command += ["--critical"] if arguments.beta is None else ["--beta", arguments.beta]
            command += ["--preset", arguments.preset, "--seed", str(seed), "--output", str(folder)]
            if arguments.time_limit:
                command += ["--time-limit", str(arguments.time_limit)]
            run = {"seed": seed, **timed_run(command, folder)}
            run.pop("run")
            run["loss_per_site"] = losses(folder / "metrics.jsonl", run["sites"])
            runs.append(run)
            summary = (
                f"seed {seed}: {run['wall_seconds']:.0f} s, gap {run['gap_nats']['value']:.3f} nats, "
                f"effective sample size {run['effective_sample_size']:.2f}, "
                f"integration error {run['integration_error_nats']:.4f}, certified {run['certified']}"
            )
            print(summary, flush=True)
    median = {
        "wall_seconds": statistics.median(run["wall_seconds"] for run in runs),
        "processor_seconds": statistics.median(run["processor_seconds"] for run in runs),
        "gap_nats": statistics.median(run["gap_nats"]["value"] for run in runs),
        "effective_sample_size": statistics.median(run["effective_sample_size"] for run in runs),
        "reverse_effective_sample_size": statistics.median(run["reverse_effective_sample_size"] for run in runs),
        "integration_error_nats": statistics.median(run["integration_error_nats"] for run in runs),
    }
    reached = [run["seconds_to_published_gap"] for run in runs]
    if None not in reached:
        median["seconds_to_published_gap"] = statistics.median(reached)
    command = f"python benchmarks/presets.py {' '.join(sys.argv[1:])}"
    document = {"command": command, **describe(), "median": median, "runs": runs}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(median))


if __name__ == "__main__":
    main()
