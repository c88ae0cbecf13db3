"""A study: the product of a few axes for one command, as frozen data, and its points in order.

A point is one ordinary command. Its name says where it lies, `size8-beta0.3-seed0`, and is the same on every machine.
With a chain, points start from the one before them along an axis; chains then run in order, each by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal

import msgspec

from isingflow.errors import InvalidInput, StudyError
from isingflow.runtime.checks import shown
from isingflow.runtime.differences import differences, in_a_line
from isingflow.runtime.files import check_regular, reason, write_atomically
from isingflow.runtime.numbers import as_json, parse
from isingflow.runtime.settings import ByHand, Count, Finite, Name, Positive, Seed, Settings, read

FILE = "study.json"
FORMAT = 1
"""Of that file."""
AXES = ("size", "beta", "field", "seed", "preset", "flow")
"""In the order in which they are nested: the last one given changes fastest."""
TAKEN = {
    "train": AXES,
    "anneal": ("size", "beta", "field", "seed"),
    "monte-carlo": ("size", "beta", "field", "seed"),
    "exact": ("size", "beta", "field"),
}
"""The axes of every command."""
SUFFIX = {"train": "", "anneal": ".npz", "monte-carlo": ".npz"}
"""Of what a point writes; the exact answers are only told."""
MOST_POINTS = 10**6
RESERVED = ("output", "resume", "json", "quiet", "set")
"""Options that a study gives its points itself."""
KEPT = ("device", "time-limit")
"""Options of a training that are not the run's own, and have to be said again where it goes on."""
FROM_THE_FIRST = ("preset", "flow")
"""Options that a run does not take which starts from another: it has what that one has."""


@dataclass(frozen=True)
class Point:
    """One run of a study.

    Attributes:
        name: of its files.
        values: by axis, as the command line has them.
        before: name of the point that it starts from, or None.
    """

    name: str
    values: dict[str, str]
    before: str | None = None


