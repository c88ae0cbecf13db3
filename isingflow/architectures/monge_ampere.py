"""The Monge-Ampere flow (Zhang, E and Wang 2018): along the gradient of one potential, integrated over time.

What the potential is depends on the domain: convolutions where there are all translations, units that look at the
neighbourhoods of sites where it is known which of them interact, local features on images, and else one dense hidden
layer. All are even where the density is.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from msgspec.structs import replace

from isingflow.architectures.base import Domain, allowed, check_size, gradient_flow, known_neighbours, random_directions
from isingflow.errors import InvalidInput
from isingflow.flows import GradientFlow, Transform
from isingflow.flows.solvers.runge_kutta import TableauName
from isingflow.potentials import (
    DensePotential,
    ImagePotential,
    LatticePotential,
    LocalPotential,
    Potential,
    ProductPotential,
    group_average,
)
from isingflow.runtime.checks import count
from isingflow.runtime.settings import (
    Depth,
    DepthFromZero,
    Duration,
    NotNegative,
    Settings,
    Steps,
    StepsFromZero,
    Width,
)

UNITS = 8
"""Of the local potential for every site, where nothing else is said."""
MOST_SMOOTHINGS = 8
"""In products: a power of 64 leaves little but the mean."""
PRODUCT_STEPS = 2
"""Of the integration along fitted products, at first."""
MOST_AVERAGED = 32
"""Elements of a group, Z2 aside, up to which a preset averages a dense potential: the work is as many times more."""


class FlowConfig(Settings, frozen=True, tag_field="kind", tag="monge-ampere"):
    """Architecture of a Monge-Ampere flow.

    Attributes:
        potential: "lattice" (exactly symmetric; needs a torus with all translations and inversion), "local" (needs
            pairs of sites that interact, see `potentials.LocalPotential`), "image" (needs images) or "dense" (one
            hidden layer: ln cosh where the density is even, else softplus with bias).
        hidden: number of hidden units; of the local potential, for every site.
        radius: local potential only: bonds from a site to those that its units see.
        radial, oriented: lattice potential only, see `potentials.LatticePotential`.
        time_terms: number of polynomials in time; the even dense potential has none.
        average: dense potential only: over the symmetry group, "none"; "exact"; or "sampled", in training, see
            `potentials.SampledAverage`.
        steepness: length of the initial directions of hidden units, in whitened coordinates; not of even potentials. 0,
            dense potential only: small random weights as published, see `potentials.DensePotential`.
        whitened: targets only: whether the flow starts from what the target knows in closed form, for magnets the best
            Gaussian (and acts on its whitened coordinates); else from a standard normal.
        products: lattice potential and even densities only: powers of smoothing in the products of nearby functions
            that a last map is made of, which is fitted after the training, see `potentials.ProductPotential`; 0: none.
        time, steps, tableau: of the integration.
        training_steps: sampled average only, which is another flow in training: its steps there, 0 for as many as
            `steps`, those of the exact average.
        reversible: whether the integrator is the reversible one made of the tableau, see `flows.GradientFlow`.
    """

    kind: ClassVar[str] = "monge-ampere"
    title: ClassVar[str] = "Monge-Ampère flow"

    potential: Literal["lattice", "local", "dense", "image"] = "lattice"
    hidden: Width = 32
    radial: DepthFromZero = 6
    oriented: DepthFromZero = 3
    time_terms: Depth = 4
    average: Literal["none", "exact", "sampled"] = "none"
    steepness: NotNegative = 2.0
    whitened: bool = True
    time: Duration = 1.0
    steps: Steps = 8
    tableau: TableauName = "rk4"
    training_steps: StepsFromZero = 0
    reversible: bool = False
    radius: DepthFromZero = 2
    products: DepthFromZero = 0

    @property
    def last(self) -> bool:
        """Of the local potential, whose metric is sparse there."""
        return self.potential == "local"

    @property
    def local(self) -> bool:
        """Of the lattice potential: kernels and hidden units."""
        return self.potential == "lattice"

    def fitted(self, domain: Domain) -> FlowConfig:
        """Without convolutions the local potential; without neighbours the dense one, averaged over small groups."""
        if self.potential != "lattice" or domain.evenly_convolutional:
            return self
        plain = replace(self, products=0)
        if domain.convolutional:
            return plain
        if domain.local:
            return replace(plain, potential="local", hidden=UNITS, radial=0, oriented=0)
        elements = domain.symmetry.order // (2 if domain.even else 1)
        average = "exact" if 1 < elements <= MOST_AVERAGED else "none"
        return replace(plain, potential="dense", hidden=2 * domain.dimension, radial=0, oriented=0, average=average)

    def build(
        self, domain: Domain, generator: torch.Generator, *, jitter: float = 0.0, recompute: bool = False
    ) -> list[Transform]:
        """One gradient flow, and a second one of products if there are some."""
        if self.potential == "dense":
            check_size(self.hidden * domain.dimension)
        potential = _POTENTIALS[self.potential](self, domain, generator)
        training_steps = self.training_steps if self.average == "sampled" else 0
        trained = gradient_flow(
            potential,
            domain,
            self,
            jitter=jitter,
            recompute=recompute,
            training_steps=training_steps or None,
            reversible=self.reversible,
        )
        return trained + (self._products(domain, recompute) if self.products else [])

    def _products(self, domain: Domain, recompute: bool) -> list[Transform]:
        if self.potential != "lattice" or not domain.even:
            raise InvalidInput(
                f"flow.products is {self.products}: products of nearby functions are for the lattice potential, on "
                "tori without a field; expected 0"
            )
        smoothings = count("flow.products", self.products, most=MOST_SMOOTHINGS)
        products = ProductPotential(domain.symmetry, smoothings=smoothings)
        return [GradientFlow(allowed(products, domain), steps=PRODUCT_STEPS, recompute=recompute)]


def _lattice(settings: FlowConfig, domain: Domain, generator: torch.Generator) -> Potential:
    if not domain.convolutional:
        raise InvalidInput(
            "the lattice potential needs translation invariance and inversion on a torus; the "
            f"symmetry of these fields of shape {domain.shape} is only {domain.symmetry}: take the dense potential"
        )
    return LatticePotential(
        domain.symmetry,
        radial=settings.radial,
        oriented=settings.oriented,
        hidden=settings.hidden,
        time_terms=settings.time_terms,
        variances=domain.variances,
        generator=generator,
    )


def _local(settings: FlowConfig, domain: Domain, generator: torch.Generator) -> Potential:
    return LocalPotential(
        domain.symmetry,
        known_neighbours(domain),
        units=settings.hidden,
        radius=settings.radius,
        time_terms=settings.time_terms,
        metric=domain.metric,
        scales=domain.scales,
        generator=generator,
    )


def _dense(settings: FlowConfig, domain: Domain, generator: torch.Generator) -> Potential:
    if domain.even:
        dense = DensePotential(domain.shape, settings.hidden, generator=generator)
    else:
        directions = None
        if settings.steepness:
            directions = random_directions(settings.hidden, domain.dimension, settings.steepness, generator)
        dense = DensePotential(
            domain.shape,
            settings.hidden,
            activation="softplus",
            time_terms=settings.time_terms,
            directions=directions,
            generator=generator,
        )
    if settings.average == "none":
        return dense
    return group_average(dense, domain.symmetry, settings.average)


def _image(settings: FlowConfig, domain: Domain, generator: torch.Generator) -> Potential:
    if domain.image_shape is None:
        raise InvalidInput(f"the image potential needs images; fields of shape {domain.shape} are none")
    return ImagePotential(
        domain.image_shape,
        features=settings.hidden,
        time_terms=settings.time_terms,
        steepness=settings.steepness,
        generator=generator,
    )


_POTENTIALS = {"lattice": _lattice, "local": _local, "dense": _dense, "image": _image}
