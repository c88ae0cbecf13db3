"""Ground states: the least energy E(s) = -sum over bonds J s s, by counting states or, of planar graphs, by matching.

A face of a planar graph is frustrated if the product of the signs of its bonds is negative: it has an odd number of
broken bonds, any other face an even one. So broken bonds are paths in the dual graph, from one frustrated face to
another, and the cheapest ones are a perfect matching of least weight between these faces, over the lengths of shortest
paths with |J| as the length of a bond (Bieche, Maynard, Rammal & Uhry 1980).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact import enumeration
from isingflow.lattice import Lattice
from isingflow.runtime.checks import instance
from isingflow.runtime.compiled import compiled

if TYPE_CHECKING:
    import networkx

MOST_FRUSTRATED = 600
"""Frustrated faces that are matched: about a minute."""
DIGITS = 2.0**46
"""Lengths are integers for the matching, the largest one about this."""


@dataclass(frozen=True, eq=False)
class GroundState:
    """A state of least energy, or the best one that is known.

    Attributes:
        energy: E, total, in units of J.
        energy_per_site: E / N.
        spins: a state that has it, int8, of the lattice's shape; there may be others.
        method: "enumeration", "matching" or "tempering".
        exact: whether no state can have less; of tempering, it is only the least energy seen.
    """

    energy: float
    energy_per_site: float
    spins: np.ndarray
    method: str
    exact: bool

    @classmethod
    def of(cls, lattice: Lattice, spins: np.ndarray, method: str, *, exact: bool = True) -> GroundState:
        """A state of a lattice, shape (N,), with its energy."""
        spins = np.asarray(spins, np.int8)
        energy = energy_of(lattice, spins)
        return cls(energy, energy / lattice.sites, spins.reshape(lattice.shape), method, exact)


def ground_state(lattice: Lattice) -> GroundState:
    """A state of least energy, exactly.

    Lattices of at most 24 spins are enumerated; of larger ones, planar graphs without a field are solved by matching,
    open lattices in two dimensions among them, up to about 600 frustrated faces (32x32 for a +-J glass).

    Args:
        lattice: the spins and their bonds.

    Raises:
        NoExactSolution: no method is affordable; `monte_carlo.lowest_energy` looks for a state of low energy.
        WrongType: no lattice.

    Example:
        >>> from isingflow.lattice import edwards_anderson
        >>> found = ground_state(edwards_anderson(8, seed=1, boundary="open"))
        >>> found.energy, found.method
        (-82.0, 'matching')
    """
    instance("lattice", lattice, Lattice, "a Lattice, for example square(16)")
    if lattice.sites <= enumeration.SPIN_LIMIT:
        couplings = lattice.couplings(1.0)
        return GroundState.of(lattice, _lowest(couplings, field_of(lattice)), "enumeration")
    if field_of(lattice).any():
        raise NoExactSolution(_refusal(lattice, "in a field"))
    return GroundState.of(lattice, _matched(lattice), "matching")


def energy_of(lattice: Lattice, spins: np.ndarray) -> float:
    """The energy of one state, shape (N,)."""
    first, second = lattice.bonds.T
    bonds = float(np.sum(lattice.strengths * spins[first] * spins[second]))
    return -bonds - float(np.sum(field_of(lattice) * spins))


def field_of(lattice: Lattice) -> np.ndarray:
    """The external field by site, shape (N,); zeros where there is none."""
    return lattice.field_by_site.ravel()


def _matched(lattice: Lattice) -> np.ndarray:
    """A ground state of a planar lattice, shape (N,)."""
    from isingflow.exact import planar  # with numpy's random numbers, slow to load

    sites, pairs, strengths = planar.merged(lattice.sites, lattice.bonds, lattice.strengths)
    try:
        embedding = planar.embedding_of(sites, pairs)
    except NoExactSolution:
        raise NoExactSolution(_refusal(lattice, "that are not planar")) from None
    left, right = _faces(embedding, pairs)
    broken = _paths(left, right, strengths, lattice)
    signs = np.where(strengths > 0, 1, -1)
    signs[broken] *= -1
    return _spins(sites, pairs, signs)


def _refusal(lattice: Lattice, why: str) -> str:
    return (
        f"{lattice}: no exact ground state of {lattice.sites} spins {why}; possible are enumeration of at most "
        f"{enumeration.SPIN_LIMIT} spins and planar lattices without a field, such as open ones in two dimensions"
    )


def _faces(embedding: networkx.PlanarEmbedding, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The faces on both sides of every bond, by number; all faces of a connected part are different from others."""
    faces: dict[tuple[int, int], int] = {}
    for edge in embedding.edges:
        if edge not in faces:
            around: set[tuple[int, int]] = set()
            embedding.traverse_face(*edge, around)
            faces |= dict.fromkeys(around, len(faces))
    sides = np.array([(faces[i, j], faces[j, i]) for i, j in pairs.tolist()])
    left, right = np.unique(sides, return_inverse=True)[1].reshape(-1, 2).T
    return left, right


