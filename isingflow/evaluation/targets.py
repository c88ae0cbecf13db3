"""What a flow trained on a target is worth: its samples, and its free energies beside the exact answer.

The bound from above needs samples of the flow alone. The bound from below, and the estimate that combines both, need
samples of the target: for a magnet Monte Carlo of the spins, x drawn from p(x | s), and x pushed back through the flow.
What a target cannot do is left out, in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from isingflow.evaluation.assembly import EXACT_SHARE, Asked, Sampled, evaluation_of
from isingflow.evaluation.bridging import Annealed, check_paths
from isingflow.evaluation.bridging import anneal as annealed_free_energies
from isingflow.evaluation.budget import PILOT, Budget, Meter
from isingflow.evaluation.free_energies import Evaluation, SampleSet
from isingflow.evaluation.reference import reverse_log_weights
from isingflow.evaluation.warmer import AnnealedTo, anneal_to
from isingflow.exact.transfer_matrix import LONGEST
from isingflow.flows import Flow
from isingflow.flows.certificate import integration_error, likelihood_error, log_weights, pushed
from isingflow.runs.folder import AnyRun
from isingflow.runs.loading import check_numbers, new_flow, opened, trained
from isingflow.runs.shared import shared
from isingflow.runs.solution import keep, recall
from isingflow.runtime import devices, stopping
from isingflow.runtime.checks import LARGEST_SEED, count
from isingflow.runtime.files import Columns, check_memory
from isingflow.runtime.parallel import Workers, workers
from isingflow.runtime.sharing import sharing
from isingflow.targets.base import Drawing, ExactlySolved, Referenced, SolvedOnce, Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

Result = TypeVar("Result")

BATCH = 256
MOST_SPINS = 2**24
"""Spins drawn at once."""
ERROR_SAMPLES = 512
FEWEST = 16
"""Samples that are taken however little time there is."""
PLANNED = 0.95
"""Of the time for a bridge, or for paths to a goal, what their parts may take; where all is over they are left out."""


def load_run(
    run: AnyRun, device: torch.device, target: Target | None = None, flow: Flow | None = None
) -> tuple[Flow, Target, dict[str, Any]]:
    """The flow of a run on a target in evaluation mode, its target, and the state saved with it.

    Args:
        run: a run folder with a checkpoint.
        device: where to put them.
        target: of a run on a user's own.
        flow: of a run whose flow is the user's own: one of the same make.

    Raises:
        InvalidInput: the run is on data, or on a user's own target, and none or another one is given.
    """
    run = opened(run)
    found = run.config.target(target)
    flow, state = trained(run, new_flow(run.config, found) if flow is None else flow, device)
    return flow, found.to(device), state


def draw_samples(
    run: AnyRun,
    *,
    samples: int,
    device: torch.device,
    seed: int = 0,
    draws: int = 1,
    target: Target | None = None,
    flow: Flow | None = None,
) -> SampleSet:
    """Samples of a trained flow with their log-probabilities, log-weights and spins, all kept in memory.

    Raises:
        InvalidInput: a number out of range, or more samples than fit in memory; WrongType: something else than these.
    """
    run = opened(run)
    _check_room(run.config.target(target), count("samples", samples), draws=count("draws", draws))
    blocks = stream_samples(run, samples=samples, device=device, seed=seed, draws=draws, target=target, flow=flow)
    return SampleSet.join(blocks)


def stream_samples(
    run: AnyRun,
    *,
    samples: int,
    device: torch.device,
    seed: int = 0,
    draws: int = 1,
    target: Target | None = None,
    flow: Flow | None = None,
    pool: Workers | None = None,
) -> Iterator[SampleSet]:
    """The samples of `draw_samples`, for the same arguments, in blocks.

    Args:
        run: a run folder with a checkpoint, which is read at once.
        samples: number of fields.
        device: where to sample.
        seed: of fields and spins.
        draws: of spins, for every field.
        target, flow: of a run on a user's own.
        pool: who shares the work; the threads of this process if not given.
    """
    samples, draws = count("samples", samples), count("draws", draws)
    generator = _stream(device, seed)
    flow, found, _ = load_run(run, generator.device, target, flow)

    def blocks() -> Iterator[SampleSet]:
        with workers(generator.device) if pool is None else nullcontext(pool) as sharers:
            yield from _draw(flow, found, samples, generator, sharers, draws)

    return blocks()


def evaluate_target(
    run: AnyRun,
    *,
    samples: int,
    device: torch.device,
    seed: int = 0,
    reference_samples: int | None = None,
    target: Target | None = None,
    flow: Flow | None = None,
    time_limit: float | None = None,
    anneal: int | None = None,
    paths: int | None = None,
    resample: bool = False,
    report_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a trained flow on fresh samples of its own and, where the target has some, of the target.

    The integration error is the mean absolute change of ln p + E at half the step, over the first samples of the flow
    and, backwards, of the target: the larger of the two. Statistical errors are one sigma.

    Args:
        run: a run folder with a checkpoint.
        samples: of the flow, at least 2.
        device: where to evaluate.
        seed: of the samples.
        reference_samples: of the target, about, at least 2; a quarter as many as of the flow if not given.
        target, flow: of a run on a user's own.
        time_limit: in seconds, of all of it: fewer samples are taken if need be, chains are shorter, and what has no
            room is left out; the evaluation says what.
        anneal: steps of a bridge between flow and target, both ways, see `sampling.bridge`; none if not given. Of a run
            with a goal: sweeps of paths to it, see `evaluation.warmer`; what they need if not given.
        paths: of the bridge, from either side; at most as many as samples, and `PATHS` by default. Of a run with a
            goal: of paths to it, `annealing.PATHS` by default.
        resample: paths of the bridge from the flow, see `sampling.resampling`.
        report_progress: called with samples done and in all, those of the target and paths of a bridge included.

    A command that is asked to stop once there are samples of the flow reports what they say. Of several processes
    (torchrun) all make this call and share the work: the numbers are those of one with as many threads as all have.

    Raises:
        InvalidInput: a number out of range, or more samples than fit in memory; WrongType: something else than these.
        TrainingDiverged: the flow gives weights that are not numbers.
    """
    run, generator = opened(run), _stream(device, seed)
    asked = Asked.of(run, samples, reference_samples, anneal, paths, resample, seed)
    limit = math.inf if time_limit is None else time_limit
    with sharing(generator.device) as pool:
        began = stopping.clock()
        flow, found, state = load_run(shared(run), generator.device, target, flow)
        _check_all(found, asked)
        exact = _exact_answer(run, found, limit, pool)
        left = limit - (stopping.clock() - began)
        budget = Budget(left if asked.steps is None and asked.goal is None else 0.5 * left)
        sampled = _sampled(flow, found, asked, generator, pool, budget, report_progress)
        left = max(limit - (stopping.clock() - began), 0.0)
        annealed = _annealed(flow, found, asked, sampled, generator, pool, left)
        return evaluation_of(run, flow, found, state, asked, exact, sampled, annealed, limit)


