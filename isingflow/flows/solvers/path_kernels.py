"""Whole paths along the gradient of one hidden layer on a CPU, fused: the mathematics of `paths`, forward and backward.

In few dimensions a stage of an integrator is little arithmetic, and separate operations on tensors cost many times more
than it. Here a block of samples goes through all stages in the first-level cache. Single-threaded and free of Python's
lock: callers share samples. Compiled by numba once per machine, and cached on disk. Float32 alone: `tanh` is no better.

Axes: c, e of space; m of units; s of stages, all steps' one after the other; columns are samples.
"""

from __future__ import annotations

import numba
import numpy as np

BLOCK = 128
FAST = {"contract", "reassoc", "nsz", "arcp"}


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def forward(x, v, b, a, norms, quadratic, linear, clock, drift, shift, tableau_a, tableau_b, lengths, costs, out, kept):
    """Positions at the end, and the integrals of Laplacian, kinetic energy and residual, into `out`.

    Args:
        x: shape (c, columns), moved to the end in place.
        v, b, a, norms: of the layer, shapes (m, c), (s, m), (s, m) and (m,).
        quadratic, linear: what is added to the gradient, Q x + q_s, shapes (c, c) and (s, c).
        clock, drift, shift: of the derivative by time, sum_m r_sm tanh + k_s.x + k0_s; shapes (s, m), (s, c) and (s,).
        tableau_a, tableau_b: of the method, shapes (stages, stages) and (stages,).
        lengths: of the steps, shape (steps,).
        costs: how many integrals besides the Laplacian's: 0, 1 or 2.
        out: float64, shape (1 + costs, columns), zeros.
        kept: positions and slopes of all stages, and the residual's sign, shape (s, 2 c + 1, columns).
    """
    features, columns = x.shape
    units, stages = len(v), len(tableau_b)
    half, zero, one = np.float32(0.5), np.float32(0), np.float32(1)
    t, lap, rate = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, columns, BLOCK):
        n = min(BLOCK, columns - start)
        for step in range(len(lengths)):
            h = lengths[step]
            for i in range(stages):
                s = step * stages + i
                for c in range(features):
                    y, base = kept[s, c, start : start + n], x[c, start : start + n]
                    for k in range(n):
                        y[k] = base[k]
                    for j in range(i):
                        weight = h * tableau_a[i, j]
                        if weight != zero:
                            earlier = kept[step * stages + j, features + c, start : start + n]
                            for k in range(n):
                                y[k] += weight * earlier[k]
                lap[:n] = 0
                rate[:n] = 0
                for c in range(features):
                    kept[s, features + c, start : start + n] = linear[s, c]
                for m in range(units):
                    _tanh(kept[s], start, n, v[m], b[s, m], t)
                    second = a[s, m] * norms[m]
                    for k in range(n):
                        lap[k] += second * (one - t[k] * t[k])
                    for c in range(features):
                        slope, weight = kept[s, features + c, start : start + n], a[s, m] * v[m, c]
                        for k in range(n):
                            slope[k] += weight * t[k]
                    if costs == 2:
                        weight = clock[s, m]
                        for k in range(n):
                            rate[k] += weight * t[k]
                for c in range(features):
                    slope = kept[s, features + c, start : start + n]
                    for e in range(features):
                        y, weight = kept[s, e, start : start + n], quadratic[c, e]
                        for k in range(n):
                            slope[k] += weight * y[k]
                weight = h * tableau_b[i]
                for k in range(n):
                    out[0, start + k] += weight * lap[k]
                if costs:
                    t[:n] = 0
                    for c in range(features):
                        slope = kept[s, features + c, start : start + n]
                        for k in range(n):
                            t[k] += half * slope[k] * slope[k]
                    for k in range(n):
                        out[1, start + k] += weight * t[k]
                if costs == 2:
                    for c in range(features):
                        y, factor = kept[s, c, start : start + n], drift[s, c]
                        for k in range(n):
                            rate[k] += factor * y[k]
                    sign = kept[s, 2 * features, start : start + n]
                    for k in range(n):
                        residual = rate[k] + shift[s] + t[k]
                        sign[k] = one if residual > zero else -one
                        out[2, start + k] += weight * abs(residual)
            for c in range(features):
                y = x[c, start : start + n]
                for i in range(stages):
                    slope, weight = kept[step * stages + i, features + c, start : start + n], h * tableau_b[i]
                    for k in range(n):
                        y[k] += weight * slope[k]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def backward(
    by_x, by_out, v, b, a, norms, quadratic, clock, drift, tableau_a, tableau_b, lengths, costs, kept,
    by_v, by_b, by_a, by_norms, by_quadratic, by_linear, by_clock, by_drift, by_shift,
):  # fmt: skip
    """Cotangents of the start, in place of those of the end, and of the tables, into the last nine arguments.

    Args:
        by_x: shape (c, columns).
        by_out: of the integrals, float32, shape (1 + costs, columns).
        v ... kept: as `forward` was given and left them.
        by_v ... by_shift: zeros, of the tables' shapes.
    """
    features, columns = by_x.shape
    units, stages = len(v), len(tableau_b)
    zero, one, two = np.float32(0), np.float32(1), np.float32(2)
    t, e = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    by_lap, by_rate = np.empty(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    by_slope = np.empty((features, BLOCK), np.float32)
    pulled = np.empty((stages, features, BLOCK), np.float32)
    for start in range(0, columns, BLOCK):
        n = min(BLOCK, columns - start)
        for step in range(len(lengths) - 1, -1, -1):
            h = lengths[step]
            for i in range(stages - 1, -1, -1):
                s = step * stages + i
                weight = h * tableau_b[i]
                for k in range(n):
                    by_lap[k] = weight * by_out[0, start + k]
                    e[k] = zero
                if costs:
                    for k in range(n):
                        e[k] = weight * by_out[1, start + k]
                if costs == 2:
                    for k in range(n):
                        by_rate[k] = weight * by_out[2, start + k] * kept[s, 2 * features, start + k]
                        e[k] += by_rate[k]
                for c in range(features):
                    slope, end = kept[s, features + c, start : start + n], by_x[c, start : start + n]
                    for k in range(n):
                        by_slope[c, k] = weight * end[k] + e[k] * slope[k]
                    for j in range(i + 1, stages):
                        factor = h * tableau_a[j, i]
                        if factor != zero:
                            for k in range(n):
                                by_slope[c, k] += factor * pulled[j, c, k]
                for c in range(features):
                    factor = drift[s, c] if costs == 2 else zero
                    for k in range(n):
                        pulled[i, c, k] = factor * by_rate[k]
                    for d in range(features):
                        factor = quadratic[d, c]
                        for k in range(n):
                            pulled[i, c, k] += factor * by_slope[d, k]
                for c in range(features):
                    y, total, ticking = kept[s, c, start : start + n], zero, zero
                    for k in range(n):
                        total += by_slope[c, k]
                        ticking += by_rate[k] * y[k]
                    by_linear[s, c] += total
                    by_drift[s, c] += ticking
                    for d in range(features):
                        y, total = kept[s, d, start : start + n], zero
                        for k in range(n):
                            total += by_slope[c, k] * y[k]
                        by_quadratic[c, d] += total
                total = zero
                for k in range(n):
                    total += by_rate[k]
                by_shift[s] += total
                for m in range(units):
                    _tanh(kept[s], start, n, v[m], b[s, m], t)
                    e[:n] = 0
                    for c in range(features):
                        factor = v[m, c]
                        for k in range(n):
                            e[k] += factor * by_slope[c, k]
                    amplitude, norm, ticking = a[s, m], norms[m], clock[s, m] if costs == 2 else zero
                    sum_first = sum_second = sum_p = sum_rate = zero
                    for k in range(n):
                        second = one - t[k] * t[k]
                        sum_first += e[k] * t[k]
                        sum_second += by_lap[k] * second
                        sum_rate += by_rate[k] * t[k]
                        by_first = amplitude * (e[k] - two * norm * t[k] * by_lap[k]) + ticking * by_rate[k]
                        e[k] = by_first * second
                        sum_p += e[k]
                    by_a[s, m] += sum_first + norm * sum_second
                    by_norms[m] += amplitude * sum_second
                    by_b[s, m] += sum_p
                    by_clock[s, m] += sum_rate
                    for c in range(features):
                        y, factor, total = kept[s, c, start : start + n], v[m, c], zero
                        for k in range(n):
                            pulled[i, c, k] += factor * e[k]
                            total += e[k] * y[k] + amplitude * t[k] * by_slope[c, k]
                        by_v[m, c] += total
            for c in range(features):
                end = by_x[c, start : start + n]
                for i in range(stages):
                    for k in range(n):
                        end[k] += pulled[i, c, k]


@numba.njit(inline="always", error_model="numpy", fastmath=FAST)
def _tanh(rows, start, n, weights, bias, out):
    """out = tanh(bias + sum_c weights[c] rows[c, start : start + n]), to 4e-7: a fraction of a clamped argument."""
    most = np.float32(7.9)
    out[:n] = bias
    for c in range(len(weights)):
        row, weight = rows[c, start : start + n], weights[c]
        for k in range(n):
            out[k] += weight * row[k]
    for k in range(n):
        p = min(max(out[k], -most), most)
        q = p * p
        top = np.float32(-2.76076847742355e-16)
        for coefficient in (
            2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05,
            6.37261928875436e-04, 4.89352455891786e-03,
        ):  # fmt: skip
            top = top * q + np.float32(coefficient)
        bottom = np.float32(1.19825839466702e-06)
        for coefficient in (1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03):
            bottom = bottom * q + np.float32(coefficient)
        out[k] = p * top / bottom
