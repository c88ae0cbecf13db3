"""How far a long command is: a bar on a terminal, else a line now and then, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PROGRESS_SECONDS = 10.0

ShowProgress = Callable[[int, int, str], None]


@contextmanager
def progress_display(quiet: bool = False) -> Iterator[ShowProgress]:
    """What shows progress: called with the number done, the number in all, and a text.

    A bar if standard error is a terminal, else a line every ten seconds; nothing if `quiet`.
    """
    if quiet:
        yield lambda done, total, text: None
        return
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.fields[count]}"), BarColumn(20), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task("preparing", total=None, count="")

        def show(done: int, total: int, text: str) -> None:
            display.update(task, total=total, completed=done, count=f"{done}/{total}", description=text)

        yield show


class PlainProgress:
    """Prints progress as lines, one every ten seconds."""

    def __init__(self) -> None:
        self._due = 0.0

    def __call__(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now >= self._due or done == total:
            self._due = now + PROGRESS_SECONDS
            print(f"{done}/{total}  {text}".rstrip(), file=sys.stderr, flush=True)


class Clock:
    """Time left, from the time that has passed and the part that is done.

    Example:
        >>> Clock().left(1, 1)
        '0:00 left'
    """

    def __init__(self) -> None:
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def left(self, done: int, total: int) -> str:
        """In words, "1:01 left"."""
        return time_left(self.seconds * (total - done) / max(done, 1))


def time_left(seconds: float) -> str:
    """A time in words.

    Example:
        >>> time_left(61.2)
        '1:01 left'
    """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d} left"
