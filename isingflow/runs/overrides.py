"""Settings in place of a preset's own, by name: flow.width = 128, training.batch = 512.

Names are those of the entries of a run's `config.json`. What is accepted is what the classes of settings accept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from msgspec.structs import replace

from isingflow.errors import InvalidInput
from isingflow.runs.density import DensityConfig
from isingflow.runs.family import FamilyConfig
from isingflow.runs.magnet import RunConfig
from isingflow.runs.target import TargetConfig
from isingflow.runtime.checks import instance, shown
from isingflow.runtime.settings import Settings, accepted, types

AnyConfig = RunConfig | FamilyConfig | DensityConfig | TargetConfig
Config = TypeVar("Config", bound=AnyConfig)

PARTS = ("family", "flow", "training")
"""What of a run has settings, as far as there is such a part."""
KERNELS = ("flow.radial", "flow.oriented")
"""Of convolutions on a torus; flows of other fields would ignore them."""
ALIKE = 0.75
"""How much alike names are, at least, of which one is told as near to the other; see difflib."""
NOT_OF_DATA = {
    "flow.whitened": "what a flow of data starts from is its `start`",
    "training.evaluation_samples": "a run on data is evaluated on all of its test data",
}
"""Settings that a run on data would ignore, with the reason."""


def overridden(config: Config, settings: Mapping[str, Any] | None) -> Config:
    """The run with some of its settings changed, which it remembers in `settings`.

    Args:
        config: of a preset.
        settings: by name, such as "flow.width" or "training.batch"; `known` lists them.

    Raises:
        InvalidInput: unknown names, with the nearest ones; values out of range, with the range; settings that mean
            nothing to this run, or contradict each other.

    Example:
        >>> from isingflow.datasets import load
        >>> config = DensityConfig.from_preset("quick", load("moons"), flow="ot")
        >>> changed = overridden(config, {"flow.width": 32, "training.batch": 512})
        >>> changed.flow.width, changed.training.batch, changed.settings
        (32, 512, {'flow.width': 32, 'training.batch': 512})
        >>> overridden(config, {"flow.widht": 32})
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: 'flow.widht': no such setting; the nearest is flow.width; there are ...
    """
    given = instance("settings", settings or {}, Mapping, 'settings by name, such as {"training.batch": 512}')
    if not given:
        return config
    names = known(config)
    changed = {part: getattr(config, part) for part in PARTS if hasattr(config, part)}
    for name, value in given.items():
        if not isinstance(name, str) or name not in names:
            raise InvalidInput(_unknown(name, [known for known in names if not _useless(config, known)]))
        if reason := _useless(config, name):
            raise InvalidInput(f"{name}: {reason}")
        part, *path = name.split(".")
        changed[part] = _changed(changed[part], path, value, name)
    made = replace(config, **changed)
    return replace(made, settings=still_true(made, config.settings | {name: _at(made, name) for name in given}))


def known(config: AnyConfig) -> list[str]:
    """The names of all settings of a run.

    Example:
        >>> from isingflow.datasets import load
        >>> known(DensityConfig.from_preset("quick", load("moons")))[:3]
        ['flow.potential', 'flow.hidden', 'flow.radial']
    """
    parts = [part for part in PARTS if hasattr(config, part) and (part != "flow" or config.flow.kind != "own")]
    return [name for part in parts for name in _names(getattr(config, part), part)]


def still_true(config: AnyConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some settings that a run has: what was set of an earlier one may have been changed since."""
    names = known(config)
    return {name: value for name, value in settings.items() if name in names and _at(config, name) == value}


def _names(settings: Settings, prefix: str) -> Iterator[str]:
    for entry in types(type(settings)):
        name, value = f"{prefix}.{entry}", getattr(settings, entry)
        yield name
        if isinstance(value, Settings):
            yield from _names(value, name)


def _at(config: AnyConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _changed(settings: Settings, path: list[str], value: Any, name: str) -> Settings:
    """The settings with the entry at the end of a path changed."""
    entry, *deeper = path
    if deeper:
        value = _changed(getattr(settings, entry), deeper, value, name)
    try:
        return replace(settings, **{entry: value})
    except InvalidInput:
        expected = accepted(types(type(settings))[entry])
        raise InvalidInput(f"{name} is {shown(value)}, expected {expected}") from None


def _useless(config: AnyConfig, name: str) -> str:
    """Why a setting would be ignored; empty if it would not."""
    if name in KERNELS and not config.domain.convolutional:
        return f"only flows on a uniform torus have convolutions, this run is on {config}"
    return NOT_OF_DATA.get(name, "") if config.kind == "data" else ""


def _unknown(name: object, names: list[str]) -> str:
    """That there is no such setting, and which there are: first those that are spelt nearly so."""
    text = name if isinstance(name, str) else ""
    by_entry: dict[str, list[str]] = {}
    for known_name in names:
        by_entry.setdefault(known_name.rpartition(".")[2], []).append(known_name)
    near = [
        found for entry in get_close_matches(text.rpartition(".")[2], by_entry, 3, ALIKE) for found in by_entry[entry]
    ]
    near = near or get_close_matches(text, names, 3, ALIKE)
    shortest = [known_name for known_name in names if known_name.count(".") == 1]
    nearest = f"the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}; " if near else ""
    return f"{shown(name)}: no such setting; {nearest}there are {', '.join(shortest)}"
