"""What a flow trained on a target is worth: its samples, and its free energies beside the exact answer.

The bound from above needs samples of the flow alone. The bound from below, and the estimate that combines both, need
samples of the target: for a magnet Monte Carlo of the spins, x drawn from p(x | s), and x pushed back through the flow.
What a target cannot do is left out, in words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.evaluation.annealing import PATHS as SPIN_PATHS
from isingflow.evaluation.bridging import anneal as annealed_free_energies
from isingflow.evaluation.budget import MOST_STEPS, PILOT, Budget, Meter
from isingflow.evaluation.free_energies import BothSides, Evaluation, SampleSet
from isingflow.evaluation.warmer import anneal_to
from isingflow.flows import Flow
from isingflow.flows.certificate import integration_error, likelihood_error, log_weights, pushed
from isingflow.lattice import Lattice
from isingflow.observables import Series, per_sample
from isingflow.runs.config import heading
from isingflow.runs.folder import AnyRun
from isingflow.runs.loading import check_numbers, new_flow, opened, trained
from isingflow.runs.solution import keep, recall
from isingflow.runtime import devices, stopping
from isingflow.runtime.checks import LARGEST_SEED, count
from isingflow.runtime.files import Columns, check_memory
from isingflow.runtime.parallel import Workers, workers
from isingflow.sampling.chains import magnet
from isingflow.statistics.free_energy import (
    effective_sample_size,
    entropy,
    internal_energy,
    reweighted_free_energy,
    variational_free_energy,
)
from isingflow.statistics.jackknife import jackknife_mean
from isingflow.statistics.weights import pareto_k
from isingflow.targets.base import Drawing, ExactlySolved, Magnetic, Referenced, SolvedOnce, Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training.problems import REFERENCE_CHAINS
from isingflow.training.progress import RECENT

BATCH = 256
MOST_SPINS = 2**24
"""Spins drawn at once."""
ERROR_SAMPLES = 512
PATHS = 1024
"""Of a bridge from either side."""
FEWEST = 16
"""Samples that are taken however little time there is."""


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
) -> Iterator[SampleSet]:
    """The samples of `draw_samples`, for the same arguments, in blocks.

    Args:
        run: a run folder with a checkpoint, which is read at once.
        samples: number of fields.
        device: where to sample.
        seed: of fields and spins.
        draws: of spins, for every field.
        target, flow: of a run on a user's own.
    """
    samples, draws = count("samples", samples), count("draws", draws)
    generator = _stream(device, seed)
    flow, found, _ = load_run(run, generator.device, target, flow)

    def blocks() -> Iterator[SampleSet]:
        with workers(generator.device) as pool:
            yield from _draw(flow, found, samples, generator, pool, draws)

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
        time_limit: in seconds, for which fewer samples are taken if need be.
        anneal: steps of a bridge between flow and target, both ways, see `sampling.bridge`; none if not given. Of a run
            with a goal: sweeps of paths to it, see `evaluation.warmer`; what they need if not given.
        paths: of the bridge, from either side; at most as many as samples, and `PATHS` by default. Of a run with a
            goal: of paths to it, `annealing.PATHS` by default.
        report_progress: called with samples done and in all, those of the target and paths of a bridge included.

    A command that is asked to stop once there are samples of the flow reports what they say.

    Raises:
        InvalidInput: a number out of range, or more samples than fit in memory; WrongType: something else than these.
        TrainingDiverged: the flow gives weights that are not numbers.
    """
    run, samples, generator = opened(run), count("samples", samples, least=2), _stream(device, seed)
    of_target = max(samples // 4, 2)
    if reference_samples is not None:
        of_target = count("reference_samples", reference_samples, least=2)
    goal = run.config.goal
    if goal is None and anneal is None and paths is not None:
        raise InvalidInput("paths are of a bridge (anneal): give its number of steps too")
    steps = None if anneal is None else count("anneal", anneal, most=MOST_STEPS)
    usual_paths = min(samples, PATHS) if goal is None else SPIN_PATHS
    paths = usual_paths if paths is None else count("paths", paths, least=2)
    flow, found, state = load_run(run, generator.device, target, flow)
    _check_room(found, samples)
    _check_room(found, of_target, "reference samples")
    if goal is not None:
        _check_room(found, 2 * paths, "paths")
    recall(run, found)
    known = stopping.watched(found.exact_free_energy) if isinstance(found, ExactlySolved) else None
    keep(run, found)
    exact, method = known or (None, None)
    reverse = None
    with workers(generator.device) as pool:
        began, asked = time.perf_counter(), samples
        share = 1.0 if steps is None and goal is None else 0.5
        budget = Budget(None if time_limit is None else share * time_limit)
        pilot = flow.noise(PILOT, torch.Generator(generator.device).manual_seed(seed))
        cost = budget.cost(lambda: _pushed_in_shares(flow, pilot, pool))
        samples = budget.samples(samples, cost=cost, share=0.4, least=FEWEST)
        of_target = budget.samples(of_target, cost=cost, share=0.2, least=FEWEST)
        latent = flow.noise(budget.samples(min(samples, ERROR_SAMPLES), cost=3 * cost, share=0.15), generator)
        of_bridge = 0 if steps is None or goal is not None else paths
        total = samples + of_bridge + (of_target + of_bridge if isinstance(found, Referenced) else 0)
        meter = Meter(report_progress, total)
        error = integration_error(flow, found.energy, latent, pool).value
        stopping.check()
        with stopping.deferred():
            drawn = SampleSet.join(_until_asked(_draw(flow, found, samples, generator, pool), meter))
            pulled = None
            if isinstance(found, Referenced):
                pulled = stopping.unless_asked(
                    _reverse_log_weights, flow, found, of_target, seed, generator, pool, meter
                )
            if pulled is not None:
                reverse, first_fields = pulled
                few = first_fields[: budget.samples(len(first_fields), cost=3 * cost, share=0.15)]
                error = max(error, likelihood_error(flow, few, pool).value)
            bridge, annealed_to = None, None
            left = None if time_limit is None else max(time_limit - (time.perf_counter() - began), 0.0)
            if goal is not None and isinstance(found, HubbardStratonovich):
                annealed_to = stopping.unless_asked(
                    anneal_to,
                    goal,
                    flow,
                    found,
                    draw=lambda count: SampleSet.join(_draw(flow, found, count, generator, pool)),
                    sweeps=steps,
                    paths=paths,
                    generator=generator,
                    seed=seed,
                    pool=pool,
                    budget=Budget(left),
                )
            elif steps is not None:
                bridge = stopping.unless_asked(
                    annealed_free_energies,
                    flow,
                    found,
                    steps=steps,
                    paths=paths,
                    generator=generator,
                    seed=seed + 1,
                    pool=pool,
                    budget=Budget(left),
                    meter=meter,
                )
    weights = drawn.log_weight
    energies = -weights - drawn.log_prob
    both_sides = None if reverse is None else BothSides.of(weights, reverse.numpy(), exact)
    evaluation = Evaluation(
        title=heading(run.config),
        target=found.name,
        parameters_by_name=found.parameters_by_name,
        size=tuple(found.shape),
        sites=found.sites,
        beta=found.beta if isinstance(found, Magnetic) else None,
        bounds=run.config.training.bounds,
        parameters=flow.parameter_count,
        training_seconds=float(state["seconds"]),
        integration_steps=int(state["steps"]),
        integration_error=error,
        tolerance=run.config.training.tolerance,
        mean_field=found.mean_field().free_energy if isinstance(found, Magnetic) else None,
        variational=variational_free_energy(weights),
        reweighted=reweighted_free_energy(weights),
        internal_energy=internal_energy(energies, weights),
        entropy=entropy(energies, weights),
        effective_sample_size=effective_sample_size(weights),
        pareto_k=pareto_k(weights),
        both_sides=both_sides,
        exact=exact,
        method=method,
        log_z_ising=None,
        **_of_spins(found, drawn),
        samples=drawn,
        sampled_loss=_sampled_loss(run),
        shortened=samples < asked
        or stopping.requested()
        or any(way is not None and way.paths < paths for way in (bridge, annealed_to)),
        annealed=bridge,
        annealed_to=annealed_to,
    )
    if not isinstance(found, Magnetic):
        return evaluation
    return replace(evaluation, log_z_ising=found.log_z_ising(evaluation.best[0]))


def _sampled_loss(run: AnyRun) -> float | None:
    """The mean over the last iterations of what a flow with a sampled average was trained for; None of other flows."""
    last = [record["sampled_loss"] for record in run.metrics()[-RECENT:] if record.get("sampled_loss") is not None]
    return sum(last) / len(last) if last else None


def _of_spins(target: Target, samples: SampleSet) -> dict[str, Any]:
    """Energy and magnetisation of a magnet's spins, and its exact solution; None of other targets."""
    lattice, beta = magnet(target)
    if lattice is None or samples.spins is None:
        return dict.fromkeys(("energy_per_site", "magnetisation_abs", "exact_spins"))
    series = per_sample(lattice, spins=samples.spins, field=samples.field, beta=beta)
    assert series.magnetisation_abs is not None
    return {
        "energy_per_site": jackknife_mean(series.energy, samples.log_weight) / lattice.sites,
        "magnetisation_abs": jackknife_mean(series.magnetisation_abs, samples.log_weight),
        **({} if lattice.field is None else _in_field(lattice, series, samples)),
        "exact_spins": target.known if isinstance(target, SolvedOnce) else None,
    }


def _in_field(lattice: Lattice, series: Series, samples: SampleSet) -> dict[str, Any]:
    """What an external field adds: the field itself, and the magnetisation with its sign."""
    magnetisation = jackknife_mean(series.magnetisation, samples.log_weight)
    return {"field": np.asarray(lattice.field).tolist(), "magnetisation": magnetisation}


def _stream(device: torch.device | str, seed: int) -> torch.Generator:
    """The random numbers of a seed, on a device."""
    return torch.Generator(devices.resolve(device)).manual_seed(count("seed", seed, least=0, most=LARGEST_SEED))


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


@torch.no_grad()
def _reverse_log_weights(
    flow: Flow, target: Referenced, samples: int, seed: int, generator: torch.Generator, pool: Workers, meter: Meter
) -> tuple[Tensor, Tensor]:
    """Log-weights of samples of the target by Monte Carlo, shape (chains, samples per chain), and the first fields."""
    chains = min(REFERENCE_CHAINS, samples)
    states = target.reference(-(-samples // chains), chains=chains, seed=seed)

    def pull(field: Tensor) -> Tensor:
        return log_weights(target.energy, field, flow.log_prob(field))

    def drawn(batch: Tensor) -> Tensor:
        return target.sample_field(batch.to(generator.device, torch.float32), generator)

    batch, *others = states.flatten(0, 1).split(BATCH)
    first = drawn(batch)
    parts = pool.map(pull, first)
    meter.add(len(first))
    for batch in others:
        stopping.check()
        parts += pool.map(pull, drawn(batch))
        meter.add(len(batch))
    weights = torch.cat(parts).cpu()
    check_numbers(weights)
    return weights.view(chains, -1), first
