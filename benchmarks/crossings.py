"""The critical point from short chains: how near crossings and fits come to it, and whether their errors are honest.

    OMP_NUM_THREADS=1 python benchmarks/crossings.py --seeds 20 --output docs/benchmarks/crossings.json

Wolff chains at a few temperatures around the critical one, of 8x8, 16x16 and 32x32, anew for every seed. A pull is the
distance from the exact value in standard errors: their standard deviation is 1 where errors are honest, and their mean
0 where the estimate has no bias. Of 20 pulls the standard deviation is known to 16 %, the mean to 0.22.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from machine import describe

from isingflow.evaluation.crossings import crossings
from isingflow.evaluation.temperatures import scan
from isingflow.lattice import CRITICAL_BETA, square

SIZES = (8, 16, 32)
BETAS = np.linspace(0.42, 0.46, 7)
CHAINS = 8


def estimates_of(seed: int, samples: int) -> dict[str, tuple[float, float]]:
    """By name, the critical temperature and its standard error."""
    series = [
        one for size in SIZES for one in scan(square(size), BETAS, samples=samples, chains=CHAINS, seed=seed).series
    ]
    report = crossings(series, seed=seed)
    rows = report.table_rows()
    found = {}
    for row in rows:
        corrected = " corrected" if row["omega"] else ""
        temperature = row["temperature"]
        name = f"{row['quantity']}, {row['method']} {row['sizes']}{corrected}"
        found[name] = temperature["value"], temperature["stderr"]
    best = report.as_dict()["best"]
    return found | ({} if best is None else {"best fit": (best["temperature"]["value"], best["temperature"]["stderr"])})


def summary(found: list[tuple[float, float]]) -> dict:
    """What many seeds say of one estimator."""
    exact = 1 / CRITICAL_BETA
    values, errors = np.array([one for one in found if one[1] is not None], float).T
    pulls = (values - exact) / errors
    return {
        "seeds": len(values),
        "mean": float(values.mean()),
        "mean_stderr": float(errors.mean()),
        "relative_stderr": float(errors.mean() / exact),
        "largest_deviation": float(np.abs(values / exact - 1).max()),
        "within_0.2_percent": int(np.sum(np.abs(values / exact - 1) < 0.002)),
        "mean_pull": float(pulls.mean()),
        "pull_standard_deviation": float(pulls.std(ddof=1)),
        "within_one_sigma": int(np.sum(np.abs(pulls) < 1)),
        "largest_pull": float(np.abs(pulls).max()),
        "pulls": pulls.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many; 20 by default")
    parser.add_argument("--samples", type=int, default=3000, help="of every chain; 3000 by default")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    before = time.process_time()
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(options.seeds):
        for name, estimate in estimates_of(seed, options.samples).items():
            found.setdefault(name, []).append(estimate)
        print(f"seed {seed}: {time.process_time() - before:.0f} s of the processor", flush=True)
    document = {
        "machine": describe(),
        "sizes": SIZES,
        "betas": BETAS.tolist(),
        "chains": CHAINS,
        "samples_of_every_chain": options.samples,
        "exact_temperature": 1 / CRITICAL_BETA,
        "processor_seconds": time.process_time() - before,
        "estimators": {name: summary(estimates) for name, estimates in found.items()},
    }
    for name, row in document["estimators"].items():
        print(
            f"{name:<58} T = {row['mean']:.5f}, error {100 * row['relative_stderr']:.3f} %, within 0.2 %: "
            f"{row['within_0.2_percent']:>2}/{row['seeds']}, pulls {row['mean_pull']:+.2f}, "
            f"deviation {row['pull_standard_deviation']:.2f}"
        )
    if options.output is not None:
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
