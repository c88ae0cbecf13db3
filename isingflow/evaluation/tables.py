"""Rows of numbers as tables that other programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isingflow.errors import FileError
from isingflow.runtime.files import write_atomically


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, all with the same entries, as comma-separated values with a line of names.

    An estimate {"value", "stderr"} becomes two columns, NAME and NAME_stderr; what is None stays empty.

    Raises:
        FileError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "table.csv"
        ...     write_table(path, [{"beta": 0.4, "log_z": {"value": 2.5, "stderr": 0.1}, "exact": None}])
        ...     print(path.read_text())
        beta,log_z,log_z_stderr,exact
        0.4,2.5,0.1,
    """
    text = io.StringIO()
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    try:
        write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from None


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= {name: value["value"], f"{name}_stderr": value["stderr"]}
        else:
            flat[name] = value
    return flat
