"""Files that are never half written: atomic replacement, arrays in .npz files, and arrays too large for memory.

Nor are files trusted that are read: what is not a regular file might never end, and what a header claims is compared
with what is there before room is made for it.
"""

from __future__ import annotations

import math
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike

from isingflow.errors import FileError, InvalidInput, IsingflowError
from isingflow.runtime.checks import instance, shown
from isingflow.runtime.npy import DAMAGED, read_array
from isingflow.runtime.resources import free_memory, memory

SPARE_BYTES = 2**24
"""Disk space to leave free."""

LONGEST_REASON = 200
"""Characters that an error message quotes of what others wrote."""


def write_atomically(path: Path, content: bytes, *, previous: Path | None = None) -> None:
    """Write a file in one step: readers see the old content or the new, also after a crash.

    Args:
        path: the file.
        content: all of it.
        previous: where to keep the file that was there, if any.

    Raises:
        OSError: it could not be written; the old file is intact and nothing is left beside it.
    """
    temporary = write_beside(path, content)
    try:
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_beside(path: Path, content: bytes) -> Path:
    """Write and sync what is to become a file; returns the hidden file beside it that is to be renamed.

    Raises:
        OSError: it could not be written, and nothing is left.
    """
    temporary = beside(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def beside(path: Path) -> Path:
    """The hidden file in which the next content of a file is written."""
    return path.with_name(f".{path.name}.tmp")


def _keep(path: Path, previous: Path) -> None:
    """Make `previous` this file too, without taking it from its place where the file system has hard links."""
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)
    except OSError:
        os.replace(path, previous)


def check_regular(path: Path | str, error: type[IsingflowError] = FileError) -> Path:
    """Refuse what is not a regular file before it is opened: a named pipe is waited for, a device may have no end.

    Args:
        path: the file; links are followed.
        error: what to raise.

    Raises:
        FileError, or `error`: there is no such file, it is of another kind, or it cannot be looked at.

    Example:
        >>> check_regular("/dev/null")
        Traceback (most recent call last):
        isingflow.errors.FileError: /dev/null: a device, expected a regular file
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        hint = "; standard input is not read, give a file" if str(path) == "-" else ""
        raise error(f"{path}: there is no such file{hint}") from None
    except (OSError, ValueError) as failure:
        raise error(f"{shown(str(path))}: cannot be read ({reason(failure)})") from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
        raise error(f"{path}: a {kinds.get(stat.S_IFMT(mode), 'device')}, expected a regular file")
    return Path(path)


def reason(error: BaseException) -> str:
    """What an error says, as part of a line: those of other packages may quote whole files.

    Example:
        >>> reason(ValueError("cannot parse  this")), len(reason(ValueError(1000 * "x")))
        ('cannot parse this', 203)
    """
    if isinstance(error, IsingflowError):
        return str(error)
    if isinstance(error, KeyError) and error.args:
        return f"{shown(error.args[0])} is missing"
    strerror = getattr(error, "strerror", None)
    return _on_a_line(str(strerror or error)) or type(error).__name__


def listed(names: Iterable[str]) -> str:
    """Names that a file holds, as part of a line.

    Example:
        >>> listed(["spins", "field"]), listed([])
        ('spins, field', 'none')
    """
    return _on_a_line(", ".join(names)) or "none"


def _on_a_line(text: str) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."


def read_arrays(path: Path | str, required: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name. Nothing in it is ever unpickled.

    Raises:
        FileError: there is no such file, it is damaged or of another kind, an array is missing, or memory is too small.
    """
    if Path(path).suffix == ".nc":
        raise FileError(f"{path}: netCDF is read by arviz; expected an .npz file")
    check_regular(path)
    arrays: dict[str, np.ndarray] = {}
    entry = ""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            entries = {info.filename.removesuffix(".npy"): info for info in found}
            missing = [name for name in required if name not in entries]
            if missing:
                raise FileError(f"{path}: the array {missing[0]} is missing; found: {listed(entries)}")
            needed, free = sum(info.file_size for info in found), free_memory()
            if free is not None and needed > free:
                raise FileError(f"{path}: its arrays take {memory(needed)} of memory, {memory(free)} are free")
            for entry, info in entries.items():
                with archive.open(info) as member:
                    arrays[entry] = read_array(member, info.file_size)
    except FileError:
        raise
    except MemoryError:
        raise FileError(f"{path}: its arrays do not fit in memory") from None
    except DAMAGED as error:
        place = f"{shown(entry)}: " if entry else ""
        raise FileError(f"{path}: not a readable .npz file ({place}{reason(error)})") from None
    return arrays


def text(arrays: Mapping[str, np.ndarray], name: str) -> str:
    """The one text that an array of a file holds.

    Raises:
        InvalidInput: the array is missing, or holds something else.
    """
    if name not in arrays:
        raise InvalidInput(f"the array {name} is missing")
    return str(instance(name, arrays[name][()], str, "a text"))


Columns = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]
"""dtype and shape of a row, by name of the array."""


