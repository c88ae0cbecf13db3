"""Random fields."""

from __future__ import annotations

from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice.checks import MAX_SITES, check_strength
from isingflow.lattice.graph import Lattice
from isingflow.runtime.checks import LARGEST_SEED, count, instance


def random_field(lattice: Lattice, strength: float, *, seed: int) -> Lattice:
    """The lattice in a random field: +strength or -strength on every site, with equal probability.

    Args:
        lattice: the spins; a field of its own is replaced.
        strength: the size of H, in units of J.
        seed: an integer from 0 to 2**62 for numpy.random.default_rng; the same seed gives the same field.

    Raises:
        InvalidInput: a lattice of too many sites, a strength that is not finite, or a seed out of range; WrongType:
            none of these.

    Example:
        >>> from isingflow.lattice import square
        >>> print(random_field(square(8), 0.3, seed=1))
        periodic 8x8, field varies
    """
    lattice = instance("lattice", lattice, Lattice, "a Lattice, for example square(16)")
    strength, seed = check_strength("strength", strength), count("seed", seed, least=0, most=LARGEST_SEED)
    if lattice.sites > MAX_SITES:
        raise InvalidInput(f"{lattice}: a random field has at most {MAX_SITES} sites")
    signs: Any = 1.0 - 2.0 * np.random.default_rng(seed).integers(2, size=lattice.shape)
    return lattice.with_field(strength * signs)
