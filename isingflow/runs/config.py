"""What defines a run: a magnet, data or a user's own target, the flow, its training and the seed; to and from JSON.

What is written carries the number of its format. Version 0.1 wrote none: its configurations are format 1, and are read
as they are, because only the kind of run was added since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypedDict

import msgspec
import torch
from msgspec.structs import replace

from isingflow import lattice as lattices
from isingflow.architectures.base import Domain
from isingflow.architectures.build import AnyFlowConfig, build_between, build_density_flow, build_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.architectures.start import StartOfData, blank, blank_start, describe, fitted_start
from isingflow.datasets.spaces import Pixels
from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.lattice import Group, Lattice, heading
from isingflow.lattice.symmetry import group_from_dict
from isingflow.runs.presets import (
    DATA_PRESETS,
    MAGNET_PRESETS,
    PRESETS,
    evaluated_on,
    family,
    find_preset,
    shortened,
)
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.differences import differences
from isingflow.runtime.settings import Count, CountFromZero, Finite, Name, Settings, read, types
from isingflow.targets.base import Start, Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

if TYPE_CHECKING:
    from isingflow.datasets import Dataset

    LatticeEntry = Lattice
    GroupEntry = Group
else:
    # A description is taken too, and read when the configuration is made; see `Settings`.
    LatticeEntry = GroupEntry = Any

__all__ = [
    "FORMAT",
    "PRESETS",
    "AnyRunConfig",
    "ConvexFlowConfig",
    "DensityConfig",
    "FlowConfig",
    "OTFlowConfig",
    "RunConfig",
    "TargetConfig",
    "TrainingConfig",
    "config_from_dict",
    "differences",
]

FORMAT = 2
"""Of the configurations that are written; see the module's first lines."""
SAME = 1e-9
"""Relative difference up to which a parameter of a target is the same."""


class _Run(Settings, frozen=True, tag_field="kind"):
    """What runs of all kinds have in common: their form as a dictionary, and how two of them differ.

    Attributes:
        kind: of run, as it is written.
        on: what such a run is on, in words.
    """

    kind: ClassVar[str]
    on: ClassVar[str]

    @property
    def coarse(self) -> Self | None:
        """The smaller run with which this one starts, or None."""
        return None

    @property
    def sample(self) -> tuple[str, tuple[int, ...]]:
        """Type and shape of a sample in the run's snapshots."""
        raise NotImplementedError

    def target(self, given: Target | None = None) -> Target:
        """The target of the run, which may be given.

        Raises:
            InvalidInput: the run has none, only the user has it, or another one is given.
        """
        raise InvalidInput(f"a run on {self.on} ({self}) has no target")

    def data_set(self, root: Path | None = None) -> Dataset | None:
        """The data of the run; None where it is on a target.

        Args:
            root: folder of the files of MNIST and of the UCI sets; the variable ISINGFLOW_DATA if not given.

        Raises:
            DatasetError: files that are missing or damaged.
        """
        return None

    def title(self) -> str:
        """What the run is on, for headings."""
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form, from which `from_dict` builds an equal configuration."""
        return {"format": FORMAT, **super().to_dict()}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The configuration that `to_dict` described, also one of version 0.1.

        Raises:
            InvalidInput: the data do not describe a run, or were written by a newer version.
        """
        return read(_entries(data), cls, "a run")

    def differences(self, other: AnyRunConfig) -> list[str]:
        """What differs between two configurations, as "flow.hidden: 32 here, 48 there"."""
        return differences(self.to_dict(), other.to_dict())


