"""Bounds beside the truth: random magnets, trained in random ways for a few dozen steps, many of them absurd.

    python benchmarks/bound_laws.py
    python benchmarks/bound_laws.py --cases 20 --first 40 --output bound-laws.json

Cases that the file has already are not run again: what was cut short goes on.

A case is a magnet of at most 20 sites (any lattice, graph, field, boundary, one to three dimensions, beta up to 1.5 of
either sign), a preset, a flow and a rate, all from the case's number. A bound crosses where it lies on the wrong side
of the exact -ln Z by more than 4 standard errors, and further than the integration error that is printed beside it.
Such a case must be marked: not certified, or with a warning; a training that diverges must say so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import torch
from machine import describe

import isingflow
from isingflow.errors import InvalidInput, TrainingDiverged
from isingflow.lattice import Lattice, edwards_anderson, from_graph, hypercubic, random_field, square, triangular

FILE = Path("docs/benchmarks/bound-laws.json")
MOST_SITES = 20
SIGMAS = 4.0
SAMPLES = 1024
SECONDS = 30.0
"""That a training or an evaluation may take: some need integration steps without end, and are marked if cut short."""
FLOWS = ("monge-ampere", "ot", "convex")
PRESETS = ("quick", "accurate", "paper")
BOUNDARIES = ("periodic", "open")


def random_shape(rng: np.random.Generator) -> tuple[int, ...]:
    """Lengths of one to three dimensions, from 2, with at most 20 sites."""
    while True:
        shape = tuple(int(length) for length in rng.integers(2, 8, rng.integers(1, 4)))
        if np.prod(shape) <= MOST_SITES:
            return (int(rng.integers(2, MOST_SITES + 1)),) if len(shape) == 1 else shape


def random_graph(rng: np.random.Generator) -> Lattice:
    """A tree, a honeycomb, Petersen's graph or any other, with strengths that are all one or normal."""
    sites, seed = int(rng.integers(3, 15)), int(rng.integers(10**6))
    graph = (
        lambda: networkx.random_labeled_tree(sites, seed=seed),
        lambda: networkx.hexagonal_lattice_graph(1, int(rng.integers(1, 4))),
        networkx.petersen_graph,
        lambda: networkx.gnm_random_graph(sites, 2 * sites, seed=seed),
    )[rng.integers(4)]()
    if rng.integers(2):
        networkx.set_edge_attributes(graph, {edge: float(rng.normal()) for edge in graph.edges}, "coupling")
    return from_graph(graph)


def random_lattice(rng: np.random.Generator) -> Lattice:
    """Any kind, in any field."""
    kind, shape = rng.choice(["hypercubic", "glass", "square", "triangular", "graph"]), random_shape(rng)
    boundary = [str(word) for word in rng.choice(BOUNDARIES, len(shape))]
    if kind == "hypercubic":
        lattice = hypercubic(shape, j=[float(j) for j in rng.normal(size=len(shape))], boundary=boundary)
    elif kind == "glass":
        lattice = edwards_anderson(shape, seed=int(rng.integers(10**6)), boundary=boundary)
    elif kind == "graph":
        lattice = random_graph(rng)
    else:
        lengths = (int(rng.integers(2, 5)), int(rng.integers(2, 6)))
        lattice = (square if kind == "square" else triangular)(*lengths, boundary=boundary[0])
    match rng.integers(5):
        case 0 | 1:
            return lattice
        case 2:
            return lattice.with_field(float(rng.normal()))
        case 3:
            return random_field(lattice, float(rng.exponential()), seed=int(rng.integers(10**6)))
        case _:
            return lattice.with_field(rng.normal(size=lattice.shape))


def random_training(rng: np.random.Generator) -> dict[str, Any]:
    """How to train: a preset and a flow, at its own rate or one that may be absurd, with or without the controls."""
    options: dict[str, Any] = {
        "preset": str(rng.choice(PRESETS, p=(0.7, 0.15, 0.15))),
        "flow": str(rng.choice(FLOWS, p=(0.6, 0.25, 0.15))),
        "bounds": str(rng.choice(["upper", "both"], p=(0.75, 0.25))),
        "iterations": int(rng.integers(10, 61)),
        "settings": {"training.batch": int(rng.integers(8, 33))},
    }
    if rng.random() < 0.6:
        options["learning_rate"] = float(10 ** rng.uniform(-4, 0.7))
    if rng.random() < 0.3:
        options["settings"] |= {"training.adapt_steps": False, "training.jitter": 0.0, "training.clip": 0.0}
    return options


