"""What a data set is to a flow: three splits that give batches of model space, and the way back to data space."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from isingflow.datasets.spaces import Space
from isingflow.errors import DatasetError, InvalidInput

CHUNK = 8192
"""Rows that are read at a time where all are gone through."""


class Table(Protocol):
    """Rows of numbers that are read on demand: an array in memory, memory-mapped, or an HDF5 file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


class Split:
    """Rows of one part of a data set, as tensors of model space."""

    def __len__(self) -> int:
        """Number of rows."""
        raise NotImplementedError

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """A random minibatch with replacement, float32, shape (n, d); what is random in a row is drawn afresh."""
        raise NotImplementedError

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """One pass through all rows in order, in batches of at most `size` rows."""
        raise NotImplementedError


class Rows(Split):
    """Rows of a table, read when they are asked for: a table larger than memory works.

    Args:
        table: all rows.
        index: the rows of this split, in the order of `batches`; shape (count,).
        space: how rows become points of model space.

    Raises:
        DatasetError: there are no rows.
    """

    def __init__(self, table: Table, index: np.ndarray, space: Space) -> None:
        if len(index) == 0:
            raise DatasetError("a split of a data set needs at least one row")
        self.table = table
        self.index = index
        self.space = space

    def __len__(self) -> int:
        return len(self.index)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Rows drawn with replacement; jitter, where the space has one, is new for every row."""
        return self._rows(self.index[torch.randint(len(self), (n,), generator=generator).numpy()], generator)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """All rows once, in order."""
        for start in range(0, len(self), size):
            yield self._rows(self.index[start : start + size], generator)

    def _rows(self, index: np.ndarray, generator: torch.Generator) -> Tensor:
        # Numbers of any type and byte order as float64, all but the bytes of images.
        rows = self.table[index]
        dtype = np.uint8 if rows.dtype == np.uint8 else np.float64
        return self.space.to_model(torch.from_numpy(np.array(rows, dtype)), generator)


@dataclass(frozen=True)
class Dataset:
    """A data set: a density that is known by samples.

    Attributes:
        name: what it was loaded as.
        dimension: d, number of columns.
        train, validation, test: its parts. Nothing may be chosen by the test part.
        space: the map between data space (bytes, table columns) and model space, where flows live.
        image_shape: height and width, where a row is an image; of a colour image, of its planes one above the other.
        columns: what the columns are called; empty where they have no names.
        dependent: columns that follow from others; no Gaussian fits these data where there are any.
        log_prob: ln p of points of model space, shape (n, d) to (n,), where it is known in closed form.
        channels: planes of an image; 1 for grey images and for other data.
    """

    name: str
    dimension: int
    train: Split
    validation: Split
    test: Split
    space: Space
    image_shape: tuple[int, int] | None = None
    columns: tuple[str, ...] = ()
    dependent: tuple[str, ...] = ()
    log_prob: Callable[[Tensor], Tensor] | None = None
    channels: int = 1

    def to_data(self, x: Tensor) -> Tensor:
        """Points of model space, shape (n, d), in the units of the data: grey levels, table columns."""
        return self.space.to_data(x)

    def data_log_prob(self, log_prob: Tensor, x: Tensor) -> Tensor:
        """ln p in data units from ln p in model space.

        Args:
            log_prob: ln p(x), shape (n,).
            x: points of model space, shape (n, d).

        Returns:
            ln p(x) - ln |d data / d x|, float64, shape (n,).
        """
        return log_prob.double() - self.space.log_slope(x)

    def bits_per_dimension(self, log_prob: Tensor, x: Tensor) -> Tensor:
        """Bits per pixel, -log2 p / d with p per grey level, of points x of model space; shape (n,).

        Raises:
            InvalidInput: the data are not grey levels, so bits have no meaning.
        """
        if not self.space.discrete:
            raise InvalidInput(f"{self.name}: bits per dimension need discrete data; these are continuous")
        return -self.data_log_prob(log_prob, x) / (self.dimension * math.log(2))


def random_split(count: int, *, validation: int, test: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train, validation and test rows of a table of `count` rows, by a random permutation of this seed.

    Example:
        >>> [len(rows) for rows in random_split(10, validation=2, test=3, seed=0)]
        [5, 2, 3]
    """
    order = np.random.default_rng(seed).permutation(count)
    held = count - validation - test
    return order[:held], order[held : held + validation], order[held + validation :]
