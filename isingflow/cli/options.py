"""What commands are asked: the types of option values, the options that commands share, and what they stand for.

A value that cannot be read is refused in one line: the option, the value as typed, and what was expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.errors import InvalidInput

if TYPE_CHECKING:
    import torch

    from isingflow.lattice import Lattice
    from isingflow.runs import RunFolder

STRONGEST = 1e6
"""Largest beta and coupling: the ground state is reached long before, and rounding errors take over beyond."""
MOST_SAMPLES = 10**7


class Value(click.ParamType):
    """The value of an option: `read` turns the text into the value, or raises InvalidInput with what was expected."""

    def read(self, text: str) -> Any:
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except InvalidInput as error:
            raise InvalidInput(f"{param.opts[0]} {value}: {error}") from None


class Size(Value):
    """A lattice size: "16" or "16x32", within what a command can do."""

    name = "L|LXxLY"

    def __init__(self, length: float = math.inf, sites: float = math.inf) -> None:
        self.length, self.sites = length, sites

    def read(self, text: str) -> tuple[int, int]:
        lengths = [_integer(part) for part in re.split("[xX]", text)]
        if not 1 <= len(lengths) <= 2 or any(length is None or length < 2 for length in lengths):
            raise InvalidInput("expected L or LXxLY with L >= 2, for example 16 or 16x32")
        size = lengths[0], lengths[-1]
        if math.prod(size) > self.sites:
            most = f"{self.sites} sites ({math.isqrt(self.sites)}x{math.isqrt(self.sites)})"
            raise InvalidInput(f"too large; up to {most} are possible")
        if max(size) > self.length:
            raise InvalidInput(f"too large; sides up to {self.length} are possible")
        return size


class Number(Value):
    """A finite number: positive, or of any sign but limited in size."""

    name = "number"

    def __init__(self, positive: bool = False, most: float = math.inf) -> None:
        self.positive, self.most = positive, most

    def read(self, text: str) -> float:
        try:
            number = float(text)
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
        number = _integer(text)
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


def _integer(text: str) -> int | None:
    """An integer, also one written like 1e9; None if it is not one."""
    match = re.fullmatch(r"\s*([+-]?\d{1,30})(?:[eE]\+?(\d{1,2}))?\s*", text, re.ASCII)
    return int(match[1]) * 10 ** int(match[2] or 0) if match else None


def together(*options: Callable) -> Callable:
    """Several click options as one decorator, listed in this order."""

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def size_option(size: Size) -> Callable:
    return click.option("--size", type=size, metavar="L|LXxLY", help="Sites along each side; 16 by default.")


def seed_option(default: int | None = 0) -> Callable:
    """The seed; `default` is None where a command must know whether one was given."""
    return click.option("--seed", type=Whole(0, 2**62), metavar="N", default=default, help="Random seed; 0 by default.")


MAGNET = together(
    click.option("--critical", is_flag=True, help="beta = ln(1 + sqrt 2)/2, critical at jx = jy = 1; the default."),
    click.option("--beta", type=Number(most=STRONGEST), metavar="B", help="Inverse temperature, of either sign."),
    click.option("--temperature", type=Number(positive=True), metavar="T", help="1/beta."),
    click.option("--jx", type=Number(most=STRONGEST), metavar="J", help="Coupling along x; 1 by default."),
    click.option("--jy", type=Number(most=STRONGEST), metavar="J", help="Coupling along y; 1 by default."),
    click.option("--boundary", type=OneOf("periodic", "open"), metavar="periodic|open", help="periodic by default."),
)
"""The physics of a lattice: what `lattice_from` and `beta_from` read."""
RUN = click.argument("run", type=click.Path(path_type=Path))
SEED = seed_option()
DEVICE = click.option("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:N, or auto (the default).")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def lattice_from(size: tuple[int, int] | None, magnet: dict[str, Any], base: Lattice | None = None) -> Lattice:
    """The square lattice asked for; what was not given is 16x16, ferromagnetic and periodic, or as in `base`."""
    from isingflow.lattice import square

    base = base or square(16)
    jx, jy, boundary = (getattr(base, k) if magnet[k] is None else magnet[k] for k in ("jx", "jy", "boundary"))
    return square(*(size or base.shape), jx=jx, jy=jy, boundary=boundary)


def beta_from(magnet: dict[str, Any]) -> float:
    """The inverse temperature asked for; critical if none was."""
    from isingflow.lattice import CRITICAL_BETA

    given = ["--critical"] * magnet["critical"]
    given += [f"--{name}" for name in ("beta", "temperature") if magnet[name] is not None]
    if len(given) > 1:
        raise InvalidInput(f"{' and '.join(given)} exclude each other: give one of them")
    if magnet["beta"] is not None:
        return magnet["beta"]
    if magnet["temperature"] is None:
        return CRITICAL_BETA
    if magnet["temperature"] < 1 / STRONGEST:
        raise InvalidInput(f"--temperature {magnet['temperature']:g}: expected at least {1 / STRONGEST:g}")
    return 1 / magnet["temperature"]


def device_from(name: str) -> torch.device:
    """The device of this name, if this machine has it."""
    from isingflow import devices

    return devices.resolve(name)


def open_run(path: Path, device: str) -> tuple[RunFolder, torch.device]:
    """The run folder at `path`, and the device to use it on."""
    from isingflow.runs import RunFolder

    return RunFolder.open(path), device_from(device)
