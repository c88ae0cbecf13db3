"""What an item of a paper is: a name, what it needs and costs, and a function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """What an item is made with.

    Attributes:
        quick: shrunk until a minute suffices.
        seeds: one run each.
        output: existing folder for figures, and for files of runs if an item keeps them.
        data: folder of data files; None: as `ISINGFLOW_DATA` says.
    """

    quick: bool
    seeds: tuple[int, ...]
    output: Path
    data: Path | None = None


@dataclass(frozen=True)
class Item:
    """A figure, table or algorithm of a paper.

    Attributes:
        name: as the command line knows it, such as "cp-flow-figure-3".
        paper: "Monge-Ampere", "OT-Flow" or "CP-Flow".
        what: in a few words.
        needs: data files or packages beside the test extra; "" for none.
        minutes: of one core, per seed.
        make: numbers, as JSON holds them; figures go to `Options.output` under the item's name.
    """

    name: str
    paper: str
    what: str
    needs: str
    minutes: float
    make: Callable[[Options], dict[str, Any]]
