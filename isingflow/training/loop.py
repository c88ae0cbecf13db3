"""The training loop: the objective of a problem minimised by Adam, with the integration error under control.

An optimiser would learn to exploit the error of a coarse integrator, so step lengths are drawn anew at every iteration,
the error is measured (the same samples at half the step), and steps are added when it exceeds its tolerance. The loop
writes to the run folder, from before its first step, and resumes from it bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isingflow.flows import Flow
from isingflow.runs.folder import AnyRun
from isingflow.runtime import stopping
from isingflow.runtime.devices import keep_freed_memory
from isingflow.runtime.processes import together
from isingflow.training.problems import Problem, Samples
from isingflow.training.progress import Callback, Outcome, any_stops
from isingflow.training.stages import on_the_way
from isingflow.training.trainer import Optimiser, Trainer


def fit(
    run: AnyRun,
    problem: Problem[Samples],
    *,
    time_limit: float | None = None,
    callbacks: Sequence[Callback] = (),
    optimiser: Optimiser | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    start: Flow | None = None,
    last: bool = True,
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
        last: whether no other training goes on from this one's flow, see `Trainer.finish`.

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
            last=False,
        )
        if outcome is Outcome.INTERRUPTED:
            return outcome
        start, seconds = stage.problem.flow, float(part.load_checkpoint()[1]["seconds"])
    device = problem.flow.device
    if device.type == "cpu":
        keep_freed_memory()
    with together(device) as pool, stopping.deferred():
        trainer = Trainer(run, problem, time_limit, pool, optimiser)
        if not run.has_checkpoint:
            trainer.begin(start, seconds)
        pool.spread(list(problem.flow.state_dict().values()))
        stopped = False
        try:
            while not (trainer.done or stopped):
                trainer.iterate()
                try:
                    stopped, asked = pool.first(lambda: (any_stops(callbacks, trainer.progress()), should_stop()))
                except Exception:
                    trainer.save()
                    raise
                if asked:
                    trainer.save()
                    return Outcome.INTERRUPTED
            trainer.finish(stopped, last=last)
        except stopping.Stopped:
            trainer.undo()
            trainer.save()
            return Outcome.INTERRUPTED
    if stopped:
        return Outcome.STOPPED
    if trainer.on_plateau:
        return Outcome.PLATEAU
    return Outcome.FINISHED if trainer.iteration >= run.config.training.updates else Outcome.TIME_LIMIT
