"""Frozen settings with limits: checked when they are made, when they are changed and when they are read from JSON.

The types say what is accepted, `Annotated` with limits; msgspec keeps them. What it finds wrong is told in one line:
which entry, what it is, what is accepted.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, overload

import msgspec
import numpy as np
from msgspec import Meta

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import shown

# The upper limits are far above what anybody wants and below what would run for ever or overflow.
Count = Annotated[int, Meta(ge=1, le=10**9)]
"""One or more."""
CountFromZero = Annotated[int, Meta(ge=0, le=10**9)]
"""Zero or more."""
Width = Annotated[int, Meta(ge=1, le=2**16)]
"""Units side by side in a network."""
WidthFromZero = Annotated[int, Meta(ge=0, le=2**16)]
Depth = Annotated[int, Meta(ge=1, le=1000)]
"""Parts of a network, one after the other."""
DepthFromZero = Annotated[int, Meta(ge=0, le=1000)]
MOST_STEPS = 10**4
Steps = Annotated[int, Meta(ge=1, le=MOST_STEPS)]
"""Of an integration."""
StepsFromZero = Annotated[int, Meta(ge=0, le=MOST_STEPS)]
Duration = Annotated[float, Meta(gt=0, le=1e4)]
"""Of an integration."""
Seed = Annotated[int, Meta(ge=0, le=2**62)]
Whole = Annotated[int, Meta(ge=-(2**62), le=2**62)]
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
"""From 0 to below 1."""
_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]*\Z"
Text = Annotated[str, Meta(max_length=4096, pattern=_ONE_LINE)]
"""On one line, and such that it can be printed."""
Name = Annotated[str, Meta(min_length=1, max_length=4096, pattern=_ONE_LINE)]
ByHand = dict[Text, bool | Whole | Finite | Text | None]
"""Settings in place of a preset's own, by name."""

_WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "object": "named entries",
    "array": "a list",
    "null": "null",
}
"""Types, in the words of our messages."""
_UNREADABLE = {
    RecursionError: " is nested too deeply",
    UnicodeEncodeError: " holds what is no Unicode text",
}
_PLACED = re.compile(r" - at ((?:`key` in )?`[^`]*`)\Z")
_EXPECTED = re.compile("Expected `([^`]*)`(.*)", re.DOTALL)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frozen settings; a subclass lists its entries with their types, limits and defaults.

    An entry that is no number, text, list, dictionary or settings has the type Any: the subclass checks and reads it
    when it is made, and it describes itself by a method `to_dict`.

    Raises:
        InvalidInput: an entry is outside its limits or of another type.

    Example:
        >>> class Walk(Settings):
        ...     steps: Count = 8
        >>> Walk(steps=0)
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: steps is 0, expected an integer >= 1
    """

    def __post_init__(self) -> None:
        for name, kind in types(type(self)).items():
            value = getattr(self, name)
            if kind is Any:
                continue
            try:
                converted = msgspec.convert(_plain(value), kind)
            except msgspec.ValidationError as error:
                raise InvalidInput(_told(error, value, kind, name)) from None
            except (RecursionError, UnicodeError) as error:
                raise InvalidInput(f"{name}{_UNREADABLE[type(error)]}") from None
            # A number given as 5 is written as 5.0: equal settings have equal descriptions.
            msgspec.structs.force_setattr(self, name, converted)

    def to_dict(self) -> dict[str, Any]:
        """A description in numbers, texts, lists and dictionaries, from which `read` makes equal settings."""
        tag = (
            {} if self.__struct_config__.tag is None else {self.__struct_config__.tag_field: self.__struct_config__.tag}
        )
        return tag | {name: _described(getattr(self, name)) for name in types(type(self))}


Kind = TypeVar("Kind", bound=Settings)


@overload
def read(data: Any, kind: type[Kind], what: str) -> Kind: ...


@overload
def read(data: Any, kind: UnionType, what: str) -> Any: ...


def read(data: Any, kind: Any, what: str) -> Any:
    """Settings from their description in numbers, texts, lists and dictionaries.

    Args:
        data: the description.
        kind: the class of the settings, or the union of several that are told apart by their tag.
        what: they are, for the message.

    Raises:
        InvalidInput: the description is not one; the message names the entry and what is accepted.
    """
    try:
        return msgspec.convert(_plain(data), kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"not {what}: {_told(error, data, kind)}") from None
    except (RecursionError, UnicodeError) as error:
        raise InvalidInput(f"not {what}: an entry{_UNREADABLE[type(error)]}") from None


@cache
def types(kind: type[Settings]) -> dict[str, Any]:
    """The types of all entries by name."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def accepted(kind: Any) -> str:
    """What an entry of a type takes, in words.

    Example:
        >>> accepted(Width), accepted(Fraction), accepted(bool)
        ('an integer from 1 to 65536', 'a number >= 0 and < 1', 'true or false')
    """
    if get_origin(kind) is Annotated:
        plain, limits = get_args(kind)[:2]
        signs = {">=": limits.ge, ">": limits.gt, "<=": limits.le, "<": limits.lt}
        if limits.ge is not None and limits.le is not None:
            return f"{accepted(plain)} from {limits.ge:g} to {limits.le:g}"
        return accepted(plain) + " and".join(f" {sign} {limit:g}" for sign, limit in signs.items() if limit is not None)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is type(None):
        return "null"
    if get_args(kind):
        return " or ".join(accepted(option) for option in get_args(kind))
    return _WORDS.get(kind.__name__, _WORDS["object"])


