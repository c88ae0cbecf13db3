"""Tables in text: numbers between tabs, semicolons, bars, commas or spaces, quoted or not, compressed or not.

Which separator it is, the first lines say: the one that cuts most of them into the same number of cells. Numbers are
read by Python's float, which rounds correctly; the fast parsers of data-frame libraries do not by default. Between
semicolons or bars the decimal point may be a comma; elsewhere such cells are refused: a comma could separate thousands.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO, Any, BinaryIO, Self, TextIO, cast

import numpy as np

from isingflow.datasets.base import CHUNK
from isingflow.errors import DatasetError
from isingflow.runtime.checks import shown

SEPARATORS = ("\t", ";", "|", ",", " ")
"""By precedence, where several would do."""

SNIFFED = 50
"""Lines that are asked for the separator."""

LONGEST_LINE = 2**24
"""Characters; without a limit, a file without line ends would be read into memory whole."""

BLOCK_CELLS = 2**20
MISSING = {"", "na", "n/a", "nan", "null", "none", "nil", "missing", "?", "-", "--", "."}
UNNAMED = re.compile(r"(Unnamed: \d+)?")
"""Headings that are none: the first columns of such headings are the index of a pandas table."""

COMPRESSED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
"""What opens a compressed file, by its first bytes."""


def decompressed(file: IO[bytes]) -> IO[bytes]:
    """An open file, or what is in it where it is compressed by gzip, bzip2 or xz."""
    first = file.read(6)
    file.seek(0)
    opened = [opener for magic, opener in COMPRESSED.items() if first.startswith(magic)]
    return opened[0](file) if opened else file


def as_text(file: IO[bytes]) -> TextIO:
    """An open file, at its beginning, as text; it is closed with it."""
    wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    file.seek(0)
    # Names may be in any encoding: numbers are the same in all others.
    return io.TextIOWrapper(cast(BinaryIO, file), "utf-16" if wide else "utf-8-sig", errors="replace")


class TextTable:
    """A table in text, which is read once, from its beginning, in blocks of rows.

    Args:
        text: open, at its beginning.
        origin: its name in messages.

    Attributes:
        names: of the columns, without those of an index; empty where there is no heading.
        notes: what was found out about the table, in words.

    Raises:
        DatasetError: the heading is none; also from `blocks`, where a line has another number of columns than the
            first, or a cell is no number.
    """

    def __init__(self, text: TextIO, origin: str) -> None:
        self.origin = origin
        self.notes: list[str] = []
        self.lines = _Lines(text, origin)
        ahead = self.lines.ahead(SNIFFED)
        self.separator = _separator(ahead)
        self.decimal = "" if self.separator in ";|" else "."
        first, second = ([*map(self._cells, ahead[:2]), [], []])[:2]
        if self._is_heading(first, second):
            next(self.lines)
            names, self.index = self._named(first, len(second) or len(first))
            self.width = len(names)
            self.names = tuple(name or f"column {j}" for j, name in enumerate(names))[self.index :]
        else:
            commented = self._cells(self.lines.comment)
            self.width, self.index = len(first), 0
            self.names = tuple(commented) if len(commented) == self.width else ()

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks of rows, float64, shape (n, columns), without an index."""
        rows: list[list[float]] = []
        labels: list[list[str]] = []
        last = [-math.inf] * self.index
        size = max(1, min(CHUNK, BLOCK_CELLS // max(self.width, 1)))
        for line in self.lines:
            cells = self._cells(line)
            if len(cells) != self.width:
                raise self._wrong(f"has {len(cells)} columns, expected {self.width}")
            rows.append(self._row(cells[self.index :]))
            if self.index:
                labels.append(cells[: self.index])
            if len(rows) == size:
                last = self._labelled(labels, last)
                yield np.array(rows)
                rows, labels = [], []
        self._labelled(labels, last)
        if rows:
            yield np.array(rows)
        if self.decimal == ",":
            self.notes.append("its decimal points are commas")

    def _row(self, cells: list[str]) -> list[float]:
        if not self.decimal:
            marks = set("".join(cells))
            self.decimal = "," if "," in marks else "." if "." in marks else ""
        try:
            row = list(map(float, map(self._plain, cells) if self.decimal == "," else cells))
        except ValueError:
            raise self._no_row(cells) from None
        # Python reads 1_000 as a number, and nobody else does.
        strange = "_" in self.lines.current and any("_" in cell for cell in cells)
        if strange or not all(map(math.isfinite, row)):
            raise self._no_row(cells)
        return row

    def _no_row(self, cells: list[str]) -> DatasetError:
        """What is wrong with the first cell that is wrong."""
        wrong = [j for j, cell in enumerate(cells) if not self._is_number(cell)]
        cell, column = cells[wrong[0]].strip(), _column(self.names, wrong[0])
        if cell.lower() in MISSING:
            return self._wrong(f"has no value in {column} ({shown(cell)}), expected a number")
        if re.fullmatch(r"[-+\d.eE]*,[-+\d.,eE]*", cell) or (self.decimal == "," and "." in cell):
            hint = "; a comma is a decimal point only between semicolons, and only where no cell has another"
        elif re.fullmatch(r"[^\W\d].*", cell):
            more = "" if len(wrong) == 1 else f" ({len(wrong)} of its columns hold such)"
            hint = f"; a column of classes is none of measurements: leave it out{more}"
        else:
            hint = "" if len(wrong) == 1 else f"; {len(wrong)} of its columns hold none"
        return self._wrong(f"holds {shown(cell)} in {column}, expected a number{hint}")

    def _plain(self, cell: str) -> str:
        """A cell as Python writes numbers; one with a point is none where the decimal point is a comma."""
        return "" if "." in cell else cell.replace(",", ".")

    def _is_number(self, cell: str) -> bool:
        known = cell if self.decimal == "." else self._plain(cell) if self.decimal else cell.replace(",", ".")
        try:
            return math.isfinite(float(known)) and "_" not in cell
        except ValueError:
            return False

    def _is_heading(self, first: list[str], second: list[str]) -> bool:
        """Whether the first line names the columns: by words, or by 0, 1, .. as pandas does for want of words."""
        counted = first[1:] if first and UNNAMED.fullmatch(first[0]) else first
        if counted and counted == list(map(str, range(len(counted)))):
            return len(counted) < len(first) or (bool(second) and all(set(cell) & set(".,eE") for cell in second))
        numbers = [cell for cell in first if self._is_number(cell)]
        words = [cell for cell in first if cell not in numbers and cell.lower() not in MISSING]
        if words and numbers:
            next(self.lines)
            raise self._wrong(f"holds {shown(words[0])} beside numbers, expected numbers or names alone")
        return bool(words)

    def _named(self, names: list[str], width: int) -> tuple[list[str], int]:
        """Names of all columns of a heading, and how many of them are an index."""
        if len(names) == width - 1:
            # R names the columns but not that of row names.
            names = ["", *names]
        if len(names) != width:
            raise DatasetError(f"{self.origin}: its heading names {len(names)} columns, the line below has {width}")
        index = next((j for j, name in enumerate(names) if not UNNAMED.fullmatch(name)), 0)
        if index:
            what = "its first column has" if index == 1 else f"its first {index} columns have"
            self.notes.append(f"{what} no name: taken for an index of the rows, and left out")
        return names, index

    def _labelled(self, labels: list[list[str]], last: list[float]) -> list[float]:
        """The last labels of some rows; an index is of words, or of whole numbers that grow."""
        found = []
        for column, before in enumerate(last):
            try:
                numbers = np.array([row[column] for row in labels], np.float64)
            except ValueError:
                found.append(before)
                continue
            if not (np.all(numbers == np.rint(numbers)) and np.all(np.diff(numbers, prepend=before) > 0)):
                raise DatasetError(
                    f"{self.origin}: column {column} has no name in the heading, and is no index of growing whole "
                    "numbers: name it if it is data, or leave it out"
                )
            found.append(float(numbers[-1]) if len(numbers) else before)
        return found

    def _cells(self, line: str) -> list[str]:
        try:
            return _split(line, self.separator)
        except csv.Error as error:
            raise self._wrong(f"cannot be cut into cells ({error})") from None

    def _wrong(self, what: str) -> DatasetError:
        return DatasetError(f"{self.origin}: line {self.lines.number} {what}")


class _Lines:
    """The lines of a file, one after another, without blank ones and comments.

    Attributes:
        current, number: the line that was given last, and which line of the file it is, counted from 1.
        comment: the last comment before the first line.
    """

    def __init__(self, text: TextIO, origin: str) -> None:
        self.text = text
        self.origin = origin
        self.current, self.number, self.comment = "", 1, ""
        self.waiting: list[tuple[int, str]] = []
        self.unread = self._read()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self.number, self.current = self.waiting.pop(0) if self.waiting else next(self.unread)
        return self.current

    def ahead(self, count: int) -> list[str]:
        """The next lines, which stay to be read."""
        self.waiting = list(islice(self.unread, count))
        return [line for _, line in self.waiting]

    def _read(self) -> Iterator[tuple[int, str]]:
        begun = False
        for number, line in enumerate(iter(lambda: self.text.readline(LONGEST_LINE), ""), 1):
            if len(line) == LONGEST_LINE:
                raise DatasetError(f"{self.origin}: line {number} has {LONGEST_LINE} characters or more")
            if line.startswith(("#", "%")):
                self.comment = self.comment if begun else line.lstrip("#% ")
            elif not line.isspace():
                begun = True
                yield number, line


def _column(names: tuple[str, ...], index: int) -> str:
    return f"column {shown(names[index])}" if names else f"column {index}"


def _split(line: str, separator: str) -> list[str]:
    """The cells of a line without the spaces around them."""
    if separator == " ":
        line = " ".join(line.split())
    if '"' in line:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
    else:
        cells = line.rstrip("\r\n").split(separator)
    return [cell.strip() for cell in cells]


def _separator(lines: list[str]) -> str:
    """What cuts most lines into the same number of cells, more than one."""

    def agreeing(separator: str) -> int:
        """How many lines it cuts so."""
        counts: Counter[int] = Counter()
        for line in lines:
            try:
                counts[len(_split(line, separator))] += 1
            except csv.Error:
                continue
        return max((number for cells, number in counts.items() if cells > 1), default=0)

    found = {separator: agreeing(separator) for separator in SEPARATORS}
    return max(found, key=lambda separator: found[separator]) if any(found.values()) else ","
