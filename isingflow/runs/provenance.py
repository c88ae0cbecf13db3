"""Where a run comes from: the versions, the kind of machine and the command behind it, for whoever finds its folder.

Of the machine only its kind is told, no name of it or of its user.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import isingflow

SOURCES = Path(isingflow.__file__).parents[1]
"""The folder that isingflow was imported from."""


def provenance() -> dict[str, Any]:
    """What is known of a run that starts now.

    Example:
        >>> sorted(provenance())
        ['command_line', 'commit', 'host_kind', 'isingflow', 'numpy', 'started', 'torch']
    """
    return {
        "isingflow": isingflow.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": commit(SOURCES),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host_kind": host_kind(),
        "command_line": command_line(sys.argv),
    }


def commit(folder: Path) -> str | None:
    """The commit of a source tree, marked -dirty where files differ from it; None if git does not know the folder.

    An installed package may lie within somebody else's repository, whose commits say nothing of it.
    """
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def host_kind() -> str:
    """The kind of machine, for example "Linux x86_64, 2 cores, cpu"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return f"{platform.system()} {platform.machine()}, {cores} core{'' if cores == 1 else 's'}, {device}"


def command_line(arguments: list[str]) -> str:
    """The command as it was given, without the folder in which the program lies.

    Example:
        >>> command_line(["/somewhere/bin/isingflow", "train", "--size", "8"])
        'isingflow train --size 8'
    """
    program = Path(arguments[0])
    name = shlex.quote(program.name)
    if program.name == "__main__.py":
        folder = program.parent
        while (folder.parent / "__init__.py").exists():
            folder = folder.parent
        name = f"python -m {'.'.join(program.parent.relative_to(folder.parent).parts)}"
    return " ".join([name, *map(shlex.quote, arguments[1:])])
