"""What part of a training is done on smaller lattices first, and its progress as part of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from isingflow.runs.config import AnyRunConfig
from isingflow.training.progress import Progress

FITTED_PER_UPDATE = 4
"""Samples that products are fitted to in the time of an update by one of them, about: so it was on 128x128."""


def work(config: AnyRunConfig) -> float:
    """The work of a whole training in updates of a site, that on smaller lattices included.

    The fit after the last iteration counts where that iteration is the only one.
    """
    training = config.training
    before = 0.0 if config.coarse is None else work(config.coarse)
    fitted = training.fitting_samples / FITTED_PER_UPDATE if training.carried else 0.0
    return before + math.prod(config.sample[1]) * (training.batch * training.updates + fitted)


def coarse_share(config: AnyRunConfig) -> float:
    """The part of a whole training's work, 0 to 1, that is done on smaller lattices.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.runs.config import RunConfig
        >>> from isingflow.runs.settings import TrainingConfig
        >>> training = TrainingConfig(iterations=100, coarse=TrainingConfig(iterations=400))
        >>> coarse_share(RunConfig(square(16), 0.4, "mine", training=training))
        0.5
    """
    return 0.0 if config.coarse is None else work(config.coarse) / work(config)


def on_the_way(
    callback: Callable[[Progress], Any], name: str, share: float, time_limit: float | None
) -> Callable[[Progress], Any]:
    """A callback that is told of a stage as part of the whole training, with the time left of all of it.

    Args:
        callback: gets what is reported.
        name: of the stage, in words.
        share: part of the whole work that is done by the stage's end.
        time_limit: of the whole training, in seconds, or None.
    """

    def report(progress: Progress) -> Any:
        whole = (progress.seconds + progress.remaining) / share
        whole = whole if time_limit is None else min(whole, time_limit)
        lattice = progress.lattice or name
        return callback(replace(progress, lattice=lattice, remaining=max(whole - progress.seconds, 0.0)))

    return report
