"""Free energies from samples of a flow p with known probabilities, and of the target, each with its standard error.

With log-weights w = -E(x) - ln p(x), of samples of the flow ("forward") or of the target ("reverse"):

    mean of -w, forward                     >= -ln Z    the variational bound; the difference is KL(p | target)
    mean of -w, reverse                     <= -ln Z    the lower bound; the difference is KL(target | p)
    -ln mean exp(w), forward                -> -ln Z    reweighted
    sum_F s(w + c) = sum_R s(-w - c)        -> -ln Z    acceptance ratio: c - ln(n_R / n_F), s the logistic function

Samples of the target come from Markov chains: log-weights of shape (chains, samples) are taken to be correlated along
the second axis, those of shape (n,) to be independent. Modes that the flow misses show in reverse quantities only.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.jackknife import jackknife_mean
from isingflow.statistics.weights import effective_sample_size

Values = Tensor | np.ndarray

HEAVY_TAIL = 0.7
"""Pareto k-hat of the weights above which weighted means should not be trusted (Vehtari et al. 2024)."""
LITTLE_OVERLAP = 10.0
"""Samples in the overlap below which the acceptance-ratio estimate and its error should not be trusted."""


def mean(values: Values) -> Estimate:
    """Mean of values, shape (n,) or (chains, samples), with its standard error.

    Example:
        >>> print(mean(np.array([1.0, 2.0, 3.0])))
        2.00 ± 0.58
    """
    values = _checked(values)
    if values.ndim == 2:
        return jackknife_mean(values)
    if not np.isfinite(values).all():
        return Estimate(float(values.mean()), math.inf)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))


def variational_free_energy(log_weights: Values) -> Estimate:
    """Upper bound on -ln Z in nats from forward log-weights."""
    return mean(-log_weights)


def lower_bound(log_weights: Values) -> Estimate:
    """Lower bound on -ln Z in nats from reverse log-weights: E[ln p(x) + E(x)] over the target.

    Example:
        >>> print(lower_bound(np.array([-1.0, -2.0, -3.0])))
        2.00 ± 0.58
    """
    return mean(-log_weights)


def reweighted_free_energy(log_weights: Values, *, corrected: bool = False) -> Estimate:
    """-ln mean exp(w) from forward log-weights, with its delta-method error.

    Its expectation lies above -ln Z by half the squared error, to first order.

    Args:
        log_weights: shape (n,).
        corrected: subtract that bias.

    Example:
        >>> print(reweighted_free_energy(np.array([1.0, 1.0, 1.0])))
        -1.000000 ± 0.000000
    """
    log_weights = _checked(log_weights)
    n = len(log_weights)
    value = math.log(n) - float(np.logaddexp.reduce(log_weights))
    variance = max(1 / effective_sample_size(log_weights) - 1, 0.0) / (n - 1)
    return Estimate(value - variance / 2 if corrected else value, math.sqrt(variance))


def acceptance_ratio_free_energy(forward: Values, reverse: Values) -> Estimate:
    """-ln Z by Bennett's acceptance ratio (1976): of all combinations of both sample sets, the one of least variance.

    The root of the equation above; its error is that of the two sums, over their slope. Both come from the few samples
    where the sets overlap: see `overlap`. Sets that do not overlap at all give an infinite error.

    Args:
        forward: log-weights of samples of the flow, shape (n,).
        reverse: log-weights of samples of the target, shape (n,) or (chains, samples).

    Raises:
        InvalidInput: fewer than 2 samples, NaN, or no finite log-weight in one of the sets.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 1000))
        >>> forward, reverse = x[0] - 0.5, x[1] + 0.5  # p = Normal(0, 1), the target Normal(1, 1): Z = 1
        >>> abs(acceptance_ratio_free_energy(forward, reverse).value) < 0.05
        True
    """
    forward, reverse = _checked(forward), _checked(reverse)
    shift = math.log(reverse.size / forward.size)

    def imbalance(free_energy: float) -> float:
        """Difference of the two sums, with what is nearly one counted apart: ones would drown the rest."""
        pushed, pulled = forward + (free_energy + shift), reverse + (free_energy + shift)
        rest = np.where(pushed > 0, -1, 1) @ expit(-np.abs(pushed))
        rest -= np.sum(np.where(pulled < 0, -1, 1) * expit(-np.abs(pulled)))
        return float(np.count_nonzero(pushed > 0) - np.count_nonzero(pulled < 0) + rest)

    finite = [values[np.isfinite(values)] for values in (forward, reverse)]
    for name, values in zip(("flow", "target"), finite, strict=True):
        if values.size == 0:
            raise InvalidInput(f"none of the log-weights of samples of the {name} is finite")
    both = np.concatenate(finite)
    value = brentq(imbalance, -both.max() - abs(shift) - 40, -both.min() + abs(shift) + 40, xtol=1e-12)
    pushed, pulled = _acceptances(forward, reverse, value)
    slope = (pushed * (1 - pushed)).sum() + (pulled * (1 - pulled)).sum()
    noise = math.hypot(forward.size * mean(pushed).stderr, reverse.size * mean(pulled).stderr)
    return Estimate(float(value), noise / slope if slope > 0 else math.inf)


def overlap(forward: Values, reverse: Values, free_energy: float) -> float:
    """How many samples the acceptance-ratio estimate rests on: (sum a)^2 / sum a^2, of the poorer of the two sets.

    a are the acceptances s(w + c) of the flow's samples and s(-w - c) of the target's. Below about 10 the estimate may
    be off by far more than its error says.

    Args:
        forward, reverse: as in `acceptance_ratio_free_energy`.
        free_energy: its value.

    Example:
        >>> round(overlap(np.zeros(100), np.zeros(50), 0.0), 6)
        50.0
    """
    acceptances = _acceptances(_checked(forward), _checked(reverse), free_energy)
    return min(float(a.sum() ** 2 / np.square(a).sum()) if a.any() else 0.0 for a in acceptances)


def _acceptances(forward: np.ndarray, reverse: np.ndarray, free_energy: float) -> tuple[np.ndarray, np.ndarray]:
    """The terms of both sums at a free energy."""
    shift = math.log(reverse.size / forward.size)
    return expit(forward + free_energy + shift), expit(-reverse - free_energy - shift)


def internal_energy(energies: Values, log_weights: Values | None = None) -> Estimate:
    """E[E(x)] over the target in nats, from its own samples, or from those of the flow with their log-weights."""
    weights = None if log_weights is None else np.asarray(log_weights, dtype=float)
    return jackknife_mean(np.asarray(energies, dtype=float), weights)


def entropy(energies: Values, log_weights: Values) -> Estimate:
    """Differential entropy of the target in nats, E[E(x)] + ln Z, from samples of the flow.

    Energy and free energy are correlated: the error is that of their sum, by the delta method.

    Args:
        energies: E(x), shape (n,).
        log_weights: forward, shape (n,).
    """
    energies, log_weights = _checked(energies), _checked(log_weights)
    largest = log_weights.max()
    weights = np.exp(log_weights - largest)
    relative = weights / weights.mean()
    average = float((relative * energies).mean())
    influence = relative * (energies - average) + relative - 1
    return Estimate(average + math.log(weights.mean()) + largest, mean(influence).stderr)


def reverse_effective_sample_size(log_weights: Values, free_energy: float) -> float:
    """1 / E[exp(w)] Z over the target: the same quantity as `weights.effective_sample_size`, seen from the other side.

    Forward samples cannot see a mode that the flow misses, and then report too much; these can.

    Args:
        log_weights: reverse, shape (n,) or (chains, samples).
        free_energy: -ln Z, exact or estimated.
    """
    log_weights = _checked(log_weights).ravel()
    return min(1.0, math.exp(math.log(log_weights.size) - free_energy - float(np.logaddexp.reduce(log_weights))))


def _checked(values: Values) -> np.ndarray:
    """The values as a float64 array of shape (n,) or (chains, samples)."""
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        raise InvalidInput(f"{values.size} samples: an error bar needs at least 2")
    if np.isnan(values).any():
        raise InvalidInput(f"{np.count_nonzero(np.isnan(values))} of {values.size} values are NaN")
    return values
