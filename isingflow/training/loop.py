"""The training loop: the objective of a problem minimised by Adam, with the integration error under control.

An optimiser would learn to exploit the error of a coarse integrator, so step lengths are drawn anew at every iteration,
the error is measured (the same samples at half the step), and steps are added when it exceeds its tolerance. The loop
writes to the run folder, from before its first step, and resumes from it bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic

import torch
from torch import Tensor

from isingflow.errors import TrainingDiverged
from isingflow.flows import Flow, approximations
from isingflow.runs.folder import AnyRun
from isingflow.runtime import stopping
from isingflow.runtime.devices import keep_freed_memory
from isingflow.runtime.parallel import Backend, workers
from isingflow.training.ending import final_error
from isingflow.training.keeping import Kept
from isingflow.training.kernels import choose_kernels
from isingflow.training.optimisers import adam
from isingflow.training.problems import Problem, Samples
from isingflow.training.progress import RECENT, Callback, Outcome, Progress, any_stops, mean_readings
from isingflow.training.schedules import (
    TRAINING_SHARE,
    controlled_steps,
    learning_rate,
)
from isingflow.training.stages import on_the_way
from isingflow.training.state import pack, remembered, unpack

logger = logging.getLogger(__name__)

Optimiser = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
"""What makes an optimiser of a flow's parameters; the schedule stretches the rates that it sets."""

CHECKPOINT_SECONDS = 20.0
SNAPSHOT_STAGES = (0.0, 0.05, 0.25, 1.0)


def fit(
    run: AnyRun,
    problem: Problem[Samples],
    *,
    time_limit: float | None = None,
    callbacks: Sequence[Callback] = (),
    optimiser: Optimiser | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    start: Flow | None = None,
) -> Outcome:
    """Train the flow of a problem, from the checkpoint in its run folder if there is one, until done or stopped.

    A problem with stages trains on them first, each in a run folder within its own.

    Args:
        run: created or opened; gets metrics, checkpoints and snapshots.
        problem: that of the run.
        time_limit: seconds of training, earlier parts and the final measurement of the error included. The learning
            rate then falls to zero before the limit, and where the limit ends the run the result depends on the
            machine's speed. A stage gets its share of the work.
        callbacks: called after every iteration. One that returns True ends the training, or its present stage, as if
            all its iterations were done; what one raises is raised on, with a checkpoint saved.
        optimiser: that of the run's settings, Adam, if not given.
        should_stop: asked after every iteration; True saves and returns INTERRUPTED.
        start: a trained flow to begin with, where the run has no checkpoint yet.

    Raises:
        TrainingDiverged: the loss or its gradient is no longer finite; the last good checkpoint is kept.
        CheckpointError, RunFolderError: the run folder cannot be read or written.
        InvalidInput: the flow to start from does not fit.
    """
    seconds = 0.0
    for stage in () if run.has_checkpoint or start is not None else problem.stages():
        part = run.part(stage.name, stage.problem.config)
        outcome = fit(
            part,
            stage.problem,
            time_limit=None if time_limit is None else stage.share * time_limit,
            callbacks=[
                on_the_way(callback, str(stage.problem.config), stage.share, time_limit) for callback in callbacks
            ],
            optimiser=optimiser,
            should_stop=should_stop,
        )
        if outcome is Outcome.INTERRUPTED:
            return outcome
        start, seconds = stage.problem.flow, float(part.load_checkpoint()[1]["seconds"])
    device = problem.flow.device
    if device.type == "cpu":
        keep_freed_memory()
    with workers(device) as pool, stopping.deferred():
        trainer = Trainer(run, problem, time_limit, pool, optimiser)
        if not run.has_checkpoint:
            trainer.begin(start, seconds)
        stopped = False
        try:
            while not (trainer.done or stopped):
                trainer.iterate()
                try:
                    stopped = any_stops(callbacks, trainer.progress())
                except Exception:
                    trainer.save()
                    raise
                if should_stop():
                    trainer.save()
                    return Outcome.INTERRUPTED
            trainer.finish(stopped)
        except stopping.Stopped:
            trainer.undo()
            trainer.save()
            return Outcome.INTERRUPTED
    if stopped:
        return Outcome.STOPPED
    if trainer.on_plateau:
        return Outcome.PLATEAU
    return Outcome.FINISHED if trainer.iteration >= run.config.training.iterations else Outcome.TIME_LIMIT


