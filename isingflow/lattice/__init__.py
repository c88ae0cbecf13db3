"""Graphs of Ising spins, their couplings and their symmetry."""

from isingflow.lattice.graph import (
    CRITICAL_BETA,
    Lattice,
    check_beta,
    edwards_anderson,
    from_graph,
    heading,
    square,
    triangular,
)

__all__ = [
    "CRITICAL_BETA",
    "Lattice",
    "check_beta",
    "edwards_anderson",
    "from_graph",
    "heading",
    "square",
    "triangular",
]
