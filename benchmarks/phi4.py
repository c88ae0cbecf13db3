"""The lattice phi^4 theory through `isingflow.train`: sample size, certificate, and <phi^2> against plain HMC.

At the points of Albergo, Kanwar and Shanahan (2019), in their convention (see `isingflow.targets.phi4`). The reference
is a Hamiltonian Monte Carlo of a dozen lines in numpy, which shares nothing with the package, its energy included.

    python benchmarks/phi4.py --seeds 0 1 2 --threads 1 --output docs/benchmarks/phi4.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe

import isingflow
from isingflow.sampling import sample_chains
from isingflow.statistics.mixing import Mixing
from isingflow.targets import Phi4

POINTS = {6: (-4.0, 6.975), 8: (-4.0, 6.008)}
"""m^2 and lambda by the length of the lattice."""
SAMPLES = 16384
CHAINS, KEPT = 64, 400


def plain_hmc(length: int, mass_squared: float, coupling: float, seed: int) -> np.ndarray:
    """Mean of phi^2 over sites along chains, shape (CHAINS, KEPT): leapfrog, unit masses, 10 steps of 0.1."""
    rng = np.random.default_rng(seed)

    def energy_and_slope(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        box = 4 * x - sum(np.roll(x, shift, axis) for shift in (1, -1) for axis in (1, 2))
        energy = (x * box + mass_squared * x**2 + coupling * x**4).sum((1, 2))
        return energy, 2 * box + 2 * mass_squared * x + 4 * coupling * x**3

    x = rng.normal(size=(CHAINS, length, length)) / 2
    energy, slope = energy_and_slope(x)
    kept = []
    for trajectory in range(KEPT * 4 + 500):
        start_p = p = rng.normal(size=x.shape)
        y, new_slope, size = x, slope, 0.1 * rng.uniform(0.8, 1.2)
        for _ in range(10):
            p = p - size / 2 * new_slope
            y = y + size * p
            new_energy, new_slope = energy_and_slope(y)
            p = p - size / 2 * new_slope
        change = new_energy - energy + (p**2 - start_p**2).sum((1, 2)) / 2
        accepted = np.log(rng.uniform(size=CHAINS)) < -change
        energy = np.where(accepted, new_energy, energy)
        x, slope = (np.where(accepted[:, None, None], new, old) for new, old in ((y, x), (new_slope, slope)))
        if trajectory >= 500 and trajectory % 4 == 3:
            kept.append((x**2).mean((1, 2)))
    return np.stack(kept, 1)[:, :KEPT]


def measure(length: int, seed: int, preset: str) -> dict[str, Any]:
    """One training and what comes of it."""
    mass_squared, coupling = POINTS[length]
    target = Phi4(length, mass_squared=mass_squared, coupling=coupling)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trained = isingflow.train(target, preset=preset, seed=seed, output=f"{folder}/run", device="cpu")
        seconds = time.perf_counter() - started
        found = isingflow.evaluate(trained, samples=SAMPLES, seed=seed, device="cpu")
        chains = sample_chains(trained.flow, target, space="latent", chains=CHAINS, samples=KEPT, seed=seed)
    latent = Mixing.of(np.square(chains.field, dtype=float).mean((2, 3)))
    plain = Mixing.of(plain_hmc(length, mass_squared, coupling, seed))
    field = found.samples.field.astype(float)
    weights = np.exp(found.samples.log_weight - found.samples.log_weight.max())
    difference = latent.mean - plain.mean
    return {
        "length": length,
        "mass_squared": mass_squared,
        "coupling": coupling,
        "seed": seed,
        "preset": preset,
        "training_seconds": seconds,
        "effective_sample_size": found.effective_sample_size,
        "integration_error_nats": found.integration_error,
        "certified": found.certified,
        "reweighted_free_energy": found.reweighted.as_dict(),
        "phi_squared_reweighted": float(np.average((field**2).mean((1, 2)), weights=weights)),
        "phi_squared_latent_hmc": latent.mean.as_dict()
        | {"tau": latent.tau, "acceptance": float(chains.acceptance.mean())},
        "phi_squared_plain_hmc": plain.mean.as_dict() | {"tau": plain.tau},
        "difference_in_stderr": abs(difference.value) / difference.stderr,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(POINTS), choices=list(POINTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for length in options.lengths:
        for seed in options.seeds:
            results.append(measure(length, seed, options.preset))
            print(json.dumps(results[-1], indent=1), flush=True)
    document = {"machine": describe(), "threads": options.threads, "results": results}
    if options.output:
        options.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
