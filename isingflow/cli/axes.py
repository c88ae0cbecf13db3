"""The values of an axis as they are typed: a list, a range, or a list of both."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

from isingflow.cli.options import MOST_BETAS, Number, OneOf, Size, Value, Whole, Word
from isingflow.errors import InvalidInput

RANGE = "FIRST:LAST:COUNT"


class Axis(Value):
    """Several values of a kind: "8,16", "0.3:0.6:13" (linear, ends included), or "0.3:0.6:4,0.44".

    Args:
        kind: of one value. Numbers have ranges, and so have integers and lengths, where they come out whole.

    Example:
        >>> Axis(Number()).read("0.3:0.6:4,0.44"), Axis(Whole(0, 9)).read("0:4:3"), Axis(Size()).read("8,8x16")
        ((0.3, 0.4, 0.5, 0.6, 0.44), (0, 2, 4), ('8', '8x16'))
    """

    def __init__(self, kind: Value) -> None:
        self.kind = kind
        self.name = f"{kind.name},...|{RANGE}" if self._has_ranges else f"{kind.name},..."

    @property
    def _has_ranges(self) -> bool:
        return not isinstance(self.kind, Word | OneOf)

    def read(self, text: str) -> tuple[Any, ...]:
        found: list[Any] = []
        for part in text.split(","):
            found += self._range(part) if ":" in part and self._has_ranges else [self._one(part)]
        if len(set(found)) < len(found):
            twice = next(value for value, times in Counter(found).items() if times > 1)
            raise InvalidInput(f"{twice} is given twice")
        return tuple(found)

    def _one(self, text: str) -> Any:
        value = self.kind.read(text)
        return "x".join(map(str, value)) if isinstance(self.kind, Size) else value

    def _range(self, text: str) -> list[Any]:
        parts = text.split(":")
        try:
            count = Whole(2, MOST_BETAS).read(parts[2]) if len(parts) == 3 else 0
        except InvalidInput:
            count = 0
        if not count:
            raise InvalidInput(f"expected a value, or {RANGE} with a count from 2 to {MOST_BETAS}, such as 0.2:0.6:41")
        first, last = (self._one(part) for part in parts[:2])
        if first == last:
            raise InvalidInput("expected a range between two different values")
        if isinstance(self.kind, Number):
            # Of decimals, so that 0.3:0.6:4 is 0.3, 0.4, 0.5, 0.6, and not nearly so.
            start, end = Fraction(repr(first)), Fraction(repr(last))
            return [float(start + (end - start) * index / (count - 1)) for index in range(count)]
        if "x" in f"{first}{last}":
            raise InvalidInput("expected a range of lengths, such as 8:32:4")
        step, rest = divmod(int(last) - int(first), count - 1)
        if rest:
            raise InvalidInput(f"expected a range whose {count} values are whole")
        return [self._one(str(int(first) + step * index)) for index in range(count)]
