"""Moments of softmax weights on a CPU, fused: the mathematics of `softmax.softmax_moments` without a table of weights.

The weights of one point live in the first-level cache: a pass for each moment costs next to nothing, so covariances
are summed about their means and keep single precision where slopes are steep. Single-threaded and free of Python's
lock. Compiled by numba once per machine and float type, and cached on disk.
"""

from __future__ import annotations

import math

import numba
import numpy as np

FAST = {"contract", "reassoc", "nsz", "arcp"}
LANES = 16
"""Numbers whose largest are found side by side: one chain of comparisons would take longer than the exponentials."""


@numba.njit(inline="always", error_model="numpy")
def _largest(p):
    """The largest of some numbers."""
    whole = len(p) // LANES * LANES
    lanes = p[: min(LANES, len(p))].copy()
    for start in range(LANES, whole, LANES):
        for k in range(LANES):
            lanes[k] = max(lanes[k], p[start + k])
    top = lanes[0]
    for k in range(1, len(lanes)):
        top = max(top, lanes[k])
    for m in range(whole, len(p)):
        top = max(top, p[m])
    return top


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _weights(x, w, b, floor, bits, p):
    """p = exp(b + x.w - top) into the last argument; the largest exponent, top, and the sum of p.

    exp(a) = 2^k exp(r) with r = a - k ln 2 and a polynomial for exp(r); 2^k is made in the exponent's bits of a float.
    Weights below exp(floor) are that: nothing becomes denormal, which would be slow.
    """
    d, units = w.shape
    number = p.dtype.type
    powers = bits.view(p.dtype)
    integer = bits.dtype.type
    mantissa, bias = (integer(23), integer(127)) if p.itemsize == 4 else (integer(52), integer(1023))
    for m in range(units):
        p[m] = b[m]
    for k in range(d):
        at, row = x[k], w[k]
        for m in range(units):
            p[m] += at * row[m]
    top = _largest(p)
    for m in range(units):
        a = max(p[m] - top, floor)
        whole = np.floor(a * number(1 / math.log(2)) + number(0.5))
        bits[m] = (integer(whole) + bias) << mantissa
        p[m] = a - whole * number(math.log(2))
    total = number(0)
    for m in range(units):
        r = p[m]
        e = number(1 / 5040)
        if p.itemsize == 8:
            e = number(1 / 6227020800)
            e = e * r + number(1 / 479001600)
            e = e * r + number(1 / 39916800)
            e = e * r + number(1 / 3628800)
            e = e * r + number(1 / 362880)
            e = e * r + number(1 / 40320)
            e = e * r + number(1 / 5040)
        e = e * r + number(1 / 720)
        e = e * r + number(1 / 120)
        e = e * r + number(1 / 24)
        e = e * r + number(1 / 6)
        e = e * r + number(0.5)
        e = (e * r + number(1)) * r + number(1)
        p[m] = e * powers[m]
        total += p[m]
    return top, total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def forward(x, w, b, floor, bits, value, mean, covariance):
    """Value (n,), mean (n, d) and covariance (n, d, d) into the last three arguments.

    Args:
        x, w, b: as of `softmax.softmax_moments`.
        floor: least exponent.
        bits: scratch, integers as wide as the numbers, shape (units,).
    """
    n, d = x.shape
    units = w.shape[1]
    p = np.empty(units, x.dtype)
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(n):
        top, total = _weights(x[i], w, b, floor, bits, p)
        value[i] = top + math.log(total)
        share = one / total
        for k in range(d):
            row, s = w[k], zero
            for m in range(units):
                s += p[m] * row[m]
            mean[i, k] = s * share
        for k in range(d):
            for l in range(k + 1):
                left, right, s = w[k], w[l], zero
                by_left, by_right = mean[i, k], mean[i, l]
                for m in range(units):
                    s += p[m] * (left[m] - by_left) * (right[m] - by_right)
                covariance[i, k, l] = covariance[i, l, k] = s * share


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def backward(x, w, b, floor, bits, mean, covariance, by_value, by_mean, by_covariance, by_x, by_w, by_b):
    """Cotangents of x, w and b into the last three arguments, from those of the results.

    With g and C the cotangents of mean and covariance, C symmetric, and v = w_m - mean, the cotangent of exponent m is
    p_m (by_value + g.v + v.C v - C:covariance), and that of w_m besides p_m (g + 2 C v).
    """
    n, d = x.shape
    units = w.shape[1]
    p, q, r = np.empty(units, x.dtype), np.empty(units, x.dtype), np.empty(units, x.dtype)
    one, half, zero = x.dtype.type(1), x.dtype.type(0.5), x.dtype.type(0)
    by_w[:] = 0
    by_b[:] = 0
    for i in range(n):
        _, total = _weights(x[i], w, b, floor, bits, p)
        share = one / total
        constant = by_value[i]
        for k in range(d):
            for l in range(d):
                constant -= by_covariance[i, k, l] * covariance[i, k, l]
        for m in range(units):
            q[m] = constant
            p[m] *= share
        for k in range(d):
            offset = by_mean[i, k]
            for l in range(d):
                offset -= (by_covariance[i, k, l] + by_covariance[i, l, k]) * mean[i, l]
            for m in range(units):
                r[m] = offset
            for l in range(d):
                weight, row = by_covariance[i, k, l] + by_covariance[i, l, k], w[l]
                for m in range(units):
                    r[m] += weight * row[m]
            row, centre, along, out = w[k], mean[i, k], by_mean[i, k], by_w[k]
            for m in range(units):
                q[m] += (row[m] - centre) * (r[m] + along) * half
                out[m] += p[m] * r[m]
        for m in range(units):
            q[m] *= p[m]
            by_b[m] += q[m]
        for k in range(d):
            row, at, out, s = w[k], x[i, k], by_w[k], zero
            for m in range(units):
                s += q[m] * row[m]
                out[m] += at * q[m]
            by_x[i, k] = s
