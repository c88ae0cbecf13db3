"""Spins on the edge of a planar Ising model, as free fermions: what grows such a model bond by bond.

Their correlations are <s_1 s_2 ... s_2n> = Pf M, where the antisymmetric M_ij = <s_i s_j> for i before j around the
edge (Groeneveld, Boel & Kasteleyn 1978). So M and Z are all that needs to be known. With p = exp(-2 |K|) and the sign s
of K,

    a bond K between neighbours a, b of the edge:    Z -> Z e^|K| f,   f = [1 + p + s (1 - p) M_ab] / 2,
                                                     M_ij -> M_ij + s (1 - p) (M_ib M_ja - M_ia M_jb) / 2f,
    a new spin on a bond K in place of spin a:       Z -> Z e^|K| (1 + p),   M_ia -> M_ia s (1 - p) / (1 + p),
    a new spin v on a bond K beside spin a:          the same for a copy of a, between which M is 1 before,
    a spin that leaves the edge:                     its row and column of M are forgotten.

Every f is positive, and every M_ij is a correlation, at most 1. At low temperature frustration cancels digits in f. So
numbers are pairs of doubles (32 digits, Dekker 1971), a model is solved once more, in another order and with random
errors far above the rounding added to every M_ij, and where the two solutions differ the answer is refused. A "jet" is
the tuple (f, f', f'') of derivatives along a common factor of all couplings, K -> (1 + x) K at x = 0.
"""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np

from isingflow.exact.double_double import (
    add_jets,
    divide_jets,
    fast_two_sum,
    line,
    multiply_jets,
    two_product,
    two_sum,
)
from isingflow.exact.transfer_matrix import LONGEST
from isingflow.runtime.checks import number
from isingflow.runtime.compiled import compiled

WORK_LIMIT = 4e9
"""Most matrix entries updated by one solution."""

SECONDS = 4e-8
"""A matrix entry takes about as long, in both solutions."""

NOISE = np.random.default_rng(0).uniform(-1e-28, 1e-28, (3, 16384))
"""Relative errors of the jets of M in the second solution, thousands of times the rounding errors."""

AGREEMENT = 1e-10
"""How well the two solutions have to agree: ln Z and the mean relative to ln Z, the variance per site."""

DIGITS = 60
"""Decimal digits of what happens once per bond or once per lattice: exp(-2 |K|), the logarithm."""

Jet = tuple[float, float, float]


def work_limit(longest: float) -> float:
    """Most matrix entries updated by one solution that is to take no longer than this, in seconds, up to an hour."""
    return min(WORK_LIMIT, number("longest", longest, above=0, most=LONGEST) / SECONDS)


def agree(solution: Jet, check: Jet, spins: int) -> bool:
    """Whether two solutions (ln Z, mean, variance) of the same model are the same; not where one is NaN."""
    scales = abs(solution[0]), abs(solution[0]), spins
    return all(abs(a - b) <= AGREEMENT * scale for a, b, scale in zip(solution, check, scales, strict=True))


def penalties_of(strengths: np.ndarray) -> np.ndarray:
    """Jets of exp(-2 |K|), shape (3, 2, *strengths.shape), as pairs of doubles."""
    values, places = np.unique(strengths, return_inverse=True)
    pairs = np.empty((3, 2, len(values)))
    for i, exponent in enumerate(-2 * Decimal(value) for value in values.tolist()):
        term = exponent.exp()
        for order in range(3):
            pairs[order, 0, i] = term
            pairs[order, 1, i] = term - Decimal(pairs[order, 0, i])
            term *= exponent
    return pairs[:, :, places.reshape(strengths.shape)]


def exact(pairs: np.ndarray, exponent: int) -> np.ndarray:
    """The jet of decimals pairs * 2^exponent, from shape (3, 2)."""
    if not np.all(np.isfinite(pairs)):
        return np.full(3, Decimal("NaN"))
    return np.array([Decimal(high) + Decimal(low) for high, low in pairs.tolist()]) * Decimal(2) ** exponent


