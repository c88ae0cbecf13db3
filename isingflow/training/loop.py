"""The training loop: the objective of a problem minimised by Adam, with the integration error under control.

An optimiser would learn to exploit the error of a coarse integrator, so step lengths are drawn anew at every iteration,
the error is measured (the same samples at half the step), and steps are added when it exceeds its tolerance. The loop
writes to the run folder and resumes from it bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isingflow.errors import CheckpointError, TrainingDiverged
from isingflow.flows import Flow, gradient_flows
from isingflow.potentials import LatticePotential, Potential
from isingflow.potentials.enlarge import enlarge
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import new_flow, restore
from isingflow.runtime.devices import keep_freed_memory
from isingflow.runtime.parallel import Workers, workers
from isingflow.training.problems import problem_of
from isingflow.training.progress import RECENT, Outcome, Progress
from isingflow.training.schedules import (
    FINAL_MARGIN,
    MAX_STEPS,
    TRAINING_TOLERANCE,
    controlled_steps,
    learning_rate,
    relaxed_steps,
)
from isingflow.training.stages import coarse_run, coarse_share, on_the_way

if TYPE_CHECKING:
    from isingflow.datasets import Dataset

logger = logging.getLogger(__name__)

FINAL_BATCHES = 8
CHECKPOINT_SECONDS = 20.0
SNAPSHOT_STAGES = (0.0, 0.05, 0.25, 1.0)


def train(
    run: RunFolder,
    *,
    device: torch.device,
    data: Dataset | None = None,
    time_limit: float | None = None,
    report_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train the flow of a run folder, from its checkpoint if it has one, until done, stopped or out of time.

    A run that starts from a smaller lattice trains on that first, in a run folder within its own.

    Args:
        run: created or opened; gets metrics, checkpoints and snapshots.
        device: where to train.
        data: what a run on data is trained on.
        time_limit: seconds of training, earlier parts included. The learning rate then falls to zero by the limit, and
            where the limit ends the run the result depends on the machine's speed. A smaller lattice trained on first
            gets its share of the work.
        report_progress: called after every iteration.
        should_stop: asked after every iteration; True saves and returns INTERRUPTED.

    Raises:
        TrainingDiverged: the loss or its gradient is no longer finite; the last good checkpoint is kept.
        CheckpointError, RunFolderError: the run folder cannot be read or written.
    """
    coarse = None if run.has_checkpoint else coarse_run(run)
    if coarse is not None:
        outcome = train(
            coarse,
            device=device,
            time_limit=None if time_limit is None else coarse_share(run.config) * time_limit,
            report_progress=report_progress and on_the_way(report_progress, run.config, time_limit),
            should_stop=should_stop,
        )
        if outcome is Outcome.INTERRUPTED:
            return outcome
    if device.type == "cpu":
        keep_freed_memory()
    with workers(device) as pool:
        trainer = Trainer(run, device, time_limit, pool, data=data, coarse=coarse)
        while not trainer.done:
            trainer.iterate()
            if report_progress is not None:
                report_progress(trainer.progress())
            if should_stop():
                trainer.save()
                return Outcome.INTERRUPTED
        trainer.finish()
    return Outcome.FINISHED if trainer.iteration >= run.config.training.iterations else Outcome.TIME_LIMIT


