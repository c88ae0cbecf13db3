"""Settings of CP-Flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from isingflow.errors import InvalidInput
from isingflow.flows import (
    CholeskyLogdet,
    LanczosLogdet,
)
from isingflow.flows.logdet import LogDeterminant

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class ConvexFlowConfig:
    """Architecture of a CP-Flow: gradients of input-convex networks, one after the other.

    Attributes:
        blocks: number of convex maps.
        width, layers, augmented, activation: of each network, see `potentials.ConvexPotential`.
        radial, oriented: kernels of the exactly symmetric network of translation-invariant magnets.
        logdet: "exact", or "lanczos": stochastic Lanczos quadrature, trained by conjugate gradients.
        whitened: as for the Monge-Ampere flow.
    """

    kind: ClassVar[str] = "convex"

    blocks: int = 3
    width: int = 24
    layers: int = 1
    augmented: bool = True
    activation: str = "squareplus"
    radial: int = 5
    oriented: int = 3
    logdet: str = "exact"
    whitened: bool = True


INVERSE_TOLERANCE = 1e-4
"""Relative residual of a convex flow's inverse: single precision reaches ten times less for most samples, not all."""


def log_determinant(config: ConvexFlowConfig) -> LogDeterminant:
    """How a convex flow finds the log-determinant of its Hessian.

    Raises:
        InvalidInput: unknown way.
    """
    if config.logdet == "exact":
        return CholeskyLogdet()
    if config.logdet == "lanczos":
        return LanczosLogdet()
    raise InvalidInput(f"logdet {config.logdet!r}: expected exact or lanczos")