def logarithm(z: np.ndarray, spins: int, strengths: np.ndarray) -> Jet:
    """ln Z, and the mean and the variance of sum K s s, from the decimal jet of Z / (2^spins exp(sum |K|)).

    NaN where all digits are lost.
    """
    if z[0].is_nan() or z[0] <= 0:
        return math.nan, math.nan, math.nan
    ground = Decimal(math.fsum(np.abs(strengths).ravel()))
    mean = z[1] / z[0]
    log_z = z[0].ln() + spins * Decimal(2).ln() + ground
    return float(log_z), float(mean + ground), float(z[2] / z[0] - mean * mean)


# Kernels. Arrays start with the axes (derivative, word of the pair); row i of antisymmetric matrices holds j < i only.


@compiled
def bond(edge, stop, a, b, penalty, sign, room, noise, shift):
    """Add a bond between neighbours, a before b around the edge of `stop` legs; returns the jet of f."""
    if penalty[0] == (1.0, 0.0):
        return line(1.0, 0.0, penalty)
    u, v, scaled = room[0], room[1], room[2]
    column(edge, a, u)
    column(edge, b, v)
    u[0, 0, a], v[0, 0, b] = 1.0, -1.0  # as if bonded were copies of a and b beside them, between which M is 1
    correlation = get(v[:, :, a])
    broken = multiply_jets(penalty, line(1.0, -sign, correlation))
    f = line(0.0, 0.5, add_jets(line(1.0, sign, correlation), broken))
    scale(v, divide_jets(line(0.5 * sign, -0.5 * sign, penalty), f), scaled)
    update(edge, stop, scaled, u, noise, shift)
    return f


@compiled
def scale_leg(edge, k, factor):
    for i in range(edge.shape[2]):
        if i != k:
            row, column = max(i, k), min(i, k)
            put(edge[:, :, row, column], multiply_jets(factor, get(edge[:, :, row, column])))


@compiled
def column(matrix, k, out):
    """M_ik for all i."""
    for order in range(3):
        for word in range(2):
            for i in range(k):
                out[order, word, i] = -matrix[order, word, k, i]
            out[order, word, k] = 0.0
            for i in range(k + 1, matrix.shape[3]):
                out[order, word, i] = matrix[order, word, i, k]


@compiled
def scale(vector, factor, out):
    for i in range(vector.shape[2]):
        put(out[:, :, i], multiply_jets(factor, get(vector[:, :, i])))


@compiled
def update(matrix, stop, u, v, noise, shift):
    """Add u v^T - v u^T to the first rows and columns, by the product rule."""
    for order in range(3):
        for part in range(order + 1):
            weight = 2.0 if part == 1 and order == 2 else 1.0
            rank_two(matrix[order, 0], matrix[order, 1], stop, weight * u[part], v[order - part], noise[order], shift)


@compiled
def rank_two(high, low, stop, u, v, noise, shift):
    for i in range(1, stop):
        u_i, u_low, v_i, v_low = u[0, i], u[1, i], -v[0, i], -v[1, i]
        errors = noise[(shift + 379 * i) % (len(noise) // 2) :]
        for j in range(i):
            gain, lost_gain = two_product(u_i, v[0, j])
            loss, lost_loss = two_product(v_i, u[0, j])
            change, lost = two_sum(gain, loss)
            lost += lost_gain + lost_loss + (u_i * v[1, j] + u_low * v[0, j]) + (v_i * u[1, j] + v_low * u[0, j])
            total, lost_total = two_sum(high[i, j], change)
            high[i, j], low[i, j] = fast_two_sum(total, lost_total + (low[i, j] + lost) + errors[j] * total)


@compiled
def accumulate(product, factor):
    """Multiply in place, take out a power of 2 and return its exponent."""
    put(product, multiply_jets(get(product), factor))
    exponent = math.frexp(max(abs(product[0, 0]), abs(product[1, 0]), abs(product[2, 0])))[1]
    for order in range(3):
        for word in range(2):
            product[order, word] = math.ldexp(product[order, word], -exponent)
    return exponent


@compiled
def get(pairs):
    return (pairs[0, 0], pairs[0, 1]), (pairs[1, 0], pairs[1, 1]), (pairs[2, 0], pairs[2, 1])


@compiled
def put(pairs, jet):
    for order in range(3):
        pairs[order, 0], pairs[order, 1] = jet[order]
