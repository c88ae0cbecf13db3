"""A run on a magnet at all temperatures of a range: one flow for all of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from isingflow import lattice as lattices
from isingflow.architectures.base import Domain
from isingflow.architectures.build import AnyFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import Family
from isingflow.lattice import Lattice, heading
from isingflow.runs.base import Run
from isingflow.runs.magnet import RunConfig
from isingflow.runs.presets import MAGNET_PRESETS, find_preset
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.settings import ByHand, Finite, Seed, Settings, Text
from isingflow.targets.base import Target

if TYPE_CHECKING:
    LatticeEntry = Lattice
else:
    # A description is taken too, and read when the configuration is made; see `Settings`.
    LatticeEntry = Any

MOST_TERMS = 32
SLOWER = 0.5
"""Rate of a family in units of that of a flow at one temperature: all terms of a series move at once."""


class SeriesConfig(Settings, frozen=True):
    """What is learnt as a series in beta, and from which temperatures at once.

    Attributes:
        terms: polynomials in beta.
        temperatures: of which every batch has samples, of each as many.
    """

    terms: Annotated[int, Meta(ge=1, le=MOST_TERMS)] = 6
    temperatures: Annotated[int, Meta(ge=1, le=MOST_TERMS)] = 4


class FamilyConfig(Run, frozen=True, tag="family"):
    """A flow on a magnet for all temperatures of a range, see `flows.Family`.

    Attributes:
        lattice: a `Lattice`, or its description.
        low, high: least and greatest inverse temperature.
        family: the series in beta.
        settings: what of `family`, `flow` and `training` is not the preset's own, by name, see `overrides`.

    Example:
        >>> from isingflow.lattice import square
        >>> config = FamilyConfig.from_preset("quick", square(8), 0.2, 0.6, seed=1)
        >>> FamilyConfig.from_dict(config.to_dict()) == config, config.at(0.3).beta
        (True, 0.3)
    """

    kind: ClassVar[str] = "family"
    on: ClassVar[str] = "a magnet at all temperatures of a range"

    lattice: LatticeEntry
    low: Finite
    high: Finite
    preset: Text
    seed: Seed = 0
    flow: AnyFlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    settings: ByHand = msgspec.field(default_factory=dict)
    family: SeriesConfig = SeriesConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.lattice, Lattice):
            msgspec.structs.force_setattr(self, "lattice", lattices.from_dict(self.lattice))
        if not self.low < self.high:
            raise InvalidInput(
                f"low is {self.low:g} and high {self.high:g}: expected a range of beta from a smaller to a larger value"
            )
        if self.training.bounds != "upper":
            raise InvalidInput("a family is trained for the upper bound alone: expected bounds 'upper'")
        if self.training.batch < self.family.temperatures:
            raise InvalidInput(
                f"training.batch is {self.training.batch}: expected a sample of each of {self.family.temperatures} "
                "temperatures at least"
            )
        for name, beta in (("low", self.low), ("high", self.high)):
            try:
                self.at(beta)
            except InvalidInput as error:
                raise InvalidInput(f"{name}: {error}") from None

    def __str__(self) -> str:
        return f"{self.lattice}, beta = {self.low:g} to {self.high:g}"

    def title(self) -> str:
        """The magnet in words, with its temperatures."""
        words, _, _ = heading(self.lattice, self.low).rpartition("beta = ")
        return f"{words}beta = {self.low:g} to {self.high:g}"

    def at(self, beta: float) -> RunConfig:
        """The run of one member.

        Raises:
            InvalidInput: beta is outside of the range.
        """
        if not self.low <= beta <= self.high:
            raise InvalidInput(
                f"beta {beta:g} is outside of what the family was trained for: expected {self.low:g} to {self.high:g}"
            )
        own = {name: value for name, value in self.settings.items() if not name.startswith("family.")}
        return RunConfig(self.lattice, beta, self.preset, self.seed, self.flow, self.training, own)

    @property
    def coarse(self) -> FamilyConfig | None:
        """The family on the lattice of half the lengths with which this one starts, or None."""
        smaller = self.at(self.low).coarse
        return None if smaller is None else replace(self, lattice=smaller.lattice, training=smaller.training)

    @property
    def domain(self) -> Domain:
        """What the flow is built for."""
        return Domain.of_lattice(self.lattice)

    @property
    def geometry(self) -> Lattice:
        """The magnet's lattice."""
        return self.lattice

    @property
    def sample(self) -> tuple[str, tuple[int, ...]]:
        """Spins."""
        return "int8", self.lattice.shape

    def target(self, given: Target | None = None) -> Target:
        """There is one for every temperature.

        Raises:
            InvalidInput: always, with what to do.
        """
        raise InvalidInput(
            f"{self} is a family of flows: choose one, by isingflow.load(FAMILY).at(beta), or in the run folders that "
            "isingflow evaluate FAMILY --beta B writes"
        )

    def new_flow(self, target: Target | None = None) -> Family:
        """The untrained family."""
        return Family(lambda beta: self.at(beta).new_flow(), self.low, self.high, self.family.terms)

    @classmethod
    def from_preset(
        cls,
        preset: str,
        lattice: Lattice,
        low: float,
        high: float,
        *,
        flow: str = FlowConfig.kind,
        seed: int = 0,
        iterations: int | None = None,
    ) -> Self:
        """The configuration of a preset on a lattice, as for one temperature but for longer.

        Args:
            preset: its name.
            lattice: of the magnet.
            low, high: the range of inverse temperatures.
            flow, seed, iterations: as in `RunConfig.from_preset`.

        Raises:
            InvalidInput: unknown flow or preset, iterations below 1, or a range that is none.
        """
        one = RunConfig.from_preset(preset, lattice, high, flow=flow, seed=seed, iterations=iterations)
        training = _slower(one.training)
        if iterations is None:
            more = find_preset(MAGNET_PRESETS, flow, preset).more
            training = training.scaled(more * training.iterations)
            training = replace(training, fitting_samples=more * training.fitting_samples)
        return cls(lattice, low, high, preset, seed, one.flow, training)


def _slower(training: TrainingConfig) -> TrainingConfig:
    coarse = training.coarse and _slower(training.coarse)
    return replace(training, learning_rate=SLOWER * training.learning_rate, coarse=coarse)


def spread(low: float, high: float, points: int) -> tuple[float, ...]:
    """Temperatures from low to high, both included, closer together near the ends (Chebyshev's).

    Example:
        >>> [round(beta, 3) for beta in spread(0.0, 1.0, 3)]
        [0.0, 0.5, 1.0]
    """
    middle, half = (low + high) / 2, (high - low) / 2
    inner = [middle - half * math.cos(math.pi * index / (points - 1)) for index in range(1, points - 1)]
    return (low, *inner, high)
