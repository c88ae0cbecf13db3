"""What lattices are made from, validated once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import as_numpy, choice, count, number, shown

MAX_LENGTH = 10**6
MAX_CHAIN = 10**9
"""Longest chain: what is the same on all sites takes no memory."""

MAX_SITES = 2**24

STRONGEST = 1e70
"""Largest coupling, and largest beta times the couplings: the fourth powers of sums are numbers still."""
LONGEST_LABEL = 200
"""Characters of what a site is called."""


def check_beta(beta: Any) -> float:
    """The inverse temperature as a float.

    Raises:
        InvalidInput: it is not a finite real number; WrongType: it is no number.
    """
    return number("beta", beta)


def check_strength(name: str, value: Any) -> float:
    """One coupling as a float.

    Raises:
        InvalidInput: it is not finite, or larger than 1e70 in size; WrongType: it is no number.
    """
    return number(name, value, least=-STRONGEST, most=STRONGEST)


def check_product(beta: float, strength: float) -> None:
    """Refuse an inverse temperature at which couplings of this strength overflow.

    Raises:
        InvalidInput: it is one.
    """
    if not abs(beta * strength) <= STRONGEST:
        raise InvalidInput(
            f"beta {beta:g}: beta times the couplings overflows: they are {strength:g} in all, "
            f"and the product may be at most {STRONGEST:g}"
        )


def check_shape(lx: Any, ly: Any) -> tuple[int, int]:
    """Both lengths as integers; ly = lx if it is None."""
    lx = count("length", lx, least=2, most=MAX_LENGTH)
    return lx, lx if ly is None else count("length", ly, least=2, most=MAX_LENGTH)


def check_boundary(boundary: Any) -> str:
    return choice("boundary", boundary, ("periodic", "open"))


def check_strengths(name: str, value: Any, shape: tuple[int, ...], used: tuple[int, ...]) -> float | np.ndarray:
    """Strengths along one axis: a float if the first entries, `used` of them along each axis, agree, else an array, 0
    elsewhere.
    """
    entries = as_numpy(value)
    fits = entries is not None and entries.dtype.kind in "iuf" and entries.shape in ((), shape)
    with np.errstate(over="ignore"):
        array = entries.astype(float) if entries is not None and fits else np.array(np.nan)
    if not np.all(np.abs(array) <= STRONGEST):
        raise InvalidInput(
            f"{name} is {shown(value)}, expected a number or an array of them of shape {shape}, "
            f"at most {STRONGEST:g} in size"
        )
    if array.ndim == 0:
        return float(array)
    inside = tuple(slice(length) for length in used)
    region = array[inside]
    if np.all(region == region.flat[0]):
        return float(region.flat[0])
    strengths = np.zeros(shape)
    strengths[inside] = region
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
    if len(set(labels)) < sites:
        (name, times), *_ = Counter(labels).most_common(1)
        raise InvalidInput(f"label {shown(name)} is that of {times} sites: as text, every one needs a label of its own")
    return None if all(name == str(site) for site, name in enumerate(labels)) else tuple(labels)


def frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
