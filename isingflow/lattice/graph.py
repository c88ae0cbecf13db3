"""Graphs of Ising spins: sites, bonds, strengths, fields, E(s) = -sum over bonds J_ij s_i s_j - sum over sites H_i s_i.

A lattice knows its couplings K = beta J, their spectrum and the symmetry it really has: every translation and point
operation is checked against the bonds, not deduced from the name. Site (x, y) of an lx x ly lattice has the index
x * ly + y, and so on in any dimension: a field of shape (..., lx, ly) lists its sites in order. Bonds between the same
two sites add up: a periodic lattice of length 2 has J_ij = 2 between neighbours.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice import external, grid, symmetry
from isingflow.lattice.checks import MAX_SITES, check_beta, check_product, frozen
from isingflow.runtime.checks import choice, instance
from isingflow.runtime.resources import require_memory

if TYPE_CHECKING:
    import networkx

CRITICAL_BETA = math.log(1.0 + math.sqrt(2.0)) / 2.0
"""Critical coupling of the isotropic square lattice, ln(1 + sqrt 2) / 2 = 0.44068679350977."""

PARAMETERS = {
    "square": ("jx", "jy"),
    "triangular": (),
    "hypercubic": ("j",),
    "edwards-anderson": ("seed",),
    "graph": ("bonds", "strengths"),
}
"""What describes a lattice beside its shape and boundary, by kind."""

DIMENSIONS = {"square": (2, 2), "triangular": (2, 2), "graph": (1, 1)}
"""Fewest and most lengths by kind; of others as many as grids may have."""

MAX_DENSE_SITES = 16384
MIN_HALVED = 3  # at length 2 bonds double


@dataclass(frozen=True, eq=False)
class Lattice:
    """A graph of spins with its coupling strengths; made by `square`, `cubic`, `edwards_anderson`, `from_graph`, ...

    Attributes:
        kind: "square", "triangular", "hypercubic", "edwards-anderson" or "graph".
        shape: lengths, such as (lx, ly), or (n,) for a graph.
        boundary: "periodic" or "open", or a tuple of these where directions differ; None for a graph.
        j: strengths along the axes, each a number or an array of the lattice's shape (where all used entries agree: a
            number; entries not used by an open boundary: 0); None for a graph.
        seed: the seed of an Edwards-Anderson lattice, else None.
        edges: (bonds, strengths) of a graph, else None.
        names: what the sites of a graph are called, where that is not their number; see `labels`.
        field: the external magnetic field H, see `with_field`: a number, an array where it varies, or None.

    Example:
        >>> from isingflow.lattice import square
        >>> lattice = square(16)
        >>> print(lattice, lattice.sites, len(lattice.bonds), lattice.symmetry)
        periodic 16x16 256 512 translations x D4 x Z2
    """

    kind: str
    shape: tuple[int, ...]
    boundary: str | tuple[str, ...] | None = None
    j: grid.Strengths | None = None
    seed: int | None = None
    edges: tuple[np.ndarray, np.ndarray] | None = None
    names: tuple[str, ...] | None = None
    field: float | np.ndarray | None = None

    def __post_init__(self) -> None:
        choice("kind", self.kind, PARAMETERS)
        instance("shape", self.shape, tuple, "a tuple of lengths")
        shape = grid.check_lengths(self.shape, *DIMENSIONS.get(self.kind, ()))
        if self.kind == "graph":
            instance("edges", self.edges, tuple, "what lattice.from_graph gives")
        else:
            object.__setattr__(self, "boundary", grid.check_boundaries(self.boundary, len(shape)))
            object.__setattr__(self, "j", grid.check_j(self.j, self.shape, self.open_axes, self.kind == "square"))
        object.__setattr__(self, "field", external.check(self.field, shape))

    @property
    def size(self) -> tuple[int, ...]:
        """The shape: lengths, or (n,) for a graph."""
        return self.shape

    @property
    def dimensions(self) -> int | None:
        """Number of directions of a grid; None for a graph."""
        return None if self.kind == "graph" else len(self.shape)

    @property
    def open_axes(self) -> tuple[bool, ...]:
        """Whether each direction is open."""
        return grid.open_axes(self.boundary, len(self.shape))

    @property
    def jx(self) -> float | np.ndarray | None:
        """Strengths along x in two dimensions, a number or an (lx, ly) array; else None."""
        return self.j[0] if self.j and self.dimensions == 2 else None

    @property
    def jy(self) -> float | np.ndarray | None:
        """Strengths along y in two dimensions, a number or an (lx, ly) array; else None."""
        return self.j[1] if self.j and self.dimensions == 2 else None

    @property
    def sites(self) -> int:
        """Number of spins N."""
        return math.prod(self.shape)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the sites are called, in their order: the nodes of a graph as text, "0", "1" and so on elsewhere."""
        return tuple(map(str, range(self.sites))) if self.names is None else self.names

    @property
    def bonds(self) -> np.ndarray:
        """Pairs of sites, int64, shape (n_bonds, 2); a pair that is bonded twice is listed twice."""
        return self._edges[0]

    @property
    def strengths(self) -> np.ndarray:
        """Strength J of every bond, float64, shape (n_bonds,)."""
        return self._edges[1]

    @property
    def uniform(self) -> tuple[float, ...] | None:
        """The strengths along all directions, such as (jx, jy), where each is one number all over; else None."""
        numbers = tuple(strength for strength in self.j or () if isinstance(strength, float))
        return numbers if self.j is not None and len(numbers) == len(self.j) else None

    def with_field(self, field: float | np.ndarray | None) -> Lattice:
        """The same lattice in another external field: E(s) = -sum over bonds J_ij s_i s_j - sum over sites H_i s_i.

        Args:
            field: H in units of J, of either sign: a number, or an array of the lattice's shape; None for none.

        Raises:
            InvalidInput: not finite, or of another shape; WrongType: no real numbers.

        Example:
            >>> from isingflow.lattice import square
            >>> lattice = square(16).with_field(0.05)
            >>> print(lattice, lattice.symmetry)
            periodic 16x16, field 0.05 translations x D4
        """
        return replace(self, field=field)

    @property
    def field_by_site(self) -> np.ndarray:
        """H on every site, float64, of the lattice's shape; zeros where there is no field."""
        return external.by_site(self.field, self.shape)

    @cached_property
    def total_strength(self) -> float:
        """Sum of |J| over all bonds and of |H| over all sites; of uniform lattices from their lengths alone.

        Example:
            >>> from isingflow.lattice import square
            >>> square(10**6, jy=0.5).total_strength
            1500000000000.0
        """
        fields = external.total(self.field, self.sites)
        if self.uniform is None:
            with np.errstate(over="ignore"):
                return float(np.abs(self.strengths).sum()) + fields
        along = grid.total_strength(self.shape, self.open_axes, self.uniform)
        return along + fields + (grid.diagonals(self.shape, self.open_axes) if self.kind == "triangular" else 0)

    @property
    def description(self) -> str:
        """The lattice in words, for headings: "periodic 16x16, field 0.05"."""
        return self._without_field + external.words(self.field)

    @property
    def _without_field(self) -> str:
        if self.kind == "graph":
            return f"graph of {self.sites} sites and {len(self.bonds)} bonds"
        words = grid.size_in_words(self.shape, self.boundary, self.kind)
        if self.kind == "edwards-anderson":
            return f"{words}, seed {self.seed}"
        return words + grid.strengths_in_words(self.j or ())

    def __str__(self) -> str:
        return self.description

    def __repr__(self) -> str:
        return f"<Lattice: {self.description}>"

    def couplings(self, beta: float) -> np.ndarray:
        """The coupling matrix K = beta J, with ln p(s) = s.K.s / 2 + constant.

        Args:
            beta: inverse temperature, finite, of either sign.

        Returns:
            K, float64, shape (N, N), symmetric with zero diagonal.

        Raises:
            InvalidInput: beta is not finite or overflows, or there are more than 16384 sites or too little memory.

        Example:
            >>> from isingflow.lattice import square
            >>> square(2).couplings(0.5)[0]
            array([0., 1., 1., 0.])
        """
        beta = check_magnet(self, beta)
        self._check_dense()
        matrix = np.zeros((self.sites, self.sites))
        first, second = self.bonds.T
        np.add.at(matrix, (first, second), beta * self.strengths)
        np.add.at(matrix, (second, first), beta * self.strengths)
        return matrix

    @cached_property
    def translation_invariant(self) -> bool:
        """Whether every translation of the torus leaves couplings and field as they are."""
        if self.kind == "graph" or any(self.open_axes) or isinstance(self.field, np.ndarray):
            return False
        if self.uniform is not None:
            return True
        index = np.arange(self.sites).reshape(self.shape)
        return all(self._unchanged_by(np.roll(index, -1, axis).ravel()) for axis in range(index.ndim))

    @property
    def coupling_kernel(self) -> np.ndarray:
        """J between site 0 and every site, of the lattice's shape: J_ij = kernel[j - i] where translation invariant.

        Raises:
            InvalidInput: the lattice is not translation invariant.
        """
        if not self.translation_invariant:
            raise InvalidInput(f"a coupling kernel needs a translation-invariant lattice; this one is not: {self}")
        kernel = np.zeros(self.sites)
        for here, there in (self.bonds.T, self.bonds.T[::-1]):
            np.add.at(kernel, there[here == 0], self.strengths[here == 0])
        return kernel.reshape(self.shape)

    def spectrum(self) -> np.ndarray:
        """Eigenvalues of J (K has beta times these).

        Returns:
            Where translation invariant, of the lattice's shape, by momentum in fftn order; else shape (N,), ascending.

        Raises:
            InvalidInput: more than 16384 sites without translation invariance.

        Example:
            >>> from isingflow.lattice import square
            >>> square(4).spectrum().max(), square(4, boundary="open").spectrum().max().round(3)
            (np.float64(4.0), np.float64(3.236))
        """
        return self._spectrum

    @property
    def graph(self) -> networkx.Graph:
        """The lattice as a networkx graph: sites 0 .. N-1 and one edge, with its total `coupling`, per bonded pair.

        In an external field every node has it as its attribute `field`.
        """
        from isingflow.lattice.networks import to_graph  # which is made of lattices

        return to_graph(self)

    @cached_property
    def symmetry(self) -> symmetry.Group:
        """The symmetry that couplings and field really have; Z2 where there is no field.

        Translations count if all of them are symmetries. Point operations are looked for about site 0 on tori, about
        the centre on open lattices, not on graphs.
        """
        if self.kind == "graph":
            return symmetry.Group(self.shape, flip=self.field is None)
        maps = symmetry.hyperoctahedral(len(self.shape))
        maps = symmetry.TRIANGULAR_POINT_MAPS if self.kind == "triangular" else maps
        self._check_listable()
        candidates = symmetry.point_permutations(self.shape, maps, about_centre=self.open_axes)
        point = tuple(p for p in candidates if self._unchanged_by(p))
        return symmetry.Group(self.shape, self.translation_invariant, point, flip=self.field is None)

    def halved(self) -> Lattice | None:
        """The torus of half the lengths with the same couplings: every site has the same neighbourhood in both.

        None where there is none: lengths that are odd or below 6, open boundaries, disorder, chains, graphs.

        Example:
            >>> from isingflow.lattice import square
            >>> square(32, 16).halved(), square(7).halved()
            (<Lattice: periodic 16x8>, None)
        """
        uniform = self.kind in ("square", "triangular", "hypercubic") and self.translation_invariant
        if not uniform or self.dimensions == 1 or any(length % 2 or length < 2 * MIN_HALVED for length in self.shape):
            return None
        return replace(self, shape=tuple(length // 2 for length in self.shape))

    def coordinates(self) -> np.ndarray:
        """Positions of the sites, shape (N, d), d = 2 for a graph; on triangular lattices all bonds have length 1."""
        if self.kind == "graph":
            from isingflow.lattice.networks import layout

            return layout(self)
        self._check_listable()
        axes = [[1.0, 0.0], [-0.5, math.sqrt(0.75)]] if self.kind == "triangular" else np.eye(len(self.shape))
        return np.indices(self.shape).reshape(len(self.shape), -1).T @ np.array(axes)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable description that `lattice.from_dict` turns back into this lattice, labels included."""
        field = external.entry(self.field)
        if self.kind == "graph":
            return {
                "kind": self.kind,
                "shape": list(self.shape),
                "bonds": self.bonds.tolist(),
                "strengths": self.strengths.tolist(),
                **({} if self.names is None else {"labels": list(self.names)}),
                **field,
            }
        parameters = {name: grid.listed(getattr(self, name)) for name in PARAMETERS[self.kind]}
        ends = grid.listed(self.boundary)
        return {"kind": self.kind, "shape": list(self.shape), "boundary": ends, **parameters, **field}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lattice) and self._physics() == other._physics()

    def __hash__(self) -> int:
        return hash(json.dumps(self._physics()))

    def _physics(self) -> dict[str, Any]:
        """The description without what the sites are called."""
        return {name: value for name, value in self.to_dict().items() if name != "labels"}

    @cached_property
    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        if self.edges is not None:
            return self.edges
        self._check_listable()
        directions = list(zip(grid.units(len(self.shape)), self.j or (), strict=True))
        if self.kind == "triangular":
            directions.append(((1, 1), 1.0))
        return grid.bonds(self.shape, self.open_axes, directions)

    @cached_property
    def _spectrum(self) -> np.ndarray:
        if self.translation_invariant:
            return frozen(np.fft.fftn(self.coupling_kernel).real)
        return frozen(np.linalg.eigvalsh(self.couplings(1.0)))

    def pair_couplings(self, permutation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bonded pairs of the relabelled lattice, coded i * N + j, i < j, ascending, and their total couplings."""
        relabelled = np.sort(permutation[self.bonds], axis=1)
        pairs, inverse = np.unique(relabelled[:, 0] * self.sites + relabelled[:, 1], return_inverse=True)
        return pairs, np.bincount(inverse, self.strengths, minlength=len(pairs))

    def _unchanged_by(self, permutation: np.ndarray) -> bool:
        """Whether J and H are the same after relabelling their sites."""
        if not external.kept_by(permutation, self.field):
            return False
        before, after = (
            (pairs[totals != 0], totals[totals != 0])
            for pairs, totals in (self.pair_couplings(p) for p in (np.arange(self.sites), permutation))
        )
        return all(map(np.array_equal, before, after))

    def _check_listable(self) -> None:
        if self.sites > MAX_SITES:
            raise InvalidInput(f"{self}: too many sites to list; up to {MAX_SITES} are possible, for example 4096x4096")

    def _check_dense(self) -> None:
        if self.sites > MAX_DENSE_SITES:
            raise InvalidInput(
                f"{self}: too large for a dense {self.sites} x {self.sites} matrix; "
                f"up to {MAX_DENSE_SITES} sites are possible, more on translation-invariant lattices without one"
            )
        require_memory(f"the dense matrix of {self}", 8.0 * self.sites**2, "a smaller lattice may fit")


def check_magnet(lattice: Any, beta: Any) -> float:
    """A lattice and an inverse temperature that do not overflow together: beta as a float.

    Raises:
        InvalidInput: beta is not finite, or beta times the couplings overflows.
        WrongType: one of them is something else.

    Example:
        >>> from isingflow.lattice import square
        >>> check_magnet(square(4), 1e300)
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: beta 1e+300: beta times the couplings overflows: they are 32 in all, ...
    """
    beta = check_beta(beta)
    check_product(beta, instance("lattice", lattice, Lattice, "a Lattice, for example square(16)").total_strength)
    return beta
