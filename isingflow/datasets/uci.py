"""The five UCI sets of the flow papers: power, gas, hepmass, miniboone and bsds300.

Read from the files that Papamakarios, Pavlakou and Murray (2017) published, with their preprocessing, by which the
numbers of MAF, FFJORD and OT-Flow were found. Where a set comes in one piece, its last tenth is for testing, and the
last tenth of what is before for validation, whatever the seed of a run:

- power: data.npy of 8 columns, its rows shuffled once for all; reactive power and intensity are left out, the rest get
  noise of the meters' resolution, once;
- gas: data.npy with the 8 columns that are left of ethylene_CO.pickle (nothing is unpickled here), in order of time;
- hepmass: 1000_train.csv and 1000_test.csv; signal rows, without columns whose smallest value keeps coming back;
- miniboone: data.npy;
- bsds300: BSDS300.hdf5 with train, validation and test, used as it is.

Columns are standardised by the moments of training and validation rows; those of gas by the moments of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

FEWEST = 2
"""Rows of any part: of a single one nobody knows the error."""

POWER_COLUMNS = np.array([0, 2, 4, 5, 6, 7])
POWER_SEED = 42
"""Of the published order of the rows of power, and of its noise."""
REPETITIONS = 5
"""How often the smallest value of a column of hepmass may come back."""


@dataclass(frozen=True)
class UCI:
    """One of the sets.

    Attributes:
        columns: number of columns after preprocessing.
        read: folder -> its parts.
        standardised_by: how many of the parts the moments are of, by which columns are standardised; 0: they are not.
    """

    columns: int
    read: Callable[[Path], Parts]
    standardised_by: int = 2


class Columns:
    """Some columns of a table."""

    def __init__(self, table: Table, columns: np.ndarray) -> None:
        self.table = table
        self.columns = columns
        self.shape = (table.shape[0], len(columns))
        self.dtype = table.dtype

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        return self.table[rows][:, self.columns]


class Noisy:
    """A table with numbers added to it, a row to a row."""

    def __init__(self, table: Table, noise: np.ndarray) -> None:
        self.table = table
        self.noise = noise
        self.shape = table.shape
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        return np.asarray(self.table[rows], np.float64) + self.noise[rows]


def shuffled(table: Table, origin: str, seed: int) -> Parts:
    """The parts of a table that comes in one piece, by a random permutation.

    Raises:
        DatasetError: less than ten rows or two columns.
        InvalidInput: memory has no room for a number of every row.
    """
    rows = _rows_of(table, origin)
    held = max(rows // HELD, FEWEST)
    train, validation, test = random_split(rows, validation=max((rows - held) // HELD, FEWEST), test=held, seed=seed)
    return (table, train), (table, validation), (table, test)


def in_order(table: Table, order: np.ndarray) -> Parts:
    """The parts of a table that comes in one piece: of its rows in this order the last ones are held out.

    Example:
        >>> parts = in_order(np.zeros((200, 2)), np.arange(200))
        >>> [(rows[0].item(), rows[-1].item()) for _, rows in parts]
        [(0, 161), (162, 179), (180, 199)]
    """
    test = len(order) - len(order) // HELD
    validation = test - max(test // HELD, 1)
    return (table, order[:validation]), (table, order[validation:test]), (table, order[test:])


def joined(parts: Sequence[Part]) -> Part:
    """Parts of the same table as one."""
    (table, _), *_ = parts
    return table, np.concatenate([rows for _, rows in parts])


def _rows_of(table: Table, origin: str) -> int:
    """The number of rows, if there are enough to be split, and memory for a number of each."""
    rows, columns = table.shape
    if rows < HELD:
        raise DatasetError(f"{origin}: {rows} rows; expected at least {HELD}")
    if columns < 2:
        raise DatasetError(f"{origin}: {columns} column; expected a table of at least two")
    require_memory(f"{origin}: the order of {rows} rows", 16.0 * rows, "take a part of the table")
    return rows


def _whole(folder: Path) -> Parts:
    table = open_table(folder / "data.npy")
    return in_order(table, np.arange(_rows_of(table, str(folder))))


def _power(folder: Path) -> Parts:
    table = open_table(folder / "data.npy")
    table = Columns(table, POWER_COLUMNS) if table.shape[1] == 8 else table
    rows = _rows_of(table, str(folder))
    if table.shape[1] != len(POWER_COLUMNS):
        return in_order(table, np.arange(rows))
    require_memory(f"{folder}: noise of {rows} rows", 16.0 * 8 * rows, "take a part of the table")
    # In the published order: the rows first, then the noise of voltage, of active power and of the three meters.
    random, order = np.random.RandomState(POWER_SEED), np.arange(rows)
    random.shuffle(order)
    voltage, active = 0.01 * random.rand(rows, 1), 0.001 * random.rand(rows, 1)
    noise = np.hstack([active, voltage, random.rand(rows, 3), np.zeros((rows, 1))])
    return in_order(Noisy(table, noise[np.argsort(order)]), order)


def _hepmass(folder: Path) -> Parts:
    known, held = (open_table(folder / f"1000_{part}.csv") for part in ("train", "test"))
    signal, test = _signal_rows(known), _signal_rows(held)
    if min(len(signal), len(test)) < HELD:
        raise DatasetError(f"{folder}: {len(signal)} and {len(test)} signal rows (label 1); expected at least {HELD}")
    # The published test file has one column too many, at its end: the train file says which there are.
    kept = np.flatnonzero(_repetitions(known, signal) <= REPETITIONS)
    kept = kept[kept > 0]
    columns, train = Columns(known, kept), len(signal) - len(signal) // HELD
    return (columns, signal[:train]), (columns, signal[train:]), (Columns(held, kept), test)


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


def _bsds300(folder: Path) -> Parts:
    tables = [open_table(folder / "BSDS300.hdf5", part) for part in ("train", "validation", "test")]
    train, validation, test = ((table, np.arange(table.shape[0])) for table in tables)
    return train, validation, test


UCIS = {
    "power": UCI(6, _power),
    "gas": UCI(8, _whole, standardised_by=3),
    "hepmass": UCI(21, _hepmass),
    "miniboone": UCI(43, _whole),
    "bsds300": UCI(63, _bsds300, standardised_by=0),
}
