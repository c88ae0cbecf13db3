"""Any magnet: what presets reach on open lattices, glasses and graphs, in external fields and in three dimensions.

    python benchmarks/any_magnet.py --list
    python benchmarks/any_magnet.py glass-8 open-8 --seeds 0 1 2
    python benchmarks/any_magnet.py all --preset quick --seeds 0 --output any-magnet.json

The seed is that of the disorder, where there is any, and of the training. Rows that are measured replace those of the
same flow and preset in the file. Gaps are to the exact -ln Z or, where there is none, to the acceptance-ratio estimate,
which lies between the bounds. Seconds are of the training alone, on the clock and of all processors together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import torch
from machine import describe

import isingflow
from isingflow.cli.options import Setting
from isingflow.lattice import (
    CRITICAL_BETA,
    Lattice,
    cubic,
    edwards_anderson,
    from_graph,
    random_field,
    square,
    triangular,
)
from isingflow.lattice.critical import CUBIC, TRIANGULAR

FILE = Path("docs/benchmarks/any-magnet.json")


@dataclass(frozen=True)
class Row:
    """A magnet, by seed, and what it is to reach.

    Attributes:
        what: in words.
        lattice: of a seed.
        beta: inverse temperature.
        target: what is asked for, in words.
        minutes: of the training, on two cores.
    """

    what: str
    lattice: Callable[[int], Lattice]
    beta: float
    target: str
    minutes: float


def petersen(seed: int) -> Lattice:
    """Petersen's graph with normal couplings."""
    graph, rng = networkx.petersen_graph(), np.random.default_rng(seed)
    for edge in graph.edges:
        graph.edges[edge]["coupling"] = float(rng.normal())
    return from_graph(graph)


def regular(seed: int) -> Lattice:
    """A random graph of 64 sites with three bonds each."""
    return from_graph(networkx.random_regular_graph(3, 64, seed=seed))


BETHE = float(np.arctanh(0.5))
"""Where infinite trees with three bonds a site order."""

ROWS = {
    "glass-8": Row("+-J glass 8x8", lambda s: edwards_anderson(8, seed=s), 0.7, "<= 0.35 nats, >= 40 %", 10),
    "glass-8-cold": Row("+-J glass 8x8", lambda s: edwards_anderson(8, seed=s), 1.0, "bounds within 2 nats", 10),
    "open-8": Row("open 8x8", lambda s: square(8, boundary="open"), CRITICAL_BETA, "<= 0.08 nats", 10),
    "open-16": Row("open 16x16", lambda s: square(16, boundary="open"), CRITICAL_BETA, "<= 0.4 nats", 30),
    "glass-16": Row("+-J glass 16x16", lambda s: edwards_anderson(16, seed=s), 0.5, "<= 1 nat", 30),
    "petersen": Row("Petersen's graph, normal couplings", petersen, 1.0, "<= 0.02 nats", 2),
    "regular-64": Row("random graph of 64 sites, three bonds each", regular, BETHE, "<= 0.3 nats", 10),
    "field-8": Row("8x8, field 0.05", lambda s: square(8).with_field(0.05), CRITICAL_BETA, "<= 0.1 nats", 5),
    "random-field-8": Row(
        "8x8, random field 0.3", lambda s: random_field(square(8), 0.3, seed=s), CRITICAL_BETA, "<= 0.3 nats", 10
    ),
    "cubic-4": Row("cubic 4x4x4", lambda s: cubic(4), CUBIC, "<= 0.15 nats", 5),
    "cubic-8": Row("cubic 8x8x8", lambda s: cubic(8), CUBIC, "<= 1 nat", 30),
    "triangular-6": Row("triangular 6x6", lambda s: triangular(6), TRIANGULAR, "<= 0.1 nats", 3),
}


def measured(row: Row, seed: int, flow: str, preset: str, iterations: int | None, settings: dict[str, Any]) -> dict:
    """Train and evaluate one seed."""
    target = isingflow.HubbardStratonovich(row.lattice(seed), row.beta)
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        trained = isingflow.train(
            target,
            flow=flow,
            preset=preset,
            seed=seed,
            iterations=iterations,
            settings=settings,
            output=f"{folder}/run",
            progress=False,
        )
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        evaluation = isingflow.evaluate(trained)
    report, solved = evaluation.as_dict(), evaluation.exact_spins
    free, lower, between = (
        report[name] for name in ("variational_free_energy", "lower_bound", "acceptance_ratio_free_energy")
    )
    gap = report["gap_nats"] or {"value": free["value"] - between["value"]}
    return {
        "seed": seed,
        "gap_nats": gap,
        "gap_to": "exact" if report["gap_nats"] else "acceptance ratio",
        "bounds_apart_nats": free["value"] - lower["value"],
        "acceptance_ratio_deviation_stderr": None
        if report["exact_free_energy"] is None
        else (between["value"] - report["exact_free_energy"]) / between["stderr"],
        "effective_sample_size": report["effective_sample_size"],
        "reverse_effective_sample_size": report["reverse_effective_sample_size"],
        "integration_error_nats": report["integration_error_nats"],
        **magnetisation(report, None if solved is None else solved.magnetisation_per_site),
        "certified": report["certified"],
        "warnings": report["warnings"],
        "parameters": report["parameters"],
        "seconds": wall,
        "processor_seconds": processor,
    }


def magnetisation(report: dict, exact: float | None) -> dict:
    """Of a magnet in a field, m by reweighting and how far it is from the exact one; nothing of others."""
    if "magnetisation" not in report:
        return {}
    found = report["magnetisation"]
    away = None if exact is None else (found["value"] - exact) / found["stderr"]
    return {"magnetisation": found, "exact_magnetisation": exact, "magnetisation_deviation_stderr": away}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, "all", []], metavar="ROW", help="see --list")
    parser.add_argument("--list", action="store_true", help="what there is, and what it costs")
    parser.add_argument("--flow", default="monge-ampere")
    parser.add_argument("--preset", default="accurate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, help="in place of the preset's own")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings in place of the preset's")
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    if arguments.list or not arguments.rows:
        for name, row in ROWS.items():
            print(f"{name:14} {row.what}, beta {row.beta:.4g}: {row.target}; {row.minutes:g} minutes a seed")
        return
    known = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else {}
    for name in ROWS if "all" in arguments.rows else arguments.rows:
        row = ROWS[name]
        runs, settings = [], dict(map(Setting().read, arguments.set))
        for seed in arguments.seeds:
            runs.append(measured(row, seed, arguments.flow, arguments.preset, arguments.iterations, settings))
            shown = {key: runs[-1][key] for key in ("seed", "gap_nats", "effective_sample_size", "processor_seconds")}
            print(name, json.dumps(shown), flush=True)
        flow = "" if arguments.flow == "monge-ampere" else f", {arguments.flow}"
        known[f"{name}, {arguments.preset}{flow}"] = {
            "what": row.what,
            "beta": row.beta,
            "target": row.target,
            "command": " ".join(["python", "benchmarks/any_magnet.py", *sys.argv[1:]]),
            "threads": torch.get_num_threads(),
            "machine": describe(),
            "median_gap_nats": statistics.median(run["gap_nats"]["value"] for run in runs),
            "median_effective_sample_size": statistics.median(run["effective_sample_size"] for run in runs),
            "runs": runs,
        }
        arguments.output.write_text(json.dumps({"rows": known}, indent=1) + "\n")


if __name__ == "__main__":
    main()
