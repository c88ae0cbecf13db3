"""A study as text, for whoever runs it by other means: a line of the shell for every run, or the script of an array.

The lines need the package and nothing else. They leave the files that a sweep looks for, so a sweep that is started
afterwards in the same folder skips what they have finished.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isingflow.errors import InvalidInput
from isingflow.studies.launch import Chain
from isingflow.studies.plan import Point, Study
from isingflow.studies.points import Files

SBATCH = {"name": "job-name", "timeout_min": "time", "mem_gb": "mem", "tasks_per_node": "ntasks-per-node"}
"""What sbatch calls the parameters that submitit names otherwise."""


def shell_line(study: Study, folder: Path, point: Point) -> str:
    """The command of one run, with the files that it leaves.

    Example:
        >>> study = Study("exact", size=("4",), beta=(0.4,))
        >>> print(shell_line(study, Path("study"), study.first()))
        mkdir -p study/points && isingflow exact --size 4 --beta 0.4 --json \
> study/points/size4-beta0.4.json 2>> study/points/size4-beta0.4.log
    """
    files = Files.of(study, folder, point)
    words = shlex.join(["isingflow", *study.words(point, folder, resume=files.is_begun)])
    document, log = (shlex.quote(str(path)) for path in (files.document, files.log))
    return f"mkdir -p {shlex.quote(str(files.document.parent))} && {words} > {document} 2>> {log}"


def array_script(
    study: Study, folder: Path, chains: Sequence[Chain], *, jobs: int, parameters: Mapping[str, Any]
) -> str:
    """The script of a SLURM array for `sbatch`: a task for every chain, whose points run one after the other.

    Args:
        study: in `folder`.
        chains: what is left to run.
        jobs: tasks at a time.
        parameters: as for `cluster.Cluster`.

    Raises:
        InvalidInput: a parameter with a line break.
    """
    options = {"name": "isingflow", "cpus_per_task": 1, **parameters}
    options |= {"array": f"0-{len(chains) - 1}%{min(jobs, len(chains))}", "output": f"{folder}/points/%A_%a.out"}
    lines = ["#!/bin/bash"]
    for name, value in options.items():
        shown = f"{value:g}G" if name == "mem_gb" else str(value)
        if not f"{name}{shown}".isprintable():
            raise InvalidInput(f"parameters of the jobs: {name!r} is none")
        lines.append(f"#SBATCH --{SBATCH.get(name, name.replace('_', '-'))}={shlex.quote(shown)}")
    lines += ['export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"', 'case "$SLURM_ARRAY_TASK_ID" in']
    for number, chain in enumerate(chains):
        lines.append(f"{number})")
        lines.append(" && \\\n".join(f"    {shell_line(study, folder, point)}" for point in chain))
        lines.append("    ;;")
    return "\n".join([*lines, "esac"])
