"""Run folders: everything that a training run leaves on disk, and nothing that could execute when it is read back.

    config.json                     the run's configuration, with its format and its provenance
    metrics.jsonl                   one JSON object per iteration
    checkpoint.safetensors          tensors and, in the file's metadata, the training state: never out of step
    state.json                      that state again, for people
    checkpoint.previous.safetensors, state.previous.json
    snapshots/00100.npy             samples at that iteration: spins, int8, shape (n, lx, ly); data, float32, (n, d);
                                    fields of a user's own target, float32
    report.json, report.txt         the last evaluation, for machines and as a table
    exact.json                      the exact answer of a magnet, once it was found, see `runs.solution`
    figures/                        PNG files
    coarse/                         the run folder of the smaller lattice that a run starts from

Every file but `metrics.jsonl` is replaced atomically: written beside its place, synced, renamed. A full disk or a kill
leaves the old file. A folder is a run from the moment its config.json is there; before, the same command begins anew.
A process that trains a run, or makes its report and figures, locks it. No physics and no training here.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor

from isingflow.errors import CheckpointError, RunFolderError
from isingflow.runs import checkpoint, metrics
from isingflow.runs.config import AnyRunConfig, DensityConfig, FamilyConfig, RunConfig, config_from_dict
from isingflow.runs.entries import checked_report, read_snapshot, read_text
from isingflow.runs.making import (
    CHECKPOINT,
    CONFIG,
    RESULTS_LOCK,
    STATE,
    TRAINING_LOCK,
    clear,
    is_unmade,
    new_folder,
    new_numbered_folder,
)
from isingflow.runs.provenance import provenance
from isingflow.runtime.differences import in_a_line
from isingflow.runtime.files import beside, reason, write_atomically, write_beside
from isingflow.runtime.locks import locked
from isingflow.runtime.numbers import finite_or_none, parse

RUNS = Path("runs")
"""Where runs without a name get their numbered folders, relative to the working directory."""
METRICS, TABLE = "metrics.jsonl", "report.txt"
UNFINISHED = ".unfinished"
"""In the folder of figures while they are drawn."""

_log = logging.getLogger(__name__)

Config_co = TypeVar("Config_co", bound=AnyRunConfig, covariant=True)
Made = TypeVar("Made", bound=AnyRunConfig)


@dataclass(frozen=True)
class RunFolder(Generic[Config_co]):
    """The folder of one run; made by `RunFolder.create` or `RunFolder.open`.

    To a type checker a `RunFolder[RunConfig]` is that of a magnet.

    Attributes:
        path: the folder.
        config: what is run.
        provenance: where the run comes from, see `runs.provenance`; empty for runs of version 0.1.

    Example:
        >>> import tempfile
        >>> from isingflow.lattice import square
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = RunFolder.create(Path(folder) / "run", RunConfig.from_preset("quick", square(4), 0.4))
        ...     run.append_metrics({"iteration": 1, "loss": float("nan")})
        ...     RunFolder.open(run.path).metrics()
        [{'iteration': 1, 'loss': None}]
    """

    path: Path
    config: Config_co
    provenance: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def create(cls, path: Path | str | None, config: Made, *, begun: bool = True) -> RunFolder[Made]:
        """A new run folder holding its configuration.

        Args:
            path: a new or empty folder, or one whose creation was cut short; if None, the next number under `runs/`.
            config: what is to be run.
            begun: whether the run can go on from its configuration alone. If not, it becomes a run by `begin`.

        Raises:
            RunFolderError: something is there already, or the folder cannot be written.
        """
        try:
            path = new_numbered_folder(RUNS) if path is None else new_folder(Path(path))
        except OSError as error:
            where = path or RUNS
            raise RunFolderError(f"cannot create the run folder {where}: {reason(error)}") from error
        run = RunFolder(path, config, provenance())
        try:
            with run.training():
                clear(path)
                write_beside(path / CONFIG, _json_bytes(config.to_dict() | {"provenance": run.provenance}))
                if begun:
                    run.begin()
        except OSError as error:
            with suppress(OSError):  # of an empty folder nothing is lost
                path.rmdir()
            raise RunFolderError(f"cannot write {path / CONFIG}: {reason(error)}") from error
        return run

    def begin(self) -> None:
        """Make a run of a folder that was not `begun`, from now on to be resumed."""
        written = beside(self.path / CONFIG)
        try:
            if written.exists():
                os.replace(written, self.path / CONFIG)
        except OSError as error:
            raise RunFolderError(f"cannot write {self.path / CONFIG}: {reason(error)}") from error

    @classmethod
    def open(cls, path: Path | str) -> AnyRun:
        """An existing run folder.

        Raises:
            RunFolderError: there is none at this path, or its configuration is not one.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunFolderError(f"no run folder at {path}")
        text = read_text(path / CONFIG)
        if text is None:
            begun = "; its making was cut short: give the command that began it again" if is_unmade(path) else ""
            raise RunFolderError(f"{path} is not a run folder: it has no config.json{begun}")
        try:
            entries = parse(text)
            found = entries.pop("provenance", {}) if isinstance(entries, dict) else {}
            return RunFolder(path, config_from_dict(entries), found if isinstance(found, dict) else {})
        except ValueError as error:
            raise RunFolderError(f"{path / CONFIG} does not describe a run: {reason(error)}") from None

    def part(self, name: str, config: AnyRunConfig) -> AnyRun:
        """The run folder of a stage of this run, within it, created if need be.

        Raises:
            RunFolderError: the folder cannot be written, or holds another run.
        """
        path = self.path / name
        if not (path / CONFIG).exists():
            return RunFolder.create(path, config)
        part = RunFolder.open(path)
        differences = part.config.differences(config)
        if differences:
            raise RunFolderError(f"{path} is not how {self.path} starts: {in_a_line(differences)}")
        return part

    def discard_unused(self) -> None:
        """Remove the folder if it holds nothing but the configuration: a run that was refused before it began."""
        if [path.name for path in self.path.iterdir()] in ([CONFIG], [beside(Path(CONFIG)).name]):
            for path in self.path.iterdir():
                path.unlink()
            self.path.rmdir()
            if self.path.parent == RUNS and not any(RUNS.iterdir()):
                RUNS.rmdir()

    def training(self) -> AbstractContextManager[None]:
        """Within this context no other process trains the run; RunFolderError where one does."""
        return locked(self.path / TRAINING_LOCK, self._in_use("trains it"))

    def results(self, wait: bool = False) -> AbstractContextManager[None]:
        """Within this context no other process makes the run's report and figures.

        Args:
            wait: for the other to end, rather than be refused.

        Raises:
            RunFolderError: one does.
        """
        return locked(self.path / RESULTS_LOCK, self._in_use("makes its report or figures"), wait=wait)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """While figures are drawn: until they are complete, `has_figures` is false."""
        mark = self.figures / UNFINISHED
        try:
            mark.touch()
            yield
            mark.unlink(missing_ok=True)
        except OSError as error:
            raise RunFolderError(f"cannot write {mark}: {reason(error)}") from error

    @property
    def has_figures(self) -> bool:
        """Whether figures were drawn, all of them."""
        return (self.path / "figures").is_dir() and not (self.path / "figures" / UNFINISHED).exists()

    @property
    def figures(self) -> Path:
        """The folder of figures, created if need be."""
        return self._folder("figures")

    def save_figure(self, name: str, content: bytes) -> Path:
        """Replace one file of `figures`; returns its path."""
        path = self.figures / name
        self._write(f"{path.parent.name}/{name}", content)
        return path

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to the metrics, see `runs.metrics`."""
        metrics.append(self.path / METRICS, record)

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics so far, in order; a last line torn by a kill is left out.

        Raises:
            RunFolderError: the file cannot be read, or another line is damaged.
        """
        return metrics.read(self.path / METRICS)

    def truncate_metrics(self, iteration: int) -> None:
        """Drop what was recorded after this iteration, and a torn last line: a resumed run writes it again."""
        metrics.truncate(self.path / METRICS, iteration)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint file, good or not."""
        return any((self.path / name).exists() for name in (CHECKPOINT, _previous(Path(CHECKPOINT))))

    def save_checkpoint(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint; the one before it is kept as the previous one.

        Args:
            tensors: by name, of any dtype, shape and device.
            state: JSON-serialisable; numbers that are not finite are written as null.

        Raises:
            RunFolderError: the disk is full or cannot be written; the checkpoint that was there is intact.
        """
        self._write(CHECKPOINT, checkpoint.pack(tensors, state, self.config.to_dict()), keep=True)
        self.save_state(state)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the copy of the checkpoint's state that is for people."""
        self._write(STATE, _json_bytes(finite_or_none(state)), keep=True)

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, on the CPU, and state of the checkpoint; of the previous one, with a warning, if it is damaged.

        Raises:
            CheckpointError: there is none, neither can be used, or config.json is not what it was learnt with.
        """
        if not self.has_checkpoint:
            raise CheckpointError(f"{self.path} has no checkpoint")
        current = self.path / CHECKPOINT
        try:
            found = checkpoint.read(current)
        except CheckpointError as error:
            if not _previous(current).exists():
                raise
            try:
                found = checkpoint.read(_previous(current))
            except CheckpointError as other:
                raise CheckpointError(f"{error}; {str(other).removeprefix(f'{self.path}{os.sep}')}") from None
            _log.warning("%s; using the previous checkpoint", error)
        checkpoint.check_configuration(found, self.config, self.path)
        return found.tensors, found.state

    def save_report(self, report: Mapping[str, Any], table: str = "") -> None:
        """Replace the report.

        Args:
            report: for machines; values that are not finite are written as null.
            table: the same for people.
        """
        self._write(TABLE, f"{table}\n".encode())
        self._write("report.json", _json_bytes(finite_or_none(report)))

    def report(self) -> dict[str, Any] | None:
        """The last saved report, or None.

        Raises:
            RunFolderError: there is a file, but it is not a report.
        """
        path = self.path / "report.json"
        text = read_text(path)
        try:
            return None if text is None else checked_report(parse(text))
        except ValueError as error:
            raise RunFolderError(f"{path} is not a report: {reason(error)}") from None

    @property
    def table(self) -> str:
        """The last report as a table; empty if there is none."""
        try:
            return (self.path / TABLE).read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError):
            return ""

    def save_snapshot(self, iteration: int, samples: np.ndarray) -> None:
        """Keep samples drawn at an iteration: int8 spins, shape (n, lx, ly), or float32 data or fields."""
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(samples, dtype=self.config.sample[0]), allow_pickle=False)
        self._folder("snapshots")
        self._write(f"snapshots/{iteration:05d}.npy", buffer.getvalue())

    def snapshots(self) -> dict[int, np.ndarray]:
        """Snapshots by iteration, ascending.

        Raises:
            RunFolderError: a file is not a snapshot of this run.
        """
        files = [path for path in (self.path / "snapshots").glob("*.npy") if re.fullmatch(r"\d+", path.stem)]
        return {
            int(path.stem): read_snapshot(path, *self.config.sample)
            for path in sorted(files, key=lambda path: int(path.stem))
        }

    def _in_use(self, how: str) -> RunFolderError:
        return RunFolderError(f"{self.path} is in use: another process {how}; wait for it, or end it")

    def _folder(self, name: str) -> Path:
        try:
            (self.path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"cannot create {self.path / name}: {reason(error)}") from error
        return self.path / name

    def _write(self, name: str, content: bytes, keep: bool = False) -> None:
        path = self.path / name
        try:
            write_atomically(path, content, previous=_previous(path) if keep else None)
        except OSError as error:
            there = f"; the {path.name} that was there is intact" if path.exists() else ""
            raise RunFolderError(f"cannot write {path}: {reason(error)}{there}") from error


AnyRun = RunFolder[AnyRunConfig]
"""The folder of a run of any kind."""


def open_magnet(path: Path | str) -> RunFolder[RunConfig]:
    """An existing run folder of a magnet.

    Raises:
        RunFolderError: there is none at this path, or it is that of another kind of run.
    """
    return of_kind(RunFolder.open(path), RunConfig)


def open_family(path: Path | str) -> RunFolder[FamilyConfig]:
    """An existing run folder of a magnet at all temperatures of a range.

    Raises:
        RunFolderError: there is none at this path, or it is that of another kind of run.
    """
    return of_kind(RunFolder.open(path), FamilyConfig)


def open_density(path: Path | str) -> RunFolder[DensityConfig]:
    """An existing run folder of data.

    Raises:
        RunFolderError: there is none at this path, or it is that of another kind of run.
    """
    return of_kind(RunFolder.open(path), DensityConfig)


def of_kind(run: AnyRun, kind: type[Made]) -> RunFolder[Made]:
    """The run folder, if its run is of this kind.

    Raises:
        RunFolderError: it is of another kind.
    """
    config = run.config
    if not isinstance(config, kind):
        raise RunFolderError(f"{run.path} is a run on {config.on} ({config}), not on {kind.on}")
    return RunFolder(run.path, config, run.provenance)


def _previous(path: Path) -> Path:
    return path.with_suffix(".previous" + path.suffix)


def _json_bytes(data: Any) -> bytes:
    return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()
