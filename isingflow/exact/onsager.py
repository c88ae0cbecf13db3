"""The square lattice in the thermodynamic limit.

Onsager (1944): ln Z per site is the integral of Kaufman's modes over the momentum,

    ln Z / N = ln 2 + ln(cosh 2Kx cosh 2Ky) / 2 + (1/pi) integral_0^pi mu(k) dk,

and Yang (1952), Chang (1952): m = [1 - (sinh 2Kx sinh 2Ky)^-2]^(1/8). One quadrature serves all couplings; Onsager's
elliptic integrals for the isotropic lattice, which lose digits at low temperature, are its test.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from isingflow.exact import kaufman
from isingflow.lattice.checks import check_beta, check_product, check_strength


def solve(jx: float, jy: float, beta: float) -> tuple[float, float, float]:
    """Bonds jx along x and jy along y, of any sign, at any finite beta.

    Returns:
        per site: ln Z, energy -d ln Z/d beta, heat capacity beta^2 d^2 ln Z/d beta^2 (infinite at criticality).

    Raises:
        InvalidInput: a number that is not finite, or beta times the couplings overflows.

    Example:
        >>> log_z, energy, heat_capacity = solve(1.0, 1.0, critical_beta(1.0, 1.0))
        >>> round(log_z, 10), round(energy, 10)
        (0.9296953983, -1.4142135624)
    """
    beta, jx, jy = _checked(jx, jy, beta)
    k1, k2 = sorted((abs(beta * jx), abs(beta * jy)))
    if k1 < 1e-100:  # invisible, and products with it would underflow
        decay = math.exp(-2 * k2)
        energy = -k2 * math.tanh(k2) / beta if beta != 0 else 0.0
        return k2 + math.log1p(decay), energy, 4 * k2 * k2 * decay / (1 + decay) ** 2
    rigid = max(k1 - kaufman.RIGID, 0.0) + max(k2 - kaufman.RIGID, 0.0)
    k1, k2 = min(k1, kaufman.RIGID), min(k2, kaufman.RIGID)
    waves = kaufman.dispersion(k1, k2)
    bulk = kaufman.bulk_jet(k1, k2)
    width = min(math.sqrt(waves[2] / (2 * waves[0])) if waves[0] > 0 else 1.0, 1.0)
    log_z, first, second = (a + b for a, b in zip(bulk, _mean_mode(max(width, 1e-40), waves), strict=True))
    return log_z + rigid, -(first + rigid) / beta, max(second, 0.0) if width > 0 else math.inf


def _mean_mode(width: float, waves: tuple) -> list[float]:
    """(1/pi) integral of the jet of mu; k = width sinh(u) moves its singularity at k = 2i width to Im u = pi/2."""
    end = math.asinh(math.pi / width)
    panels = 1 + int(end / 4)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u = (np.arange(panels)[:, None] + (nodes + 1) / 2).ravel() * (end / panels)
    jets = np.array([kaufman.mode(k, waves)[0] for k in width * np.sinh(u)])
    measure = np.tile(weights, panels) * (end / panels / 2) * width * np.cosh(u)
    return [math.fsum(column) / math.pi for column in (jets * measure[:, None]).T]


def spontaneous_magnetisation(jx: float, jy: float, beta: float) -> float:
    """The magnetisation per site below criticality, 0 above; with negative bonds, the staggered one.

    Raises:
        InvalidInput: a number that is not finite, or beta times the couplings overflows.

    Example:
        >>> spontaneous_magnetisation(1.0, 1.0, 0.4), round(spontaneous_magnetisation(1.0, 1.0, 0.5), 6)
        (0.0, 0.911319)
    """
    beta, jx, jy = _checked(jx, jy, beta)
    order = 1.0
    for coupling in (abs(beta * jx), abs(beta * jy)):
        order *= math.sinh(min(2 * coupling, 350.0))
    return (1 - order**-2) ** 0.125 if order > 1 else 0.0


def critical_beta(jx: float, jy: float) -> float:
    """The positive root of sinh(2 beta |jx|) sinh(2 beta |jy|) = 1; infinite for uncoupled chains.

    Raises:
        InvalidInput: a coupling that is not finite.

    Example:
        >>> round(critical_beta(1.0, 1.0), 12), critical_beta(1.0, 0.0)
        (0.44068679351, inf)
    """
    weak, strong = sorted(abs(check_strength(name, value)) for name, value in (("jx", jx), ("jy", jy)))
    if weak == 0 or weak / strong == 0:
        return math.inf

    def distance(k: float) -> float:
        return _log_sinh(2 * k * (weak / strong)) + _log_sinh(2 * k)

    largest = min(0.5 * strong / weak, 400.0)  # beyond, sinh makes up for the smallest ratio that there is
    return float(brentq(distance, 0.4, largest, xtol=1e-300, rtol=4 * np.finfo(float).eps)) / strong


def _checked(jx: float, jy: float, beta: float) -> tuple[float, float, float]:
    beta, jx, jy = check_beta(beta), check_strength("jx", jx), check_strength("jy", jy)
    check_product(beta, abs(jx) + abs(jy))
    return beta, jx, jy


def _log_sinh(x: float) -> float:
    return x - math.log(2) + math.log(-math.expm1(-2 * x))