class Study(Settings, frozen=True):
    """What is run: a command, the values along its axes, and options that are the same for all points.

    Attributes:
        command: "train", "anneal", "monte-carlo" or "exact".
        size, beta, field, seed, preset, flow: values along the axes; of those not given, the command's own default.
        options: further ones of the command by name, without dashes; True for flags.
        settings: of trainings, in place of the preset's own, see `runs.overrides`.
        chain: "beta" or "size": trainings start from their neighbour along this axis, the first value from nothing.
        chained_steps, chained_rate: iterations and learning rate of those that do; without a rate each has half that
            of the one before.

    Raises:
        InvalidInput: no axis, or one that the command does not have; a value twice; a chain that cannot be.

    Example:
        >>> study = Study("train", size=("4",), beta=(0.3, 0.4), options={"steps": 20}, chain="beta", chained_steps=5)
        >>> [(point.name, point.before) for point in study.points()]
        [('size4-beta0.3', None), ('size4-beta0.4', 'size4-beta0.3')]
        >>> print(*study.words(list(study.points())[1], Path("study")))
        train --size 4 --beta 0.4 --steps 5 --from study/points/size4-beta0.3 --output study/points/size4-beta0.4 --json
    """

    command: Literal["train", "anneal", "monte-carlo", "exact"]
    size: tuple[Name, ...] = ()
    beta: tuple[Finite, ...] = ()
    field: tuple[Finite, ...] = ()
    seed: tuple[Seed, ...] = ()
    preset: tuple[Name, ...] = ()
    flow: tuple[Name, ...] = ()
    options: ByHand = msgspec.field(default_factory=dict)
    settings: ByHand = msgspec.field(default_factory=dict)
    chain: Literal["beta", "size"] | None = None
    chained_steps: Count | None = None
    chained_rate: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.axes:
            raise InvalidInput(f"a study needs an axis: {', '.join(TAKEN[self.command])}")
        for axis, values in self.axes.items():
            if axis not in TAKEN[self.command]:
                raise InvalidInput(f"{axis} is none of {self.command}, which has {', '.join(TAKEN[self.command])}")
            if twice := [value for value in set(values) if values.count(value) > 1]:
                raise InvalidInput(f"{axis}: {shown(twice[0])} is given {values.count(twice[0])} times")
        for name in (*self.size, *self.preset, *self.flow):
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
                raise InvalidInput(f"{shown(name)} cannot be part of a file's name")
        for size in self.size:
            if not re.fullmatch(r"\d+(x\d+)*", size, re.ASCII):
                raise InvalidInput(f"size: {shown(size)}, expected L or LXxLY, for example 16 or 16x32")
        if reserved := sorted({*AXES, *RESERVED} & self.options.keys()):
            raise InvalidInput(f"options: {reserved[0]} is none that all points share")
        if self.count > MOST_POINTS:
            raise InvalidInput(f"{self.count} points, expected at most {MOST_POINTS}")
        if self.chain is not None:
            self._check_chain(self.chain)

    def _check_chain(self, chain: str) -> None:
        if self.command != "train":
            raise InvalidInput(f"a chain is of trainings, which start from each other; {self.command} has none")
        if len(self.axes.get(chain, ())) < 2:
            raise InvalidInput(f"a chain along {chain} needs two values of it at least")
        if self.chained_steps is None:
            raise InvalidInput("a chain needs chained_steps, the iterations of points that start from another")
        if chain == "size":
            for small, large in zip(self.size, self.size[1:], strict=False):
                if [2 * length for length in lengths(small)] != lengths(large):
                    raise InvalidInput(
                        f"a chain along size doubles the lengths at every point: {large} follows {small}"
                    )

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Values by axis, of those that are given."""
        return {axis: getattr(self, axis) for axis in AXES if getattr(self, axis)}

    @property
    def count(self) -> int:
        """Number of points."""
        return math.prod(len(values) for values in self.axes.values())

    def points(self) -> Iterator[Point]:
        """All points, those of a chain one after the other."""
        for chain in self.chains():
            yield from chain

    def chains(self) -> Iterator[tuple[Point, ...]]:
        """Points that have to run in this order; without a chain each by itself."""
        axes = {axis: values for axis, values in self.axes.items() if axis != self.chain}
        texts = {axis: _texts(values) for axis, values in self.axes.items()}
        for chosen in product(*(texts[axis] for axis in axes)):
            fixed = dict(zip(axes, chosen, strict=True))
            found: list[Point] = []
            for value in [None] if self.chain is None else texts[self.chain]:
                all_values = fixed if value is None else fixed | {str(self.chain): value}
                values = {axis: all_values[axis] for axis in texts}
                name = "-".join(f"{axis}{value}" for axis, value in values.items())
                found.append(Point(name, values, found[-1].name if found else None))
            yield tuple(found)

    def first(self) -> Point:
        """The first point."""
        return next(islice(self.points(), 1))

    def words(self, point: Point, folder: Path, *, resume: bool = False) -> list[str]:
        """The command of a point, without the name of the program.

        Args:
            point: of this study.
            folder: of the study.
            resume: go on with what the point has written.
        """
        options: dict[str, Any] = {**point.values, **self.options}
        settings = self.settings
        if point.before is not None:
            options = {name: value for name, value in options.items() if name not in FROM_THE_FIRST}
            settings = {name: value for name, value in settings.items() if not name.startswith("flow.")}
            options |= {"steps": self.chained_steps, "from": output(self, folder, point.before)}
            options |= {} if self.chained_rate is None else {"rate": repr(self.chained_rate)}
        if resume and self.command == "train":
            options, settings = {name: options[name] for name in KEPT if name in options}, {}
        words: list[str] = [self.command]
        for name, value in options.items():
            words += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", str(value)]
        for name, value in settings.items():
            words += [
                "--set",
                f"{name}={'null' if value is None else str(value).lower() if isinstance(value, bool) else value}",
            ]
        if self.command in SUFFIX:
            words += ["--resume"] * (resume and self.command != "monte-carlo")
            words += ["--output", str(output(self, folder, point.name))]
        return [*words, "--json"]


def lengths(size: str) -> list[int]:
    """The lengths of a size as the command line has it.

    Example:
        >>> lengths("8"), lengths("8x16")
        ([8], [8, 16])
    """
    return [int(part) for part in size.split("x")]


def output(study: Study, folder: Path, name: str) -> Path:
    """What a point writes: a run folder, or a file of samples or paths."""
    return folder / "points" / f"{name}{SUFFIX.get(study.command, '')}"


def _texts(values: tuple[Any, ...]) -> list[str]:
    """Values as they are typed."""
    return [repr(value).removesuffix(".0") if isinstance(value, float) else str(value) for value in values]


def write(study: Study, folder: Path) -> None:
    """Keep the study in its folder.

    Raises:
        StudyError: it cannot be written.
    """
    try:
        write_atomically(folder / FILE, as_json({"format": FORMAT, **study.to_dict()}))
    except OSError as error:
        raise StudyError(f"cannot write {folder / FILE}: {reason(error)}") from None


def read_study(folder: Path) -> Study:
    """The study of a folder.

    Raises:
        StudyError: there is none, or none that this version reads.
    """
    path = folder / FILE
    if not path.exists():
        raise StudyError(f"{folder} holds no study: it has no {FILE}")
    try:
        entries = parse(check_regular(path, StudyError).read_bytes())
        if not isinstance(entries, dict) or entries.pop("format", None) != FORMAT:
            raise InvalidInput(f"expected a study of format {FORMAT}")
        return read(entries, Study, "a study")
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} does not describe a study: {reason(error)}") from None


def check_same(study: Study, folder: Path) -> bool:
    """Whether the folder holds this study already; False where it may be begun there.

    Raises:
        StudyError: it holds another one, or something else.
    """
    if (folder / FILE).exists():
        changes = differences(study.to_dict(), read_study(folder).to_dict())
        if changes:
            raise StudyError(f"{folder} is the folder of another study: {in_a_line(changes)}")
        return True
    if folder.exists() or folder.is_symlink():
        if not folder.is_dir():
            raise StudyError(f"{folder} exists and is no folder: choose another name")
        if others := {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} - {"points"}:
            raise StudyError(f"{folder} is no study: it holds {sorted(others)[0]}; choose another name")
    return False