def _exact_answer(run: AnyRun, target: Target, limit: float, pool: Workers) -> tuple[float, str] | None:
    """-ln Z and its method, as the first process keeps or finds it, and all know it then."""
    known, solution = pool.first(lambda: (_found(run, target, limit), getattr(target, "known", None)))
    if isinstance(target, SolvedOnce) and target.known is None and solution is not None:
        target.know(solution)
    return known


def _found(run: AnyRun, target: Target, limit: float) -> tuple[float, str] | None:
    """-ln Z and its method, as it is kept or found; where there is a limit, by what takes no more than its share."""
    recall(run, target)
    if isinstance(target, SolvedOnce) and math.isfinite(limit):
        known = stopping.watched(target.exact_free_energy, longest=min(EXACT_SHARE * limit, LONGEST))
    else:
        known = stopping.watched(target.exact_free_energy) if isinstance(target, ExactlySolved) else None
    keep(run, target)
    return known


def _sampled(
    flow: Flow,
    target: Target,
    asked: Asked,
    generator: torch.Generator,
    pool: Workers,
    budget: Budget,
    report_progress: Callable[[int, int], None] | None,
) -> Sampled:
    """Sample the flow and then its target, as much as there is time for, until a stop is requested."""
    pilot = flow.noise(PILOT, torch.Generator(generator.device).manual_seed(asked.seed))
    cost = budget.cost(lambda: _pushed_in_shares(flow, pilot, pool))
    samples = budget.samples(asked.samples, cost=cost, share=0.4, least=FEWEST)
    of_target = budget.samples(asked.of_target, cost=cost, share=0.2, least=FEWEST)
    latent = flow.noise(budget.samples(min(samples, ERROR_SAMPLES), cost=3 * cost, share=0.15), generator)
    few = budget.samples(ERROR_SAMPLES, cost=3 * cost, share=0.15)
    meter = asked.meter(target, samples, of_target, report_progress)
    with budget.taken_off():
        error = integration_error(flow, target.energy, latent, pool).value
    stopping.check()
    reverse = None
    with stopping.deferred(), budget.taken_off():
        drawn = SampleSet.join(_until_asked(_draw(flow, target, samples, generator, pool), meter))
    if isinstance(target, Referenced):
        pulled = stopping.unless_asked(
            reverse_log_weights, flow, target, of_target, asked.seed, generator, pool, meter, budget
        )
        if pulled is not None:
            weights, first_fields = pulled
            with stopping.deferred():
                error = max(error, likelihood_error(flow, first_fields[:few], pool).value)
            reverse = weights.numpy()
    return Sampled(drawn, reverse, error, meter)


