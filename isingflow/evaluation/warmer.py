"""ln Z of a magnet's spins at a goal beta, annealed from samples of a flow that was trained at a warmer beta_0.

Forward, x of the flow has ln w_0 = -E(x) - ln p(x) of the field at beta_0, and s drawn from p(s | x) goes along a
schedule beta_0, ..., beta_n of sweeps, as in `monte_carlo.annealing`:

    ln W = ln w_0 + sum over k of (beta_k - beta_{k+1}) E(s_k),      E[W] = Z(beta_0) Z_Ising(beta_n) / Z_Ising(beta_0),

with Z(beta_0) that of the field, so that ln Z_Ising(beta_n) = C + ln E[W] with the constant C of `exact.continuous`
alone. In reverse, a state in equilibrium at beta_n goes back to beta_0, where x is drawn from p(x | s), and with the
same W, E[1 / W] = 1 / E[W]. Both directions bound ln Z and share one acceptance ratio, as those of annealing from
beta = 0 do, which stands beside them at the same processor time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from torch import Tensor

from isingflow.evaluation.annealed import AnnealingReport
from isingflow.evaluation.annealing import rows_of
from isingflow.evaluation.budget import PILOT, Budget
from isingflow.evaluation.free_energies import SampleSet
from isingflow.evaluation.known import exact_answers
from isingflow.evaluation.verdict import FAR
from isingflow.flows import Flow
from isingflow.flows.certificate import log_weights
from isingflow.monte_carlo.annealing import Moves
from isingflow.monte_carlo.paths import Paths, moves_for, prepare, run
from isingflow.monte_carlo.source import random_stream, words_of
from isingflow.runs.loading import check_numbers
from isingflow.runtime import stopping
from isingflow.runtime.parallel import Workers
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import LITTLE_OVERLAP
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

Result = TypeVar("Result")

FEWEST = 16
"""Paths that are taken however little time there is."""
BATCH = 256
"""Fields that are pushed back through the flow at once."""
DRAWING, CHAINS = 0.2, 0.25
"""Of a limit of time, what samples of the flow may take, and of what is left what chains at the goal may."""
_TRIAL = 32
"""Sweeps on which the time of one is measured."""
_TRIED = 5
"""First part of the key of their random stream."""


@dataclass(frozen=True, eq=False)
class Column:
    """ln Z at the goal by one way of annealing.

    Attributes:
        report: bounds, estimate and what to think of them.
        processor_seconds: of all threads, for samples of the flow and for paths, without the chains that those in
            reverse begin with, which are the same for all; of a flow on another device, seconds on the clock.
    """

    report: AnnealingReport
    processor_seconds: float

    @property
    def gap(self) -> Estimate | None:
        """The exact answer minus the lower bound, in nats; None where it is unknown."""
        exact = self.report.exact_log_z
        return None if exact is None else exact - self.report.lower_bound

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        row, paths = self.report.end, self.report.paths
        return {
            "sweeps": paths.sweeps,
            "paths": len(paths.forward),
            "reverse_paths": len(paths.reverse),
            "lower_bound": row.lower_bound.as_dict(),
            "upper_bound": row.upper_bound.as_dict(),
            "log_z": row.log_z.as_dict(),
            "estimator": row.method,
            "gap_nats": self.gap and self.gap.as_dict(),
            "effective_sample_size": row.effective_sample_size,
            "overlap": row.overlap,
            "r_hat": paths.at_end.r_hat,
            "seconds": self.report.seconds,
            "processor_seconds": self.processor_seconds,
        }


@dataclass(frozen=True, eq=False)
class AnnealedTo:
    """ln Z of the spins at the goal of a run, from its flow, and by annealing alone in the same processor time.

    Attributes:
        flow: paths that begin with samples of the flow.
        alone: paths that begin at beta = 0; None where a limit of time left no room for them.
    """

    flow: Column
    alone: Column | None

    @property
    def beta(self) -> float:
        """The goal."""
        return self.flow.report.end.beta

    @property
    def paths(self) -> int:
        """Forward paths of either."""
        return len(self.flow.report.paths.forward)

    @property
    def warnings(self) -> list[str]:
        """Why ln Z at the goal should not be trusted, if so."""
        found = list(self.flow.report.warnings)
        if self.alone is None:
            found.append("no annealing alone beside it: the time limit left no room")
        return [f"at beta {self.beta:g}: {warning}" for warning in found]

    def verdict(self, integration_error: float) -> str:
        """What of ln Z at the goal can be trusted, in words.

        Args:
            integration_error: of the flow, in nats, which enters all weights.
        """
        report = self.flow.report
        row, exact = report.end, report.exact_log_z
        if not report.chains_agree:
            return (
                "the lower bound can be trusted, the upper one cannot: the chains that it begins with do not agree; "
                "try more paths (--paths)"
            )
        why = ""
        if row.overlap < LITTLE_OVERLAP:
            why = f"{row.overlap:.2g} paths of both directions overlap"
        elif exact is not None and abs(row.log_z.value - exact) > FAR * row.log_z.stderr + integration_error:
            why = f"the estimate lies {abs(row.log_z.value - exact):.2g} nats from the exact answer"
        if why:
            return (
                f"the bounds can be trusted, the estimate cannot: {why}; try more sweeps (--anneal) or paths (--paths)"
            )
        within = max(row.log_z.stderr, integration_error)
        apart = max(report.bounds_apart, 0.0)
        return f"ln Z by {row.method} can be trusted to {within:.2g} nats: the bounds are {apart:.2g} nats apart"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; null for what is not known."""
        exact, method = self.flow.report.end.exact or (None, None)
        return {
            "beta": self.beta,
            **self.flow.as_dict(),
            "moves": self.flow.report.moves,
            "exact_log_z": exact,
            "exact_method": method,
            "alone": self.alone and self.alone.as_dict(),
        }

    def lines(self, trained_at: float, gap: Estimate | None, flow_share: float, training_seconds: float) -> list[str]:
        """For people: three columns, the flow alone, with annealing, and annealing alone.

        Args:
            trained_at: beta_0.
            gap: of the bound of the flow alone, at beta_0, in nats.
            flow_share: effective sample size of the flow alone, at beta_0, 0..1.
            training_seconds: of the flow.
        """
        columns = [self.flow] if self.alone is None else [self.flow, self.alone]
        reports = [column.report for column in columns]
        rows = [
            ("lower bound", "none", *(str(report.lower_bound) for report in reports)),
            (f"ln Z, {reports[0].end.method}", "none", *(str(report.log_z) for report in reports)),
            ("upper bound", "none", *(str(report.upper_bound) for report in reports)),
            ("gap of the bound, nats", _shown(gap), *(_shown(column.gap) for column in columns)),
            (
                "effective sample size",
                *(f"{100 * share:.2g} %" for share in (flow_share, *(r.end.effective_sample_size for r in reports))),
            ),
            ("paths x sweeps", "", *(f"{len(report.paths.forward)} x {report.paths.sweeps}" for report in reports)),
            ("processor seconds", "", *(f"{column.processor_seconds:.3g}" for column in columns)),
            ("training, seconds", *[f"{training_seconds:.3g}"] * 2, *["none"] * (len(columns) - 1)),
        ]
        heading = f"Ising spins at beta = {self.beta:g}"
        at = f"flow alone, {trained_at:g}"
        heads = ["flow + annealing", "annealing alone"][: len(columns)]
        lines = [f"  {heading:<38}{at:>22}" + "".join(f"{head:>24}" for head in heads)]
        for name, first, *others in rows:
            lines.append(f"    {name:<36}{first:>22}{''.join(f'{other:>24}' for other in others)}".rstrip())
        exact = self.flow.report.end.exact
        if exact is not None:
            decimals = reports[0].log_z.decimals + 1
            method = exact[1].replace("-", " ").capitalize()
            answers = f"{exact[0]:>24.{decimals}f}" * len(columns)
            lines.append(f"    {f'exact ({method})':<36}{'':>22}{answers}")
        return lines