def _paths(left: np.ndarray, right: np.ndarray, strengths: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Numbers of the bonds that are broken in a ground state."""
    from networkx import Graph, min_weight_matching
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    count = int(max(left.max(), right.max())) + 1
    negative = strengths < 0
    odd = np.bincount(left[negative], minlength=count) + np.bincount(right[negative], minlength=count)
    frustrated = np.flatnonzero(odd % 2)
    if len(frustrated) > MOST_FRUSTRATED:
        raise NoExactSolution(
            f"{lattice}: {len(frustrated)} frustrated faces are too many to be matched: at most {MOST_FRUSTRATED} are "
            "possible, those of about 32x32 spins"
        )
    if not len(frustrated):
        return np.zeros(0, int)
    lengths = np.maximum(np.rint(np.abs(strengths) * (DIGITS / np.abs(strengths).max())), 1.0)
    order = np.argsort(-lengths, kind="stable")  # of bonds between the same two faces the shortest is written last
    bond = {}
    for number in order[left[order] != right[order]].tolist():
        a, b = int(left[number]), int(right[number])
        bond[a, b] = bond[b, a] = number
    rows, columns = np.array(list(bond)).T
    dual = csr_array((lengths[list(bond.values())], (rows, columns)), shape=(count, count))
    distances, before = dijkstra(dual, indices=frustrated, return_predecessors=True)
    between = distances[:, frustrated]
    graph = Graph()
    for i, j in zip(*np.nonzero(np.isfinite(np.triu(between, 1)) & (np.triu(between, 1) > 0)), strict=True):
        graph.add_edge(int(i), int(j), weight=int(between[i, j]))
    broken = np.zeros(len(strengths), bool)
    for i, j in min_weight_matching(graph):
        face = int(frustrated[j])
        while face != frustrated[i]:
            previous = int(before[i, face])
            broken[bond[previous, face]] ^= True
            face = previous
    return np.flatnonzero(broken)


def _spins(sites: int, pairs: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Spins whose products along the bonds are these signs, shape (N,)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    spins = np.zeros(sites, np.int8)
    first, second = pairs.T
    products = csr_array(
        (np.concatenate([signs, signs]), (np.concatenate([first, second]), np.concatenate([second, first]))),
        shape=(sites, sites),
    )
    for root in range(sites):
        if spins[root]:
            continue
        spins[root] = 1
        order, before = breadth_first_order(products, root, directed=False)
        for site in order[1:]:
            spins[site] = spins[before[site]] * products[before[site], site]
    return spins


@compiled
def _lowest(couplings, fields):
    """The state of least energy of a dense J, by Gray code, shape (N,)."""
    spins = len(fields)
    state = np.ones(spins)
    local = couplings.sum(axis=1)
    energy, best, found = 0.0, 0.0, 0
    for step in range(1, 1 << (spins if np.any(fields != 0) else spins - 1)):
        flipped = 0
        while not (step >> flipped) & 1:
            flipped += 1
        energy += 2 * state[flipped] * (local[flipped] + fields[flipped])
        state[flipped] = -state[flipped]
        for other in range(spins):
            local[other] += 2 * state[flipped] * couplings[other, flipped]
        if energy < best - 1e-12 * abs(best):
            best, found = energy, step
    gray = found ^ (found >> 1)
    for site in range(spins):
        state[site] = -1.0 if (gray >> site) & 1 else 1.0
    return state