class RunConfig(_Run, frozen=True, tag="magnet"):
    """A flow on a magnet: everything that defines the run, physics, architecture, training and seed.

    Attributes:
        lattice: a `Lattice`, or its description.
        beta: inverse temperature.

    Example:
        >>> from isingflow.lattice import CRITICAL_BETA, square
        >>> config = RunConfig.from_preset("quick", square(16), CRITICAL_BETA, seed=1)
        >>> RunConfig.from_dict(config.to_dict()) == config
        True
    """

    kind: ClassVar[str] = "magnet"
    on: ClassVar[str] = "a magnet"

    lattice: LatticeEntry
    beta: Finite
    preset: str
    seed: int = 0
    flow: AnyFlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.lattice, Lattice):
            msgspec.structs.force_setattr(self, "lattice", lattices.from_dict(self.lattice))

    def __str__(self) -> str:
        return str(self.lattice)

    def title(self) -> str:
        """The magnet in words."""
        return heading(self.lattice, self.beta)

    @property
    def coarse(self) -> RunConfig | None:
        """The run on the lattice of half the lengths with which this one starts, or None.

        Raises:
            InvalidInput: there should be one, but not on this lattice or with this potential.
        """
        if self.training.coarse is None:
            return None
        lattice = self.lattice.halved()
        if lattice is None or not self.flow.local:
            raise InvalidInput(
                f"{self.lattice} with another than the lattice potential: training up from half the size needs that "
                "potential on a uniform torus whose lengths are even and at least 6"
            )
        return replace(self, lattice=lattice, training=self.training.coarse)

    @property
    def sample(self) -> tuple[str, tuple[int, ...]]:
        """Spins."""
        return "int8", self.lattice.shape

    def target(self, given: Target | None = None) -> Target:
        """The continuous density: the one that is given, or a new one, which can take a while.

        Raises:
            InvalidInput: the given one is another one.
        """
        if given is None:
            return HubbardStratonovich(self.lattice, self.beta)
        if not isinstance(given, HubbardStratonovich) or (given.lattice, given.beta) != (self.lattice, self.beta):
            raise InvalidInput(f"{given.title()} is not the target of a run on {self.title()}")
        return given

    def new_flow(self, target: Target | None = None) -> Flow:
        """The untrained flow.

        Args:
            target: as from `target`, where it is there already.

        Raises:
            InvalidInput: the architecture is not possible on this lattice, or the target is another one.
        """
        return build_flow(self.target(target), self.flow, **_options(self))

    @classmethod
    def from_preset(
        cls,
        preset: str,
        lattice: Lattice,
        beta: float,
        *,
        flow: str = FlowConfig.kind,
        bounds: str = "upper",
        seed: int = 0,
        iterations: int | None = None,
    ) -> Self:
        """The configuration of a preset on a lattice.

        Args:
            preset: its name.
            lattice, beta: the magnet.
            flow: kind of flow, "monge-ampere", "ot" or "convex".
            bounds: what training narrows, "upper" or "both", see `TrainingConfig`.
            seed: of the run.
            iterations: of training, if not the preset's own.

        Raises:
            InvalidInput: unknown flow or preset, or iterations below 1.
        """
        found = find_preset(MAGNET_PRESETS, flow, preset)
        architecture = found.flow.fitted(Domain(lattice.shape, lattice.symmetry))
        training = shortened(found.training_on(lattice), iterations).narrowing(bounds)
        return cls(lattice, beta, preset, seed, architecture, training)


