"""Temperatures and fields as they are typed: one, several that are spread over a range, or all of a range."""

from __future__ import annotations

from typing import Any

from isingflow.cli.options import MOST_BETAS, Number, integer
from isingflow.errors import InvalidInput


class Betas(Number):
    """An inverse temperature, or a range of them, "0.2:0.6:41": linear, ends included, the last number how many."""

    name = "number|first:last:count"
    letter, words, example = "B", "temperatures", "0.2:0.6:41"

    def read(self, text: str) -> Any:
        parts = text.split(":")
        if len(parts) == 1:
            return super().read(text)
        count = integer(parts[2]) if len(parts) == 3 else None
        if count is None or not 2 <= count <= MOST_BETAS:
            raise InvalidInput(
                f"expected {self.letter}, or FIRST:LAST:COUNT with a count from 2 to {MOST_BETAS}, such as "
                f"{self.example}"
            )
        first, last = (super(Betas, self).read(part) for part in parts[:2])
        if first == last:
            raise InvalidInput(f"expected a range between two different {self.words}")
        step = (last - first) / (count - 1)
        return (*(first + step * index for index in range(count - 1)), last)


class Fields(Betas):
    """An external field, or a range of them, "0:0.2:11"."""

    letter, words, example = "H", "fields", "0:0.2:11"


class Span(Number):
    """An inverse temperature, or all of a range, "0.2:0.6"."""

    name = "number|first:last"
    letter, word, words, example = "B", "inverse temperature", "temperatures", "0.2:0.6"

    def read(self, text: str) -> Any:
        parts = text.split(":")
        if len(parts) == 1:
            return super().read(text)
        if len(parts) != 2:
            raise InvalidInput(
                f"expected {self.letter}, or FIRST:LAST for all {self.words} between, such as {self.example}"
            )
        first, last = (super(Span, self).read(part) for part in parts)
        if not first < last:
            raise InvalidInput(f"expected a range from a smaller to a larger {self.word}")
        return first, last


class FieldSpan(Span):
    """An external field, or all of a range, "0:0.2"."""

    letter, word, words, example = "H", "field", "fields", "0:0.2"
