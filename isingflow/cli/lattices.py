"""Which magnet: the options of lattice and temperature, and what they stand for.

`--lattice` names a kind of lattice, or a file with a graph as networkx writes it: sites are its nodes, bonds its edges,
with the strength of each in the edge attribute `coupling` (else `weight`, else 1).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.options import STRONGEST, Boundary, Number, Option, Size, Whole, together
from isingflow.cli.ranges import Betas, FieldSpan, Span
from isingflow.errors import InvalidInput

if TYPE_CHECKING:
    from isingflow.lattice import Lattice

logger = logging.getLogger(__name__)

KINDS: dict[str, dict[str, str]] = {
    "square": {"jx": "jx", "jy": "jy", "boundary": "boundary"},
    "triangular": {"boundary": "boundary"},
    "cubic": {"boundary": "boundary", "j": "j"},
    "chain": {"boundary": "boundary", "j": "j"},
    "hypercubic": {"boundary": "boundary", "j": "j"},
    "edwards-anderson": {"boundary": "boundary", "lattice_seed": "seed"},
}
"""Lattices by name: the options that they have beside --size, with the arguments that these set. There is no option for
`j`, but a run keeps its own at another size."""
DIMENSIONS = {"square": 2, "triangular": 2, "cubic": 3, "chain": 1}
"""Where the name says it; a glass has two unless its size says otherwise."""
USUAL = {1: 16, 2: 16, 3: 4}
"""Length by dimension, where no size is given."""


def size_option(size: Size) -> Option:
    return click.option(
        "--size",
        type=size,
        metavar="L|LXxLY",
        help="Sites along each side, 4x4x8 in more dimensions; 16 by default, 4 of a cube.",
    )


_LATTICE = together(
    click.option(
        "--lattice",
        metavar="KIND|FILE",
        help="square (the default), triangular, cubic, chain, hypercubic, edwards-anderson, or a graph: FILE.graphml, "
        ".gml, .json (node-link), .edgelist, .csv or .adjlist, with the edge attribute coupling.",
    ),
    click.option("--lattice-seed", type=Whole(0, 2**62), metavar="N", help="Which glass; 0 by default."),
    click.option(
        "--critical", is_flag=True, help="The critical beta of the infinite lattice, where it is known; the default."
    ),
)
_REST = together(
    click.option("--temperature", type=Number(positive=True), metavar="T", help="1/beta."),
    click.option("--jx", type=Number(most=STRONGEST), metavar="J", help="Coupling along x; 1 by default."),
    click.option("--jy", type=Number(most=STRONGEST), metavar="J", help="Coupling along y; 1 by default."),
    click.option(
        "--boundary",
        type=Boundary(),
        metavar="periodic|open",
        help="periodic by default; periodic,open and so on where directions differ.",
    ),
)
_FIELD = click.option(
    "--field", type=Number(most=STRONGEST), metavar="H", help="External magnetic field; none by default."
)
_FIELD_SPAN = click.option(
    "--field",
    type=FieldSpan(most=STRONGEST),
    metavar="H|FIRST:LAST",
    help="External magnetic field, or a range of them, 0:0.2: one flow for all; none by default.",
)
_FIELD_SEED = click.option(
    "--field-seed", type=Whole(0, 2**62), metavar="N", help="A random field, +H or -H on every site: which."
)
BETA = click.option("--beta", type=Number(most=STRONGEST), metavar="B", help="Inverse temperature, of either sign.")
BETAS = click.option(
    "--beta",
    type=Betas(most=STRONGEST),
    metavar="B|FIRST:LAST:COUNT",
    help="Inverse temperature, of either sign, or a range of them, linear, ends included: 0.2:0.6:41.",
)
SPAN = click.option(
    "--beta",
    type=Span(most=STRONGEST),
    metavar="B|FIRST:LAST",
    help="Inverse temperature, of either sign, or a range of them, 0.2:0.6: one flow for all.",
)
MAGNET = together(_LATTICE, BETA, _REST, _FIELD, _FIELD_SEED)
"""The physics of a lattice: what `lattice_from` and `beta_from` read."""
FAMILY = together(_LATTICE, SPAN, _REST, _FIELD_SPAN, _FIELD_SEED)
"""The same at one temperature, in one field, or at all of a range."""
MAGNETS = together(_LATTICE, BETAS, _REST, _FIELD, _FIELD_SEED)
"""The same at one temperature or at several: what `lattice_from` and `betas_from` read."""

SHAPING = ("jx", "jy", "boundary", "lattice_seed")


def lattice_from(size: tuple[int, ...] | None, magnet: dict[str, Any], base: Lattice | None = None) -> Lattice:
    """The lattice asked for; what was not given is square, 16x16, ferromagnetic, periodic and without a field, or as in
    `base`.
    """
    found, strength, seed = _couplings_from(size, magnet, base), magnet["field"], magnet["field_seed"]
    if strength is None:
        if seed is not None:
            raise InvalidInput("--field-seed goes with --field H, the strength of the random field")
        return found if base is None or found is base else _keeping_field(found, base)
    if found.kind == "graph" and found.field is not None and base is None:
        raise InvalidInput("--field does not go with a graph whose nodes have fields: leave it out")
    if seed is None:
        return found.with_field(strength)
    from isingflow.lattice import random_field

    return random_field(found, strength, seed=seed)


def _keeping_field(lattice: Lattice, base: Lattice) -> Lattice:
    """The lattice in the field of another."""
    if lattice.kind == "graph" or base.field is None:
        return lattice
    if not isinstance(base.field, float) and base.shape != lattice.shape:
        raise InvalidInput(f"the external field of {base} does not fit {lattice}: give another one, --field H")
    return lattice.with_field(base.field)


def _couplings_from(size: tuple[int, ...] | None, magnet: dict[str, Any], base: Lattice | None) -> Lattice:
    given = {} if size is None else {"size": size}
    given |= {name: magnet[name] for name in SHAPING if magnet[name] is not None}
    named = magnet["lattice"]
    if named is None and base is not None and not given:
        return base
    kind = ("square" if base is None else _name_of(base)) if named is None else named
    if named is not None and kind not in KINDS:
        return _graph(kind, given)
    arguments = KINDS.get(kind, {})
    _check_options(kind, given, ("size", *arguments) if kind in KINDS else ())
    lengths: tuple[int, ...] | None = None
    settings: dict[str, Any] = {"lattice_seed": 0}
    if base is not None and base.kind != "graph":
        same = arguments if _name_of(base) == kind else ["boundary"]
        lengths = base.shape
        settings |= {name: getattr(base, KINDS[_name_of(base)][name]) for name in same}
    settings |= given
    lengths = _lengths(kind, size, lengths)
    from isingflow import lattice

    chosen = {arguments[name]: settings[name] for name in arguments if name in settings}
    if kind in ("square", "triangular"):
        return getattr(lattice, kind)(*lengths, **chosen)
    return (lattice.edwards_anderson if kind == "edwards-anderson" else lattice.hypercubic)(lengths, **chosen)


def _name_of(lattice: Lattice) -> str:
    """The kind as the command line has it."""
    names = {1: "chain", 3: "cubic"}
    return names.get(len(lattice.shape), lattice.kind) if lattice.kind == "hypercubic" else lattice.kind


def _lengths(kind: str, size: tuple[int, ...] | None, usual: tuple[int, ...] | None) -> tuple[int, ...]:
    """All lengths; one number is that of all directions, as many as the kind has."""
    dimensions = DIMENSIONS.get(kind)
    if size is None or len(size) == 1:
        if dimensions is None and usual is None and kind == "hypercubic":
            raise InvalidInput(
                "the lattice hypercubic needs a --size with one length for each dimension, such as 4x4x4x4"
            )
        dimensions = dimensions or len(usual or (0, 0))
        fits = usual is not None and len(usual) == dimensions
        return size * dimensions if size else (usual if fits and usual else (USUAL[dimensions],) * dimensions)
    if dimensions is not None and len(size) != dimensions:
        shown = "x".join(map(str, size))
        raise InvalidInput(
            f"--size {shown}: the dimension of the lattice {kind} is {dimensions}; that of --lattice hypercubic is how "
            "many lengths are given"
        )
    return size


def _graph(name: str, given: dict[str, Any]) -> Lattice:
    """The lattice of a graph in a file, if it is the name of one."""
    from isingflow.lattice.files import ACCEPTED, format_of, read_graph  # networkx takes a tenth of a second

    if format_of(Path(name)) is None:
        shown = name if name.strip() else repr(name)
        raise InvalidInput(f"--lattice {shown}: expected {', '.join(KINDS)}, or {ACCEPTED}")
    _check_options(name, given, ())
    try:
        return read_graph(Path(name))
    except InvalidInput as error:
        raise InvalidInput(f"--lattice {error}") from None


def _check_options(kind: str, given: dict[str, Any], possible: tuple[str, ...]) -> None:
    for name in given:
        if name not in possible:
            raise InvalidInput(f"--{name.replace('_', '-')} does not go with the lattice {kind}: leave it out")


def beta_from(magnet: dict[str, Any], lattice: Lattice) -> float:
    """The inverse temperature asked for; that at which the lattice is critical if none was."""
    given = ["--critical"] * magnet["critical"]
    given += [f"--{name}" for name in ("beta", "temperature") if magnet[name] is not None]
    if len(given) > 1:
        raise InvalidInput(f"{' and '.join(given)} exclude each other: give one of them")
    if magnet["beta"] is not None:
        return magnet["beta"]
    if magnet["temperature"] is None:
        return _critical(lattice, "--critical" if magnet["critical"] else "no --beta or --temperature is given")
    if magnet["temperature"] < 1 / STRONGEST:
        raise InvalidInput(f"--temperature {magnet['temperature']:g}: expected at least {1 / STRONGEST:g}")
    return 1 / magnet["temperature"]


def betas_from(magnet: dict[str, Any], lattice: Lattice) -> tuple[float, ...]:
    """All inverse temperatures asked for, one or those of a range."""
    found: Any = beta_from(magnet, lattice)
    return found if isinstance(found, tuple) else (found,)


def _critical(lattice: Lattice, asked: str) -> float:
    """The critical inverse temperature; a note says where it is from, but for the one that everybody knows."""
    from isingflow.lattice import CRITICAL_BETA, critical_beta

    try:
        found = critical_beta(lattice)
    except InvalidInput as error:
        raise InvalidInput(f"{asked}: {error}") from None
    if found.value != CRITICAL_BETA:
        logger.info("beta = %.8g, critical: %s", *found)
    return found.value
