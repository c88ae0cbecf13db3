"""Tables of numbers: any file of floats, two sets bundled with scikit-learn, and the five UCI sets of the flow papers.

Columns are standardised by the moments of the training rows, which are read in blocks: a table larger than memory
works. Digits are images of 17 grey levels and go through the pipeline of MNIST.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from isingflow.datasets.base import CHUNK, Dataset, Rows
from isingflow.datasets.files import open_table
from isingflow.datasets.mnist import ENVIRONMENT
from isingflow.datasets.spaces import Pixels, Space, Standardised
from isingflow.datasets.uci import UCIS, Part, Parts, shuffled
from isingflow.errors import DatasetError
from isingflow.statistics.moments import moments

RESOLUTION = 1e-12
"""Deviation of a column, relative to its mean, that is no variation but rounding."""


def load(path: Path | str, root: Path | str | None = None, seed: int = 0) -> Dataset:
    """A table of numbers.

    Args:
        path: a file, or one of `KNOWN`.
        root: folder that has the folders, or the files, of the UCI sets; ISINGFLOW_DATA if not given.
        seed: of the split where the data set does not prescribe one.

    Raises:
        DatasetError: missing or damaged files; entries that are not finite numbers; less than two columns, ten rows;
            constant columns.
    """
    name = str(path)
    if name in BUNDLED:
        return BUNDLED[name](seed)
    if name in UCIS:
        return _uci(name, root or os.environ.get(ENVIRONMENT), seed)
    file = Path(path)
    if not file.suffix and not file.exists():
        raise DatasetError(f"unknown table {name!r}: expected a file, or one of {', '.join(KNOWN)}")
    return _dataset(file.name, shuffled(open_table(file), str(file), seed), str(file))


def _dataset(
    name: str, parts: Parts, origin: str, *, noise: tuple[float, ...] = (), standardised: bool = True
) -> Dataset:
    """Three parts, every entry of which has been checked."""
    train, validation, test = parts
    found = moments(map(torch.from_numpy, _blocks(train, origin)))
    deviation = found.covariance.diagonal().sqrt()
    constant = (deviation <= RESOLUTION * found.mean.abs()).nonzero().flatten().tolist()
    if constant:
        listed = ", ".join(map(str, constant[:5])) + (", .." if len(constant) > 5 else "")
        raise DatasetError(f"{origin}: constant column {listed} of {len(deviation)}; leave constant columns out")
    for part in (validation, test):
        for _ in _blocks(part, origin):
            pass
    widths = torch.tensor(noise, dtype=torch.float64) if noise else None
    space = Standardised(found.mean, deviation, widths) if standardised else Space()
    return Dataset(name, len(deviation), *_splits(parts, space), space)


def _splits(parts: Parts, space: Space) -> tuple[Rows, Rows, Rows]:
    train, validation, test = (Rows(table, index, space) for table, index in parts)
    return train, validation, test


def _blocks(part: Part, origin: str) -> Iterator[np.ndarray]:
    """All rows of a part, float64, block by block, in the order of the table."""
    table, index = part
    index = np.sort(index)
    for start in range(0, len(index), CHUNK):
        rows = index[start : start + CHUNK]
        block = np.asarray(table[rows], np.float64)
        wrong = np.argwhere(~np.isfinite(block))
        if len(wrong):
            row, column = wrong[0]
            raise DatasetError(
                f"{origin}: {block[row, column]} in row {rows[row]}, column {column}; expected finite numbers"
            )
        yield block


def _digits(seed: int) -> Dataset:
    """1,797 images of 8 x 8 pixels with 17 grey levels."""
    images = _bundled("load_digits").astype(np.uint8)
    parts, space = shuffled(images, "digits", seed), Pixels(17)
    return Dataset("digits", images.shape[1], *_splits(parts, space), space, (8, 8))


def _breast_cancer(seed: int) -> Dataset:
    """569 rows of 30 measurements."""
    return _dataset("breast-cancer", shuffled(_bundled("load_breast_cancer"), "breast-cancer", seed), "breast-cancer")


def _bundled(loader: str) -> np.ndarray:
    try:
        from sklearn import datasets
    except ImportError:
        raise DatasetError("the sets digits and breast-cancer come with scikit-learn, which is not installed") from None
    return getattr(datasets, loader)().data


def _uci(name: str, root: Path | str | None, seed: int) -> Dataset:
    if root is None:
        raise DatasetError(f"{name}: name the folder that holds its files with --data or {ENVIRONMENT}")
    folder, description = Path(root), UCIS[name]
    if (folder / name).is_dir():
        folder = folder / name
    parts = description.read(folder, seed)
    for table, _ in parts:
        if table.shape[1] != description.columns:
            raise DatasetError(f"{folder}: {table.shape[1]} columns; expected the {description.columns} of {name}")
    return _dataset(name, parts, str(folder), noise=description.noise, standardised=description.standardised)


BUNDLED = {"digits": _digits, "breast-cancer": _breast_cancer}
KNOWN = (*BUNDLED, *UCIS)
"""Tables that are known by name."""
