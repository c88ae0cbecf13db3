"""Lattices by name, made from lengths, strengths and seeds, or from lists of bonds; all that is given is validated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice.checks import MAX_SITES, STRONGEST, check_labels, check_shape, frozen
from isingflow.lattice.critical import is_critical
from isingflow.lattice.graph import DIMENSIONS, PARAMETERS, Lattice, check_magnet
from isingflow.lattice.grid import MOST_DIMENSIONS, check_boundaries, check_lengths
from isingflow.runtime.checks import LARGEST_SEED, as_numpy, count, shown


def heading(lattice: Lattice, beta: float) -> str:
    """A magnet in words.

    Example:
        >>> heading(square(8), math.log(1 + math.sqrt(2)) / 2)
        '2D Ising, periodic 8x8, beta = 0.440687 (critical)'
    """
    beta = check_magnet(lattice, beta)
    model = "Ising" if lattice.dimensions is None else f"{lattice.dimensions}D Ising"
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
    return Lattice("square", check_shape(lx, ly), boundary, (jx, jy))


def triangular(lx: int, ly: int | None = None, *, boundary: str = "periodic") -> Lattice:
    """The triangular lattice with strength 1: the square one and the diagonals (x, y) to (x+1, y+1).

    Raises:
        InvalidInput: lengths below 2, or an unknown boundary.

    Example:
        >>> print(triangular(6).symmetry)
        translations x D6 x Z2
    """
    return Lattice("triangular", check_shape(lx, ly), boundary, (1.0, 1.0))


def hypercubic(
    lengths: Sequence[int],
    *,
    j: float | Sequence[float | np.ndarray] = 1.0,
    boundary: str | Sequence[str] = "periodic",
) -> Lattice:
    """The lattice of nearest neighbours in one to six dimensions.

    Args:
        lengths: one for each dimension, at least 2.
        j: strength of all bonds, or one for each direction, each a number or an array of the lattice's shape: the entry
            of a site is the strength of the bond to the next one along that direction.
        boundary: "periodic" or "open", or one of them for each direction.

    Raises:
        InvalidInput: lengths, strengths or boundaries are not as above.

    Example:
        >>> slab = hypercubic((4, 4, 8), j=(1, 1, 0.5), boundary=("periodic", "periodic", "open"))
        >>> print(slab, slab.symmetry)
        periodic-periodic-open 4x4x8, jx = 1, jy = 1, jz = 0.5 G16 x Z2
    """
    shape = check_lengths(tuple(lengths) if isinstance(lengths, list) else lengths)
    strengths: Any = tuple(j) if isinstance(j, list | tuple) else (j,) * len(shape)
    return Lattice("hypercubic", shape, check_boundaries(boundary, len(shape)), strengths)


def cubic(length: int, *, boundary: str | Sequence[str] = "periodic") -> Lattice:
    """The cubic lattice, length x length x length, with strength 1.

    Raises:
        InvalidInput: a length below 2, or an unknown boundary.

    Example:
        >>> print(cubic(8), cubic(8).symmetry)
        periodic 8x8x8 translations x Oh x Z2
    """
    return hypercubic((length,) * 3, boundary=boundary)


def chain(length: int, *, j: float | np.ndarray = 1.0, boundary: str = "periodic") -> Lattice:
    """A ring of spins, or an open chain.

    Raises:
        InvalidInput: a length below 2, strengths or a boundary that are none.

    Example:
        >>> chain(8)
        <Lattice: periodic chain of 8>
    """
    return hypercubic((length,), j=(j,), boundary=boundary)


def edwards_anderson(
    lx: int | Sequence[int], ly: int | None = None, *, seed: int, boundary: str | Sequence[str] = "periodic"
) -> Lattice:
    """The +-J spin glass: strengths +1 or -1 with equal probability, on a square lattice or one of any dimension.

    Args:
        lx, ly: lengths, at least 2; or all lengths as the first argument.
        seed: an integer from 0 to 2**62 for numpy.random.default_rng; the same seed gives the same strengths.
        boundary: "periodic" or "open", or one of them for each direction.

    Raises:
        InvalidInput: lengths, seed or boundary are not as above.

    Example:
        >>> sorted(set(edwards_anderson(8, seed=1).strengths)), edwards_anderson((4, 4, 4), seed=1).sites
        ([np.float64(-1.0), np.float64(1.0)], 64)
    """
    if isinstance(lx, list | tuple):
        if ly is not None:
            raise InvalidInput(f"ly is {shown(ly)}, but all lengths are given: {shown(lx)}")
        shape = check_lengths(tuple(lx))
    else:
        shape = check_shape(lx, ly)
    seed = count("seed", seed, least=0, most=LARGEST_SEED)
    if math.prod(shape) > MAX_SITES:
        size = "x".join(map(str, shape))
        raise InvalidInput(f"size {size}: a disordered lattice has at most {MAX_SITES} sites")
    signs = 1.0 - 2.0 * np.random.default_rng(seed).integers(2, size=(len(shape), *shape))
    return Lattice("edwards-anderson", shape, check_boundaries(boundary, len(shape)), tuple(signs), seed)


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
    "square": lambda shape, **settings: square(*shape, **settings),
    "triangular": lambda shape, **settings: triangular(*shape, **settings),
    "hypercubic": hypercubic,
    "edwards-anderson": edwards_anderson,
    "graph": lambda shape, **settings: from_bonds(*shape, **settings),
}
"""What makes a lattice of a shape, a list of lengths, from the entries of its description."""


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
    expected |= {"field", *(["labels"] if kind == "graph" else [])} & set(data)
    if set(data) != expected:
        raise InvalidInput(f"not a lattice: a {kind} one has the entries {', '.join(sorted(expected))}")
    shape = data["shape"]
    fewest, most = DIMENSIONS.get(kind, (1, MOST_DIMENSIONS))
    if not isinstance(shape, list | tuple) or not fewest <= len(shape) <= most:
        raise InvalidInput(f"not a lattice: shape {shown(shape)} of a {kind} one")
    settings = {name: data[name] for name in expected - {"kind", "shape", "field"}}
    return BUILDERS[kind](tuple(shape), **settings).with_field(data.get("field"))
