"""Cholesky factors of many small symmetric matrices at once: matrices are the last axis, along which all loops run.

Single-threaded and free of Python's lock. Compiled by numba once per machine, and cached on disk.
"""

from __future__ import annotations

import math

import numba
import numpy as np

FAST = {"contract", "reassoc", "nsz", "arcp"}


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def factorised(matrices, log_determinants):
    """L with L L^T = A over the lower half, shape (d, d, n), but 1 / L on the diagonal; and ln det A, shape (n,).

    Returns:
        Whether all matrices are positive definite; if not, what is left means nothing.
    """
    rows, _, n = matrices.shape
    log_determinants[:] = 0
    for j in range(rows):
        pivot = matrices[j, j]
        for k in range(j):
            row = matrices[j, k]
            for i in range(n):
                pivot[i] -= row[i] * row[i]
        positive = True
        for i in range(n):
            positive &= pivot[i] > 0
        if not positive:
            return False
        for i in range(n):
            log_determinants[i] += math.log(pivot[i])
            pivot[i] = 1 / math.sqrt(pivot[i])
        for l in range(j + 1, rows):
            out = matrices[l, j]
            for k in range(j):
                left, right = matrices[l, k], matrices[j, k]
                for i in range(n):
                    out[i] -= left[i] * right[i]
            for i in range(n):
                out[i] *= pivot[i]
    return True


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def inverted(factor, inverse):
    """A^-1, shape (d, d, n), from what `factorised` leaves of A; the factor becomes that of A^-1, L^-1."""
    rows, _, n = factor.shape
    for j in range(rows):
        for l in range(j + 1, rows):
            out, total = factor[j, l], np.zeros(n)
            for k in range(j, l):
                # L^-1 is kept above the diagonal, transposed
                left, right = factor[l, k], factor[j, k]
                for i in range(n):
                    total[i] += left[i] * right[i]
            for i in range(n):
                out[i] = -total[i] * factor[l, l, i]
    for a in range(rows):
        for b in range(a + 1):
            out = inverse[a, b]
            for i in range(n):
                out[i] = 0
            for k in range(a, rows):
                left, right = factor[a, k], factor[b, k]
                for i in range(n):
                    out[i] += left[i] * right[i]
            inverse[b, a, :] = out
