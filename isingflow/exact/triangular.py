"""The triangular lattice solved exactly: tori of any lengths, and the pieces of the infinite one.

On a torus momenta are good quantum numbers of the four determinants that Kac and Ward's even subgraphs come to, one for
each choice of a sign around x and around y (periodic P, antiperiodic A; Houtappel 1950, Potts & Ward 1955):

    Z = 2^N [Z_AA + Z_AP + Z_PA - Z_PP] / 2,    Z_S = prod over k in S of D(k)^(1/2),
    D(k) = C^3 + S^3 - S [cos k_x + cos k_y + cos(k_x + k_y)],    C = cosh 2K, S = sinh 2K.

Momenta k and -k give the same factor, and D is the square of a polynomial where they agree: at k = 0 of one that is
negative below the critical temperature of the ferromagnet, elsewhere of a positive one. Two forms show every digit,

    K > 0:  4 e^(-6K) D = (1 - 3p)^2 + 2 p (1 - p) w,      p = e^(-4K), w = 3 - sum of the cosines >= 0,
    K < 0:  4 e^(2K) D = q^2 + 3 q + 2 (1 - q) w,          q = e^(4K),  w = 3/2 + sum of the cosines >= 0:

w vanishes where the ferromagnet and the frustrated antiferromagnet have their soft modes.
"""

from __future__ import annotations

import math

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.lattice.checks import MAX_SITES, check_strength
from isingflow.runtime import stopping
from isingflow.runtime.checks import count

Jet = tuple[float, float, float]

CANCELLED = 1e3
"""How much larger than Z its four terms may be: more would cost digits that are promised."""
AT_ONCE = 2**18
"""Momenta whose factors are computed at once."""


def solve(lx: int, ly: int, coupling: float) -> Jet:
    """ln Z of the periodic triangular lattice, whose bonds are those of `lattice.triangular`: double at length 2.

    Args:
        lx, ly: lengths, at least 2.
        coupling: K of every bond, of either sign.

    Returns:
        ln Z, and the mean and the variance of x(s) = sum over bonds K s s. With K = beta J, the energy -d ln Z/d beta
        is -mean / beta and the heat capacity is the variance.

    Raises:
        InvalidInput: no such numbers; NoExactSolution: more than 4096x4096 sites, or a cold antiferromagnet on a torus
            that is so long that its four terms cancel.

    Example:
        >>> log_z, mean, variance = solve(3, 3, -0.4)
        >>> round(log_z, 10), round(mean, 10), round(variance, 10)
        (7.7680858136, 2.7315824837, 1.6927502255)
    """
    lx, ly = count("lx", lx, least=2), count("ly", ly, least=2)
    coupling = check_strength("coupling", coupling)
    if lx * ly > MAX_SITES:
        raise NoExactSolution(f"a triangular lattice of {lx}x{ly} is too large: up to {MAX_SITES} sites are possible")
    choices = [(around_x, around_y) for around_x in (1, 0) for around_y in (1, 0)]
    sectors = [_sector(lx, ly, around_x, around_y, coupling) for around_x, around_y in choices]
    largest, slope, _ = max(sectors)
    factors = [(1.0, 0.0, 0.0)] * 3 + [_zero_mode(coupling)]
    total = np.zeros(3)
    for (value, first, second), factor in zip(sectors, factors, strict=True):
        weight, lead = math.exp(value - largest), first - slope
        total += weight * np.array(_product((1.0, lead, second + lead * lead), factor))
    if not total[0] * CANCELLED >= 1:
        raise NoExactSolution(
            f"a triangular lattice of {lx}x{ly} at beta J = {coupling:g}: the terms of its partition function cancel; "
            "possible are higher temperatures, lengths that are closer to each other, or multiples of 3"
        )
    mean = total[1] / total[0]
    ground = lx * ly * (3 * coupling if coupling > 0 else -coupling)
    return (
        float(ground + largest + math.log(total[0] / 2)),
        float(ground + slope + mean),
        max(float(total[2] / total[0] - mean * mean), 0.0),
    )


def _weight(k_x: np.ndarray, k_y: np.ndarray, coupling: float) -> np.ndarray:
    """w at momenta that broadcast, without cancellation: of the ferromagnet or of the antiferromagnet."""
    if coupling > 0:
        return 2 * (np.sin(k_x / 2) ** 2 + np.sin(k_y / 2) ** 2 + np.sin((k_x + k_y) / 2) ** 2)
    return np.abs(1 + np.exp(1j * k_x) + np.exp(-1j * k_y)) ** 2 / 2


def polynomial(w: np.ndarray, coupling: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The jet of 4 e^(-6K) D, or 4 e^(2K) D of the antiferromagnet, along a factor of K."""
    slope = -4 * abs(coupling)
    if coupling > 0:
        p = math.exp(slope)
        first = p * (2 * (1 - 2 * p) * w - 6 * (1 - 3 * p))
        return (1 - 3 * p) ** 2 + 2 * p * (1 - p) * w, slope * first, slope**2 * (first + p * p * (18 - 4 * w))
    q = math.exp(slope)
    first = q * (2 * q + 3 - 2 * w)
    return q * q + 3 * q + 2 * (1 - q) * w, slope * first, slope**2 * (first + 2 * q * q)


def _sector(lx: int, ly: int, around_x: int, around_y: int, coupling: float) -> Jet:
    """The jet of the sum of ln(4 e^(-6K) D) / 2, or with e^(2K); of a ferromagnet, without k = 0."""
    k_y = 2 * np.pi * (np.arange(ly) + around_y / 2) / ly
    rows = max(1, AT_ONCE // ly)
    parts = []
    for start in range(0, lx, rows):
        stopping.check()
        k_x = 2 * np.pi * (np.arange(start, min(start + rows, lx)) + around_x / 2) / lx
        value, first, second = polynomial(_weight(k_x[:, None], k_y, coupling), coupling)
        if coupling > 0 and start == around_x == around_y == 0:
            value[0, 0], first[0, 0], second[0, 0] = 1.0, 0.0, 0.0
        value = np.maximum(value, np.finfo(float).tiny)
        slope = first / value
        parts.append([np.log(value).sum(), slope.sum(), (second / value - slope * slope).sum()])
    total = [math.fsum(column) / 2 for column in zip(*parts, strict=True)]
    return total[0], total[1], total[2]


def _zero_mode(coupling: float) -> Jet:
    """The jet of the factor of -Z_PP that is not in `_sector`: 1 - 3p of a ferromagnet."""
    if coupling <= 0:
        return -1.0, 0.0, 0.0
    p = math.exp(-4 * coupling)
    return 1 - 3 * p, 12 * coupling * p, -48 * coupling**2 * p


def _product(f: Jet, g: Jet) -> Jet:
    return f[0] * g[0], f[1] * g[0] + f[0] * g[1], f[2] * g[0] + 2 * f[1] * g[1] + f[0] * g[2]
