"""Many processes that train one flow: what torchrun has started, behind the protocol of `runtime.parallel`.

every process     draws its part of a batch from a stream of its own, and has the same flow
run               work of each; if one was asked to stop meanwhile, all stop
sum, gather       of tensors, over all of them: by gloo on the CPU, by NCCL on GPUs
first             work of the first one alone, whose result, or error, all have
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.runtime.group import Group
from isingflow.runtime.launched import place
from isingflow.runtime.parallel import Backend, Shared, Workers, workers

Result = TypeVar("Result")


class Processes:
    """Many processes, each with its own threads, that share batches; made by `together`.

    Args:
        group: of all processes.
        threads: of this one.
    """

    def __init__(self, group: Group, threads: Workers) -> None:
        self.group, self.threads = group, threads
        self.count, self.rank, self.world = threads.count, group.rank, group.world
        self.run, self.first = group.run, group.first

    def map(self, function: Callable[[Shared], Result], batch: Shared) -> list[Result]:
        """The results of a function for every share of this process's batch, in order."""
        return self.threads.map(function, batch)

    def share(self, count: int) -> int:
        """How many of so many samples fall to this process: about equally many to each, at least one."""
        return max(_shares(count, self.world)[self.rank], 1)

    def part(self, batch: Tensor) -> Tensor:
        """Those rows, of a batch that all processes have, that fall to this one."""
        return batch.split(_shares(len(batch), self.world))[self.rank]

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor summed over all processes: one operation, in float64."""
        flat = self.group.all_reduce(torch.cat([tensor.reshape(-1).double() for tensor in tensors]))
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]

    def gather(self, tensor: Tensor, count: int | None = None) -> Tensor:
        """The rows of all processes, one after the other.

        Args:
            tensor: of this process.
            count: of all rows, where each process has as many as `share` says; else they tell each other first.
        """
        if count is None:
            shares = [int(length) for length in self.group.all_gather(torch.tensor(len(tensor)))]
        else:
            shares = _shares(count, self.world)
        padded = tensor.new_zeros((max(shares), *tensor.shape[1:]), device="cpu")
        padded[: len(tensor)] = tensor
        found = self.group.all_gather(padded)
        return torch.cat([rows[:share] for rows, share in zip(found, shares, strict=True)]).to(tensor.device)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's tensors, in place."""
        for tensor in tensors:
            tensor.copy_(self.group.broadcast(tensor.detach().clone(memory_format=torch.contiguous_format)))

    def generator(self, device: torch.device, seed: int) -> torch.Generator:
        """A stream of this process's own."""
        return torch.Generator(device).manual_seed(mixed(seed, self.rank))

    def clock(self) -> float:
        """Seconds of the first process's clock, when all last agreed on it."""
        return self.group.agreement.time


def mixed(*numbers: int) -> int:
    """A seed from several numbers.

    Example:
        >>> mixed(1, 2) == mixed(1, 2) != mixed(2, 1)
        True
    """
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


_joined: list[Group] = []


def joined() -> Group | None:
    """The group of the processes that were started together, come together at the first call; None of one alone.

    Raises:
        InvalidInput: the environment is not that of one of several processes; ProcessLost: the others do not come.
    """
    here = place()
    if here.world == 1:
        return None
    if not _joined:
        _joined.append(Group(here))
    return _joined[0]


def company() -> Group | None:
    """The group of those that do the work of this one; None of one alone, or that does what the others wait for."""
    group = joined()
    return None if group is None or group.apart else group


@contextmanager
def together(device: torch.device) -> Iterator[Backend]:
    """Who shares the batches of a training: all processes that were started together, or the threads of one alone.

    Example:
        >>> with together(torch.device("cpu")) as pool:
        ...     pool.world
        1
    """
    group = company()
    with workers(device) as threads:
        if group is None:
            yield threads
            return
        with group.together("the last checkpoint is kept, --resume goes on from it"):
            yield Processes(group, threads)


def first(function: Callable[[], Result]) -> Result:
    """What a function gives, or raises, on the first of the processes that were started together, which alone calls it.

    Example:
        >>> first(lambda: 3)
        3
    """
    group = joined()
    return function() if group is None else group.first(function)


def placed(device: torch.device) -> torch.device:
    """The device of this process: of several on a machine with GPUs, each has one of its own.

    Raises:
        InvalidInput: one GPU is named for all of them, or there are fewer than processes.
    """
    here = place()
    if here.world == 1 or device.type != "cuda":
        return device
    if device.index is not None:
        raise InvalidInput(f"device {device}: each of {here.world} processes takes a GPU of its own: say cuda")
    if here.local_world > torch.cuda.device_count():
        raise InvalidInput(
            f"{here.local_world} processes on this machine, and {torch.cuda.device_count()} GPUs: start as many "
            "processes as there are GPUs, or take device cpu"
        )
    torch.cuda.set_device(here.local_rank)
    return torch.device("cuda", here.local_rank)


def _shares(count: int, world: int) -> list[int]:
    return [count // world + (rank < count % world) for rank in range(world)]
