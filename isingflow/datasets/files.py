"""Tables of numbers in files, opened without reading them whole: .npy, .npz, .csv and HDF5.

A .npy file is memory-mapped, HDF5 is read by rows. The array of a .npz file, and the numbers of a .csv file, are first
written to a temporary .npy file, piece by piece, which is memory-mapped in turn and disappears with the table.
Nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from isingflow.datasets.base import CHUNK, Table
from isingflow.errors import DatasetError
from isingflow.runtime.files import DAMAGED

PREFERRED = ("data", "x", "X")
"""Names of the array to take where a file holds more than one."""


def open_table(path: Path, array: str | None = None) -> Table:
    """The table in a file, by its suffix.

    Args:
        path: the file.
        array: name of an array within a .npz or HDF5 file; if not given, the only one, or one called data, x or X.

    Raises:
        DatasetError: no such file, of another kind, damaged, or what it holds is not a table of numbers.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(f"{path}: expected a file that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file")
    try:
        table = reader(path, array)
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path}: not a readable {path.suffix} file ({reason or type(error).__name__})") from None
    if table.dtype.kind not in "fiub":
        raise DatasetError(f"{path}: holds {table.dtype.name}, expected numbers")
    if len(table.shape) != 2:
        raise DatasetError(f"{path}: an array of {len(table.shape)} axes, expected a table of rows and columns")
    return table


class HDF5Table:
    """A table in an HDF5 file, read by rows in any order and with repetitions, which HDF5 itself does not allow."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.shape = dataset.shape
        self.dtype = dataset.dtype

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        if isinstance(rows, slice):
            return self.dataset[rows]
        distinct, where = np.unique(rows, return_inverse=True)
        return self.dataset[distinct][where]


def _csv_blocks(path: Path) -> Iterator[np.ndarray]:
    """Blocks of rows, float64; a first line without numbers is a heading."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        block: list[list[float]] = []
        width = None
        for line, cells in enumerate(csv.reader(file), 1):
            if not cells or (line == 1 and not any(map(_is_number, cells))):
                continue
            width = width or len(cells)
            if len(cells) != width:
                raise DatasetError(f"{path}: line {line} has {len(cells)} columns, expected {width}")
            try:
                block.append(list(map(float, cells)))
            except ValueError:
                wrong = next(cell for cell in cells if not _is_number(cell))
                raise DatasetError(f"{path}: line {line} holds {wrong!r}, expected a number") from None
            if len(block) == CHUNK:
                yield np.array(block)
                block = []
        if block:
            yield np.array(block)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _stored(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Blocks of rows one after another in a memory-mapped file without a name."""
    count, width = 0, 0
    with tempfile.TemporaryFile() as file:
        for block in blocks:
            if len(block):
                file.write(np.ascontiguousarray(block, np.float32).data)
                count, width = count + len(block), block.shape[1]
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(count, width)) if count else np.empty((0, 0), np.float32)


def _npy(path: Path, array: str | None) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _npz(path: Path, array: str | None) -> np.ndarray:
    with zipfile.ZipFile(path) as archive, tempfile.NamedTemporaryFile(suffix=".npy") as file:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        with archive.open(f"{_chosen(path, names, array)}.npy") as member:
            shutil.copyfileobj(member, file)
            file.flush()
        return np.load(file.name, mmap_mode="r", allow_pickle=False)


def _csv(path: Path, array: str | None) -> np.ndarray:
    return _stored(_csv_blocks(path))


def _hdf5(path: Path, array: str | None) -> HDF5Table:
    try:
        import h5py
    except ImportError:
        raise DatasetError(f"{path}: HDF5 files need h5py, which is not installed") from None
    file = h5py.File(path, "r")
    names = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
    return HDF5Table(file[_chosen(path, names, array)])


def _chosen(path: Path, names: list[str], array: str | None) -> str:
    candidates = [name for name in ((array,) if array else PREFERRED) if name in names]
    if candidates:
        return candidates[0]
    if len(names) == 1 and array is None:
        return names[0]
    wanted = array or f"a single array, or one called {' or '.join(PREFERRED)}"
    raise DatasetError(f"{path}: holds {', '.join(names) or 'no arrays'}; expected {wanted}")


READERS: dict[str, Callable[[Path, str | None], Table]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}
