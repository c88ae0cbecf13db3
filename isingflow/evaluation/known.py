"""Exact answers at a range of temperatures, as far as they are known and found in time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact import thermodynamics
from isingflow.exact.thermodynamics import Thermodynamics
from isingflow.exact.transfer_matrix import LONGEST
from isingflow.lattice import Lattice
from isingflow.runtime import stopping

EXACT_SECONDS = 60.0
"""In which exact answers for a range are found, but for the first that is looked for."""


def exact_answers(
    lattice: Lattice,
    betas: Sequence[float] | np.ndarray,
    longest: float = LONGEST,
    *,
    seconds: float | None = None,
) -> tuple[list[Thermodynamics | None], str | None]:
    """The exact answer at every temperature, the last temperature first, None where there is none; and a note.

    Args:
        lattice: the spins.
        betas: inverse temperatures.
        longest: seconds that one of them may take, as estimated; none are found in no time.
        seconds: after which no further answer is looked for; `EXACT_SECONDS` by default.
    """
    if longest <= 0:
        return [None] * len(betas), None
    seconds = EXACT_SECONDS if seconds is None else seconds
    found: list[Thermodynamics | None] = [None] * len(betas)
    started = time.monotonic()
    for row in reversed(range(len(betas))):
        stopping.check()
        if row < len(betas) - 1 and time.monotonic() - started > seconds:
            return found, f"no exact answers from beta {betas[row]:g} on: they take more than {seconds:g} s"
        try:
            found[row] = thermodynamics(lattice, float(betas[row]), longest=min(longest, LONGEST))
        except NoExactSolution:
            continue
    return found, None
