"""One point as a process: started with its share of the threads, told to stop when we are, its end written down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from isingflow.errors import IsingflowError
from isingflow.runtime import stopping
from isingflow.runtime.files import reason
from isingflow.studies import leash
from isingflow.studies.plan import Point, Study
from isingflow.studies.points import Files, State, Status

PROGRAM = (sys.executable, "-m", "isingflow.cli")
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
"""What libraries ask how many threads they may start; those for linear algebra ask the first."""
STOPPED = {128 + number for number in stopping.SIGNALS} | {-number for number in stopping.SIGNALS}
"""Codes of a command that was asked to stop."""
_LOOK = 0.1
"""Seconds between two looks at a process and at signals."""

Ended = Callable[[Point, State], Any]


def run_chain(
    study: Study, folder: Path, chain: Sequence[Point], threads: int, ended: Ended = lambda point, state: None
) -> None:
    """Run points one after the other, those that are not finished; after one that is not, none can start from it.

    Args:
        study: in `folder`.
        chain: the points.
        threads: that a command may start.
        ended: told of each that was run, and what became of it.
    """
    for point in chain:
        state = Files.of(study, folder, point).state()
        if state.status is not Status.FINISHED:
            if stopping.requested():
                break
            state = run_point(study, folder, point, threads)
            ended(point, state)
            if state.status is not Status.FINISHED:
                break


def run_point(study: Study, folder: Path, point: Point, threads: int) -> State:
    """Run one point, from where it was left; what becomes of it is in its files too."""
    files, started = Files.of(study, folder, point), time.monotonic()
    try:
        files.failure.unlink(missing_ok=True)
        files.wait()
        words = study.words(point, folder, resume=files.is_begun)
        if study.command == "monte-carlo":  # what is there was not told of
            files.output.unlink(missing_ok=True)
        code = _run(words, files, threads)
        seconds = time.monotonic() - started
        document = files.printed() if code == 0 else {}
        if document:
            files.finish(document, seconds)
        elif code not in STOPPED:
            files.fail(code, _why(code, files.last_words()), seconds)
        else:
            files.document.unlink()
    except (OSError, IsingflowError) as error:
        with suppress(OSError):
            files.fail(2, reason(error), time.monotonic() - started)
        return State(Status.FAILED, {"code": 2, "error": reason(error)})
    except stopping.Stopped:
        pass
    return files.state()


def environment(threads: int) -> dict[str, str]:
    """That of a command which may start so many threads, or fewer if fewer are wanted."""
    found = dict(os.environ)
    for name in THREADS:
        given = (found.get(each, "") for each in (THREADS[0], name))
        wanted = [int(number) for number in given if number.isdecimal() and int(number)]
        found[name] = str(min([threads, *wanted]))
    return found


def _run(words: Sequence[str], files: Files, threads: int) -> int:
    """The code with which a command ends. It prints into the file of its document itself: if we are killed before it
    is done, or just after, the document will be there or not be one.
    """
    with (
        open(files.log, "ab") as errors,
        open(files.document, "wb") as printed,
        subprocess.Popen(
            [sys.executable, leash.__file__, str(os.getpid()), *PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=errors,
            env=environment(threads),
            start_new_session=True,  # Ctrl-C on the terminal is for us, and told once
        ) as process,
    ):
        told = False
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_LOOK)
            if stopping.requested() and not told:
                process.send_signal(signal.SIGTERM)
                told = True


def _why(code: int, last: str) -> str:
    """Why a command has failed, in a line."""
    said = last.removeprefix("isingflow: error: ")
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        return f"killed by {name}" + (", perhaps for memory" if code == -signal.SIGKILL else "")
    return said or f"ended with {code} and said nothing"