class DensityConfig(_Run, frozen=True, tag="data"):
    """A flow on data: everything that defines the run.

    Attributes:
        data: name of the data set, see `datasets.load`.
        path: of a table's file, or the name of a bundled table; None for other data.
        dimension: of a sample.
        start: what is fitted to the data in closed form before the flow is trained, see `architectures.start`.
        levels, image_width: of images; 0 for other data.

    Example:
        >>> from isingflow.datasets import load
        >>> config = DensityConfig.from_preset("quick", load("moons"), flow="ot")
        >>> DensityConfig.from_dict(config.to_dict()) == config
        True
    """

    kind: ClassVar[str] = "data"
    on: ClassVar[str] = "data"

    data: Name
    path: str | None
    dimension: Count
    start: StartOfData
    levels: CountFromZero
    image_width: CountFromZero
    preset: str
    seed: int = 0
    flow: AnyFlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_width and self.dimension % self.image_width:
            raise InvalidInput(f"images of {self.dimension} pixels in rows of {self.image_width}: not a whole number")

    def __str__(self) -> str:
        return f"{self.data if self.path is None else self.path} in {self.dimension} dimensions"

    @property
    def sample(self) -> tuple[str, tuple[int, ...]]:
        """Points of model space."""
        return "float32", (self.dimension,)

    def data_set(self, root: Path | None = None) -> Dataset:
        """The data of the run, loaded."""
        from isingflow import datasets

        return datasets.load(self.data, path=self.path, root=root, seed=self.seed)

    def new_flow(self, data: Dataset | None = None) -> Flow:
        """The untrained flow.

        Args:
            data: what its start is fitted to; without it, the flow is one to load a checkpoint into.

        Raises:
            InvalidInput: the architecture or the start is not possible for these data.
        """
        fitted = (
            blank_start(self.start, self.dimension, self.levels)
            if data is None
            else fitted_start(data, self.start, torch.Generator().manual_seed(self.seed))
        )
        return build_density_flow(Domain.of_data(self.dimension, self.image_width), self.flow, fitted, **_options(self))

    @classmethod
    def from_preset(
        cls,
        preset: str,
        data: Dataset,
        *,
        path: str | None = None,
        start: StartOfData | None = None,
        flow: str = FlowConfig.kind,
        seed: int = 0,
        iterations: int | None = None,
    ) -> Self:
        """The configuration of a preset for a data set.

        Args:
            preset: its name.
            data: as loaded, with this seed.
            path: of a table.
            start: see `architectures.start`; a copula for grey levels and a Gaussian for other data, if not given.
            flow: kind of flow, "monge-ampere", "ot" or "convex".
            seed: of the run, and of the split of the data.
            iterations: of training, if not the preset's own.

        Raises:
            InvalidInput: unknown flow or preset, or iterations below 1.
        """
        found = find_preset(DATA_PRESETS[family(data.dimension, data.image_shape is not None)], flow, preset)
        image_width = data.image_shape[1] if data.image_shape else 0
        return cls(
            "tabular" if path is not None else data.name,
            path,
            data.dimension,
            start or found.start or ("copula" if data.space.discrete else "gaussian"),
            data.space.levels if isinstance(data.space, Pixels) else 0,
            image_width,
            preset,
            seed,
            found.flow.fitted(Domain.of_data(data.dimension, image_width)),
            shortened(found.training, iterations),
        )


class StartMaps(Settings, frozen=True):
    """The maps of a target's start, described as by `architectures.start.describe`."""

    latent: tuple[dict[str, str], ...] = ()
    field: tuple[dict[str, str], ...] = ()


