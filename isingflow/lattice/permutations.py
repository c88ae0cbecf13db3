"""Site permutations with a sign, and the point operations of lattices as such."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice.checks import MAX_SITES
from isingflow.runtime.checks import array, count, flag, instance, shown

Vector = tuple[int, ...]
LinearMap = tuple[Vector, ...]  # images of the unit displacements


def _dihedral(ring: tuple[Vector, ...], step: int) -> tuple[LinearMap, ...]:
    """Every linear map that permutes `ring`: displacements in angular order, (1, 0) and (0, 1) being `step` apart."""
    turns = range(len(ring))
    return tuple((ring[i], ring[(i + turn) % len(ring)]) for turn in (step, -step) for i in turns)


def hyperoctahedral(dimensions: int) -> tuple[LinearMap, ...]:
    """Every linear map that permutes and reflects the axes, the identity first: 2^d d! of them.

    Example:
        >>> [len(hyperoctahedral(d)) for d in (1, 2, 3)]
        [2, 8, 48]
    """
    signs, orders = product((1, -1), repeat=dimensions), list(permutations(range(dimensions)))
    return tuple(
        tuple(
            tuple(sign if axis == image else 0 for axis in range(dimensions))
            for sign, image in zip(s, order, strict=True)
        )
        for s in signs
        for order in orders
    )


SQUARE_POINT_MAPS = _dihedral(((1, 0), (0, 1), (-1, 0), (0, -1)), step=1)
TRIANGULAR_POINT_MAPS = _dihedral(((1, 0), (1, 1), (0, 1), (-1, 0), (-1, -1), (0, -1)), step=2)


@dataclass(frozen=True, eq=False)
class Element:
    """One symmetry operation, (g x)_i = sign * x_{permutation[i]} with sites in row-major order.

    Example:
        >>> flip = Element((2, 2), np.arange(4), sign=-1)
        >>> flip.apply(np.ones((2, 2)))
        array([[-1., -1.],
               [-1., -1.]])
    """

    shape: tuple[int, ...]
    permutation: np.ndarray
    sign: int = 1

    def apply(self, field: Any) -> Any:
        """The transformed field g x; field is a numpy array or torch tensor of shape (..., *shape).

        Raises:
            InvalidInput: it is something else.
        """
        if tuple(getattr(field, "shape", ()))[-len(self.shape) :] != self.shape:
            expected = ", ".join(map(str, self.shape))
            raise InvalidInput(f"field is {shown(field)}, expected an array or tensor of shape (..., {expected})")
        flat = field.reshape(*field.shape[: field.ndim - len(self.shape)], -1)
        return (self.sign * flat[..., self.permutation]).reshape(field.shape)

    def compose(self, other: Element) -> Element:
        """The product g h: first `other`, then this one."""
        return Element(self.shape, other.permutation[self.permutation], self.sign * other.sign)

    def inverse(self) -> Element:
        """The element that undoes this one."""
        return Element(self.shape, np.argsort(self.permutation), self.sign)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Element) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        return self.shape, self.sign, self.permutation.tobytes()


def point_permutations(
    shape: tuple[int, ...], maps: tuple[LinearMap, ...], about_centre: bool | tuple[bool, ...]
) -> tuple[np.ndarray, ...]:
    """Those linear maps that carry a lattice of these lengths onto itself, as site permutations, shape (N,) each.

    Args:
        shape: lengths, such as (lx, ly).
        maps: images of the unit displacements, such as (1, 0) and (0, 1).
        about_centre: False for a torus, turned about site 0; True for an open rectangle, turned about its centre; or
            one of these for each direction.

    Raises:
        InvalidInput: not so; WrongType: of other types.

    Example:
        >>> point_permutations((2, 2), SQUARE_POINT_MAPS[:2], about_centre=True)[1]
        array([2, 0, 3, 1])
    """
    shape = check_group_shape(shape)
    dimensions = len(shape)
    ends = about_centre if isinstance(about_centre, tuple) else (about_centre,) * dimensions
    opened = np.array([flag("about_centre", end) for end in ends])
    images = array("maps", maps, (None, dimensions, dimensions), integers=True, empty=True)
    lengths = np.array(shape)
    twice_centre = np.where(opened, lengths - 1, 0)
    sites = np.indices(shape).reshape(dimensions, -1).T
    found = []
    for columns in images:
        doubled = (2 * sites - twice_centre) @ columns + twice_centre
        winds = np.where(opened[:, None], 0, lengths[:, None] * columns) % lengths
        inside = (doubled >= 0) & (doubled < 2 * lengths) | ~opened
        if not np.any(doubled % 2) and not np.any(winds) and np.all(inside):
            permutation = np.ravel_multi_index((doubled // 2 % lengths).T, shape)
            if np.unique(permutation).size == permutation.size:
                found.append(permutation)
    return tuple(found)


def check_group_shape(shape: Any) -> tuple[int, ...]:
    """The shape of fields that a group acts on.

    Raises:
        InvalidInput: a length below 1, or too many sites; WrongType: no tuple of integers.
    """
    lengths = instance("shape", shape, tuple, "a tuple of lengths")
    checked = tuple(count("a length of the shape", length, most=MAX_SITES) for length in lengths)
    if not checked or math.prod(checked) > MAX_SITES:
        raise InvalidInput(f"shape is {shown(shape)}, expected lengths of 1 to {MAX_SITES} sites in all")
    return checked


def permutation_key(permutation: np.ndarray) -> bytes:
    """What tells one permutation from another."""
    return permutation.astype(np.int64).tobytes()


def permutation_order(permutation: np.ndarray) -> int:
    """How often it is applied until nothing has moved."""
    power, order = permutation, 1
    while not np.array_equal(power, np.arange(power.size)):
        power, order = power[permutation], order + 1
    return order
