"""Batches split over threads: each thread works through the whole flow for its share of the samples.

Threads beat parallel tensor operations here: a step is thousands of small operations, and the fused kernels release
Python's lock. A share is a fixed slice of the batch, so results depend on the number of threads but never on timing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Workers:
    """A pool of threads that share batches of samples; made by `workers`.

    Attributes:
        count: number of threads; 1 means that everything runs in the caller's thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count) if count > 1 else None

    def map(self, function: Callable[[Tensor], Result], batch: Tensor) -> list[Result]:
        """The results of a function for every share of a batch, in order.

        The function runs with gradients enabled or not as in the caller's thread.
        """
        shares = [share for share in batch.chunk(self.count) if len(share)]
        if self._pool is None or len(shares) == 1:
            return [function(share) for share in shares]
        enabled = torch.is_grad_enabled()

        def run(share: Tensor) -> Result:
            with torch.set_grad_enabled(enabled):
                return function(share)

        return list(self._pool.map(run, shares))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


@contextmanager
def workers(device: torch.device) -> Iterator[Workers]:
    """As many threads as torch may use, each of which runs its tensor operations alone; one on a GPU.

    Example:
        >>> with workers(torch.device("cpu")) as pool:
        ...     sum(pool.map(lambda share: float(share.sum()), torch.ones(10)))
        10.0
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield Workers(1)
        return
    torch.set_num_threads(1)
    pool = Workers(threads)
    try:
        yield pool
    finally:
        pool.close()
        torch.set_num_threads(threads)
