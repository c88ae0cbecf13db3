"""Kaufman's formula: accuracy against 60-digit arithmetic, and the time at L = 10^6.

    python benchmarks/kaufman.py --output docs/benchmarks/kaufman.json

The reference sums the four products as Kaufman wrote them, with enough digits to leave 60 after their cancellation, and
differentiates by central differences there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import mpmath
from mpmath import mp, mpf

from isingflow.exact import kaufman
from isingflow.lattice import CRITICAL_BETA

# Signs of the four products (A cosh, A sinh, P cosh, P sinh), by the twists along and around.
SIGNS = {(0, 0): (1, 1, 1, 1), (0, 1): (1, -1, 1, -1), (1, 0): (1, 1, -1, -1), (1, 1): (-1, 1, 1, -1)}

SIZES = [
    (2, 2),
    (2, 3),
    (3, 3),
    (5, 3),
    (4, 16),
    (9, 9),
    (16, 16),
    (31, 17),
    (33, 33),
    (64, 64),
    (255, 255),
    (256, 256),
]


def reference(lx: int, ly: int, jx: float, jy: float, beta: float) -> tuple[mpf, mpf, mpf]:
    """ln Z, energy per site and heat capacity per site, to 60 digits."""
    kx, ky = mpf(beta * jx), mpf(beta * jy)
    twisted = (kx < 0 and lx % 2 == 1) or (ky < 0 and ly % 2 == 1)
    mp.dps = 160 + (int(max(abs(kx), abs(ky)) * (lx + ly)) if twisted else 0)
    step = mpf(10) ** -40
    below, here, above = (_log_z(lx, ly, scale * kx, scale * ky) for scale in (1 - step, mpf(1), 1 + step))
    first, second = (above - below) / (2 * step), (above - 2 * here + below) / step**2
    return here, -first / beta / (lx * ly), second / (lx * ly)


def _log_z(m: int, n: int, kx: mpf, ky: mpf) -> mpf:
    signs = SIGNS[int(kx < 0 and m % 2 == 1), int(ky < 0 and n % 2 == 1)]
    k1, k2 = abs(ky), abs(kx)
    products = []
    for parity in (1, 0):
        gammas = []
        for i in range(parity, 2 * n, 2):
            if i == 0:
                gammas.append(2 * k1 + mp.log(mp.tanh(k2)))
            else:
                wave = mp.sinh(2 * k1) * mp.cos(mp.pi * i / n)
                gammas.append(mp.acosh((mp.cosh(2 * k1) * mp.cosh(2 * k2) - wave) / mp.sinh(2 * k2)))
        halves = [mp.exp(m * gamma / 2) for gamma in gammas]
        products += [mp.fprod(z + 1 / z for z in halves), mp.fprod(z - 1 / z for z in halves)]
    total = mp.fsum(sign * product for sign, product in zip(signs, products, strict=True))
    return mpf(m * n) / 2 * mp.log(2 * mp.sinh(2 * k2)) + mp.log(total / 2)


def accuracy(sizes: list[tuple[int, int]], couplings: list[tuple[float, float]], betas: list[float]) -> list[dict]:
    """Largest relative errors over the temperatures, for each size and pair of couplings."""
    rows = []
    for lx, ly in sizes:
        for jx, jy in couplings:
            worst = [0.0, 0.0, 0.0]
            for beta in betas:
                pairs = zip(kaufman.solve(lx, ly, jx, jy, beta), reference(lx, ly, jx, jy, beta), strict=True)
                worst = [max(w, float(abs(value / exact - 1))) for w, (value, exact) in zip(worst, pairs, strict=True)]
            errors = dict(zip(("log_z", "energy", "heat_capacity"), worst, strict=True))
            rows.append({"size": [lx, ly], "jx": jx, "jy": jy, **errors})
            print(f"{lx:>4}x{ly:<4} {jx:>5} {jy:>5}   {worst[0]:.1e}   {worst[1]:.1e}   {worst[2]:.1e}", flush=True)
    return rows


def seconds(length: int, beta: float, repeats: int) -> float:
    """Median wall time of one solution of a length x length lattice, after compilation."""
    kaufman.solve(4, 4, 1.0, 1.0, beta)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        kaufman.solve(length, length, 1.0, 1.0, beta)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--repeats", type=int, default=9, help="timings per temperature (default 9)")
    parser.add_argument("--largest", type=int, default=256, help="largest side to compare (default 256)")
    arguments = parser.parse_args()

    sizes = [size for size in SIZES if max(size) <= arguments.largest]
    couplings = [(1.0, 1.0), (1.0, 0.4), (-0.7, 1.0)]
    betas = [-2.0, -1.0, -CRITICAL_BETA, -0.1, 0.01, 0.3, CRITICAL_BETA, 0.44068679350978, 0.6, 1.0, 2.0]
    print("largest relative error, beta from -2 to 2\nsize        jx    jy     ln Z      energy    heat capacity")
    errors = accuracy(sizes, couplings, betas)
    print("\nseconds at 10^6 x 10^6 (target 0.1)")
    times = {str(beta): seconds(10**6, beta, arguments.repeats) for beta in (-0.6, 0.3, CRITICAL_BETA, 1.0)}
    for beta, elapsed in times.items():
        print(f"  beta {float(beta):8.5f}   {elapsed:.3f}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        result = {"accuracy": errors, "betas": betas, "seconds_at_one_million": times, "mpmath": mpmath.__version__}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
