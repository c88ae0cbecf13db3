"""All processes that torchrun has started, and how they talk: collective operations, and who is lost.

So long as all do the same calls in the same order, they decide the same: nothing is decided by a clock but that of the
first one, which `run` and `first` bring along. A process that ends closes its connections, which ends the others'
waiting at once; one that hangs, or whose machine is gone, is noticed by its heartbeat, a number in torchrun's store.
"""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from isingflow.errors import IsingflowError, ProcessLost
from isingflow.runtime import stopping
from isingflow.runtime.launched import Place

Result = TypeVar("Result")

JOIN = timedelta(minutes=2)
"""For all processes to come together at first."""
LOOK = 2.0
"""Seconds of waiting after which a process looks whether the others are well, and again."""
BEAT, SILENCE = 3.0, 40.0
"""Seconds between two heartbeats, and without one, after which a process is lost."""
PATIENCE = timedelta(hours=24)
"""Of the connections themselves: whoever waits looks by itself."""
SHORT = 4096
"""Bytes of a message that is sent at once; a longer one follows it."""


class Group:
    """All processes that were started together, and how they talk; made by `processes.joined`.

    Args:
        here: the place of this process.

    Attributes:
        agreement: what all go by, see `stopping.agreed`.
        apart: whether this process does alone what the others wait for, see `first`.
    """

    def __init__(self, here: Place) -> None:
        self.rank, self.world = here.rank, here.world
        self.agreement = stopping.Agreement()
        self.apart = False
        self._broken: ProcessLost | None = None
        self._works, self._kept = 0, ""
        self._beats: dict[int, tuple[bytes, float]] = {}
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        try:
            store = next(iter(dist.rendezvous("env://", self.rank, self.world, timeout=JOIN)))[0]
            self._store = dist.PrefixStore("isingflow", store)
            if dist.is_initialized():
                self._group = dist.new_group(backend=backend, timeout=PATIENCE)
            else:
                options: dict[str, Any] = {"store": dist.PrefixStore("isingflow/group", store), "timeout": PATIENCE}
                dist.init_process_group(backend, rank=self.rank, world_size=self.world, **options)
                self._group = dist.group.WORLD
        except (RuntimeError, ValueError) as error:
            raise ProcessLost(f"the {self.world} processes do not find each other: {error}") from None
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()
        atexit.register(self._leave)
        self.first(lambda: None)

    def all_reduce(self, tensor: Tensor, operation: Any = dist.ReduceOp.SUM) -> Tensor:
        """The tensor, in place of which there is now the sum, or another reduction, over all processes."""
        self._do(lambda: dist.all_reduce(tensor, operation, group=self._group, async_op=True))
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The tensor, in place of which there is now that of the first process."""
        self._do(lambda: dist.broadcast(tensor, 0, group=self._group, async_op=True))
        return tensor

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, all of the same shape."""
        found = [torch.empty_like(tensor) for _ in range(self.world)]
        self._do(lambda: dist.all_gather(found, tensor, group=self._group, async_op=True))
        return found

    def exchange(self, message: bytes = b"") -> list[bytes]:
        """The messages of all processes, which agree anew on signals and on the time."""
        head = torch.tensor([len(message), stopping.received() or 0, time.perf_counter()], dtype=torch.float64)
        lengths, signals, times = torch.stack(self.all_gather(head)).T.tolist()
        self.agreement.time = times[0]
        self._asked(int(max(signals)))
        if not any(lengths):
            return [b""] * self.world
        padded = torch.zeros(int(max(lengths)), dtype=torch.uint8)
        padded[: len(message)] = _bytes(message)
        found = self.all_gather(padded)
        return [bytes(rows[: int(length)].numpy()) for rows, length in zip(found, lengths, strict=True)]

    def hear(self) -> None:
        """Without waiting: tell the others of a signal, or take theirs for one that has come here; look after them."""
        key, asked = f"asked/{self._works}", stopping.received()
        try:
            if asked is not None:
                self._store.set(key, str(asked))
            elif self._store.check([key]):
                stopping.note(int(self._store.get(key)))
        except RuntimeError as error:
            raise self._lost(f"torchrun does not answer: {error}") from None
        self._look()

    def run(self, function: Callable[[], Result]) -> Result:
        """What this process's part of some work gives, see `Backend.run`; without collectives in it."""
        asked, found = 0, []
        try:
            with stopping.heard():
                found.append(function())
                stopping.check()
        except stopping.Stopped as stopped:
            asked = stopped.signal
        now = time.perf_counter() if self.rank == 0 else float("-inf")
        state = self.all_reduce(torch.tensor([asked, now], dtype=torch.float64), dist.ReduceOp.MAX)
        asked, self.agreement.time = int(state[0]), float(state[1])
        if asked:
            stopping.note(asked)
            raise stopping.Stopped(asked)
        return found[0]

    def first(self, function: Callable[[], Result]) -> Result:
        """What a function gives on the first process, which alone calls it; or what it raises there, see `Backend`."""
        if self.rank > 0:
            found, error = pickle.loads(self._received())
            if error is not None:
                self._asked(error.signal if isinstance(error, stopping.Stopped) else 0)
                raise error
            return found
        if self.apart:
            return function()
        self.apart = True
        try:
            with stopping.agreed(None):
                found = function()
        except BaseException as error:
            self._asked(error.signal if isinstance(error, stopping.Stopped) else 0)
            self._send(_packed(None, error))
            raise
        finally:
            self.apart = False
        self._send(_packed(found, None))
        return found

    @contextmanager
    def together(self, kept: str = "") -> Iterator[None]:
        """Within this context, whatever is raised here is told to processes that wait for this one.

        Args:
            kept: what remains if one of them is lost, and what to do, in words.
        """
        self._works += 1
        earlier, self._kept, self.agreement.signal = self._kept, kept, None
        try:
            yield
            self._kept = earlier
        except BaseException as error:
            if not isinstance(error, ProcessLost):
                with suppress(RuntimeError):
                    if self.rank == 0:
                        self._store.set("told", "0")
                    self._store.set(f"failed/{self._works}/{self.rank}", str(error) or type(error).__name__)
            raise

    def _asked(self, number: int) -> None:
        """A signal that has come to one of the processes has come to all; 0 of none."""
        if number:
            stopping.note(number)
            self.agreement.signal = number

    def _send(self, message: bytes) -> None:
        self.agreement.time = now = time.perf_counter()
        short = torch.zeros(2 * 8 + SHORT, dtype=torch.uint8)
        short[:16].view(torch.float64).copy_(torch.tensor([len(message), now], dtype=torch.float64))
        short[16 : 16 + len(message)] = _bytes(message[:SHORT])
        self.broadcast(short)
        if len(message) > SHORT:
            self.broadcast(_bytes(message[SHORT:]))

    def _received(self) -> bytes:
        short = self.broadcast(torch.empty(16 + SHORT, dtype=torch.uint8))
        length, self.agreement.time = short[:16].view(torch.float64).tolist()
        message = bytes(short[16 : 16 + int(length)].numpy())
        if length > SHORT:
            message += bytes(self.broadcast(torch.empty(int(length) - SHORT, dtype=torch.uint8)).numpy())
        return message

    def _do(self, begin: Callable[[], Any]) -> None:
        """One collective operation, to its end."""
        if self._broken is not None:
            raise self._broken
        try:
            work = begin()
        except RuntimeError as error:
            raise self._lost(str(error)) from None
        while True:
            try:
                work.wait(timedelta(seconds=LOOK))
                return
            except RuntimeError as error:
                if work.is_completed() and not _succeeded(work):
                    raise self._lost(str(error)) from None
            self._look()

    def _look(self) -> None:
        """Whether the others are well."""
        try:
            for other in self._others():
                failed = self._failed(other)
                if failed is not None:
                    raise self._lost(failed, other)
                beat = self._store.get(f"alive/{other}") if self._store.check([f"alive/{other}"]) else b""
                now = time.monotonic()
                if self._beats.setdefault(other, (beat, now))[0] != beat:
                    self._beats[other] = beat, now
                if now - self._beats[other][1] > SILENCE:
                    raise self._lost(f"nothing was heard of it for {SILENCE:.0f} seconds", other)
        except RuntimeError as error:
            raise self._lost(f"torchrun does not answer: {error}") from None

    def _others(self) -> list[int]:
        return [other for other in range(self.world) if other != self.rank]

    def _failed(self, other: int) -> str | None:
        """What another process said of its end."""
        key = f"failed/{self._works}/{other}"
        return self._store.get(key).decode(errors="replace") if self._store.check([key]) else None

    def _lost(self, why: str, other: int | None = None) -> ProcessLost:
        """The error of work that has lost a process; from here on nobody is waited for."""
        told = False
        with suppress(RuntimeError):
            for one in self._others():
                failed = self._failed(one)
                why, other = (why, other) if failed is None else (failed, one)
            told = self._store.compare_set("told", "", str(self.rank)).decode() != str(self.rank)
        other = 1 - self.rank if self.world == 2 else other
        who = f"another of the {self.world} processes" if other is None else f"process {other} of {self.world}"
        message = f"{who} has ended or failed ({' '.join(why.split())[:200]})"
        self._broken = ProcessLost(f"{message}; {self._kept}" if self._kept else message, told=told)
        return self._broken

    def _beat(self) -> None:
        """Show that this process lives, by a connection of its own."""
        address, beats = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), 0
        with suppress(RuntimeError):  # torchrun is gone, which the next look will find
            store = dist.PrefixStore("isingflow", dist.TCPStore(*address, is_master=False, timeout=JOIN))
            while True:
                store.set(f"alive/{self.rank}", str(beats))
                if self._ended.wait(BEAT):
                    return
                beats += 1

    def _leave(self) -> None:
        """Before the interpreter ends: a thread that outlives it in a call to torchrun would abort it."""
        self._ended.set()
        if self._broken is not None:  # the connections would wait for whoever is lost
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(1)
        self._heart.join(timeout=SILENCE)
        if dist.is_initialized():
            dist.destroy_process_group()


def _succeeded(work: Any) -> bool:
    """Whether an operation that is over has not failed."""
    try:
        work.wait()
    except RuntimeError:
        return False
    return True


def _bytes(message: bytes) -> Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else torch.empty(0, dtype=torch.uint8)


def _packed(found: Any, error: BaseException | None) -> bytes:
    """A result or an error as bytes; an error that cannot be sent as what it says."""
    try:
        message = pickle.dumps((found, error))
        if error is not None:
            pickle.loads(message)
    except Exception:
        message = pickle.dumps((None, IsingflowError(f"the first process has failed: {error}")))
    return message