class Trainer:
    """The state of one training, and what advances it by an iteration."""

    def __init__(
        self,
        run: RunFolder,
        device: torch.device,
        time_limit: float | None,
        pool: Workers,
        *,
        data: Dataset | None = None,
        coarse: RunFolder | None = None,
    ) -> None:
        config = run.config
        self.pool = pool
        self.run = run
        self.config = config.training
        self.device = device
        self.time_limit = time_limit
        self.problem = problem_of(config, device, data)
        self.flow = self.problem.flow
        self.integrators = gradient_flows(self.flow)
        self.noise = torch.Generator(self.problem.source).manual_seed(config.seed + 1)
        self.draws = torch.Generator().manual_seed(config.seed + 2)
        self.optimizer = torch.optim.Adam(
            self.flow.parameters(),
            lr=self.config.learning_rate,
            betas=(0.9, self.config.beta2),
            weight_decay=self.config.weight_decay,
        )
        self.iteration = 0
        self.finished = False
        self.error: float | None = None
        self.recent: deque[dict[str, float]] = deque(maxlen=RECENT)
        self._earlier_seconds = self._coarse_seconds = 0.0
        if run.has_checkpoint:
            self._restore(*run.load_checkpoint())
        else:
            self.problem.prepare(self.config.batch, config.seed)
        self._started = self._saved = time.perf_counter()
        if coarse is not None:
            self._start_from(coarse)
        logger.info(
            "%s on %s, %d threads; %d parameters; elementwise work: %s",
            config,
            device,
            pool.count,
            self.flow.parameter_count,
            choose_kernels(self.flow, device),
        )

    @property
    def steps(self) -> int:
        """Integration steps; 0 where nothing is integrated."""
        return max((gradient.steps for gradient in self.integrators), default=0)

    @property
    def seconds(self) -> float:
        """Seconds of training, earlier parts of a resumed run included."""
        return self._earlier_seconds + time.perf_counter() - self._started

    @property
    def fraction(self) -> float:
        """How much of the training is done: by iterations or, if that is more, by time."""
        by_iterations = self.iteration / self.config.iterations
        if self.time_limit is None:
            return by_iterations
        allowed = self.time_limit - self._coarse_seconds
        return max(by_iterations, (self.seconds - self._coarse_seconds) / allowed) if allowed > 0 else 1.0

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.finished or self.fraction >= 1

    def iterate(self) -> None:
        """One step of the optimiser, with its line of metrics."""
        config = self.config
        if self.iteration == 0:
            self._snapshot()
        rate = learning_rate(config.schedule, config.learning_rate, self.fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.flow.redraw(self.draws)
        loss, values = self._backward(self.problem.batch(config.batch, self.noise))
        norm = torch.nn.utils.clip_grad_norm_(self.flow.parameters(), config.clip or math.inf)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"the loss became {loss} at iteration {self.iteration + 1} (gradient norm {float(norm)}); the last "
                f"good checkpoint is kept in {self.run.path}; a lower learning rate or more integration steps may help"
            )
        self.optimizer.step()
        self.iteration += 1

        readings = self.problem.readings(values)
        self.recent.append({name: reading for name, reading in readings.items() if reading is not None})
        record = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "loss": loss,
            **readings,
            "learning_rate": rate,
            "steps": self.steps,
        }
        if self.iteration % config.check_every == 0:
            self._control_error()
            record["integration_error_nats"] = self.error
            record |= self.problem.check(self.pool)
        self.run.append_metrics(record)
        if self.iteration in {round(stage * config.iterations) for stage in SNAPSHOT_STAGES}:
            self._snapshot()
        if time.perf_counter() - self._saved > CHECKPOINT_SECONDS:
            self.save()

    def progress(self) -> Progress:
        """Where the training stands."""
        fraction = max(self.fraction, 1e-9)
        return Progress(
            iteration=self.iteration,
            iterations=self.config.iterations,
            seconds=self.seconds,
            remaining=max((self.seconds - self._coarse_seconds) * (1 / fraction - 1), 0.0),
            readings={
                name: sum(readings[name] for readings in self.recent) / len(self.recent) for name in self.recent[-1]
            },
            integration_error=self.error,
            steps=self.steps,
            learning_rate=self.optimizer.param_groups[0]["lr"],
        )

    def finish(self) -> None:
        """Refine the integration until its error is within tolerance, and save the final checkpoint."""
        if not self.finished:
            allowed = FINAL_MARGIN * self.config.tolerance
            self.error = self._measure_error(FINAL_BATCHES)
            while self.error > allowed and 0 < self.steps < MAX_STEPS:
                self._adapt_steps(allowed)
                self.error = self._measure_error(FINAL_BATCHES)
            self.finished = self.iteration >= self.config.iterations
            self._snapshot()
            self.save()

    def save(self) -> None:
        """Write a checkpoint from which the training resumes bit for bit."""
        tensors = {f"flow.{name}": value for name, value in self.flow.state_dict().items()}
        for name, parameter in self.flow.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        tensors["generator.noise"] = self.noise.get_state()
        tensors["generator.draws"] = self.draws.get_state()
        state = {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "coarse_seconds": self._coarse_seconds,
            "steps": self.steps,
            "finished": self.finished,
            "integration_error_nats": self.error,
            "device": str(self.device),
            "recent": list(self.recent),
        }
        self.run.save_checkpoint({name: value.cpu() for name, value in tensors.items()}, state)
        self._saved = time.perf_counter()

    def _backward(self, batch: Tensor) -> tuple[float, Tensor]:
        """The batch's loss and values, with the gradient left in the parameters; shares of the batch in threads."""
        parameters = list(self.flow.parameters())

        def differentiate(share: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
            loss, values = self.problem.objective(share)
            loss = loss * (len(share) / len(batch))
            return loss.detach(), torch.autograd.grad(loss, parameters), values

        self.flow.train()
        losses, gradients, values = zip(*self.pool.map(differentiate, batch), strict=True)
        self.flow.eval()
        for parameter, *shares in zip(parameters, *gradients, strict=True):
            parameter.grad = sum(shares[1:], shares[0])
        return float(sum(losses)), torch.cat(values)

    def _measure_error(self, batches: int = 1) -> float:
        """The integration error now, on fresh samples."""
        return self.problem.error(batches * self.config.batch, self.noise, self.pool)

    def _control_error(self) -> None:
        """Measure the integration error and adapt the number of steps to it."""
        self.error = self._measure_error()
        if self.config.adapt_steps:
            self._adapt_steps(TRAINING_TOLERANCE * self.config.tolerance)

    def _adapt_steps(self, allowed: float) -> None:
        for gradient in self.integrators:
            gradient.steps = controlled_steps(gradient.steps, self.error, allowed, gradient.order)

    def _snapshot(self) -> None:
        self.run.save_snapshot(self.iteration, self.problem.snapshot())

    def _start_from(self, coarse: RunFolder) -> None:
        """Begin with what was learnt on the lattice of half the lengths, and save that: it is not needed again."""
        small = new_flow(coarse.config)
        tensors, state = coarse.load_checkpoint()
        restore(small, tensors, state)
        (before,), (now,) = gradient_flows(small), self.integrators
        enlarge(before.potential, now.potential, self.run.config.lattice)
        if self.config.adapt_steps:
            now.steps = relaxed_steps(before.steps, self.flow.dimension / small.dimension, now.order)
        self._earlier_seconds = self._coarse_seconds = float(state["seconds"])
        self.save()

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        restore(self.flow, tensors, state)
        try:
            for name, parameter in self.flow.named_parameters():
                prefix = f"optimizer.{name}."
                moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                if moments:
                    self.optimizer.state[parameter] = {
                        key: value if key == "step" else value.to(self.device) for key, value in moments.items()
                    }
            self.noise.set_state(tensors["generator.noise"])
            self.draws.set_state(tensors["generator.draws"])
            self.iteration = int(state["iteration"])
            self.finished = bool(state["finished"])
            self._earlier_seconds = float(state["seconds"])
            self._coarse_seconds = float(state["coarse_seconds"])
            self.error = state["integration_error_nats"]
            self.recent.extend(dict(readings) for readings in state["recent"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.run.path}: the checkpoint does not fit this run: {error}") from None
        self.run.truncate_metrics(self.iteration)


def choose_kernels(flow: Flow, device: torch.device) -> str:
    """Have torch.compile fuse the potentials' elementwise work on a GPU where it can; what runs, in words.

    On a CPU the lattice potential has fused kernels of its own, and the others are dominated by matrix products.
    """
    potentials = [module for module in flow.modules() if isinstance(module, Potential)]
    if device.type == "cuda" and find_spec("triton") is not None:
        for potential in potentials:
            potential.compiled = True
        return "fused by torch.compile"
    if device.type == "cpu" and any(isinstance(potential, LatticePotential) for potential in potentials):
        return "fused kernels"
    return "tensor operations"
