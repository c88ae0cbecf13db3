"""What callers hand in, checked once where it enters the package: numbers, counts, choices, arrays.

Each function returns the value in the type that the inside works with, or raises `InvalidInput` (`WrongType` where no
value of that type would do) in one line: what it is, what is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from types import UnionType
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput, WrongType
from isingflow.runtime.differences import LONGEST_SHOWN

MOST = 10**15
"""Largest count that is accepted where nothing smaller limits it."""

LARGEST_SEED = 2**62
"""Largest seed of a random stream."""


def number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    finite: bool = True,
) -> float:
    """A finite number as a float; zero-dimensional arrays and tensors are numbers too.

    Args:
        name: what the caller knows it by.
        value: what was given.
        least, most: limits that are accepted themselves.
        above, below: limits that are not.
        finite: whether NaN and infinities are refused.

    Raises:
        InvalidInput: it is not finite, or outside its limits; WrongType: it is no number.

    Example:
        >>> number("step_size", 0.1, above=0)
        0.1
        >>> number("step_size", 0, above=0)
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: step_size is 0, expected a finite number > 0
    """
    limits = [
        (f" {sign} {limit:g}", holds)
        for sign, limit, holds in (
            (">=", least, lambda v: v >= least),
            (">", above, lambda v: v > above),
            ("<=", most, lambda v: v <= most),
            ("<", below, lambda v: v < below),
        )
        if limit is not None
    ]
    wanted = f"expected a {'finite ' if finite else ''}number" + " and".join(words for words, _ in limits)
    given = _scalar(value)
    if isinstance(given, bool | np.bool_) or not isinstance(given, Real):
        raise WrongType(f"{name} is {shown(value)}, {wanted}")
    try:
        converted = float(given)
    except OverflowError:
        raise InvalidInput(f"{name} is {shown(value)}, {wanted}") from None
    if (finite and not math.isfinite(converted)) or any(not holds(converted) for _, holds in limits):
        raise InvalidInput(f"{name} is {shown(value)}, {wanted}")
    return converted


def count(name: str, value: Any, *, least: int = 1, most: int = MOST) -> int:
    """An integer within limits; 3.0 is none.

    Raises:
        InvalidInput: it is outside; WrongType: it is no integer.

    Example:
        >>> count("samples", np.int64(3))
        3
        >>> count("samples", 0)
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: samples is 0, expected an integer >= 1
    """
    wanted = f"expected an integer >= {least}" if most == MOST else f"expected an integer from {least} to {most}"
    given = _scalar(value)
    if isinstance(given, bool | np.bool_) or not isinstance(given, Integral):
        raise WrongType(f"{name} is {shown(value)}, {wanted}")
    if not least <= int(given) <= most:
        raise InvalidInput(f"{name} is {shown(value)}, {wanted if int(given) < most else f'expected at most {most}'}")
    return int(given)


def flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        WrongType: it is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise WrongType(f"{name} is {shown(value)}, expected True or False")
    return bool(value)


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of several names.

    Raises:
        InvalidInput: it is none of them; WrongType: it is no text.

    Example:
        >>> choice("boundary", "closed", ("periodic", "open"))
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: boundary is 'closed', expected periodic or open
    """
    *most, last = options = list(options)
    wanted = f"expected {', '.join(most)} or {last}" if most else f"expected {last}"
    if not isinstance(value, str):
        raise WrongType(f"{name} is {shown(value)}, {wanted}")
    if value not in options:
        raise InvalidInput(f"{name} is {shown(value)}, {wanted}")
    return value


def instance(name: str, value: Any, kind: type | tuple[type, ...] | UnionType, wanted: str) -> Any:
    """An object of a class.

    Args:
        name, value: as in `number`.
        kind: the class, or several.
        wanted: it in words, for example "a Lattice".

    Raises:
        WrongType: it is of another class.
    """
    if not isinstance(value, kind):
        raise WrongType(f"{name} is {shown(value)}, expected {wanted}")
    return value


