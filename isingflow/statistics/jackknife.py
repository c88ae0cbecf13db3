"""Error bars of functions of several means, by the jackknife over blocks.

Samples are grouped in blocks much longer than their autocorrelation time, contiguous within chains, and the value is
recomputed with one block left out at a time. Weights w enter the sums, <f> = sum w f / sum w, and the block left out is
left out of both, so the error honours the correlation of numerator and denominator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from isingflow.errors import InvalidInput, WrongType
from isingflow.runtime.checks import array, count, shown
from isingflow.statistics.chains import autocorrelation_time
from isingflow.statistics.checks import LARGEST, check_samples
from isingflow.statistics.estimate import Estimate, Estimates, estimate_of
from isingflow.statistics.weights import relative_weights

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_TAUS = 20
"""Length of a block in units of tau: its neglected ends then hide 1 / 20 of the variance, 2.5 % of the error."""

MIN_BLOCKS, MAX_BLOCKS = 8, 256


def jackknife(
    function: Callable[[np.ndarray], np.ndarray],
    columns: Tensor | np.ndarray,
    log_weights: Tensor | np.ndarray | None = None,
) -> Estimate | Estimates:
    """A function of (weighted) means, with its jackknife error.

    The value is that of the full means, without a correction of its 1 / n bias. Up to 256 independent samples are left
    out one by one: the error of their mean is then exactly s / sqrt(n).

    Args:
        function: of the means of the columns, shape (..., k) to shape (...) or (..., *result): vectorised over leading
            axes.
        columns: shape (n, k) for independent samples, (chains, samples, k) for chains.
        log_weights: shape (n,) or (chains, samples); any constant may be added to them.

    Returns:
        An Estimate where the function gives one number, else Estimates of the function's shape. The error is infinite
        where one block holds all the weight.

    Raises:
        InvalidInput: shapes that do not fit, fewer than 2 samples, values that are not finite, NaN weights, or none
            above zero; WrongType: no function, or no real numbers.

    Example:
        >>> x = np.random.default_rng(0).normal(2.0, 1.0, size=10000)
        >>> print(jackknife(lambda mean: mean[..., 1] - mean[..., 0] ** 2, np.stack([x, x**2], axis=-1)))
        0.996 ± 0.014
    """
    columns = _columns(columns)
    weights = relative_weights(log_weights, columns.shape[:-1])
    starts = _block_starts(columns, weights, MAX_BLOCKS)
    return jackknife_sums(function, _block_sums(columns, weights, starts), np.add.reduceat(weights.ravel(), starts))


def jackknife_mean(values: Tensor | np.ndarray, log_weights: Tensor | np.ndarray | None = None) -> Estimate:
    """The (weighted) mean of values, shape (n,) or (chains, samples), with its jackknife error.

    Raises:
        InvalidInput, WrongType: as for `jackknife`.

    Example:
        >>> print(jackknife_mean(np.array([1.0, 2.0, 3.0])))
        2.00 ± 0.58
    """
    values = check_samples("values", values)
    estimate = jackknife(lambda means: means[..., 0], values[..., None], log_weights)
    assert isinstance(estimate, Estimate)
    return estimate


def block_starts(columns: np.ndarray, weights: np.ndarray, most: int = MAX_BLOCKS) -> np.ndarray:
    """Where the jackknife's blocks begin, as positions in the flattened list of samples.

    Independent samples count as chains of length one. Blocks are whole chains where there are enough of them, else
    pieces of a chain, at least 20 tau long with tau that of the slowest column; a run too short for 8 such pieces is
    cut in 8 all the same, and its errors are then too small.

    Args:
        columns: shape (n, k) or (chains, samples, k).
        weights: shape (n,) or (chains, samples).
        most: most blocks.

    Raises:
        InvalidInput: shapes that do not fit, fewer than 2 samples, values that are not finite, or negative weights.

    Example:
        >>> block_starts(np.zeros((4, 1)), np.ones(4)), block_starts(np.zeros((2, 40, 1)), np.ones((2, 40)))
        (array([0, 1, 2, 3]), array([ 0, 10, 20, 30, 40, 50, 60, 70]))
    """
    columns = _columns(columns)
    weights = _weights(weights, columns.shape[:-1])
    return _block_starts(columns, weights, count("most", most, least=2))


def _block_starts(columns: np.ndarray, weights: np.ndarray, most: int) -> np.ndarray:
    if weights.size < 2:
        raise InvalidInput(f"{weights.size} samples: an error bar needs at least 2")
    chains, samples = weights.shape if weights.ndim == 2 else (weights.size, 1)
    if chains >= most:
        return np.linspace(0, chains, most + 1).astype(int)[:-1] * samples
    fewest = min(-(-MIN_BLOCKS // chains), samples)
    pieces = fewest
    if samples >= 4:
        length = math.ceil(BLOCK_TAUS * _slowest(columns, weights))
        pieces = max(fewest, min(samples // length, most // chains))
    within = np.linspace(0, samples, pieces + 1).astype(int)[:-1]
    return (np.arange(chains)[:, None] * samples + within).ravel()


def block_sums(columns: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Weighted sums of the columns over every block, shape (blocks, k).

    Args:
        columns, weights: as in `block_starts`.
        starts: what it returns.

    Raises:
        InvalidInput: shapes that do not fit, or positions that do not ascend from 0 within the samples.

    Example:
        >>> block_sums(np.ones((4, 1)), np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 2]))
        array([[3.],
               [7.]])
    """
    columns = _columns(columns)
    weights = _weights(weights, columns.shape[:-1])
    starts = array("starts", starts, (None,), integers=True)
    if starts[0] != 0 or np.any(np.diff(starts) < 1) or starts[-1] >= weights.size:
        raise InvalidInput(f"starts: expected positions that ascend from 0 and stay below {weights.size}")
    return _block_sums(columns, weights, starts)


