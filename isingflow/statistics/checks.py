"""Sets of samples as they are handed in, checked once."""

from __future__ import annotations

from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import array

LARGEST = 1e150
"""Largest finite sample: its square is a number still."""


def check_samples(
    name: str, values: Any, *, chains: bool = True, infinite: tuple[float, ...] = (), most: float = LARGEST
) -> np.ndarray:
    """Samples as float64, shape (n,) or (chains, samples).

    Args:
        name: what the caller knows them by.
        values: what was given.
        chains: whether the second shape is accepted.
        infinite: the infinities that are.
        most: largest size of a finite sample.

    Raises:
        InvalidInput: another shape, fewer than two samples, NaN, or an infinity that is not accepted.
        WrongType: no real numbers.

    Example:
        >>> check_samples("energies", [1, 2, np.inf])
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: energies: 1 of 3 samples are not finite
    """
    samples = array(name, values, finite=False, empty=True, most=most)
    if samples.ndim not in ((1, 2) if chains else (1,)):
        wanted = "(samples,) or (chains, samples)" if chains else "(samples,)"
        raise InvalidInput(f"{name} of shape {samples.shape}: expected {wanted}")
    if samples.size < 2:
        raise InvalidInput(f"{name}: {samples.size} samples: an error bar needs at least 2")
    strange = ~np.isfinite(samples) & ~np.isin(samples, infinite)
    if strange.any():
        kind = f"NaN or {-infinite[0]:+g}" if len(infinite) == 1 else "NaN" if infinite else "not finite"
        raise InvalidInput(f"{name}: {np.count_nonzero(strange)} of {samples.size} samples are {kind}")
    return samples