def check_space(path: Path, rows: int, columns: Columns, *, copies: int = 2, what: str = "rows") -> None:
    """Refuse arrays for which the disk is too small, before they are made.

    Args:
        path: the file to be.
        rows, columns: of the arrays.
        copies: of them on the disk at the worst time. They are written once, and once more when they are put together;
            a file that is replaced stays until then.
        what: rows in words, the plural of one noun first: "samples of 8 chains".

    Raises:
        FileError: it is, it cannot be asked, or the folder cannot be written.
    """
    try:
        free = max(shutil.disk_usage(path.parent).free - SPARE_BYTES, 0)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from None
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"cannot write {path}: the folder {path.parent} cannot be written")
    needed = copies * array_bytes(rows, columns)
    if needed > free:
        raise FileError(
            f"{path}: {rows} {what} need {needed / 1e9:.3g} GB while they are written, {free / 1e9:.3g} GB are free; "
            f"at most {rows * free // needed} {what.split()[0]} fit"
        )


def check_memory(rows: int, columns: Columns, *, what: str = "rows") -> None:
    """Refuse arrays that this machine could not hold in memory; arguments as for `check_space`.

    Raises:
        InvalidInput: it could not.
    """
    needed, free = array_bytes(rows, columns), free_memory()
    if free is not None and needed > free:
        raise InvalidInput(
            f"{rows} {what} take {memory(needed)} of memory, {memory(free)} are free: "
            f"at most {rows * free // needed} {what.split()[0]} fit"
        )


def array_bytes(rows: int, columns: Columns) -> int:
    """Size of arrays of so many rows.

    Example:
        >>> array_bytes(10, {"spins": (np.int8, (4, 4)), "beta": (np.float64, ())})
        240
    """
    return rows * sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in columns.values())


class ArrayWriter:
    """A .npz file of arrays that need not fit in memory: rows are appended to all of them, block by block.

    A context manager. The file appears when the block ends without an exception; until then, rows wait in a hidden
    folder beside it, which disappears in any case. Twice the size of the arrays must be free.

    Args:
        path: the file.
        rows: number of rows to come.
        columns: dtype and shape of a row of every array.
        constants: further arrays; what becomes known on the way may be added to this attribute until the end.

    Raises:
        FileError: the disk is too small or the file cannot be written; also from `append` and at the end.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     columns = {"x": (np.dtype(np.int8), (2,))}
        ...     with ArrayWriter(Path(folder) / "a.npz", 4, columns, beta=np.float64(1)) as writer:
        ...         writer.append(x=np.zeros((3, 2)))
        ...         writer.append(x=np.ones((1, 2)))
        ...     read_arrays(Path(folder) / "a.npz", ["x", "beta"])["x"].tolist()
        [[0, 0], [0, 0], [0, 0], [1, 1]]
    """

    def __init__(self, path: Path, rows: int, columns: Columns, **constants: np.ndarray | np.generic) -> None:
        self.path = path
        self.rows = rows
        self.columns = columns
        self.constants = dict(constants)
        self._written = 0

    def __enter__(self) -> Self:
        check_space(self.path, self.rows, self.columns)
        try:
            with ExitStack() as stack:
                hidden = tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent)
                self._folder = Path(stack.enter_context(hidden))
                self._open = stack.enter_context(ExitStack())
                self._files = {name: self._begin(name, dtype, shape) for name, (dtype, shape) in self.columns.items()}
                self._held = stack.pop_all()
        except OSError as error:
            raise self._failed(error) from None
        return self

    def append(self, **blocks: np.ndarray) -> None:
        """Add rows to every array, shape (rows of this block, *shape)."""
        for name, (dtype, shape) in self.columns.items():
            block = np.ascontiguousarray(blocks[name], dtype)
            if block.shape[1:] != shape:
                raise ValueError(f"rows of {name} have shape {block.shape[1:]}, expected {shape}")
            try:
                self._files[name].write(block.data)
            except OSError as error:
                raise self._failed(error) from None
        self._written += len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._assemble()
        except OSError as failure:
            raise self._failed(failure) from None
        finally:
            self._held.close()

    def _assemble(self) -> None:
        if self._written != self.rows:
            raise ValueError(f"{self._written} of {self.rows} rows were written")
        for name, value in self.constants.items():
            np.save(self._file(name), value)
        self._open.close()
        whole = self._folder / "whole"
        with zipfile.ZipFile(whole, "w", allowZip64=True) as archive:
            for name in [*self.columns, *self.constants]:
                archive.write(self._file(name), f"{name}.npy")
        with open(whole, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(whole, self.path)

    def _begin(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> BinaryIO:
        file = self._open.enter_context(self._file(name).open("wb"))
        description = np.lib.format.dtype_to_descr(np.dtype(dtype))
        header = {"descr": description, "fortran_order": False, "shape": (self.rows, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        return file

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _failed(self, error: OSError) -> FileError:
        return FileError(f"cannot write {self.path}: {error.strerror or error}")
