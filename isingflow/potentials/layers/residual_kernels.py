"""What stands between the matrix products of a residual network on a CPU, fused: the mathematics of `residual`.

One pass over a block of columns for all that is elementwise between two products, where separate operations on tensors
would take a dozen. Single-threaded and free of Python's lock. Compiled by numba once per machine, and cached on disk.
Float32 alone: `tanh` is no better. `minus` is None, where the opening is plain; else it opens with
[s(p + b) + s(p - b)] / 2 and `plus` and `minus` are the two tanh.

Axes: m of units, r of the root's columns; k of the block's columns. What one matrix multiplies stands in one array,
shape (m, r + 1, k) or (m, r + 2, k), so that it is one product: behind the columns r, `rows` holds M, the state and the
tangent; `product` K M and K times the state; `back` what is handed to the layer before, the cotangents of M and of the
state, and z; `given` those of K M and of p, and h s' z.
"""

from __future__ import annotations

import math

import numba
import numpy as np

FAST = {"contract", "reassoc", "nsz", "arcp"}
ONE, TWO, HALF, ZERO = np.float32(1), np.float32(2), np.float32(0.5), np.float32(0)
LOG_2 = np.float32(math.log(2))
LOG_SERIES = tuple(
    np.float32(coefficient)
    for coefficient in (
        -0.00226099538,
        0.0150553498,
        -0.0470511353,
        0.0947555639,
        -0.145339642,
        0.193517501,
        -0.248720528,
        0.333181921,
        -0.499990625,
        0.99999977,
        9.47330714e-10,
    )
)
"""ln(1 + y) for y from 0 to 1 as a polynomial, the highest power first: through Chebyshev points, to 2e-9."""


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def tanh(x):
    """To 4e-7: a fraction of two polynomials of a clamped argument."""
    x = min(max(x, np.float32(-7.9)), np.float32(7.9))
    q = x * x
    top = np.float32(-2.76076847742355e-16)
    top = top * q + np.float32(2.00018790482477e-13)
    top = top * q + np.float32(-8.60467152213735e-11)
    top = top * q + np.float32(5.12229709037114e-08)
    top = top * q + np.float32(1.48572235717979e-05)
    top = top * q + np.float32(6.37261928875436e-04)
    top = top * q + np.float32(4.89352455891786e-03)
    bottom = np.float32(1.19825839466702e-06)
    bottom = bottom * q + np.float32(1.18534705686654e-04)
    bottom = bottom * q + np.float32(2.26843463243900e-03)
    bottom = bottom * q + np.float32(4.89352518554385e-03)
    return x * top / bottom


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def antiderivative(x, t):
    """ln(2 cosh x) from t = tanh x: |x| + ln 2 - ln(1 + |t|), since exp(-2|x|) = (1 - |t|) / (1 + |t|)."""
    y = abs(t)
    series = ZERO
    for coefficient in LOG_SERIES:
        series = series * y + coefficient
    return abs(x) + LOG_2 - series


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def opening(p, b, root, plus, minus, rows):
    """State and tanh of the opening layer from p = V u, and M_0 = s' R."""
    units, columns = p.shape
    for m in range(units):
        row, bias, out, upper = p[m], b[m], rows[m, root.shape[1]], plus[m]
        for k in range(columns):
            upper[k] = tanh(row[k] + bias)
            out[k] = antiderivative(row[k] + bias, upper[k])
        if minus is not None:
            lower = minus[m]
            for k in range(columns):
                lower[k] = tanh(row[k] - bias)
                out[k] = HALF * (out[k] + antiderivative(row[k] - bias, lower[k]))
        for r in range(root.shape[1]):
            moved, weight = rows[m, r], root[m, r]
            for k in range(columns):
                moved[k] = weight * _first(plus, minus, m, k)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def layer(b, h, product, slope, squares, rows, next_rows):
    """Slope and squared rows of a layer from its products; and, unless None, what the next one sees."""
    units, slots, columns = product.shape
    ranks = slots - 1
    for m in range(units):
        row, bias, out, square = product[m, ranks], b[m], slope[m], squares[m]
        for k in range(columns):
            out[k] = tanh(row[k] + bias)
            square[k] = ZERO
        for r in range(ranks):
            moved = product[m, r]
            for k in range(columns):
                square[k] += moved[k] * moved[k]
        if next_rows is not None:
            for k in range(columns):
                next_rows[m, ranks, k] = rows[m, ranks, k] + h * antiderivative(row[k] + bias, out[k])
            for r in range(ranks):
                for k in range(columns):
                    next_rows[m, r, k] = rows[m, r, k] + h * out[k] * product[m, r, k]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def collected(z, slope, squares, h, laplacian, weighted):
    """Add a layer's part of the Laplacian; h s' z, whose product with K^T is what z grows by."""
    units, columns = z.shape
    for m in range(units):
        up, tilt, square, out = z[m], slope[m], squares[m], weighted[m]
        for k in range(columns):
            out[k] = h * tilt[k] * up[k]
            laplacian[k] += h * (ONE - tilt[k] * tilt[k]) * up[k] * square[k]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def opened(z, plus, minus, norms, clock, laplacian, rate, weighted):
    """Add the opening layer's part of the Laplacian and of the derivative by time; s' z."""
    units, columns = z.shape
    for m in range(units):
        up, out, norm, tick = z[m], weighted[m], norms[m], clock[m]
        for k in range(columns):
            out[k] = _first(plus, minus, m, k) * up[k]
            laplacian[k] += norm * _second(plus, minus, m, k) * up[k]
            rate[k] += tick * _bias_first(plus, minus, m, k) * up[k]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def tangent(pulled, plus, minus, norms, clock, by_laplacian, by_rate, rows):
    """V_0, the tangent of the opening state, from V times the cotangent of the gradient."""
    units, columns = pulled.shape
    for m in range(units):
        row, norm, tick = rows[m, rows.shape[1] - 1], norms[m], clock[m]
        for k in range(columns):
            row[k] = _first(plus, minus, m, k) * pulled[m, k] + tick * by_rate[k] * _bias_first(plus, minus, m, k)
            row[k] += norm * by_laplacian[k] * _second(plus, minus, m, k)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def next_tangent(rows, moved, slope, squares, h, by_laplacian, next_rows):
    """V_i from V_{i-1} and K_i V_{i-1}."""
    units, columns = moved.shape
    for m in range(units):
        before, out = rows[m, rows.shape[1] - 1], next_rows[m, next_rows.shape[1] - 1]
        for k in range(columns):
            tilt = slope[m, k]
            change = tilt * moved[m, k] + (ONE - tilt * tilt) * by_laplacian[k] * squares[m, k]
            out[k] = before[k] + h * change


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def pulled_back(back, moved, slope, squares, h, by_laplacian, product, last, given):
    """What a layer's products are given, of what the next layer handed back; to the last one no cotangent of M."""
    units, slots, columns = product.shape
    ranks = slots - 1
    for m in range(units):
        z, out, weighted = back[m, ranks + 1], given[m, ranks], given[m, ranks + 1]
        for k in range(columns):
            out[k] = h * z[k] * moved[m, k]
        for r in range(ranks):
            for k in range(columns):
                tilt = slope[m, k]
                value = TWO * h * by_laplacian[k] * z[k] * (ONE - tilt * tilt) * product[m, r, k]
                if not last:
                    out[k] += h * back[m, r, k] * product[m, r, k]
                    value += h * tilt * back[m, r, k]
                given[m, r, k] = value
        for k in range(columns):
            tilt = slope[m, k]
            by_slope = out[k] - TWO * tilt * h * by_laplacian[k] * z[k] * squares[m, k]
            out[k] = h * back[m, ranks, k] * tilt + (ONE - tilt * tilt) * by_slope
            weighted[k] = h * tilt * z[k]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def closed(
    back, pulled, plus, minus, norms, clock, root, by_laplacian, by_rate, by_p, weighted, by_bias, by_clock, by_root
):
    """Cotangents of the opening layer's p, and s' z; those of its bias, clock and root are added to the last three."""
    units, slots, columns = back.shape
    ranks = slots - 2
    for m in range(units):
        out, norm, tick, by_state, z = by_p[m], norms[m], clock[m], back[m, ranks], back[m, ranks + 1]
        out[:] = 0
        for r in range(ranks):
            moved, weight, total = back[m, r], root[m, r], ZERO
            for k in range(columns):
                out[k] += weight * moved[k]
                total += _first(plus, minus, m, k) * moved[k]
            by_root[m, r] += total
        bias = ticks = norm_total = ZERO
        for k in range(columns):
            up, first, second = z[k], _first(plus, minus, m, k), _second(plus, minus, m, k)
            by_first = out[k] + up * pulled[m, k]
            by_second, ticking = up * norm * by_laplacian[k], up * tick * by_rate[k]
            out[k] = by_state[k] * first + by_first * second + by_second * _third(plus, minus, m, k)
            out[k] += ticking * _bias_second(plus, minus, m, k)
            weighted[m, k] = first * up
            bias += by_state[k] * _bias_first(plus, minus, m, k) + by_first * _bias_second(plus, minus, m, k)
            bias += by_second * _bias_third(plus, minus, m, k) + ticking * second
            ticks += up * _bias_first(plus, minus, m, k) * by_rate[k]
            norm_total += up * second * by_laplacian[k]
        by_bias[m] += bias
        by_clock[m] += ticks
        for r in range(ranks):
            by_root[m, r] += TWO * norm_total * root[m, r]


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _first(plus, minus, m, k):
    if minus is None:
        return plus[m, k]
    return HALF * (plus[m, k] + minus[m, k])


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _second(plus, minus, m, k):
    if minus is None:
        return ONE - plus[m, k] * plus[m, k]
    return ONE - HALF * (plus[m, k] * plus[m, k] + minus[m, k] * minus[m, k])


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _cubic(t):
    return TWO * t * (t * t - ONE)


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _third(plus, minus, m, k):
    if minus is None:
        return _cubic(plus[m, k])
    return HALF * (_cubic(plus[m, k]) + _cubic(minus[m, k]))


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _bias_first(plus, minus, m, k):
    if minus is None:
        return plus[m, k]
    return HALF * (plus[m, k] - minus[m, k])


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _bias_second(plus, minus, m, k):
    if minus is None:
        return ONE - plus[m, k] * plus[m, k]
    return HALF * (minus[m, k] * minus[m, k] - plus[m, k] * plus[m, k])


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _bias_third(plus, minus, m, k):
    if minus is None:
        return _cubic(plus[m, k])
    return HALF * (_cubic(plus[m, k]) - _cubic(minus[m, k]))
