"""CP-Flow (Huang et al. 2021): gradients of input-convex networks, one after the other, each behind a normalisation.

The networks stand at every site of a torus with all translations and Z2, behind convolutions, or at every site of a
lattice or graph whose bonds are known, behind features of the field near that site; elsewhere they see all sites.

The gradient is cheap and its inverse is a minimisation, so the gradients run in the direction of training: from noise
to fields where the energy is known, from samples to noise where those are.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypedDict

import torch
from msgspec.structs import replace

from isingflow.architectures.base import FEATURES, Domain, allowed, check_features, check_size, known_neighbours
from isingflow.errors import InvalidInput
from isingflow.flows import ActNorm, CholeskyLogdet, ConvexFlow, Inverted, LanczosLogdet, Transform
from isingflow.potentials import (
    ConvexFunction,
    ConvexPotential,
    LatticeConvexPotential,
    LocalConvexPotential,
    LogSumExpPotential,
)
from isingflow.potentials.layers.activations import ConvexName
from isingflow.potentials.layers.input_convex import KINDS
from isingflow.runtime.checks import shown
from isingflow.runtime.settings import Depth, DepthFromZero, Positive, Settings, Width, WidthFromZero

INVERSE_TOLERANCE = 1e-4
"""Relative residual of a convex flow's inverse: single precision reaches ten times less for most samples, not all."""
EXACT_DIMENSION = 256
"""Largest dimension in which a preset has exact determinants of Hessians."""

_LOGDETS: dict[str, type[CholeskyLogdet | LanczosLogdet]] = {"exact": CholeskyLogdet, "lanczos": LanczosLogdet}
_UNUSED: dict[str, dict[str, object]] = {
    **{kind: {"softness": 0.3} for kind in KINDS},
    "log-sum-exp": {
        "layers": 1,
        "augmented": True,
        "normalised": False,
        "activation": "squareplus",
        "radial": 0,
        "oriented": 0,
        "features": 0,
    },
}
"""Settings that mean nothing to a network, and what they are then."""


class _Network(TypedDict):
    """What both convex networks are told."""

    width: int
    layers: int
    kind: str
    augmented: bool
    normalised: bool
    activation: str
    generator: torch.Generator


class ConvexFlowConfig(Settings, frozen=True, tag_field="kind", tag="convex"):
    """Architecture of a CP-Flow: gradients of input-convex networks, one after the other.

    Attributes:
        blocks: number of convex maps.
        network: "layers", "residual", "dense" or "halves": an input-convex network of hidden layers, connected in this
            way, see `potentials.layers.input_convex`; or "log-sum-exp": a soft maximum of affine functions,
            `potentials.LogSumExpPotential`, which resolves more in a few dimensions.
        width: hidden units in a layer; affine functions.
        layers, augmented, normalised, activation: of each network of layers.
        softness: of each soft maximum.
        radial, oriented: kernels of the exactly symmetric network on a torus with all translations and Z2; without
            kernels, the network sees the whole field, but for what features say.
        features, radius: features of the field near every site, and bonds from a site to those that they see, see
            `potentials.LocalConvexPotential`; 0 features: none.
        logdet: "exact", or "lanczos": stochastic Lanczos quadrature, trained by conjugate gradients.
        whitened: as for the Monge-Ampere flow.
    """

    kind: ClassVar[str] = "convex"
    title: ClassVar[str] = "CP-Flow"
    local: ClassVar[bool] = False

    blocks: Depth = 3
    network: Literal["layers", "residual", "dense", "halves", "log-sum-exp"] = "layers"
    width: Width = 24
    layers: Depth = 1
    augmented: bool = True
    normalised: bool = False
    activation: ConvexName = "squareplus"
    softness: Positive = 0.3
    radial: DepthFromZero = 5
    oriented: DepthFromZero = 3
    logdet: Literal["exact", "lanczos"] = "exact"
    whitened: bool = True
    features: WidthFromZero = 0
    radius: DepthFromZero = 2

    @property
    def last(self) -> bool:
        """Of local networks."""
        return self.features > 0

    def fitted(self, domain: Domain) -> ConvexFlowConfig:
        """Without convolutions local networks; without neighbours those of the whole field; determinants of large
        Hessians are stochastic.
        """
        fitted = self
        if self.radial + self.oriented and not (domain.evenly_convolutional and self.network != "log-sum-exp"):
            local = domain.evenly_local and self.network != "log-sum-exp"
            fitted = replace(self, radial=0, oriented=0, features=FEATURES if local else 0)
        return replace(fitted, logdet="lanczos") if domain.dimension > EXACT_DIMENSION else fitted

    def build(
        self, domain: Domain, generator: torch.Generator, *, jitter: float = 0.0, recompute: bool = False
    ) -> list[Transform]:
        """Pairs of a normalisation and a gradient; a common scale is what keeps any symmetry.

        Features near sites know how large fields are: there is no normalisation before them.
        """
        self._check_unused()
        check_features(self.features, self.radial, self.oriented)
        behind = self.layers * (self.layers - 1) // 2 if self.network == "dense" else self.layers - 1
        opening = 0 if domain.evenly_convolutional else domain.dimension
        check_size(self.blocks * self.width * (behind * self.width + opening))
        maps: list[Transform] = []
        for _ in range(self.blocks):
            potential = allowed(self._potential(domain, generator), domain)
            convex = ConvexFlow(potential, logdet=_LOGDETS[self.logdet](), tolerance=INVERSE_TOLERANCE)
            norms = [] if self.features else [ActNorm(domain.shape, common=domain.symmetry.order > 1)]
            maps += [Inverted(convex), *norms] if domain.sampled else [*norms, convex]
        return maps

    def _check_unused(self) -> None:
        """Refuse settings of the other network that would be ignored."""
        for name, unset in _UNUSED[self.network].items():
            if (value := getattr(self, name)) != unset:
                raise InvalidInput(
                    f"flow.{name} is {shown(value)}, but the network is {self.network}: expected {unset}"
                )

    def _potential(self, domain: Domain, generator: torch.Generator) -> ConvexFunction:
        if self.network == "log-sum-exp":
            return LogSumExpPotential(domain.shape, width=self.width, softness=self.softness, generator=generator)
        network: _Network = {
            "width": self.width,
            "layers": self.layers,
            "kind": self.network,
            "augmented": self.augmented,
            "normalised": self.normalised,
            "activation": self.activation,
            "generator": generator,
        }
        if domain.evenly_convolutional and self.radial + self.oriented:
            return LatticeConvexPotential(
                domain.symmetry, radial=self.radial, oriented=self.oriented, variances=domain.variances, **network
            )
        if self.features:
            return LocalConvexPotential(
                domain.symmetry,
                known_neighbours(domain),
                features=self.features,
                radius=self.radius,
                scales=domain.scales,
                **network,
            )
        return ConvexPotential(domain.shape, **network)
