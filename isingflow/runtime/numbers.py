"""Numbers as files hold them: JSON has no infinities and no NaN."""

from __future__ import annotations

import json
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


def as_json(value: Any) -> bytes:
    """A JSON document as files hold it, null where it is not finite.

    Example:
        >>> as_json({"gap": math.nan})
        b'{\\n  "gap": null\\n}\\n'
    """
    return (json.dumps(finite_or_none(value), indent=2, allow_nan=False) + "\n").encode()


def parse(text: str | bytes) -> Any:
    """What a JSON text holds, if it is one that can be written: no NaN, no infinities, no name twice in one place.

    Raises:
        ValueError: it is none; the message fits into a line.

    Example:
        >>> parse('{"steps": [1, 2.5, null]}')
        {'steps': [1, 2.5, None]}
        >>> parse('{"steps": 1e999}')
        Traceback (most recent call last):
        ValueError: 1e999 is no number that is finite
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_named)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number that is finite")
    return value


def _named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice in one place")
    return entries
