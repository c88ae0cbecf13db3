"""Commands that torchrun has started several times at once, and that share their work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from isingflow.runtime import launched

Found = TypeVar("Found")


def by_first(function: Callable[[], Found]) -> Found:
    """What a function gives, or raises, on the first process, which alone calls it: for files, of commands of all."""
    if not launched.several():
        return function()  # without torch
    from isingflow.runtime.processes import first

    return first(function)