def array(
    name: str,
    value: Any,
    shape: Sequence[int | None] | None = None,
    *,
    finite: bool = True,
    empty: bool = False,
    integers: bool = False,
    most: float | None = None,
) -> np.ndarray:
    """Real numbers as an array: float64, or int64 if they must be integers. Tensors are taken too, masks are not.

    Args:
        name, value: as in `number`.
        shape: that it must have, None for any length along an axis.
        finite: whether NaN and infinities are refused.
        empty: whether an array without entries is accepted.
        integers: whether every entry must be an integer; 3.0 is one here.
        most: largest size of a finite entry.

    Raises:
        InvalidInput: of another shape, empty, or with entries that are not accepted; WrongType: no real numbers.

    Example:
        >>> array("weights", [1, 2, 3], (None,))
        array([1., 2., 3.])
        >>> array("weights", [[1, 2, 3]], (None,))
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: weights is an array of shape (1, 3), expected shape (n,)
    """
    kind = "integers" if integers else "real numbers"
    entries = as_numpy(value)
    if entries is None or entries.dtype.kind not in "iuf":
        raise WrongType(f"{name} is {shown(value)}, expected an array of {kind}")
    if shape is not None and not _fits(entries.shape, shape):
        raise InvalidInput(f"{name} is an array of shape {entries.shape}, expected shape {_pattern(shape)}")
    if not empty and entries.size == 0:
        raise InvalidInput(f"{name} is an array of shape {entries.shape}, without entries")
    with np.errstate(over="ignore"):
        converted = entries.astype(np.float64)
    if finite or integers:
        strange = int(np.count_nonzero(~np.isfinite(converted)))
        if strange:
            raise InvalidInput(f"{name}: {strange} of {entries.size} entries are NaN or infinite")
    most = 2.0**62 if integers and most is None else most
    if most is not None and np.any((np.abs(converted) > most) & (np.abs(converted) < np.inf)):
        raise InvalidInput(f"{name}: an entry is larger than {most:g} in size")
    if not integers:
        return converted
    if np.any(converted != np.rint(converted)):
        raise InvalidInput(f"{name}: expected integers")
    return entries.astype(np.int64)


def lengths(name: str, value: Any, *, least: int = 1) -> tuple[int, ...]:
    """The lengths of an array along its axes, one at least.

    Raises:
        InvalidInput: none, or one below the least; WrongType: something else than integers.

    Example:
        >>> lengths("shape", [4, 4])
        (4, 4)
    """
    if not isinstance(value, list | tuple):
        raise WrongType(f"{name} is {shown(value)}, expected lengths, for example (16,) or (8, 8)")
    if not value:
        raise InvalidInput(f"{name} is {shown(value)}, expected one length at least, for example (16,) or (8, 8)")
    return tuple(count(f"a length in {name}", length, least=least) for length in value)


def function(name: str, value: Any, *, optional: bool = True) -> Any:
    """A function, or whatever can be called; None too where it is optional.

    Raises:
        WrongType: it cannot be called.
    """
    if callable(value) or (optional and value is None):
        return value
    raise WrongType(f"{name} is {shown(value)}, expected a function{' or None' if optional else ''}")


def as_numpy(value: Any) -> np.ndarray | None:
    """The value as an array, a tensor from wherever it is; None if it cannot be one, or hides entries behind a mask."""
    if np.ma.is_masked(value):
        return None
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):
        return None


def shown(value: Any) -> str:
    """A value in words that fit on a line."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        kind = "a masked array" if np.ma.is_masked(value) else "an array"
        return f"{kind} of shape {tuple(shape)} and type {str(value.dtype).removeprefix('torch.')}"
    try:
        text = " ".join(repr(_scalar(value)).split())
    except Exception:
        text = f"an object of the class {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _scalar(value: Any) -> Any:
    """What is in a zero-dimensional array or tensor; other values as they are."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _fits(shape: tuple[int, ...], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, length) for length, w in zip(shape, wanted, strict=True))


def _pattern(shape: Sequence[int | None]) -> str:
    """A shape with letters for lengths that may be any."""
    letters = iter("nmk" + "?" * len(shape))
    words = [next(letters) if length is None else str(length) for length in shape]
    return f"({words[0]},)" if len(words) == 1 else f"({', '.join(words)})"
