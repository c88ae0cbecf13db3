"""Error bars: of correlated chains, of weighted samples, and of functions of several means.

The error of a mean of n correlated samples is that of n / (2 tau) independent ones, with the integrated autocorrelation
time (Sokal 1997, Wolff 2004)

    tau = 1/2 + sum over t >= 1 of rho(t),     rho the autocorrelation; 1/2 for independent samples.

A ratio of means is jackknifed: samples are grouped in blocks much longer than tau, contiguous within chains, and the
value is recomputed with one block left out at a time. Weights w enter the sums, <f> = sum w f / sum w, and the block
left out is left out of both, so the error honours the correlation of numerator and denominator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from isingflow.errors import InvalidInput
from isingflow.estimate import Estimate

BLOCK_TAUS = 20
"""Length of a block in units of tau: its neglected ends then hide 1 / 20 of the variance, 2.5 % of the error."""

MIN_BLOCKS, MAX_BLOCKS = 8, 256

SOKAL_WINDOW = 5
"""Lags summed in units of tau: exp(-5) of an exponential's tail is cut off."""

MIN_PARETO_SAMPLES = 25
"""The tail is a fifth of a small sample; a fit needs five values."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """An array of values with their standard errors (one sigma each, correlated with each other in general).

    Example:
        >>> print(Estimates(np.array([1.0, 0.5]), np.array([0.0, 0.012]))[1])
        0.500 ± 0.012
    """

    value: np.ndarray
    stderr: np.ndarray

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: int | slice | tuple) -> Estimate | Estimates:
        return _estimate(self.value[index], self.stderr[index])

    def as_dict(self) -> dict[str, list]:
        """The JSON form, nested lists "value" and "stderr"; null for what is not finite."""
        return {name: np.where(np.isfinite(array), array, None).tolist() for name, array in vars(self).items()}


@dataclass(frozen=True)
class Diagnostics:
    """Whether chains agree, and how much they are worth.

    Attributes:
        r_hat: rank-normalised split R-hat (Vehtari et al. 2021); 1 where chains agree, suspicious above 1.01.
        ess_bulk, ess_tail: effective numbers of samples for the centre, and for the 5 % and 95 % quantiles.
    """

    r_hat: float
    ess_bulk: float
    ess_tail: float


def autocorrelation(chains: np.ndarray) -> np.ndarray:
    """rho(t), the normalised autocorrelation of one quantity, from deviations from the mean over all chains.

    Args:
        chains: shape (samples,) or (chains, samples).

    Returns:
        rho at t = 0 .. samples - 1, shape (samples,); rho(0) = 1. A constant has rho = 0 at t > 0. Far lags are noise.

    Raises:
        InvalidInput: not such an array, fewer than 2 samples, or values that are not finite.

    Example:
        >>> autocorrelation(np.array([1.0, -1.0, 1.0, -1.0])).round(12)
        array([ 1., -1.,  1., -1.])
    """
    chains = _checked_chains(chains)
    count, samples = chains.shape
    if np.ptp(chains) == 0:
        return np.eye(1, samples)[0]
    deviations = chains - chains.mean()
    # One overall factor keeps the squares of very large or very small quantities within range.
    power = np.abs(rfft(deviations / np.abs(deviations).max(), next_fast_len(2 * samples, real=True))) ** 2
    covariance = irfft(power.sum(0), next_fast_len(2 * samples, real=True))[:samples]
    covariance /= count * np.arange(samples, 0, -1)
    return covariance / covariance[0]


def autocorrelation_time(chains: np.ndarray) -> Estimate:
    """Integrated autocorrelation time tau = 1/2 + sum of rho(t), in samples, so that n / (2 tau) are independent.

    The sum stops at the first lag W >= 5 tau(W) (Sokal), counted with |rho| so that alternating chains are summed far
    enough as well; at most at half a chain. The error is Madras and Sokal's, tau sqrt((4 W + 2) / n), and the bias of
    subtracting the sample mean is removed to first order. Chains better than independent have tau < 1/2, but no value
    below 1 / (2 log10 n) is believed. A chain shorter than some 50 tau gives too small a value.

    Args:
        chains: one quantity, shape (samples,) or (chains, samples); n is the number of all samples.

    Raises:
        InvalidInput: not such an array, fewer than 4 samples in a chain, or values that are not finite.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(2, 20000))
        >>> print(autocorrelation_time(noise[:, 1:] + noise[:, :-1]))
        0.979 ± 0.025
    """
    chains = _checked_chains(chains, least=4)
    n, samples = chains.size, chains.shape[1]
    if np.ptp(chains) == 0:
        return Estimate(0.5, 0.0)
    rho = autocorrelation(chains)[: samples // 2 + 1]
    reached = np.arange(len(rho)) >= SOKAL_WINDOW * (np.cumsum(np.abs(rho)) - 0.5)
    window = int(np.argmax(reached)) if reached.any() else len(rho) - 1
    tau = (float(rho[: window + 1].sum()) - 0.5) * (1 + (2 * window + 1) / n)
    tau = max(tau, 0.5 / math.log10(n) if n > 10 else 0.5)
    return Estimate(tau, tau * math.sqrt((4 * window + 2) / n))


def effective_samples(chains: np.ndarray) -> float:
    """Number of independent samples that give the mean the same error, n / (2 tau).

    Example:
        >>> bool(4500 < effective_samples(np.random.default_rng(0).normal(size=(5, 1000))) < 5500)
        True
    """
    return np.size(chains) / (2 * autocorrelation_time(chains).value)


def diagnostics(chains: np.ndarray) -> Diagnostics:
    """R-hat and effective sample sizes by arviz.

    A single chain is compared with itself, half against half. Chains that are all the same constant agree (1); chains
    that are stuck at different ones do not (infinity).

    Args:
        chains: one quantity, shape (samples,) or (chains, samples), at least 8 samples each.

    Raises:
        InvalidInput: not such an array, too few samples, or values that are not finite.

    Example:
        >>> chains = np.random.default_rng(0).normal(size=(4, 1000))
        >>> round(diagnostics(chains).r_hat, 2), round(diagnostics(chains + np.arange(4)[:, None]).r_hat, 2)
        (1.0, 1.56)
    """
    from arviz_stats.base import array_stats

    chains = _checked_chains(chains, least=8)
    half = chains.shape[1] // 2
    compared = np.stack([chains[0, :half], chains[0, -half:]]) if len(chains) == 1 else chains
    if np.ptp(chains) == 0:
        r_hat = 1.0
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            r_hat = float(array_stats.rhat(compared))
        r_hat = math.inf if math.isnan(r_hat) else r_hat
    ess_bulk = float(array_stats.ess(chains, method="bulk"))
    ess_tail = float(array_stats.ess(chains, method="tail", prob=0.05))
    return Diagnostics(r_hat, ess_bulk, ess_tail)


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

    log_weights = np.asarray(log_weights, dtype=float)
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


def jackknife(
    function: Callable[[np.ndarray], np.ndarray],
    columns: np.ndarray,
    log_weights: np.ndarray | None = None,
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
            above zero.

    Example:
        >>> x = np.random.default_rng(0).normal(2.0, 1.0, size=10000)
        >>> print(jackknife(lambda mean: mean[..., 1] - mean[..., 0] ** 2, np.stack([x, x**2], axis=-1)))
        0.996 ± 0.014
    """
    columns = np.asarray(columns, dtype=float)
    if columns.ndim not in (2, 3):
        raise InvalidInput(f"columns of shape {columns.shape}: expected (n, k) or (chains, samples, k)")
    weights = relative_weights(log_weights, columns.shape[:-1])
    starts = block_starts(columns, weights)
    return jackknife_sums(function, block_sums(columns, weights, starts), np.add.reduceat(weights.ravel(), starts))


