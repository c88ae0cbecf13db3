"""Paths of annealing that many processes share: each runs some of those that are not run, and all enter all of them.

A path has a random stream of its own, so it does not matter who runs it. Processes work in rounds; at the end of one
they tell each other what they have, so that the first one can save it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from isingflow.monte_carlo.paths import Paths, ReportProgress, run
from isingflow.runtime import stopping

if TYPE_CHECKING:
    from isingflow.runtime.group import Group

ROUND = 10.0
"""Seconds in which paths are begun, before all wait for those that are at work."""


def run_together(
    paths: Paths,
    *,
    group: Group,
    threads: int,
    report_progress: ReportProgress | None = None,
    keep: Callable[[], None] = lambda: None,
    keep_last: Callable[[], None] = lambda: None,
) -> None:
    """Run the paths that are not run yet by all processes, and enter their log-weights in all of them.

    Args:
        paths: the same in all processes, updated in place; where they end is not kept.
        group: of the processes.
        threads: of this one.
        report_progress, keep, keep_last: as for `paths.run`; `keep` is called after every round.

    Raises:
        Stopped: a signal came to one of them; what any of them has run by then is entered.
        ProcessLost: one of them has ended; what this one has run is entered.
    """
    directions = paths.forward, paths.reverse
    total = sum(map(len, directions)) * paths.sweeps

    def report(done: int, _: int) -> None:
        if report_progress is not None:
            report_progress(min(before + group.world * (done - before), total), total)

    try:
        while (before := paths.done * paths.sweeps) < total and group.agreement.signal is None:
            missing = [np.flatnonzero(np.isnan(log_weights[:, 0])) for log_weights in directions]
            part = slice(group.rank, None, group.world)
            with suppress(stopping.Stopped):  # which all hear of below
                run(paths, threads=threads, report_progress=report, part=part, seconds=ROUND, look=group.hear)
            own = [_done(*entries) for entries in zip(missing, directions, strict=True)]
            for message in group.exchange(pickle.dumps(own)):
                for log_weights, (numbers, found) in zip(
                    (paths.forward, paths.reverse), pickle.loads(message), strict=True
                ):
                    log_weights[numbers] = found
            keep()
    finally:
        keep_last()
    if group.agreement.signal is not None:
        raise stopping.Stopped(group.agreement.signal)


def _done(numbers: np.ndarray, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of the paths with these numbers that are run now, and their log-weights."""
    run_now = numbers[~np.isnan(log_weights[numbers, 0])]
    return run_now, log_weights[run_now]
