"""Settings of the Monge-Ampere flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FlowConfig:
    """Architecture of a Monge-Ampere flow.

    Attributes:
        potential: "lattice" (exactly symmetric; needs translation invariance) or "dense" (one hidden layer: ln cosh for
            magnets, softplus with bias for data).
        hidden: number of hidden units.
        radial, oriented: lattice potential only, see `potentials.LatticePotential`.
        time_terms: number of polynomials in time; magnets' dense potential has none.
        average: dense potential of a magnet only: "none", "exact" or "sampled" average over the symmetry group.
        steepness: length of the initial directions of hidden units, in whitened coordinates; data only.
        whitened: magnets only: whether the flow starts from the best Gaussian (and acts on its whitened coordinates);
            else from a standard normal.
        time, steps, tableau: of the integration.
    """

    kind: ClassVar[str] = "monge-ampere"

    potential: str = "lattice"
    hidden: int = 32
    radial: int = 6
    oriented: int = 3
    time_terms: int = 4
    average: str = "none"
    steepness: float = 2.0
    whitened: bool = True
    time: float = 1.0
    steps: int = 8
    tableau: str = "rk4"
