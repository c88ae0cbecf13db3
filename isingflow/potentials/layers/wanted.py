"""Which cotangents a backward pass is to compute: those of the parameters are most of its work.

Torch tells a function of ours which of its inputs require gradients, not which of them are asked for. Who asks for
those of a field alone says so here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_asked = threading.local()


@contextmanager
def of_fields_alone() -> Iterator[None]:
    """Within, backward passes of this thread give no cotangents of parameters."""
    before = getattr(_asked, "fields_alone", False)
    _asked.fields_alone = True
    try:
        yield
    finally:
        _asked.fields_alone = before


def of_parameters(requiring: Sequence[bool]) -> bool:
    """Whether cotangents of parameters are wanted, given which of them require gradients.

    Example:
        >>> with of_fields_alone():
        ...     of_parameters([True])
        False
    """
    return any(requiring) and not getattr(_asked, "fields_alone", False)
