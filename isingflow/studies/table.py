"""All points of a study as one table, rewritten when one has ended: table.csv, and table.json with the study itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from isingflow.errors import StudyError
from isingflow.evaluation.tables import write_table
from isingflow.runtime.files import reason, write_atomically
from isingflow.runtime.numbers import as_json
from isingflow.statistics.estimate import Estimate
from isingflow.studies.plan import Point, Study
from isingflow.studies.points import Files, State, Status

CSV, JSON = "table.csv", "table.json"
SHARE = 20
"""A table that takes long to write is written less often: it waits so many times as long."""
MOST_SHOWN = 200
"""Rows that a terminal is shown."""

ESTIMATES: dict[str, tuple[str, ...]] = {
    "train": (
        "variational_free_energy",
        "lower_bound",
        "reweighted_free_energy",
        "free_energy_ising_per_site",
        "gap_nats",
    ),
    "anneal": ("log_z", "lower_bound", "upper_bound"),
    "monte-carlo": ("energy_per_site", "magnetisation_squared"),
    "exact": (),
}
NUMBERS: dict[str, tuple[str, ...]] = {
    "train": ("sites", "exact_free_energy", "effective_sample_size", "certified", "training_seconds"),
    "anneal": ("sites", "exact_log_z", "effective_sample_size"),
    "monte-carlo": ("exact_energy_per_site",),
    "exact": ("sites", "log_z", "free_energy_ising_per_site", "energy_per_site", "heat_capacity_per_site"),
}
"""Entries of the documents that the commands print which become columns."""
SHOWN: dict[str, tuple[str, ...]] = {
    "train": ("variational_free_energy", "exact_free_energy", "gap_nats", "effective_sample_size"),
    "anneal": ("log_z", "exact_log_z", "effective_sample_size"),
    "monte-carlo": ("energy_per_site", "exact_energy_per_site"),
    "exact": ("log_z", "energy_per_site", "heat_capacity_per_site"),
}
"""Columns that a terminal is shown."""
UNKNOWN = {"value": None, "stderr": None}

Row = dict[str, Any]


class Table:
    """The rows of a study, kept up to date in its folder.

    Args:
        study: what is run.
        folder: where its points are read from.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.rows: dict[str, Row] = {}
        for point in study.points():
            self.put(point, Files.of(study, folder, point).state())
        self._due = 0.0

    def put(self, point: Point, state: State) -> Row:
        """What became of a point; returns its row."""
        self.rows[point.name] = row_of(self.study, point, state)
        return self.rows[point.name]

    def having(self, status: Status) -> list[Row]:
        """The rows with this status."""
        return [row for row in self.rows.values() if row["status"] == status.value]

    @property
    def ended(self) -> list[Row]:
        """The rows of points that are finished or have failed."""
        return self.having(Status.FINISHED) + self.having(Status.FAILED)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: the study, and a row for each of its points."""
        return {"study": self.study.to_dict(), "points": list(self.rows.values())}

    def save(self, draw: Callable[[Study, list[Row], Path], None] | None = None, *, now: bool = True) -> None:
        """Write the table, and what `draw` makes of it; unless `now`, only if the last time is long enough ago.

        Raises:
            StudyError: the disk is full or cannot be written.
        """
        started = time.monotonic()
        if not now and started < self._due:
            return
        rows = list(self.rows.values())
        try:
            write_table(self.folder / CSV, rows)
            write_atomically(self.folder / JSON, as_json(self.as_dict()))
            if draw is not None:
                draw(self.study, rows, self.folder)
        except OSError as error:
            raise StudyError(f"cannot write {self.folder}: {reason(error)}") from None
        self._due = time.monotonic() + SHARE * (time.monotonic() - started)

    def __str__(self) -> str:
        lines = [header(self.study), *(line(self.study, row) for row in list(self.rows.values())[:MOST_SHOWN])]
        if len(self.rows) > MOST_SHOWN:
            lines.append(f"  and {len(self.rows) - MOST_SHOWN} more: {self.folder / CSV}")
        return "\n".join(lines)


def row_of(study: Study, point: Point, state: State) -> Row:
    """A row of the table: axes, status, seconds, results, what went wrong."""
    document = state.document if state.status is Status.FINISHED else {}
    found: Row = {"point": point.name, **point.values, "status": state.status.value, "seconds": state.seconds}
    found |= {name: _estimate(document.get(name)) for name in ESTIMATES[study.command]}
    found |= {name: document.get(name) for name in NUMBERS[study.command]}
    return found | {"error": state.document.get("error")}


def header(study: Study) -> str:
    """Names of the columns that a terminal is shown."""
    width = max(len(study.first().name) + 8, 20)
    return f"{'':<{width}}{'status':>10}{'seconds':>10}" + "".join(
        f"{name.replace('_', ' '):>26}" for name in SHOWN[study.command]
    )


def line(study: Study, row: Mapping[str, Any]) -> str:
    """A row as a terminal is shown it."""
    width = max(len(study.first().name) + 8, 20)
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
    start = f"{row['point']:<{width}}{row['status']:>10}{seconds:>10}"
    if row["error"]:
        return f"{start}  {row['error']}"
    return start + "".join(f"{_shown(row[name]):>26}" for name in SHOWN[study.command])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        if value["value"] is None or value["stderr"] is None:
            return "" if value["value"] is None else f"{value['value']:.8g}"
        return str(Estimate(value["value"], value["stderr"]))
    return "" if value is None else f"{value:.8g}" if isinstance(value, float) else str(value)


def _estimate(entry: Any) -> dict[str, Any]:
    """An estimate of a document, if it is one."""
    return {name: entry.get(name) for name in UNKNOWN} if isinstance(entry, Mapping) else dict(UNKNOWN)
