"""A run on a magnet at all temperatures or fields of a range: one flow for all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from isingflow import lattice as lattices
from isingflow.architectures.base import Domain
from isingflow.architectures.build import AnyFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import Family, Range
from isingflow.flows.family import FITTED_TERMS
from isingflow.lattice import Lattice, heading
from isingflow.runs.base import Run
from isingflow.runs.magnet import RunConfig
from isingflow.runs.presets import MAGNET_PRESETS, find_preset
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.checks import instance, number
from isingflow.runtime.settings import ByHand, Finite, Seed, Settings, Text
from isingflow.targets.base import Target
from isingflow.targets.in_fields import InFields

if TYPE_CHECKING:
    LatticeEntry = Lattice
else:
    # A description is taken too, and read when the configuration is made; see `Settings`.
    LatticeEntry = Any

MOST_TERMS = 32
FASTER = 4 / 3
"""How fast parameters of a member may move, by all terms of their series, in units of those of a flow of its own."""
WEAK = 9
"""Fields of a range that are asked whether states of both signs count."""


class SeriesConfig(Settings, frozen=True):
    """What is learnt as a series in beta and in the external field, and from which of them at once.

    Attributes:
        terms: polynomials in beta.
        temperatures: temperatures, or fields, or pairs of both, of which every batch has samples, of each as many.
        field_terms: polynomials in the field.
    """

    terms: Annotated[int, Meta(ge=1, le=MOST_TERMS)] = 6
    temperatures: Annotated[int, Meta(ge=1, le=MOST_TERMS)] = 2
    field_terms: Annotated[int, Meta(ge=1, le=MOST_TERMS)] = 4


class FamilyConfig(Run, frozen=True, tag="family"):
    """A flow on a magnet for all temperatures or uniform external fields of a range, or both, see `flows.Family`.

    Attributes:
        lattice: a `Lattice`, or its description; without a field where there is a range of them.
        low, high: least and greatest inverse temperature; the same where there is a range of fields alone.
        family: the series in beta and in the field.
        settings: what of `family`, `flow` and `training` is not the preset's own, by name, see `overrides`.
        fields: least and greatest external field, in units of J; None: the lattice's own.
        centred: whether all members start from the best centred Gaussian, see `targets.in_fields`.

    Example:
        >>> from isingflow.lattice import square
        >>> config = FamilyConfig.from_preset("quick", square(8), 0.2, 0.6, seed=1)
        >>> FamilyConfig.from_dict(config.to_dict()) == config, config.at(0.3).beta
        (True, 0.3)
        >>> config = FamilyConfig.from_preset("quick", square(8), 0.3, 0.3, fields=(0, 0.2))
        >>> print(config, "|", config.at(field=0.1))
        periodic 8x8, field = 0 to 0.2, beta = 0.3 | periodic 8x8, field 0.1
    """

    kind: ClassVar[str] = "family"
    on: ClassVar[str] = "a magnet at all temperatures or fields of a range"

    lattice: LatticeEntry
    low: Finite
    high: Finite
    preset: Text
    seed: Seed = 0
    flow: AnyFlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    settings: ByHand = msgspec.field(default_factory=dict)
    family: SeriesConfig = SeriesConfig()
    fields: tuple[Finite, Finite] | None = None
    centred: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.lattice, Lattice):
            msgspec.structs.force_setattr(self, "lattice", lattices.from_dict(self.lattice))
        if not self.low < self.high and (self.fields is None or self.low > self.high):
            raise InvalidInput(
                f"low is {self.low:g} and high {self.high:g}: expected a range of beta from a smaller to a larger value"
            )
        if self.fields is not None and not self.fields[0] < self.fields[1]:
            least, greatest = self.fields
            raise InvalidInput(
                f"fields are {least:g} and {greatest:g}: expected a range of fields from a smaller to a larger value"
            )
        if self.fields is not None and self.lattice.field is not None:
            raise InvalidInput(f"a range of fields on {self.lattice}: expected a lattice without a field of its own")
        if self.centred and self.fields is None:
            raise InvalidInput("centred is of a range of fields: expected false")
        if self.training.bounds != "upper":
            raise InvalidInput("a family is trained for the upper bound alone: expected bounds 'upper'")
        if self.training.batch < self.family.temperatures:
            raise InvalidInput(
                f"training.batch is {self.training.batch}: expected a sample of each of {self.family.temperatures} "
                "temperatures at least"
            )
        for name, beta in (("low", self.low), ("high", self.high)):
            for field in self.fields or (None,):
                try:
                    self.at(beta, field)
                except InvalidInput as error:
                    raise InvalidInput(f"{name}: {error}") from None

    def __str__(self) -> str:
        fields = "" if self.fields is None else f"field = {self.ranges[1]}, "
        return f"{self.lattice}, {fields}beta = {self.ranges[0]}"

    def title(self) -> str:
        """The magnet in words, with its fields and temperatures."""
        words, _, _ = heading(self.lattice, self.low).rpartition("beta = ")
        fields = "" if self.fields is None else f"field = {self.ranges[1]}, "
        return f"{words}{fields}beta = {self.ranges[0]}"

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Of beta, and of the field if there is one, with their polynomials."""
        beta = Range("beta", self.low, self.high, self.family.terms if self.low < self.high else 1)
        return (beta,) if self.fields is None else (beta, Range("field", *self.fields, self.family.field_terms))

    @property
    def varied(self) -> tuple[Range, ...]:
        """Those of them that are no single values."""
        return tuple(one for one in self.ranges if one.low < one.high)

    def at(self, beta: float | None = None, field: float | None = None) -> RunConfig:
        """The run of one member; a parameter without a range need not be given.

        Raises:
            InvalidInput: beta or field is missing, or outside of the range.
        """
        given, point = {"beta": beta, "field": field}, {}
        for one in self.ranges:
            value = given.pop(one.name)
            if value is None and one.low < one.high:
                raise InvalidInput(f"{one.name} is missing: expected {one}")
            point[one.name] = one.low if value is None else one.check(value, "the family was trained for")
        if field is not None and given:
            raise InvalidInput("this is a family of temperatures alone: it has the field of its lattice")
        own = {name: value for name, value in self.settings.items() if not name.startswith("family.")}
        lattice, made_for = self.lattice, "magnet"
        if self.fields is not None:
            lattice, made_for = lattice.with_field(point["field"]), "weak fields" if self.centred else "fields"
        run = RunConfig(lattice, point["beta"], self.preset, self.seed, self.flow, self.training, own)
        return replace(run, made_for=made_for)

    @property
    def coarse(self) -> FamilyConfig | None:
        """The family on the lattice of half the lengths with which this one starts, or None."""
        smaller = self.at(**{one.name: one.low for one in self.ranges}).coarse
        if smaller is None:
            return None
        lattice = smaller.lattice if self.fields is None else smaller.lattice.with_field(None)
        return replace(self, lattice=lattice, training=smaller.training)

    @property
    def domain(self) -> Domain:
        """What the flow is built for."""
        domain = Domain.of_lattice(self.lattice)
        return domain if self.fields is None else domain.uneven()

    @property
    def geometry(self) -> Lattice:
        """The magnet's lattice."""
        return self.lattice

    @property
    def sample(self) -> tuple[str, tuple[int, ...]]:
        """Spins."""
        return "int8", self.lattice.shape

    def target(self, given: Target | None = None) -> Target:
        """There is one for every member.

        Raises:
            InvalidInput: always, with what to do.
        """
        values = ", ".join(one.name for one in self.varied)
        options = " ".join({"beta": "--beta B", "field": "--field H"}[one.name] for one in self.varied)
        raise InvalidInput(
            f"{self} is a family of flows: choose one, by isingflow.load(FAMILY).at({values}), or in the run folders "
            f"that isingflow evaluate FAMILY {options} writes"
        )

    def new_flow(self, target: Target | None = None) -> Family:
        """The untrained family."""
        return Family(lambda **point: self.at(**point).new_flow(), self.ranges)

    @classmethod
    def from_preset(
        cls,
        preset: str,
        lattice: Lattice,
        low: float,
        high: float,
        *,
        fields: tuple[float, float] | None = None,
        flow: str = FlowConfig.kind,
        seed: int = 0,
        iterations: int | None = None,
    ) -> Self:
        """The configuration of a preset on a lattice, as for one magnet but for longer.

        Args:
            preset: its name.
            lattice: of the magnet.
            low, high: the range of inverse temperatures.
            fields: the range of external fields, if there is one; low and high may be the same then.
            flow, seed, iterations: as in `RunConfig.from_preset`.

        Raises:
            InvalidInput: unknown flow or preset, iterations below 1, or a range that is none.
        """
        polarised = lattice if fields is None else lattice.with_field(max(fields, key=abs))
        one = RunConfig.from_preset(preset, polarised, high, flow=flow, seed=seed, iterations=iterations)
        more = find_preset(MAGNET_PRESETS, flow, preset).more
        # As many a coefficient of the series as without one.
        training = replace(one.training, fitting_samples=FITTED_TERMS * one.training.fitting_samples)
        if iterations is None:
            training = training.scaled(more * training.iterations)
        config = cls(lattice, low, high, preset, seed, one.flow, training, fields=fields)
        together = math.prod(float(one.scales.sum()) for one in config.ranges)
        config = replace(config, training=_at_rate(training, FASTER / together))
        return config if fields is None else replace(config, centred=_undecided(config))