class Trainer(Generic[Samples]):
    """The state of one training, and what advances it by an iteration."""

    def __init__(
        self,
        run: AnyRun,
        problem: Problem[Samples],
        time_limit: float | None,
        pool: Backend,
        optimiser: Optimiser | None = None,
    ) -> None:
        config = run.config
        self.pool = pool
        self.run = run
        self.config = config.training
        self.time_limit = time_limit
        self.problem = problem
        self.flow = problem.flow
        self.device = self.flow.device
        self.integrators = approximations(self.flow)
        self.noise = pool.generator(problem.source, config.seed + 1)
        self.draws = torch.Generator().manual_seed(config.seed + 2)
        self.own_optimizer = optimiser is None
        self.optimizer = adam(self.flow, self.config) if optimiser is None else optimiser(self.flow.parameters())
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.iteration = 0
        self.finished = False
        self.error: float | None = None
        self.recent: deque[dict[str, float]] = deque(maxlen=RECENT)
        self.kept, self.resting = Kept(), False
        self._undo: Callable[[], None] = lambda: None
        self._cost = self._iteration_seconds = 0.0
        self.earlier_seconds = self.stage_seconds = 0.0
        if run.has_checkpoint:
            unpack(self, *run.load_checkpoint())
        else:
            self.problem.prepare(self.config.batch, config.seed)
        self._started = self._saved = time.perf_counter()
        logger.info(
            "%s on %s, %d threads; %d parameters; elementwise work: %s",
            config,
            self.device,
            pool.count,
            self.flow.parameter_count,
            choose_kernels(self.flow, self.device),
        )

    @property
    def steps(self) -> int:
        """Integration steps; 0 where nothing is integrated."""
        return max((gradient.steps for gradient in self.integrators), default=0)

    @property
    def seconds(self) -> float:
        """Seconds of training, earlier parts of a resumed run included."""
        return self.earlier_seconds + time.perf_counter() - self._started

    @property
    def fraction(self) -> float:
        """How much of the training is done: by iterations or, if that is more, by time."""
        by_iterations = self.iteration / self.config.iterations
        if self.time_limit is None:
            return by_iterations
        allowed = TRAINING_SHARE * (self.time_limit - self.stage_seconds)
        return max(by_iterations, (self.seconds - self.stage_seconds) / allowed) if allowed > 0 else 1.0

    @property
    def done(self) -> bool:
        """Whether there is to be no further iteration: all are done, or no time is left for one, or none helps."""
        if self.finished or self.fraction >= 1 or self.on_plateau:
            return True
        return self._iteration_seconds > self._left

    @property
    def on_plateau(self) -> bool:
        """Whether the validation data have not become likelier for as long as the training's patience lasts."""
        waited = self.iteration - self.kept.iteration
        return 0 < self.config.patience * self.config.check_every <= waited and bool(self.kept.tensors)

    @property
    def _left(self) -> float:
        """Seconds until the time limit."""
        return math.inf if self.time_limit is None else self.time_limit - self.seconds

    def iterate(self) -> None:
        """One step of the optimiser, with its line of metrics."""
        config = self.config
        if self.iteration == 0:
            self._snapshot()
        checks = (self.iteration + 1) % config.check_every == 0
        self._undo, begun = remembered(self, whole=checks), time.perf_counter()
        fraction = self.fraction
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = learning_rate(config.schedule, peak, fraction)
        self.flow.redraw(self.draws)
        with stopping.heard():
            loss, values = self._backward(self.problem.batch(config.batch, self.noise))
            stopping.check()
        self._iteration_seconds = time.perf_counter() - begun
        self._cost = self._iteration_seconds / (config.batch * max(self.steps, 1))
        norm = torch.nn.utils.clip_grad_norm_(self.flow.parameters(), config.clip or math.inf)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(f"the loss became {loss} (gradient norm {float(norm)})", self.iteration + 1)
        self.optimizer.step()
        self.iteration += 1

        readings = self.problem.readings(values)
        self.recent.append({name: reading for name, reading in readings.items() if reading is not None})
        record = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "loss": loss,
            **readings,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "steps": self.steps,
        }
        if checks:
            with stopping.heard():
                checked = self.check()
                stopping.check()
            record |= {"integration_error_nats": self.error, **checked}
        self.run.append_metrics(record)
        if self.iteration in {round(stage * config.iterations) for stage in SNAPSHOT_STAGES}:
            self._snapshot()
        if time.perf_counter() - self._saved > CHECKPOINT_SECONDS:
            self.save()

    def check(self) -> dict[str, float]:
        """Measure the integration error, look at what is held back, and adapt the steps; what the metrics say of it."""
        self.error = error = self.measure_error(self.config.batch)
        checked = self.offered(error)
        if self.config.adapt_steps:
            self.adapt_steps(error, self.config.looseness * self.config.tolerance)
        return checked

    def progress(self) -> Progress:
        """Where the training stands."""
        fraction = max(self.fraction, 1e-9)
        return Progress(
            iteration=self.iteration,
            iterations=self.config.iterations,
            seconds=self.seconds,
            remaining=max((self.seconds - self.stage_seconds) * (1 / fraction - 1), 0.0),
            readings=mean_readings(self.recent),
            integration_error=self.error,
            steps=self.steps,
            learning_rate=self.optimizer.param_groups[0]["lr"],
        )

    def begin(self, earlier: Flow | None, seconds: float) -> None:
        """Save what the training begins with; from here on it can be resumed.

        Args:
            earlier: trained, to begin with what it has learnt; it is not needed again.
            seconds: that its training took, as part of this run.
        """
        if earlier is not None:
            self.problem.begin(earlier)
        self.earlier_seconds = self.stage_seconds = seconds
        self.run.truncate_metrics(0)
        self.save()
        self.run.begin()

    def finish(self, stopped: bool = False) -> None:
        """Take the weights to keep, refine the integration until its error is within tolerance, save the checkpoint.

        Where a time limit leaves no room for a finer integration, the error that was measured stands.

        Args:
            stopped: whether the training is to count as finished before its last iteration.
        """
        if not self.finished:
            self._undo = remembered(self, whole=True)
            with stopping.heard():
                error = final_error(self)
            if not math.isfinite(error):
                logger.warning(
                    "the training has diverged: the integration error of the final flow is %s: nothing "
                    "that it says can be trusted; a lower learning rate or more integration steps may help",
                    error,
                )
            self.error = error
            self.finished = stopped or self.on_plateau or self.iteration >= self.config.iterations
            self._snapshot()
            self.save()

    def save(self) -> None:
        """Write a checkpoint from which the training resumes bit for bit.

        Raises:
            TrainingDiverged: parameters are no longer finite; the checkpoint before is kept.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.flow.parameters()):
            raise self._diverged("parameters of the flow are no longer finite", self.iteration)
        self.run.save_checkpoint(*pack(self))
        self._saved = time.perf_counter()

    def _diverged(self, how: str, iteration: int) -> TrainingDiverged:
        return TrainingDiverged(
            f"the training has diverged: {how} at iteration {iteration}; the last good checkpoint is kept in "
            f"{self.run.path}; a lower learning rate or more integration steps may help"
        )

    def _backward(self, batch: Samples) -> tuple[float, Tensor]:
        """The batch's loss and values, with the gradient left in the parameters; shares of the batch in threads."""
        parameters = list(self.flow.parameters())

        def differentiate(share: Samples) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
            loss, values = self.problem.objective(share)
            loss = loss * (len(share) / (len(batch) * self.pool.world))
            if self.config.per_site:
                loss = loss / self.flow.dimension
            return loss.detach(), torch.autograd.grad(loss, parameters), values

        self.flow.train()
        losses, gradients, values = zip(*self.pool.map(differentiate, batch), strict=True)
        self.flow.eval()
        total, *summed = self.pool.sum(
            [sum(losses[1:], losses[0]), *(sum(shares[1:], shares[0]) for shares in zip(*gradients, strict=True))]
        )
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient
        return float(total), self.pool.gather(torch.cat(values))

    def measure_error(self, samples: int) -> float:
        """The integration error now, on fresh samples: no more than the evaluation is to have."""
        begun, samples = time.perf_counter(), min(samples, self.config.evaluation_samples)
        error = self.problem.error(samples, self.noise, self.pool)
        self._cost = (time.perf_counter() - begun) / (samples * max(self.steps, 1))
        return error

    def fits(self, samples: int, steps: int) -> bool:
        """Whether there is time to measure the error so."""
        return self._cost * samples * max(steps, 1) <= self._left

    def offered(self, error: float) -> dict[str, float]:
        """What is seen of the data held back; the weights are kept if it is better than ever, its error included."""
        checked = self.problem.check(self.pool)
        if self.problem.held_out is not None:
            self.kept.offer(self.flow, self.iteration, checked[self.problem.held_out] + error)
        return checked

    def undo(self) -> None:
        """Bring back the training as it was before what was begun last, and not finished."""
        self._undo()

    def adapt_steps(self, error: float, allowed: float) -> None:
        """Take the steps that should bring an error to what is allowed."""
        for gradient in self.integrators:
            gradient.steps = controlled_steps(gradient.steps, error, allowed, gradient.order)

    def _snapshot(self) -> None:
        samples = self.problem.snapshot()
        if samples is not None:
            self.run.save_snapshot(self.iteration, samples)
