"""Narrow square lattices with arbitrary bonds and fields, solved by a transfer matrix.

The Boltzmann weights of a row of W spins are a vector over its 2^W states, and the next row is added one site at a time
(a sparse step, 2^W operations). Open or periodic around the row; open along the strip, or closed by the trace over the
first row's states. Every bond contributes exp|K| times 1 where it is satisfied, exp(-2|K|) where not, and a field on a
site likewise. The derivatives of the vector along a common factor of all bonds and fields travel with it, where there
are fields the one along a constant added to them too, and vector and derivatives are normalised at every row, so the
heat capacity is not a difference of large numbers and nothing overflows.
"""

from __future__ import annotations

import math

import numpy as np

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.lattice.checks import STRONGEST
from isingflow.runtime.checks import array, number
from isingflow.runtime.compiled import compiled
from isingflow.runtime.resources import duration

OPEN_WIDTH_LIMIT = 16
"""Widest strip with open ends."""

PERIODIC_WIDTH_LIMIT = 10
"""Widest strip that closes on itself: all states of the first row are followed."""

SECONDS = 1.2e-8
"""An operation takes about as long."""

LONGEST = 3600.0
"""Seconds, as estimated, that a solution may take."""


def solve(kx: np.ndarray, ky: np.ndarray) -> tuple[float, float, float]:
    """ln Z of a square lattice with arbitrary bonds; an open boundary is a last row of kx (column of ky) of zeros.

    Args:
        kx, ky: couplings, shape (lx, ly): kx[x, y] couples (x, y) to (x+1, y), ky[x, y] couples (x, y) to (x, y+1),
            indices modulo the sides.

    Returns:
        ln Z, and the mean and the variance of x(s) = sum over bonds K s s. With K = beta J, the energy -d ln Z/d beta
        is -mean / beta and the heat capacity is the variance.

    Raises:
        InvalidInput: kx and ky are not finite arrays of one shape.
        NoExactSolution: the strip is too wide, or so long that it would take more than an hour, or the couplings are so
            strong that exp(-2 |K|) underflows.

    Example:
        >>> log_z, mean, variance = solve(np.zeros((3, 2)), np.array([[0.5, 0.0]] * 3))
        >>> bool(np.isclose(log_z, 3 * np.log(4 * np.cosh(0.5))))
        True
    """
    return polarised(kx, ky)[:3]


def polarised(
    kx: np.ndarray, ky: np.ndarray, fields: np.ndarray | None = None
) -> tuple[float, float, float, float | None]:
    """What `solve` gives, with fields on the sites, and the mean of sum_i s_i; None for that without fields.

    Args:
        kx, ky: as for `solve`.
        fields: h, shape (lx, ly), each adding h s to x(s); or None.

    Raises:
        InvalidInput, NoExactSolution: as for `solve`.

    Example:
        >>> log_z, mean, variance, total = polarised(*np.zeros((2, 3, 2)), np.full((3, 2), 0.5))
        >>> bool(np.isclose(log_z, 6 * np.log(2 * np.cosh(0.5)))), bool(np.isclose(total, 6 * np.tanh(0.5)))
        (True, True)
    """
    kx, ky = grid_couplings(kx, ky)
    h = None if fields is None else array("fields", fields, kx.shape, most=STRONGEST)
    orientations = [(kx, ky, h), (ky.T, kx.T, None if h is None else h.T)]
    costs = [_cost(along, h is not None) for along, *_ in orientations]
    if math.inf > min(costs) * SECONDS > LONGEST:
        raise NoExactSolution(
            f"{kx.shape[0]}x{kx.shape[1]} would take the transfer matrix about {duration(min(costs) * SECONDS)}; "
            f"possible are shorter strips, of at most {duration(LONGEST)}"
        )
    if min(costs) == math.inf:
        raise NoExactSolution(
            f"{kx.shape[0]}x{kx.shape[1]} is too wide for the transfer matrix: possible are strips of "
            f"width up to {OPEN_WIDTH_LIMIT} with open ends, up to {PERIODIC_WIDTH_LIMIT} if they close on themselves"
        )
    along, around, tilts = orientations[int(np.argmin(costs))]
    bonds = np.ascontiguousarray(along), np.ascontiguousarray(around)
    tilts = np.zeros((0, 0)) if tilts is None else np.ascontiguousarray(tilts)
    log_z, mean, variance, total = _strip(*bonds, tilts, bool(np.any(along[-1])))
    if not math.isfinite(log_z):
        raise NoExactSolution("the couplings are too strong for the transfer matrix: exp(-2 |K|) underflows")
    ground = float(np.abs(kx).sum() + np.abs(ky).sum() + np.abs(tilts).sum())
    return log_z + ground, mean + ground, variance, None if h is None else total


