"""Paths of annealing in both directions: what they are of, how far they are, and the threads that run them.

Every path has a random stream of its own, made from (seed, direction, number), so that paths do not depend on threads,
nor on which of them were run before an interruption.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from isingflow.lattice import Lattice
from isingflow.monte_carlo.annealing import MOVES, Clusters, HeatBath, Moves
from isingflow.monte_carlo.couplings import Couplings
from isingflow.monte_carlo.equilibrium import Equilibrium, chains_of, equilibrium
from isingflow.monte_carlo.schedule import Pilot, pilot, schedule, usual_sweeps
from isingflow.monte_carlo.simulate import portions
from isingflow.monte_carlo.source import random_stream, words_of
from isingflow.monte_carlo.tempering import random_spins
from isingflow.runtime import stopping

ReportProgress = Callable[[int, int], None]

FORWARD, REVERSE, AT_START, AT_END = 1, 2, 3, 4
"""First parts of the keys of random streams."""
_PORTION_UPDATES = 2**22
"""Spin updates between two looks for signals, a fraction of a second."""
_BLOCK = 64
"""Paths that a thread takes at once, at most."""
_LOOK = 0.2
"""Seconds from one report of progress to the next."""
PILOT_STATES = 8
ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Paths:
    """Paths of a lattice between two temperatures, as far as they are run.

    Attributes:
        lattice: the spins.
        rows: inverse temperatures at which the log-weights are kept, from the start to the end, shape (R,).
        start: where forward paths begin.
        betas: the schedule beta_0, ..., beta_n.
        marks: its steps at which the rows are met, shape (R,).
        moves: a key of `annealing.MOVES`.
        seed: of all random streams.
        pilot: what the schedule was made from.
        forward, reverse: w_r of each path, shapes (n_F, R) and (n_R, R); NaN where it is not run yet.
        at_start: equilibrium states that forward paths begin with; None at beta = 0, where every path draws its own,
            and where states are `given`.
        at_end: those that paths in reverse begin with.
        given: independent states that forward paths begin with, drawn by the caller, int8, shape (n_F, sites), or None.
        ends: states at which paths in reverse have ended, int8, shape (n_R, sites); kept where states are given.
    """

    lattice: Lattice
    rows: np.ndarray
    start: float
    betas: np.ndarray
    marks: np.ndarray
    moves: str
    seed: int
    pilot: Pilot
    forward: np.ndarray
    reverse: np.ndarray
    at_start: Equilibrium | None
    at_end: Equilibrium
    given: np.ndarray | None = None
    ends: np.ndarray | None = None

    @property
    def sweeps(self) -> int:
        """Of each path."""
        return len(self.betas) - 1

    @property
    def done(self) -> int:
        """Paths that are run."""
        return int(sum(np.count_nonzero(~np.isnan(w[:, 0])) for w in (self.forward, self.reverse)))

    def begins(self, reverse: bool) -> np.ndarray | None:
        """The states that paths of a direction begin with, shape (n, sites); None where every path draws its own."""
        states = self.at_end if reverse else self.at_start
        return self.given if states is None else states.states.reshape(-1, self.lattice.sites)

    def first(self, paths: int) -> Paths:
        """The first of the paths in each direction, none of which is run yet: in reverse, as many of each chain."""
        chains, samples = self.at_end.states.shape[:2]
        kept = min(samples, -(-paths // chains))
        forward, reverse = self.forward[:paths], self.reverse[: chains * kept]
        at_end = replace(self.at_end, states=self.at_end.states[:, :kept])
        return replace(self, forward=forward, reverse=reverse, at_end=at_end)

    @property
    def by_chains(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-weights as estimators take them, (n, R) where paths began independently, else (chains, samples, R)."""
        pairs = ((self.forward, self.at_start), (self.reverse, self.at_end))
        first, second = (
            w if states is None else w.reshape(*states.states.shape[:2], w.shape[-1]) for w, states in pairs
        )
        return first, second


def moves_for(lattice: Lattice, start: float, end: float, wanted: str | None = None) -> tuple[Moves, str | None]:
    """What moves the spins between two temperatures; and a note where that is not what was wanted."""
    model = Couplings.of(lattice, end or start)
    if model.gauge is not None and wanted in (None, Clusters.name):
        return Clusters(model), None
    note = None
    if wanted == Clusters.name:
        what = "couplings" if lattice.field is None else "couplings and the external field"
        note = f"the {what} are frustrated, where clusters do not work: {HeatBath.name} is used instead"
    return HeatBath(model), note


