"""Weights of samples: their tails, and their size relative to the mean."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import array, count, instance
from isingflow.statistics.checks import LARGEST

MIN_PARETO_SAMPLES = 25
"""The tail is a fifth of a small sample; a fit needs five values."""


def pareto_k(log_weights: np.ndarray) -> float:
    """Pareto shape k-hat of the largest importance weights (Zhang and Stephens 2009, Vehtari et al. 2024), by arviz.

    The weights have about 1 / k finite moments: below 0.5 errors are reliable, above 0.7 weighted means should not be
    trusted at any affordable number of samples.

    Args:
        log_weights: logarithms of the weights, shape (n,); -inf for a weight of zero.

    Returns:
        k; 0.0 where the largest weights are all equal (there is no tail), infinity where so few stand out that no tail
        can be fitted, NaN (not known) for fewer than 25 samples.

    Raises:
        InvalidInput: NaN or infinite weights, or none above zero.

    Example:
        >>> uniform = np.random.default_rng(0).random(10000)
        >>> round(pareto_k(-0.7 * np.log(uniform)), 2), pareto_k(np.zeros(10000))
        (0.75, 0.0)
    """
    from arviz_stats.base import array_stats

    log_weights = array("log_weights", log_weights, finite=False)
    weights = relative_weights(log_weights, log_weights.shape).ravel()
    n = len(weights)
    if n < MIN_PARETO_SAMPLES:
        return math.nan
    tail = math.floor(3 * math.sqrt(n)) if n > 225 else n // 5
    largest = np.partition(weights, n - tail - 1)[n - tail - 1 :]
    cutoff, largest = largest[0], np.sort(largest[1:])
    # Differences of rounding size are no tail; a first quartile at the cutoff leaves the fit without a scale.
    if largest[-1] - largest[0] <= 1e-9 * largest[-1]:
        return 0.0
    if largest[(tail + 2) // 4 - 1] <= cutoff:
        return math.inf
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # arviz takes log-likelihoods, the negatives of log-weights.
        _, k = array_stats.psislw(-log_weights.ravel())
    return float(k) if math.isfinite(k) else math.inf


def effective_fraction(weights: np.ndarray) -> float:
    """Effective sample size over their number, (sum w)^2 / (n sum w^2), between 1/n and 1.

    Args:
        weights: of any shape, none negative and not all zero.

    Raises:
        InvalidInput: they are not, or not finite; WrongType: no real numbers.

    Example:
        >>> effective_fraction(np.array([1.0, 1.0, 0.0, 0.0]))
        0.5
    """
    weights = array("weights", weights)
    largest = weights.max()
    if weights.min() < 0 or largest == 0:
        raise InvalidInput("weights must not be negative, and not all 0")
    weights = weights / largest
    return float(weights.sum() ** 2 / (weights.size * np.square(weights).sum()))


def effective_sample_size(log_weights: Tensor | np.ndarray) -> float:
    """The same of log-weights, shape (n,).

    Raises:
        InvalidInput: NaN or infinite weights, none above zero, or none at all; WrongType: no real numbers.

    Example:
        >>> effective_sample_size(np.array([0.0, 0.0, -np.inf, -np.inf]))
        0.5
    """
    log_weights = array("log_weights", log_weights, finite=False)
    return effective_fraction(relative_weights(log_weights, log_weights.shape))


def relative_weights(log_weights: Tensor | np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Weights relative to the largest, exp(w - max w), float64, of this shape; all 1 if none are given.

    Raises:
        InvalidInput: another shape, NaN or infinite weights, or none above zero; WrongType: no real numbers.

    Example:
        >>> relative_weights(np.array([1e5, 1e5, -np.inf]), (3,))
        array([1., 1., 0.])
    """
    shape = tuple(count("a length of shape", length, least=0) for length in instance("shape", shape, tuple, "a tuple"))
    if log_weights is None:
        return np.ones(shape)
    log_weights = array("log-weights", log_weights, finite=False, empty=True, most=LARGEST)
    if log_weights.shape != shape:
        raise InvalidInput(f"log-weights of shape {log_weights.shape}: expected {shape}, one a sample")
    invalid = np.count_nonzero(np.isnan(log_weights) | (log_weights == np.inf))
    if invalid:
        raise InvalidInput(f"{invalid} of {log_weights.size} log-weights are NaN or infinite")
    largest = np.max(log_weights, initial=-np.inf)
    if largest == -np.inf:
        raise InvalidInput("all weights are zero: no sample to average over")
    return np.exp(log_weights - largest)
