"""What a training will take, before it begins: memory, of which there must be enough, and time, of which one is told.

Both are measured, on the flow itself: the objective of one sample and of two, with what backpropagation remembers of
them. Memory is at least that, times the batch, and a training may add integration steps; so what is refused could not
have worked. The time is that of the steps that it begins with.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows.gradient import gradient_flows
from isingflow.runs.config import AnyRunConfig
from isingflow.runtime.launched import place
from isingflow.runtime.parallel import Backend, workers
from isingflow.runtime.resources import duration, free_memory, memory
from isingflow.training.problems import Problem
from isingflow.training.stages import work

logger = logging.getLogger(__name__)

SMALL = 2**13
"""Numbers in a batch of fields up to which nothing is measured: it always fits, and its progress soon says how long."""
LONG_SECONDS = 1800.0
"""From which the time is told."""
STATES = 5
"""Copies of the parameters in a training: themselves, their gradient, two moments, and one that is written."""


class Needs(NamedTuple):
    """What a training needs.

    Attributes:
        memory: bytes at least, besides what is taken already.
        seconds: of all its iterations, about.
        iteration: seconds of one of them, those on smaller lattices left out.
    """

    memory: float
    seconds: float
    iteration: float


def foresee(problem: Problem[Any], *, time_limit: float | None = None) -> Needs | None:
    """Refuse a training that this machine cannot hold, and say how long one takes that takes long.

    Args:
        problem: to be trained, stages included.
        time_limit: of the training in seconds; no time is told that is longer. One iteration has to fit in it.

    Returns:
        What it needs; None where it is so small that it was not measured.

    Raises:
        InvalidInput: it needs more memory than is free, or there is no time for one iteration.
    """
    training = problem.training
    if training.batch * problem.flow.dimension <= SMALL:
        return None
    device = problem.flow.device
    name = f"a training with batches of {training.batch} on {problem.config}"
    advice = "a smaller batch, fewer integration steps, recompute or a smaller flow may fit"
    with workers(device) as pool:
        try:
            needs = measured(problem, pool)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise InvalidInput(f"{name} needs more memory than is free, for one sample already: {advice}") from error
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    needed = needs.memory * (1 if device.type == "cuda" else place().local_world)
    if free is not None and needed > free:
        raise InvalidInput(f"{name} needs at least {memory(needed)} of memory, {memory(free)} are free: {advice}")
    if time_limit is not None and needs.iteration > time_limit:
        with workers(device) as pool:
            seconds = iteration_seconds(problem, pool, time_limit)
        if seconds > time_limit:
            raise InvalidInput(
                f"{name}: one iteration takes about {duration(seconds)} on this machine, and there are "
                f"{duration(time_limit)} for all of them: give more time, a smaller batch or fewer integration steps"
            )
    if device.type == "cpu" and LONG_SECONDS < needs.seconds < (time_limit or math.inf):
        logger.info(
            "%s takes about %s on this machine, and at least %s of memory",
            name,
            duration(needs.seconds),
            memory(needs.memory),
        )
    return needs


def check_shares(config: AnyRunConfig) -> None:
    """Refuse a training with more processes than samples in a batch, on smaller lattices too.

    Raises:
        InvalidInput: there are.
    """
    world = place().world
    if config.training.batch < world:
        raise InvalidInput(
            f"a batch of {config.training.batch} on {config} cannot be shared by {world} processes: start fewer of them"
        )
    if config.coarse is not None:
        check_shares(config.coarse)


def measured(problem: Problem[Any], pool: Backend) -> Needs:
    """What a training needs, from gradients of one and of two samples for every thread.

    Args:
        problem: to be trained; nothing of it is changed but draws, which every iteration makes anew.
        pool: of the threads that will share its batches.
    """
    training, trains = problem.training, problem.flow.training
    _ready(problem)
    _remembered(problem, pool, 1)  # kernels are compiled
    (one, first), (two, second) = (_remembered(problem, pool, n) for n in (1, 2))
    problem.flow.train(trains)
    more = max(training.batch / (pool.count * place().world) - 1, 0)
    parameters = sum(p.numel() * p.element_size() for p in problem.flow.parameters())
    share = work(problem.config) / (math.prod(problem.config.sample[1]) * training.batch * training.updates)
    iteration = first + more * max(second - first, 0.0)
    needed = one + more * max(two - one, 0) + (STATES + pool.count - 1) * parameters
    return Needs(needed, training.updates * share * iteration, iteration)


def _ready(problem: Problem[Any]) -> None:
    """Have the flow as it is trained, but for maps that would start from the first batch."""
    problem.flow.eval()
    for part in gradient_flows(problem.flow):
        part.train()
        part.redraw(torch.Generator().manual_seed(0))


def iteration_seconds(problem: Problem[Any], pool: Backend, limit: float) -> float:
    """Seconds of one iteration, from larger and larger parts of its batch; about, where they are above the limit.

    Args:
        problem: to be trained; nothing of it is changed.
        pool: of the threads that will share its batches.
        limit: in seconds, of which this takes a part.
    """
    share, samples, trains = max(problem.training.batch // (pool.count * place().world), 1), 1, problem.flow.training
    _ready(problem)
    before = _remembered(problem, pool, samples)[1]
    while True:
        larger = min(4 * samples, share)
        seconds = _remembered(problem, pool, larger)[1]
        # What a sample adds: the first one pays for much that all others share.
        each = max(seconds - before, 0.0) / max(larger - samples, 1)
        whole = seconds + (share - larger) * each
        if whole <= limit or seconds > limit / 8 or larger >= share:
            problem.flow.train(trains)
            return whole
        samples, before = larger, seconds


def _remembered(problem: Problem[Any], pool: Backend, samples: int) -> tuple[int, float]:
    """Bytes that backpropagation remembers of so many samples for every thread, and the seconds that they take."""
    batch = problem.batch(samples * pool.count, torch.Generator(problem.source).manual_seed(0))
    parameters = list(problem.flow.parameters())
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}

    def differentiate(share: Any) -> dict[int, int]:
        remember, kept = _keeper()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            loss, _ = problem.objective(share)
        torch.autograd.grad(loss, parameters, allow_unused=True)
        return kept

    begun = time.perf_counter()
    shares = pool.map(differentiate, batch)
    seconds = time.perf_counter() - begun
    return sum(size for kept in shares for place, size in kept.items() if place not in own), seconds


def _keeper() -> tuple[Callable[[Tensor], Tensor], dict[int, int]]:
    """What notes the memory of every tensor that passes, and the notes: bytes by place."""
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    return remember, kept
