"""Free energies from islands: sets of weighted paths that are resampled, each by itself, see `sampling.resampling`.

Paths of an island are not independent, islands are: with Z_i the mean weight of island i, E[Z_i] = Z, so that
-ln mean Z_i estimates -ln Z, with an error from leaving islands out, and the mean of -ln Z_i bounds it from above.
"""

from __future__ import annotations

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import array
from isingflow.statistics.checks import LARGEST
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import Values, reweighted_free_energy


def log_means(log_weights: Values) -> np.ndarray:
    """ln Z_i, the logarithm of every island's mean weight, shape (islands,).

    Args:
        log_weights: shape (islands, paths); -inf for a weight of zero.

    Raises:
        InvalidInput: another shape, fewer than 2 islands, NaN or inf; WrongType: no real numbers.

    Example:
        >>> log_means(np.log([[1.0, 3.0], [2.0, 2.0]])).round(6)
        array([0.693147, 0.693147])
    """
    log_weights = array("log_weights", log_weights, (None, None), finite=False, most=LARGEST)
    strange = np.count_nonzero(np.isnan(log_weights) | (log_weights == np.inf))
    if strange:
        raise InvalidInput(f"log_weights: {strange} of {log_weights.size} are NaN or inf")
    if len(log_weights) < 2:
        raise InvalidInput(f"log_weights of {len(log_weights)} islands: an error bar needs at least 2")
    largest = log_weights.max(1)
    safe = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        return safe + np.log(np.exp(log_weights - safe[:, None]).mean(1))


def islands_free_energy(log_weights: Values) -> Estimate:
    """-ln mean Z_i, with the error of the jackknife over islands: infinite where one of them holds all the weight.

    Args:
        log_weights: as in `log_means`.

    Raises:
        InvalidInput: as there, or no weight above zero; WrongType: no real numbers.

    Example:
        >>> print(islands_free_energy(np.log([[1.0, 3.0], [2.0, 2.0], [1.0, 5.0]])))
        -0.85 ± 0.20
    """
    means = log_means(log_weights)
    value = reweighted_free_energy(np.ravel(log_weights)).value
    return Estimate(value, reweighted_free_energy(means).stderr)
