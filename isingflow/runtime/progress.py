"""How far long work is: a bar on a terminal, a line that changes in a notebook, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PROGRESS_SECONDS = 10.0

ShowProgress = Callable[[int, int, str], None]


@contextmanager
def progress_display(quiet: bool = False) -> Iterator[ShowProgress]:
    """What shows progress: called with the number done, the number in all, and a text.

    On standard error: a bar on a terminal, one changing line in a notebook, else a line every ten seconds; nothing if
    `quiet`.
    """
    if quiet:
        yield lambda done, total, text: None
        return
    if in_notebook():
        yield PlainProgress(seconds=0.5, end="\r")
        return
    if not sys.stderr.isatty():
        yield PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.fields[count]}"), BarColumn(20), TextColumn("{task.description}")
    display = Progress(*columns, console=Console(stderr=True))
    task = display.add_task("preparing", total=None, count="")

    def show(done: int, total: int, text: str) -> None:
        display.update(task, total=total, completed=done, count=f"{done}/{total}", description=text)

    with suppress(OSError):  # the terminal may be gone, the work goes on
        display.start()
    try:
        yield show
    finally:
        with suppress(OSError):
            display.stop()


@contextmanager
def progress_of(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """What shows how much of long work is done, and the time left: called with the numbers done and in all.

    Args:
        what: is counted, "samples".
        quiet: as for `progress_display`.
    """
    clock = Clock()
    with progress_display(quiet) as show:
        yield lambda done, total: show(done, total, f"{what}  {clock.left(done, total)}")


def is_watched() -> bool:
    """Whether a person sees the progress: on a terminal or in a notebook."""
    return sys.stderr.isatty() or in_notebook()


def in_notebook() -> bool:
    """Whether this process serves a notebook."""
    return "ipykernel" in sys.modules


class PlainProgress:
    """Prints progress as lines, one after so many seconds, each ended by `end`."""

    def __init__(self, seconds: float = PROGRESS_SECONDS, end: str = "\n") -> None:
        self.seconds = seconds
        self.end = end
        self._due = 0.0

    def __call__(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now >= self._due or done == total:
            self._due = now + self.seconds
            end = "\n" if done == total else self.end
            with suppress(OSError):
                print(f"{done}/{total}  {text}".rstrip(), file=sys.stderr, flush=True, end=end)


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
