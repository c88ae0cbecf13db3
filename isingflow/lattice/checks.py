"""What lattices are made from, validated once."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import shown

MAX_LENGTH = 10**6

MAX_SITES = 2**24

MAX_STRENGTH = 1e100
"""Of the bonds of a graph: sums of them stay finite."""
LONGEST_LABEL = 200
"""Characters of what a site is called."""


def check_beta(beta: float) -> float:
    """The inverse temperature as a float.

    Raises:
        InvalidInput: it is not a finite real number.
    """
    if isinstance(beta, bool) or not isinstance(beta, Real) or not math.isfinite(beta):
        raise InvalidInput(f"beta {beta!r}: expected a finite number")
    return float(beta)


def check_shape(lx: int, ly: int | None) -> tuple[int, int]:
    shape = (lx, lx if ly is None else ly)
    for length in shape:
        if isinstance(length, bool) or not isinstance(length, Integral):
            raise InvalidInput(f"length {length!r}: expected an integer of at least 2")
        if not 2 <= length <= MAX_LENGTH:
            raise InvalidInput(f"length {length}: expected an integer from 2 to {MAX_LENGTH}")
    return int(shape[0]), int(shape[1])


def check_boundary(boundary: str) -> None:
    if boundary not in ("periodic", "open"):
        raise InvalidInput(f"boundary {boundary!r}: expected periodic or open")


def check_strengths(name: str, value: Any, shape: tuple[int, int], used: tuple[int, int]) -> float | np.ndarray:
    """Strengths along one axis: a float if the entries [:used[0], :used[1]] agree, else an array, 0 elsewhere."""
    try:
        array = np.array(value)
    except ValueError:
        array = np.empty(0)
    if array.dtype.kind not in "iuf" or array.shape not in ((), shape) or not np.all(np.isfinite(array)):
        raise InvalidInput(f"{name}: expected a finite number or an array of them of shape {shape}")
    if array.ndim == 0:
        return float(array)
    region = array[: used[0], : used[1]]
    if np.all(region == region[0, 0]):
        return float(region[0, 0])
    strengths = np.zeros(shape)
    strengths[: used[0], : used[1]] = region
    return frozen(strengths)


def check_labels(labels: Any, sites: int) -> tuple[str, ...] | None:
    """What sites are called, as text; None where that is not given, or their numbers."""
    if labels is None:
        return None
    texts = isinstance(labels, list | tuple) and all(isinstance(name, str) for name in labels)
    if not texts or len(labels) != sites:
        raise InvalidInput(f"labels: expected a list of {sites} texts, one for each site")
    for name in labels:
        if len(name) > LONGEST_LABEL:
            raise InvalidInput(f"label {shown(name)}: expected at most {LONGEST_LABEL} characters, not {len(name)}")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise InvalidInput(f"label {shown(name)}: not text that can be written to a file")
    return None if all(name == str(site) for site, name in enumerate(labels)) else tuple(labels)


def frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