class TargetConfig(_Run, frozen=True, tag="target"):
    """A flow on a target of the user's own: everything of it that can be written without its code.

    Attributes:
        name, parameters: of the target, `Target.name` and `Target.parameters_by_name`: for people, and to tell whether
            a target that is handed is that of the run.
        shape, symmetry: of its fields; the symmetry is a `Group`, or its description.
        start: the maps with which its flow starts; their tensors are in the checkpoint.

    Example:
        >>> import isingflow
        >>> class Quartic(isingflow.targets.Target):
        ...     shape = (3,)
        ...
        ...     def energy(self, field):
        ...         return field.pow(4).sum(-1)
        >>> config = TargetConfig.from_preset("quick", Quartic())
        >>> print(config)
        Quartic, 3
        >>> TargetConfig.from_dict(config.to_dict()) == config
        True
    """

    kind: ClassVar[str] = "target"
    on: ClassVar[str] = "a target of the user's own"

    name: Name
    parameters: dict[str, bool | int | Finite | str]
    shape: tuple[Count, ...]
    symmetry: GroupEntry
    preset: str
    start: StartMaps = StartMaps()
    seed: int = 0
    flow: AnyFlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.symmetry, Group):
            msgspec.structs.force_setattr(self, "symmetry", group_from_dict(self.symmetry))
        if self.symmetry.shape != self.shape:
            raise InvalidInput(f"fields of shape {self.shape}, but a symmetry of fields of shape {self.symmetry.shape}")

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        return ", ".join([self.name, *(f"{name} = {value}" for name, value in self.parameters.items()), size])

    @property
    def sample(self) -> tuple[str, tuple[int, ...]]:
        """Fields."""
        return "float32", self.shape

    def target(self, given: Target | None = None) -> Target:
        """The target that is given, if it is that of the run: only the user has it.

        Raises:
            InvalidInput: none is given, or another one.
        """
        if given is None:
            raise InvalidInput(f"the run is on {self}, a target of your own: hand it, target=...")
        self._check(given)
        return given

    def new_flow(self, target: Target | None = None) -> Flow:
        """The untrained flow.

        Args:
            target: of the run; without it, the flow is one to load a checkpoint into.

        Raises:
            InvalidInput: the architecture is not possible on this target, the target is another one, or it is needed,
                because the flow starts with maps that only the target knows.
        """
        if target is not None:
            return build_flow(self.target(target), self.flow, **_options(self), keep_start=True)
        start = Start(blank(self.start.latent, self.shape), blank(self.start.field, self.shape))
        return build_between(start, Domain(self.shape, self.symmetry), self.flow, **_options(self))

    @classmethod
    def from_preset(
        cls,
        preset: str,
        target: Target,
        *,
        flow: str = FlowConfig.kind,
        bounds: str = "upper",
        seed: int = 0,
        iterations: int | None = None,
        flow_settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """The configuration of a preset on a target: that of magnets, fitted to the target's shape and symmetry.

        Args:
            preset: its name.
            target: the density.
            flow: kind of flow, "monge-ampere", "ot" or "convex".
            bounds: what training narrows, "upper" or "both".
            seed: of the run.
            iterations: of training, if not the preset's own.
            flow_settings: settings of the flow, by name, in place of the preset's.

        Raises:
            InvalidInput: unknown flow, preset or setting, or a value out of its limits.
        """
        found = find_preset(MAGNET_PRESETS, flow, preset)
        architecture = found.flow.fitted(Domain.of_target(target))
        unknown = set(flow_settings or {}) - set(types(type(architecture)))
        if unknown:
            known = ", ".join(types(type(architecture)))
            raise InvalidInput(f"flow settings {', '.join(sorted(unknown))}: expected some of {known}")
        architecture = replace(architecture, **(flow_settings or {}))
        start = target.start() if architecture.whitened else Start()
        return cls(
            target.name,
            _plain(target.parameters_by_name),
            tuple(target.shape),
            target.symmetry,
            preset,
            StartMaps(tuple(describe(start.latent)), tuple(describe(start.field))),
            seed,
            architecture,
            shortened(evaluated_on(target.sites, found.training), iterations).narrowing(bounds),
        )

    def _check(self, target: Target) -> None:
        """Refuse another target than that of the run."""
        own = {"name": self.name, "parameters": self.parameters, "shape": self.shape, "symmetry": str(self.symmetry)}
        parameters = {
            # What a target computes for itself may differ in its last digits on another machine.
            name: self.parameters[name] if _close(value, self.parameters.get(name)) else value
            for name, value in _plain(target.parameters_by_name).items()
        }
        given = {
            "name": target.name,
            "parameters": parameters,
            "shape": tuple(target.shape),
            "symmetry": str(target.symmetry),
        }
        changed = differences(given, own)
        if changed or self.symmetry != target.symmetry:
            raise InvalidInput(f"not the target of this run: {'; '.join(changed) or 'it has another symmetry'}")


AnyRunConfig = RunConfig | DensityConfig | TargetConfig


class _Options(TypedDict):
    """What the functions that build flows are told of a run."""

    seed: int
    jitter: float
    recompute: bool


def _options(config: AnyRunConfig) -> _Options:
    return {"seed": config.seed, "jitter": config.training.jitter, "recompute": config.training.recompute}


def config_from_dict(data: Any) -> AnyRunConfig:
    """The configuration, of any kind of run, that `to_dict` described, also one of version 0.1.

    Raises:
        InvalidInput: the data do not describe a run, or were written by a newer version.
    """
    return read(_entries(data), AnyRunConfig, "a run")


def _entries(data: Any) -> dict[str, Any]:
    """The entries of a run of the present format, from a description in any that is known."""
    if not isinstance(data, Mapping):
        raise InvalidInput("not a run: expected named entries")
    entries = dict(data)
    written = entries.pop("format", 1)
    if type(written) is not int or not 1 <= written <= FORMAT:
        raise InvalidInput(
            f"a run of format {written!r}, written by a newer version: this one reads formats up to {FORMAT}; upgrade "
            "isingflow"
        )
    if written == 1:
        return {"kind": DensityConfig.kind if "data" in entries else RunConfig.kind} | entries
    return entries


def _close(one: Any, other: Any) -> bool:
    return isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=SAME)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, texts and truth values as such, also those of numpy."""
    kinds = (bool, int, float, str)
    return {
        name: next((kind(value) for kind in kinds if isinstance(value, kind)), value)
        for name, value in parameters.items()
    }
