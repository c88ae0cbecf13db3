"""Bridges between flow and target on critical tori: both bounds against the number of steps, closing on the exact line.

    python benchmarks/bridges.py --preset quick --seeds 0 1 2

A run of the preset for every seed, evaluated by bridges of more and more steps, with fewer paths the more there are.
`bridges.json` has a row for every preset and size, which a run replaces; the figure is of the first seed of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import torch
from machine import describe
from matplotlib.figure import Figure

import isingflow
from isingflow.lattice import CRITICAL_BETA, square
from isingflow.plots.style import EXACT, FLOW, LOWER, NEUTRAL, STYLE, WIDTH, png

FOLDER = Path("docs/benchmarks")
SAMPLES = 4096


def measured(size: int, preset: str, seed: int, steps: list[int]) -> dict:
    """A run of one seed, and what bridges add."""
    target = isingflow.HubbardStratonovich(square(size), CRITICAL_BETA)
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        run = isingflow.train(target, preset=preset, seed=seed, output=f"{folder}/run", progress=False)
        found = {"seed": seed, "training_seconds": time.perf_counter() - wall}
        found["training_processor_seconds"] = time.process_time() - processor
        bridges = []
        for count in steps:
            processor, paths = time.process_time(), max(SAMPLES // count, 512)
            report = isingflow.evaluate(run, samples=2 * paths, anneal=count, paths=paths).as_dict()
            exact, annealed = report["exact_free_energy"], report["annealed"]
            bridges.append(
                {
                    **annealed,
                    "gap_nats": annealed["upper_bound"]["value"] - exact,
                    "gap_below_nats": exact - annealed["lower_bound"]["value"],
                    "acceptance_ratio_off": annealed["acceptance_ratio"]["value"] - exact,
                    "processor_seconds": time.process_time() - processor,
                }
            )
            shown = {name: bridges[-1][name] for name in ("steps", "gap_nats", "gap_below_nats", "processor_seconds")}
            print(size, preset, json.dumps(shown | {"effective": annealed["effective_sample_size"]}), flush=True)
    return found | {
        "gap_nats": report["gap_nats"],
        "effective_sample_size": report["effective_sample_size"],
        "integration_error_nats": report["integration_error_nats"],
        "bridges": bridges,
    }


def medians(runs: list[dict]) -> list[dict]:
    """Over seeds, for every number of steps."""
    names = ("gap_nats", "gap_below_nats", "effective_sample_size", "seconds", "processor_seconds")
    return [
        {"steps": first["steps"], "paths": first["paths"]}
        | {name: statistics.median(run["bridges"][place][name] for run in runs) for name in names}
        for place, first in enumerate(runs[0]["bridges"])
    ]


@matplotlib.rc_context(STYLE)
def figure(rows: dict[str, dict]) -> Figure:
    """Both bounds, seen from the exact value, and effective sample sizes, against the steps."""
    drawn = Figure(figsize=(1.7 * WIDTH, 0.8 * WIDTH), layout="constrained")
    bounds, sizes = drawn.subplots(1, 2)
    for style, (name, row) in zip(("-", "--", ":", "-."), rows.items(), strict=False):
        steps = [bridge["steps"] for bridge in row["runs"][0]["bridges"]]
        for key, sign, part, colour in (
            ("gap_nats", 1, "upper_bound", FLOW),
            ("gap_below_nats", -1, "lower_bound", LOWER),
        ):
            values = [sign * bridge[key] for bridge in row["runs"][0]["bridges"]]
            errors = [bridge[part]["stderr"] for bridge in row["runs"][0]["bridges"]]
            bounds.errorbar(
                steps, values, errors, fmt="o" + style, color=colour, label=f"{name}, {part.replace('_', ' ')}"
            )
        shares = [100 * bridge["effective_sample_size"] for bridge in row["runs"][0]["bridges"]]
        sizes.plot(steps, shares, "o" + style, color=NEUTRAL, label=name)
    bounds.axhline(0, color=EXACT, linestyle="--", label="exact")
    bounds.set(xscale="log", xlabel="steps of the bridge", ylabel="$-\\ln Z$ minus the exact value, nats")
    sizes.set(xscale="log", xlabel="steps of the bridge", ylabel="effective sample size, %", ylim=(0, 100))
    for ax in (bounds, sizes):
        ax.legend()
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    file = arguments.output / "bridges.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else {}
    runs = [measured(arguments.size, arguments.preset, seed, arguments.steps) for seed in arguments.seeds]
    rows[f"{arguments.size}x{arguments.size}, {arguments.preset}"] = {
        "command": " ".join(["python", "benchmarks/bridges.py", *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
        **describe(),
        "median": medians(runs),
        "runs": runs,
    }
    file.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    (arguments.output / "bridges.png").write_bytes(png(figure(rows)))


if __name__ == "__main__":
    main()
