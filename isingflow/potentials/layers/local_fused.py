"""The local layer on a CPU, fused: see `local.LocalLayer`. Within, rows are sites and columns samples.

Every unit reads the rows of its ball and adds to them; a block of 128 columns of a ball stays in the first-level cache,
and nothing of the size units x samples is ever stored. Single-threaded and free of Python's lock.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from isingflow.potentials.layers.fused import FAST

BLOCK = 128


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def forward(
    starts, sites, metric_starts, metric_sites, metric, on_balls, even, x, basis, w, b, a, gamma, q, h, moved, laplacian
):
    """G dphi/dx, shape (n, N), and the Laplacian, (n,), into the last two arguments.

    The ball of site i is sites[starts[i] : starts[i + 1]], and so are rows of G; `even` is None for units that are not.
    """
    rows, q_now, h_now = _transposed(x), _now(q, basis), _now(h, basis)
    gradient, turned = np.empty_like(rows), np.empty_like(rows)
    a_now = _now(a.reshape(-1, len(basis)), basis).reshape(b.shape)
    _forward(rows, starts, sites, w, b, a_now, gamma, q_now, even, gradient, laplacian)
    for i in range(len(rows)):
        gradient[i] += h_now[i]
    _sparse_product(metric_starts, metric_sites, metric, gradient, turned)
    moved[:] = turned.T
    laplacian += (on_balls * q_now).sum()


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def backward(
    starts, sites, metric_starts, metric_sites, metric, on_balls, even, x, basis, w, b, a, gamma, q, h,
    by_moved, by_laplacian, by_x, by_w, by_b, by_a, by_gamma, by_q, by_h,
):  # fmt: skip
    """Cotangents of x, w, b, a, gamma, q and h into the last seven arguments, from those of the results.

    The last six may be None, all together: their sums are then left out, at compile time.
    """
    rows, turned = _transposed(x), _transposed(by_moved)
    by_gradient, by_rows = np.empty_like(rows), np.empty_like(rows)
    _sparse_product(metric_starts, metric_sites, metric, turned, by_gradient)
    a_now, q_now = _now(a.reshape(-1, len(basis)), basis).reshape(b.shape), _now(q, basis)
    given = rows, starts, sites, w, b, a_now, gamma, q_now, even, by_gradient, by_laplacian
    if by_w is None:
        _backward(*given, by_rows, None, None, None, None, None)
    else:
        by_a_now, by_q_now = np.empty_like(b), np.empty_like(q_now)
        _backward(*given, by_rows, by_w, by_b, by_a_now, by_gamma, by_q_now)
        total = by_laplacian.sum()
        for t in range(len(basis)):
            for m in range(len(b)):
                for i in range(len(rows)):
                    by_a[m, i, t] = by_a_now[m, i] * basis[t]
            for k in range(len(sites)):
                by_q[k, t] = (by_q_now[k] + on_balls[k] * total) * basis[t]
            for i in range(len(rows)):
                by_h[i, t] = by_gradient[i].sum() * basis[t]
    by_x[:] = by_rows.T


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def scored(
    starts, sites, metric_starts, metric_sites, metric, on_balls, even, x, basis, w, b, a, gamma, q, h,
    score, moved, laplacian, pulled,
):  # fmt: skip
    """As `forward`, with the derivative by x of score.moved + laplacian, shape (n, N), into the last argument."""
    rows, q_now, h_now = _transposed(x), _now(q, basis), _now(h, basis)
    gradient, turned, pull, by_rows = _transposed(score), np.empty_like(rows), np.empty_like(rows), np.empty_like(rows)
    _sparse_product(metric_starts, metric_sites, metric, gradient, pull)
    a_now = _now(a.reshape(-1, len(basis)), basis).reshape(b.shape)
    _scored(rows, starts, sites, w, b, a_now, gamma, q_now, even, pull, gradient, laplacian, by_rows)
    for i in range(len(rows)):
        gradient[i] += h_now[i]
    _sparse_product(metric_starts, metric_sites, metric, gradient, turned)
    moved[:] = turned.T
    pulled[:] = by_rows.T
    laplacian += (on_balls * q_now).sum()


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _transposed(x):
    rows = np.empty((x.shape[1], x.shape[0]), x.dtype)
    rows[:] = x.T
    return rows


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _now(coefficients, basis):
    """coefficients @ basis, shape (m, T) to (m,)."""
    values = np.zeros(len(coefficients), coefficients.dtype)
    for i in range(len(values)):
        for t in range(len(basis)):
            values[i] += coefficients[i, t] * basis[t]
    return values


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _forward(x, starts, sites, w, b, a, gamma, q, even, gradient, laplacian):
    """Units and quadratic form: dphi/dx, shape (sites, columns), and the units' Laplacian, (columns,)."""
    columns, one, half = x.shape[1], x.dtype.type(1), x.dtype.type(0.5)
    p = np.empty(BLOCK, x.dtype)
    gradient[:] = 0
    laplacian[:] = 0
    for start in range(0, columns, BLOCK):
        n = min(BLOCK, columns - start)
        lap = laplacian[start : start + n]
        for i in range(len(x)):
            first, last = starts[i], starts[i + 1]
            own = gradient[i, start : start + n]
            for k in range(first, last):
                row, weight = x[sites[k], start : start + n], q[k]
                for j in range(n):
                    own[j] += weight * row[j]
            for m in range(len(w)):
                _project(w[m], x, first, last, sites, start, n, p)
                bias = b[m, i]
                if even is not None:
                    first_weight, second_weight = a[m, i] * half, a[m, i] * gamma[m, i] * half
                    for j in range(n):
                        plus, minus = p[j] + bias, p[j] - bias
                        inverse_plus = one / math.sqrt(one + plus * plus)
                        inverse_minus = one / math.sqrt(one + minus * minus)
                        p[j] = first_weight * (plus * inverse_plus + minus * inverse_minus)
                        lap[j] += second_weight * (
                            inverse_plus * inverse_plus * inverse_plus + inverse_minus * inverse_minus * inverse_minus
                        )
                else:
                    first_weight, second_weight = a[m, i], a[m, i] * gamma[m, i]
                    for j in range(n):
                        plus = p[j] + bias
                        inverse = one / math.sqrt(one + plus * plus)
                        p[j] = first_weight * plus * inverse
                        lap[j] += second_weight * inverse * inverse * inverse
                for k in range(first, last):
                    out, weight = gradient[sites[k], start : start + n], w[m, k]
                    for j in range(n):
                        out[j] += weight * p[j]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _backward(
    x, starts, sites, w, b, a, gamma, q, even, by_gradient, by_laplacian, by_x, by_w, by_b, by_a, by_gamma, by_q
):
    """Cotangents of x, w, b, a, gamma and q, from those of dphi/dx and the units' Laplacian."""
    columns, one, half, three, zero = (
        x.shape[1], x.dtype.type(1), x.dtype.type(0.5), x.dtype.type(3), x.dtype.type(0),
    )  # fmt: skip
    p, e = np.empty(BLOCK, x.dtype), np.empty(BLOCK, x.dtype)
    by_x[:] = 0
    if by_w is not None:
        by_w[:] = 0
        by_b[:] = 0
        by_a[:] = 0
        by_gamma[:] = 0
        by_q[:] = 0
    for start in range(0, columns, BLOCK):
        n = min(BLOCK, columns - start)
        l = by_laplacian[start : start + n]
        for i in range(len(x)):
            first, last = starts[i], starts[i + 1]
            pull, own = by_gradient[i, start : start + n], by_x[i, start : start + n]
            for k in range(first, last):
                row, cotangent, weight, total = (
                    x[sites[k], start : start + n], by_gradient[sites[k], start : start + n], q[k], zero,
                )  # fmt: skip
                for j in range(n):
                    own[j] += weight * cotangent[j]
                    if by_w is not None:
                        total += pull[j] * row[j]
                if by_w is not None:
                    by_q[k] += total
            for m in range(len(w)):
                _project(w[m], x, first, last, sites, start, n, p)
                _project(w[m], by_gradient, first, last, sites, start, n, e)
                bias, norm = b[m, i], gamma[m, i]
                amplitude = a[m, i]
                sum_a = sum_b = sum_gamma = zero
                if even is not None:
                    amplitude *= half
                    for j in range(n):
                        plus, minus = p[j] + bias, p[j] - bias
                        inverse_plus = one / math.sqrt(one + plus * plus)
                        inverse_minus = one / math.sqrt(one + minus * minus)
                        square_plus, square_minus = inverse_plus * inverse_plus, inverse_minus * inverse_minus
                        second_plus, second_minus = square_plus * inverse_plus, square_minus * inverse_minus
                        third_plus = -three * plus * second_plus * square_plus
                        third_minus = -three * minus * second_minus * square_minus
                        second = second_plus + second_minus
                        by_second = l[j] * norm
                        p[j] = amplitude * (e[j] * second + by_second * (third_plus + third_minus))
                        if by_w is not None:
                            slope = plus * inverse_plus + minus * inverse_minus
                            sum_a += e[j] * slope + by_second * second
                            sum_b += e[j] * (second_plus - second_minus) + by_second * (third_plus - third_minus)
                            sum_gamma += l[j] * second
                            e[j] = amplitude * slope
                    sum_a *= half
                else:
                    for j in range(n):
                        plus = p[j] + bias
                        inverse = one / math.sqrt(one + plus * plus)
                        square = inverse * inverse
                        second = square * inverse
                        by_second = l[j] * norm
                        change = e[j] * second - three * by_second * plus * second * square
                        p[j] = amplitude * change
                        if by_w is not None:
                            slope = plus * inverse
                            sum_a += e[j] * slope + by_second * second
                            sum_b += change
                            sum_gamma += l[j] * second
                            e[j] = amplitude * slope
                if by_w is not None:
                    by_a[m, i] += sum_a
                    by_b[m, i] += amplitude * sum_b
                    by_gamma[m, i] += amplitude * sum_gamma
                for k in range(first, last):
                    row, cotangent = x[sites[k], start : start + n], by_gradient[sites[k], start : start + n]
                    out, weight, total = by_x[sites[k], start : start + n], w[m, k], zero
                    for j in range(n):
                        out[j] += weight * p[j]
                        if by_w is not None:
                            total += e[j] * cotangent[j] + p[j] * row[j]
                    if by_w is not None:
                        by_w[m, k] += total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _scored(x, starts, sites, w, b, a, gamma, q, even, pull, gradient, laplacian, by_x):
    """Both `_forward` and `_backward` by x, for these cotangents of dphi/dx and ones of the Laplacian."""
    columns, one, half, three = x.shape[1], x.dtype.type(1), x.dtype.type(0.5), x.dtype.type(3)
    p, e = np.empty(BLOCK, x.dtype), np.empty(BLOCK, x.dtype)
    gradient[:] = 0
    laplacian[:] = 0
    by_x[:] = 0
    for start in range(0, columns, BLOCK):
        n = min(BLOCK, columns - start)
        lap = laplacian[start : start + n]
        for i in range(len(x)):
            first, last = starts[i], starts[i + 1]
            own, back = gradient[i, start : start + n], by_x[i, start : start + n]
            for k in range(first, last):
                row, cotangent, weight = x[sites[k], start : start + n], pull[sites[k], start : start + n], q[k]
                for j in range(n):
                    own[j] += weight * row[j]
                    back[j] += weight * cotangent[j]
            for m in range(len(w)):
                _project(w[m], x, first, last, sites, start, n, p)
                _project(w[m], pull, first, last, sites, start, n, e)
                bias, norm, amplitude = b[m, i], gamma[m, i], a[m, i]
                if even is not None:
                    amplitude *= half
                    for j in range(n):
                        plus, minus = p[j] + bias, p[j] - bias
                        inverse_plus = one / math.sqrt(one + plus * plus)
                        inverse_minus = one / math.sqrt(one + minus * minus)
                        square_plus, square_minus = inverse_plus * inverse_plus, inverse_minus * inverse_minus
                        second_plus, second_minus = square_plus * inverse_plus, square_minus * inverse_minus
                        second = second_plus + second_minus
                        third = -three * (plus * second_plus * square_plus + minus * second_minus * square_minus)
                        p[j] = amplitude * (plus * inverse_plus + minus * inverse_minus)
                        e[j] = amplitude * (e[j] * second + norm * third)
                        lap[j] += amplitude * norm * second
                else:
                    for j in range(n):
                        plus = p[j] + bias
                        inverse = one / math.sqrt(one + plus * plus)
                        second = inverse * inverse * inverse
                        p[j] = amplitude * plus * inverse
                        e[j] = amplitude * second * (e[j] - three * norm * plus * inverse * inverse)
                        lap[j] += amplitude * norm * second
                for k in range(first, last):
                    out, back, weight = (
                        gradient[sites[k], start : start + n],
                        by_x[sites[k], start : start + n],
                        w[m, k],
                    )
                    for j in range(n):
                        out[j] += weight * p[j]
                        back[j] += weight * e[j]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def _sparse_product(starts, sites, values, x, out):
    """out = A x, A given by its rows: values[k] in column sites[k] of row i for k from starts[i] to starts[i + 1]."""
    for i in range(len(x)):
        row = out[i]
        row[:] = 0
        for k in range(starts[i], starts[i + 1]):
            other, value = x[sites[k]], values[k]
            for j in range(len(row)):
                row[j] += value * other[j]


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _project(weights, rows, first, last, sites, start, n, out):
    """out = sum_k weights[k] rows[sites[k], start : start + n], k from first to last."""
    out[:n] = 0
    for k in range(first, last):
        row, weight = rows[sites[k], start : start + n], weights[k]
        for j in range(n):
            out[j] += weight * row[j]
