"""Who shares a batch of samples: the threads of one process, or, behind the same protocol, many processes.

Threads beat parallel tensor operations here: a step is thousands of small operations, and the fused kernels release
Python's lock. A share is a fixed slice of the batch, so results depend on the number of threads but never on timing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from isingflow.runtime import stopping

Result = TypeVar("Result")


class Batch(Protocol):
    """Samples that can be shared: a tensor, or several of the same length side by side."""

    def __len__(self) -> int:
        """Number of samples."""

    def chunk(self, chunks: int) -> Sequence[Self]:
        """About as many parts of about equal length, in order."""


Shared = TypeVar("Shared", bound=Batch)


class Backend(Protocol):
    """What a training asks of the threads or processes that share its batches.

    Attributes:
        count: shares that a batch is divided into here.
        rank, world: which of how many processes this is; every one has samples of its own, from a stream of its own,
            and only rank 0 writes.
    """

    count: int
    rank: int
    world: int

    def map(self, function: Callable[[Shared], Result], batch: Shared) -> list[Result]:
        """The results of a function for every share of this process's batch, in order."""

    def share(self, count: int) -> int:
        """How many of so many samples fall to this process."""

    def part(self, batch: Tensor) -> Tensor:
        """Those rows, of a batch that all processes have, that fall to this one."""

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor summed over all processes."""

    def gather(self, tensor: Tensor, count: int | None = None) -> Tensor:
        """The rows of all processes, one after the other: `count` of them, where each has as many as `share` says."""

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's tensors, in place."""

    def generator(self, device: torch.device, seed: int) -> torch.Generator:
        """A stream of random numbers of this process's own."""

    def run(self, function: Callable[[], Result]) -> Result:
        """What this process's part of some work gives, which is heard, see `stopping`; Stopped if any was asked to."""

    def first(self, function: Callable[[], Result]) -> Result:
        """What a function gives, or raises, on the first process, which alone calls it: for decisions and for files."""

    def clock(self) -> float:
        """Seconds of a clock on which all processes agree."""


class Workers:
    """A pool of threads that share batches of samples in one process; made by `workers`.

    Attributes:
        count: number of threads; 1 means that everything runs in the caller's thread.
    """

    rank = 0
    world = 1

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def map(self, function: Callable[[Shared], Result], batch: Shared) -> list[Result]:
        """The results of a function for every share of a batch, in order.

        The function runs with gradients enabled or not as in the caller's thread.
        """
        return self.each(function, [share for share in batch.chunk(self.count) if len(share)])

    def each(self, function: Callable[[Shared], Result], shares: Sequence[Shared]) -> list[Result]:
        """The results of a function for these shares, in order, as for `map`."""
        if self._pool is None or len(shares) == 1:
            return [function(share) for share in shares]
        enabled = torch.is_grad_enabled()

        def run(share: Shared) -> Result:
            with torch.set_grad_enabled(enabled):
                return function(share)

        return list(self._pool.map(run, shares))

    def share(self, count: int) -> int:
        """All of them: there is no other process."""
        return count

    def part(self, batch: Tensor) -> Tensor:
        """The batch itself."""
        return batch

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors themselves."""
        return list(tensors)

    def gather(self, tensor: Tensor, count: int | None = None) -> Tensor:
        """The tensor itself."""
        return tensor

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Nothing is to be done."""

    def generator(self, device: torch.device, seed: int) -> torch.Generator:
        """The stream of this seed."""
        return torch.Generator(device).manual_seed(seed)

    def run(self, function: Callable[[], Result]) -> Result:
        """What a function gives that hears of signals."""
        with stopping.heard():
            result = function()
            stopping.check()
        return result

    def first(self, function: Callable[[], Result]) -> Result:
        """What a function gives."""
        return function()

    def clock(self) -> float:
        """Seconds of this process's clock."""
        return time.perf_counter()

    def total(self, value: float) -> float:
        """The sum of a number over all processes that do the same work: the number itself."""
        return value

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


@contextmanager
def workers(device: torch.device, make: Callable[[int], Workers] = Workers) -> Iterator[Workers]:
    """As many threads as torch may use, each of which runs its tensor operations alone; one on a GPU.

    Args:
        device: of the work.
        make: the pool, from their number.

    Example:
        >>> with workers(torch.device("cpu")) as pool:
        ...     sum(pool.map(lambda share: float(share.sum()), torch.ones(10)))
        10.0
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield make(1)
        return
    torch.set_num_threads(1)
    pool = make(threads)
    try:
        yield pool
    finally:
        pool.close()
        torch.set_num_threads(threads)
