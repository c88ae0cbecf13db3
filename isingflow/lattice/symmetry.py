"""Symmetry groups of fields on lattices: site permutations with a sign.

A group is a product, {translation} x {point operation} x {global spin flip}, and is stored as its factors: 64x64 sites
have 65,536 elements, of which 8 permutations are kept and the rest are made when asked for. An element g acts as
(g x)_i = sign * x_{p(i)}; a density is symmetric if log p(g x) = log p(x).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.lattice.permutations import (
    SQUARE_POINT_MAPS,
    TRIANGULAR_POINT_MAPS,
    Element,
    check_group_shape,
    hyperoctahedral,
    permutation_key,
    permutation_order,
    point_permutations,
)
from isingflow.runtime.checks import array, count, flag, instance


@dataclass(frozen=True, eq=False)
class Group:
    """All products of a translation, a point operation and a global spin flip on fields of one shape.

    Args:
        shape: shape of the fields; sites are numbered in row-major order.
        translations: whether every translation of the torus belongs to the group.
        point: site permutations, shape (N,) each, closed under composition; with translations they must leave site 0
            where it is and turn translations into translations. None given: the identity alone.
        flip: whether the global spin flip x -> -x (Z2) belongs to the group.

    Raises:
        InvalidInput: the factors given do not form a group.

    Example:
        >>> group = square_torus_group(16, 16)
        >>> str(group), group.order
        ('translations x D4 x Z2', 4096)
    """

    shape: tuple[int, ...]
    translations: bool = False
    point: tuple[np.ndarray, ...] = ()
    flip: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_group_shape(self.shape))
        for name in ("translations", "flip"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))
        identity = np.arange(self.sites)
        permutations = instance("point", self.point, (tuple, list), "a tuple of site permutations")
        given = tuple(array("a point operation", p, integers=True) for p in permutations) or (identity,)
        for permutation in given:
            if permutation.shape != (self.sites,) or not np.array_equal(np.sort(permutation), identity):
                raise InvalidInput(f"a point operation must be a permutation of the sites 0 .. {self.sites - 1}")
        unique = {permutation_key(p): p.astype(np.int64) for p in given}
        unique = {permutation_key(identity): identity} | unique if permutation_key(identity) in unique else unique
        object.__setattr__(self, "point", tuple(unique.values()))
        if any(permutation_key(p[q]) not in unique for p in self.point for q in self.point):
            raise InvalidInput("point operations must form a group: closed under composition, with the identity")
        if self.translations and not all(self._normalises_translations(p) for p in self.point):
            raise InvalidInput("beside translations, point operations must be linear maps that fix site 0")

    @property
    def sites(self) -> int:
        """Number of sites N."""
        return math.prod(self.shape)

    @property
    def order(self) -> int:
        """Number of elements."""
        return (self.sites if self.translations else 1) * len(self.point) * (2 if self.flip else 1)

    @property
    def identity(self) -> Element:
        """The element that does nothing."""
        return Element(self.shape, np.arange(self.sites))

    @property
    def point_name(self) -> str:
        """Name of the point group as an abstract group: "C1", "C2", "D2", "D4", "D6", ..., "Oh" of a cube; of others
        their order.
        """
        size, dimensions = len(self.point), len(self.shape)
        orders = [permutation_order(p) for p in self.point]
        if size in orders:
            return f"C{size}"
        if dimensions > 2 and size == 2**dimensions * math.factorial(dimensions):
            return "Oh" if dimensions == 3 else f"B{dimensions}"
        turns = [p for p, order in zip(self.point, orders, strict=True) if 2 * order == size]
        return f"D{size // 2}" if any(self._dihedral(turn, orders) for turn in turns) else f"G{size}"

    def _dihedral(self, turn: np.ndarray, orders: list[int]) -> bool:
        """Whether the point group consists of the powers of one operation and of reflections that invert it."""
        powers, power = set(), np.arange(self.sites)
        for _ in range(len(self.point) // 2):
            powers.add(permutation_key(power))
            power = power[turn]
        rest = [(p, o) for p, o in zip(self.point, orders, strict=True) if permutation_key(p) not in powers]
        return all(order == 2 and np.array_equal(p[turn[p]], np.argsort(turn)) for p, order in rest)

    def __str__(self) -> str:
        factors = [
            "translations" if self.translations else "",
            self.point_name if len(self.point) > 1 else "",
            "Z2" if self.flip else "",
        ]
        return " x ".join(filter(None, factors)) or "identity"

    def element(self, shift: tuple[int, ...] | None = None, point: int = 0, sign: int = 1) -> Element:
        """The element that reads site P(i) + shift, P being the point operation of that index, times the sign."""
        permutation = self.point[point]
        if shift is not None:
            permutation = self._translation(shift)[permutation]
        return Element(self.shape, permutation, sign)

    def elements(self) -> Iterator[Element]:
        """Every element once, the identity first, made one at a time."""
        shifts = np.ndindex(*self.shape) if self.translations else iter([None])
        for shift in shifts:
            for index in range(len(self.point)):
                for sign in (1, -1) if self.flip else (1,):
                    yield self.element(shift, index, sign)

    def sample(self, rng: np.random.Generator, n: int) -> list[Element]:
        """n elements drawn independently and uniformly.

        Raises:
            InvalidInput: n is negative; WrongType: it is no integer, or rng no generator.
        """
        instance("rng", rng, np.random.Generator, "a numpy Generator")
        n = count("n", n, least=0)
        shifts = rng.integers(self.shape, size=(n, len(self.shape))) if self.translations else [None] * n
        points = rng.integers(len(self.point), size=n)
        signs = 1 - 2 * rng.integers(2, size=n) if self.flip else np.ones(n, int)
        return [
            self.element(shift, int(point), int(sign)) for shift, point, sign in zip(shifts, points, signs, strict=True)
        ]

    def __contains__(self, element: Element) -> bool:
        known_sign = element.sign == 1 or self.flip
        return element.shape == self.shape and known_sign and self._has_permutation(element.permutation)

    def contains(self, other: Group) -> bool:
        """Whether `other` is a subgroup of this group."""
        return not self.missing(other)

    def missing(self, other: Group) -> list[str]:
        """What `other` has and this group has not, in words; empty if `other` is a subgroup.

        Raises:
            WrongType: it is no group.
        """
        instance("other", other, Group, "a Group")
        if other.shape != self.shape:
            return [f"fields of shape {other.shape} instead of {self.shape}"]
        foreign = sum(not self._has_permutation(p) for p in other.point)
        return list(
            filter(
                None,
                [
                    "translations" if other.translations and not self.translations else "",
                    f"{foreign} of the {len(other.point)} operations of {other.point_name}" if foreign else "",
                    "the spin flip Z2" if other.flip and not self.flip else "",
                ],
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable description that `group_from_dict` turns back into an equal group."""
        return {
            "shape": list(self.shape),
            "translations": self.translations,
            "point": [permutation.tolist() for permutation in self.point],
            "flip": self.flip,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.contains(other) and other.contains(self)

    def __hash__(self) -> int:
        return hash((self.shape, self.order))

    def orbits(self) -> np.ndarray:
        """Orbit of every site under the whole group: labels 0, 1, ... of shape `shape`."""
        return np.zeros(self.shape, np.int64) if self.translations else self._point_orbits(self.point)

    def displacement_orbits(self) -> np.ndarray:
        """Orbit of every displacement under the point group: labels of shape `shape`, 0 for no displacement.

        A convolution commutes with the group if its kernel has one value per label.

        Raises:
            InvalidInput: the group has no translations.

        Example:
            >>> square_torus_group(4, 4).displacement_orbits()
            array([[0, 1, 2, 1],
                   [1, 3, 4, 3],
                   [2, 4, 5, 4],
                   [1, 3, 4, 3]])
        """
        self._need_translations("displacements")
        return self._point_orbits(self.point)

    def momentum_orbits(self) -> np.ndarray:
        """Orbit of every momentum (fft order) under the point group and k -> -k: labels of shape `shape`.

        A convolution commutes with the group if its spectrum has one value per label. The same as the displacements'
        on square lattices, not on triangular ones: momenta turn with the inverse transpose.

        Raises:
            InvalidInput: the group has no translations.
        """
        self._need_translations("momenta")
        lengths = np.array(self.shape)[:, None]
        momentum = np.indices(self.shape).reshape(len(self.shape), -1)
        units = np.ravel_multi_index(np.eye(len(self.shape), dtype=int), self.shape, mode="wrap")
        images = []
        for permutation in self.point:
            unit_images = np.array(np.unravel_index(permutation[units], self.shape))
            turned = np.rint(lengths * ((unit_images / lengths).T @ momentum)).astype(int)
            images += [np.ravel_multi_index(k % lengths, self.shape) for k in (turned, -turned)]
        return self._point_orbits(images)

    def _need_translations(self, what: str) -> None:
        if not self.translations:
            raise InvalidInput(f"orbits of {what} need a group with translations; this one is: {self}")

    def _point_orbits(self, permutations: Any) -> np.ndarray:
        representative = np.min(np.stack(permutations), axis=0)
        return np.unique(representative, return_inverse=True)[1].reshape(self.shape)

    def _translation(self, shift: Any) -> np.ndarray:
        """The permutation i -> i + shift."""
        axes = tuple(range(len(self.shape)))
        return np.roll(np.arange(self.sites).reshape(self.shape), [-int(s) for s in shift], axes).ravel()

    def _has_permutation(self, permutation: np.ndarray) -> bool:
        if self.translations:
            origin = np.array(np.unravel_index(permutation[0], self.shape))
            permutation = self._translation(-origin)[permutation]
        return permutation_key(permutation) in {permutation_key(p) for p in self.point}

    def _normalises_translations(self, permutation: np.ndarray) -> bool:
        conjugates = [
            permutation[self._translation(unit)][np.argsort(permutation)] for unit in np.eye(len(self.shape), dtype=int)
        ]
        translations = [self._translation(np.unravel_index(c[0], self.shape)) for c in conjugates]
        return permutation[0] == 0 and all(map(np.array_equal, conjugates, translations))


def ring_group(sites: int) -> Group:
    """Translations x reflection x Z2 of a ring.

    Raises:
        InvalidInput: no site, or too many; WrongType: no integer.

    Example:
        >>> print(ring_group(8))
        translations x C2 x Z2
    """
    (sites,) = check_group_shape((sites,))
    return Group((sites,), True, (np.arange(sites), -np.arange(sites) % sites), True)


def trivial_group(shape: tuple[int, ...]) -> Group:
    """The identity alone: what a function without any symmetry has.

    Raises:
        InvalidInput: no shape; WrongType: no tuple of integers.

    Example:
        >>> print(trivial_group((3,)))
        identity
    """
    return Group(shape)


def group_from_dict(data: Any) -> Group:
    """The group that `Group.to_dict` described.

    Raises:
        InvalidInput: the data do not describe a group.

    Example:
        >>> group = square_torus_group(4, 4)
        >>> group_from_dict(group.to_dict()) == group
        True
    """
    if not isinstance(data, Mapping) or set(data) != {"shape", "translations", "point", "flip"}:
        raise InvalidInput("not a symmetry group: expected the entries shape, translations, point and flip")
    shape, point = data["shape"], data["point"]
    for name in ("translations", "flip"):
        if not isinstance(data[name], bool):
            raise InvalidInput(f"not a symmetry group: {name} is {data[name]!r}, expected true or false")
    if not _is_list_of_integers(shape) or not shape or min(shape) < 1:
        raise InvalidInput(f"not a symmetry group: shape is {shape!r}, expected lengths of at least 1")
    sites = math.prod(shape)
    known = isinstance(point, list | tuple) and all(_is_list_of_integers(p) and len(p) == sites for p in point)
    if not known or not point:
        raise InvalidInput(f"not a symmetry group: expected point operations to be lists of the sites 0 .. {sites - 1}")
    return Group(tuple(shape), data["translations"], tuple(np.array(p) for p in point), data["flip"])


def _is_list_of_integers(data: Any) -> bool:
    return isinstance(data, list | tuple) and all(type(entry) is int for entry in data)


def square_torus_group(lx: int, ly: int, axes_equal: bool = True) -> Group:
    """Translations x D4 x Z2 of the square lattice on a torus; D2 if lx != ly or the two axes differ in coupling.

    Raises:
        InvalidInput: a length below 1, or too many sites; WrongType: no integers, or axes_equal neither True nor False.

    Example:
        >>> print(square_torus_group(4, 6))
        translations x D2 x Z2
    """
    axes_equal = flag("axes_equal", axes_equal)
    mirrors_only = tuple(m for m in SQUARE_POINT_MAPS if axes_equal or m[0][1] == 0)
    return Group((lx, ly), True, point_permutations((lx, ly), mirrors_only, about_centre=False), True)


def hypercubic_torus_group(shape: tuple[int, ...]) -> Group:
    """Translations x the hyperoctahedral group x Z2 of a torus of any dimension; of equal lengths all of it.

    Raises:
        InvalidInput: a length below 1, or too many sites; WrongType: no tuple of integers.

    Example:
        >>> print(hypercubic_torus_group((4, 4, 4)), hypercubic_torus_group((4, 4, 4)).order)
        translations x Oh x Z2 6144
    """
    shape = check_group_shape(shape)
    return Group(shape, True, point_permutations(shape, hyperoctahedral(len(shape)), about_centre=False), True)


def triangular_torus_group(lx: int, ly: int) -> Group:
    """Translations x D6 x Z2 of the triangular lattice on a torus; fewer point operations if lx != ly.

    Raises:
        InvalidInput: a length below 1, or too many sites; WrongType: no integers.

    Example:
        >>> triangular_torus_group(6, 6).order
        864
    """
    return Group((lx, ly), True, point_permutations((lx, ly), TRIANGULAR_POINT_MAPS, about_centre=False), True)


def require(potential_group: Group, target_group: Group) -> None:
    """Check that a potential claims no symmetry that its target lacks.

    Raises:
        SymmetryMismatch: it does; the message names the excess.
        WrongType: one of them is no group.

    Example:
        >>> require(square_torus_group(8, 8), square_torus_group(8, 8, axes_equal=False))
        Traceback (most recent call last):
        isingflow.errors.SymmetryMismatch: the potential has symmetry translations x D4 x Z2, the target only \
translations x D2 x Z2: too much by 4 of the 8 operations of D4
    """
    instance("target_group", target_group, Group, "a Group")
    excess = target_group.missing(potential_group)
    if excess:
        raise SymmetryMismatch(
            f"the potential has symmetry {potential_group}, the target only {target_group}: "
            f"too much by {', '.join(excess)}"
        )
