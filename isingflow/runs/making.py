"""Where a new run may be made: in a folder that is new, empty, or left by a run whose making was cut short.

A folder is a run from the moment its config.json is there, which is written beside its place and renamed at last.
"""

from __future__ import annotations

import re
from pathlib import Path

from isingflow.errors import RunFolderError
from isingflow.runtime.files import beside

CONFIG, CHECKPOINT, STATE = "config.json", "checkpoint.safetensors", "state.json"
COARSE = "coarse"
"""The folder, within that of a run, of the one on half the lengths with which it starts."""
LOCKS = {TRAINING_LOCK := ".training.lock", RESULTS_LOCK := ".results.lock"}


def new_folder(path: Path) -> Path:
    """A folder for a new run, there now.

    Raises:
        RunFolderError: something is there already.
        OSError: it cannot be made.
    """
    if (path.exists() or path.is_symlink()) and not (path.is_dir() and _is_free(path)):
        raise _exists(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def new_numbered_folder(root: Path) -> Path:
    """The folder with the next number, there now.

    Raises:
        OSError: it cannot be made.
    """
    root.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in root.iterdir() if re.fullmatch(r"[0-9]+", path.name)), default=0)
    while True:
        number += 1
        try:
            (root / f"{number:03d}").mkdir()
        except FileExistsError:
            continue
        return root / f"{number:03d}"


def clear(path: Path) -> None:
    """Remove what was left by a run whose making was cut short.

    Raises:
        RunFolderError: another process has made a run there meanwhile.
        OSError: it cannot be removed.
    """
    if not _is_free(path):
        raise _exists(path)
    for name in _names(path) - LOCKS:
        (path / name).unlink()


def is_unmade(path: Path) -> bool:
    """Whether the making of a run was cut short here, before there was a config.json."""
    first = {name for file in (CONFIG, CHECKPOINT, STATE) for name in (file, beside(Path(file)).name)}
    return beside(Path(CONFIG)).name in _names(path) <= (first | LOCKS) - {CONFIG}


def _is_free(path: Path) -> bool:
    return is_unmade(path) or _names(path) <= LOCKS


def _names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def _exists(path: Path) -> RunFolderError:
    return RunFolderError(f"{path} exists: continue that run with --resume, or choose another name")
