"""How a training goes on: the learning rate over its course, and the integration steps that hold an error."""

from __future__ import annotations

import math

from isingflow.runs.settings import LOOSENESS

MIN_STEPS, MAX_STEPS = 4, 128
TRAINING_SHARE = 0.9
"""Part of a time limit after which no iteration begins: the rest is for what ends a training."""
FINAL_MARGIN = 0.1
"""Integration error of the final flow, in the same units: small beside the statistical error of its evaluation."""
WARM_UP = 0.15
"""Part of a one-cycle training in which the learning rate rises."""


def learning_rate(schedule: str, peak: float, fraction: float) -> float:
    """The learning rate after a fraction (0 to 1) of the training.

    One-cycle: from a tenth of the peak up to it, then down to a thousandth, both along half a cosine.

    Example:
        >>> [round(learning_rate("one-cycle", 1.0, f), 3) for f in (0.0, 0.15, 1.0)]
        [0.1, 1.0, 0.001]
    """
    if schedule == "constant":
        return peak
    if fraction < WARM_UP:
        start, end, part = 0.1, 1.0, fraction / WARM_UP
    else:
        start, end, part = 1.0, 0.001, (fraction - WARM_UP) / (1 - WARM_UP)
    return peak * (end + (start - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2)


def controlled_steps(steps: int, error: float, tolerance: float, order: int) -> int:
    """The number of integration steps that should bring an error ~ steps^-order to half its tolerance.

    Unchanged while the error is between a sixth of the tolerance and the tolerance. Grows by a tenth to a factor
    two at a time, up to 128; shrinks to not less than three fifths, and not below 4.

    Example:
        >>> [controlled_steps(10, error, 0.01, 4) for error in (0.2, 0.011, 0.005, 1e-5)]
        [20, 13, 10, 6]
    """
    if tolerance / 6 <= error <= tolerance:
        return steps
    if not math.isfinite(error):
        return min(2 * steps, MAX_STEPS)
    factor = (max(error, 1e-12) / (tolerance / 2)) ** (1 / order)
    wanted = math.ceil(steps * min(max(factor, 0.6), 2.0))
    return max(min(wanted, MAX_STEPS), min(steps, MIN_STEPS))


def relaxed_steps(steps: int, growth: float, order: int, looseness: float = LOOSENESS) -> int:
    """The steps to train with on a larger lattice, from those of a final flow on a smaller one.

    The error is extensive: it grows with the number of sites. But training may have a larger one than a final flow.

    Args:
        steps: of the final flow.
        growth: ratio of the numbers of sites.
        order: of the integrator.
        looseness: of the training, see `TrainingConfig`.

    Example:
        >>> relaxed_steps(22, 4.0, 4)
        15
    """
    change = growth * FINAL_MARGIN / looseness
    return max(math.ceil(steps * change ** (1 / order)), MIN_STEPS)
