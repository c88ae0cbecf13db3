"""Dual averaging: the step size at which a given fraction of trajectories is accepted (Hoffman and Gelman 2014)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

DAMPING = 0.2
"""gamma in Hoffman and Gelman 2014."""


class DualAveraging(NamedTuple):
    """Where the search for a step size is; `updated` gives where it goes.

    With a quarter of their gain, and no pull to longer steps: theirs is for one noisy chain from an arbitrary start. On
    the mean of many it swings between too short and too long steps.

    Attributes:
        step_size: the next to try.
        error: mean of what the acceptance lacked.
        log_start, log_final: logarithms of the first step size and of their average so far.
        trajectories: so far.

    Example:
        >>> search = DualAveraging.begin(0.1)
        >>> for _ in range(500):
        ...     search = search.updated(math.exp(-search.step_size), target=0.8)
        >>> abs(math.exp(-search.final) - 0.8) < 0.01
        True
    """

    step_size: float
    error: float
    log_start: float
    log_final: float
    trajectories: float

    @classmethod
    def begin(cls, step_size: float) -> DualAveraging:
        """A search from this step size."""
        return cls(step_size, 0.0, math.log(step_size), math.log(step_size), 0.0)

    @property
    def final(self) -> float:
        """The averaged step size, to keep when adaptation ends."""
        return math.exp(self.log_final)

    def updated(self, acceptance: float, *, target: float) -> DualAveraging:
        """The search after a trajectory, of which one fraction was accepted and another is wanted."""
        count = self.trajectories + 1
        error = self.error + (target - acceptance - self.error) / (count + 10)
        log_step = self.log_start - math.sqrt(count) / DAMPING * error
        log_final = self.log_final + count**-0.75 * (log_step - self.log_final)
        return DualAveraging(math.exp(log_step), error, self.log_start, log_final, count)

    def tensor(self) -> Tensor:
        """All of it, float64, shape (5,): `DualAveraging(*tensor.tolist())` is the same search."""
        return torch.tensor(self, dtype=torch.float64)
