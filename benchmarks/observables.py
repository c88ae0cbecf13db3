"""Observables on 4x4 and 8x8 at three temperatures, by three samplers, against exact answers.

    python benchmarks/observables.py --seeds 0 1 2 --output docs/benchmarks/observables.json

Wolff's cluster algorithm, the reweighted flow (trained here with each seed) and Hamiltonian Monte Carlo in the flow's
latent space, with half as many samples. In the ordered phase the flow is trained for both bounds, at length; elsewhere
the quick preset does. In the disordered phase more samples are needed: the Binder cumulant is a small difference there.
Deviations are in standard errors; relative errors in per cent. The file is written anew after every seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe

from isingflow.evaluation.targets import draw_samples, load_run
from isingflow.exact import moments, thermodynamics
from isingflow.lattice import CRITICAL_BETA, Lattice, square
from isingflow.monte_carlo import simulate
from isingflow.observables import Observables, measure
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runtime.parallel import workers
from isingflow.sampling import latent, run_chains
from isingflow.training import train

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """How a flow is trained at a temperature, and how many samples are drawn."""

    beta: float
    preset: str
    bounds: str
    samples: int


SETTINGS = (
    Setting(0.3, "quick", "upper", 6 * 65536),
    Setting(CRITICAL_BETA, "quick", "upper", 65536),
    Setting(0.6, "accurate", "both", 65536),
)


def exact_answers(lattice: Lattice, beta: float) -> dict[str, float]:
    """By name of the observable; G(r) along the axes as G0, G1, ..."""
    known = moments(lattice, beta)
    along = known.correlation[0, : lattice.shape[1] // 2 + 1]
    return {
        "energy_per_site": thermodynamics(lattice, beta).energy_per_site,
        "magnetisation_squared": known.magnetisation_squared,
        "magnetisation_fourth": known.magnetisation_fourth,
        "binder": known.binder,
        **{f"G{r}": float(value) for r, value in enumerate(along) if r},
    }


def compare(found: Observables, exact: dict[str, float]) -> dict[str, dict[str, float]]:
    """Value, standard error, deviation in standard errors and relative error in per cent of every observable."""
    rows = {}
    for name, truth in exact.items():
        estimate = found.correlation_function[int(name[1:])] if name[0] == "G" else getattr(found, name)
        rows[name] = {
            "exact": truth,
            **estimate.as_dict(),
            "deviation": (estimate.value - truth) / estimate.stderr,
            "relative_percent": 100 * estimate.stderr / abs(truth),
        }
    return rows


def document(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The file: how it was made, what is furthest off, every comparison."""
    comparisons = [row for result in results for row in result["observables"].values()]
    largest: dict[str, list[float]] = {}
    for result in results:
        errors = [row["relative_percent"] for row in result["observables"].values()]
        largest.setdefault(result["sampler"], []).append(max(errors))
    return {
        "command": f"python benchmarks/observables.py {' '.join(sys.argv[1:])}",
        **describe(),
        "comparisons": len(comparisons),
        "worst_deviation": max(abs(row["deviation"]) for row in comparisons),
        "rms_deviation": float(np.sqrt(np.mean([row["deviation"] ** 2 for row in comparisons]))),
        "largest_relative_percent": max(row["relative_percent"] for row in comparisons),
        "median_relative_percent": {sampler: statistics.median(errors) for sampler, errors in largest.items()},
        "results": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    results = []
    for size in arguments.sizes:
        for setting in SETTINGS:
            lattice, beta, samples = square(size), setting.beta, setting.samples
            exact = exact_answers(lattice, beta)
            for seed in arguments.seeds:
                found = {"wolff": _wolff(lattice, beta, samples, seed)}
                with tempfile.TemporaryDirectory() as scratch, workers(CPU) as pool:
                    config = RunConfig.from_preset(setting.preset, lattice, beta, bounds=setting.bounds, seed=seed)
                    run = RunFolder.create(Path(scratch) / "run", config)
                    train(run, device=CPU)
                    drawn = draw_samples(run, samples=samples, device=CPU, seed=seed)
                    found["reweighted flow"] = measure(
                        lattice, beta, field=drawn.field, spins=drawn.spins, log_weight=drawn.log_weight
                    )
                    flow, target, _ = load_run(run, CPU)
                    sampler = latent(flow, target, pool=pool)
                    chains = run_chains(sampler, samples=samples // 128, chains=64, warm_up=100, seed=seed)
                    found["latent HMC"] = measure(lattice, beta, field=chains.field, spins=chains.spins)
                for sampler, observables in found.items():
                    rows = compare(observables, exact)
                    about = {"size": size, **asdict(setting), "seed": seed, "sampler": sampler}
                    results.append(about | {"observables": rows})
                    worst = max(rows.values(), key=lambda row: abs(row["deviation"]))["deviation"]
                    largest = max(row["relative_percent"] for row in rows.values())
                    print(
                        f"{size}x{size} beta {beta:.4f} seed {seed} {sampler:<16} worst deviation {worst:+.1f} sigma, "
                        f"largest error {largest:.2f} %",
                        flush=True,
                    )
                arguments.output.write_text(json.dumps(document(results), indent=1) + "\n")


def _wolff(lattice: Lattice, beta: float, samples: int, seed: int) -> Observables:
    return measure(lattice, beta, spins=simulate(lattice, beta, samples=samples // 64, chains=64, seed=seed).spins)


if __name__ == "__main__":
    main()
