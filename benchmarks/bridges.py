"""Bridges between flow and target on critical tori: both bounds against the number of steps, closing on the exact line.

    OMP_NUM_THREADS=1 python benchmarks/bridges.py --preset quick --seeds 0 1 2

A run of the preset for every seed, evaluated by bridges of more and more steps, with fewer paths the more there are.
`--run` takes a finished run of the preset in place of a training, one for each seed. `bridges.json` has a row for every
preset and size, which a run replaces, with annealing of spins alone beside it. The figure is of the first seed: both
bounds and sample sizes against steps, and gaps against seconds of the processor, of a flow while it is trained, of the
same with a bridge, and of annealing alone.
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
import numpy as np
import torch
from machine import describe
from matplotlib.figure import Figure

import isingflow
from isingflow.evaluation.annealing import anneal
from isingflow.lattice import CRITICAL_BETA, square
from isingflow.plots.style import EXACT, FLOW, LOWER, NEUTRAL, STYLE, WIDTH, png, running_mean
from isingflow.plots.training import column
from isingflow.runs.folder import open_magnet

FOLDER = Path("docs/benchmarks")
SAMPLES = 4096


ALONE = (30, 100, 300, 1000, 3000)
"""Sweeps of annealing without a flow."""
ALONE_PATHS = 128
POINTS = 40
"""Of a training's gap, that are kept."""


def measured(size: int, preset: str, seed: int, steps: list[int], given: Path | None) -> dict:
    """A run of one seed, and what bridges add."""
    target = isingflow.HubbardStratonovich(square(size), CRITICAL_BETA)
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        if given is None:
            run = isingflow.train(target, preset=preset, seed=seed, output=f"{folder}/run", progress=False).path
        else:
            run = given
        found = {"seed": seed, "training_seconds": time.perf_counter() - wall}
        found["training_processor_seconds"] = time.process_time() - processor
        found["gap_in_training"] = in_training(run)
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


def in_training(path: Path) -> list[list[float]]:
    """Seconds on the clock, without the stages before, and the running mean of the gap."""
    records = open_magnet(path).metrics()
    smooth, _ = running_mean(column(records, "gap_nats"))
    chosen = np.unique(np.linspace(0, len(records) - 1, POINTS).astype(int))
    return [[records[place]["seconds"], float(smooth[place])] for place in chosen]


def alone(size: int, seed: int) -> list[dict]:
    """Annealing without a flow, the more sweeps the longer; gaps of the bound from below."""
    found = []
    for sweeps in ALONE:
        processor = time.process_time()
        report = anneal(square(size), CRITICAL_BETA, paths=ALONE_PATHS, sweeps=sweeps, seed=seed, threads=1)
        bound, exact = report.end.lower_bound, report.exact_log_z
        assert exact is not None
        found.append(
            {
                "sweeps": sweeps,
                "paths": ALONE_PATHS,
                "gap_nats": {"value": exact - bound.value, "stderr": bound.stderr},
                "effective_sample_size": report.end.effective_sample_size,
                "processor_seconds": time.process_time() - processor,
            }
        )
    return found


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
    """Both bounds, seen from the exact value, and effective sample sizes, against the steps; gaps against time."""
    drawn = Figure(figsize=(2.4 * WIDTH, 0.8 * WIDTH), layout="constrained")
    bounds, sizes, times = drawn.subplots(1, 3)
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
        first = row["runs"][0]
        curve = np.array(first["gap_in_training"])
        trained = first["training_processor_seconds"]
        if trained > 1:  # of a run that was given nothing is known but its clock
            curve[:, 0] *= trained / first["training_seconds"]
        else:
            trained = curve[-1, 0]
        times.plot(*curve.T, style, color=FLOW, label=f"{name}, in training")
        spent = [trained + bridge["processor_seconds"] for bridge in first["bridges"]]
        gaps = [bridge["gap_nats"] for bridge in first["bridges"]]
        errors = [bridge["upper_bound"]["stderr"] for bridge in first["bridges"]]
        times.errorbar(spent, gaps, errors, fmt="o" + style, color=LOWER, label=f"{name}, with a bridge")
    annealed = next(iter(rows.values()))["annealing_alone"]
    times.errorbar(
        [point["processor_seconds"] for point in annealed],
        [point["gap_nats"]["value"] for point in annealed],
        [point["gap_nats"]["stderr"] for point in annealed],
        fmt="s-",
        color=NEUTRAL,
        label=f"annealing alone, {ALONE_PATHS} paths",
    )
    times.set(xscale="log", yscale="log", xlabel="seconds of the processor", ylabel="gap, nats")
    bounds.axhline(0, color=EXACT, linestyle="--", label="exact")
    bounds.set(xscale="log", xlabel="steps of the bridge", ylabel="$-\\ln Z$ minus the exact value, nats")
    sizes.set(xscale="log", xlabel="steps of the bridge", ylabel="effective sample size, %", ylim=(0, 100))
    for ax in (bounds, sizes, times):
        ax.legend()
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--run", type=Path, nargs="+", help="finished runs of these seeds, in place of trainings")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    file = arguments.output / "bridges.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else {}
    given = arguments.run or [None] * len(arguments.seeds)
    runs = [
        measured(arguments.size, arguments.preset, seed, arguments.steps, run)
        for seed, run in zip(arguments.seeds, given, strict=True)
    ]
    rows[f"{arguments.size}x{arguments.size}, {arguments.preset}"] = {
        "command": " ".join(["python", "benchmarks/bridges.py", *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
        **describe(),
        "annealing_alone": alone(arguments.size, arguments.seeds[0]),
        "median": medians(runs),
        "runs": runs,
    }
    file.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    (arguments.output / "bridges.png").write_bytes(png(figure(rows)))


if __name__ == "__main__":
    main()
