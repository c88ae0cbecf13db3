"""Tables of numbers: any file of floats, sets bundled with scikit-learn, and the five UCI sets of the flow papers.

Columns are standardised by the moments of the training rows, which are read in blocks: a table larger than memory
works. Digits are images of 17 grey levels and go through the pipeline of MNIST.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isingflow.datasets.base import CHUNK, Dataset, Rows
from isingflow.datasets.files import NamedTable, open_table
from isingflow.datasets.mnist import ENVIRONMENT
from isingflow.datasets.names import plain
from isingflow.datasets.spaces import Pixels, Space, Standardised
from isingflow.datasets.text import BLOCK_CELLS
from isingflow.datasets.uci import FEWEST, UCIS, Part, Parts, joined, shuffled
from isingflow.errors import DatasetError
from isingflow.flows.data import RANK_TOLERANCE
from isingflow.runtime.checks import shown
from isingflow.runtime.resources import require_memory
from isingflow.statistics.moments import moments

RESOLUTION = 4
"""Range of a column, in units of the last digit of a float64, that is no variation but rounding."""

LARGEST = 1e140
"""Largest number in a table, in size, and the inverse of the smallest range of a column: their squares are finite."""


def load(path: Path | str, root: Path | str | None = None, seed: int = 0) -> Dataset:
    """A table of numbers.

    Args:
        path: a file, or one of `KNOWN`.
        root: folder that has the folders, or the files, of the UCI sets; ISINGFLOW_DATA if not given.
        seed: of the split where the data set does not prescribe one.

    Raises:
        DatasetError: missing or damaged files; entries that are not finite numbers, or of more than 1e140; less than
            two columns, ten rows; constant columns.
        InvalidInput: more rows or columns than memory has room for.
    """
    name = str(path)
    if name in BUNDLED:
        return BUNDLED[name](seed)
    if name in UCIS:
        return _uci(name, root or os.environ.get(ENVIRONMENT))
    file = Path(path)
    if not file.suffix and not file.exists():
        raise DatasetError(f"unknown table {name!r}: expected a file, or one of {', '.join(KNOWN)}")
    table = open_table(file)
    names = table.names if isinstance(table, NamedTable) else ()
    return _dataset(file.name, shuffled(table, str(file), seed), str(file), names=names)


def _dataset(
    name: str,
    parts: Parts,
    origin: str,
    *,
    names: tuple[str, ...] = (),
    standardised_by: Part | None = None,
    standardised: bool = True,
) -> Dataset:
    """Three parts, every entry of which has been checked.

    Args:
        name: of the data set.
        parts: train, validation and test.
        origin: their name in messages.
        names: of the columns.
        standardised_by: the rows by whose moments columns are standardised; those of the train part, if not given.
        standardised: whether they are.
    """
    train, validation, test = parts
    for purpose, (_, index) in zip(("training", "validation", "test"), parts, strict=True):
        if len(index) < FEWEST:
            raise DatasetError(f"{origin}: {len(index)} rows for {purpose}; expected at least {FEWEST}")
    found = _standards(standardised_by or train, origin, names)
    for part in (validation, test):
        for _ in _blocks(part, origin):
            pass
    space = Standardised(found.mean, found.deviation) if standardised else Space()
    return Dataset(
        name, len(found.mean), *_splits(parts, space), space, columns=plain(names), dependent=found.dependent
    )


@dataclass(frozen=True)
class Standards:
    """Moments of the training rows.

    Attributes:
        mean, deviation: of every column, float64, shape (d,).
        dependent: the columns that follow from others.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    dependent: tuple[str, ...]


def _standards(part: Part, origin: str, names: tuple[str, ...]) -> Standards:
    """Taken about the first row, from which neighbours differ without rounding: a large mean costs no digits."""
    width = part[0].shape[1]
    # The covariance of the columns, its eigenvectors, and what it takes to find them.
    require_memory(f"{origin}: a table of {width} columns", 40.0 * width**2, "leave some out")
    first, low, high = np.zeros(width), np.full(width, np.inf), np.full(width, -np.inf)

    def about_first() -> Iterator[torch.Tensor]:
        for count, block in enumerate(_blocks(part, origin)):
            if count == 0:
                first[:] = block[0]
            np.minimum(low, block.min(0), out=low)
            np.maximum(high, block.max(0), out=high)
            yield torch.from_numpy(block - first)

    found = moments(about_first())
    _check_range(low, high, origin, names)
    deviation = found.covariance.diagonal().sqrt()
    variances, axes = torch.linalg.eigh(found.covariance / torch.outer(deviation, deviation))
    missing = axes[:, variances <= RANK_TOLERANCE * variances[-1]]
    columns = (missing.square().sum(1) > RANK_TOLERANCE).nonzero().flatten().tolist()
    return Standards(torch.from_numpy(first) + found.mean, deviation, tuple(_called(names, j) for j in columns))


