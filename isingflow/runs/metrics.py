"""The metrics of a training: one JSON object a line, appended as it goes on; a line torn by a kill is cut off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isingflow.errors import RunFolderError
from isingflow.runs.entries import checked_record, read_text
from isingflow.runtime.files import reason, write_atomically
from isingflow.runtime.numbers import finite_or_none, parse


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line; values that are not finite are written as null.

    Raises:
        RunFolderError: the file cannot be written.
    """
    line = json.dumps(finite_or_none(record), allow_nan=False)
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {reason(error)}") from error


def read(path: Path) -> list[dict[str, Any]]:
    """The records so far, in order, without a torn last line; none if there is no file.

    Raises:
        RunFolderError: the file cannot be read, or another line is damaged.
    """
    lines = (read_text(path, errors="replace") or "").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(checked_record(parse(line)))
        except ValueError as error:
            # Every line that was written to its end has a new line after it.
            if number == len(lines):
                break
            raise RunFolderError(f"{path}: line {number} is not a record of metrics: {reason(error)}") from None
    return records


def truncate(path: Path, iteration: int) -> None:
    """Drop what was recorded after an iteration, and a torn last line.

    Of iterations that are there more than once, as two processes leave them, the last record stays.

    Raises:
        RunFolderError: the file cannot be read or written.
    """
    kept = {record["iteration"]: record for record in read(path) if record["iteration"] <= iteration}
    if not path.exists():
        return
    try:
        write_atomically(path, "".join(json.dumps(kept[number]) + "\n" for number in sorted(kept)).encode())
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {reason(error)}") from error