def _annealed(
    flow: Flow,
    target: Target,
    asked: Asked,
    sampled: Sampled,
    generator: torch.Generator,
    pool: Workers,
    left: float,
) -> Annealed | AnnealedTo | None:
    """What a bridge, or paths to the goal, add; None where none are asked for, and where no time is left for them."""
    budget = Budget(PLANNED * left)
    common: dict[str, Any] = {"paths": asked.paths, "generator": generator, "pool": pool, "budget": budget}
    if asked.goal is not None and isinstance(target, HubbardStratonovich):
        to_goal = partial(
            anneal_to,
            asked.goal,
            flow,
            target,
            draw=lambda count: SampleSet.join(_draw(flow, target, count, generator, pool)),
            sweeps=asked.steps,
            seed=asked.seed,
            **common,
        )
        return _in_time(left, to_goal)
    if asked.steps is not None:
        seed, meter = asked.seed + 1, sampled.meter
        bridge = partial(annealed_free_energies, flow, target, steps=asked.steps, seed=seed, meter=meter, **common)
        return _in_time(left, partial(bridge, resample=asked.resample))
    return None


def _in_time(left: float, work: Callable[[], Result]) -> Result | None:
    """The result of work that may be left out; None where its seconds are over, or a stop is requested."""
    return stopping.within(left, lambda: stopping.unless_asked(work))


def _stream(device: torch.device | str, seed: int) -> torch.Generator:
    """The random numbers of a seed, on a device."""
    return torch.Generator(devices.resolve(device)).manual_seed(count("seed", seed, least=0, most=LARGEST_SEED))


def _check_all(target: Target, asked: Asked) -> None:
    """Refuse an evaluation that memory could not hold."""
    _check_room(target, asked.samples)
    _check_room(target, asked.of_target, "reference samples")
    if asked.goal is not None:
        _check_room(target, 2 * asked.paths, "paths")
    elif asked.steps is not None:
        check_paths(target, asked.paths, resample=asked.resample)


def _check_room(target: Target, samples: int, what: str = "samples", *, draws: int = 1) -> None:
    """Refuse samples that memory could not hold."""
    columns: Columns = {"field": (np.float32, target.shape), "log_prob and log_weight": (np.float64, (2,))}
    if isinstance(target, Drawing):
        columns = {**columns, "spins": (np.int8, (draws, *target.shape))}
    check_memory(samples, columns, what=what)


@torch.no_grad()
def _pushed_in_shares(flow: Flow, latent: Tensor, pool: Workers) -> None:
    pool.map(lambda share: pushed(flow, share), latent)


@torch.no_grad()
def _draw(
    flow: Flow,
    target: Target,
    samples: int,
    generator: torch.Generator,
    pool: Workers,
    draws: int = 1,
) -> Iterator[SampleSet]:
    def push(latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        field, log_prob = pushed(flow, latent)
        return field, log_prob, log_weights(target.energy, field, log_prob)

    batch = min(BATCH, max(1, MOST_SPINS // (draws * target.sites)))
    for start in range(0, samples, batch):
        stopping.check()
        latent = flow.noise(min(batch, samples - start), generator)
        field, log_prob, weights = map(torch.cat, zip(*pool.map(push, latent), strict=True))
        check_numbers(weights)
        spins = None
        if isinstance(target, Drawing):
            drawn = torch.stack([target.draw(field, generator)["spins"] for _ in range(draws)], 1)
            spins = (drawn.squeeze(1) if draws == 1 else drawn).cpu().numpy()
        yield SampleSet(spins, *(tensor.cpu().numpy() for tensor in (field, log_prob, weights)))


def _until_asked(blocks: Iterator[SampleSet], meter: Meter) -> Iterator[SampleSet]:
    """Blocks of samples, the first at least, until a stop is requested."""
    for block in blocks:
        yield block
        meter.add(len(block.log_weight))
        if stopping.requested():
            return
