"""Graphs of Ising spins, their couplings and their symmetry."""

from isingflow.lattice.checks import check_beta
from isingflow.lattice.critical import Critical, critical_beta
from isingflow.lattice.graph import CRITICAL_BETA, Lattice, check_magnet
from isingflow.lattice.kinds import edwards_anderson, from_dict, heading, square, triangular
from isingflow.lattice.networks import from_graph
from isingflow.lattice.symmetry import Group, ring_group, square_torus_group, triangular_torus_group

__all__ = [
    "CRITICAL_BETA",
    "Critical",
    "Group",
    "Lattice",
    "check_beta",
    "check_magnet",
    "critical_beta",
    "edwards_anderson",
    "from_dict",
    "from_graph",
    "heading",
    "ring_group",
    "square",
    "square_torus_group",
    "triangular",
    "triangular_torus_group",
]
