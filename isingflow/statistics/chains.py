"""Correlated chains: their autocorrelation, the error bars of their means, and whether they agree.

The error of a mean of n correlated samples is that of n / (2 tau) independent ones, with the integrated autocorrelation
time (Sokal 1997, Wolff 2004)

    tau = 1/2 + sum over t >= 1 of rho(t),     rho the autocorrelation; 1/2 for independent samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from isingflow.errors import InvalidInput
from isingflow.statistics.checks import check_samples
from isingflow.statistics.estimate import Estimate

SOKAL_WINDOW = 5
"""Lags summed in units of tau: exp(-5) of an exponential's tail is cut off."""
MOST_R_HAT = 1.01
"""Up to which chains agree (Vehtari et al. 2021)."""
LARGEST_CHAIN = 1e295
"""Largest sample of a chain: sums of many are numbers still, and squares are taken of what is scaled."""


@dataclass(frozen=True)
class Diagnostics:
    """Whether chains agree, and how much they are worth.

    Attributes:
        r_hat: rank-normalised split R-hat (Vehtari et al. 2021); 1 where chains agree, suspicious above `MOST_R_HAT`.
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

    Raises:
        InvalidInput: as for `autocorrelation_time`.

    Example:
        >>> bool(4500 < effective_samples(np.random.default_rng(0).normal(size=(5, 1000))) < 5500)
        True
    """
    chains = _checked_chains(chains, least=4)
    return chains.size / (2 * autocorrelation_time(chains).value)


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
    chains = np.ldexp(chains, -np.frexp(np.abs(chains).max())[1])  # arviz squares them as they are
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


def _checked_chains(chains: np.ndarray, least: int = 2) -> np.ndarray:
    """The chains as float64, shape (chains, samples)."""
    chains = np.atleast_2d(check_samples("chains", chains, most=LARGEST_CHAIN))
    if chains.shape[1] < least:
        raise InvalidInput(f"{len(chains)} chains of {chains.shape[1]} samples: expected at least {least} samples each")
    return chains
