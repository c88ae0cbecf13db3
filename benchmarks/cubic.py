"""The critical cube by Monte Carlo: Binder's ratio and xi/L, extrapolated to the infinite lattice, beside their limits.

    python benchmarks/cubic.py

Wolff clusters at beta = 0.22165463 on periodic cubes. Both ratios approach their limits as Q(L) = Q + a L^-omega, with
omega = 0.832; limits and omega are of Hasenbusch (2010), Phys. Rev. B 82, 174433. The fit has two parameters for each
ratio, and its error is that of least squares with the errors of the simulations. Writes numbers and a figure.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
from machine import describe
from matplotlib.figure import Figure

import isingflow
from isingflow.lattice import cubic
from isingflow.lattice.critical import CUBIC
from isingflow.plots.style import EXACT, FLOW, STYLE, WIDTH, png
from isingflow.statistics import Estimate

FOLDER = Path("docs/benchmarks")
OMEGA = 0.832
LIMITS = {"binder": 0.46548, "correlation_length_per_length": 0.6431}
TITLES = {
    "binder": "$1 - \\langle m^4\\rangle / 3 \\langle m^2\\rangle^2$",
    "correlation_length_per_length": "$\\xi / L$",
}
CHAINS = 8
UPDATES = 6e8
"""Spins flipped for each length, about."""
MOST_SAMPLES = 2**19


def measured(length: int, updates: float, seed: int) -> dict:
    """Both ratios of one cube."""
    started, lattice = time.process_time(), cubic(length)
    samples = int(min(updates / lattice.sites, MOST_SAMPLES)) // CHAINS
    chains = isingflow.simulate(lattice, CUBIC, samples=samples, chains=CHAINS, thermalise=1000, seed=seed)
    found = isingflow.measure(lattice, CUBIC, spins=chains.spins)
    assert found.correlation_length is not None
    per_length = Estimate(found.correlation_length.value / length, found.correlation_length.stderr / length)
    return {
        "length": length,
        "samples": samples * CHAINS,
        "sampler": chains.sampler,
        "binder": found.binder.as_dict(),
        "correlation_length_per_length": per_length.as_dict(),
        "energy_per_site": found.energy_per_site.as_dict(),
        "processor_seconds": time.process_time() - started,
    }


def extrapolated(rows: list[dict], ratio: str) -> dict:
    """Q and a of Q + a L^-omega, weighted least squares."""
    lengths = np.array([row["length"] for row in rows], float)
    values, errors = (np.array([row[ratio][part] for row in rows]) for part in ("value", "stderr"))
    design = np.stack([np.ones_like(lengths), lengths**-OMEGA], 1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    limit, amplitude = covariance @ design.T @ (values / errors)
    stderr = math.sqrt(covariance[0, 0])
    residuals = (limit + amplitude * lengths**-OMEGA - values) / errors
    return {
        "limit": {"value": limit, "stderr": stderr},
        "amplitude": amplitude,
        "chi_squared": float(residuals @ residuals),
        "degrees_of_freedom": len(rows) - 2,
        "known": LIMITS[ratio],
        "deviation_stderr": (limit - LIMITS[ratio]) / stderr,
    }


@matplotlib.rc_context(STYLE)
def figure(rows: list[dict], fits: dict[str, dict]) -> Figure:
    """Both ratios against L^-omega."""
    drawn = Figure(figsize=(1.6 * WIDTH, 0.8 * WIDTH), layout="constrained")
    for ax, (ratio, fit) in zip(drawn.subplots(1, 2), fits.items(), strict=True):
        places = [row["length"] ** -OMEGA for row in rows]
        values, errors = ([row[ratio][part] for row in rows] for part in ("value", "stderr"))
        ax.errorbar(places, values, errors, fmt="o", color=FLOW, label="Wolff clusters")
        ends = np.array([0.0, 1.05 * max(places)])
        ax.plot(ends, fit["limit"]["value"] + fit["amplitude"] * ends, color=FLOW, label="$Q + a L^{-0.832}$")
        ax.axhline(fit["known"], color=EXACT, linestyle="--", label=f"limit, {fit['known']}")
        for row, place, value in zip(rows, places, values, strict=True):
            ax.annotate(f"L = {row['length']}", (place, value), xytext=(6, -10), textcoords="offset points")
        ax.set(xlabel="$L^{-0.832}$", ylabel=TITLES[ratio], xlim=(0, 1.2 * max(places)))
        ax.legend()
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 12, 16, 24])
    parser.add_argument("--updates", type=float, default=UPDATES, help="spins flipped for each length, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of numbers and figure")
    arguments = parser.parse_args()
    rows = []
    for length in arguments.lengths:
        rows.append(measured(length, arguments.updates, arguments.seed + length))
        print(json.dumps(rows[-1]), flush=True)
    fits = {ratio: extrapolated(rows, ratio) for ratio in LIMITS}
    document = {
        "command": " ".join(["python", "benchmarks/cubic.py", *sys.argv[1:]]),
        **describe(),
        "beta": CUBIC,
        "omega": OMEGA,
        "fits": fits,
        "rows": rows,
    }
    (arguments.output / "cubic.json").write_text(json.dumps(document, indent=1) + "\n")
    (arguments.output / "cubic.png").write_bytes(png(figure(rows, fits)))
    print(json.dumps(fits, indent=1))


if __name__ == "__main__":
    main()
