"""Annealing without a flow: gap of the bound, effective samples a second, both bounds, on magnets of all kinds.

    OMP_NUM_THREADS=1 python benchmarks/annealing.py --seeds 0 1 2 --output docs/benchmarks/annealing.json

A gap is that of the mean ln w of forward paths below the exact ln Z. Seconds are those of the processor: of the forward
paths alone for samples a second, of all for the rest. The sandwich is the distance of the two bounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from machine import describe

from isingflow.evaluation.annealing import anneal
from isingflow.lattice import CRITICAL_BETA, Lattice, critical_beta, cubic, edwards_anderson, square
from isingflow.monte_carlo.annealing import MOVES
from isingflow.monte_carlo.couplings import Couplings
from isingflow.monte_carlo.source import random_stream, words_of
from isingflow.monte_carlo.tempering import random_spins
from isingflow.statistics.free_energy import reweighted_free_energy
from isingflow.statistics.weights import effective_sample_size

ROWS: dict[str, tuple[Lattice, float, dict[str, int]]] = {
    "16x16, critical": (square(16), CRITICAL_BETA, {"paths": 256}),
    "32x32, critical": (square(32), CRITICAL_BETA, {"paths": 128}),
    "64x64, critical": (square(64), CRITICAL_BETA, {"paths": 64}),
    "8x8x8 cube, critical": (cubic(8), critical_beta(cubic(8)).value, {"paths": 64, "sweeps": 4000}),
    "12x12 +-J glass, beta 1": (edwards_anderson(12, seed=0), 1.0, {"paths": 64}),
}
QUICK_SWEEPS = 700


def measured(lattice: Lattice, beta: float, options: dict[str, int], seed: int) -> dict:
    """One annealing, and what it cost."""
    before = time.process_time()
    report = anneal(lattice, beta, seed=seed, threads=1, **options)
    seconds = time.process_time() - before
    row, exact = report.end, report.exact_log_z
    found = {
        "seed": seed,
        "moves": report.moves,
        "paths": len(report.paths.forward),
        "sweeps": report.paths.sweeps,
        "thermodynamic_length": float(report.paths.pilot.lengths[-1]),
        "log_z": row.log_z.as_dict(),
        "lower_bound": row.lower_bound.as_dict(),
        "upper_bound": row.upper_bound.as_dict(),
        "exact_log_z": exact,
        "gap": None if exact is None else exact - row.lower_bound.value,
        "sandwich": row.upper_bound.value - row.lower_bound.value,
        "effective_sample_size": row.effective_sample_size,
        "r_hat": report.paths.at_end.r_hat,
        "processor_seconds": seconds,
    }
    return found


def rate(lattice: Lattice, beta: float, sweeps: int, paths: int, seed: int) -> dict:
    """Effective samples a second of forward paths, on one core, and nanoseconds a spin and sweep."""
    report = anneal(lattice, beta, paths=16, sweeps=sweeps, seed=seed, threads=1)
    betas, model = report.paths.betas, Couplings.of(lattice, beta)
    moves, log_weights = MOVES[report.moves](model), []
    before = time.process_time()
    for path in range(paths):
        rng = random_stream(seed, 9, path)
        spins = random_spins(rng, (model.sites,))
        log_weights.append(-np.diff(betas) @ moves.sweep(spins, betas[1:], words_of(rng)))
    seconds = time.process_time() - before
    share = effective_sample_size(np.array(log_weights))
    return {
        "seed": seed,
        "sweeps": sweeps,
        "paths": paths,
        "effective_sample_size": share,
        "milliseconds_a_path": 1e3 * seconds / paths,
        "nanoseconds_a_spin_and_sweep": 1e9 * seconds / (paths * sweeps * lattice.sites),
        "effective_samples_a_second": share * paths / seconds,
    }


def intervals(repeats: int) -> dict:
    """How often one standard error holds the truth, and how far a bound is violated, on 4x4 with 64 + 64 paths."""
    lattice, beta, hits = square(4), 0.4, {"acceptance ratio": 0, "reweighting": 0}
    worst = -np.inf
    for seed in range(repeats):
        report = anneal(lattice, beta, sweeps=60, seed=10_000 + seed, threads=1)
        exact, row = report.exact_log_z, report.end
        reweighted = lattice.sites * np.log(2) - reweighted_free_energy(report.paths.forward[:, -1])
        for name, found in (("acceptance ratio", report.log_z), ("reweighting", reweighted)):
            hits[name] += abs(found.value - exact) < found.stderr
        below = (row.lower_bound.value - exact) / row.lower_bound.stderr
        worst = max(worst, below, (exact - row.upper_bound.value) / row.upper_bound.stderr)
    cover = {name: count / repeats for name, count in hits.items()}
    return {"repeats": repeats, "cover": cover, "worst_violation": worst}


def medians(runs: list[dict]) -> dict[str, float]:
    """Of every number that the runs have."""
    names = [name for name, value in runs[0].items() if isinstance(value, float)]
    return {name: statistics.median(run[name] for run in runs) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--only", nargs="+", choices=[*ROWS, "rate", "intervals"], help="these rows alone")
    parser.add_argument("--output", type=Path, help="write the results as JSON, beside those that are there")
    arguments = parser.parse_args()

    rows = {}
    for name, (lattice, beta, options) in ROWS.items():
        if arguments.only is None or name in arguments.only:
            runs = [measured(lattice, beta, options, seed) for seed in arguments.seeds]
            rows[name] = {"lattice": str(lattice), "beta": beta, "medians": medians(runs), "runs": runs}
            print(name, json.dumps(rows[name]["medians"]), flush=True)
    rates = []
    if arguments.only is None or "rate" in arguments.only:
        for sweeps in (300, QUICK_SWEEPS, 2700):
            runs = [rate(square(16), CRITICAL_BETA, sweeps, 400, seed) for seed in arguments.seeds]
            rates.append({"lattice": "periodic 16x16", "sweeps": sweeps, "medians": medians(runs), "runs": runs})
            print(f"{sweeps} sweeps", json.dumps(rates[-1]["medians"]), flush=True)
    covered = None
    if arguments.only is None or "intervals" in arguments.only:
        covered = intervals(400)
        print(json.dumps(covered), flush=True)
    if arguments.output:
        earlier = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
        seeds = " ".join(map(str, arguments.seeds))
        command = f"OMP_NUM_THREADS=1 python benchmarks/annealing.py --seeds {seeds} --output {arguments.output}"
        result = {
            "command": command,
            **describe(),
            "rows": earlier.get("rows", {}) | rows,
            "rates": rates or earlier.get("rates"),
            "intervals": covered or earlier.get("intervals"),
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