def crossing(bound: dict[str, float] | None, exact: float, side: int, error: float) -> dict[str, Any]:
    """How far a bound lies beyond the exact answer, in nats (negative: where it should lie), and whether it crosses."""
    if bound is None or bound["value"] is None:
        return {"beyond_nats": None, "crosses": False, "crosses_without_integration_error": False}
    beyond = side * (exact - bound["value"])
    far = SIGMAS * (bound["stderr"] or 0.0)
    rounding = 1e-9 * max(1.0, abs(exact))
    return {
        "beyond_nats": beyond,
        "stderr": bound["stderr"],
        "crosses": beyond > far + error + rounding,
        "crosses_without_integration_error": beyond > far + rounding,
    }


def measured(case: int, seed: int) -> dict[str, Any]:
    """Train and evaluate one case."""
    rng = np.random.default_rng([seed, case])
    lattice = random_lattice(rng)
    beta = float(rng.choice([-1, 1]) * rng.uniform(0, 1.5))
    options = random_training(rng)
    begun = time.process_time()
    found: dict[str, Any] = {"case": case, "magnet": f"{lattice}, beta {beta:.3f}", "sites": lattice.sites, **options}
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = isingflow.HubbardStratonovich(lattice, beta)
            output = f"{folder}/run"
            trained = isingflow.train(
                target, seed=case, device="cpu", output=output, progress=False, time_limit=SECONDS, **options
            )
            asked = {"samples": SAMPLES, "reference_samples": SAMPLES, "time_limit": SECONDS}
            report = isingflow.evaluate(trained, seed=case, **asked).as_dict()
    except (TrainingDiverged, InvalidInput) as error:
        kind = "diverged" if isinstance(error, TrainingDiverged) else "refused"
        spent = time.process_time() - begun
        return found | {"outcome": kind, "message": str(error).replace(folder, ""), "processor_seconds": spent}
    error, exact = report["integration_error_nats"], report["exact_free_energy"]
    marked = not report["certified"] or bool(report["warnings"])
    allowed = np.inf if error is None else error
    upper = crossing(report["variational_free_energy"], exact, 1, allowed)
    lower = crossing(report["lower_bound"], exact, -1, allowed)
    return found | {
        "outcome": "evaluated",
        "exact_free_energy": exact,
        "upper": upper,
        "lower": lower,
        "integration_error_nats": error,
        "certified": report["certified"],
        "marked": marked,
        "warnings": len(report["warnings"]),
        "effective_sample_size": report["effective_sample_size"],
        "processor_seconds": time.process_time() - begun,
    }


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of what."""
    evaluated = [case for case in cases if case["outcome"] == "evaluated"]
    counts: dict[str, Any] = {"cases": len(cases), **Counter(case["outcome"] for case in cases)}
    counts["certified"] = sum(case["certified"] for case in evaluated)
    counts["marked"] = sum(case["marked"] for case in evaluated)
    for side in ("upper", "lower"):
        for how in ("crosses", "crosses_without_integration_error"):
            crossed = [case for case in evaluated if case[side][how]]
            counts[f"{side}_{how}"] = len(crossed)
            counts[f"{side}_{how}_unmarked"] = sum(not case["marked"] for case in crossed)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    known = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    runs = known["runs"] if known.get("seed") == arguments.seed else []
    for case in range(arguments.first, arguments.first + arguments.cases):
        if case in {run["case"] for run in runs}:
            continue
        last = measured(case, arguments.seed)
        runs.append(last)
        crossed = [s for s in ("upper", "lower") if last.get(s, {}).get("crosses_without_integration_error")]
        shown = {k: last.get(k) for k in ("outcome", "certified", "marked", "processor_seconds", "message")}
        print(case, last["magnet"], last["preset"], last["flow"], *crossed, json.dumps(shown), flush=True)
        document = {
            "command": " ".join(["python", "benchmarks/bound_laws.py", *sys.argv[1:]]),
            "seed": arguments.seed,
            "samples": SAMPLES,
            "sigmas": SIGMAS,
            "machine": describe(),
            "threads": torch.get_num_threads(),
            "processor_seconds": sum(run.get("processor_seconds", 0.0) for run in runs),
            **summary(runs),
            "runs": runs,
        }
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(summary(runs)))


if __name__ == "__main__":
    main()