def anneal_to(
    goal: float,
    flow: Flow,
    target: HubbardStratonovich,
    *,
    draw: Callable[[int], SampleSet],
    sweeps: int | None,
    paths: int,
    generator: torch.Generator,
    seed: int,
    pool: Workers,
    budget: Budget,
) -> AnnealedTo:
    """Anneal spins from a flow to the goal of its run, and alone from beta = 0, both ways.

    Args:
        goal: inverse temperature, beyond the target's and of its sign.
        flow: in evaluation mode, trained on the target.
        target: the field at beta_0.
        draw: so many samples of the flow.
        sweeps: of each path from the flow; None for what `schedule.usual_sweeps` says.
        paths: of each direction, at least 2; those in reverse are rounded up to a multiple of 16.
        generator: of the fields drawn for paths in reverse; of all else it is `seed`.
        pool: who shares the flow's work; spins are the first process's.
        budget: of time, which may leave room for fewer paths, for shorter chains, or not for annealing alone.

    Raises:
        OutOfTime: it leaves room for no chains at all.
    """
    lattice, threads = target.lattice, numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
    moves, _ = moves_for(lattice, target.beta, goal)
    plan = partial(prepare, lattice, np.array([goal]), moves=moves, threads=threads)
    began = time.perf_counter()
    paths = budget.samples(paths, cost=budget.cost(lambda: draw(PILOT)), share=DRAWING, least=FEWEST)
    with budget.taken_off():
        drawn, drawing = _timed(lambda: draw(paths), generator.device)
        assert drawn.spins is not None
        given = drawn.spins.reshape(paths, -1)
        chains = CHAINS * budget.seconds
        from_flow = partial(plan, start=target.beta, paths=paths, sweeps=sweeps, seed=seed, given=given, seconds=chains)
        found = pool.first(from_flow)
    with budget.taken_off():
        left = Budget(budget.seconds)
        found = found.first(pool.first(lambda: _affordable(found, moves, threads, left)))
    with budget.taken_off():
        found, sweeping = pool.first(lambda: _swept(found, threads))
        reverse, pulling = _timed(lambda: _reverse_log_weights(flow, target, found, generator, pool), generator.device)
    drawing, pulling = pool.total(drawing), pool.total(pulling)
    forward = drawn.log_weight[: len(found.forward)]
    whole = replace(found, forward=found.forward + forward[:, None], reverse=found.reverse + reverse[:, None])
    spent, seconds = drawing + sweeping + pulling, time.perf_counter() - began
    exact, _ = pool.first(lambda: stopping.watched(exact_answers, lattice, found.rows, longest=budget.seconds))
    rows = rows_of(whole, target.log_z_ising(0.0), exact)

    def alone() -> Column:
        began = time.perf_counter()
        longer = max(round(found.sweeps * spent / sweeping), 1)
        paths = plan(start=0.0, paths=len(found.forward), sweeps=longer, seed=abs(seed - 1), seconds=budget.seconds)
        _, spent_alone = _swept(paths, threads)
        rows = rows_of(paths, lattice.sites * math.log(2), exact)
        return Column(AnnealingReport(lattice, paths, rows, (), time.perf_counter() - began), spent_alone)

    beside = pool.first(lambda: stopping.within(budget.seconds, alone))
    return AnnealedTo(Column(AnnealingReport(lattice, whole, rows, (), seconds), spent), beside)


