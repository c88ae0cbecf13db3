"""Run folders: everything that a training run leaves on disk, and nothing that could execute when it is read back.

    config.json                     the run's configuration, with its format and its provenance
    metrics.jsonl                   one JSON object per iteration
    checkpoint.safetensors          tensors and, in the file's metadata, the training state: never out of step
    state.json                      that state again, for people
    checkpoint.previous.safetensors, state.previous.json
    snapshots/00100.npy             samples at that iteration: spins, int8, shape (n, lx, ly); data, float32, (n, d);
                                    fields of a user's own target, float32
    report.json                     the last evaluation
    figures/                        PNG files
    coarse/                         the run folder of the smaller lattice that a run starts from

Every file but `metrics.jsonl` is replaced atomically: written beside its place, synced, renamed. A full disk or a kill
leaves the old file. No physics and no training here.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import safetensors.torch
from torch import Tensor

from isingflow.errors import CheckpointError, RunFolderError
from isingflow.runs.config import AnyRunConfig, DensityConfig, RunConfig, config_from_dict
from isingflow.runs.provenance import provenance
from isingflow.runtime.files import write_atomically
from isingflow.runtime.numbers import finite_or_none

RUNS = Path("runs")
"""Where runs without a name get their numbered folders, relative to the working directory."""

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
    def create(cls, path: Path | str | None, config: Made) -> RunFolder[Made]:
        """A new run folder holding its configuration.

        Args:
            path: a new or empty folder; if None, the next number under `runs/`.
            config: what is to be run.

        Raises:
            RunFolderError: something is there already, or the folder cannot be written.
        """
        try:
            path = _new_numbered_folder(RUNS) if path is None else _new_folder(Path(path))
        except OSError as error:
            where = path or RUNS
            raise RunFolderError(f"cannot create the run folder {where}: {_reason(error)}") from error
        run = RunFolder(path, config, provenance())
        run._write("config.json", _json_bytes(config.to_dict() | {"provenance": run.provenance}))
        return run

    @classmethod
    def open(cls, path: Path | str) -> AnyRun:
        """An existing run folder.

        Raises:
            RunFolderError: there is none at this path, or its configuration is not one.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunFolderError(f"no run folder at {path}")
        try:
            text = (path / "config.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RunFolderError(f"{path} is not a run folder: it has no config.json") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RunFolderError(f"cannot read {path / 'config.json'}: {_reason(error)}") from error
        try:
            entries = json.loads(text)
            found = entries.pop("provenance", {}) if isinstance(entries, dict) else {}
            return RunFolder(path, config_from_dict(entries), found if isinstance(found, dict) else {})
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise RunFolderError(f"{path / 'config.json'} does not describe a run: {_reason(error)}") from error

    def part(self, name: str, config: AnyRunConfig) -> AnyRun:
        """The run folder of a stage of this run, within it, created if need be.

        Raises:
            RunFolderError: the folder cannot be written, or holds another run.
        """
        path = self.path / name
        if not (path / "config.json").exists():
            return RunFolder.create(path, config)
        part = RunFolder.open(path)
        differences = part.config.differences(config)
        if differences:
            raise RunFolderError(f"{path} is not how {self.path} starts: {'; '.join(differences)}")
        return part

    def discard_unused(self) -> None:
        """Remove the folder if it holds nothing but the configuration: a run that was refused before it began."""
        if [path.name for path in self.path.iterdir()] == ["config.json"]:
            (self.path / "config.json").unlink()
            self.path.rmdir()
            if self.path.parent == RUNS and not any(RUNS.iterdir()):
                RUNS.rmdir()

    @property
    def figures(self) -> Path:
        """The folder of figures, created if need be."""
        return self._folder("figures")

    def save_figure(self, name: str, content: bytes) -> Path:
        """Replace one file of `figures`; returns its path."""
        self._write(f"{self.figures.name}/{name}", content)
        return self.figures / name

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to the metrics; values that are not finite are written as null."""
        line = json.dumps(finite_or_none(dict(record)), allow_nan=False)
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunFolderError(f"cannot write {self.path / 'metrics.jsonl'}: {_reason(error)}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics so far, in order; a last line torn by a kill is left out.

        Raises:
            RunFolderError: the file cannot be read, or another line is damaged.
        """
        path = self.path / "metrics.jsonl"
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunFolderError(f"cannot read {path}: {_reason(error)}") from error
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or not isinstance(record.get("iteration"), int):
                    raise ValueError("no iteration")
            except (ValueError, RecursionError):
                if number == len(lines):
                    break
                raise RunFolderError(f"{path}: line {number} is not a record of metrics") from None
            records.append(record)
        return records

    def truncate_metrics(self, iteration: int) -> None:
        """Drop what was recorded after this iteration, and a torn last line: a resumed run writes it again."""
        kept = [record for record in self.metrics() if record["iteration"] <= iteration]
        self._write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in kept).encode())

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint file, good or not."""
        return any((self.path / f"{name}.safetensors").exists() for name in ("checkpoint", "checkpoint.previous"))

    def save_checkpoint(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint; the one before it is kept as the previous one.

        Args:
            tensors: by name, of any dtype, shape and device.
            state: JSON-serialisable and finite.

        Raises:
            RunFolderError: the disk is full or cannot be written; the checkpoint that was there is intact.
        """
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        text = json.dumps(dict(state), allow_nan=False)
        self._write("checkpoint.safetensors", safetensors.torch.save(copies, {"state": text}), keep=True)
        self._write("state.json", _json_bytes(dict(state)), keep=True)

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, on the CPU, and state of the checkpoint; of the previous one, with a warning, if it is damaged.

        Raises:
            CheckpointError: there is none, or neither can be used.
        """
        if not self.has_checkpoint:
            raise CheckpointError(f"{self.path} has no checkpoint")
        current, previous = (self.path / f"{name}.safetensors" for name in ("checkpoint", "checkpoint.previous"))
        try:
            return _read_checkpoint(current)
        except CheckpointError as error:
            if not previous.exists():
                raise
            found = _read_checkpoint(previous, after=error)
            _log.warning("%s; using the previous checkpoint", error)
            return found

    def save_report(self, report: Mapping[str, Any]) -> None:
        """Replace report.json; values that are not finite are written as null."""
        self._write("report.json", _json_bytes(finite_or_none(dict(report))))

    def report(self) -> dict[str, Any] | None:
        """The last saved report, or None.

        Raises:
            RunFolderError: there is a file, but it is not a report.
        """
        path = self.path / "report.json"
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(report, dict):
                raise ValueError("not a JSON object")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(f"cannot read {path}: {_reason(error)}") from error
        return report

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
        return {int(path.stem): self._read_snapshot(path) for path in sorted(files, key=lambda path: int(path.stem))}

    def _read_snapshot(self, path: Path) -> np.ndarray:
        try:
            samples = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError) as error:
            raise RunFolderError(f"{path} is not a snapshot: {_reason(error)}") from error
        kind, shape = self.config.sample
        if not isinstance(samples, np.ndarray) or samples.dtype != kind or samples.shape[1:] != shape:
            raise RunFolderError(f"{path} is not a snapshot of {self.config}")
        return samples

    def _folder(self, name: str) -> Path:
        try:
            (self.path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"cannot create {self.path / name}: {_reason(error)}") from error
        return self.path / name

    def _write(self, name: str, content: bytes, keep: bool = False) -> None:
        path = self.path / name
        try:
            write_atomically(path, content, previous=path.with_suffix(".previous" + path.suffix) if keep else None)
        except OSError as error:
            there = f"; the {path.name} that was there is intact" if path.exists() else ""
            raise RunFolderError(f"cannot write {path}: {_reason(error)}{there}") from error


AnyRun = RunFolder[AnyRunConfig]
"""The folder of a run of any kind."""


def open_magnet(path: Path | str) -> RunFolder[RunConfig]:
    """An existing run folder of a magnet.

    Raises:
        RunFolderError: there is none at this path, or it is that of another kind of run.
    """
    return of_kind(RunFolder.open(path), RunConfig)


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


def _new_folder(path: Path) -> Path:
    if (path.exists() or path.is_symlink()) and (not path.is_dir() or any(path.iterdir())):
        raise RunFolderError(f"{path} exists: continue that run with --resume, or choose another name")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _new_numbered_folder(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in root.iterdir() if re.fullmatch(r"[0-9]+", path.name)), default=0)
    while True:
        number += 1
        try:
            (root / f"{number:03d}").mkdir()
        except FileExistsError:
            continue
        return root / f"{number:03d}"


def _read_checkpoint(path: Path, after: CheckpointError | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of one file; the file's length and header are checked before anything is built from it."""
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        state = json.loads(header["__metadata__"]["state"])
        if not isinstance(state, dict):
            raise ValueError("its state is not a JSON object")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except KeyError:
        problem = "it holds no training state"
    except Exception as error:  # a hostile file may raise anything here; none of it may reach the user as a traceback
        problem = _reason(error)
    else:
        return tensors, state
    message = f"{path} is not a usable checkpoint ({problem})"
    raise CheckpointError(f"{after}; {message}" if after else message) from None


def _json_bytes(data: Any) -> bytes:
    return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()


def _reason(error: BaseException) -> str:
    """What went wrong, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
