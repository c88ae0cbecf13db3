"""Which magnet: the options of lattice and temperature, and what they stand for.

`--lattice` names a kind of lattice, or a file with a graph as networkx writes it: sites are its nodes, bonds its edges,
with the strength of each in the edge attribute `coupling` (else `weight`, else 1).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from isingflow.cli.options import STRONGEST, Number, OneOf, Option, Size, Whole, together
from isingflow.errors import InvalidInput
from isingflow.lattice import CRITICAL_BETA, Lattice, edwards_anderson, square, triangular

KINDS: dict[str, tuple[Callable[..., Lattice], dict[str, str]]] = {
    "square": (square, {"jx": "jx", "jy": "jy", "boundary": "boundary"}),
    "triangular": (triangular, {"boundary": "boundary"}),
    "edwards-anderson": (edwards_anderson, {"boundary": "boundary", "lattice_seed": "seed"}),
}
"""Lattices by name: what builds them, and the options that they have beside --size, with the arguments these set."""


def size_option(size: Size) -> Option:
    return click.option("--size", type=size, metavar="L|LXxLY", help="Sites along each side; 16 by default.")


MAGNET = together(
    click.option(
        "--lattice",
        metavar="KIND|FILE",
        help="square (the default), triangular, edwards-anderson, or a graph: FILE.graphml, .gml, .json (node-link), "
        ".edgelist, .csv or .adjlist, with the edge attribute coupling.",
    ),
    click.option("--lattice-seed", type=Whole(0, 2**62), metavar="N", help="Which glass; 0 by default."),
    click.option("--critical", is_flag=True, help="beta = ln(1 + sqrt 2)/2, critical at jx = jy = 1; the default."),
    click.option("--beta", type=Number(most=STRONGEST), metavar="B", help="Inverse temperature, of either sign."),
    click.option("--temperature", type=Number(positive=True), metavar="T", help="1/beta."),
    click.option("--jx", type=Number(most=STRONGEST), metavar="J", help="Coupling along x; 1 by default."),
    click.option("--jy", type=Number(most=STRONGEST), metavar="J", help="Coupling along y; 1 by default."),
    click.option("--boundary", type=OneOf("periodic", "open"), metavar="periodic|open", help="periodic by default."),
)
"""The physics of a lattice: what `lattice_from` and `beta_from` read."""

SHAPING = ("jx", "jy", "boundary", "lattice_seed")


def lattice_from(size: tuple[int, int] | None, magnet: dict[str, Any], base: Lattice | None = None) -> Lattice:
    """The lattice asked for; what was not given is square, 16x16, ferromagnetic and periodic, or as in `base`."""
    given = {} if size is None else {"size": size}
    given |= {name: magnet[name] for name in SHAPING if magnet[name] is not None}
    named = magnet["lattice"]
    if named is None and base is not None and not given:
        return base
    kind = named or ("square" if base is None else base.kind)
    build, arguments = KINDS.get(kind, (None, {}))
    for name in given:
        if build is None or name not in ("size", *arguments):
            raise InvalidInput(f"--{name.replace('_', '-')} does not go with the lattice {kind}: leave it out")
    if build is None:
        from isingflow.lattice.files import ACCEPTED, format_of, read_graph  # networkx takes a tenth of a second

        if format_of(Path(kind)) is None:
            raise InvalidInput(f"--lattice {kind}: expected {', '.join(KINDS)}, or {ACCEPTED}")
        try:
            return read_graph(Path(kind))
        except InvalidInput as error:
            raise InvalidInput(f"--lattice {error}") from None
    lengths: tuple[int, ...] = (16, 16)
    settings: dict[str, Any] = {"lattice_seed": 0}
    if base is not None and base.kind in KINDS:
        same = arguments if base.kind == kind else ["boundary"]
        lengths = base.shape
        settings |= {name: getattr(base, KINDS[base.kind][1][name]) for name in same}
    settings |= given
    return build(*(size or lengths), **{arguments[name]: settings[name] for name in arguments if name in settings})


def beta_from(magnet: dict[str, Any]) -> float:
    """The inverse temperature asked for; critical if none was."""
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
