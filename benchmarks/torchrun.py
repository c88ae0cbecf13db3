"""One training by one process, by two threads, and by two processes: iterations a second, and the gap that they reach.

    python benchmarks/torchrun.py --output docs/benchmarks/torchrun.json
    python benchmarks/torchrun.py --output docs/benchmarks/torchrun.json --parts gaps
    python benchmarks/torchrun.py --output docs/benchmarks/torchrun-evaluations.json --parts evaluations --preset quick

Rates are medians over the iterations of a training that is cut short, without the first ones, in which kernels are
compiled. The three take turns, so that what else the machine does meets all of them; its load is told. Gaps are those
of whole trainings, by one process and by several. Evaluations are of one short training, without their figures, and
their bounds are told, which have to be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe

import isingflow
from isingflow.lattice import square
from isingflow.runtime.launched import follows

PARTS = ("rates", "gaps", "evaluations")
WARM = 5
"""Iterations that are left out."""


def launched(options: argparse.Namespace, way: str, *more: str) -> dict[str, Any]:
    """One worker in processes of its own: by "one", by "threads" or by "processes"."""
    threads = options.count if way == "threads" else 1
    command = [sys.executable]
    if way == "processes":
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.count)]
    with tempfile.TemporaryDirectory() as folder:
        command += [__file__, "--worker", folder, "--size", str(options.size), "--preset", options.preset]
        command += ["--iterations", str(options.iterations), "--seed", str(options.seed), *more]
        before = os.getloadavg()[0]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads((Path(folder) / "found.json").read_text())
    return found | {"load_before": before, "load_after": os.getloadavg()[0]}


def worker(options: argparse.Namespace) -> None:
    """What one of the processes does."""
    if options.evaluated is not None:
        began = time.perf_counter()
        report = isingflow.evaluate(options.evaluated, samples=options.samples, save=False).as_dict()
        found = {"seconds": time.perf_counter() - began}
        found |= {name: report[name] for name in ("variational_free_energy", "lower_bound", "samples")}
        if not follows():
            (options.worker / "found.json").write_text(json.dumps(found))
        return
    magnet = isingflow.HubbardStratonovich(square(options.size), isingflow.lattice.CRITICAL_BETA)
    # As many integration steps for all: those that a training adapts differ from noise to noise.
    cut = {"training.evaluation_samples": 64, "training.adapt_steps": False}
    settings: dict[str, Any] = {} if options.whole else cut
    trained = isingflow.train(
        magnet,
        output=options.worker / "run",
        preset=options.preset,
        settings=settings,
        seed=options.seed,
        callbacks=[] if options.whole else [lambda progress: progress.iteration >= options.iterations],
        progress=False,
    )
    report = isingflow.evaluate(trained).as_dict() if options.whole else {}
    if follows():
        return
    metrics = trained.run.metrics()
    seconds = [
        later["seconds"] - line["seconds"] for line, later in zip(metrics[WARM:], metrics[WARM + 1 :], strict=False)
    ]
    found = {"iterations_per_second": 1 / statistics.median(seconds)}
    if options.whole:
        found |= {name: report[name] for name in ("training_seconds", "gap_nats", "effective_sample_size")}
    (options.worker / "found.json").write_text(json.dumps(found))


def by_turns(options: argparse.Namespace, *more: str) -> dict[str, list[dict[str, Any]]]:
    """What all ways have found."""
    turns: dict[str, list[dict[str, Any]]] = {way: [] for way in ("one", "threads", "processes")}
    for _ in range(options.repeats):
        for way in turns:
            turns[way].append(launched(options, way, *more))
    return turns


def rates(options: argparse.Namespace) -> dict[str, Any]:
    """Iterations a second."""
    turns = by_turns(options)
    medians = {way: statistics.median(turn["iterations_per_second"] for turn in turns[way]) for way in turns}
    ratios = {f"{way}_over_one": medians[way] / medians["one"] for way in turns if way != "one"}
    return {"iterations": options.iterations, "medians": medians, **ratios, "turns": turns}


def evaluations(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an evaluation, of one run."""
    with tempfile.TemporaryDirectory() as folder:
        magnet = isingflow.HubbardStratonovich(square(options.size), isingflow.lattice.CRITICAL_BETA)
        run = f"{folder}/run"
        isingflow.train(magnet, output=run, preset=options.preset, iterations=options.iterations, seed=options.seed)
        turns = by_turns(options, "--evaluated", run, "--samples", str(options.samples))
    medians = {way: statistics.median(turn["seconds"] for turn in turns[way]) for way in turns}
    ratios = {f"one_over_{way}": medians["one"] / medians[way] for way in turns if way != "one"}
    return {"samples": options.samples, "seconds": medians, **ratios, "turns": turns}


def gaps(options: argparse.Namespace) -> dict[str, Any]:
    """Whole trainings."""
    return {way: launched(options, way, "--whole") for way in ("one", "processes")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/torchrun.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:1])
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--preset", default="accurate")
    parser.add_argument("--count", type=int, default=2, help="threads, and processes")
    parser.add_argument("--iterations", type=int, default=60, help="of a training that is cut short")
    parser.add_argument("--samples", type=int, default=2048, help="of an evaluation")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--evaluated", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options)
        return
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    found |= {"machine": describe(), "size": options.size, "count": options.count}
    for part in options.parts:
        found[part] = {"rates": rates, "gaps": gaps, "evaluations": evaluations}[part](options)
        found[part]["preset"] = options.preset
        options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