def _described(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else msgspec.to_builtins(value)


def _plain(data: Any) -> Any:
    """The data with numbers of numpy as numbers, and nothing of other classes: msgspec would read their attributes."""
    if isinstance(data, dict):
        return {name: _plain(entry) for name, entry in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(entry) for entry in data]
    if isinstance(data, np.generic):
        return data.item()
    return data if isinstance(data, type(None) | bool | int | float | str | msgspec.Struct) else Ellipsis


def _told(error: msgspec.ValidationError, data: Any, kind: Any, name: str = "") -> str:
    """What is wrong with an entry, on one line."""
    problem, place = _PLACED.sub("", str(error)), "".join(_PLACED.findall(str(error)))
    of_name = place.startswith("`key`")
    path = re.findall(r"[^.`$\[\]]+", place.removeprefix("`key` in "))
    where = ".".join(filter(None, [name, *path]))
    wanted = "expected names that are texts on one line" if of_name else _wanted(problem, data, kind, path)
    if not wanted.startswith("expected"):
        return f"{where}: {wanted}" if where else wanted
    for part in path:
        data = _entry(data, part)
    return f"{where} is {shown(data)}, {wanted}" if where else wanted


def _wanted(problem: str, data: Any, kind: Any, path: list[str]) -> str:
    """What is accepted instead, from what msgspec says."""
    if problem.startswith("Invalid value"):
        return f"expected one of {', '.join(_tags(_type_at(kind, data, path[:-1])))}"
    if problem.startswith("Invalid enum value"):
        return f"expected {accepted(_type_at(kind, data, path))}"
    if entry := re.fullmatch("Object missing required field `(.*)`", problem):
        return f"the entry {entry[1]} is missing"
    if entry := re.fullmatch("Object contains unknown field `(.*)`", problem, re.DOTALL):
        return f"the entry {entry[1] if entry[1].isprintable() else shown(entry[1])} is unknown"
    if problem == "Number out of range" or str(sys.float_info.max) in problem:
        return "expected a finite number"
    expected = _EXPECTED.fullmatch(problem.partition(", got ")[0])
    if expected is None:
        return problem
    kinds, limit = expected.groups()
    words = " or ".join(_WORDS.get(name, name) for name in kinds.split(" | "))
    if limit.startswith(" matching"):
        limit = " on one line"
    return f"expected {words}{limit.removesuffix('.0')}"


def _entry(data: Any, part: str) -> Any:
    return data[int(part)] if isinstance(data, list | tuple) else data.get(part)


def _type_at(kind: Any, data: Any, path: list[str]) -> Any:
    """The type of the entry at the end of a path, in data of this type: a union of settings is told by its tag."""
    for part in path:
        members = _members(kind)
        if members:
            of_data = next(member for member in members if _is_tagged(data, member))
            kind = types(of_data)[part]
        else:
            kind = get_args(kind)[0]
        data = _entry(data, part)
    return kind


def _members(kind: Any) -> list[type[Settings]]:
    """The classes of settings in a union, or the one that this is."""
    return [member for member in get_args(kind) or (kind,) if isinstance(member, type) and issubclass(member, Settings)]


def _is_tagged(data: Any, kind: type[Settings]) -> bool:
    config = kind.__struct_config__
    return config.tag is None or data.get(config.tag_field) == config.tag


def _tags(kind: Any) -> list[str]:
    return [str(member.__struct_config__.tag) for member in _members(kind)]
