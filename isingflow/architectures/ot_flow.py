"""Settings of OT-Flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class OTFlowConfig:
    """Architecture of an OT-Flow: a gradient flow whose potential is a residual network of field and time.

    Attributes:
        width, layers: of the network.
        rank: of the quadratic term A'A; data and magnets without translation invariance.
        steepness: length of the initial directions of the opening layer, in whitened coordinates; data only.
        radial, oriented, time_terms: kernels of the exactly symmetric network of translation-invariant magnets, and its
            quadratic term's polynomials in time, see `potentials.LatticeResidualPotential`.
        whitened: as for the Monge-Ampere flow.
        time, steps, tableau: of the integration.
    """

    kind: ClassVar[str] = "ot"

    width: int = 32
    layers: int = 2
    rank: int = 10
    steepness: float = 1.7
    radial: int = 4
    oriented: int = 2
    time_terms: int = 3
    whitened: bool = True
    time: float = 1.0
    steps: int = 4
    tableau: str = "rk4"
