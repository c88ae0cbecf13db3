"""What became of a point, read from its files in STUDY/points:

    NAME, NAME.npz      what its command wrote: a run folder, paths or samples
    NAME.json           the document that it printed: the point is finished
    NAME.failed.json    the last attempt ended with an error: its code, its last words, its seconds
    NAME.log            what it said on standard error, one attempt after the other

The document is the last thing that a command does: where it is whole, the point is finished, and never run again.
"""

from __future__ import annotations

import enum
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isingflow.errors import StudyError
from isingflow.runs.making import CONFIG, LOCKS
from isingflow.runtime.files import write_atomically
from isingflow.runtime.locks import locked
from isingflow.runtime.numbers import as_json, parse
from isingflow.studies.plan import Point, Study, output

SECONDS = "point_seconds"
"""Entry of a document: how long the command took, with its start."""


class Status(enum.Enum):
    """Of a point."""

    WAITING = "waiting"
    BEGUN = "begun"
    FAILED = "failed"
    FINISHED = "finished"


@dataclass(frozen=True)
class State:
    """What became of a point.

    Attributes:
        status: as far as its files tell.
        document: that its command printed, if it is finished; what is known of the failure, if it has failed.
    """

    status: Status
    document: dict[str, Any]

    @property
    def seconds(self) -> float | None:
        """Of the command, as far as known."""
        return self.document.get(SECONDS)


@dataclass(frozen=True)
class Files:
    """Where the files of a point are."""

    output: Path
    document: Path
    failure: Path
    log: Path

    @classmethod
    def of(cls, study: Study, folder: Path, point: Point) -> Files:
        """Those of a point of a study in this folder."""
        path = folder / "points" / point.name
        names = (path.with_name(f"{path.name}{suffix}") for suffix in (".json", ".failed.json", ".log"))
        return cls(output(study, folder, point.name), *names)

    def state(self) -> State:
        """What became of the point."""
        if document := self.printed():
            return State(Status.FINISHED, document)
        if failure := _read(self.failure):
            return State(Status.FAILED, failure)
        return State(Status.BEGUN if self.is_begun else Status.WAITING, {})

    @property
    def is_begun(self) -> bool:
        """Whether there is something to go on with."""
        return (self.output / CONFIG).exists() or self.output.is_file()

    def printed(self) -> dict[str, Any]:
        """The document, empty until it is whole."""
        return _read(self.document)

    def finish(self, document: dict[str, Any], seconds: float) -> None:
        """Add to the document how long it took to come to it."""
        write_atomically(self.document, as_json(document | {SECONDS: seconds}))
        self.failure.unlink(missing_ok=True)

    def fail(self, code: int, error: str, seconds: float) -> None:
        """Keep how the command has failed."""
        self.document.unlink(missing_ok=True)
        write_atomically(self.failure, as_json({"code": code, "error": error, SECONDS: seconds}))

    def wait(self) -> None:
        """Wait until no process works on the point: one whose sweep was killed may still save what it has."""
        path, busy = self.output, StudyError(f"{self.output} is in use")
        locks = [path / name for name in LOCKS] if path.is_dir() else [path.with_name(f".{path.name}.lock")]
        for lock in locks if path.exists() else []:
            with locked(lock, busy, wait=True):
                pass

    def last_words(self) -> str:
        """The last line that the command has said."""
        with suppress(OSError):
            with open(self.log, "rb") as file:
                file.seek(max(os.fstat(file.fileno()).st_size - 2**14, 0))
                lines = file.read().decode(errors="replace").splitlines()
            return next((line for line in reversed(lines) if line.strip()), "")
        return ""


def _read(path: Path) -> dict[str, Any]:
    """The entries of a JSON file; none if it is not there, or was cut short."""
    with suppress(OSError, ValueError):
        found = parse(path.read_bytes())
        if isinstance(found, dict):
            return found
    return {}
