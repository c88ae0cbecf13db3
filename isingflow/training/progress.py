"""Where a training stands, and how it ended."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isingflow.runtime.checks import count, instance, number
from isingflow.runtime.progress import time_left

RECENT = 20
"""Iterations that the readings of the progress are means of."""


READINGS = {
    "variational_free_energy": ("bound {:.2f}", 1),
    "lower_bound": ("from below {:.2f}", 1),
    "gap_nats": ("gap {:.2f} nats", 1),
    "effective_sample_size": ("sample size {:.0f} %", 100),
    "sampled_loss": ("loss {:.2f}, no bound", 1),
    "negative_log_likelihood": ("-ln p {:.3f}", 1),
}
"""How the progress shows a reading: its text, and what it is multiplied by."""


class Outcome(enum.Enum):
    """How a call of `train` ended."""

    FINISHED = "finished"
    STOPPED = "stopped by a callback"
    PLATEAU = "no better on validation data"
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


Callback = Callable[[Progress], Any]
"""Told of the progress after every iteration; one that returns True ends the training as if it were done."""


class Plateau:
    """A callback that ends a training when a reading has not fallen for some time.

    Args:
        reading: its name, see `Progress.readings`.
        patience: iterations without a new lowest value before the training ends.
        threshold: by how much a value must be lower to count as new.

    Example:
        >>> stop = Plateau("gap_nats", patience=2)
        >>> readings = [3.0, 2.0, 2.0, 2.5]
        >>> [stop(Progress(i, 100, 0.0, 0.0, {"gap_nats": gap}, None, 0, 0.0)) for i, gap in enumerate(readings)]
        [False, False, False, True]
    """

    def __init__(
        self, reading: str = "variational_free_energy", *, patience: int = 100, threshold: float = 0.0
    ) -> None:
        self.reading = instance("reading", reading, str, "the name of a reading, such as gap_nats")
        self.patience = count("patience", patience)
        self.threshold = number("threshold", threshold, least=0)
        self._lowest = float("inf")
        self._since = 0

    def __call__(self, progress: Progress) -> bool:
        value = progress.readings.get(self.reading, float("inf"))
        if value < self._lowest - self.threshold:
            self._lowest, self._since = value, progress.iteration
        return progress.iteration - self._since >= self.patience


def mean_readings(records: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The means of what the last record has, each over the records that have it too."""
    found = {name: [record.get(name) for record in records] for name in records[-1]}
    known = {name: [value for value in values if value is not None] for name, values in found.items()}
    return {name: sum(values) / len(values) for name, values in known.items() if values}


def any_stops(callbacks: Sequence[Callback], progress: Progress) -> bool:
    """Tell every callback; whether one of them wants the training to end."""
    return any([callback(progress) is True for callback in callbacks])


def progress_text(progress: Progress) -> str:
    """A line of progress."""
    parts = [f"first on {progress.lattice}:"] if progress.lattice else []
    shown = {name: reading for name, reading in READINGS.items() if name in progress.readings}
    parts += [text.format(scale * progress.readings[name]) for name, (text, scale) in shown.items()]
    if progress.integration_error is not None:
        parts.append(f"error {progress.integration_error:.1g}")
    return "  ".join([*parts, time_left(progress.remaining)])
