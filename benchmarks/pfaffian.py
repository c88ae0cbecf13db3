"""Spin glasses by Pfaffians: accuracy at 5x5, 8x8 and 64x64, and the time at 64x64.

    python benchmarks/pfaffian.py --output docs/benchmarks/pfaffian.json

The references: a transfer matrix with 80 digits (5x5), the package's transfer matrix (8x8), Kaufman's formula for
uniform bonds behind a random gauge (64x64). Glasses of 64x64 are compared with themselves in another gauge, transposed
and with another origin, so that the order of all operations differs. Where no answer is given, the glass was refused.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from machine import describe
from mpmath import mp, mpf

from isingflow.errors import NoExactSolution
from isingflow.exact import fermions, kaufman, pfaffian, transfer_matrix
from isingflow.lattice import CRITICAL_BETA, edwards_anderson

BETAS = [0.2, CRITICAL_BETA, 1.0, 1.5, 2.0, 3.0, 4.0, 4.5, 5.0, 6.0]

Solution = tuple[float, float, float]


def eighty_digits(kx: np.ndarray, ky: np.ndarray) -> Solution:
    """ln Z, mean and variance of x(s) by a dense transfer matrix and central differences in 80 digits."""
    mp.dps = 80
    step = mpf(10) ** -10
    below, here, above = (_log_z(kx, ky, scale) for scale in (1 - step, mpf(1), 1 + step))
    return float(here), float((above - below) / (2 * step)), float((above - 2 * here + below) / step**2)


def _log_z(kx: np.ndarray, ky: np.ndarray, scale: mpf) -> mpf:
    length, width = kx.shape
    states = range(1 << width)
    spins = [[1 - 2 * (state >> y & 1) for y in range(width)] for state in states]
    matrix = [[mpf(i == j) for j in states] for i in states]
    for x in range(length):
        bonds = [mpf(k) * scale for k in ky[x]]
        row = [mp.exp(sum(k * s[y] * s[(y + 1) % width] for y, k in enumerate(bonds))) for s in spins]
        matrix = [[a * b for a, b in zip(line, row, strict=True)] for line in matrix]
        for y in range(width):
            parallel, antiparallel = mp.exp(scale * mpf(kx[x, y])), mp.exp(-scale * mpf(kx[x, y]))
            matrix = [[line[s] * parallel + line[s ^ 1 << y] * antiparallel for s in states] for line in matrix]
    return mp.log(mp.fsum(matrix[i][i] for i in states))


def in_another_gauge(kx: np.ndarray, ky: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    gauge = np.random.default_rng(seed).choice([-1.0, 1.0], size=kx.shape)
    return kx * gauge * np.roll(gauge, -1, 0), ky * gauge * np.roll(gauge, -1, 1)


def otherwise(kx: np.ndarray, ky: np.ndarray) -> Solution:
    """The same lattice transposed, in another gauge and with another origin."""
    along, around = (np.roll(k, (5, 11), (0, 1)) for k in in_another_gauge(kx, ky))
    return pfaffian.solve(around.T, along.T)


def glasses(length: int, seeds: int) -> Callable[[float], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """The couplings of +-J and (every other seed) of Gaussian glasses at a given inverse temperature."""

    def at(beta: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for seed in range(seeds):
            glass = edwards_anderson(length, seed=seed)
            random = np.random.default_rng(seed)
            jx, jy = (glass.jx, glass.jy) if seed % 2 == 0 else random.normal(size=(2, length, length))
            yield beta * jx, beta * jy

    return at


def uniform(length: int) -> Callable[[float], Iterator[tuple[np.ndarray, np.ndarray]]]:
    def at(beta: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield in_another_gauge(np.full((length, length), beta), np.full((length, length), beta))

    return at


def kaufman_of(kx: np.ndarray, ky: np.ndarray) -> Solution:
    return kaufman.partition_function(*kx.shape, abs(kx[0, 0]), abs(ky[0, 0]))


def accuracy(name: str, couplings: Callable, reference: Callable, betas: list[float]) -> list[dict]:
    """For each temperature the largest differences: ln Z and mean relative to ln Z, variance per site."""
    rows = []
    for beta in betas:
        worst, solved, refused = np.zeros(3), 0, 0
        for kx, ky in couplings(beta):
            try:
                actual, expected = pfaffian.solve(kx, ky), reference(kx, ky)
            except NoExactSolution:
                refused += 1
                continue
            solved += 1
            scales = np.array([abs(expected[0]), abs(expected[0]), kx.size])
            worst = np.maximum(worst, np.abs(np.subtract(actual, expected)) / scales)
        errors = dict(zip(("log_z", "mean", "variance"), worst.tolist(), strict=True)) if solved else {}
        rows.append({"lattice": name, "beta": beta, "solved": solved, "refused": refused, **errors})
        figures = "   ".join(f"{error:.1e}" for error in errors.values())
        print(f"{name:<30} {beta:8.5f}   {solved:>3} {refused:>3}   {figures}", flush=True)
    return rows


def seconds(length: int, beta: float, repeats: int) -> float:
    """Median wall time of ln Z, energy and heat capacity of a periodic glass, both solutions, after compilation."""
    pfaffian.solve(np.ones((4, 4)), np.ones((4, 4)))
    times = []
    for seed in range(repeats):
        glass = edwards_anderson(length, seed=seed)
        start = time.perf_counter()
        pfaffian.solve(beta * glass.jx, beta * glass.jy)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--seeds", type=int, default=8, help="small glasses per temperature (default 8)")
    parser.add_argument("--large", type=int, default=2, help="64x64 glasses per temperature (default 2)")
    parser.add_argument("--repeats", type=int, default=5, help="timings (default 5)")
    arguments = parser.parse_args()

    print("largest difference\nlattice, reference             beta     solved refused   ln Z      mean      variance")
    rows = [
        *accuracy("glass 5x5, 80 digits", glasses(5, 2), eighty_digits, BETAS),
        *accuracy("glass 8x8, transfer matrix", glasses(8, arguments.seeds), transfer_matrix.solve, BETAS),
        *accuracy("uniform 64x64, Kaufman", uniform(64), kaufman_of, [0.2, 0.44, CRITICAL_BETA, 0.6, 2.0]),
        *accuracy("glass 64x64, gauge, transposed", glasses(64, arguments.large), otherwise, BETAS[1:-1]),
    ]
    print("\nseconds on one core, periodic glass (target at 64x64: 20)")
    times = {str(length): seconds(length, 1.0, arguments.repeats) for length in (16, 32, 64)}
    for length, elapsed in times.items():
        print(f"  {length:>3}x{length:<3}   {elapsed:.3f}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        command = f"python benchmarks/pfaffian.py {' '.join(sys.argv[1:])}"
        result = {
            "command": command,
            **describe(),
            "accuracy": rows,
            "agreement_required": fermions.AGREEMENT,
            "seconds": times,
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
