"""The square and the triangular lattice in the thermodynamic limit.

Onsager (1944): ln Z per site is the integral of Kaufman's modes over the momentum,

    ln Z / N = ln 2 + ln(cosh 2Kx cosh 2Ky) / 2 + (1/pi) integral_0^pi mu(k) dk,

and Yang (1952), Chang (1952): m = [1 - (sinh 2Kx sinh 2Ky)^-2]^(1/8). One quadrature serves all couplings; Onsager's
elliptic integrals for the isotropic lattice, which lose digits at low temperature, are its test.

Houtappel (1950): on the triangular lattice it is ln 2 + <ln D(k)> / 2, the factors D of `exact.triangular` averaged
over both momenta. Over k_y they run between f and g, and <ln D> is that of 2 ln[(sqrt f + sqrt g) / 2].
"""

from __future__ import annotations

import math

import numpy as np

from isingflow.exact import kaufman
from isingflow.exact.triangular import polynomial
from isingflow.lattice.checks import check_beta, check_product, check_strength


def solve(jx: float, jy: float, beta: float) -> tuple[float, float, float]:
    """Bonds jx along x and jy along y, of any sign, at any finite beta.

    Returns:
        per site: ln Z, energy -d ln Z/d beta, heat capacity beta^2 d^2 ln Z/d beta^2 (infinite at criticality).

    Raises:
        InvalidInput: a number that is not finite, or beta times the couplings overflows.

    Example:
        >>> log_z, energy, heat_capacity = solve(1.0, 1.0, math.log(1 + math.sqrt(2)) / 2)
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
    u, weights = _panels(math.asinh(math.pi / width))
    jets = np.array([kaufman.mode(k, waves)[0] for k in width * np.sinh(u)])
    measure = weights * width * np.cosh(u)
    return [math.fsum(column) / math.pi for column in (jets * measure[:, None]).T]


def triangular(beta: float, coupling: float = 1.0) -> tuple[float, float, float]:
    """The triangular lattice with all bonds of one strength, frustrated if that is negative, at any finite beta.

    Returns:
        per site: ln Z, energy -d ln Z/d beta, heat capacity beta^2 d^2 ln Z/d beta^2 (infinite at criticality).

    Raises:
        InvalidInput: a number that is not finite, or beta times the couplings overflows.

    Example:
        >>> log_z, energy, _ = triangular(math.log(3) / 4)
        >>> round(log_z, 10), round(energy, 10)
        (0.8795853862, -2.0)
    """
    beta, coupling = check_beta(beta), check_strength("coupling", coupling)
    check_product(beta, 3 * abs(coupling))
    k = beta * coupling
    soft, width = _soft_mode(k)
    log_z, first, second = _mean_triangular(k, soft, max(width, 1e-40)) if k else (math.log(2), 0.0, 0.0)
    ground = 3 * k if k > 0 else -k
    energy = -(first + ground) / beta if beta else 0.0
    return log_z + (ground if k else 0.0), energy, max(second, 0.0) if width > 0 else math.inf


def _soft_mode(k: float) -> tuple[float, float]:
    """The momentum at which f is smallest, and within which distance of it f changes."""
    decay = math.exp(-4 * abs(k))
    if k > 0:
        return 0.0, min(abs(1 - 3 * decay) / math.sqrt(1.5 * max(decay * (1 - decay), 1e-300)), 1.0)
    return 2 * math.pi / 3, min(math.sqrt((decay + 3) * decay / 0.75), 1.0)


def _mean_triangular(k: float, soft: float, width: float) -> list[float]:
    """(1/2 pi) integral over 0 < k_x < pi of the jet of 2 ln[(sqrt f + sqrt g) / 2], left and right of k_x = soft."""
    total = np.zeros(3)
    for direction, reach in ((-1.0, soft), (1.0, math.pi - soft)):
        if reach == 0:
            continue
        u, measure = _panels(math.asinh(reach / width))
        distance = direction * width * np.sinh(u)
        near = np.cos((soft + distance) / 2)
        if k > 0:
            far_less = 2 * np.sin(distance / 4) ** 2  # 1 - near
            least, most = 2 * far_less * (2 + near), 2 * (2 - near) * (1 + near)
        else:
            less = -2 * np.sin(distance / 4) ** 2 - math.sqrt(3) * np.sin(distance / 2)  # 2 near - 1
            least, most = less**2 / 2, (2 * near + 1) ** 2 / 2
        jets = _log_mean(_root(polynomial(least, k)), _root(polynomial(most, k)))
        total += np.array([math.fsum(part * measure * width * np.cosh(u)) for part in jets])
    return (total / (2 * math.pi)).tolist()


Jets = tuple[np.ndarray, np.ndarray, np.ndarray]


def _root(f: Jets) -> Jets:
    root = np.sqrt(f[0])
    slope = f[1] / (2 * root)
    return root, slope, (f[2] / 2 - slope * slope) / root


def _log_mean(f: Jets, g: Jets) -> Jets:
    """2 ln[(f + g) / 2]."""
    value, first, second = (a + b for a, b in zip(f, g, strict=True))
    slope = first / value
    return 2 * np.log(value / 2), 2 * slope, 2 * (second / value - slope * slope)


def _panels(end: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss and Legendre between 0 and `end`, in panels of length 4 at most."""
    panels = 1 + int(end / 4)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u = (np.arange(panels)[:, None] + (nodes + 1) / 2).ravel() * (end / panels)
    return u, np.tile(weights, panels) * (end / panels / 2)


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


def _checked(jx: float, jy: float, beta: float) -> tuple[float, float, float]:
    beta, jx, jy = check_beta(beta), check_strength("jx", jx), check_strength("jy", jy)
    check_product(beta, abs(jx) + abs(jy))
    return beta, jx, jy
