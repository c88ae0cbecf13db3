"""CP-Flow (Huang et al. 2021): gradients of input-convex networks, one after the other, each behind a normalisation.

The gradient is cheap and its inverse is a minimisation, so the gradients run in the direction of training: from noise
to fields where the energy is known, from samples to noise where those are.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypedDict

import torch
from msgspec.structs import replace

from isingflow.architectures.base import Domain, allowed, check_size
from isingflow.flows import ActNorm, CholeskyLogdet, ConvexFlow, Inverted, LanczosLogdet, Transform
from isingflow.potentials import ConvexFunction, ConvexPotential, LatticeConvexPotential
from isingflow.potentials.layers.activations import ConvexName
from isingflow.runtime.settings import Depth, DepthFromZero, Settings, Width

INVERSE_TOLERANCE = 1e-4
"""Relative residual of a convex flow's inverse: single precision reaches ten times less for most samples, not all."""
EXACT_DIMENSION = 256
"""Largest dimension in which a preset has exact determinants of Hessians."""

_LOGDETS: dict[str, type[CholeskyLogdet | LanczosLogdet]] = {"exact": CholeskyLogdet, "lanczos": LanczosLogdet}


class _Network(TypedDict):
    """What both convex networks are told."""

    width: int
    layers: int
    augmented: bool
    activation: str
    generator: torch.Generator


class ConvexFlowConfig(Settings, frozen=True, tag_field="kind", tag="convex"):
    """Architecture of a CP-Flow: gradients of input-convex networks, one after the other.

    Attributes:
        blocks: number of convex maps.
        width, layers, augmented, activation: of each network, see `potentials.ConvexPotential`.
        radial, oriented: kernels of the exactly symmetric network on a torus with all translations; without kernels,
            the network sees the whole field.
        logdet: "exact", or "lanczos": stochastic Lanczos quadrature, trained by conjugate gradients.
        whitened: as for the Monge-Ampere flow.
    """

    kind: ClassVar[str] = "convex"
    title: ClassVar[str] = "CP-Flow"
    local: ClassVar[bool] = False

    blocks: Depth = 3
    width: Width = 24
    layers: Depth = 1
    augmented: bool = True
    activation: ConvexName = "squareplus"
    radial: DepthFromZero = 5
    oriented: DepthFromZero = 3
    logdet: Literal["exact", "lanczos"] = "exact"
    whitened: bool = True

    def fitted(self, domain: Domain) -> ConvexFlowConfig:
        """Without convolutions, the general network; determinants of large Hessians are stochastic."""
        fitted = self if domain.convolutional else replace(self, radial=0, oriented=0)
        return replace(fitted, logdet="lanczos") if domain.dimension > EXACT_DIMENSION else fitted

    def build(
        self, domain: Domain, generator: torch.Generator, *, jitter: float = 0.0, recompute: bool = False
    ) -> list[Transform]:
        """Pairs of a normalisation and a gradient; a common scale is what keeps any symmetry."""
        check_size(
            self.blocks
            * self.width
            * ((self.layers - 1) * self.width + (0 if domain.convolutional else domain.dimension))
        )
        maps: list[Transform] = []
        for _ in range(self.blocks):
            potential = allowed(self._potential(domain, generator), domain)
            convex = ConvexFlow(potential, logdet=_LOGDETS[self.logdet](), tolerance=INVERSE_TOLERANCE)
            norm = ActNorm(domain.shape, common=domain.symmetry.order > 1)
            maps += [Inverted(convex), norm] if domain.sampled else [norm, convex]
        return maps

    def _potential(self, domain: Domain, generator: torch.Generator) -> ConvexFunction:
        network: _Network = {
            "width": self.width,
            "layers": self.layers,
            "augmented": self.augmented,
            "activation": self.activation,
            "generator": generator,
        }
        if domain.convolutional and self.radial + self.oriented:
            return LatticeConvexPotential(
                domain.symmetry, radial=self.radial, oriented=self.oriented, variances=domain.variances, **network
            )
        return ConvexPotential(domain.shape, **network)
