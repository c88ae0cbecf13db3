"""Free energies by annealing between a flow and its target, see `sampling.bridge`, as evaluations report them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.evaluation.budget import PILOT, Budget, Meter
from isingflow.flows import Flow
from isingflow.runtime import stopping
from isingflow.runtime.files import Columns, check_memory
from isingflow.runtime.parallel import Backend
from isingflow.sampling.bridge import TURNS, Bridge, Plan, Points
from isingflow.statistics.chains import MOST_R_HAT, diagnostics
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import (
    LITTLE_OVERLAP,
    acceptance_ratio_free_energy,
    lower_bound,
    overlap,
    reweighted_free_energy,
    variational_free_energy,
)
from isingflow.statistics.islands import islands_free_energy, log_means
from isingflow.statistics.weights import effective_sample_size, pareto_k
from isingflow.targets.base import Referenced, Target

PLANNED_ON = 512
"""Samples of each side that a bridge is planned on, in whole chains."""
FEWEST_PLANNED_ON = 128
"""However little time there is: with these alone, chains are just long enough to be compared."""
FEWEST = 64
"""Paths that are taken however little time there is."""
CHAINS = 16
"""Of the target's own samples, on which the bridge is planned, and from which paths go back."""
OF_CHAINS = 0.3
"""Of a limit of time, what they may take."""
BATCH = 256
ISLANDS = 16
"""Of paths that are resampled."""
ARRAYS = 8
"""Of float32, as large as all fields of the target, while these are drawn from its states: 30 bytes a site."""
CHANCE = 3.0
"""Deviations by which R-hat of chains that agree may exceed its limit."""


@dataclass(frozen=True)
class Resampled:
    """What became of the islands of forward paths.

    Attributes:
        islands: their number.
        effective: how many of them count, by their estimates of Z.
        times: resamplings of all of them together.
        ancestors: distinct samples of the flow from which the paths at the end come.
    """

    islands: int
    effective: float
    times: int
    ancestors: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "islands": self.islands,
            "effective_islands": self.effective,
            "times": self.times,
            "ancestors": self.ancestors,
        }


