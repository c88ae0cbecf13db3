"""Square lattices with any couplings, spin glasses too: planar ones by one sweep, tori by four Pfaffians.

Spins on the edge of a planar Ising model have the correlations of free fermions: <s_1 s_2 ... s_2n> = Pf M, where the
antisymmetric M_ij = <s_i s_j> for i before j around the edge (Groeneveld, Boel & Kasteleyn 1978). So a planar lattice
grows bond by bond, and M and Z are all that needs to be known. With p = exp(-2 |K|) and the sign s of K,

    a bond K between neighbours a, b of the edge:    Z -> Z e^|K| f,   f = [1 + p + s (1 - p) M_ab] / 2,
                                                     M_ij -> M_ij + s (1 - p) (M_ib M_ja - M_ia M_jb) / 2f,
    a new spin on a bond K in place of spin a:       Z -> Z e^|K| (1 + p),   M_ia -> M_ia s (1 - p) / (1 + p).

Every f is positive, and every M_ij is a correlation, at most 1. A cylinder is planar as well: its rows close, and once
around the edge a fermion changes sign.

A torus is an open lattice that keeps copies (legs) of all spins of its edge, and is then joined pair by pair across its
boundaries. A choice S of n_x joins along x and n_y along y crosses itself n_x n_y times. Kasteleyn's four signs mend
that: with the weights of the joins, G(u, v) = sum over S of (-1)^(n_x n_y) u^n_x v^n_y <legs of S> is one Pfaffian, and

    Z = Z_open [G(+,+) + G(-,+) + G(+,-) - G(-,-)] / 2.

At low temperature frustration cancels digits, both in f and between the G. So numbers are pairs of doubles (32 digits,
Dekker 1971), the lattice is solved once more, from its other end and with random errors far above the rounding added to
every M_ij, and where the two solutions differ the answer is refused. A "jet" is the tuple (f, f', f'') of derivatives
along a common factor of all couplings, K -> (1 + x) K at x = 0.
"""

from __future__ import annotations

import decimal
import math
from decimal import Decimal

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact.double_double import (
    add_jets,
    divide_jets,
    fast_two_sum,
    line,
    multiply_jets,
    negative,
    two_product,
    two_sum,
)
from isingflow.exact.transfer_matrix import grid_couplings
from isingflow.runtime.compiled import compiled
from isingflow.runtime.resources import duration

WORK_LIMIT = 4e9
"""Most matrix entries updated by one solution: tori of 160 x 160 and open lattices of 256 x 256 are possible."""

LARGEST = "256x256 (open) or 160x160 (periodic)"
SITE_LIMIT = 256 * 256
"""No lattice with more sites is worth a closer look."""

SECONDS = 4e-8
"""A matrix entry takes about as long, in both solutions."""

NOISE = np.random.default_rng(0).uniform(-1e-28, 1e-28, (3, 16384))
"""Relative errors of the jets of M in the second solution, thousands of times the rounding errors."""

AGREEMENT = 1e-10
"""How well the two solutions have to agree: ln Z and the mean relative to ln Z, the variance per site."""

DIGITS = 60
"""Decimal digits of what happens once per bond or once per lattice: exp(-2 |K|), the sum of the G, the logarithm."""


