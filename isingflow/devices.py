"""Where tensors live: the device that was asked for, checked."""

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
