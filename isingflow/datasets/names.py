"""What the columns of a table are called, where its file says so beside the numbers.

A .npz file says it in an array of texts, an HDF5 file in an attribute of the table or in an array beside it, called
`columns`, `column_names`, `feature_names` or `names`. Names that are not as many as the columns are not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from isingflow.runtime.npy import DAMAGED

CALLED = ("columns", "column_names", "feature_names", "names")
"""What arrays of names are called, by precedence."""
LONGEST = 200
"""Characters of a name that are kept."""

_logger = logging.getLogger(__name__)


def found(candidates: Iterable[Callable[[], Any]], width: int, path: Path) -> tuple[str, ...]:
    """The first of some arrays that holds a name for each of `width` columns; empty if none does.

    Args:
        candidates: each reads an array.
        width: number of columns.
        path: of the file, for notes.
    """
    for read in candidates:
        try:
            names = np.asarray(read())
        except DAMAGED:
            continue
        if names.dtype.kind not in "USO" or names.ndim != 1:
            continue
        if len(names) != width:
            _logger.info("%s: it names %d columns, but has %d: the names are not used", path, len(names), width)
            continue
        return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)
    return ()


def plain(names: Iterable[str]) -> tuple[str, ...]:
    """Names that can be printed on a line, for configurations and figures.

    Example:
        >>> plain(["height", "", "a\\nb"])
        ('height', 'column 1', 'a?b')
    """
    printable = ("".join(letter if letter.isprintable() else "?" for letter in name[:LONGEST]) for name in names)
    return tuple(name.strip() or f"column {j}" for j, name in enumerate(printable))
