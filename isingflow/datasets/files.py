"""Tables of numbers in files, opened without reading them whole: .npy, .npz, text and HDF5, compressed or not.

A .npy file is memory-mapped, HDF5 is read by rows. The array of a .npz file, what is in a compressed file, and the
numbers of a text, float64, are first written to a temporary file, piece by piece, which is memory-mapped in turn and
disappears with the table. Nothing is ever unpickled, and no other file is read than the one that is named.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import numpy as np

from isingflow.datasets.base import Table
from isingflow.datasets.names import CALLED, found
from isingflow.datasets.text import TextTable, as_text, decompressed
from isingflow.errors import DatasetError
from isingflow.runtime.files import SPARE_BYTES, check_regular, listed, reason
from isingflow.runtime.npy import BLOCK_BYTES, DAMAGED, map_array, read_array

PREFERRED = ("data", "x", "X")
"""Names of the array to take where a file holds more than one."""

COMPRESSED = (".gz", ".bz2", ".xz")
"""What the names of compressed files may end in, after their own ending."""

LONGEST_NAMES = 2**24
"""Bytes of an array of names beyond which it is none."""

_logger = logging.getLogger(__name__)


def open_table(path: Path, array: str | None = None) -> Table:
    """The table in a file, by its suffix.

    Args:
        path: the file.
        array: name of an array within a .npz or HDF5 file; if not given, the only one, or one called data, x or X.

    Raises:
        DatasetError: no such file, of another kind, damaged, or what it holds is not a table of numbers.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")
    reader = READERS.get(kind)
    if reader is None:
        raise DatasetError(f"{path}: expected a file that ends in {', '.join(READERS)}, and perhaps .gz, .bz2 or .xz")
    check_regular(path, DatasetError)
    try:
        with path.open("rb") as file:
            table = reader(decompressed(file), path, array)
    except DatasetError:
        raise
    except MemoryError:
        raise DatasetError(f"{path}: does not fit in memory") from None
    except DAMAGED as error:
        raise DatasetError(f"{path}: not a readable {kind} file ({reason(error)})") from None
    if table.dtype.kind not in "fiub":
        raise DatasetError(f"{path}: holds {listed([table.dtype.name])}, expected numbers")
    if len(table.shape) != 2:
        raise DatasetError(f"{path}: an array of {len(table.shape)} axes, expected a table of rows and columns")
    return table


@dataclass(frozen=True)
class NamedTable:
    """A table whose columns have names."""

    rows: Table
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype:
        """Of all numbers."""
        return self.rows.dtype

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        return self.rows[rows]


class HDF5Table:
    """A table in an HDF5 file, read by rows in any order and with repetitions, which HDF5 itself does not allow.

    Raises:
        DatasetError: what it holds is elsewhere, or nowhere; also when rows are read that are damaged.
    """

    def __init__(self, dataset: Any, path: Path) -> None:
        self.dataset = dataset
        self.path = path
        self.shape = dataset.shape or ()
        self.dtype = dataset.dtype
        if dataset.is_virtual or dataset.external:
            raise DatasetError(f"{path}: its numbers are in other files, which are not read")
        if 0 not in self.shape and not dataset.id.get_storage_size():
            raise DatasetError(f"{path}: its numbers were never written")

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        try:
            if isinstance(rows, slice):
                return self.dataset[rows]
            distinct, where = np.unique(rows, return_inverse=True)
            return self.dataset[distinct][where]
        except DAMAGED as error:
            raise DatasetError(f"{self.path}: its rows cannot be read ({reason(error)})") from None


def _npy(file: IO[bytes], path: Path, array: str | None) -> np.ndarray:
    return _mapped(file) if isinstance(file, BufferedReader) else _mapped_copy(file, path)


def _npz(file: IO[bytes], path: Path, array: str | None) -> Table:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        with archive.open(f"{_chosen(path, names, array)}.npy") as member:
            table = _mapped_copy(member, path)

        def read(name: str) -> np.ndarray:
            size = archive.getinfo(f"{name}.npy").file_size
            with archive.open(f"{name}.npy") as member:
                return read_array(member, size) if size < LONGEST_NAMES else np.empty(0)

        return _named(table, [partial(read, name) for name in CALLED if name in names], path)


def _named(table: Table, candidates: Sequence[Callable[[], Any]], path: Path) -> Table:
    """The table, with the names of its columns where they are found."""
    names = found(candidates, table.shape[1], path) if len(table.shape) == 2 else ()
    return NamedTable(table, names) if names else table


def _text(file: IO[bytes], path: Path, array: str | None) -> NamedTable:
    with as_text(file) as text:
        table = TextTable(text, str(path))
        rows = _stored(table.blocks(), path)
    for note in table.notes:
        _logger.info("%s: %s", path, note)
    return NamedTable(rows, table.names)


def _hdf5(file: IO[bytes], path: Path, array: str | None) -> Table:
    try:
        import h5py
    except ImportError:
        raise DatasetError(f"{path}: HDF5 files need h5py, which is not installed") from None
    if not isinstance(file, BufferedReader):
        raise DatasetError(f"{path}: HDF5 files are compressed inside, not as a whole: decompress it")
    with ExitStack() as stack:
        opened = stack.enter_context(h5py.File(path, "r"))
        # A link may lead to another file.
        own = [name for name in opened if isinstance(opened.get(name, getlink=True), h5py.HardLink)]
        names = [name for name in own if isinstance(opened[name], h5py.Dataset)]
        chosen = opened[_chosen(path, names, array)]
        table = HDF5Table(chosen, path)
        candidates = [partial(chosen.attrs.__getitem__, name) for name in CALLED if name in chosen.attrs]
        candidates += [partial(opened[name].__getitem__, ...) for name in CALLED if name in names]
        # It stays open as long as the table is there.
        stack.pop_all()
        return _named(table, candidates, path)


def _stored(blocks: Iterable[np.ndarray], path: Path) -> np.ndarray:
    """Blocks of rows one after another in a memory-mapped file without a name."""
    count, width = 0, 0
    with tempfile.TemporaryFile() as file:
        for block in blocks:
            _check_room(block.nbytes, path)
            file.write(block.data)
            count, width = count + len(block), block.shape[1]
        file.flush()
        return np.memmap(file, np.float64, "r", shape=(count, width)) if count else np.empty((0, 0))


def _mapped_copy(source: IO[bytes], path: Path) -> np.ndarray:
    """The array in a stream, in a memory-mapped file without a name."""
    with tempfile.TemporaryFile() as file:
        while block := source.read(BLOCK_BYTES):
            _check_room(len(block), path)
            file.write(block)
        return _mapped(file)


def _mapped(file: IO[bytes]) -> np.ndarray:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return map_array(file, size)


def _check_room(size: int, path: Path) -> None:
    """Refuse what the temporary folder has no room for, while it still has some."""
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size + SPARE_BYTES:
        raise DatasetError(f"{path}: what is in it does not fit into the temporary folder {folder}")


def _chosen(path: Path, names: list[str], array: str | None) -> str:
    """The array that is the table, which those of names are not."""
    names = [name for name in names if name not in CALLED] or names
    candidates = [name for name in ((array,) if array else PREFERRED) if name in names]
    if candidates:
        return candidates[0]
    if len(names) == 1 and array is None:
        return names[0]
    wanted = array or f"a single array, or one called {' or '.join(PREFERRED)}"
    raise DatasetError(f"{path}: holds {listed(names)}; expected {wanted}")


READERS: dict[str, Callable[[IO[bytes], Path, str | None], Table]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _text,
    ".tsv": _text,
    ".txt": _text,
    ".dat": _text,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}
