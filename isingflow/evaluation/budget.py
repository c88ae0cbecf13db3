"""How much an evaluation can do in the time it is given, and how far it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from isingflow.runtime import stopping

Result = TypeVar("Result")

MOST_STEPS = 10**6
"""Of a bridge, which nobody has the time for."""
PILOT = 8
"""Samples on which the time of one is measured."""
LONGER = 4
"""Times as long as the chains before are those that are tried next."""


class Budget:
    """Seconds for an evaluation, and what a sample costs.

    Args:
        seconds: it may take; None: as long as it takes.

    Example:
        >>> Budget(None).samples(1000, cost=1e9, share=0.5)
        1000
        >>> Budget(60.0).samples(1000, cost=0.5, share=0.5)
        60
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = math.inf if seconds is None else seconds

    def cost(self, work: Callable[[], Any]) -> float:
        """Seconds of a sample, of work on `PILOT` of them; zero where there is time for anything."""
        if math.isinf(self.seconds):
            return 0.0
        before = self.seconds
        with self.taken_off():
            work()
        return (before - self.seconds) / PILOT

    @contextmanager
    def taken_off(self) -> Iterator[None]:
        """What is done within takes its time from what is left.

        Example:
            >>> import time
            >>> budget = Budget(60.0)
            >>> with budget.taken_off():
            ...     time.sleep(0.01)
            >>> budget.seconds < 60
            True
        """
        begun = stopping.clock()
        try:
            yield
        finally:
            self.seconds -= stopping.clock() - begun

    def longest(self, work: Callable[[int], Result], wanted: int, *, least: int, share: float = 1.0) -> Result | None:
        """The result of work of the wanted length, or of the greatest that ends in time; None if not even the least.

        How long it takes is not known before, and its beginning may take most of the time, as that of a chain does: so
        it is done at the least length, and at `LONGER` times that, until the next would not end.

        Args:
            work: done at a length, looks whether its time is over (`stopping.check`).
            wanted: its length, all that is done without a limit.
            least: length, if that much is wanted.
            share: of all the time, that it may take.

        Example:
            >>> Budget(None).longest(lambda length: "x" * length, 10, least=2)
            'xxxxxxxxxx'
        """
        if math.isinf(self.seconds):
            return work(wanted)
        spare = (1 - share) * self.seconds
        found, length = None, min(least, wanted)
        while True:
            before = self.seconds
            with self.taken_off():
                longer = stopping.within(before - spare, work, length)
            found = found if longer is None else longer
            if longer is None or length == wanted or before - self.seconds > self.seconds - spare:
                return found
            length = min(LONGER * length, wanted)

    def samples(self, wanted: int, *, cost: float, share: float, least: int = 2) -> int:
        """As many as are wanted, or as there is time for.

        Args:
            wanted: number of samples.
            cost: seconds of one.
            share: of all the time, that they may take.
            least: number, if that many are wanted.
        """
        if cost * wanted <= share * max(self.seconds, 0.0):
            return wanted
        return min(wanted, max(least, int(share * max(self.seconds, 0.0) / cost)))


class Meter:
    """Tells how much of an evaluation is done.

    Args:
        report: called with the numbers of samples done and in all; None: nobody wants to know.
        total: samples in all, about.

    Example:
        >>> Meter(lambda done, total: print(f"{done} of {total}"), 8).add(3)
        3 of 8
    """

    def __init__(self, report: Callable[[int, int], None] | None, total: int) -> None:
        self._report, self._done, self._total = report, 0, total

    def add(self, samples: int) -> None:
        """So many more are done."""
        self._done += samples
        if self._report is not None:
            self._report(min(self._done, self._total), self._total)