def _swept(paths: Paths, threads: int) -> tuple[Paths, float]:
    """Paths, all run, and the processor seconds that it took."""
    _, spent = _timed(lambda: run(paths, threads=threads))
    return paths, spent


def _timed(work: Callable[[], Result], device: torch.device | None = None) -> tuple[Result, float]:
    """The result of work, and its seconds of the processor; on another device those on the clock, if they are more."""
    began, processor = time.perf_counter(), time.process_time()
    found = work()
    spent = time.process_time() - processor
    elsewhere = device is not None and device.type != "cpu"
    return found, max(spent, time.perf_counter() - began) if elsewhere else spent


def _affordable(found: Paths, moves: Moves, threads: int, budget: Budget) -> int:
    """As many paths of each direction as there is time for, with those of annealing alone."""
    assert found.given is not None
    tried, words = min(_TRIAL, found.sweeps), words_of(random_stream(found.seed, _TRIED))
    states = moves.model.with_ghost(found.given[np.arange(PILOT) % len(found.given)])

    def sweep() -> None:
        for spins in states:
            moves.sweep(spins, found.betas[1 : 1 + tried], words)

    cost = budget.cost(sweep) * found.sweeps / tried
    return budget.samples(len(found.forward), cost=4 * cost / threads, share=0.9, least=FEWEST)


@torch.no_grad()
def _reverse_log_weights(
    flow: Flow, target: HubbardStratonovich, found: Paths, generator: torch.Generator, pool: Workers
) -> np.ndarray:
    """ln w_0 of fields drawn where paths in reverse have ended, shape (n_R,)."""

    def pull(field: Tensor) -> Tensor:
        return log_weights(target.energy, field, flow.log_prob(field))

    assert found.ends is not None
    weights = []
    for spins in torch.from_numpy(found.ends[: len(found.reverse)]).view(-1, *target.shape).split(BATCH):
        stopping.check()
        fields = target.sample_field(spins.to(generator.device, torch.float32), generator)
        weights += pool.map(pull, fields)
    joined = torch.cat(weights).cpu()
    check_numbers(joined)
    return joined.numpy()


def _shown(gap: Estimate | None) -> str:
    return "unknown" if gap is None else str(gap)