def _undecided(config: FamilyConfig) -> bool:
    """Whether states of both signs count somewhere in the ranges."""
    points = grid(config.ranges, WEAK)
    runs = [config.at(**point) for point in points if point["beta"] in (config.low, config.high)]
    return any(InFields(run.lattice, run.beta).undecided for run in runs)


def _at_rate(training: TrainingConfig, factor: float) -> TrainingConfig:
    """The same at another learning rate, in round numbers."""
    coarse = training.coarse and _at_rate(training.coarse, factor)
    return replace(training, learning_rate=float(f"{factor * training.learning_rate:.2g}"), coarse=coarse)


def spread(low: float, high: float, points: int) -> tuple[float, ...]:
    """Temperatures from low to high, both included, closer together near the ends (Chebyshev's).

    Example:
        >>> [round(beta, 3) for beta in spread(0.0, 1.0, 3)]
        [0.0, 0.5, 1.0]
    """
    middle, half = (low + high) / 2, (high - low) / 2
    inner = [middle - half * math.cos(math.pi * index / (points - 1)) for index in range(1, points - 1)]
    return (low, *inner, high)


def grid(ranges: Sequence[Range], points: int) -> list[dict[str, float]]:
    """All combinations of values that are spread over the ranges, by name; those of the last range next to each other.

    Example:
        >>> grid([Range("beta", 0.3, 0.3, 1), Range("field", 0.0, 1.0, 4)], 2)
        [{'beta': 0.3, 'field': 0.0}, {'beta': 0.3, 'field': 1.0}]
    """
    names = [one.name for one in ranges]
    values = [spread(one.low, one.high, points) if one.low < one.high else (one.low,) for one in ranges]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]


def ends(name: str, given: Any, word: str) -> tuple[float, float]:
    """Least and greatest value of a range that was handed in.

    Raises:
        InvalidInput: they are no two finite numbers; WrongType: no tuple or list.

    Example:
        >>> ends("fields", [0, 0.2], "external field")
        (0.0, 0.2)
    """
    if len(instance(name, given, tuple | list, f"least and greatest {word}")) != 2:
        raise InvalidInput(f"{name} has {len(given)} entries, expected least and greatest {word}")
    low, high = (number(name, value) for value in given)
    return low, high