def _block_sums(columns: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
    weighted = weights[..., None] * columns
    return np.add.reduceat(weighted.reshape(-1, columns.shape[-1]), starts)


def jackknife_sums(
    function: Callable[[np.ndarray], np.ndarray], sums: np.ndarray, weights: np.ndarray
) -> Estimate | Estimates:
    """The jackknife on weighted sums over blocks, for those who sum as they go.

    Args:
        function: of the means, shape (..., *columns) to shape (..., *result).
        sums: weighted sums over each block, shape (blocks, *columns).
        weights: sums of the weights, shape (blocks,).

    Raises:
        InvalidInput: shapes that do not fit, sums that are not finite, weights that are negative or all 0, or a
            function that does not keep the blocks apart.
        WrongType: no function, or no real numbers.

    Example:
        >>> print(jackknife_sums(lambda mean: mean, np.array([1.0, 2.0, 3.0]), np.ones(3)))
        2.00 ± 0.58
    """
    if not callable(function):
        raise WrongType(f"function is {shown(function)}, expected a function of the means")
    sums = array("sums", sums)
    weights = _weights(weights, sums.shape[:1])
    total, others = weights.sum(), weights.sum() - weights
    with np.errstate(all="ignore"):
        value = array("what the function gives", function(sums.sum(0) / total), finite=False)
        if others.min() <= np.finfo(float).eps * total:
            return estimate_of(value, np.full_like(value, np.inf))
        left_out = array(
            "what the function gives",
            function((sums.sum(0) - sums) / others.reshape(-1, *[1] * (sums.ndim - 1))),
            (len(weights), *value.shape),
            finite=False,
        )
        return estimate_of(value, np.sqrt((len(weights) - 1) * left_out.var(0)))


def _columns(columns: Tensor | np.ndarray) -> np.ndarray:
    columns = array("columns", columns, finite=False, empty=True, most=LARGEST)
    if columns.ndim not in (2, 3) or columns.shape[-1] == 0:
        raise InvalidInput(f"columns of shape {columns.shape}: expected (n, k) or (chains, samples, k)")
    if not np.all(np.isfinite(columns)):
        raise InvalidInput("the samples hold values that are not finite")
    return columns


def _weights(weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    weights = array("weights", weights, shape, empty=True)
    if weights.size and (weights.min() < 0 or weights.max() == 0):
        raise InvalidInput("weights must not be negative, and not all 0")
    return weights


def _slowest(columns: np.ndarray, weights: np.ndarray) -> float:
    """Largest tau of the columns' contributions w (f - <f>), whose mean is what fluctuates."""
    means = np.average(columns, axis=(0, 1), weights=weights)
    return max(autocorrelation_time(weights * (columns[..., k] - means[k])).value for k in range(columns.shape[-1]))
