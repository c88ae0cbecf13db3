"""What a flow is built for, its domain; and what builds it, an architecture: frozen settings with two methods.

    architecture = preset.flow.fitted(domain)            settings that suit the domain
    trained = architecture.build(domain, generator)      the trained maps, from noise to the coordinates of the domain

A new kind of flow is one file with one class of settings, and one entry in `build.FLOWS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows import GradientFlow, Transform
from isingflow.lattice import Lattice
from isingflow.lattice.graph import MAX_DENSE_SITES
from isingflow.lattice.symmetry import Group, require
from isingflow.potentials import ConvexFunction, Potential
from isingflow.potentials.kernels import with_inversion
from isingflow.runtime.resources import require_memory
from isingflow.targets.base import Target

AnyPotential = TypeVar("AnyPotential", bound=Potential | ConvexFunction)
FEATURES = 8
"""Of local networks at every site, where nothing else is said."""


@dataclass(frozen=True, eq=False)
class Domain:
    """The fields that a flow is built for, and what is known of their density.

    Attributes:
        shape: of one field.
        symmetry: the group under which the density is invariant: no potential may claim more.
        variances: of the coordinates in which trained maps act, by momentum, of a field's shape; None: ones.
        image_shape: height and width, where a field is an image, row by row; of a colour image, of its planes one above
            the other.
        neighbours: pairs of sites that interact, shape (m, 2), where they are known.
        sampled: whether the density is known by its samples, so that training runs from x to noise; else it is known by
            its energy, and training runs from noise to x.
        channels: planes of an image.
        scales: of the coordinates in which trained maps act, by site, shape (N,); None: ones.
        metric: in which these coordinates move, see `targets.Start`; None: by their scales.
    """

    shape: tuple[int, ...]
    symmetry: Group
    variances: Tensor | None = None
    image_shape: tuple[int, int] | None = None
    neighbours: np.ndarray | None = None
    sampled: bool = False
    channels: int = 1
    scales: Tensor | None = None
    metric: Tensor | None = None

    @classmethod
    def of_lattice(cls, lattice: Lattice) -> Self:
        """The domain of a magnet."""
        neighbours = lattice.bonds if lattice.sites <= MAX_DENSE_SITES else None
        return cls(lattice.shape, lattice.symmetry, neighbours=neighbours)

    @classmethod
    def of_target(cls, target: Target, variances: Tensor | None = None) -> Self:
        """The domain of a target; its start is asked by who needs it, because it can take a while.

        Args:
            target: whose attribute `neighbours`, if it has one, is handed on.
            variances: of its start, see `targets.Start`.
        """
        neighbours = getattr(target, "neighbours", None)
        return cls(tuple(target.shape), target.symmetry, variances, neighbours=neighbours)

    @classmethod
    def of_data(cls, dimension: int, image_width: int = 0, channels: int = 1) -> Self:
        """The domain of rows of this many numbers; images are as wide as they say, other data have a width of 0."""
        image_shape = (dimension // image_width, image_width) if image_width else None
        return cls((dimension,), Group((dimension,)), image_shape=image_shape, sampled=True, channels=channels)

    @property
    def dimension(self) -> int:
        """Number of entries of a field."""
        return math.prod(self.shape)

    @cached_property
    def convolutional(self) -> bool:
        """Whether flows can be made of convolutions: on a torus or ring with translations and inversion.

        It is what `potentials.LatticePotential` has by construction; its kin have Z2 too, see `evenly_convolutional`.
        """
        if not self.symmetry.translations:
            return False
        return self.symmetry.contains(Group(self.shape, True, with_inversion(self.shape)))

    @property
    def evenly_convolutional(self) -> bool:
        """Whether there is Z2 besides."""
        return self.convolutional and self.even

    @cached_property
    def plane(self) -> Domain:
        """The domain on which maps are built: a ring with convolutions is a torus one site wide; else the same."""
        if len(self.shape) != 1 or not self.convolutional:
            return self
        shape, group = (*self.shape, 1), self.symmetry
        variances = None if self.variances is None else self.variances.reshape(shape)
        return replace(self, shape=shape, symmetry=Group(shape, True, group.point, group.flip), variances=variances)

    @property
    def local(self) -> bool:
        """Whether flows can be made of what happens near single sites: it is known which of them interact."""
        return self.neighbours is not None and not self.convolutional

    @property
    def evenly_local(self) -> bool:
        """The same for flows whose convolutions have Z2."""
        return self.neighbours is not None and not self.evenly_convolutional

    @property
    def even(self) -> bool:
        """Whether x and -x are equally likely."""
        return self.symmetry.flip

    def uneven(self) -> Domain:
        """The domain of flows that do not rely on Z2, in an external field or as members of a range of them."""
        return replace(self, symmetry=replace(self.symmetry, flip=False))


class Architecture(Protocol):
    """Frozen settings of a kind of flow, which build it.

    Attributes:
        kind: its name, in run folders and on the command line.
        title: its name, in headings.
        whitened: whether the flow starts from what the target knows in closed form; else from a standard normal.
        local: whether what is learnt does not depend on the size of a torus: a smaller one can be trained first.
        last: whether the trained maps act on x, after all maps of the target's start; else in between.
    """

    kind: ClassVar[str]
    title: ClassVar[str]

    @property
    def whitened(self) -> bool: ...

    @property
    def local(self) -> bool: ...

    @property
    def last(self) -> bool: ...

    def fitted(self, domain: Domain) -> Self:
        """The settings of a preset, changed where they do not suit the domain."""

    def build(
        self, domain: Domain, generator: torch.Generator, *, jitter: float = 0.0, recompute: bool = False
    ) -> list[Transform]:
        """The maps to be trained, from noise to the domain's coordinates, in float32 on the CPU.

        Args:
            domain: to build for.
            generator: of the initial parameters.
            jitter, recompute: of training, see `flows.GradientFlow`; nothing to flows without an integration.

        Raises:
            InvalidInput: the settings are not possible on this domain.
            SymmetryMismatch: a potential claims more symmetry than the domain has.
        """


class Integrated(Protocol):
    """Settings of an integration."""

    @property
    def time(self) -> float: ...

    @property
    def steps(self) -> int: ...

    @property
    def tableau(self) -> str: ...


def check_size(parameters: int) -> None:
    """Refuse a flow before it is built, if memory cannot hold its parameters.

    Args:
        parameters: how many there are, about.

    Raises:
        InvalidInput: there are too many.
    """
    require_memory(f"a flow of {parameters:.3g} parameters", 4.0 * parameters, "a smaller or shallower network may fit")


def allowed(potential: AnyPotential, domain: Domain) -> AnyPotential:
    """The potential, if it claims no symmetry that the domain lacks.

    Raises:
        SymmetryMismatch: it does.
    """
    require(potential.symmetry, domain.symmetry)
    return potential


def gradient_flow(
    potential: Potential,
    domain: Domain,
    settings: Integrated,
    *,
    jitter: float,
    recompute: bool,
    training_steps: int | None = None,
    reversible: bool = False,
) -> list[Transform]:
    """The map along the gradient of a potential, checked against the domain's symmetry."""
    flow = GradientFlow(
        allowed(potential, domain),
        time=settings.time,
        steps=settings.steps,
        training_steps=training_steps,
        tableau=settings.tableau,
        jitter=jitter,
        recompute=recompute,
        reversible=reversible,
    )
    return [flow]


def known_neighbours(domain: Domain) -> np.ndarray:
    """Pairs of sites that interact, as a local potential needs them.

    Raises:
        InvalidInput: the domain does not say.
    """
    if domain.neighbours is None:
        raise InvalidInput(
            "the local potential needs to know which sites interact, and this target does not say (an attribute "
            "neighbours, pairs of sites): take the dense potential"
        )
    return domain.neighbours


def check_features(features: int, radial: int, oriented: int) -> None:
    """Refuse settings that ask for features near sites and for convolutions at once.

    Raises:
        InvalidInput: they do.
    """
    if features and radial + oriented:
        raise InvalidInput(
            f"flow.features is {features}, flow.radial {radial} and flow.oriented {oriented}: expected features near "
            "sites or kernels, one of the two zero"
        )


def random_directions(count: int, dimension: int, length: float, generator: torch.Generator) -> Tensor:
    """Random directions of hidden units, all of one length, shape (count, dimension)."""
    directions = torch.randn(count, dimension, generator=generator)
    return length * directions / directions.norm(dim=1, keepdim=True)
