"""Numbers as files hold them: JSON has no infinities and no NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite_or_none(value: Any) -> Any:
    """The same, with null for every float that is not finite, at whatever depth of mappings, lists and tuples.

    Example:
        >>> finite_or_none({"value": 1.5, "stderr": math.inf, "steps": (1, math.nan)})
        {'value': 1.5, 'stderr': None, 'steps': [1, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite_or_none(entry) for name, entry in value.items()}
    return [finite_or_none(entry) for entry in value] if isinstance(value, list | tuple) else value
