"""Lattices by name, made from lengths, strengths and seeds, or from lists of bonds; all that is given is validated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice.checks import MAX_SITES, STRONGEST, check_labels, check_shape, frozen
from isingflow.lattice.critical import is_critical
from isingflow.lattice.graph import OPTIONAL, PARAMETERS, Lattice, check_magnet
from isingflow.runtime.checks import LARGEST_SEED, as_numpy, count, shown


def heading(lattice: Lattice, beta: float) -> str:
    """A magnet in words.

    Example:
        >>> heading(square(8), math.log(1 + math.sqrt(2)) / 2)
        '2D Ising, periodic 8x8, beta = 0.440687 (critical)'
    """
    beta = check_magnet(lattice, beta)
    model = "Ising" if lattice.kind == "graph" else "2D Ising"
    return f"{model}, {lattice}, beta = {beta:.6f}" + (" (critical)" if is_critical(lattice, beta) else "")


def square(
    lx: int,
    ly: int | None = None,
    *,
    jx: float | np.ndarray = 1.0,
    jy: float | np.ndarray = 1.0,
    boundary: str = "periodic",
) -> Lattice:
    """The square lattice, lx x ly (ly = lx if not given).

    Args:
        lx, ly: lengths, at least 2.
        jx, jy: strengths, numbers or (lx, ly) arrays: jx[x, y] couples (x, y) to (x+1, y), jy[x, y] couples (x, y) to
            (x, y+1). With an open boundary the last row of jx and the last column of jy are not used.
        boundary: "periodic" or "open".

    Raises:
        InvalidInput: lengths, strengths or boundary are not as above.

    Example:
        >>> square(4, 6, jy=0.5)
        <Lattice: periodic 4x6, jx = 1, jy = 0.5>
    """
    return Lattice("square", check_shape(lx, ly), boundary, jx, jy)


def triangular(lx: int, ly: int | None = None, *, boundary: str = "periodic") -> Lattice:
    """The triangular lattice with strength 1: the square one and the diagonals (x, y) to (x+1, y+1).

    Raises:
        InvalidInput: lengths below 2, or an unknown boundary.

    Example:
        >>> print(triangular(6).symmetry)
        translations x D6 x Z2
    """
    return Lattice("triangular", check_shape(lx, ly), boundary, 1.0, 1.0)


def edwards_anderson(lx: int, ly: int | None = None, *, seed: int, boundary: str = "periodic") -> Lattice:
    """The +-J spin glass: a square lattice whose strengths are +1 or -1 with equal probability.

    Args:
        lx, ly: lengths, at least 2.
        seed: an integer from 0 to 2**62 for numpy.random.default_rng; the same seed gives the same strengths.
        boundary: "periodic" or "open".

    Raises:
        InvalidInput: lengths, seed or boundary are not as above.

    Example:
        >>> sorted(set(edwards_anderson(8, seed=1).strengths))
        [np.float64(-1.0), np.float64(1.0)]
    """
    shape = check_shape(lx, ly)
    seed = count("seed", seed, least=0, most=LARGEST_SEED)
    if math.prod(shape) > MAX_SITES:
        raise InvalidInput(f"size {shape[0]}x{shape[1]}: a disordered lattice has at most {MAX_SITES} sites")
    signs = 1.0 - 2.0 * np.random.default_rng(seed).integers(2, size=(2, *shape))
    return Lattice("edwards-anderson", shape, boundary, signs[0], signs[1], seed)


def from_bonds(sites: int, *, bonds: Any, strengths: Any, labels: Any = None) -> Lattice:
    """A graph lattice from lists, in which nothing is taken on trust."""
    pairs = as_numpy(bonds)
    try:
        values = list(strengths)
    except (TypeError, ValueError):
        values = None
    if pairs is None or values is None:
        raise InvalidInput("bonds must be a list of pairs of sites, strengths a list of numbers")
    if pairs.size == 0:
        raise InvalidInput("the graph has no edges: at least one bond is needed")
    if isinstance(sites, bool) or not isinstance(sites, Integral) or not 2 <= sites <= MAX_SITES:
        raise InvalidInput(f"{shown(sites)} sites: expected an integer from 2 to {MAX_SITES}")
    if pairs.shape != (len(values), 2) or pairs.dtype.kind != "i" or pairs.min() < 0 or pairs.max() >= sites:
        raise InvalidInput(f"bonds must be pairs of sites 0 .. {sites - 1}, as many as there are strengths")
    names = check_labels(labels, int(sites))
    loops = pairs[pairs[:, 0] == pairs[:, 1], 0]
    if loops.size:
        site = _name(names, loops[0])
        raise InvalidInput(f"the graph has a self-loop at site {site}: a spin does not couple to itself")
    for (a, b), value in zip(pairs, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, Real) or not -STRONGEST <= value <= STRONGEST:
            raise InvalidInput(
                f"coupling {shown(value)} of the bond {_name(names, a)}-{_name(names, b)}: expected a finite number, "
                f"at most {STRONGEST:g} in size"
            )
    edges = frozen(pairs.astype(np.int64)), frozen(np.array(values, dtype=float))
    return Lattice("graph", (int(sites),), edges=edges, names=names)


def _name(names: tuple[str, ...] | None, site: int) -> str:
    """A site in messages."""
    return str(site) if names is None else shown(names[site])


BUILDERS: dict[str, Callable[..., Lattice]] = {
    "square": square,
    "triangular": triangular,
    "edwards-anderson": edwards_anderson,
    "graph": from_bonds,
}


def from_dict(data: Mapping[str, Any]) -> Lattice:
    """The lattice that `Lattice.to_dict` described.

    Raises:
        InvalidInput: the data do not describe a lattice.

    Example:
        >>> from_dict(square(8).to_dict()) == square(8)
        True
    """
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in BUILDERS:
        raise InvalidInput(f"not a lattice: expected a mapping whose kind is one of {', '.join(BUILDERS)}")
    names = PARAMETERS[kind]
    expected = {"kind", "shape", *names, *([] if kind == "graph" else ["boundary"])}
    expected |= OPTIONAL.get(kind, set()) & set(data)
    if set(data) != expected:
        raise InvalidInput(f"not a lattice: a {kind} one has the entries {', '.join(sorted(expected))}")
    shape = data["shape"]
    if not isinstance(shape, list | tuple) or len(shape) != (1 if kind == "graph" else 2):
        raise InvalidInput(f"not a lattice: shape {shown(shape)} of a {kind} one")
    return BUILDERS[kind](*shape, **{name: data[name] for name in expected - {"kind", "shape"}})
