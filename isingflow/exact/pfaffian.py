"""Square lattices with any couplings, spin glasses too: planar ones by one sweep, tori by four Pfaffians.

A planar lattice grows bond by bond, its edge a set of free fermions (`exact.fermions`). A cylinder is planar as well:
its rows close, and once around the edge a fermion changes sign.

A torus is an open lattice that keeps copies (legs) of all spins of its edge, and is then joined pair by pair across its
boundaries. A choice S of n_x joins along x and n_y along y crosses itself n_x n_y times. Kasteleyn's four signs mend
that: with the weights of the joins, G(u, v) = sum over S of (-1)^(n_x n_y) u^n_x v^n_y <legs of S> is one Pfaffian, and

    Z = Z_open [G(+,+) + G(-,+) + G(+,-) - G(-,-)] / 2.

At low temperature frustration cancels digits, both in the growth and between the G: both are done with 32 digits, and
twice. "Jets" are derivatives along a common factor of all couplings.
"""

from __future__ import annotations

import decimal
import math

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact.double_double import add_jets, divide_jets, line, negative
from isingflow.exact.fermions import (
    DIGITS,
    NOISE,
    SECONDS,
    accumulate,
    agree,
    bond,
    column,
    exact,
    get,
    logarithm,
    penalties_of,
    put,
    scale,
    scale_leg,
    update,
    work_limit,
)
from isingflow.exact.transfer_matrix import LONGEST, grid_couplings
from isingflow.runtime.compiled import compiled
from isingflow.runtime.resources import duration

LARGEST = "256x256 (open) or 160x160 (periodic)"
"""What the limit of work comes to."""
SITE_LIMIT = 256 * 256
"""No lattice with more sites is worth a closer look."""


def solve(kx: np.ndarray, ky: np.ndarray, longest: float = LONGEST) -> tuple[float, float, float]:
    """ln Z of a square lattice with arbitrary bonds; an open boundary is a last row of kx (column of ky) of zeros.

    Args:
        kx, ky: couplings, shape (lx, ly), sides of at least 2: kx[x, y] couples (x, y) to (x+1, y), ky[x, y] couples
            (x, y) to (x, y+1), indices modulo the sides.
        longest: seconds, as estimated, that it may take; never more than a few minutes.

    Returns:
        ln Z, and the mean and the variance of x(s) = sum over bonds K s s. With K = beta J, the energy -d ln Z/d beta
        is -mean / beta and the heat capacity is the variance.

    Raises:
        InvalidInput: kx and ky are not finite arrays of one such shape.
        NoExactSolution: the lattice is too large, or so cold and frustrated that 32 digits do not suffice (+-J glasses
            up to 64 x 64 have an answer to beta J = 4, often to 5).

    Example:
        >>> from isingflow.lattice import edwards_anderson
        >>> glass = edwards_anderson(16, seed=1)
        >>> log_z, mean, variance = solve(glass.jx, glass.jy)
        >>> round(log_z, 9), round(mean, 9), round(variance, 9)
        (385.443922216, 333.897764354, 89.066569535)
    """
    kx, ky = grid_couplings(kx, ky, least=2)
    orientations = [(kx, ky), (ky.T, kx.T)]
    costs = [_work(*orientation) for orientation in orientations]
    if min(costs) > work_limit(longest):
        raise NoExactSolution(
            f"{kx.shape[0]}x{kx.shape[1]} is too large for Pfaffians with arbitrary bonds: it would take about "
            f"{duration(min(costs) * SECONDS)}; possible are sizes up to about {LARGEST}"
        )
    along, around = orientations[int(np.argmin(costs))]
    solution = _solve(along, around, 0 * NOISE)
    check = _solve(np.roll(along[::-1, ::-1], -1, 0), np.roll(around[::-1, ::-1], -1, 1), NOISE)
    if not agree(solution, check, kx.size):
        raise NoExactSolution(
            f"{kx.shape[0]}x{kx.shape[1]} is too cold for Pfaffians with these bonds: frustration cancels more than "
            "32 digits; possible are higher temperatures"
        )
    return solution


def _work(along: np.ndarray, around: np.ndarray) -> float:
    """Matrix entries to update if rows of bonds `around` are stacked by the bonds `along`; infinite if not possible."""
    length, width = along.shape
    if not np.any(along[-1]):
        return length * width**3 / 2
    if not np.any(around[:, -1]):
        return math.inf
    fronts = 2.0 * width + 2.0 * np.arange(1, length + 1)
    return width * float(np.sum(fronts**2)) / 2 + 4 * float(fronts[-1]) ** 3 / 12


def _solve(along: np.ndarray, around: np.ndarray, noise: np.ndarray) -> tuple[float, float, float]:
    """One sweep, NaN where all digits are lost; decimals hold what doubles would round, underflow or overflow."""
    closed = bool(np.any(along[-1]))
    signs = np.where(np.stack([along, around]) < 0, -1.0, 1.0)
    with decimal.localcontext(prec=DIGITS):
        penalties = penalties_of(np.abs([along, around]))
        edge, *product = _grow(penalties, signs, closed, noise)
        z = exact(*product)
        if closed:
            terms = [_joined(edge, penalties, signs, u, v, noise) for u in (1, -1) for v in (1, -1)]
            z = _times(z, (terms[0] + terms[1] + terms[2] - terms[3]) / 2)
        return logarithm(z, along.shape[1], np.stack([along, around]))


def _times(f: np.ndarray, g: np.ndarray) -> np.ndarray:
    return np.array([f[0] * g[0], f[1] * g[0] + f[0] * g[1], f[2] * g[0] + 2 * f[1] * g[1] + f[0] * g[2]])