def affordable(kx: np.ndarray, ky: np.ndarray, fields: bool = False, longest: float = LONGEST) -> bool:
    """Whether a strip of these bonds is narrow and short enough, along x or along y; with fields it takes longer.

    Args:
        kx, ky: as for `solve`.
        fields: whether there are any.
        longest: seconds, as estimated, that it may take.

    Raises:
        InvalidInput: kx and ky are not finite arrays of one shape, or longest is no time up to an hour.

    Example:
        >>> affordable(np.ones((12, 20)), np.ones((12, 20)))
        False
    """
    kx, ky = grid_couplings(kx, ky)
    longest = number("longest", longest, above=0, most=LONGEST)
    return min(_cost(kx, fields), _cost(ky.T, fields)) * SECONDS <= longest


def grid_couplings(kx: np.ndarray, ky: np.ndarray, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Couplings along both axes, as float64 of one shape (lx, ly), sides of at least `least`.

    Raises:
        InvalidInput: they are not, or not finite; WrongType: no real numbers.

    Example:
        >>> grid_couplings([[1, 2]], [[3, 4]])[1]
        array([[3., 4.]])
    """
    kx = array("kx", kx, (None, None), most=STRONGEST)
    ky = array("ky", ky, kx.shape, most=STRONGEST)
    if min(kx.shape) < least:
        raise InvalidInput(f"kx and ky have shape {kx.shape}, expected sides of at least {least}")
    return kx, ky


def _cost(along: np.ndarray, fields: bool) -> float:
    """Operations for a strip with the bonds `along` its length; infinite if not affordable.

    With fields, the spin flip does not halve the number of first rows, and there is a fourth vector.
    """
    width = along.shape[1]
    closed = bool(np.any(along[-1]))
    if width > (PERIODIC_WIDTH_LIMIT if closed else OPEN_WIDTH_LIMIT):
        return math.inf
    return along.size * 2.0 ** (width + (width - 1 if closed else 0)) * (8 / 3 if fields else 1)


@compiled
def _strip(along, around, fields, closed):
    """Jet of ln Z from sum |K|, and its derivative along a constant field.

    The vector's rows are its value, first and second derivative and, where there are fields, the one along them all.
    """
    length, width = along.shape
    states = 1 << width
    tilted = fields.size > 0
    starts = (states if tilted else states // 2) if closed else 1
    rows = 4 if tilted else 3
    logs = np.zeros((starts, 4))
    vector = np.empty((rows, states))
    for start in range(starts):
        vector[:] = 0.0
        vector[0] = 0.0 if closed else 1.0
        if closed:
            vector[0, start] = 1.0
        log_jet = np.zeros(4)
        for row in range(length):
            if row > 0:
                for site in range(width):
                    _advance(vector, site, along[row - 1, site])
            for site in range(width):
                weigh(vector, site, (site + 1) % width, around[row, site])
                if tilted:
                    tilt(vector, site, fields[row, site])
            normalise(vector, log_jet)
        if closed:
            for site in range(width):
                _advance(vector, site, along[length - 1, site])
            vector[:, 0] = vector[:, start]
            vector[:, 1:] = 0.0
            normalise(vector, log_jet)
        logs[start] = log_jet
    largest = np.max(logs[:, 0])
    weights = np.exp(logs[:, 0] - largest)
    total = np.sum(weights)
    reference = logs[np.argmax(logs[:, 0]), 1]
    mean = np.sum(weights * (logs[:, 1] - reference)) / total
    second = np.sum(weights * (logs[:, 2] + (logs[:, 1] - reference - mean) ** 2)) / total
    along_fields = np.sum(weights * logs[:, 3]) / total
    return largest + math.log(2 * total if closed and not tilted else total), reference + mean, second, along_fields


@compiled
def _advance(vector, site, k):
    """Replace a spin by its neighbour in the next row, summing over the old one."""
    penalty = math.exp(-2 * abs(k))
    slope, bend = -2 * abs(k) * penalty, 4 * k * k * penalty
    bit = 1 << site
    swap = k < 0
    for state in range(vector.shape[1]):
        if state & bit == 0:
            partner = state | bit
            up, down = (partner, state) if swap else (state, partner)
            a, a1, a2 = vector[0, up], vector[1, up], vector[2, up]
            b, b1, b2 = vector[0, down], vector[1, down], vector[2, down]
            vector[0, state], vector[0, partner] = a + penalty * b, b + penalty * a
            vector[1, state] = a1 + penalty * b1 + slope * b
            vector[1, partner] = b1 + penalty * a1 + slope * a
            vector[2, state] = a2 + penalty * b2 + 2 * slope * b1 + bend * b
            vector[2, partner] = b2 + penalty * a2 + 2 * slope * a1 + bend * a
            for row in range(3, len(vector)):
                a, b = vector[row, up], vector[row, down]
                vector[row, state], vector[row, partner] = a + penalty * b, b + penalty * a


@compiled
def weigh(vector, site, other, k):
    """Multiply by the weight of a bond within the row."""
    if k == 0:
        return
    penalty = math.exp(-2 * abs(k))
    slope = -2 * abs(k)
    bend = slope * slope
    for state in range(vector.shape[1]):
        aligned = (state >> site) & 1 == (state >> other) & 1
        if aligned == (k < 0):
            value, first, second = vector[0, state], vector[1, state], vector[2, state]
            vector[0, state] = penalty * value
            vector[1, state] = penalty * (first + slope * value)
            vector[2, state] = penalty * (second + 2 * slope * first + bend * value)
            for row in range(3, len(vector)):
                vector[row, state] *= penalty


@compiled
def tilt(vector, site, h):
    """Multiply by the weight of the field on a site, in a row of spins whose set bits are up."""
    penalty = math.exp(-2 * abs(h))
    slope = -2 * abs(h)
    bend = slope * slope
    for state in range(vector.shape[1]):
        up = (state >> site) & 1 == 1
        vector[3, state] += vector[0, state] if up else -vector[0, state]
        if up == (h < 0):
            value, first, second = vector[0, state], vector[1, state], vector[2, state]
            vector[0, state] = penalty * value
            vector[1, state] = penalty * (first + slope * value)
            vector[2, state] = penalty * (second + 2 * slope * first + bend * value)
            vector[3, state] *= penalty


@compiled
def normalise(vector, log_jet):
    """Divide by the jet of the vector's sum, whose logarithm joins log_jet."""
    total = np.sum(vector[0])
    if total == 0:
        log_jet[0] = -np.inf
        return
    mean = np.sum(vector[1]) / total
    second = np.sum(vector[2]) / total
    slant = 0.0
    for row in range(3, len(vector)):
        slant = np.sum(vector[row]) / total
        log_jet[3] += slant
    log_jet[0] += math.log(total)
    log_jet[1] += mean
    log_jet[2] += second - mean * mean
    for state in range(vector.shape[1]):
        value = vector[0, state] / total
        for row in range(3, len(vector)):
            vector[row, state] = vector[row, state] / total - slant * value
        first = vector[1, state] / total - mean * value
        vector[2, state] = vector[2, state] / total - 2 * mean * first - second * value
        vector[0, state], vector[1, state] = value, first
