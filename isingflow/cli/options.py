"""What commands are asked: the types of option values, the options that commands share, and what they stand for.

A value that cannot be read is refused in one line: the option, the value as typed, and what was expected.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.output import warn
from isingflow.errors import FileError, InvalidInput
from isingflow.runtime import launched
from isingflow.runtime.resources import require_address_space

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

    from isingflow.runs.folder import AnyRun

STRONGEST = 1e6
"""Largest beta and coupling: the ground state is reached long before, and rounding errors take over beyond."""
MOST_BETAS = 10**4
"""Temperatures or fields of a range."""
MOST_SAMPLES = 10**7
"""Of samples that are kept in memory."""
MOST_STREAMED = 10**12
"""Of samples that go to a file, where the disk is the limit."""


WORDS = {"true": True, "false": False, "null": None}
"""Values of settings that are neither numbers nor texts."""

LONGEST_SHOWN = 80
"""Characters of a value that a message repeats."""


TORCH = 1150 * 2**20
"""Bytes of address space that torch and a small flow take, besides those of threads."""
THREAD = 72 * 2**20
"""Bytes of address space that a thread takes."""


class Command(click.Command):
    """A command that refuses an option which is given twice: which of the two is meant?

    Of several processes that torchrun has started the first one alone runs it, or all of them.

    Args:
        together: whether all of them run it.
        address_space: bytes that it takes, besides those of threads. A smaller limit (`ulimit -v`) is told at once:
            libraries that find no room for their threads hang, or end the process.
    """

    def __init__(self, *args: Any, address_space: int = 0, together: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.address_space, self.together = address_space, together

    def invoke(self, ctx: click.Context) -> Any:
        if self.together:
            launched.place()
        elif launched.follows():
            return None
        if self.address_space:
            require_address_space(f"isingflow {self.name}", self.address_space + (os.cpu_count() or 1) * THREAD)
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = repeated("--set", args)
        check_once(self.make_parser(ctx).parse_args(args=list(args))[2])
        return super().parse_args(ctx, args)


def check_once(given: Sequence[click.Parameter]) -> None:
    """Refuse an option that is among the given ones twice, but for flags and those that may be."""
    for option in given:
        if isinstance(option, click.Option) and not (option.is_flag or option.multiple) and given.count(option) > 1:
            raise InvalidInput(f"{option.opts[0]} is given {given.count(option)} times: give it once")


def repeated(option: str, args: Sequence[str]) -> list[str]:
    """Arguments in which an option that is followed by several NAME=VALUE stands before each of them.

    Example:
        >>> repeated("--set", ["moons", "--set", "flow.width=8", "training.batch=64", "--seed", "1"])
        ['moons', '--set', 'flow.width=8', '--set', 'training.batch=64', '--seed', '1']
    """
    found: list[str] = []
    for word in args:
        follows = found[-2:-1] == [option] or (bool(found) and found[-1].startswith(f"{option}="))
        if follows and re.match(r"[A-Za-z_][\w.]*=", word):
            found.append(option)
        found.append(word)
    return found


class Value(click.ParamType):
    """The value of an option: `read` turns the text into the value, or raises InvalidInput with what was expected."""

    def read(self, text: str) -> Any:
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except InvalidInput as error:
            name = f"{param.opts[0]} " if isinstance(param, click.Option) else ""
            shown = value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}..."
            raise InvalidInput(f"{name}{shown if shown.strip() else repr(shown)}: {error}") from None


MOST_LENGTHS = 6
"""Of a size: as many as lattices have dimensions."""


class Boundary(Value):
    """The boundary of a lattice, one word, or one for each direction."""

    name = "periodic|open"

    def read(self, text: str) -> str | tuple[str, ...]:
        words = tuple(text.split(","))
        if not set(words) <= {"periodic", "open"}:
            raise InvalidInput("expected periodic or open, or one of them for each direction: periodic,open")
        return words[0] if len(words) == 1 else words


class Size(Value):
    """A lattice size: "16", for all directions, or "16x32", "4x4x8" and so on, within what a command can do."""

    name = "L|LXxLY|..."

    def __init__(self, length: int | None = None, sites: int | None = None, chain: int | None = None) -> None:
        self.length, self.sites, self.chain = length, sites, chain

    def read(self, text: str) -> tuple[int, ...]:
        size = tuple(integer(part) or 0 for part in re.split("[xX]", text))
        if not 1 <= len(size) <= MOST_LENGTHS or min(size) < 2:
            raise InvalidInput("expected L or LXxLY with L >= 2, for example 16, 16x32 or, in three dimensions, 4x4x8")
        if self.sites is not None and math.prod(size if len(size) > 1 else 2 * size) > self.sites:
            most = f"{self.sites} sites ({math.isqrt(self.sites)}x{math.isqrt(self.sites)})"
            raise InvalidInput(f"too large; up to {most} are possible")
        longest = self.chain if len(size) == 1 and self.chain is not None else self.length
        if longest is not None and max(size) > longest:
            of_chains = "" if self.chain is None else f", {self.chain} of a chain"
            raise InvalidInput(f"too large; sides up to {self.length} are possible{of_chains}")
        return size


class Number(Value):
    """A finite number: positive, or of any sign but limited in size."""

    name = "number"

    def __init__(self, positive: bool = False, most: float = math.inf) -> None:
        self.positive, self.most = positive, most

    def read(self, text: str) -> float:
        try:
            number = float(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (self.positive and number <= 0):
            raise InvalidInput(f"expected a {'positive' if self.positive else 'finite'} number")
        if abs(number) > self.most:
            raise InvalidInput(f"expected a number from {-self.most:g} to {self.most:g}")
        return number


class Whole(Value):
    """An integer within limits."""

    name = "integer"

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def read(self, text: str) -> int:
        number = integer(text)
        if number is None or not self.least <= number <= self.most:
            raise InvalidInput(f"expected an integer from {self.least} to {self.most}")
        return number


class OneOf(Value):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.name = "|".join(words)

    def read(self, text: str) -> str:
        if text not in self.words:
            raise InvalidInput(f"expected {' or '.join(self.words)}")
        return text


class Word(Value):
    """A name; which names there are is known where it is used."""

    name = "name"

    def read(self, text: str) -> str:
        if not text.strip():
            raise InvalidInput("expected a name")
        return text


class Setting(Value):
    """A setting and its value, such as flow.width=128."""

    name = "name=value"

    def read(self, text: str) -> tuple[str, bool | int | float | str | None]:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not (name and sign and value):
            raise InvalidInput("expected NAME=VALUE, for example flow.width=128")
        if value in WORDS:
            return name, WORDS[value]
        whole = integer(value)
        try:
            return name, Number().read(value) if whole is None else whole
        except InvalidInput:
            return name, value


class Place(Value):
    """Where a file or a folder is."""

    name = "path"

    def read(self, text: str) -> Path:
        if not text or "\0" in text:
            raise InvalidInput("expected a path")
        return Path(text)


def integer(text: str) -> int | None:
    """An integer, also one written like 1e9; None if it is not one."""
    match = re.fullmatch(r"\s*([+-]?\d{1,30})(?:[eE]\+?(\d{1,2}))?\s*", text, re.ASCII)
    return int(match[1]) * 10 ** int(match[2] or 0) if match else None


Function = Callable[..., None]
Option = Callable[[Function], Function]
"""What gives a command an option."""


def together(*options: Option) -> Option:
    """Several click options as one decorator, listed in this order."""

    def decorate(command: Function) -> Function:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def seed_option(default: int | None = 0) -> Option:
    """The seed; `default` is None where a command must know whether one was given."""
    return click.option("--seed", type=Whole(0, 2**62), metavar="N", default=default, help="Random seed; 0 by default.")


RUN = click.argument("run", type=Place())
SEED = seed_option()
DEVICE = click.option(
    "--device", type=Word(), default="auto", metavar="NAME", help="cpu, cuda, cuda:N, or auto (the default)."
)
OUTPUT = click.option("--output", type=Place(), required=True, metavar="FILE.npz", help="A new file for the arrays.")
DATA = click.option(
    "--data",
    "root",
    type=Place(),
    metavar="FOLDER",
    help="Where the files of MNIST, CIFAR-10 and the UCI sets are; ISINGFLOW_DATA by default.",
)
QUIET = click.option("--quiet", is_flag=True, help="No progress and no notes.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def settings_from(given: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The settings of --set by name.

    Raises:
        InvalidInput: one is given twice.
    """
    names = [name for name, _ in given]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidInput(f"--set {twice[0]} is given {names.count(twice[0])} times: give it once")
    return dict(given)


