"""CP-Flow on images: gradients of convolutional input-convex networks, each behind a normalisation, without pooling.

Successive maps see the image at 1, 2, 4, ... pixels a side folded into channels, and then from the finest again: what
pooling does for classifiers squeezing does here, and it loses nothing. They run from images to noise, the direction of
training. Log-determinants are those of Lanczos' quadrature, trained by conjugate gradients.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from msgspec.structs import replace

from isingflow.architectures.base import Domain, allowed, check_size
from isingflow.architectures.cp_flow import INVERSE_TOLERANCE
from isingflow.errors import InvalidInput
from isingflow.flows import ActNorm, ConvexFlow, Inverted, LanczosLogdet, Transform
from isingflow.potentials import ConvexImagePotential
from isingflow.potentials.layers.activations import ConvexName
from isingflow.runtime.settings import Depth, Positive, Settings, Width


class ConvexImageFlowConfig(Settings, frozen=True, tag_field="kind", tag="convex-image"):
    """Architecture of a CP-Flow of images.

    Attributes:
        blocks: number of convex maps.
        resolutions: map i sees squares of 2^(i mod resolutions) pixels a side as channels.
        width, layers, kernel, augmented, activation, gain: of each network, see `potentials.ConvexImagePotential`.
        normalised: whether every map has an activation normalisation in front.
        probes, lanczos: random vectors of a log-determinant, and Lanczos steps for each.
    """

    kind: ClassVar[str] = "convex-image"
    title: ClassVar[str] = "CP-Flow of images"
    local: ClassVar[bool] = False
    last: ClassVar[bool] = False
    whitened: ClassVar[bool] = False

    blocks: Depth = 2
    resolutions: Depth = 2
    width: Width = 16
    layers: Depth = 2
    kernel: Depth = 3
    augmented: bool = True
    activation: ConvexName = "softplus"
    gain: Positive = 1.0
    normalised: bool = True
    probes: Depth = 2
    lanczos: Depth = 12

    def fitted(self, domain: Domain) -> ConvexImageFlowConfig:
        """No more resolutions than the image can be halved."""
        if domain.image_shape is None:
            return self
        halvings = 1
        while halvings < self.resolutions and not any(length % 2**halvings for length in image_shape(domain)[1:]):
            halvings += 1
        return replace(self, resolutions=halvings)

    def build(
        self, domain: Domain, generator: torch.Generator, *, jitter: float = 0.0, recompute: bool = False
    ) -> list[Transform]:
        """Pairs of a gradient and a normalisation, from noise to images."""
        shape = image_shape(domain)
        features = domain.channels * 4 ** (self.resolutions - 1)
        check_size(
            self.blocks * self.width * (self.layers * (self.width + features) * self.kernel**2 + domain.dimension)
        )
        maps: list[Transform] = []
        for block in range(self.blocks):
            potential = ConvexImagePotential(
                shape,
                squeeze=2 ** (block % self.resolutions),
                width=self.width,
                layers=self.layers,
                kernel=self.kernel,
                augmented=self.augmented,
                activation=self.activation,
                gain=self.gain,
                generator=generator,
            )
            logdet = LanczosLogdet(self.probes, steps=self.lanczos)
            convex = ConvexFlow(allowed(potential, domain), logdet=logdet, tolerance=INVERSE_TOLERANCE)
            maps += [Inverted(convex), ActNorm(domain.shape)] if self.normalised else [Inverted(convex)]
        return maps


def image_shape(domain: Domain) -> tuple[int, int, int]:
    """Channels, height and width of a domain's images.

    Raises:
        InvalidInput: its fields are no images.
    """
    if domain.image_shape is None:
        raise InvalidInput(f"a CP-Flow of images needs images; fields of shape {domain.shape} are none: take convex")
    height, width = domain.image_shape
    return domain.channels, height // domain.channels, width
