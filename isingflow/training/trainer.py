"""The state of one training, and what advances it by an iteration: Adam, with the integration error under control."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic

import torch
from torch import Tensor

from isingflow.errors import TrainingDiverged
from isingflow.flows import Flow, approximations
from isingflow.runs.folder import AnyRun
from isingflow.runtime.parallel import Backend
from isingflow.training.ending import final_error
from isingflow.training.keeping import Kept
from isingflow.training.kernels import choose_kernels
from isingflow.training.optimisers import adam
from isingflow.training.problems import Problem, Samples
from isingflow.training.products import Fitted
from isingflow.training.progress import RECENT, Progress, mean_readings
from isingflow.training.schedules import (
    MAX_STEPS,
    TRAINING_SHARE,
    learning_rate,
)
from isingflow.training.state import pack, remembered, unpack

logger = logging.getLogger(__name__)

Optimiser = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
"""What makes an optimiser of a flow's parameters; the schedule stretches the rates that it sets."""

CHECKPOINT_SECONDS = 20.0
SNAPSHOT_STAGES = (0.0, 0.05, 0.25, 1.0)
SOON = 5
"""Iterations until the integration error is looked at, at first and after one that was too large; each time that it was
not, they are twice as many, up to `check_every`."""


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
        self.fitted: Fitted | None = None
        self.wait = self.next_look = SOON
        self._undo: Callable[[], None] = lambda: None
        self._cost = self._iteration_seconds = 0.0
        self.earlier_seconds = self.stage_seconds = 0.0
        if run.has_checkpoint:
            unpack(self, *run.load_checkpoint())
        else:
            self.problem.prepare(self.config.batch, config.seed)
        self._started = self._saved = pool.clock()
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
        return max((part.steps for part in approximations(self.flow)), default=0)

    @property
    def seconds(self) -> float:
        """Seconds of training, earlier parts of a resumed run included."""
        return self.earlier_seconds + self.pool.clock() - self._started

    @property
    def fraction(self) -> float:
        """How much of the training is done: by iterations or, if that is more, by time."""
        by_iterations = self.iteration / self.config.updates
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
        self._undo, begun = remembered(self, whole=checks), self.pool.clock()
        fraction = self.fraction
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = learning_rate(config.schedule, peak, fraction)
        self.flow.redraw(self.draws)
        loss, values = self._differentiated()
        self._iteration_seconds = self.pool.clock() - begun
        self._cost = self._iteration_seconds / (config.batch * max(self.steps, 1))
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
            checked = self.check()
            record |= {"integration_error_nats": self.error, **checked}
        elif config.adapt_steps and self.iteration == self.next_look:
            self.look(shrink=False)
            record |= {"integration_error_nats": self.error}
        self.run.append_metrics(record)
        if self.iteration in {round(stage * config.updates) for stage in SNAPSHOT_STAGES}:
            self._snapshot()
        if self.pool.clock() - self._saved > CHECKPOINT_SECONDS:
            self.save()

    def check(self) -> dict[str, float]:
        """Look at the integration error and at what is held back; what the metrics say of it."""
        self.look()
        assert self.error is not None
        return self.offered(self.error)

    def look(self, *, shrink: bool = True) -> None:
        """Measure the integration error and adapt the steps; look again soon where it is too large.

        Args:
            shrink: whether steps may be taken away.
        """
        errors = self.measure_errors(self.config.batch)
        self.error = error = float(errors.max())
        if not self.config.adapt_steps:
            return
        allowed = self.config.looseness * self.config.tolerance
        calm = error <= allowed
        if shrink or not calm:
            self.problem.adapt_steps(errors, allowed)
        self.wait = min(2 * self.wait, self.config.check_every) if calm else SOON
        self.next_look = self.iteration + self.wait

    def progress(self) -> Progress:
        """Where the training stands."""
        fraction = max(self.fraction, 1e-9)
        return Progress(
            iteration=self.iteration,
            iterations=self.config.updates,
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
            if self.config.carried:
                logger.info("the flow of half the lengths is carried over as it is")
        self.earlier_seconds = self.stage_seconds = seconds
        self.run.truncate_metrics(0)
        self.save()
        self.run.begin()

    def finish(self, stopped: bool = False, *, last: bool = True) -> None:
        """Take the weights to keep, fit what is fitted in closed form, refine the integration, save the checkpoint.

        Where a time limit leaves no room for a finer integration, the error that was measured stands.

        Args:
            stopped: whether the training is to count as finished before its last iteration.
            last: whether no other training goes on from here, which would take over parameters alone.
        """
        if not self.finished:
            self._undo = remembered(self, whole=True)
            error = final_error(self, last=last)
            if not math.isfinite(error):
                logger.warning(
                    "the training has diverged: the integration error of the final flow is %s: nothing "
                    "that it says can be trusted; a lower learning rate or more integration steps may help",
                    error,
                )
            self.error = error
            self.finished = stopped or self.on_plateau or self.iteration >= self.config.updates
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
        self._saved = self.pool.clock()

    def _diverged(self, how: str, iteration: int) -> TrainingDiverged:
        return TrainingDiverged(
            f"the training has diverged: {how} at iteration {iteration}; the last good checkpoint is kept in "
            f"{self.run.path}; a lower learning rate or more integration steps may help"
        )

    def _differentiated(self) -> tuple[float, Tensor]:
        """The loss and values of a new batch, with its clipped gradient left in the parameters.

        A gradient that is no number may be that of an integration which is too coarse: then it is refined, and another
        batch is taken.

        Raises:
            TrainingDiverged: no refinement helps.
        """
        while True:
            loss, values = self._backward(self.problem.batch(self.pool.share(self.config.batch), self.noise))
            norm = float(torch.nn.utils.clip_grad_norm_(self.flow.parameters(), self.config.clip or math.inf))
            if math.isfinite(loss) and math.isfinite(norm):
                return loss, values
            if not (self.config.adapt_steps and 0 < self.steps < MAX_STEPS):
                raise self._diverged(f"the loss became {loss} (gradient norm {norm})", self.iteration + 1)
            self.problem.adapt_steps(torch.tensor([math.inf]), 1.0)
            self.flow.redraw(self.draws)
            self.wait, self.next_look = SOON, self.iteration + SOON

    def _backward(self, batch: Samples) -> tuple[float, Tensor]:
        """The batch's loss and values, with the gradient left in the parameters; shares of the batch in threads."""
        parameters, pool = list(self.flow.parameters()), self.pool

        def differentiate(share: Samples) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
            loss, values = self.problem.objective(share)
            loss = loss * (len(share) / self.config.batch)
            if self.config.per_site:
                loss = loss / self.flow.dimension
            return loss.detach(), torch.autograd.grad(loss, parameters), values

        self.flow.train()
        shares = pool.run(lambda: pool.map(differentiate, batch))
        losses, gradients, values = zip(*shares, strict=True)
        self.flow.eval()
        total, *summed = pool.sum(
            [sum(losses[1:], losses[0]), *(sum(parts[1:], parts[0]) for parts in zip(*gradients, strict=True))]
        )
        for parameter, gradient in zip(parameters, summed, strict=True):
            parameter.grad = gradient
        return float(total), pool.gather(torch.cat(values), self.config.batch)

    def measure_errors(self, samples: int) -> Tensor:
        """The problem's integration errors now, float64, on fresh samples: no more than the evaluation is to have."""
        begun, samples = self.pool.clock(), min(samples, self.config.evaluation_samples)
        errors = self.pool.run(lambda: self.problem.errors(self.pool.share(samples), self.noise, self.pool))
        self._cost = (self.pool.clock() - begun) / (samples * max(self.steps, 1))
        return self.pool.gather(torch.tensor([errors], dtype=torch.float64), self.pool.world).mean(0)

    def fits(self, samples: float, steps: int) -> bool:
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

    def _snapshot(self) -> None:
        samples = self.problem.snapshot() if self.pool.rank == 0 else None
        if samples is not None:
            self.run.save_snapshot(self.iteration, samples)
