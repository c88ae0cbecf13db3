"""ln Z of Ising spins by annealing alone, from both sides, without a flow: all that `isingflow anneal` does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numba
import numpy as np

from isingflow.errors import FileError, InvalidInput, NoExactSolution
from isingflow.evaluation.annealed import AnnealedRow, AnnealingReport
from isingflow.evaluation.known import exact_answers
from isingflow.exact import thermodynamics
from isingflow.exact.thermodynamics import Thermodynamics
from isingflow.lattice import Lattice, check_magnet
from isingflow.monte_carlo.annealing import MOVES
from isingflow.monte_carlo.path_files import PathFile
from isingflow.monte_carlo.paths import Paths, moves_for, prepare, run
from isingflow.monte_carlo.shared_paths import run_together
from isingflow.runtime import launched, stopping
from isingflow.runtime.checks import LARGEST_SEED, array, choice, count, flag, function, instance
from isingflow.runtime.differences import differences, in_a_line
from isingflow.runtime.processes import company, first
from isingflow.runtime.resources import duration, require_memory
from isingflow.statistics.chains import MOST_R_HAT
from isingflow.statistics.free_energy import (
    overlap,
    path_free_energies,
    path_lower_bounds,
    reverse_effective_sample_size,
    reweighted_free_energy,
    variational_free_energy,
)
from isingflow.statistics.weights import effective_sample_size

PATHS = 64
"""Of each direction, where no number is given."""
MOST_ROWS = 10**4
SAVE_SECONDS = 10.0
"""From one save of the paths to the next, and twenty times as long as it takes, at least."""
KEPT = "paths that were saved are kept, --resume goes on from them"
"""Where a process is lost."""
_SPEED, _LONGEST = 1e9, 3e7
"""Spin updates a second that no machine exceeds, and seconds that paths may take at that speed: a year."""


def anneal(
    lattice: Lattice,
    beta: float | Sequence[float] | np.ndarray,
    *,
    paths: int = PATHS,
    sweeps: int | None = None,
    moves: str | None = None,
    from_beta: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    output: Path | str | None = None,
    resume: bool = False,
    report_progress: Callable[[int, int], None] | None = None,
) -> AnnealingReport:
    """ln Z of the spins of any lattice by annealed importance sampling, from both sides, without a flow.

    Paths from beta = 0 bound ln Z from below, paths in reverse, which begin with states of Markov chains at beta, from
    above; the acceptance ratio takes both for the estimate. Clusters move the spins where couplings and field are
    unfrustrated, the heat bath elsewhere. Steps are of equal thermodynamic length, which a pilot measures.

    Args:
        lattice: the spins, in their external field if there is one.
        beta: inverse temperature, or several, on one side of `from_beta`: ln Z of all of them is taken from the same
            paths.
        paths: of each direction, at least 2; those that begin with states of chains are rounded up to a multiple of 16.
        sweeps: of each path, one at each of its temperatures; by default what `schedule.usual_sweeps` says.
        moves: "swendsen-wang" or "heat-bath"; by default what suits the couplings.
        from_beta: where forward paths begin. Elsewhere than at 0, ln Z must be known exactly there.
        seed: of all random streams: the same seed gives the same numbers, on any number of threads and processes.
        threads: that share the paths; all by default, divided among the processes on a machine.
        output: a .npz file that keeps the paths, those done about every ten seconds.
        resume: go on with the paths in `output`, bit for bit as if they had not been interrupted.
        report_progress: called with sweeps done and sweeps in all, of the chains first and then of the paths.

    Of several processes (torchrun) all make this call and share the paths; the first one alone reports and writes.

    Raises:
        InvalidInput: a number out of range, temperatures on both sides of the start or a start whose ln Z is not
            known, or too little memory.
        FileError: `output` cannot be written, or not be resumed.

    Example:
        >>> from isingflow.lattice import square
        >>> report = anneal(square(4), 0.4, paths=32, sweeps=50)
        >>> report.moves, abs(report.log_z.value - report.exact_log_z) < 0.2
        ('swendsen-wang', True)
    """
    started = time.monotonic()
    instance("lattice", lattice, Lattice, "a Lattice, for example square(16)")
    paths, seed = count("paths", paths, least=2), count("seed", seed, least=0, most=LARGEST_SEED)
    sweeps = None if sweeps is None else count("sweeps", sweeps)
    moves = None if moves is None else choice("moves", moves, MOVES)
    all_threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
    alone = count("threads", all_threads if threads is None else threads)
    each = max(alone // launched.place().local_world, 1) if threads is None else alone
    resume = flag("resume", resume)
    function("report_progress", report_progress)
    path = None if output is None else Path(instance("output", output, Path | str, "a path"))
    rows = _rows(lattice, beta, check_magnet(lattice, from_beta))
    start = float(from_beta)
    if sweeps is not None and 2.0 * paths * sweeps * lattice.sites > _SPEED * _LONGEST:
        least = duration(2.0 * paths * sweeps * lattice.sites / _SPEED)
        raise InvalidInput(f"{paths} paths of {sweeps} sweeps of {lattice} would take {least} and more")
    size = paths * (6.0 * lattice.sites + 64.0 * len(rows))
    require_memory(f"a run of {paths} paths of {lattice}", size, "fewer paths may fit")
    asked = {
        "lattice": lattice.to_dict(),
        "beta": rows.tolist(),
        "from_beta": start,
        "paths": paths,
        "sweeps": sweeps,
        "moves": moves,
        "seed": seed,
    }
    updates, note = moves_for(lattice, start, float(rows[-1]), moves)
    told = None if launched.follows() else report_progress
    group = company()
    with nullcontext() if group is None else group.together(KEPT if path is not None else ""):
        log_z_start = first(lambda: _log_z_of_start(lattice, start))
        earlier = first(lambda: _earlier(path, asked, resume))
        before = 0.0 if earlier is None else earlier.seconds
        found = (
            first(
                lambda: prepare(
                    lattice,
                    rows,
                    start=start,
                    paths=paths,
                    sweeps=sweeps,
                    moves=updates,
                    seed=seed,
                    threads=alone,
                    report_progress=told,
                )
            )
            if earlier is None
            else earlier.paths
        )
        keeper = _Keeper(None if launched.follows() else path, asked, found, started - before)
        keeper.save()
        anneal_all = run if group is None else partial(run_together, group=group)
        anneal_all(found, threads=each, report_progress=told, keep=keeper.save_now_and_then, keep_last=keeper.save)
        exact, late = first(lambda: stopping.watched(exact_answers, lattice, rows))
    seconds = time.monotonic() - started + before
    return AnnealingReport(
        lattice=lattice,
        paths=found,
        rows=rows_of(found, log_z_start, exact),
        notes=tuple(word for word in (note, late) if word is not None),
        seconds=seconds,
    )


class _Keeper:
    """Saves paths; less often where that takes long."""

    def __init__(self, path: Path | None, asked: dict, paths: Paths, started: float) -> None:
        self._path, self._asked, self._paths, self._started = path, asked, paths, started
        self._due = 0.0

    def save(self) -> None:
        if self._path is None:
            return
        before = time.monotonic()
        PathFile(self._asked, self._paths, before - self._started).save(self._path)
        self._due = time.monotonic() + max(SAVE_SECONDS, 20 * (time.monotonic() - before))

    def save_now_and_then(self) -> None:
        if time.monotonic() >= self._due:
            self.save()


def rows_of(paths: Paths, log_z_start: float, exact: Sequence[Thermodynamics | None]) -> tuple[AnnealedRow, ...]:
    """What paths that are all run say at each of their temperatures.

    Args:
        paths: of both directions.
        log_z_start: ln Z where forward paths begin.
        exact: the answer at each of the temperatures, as far as it is known.
    """
    forward, reverse = paths.by_chains
    free, bounds = path_free_energies(forward, reverse), path_lower_bounds(reverse)
    agree = paths.at_end.r_hat <= MOST_R_HAT
    shared = overlap(forward[..., -1], reverse[..., -1], free.value[-1])
    both = agree and math.isfinite(free.stderr[-1])
    found = []
    for row, beta in enumerate(paths.rows.tolist()):
        there, back, known = forward[..., row], reverse[..., row], exact[row]
        estimate = free.scalars()[row] if both else reweighted_free_energy(there.ravel())
        found.append(
            AnnealedRow(
                beta=beta,
                log_z=log_z_start - estimate,
                method="acceptance ratio" if both else "reweighting",
                lower_bound=log_z_start - variational_free_energy(there),
                upper_bound=log_z_start - bounds.scalars()[row],
                effective_sample_size=effective_sample_size(there.ravel()),
                reverse_effective_sample_size=reverse_effective_sample_size(back, estimate.value),
                counting=effective_sample_size((back - reverse[..., -1]).ravel()) * back.size,
                overlap=shared,
                exact=None if known is None else (known.log_z, known.method),
            )
        )
    return tuple(found)


def _rows(lattice: Lattice, beta: float | Sequence[float] | np.ndarray, start: float) -> np.ndarray:
    """The temperatures from the start to the end."""
    rows = np.sort(array("beta", [beta] if np.ndim(beta) == 0 else beta, (None,)))
    if len(rows) > MOST_ROWS:
        raise InvalidInput(f"beta: {len(rows)} temperatures, expected at most {MOST_ROWS}")
    if np.any(np.diff(rows) == 0):
        raise InvalidInput("beta: a temperature is given twice")
    for end in rows[[0, -1]].tolist():
        check_magnet(lattice, end)
        if start * end < 0:
            raise InvalidInput(
                f"from_beta {start:g}: beta {end:g}, of the other sign, is reached from 0 rather than from there"
            )
    if rows[0] < start < rows[-1]:
        raise InvalidInput(
            f"beta from {rows[0]:g} to {rows[-1]:g}: paths that begin at {start:g} go one way; ask for one side of it, "
            "and then for the other"
        )
    return rows if rows[-1] > start else rows[::-1]


def _log_z_of_start(lattice: Lattice, start: float) -> float:
    if start == 0:
        return lattice.sites * math.log(2)
    try:
        return stopping.watched(thermodynamics, lattice, start).log_z
    except NoExactSolution as error:
        raise InvalidInput(
            f"from_beta {start:g}: ln Z is not known there, so paths cannot begin with it: {error}"
        ) from None


def _earlier(path: Path | None, asked: dict, resume: bool) -> PathFile | None:
    """The paths to go on with."""
    if not resume:
        if path is not None and path.exists():
            raise InvalidInput(f"{path}: exists already; resume the paths in it, or choose another name")
        return None
    if path is None:
        raise InvalidInput("to resume paths, give the file that they are in as output")
    earlier = PathFile.read(path)
    if changes := differences(asked, earlier.request):
        raise FileError(f"{path}: holds paths of another run: {in_a_line(changes)}")
    return earlier
