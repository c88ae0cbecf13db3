"""Small graphs solved by visiting every state.

Z = sum over s in {-1,+1}^N of exp[x(s)], x(s) = sum over bonds K_ij s_i s_j + sum_i h_i s_i. States follow a Gray code
(one spin flips at a time), so a step costs one neighbourhood; without fields one spin stays fixed. The sums over x and
x^2 are taken relative to the largest x so far: nothing overflows and ground states lose no digits.
"""

from __future__ import annotations

import math

import numpy as np

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact.kaufman import compensated
from isingflow.lattice.checks import STRONGEST
from isingflow.runtime.checks import array
from isingflow.runtime.compiled import compiled

SPIN_LIMIT = 24
"""Most spins enumerated: 2**24 states take about a second."""


def solve(couplings: np.ndarray, fields: np.ndarray | None = None) -> tuple[float, float, float]:
    """ln Z of any graph of at most 24 spins.

    Args:
        couplings: K, symmetric, shape (N, N); the diagonal counts as the constant sum K_ii / 2, as in s.K.s / 2.
        fields: h, shape (N,), or None.

    Returns:
        ln Z, the mean and the variance of x(s). With K = beta J and h = beta H, the energy -d ln Z/d beta is
        -mean / beta and the heat capacity is the variance.

    Raises:
        InvalidInput: no such matrix or vector; NoExactSolution: more than 24 spins.

    Example:
        >>> log_z, mean, variance = solve(np.array([[0.0, 0.5], [0.5, 0.0]]))
        >>> bool(np.isclose(log_z, np.log(4 * np.cosh(0.5)))), round(float(mean), 6)
        (True, 0.231059)
    """
    return polarised(couplings, fields)[:3]


def polarised(couplings: np.ndarray, fields: np.ndarray | None = None) -> tuple[float, float, float, float]:
    """What `solve` gives, for the same arguments, and the mean of sum_i s_i.

    Example:
        >>> round(polarised(np.zeros((2, 2)), np.array([0.5, 0.5]))[3] - 2 * math.tanh(0.5), 12)
        0.0
    """
    couplings = _matrix(couplings)
    spins = len(couplings)
    fields = np.zeros(spins) if fields is None else array("fields", fields, (spins,), most=STRONGEST)
    rows, columns = np.nonzero(couplings - np.diag(np.diag(couplings)))
    starts = np.searchsorted(rows, np.arange(spins + 1))
    constant = float(np.trace(couplings)) / 2
    log_z, mean, variance, total = _enumerate(starts, columns, couplings[rows, columns], fields)
    return log_z + constant, mean + constant, variance, total


def probabilities(couplings: np.ndarray, fields: np.ndarray | None = None) -> np.ndarray:
    """The Boltzmann weights of the states with the last spin up; the other half, its spin flip, has the same.

    Fields are bonds to one more spin, which becomes the last: the weights are then those of all states of the others.

    Args:
        couplings: K, symmetric, shape (N, N), N at most 24, or 23 with fields; the diagonal does not matter.
        fields: h, shape (N,), or None.

    Returns:
        weights, shape (2^(N-1),), with sum 1; spin i < N - 1 of state n is down where bit i of n is set.

    Raises:
        InvalidInput: no such matrix; NoExactSolution: more than 24 spins.

    Example:
        >>> probabilities(np.array([[0.0, 0.5], [0.5, 0.0]])).round(6)
        array([0.731059, 0.268941])
    """
    couplings = _matrix(couplings)
    if fields is not None:
        fields = array("fields", fields, (len(couplings),), most=STRONGEST)
        couplings = _matrix(np.block([[couplings, fields[:, None]], [fields, np.zeros(1)]]))
    spins = len(couplings)
    exponents = np.zeros(1)
    for spin in range(spins):
        field = np.zeros(1)
        for other in range(spin):
            field = np.concatenate([field + couplings[spin, other], field - couplings[spin, other]])
        exponents = exponents + field if spin == spins - 1 else np.concatenate([exponents + field, exponents - field])
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum()


def _matrix(couplings: np.ndarray) -> np.ndarray:
    """The couplings of at most 24 spins, checked: the kernels trust sizes and indices."""
    couplings = array("couplings", couplings, (None, None), most=STRONGEST)
    spins = len(couplings)
    if not np.array_equal(couplings, couplings.T):
        raise InvalidInput(f"couplings of shape {couplings.shape}: expected a symmetric matrix, shape (N, N)")
    if spins > SPIN_LIMIT:
        raise NoExactSolution(f"{spins} spins are too many to enumerate: at most {SPIN_LIMIT} are possible")
    return couplings


@compiled
def _enumerate(starts, neighbours, couplings, fields):
    spins = len(fields)
    even = not np.any(fields != 0)
    state = np.ones(spins)
    exponent = 0.5 * np.sum(couplings) + np.sum(fields)
    lost = lost0 = lost1 = lost2 = lost_m = 0.0
    largest, sum0, sum1, sum2 = exponent, 1.0, 0.0, 0.0
    up = sum_m = float(spins)
    for step in range(1, 1 << (spins - 1 if even else spins)):
        flipped = 0
        while not (step >> flipped) & 1:
            flipped += 1
        field = fields[flipped]
        for bond in range(starts[flipped], starts[flipped + 1]):
            field += couplings[bond] * state[neighbours[bond]]
        exponent, lost = compensated(exponent, lost, -2 * state[flipped] * field)
        state[flipped] = -state[flipped]
        up += 2 * state[flipped]
        excess = exponent + lost - largest
        if excess > 0:
            shrink = math.exp(-excess)
            sum0, sum1, sum2, sum_m = sum0 + lost0, sum1 + lost1, sum2 + lost2, sum_m + lost_m
            sum2 = shrink * (sum2 - 2 * excess * sum1 + excess * excess * sum0)
            sum1 = shrink * (sum1 - excess * sum0)
            sum0, sum_m = shrink * sum0, shrink * sum_m
            lost0 = lost1 = lost2 = lost_m = 0.0
            largest, excess = exponent + lost, 0.0
        weight = math.exp(excess)
        sum0, lost0 = compensated(sum0, lost0, weight)
        sum1, lost1 = compensated(sum1, lost1, weight * excess)
        sum2, lost2 = compensated(sum2, lost2, weight * excess * excess)
        sum_m, lost_m = compensated(sum_m, lost_m, weight * up)
    sum0, sum1, sum2 = sum0 + lost0, sum1 + lost1, sum2 + lost2
    mean = sum1 / sum0
    total = 0.0 if even else (sum_m + lost_m) / sum0
    return largest + math.log(2 * sum0 if even else sum0), largest + mean, sum2 / sum0 - mean * mean, total
