"""The critical point from Monte Carlo at several sizes and temperatures: all that `isingflow crossing` does."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from isingflow.errors import FileError, InvalidInput
from isingflow.evaluation.crossed import CrossingReport, FittedQuantity
from isingflow.lattice import Lattice
from isingflow.observables.crossing import QUANTITIES, Crossing, crossing
from isingflow.observables.reweighted import Reweighted
from isingflow.observables.series_files import read_series
from isingflow.observables.thermal import ThermalSeries
from isingflow.runtime import stopping
from isingflow.runtime.checks import LARGEST_SEED, count, instance
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.reweighting import MOST_RESAMPLES, RESAMPLES
from isingflow.statistics.scaling import fit

logger = logging.getLogger(__name__)

OMEGA: dict[int | None, float] = {2: 1.75, 3: 0.83}
"""Exponents of the leading corrections to scaling of Ising magnets by dimension: in two the background of the
susceptibility, gamma / nu (Blote and Kamieniarz 1993), in three that of Hasenbusch (2010)."""

Study = Path | str | Sequence[Path | str]


def crossings(study: Study | Sequence[ThermalSeries], *, resamples: int = RESAMPLES, seed: int = 0) -> CrossingReport:
    """Crossings of the Binder ratio and of xi/L between sizes, and the critical point by finite-size scaling.

    Args:
        study: a folder, or several files and folders, with what `isingflow monte-carlo` wrote at several sizes and
            temperatures, in folders below too; or the series themselves.
        resamples: draws of the bootstrap over blocks in time.
        seed: of the draws.

    Raises:
        InvalidInput: fewer than two sizes, or than two temperatures at one of them; lattices that differ in more than
            their size, or whose couplings vary; the same samples twice; curves that do not cross.
        FileError: a file that is named holds no such samples, or none is found.

    Example:
        >>> from isingflow.evaluation.temperatures import scan
        >>> from isingflow.lattice import square
        >>> runs = [scan(square(n), [0.41, 0.44, 0.47], samples=1000) for n in (4, 8)]
        >>> report = crossings([one for run in runs for one in run.series])
        >>> [row.quantity for row in report.crossings], 0.42 < report.crossings[0].beta.value < 0.46
        (['binder', 'correlation_length_over_size'], True)
    """
    resamples = count("resamples", resamples, least=2, most=MOST_RESAMPLES)
    seed = count("seed", seed, least=0, most=LARGEST_SEED)
    series = _series(study)
    by_size = _by_size(series)
    curves = {
        size: stopping.watched(Reweighted, of_size, resamples=resamples, seed=seed + index)
        for index, (size, of_size) in enumerate(by_size.items())
    }
    rows = {size: [one.observables() for one in of_size] for size, of_size in by_size.items()}
    found: list[Crossing] = []
    fits: list[FittedQuantity] = []
    notes: list[str] = []
    for quantity in QUANTITIES:
        of_quantity = []
        for small, large in pairwise(curves):
            try:
                of_quantity.append(stopping.watched(crossing, curves[small], curves[large], quantity))
            except InvalidInput as error:
                notes.append(str(error))
        found += of_quantity
        if of_quantity:
            fits += _fits(quantity, by_size, rows, of_quantity[-1])
    if not found:
        raise InvalidInput(notes[0])
    return CrossingReport(
        series={size: tuple(of_size) for size, of_size in by_size.items()},
        curves=curves,
        rows=rows,
        crossings=tuple(found),
        fits=tuple(fits),
        notes=tuple(notes),
        resamples=resamples,
    )


def _fits(
    quantity: str,
    by_size: dict[int, list[ThermalSeries]],
    rows: dict[int, list[dict[str, Estimate | None]]],
    start: Crossing,
) -> list[FittedQuantity]:
    """Fits to all sizes, with a correction and without, and to all but the smallest, as long as there are enough."""
    points = [
        (size, one.beta, value)
        for size, of_size in by_size.items()
        for one, row in zip(of_size, rows[size], strict=True)
        if (value := row[quantity]) is not None and math.isfinite(value.stderr) and value.stderr > 0
    ]
    sizes, betas = np.array([p[0] for p in points], float), np.array([p[1] for p in points])
    values, errors = (np.array([getattr(p[2], name) for p in points]) for name in ("value", "stderr"))
    found = []
    nu = start.nu.value if 0.2 < start.nu.value < 5 else 1.0
    known = OMEGA.get(next(iter(by_size.values()))[0].lattice.dimensions)
    for omega in (None,) if known is None else (known, None):
        for least in list(by_size)[: -1 if omega is None else -2]:
            taken = sizes >= least
            points_taken = (axis[taken] for axis in (sizes, betas, values, errors))
            fitted = fit(*points_taken, beta=start.beta.value, nu=nu, omega=omega)
            if fitted is not None:
                found.append(FittedQuantity(quantity, fitted))
    return found


def _series(study: Study | Sequence[ThermalSeries]) -> list[tuple[str, ThermalSeries]]:
    """All series, with the names of their files."""
    parts = [study] if isinstance(study, Path | str) else list(instance("study", study, Sequence, "a folder, or files"))
    given = [part for part in parts if isinstance(part, ThermalSeries)]
    if parts and len(given) == len(parts):
        found = [(f"series {index}", part) for index, part in enumerate(given)]
    else:
        read: dict[Path, tuple[str, list[ThermalSeries]]] = {}
        for part in parts:
            for path, of_path in _read(Path(instance("study", part, Path | str, "a path"))):
                read.setdefault(path.resolve(), (str(path), of_path))
        found = [(name, one) for name, of_path in read.values() for one in of_path]
    if not found:
        raise InvalidInput("study: expected a folder, or files, of Monte Carlo at several sizes and temperatures")
    seen: dict[bytes, str] = {}
    for name, one in found:
        there = seen.setdefault(one.energy.tobytes(), name)
        if there != name:
            raise InvalidInput(f"{there} and {name} hold the same samples: leave one of them out")
    return found


def _read(path: Path) -> Iterator[tuple[Path, list[ThermalSeries]]]:
    """What a file holds, or what the files in a folder and below hold of which any is of chains of spins."""
    if not path.is_dir():
        yield path, read_series(path)
        return
    others = kept = 0
    for file in sorted(path.rglob("*.npz")):
        stopping.check()
        try:
            found = read_series(file)
        except FileError:
            others += 1
            continue
        kept += 1
        yield file, found
    if not kept:
        raise FileError(f"{path}: no files of spins, as isingflow monte-carlo --output writes them, in it or below it")
    if others:
        logger.info("%s: %d .npz files hold no chains of spins and are left out", path, others)


def _by_size(series: list[tuple[str, ThermalSeries]]) -> dict[int, list[ThermalSeries]]:
    """The series of every length, ascending, all of one kind of lattice."""
    first_name, first = series[0]
    found: dict[int, list[ThermalSeries]] = {}
    for name, one in series:
        lattice = one.lattice
        if lattice.uniform is None or lattice.field is not None:
            raise InvalidInput(
                f"{name}: {lattice}: crossings are of lattices with couplings that do not vary, without a field"
            )
        if _alike(lattice) != _alike(first.lattice):
            raise InvalidInput(
                f"lattices of several kinds: {first.lattice} in {first_name}, {lattice} in {name}; expected one, of "
                "the same proportions, at several sizes"
            )
        found.setdefault(max(lattice.shape), []).append(one)
    if len(found) < 2:
        raise InvalidInput(f"one size, {first.lattice}: crossings need two at least, each at several temperatures")
    for size, of_size in found.items():
        if len({one.beta for one in of_size}) < 2:
            raise InvalidInput(
                f"one temperature, beta {of_size[0].beta:g}, of size L = {size}: crossings need two at least, on both "
                "sides of the transition"
            )
    return {size: sorted(found[size], key=lambda one: one.beta) for size in sorted(found)}


def _alike(lattice: Lattice) -> tuple[Any, ...]:
    """What lattices of one study share."""
    longest = max(lattice.shape)
    return lattice.kind, lattice.boundary, lattice.uniform, tuple(length / longest for length in lattice.shape)