def relative_weights(log_weights: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Weights relative to the largest, exp(w - max w), float64, of this shape; all 1 if none are given.

    Raises:
        InvalidInput: another shape, NaN or infinite weights, or none above zero.

    Example:
        >>> relative_weights(np.array([1e5, 1e5, -np.inf]), (3,))
        array([1., 1., 0.])
    """
    if log_weights is None:
        return np.ones(shape)
    log_weights = np.asarray(log_weights)
    if log_weights.dtype.kind not in "iuf":
        raise InvalidInput(f"log-weights of {log_weights.dtype}: expected real numbers")
    log_weights = log_weights.astype(float)
    if log_weights.shape != tuple(shape):
        raise InvalidInput(f"log-weights of shape {log_weights.shape}: expected {tuple(shape)}, one a sample")
    invalid = np.count_nonzero(np.isnan(log_weights) | (log_weights == np.inf))
    if invalid:
        raise InvalidInput(f"{invalid} of {log_weights.size} log-weights are NaN or infinite")
    largest = np.max(log_weights, initial=-np.inf)
    if largest == -np.inf:
        raise InvalidInput("all weights are zero: no sample to average over")
    return np.exp(log_weights - largest)


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
        InvalidInput: fewer than 2 samples, or values that are not finite.

    Example:
        >>> block_starts(np.zeros((4, 1)), np.ones(4)), block_starts(np.zeros((2, 40, 1)), np.ones((2, 40)))
        (array([0, 1, 2, 3]), array([ 0, 10, 20, 30, 40, 50, 60, 70]))
    """
    if weights.size < 2:
        raise InvalidInput(f"{weights.size} samples: an error bar needs at least 2")
    if not np.all(np.isfinite(columns)):
        raise InvalidInput("the samples hold values that are not finite")
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
    """Weighted sums of the columns over every block, shape (blocks, k)."""
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

    Example:
        >>> print(jackknife_sums(lambda mean: mean, np.array([1.0, 2.0, 3.0]), np.ones(3)))
        2.00 ± 0.58
    """
    total, others = weights.sum(), weights.sum() - weights
    with np.errstate(divide="ignore", invalid="ignore"):
        value = function(sums.sum(0) / total)
        if others.min() <= np.finfo(float).eps * total:
            return _estimate(value, np.full_like(value, np.inf))
        left_out = function((sums.sum(0) - sums) / others.reshape(-1, *[1] * (sums.ndim - 1)))
        return _estimate(value, np.sqrt((len(weights) - 1) * left_out.var(0)))


def _slowest(columns: np.ndarray, weights: np.ndarray) -> float:
    """Largest tau of the columns' contributions w (f - <f>), whose mean is what fluctuates."""
    means = np.average(columns, axis=(0, 1), weights=weights)
    return max(autocorrelation_time(weights * (columns[..., k] - means[k])).value for k in range(columns.shape[-1]))


def _estimate(value: np.ndarray, stderr: np.ndarray) -> Estimate | Estimates:
    if np.ndim(value) == 0:
        return Estimate(float(value), float(stderr))
    return Estimates(value, stderr)


def _checked_chains(chains: np.ndarray, least: int = 2) -> np.ndarray:
    """The chains as float64, shape (chains, samples)."""
    chains = np.asarray(chains, dtype=float)
    if chains.ndim not in (1, 2):
        raise InvalidInput(f"chains of shape {chains.shape}: expected (samples,) or (chains, samples)")
    chains = np.atleast_2d(chains)
    if chains.size == 0 or chains.shape[1] < least:
        raise InvalidInput(f"{len(chains)} chains of {chains.shape[1]} samples: expected at least {least} samples each")
    if not np.all(np.isfinite(chains)):
        raise InvalidInput("the chains hold values that are not finite")
    return chains