def _joined(
    edge: np.ndarray, penalties: np.ndarray, signs: np.ndarray, u: int, v: int, noise: np.ndarray
) -> np.ndarray:
    """The jet of G(u, v)."""
    length, width = signs.shape[1:]
    x, y = np.arange(length), np.arange(width)
    bottom, right, top, left = width + y, 2 * width + 2 * x, y, 2 * width + 2 * x + 1
    order = np.concatenate([bottom, right, top[::-1], left[::-1]])
    place = np.argsort(order)
    legs = np.ascontiguousarray((edge - edge.swapaxes(2, 3))[:, :, order[:, None], order])
    weights = np.concatenate([penalties[:, :, 0, -1, :], penalties[:, :, 1, :, -1]], axis=2)
    flips = np.concatenate([u * signs[0, -1, :], v * signs[1, :, -1]])
    first, second = np.concatenate([place[bottom], place[right]]), np.concatenate([place[top], place[left]])
    _join(legs, first, second, weights, flips)
    return exact(*_pfaffian(legs, noise)) * (-1) ** (length * width)


# Kernels. Arrays start with the axes (derivative, word of the pair); row i of antisymmetric matrices holds j < i only.


@compiled
def _grow(penalties, signs, closed, noise):
    """The open lattice or cylinder: M of its edge, and the jet of Z / (2^width exp(sum |K|)) with a power of 2.

    The edge is the last row of spins; on a torus, then come the legs of the first row (bottom), and for every row those
    at y = width - 1 (right) and at y = 0 (left). The order around is: bottom, right, last row from right to left, left.
    """
    length, width = signs.shape[1:]
    legs = 2 * width + 2 * length if closed else width
    edge, room = np.zeros((3, 2, legs, legs)), np.zeros((3, 3, 2, legs))
    product, exponent = np.zeros((3, 2)), 0
    product[0, 0] = 1.0
    if closed:
        for y in range(width):
            edge[0, 0, width + y, y] = 1.0
    for x in range(length):
        if x > 0:
            for y in range(width):
                penalty = get(penalties[:, :, 0, x - 1, y])
                whole = line(1.0, 1.0, penalty)
                exponent += accumulate(product, whole)
                scale_leg(edge, y, divide_jets(line(signs[0, x - 1, y], -signs[0, x - 1, y], penalty), whole))
        stop = width
        if closed:
            stop = 2 * width + 2 * x + 2
            _copy_leg(edge, width - 1, stop - 2, 1.0, room[0])
            _copy_leg(edge, 0, stop - 1, -1.0, room[0])
        for y in range(width - 1 if closed else width):
            neighbour = (y + 1) % width
            sign = signs[1, x, y] if neighbour > 0 else -signs[1, x, y]
            f = bond(edge, stop, neighbour, y, get(penalties[:, :, 1, x, y]), sign, room, noise, x * width + y)
            exponent += accumulate(product, f)
    return edge, product, exponent


@compiled
def _copy_leg(edge, k, copy, sign, room):
    """A copy of leg k, numbered after all present ones; around the edge it lies before k if sign is 1, after if -1."""
    column(edge, k, room)
    for j in range(copy):
        put(edge[:, :, copy, j], negative(get(room[:, :, j])))
    edge[0, 0, copy, k] = sign


@compiled
def _join(legs, first, second, penalties, signs):
    """Bonds between legs, first before second: their correlations weighted, and the matching without them added."""
    for i in range(len(first)):
        penalty = get(penalties[:, :, i])
        scale_leg(legs, second[i], line(0.5 * signs[i], -0.5 * signs[i], penalty))
        entry = legs[:, :, second[i], first[i]]
        put(entry, add_jets(get(entry), line(-0.5, -0.5, penalty)))


@compiled
def _pfaffian(matrix, noise):
    """Jet of the Pfaffian, as pairs and a power of 2, by elimination; destroys the matrix.

    The pivot is the largest entry left, so that a Pfaffian that vanishes does so in its last factor, with no division.
    """
    product, exponent = np.zeros((3, 2)), 0
    product[0, 0] = 1.0
    room = np.zeros((3, 3, 2, matrix.shape[3]))
    u, v, scaled = room[0], room[1], room[2]
    for k in range(matrix.shape[3] - 2, -1, -2):
        a, b = k, k + 1
        for i in range(k + 2):
            for j in range(i):
                if abs(matrix[0, 0, i, j]) > abs(matrix[0, 0, b, a]):
                    a, b = j, i
        _swap(matrix, b, k + 1, product, room)
        _swap(matrix, a, k, product, room)
        pivot = negative(get(matrix[:, :, k + 1, k]))
        exponent += accumulate(product, pivot)
        if k > 0:
            column(matrix, k, u)
            column(matrix, k + 1, v)
            scale(v, divide_jets(((1.0, 0.0), (0.0, 0.0), (0.0, 0.0)), pivot), scaled)
            update(matrix, k, scaled, u, noise, k)
    return product, exponent


@compiled
def _swap(matrix, k, other, product, room):
    """Exchange the rows k <= other and the same columns; a Pfaffian changes its sign."""
    if k == other:
        return
    u, v = room[0], room[1]
    column(matrix, k, u)
    column(matrix, other, v)
    for i in range(matrix.shape[3]):
        if i != k and i != other:
            to_k, to_other = get(v[:, :, i]), get(u[:, :, i])
            put(matrix[:, :, max(i, k), min(i, k)], to_k if i > k else negative(to_k))
            put(matrix[:, :, max(i, other), min(i, other)], to_other if i > other else negative(to_other))
    put(matrix[:, :, other, k], negative(get(matrix[:, :, other, k])))
    put(product, negative(get(product)))
