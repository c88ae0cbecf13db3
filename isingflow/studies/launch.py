"""A study run to its end: what is finished is skipped, what was begun goes on, what has failed is tried again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from isingflow.errors import StudyError
from isingflow.runtime import stopping
from isingflow.runtime.checks import count
from isingflow.runtime.files import reason
from isingflow.runtime.locks import locked
from isingflow.studies.figure import draw
from isingflow.studies.plan import Point, Study, check_same, write
from isingflow.studies.points import State, Status
from isingflow.studies.runner import Ended, run_chain
from isingflow.studies.table import Row, Table

LOCK = ".sweep.lock"
MOST_JOBS = 1024

Chain = tuple[Point, ...]
Report = Callable[[Table, Row], Any]


class Launcher(Protocol):
    """Where chains of points are run."""

    def __call__(self, study: Study, folder: Path, chains: list[Chain], ended: Ended) -> None:
        """Run chains, in any order; tell of each point when it has ended, from whatever thread."""


def sweep(
    study: Study,
    folder: Path | str,
    *,
    jobs: int = 1,
    launcher: Launcher | None = None,
    report: Report = lambda table, row: None,
) -> Table:
    """Run what is left of a study, in the order of its points, with a table and a figure that grow on the way.

    Args:
        study: what to run.
        folder: new, or that of the same study; its points lie in `points`.
        jobs: how many run at a time on this machine; its cores are shared out among them.
        launcher: where else to run them, see `studies.cluster`.
        report: called with the table and the row of a point whenever one has ended.

    Returns:
        The table of all points. Some may have failed: the same call tries them again.

    Raises:
        StudyError: the folder holds another study, cannot be written, or another process works on it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = sweep(Study("exact", size=("4",), beta=(0.3, 0.4)), f"{folder}/study")
        >>> [row["status"] for row in table.rows.values()]
        ['finished', 'finished']
    """
    place = Path(folder)
    launch = Local(count("jobs", jobs, most=MOST_JOBS)) if launcher is None else launcher
    with opened(study, place):
        table = Table(study, place)
        finished = {row["point"] for row in table.having(Status.FINISHED)}
        left = [chain for chain in study.chains() if not finished.issuperset(point.name for point in chain)]
        table.save(draw)
        turn = threading.Lock()

        def ended(point: Point, state: State) -> None:
            with turn, stopping.deferred():
                report(table, table.put(point, state))
                table.save(draw, now=False)

        launch(study, place, left, ended)
        with stopping.deferred():
            table.save(draw)
        stopping.check()
    return table


@contextmanager
def opened(study: Study, folder: Path) -> Iterator[None]:
    """Within this context the folder is that of the study, and no other process runs it.

    Raises:
        StudyError: it holds another study, cannot be written, or another process runs it.
    """
    known = check_same(study, folder)
    try:
        (folder / "points").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"cannot create {folder}: {reason(error)}") from None
    with locked(folder / LOCK, StudyError(f"{folder} is in use: another sweep runs it; wait for it, or end it")):
        if not known and not check_same(study, folder):
            write(study, folder)
        yield


class Local:
    """Points on this machine: so many at a time, each a process with its share of the cores.

    Args:
        jobs: at a time.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def __call__(self, study: Study, folder: Path, chains: list[Chain], ended: Ended) -> None:
        """See `Launcher`. A thread waits for each process; signals are passed on to them."""
        from joblib import Parallel, cpu_count, delayed

        threads = max(cpu_count() // min(self.jobs, max(len(chains), 1)), 1)
        pool = Parallel(n_jobs=self.jobs, backend="threading", batch_size=1)
        pool(delayed(run_chain)(study, folder, chain, threads, ended) for chain in chains)
