"""The state of a training: in a checkpoint, from which it goes on bit for bit, or in memory, to undo what was begun."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isingflow.errors import CheckpointError
from isingflow.runs.loading import check_moments, restore
from isingflow.runtime.files import reason
from isingflow.runtime.processes import mixed
from isingflow.training.keeping import Kept

if TYPE_CHECKING:
    from isingflow.training.trainer import Trainer

STREAM = "generator.noise"
"""Of the noise in a checkpoint: of the first process, or of one alone; those of others have their number behind it."""


def pack(trainer: Trainer[Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, on the CPU, and state of a training, for a checkpoint."""
    tensors = {f"flow.{name}": value for name, value in trainer.flow.state_dict().items()}
    for name, parameter in trainer.flow.named_parameters():
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value)
    streams = trainer.pool.gather(trainer.noise.get_state()[None], trainer.pool.world)
    tensors |= {_stream(rank): state for rank, state in enumerate(streams)}
    tensors["generator.draws"] = trainer.draws.get_state()
    tensors |= trainer.kept.packed()
    state = {
        "iteration": trainer.iteration,
        "seconds": trainer.seconds,
        "stage_seconds": trainer.stage_seconds,
        "steps": trainer.steps,
        "finished": trainer.finished,
        "integration_error_nats": trainer.error,
        "device": str(trainer.device),
        "recent": list(trainer.recent),
        "kept": trainer.kept.state,
        "resting": trainer.resting,
        "wait": trainer.wait,
        "next_look": trainer.next_look,
        "fitted": None if trainer.fitted is None else trainer.fitted._asdict(),
    }
    return {name: value.cpu() for name, value in tensors.items()}, state


def unpack(trainer: Trainer[Any], tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Put what a checkpoint holds into a training.

    Raises:
        CheckpointError: it belongs to another one.
    """
    restore(trainer.flow, tensors, state)
    try:
        for name, parameter in trainer.flow.named_parameters():
            prefix = f"optimizer.{name}."
            moments = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if moments:
                if trainer.own_optimizer:
                    check_moments(name, moments, parameter)
                trainer.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(trainer.device) for key, value in moments.items()
                }
        trainer.draws.set_state(tensors["generator.draws"])
        trainer.iteration = int(state["iteration"])
        _take_up(trainer, tensors)
        trainer.finished = bool(state["finished"])
        trainer.earlier_seconds = float(state["seconds"])
        # Version 0.1 knew one stage, the coarse lattice.
        trainer.stage_seconds = float(state.get("stage_seconds", state.get("coarse_seconds", 0.0)))
        trainer.error = state["integration_error_nats"]
        trainer.recent.extend(dict(readings) for readings in state["recent"])
        trainer.kept = Kept.unpacked(tensors, state.get("kept"))
        # Before there were looks between checks, there was a check every so many iterations.
        trainer.wait = int(state.get("wait", trainer.config.check_every))
        trainer.next_look = int(state.get("next_look", 0))
        if not trainer.finished:
            trainer.problem.forget()
        if state.get("resting") and not trainer.finished:
            if not trainer.kept.tensors:
                raise ValueError("it has no weights to go on from")
            trainer.flow.load_state_dict(trainer.kept.tensors)  # from rest nothing is learnt
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{trainer.run.path}: the checkpoint does not fit this run: {reason(error)}") from None
    trainer.run.truncate_metrics(trainer.iteration)
    trainer.run.save_state(state)


def _stream(rank: int) -> str:
    """The name of the state of a process's noise."""
    return f"{STREAM}.{rank}" if rank else STREAM


def _take_up(trainer: Trainer[Any], tensors: dict[str, Tensor]) -> None:
    """Go on with the noise where it was left; with new noise, where there were more processes, or fewer."""
    pool = trainer.pool
    if pool.world == sum(name.startswith(STREAM) for name in tensors):
        trainer.noise.set_state(tensors[_stream(pool.rank)])
        return
    seed = mixed(trainer.run.config.seed + 1, trainer.iteration)
    trainer.noise = pool.generator(trainer.problem.source, seed)


def remembered(trainer: Trainer[Any], *, whole: bool) -> Callable[[], None]:
    """What brings back a training as it is now.

    Args:
        trainer: of the training.
        whole: whether weights and moments may change before; if not, only random numbers may.
    """
    noise, draws = trainer.noise.get_state(), trainer.draws.get_state()
    state = (trainer.iteration, trainer.error, trainer.kept, list(trainer.recent), trainer.resting)
    looks = trainer.wait, trainer.next_look
    trainer.kept = replace(trainer.kept)
    flow = {name: value.clone() for name, value in trainer.flow.state_dict().items()} if whole else None
    moments = copy.deepcopy(trainer.optimizer.state_dict()) if whole else None

    def undo() -> None:
        trainer.noise.set_state(noise)
        trainer.draws.set_state(draws)
        trainer.iteration, trainer.error, trainer.kept, recent, trainer.resting = state
        trainer.recent = deque(recent, maxlen=trainer.recent.maxlen)
        trainer.wait, trainer.next_look = looks
        trainer.flow.eval()
        if flow is not None and moments is not None:
            trainer.flow.load_state_dict(flow)
            trainer.optimizer.load_state_dict(moments)

    return undo
