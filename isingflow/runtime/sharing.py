"""Many processes that do the same work as one: each computes its part of every batch, and all have the whole.

All go through the same program with the same random numbers. What they share is `map`, in which flows are evaluated: a
batch is divided as among the threads of one process, so that its results are those of one process with as many threads
as all have together, to the last digit. The first process's batch counts, so that its results do so even where others
round differently. Signals and the time are agreed on at every `map`, see `stopping.agreed`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from isingflow.runtime import stopping
from isingflow.runtime.group import Group
from isingflow.runtime.parallel import Shared, Workers, workers
from isingflow.runtime.processes import company

Result = TypeVar("Result")


class Sharing(Workers):
    """Many processes as the pool of one; made by `sharing`.

    Args:
        group: of all processes.
        count: threads of this one.
    """

    def __init__(self, group: Group, count: int) -> None:
        super().__init__(count)
        self.group = group
        counts = [int(message) for message in group.exchange(str(count).encode())]
        before = sum(counts[: group.rank])
        self._shares, self._own = sum(counts), slice(before, before + count)

    def map(self, function: Callable[[Shared], Result], batch: Shared) -> list[Result]:
        """The results of a function for every share of a batch, in order, of which this process computes its own.

        Args:
            function: of a tensor to a tensor, or to a tuple of them; looks for no signals, and takes no random numbers.
            batch: a tensor, the same for all processes.
        """
        if self.group.apart:
            return super().map(function, batch)
        stopping.check()
        assert isinstance(batch, Tensor)
        same: Any = self.group.broadcast(batch.detach().clone(memory_format=torch.contiguous_format))
        shares = [share for share in same.chunk(self._shares) if len(share)]
        with stopping.deferred():
            own = self.each(function, shares[self._own])
        found = self.group.exchange(pickle.dumps([_on(result, torch.device("cpu")) for result in own]))
        return [_on(result, batch.device) for message in found for result in pickle.loads(message)]

    def run(self, function: Callable[[], Result]) -> Result:
        """What a function gives that all processes call, each for itself."""
        return self.group.run(function)

    def first(self, function: Callable[[], Result]) -> Result:
        """What a function gives, or raises, on the first process, which alone calls it."""
        return self.group.first(function)

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.group.apart:
            return value
        return sum(float(message) for message in self.group.exchange(repr(value).encode()))

    def clock(self) -> float:
        """Seconds of the first process's clock, when all last agreed on it."""
        return self.group.agreement.time


@contextmanager
def sharing(device: torch.device, kept: str = "") -> Iterator[Workers]:
    """Who shares work that all processes do as one: all that were started together, or the threads of one alone.

    Args:
        device: of the work.
        kept: what remains if a process is lost, and what to do, in words.

    Raises:
        Stopped: a signal has come to one of them before.

    Example:
        >>> with sharing(torch.device("cpu")) as pool:
        ...     sum(pool.map(lambda share: share.sum(), torch.ones(10)))
        tensor(10.)
    """
    group = company()
    if group is None:
        with workers(device) as pool:
            yield pool
        return
    with group.together(kept), stopping.agreed(group.agreement), workers(device, partial(Sharing, group)) as pool:
        stopping.check()
        yield pool


def _on(result: Any, device: torch.device) -> Any:
    """Tensors, in tuples and lists of them too, on a device; without the rest of what they are parts of."""
    if isinstance(result, Tensor):
        return result.detach().to(device, copy=True)
    return type(result)(_on(part, device) for part in result)