def _check_range(low: np.ndarray, high: np.ndarray, origin: str, names: tuple[str, ...]) -> None:
    """Refuse columns that do not vary, by their smallest and largest numbers, shape (d,)."""
    rounding = RESOLUTION * np.spacing(np.maximum(np.abs(low), np.abs(high)))
    for wrong, what, advice in (
        (high - low <= rounding, "constant", "leave constant columns out"),
        (high - low < 1 / LARGEST, "almost constant", f"its range is below {1 / LARGEST:g}, scale it up"),
    ):
        columns = np.flatnonzero(wrong).tolist()
        if columns:
            listed = ", ".join(_called(names, j) for j in columns[:5]) + (", .." if len(columns) > 5 else "")
            raise DatasetError(f"{origin}: {what} column {listed} of {len(low)}; {advice}")


def _called(names: tuple[str, ...], column: int) -> str:
    return shown(names[column]) if names else str(column)


def _splits(parts: Parts, space: Space) -> tuple[Rows, Rows, Rows]:
    train, validation, test = (Rows(table, index, space) for table, index in parts)
    return train, validation, test


def _blocks(part: Part, origin: str) -> Iterator[np.ndarray]:
    """All rows of a part, float64, block by block, in the order of the table."""
    table, index = part
    index = np.sort(index)
    size = max(1, min(CHUNK, BLOCK_CELLS // max(table.shape[1], 1)))
    for start in range(0, len(index), size):
        rows = index[start : start + size]
        # Long doubles may be none as doubles.
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.asarray(table[rows], np.float64)
        wrong = np.argwhere(~(np.abs(block) <= LARGEST))
        if len(wrong):
            row, column = wrong[0]
            value = block[row, column]
            expected = f"numbers up to {LARGEST:g} in size" if np.isfinite(value) else "finite numbers"
            raise DatasetError(f"{origin}: {value} in row {rows[row]}, column {column}; expected {expected}")
        yield block


def _digits(seed: int) -> Dataset:
    """1,797 images of 8 x 8 pixels with 17 grey levels."""
    images = _bundled("load_digits").data.astype(np.uint8)
    parts, space = shuffled(images, "digits", seed), Pixels(17)
    return Dataset("digits", images.shape[1], *_splits(parts, space), space, (8, 8))


def _measurements(name: str, loader: str, seed: int) -> Dataset:
    """Rows of measurements with named columns."""
    bunch = _bundled(loader)
    return _dataset(name, shuffled(bunch.data, name, seed), name, names=tuple(map(str, bunch.feature_names)))


def _bundled(loader: str) -> Any:
    try:
        from sklearn import datasets
    except ImportError:
        raise DatasetError(f"the sets {', '.join(BUNDLED)} come with scikit-learn, which is not installed") from None
    return getattr(datasets, loader)()


def _uci(name: str, root: Path | str | None) -> Dataset:
    if root is None:
        raise DatasetError(f"{name}: name the folder that holds its files with --data or {ENVIRONMENT}")
    folder, description = Path(root), UCIS[name]
    if (folder / name).is_dir():
        folder = folder / name
    parts = description.read(folder)
    for table, _ in parts:
        if table.shape[1] != description.columns:
            raise DatasetError(f"{folder}: {table.shape[1]} columns; expected the {description.columns} of {name}")
    count = description.standardised_by
    rows = joined(parts[:count]) if count else None
    return _dataset(name, parts, str(folder), standardised_by=rows, standardised=count > 0)


BUNDLED: dict[str, Callable[[int], Dataset]] = {
    "digits": _digits,
    "breast-cancer": partial(_measurements, "breast-cancer", "load_breast_cancer"),
    "wine": partial(_measurements, "wine", "load_wine"),
    "diabetes": partial(_measurements, "diabetes", "load_diabetes"),
    "iris": partial(_measurements, "iris", "load_iris"),
}
KNOWN = (*BUNDLED, *UCIS)
"""Tables that are known by name."""
