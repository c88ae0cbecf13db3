"""How a training ends: with the weights to keep, integrated so finely that what is said of the flow is true."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import Tensor

from isingflow.training.keeping import rest
from isingflow.training.schedules import FINAL_MARGIN, MAX_STEPS

if TYPE_CHECKING:
    from isingflow.training.trainer import Trainer

logger = logging.getLogger(__name__)

FINAL_BATCHES, FEWEST_FINAL = 8, 8
"""Batches in the final measurement of the error, and samples of it where a time limit leaves no room for these."""
FITTED_PER_TRAINED = 2
"""Samples to fit to for every one that was trained on, at most: none of them needs a gradient by the parameters."""


def final_error(trainer: Trainer[Any], *, last: bool = True) -> float:
    """Give the flow its final weights and steps; returns the integration error that it then has, in nats.

    Steps are added until all errors are within the tolerance, or no time is left: then what was measured stands. Where
    another training goes on from here, nothing is fitted.
    """
    _take_best(trainer)
    _rest_if_worse(trainer)
    if last:
        _correct(trainer)
    error, excess = _errors(trainer)
    while (
        not bool((excess <= 1).all())
        and 0 < trainer.steps < MAX_STEPS
        and trainer.fits(FEWEST_FINAL, 2 * trainer.steps)
    ):
        trainer.problem.adapt_steps(excess, 1.0)
        error, excess = _errors(trainer)
    if not trainer.resting:
        _rest_if_worse(trainer)  # finer integration may have shown that it is
        error = _errors(trainer)[0] if trainer.resting else error
    return error


def _errors(trainer: Trainer[Any]) -> tuple[float, Tensor]:
    """The largest integration error, on as many samples as there is time for, and all of the flow's errors.

    The latter in units of what a final flow may have.
    """
    samples = FINAL_BATCHES * trainer.config.batch
    while samples > FEWEST_FINAL and not trainer.fits(samples, trainer.steps):
        samples = max(samples // 2, FEWEST_FINAL)
    errors = trainer.measure_errors(samples)
    tolerance = trainer.config.tolerance
    defect = trainer.pool.run(trainer.problem.defect)
    return float(errors.max()), (errors / (FINAL_MARGIN * tolerance)).clamp(min=2 * defect / tolerance)


def _correct(trainer: Trainer[Any]) -> None:
    """Fit what is fitted in closed form, to as many samples as there is time for, and not longer than was trained."""
    config = trainer.config
    iterations = config.iterations if config.carried else trainer.iteration
    samples = min(config.fitting_samples, FITTED_PER_TRAINED * config.batch * iterations)
    while samples > 1 and not trainer.fits(samples * trainer.problem.fitting_cost, trainer.steps):
        samples //= 2
    trainer.fitted = trainer.problem.correct(samples, trainer.noise, trainer.pool)


def _take_best(trainer: Trainer[Any]) -> None:
    """Go on with the best weights, which may be the last ones."""
    if trainer.problem.held_out is None:
        return
    if trainer.iteration and trainer.iteration % trainer.config.check_every:
        trainer.offered(float(trainer.measure_errors(trainer.config.batch).max()))
    if trainer.kept.tensors:
        trainer.flow.load_state_dict(trainer.kept.tensors)


def _rest_if_worse(trainer: Trainer[Any]) -> None:
    """Make the flow its start where the best weights are no better than that, on the data held back."""
    if trainer.problem.held_out is not None and trainer.iteration:
        score = trainer.problem.check(trainer.pool)[trainer.problem.held_out]
        trainer.resting = not score <= trainer.problem.start_score
    if trainer.resting:
        logger.info("on validation data no weights of this training are better than its start: the flow is its start")
        rest(trainer.flow)
