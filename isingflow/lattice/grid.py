"""Grids: sites numbered row by row along any number of axes, periodic or open, and bonds between neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice.checks import MAX_CHAIN, MAX_LENGTH, check_boundary, check_strengths, frozen
from isingflow.runtime.checks import count, shown

MOST_DIMENSIONS = 6

Strengths = tuple[float | np.ndarray, ...]


def check_lengths(lengths: Any, least_dimensions: int = 1, most_dimensions: int = MOST_DIMENSIONS) -> tuple[int, ...]:
    """The lengths of a grid, each from 2 to 10^6, or 10^9 of a chain.

    Raises:
        InvalidInput: too few or too many of them, or one out of range; WrongType: no integers.

    Example:
        >>> check_lengths((4, 4, 8))
        (4, 4, 8)
    """
    several = isinstance(lengths, list | tuple) and least_dimensions <= len(lengths) <= most_dimensions
    if not several:
        numbers = (
            least_dimensions if least_dimensions == most_dimensions else f"{least_dimensions} to {most_dimensions}"
        )
        raise InvalidInput(f"lengths {shown(lengths)}: expected {numbers} of them, one for each dimension")
    most = MAX_CHAIN if len(lengths) == 1 else MAX_LENGTH
    return tuple(count("length", length, least=2, most=most) for length in lengths)


def check_boundaries(boundary: Any, dimensions: int) -> str | tuple[str, ...]:
    """The boundary as it is kept: one word where all directions have the same, else one for each.

    Raises:
        InvalidInput: unknown words, or not one or as many as there are dimensions.

    Example:
        >>> check_boundaries(["open", "open"], 2), check_boundaries(("periodic", "open"), 2)
        ('open', ('periodic', 'open'))
    """
    if not isinstance(boundary, list | tuple):
        return check_boundary(boundary)
    words = tuple(check_boundary(word) for word in boundary)
    if len(words) != dimensions:
        raise InvalidInput(f"boundary {shown(boundary)}: expected one word, or {dimensions}, one for each direction")
    return words[0] if len(set(words)) == 1 else words


def open_axes(boundary: str | tuple[str, ...] | None, dimensions: int) -> tuple[bool, ...]:
    """Whether each direction is open."""
    words = boundary if isinstance(boundary, tuple) else (boundary,) * dimensions
    return tuple(word == "open" for word in words)


def check_j(j: Any, shape: tuple[int, ...], opened: Sequence[bool], named: bool) -> Strengths:
    """The strengths along all directions as they are kept: numbers, or arrays that are 0 where they are not used.

    Args:
        j: one for each direction.
        shape, opened: of the grid.
        named: whether they are called jx and jy, in messages.

    Raises:
        InvalidInput: another number of them, or what is no strength.
    """
    if not isinstance(j, tuple) or len(j) != len(shape):
        raise InvalidInput(f"j is {shown(j)}, expected {len(shape)} strengths, one for each direction")
    checked = []
    for axis, strength in enumerate(j):
        used = tuple(length - (opened[axis] and here == axis) for here, length in enumerate(shape))
        checked.append(check_strengths(f"j{'xy'[axis]}" if named else f"j[{axis}]", strength, shape, used))
    return tuple(checked)


def size_in_words(shape: Sequence[int], boundary: str | tuple[str, ...] | None, kind: str) -> str:
    """The grid in words.

    Example:
        >>> size_in_words((4, 4), "open", "triangular"), size_in_words((8,), "periodic", "hypercubic")
        ('open triangular 4x4', 'periodic chain of 8')
    """
    ends = "-".join(boundary) if isinstance(boundary, tuple) else boundary
    names = {"edwards-anderson": "Edwards-Anderson", "triangular": "triangular"}
    name = names.get(kind, "chain of" if len(shape) == 1 else "")
    return " ".join(filter(None, [ends, name, "x".join(map(str, shape))]))


def strengths_in_words(j: Strengths) -> str:
    """Strengths that are not all one, behind the size.

    Example:
        >>> strengths_in_words((1.0, 0.5)), strengths_in_words((1.0, 1.0, 1.0))
        (', jx = 1, jy = 0.5', '')
    """
    words = ["varies" if isinstance(value, np.ndarray) else f"= {value:g}" for value in j]
    axes = "xyz" if len(j) <= 3 else "123456"
    return "" if set(words) == {"= 1"} else "".join(f", j{a} {word}" for a, word in zip(axes, words, strict=False))


def bonds(
    shape: Sequence[int], opened: Sequence[bool], directions: Sequence[tuple[Sequence[int], float | np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """All bonds and their strengths.

    Args:
        shape: lengths.
        opened: whether each direction is open.
        directions: displacements with entries 0 and 1, and the strengths of the bonds along them: a number, or an array
            with an entry for the site that each starts from.

    Returns:
        Pairs of sites, shape (n_bonds, 2), and strengths, shape (n_bonds,).
    """
    index = np.arange(math.prod(shape)).reshape(shape)
    axes = tuple(range(len(shape)))
    pairs, strengths = [], []
    for displacement, strength in directions:
        inside = tuple(
            slice(None, -step or None) if end else slice(None) for step, end in zip(displacement, opened, strict=True)
        )
        neighbours = np.roll(index, [-step for step in displacement], axes)
        pairs.append(np.stack([index[inside].ravel(), neighbours[inside].ravel()], axis=1))
        strengths.append(np.broadcast_to(np.asarray(strength), tuple(shape))[inside].ravel())
    return frozen(np.concatenate(pairs)), frozen(np.concatenate(strengths).astype(float))


def total_strength(shape: Sequence[int], opened: Sequence[bool], j: Sequence[float]) -> float:
    """Sum of |J| over the bonds along all axes.

    Example:
        >>> total_strength((4, 4, 2), (False, True, False), (1.0, 1.0, -0.5))
        72.0
    """
    sites = math.prod(shape)
    return sum(
        sites // length * (length - end) * abs(strength) for length, end, strength in zip(shape, opened, j, strict=True)
    )


def diagonals(shape: Sequence[int], opened: Sequence[bool]) -> int:
    """Number of the third bonds of a triangular lattice."""
    return math.prod(length - end for length, end in zip(shape, opened, strict=True))


def listed(value: Any) -> Any:
    """Words, numbers and arrays, or a tuple of them, as JSON holds them."""
    if isinstance(value, tuple):
        return [listed(part) for part in value]
    return value if isinstance(value, str) else np.asarray(value).tolist()


def units(dimensions: int) -> list[tuple[int, ...]]:
    """The unit displacements."""
    return [tuple(int(axis == along) for axis in range(dimensions)) for along in range(dimensions)]
