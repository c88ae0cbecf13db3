"""Random numbers that belong to a sample: a hash of a seed and of the sample itself.

The same sample has the same numbers in any batch and on any thread, until the seed is redrawn; those of different
samples are independent.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

GOLDEN = -7046029254386353131
"""2^64 / golden ratio, odd: steps of it visit all 64-bit integers."""


def keys(samples: Tensor, seed: Tensor | int) -> Tensor:
    """A random 64-bit integer for every sample, shape (n,).

    Args:
        samples: shape (n, *shape), float32 or float64.
        seed: a 64-bit integer.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
        >>> first, again, other = keys(x, 7)
        >>> bool(first == again), bool(first == other)
        (True, False)
    """
    rows = samples.detach().flatten(1)
    bits = rows.view(torch.int64) if rows.dtype == torch.float64 else rows.float().view(torch.int32)
    return mix((bits * _factors(rows.shape[1], rows.device)).sum(1) ^ seed)


@lru_cache
def _factors(count: int, device: torch.device) -> Tensor:
    """Odd random numbers: sums of bits times these differ, all but surely, where the bits do."""
    return mix(torch.arange(1, count + 1, device=device) * GOLDEN) | 1


def mix(x: Tensor) -> Tensor:
    """A bijection of 64-bit integers after which near numbers have nothing in common (the last part of SplitMix64)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))
