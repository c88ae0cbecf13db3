"""Where tensors live: the device that was asked for, checked."""

from __future__ import annotations

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
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise DeviceUnavailable(f"device {name}: expected auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        raise DeviceUnavailable(f"device {name}: this machine has {count or 'no'} CUDA device{'s' * (count > 1)}")
    return torch.device(name)
