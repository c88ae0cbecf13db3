"""Where the flow of a large torus is trained: at a beta_0 above its critical temperature, for evaluations below.

Near criticality the correlation length is that of the torus, and a flow has to learn all of it. At 0.9077 beta_c, which
is 0.40 on the square lattice, the length is 6 whatever the torus, and the flow of a small one fits the large one.
"""

from __future__ import annotations

import logging
import math

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice, critical_beta

FITS_LARGER = 32
"""Shortest length of the tori whose flow fits larger ones there: more than five correlation lengths."""
SHORTEST = 128
"""Shortest length of the tori that are planned so."""
PRESETS = ("accurate",)
"""Presets that plan so."""
_SHARE, _DIGITS = 0.9077, 4

logger = logging.getLogger(__name__)


def warmer_beta(lattice: Lattice) -> float | None:
    """The inverse temperature from which a lattice's flow reaches criticality; None where none is known.

    Known are uniform ferromagnetic tori of two dimensions without a field.

    Example:
        >>> from isingflow.lattice import square, triangular
        >>> warmer_beta(square(16)), warmer_beta(triangular(16)), warmer_beta(square(16, boundary="open"))
        (0.4, 0.2493, None)
    """
    uniform = lattice.dimensions == 2 and lattice.field is None and lattice.translation_invariant
    if not uniform or not (lattice.strengths > 0).all():
        return None
    try:
        return round(_SHARE * critical_beta(lattice).value, _DIGITS)
    except InvalidInput:
        return None


def planned(lattice: Lattice, beta: float, preset: str) -> float | None:
    """Where a preset trains a flow for beta, if that is not at beta itself; a note says so.

    Example:
        >>> from isingflow.lattice import square
        >>> planned(square(128), 0.44, "accurate"), planned(square(64), 0.44, "accurate")
        (0.4, None)
    """
    if preset not in PRESETS or min(lattice.shape) < SHORTEST:
        return None
    warmer = warmer_beta(lattice)
    if warmer is None or beta <= warmer:
        return None
    logger.info(
        "%s: trained at beta = %g, from where evaluations anneal spins to %.6g; --from-beta %.6g trains there instead",
        *(lattice, warmer, beta, beta),
    )
    return warmer


def carried_from(lattice: Lattice, beta: float, preset: str) -> float:
    """The shortest length of the tori whose flows a preset carries over to larger ones; infinite where it does not.

    Example:
        >>> from isingflow.lattice import square
        >>> carried_from(square(128), 0.4, "accurate"), carried_from(square(128), 0.44, "accurate")
        (32, inf)
    """
    warmer = warmer_beta(lattice) if preset in PRESETS else None
    return FITS_LARGER if warmer is not None and 0 <= beta <= warmer else math.inf


def beta_and_goal(beta: float, from_beta: float | None) -> tuple[float, float | None]:
    """Where a flow for beta is trained, and the goal of its run: none where that is beta itself.

    Example:
        >>> beta_and_goal(0.44, 0.4), beta_and_goal(0.44, 0.44), beta_and_goal(0.44, None)
        ((0.4, 0.44), (0.44, None), (0.44, None))
    """
    return (beta, None) if from_beta is None or from_beta == beta else (from_beta, beta)
