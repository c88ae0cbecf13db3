"""Where a training stands, and how it ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


RECENT = 20
"""Iterations that the readings of the progress are means of."""


class Outcome(enum.Enum):
    """How a call of `train` ended."""

    FINISHED = "finished"
    TIME_LIMIT = "time limit"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        readings: what the problem says of its batches, by name, as running means over the last iterations; without
            those that are unknown.
        integration_error: the last one measured, in nats; None before.
        remaining: seconds left, estimated.
        steps: of the integration; 0 where nothing is integrated.
        lattice: the smaller lattice that is trained on first, in words; None on the run's own.
    """

    iteration: int
    iterations: int
    seconds: float
    remaining: float
    readings: dict[str, float]
    integration_error: float | None
    steps: int
    learning_rate: float
    lattice: str | None = None
