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


def solve(jx: float, jy: float, beta: float) -> tuple[float, float, float]:
    """Bonds jx along x and jy along y, of any sign, at any finite beta.

    Returns:
        per site: ln Z, energy -d ln Z/d beta, heat capacity beta^2 d^2 ln Z/d beta^2 (infinite at criticality).

    Example:
        >>> log_z, energy, heat_capacity = solve(1.0, 1.0, critical_beta(1.0, 1.0))
        >>> round(log_z, 10), round(energy, 10)
        (0.9296953983, -1.4142135624)
    """
    k1, k2 = sorted((abs(beta * jx), abs(beta * jy)))
    if k1 == 0:
        decay = math.exp(-2 * k2)
        energy = -k2 * math.tanh(k2) / beta if beta != 0 else 0.0
        return k2 + math.log1p(decay), energy, 4 * k2 * k2 * decay / (1 + decay) ** 2
    waves = kaufman.dispersion(k1, k2)
    bulk = kaufman.bulk_jet(k1, k2)
    width = min(math.sqrt(waves[2] / (2 * waves[0])) if waves[0] > 0 else 1.0, 1.0)
    log_z, first, second = (a + b for a, b in zip(bulk, _mean_mode(max(width, 1e-200), waves), strict=True))
    return log_z, -first / beta, max(second, 0.0) if width > 0 else math.inf


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

    Example:
        >>> spontaneous_magnetisation(1.0, 1.0, 0.4), round(spontaneous_magnetisation(1.0, 1.0, 0.5), 6)
        (0.0, 0.911319)
    """
    order = 1.0
    for coupling in (abs(beta * jx), abs(beta * jy)):
        order *= math.sinh(min(2 * coupling, 350.0))
    return (1 - order**-2) ** 0.125 if order > 1 else 0.0


def critical_beta(jx: float, jy: float) -> float:
    """The positive root of sinh(2 beta |jx|) sinh(2 beta |jy|) = 1; infinite for uncoupled chains.

    Example:
        >>> round(critical_beta(1.0, 1.0), 12), critical_beta(1.0, 0.0)
        (0.44068679351, inf)
    """
    weak, strong = sorted((abs(jx), abs(jy)))
    if weak == 0:
        return math.inf

    def distance(beta: float) -> float:
        return _log_sinh(2 * beta * weak) + _log_sinh(2 * beta * strong)

    return float(brentq(distance, 0.4 / strong, 0.5 / weak, xtol=1e-300, rtol=4 * np.finfo(float).eps))


def _log_sinh(x: float) -> float:
    return x - math.log(2) + math.log(-math.expm1(-2 * x))
