"""Sweeps: two jobs on two cores against one, and chains of trainings along beta against trainings from nothing.

    python benchmarks/sweeps.py --output docs/benchmarks/sweeps.json

Seconds are those of the clock, and processor seconds those of all commands together; on a machine that does other work
too only the latter mean much, so its load is told. A training of one iteration tells what a point costs besides its
training: start, evaluation, figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe

from isingflow import HubbardStratonovich, evaluate, train
from isingflow.cli.sweep import CHAINED
from isingflow.lattice import square
from isingflow.studies.launch import sweep
from isingflow.studies.plan import Study

PARTS = ("chains", "trainings", "jobs")
SIZE = ("8",)
BETAS = (0.36, 0.38, 0.40, 0.42, 0.44)
ITERATIONS, RATE = 300, 6e-3
"""Of preset quick on 8x8."""


def measured(study: Study, jobs: int) -> dict[str, Any]:
    """One sweep from nothing; processor seconds of each point where they run one at a time."""
    points, spent = [], [processor_seconds()]

    def report(table: Any, row: dict[str, Any]) -> None:
        spent.append(processor_seconds())
        points.append(
            {name: row[name] for name in ("point", "gap_nats", "effective_sample_size", "training_seconds", "seconds")}
            | ({"processor_seconds": spent[-1] - spent[-2]} if jobs == 1 else {})
        )

    with tempfile.TemporaryDirectory() as folder:
        started, load = time.monotonic(), os.getloadavg()[0]
        sweep(study, f"{folder}/study", jobs=jobs, report=report)
        return {
            "jobs": jobs,
            "seconds": time.monotonic() - started,
            "processor_seconds": spent[-1] - spent[0],
            "load_before": load,
            "load_after": os.getloadavg()[0],
            "points": points,
        }


def processor_seconds() -> float:
    """Of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def chains(seed: int) -> dict[str, Any]:
    """The same temperatures with a chain along beta and without."""
    axes: dict[str, Any] = {"size": SIZE, "beta": BETAS, "seed": (seed,)}
    chained = {"chain": "beta", "chained_steps": ITERATIONS // CHAINED, "chained_rate": RATE}
    single = Study("train", **(axes | {"beta": BETAS[-1:]}), options={"steps": "1"})
    return {
        "seed": seed,
        "besides_training": measured(single, 1)["processor_seconds"],
        "chained": measured(Study("train", **axes, **chained), 1),
        "from_nothing": measured(Study("train", **axes), 1),
    }


def trainings(seed: int) -> dict[str, Any]:
    """Training alone, in one process that is warm, without what a command costs besides: a chain, and its end."""

    def trained(name: str, beta: float, **options: Any) -> dict[str, Any]:
        before = time.process_time()
        magnet = HubbardStratonovich(square(int(SIZE[0])), beta)
        run = train(magnet, output=f"{folder}/{name}", seed=seed, progress=False, **options)
        seconds = time.process_time() - before
        found = evaluate(run, samples=4096).as_dict()
        return {"beta": beta, "processor_seconds": seconds, "gap_nats": found["gap_nats"]}

    with tempfile.TemporaryDirectory() as folder:
        trained("warm", BETAS[0], iterations=1)
        rows = [trained("0", BETAS[0])]
        for number, beta in enumerate(BETAS[1:]):
            start = {"start": f"{folder}/{number}", "iterations": ITERATIONS // CHAINED, "learning_rate": RATE}
            rows.append(trained(str(number + 1), beta, **start))
        return {"seed": seed, "chained": rows, "last_from_nothing": trained("last", BETAS[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--trainings", type=int, default=16, help="of the sweep with one job and with two")
    parser.add_argument("--steps", type=int, default=ITERATIONS, help="iterations of each of them")
    parser.add_argument("--seed", type=int, default=0, help="of the chain")
    options = parser.parse_args()
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    found["machine"] = describe()
    if "chains" in options.parts:
        found["chains"] = chains(options.seed)
        options.output.write_text(json.dumps(found, indent=2) + "\n")
    if "trainings" in options.parts:
        found["trainings"] = trainings(options.seed)
        options.output.write_text(json.dumps(found, indent=2) + "\n")
    if "jobs" in options.parts:
        seeds = tuple(range(options.trainings))
        study = Study("train", size=SIZE, beta=BETAS[:1], seed=seeds, options={"steps": str(options.steps)})
        found["jobs"] = {"trainings": options.trainings, "steps": options.steps}
        found["jobs"]["sweeps"] = [measured(study, jobs) for jobs in (1, 2)]
        options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
