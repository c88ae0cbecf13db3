"""What files of a run hold, checked when they are read: a training's state, records of metrics, reports.

Nothing is taken on trust: a file may be damaged, edited, or none at all. What is wrong is told in one line.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from isingflow.errors import InvalidInput, RunFolderError
from isingflow.runs.settings import MOST_ITERATIONS
from isingflow.runtime.checks import count, shown
from isingflow.runtime.files import check_regular, reason
from isingflow.runtime.npy import DAMAGED, read_array
from isingflow.runtime.settings import MOST_STEPS, Finite, Settings, Text, read

Amount = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
LARGEST = 1e100
"""Size of a number in metrics or reports: none that was measured is larger, and figures can still be drawn."""


class KeptState(Settings, frozen=True, forbid_unknown_fields=False):
    """Which weights are kept, the best ones on the data held back: those after an iteration, and their score."""

    iteration: Annotated[int, Meta(ge=0, le=MOST_ITERATIONS)]
    score: Finite


class State(Settings, frozen=True, forbid_unknown_fields=False):
    """The state of a training, as checkpoints hold it; later versions may hold more.

    Attributes:
        iteration: how many are done.
        seconds: that they took, with those of its stages, `stage_seconds`.
        steps: of the integration; 0 where nothing is integrated.
        finished: whether the training is.
        integration_error_nats: the last one measured, None before or if it was not finite.
        device: that it ran on.
        recent: readings of the last iterations.
        kept: the best weights, where some are kept.
        resting: whether the flow is its start.
    """

    iteration: Annotated[int, Meta(ge=0, le=MOST_ITERATIONS)]
    seconds: Amount
    steps: Annotated[int, Meta(ge=0, le=MOST_STEPS)]
    finished: bool
    stage_seconds: Amount = 0.0
    integration_error_nats: Amount | None = None
    device: Text = "cpu"
    recent: tuple[dict[Text, Finite | None], ...] = ()
    kept: KeptState | None = None
    resting: bool = False


def checked_state(entries: Any) -> dict[str, Any]:
    """The entries of a state, as they are.

    Raises:
        InvalidInput: they are none.
    """
    read(entries, State, "the state of a training")
    return dict(entries)


def checked_record(entries: Any) -> dict[str, Any]:
    """The entries of a record of metrics, as they are: an iteration, and numbers that are known or not.

    Raises:
        InvalidInput: they are none.
    """
    if not isinstance(entries, dict):
        raise InvalidInput("expected named entries")
    count("iteration", entries.get("iteration"), least=0, most=MOST_ITERATIONS)
    for name, entry in entries.items():
        if not all(map(_is_number, entry if isinstance(entry, list) else [entry])):
            raise InvalidInput(f"{shown(name)} is {shown(entry)}, expected a number or null")
    return entries


def checked_report(entries: Any) -> dict[str, Any]:
    """The entries of a report, as they are: numbers, texts, truth values, and estimates with their errors.

    Raises:
        InvalidInput: they are none.
    """
    if not isinstance(entries, dict):
        raise InvalidInput("expected named entries")
    for name, entry in entries.items():
        _check_reported(name, entry)
    return entries


def _check_reported(name: str, entry: Any) -> None:
    if isinstance(entry, Mapping):
        for part, value in entry.items():
            _check_reported(f"{name}.{part}", value)
        if "stderr" in entry and not (_is_number(entry["stderr"]) and _is_number(entry.get("value", ""))):
            raise InvalidInput(f"{shown(name)} is {shown(entry)}, expected a value and a standard error")
    elif isinstance(entry, list):
        for value in entry:
            _check_reported(name, value)
    elif not isinstance(entry, bool | str) and not _is_number(entry):
        raise InvalidInput(f"{shown(name)} is {shown(entry)}, expected a number of a usual size")


def _is_number(entry: Any) -> bool:
    """Whether an entry is null or a number with which one can calculate."""
    if entry is None:
        return True
    return isinstance(entry, int | float) and not isinstance(entry, bool) and -LARGEST <= entry <= LARGEST


def estimate_in(report: Mapping[str, Any] | None, name: str) -> float | None:
    """The value of an estimate in a report, if it is there and known."""
    entry = (report or {}).get(name)
    value = entry.get("value") if isinstance(entry, Mapping) else None
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def read_snapshot(path: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Samples of a flow while it was trained.

    Args:
        path: of the .npy file.
        kind, shape: of a sample, "int8" for spins, "float32" for others.

    Raises:
        RunFolderError: the file holds others, or none.
    """
    check_regular(path, RunFolderError)
    try:
        with open(path, "rb") as file:
            samples = read_array(file, path.stat().st_size)
    except (*DAMAGED, MemoryError) as error:
        raise RunFolderError(f"{path} is not a snapshot: {reason(error)}") from None
    if samples.dtype != kind or samples.shape[1:] != shape or not len(samples):
        raise RunFolderError(f"{path} is not a snapshot of samples of shape {shape}, {kind}")
    if not (np.abs(samples) == 1 if kind == "int8" else np.isfinite(samples)).all():
        wanted = "spins +1 or -1" if kind == "int8" else "finite numbers"
        raise RunFolderError(f"{path} is not a snapshot: expected {wanted}")
    return samples


def read_text(path: Path, errors: str = "strict") -> str | None:
    """The text in a file of a run; None if there is no file.

    Args:
        path: the file.
        errors: what to do about bytes that are no text, as in `open`.

    Raises:
        RunFolderError: it is something else than a regular file, or cannot be read.
    """
    if not path.exists():
        return None
    check_regular(path, RunFolderError)
    try:
        return path.read_text(encoding="utf-8", errors=errors)
    except (OSError, UnicodeDecodeError, MemoryError) as error:
        raise RunFolderError(f"cannot read {path}: {reason(error)}") from None
