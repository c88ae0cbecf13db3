"""Free energies from samples of a flow p with known probabilities, and of the target, each with its standard error.

With log-weights w = -E(x) - ln p(x), of samples of the flow ("forward") or of the target ("reverse"):

    mean of -w, forward                     >= -ln Z    the variational bound; the difference is KL(p | target)
    mean of -w, reverse                     <= -ln Z    the lower bound; the difference is KL(target | p)
    -ln mean exp(w), forward                -> -ln Z    reweighted
    sum_F s(w + c) = sum_R s(-w - c)        -> -ln Z    acceptance ratio: c - ln(n_R / n_F), s the logistic function

Paths of annealing are such samples too, of the product of all their states: w is minus the work on the way.

Samples of the target come from Markov chains: log-weights of shape (chains, samples) are taken to be correlated along
the second axis, those of shape (n,) to be independent. Modes that the flow misses show in reverse quantities only.
Forward log-weights may be -inf, where the target vanishes, and reverse ones +inf, where the flow does.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit, ndtr, stdtrit
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import array, flag, number
from isingflow.statistics.checks import LARGEST, check_samples
from isingflow.statistics.estimate import Estimate, Estimates
from isingflow.statistics.jackknife import jackknife_mean
from isingflow.statistics.weights import effective_fraction, relative_weights

Values = Tensor | np.ndarray

HEAVY_TAIL = 0.7
"""Pareto k-hat of the weights above which weighted means should not be trusted (Vehtari et al. 2024)."""
LITTLE_OVERLAP = 10.0
"""Samples in the overlap below which the acceptance-ratio estimate and its error should not be trusted."""


def mean(values: Values) -> Estimate:
    """Mean of values, shape (n,) or (chains, samples), with its standard error.

    Infinite values of one sign have an infinite mean, with an infinite error.

    Raises:
        InvalidInput: another shape, fewer than 2 values, NaN, or infinities of both signs.
        WrongType: no real numbers.

    Example:
        >>> print(mean(np.array([1.0, 2.0, 3.0])))
        2.00 ± 0.58
    """
    values = check_samples("values", values, infinite=(-math.inf, math.inf))
    infinite = np.unique(values[np.isinf(values)])
    if infinite.size == 2:
        raise InvalidInput("values: infinities of both signs have no mean")
    if infinite.size:
        return Estimate(infinite[0], math.inf)
    if values.ndim == 2:
        return jackknife_mean(values)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))


def variational_free_energy(log_weights: Values) -> Estimate:
    """Upper bound on -ln Z in nats from forward log-weights.

    Raises:
        InvalidInput: another shape than (n,) or (chains, samples), fewer than 2, NaN or inf.
        WrongType: no real numbers.

    Example:
        >>> print(variational_free_energy(np.array([-1.0, -2.0, -np.inf])))
        inf ± inf
    """
    return mean(-_forward(log_weights))


def lower_bound(log_weights: Values) -> Estimate:
    """Lower bound on -ln Z in nats from reverse log-weights: E[ln p(x) + E(x)] over the target.

    Raises:
        InvalidInput: another shape than (n,) or (chains, samples), fewer than 2, NaN or -inf.
        WrongType: no real numbers.

    Example:
        >>> print(lower_bound(np.array([-1.0, -2.0, -3.0])))
        2.00 ± 0.58
    """
    return mean(-_reverse(log_weights))


def reweighted_free_energy(log_weights: Values, *, corrected: bool = False) -> Estimate:
    """-ln mean exp(w) from forward log-weights, with its jackknife error, one sample left out at a time.

    Its expectation lies above -ln Z by half the squared error, to first order. Where few weights hold most, their own
    variance is poorly known, and the largest are still to come: the error is Student's, see `_student`, and infinite
    where one sample holds all the weight.

    Args:
        log_weights: shape (n,).
        corrected: subtract that bias, as the jackknife finds it.

    Raises:
        InvalidInput: another shape, fewer than 2, NaN or inf, or all of them -inf.
        WrongType: no real numbers.

    Example:
        >>> print(reweighted_free_energy(np.array([1.0, 1.0, 1.0])))
        -1.000000 ± 0.000000
    """
    log_weights = check_samples("log_weights", log_weights, chains=False, infinite=(-math.inf,))
    corrected = flag("corrected", corrected)
    n = len(log_weights)
    weights = relative_weights(log_weights, log_weights.shape)
    value = math.log(n) - math.log(weights.sum()) - float(log_weights.max())
    without = math.log1p(-1 / n) - _log_others(weights)
    if not np.isfinite(without).all():
        return Estimate(value, math.inf)
    bias = (n - 1) * float(without.mean())
    return Estimate(value - bias if corrected else value, math.sqrt(n - 1) * float(without.std()) * _student(without))


def _log_others(weights: np.ndarray) -> np.ndarray:
    """ln of the part of all weight that the others have, for each of them, shape (n,); -inf where they have none."""
    shares = weights / weights.sum()
    others = 1 - shares
    largest = int(shares.argmax())
    if shares[largest] > 0.5:
        others[largest] = np.delete(shares, largest).sum()  # which rounding would lose beside 1
    with np.errstate(divide="ignore"):
        return np.log(others)


def _student(influences: np.ndarray) -> float:
    """Student's 68 % interval in units of the error that samples of these influences on an estimate give it.

    The variance s^2 of n values of kurtosis k has a relative variance of about (k - 1) / n, as that of a Gaussian's has
    with 2 n / (k - 1) degrees of freedom (Satterthwaite 1946); n - 1 at most.
    """
    squares = np.square(influences - influences.mean())
    variance = squares.mean()
    if variance == 0:
        return 1.0
    spread = float((squares / variance).var())
    freedom = len(influences) - 1.0
    if spread > 0:
        freedom = min(freedom, 2 * len(influences) / spread)
    return float(stdtrit(freedom, float(ndtr(1.0))))


def acceptance_ratio_free_energy(forward: Values, reverse: Values) -> Estimate:
    """-ln Z by Bennett's acceptance ratio (1976): of all combinations of both sample sets, the one of least variance.

    The root of the equation above; its error is that of the two sums, over their slope. Both come from the few samples
    where the sets overlap: see `overlap`. Sets that do not overlap have an infinite error.

    Args:
        forward: log-weights of samples of the flow, shape (n,) or (chains, samples).
        reverse: log-weights of samples of the target, of such a shape.

    Raises:
        InvalidInput: fewer than 2 samples, NaN, infinities of the wrong sign, or none finite in one of the sets.
        WrongType: no real numbers.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 1000))
        >>> forward, reverse = x[0] - 0.5, x[1] + 0.5  # p = Normal(0, 1), the target Normal(1, 1): Z = 1
        >>> abs(acceptance_ratio_free_energy(forward, reverse).value) < 0.05
        True
        >>> print(acceptance_ratio_free_energy(forward - 450, reverse + 450).stderr)
        inf
    """
    forward, reverse = _both(forward, reverse)
    # All acceptances s(w + c) of both sets together add up to n_R. So what the upper n_R lack of one is what the others
    # have above zero: two sums of small terms, in which no ones drown the rest, and whose logarithms never underflow.
    pooled = np.sort(np.concatenate([forward.ravel(), reverse.ravel()]))
    lower, upper = np.split(pooled, [forward.size])

    def imbalance(c: float) -> float:
        return float(np.logaddexp.reduce(log_expit(lower + c)) - np.logaddexp.reduce(log_expit(-upper - c)))

    finite, margin = pooled[np.isfinite(pooled)], math.log(pooled.size) + 40
    value = brentq(imbalance, -finite.max() - margin, -finite.min() + margin, xtol=1e-12)
    value -= math.log(reverse.size / forward.size)
    if _overlap(forward, reverse, value) == 0:
        return Estimate(value, math.inf)
    pushed, pulled = map(expit, _exponents(forward, reverse, value))
    slope = (pushed * (1 - pushed)).sum() + (pulled * (1 - pulled)).sum()
    noise = math.hypot(forward.size * mean(pushed).stderr, reverse.size * mean(pulled).stderr)
    return Estimate(value, noise / slope)


def overlap(forward: Values, reverse: Values, free_energy: float) -> float:
    """How many samples the acceptance-ratio estimate rests on; below about 10 it may be off by far more than it says.

    With the acceptances a = s(w + c) of the flow's samples and s(-w - c) of the target's: the least of
    (sum a)^2 / sum a^2 of either set and of the sum of min(a, 1 - a) over both, which counts the samples that could as
    well have come from the other set. Where these are less than one, the sets do not overlap: 0.

    Args:
        forward, reverse: as in `acceptance_ratio_free_energy`.
        free_energy: its value.

    Raises:
        InvalidInput: as there, or a free energy that is not finite.
        WrongType: no real numbers.

    Example:
        >>> round(overlap(np.zeros(100), np.zeros(50), 0.0), 6), overlap(np.zeros(100) - 450, np.zeros(50) + 450, 0.0)
        (50.0, 0.0)
    """
    free_energy = number("free_energy", free_energy, least=-LARGEST, most=LARGEST)
    return _overlap(*_both(forward, reverse), free_energy)


def _overlap(forward: np.ndarray, reverse: np.ndarray, free_energy: float) -> float:
    exponents = _exponents(forward, reverse, free_energy)
    shared = sum(float(expit(-np.abs(e)).sum()) for e in exponents)
    if shared < 1 - 1e-9:  # two pairs of equal weights share exactly one sample each
        return 0.0
    return min(shared, *(effective_fraction(np.exp(log_expit(e) - log_expit(e.max()))) * e.size for e in exponents))


def _exponents(forward: np.ndarray, reverse: np.ndarray, free_energy: float) -> tuple[np.ndarray, np.ndarray]:
    """w + c and -w - c: the acceptances of both sets are their logistic functions."""
    c = free_energy + math.log(reverse.size / forward.size)
    return forward + c, -reverse - c


def path_free_energies(forward: Values, reverse: Values) -> Estimates:
    """-ln Z at temperatures along paths of both directions, by one acceptance ratio (Minh and Chodera 2009).

    With w_r the log-weight of a path between its start and temperature r, W that of the whole path, and c as above,

        Z_r = sum over paths of both directions of exp(w_r) s(-W - c) / n_F,

    which at the end is the acceptance ratio itself. Errors by the delta method, that of c included.

    Args:
        forward: w_r of paths from the start to the end, shape (n, R) or (chains, samples, R); the last is W.
        reverse: the same of paths from the end to the start: w_r counts the part near the start too.

    Returns:
        -ln Z_r / Z_start, shape (R,); infinite errors where the directions do not overlap.

    Raises:
        InvalidInput: shapes that do not fit, fewer than 2 paths of either, or values that are not finite.
        WrongType: no real numbers.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 2, 4000)).cumsum(axis=1)  # two steps, each of ln Z = 0
        >>> forward, reverse = (x[0] - [[0.5], [1.0]]).T, (x[1] + [[0.5], [1.0]]).T
        >>> print(path_free_energies(forward, reverse)[1])
        -0.013 ± 0.016
    """
    forward, reverse = array("forward", forward), array("reverse", reverse)
    if forward.ndim not in (2, 3) or reverse.ndim not in (2, 3) or forward.shape[-1] != reverse.shape[-1]:
        raise InvalidInput(
            f"paths of shapes {forward.shape} and {reverse.shape}: expected (n, R) or (chains, samples, R)"
        )
    sets = forward, reverse
    total = acceptance_ratio_free_energy(forward[..., -1], reverse[..., -1])
    number = forward[..., -1].size
    c = total.value + math.log(reverse[..., -1].size / number)
    logs = [w + log_expit(-w[..., -1:] - c) - math.log(number) for w in sets]
    values = np.logaddexp.reduce(np.concatenate([log.reshape(-1, log.shape[-1]) for log in logs]))
    if not math.isfinite(total.stderr):
        return Estimates(-values, np.full_like(values, math.inf))
    parts = [np.exp(log - values) for log in logs]
    pushed = [expit(w[..., -1] + c) for w in sets]
    of_end = 1 - sum(float((part[..., -1] * q).sum()) for part, q in zip(parts, pushed, strict=True))
    errors = []
    for row in range(len(values)):
        share = sum(float((part[..., row] * q).sum()) for part, q in zip(parts, pushed, strict=True)) / of_end
        influence = [part[..., row] + share * part[..., -1] for part in parts]
        errors.append(math.hypot(*(values.size * mean(values).stderr for values in influence)))
    return Estimates(-values, np.array(errors))


def path_lower_bounds(reverse: Values) -> Estimates:
    """Lower bounds on -ln Z at temperatures along paths, from paths in reverse that begin at the last of them.

    At the last it is `lower_bound`. At others it is the mean of -w_r over paths weighted by exp(w_r - W), as if they
    had begun there, with the error of the jackknife; how many of them count then, `weights.effective_sample_size` says.

    Args:
        reverse: as for `path_free_energies`.

    Raises:
        InvalidInput: another shape, fewer than 2 paths, or values that are not finite; WrongType: no real numbers.

    Example:
        >>> print(path_lower_bounds(np.array([[0.5, 1.0], [0.7, 2.0], [0.6, 3.0]]))[1])
        -2.00 ± 0.58
    """
    reverse = array("reverse", reverse)
    if reverse.ndim not in (2, 3):
        raise InvalidInput(f"paths of shape {reverse.shape}: expected (n, R) or (chains, samples, R)")
    rows = [jackknife_mean(-w, w - reverse[..., -1]) for w in np.moveaxis(reverse, -1, 0)]
    return Estimates(np.array([row.value for row in rows]), np.array([row.stderr for row in rows]))


def internal_energy(energies: Values, log_weights: Values | None = None) -> Estimate:
    """E[E(x)] over the target in nats, from its own samples, or from those of the flow with their log-weights.

    Args:
        energies: E(x), shape (n,) or (chains, samples).
        log_weights: forward, of the same shape; None for samples of the target.

    Raises:
        InvalidInput: shapes that do not fit, fewer than 2 samples, or values that are not finite.
        WrongType: no real numbers.

    Example:
        >>> print(internal_energy(np.array([1.0, 2.0, 3.0])))
        2.00 ± 0.58
    """
    return jackknife_mean(check_samples("energies", energies), log_weights)


def entropy(energies: Values, log_weights: Values) -> Estimate:
    """Differential entropy of the target in nats, E[E(x)] + ln Z, from samples of the flow.

    Energy and free energy are correlated: the error is that of their sum, by the delta method.

    Args:
        energies: E(x), shape (n,).
        log_weights: forward, shape (n,).

    Raises:
        InvalidInput: other shapes, fewer than 2 samples, energies that are not finite, or weights that are none.
        WrongType: no real numbers.

    Example:
        >>> print(entropy(np.array([1.0, 2.0, 3.0]), np.zeros(3)))
        2.00 ± 0.58
    """
    energies = check_samples("energies", energies, chains=False)
    log_weights = array("log_weights", log_weights, energies.shape, finite=False)
    weights, largest = relative_weights(log_weights, energies.shape), log_weights.max()
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

    Raises:
        InvalidInput: another shape, fewer than 2 samples, NaN or -inf, or a free energy that is not finite.
        WrongType: no real numbers.

    Example:
        >>> reverse_effective_sample_size(np.array([0.0, 0.0, np.inf]), 0.0)
        0.0
    """
    log_weights = _reverse(log_weights).ravel()
    free_energy = number("free_energy", free_energy)
    return math.exp(min(0.0, math.log(log_weights.size) - free_energy - float(np.logaddexp.reduce(log_weights))))


def _forward(log_weights: Values) -> np.ndarray:
    return check_samples("log_weights", log_weights, infinite=(-math.inf,))


def _reverse(log_weights: Values) -> np.ndarray:
    return check_samples("log_weights", log_weights, infinite=(math.inf,))


def _both(forward: Values, reverse: Values) -> tuple[np.ndarray, np.ndarray]:
    """Log-weights of both sets, with a finite one in each."""
    checked = []
    for name, values, infinite in (("flow", forward, -math.inf), ("target", reverse, math.inf)):
        words = f"log-weights of samples of the {name}"
        checked.append(check_samples(words, values, infinite=(infinite,)))
        if not np.isfinite(checked[-1]).any():
            raise InvalidInput(f"none of the {words} is finite")
    return checked[0], checked[1]
