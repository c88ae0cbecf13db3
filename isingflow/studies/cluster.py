"""A study on a cluster: SLURM by submitit, one job of an array for every chain of points, or every point by itself.

A job runs its points as this machine would; what becomes of them is read from their files, which all machines share.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from isingflow.errors import InvalidInput, StudyError
from isingflow.runtime import stopping
from isingflow.runtime.files import reason, write_atomically
from isingflow.runtime.numbers import as_json, parse
from isingflow.studies.launch import Chain
from isingflow.studies.plan import Study, read_study
from isingflow.studies.points import Files, Status
from isingflow.studies.runner import Ended, run_chain

FOLDER, JOBS = "slurm", "jobs.json"
"""Where submitit writes, and there the jobs that it was handed: which points each of them runs."""
POLL_SECONDS = 2.0
SHARED = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
"""Parameters that submitit has for all clusters; others are sbatch's own."""
WITHOUT = "--dry-run prints the script of an array for a machine that has"


class Cluster:
    """Jobs by submitit. What is queued from an earlier start is waited for, and not submitted again.

    Args:
        jobs: of the array at a time.
        parameters: of the jobs, as submitit names them (`timeout_min`, `mem_gb`, `cpus_per_task`, ...), or sbatch
            (`partition`, `account`, ...).
        kind: "slurm"; or "local", submitit's processes on this machine, by which all but SLURM itself is tested.

    Raises:
        InvalidInput: submitit is not installed, there is no SLURM here, or it has no such parameter.
    """

    def __init__(self, jobs: int, parameters: Mapping[str, Any] | None = None, kind: str = "slurm") -> None:
        try:
            import submitit
        except ImportError:
            raise InvalidInput(
                f"SLURM needs submitit: pip install 'isingflow[cluster]'; {WITHOUT} no submitit"
            ) from None
        if kind == "slurm" and submitit.SlurmExecutor.affinity() <= 0:
            raise InvalidInput(f"there is no SLURM on this machine (no srun); {WITHOUT} it")
        self._submitit, self._kind = submitit, kind
        named = {"cpus_per_task": 1, "slurm_array_parallelism": jobs}
        for name, value in (parameters or {}).items():
            named[name if name in SHARED else f"slurm_{name}"] = value
        self._named = named
        self._executor(Path())

    def __call__(self, study: Study, folder: Path, chains: list[Chain], ended: Ended) -> None:
        """See `launch.Launcher`. Where this is stopped, the jobs go on."""
        folder = folder.absolute()
        place = folder / FOLDER
        names = _known(place)
        running = {number: job for number in names if not (job := self._earlier(place, number)).done()}
        queued = {name for number in running for name in names[number]}
        new = [each for chain in chains if not queued.intersection(each := [point.name for point in chain])]
        if new:
            threads = int(self._named["cpus_per_task"])
            jobs = self._executor(place).map_array(run_job, len(new) * [folder], new, len(new) * [threads])
            names |= {job.job_id: each for job, each in zip(jobs, new, strict=True)}
            running |= {job.job_id: job for job in jobs}
            _remember(place, {number: names[number] for number in running})
        self._wait(study, folder, running, chains, ended)

    def _wait(self, study: Study, folder: Path, running: dict[str, Any], chains: list[Chain], ended: Ended) -> None:
        """Tell of points as they end, until all jobs have."""
        waiting = {point.name: point for chain in chains for point in chain}
        while True:
            over = all([job.done() for job in running.values()])
            for point in list(waiting.values()):
                state = Files.of(study, folder, point).state()
                if state.status in (Status.FINISHED, Status.FAILED) or (over and state.status is Status.BEGUN):
                    del waiting[point.name]
                    ended(point, state)
            if over:
                return
            stopping.check()
            time.sleep(POLL_SECONDS)

    def _executor(self, folder: Path) -> Any:
        executor = self._submitit.AutoExecutor(folder=folder, cluster=self._kind)
        try:
            executor.update_parameters(**self._named)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise InvalidInput(f"parameters of the jobs: {reason(error)}") from None
        return executor

    def _earlier(self, place: Path, number: str) -> Any:
        return {"slurm": self._submitit.SlurmJob, "local": self._submitit.LocalJob}[self._kind](place, number)


def run_job(folder: Path, names: list[str], threads: int) -> None:
    """What a job does: run these points of the study in a folder, one after the other."""
    study = read_study(folder)
    points = {point.name: point for point in study.points()}
    run_chain(study, folder, [points[name] for name in names], threads)


def _known(place: Path) -> dict[str, list[str]]:
    """Jobs of an earlier start, and the names of their points."""
    with suppress(OSError, ValueError):
        found = parse((place / JOBS).read_bytes())
        if isinstance(found, dict):
            return {number: names for number, names in found.items() if isinstance(names, list)}
    return {}


def _remember(place: Path, names: dict[str, list[str]]) -> None:
    try:
        write_atomically(place / JOBS, as_json(names))
    except OSError as error:
        raise StudyError(f"cannot write {place / JOBS}: {reason(error)}") from None
