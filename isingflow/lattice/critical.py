"""The inverse temperature at which the infinite lattice of the same couplings has its transition, where that is known.

On the square lattice sinh(2 beta |jx|) sinh(2 beta |jy|) = 1 (Onsager 1944); on the triangular one beta = ln 3 / 4
(Houtappel 1950); on the simple cubic one it is known by Monte Carlo. Negative couplings along an axis are positive ones
for spins of which every other is turned over, if that goes around a torus: along lengths that are open or even.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from isingflow.errors import InvalidInput
from isingflow.lattice.checks import check_strength
from isingflow.lattice.graph import CRITICAL_BETA, Lattice
from isingflow.runtime.checks import instance

TRIANGULAR = math.log(3.0) / 4.0
CUBIC = 0.22165463
"""Of the simple cubic lattice, 0.221654626(5)."""
SOURCES = {
    "square": "Onsager 1944, sinh(2 beta jx) sinh(2 beta jy) = 1",
    "triangular": "Houtappel 1950, ln 3 / 4",
    "cubic": "by Monte Carlo: Ferrenberg, Xu and Landau 2018",
}
KNOWN = (
    "known are square lattices of one jx and one jy, triangular lattices, and cubic ones whose couplings are 1; give "
    "beta or a temperature"
)


class Critical(NamedTuple):
    """A critical inverse temperature, and where it is from."""

    value: float
    source: str


def critical_beta(lattice: Lattice) -> Critical:
    """The critical inverse temperature of the infinite lattice, for a finite one with the same couplings.

    Boundaries and external fields do not change it: an open lattice gets the value of the infinite one, and one in a
    field that without the field; the source says so.

    Args:
        lattice: square with one coupling along each axis, triangular, or cubic with couplings of 1.

    Raises:
        InvalidInput: nothing is known for such a lattice: glasses, graphs, couplings that vary or frustrate it, chains.
        WrongType: no lattice.

    Example:
        >>> from isingflow.lattice import square, triangular
        >>> critical_beta(square(16)).value == CRITICAL_BETA, round(critical_beta(square(8, jy=0.5)).value, 6)
        (True, 0.609378)
        >>> critical_beta(triangular(6, boundary="open")).source
        'Houtappel 1950, ln 3 / 4, of the infinite lattice'
    """
    kind, value = _of_couplings(instance("lattice", lattice, Lattice, "a Lattice, for example square(16)"))
    source = SOURCES[kind]
    if lattice.boundary != "periodic":
        source += ", of the infinite lattice"
    if lattice.field is not None:
        source += ", without the field"
    return Critical(value, source)


def is_critical(lattice: Lattice, beta: float) -> bool:
    """Whether this is the critical inverse temperature of a lattice, as far as known, and no field is applied.

    Example:
        >>> from isingflow.lattice import edwards_anderson, triangular
        >>> is_critical(triangular(6), math.log(3) / 4), is_critical(edwards_anderson(6, seed=0), 0.5)
        (True, False)
    """
    instance("lattice", lattice, Lattice, "a Lattice, for example square(16)")
    try:
        return lattice.field is None and beta == critical_beta(lattice).value
    except InvalidInput:
        return False


def anisotropic(jx: float, jy: float) -> float:
    """The positive root of sinh(2 beta |jx|) sinh(2 beta |jy|) = 1; infinite for uncoupled chains.

    Raises:
        InvalidInput: a coupling that is not finite.

    Example:
        >>> anisotropic(1.0, 1.0) == CRITICAL_BETA, anisotropic(1.0, 0.0)
        (True, inf)
    """
    weak, strong = sorted(abs(check_strength(name, value)) for name, value in (("jx", jx), ("jy", jy)))
    if weak == 0 or weak / strong == 0:
        return math.inf
    if weak == strong:
        return CRITICAL_BETA / strong
    ratio = weak / strong
    low, high = 0.4, min(0.5 / ratio, 400.0)  # beyond, sinh makes up for the smallest ratio that there is
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle / strong
        if _log_sinh(2 * middle * ratio) + _log_sinh(2 * middle) < 0:
            low = middle
        else:
            high = middle


def _of_couplings(lattice: Lattice) -> tuple[str, float]:
    """The kind of the infinite lattice, and its critical inverse temperature."""
    if lattice.kind == "triangular":
        return "triangular", TRIANGULAR
    if lattice.kind == "hypercubic" and len(lattice.shape) == 1:
        raise _unknown(lattice, "chains have no transition above zero temperature")
    if lattice.kind == "hypercubic" and (lattice.strengths == 1).all():
        if len(lattice.shape) == 2:
            return "square", CRITICAL_BETA
        if len(lattice.shape) == 3:
            return "cubic", CUBIC
    if lattice.kind != "square" or lattice.uniform is None:
        raise _unknown(lattice, "no critical temperature is known for it")
    for axis, coupling, length, opened in zip("xy", lattice.uniform, lattice.shape, lattice.open_axes, strict=True):
        if coupling < 0 and not opened and length % 2:
            raise _unknown(lattice, f"rings of {length} negative couplings along {axis} are frustrated")
    value = anisotropic(*lattice.uniform)
    if not math.isfinite(value):
        raise _unknown(lattice, "chains have no transition above zero temperature")
    return "square", value


def _unknown(lattice: Any, why: str) -> InvalidInput:
    return InvalidInput(f"no critical point for the lattice {lattice}: {why}; {KNOWN}")


def _log_sinh(x: float) -> float:
    return x - math.log(2) + math.log(-math.expm1(-2 * x))
