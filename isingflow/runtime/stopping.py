"""Signals that ask long work to stop: it looks for them between one batch and the next, and nothing is interrupted.

A handler only writes down which signal came. Loops `check` where nothing is half done, or ask `requested` if they have
something to save first; so no signal is lost in a callback, and none leaves by a back door. Outside of a command nobody
listens: in a notebook Ctrl-C is Python's own.

A limit of time is kept at the same places: work that is given some seconds is left (`within`) where it looks and finds
that they are over.

Several processes that do the same work must all leave it at the same place. They look at what they have last `agreed`
on instead: whether a signal has come to any of them, and the time on the first one's clock.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What asks for a stop."""
SAME = 1.0
"""Seconds in which further signals are the same request: `timeout` and batch systems send two or three at once."""
NOTICE = b"\nisingflow: stopping after this step; once more, at once\n"
"""To whoever has pressed Ctrl-C and waits."""
LOOK = 0.05
"""Seconds from one look to the next at work that cannot look itself."""


@dataclass
class Agreement:
    """What several processes go by until they talk to each other again.

    Attributes:
        signal: the number of one that has come to any of them; None of none.
        time: seconds of the first one's clock.
    """

    signal: int | None = None
    time: float = 0.0


_listening: StopRequest | None = None
_agreement: Agreement | None = None
_deferred = 0
_deadline = math.inf


class Stopped(BaseException):
    """Work has ended early, as asked; raised where it looks, so that all that is open is closed on the way out.

    Not an `Exception`: nothing that deals with errors may take it for one.

    Attributes:
        signal: the number of the signal that came.
    """

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(number)

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signal).name}"


class OutOfTime(BaseException):
    """Work has ended early, its time over; raised where it looks, and caught by the `within` that gave it the time."""


class StopRequest:
    """Whether a signal has come while this listened; within another one, whatever that has heard.

    Example:
        >>> request = StopRequest()
        >>> with request.listening():
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     request.requested()
        True
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._since = 0.0
        self._process = False
        self._outer: StopRequest | None = None

    @property
    def signal(self) -> int | None:
        """The number of the signal that came first, or None."""
        return self._signal if self._outer is None else self._outer.signal

    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    @contextmanager
    def listening(self, *, process: bool = False) -> Iterator[None]:
        """Listen within this context; only the main thread can. What is ignored (by nohup, for one) stays ignored.

        Args:
            process: whether this process is for this alone. Its handlers then stay until it ends, so that no signal
                meets a program that is half gone, and a second signal, `SAME` or more after the first, ends it at once.
        """
        global _listening
        self._outer, self._process = _listening, process
        if self._outer is not None or threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.getsignal(number) for number in SIGNALS}
        heard = [number for number in SIGNALS if earlier[number] is not signal.SIG_IGN]
        _listening = self
        for number in heard:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            _listening = None
            for number in () if process else heard:
                signal.signal(number, earlier[number])

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal, self._since = number, time.monotonic()
            if self._process and os.isatty(2):
                with suppress(OSError):
                    os.write(2, NOTICE)
        elif self._process and time.monotonic() - self._since >= SAME:
            os._exit(128 + number)


def note(number: int) -> None:
    """Take a signal that another process has got, in work that is shared with it, as if it had come here."""
    if _listening is not None and _listening._signal is None:
        _listening._signal, _listening._since = number, time.monotonic()


def received() -> int | None:
    """The number of the signal that whoever listens here has got, or None; whatever is agreed on."""
    return None if _listening is None else _listening.signal


def requested() -> bool:
    """Whether whoever listens has been asked to stop."""
    return _asked() is not None


def clock() -> float:
    """Seconds by which limits of time go: on this process's clock, or those that several have agreed on."""
    return time.perf_counter() if _agreement is None else _agreement.time


def late() -> bool:
    """Whether the time that was given to what runs now is over."""
    return _deadline < math.inf and clock() > _deadline


def check() -> None:
    """Where nothing is half done: raise Stopped if a stop is requested, OutOfTime if its time is over.

    Costs as much as reading a variable, and with a limit as reading the clock.
    """
    if late():
        raise OutOfTime
    asked = _asked()
    if asked is not None and not _deferred:
        raise Stopped(asked)


@contextmanager
def agreed(agreement: Agreement | None) -> Iterator[None]:
    """Within this context go by what several processes have agreed on; of None, by what has come to this one.

    Example:
        >>> with agreed(Agreement(signal=2)):
        ...     requested()
        True
    """
    global _agreement
    earlier, _agreement = _agreement, agreement
    try:
        yield
    finally:
        _agreement = earlier


@contextmanager
def deferred() -> Iterator[None]:
    """Within this context `check` raises nothing: for loops that ask `requested`, and save what they have."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1


@contextmanager
def heard() -> Iterator[None]:
    """Within this context `check` raises again, in spite of `deferred`: for long work that can be undone."""
    global _deferred
    earlier, _deferred = _deferred, 0
    try:
        yield
    finally:
        _deferred = earlier


def unless_asked(function: Callable[P, R], *args: P.args, **options: P.kwargs) -> R | None:
    """The result of work that may be left out; None if a stop is requested before it is done.

    Example:
        >>> unless_asked(max, 3, 4)
        4
    """
    try:
        with heard():
            check()
            return function(*args, **options)
    except Stopped:
        return None


def within(seconds: float, function: Callable[P, R], *args: P.args, **options: P.kwargs) -> R | None:
    """The result of work that may be left out; None if it looks up after so many seconds and is not done.

    Within another limit it has the time that this one leaves.

    Example:
        >>> within(60.0, max, 3, 4)
        4
    """
    global _deadline
    earlier, _deadline = _deadline, min(_deadline, clock() + seconds)
    try:
        return function(*args, **options)
    except OutOfTime:
        if earlier <= _deadline:
            raise
        return None
    finally:
        _deadline = earlier


def check_backward(tensor: Tensor) -> None:
    """Have backpropagation `check` when it comes by this tensor; nothing where nobody listens."""
    if _listening is not None and tensor.requires_grad:
        tensor.register_hook(lambda gradient: check())


def watched(function: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
    """The result of a computation that cannot look for signals itself, such as one that is compiled.

    While somebody listens it runs in a thread of its own. If a stop is requested it is left behind there: it must not
    write anything.

    Raises:
        Stopped: a stop was requested before it was done.

    Example:
        >>> watched(max, 3, 4)
        4
    """
    main = threading.current_thread() is threading.main_thread()
    if _listening is None or _agreement is not None or _deferred or not main:
        return function(*args, **options)
    found: list[R] = []
    failed: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            found.append(function(*args, **options))
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    check()
    threading.Thread(target=run, daemon=True).start()
    while not done.wait(LOOK):
        check()
    if failed:
        raise failed[0]
    return found[0]


def _asked() -> int | None:
    """The number of the signal to go by, or None."""
    return received() if _agreement is None else _agreement.signal
