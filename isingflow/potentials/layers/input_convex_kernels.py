"""What stands between the matrix products of an input-convex network's Hessian on a CPU: see `input_convex_fused`.

A Jacobian dp_k/du has axes m of units, a of features, i of columns, so that a layer's product with it is one matrix
product. Loops run along columns. Single-threaded and free of Python's lock. Compiled by numba once per machine and
float type, and cached on disk.
"""

from __future__ import annotations

import math

import numba
import numpy as np

LOG_2 = math.log(2)
FAST = {"contract", "reassoc", "nsz", "arcp"}


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def softplus(p, t, log, value, first, second, third, symmetric):
    """The activation and its derivatives from t = exp(-|p|) and ln(1 + t); from row `symmetric` on of s - p/2."""
    units, columns = p.shape
    number = p.dtype.type
    one, zero = number(1), number(0)
    for m in range(units):
        less = number(0.5) if m >= symmetric else zero
        row, small, part = p[m], t[m], log[m]
        s, tilt, bend, last = value[m], first[m], second[m], third[m]
        for i in range(columns):
            share = one / (one + small[i])
            rising = share if row[i] >= zero else small[i] * share
            s[i] = max(row[i], zero) + part[i] - number(LOG_2) - less * row[i]
            tilt[i] = rising - less
            bend[i] = small[i] * share * share
            last[i] = bend[i] * (one - number(2) * rising)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def squareplus(p, value, first, second, third, symmetric):
    """The same of (p + sqrt(1 + p^2)) / 2."""
    units, columns = p.shape
    number = p.dtype.type
    one, half = number(1), number(0.5)
    for m in range(units):
        less = half if m >= symmetric else number(0)
        row, s, tilt, bend, third_row = p[m], value[m], first[m], second[m], third[m]
        for i in range(columns):
            square = one + row[i] * row[i]
            root = math.sqrt(square)
            inverse = one / root
            s[i] = half * (row[i] + root - one) - less * row[i]
            tilt[i] = half * (one + row[i] * inverse) - less
            bend[i] = half * inverse * inverse * inverse
            third_row[i] = -number(3) * row[i] * bend[i] * inverse * inverse


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def opened(slope, skip, tangent):
    """tangent = slope times the opening kernels, shape (m, a, i): what the second layer averages."""
    units, features, columns = tangent.shape
    for m in range(units):
        for a in range(features):
            row, weight, by = tangent[m, a], skip[m, a], slope[m]
            for i in range(columns):
                row[i] = weight * by[i]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def bent(jacobian, skip, curvature, hessian, slope, tangent):
    """Add L_k to the Jacobian, its squares to the Hessian's lower half; slope J_k for the next layer, unless None."""
    units, features, columns = jacobian.shape
    scaled = np.empty(columns, jacobian.dtype)
    for m in range(units):
        by = curvature[m]
        for a in range(features):
            left = jacobian[m, a]
            if skip is not None:
                weight = skip[m, a]
                for i in range(columns):
                    left[i] += weight
            for i in range(columns):
                scaled[i] = by[i] * left[i]
            for b in range(a + 1):
                right, out = jacobian[m, b], hessian[a, b]
                for i in range(columns):
                    out[i] += scaled[i] * right[i]
            if tangent is not None:
                row, steep = tangent[m, a], slope[m]
                for i in range(columns):
                    row[i] = steep[i] * left[i]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def mirrored(hessian):
    """Fill the Hessian's upper half from the lower one."""
    for a in range(hessian.shape[0]):
        for b in range(a):
            hessian[b, a, :] = hessian[a, b]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def pulled_back(jacobian, curvature, by_hessian, slope, by_tangent, by_jacobian, by_curvature, by_slope):
    """Cotangents of a layer's Jacobian, curvature and slope from those of the Hessian and of slope times Jacobian.

    The first is written over that of slope times Jacobian, if there is one. Hessian's cotangent: symmetric.
    """
    units, features, columns = jacobian.shape
    two = jacobian.dtype.type(2)
    product = np.empty(columns, jacobian.dtype)
    for m in range(units):
        bend, of_bend = curvature[m], by_curvature[m]
        for i in range(columns):
            of_bend[i] = 0
        if by_tangent is not None:
            of_slope, steep = by_slope[m], slope[m]
            for i in range(columns):
                of_slope[i] = 0
            for a in range(features):
                row, left, out = by_tangent[m, a], jacobian[m, a], by_jacobian[m, a]
                for i in range(columns):
                    of_slope[i] += row[i] * left[i]
                    out[i] = steep[i] * row[i]
        else:
            by_jacobian[m] = 0
        for a in range(features):
            left, out = jacobian[m, a], by_jacobian[m, a]
            for i in range(columns):
                product[i] = 0
            for b in range(features):
                right, weight = jacobian[m, b], by_hessian[a, b]
                for i in range(columns):
                    product[i] += right[i] * weight[i]
            for i in range(columns):
                of_bend[i] += left[i] * product[i]
                out[i] += two * bend[i] * product[i]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def closed(skip, slope, by_tangent, by_slope, by_skip):
    """`pulled_back` of the opening layer, whose Jacobian L_1 all columns share: by its slope, and added to by_skip."""
    units, features, columns = by_tangent.shape
    for m in range(units):
        of_slope, steep = by_slope[m], slope[m]
        for i in range(columns):
            of_slope[i] = 0
        for a in range(features):
            row, weight, total = by_tangent[m, a], skip[m, a], by_skip.dtype.type(0)
            for i in range(columns):
                of_slope[i] += weight * row[i]
                total += steep[i] * row[i]
            by_skip[m, a] += total
