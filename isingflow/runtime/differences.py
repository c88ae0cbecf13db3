"""How two nested descriptions differ, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LONGEST_TOLD = 150
"""Characters of differences from which no further ones are told."""
LONGEST_SHOWN = 60
"""Characters of an entry that an error message shows; the bonds of a graph have more."""


def differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """What differs between two nested descriptions, as "flow.hidden: 32 here, 48 there"."""
    here, there = _flatten(here), _flatten(there)
    names = [name for name in here | there if here.get(name) != there.get(name)]
    return [f"{_cut(name)}: {_shown(here, name)} here, {_shown(there, name)} there" for name in names]


def in_a_line(changes: Sequence[str]) -> str:
    """Differences as part of a message; of many, the first ones.

    Example:
        >>> in_a_line(["beta: 0.4 here, 0.5 there"])
        'beta: 0.4 here, 0.5 there'
        >>> in_a_line(["beta: 0.4 here, 0.5 there"] * 100)
        'beta: 0.4 here, ... there; and 93 more'
    """
    told: list[str] = []
    while len(told) < len(changes) and sum(map(len, told)) <= LONGEST_TOLD:
        told.append(changes[len(told)])
    more = len(changes) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)


def _shown(flat: dict[str, Any], name: str) -> str:
    """An entry in words that fit on a line."""
    return _cut(str(flat.get(name, "absent")))


def _cut(text: str) -> str:
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
