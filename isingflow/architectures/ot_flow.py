"""OT-Flow (Onken, Wu Fung, Li and Ruthotto 2021): a gradient flow whose potential is a residual network of (x, t).

The network stands at every site of a torus with all translations and Z2, behind convolutions, or at every site of a
lattice or graph whose bonds are known, behind features of the field near that site; elsewhere it sees all sites.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from msgspec.structs import replace

from isingflow.architectures.base import (
    FEATURES,
    Domain,
    check_features,
    check_size,
    gradient_flow,
    known_neighbours,
    random_directions,
)
from isingflow.flows import Transform
from isingflow.flows.solvers.runge_kutta import TableauName
from isingflow.potentials import LatticeResidualPotential, LocalResidualPotential, Potential, ResidualPotential
from isingflow.runtime.settings import (
    Depth,
    DepthFromZero,
    Duration,
    Positive,
    Settings,
    Steps,
    Width,
    WidthFromZero,
)


class OTFlowConfig(Settings, frozen=True, tag_field="kind", tag="ot"):
    """Architecture of an OT-Flow: a gradient flow whose potential is a residual network of field and time.

    Attributes:
        width, layers: of the network.
        rank: of the quadratic term A'A; not of the exactly symmetric network.
        steepness: length of the initial directions of the opening layer, in whitened coordinates; where the density is
            not even.
        radial, oriented, time_terms: kernels of the exactly symmetric network on a torus, and its quadratic term's
            polynomials in time, see `potentials.LatticeResidualPotential`; without kernels, the network sees the whole
            field.
        features, radius: features of the field near every site, and bonds from a site to those that they see, see
            `potentials.LocalResidualPotential`, where they are the network's width too; 0 features: none.
        whitened: as for the Monge-Ampere flow.
        time, steps, tableau: of the integration.
    """

    kind: ClassVar[str] = "ot"
    title: ClassVar[str] = "OT-Flow"
    local: ClassVar[bool] = False

    width: Width = 32
    layers: Depth = 2
    rank: Width = 10
    steepness: Positive = 1.7
    radial: DepthFromZero = 4
    oriented: DepthFromZero = 2
    time_terms: Depth = 3
    whitened: bool = True
    time: Duration = 1.0
    steps: Steps = 4
    tableau: TableauName = "rk4"
    features: WidthFromZero = 0
    radius: DepthFromZero = 2

    @property
    def last(self) -> bool:
        """Of the local network, whose metric is sparse there."""
        return self.features > 0

    def fitted(self, domain: Domain) -> OTFlowConfig:
        """Without convolutions the local network; without neighbours the general one."""
        if domain.evenly_convolutional or not self.radial + self.oriented:
            return self
        return replace(self, radial=0, oriented=0, features=FEATURES if domain.evenly_local else 0)

    def build(
        self, domain: Domain, generator: torch.Generator, *, jitter: float = 0.0, recompute: bool = False
    ) -> list[Transform]:
        """One gradient flow."""
        check_features(self.features, self.radial, self.oriented)
        check_size(
            self.width * ((self.layers - 1) * self.width + (0 if domain.evenly_convolutional else domain.dimension))
        )
        return gradient_flow(self._potential(domain, generator), domain, self, jitter=jitter, recompute=recompute)

    def _potential(self, domain: Domain, generator: torch.Generator) -> Potential:
        if domain.evenly_convolutional and self.radial + self.oriented:
            return LatticeResidualPotential(
                domain.symmetry,
                radial=self.radial,
                oriented=self.oriented,
                width=self.width,
                layers=self.layers,
                time_terms=self.time_terms,
                variances=domain.variances,
                generator=generator,
            )
        if self.features:
            return LocalResidualPotential(
                domain.symmetry,
                known_neighbours(domain),
                width=self.features,
                layers=self.layers,
                radius=self.radius,
                time_terms=self.time_terms,
                metric=domain.metric,
                scales=domain.scales,
                generator=generator,
            )
        # Even densities keep the uniform entries of OT-Flow's code, with which their presets were chosen.
        directions = None if domain.even else random_directions(self.width, domain.dimension, self.steepness, generator)
        return ResidualPotential(
            domain.shape,
            width=self.width,
            layers=self.layers,
            rank=self.rank,
            directions=directions,
            generator=generator,
        )