def solve(kx: np.ndarray, ky: np.ndarray) -> tuple[float, float, float]:
    """ln Z of a square lattice with arbitrary bonds; an open boundary is a last row of kx (column of ky) of zeros.

    Args:
        kx, ky: couplings, shape (lx, ly), sides of at least 2: kx[x, y] couples (x, y) to (x+1, y), ky[x, y] couples
            (x, y) to (x, y+1), indices modulo the sides.

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
    if min(costs) > WORK_LIMIT:
        raise NoExactSolution(
            f"{kx.shape[0]}x{kx.shape[1]} is too large for Pfaffians with arbitrary bonds: it would take about "
            f"{duration(min(costs) * SECONDS)}; possible are sizes up to about {LARGEST}"
        )
    along, around = orientations[int(np.argmin(costs))]
    solution = _solve(along, around, 0 * NOISE)
    check = _solve(np.roll(along[::-1, ::-1], -1, 0), np.roll(around[::-1, ::-1], -1, 1), NOISE)
    scales = abs(solution[0]), abs(solution[0]), kx.size
    if not all(abs(a - b) <= AGREEMENT * scale for a, b, scale in zip(solution, check, scales, strict=True)):
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
        penalties = _penalties(np.abs([along, around]))
        edge, *product = _grow(penalties, signs, closed, noise)
        z = _exact(*product)
        if closed:
            terms = [_joined(edge, penalties, signs, u, v, noise) for u in (1, -1) for v in (1, -1)]
            z = _times(z, (terms[0] + terms[1] + terms[2] - terms[3]) / 2)
        if z[0].is_nan() or z[0] <= 0:
            return math.nan, math.nan, math.nan
        ground = Decimal(math.fsum(np.abs([along, around]).ravel()))
        mean = z[1] / z[0]
        log_z = z[0].ln() + along.shape[1] * Decimal(2).ln() + ground
        return float(log_z), float(mean + ground), float(z[2] / z[0] - mean * mean)


def _penalties(strengths: np.ndarray) -> np.ndarray:
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


def _exact(pairs: np.ndarray, exponent: int) -> np.ndarray:
    """The jet of decimals pairs * 2^exponent, from shape (3, 2)."""
    if not np.all(np.isfinite(pairs)):
        return np.full(3, Decimal("NaN"))
    return np.array([Decimal(high) + Decimal(low) for high, low in pairs.tolist()]) * Decimal(2) ** exponent


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
    return _exact(*_pfaffian(legs, noise)) * (-1) ** (length * width)


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
                penalty = _get(penalties[:, :, 0, x - 1, y])
                whole = line(1.0, 1.0, penalty)
                exponent += _accumulate(product, whole)
                _scale_leg(edge, y, divide_jets(line(signs[0, x - 1, y], -signs[0, x - 1, y], penalty), whole))
        stop = width
        if closed:
            stop = 2 * width + 2 * x + 2
            _copy_leg(edge, width - 1, stop - 2, 1.0, room[0])
            _copy_leg(edge, 0, stop - 1, -1.0, room[0])
        for y in range(width - 1 if closed else width):
            neighbour = (y + 1) % width
            sign = signs[1, x, y] if neighbour > 0 else -signs[1, x, y]
            f = _bond(edge, stop, neighbour, y, _get(penalties[:, :, 1, x, y]), sign, room, noise, x * width + y)
            exponent += _accumulate(product, f)
    return edge, product, exponent


@compiled
def _bond(edge, stop, a, b, penalty, sign, room, noise, shift):
    """Add a bond between neighbours, a before b around the edge of `stop` legs; returns the jet of f."""
    if penalty[0] == (1.0, 0.0):
        return line(1.0, 0.0, penalty)
    u, v, scaled = room[0], room[1], room[2]
    _column(edge, a, u)
    _column(edge, b, v)
    u[0, 0, a], v[0, 0, b] = 1.0, -1.0  # as if bonded were copies of a and b beside them, between which M is 1
    correlation = _get(v[:, :, a])
    broken = multiply_jets(penalty, line(1.0, -sign, correlation))
    f = line(0.0, 0.5, add_jets(line(1.0, sign, correlation), broken))
    _scale(v, divide_jets(line(0.5 * sign, -0.5 * sign, penalty), f), scaled)
    _update(edge, stop, scaled, u, noise, shift)
    return f


@compiled
def _scale_leg(edge, k, factor):
    for i in range(edge.shape[2]):
        if i != k:
            row, column = max(i, k), min(i, k)
            _put(edge[:, :, row, column], multiply_jets(factor, _get(edge[:, :, row, column])))


@compiled
def _copy_leg(edge, k, copy, sign, room):
    """A copy of leg k, numbered after all present ones; around the edge it lies before k if sign is 1, after if -1."""
    _column(edge, k, room)
    for j in range(copy):
        _put(edge[:, :, copy, j], negative(_get(room[:, :, j])))
    edge[0, 0, copy, k] = sign


@compiled
def _join(legs, first, second, penalties, signs):
    """Bonds between legs, first before second: their correlations weighted, and the matching without them added."""
    for i in range(len(first)):
        penalty = _get(penalties[:, :, i])
        _scale_leg(legs, second[i], line(0.5 * signs[i], -0.5 * signs[i], penalty))
        entry = legs[:, :, second[i], first[i]]
        _put(entry, add_jets(_get(entry), line(-0.5, -0.5, penalty)))


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
        pivot = negative(_get(matrix[:, :, k + 1, k]))
        exponent += _accumulate(product, pivot)
        if k > 0:
            _column(matrix, k, u)
            _column(matrix, k + 1, v)
            _scale(v, divide_jets(((1.0, 0.0), (0.0, 0.0), (0.0, 0.0)), pivot), scaled)
            _update(matrix, k, scaled, u, noise, k)
    return product, exponent


@compiled
def _swap(matrix, k, other, product, room):
    """Exchange the rows k <= other and the same columns; a Pfaffian changes its sign."""
    if k == other:
        return
    u, v = room[0], room[1]
    _column(matrix, k, u)
    _column(matrix, other, v)
    for i in range(matrix.shape[3]):
        if i != k and i != other:
            to_k, to_other = _get(v[:, :, i]), _get(u[:, :, i])
            _put(matrix[:, :, max(i, k), min(i, k)], to_k if i > k else negative(to_k))
            _put(matrix[:, :, max(i, other), min(i, other)], to_other if i > other else negative(to_other))
    _put(matrix[:, :, other, k], negative(_get(matrix[:, :, other, k])))
    _put(product, negative(_get(product)))


@compiled
def _column(matrix, k, out):
    """M_ik for all i."""
    for order in range(3):
        for word in range(2):
            for i in range(k):
                out[order, word, i] = -matrix[order, word, k, i]
            out[order, word, k] = 0.0
            for i in range(k + 1, matrix.shape[3]):
                out[order, word, i] = matrix[order, word, i, k]


@compiled
def _scale(vector, factor, out):
    for i in range(vector.shape[2]):
        _put(out[:, :, i], multiply_jets(factor, _get(vector[:, :, i])))


@compiled
def _update(matrix, stop, u, v, noise, shift):
    """Add u v^T - v u^T to the first rows and columns, by the product rule."""
    for order in range(3):
        for part in range(order + 1):
            weight = 2.0 if part == 1 and order == 2 else 1.0
            _rank_two(matrix[order, 0], matrix[order, 1], stop, weight * u[part], v[order - part], noise[order], shift)


@compiled
def _rank_two(high, low, stop, u, v, noise, shift):
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
def _accumulate(product, factor):
    """Multiply in place, take out a power of 2 and return its exponent."""
    _put(product, multiply_jets(_get(product), factor))
    exponent = math.frexp(max(abs(product[0, 0]), abs(product[1, 0]), abs(product[2, 0])))[1]
    for order in range(3):
        for word in range(2):
            product[order, word] = math.ldexp(product[order, word], -exponent)
    return exponent


# Jets of pairs of doubles.


@compiled
def _get(pairs):
    return (pairs[0, 0], pairs[0, 1]), (pairs[1, 0], pairs[1, 1]), (pairs[2, 0], pairs[2, 1])


@compiled
def _put(pairs, jet):
    for order in range(3):
        pairs[order, 0], pairs[order, 1] = jet[order]
