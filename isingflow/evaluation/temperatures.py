"""Monte Carlo at a range of temperatures, in one table with one figure: `monte-carlo --beta FIRST:LAST:COUNT`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.evaluation.known import exact_answers
from isingflow.evaluation.scanned import ScanReport, ScanRow
from isingflow.lattice import Lattice, check_magnet
from isingflow.monte_carlo import stream
from isingflow.monte_carlo.simulate import SpinChains
from isingflow.monte_carlo.source import random_stream
from isingflow.observables.thermal import ThermalSeries
from isingflow.runtime import stopping
from isingflow.runtime.checks import LARGEST_SEED, array, count, function, instance
from isingflow.runtime.resources import require_memory
from isingflow.statistics.chains import diagnostics

MOST_ROWS = 10**4
BYTES_A_SAMPLE = 24
"""Of what is kept of it, and as many again while averages are taken."""


def scan(
    lattice: Lattice,
    betas: Sequence[float] | np.ndarray,
    *,
    samples: int,
    chains: int = 8,
    sampler: str | None = None,
    every: int = 1,
    thermalise: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    report_progress: Callable[[int, int], None] | None = None,
) -> ScanReport:
    """Monte Carlo at several temperatures: every thermal observable with its error, beside the exact answers.

    Chains begin with the last states at the temperature before, from beta = 0 on, and thermalise at each. Spins are not
    kept, but a few numbers a sample: `ScanReport.reweighted` takes those of all temperatures together for the curve
    between them.

    Args:
        lattice: the spins, in their external field if there is one.
        betas: inverse temperatures, each once, in any order.
        samples: states of every chain, at least 2.
        chains, sampler, every, thermalise, threads: as for `monte_carlo.simulate`, at each temperature.
        seed: of all random streams.
        report_progress: called with sweeps done and sweeps in all, per chain.

    Raises:
        InvalidInput: as for `monte_carlo.simulate`, or a temperature given twice.

    Example:
        >>> from isingflow.lattice import square
        >>> report = scan(square(4), [0.2, 0.4], samples=200)
        >>> row = report.rows[1]
        >>> row.beta, abs(row.observables["energy_per_site"].value - row.exact.energy_per_site) < 0.1
        (0.4, True)
    """
    started = time.monotonic()
    instance("lattice", lattice, Lattice, "a Lattice, for example square(16)")
    samples, chains = count("samples", samples, least=2), count("chains", chains)
    seed = count("seed", seed, least=0, most=LARGEST_SEED)
    function("report_progress", report_progress)
    asked = checked_betas(lattice, betas)
    kept = 2.0 * BYTES_A_SAMPLE * len(asked) * chains * samples
    require_memory(f"{len(asked)} temperatures, {chains} chains of {samples} samples", kept, "fewer samples may fit")
    start: np.ndarray | None = None
    found, samplers = [], []
    for row, beta in enumerate(asked):
        if row and beta < 0 <= asked[row - 1]:
            start = None
        blocks = _Followed(
            stream(
                lattice,
                beta,
                samples=samples,
                chains=chains,
                sampler=sampler,
                every=every,
                thermalise=thermalise,
                start=start,
                seed=int(random_stream(seed, row).integers(LARGEST_SEED)),
                threads=threads,
                report_progress=report_progress and partial(_report, report_progress, row, len(asked)),
            )
        )
        found.append(ThermalSeries.from_blocks(lattice, blocks))
        samplers.append(blocks.last.sampler)
        start = blocks.last.spins[:, -1]
    order = np.argsort(asked)
    series = [found[row] for row in order]
    exact, late = stopping.watched(exact_answers, lattice, [one.beta for one in series])
    rows = [
        ScanRow(
            beta=one.beta,
            observables=stopping.watched(one.observables),
            r_hat=_r_hat(one),
            exact=known,
        )
        for one, known in zip(series, exact, strict=True)
    ]
    return ScanReport(
        lattice=lattice,
        series=tuple(series),
        samplers=tuple(samplers[row] for row in order),
        rows=tuple(rows),
        notes=() if late is None else (late,),
        seed=seed,
        seconds=time.monotonic() - started,
    )


class _Followed:
    """Blocks as they are handed out, of which the last one stays."""

    def __init__(self, blocks: Iterator[SpinChains]) -> None:
        self._blocks = blocks
        self.last: SpinChains

    def __iter__(self) -> Iterator[SpinChains]:
        for block in self._blocks:
            self.last = block
            yield block


def _report(report_progress: Callable[[int, int], None], row: int, rows: int, done: int, total: int) -> None:
    report_progress(row * total + done, rows * total)


def checked_betas(lattice: Lattice, betas: Sequence[float] | np.ndarray) -> list[float]:
    """The inverse temperatures from 0 on, those below 0 last.

    Raises:
        InvalidInput: not a list of numbers, or one given twice.
    """
    found = array("betas", betas, (None,))
    if len(found) > MOST_ROWS:
        raise InvalidInput(f"betas: {len(found)} temperatures, expected at most {MOST_ROWS}")
    if len(np.unique(found)) < len(found):
        raise InvalidInput("betas: a temperature is given twice")
    for beta in (found.min(), found.max()):
        check_magnet(lattice, beta)
    return sorted(found.tolist(), key=lambda beta: (beta < 0, abs(beta)))


def _r_hat(series: ThermalSeries) -> float:
    """The worse of R-hat of the energy and of m^2; NaN for chains too short to tell."""
    if series.energy.shape[1] < 8:
        return float("nan")
    return max(diagnostics(series.energy).r_hat, diagnostics(series.magnetisation**2).r_hat)
