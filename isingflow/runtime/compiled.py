"""Functions of numbers and arrays that numba compiles when they are first needed, so that nobody else waits for numba.

To load numba and what it has compiled takes half a second, to compile it anew several. What a command does not call, it
does not wait for; and where little is to be done, a function of plain numbers may run as it stands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any

from isingflow.runtime.resources import require_address_space

ADDRESS_SPACE = 340 * 2**20
"""Bytes that numba and what it compiles are loaded into."""


class Compilable:
    """A function that runs as it stands; `compiled` is the same in machine code. Compiled functions may call it too.

    Compiled, it releases Python's lock.

    Example:
        >>> double = Compilable(lambda x: 2 * x, cache=False)
        >>> double(3), double.compiled(3)
        (6, 6)
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self._function, self._options = function, {"cache": True, "nogil": True} | options
        update_wrapper(self, function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    @cached_property
    def compiled(self) -> Any:
        """The function as numba compiles it, or has compiled it before.

        Raises:
            InvalidInput: numba is not loaded yet, and a limit of the address space leaves too little for it.
        """
        if "numba" not in sys.modules:
            require_address_space("compiled code", ADDRESS_SPACE)
        import numba

        return numba.njit(**self._options)(self._function)

    @property
    def _numba_type_(self) -> Any:
        """What numba asks of what compiled functions call."""
        return self.compiled._numba_type_


class Compiled(Compilable):
    """A function that is compiled when it is first called."""

    def __call__(self, *args: Any) -> Any:
        return self.compiled(*args)


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function when it is first called; with options, those of `numba.njit`."""
    return Compiled(function) if function is not None else lambda found: Compiled(found, **options)
