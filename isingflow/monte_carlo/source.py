"""Random numbers within compiled loops: of numpy's Generator, or of the same SFC64 carried along in registers.

A call to a Generator costs as much as the rest of a cluster update. SFC64 (Doty-Humphrey 2010) is four words and some
operations on them, so kernels may carry the words themselves: a *source* is a Generator or such a tuple of words, and

    number, source = uniform(source)

gives both the next number in [0, 1), the same of both for the same words, and the source that follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

_SHIFTS = tuple(np.uint64(bits) for bits in (11, 3, 24, 40, 1))
_SPACING = 2.0**-53


def uniform(source: Any) -> Any:
    """The next number in [0, 1), float64, and the source that follows; for compiled functions alone.

    Args:
        source: a numpy Generator, which stays what it is, or the words of `words_of` as a tuple.
    """
    raise NotImplementedError("uniform is for compiled functions: in Python, ask the generator")


@overload(uniform)
def _uniform(source):
    if isinstance(source, types.NumPyRandomGeneratorType):
        return lambda source: (source.random(), source)
    return _next_of_words


def _next_of_words(source):
    a, b, c, counter = source
    shift, left, rotated, rest, one = _SHIFTS
    word = a + b + counter
    following = b ^ (b >> shift), c + (c << left), ((c << rotated) | (c >> rest)) + word, counter + one
    return np.float64(word >> shift) * _SPACING, following


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """The random stream of a seed and a key, such as the number of a chain; without a key, what all chains share.

    Args:
        seed: of all streams.
        key: integers >= 0.

    Example:
        >>> bool(random_stream(0, 1).random() == random_stream(0, 2).random())
        False
    """
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))


def words_of(generator: np.random.Generator) -> np.ndarray:
    """The words at which an SFC64 Generator stands, uint64, shape (4,).

    Example:
        >>> words_of(random_stream(0)).shape
        (4,)
    """
    state: Any = generator.bit_generator.state
    return state["state"]["state"].astype(np.uint64)
