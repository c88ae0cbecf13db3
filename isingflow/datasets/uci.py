"""The five UCI sets of the flow papers: power, gas, hepmass, miniboone and bsds300.

Read from the files that Papamakarios, Pavlakou and Murray (2017) published, with their preprocessing:

- power: data.npy of 8 columns; reactive power and intensity are left out, the rest get noise of the meters' resolution;
- gas: data.npy with the 8 columns that are left of ethylene_CO.pickle (nothing is unpickled here);
- hepmass: 1000_train.csv and 1000_test.csv; signal rows, without columns whose smallest value keeps coming back;
- miniboone: data.npy;
- bsds300: BSDS300.hdf5 with train, validation and test, used as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isingflow.datasets.base import CHUNK, Table, random_split
from isingflow.datasets.files import open_table
from isingflow.errors import DatasetError
from isingflow.runtime.resources import require_memory

Part = tuple[Table, np.ndarray]
"""A table, and the rows of it that make up a split."""

Parts = tuple[Part, Part, Part]
"""Train, validation and test."""

HELD = 10
"""One row of so many is for testing, and one of so many of the rest for validation."""

POWER_COLUMNS = np.array([0, 2, 4, 5, 6, 7])
REPETITIONS = 5
"""How often the smallest value of a column of hepmass may come back."""


@dataclass(frozen=True)
class UCI:
    """One of the sets.

    Attributes:
        columns: number of columns after preprocessing.
        read: (folder, seed) -> its parts.
        noise: width of the uniform noise that makes columns continuous; none if empty.
        standardised: whether columns are standardised.
    """

    columns: int
    read: Callable[[Path, int], Parts]
    noise: tuple[float, ...] = ()
    standardised: bool = True


class Columns:
    """Some columns of a table."""

    def __init__(self, table: Table, columns: np.ndarray) -> None:
        self.table = table
        self.columns = columns
        self.shape = (table.shape[0], len(columns))
        self.dtype = table.dtype

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        return self.table[rows][:, self.columns]


def shuffled(table: Table, origin: str, seed: int) -> Parts:
    """The parts of a table that comes in one piece, by a random permutation.

    Raises:
        DatasetError: less than ten rows or two columns.
        InvalidInput: memory has no room for a number of every row.
    """
    rows, columns = table.shape
    if rows < HELD:
        raise DatasetError(f"{origin}: {rows} rows; expected at least {HELD}")
    if columns < 2:
        raise DatasetError(f"{origin}: {columns} column; expected a table of at least two")
    require_memory(f"{origin}: the order of {rows} rows", 16.0 * rows, "take a part of the table")
    held = rows // HELD
    train, validation, test = random_split(rows, validation=max((rows - held) // HELD, 1), test=held, seed=seed)
    return (table, train), (table, validation), (table, test)


def _whole(folder: Path, seed: int) -> Parts:
    return shuffled(open_table(folder / "data.npy"), str(folder), seed)


def _power(folder: Path, seed: int) -> Parts:
    table = open_table(folder / "data.npy")
    return shuffled(Columns(table, POWER_COLUMNS) if table.shape[1] == 8 else table, str(folder), seed)


def _hepmass(folder: Path, seed: int) -> Parts:
    known, held = (open_table(folder / f"1000_{part}.csv") for part in ("train", "test"))
    signal, test = _signal_rows(known), _signal_rows(held)
    if min(len(signal), len(test)) < HELD:
        raise DatasetError(f"{folder}: {len(signal)} and {len(test)} signal rows (label 1); expected at least {HELD}")
    # The published test file has one column too many, at its end: the train file says which there are.
    kept = np.flatnonzero(_repetitions(known, signal) <= REPETITIONS)
    kept = kept[kept > 0]
    train, validation, _ = random_split(len(signal), validation=len(signal) // HELD, test=0, seed=seed)
    columns = Columns(known, kept)
    return (columns, signal[train]), (columns, signal[validation]), (Columns(held, kept), test)


def _signal_rows(table: Table) -> np.ndarray:
    """Rows whose first column, the label, is 1."""
    blocks = range(0, table.shape[0], CHUNK)
    found = [start + np.flatnonzero(table[start : start + CHUNK][:, 0] == 1) for start in blocks]
    return np.concatenate([np.empty(0, np.int64), *found])


def _repetitions(table: Table, rows: np.ndarray) -> np.ndarray:
    """How often the smallest value of every column occurs in some rows, shape (columns,)."""
    smallest, count = np.full(table.shape[1], np.inf), np.zeros(table.shape[1], np.int64)
    for start in range(0, len(rows), CHUNK):
        block = table[rows[start : start + CHUNK]]
        least = np.minimum(smallest, block.min(0))
        count = np.where(least < smallest, 0, count) + (block == least).sum(0)
        smallest = least
    return count


def _bsds300(folder: Path, seed: int) -> Parts:
    tables = [open_table(folder / "BSDS300.hdf5", part) for part in ("train", "validation", "test")]
    train, validation, test = ((table, np.arange(table.shape[0])) for table in tables)
    return train, validation, test


UCIS = {
    "power": UCI(6, _power, noise=(0.001, 0.01, 1.0, 1.0, 1.0, 0.0)),
    "gas": UCI(8, _whole),
    "hepmass": UCI(21, _hepmass),
    "miniboone": UCI(43, _whole),
    "bsds300": UCI(63, _bsds300, standardised=False),
}
