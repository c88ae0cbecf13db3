"""Cluster updates of the critical square lattice: spins per second on one core, and time per independent state.

    OMP_NUM_THREADS=1 python benchmarks/clusters.py --output docs/benchmarks/clusters.json

A rate counts sites x sweeps (Swendsen-Wang) or flipped spins (Wolff) per second of processor time; wall time is given
beside it. The floor is the time of the random numbers alone: a sweep draws one per bond and one per cluster, a Wolff
cluster one per neighbour of every flipped spin. The integrated autocorrelation time tau of an observable follows from
the variance of its means over blocks, and 2 tau x (seconds per sweep) is the price of an independent state.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe
from numba import njit

from isingflow.lattice import CRITICAL_BETA, Lattice, square
from isingflow.monte_carlo import clusters, simulate, stream
from isingflow.monte_carlo.simulate import Couplings

CHAINS = 4


@njit(cache=True)
def draw(count, rng):
    """Sum of `count` random numbers, so that none is optimised away."""
    total = 0.0
    for _ in range(count):
        total += rng.random()
    return total


def rate(work: Callable[[], float], repeats: int) -> dict[str, float]:
    """Median rates of what `work` says it has done, in millions per second."""
    work()
    processor, wall = [], []
    for _ in range(repeats):
        before = time.process_time(), time.perf_counter()
        done = work() / 1e6
        processor.append(done / (time.process_time() - before[0]))
        wall.append(done / (time.perf_counter() - before[1]))
    return {"processor": statistics.median(processor), "wall": statistics.median(wall)}


def updates(length: int, sweeps: int, repeats: int) -> dict:
    """Rates of the kernels on equilibrium states, and of `stream` with everything that it records."""
    lattice = square(length)
    couplings = Couplings.of(lattice, CRITICAL_BETA)
    *bonds, strengths = couplings.bonds
    *graph, weights = couplings.graph
    rng = np.random.Generator(np.random.SFC64(0))
    start = simulate(lattice, CRITICAL_BETA, samples=1, chains=1, sampler="swendsen-wang", thermalise=500, threads=1)
    spins = start.spins.reshape(-1)
    kept = np.empty((1, lattice.sites), np.int8)

    def swendsen_wang() -> float:
        clusters.swendsen_wang(spins, kept, sweeps, *bonds, couplings.occupation(strengths), rng)
        return sweeps * lattice.sites

    def wolff() -> float:
        return clusters.wolff(spins, kept, 2 * sweeps, *graph, couplings.occupation(weights), 1, rng)[0]

    def random_numbers() -> float:
        draw(10**7, rng)
        return 1e7

    rates = {work.__name__: rate(work, repeats) for work in (swendsen_wang, wolff, random_numbers)}
    rates["swendsen_wang_floor"] = rates["random_numbers"]["processor"] * lattice.sites / len(strengths)
    rates["wolff_floor"] = rates["random_numbers"]["processor"] * lattice.sites / len(weights)
    for every in (1, 10):
        options = {"chains": 1, "sampler": "swendsen-wang", "every": every, "threads": 1}
        endless = stream(lattice, CRITICAL_BETA, samples=2**62, **options)
        rates[f"swendsen_wang_recorded_every_{every}"] = rate(lambda: next(endless).spins.size * every, repeats)  # noqa: B023
    return rates


def price(lattice: Lattice, sampler: str, samples: int) -> dict[str, float]:
    """Autocorrelation times in sweeps and the processor time per independent state, one sample a sweep."""

    def run(samples: int) -> tuple[float, np.ndarray, np.ndarray]:
        before = time.process_time()
        blocks = stream(lattice, CRITICAL_BETA, samples=samples, chains=CHAINS, sampler=sampler, threads=1)
        energy, magnetisation = zip(*((block.energy, block.magnetisation) for block in blocks), strict=True)
        return time.process_time() - before, np.concatenate(energy, axis=1), np.concatenate(magnetisation, axis=1)

    seconds, energy, magnetisation = run(samples)
    sweep = (seconds - run(1)[0]) / (CHAINS * (samples - 1))
    taus = {"tau_energy": correlation_time(energy), "tau_magnetisation_squared": correlation_time(magnetisation**2)}
    return {**taus, "microseconds_per_sweep": 1e6 * sweep, "microseconds_per_state": 2e6 * sweep * max(taus.values())}


def correlation_time(values: np.ndarray, block: int = 256) -> float:
    """Integrated autocorrelation time of values, shape (chains, samples), from Var(block mean) = 2 tau Var / block."""
    means = values[:, : values.shape[1] // block * block].reshape(len(values), -1, block).mean(axis=2)
    return float(block * means.var(ddof=1) / values.var(ddof=1) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="length of the lattice whose updates are timed")
    parser.add_argument("--sweeps", type=int, default=100, help="sweeps per repeat (default 100)")
    parser.add_argument("--repeats", type=int, default=15, help="timings per rate (default 15)")
    parser.add_argument("--samples", type=int, default=16384, help="samples per chain for autocorrelation times")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()

    rates = updates(arguments.size, arguments.sweeps, arguments.repeats)
    print(f"millions per second at {arguments.size}x{arguments.size}, critical")
    for name, value in rates.items():
        print(f"  {name:34} {value['processor'] if isinstance(value, dict) else value:7.1f}", flush=True)
    prices = []
    for lattice in (square(16), square(64), square(64, boundary="open"), square(128)):
        for sampler in ("swendsen-wang", "wolff"):
            prices.append({"lattice": str(lattice), "sampler": sampler, **price(lattice, sampler, arguments.samples)})
            print(json.dumps(prices[-1]), flush=True)
    if arguments.output:
        command = f"OMP_NUM_THREADS=1 python benchmarks/clusters.py --output {arguments.output}"
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        result = {"command": command, **describe(), "size": arguments.size, "rates": rates, "prices": prices}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
