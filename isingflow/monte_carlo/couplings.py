"""Couplings of a lattice as the kernels of Monte Carlo read them.

An external field is one more spin, the ghost, which couples to every site with the field there: -sum H_i s_i is
-sum H_i s_i s_ghost read where the ghost is up, and a state with its ghost down counts as its spin flip. All updates
then know fields, clusters too; a field that no gauge turns along the spins frustrates them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice, check_magnet
from isingflow.monte_carlo import clusters, local
from isingflow.runtime.checks import shown
from isingflow.runtime.resources import require_memory

_BYTES_A_SITE = 250
"""What the couplings of a lattice take."""


@dataclass(frozen=True)
class Couplings:
    """Couplings as the kernels read them: every bonded pair once, with its total J.

    In an external field the last spin is the ghost.

    Attributes:
        beta: inverse temperature.
        graph: (starts, neighbours, strengths), the neighbours of every site.
        bonds: (first, second, strengths), every bond once, in ascending order of its larger site.
        gauge: signs that make every beta J ferromagnetic, int8, shape (N,); None if there are none.
        ghost: whether the last of the spins is the ghost.
    """

    beta: float
    graph: tuple[np.ndarray, np.ndarray, np.ndarray]
    bonds: tuple[np.ndarray, np.ndarray, np.ndarray]
    gauge: np.ndarray | None
    ghost: bool

    @property
    def sites(self) -> int:
        """Number of spins N, the ghost included."""
        return len(self.graph[0]) - 1

    @classmethod
    def of(cls, lattice: Lattice, beta: float) -> Couplings:
        """The couplings of a lattice.

        Raises:
            InvalidInput: beta is not finite, beta times the couplings overflows, or there is too little memory.
            WrongType: no lattice, or no number.
        """
        beta = check_magnet(lattice, beta)
        require_memory(f"the couplings of {lattice}", _BYTES_A_SITE * lattice.sites, "a smaller lattice may fit")
        (first, second), strengths, spins = lattice.bonds.T, lattice.strengths, lattice.sites
        if lattice.field is not None:
            first = np.concatenate([first, np.arange(spins)])
            second = np.concatenate([second, np.full(spins, spins)])
            strengths, spins = np.concatenate([strengths, lattice.field_by_site.ravel()]), spins + 1
        pairs = sparse.coo_array((strengths, (first, second)), shape=(spins, spins))
        matrix = (pairs + pairs.T).tocsr()
        matrix.eliminate_zeros()
        matrix.sort_indices()
        graph = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data
        lower = sparse.tril(matrix, format="coo")
        bonds = lower.col.astype(np.int32), lower.row.astype(np.int32), lower.data
        gauge = clusters.ferromagnetic_gauge(*graph[:2], beta * graph[2])
        return cls(beta, graph, bonds, gauge, ghost=lattice.field is not None)

    def occupation(self, strengths: np.ndarray) -> np.ndarray:
        """Probabilities 1 - exp(-2 |K|) that bonds between equal spins are occupied."""
        return -np.expm1(-2 * np.abs(self.beta * strengths))

    def measure(self, spins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies and magnetisations, shape (n,) each, of states, int8, shape (n, N), relative to the ghost.

        Raises:
            InvalidInput: another shape or type.
        """
        known = isinstance(spins, np.ndarray) and spins.dtype == np.int8 and spins.shape[1:] == (self.sites,)
        if not known or spins.ndim != 2:
            raise InvalidInput(f"spins is {shown(spins)}, expected int8 of shape (n, {self.sites})")
        return local.energies(spins, *self.bonds), self.seen(spins).mean(axis=-1)

    def seen(self, spins: np.ndarray) -> np.ndarray:
        """The sites' spins of states, int8, shape (..., N): without the ghost, read where it is up."""
        return spins[..., :-1] * spins[..., -1:] if self.ghost else spins

    def with_ghost(self, spins: np.ndarray) -> np.ndarray:
        """Copies of the sites' spins, shape (..., sites), with the ghost, if there is one, up: what `seen` undoes."""
        return np.concatenate([spins, np.ones((*spins.shape[:-1], int(self.ghost)), np.int8)], axis=-1)
