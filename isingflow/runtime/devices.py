"""Where tensors live: the device that was asked for, checked; and memory that is kept rather than given back."""

from __future__ import annotations

import re

import torch

from isingflow.errors import DeviceUnavailable


def resolve(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", "cuda:1", or "auto" (cuda where there is one).

    Raises:
        DeviceUnavailable: no such device on this machine.

    Example:
        >>> resolve("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9]\d{0,3}))?", name, re.ASCII):
        raise DeviceUnavailable(f"device {name}: expected auto, cpu, cuda or cuda:N")
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        raise DeviceUnavailable(f"device {name}: this machine has {count or 'no'} CUDA device{'s' * (count > 1)}")
    return torch.device(name)


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks for the next tensor rather than return them to the system.

    Fresh pages must be cleared by the system first, which can take longer than what is computed in them: a step of the
    image potential took 1.6 times as long. glibc raises its limits of its own accord to the largest block that was
    ever freed, up to 32 MiB; so one is. Does nothing elsewhere.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