def check_new_file(path: Path, suffixes: tuple[str, ...] = (".npz",), option: str = "--output") -> None:
    """Refuse a path that is not a new file of one of these suffixes in a folder that can be written; lock it."""
    if path.suffix not in suffixes:
        raise InvalidInput(f"{option} {path}: expected a file name that ends in {' or '.join(suffixes)}")
    try:
        path.with_name(f".{path.name}.12345678").lstat()  # such a folder will be there while the file is written
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InvalidInput(f"{option} {path}: {error.strerror}") from None
    if not path.parent.is_dir():
        raise InvalidInput(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InvalidInput(f"{option} {path}: the folder {path.parent} cannot be written")
    lock_file(path)
    if path.exists() or path.is_symlink():
        raise InvalidInput(f"{option} {path}: exists already; choose another name")


def lock_file(path: Path) -> None:
    """Have the file at --output to this command alone until it ends.

    Raises:
        FileError: another process writes it.
    """
    from isingflow.runtime.locks import locked

    busy = FileError(f"--output {path}: in use: another process writes it; wait for it, or choose another name")
    hold(locked(path.with_name(f".{path.name}.lock"), busy))


def hold(context: AbstractContextManager[Any]) -> None:
    """Enter a context until this command ends."""
    click.get_current_context().with_resource(context)


def device_from(name: str) -> torch.device:
    """The device of this name, if this machine has it."""
    from isingflow.runtime import devices

    return devices.resolve(name)


def open_run(path: Path, device: str) -> tuple[AnyRun, torch.device]:
    """The run folder at `path`, and the device to use it on."""
    from isingflow.runs.folder import RunFolder

    return RunFolder.open(path), device_from(device)


def check_certified(run: AnyRun) -> bool:
    """Whether the integration of a run's flow is checked; if not, a warning says so."""
    from isingflow.runs.loading import is_certified

    certified = is_certified(run)
    if not certified:
        warn(f"{run.path}: integration not checked: the error of its flow is not known to be within tolerance")
    return certified
