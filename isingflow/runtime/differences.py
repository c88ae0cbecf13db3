"""How two nested descriptions differ, in words."""

from __future__ import annotations

from typing import Any

LONGEST_SHOWN = 60
"""Characters of an entry that an error message shows; the bonds of a graph have more."""


def differences(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """What differs between two nested descriptions, as "flow.hidden: 32 here, 48 there"."""
    here, there = _flatten(here), _flatten(there)
    names = [name for name in here | there if here.get(name) != there.get(name)]
    return [f"{name}: {_shown(here, name)} here, {_shown(there, name)} there" for name in names]


def _shown(flat: dict[str, Any], name: str) -> str:
    """An entry in words that fit on a line."""
    text = str(flat.get(name, "absent"))
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
