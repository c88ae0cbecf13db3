"""Where tensors live: the device that was asked for, checked; and memory that is kept rather than given back."""

from __future__ import annotations

import re

import torch

from isingflow.errors import DeviceUnavailable
from isingflow.runtime.checks import shown


def resolve(device: torch.device | str) -> torch.device:
    """The device that was asked for: "cpu", "cuda", "cuda:1", "auto" (cuda where there is one), or torch's own object.

    Raises:
        DeviceUnavailable: no such device on this machine.

    Example:
        >>> resolve("cpu")
        device(type='cpu')
    """
    name = str(device) if isinstance(device, torch.device) else device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(name, str) or not re.fullmatch(r"cpu(:0)?|cuda(:(0|[1-9]\d{0,3}))?", name, re.ASCII):
        raise DeviceUnavailable(f"device is {shown(name)}, expected auto, cpu, cuda or cuda:N")
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        raise DeviceUnavailable(f"device {name}: this machine has {count or 'no'} CUDA device{'s' * (count > 1)}")
    return torch.device("cpu") if kind == "cpu" else torch.device(name)


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks for the next tensor rather than return them to the system.

    Fresh pages must be cleared by the system first, which can take longer than what is computed in them: a step of the
    image potential took 1.6 times as long. glibc raises its limits of its own accord to the largest block that was
    ever freed, up to 32 MiB; so one is. Does nothing elsewhere.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