def prepare(
    lattice: Lattice,
    rows: np.ndarray,
    *,
    start: float,
    paths: int,
    sweeps: int | None,
    moves: Moves,
    seed: int,
    threads: int,
    given: np.ndarray | None = None,
    seconds: float = math.inf,
    report_progress: ReportProgress | None = None,
) -> Paths:
    """Measure the schedule and draw the states that paths begin with; no path is run.

    Args:
        lattice: the spins.
        rows: inverse temperatures from the start to the end, all on one side of the start.
        start: where forward paths begin.
        paths: of each direction; those that begin with states of chains are rounded up to a multiple of the chains.
        sweeps: of each path; None for `schedule.usual_sweeps`.
        moves: what `moves_for` gave.
        seed, threads: as for `simulate`.
        given: states of the sites that forward paths begin with, int8, shape (paths, sites); else they are drawn here.
        seconds: for chains of each temperature, which are shorter if need be, see `equilibrium`.
        report_progress: called with the sweeps done and those of all chains, once more for longer ones.
    """
    end = float(rows[-1])

    def states_at(beta: float, key: int) -> Equilibrium:
        own = int(random_stream(seed, key).integers(2**62))
        return equilibrium(
            lattice, beta, paths, seed=own, threads=threads, seconds=seconds, report_progress=report_progress
        )

    at_start = None if start == 0 or given is not None else states_at(start, AT_START)
    at_end = states_at(end, AT_END)
    known = given if at_start is None else at_start.states.reshape(-1, lattice.sites)
    if known is None:
        states = random_spins(random_stream(seed, AT_START), (PILOT_STATES, moves.model.sites))
    else:
        states = moves.model.with_ghost(known[:PILOT_STATES])
    measured = pilot(moves, states, start, end, seed=seed)
    betas, marks = schedule(measured, rows, usual_sweeps(measured) if sweeps is None else sweeps)
    chains, samples = chains_of(paths)
    return Paths(
        lattice=lattice,
        rows=rows,
        start=start,
        betas=betas,
        marks=marks,
        moves=moves.name,
        seed=seed,
        pilot=measured,
        forward=np.full((paths if at_start is None else chains * samples, len(rows)), np.nan),
        reverse=np.full((chains * samples, len(rows)), np.nan),
        at_start=at_start,
        at_end=at_end,
        given=given,
        ends=None if given is None else np.empty((chains * samples, lattice.sites), np.int8),
    )


def run(
    paths: Paths,
    *,
    threads: int,
    report_progress: ReportProgress | None = None,
    keep: Callable[[], None] = lambda: None,
    keep_last: Callable[[], None] = lambda: None,
    part: slice = ALL,
    seconds: float = math.inf,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Run the paths that are not run yet, and enter their log-weights.

    Args:
        paths: updated in place.
        threads: that share the work; results do not depend on their number.
        report_progress: called with the sweeps done and those of all paths, from the start of the first.
        keep: called whenever whole paths are entered.
        keep_last: called at the end, also when the work is stopped.
        part: of the paths of each direction that are not run yet.
        seconds: after which no more of them are begun.
        look: called several times a second.

    Raises:
        Stopped: somebody asked for it; what is run by then is entered.
    """
    ends = time.monotonic() + seconds
    moves = MOVES[paths.moves](Couplings.of(paths.lattice, float(paths.rows[-1]) or paths.start))
    runner = _Runner(paths, moves)
    total = (len(paths.forward) + len(paths.reverse)) * paths.sweeps
    before = paths.done * paths.sweeps
    tasks = runner.tasks(part)
    running: set[Future] = set()
    try:
        with ThreadPoolExecutor(threads) as pool:
            try:
                while True:
                    if time.monotonic() > ends:
                        tasks, running = iter(()), {future for future in running if not future.cancel()}
                    while len(running) < 2 * threads and (task := next(tasks, None)) is not None:
                        running.add(pool.submit(runner.run, *task))
                    look()
                    if not running or stopping.requested() or stopping.late():
                        break
                    finished, running = wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                    if finished:
                        keep()
                    if report_progress is not None:
                        report_progress(min(before + runner.sweeps, total), total)
            finally:
                runner.ended.set()
    finally:
        keep_last()
    stopping.check()


@dataclass
class _Runner:
    """Runs paths, in any thread."""

    paths: Paths
    moves: Moves
    ended: threading.Event = field(default_factory=threading.Event)
    sweeps: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def tasks(self, part: slice) -> Iterator[tuple[int, np.ndarray]]:
        """Direction and numbers of paths to run, of a part of those that are not, block by block."""
        block = max(1, min(_BLOCK, _PORTION_UPDATES // max(1, self.paths.sweeps * self.moves.model.sites)))
        for direction, log_weights in ((FORWARD, self.paths.forward), (REVERSE, self.paths.reverse)):
            missing = np.flatnonzero(np.isnan(log_weights[:, 0]))[part]
            for first in range(0, len(missing), block):
                yield direction, missing[first : first + block]

    def run(self, direction: int, numbers: np.ndarray) -> None:
        """Run paths one after the other; of those that are cut short nothing is entered."""
        for number in numbers.tolist():
            found = self._path(direction, number)
            if found is None:
                return
            (self.paths.forward if direction == FORWARD else self.paths.reverse)[number] = found

    def _path(self, direction: int, number: int) -> np.ndarray | None:
        """The log-weights of a path at all rows; None if it was cut short."""
        paths, sites, reverse = self.paths, self.moves.model.sites, direction == REVERSE
        rng = random_stream(paths.seed, direction, number)
        known = paths.begins(reverse)
        spins = random_spins(rng, (sites,)) if known is None else self.moves.model.with_ghost(known[number])
        words = words_of(rng)
        betas = paths.betas[-2::-1] if reverse else paths.betas[1:]
        energies, done = np.empty(paths.sweeps), 0
        for length in portions(paths.sweeps, _PORTION_UPDATES // sites):
            if self.ended.is_set() or stopping.requested() or stopping.late():
                return None
            part = slice(done, done + length)
            energies[part] = self.moves.sweep(spins, betas[part], words, reverse=reverse)
            done += length
            with self._lock:
                self.sweeps += length
        if reverse and paths.ends is not None:
            paths.ends[number] = self.moves.model.seen(spins)
        works = np.zeros(paths.sweeps + 1)
        np.cumsum((paths.betas[:-1] - paths.betas[1:]) * (energies[::-1] if reverse else energies), out=works[1:])
        return works[paths.marks]
