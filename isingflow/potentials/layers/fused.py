"""Hidden layers on a CPU, fused: the mathematics of `hidden.hidden_layer` in as few passes over memory as it takes.

The even-root layer has few features and many columns: separate matrix products and elementwise operations would move
every intermediate (hidden x columns) through memory, and here a block of 256 columns stays in the first-level cache.
Softplus and ln cosh layers are dominated by their products; what is between these is one pass.

Single-threaded and free of Python's lock: callers parallelise over samples. Compiled by numba once per machine and
float type, and cached on disk.
"""

from __future__ import annotations

import math

import numba
import numpy as np

BLOCK = 256
FAST = {"contract", "reassoc", "nsz", "arcp"}


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def forward(u, v, b, a, gamma, gradient, laplacian):
    """Gradient (features, columns) and Laplacian (columns,) into the last two arguments."""
    hidden, features = v.shape
    columns = u.shape[1]
    one, half = u.dtype.type(1), u.dtype.type(0.5)
    p = np.empty(BLOCK, u.dtype)
    for start in range(0, columns, BLOCK):
        n = min(BLOCK, columns - start)
        lap = laplacian[start : start + n]
        lap[:] = 0
        for c in range(features):
            gradient[c][start : start + n] = 0
        for m in range(hidden):
            _project(v[m], u, start, n, p)
            bias, first_weight, second_weight = b[m], a[m] * half, a[m] * gamma[m] * half
            for i in range(n):
                plus, minus = p[i] + bias, p[i] - bias
                inverse_plus = one / math.sqrt(one + plus * plus)
                inverse_minus = one / math.sqrt(one + minus * minus)
                p[i] = first_weight * (plus * inverse_plus + minus * inverse_minus)
                lap[i] += second_weight * (
                    inverse_plus * inverse_plus * inverse_plus + inverse_minus * inverse_minus * inverse_minus
                )
            for c in range(features):
                out, weight = gradient[c][start : start + n], v[m, c]
                for i in range(n):
                    out[i] += weight * p[i]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def backward(u, v, b, a, gamma, by_gradient, by_laplacian, by_u, by_v, by_b, by_a, by_gamma):
    """Cotangents of u, v, b, a and gamma into the last five arguments, from those of gradient and Laplacian.

    The last four may be None, all together: their sums are then left out, at compile time.
    """
    hidden, features = v.shape
    columns = u.shape[1]
    one, half, three, zero = u.dtype.type(1), u.dtype.type(0.5), u.dtype.type(3), u.dtype.type(0)
    p, e = np.empty(BLOCK, u.dtype), np.empty(BLOCK, u.dtype)
    if by_v is not None:
        by_v[:] = 0
        by_b[:] = 0
        by_a[:] = 0
        by_gamma[:] = 0
    for start in range(0, columns, BLOCK):
        n = min(BLOCK, columns - start)
        l = by_laplacian[start : start + n]
        for c in range(features):
            by_u[c][start : start + n] = 0
        for m in range(hidden):
            _project(v[m], u, start, n, p)
            _project(v[m], by_gradient, start, n, e)
            bias, amplitude, norm = b[m], a[m] * half, gamma[m]
            sum_a = sum_b = sum_gamma = zero
            for i in range(n):
                plus, minus = p[i] + bias, p[i] - bias
                inverse_plus = one / math.sqrt(one + plus * plus)
                inverse_minus = one / math.sqrt(one + minus * minus)
                square_plus, square_minus = inverse_plus * inverse_plus, inverse_minus * inverse_minus
                second_plus, second_minus = square_plus * inverse_plus, square_minus * inverse_minus
                third_plus = -three * plus * second_plus * square_plus
                third_minus = -three * minus * second_minus * square_minus
                second = second_plus + second_minus
                by_second = l[i] * norm
                p[i] = amplitude * (e[i] * second + by_second * (third_plus + third_minus))
                if by_v is not None:
                    first = plus * inverse_plus + minus * inverse_minus
                    sum_a += e[i] * first + by_second * second
                    sum_b += e[i] * (second_plus - second_minus) + by_second * (third_plus - third_minus)
                    sum_gamma += l[i] * second
                    e[i] = amplitude * first
            if by_v is not None:
                by_a[m] += half * sum_a
                by_b[m] += amplitude * sum_b
                by_gamma[m] += amplitude * sum_gamma
            for c in range(features):
                inputs, cotangent = u[c][start : start + n], by_gradient[c][start : start + n]
                out, weight, total = by_u[c][start : start + n], v[m, c], zero
                for i in range(n):
                    out[i] += weight * p[i]
                    if by_v is not None:
                        total += e[i] * cotangent[i] + p[i] * inputs[i]
                if by_v is not None:
                    by_v[m, c] += total


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _project(weights, rows, start, n, out):
    """out = sum_c weights[c] rows[c, start : start + n]."""
    out[:n] = 0
    for c in range(len(weights)):
        row, weight = rows[c][start : start + n], weights[c]
        for i in range(n):
            out[i] += weight * row[i]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def saturating_forward(first, a, gamma, constant, slope, weighted, laplacian):
    """The same for softplus and ln cosh, from f' of shape (hidden, columns): a f' and the Laplacian.

    Their higher derivatives follow from the first: f'' = constant + slope f' - f'^2, d f'' = (slope - 2 f') f'' dp.
    """
    laplacian[:] = 0
    for m in range(len(a)):
        amplitude, second_weight = a[m], a[m] * gamma[m]
        row, out = first[m], weighted[m]
        for i in range(len(row)):
            out[i] = amplitude * row[i]
            laplacian[i] += second_weight * (constant + (slope - row[i]) * row[i])


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def saturating_backward(first, e, l, a, gamma, constant, slope, by_p, weighted, by_a, by_b, by_gamma):
    """Cotangents of p, a, b and gamma, and a f' again, from those of f' (e) and of the Laplacian (l)."""
    two, zero = first.dtype.type(2), first.dtype.type(0)
    for m in range(len(a)):
        amplitude, norm = a[m], gamma[m]
        row, cotangent, out, product = first[m], e[m], by_p[m], weighted[m]
        sum_first = sum_second = sum_p = zero
        for i in range(len(row)):
            second = constant + (slope - row[i]) * row[i]
            value = amplitude * second * (cotangent[i] + norm * l[i] * (slope - two * row[i]))
            out[i] = value
            product[i] = amplitude * row[i]
            sum_p += value
            sum_first += cotangent[i] * row[i]
            sum_second += l[i] * second
        by_a[m] = sum_first + norm * sum_second
        by_b[m] = sum_p
        by_gamma[m] = amplitude * sum_second