@dataclass(frozen=True)
class Annealed:
    """What a bridge of some steps has found, in nats, -ln Z.

    Where forward paths are resampled, what they give is made of islands, see `statistics.islands`. There is no
    acceptance ratio then: it compares the weight of a whole path with that of one in reverse, and asks for independent
    ones, while a resampled path shares part of its weight with its island, and reverse islands there are none of.

    Attributes:
        plan: its strengths and angles.
        upper_bound: mean of -ln W of the flow's paths; over islands, of -ln of their mean W.
        reweighted: -ln mean W of the same.
        lower_bound: mean of -ln W of the target's paths; None where it has no samples of its own, as what follows.
        acceptance_ratio, overlap: of both sets.
        r_hat: of d = ln p + E along the target's chains, pilot included; NaN where it has no samples of its own.
        allowed_r_hat: up to which chains of their length agree.
        effective_sample_size, pareto_k: of the weights W of the flow's paths, at the end.
        turned, moved: shares of turns, and of moves of the target, that were accepted on the flow's paths.
        paths, reference_paths: numbers of both.
        seconds: on the clock, pilot included.
        resampled: what became of islands; None where paths were not resampled.
        cut_short: what a limit of time left no room for, in words.
    """

    plan: Plan
    upper_bound: Estimate
    reweighted: Estimate
    lower_bound: Estimate | None
    acceptance_ratio: Estimate | None
    overlap: float | None
    r_hat: float
    allowed_r_hat: float
    effective_sample_size: float
    pareto_k: float
    turned: float
    moved: float
    paths: int
    reference_paths: int
    seconds: float
    resampled: Resampled | None = None
    cut_short: tuple[str, ...] = ()

    @property
    def both_ways(self) -> bool:
        """Whether the best estimate is made of paths of both directions: where they begin can be trusted."""
        ratio = self.acceptance_ratio
        return ratio is not None and self.chains_agree and math.isfinite(ratio.stderr)

    @property
    def best(self) -> tuple[Estimate, str]:
        """The best estimate of -ln Z, and how it was found."""
        if self.acceptance_ratio is not None and self.both_ways:
            return self.acceptance_ratio, "annealing both ways"
        return self.reweighted, "annealing" if self.resampled is None else "resampled annealing"

    @property
    def chains_agree(self) -> bool:
        """Whether the chains from which paths go back agree with each other; true where there are none."""
        return not self.r_hat > self.allowed_r_hat

    @property
    def warnings(self) -> list[str]:
        """Why it should not be trusted, if so."""
        found = [f"{what}: the time limit left no room" for what in self.cut_short]
        if not self.chains_agree:
            found.append(
                f"the chains from which paths go back disagree (R-hat {self.r_hat:.3f}, above "
                f"{self.allowed_r_hat:.3f}): the annealed lower bound and what is made of it cannot be trusted"
            )
        if self.overlap is not None and self.overlap < LITTLE_OVERLAP:
            found.append(
                f"annealed paths of both directions hardly overlap ({self.overlap:.2g} of them do): take more steps"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; null for what is not known."""
        return {
            "steps": self.plan.steps,
            "upper_bound": self.upper_bound.as_dict(),
            "lower_bound": self.lower_bound and self.lower_bound.as_dict(),
            "acceptance_ratio": self.acceptance_ratio and self.acceptance_ratio.as_dict(),
            "reweighted": self.reweighted.as_dict(),
            "overlap": self.overlap,
            "effective_sample_size": self.effective_sample_size,
            "pareto_k": self.pareto_k if math.isfinite(self.pareto_k) else None,
            "r_hat": self.r_hat if math.isfinite(self.r_hat) else None,
            "paths": self.paths,
            "reference_paths": self.reference_paths,
            "strengths": list(self.plan.strengths),
            "angles": list(self.plan.angles),
            "accepted_turns": self.turned if math.isfinite(self.turned) else None,
            "accepted_moves": self.moved if math.isfinite(self.moved) else None,
            "seconds": self.seconds,
            "resampled": self.resampled and self.resampled.as_dict(),
        }


def allowed_r_hat(length: int) -> float:
    """R-hat above which `CHAINS` chains disagree: that of the rule, and what those that agree scatter by chance.

    The variance of the means of m half-chains, of n independent samples each, scatters by sqrt(2 / m) of itself, and
    R-hat by 1 / (2 n) of that.
    """
    halves, of_half = 2 * CHAINS, length / 2
    return MOST_R_HAT + CHANCE * math.sqrt(2 / halves) / (2 * of_half)


def anneal(
    flow: Flow,
    target: Target,
    *,
    steps: int,
    paths: int,
    generator: torch.Generator,
    seed: int,
    pool: Backend,
    budget: Budget,
    meter: Meter,
    resample: bool = False,
) -> Annealed:
    """Anneal both ways between a flow and its target.

    Args:
        flow: in evaluation mode.
        target: backwards only where it has samples of its own (`targets.base.Referenced`).
        steps: of the bridge, at least 1.
        paths: from either side, about.
        generator: of what is random; of the target's chains it is `seed`.
        pool: who shares the work.
        budget: of time, which may leave room for fewer paths, for a plan on fewer samples, and for shorter chains or
            none, without which no paths go back.
        meter: told of paths.
        resample: forward paths, in `ISLANDS` islands; their number is rounded up to as many in each.

    Raises:
        InvalidInput: log-determinants of the flow are stochastic.
    """
    began = time.perf_counter()
    bridge = Bridge(flow, target, pool)
    fields = _fields(target, PLANNED_ON + paths, seed, generator, pool, budget)
    plan, pilot, known = _planned(bridge, fields, steps, paths, generator, budget)
    sides = 1 if fields is None else 2
    cost = budget.cost(lambda: bridge.forward(pilot.take(torch.arange(PILOT)), plan, generator))
    asked, paths = paths, budget.samples(paths, cost=cost, share=0.9 / sides, least=FEWEST)

    with budget.taken_off():
        taken = _forward(bridge, plan, paths, generator, meter, resample=resample)
    weights, back = taken.log_weight, None
    reverse, r_hat, allowed = None, math.nan, math.nan
    if fields is not None and known is not None:
        before = known.excess.view(CHAINS, -1).cpu().numpy()
        first, last = before.shape[1], before.shape[1] + -(-paths // CHAINS)
        back = stopping.within(budget.seconds, _backward, bridge, plan, fields[:, first:last], generator, meter)
        if back is not None:
            reverse, excess = back
            along = np.concatenate([before, excess], 1)
            r_hat = diagnostics(along).r_hat if np.isfinite(along).all() else math.inf
            allowed = allowed_r_hat(along.shape[1])
    ratio = None if reverse is None or resample else acceptance_ratio_free_energy(weights, reverse)
    bound, reweighted, resampled = variational_free_energy(weights), reweighted_free_energy(weights), None
    if resample:
        of_islands = weights.reshape(ISLANDS, -1)
        means = log_means(of_islands)
        bound, reweighted = variational_free_energy(means), islands_free_energy(of_islands)
        resampled = Resampled(ISLANDS, ISLANDS * effective_sample_size(means), taken.times, taken.ancestors)
    return Annealed(
        plan=plan,
        upper_bound=bound,
        reweighted=reweighted,
        lower_bound=None if reverse is None else lower_bound(reverse),
        acceptance_ratio=ratio,
        overlap=None if ratio is None or reverse is None else overlap(weights, reverse, ratio.value),
        r_hat=r_hat,
        allowed_r_hat=allowed,
        effective_sample_size=effective_sample_size(weights),
        pareto_k=pareto_k(weights),
        turned=taken.turned,
        moved=taken.moved,
        paths=len(weights),
        reference_paths=0 if reverse is None else reverse.size,
        seconds=time.perf_counter() - began,
        resampled=resampled,
        cut_short=_cut_short(target, fields, reverse, asked),
    )


def check_paths(target: Target, paths: int, *, resample: bool) -> None:
    """Refuse paths of a bridge that memory could not hold, or too few to be resampled.

    Raises:
        InvalidInput: they are.
    """
    if resample and paths < ISLANDS:
        raise InvalidInput(f"{paths} paths in {ISLANDS} islands: resampling takes at least one path (--paths) in each")
    columns: Columns = {"log_weight": (np.float64, (3,))}
    if isinstance(target, Referenced):
        columns = {**columns, "field": (np.float32, (ARRAYS, *target.shape))}
    elif resample:
        columns = {**columns, "field": (np.float32, target.shape)}  # of one island, as it moves
    check_memory(paths, columns, what="paths")


class _Forward(NamedTuple):
    """Of all forward paths: ln W, shares of turns and moves that were accepted, resamplings, ancestors that survive."""

    log_weight: np.ndarray
    turned: float
    moved: float
    times: int
    ancestors: int


def _forward(
    bridge: Bridge, plan: Plan, paths: int, generator: torch.Generator, meter: Meter, *, resample: bool
) -> _Forward:
    """Paths from the flow, in batches. Those of islands are whole ones: where islands fill `BATCH`, as without any."""
    each, batch = 1, BATCH
    if resample:
        each = -(-paths // ISLANDS)
        paths, batch = each * ISLANDS, max(BATCH // each, 1) * each
    weights, turned, moved, times, ancestors = [], [], [], 0, 0
    for start in range(0, paths, batch):
        stopping.check()
        number = min(batch, paths - start)
        islands = number // each if resample else None
        path = bridge.forward(bridge.at(bridge.flow.noise(number, generator)), plan, generator, islands=islands)
        weights.append(path.log_weight)
        turned.append(path.turned)
        moved.append(path.moved)
        if path.lineage is not None:
            times += int(path.lineage.times.sum())
            ancestors += path.lineage.survivors
        meter.add(number)
    shares = np.mean([turned, moved], axis=(1, 2)) if plan.steps > 1 else (math.nan, math.nan)
    return _Forward(torch.cat(weights).cpu().numpy(), float(shares[0]), float(shares[1]), times, ancestors)


def _cut_short(target: Target, fields: Tensor | None, reverse: np.ndarray | None, asked: int) -> tuple[str, ...]:
    """What there was no time for, of paths that go back from samples of the target."""
    if not isinstance(target, Referenced):
        return ()
    if reverse is None:
        what = "the chains that they begin with" if fields is None else "their way back through the bridge"
        return (f"no annealed paths from the target, for {what}",)
    if reverse.size < asked:
        return (f"only {reverse.size} of {asked} annealed paths from the target",)
    return ()


def _fields(
    target: Target, samples: int, seed: int, generator: torch.Generator, pool: Backend, budget: Budget
) -> Tensor | None:
    """Fields of the target along chains, as many as there is time for, shape (chains, samples, *shape).

    None where it has none of its own, or no time is left for the fewest.
    """
    if not isinstance(target, Referenced):
        return None
    states = budget.longest(
        lambda length: pool.first(lambda: target.reference(length, chains=CHAINS, seed=seed)),
        -(-samples // CHAINS),
        least=(FEWEST_PLANNED_ON + FEWEST) // CHAINS,
        share=OF_CHAINS,
    )
    return None if states is None else target.sample_field(states.to(generator.device, torch.float32), generator)


def _planned(
    bridge: Bridge, fields: Tensor | None, steps: int, paths: int, generator: torch.Generator, budget: Budget
) -> tuple[Plan, Points, Points | None]:
    """The plan, and the samples of flow and target that it is made of: the first ones of every chain.

    Others are left for `paths` to begin with, or for the fewest of them.
    """
    trial = bridge.flow.noise(PILOT, generator)
    cost = (1 + TURNS) * budget.cost(lambda: bridge.at(trial))
    if fields is not None:
        few = fields.flatten(0, 1)[:PILOT]
        cost += budget.cost(lambda: bridge.of_fields(few))
    each = -(-budget.samples(PLANNED_ON, cost=cost, share=0.25, least=FEWEST_PLANNED_ON) // CHAINS)
    if fields is not None:
        each = min(each, fields.shape[1] - -(-min(FEWEST, paths) // CHAINS))
    with budget.taken_off():
        pilot = bridge.at(bridge.flow.noise(each * CHAINS, generator))
        known = None if fields is None else bridge.of_fields(fields[:, :each].flatten(0, 1))
        return bridge.plan(steps, pilot, known, generator), pilot, known


def _backward(
    bridge: Bridge, plan: Plan, fields: Tensor, generator: torch.Generator, meter: Meter
) -> tuple[np.ndarray, np.ndarray]:
    """ln W of paths from every field, and d of the field, shape (chains, samples) both."""
    weights, excess = [], []
    for batch in fields.flatten(0, 1).split(BATCH):
        stopping.check()
        start: Points = bridge.of_fields(batch)
        excess.append(start.excess)
        weights.append(bridge.backward(start, plan, generator).log_weight)
        meter.add(len(batch))
    along, starts = (torch.cat(parts).view(fields.shape[:2]).cpu().numpy() for parts in (weights, excess))
    return along, starts
