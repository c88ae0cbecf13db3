"""Graphs of Ising spins, their couplings and their symmetry."""

from isingflow.lattice.checks import check_beta
from isingflow.lattice.critical import Critical, critical_beta
from isingflow.lattice.disorder import random_field
from isingflow.lattice.graph import CRITICAL_BETA, Lattice, check_magnet
from isingflow.lattice.kinds import (
    chain,
    cubic,
    edwards_anderson,
    from_dict,
    heading,
    hypercubic,
    square,
    triangular,
)
from isingflow.lattice.networks import from_graph
from isingflow.lattice.symmetry import (
    Group,
    hypercubic_torus_group,
    ring_group,
    square_torus_group,
    triangular_torus_group,
)

__all__ = [
    "CRITICAL_BETA",
    "Critical",
    "Group",
    "Lattice",
    "chain",
    "check_beta",
    "check_magnet",
    "critical_beta",
    "cubic",
    "edwards_anderson",
    "from_dict",
    "from_graph",
    "heading",
    "hypercubic",
    "hypercubic_torus_group",
    "random_field",
    "ring_group",
    "square",
    "square_torus_group",
    "triangular",
    "triangular_torus_group",
]
