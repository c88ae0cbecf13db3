"""What defines a run: a magnet or data, the flow, its training and the seed; frozen data, to and from JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from isingflow import lattice as lattices
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.kinds import FLOWS, AnyFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice
from isingflow.runs.presets import (
    DATA_PRESETS,
    MAGNET_PRESETS,
    PRESETS,
    family,
    find_preset,
    for_dimension,
    for_lattice,
    shortened,
)
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.differences import differences

if TYPE_CHECKING:
    from isingflow.datasets import Dataset

__all__ = [
    "PRESETS",
    "AnyRunConfig",
    "ConvexFlowConfig",
    "DensityConfig",
    "FlowConfig",
    "OTFlowConfig",
    "RunConfig",
    "TrainingConfig",
    "config_from_dict",
    "differences",
]


class _Comparable:
    """What runs of both kinds have in common: their form as a dictionary, and how two of them differ."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form, from which `from_dict` builds an equal configuration."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        described = {name: part.to_dict() for name, part in parts.items() if isinstance(part, Lattice)}
        flow = {"kind": self.flow.kind, **asdict(self.flow)}
        return parts | described | {"flow": flow, "training": asdict(self.training)}

    def differences(self, other: AnyRunConfig) -> list[str]:
        """What differs between two configurations, as "flow.hidden: 32 here, 48 there"."""
        return differences(self.to_dict(), other.to_dict())


@dataclass(frozen=True)
class RunConfig(_Comparable):
    """A flow on a magnet: everything that defines the run, physics, architecture, training and seed.

    Example:
        >>> from isingflow.lattice import CRITICAL_BETA, square
        >>> config = RunConfig.from_preset("quick", square(16), CRITICAL_BETA, seed=1)
        >>> RunConfig.from_dict(config.to_dict()) == config
        True
    """

    lattice: Lattice
    beta: float
    preset: str
    seed: int = 0
    flow: AnyFlowConfig = field(default_factory=FlowConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __str__(self) -> str:
        return str(self.lattice)

    def target(self, given=None):
        from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

        return HubbardStratonovich(self.lattice, self.beta) if given is None else given

    @property
    def coarse(self) -> RunConfig | None:
        """The run on the lattice of half the lengths with which this one starts, or None.

        Raises:
            InvalidInput: there should be one, but not on this lattice or with this potential.
        """
        if self.training.coarse is None:
            return None
        lattice = self.lattice.halved()
        if lattice is None or not isinstance(self.flow, FlowConfig) or self.flow.potential != "lattice":
            raise InvalidInput(
                f"{self.lattice} with another than the lattice potential: training up from half the size needs that "
                "potential on a uniform torus whose lengths are even and at least 6"
            )
        return replace(self, lattice=lattice, training=self.training.coarse)

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
        """The configuration of a preset on a lattice, see `presets.for_lattice`.

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
        architecture = for_dimension(for_lattice(found.flow, lattice), lattice.sites)
        training = shortened(found.training_on(lattice), iterations).narrowing(bounds)
        return cls(lattice, beta, preset, seed, architecture, training)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The configuration that `to_dict` described.

        Raises:
            InvalidInput: the data do not describe a run.
        """
        _check_entries("a run", data, {f.name for f in fields(cls)})
        beta = data["beta"]
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not math.isfinite(beta):
            raise InvalidInput(f"not a run: beta is {beta!r}, expected a finite number")
        return cls(lattices.from_dict(data["lattice"]), float(beta), **_common(data))


@dataclass(frozen=True)
class DensityConfig(_Comparable):
    """A flow on data: everything that defines the run.

    Attributes:
        data: name of the data set, see `datasets.load`.
        path: of a table's file, or the name of a bundled table; None for other data.
        dimension: of a sample.
        start: what is fitted to the data in closed form before the flow is trained, see `datasets.start`.
        levels, image_width: of images; 0 for other data.

    Example:
        >>> from isingflow.datasets import load
        >>> config = DensityConfig.from_preset("quick", load("moons"), flow="ot")
        >>> DensityConfig.from_dict(config.to_dict()) == config
        True
    """

    coarse: ClassVar[None] = None
    """Data have no smaller form to train on first."""

    data: str
    path: str | None
    dimension: int
    start: str
    levels: int
    image_width: int
    preset: str
    seed: int = 0
    flow: AnyFlowConfig = field(default_factory=FlowConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __str__(self) -> str:
        return f"{self.data if self.path is None else self.path} in {self.dimension} dimensions"

    @classmethod
    def from_preset(
        cls,
        preset: str,
        data: Dataset,
        *,
        path: str | None = None,
        start: str | None = None,
        flow: str = FlowConfig.kind,
        seed: int = 0,
        iterations: int | None = None,
    ) -> Self:
        """The configuration of a preset for a data set.

        Args:
            preset: its name.
            data: as loaded, with this seed.
            path: of a table.
            start: see `datasets.start`; a copula for grey levels and a Gaussian for other data, if not given.
            flow: kind of flow, "monge-ampere", "ot" or "convex".
            seed: of the run, and of the split of the data.
            iterations: of training, if not the preset's own.

        Raises:
            InvalidInput: unknown flow or preset, or iterations below 1.
        """
        found = find_preset(DATA_PRESETS[family(data.dimension, data.image_shape is not None)], flow, preset)
        start = start or found.start or ("copula" if data.space.discrete else "gaussian")
        return cls(
            "tabular" if path is not None else data.name,
            path,
            data.dimension,
            start,
            data.space.levels if data.space.discrete else 0,
            data.image_shape[1] if data.image_shape else 0,
            preset,
            seed,
            for_dimension(found.flow, data.dimension),
            shortened(found.training, iterations),
        )

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The configuration that `to_dict` described.

        Raises:
            InvalidInput: the data do not describe a run.
        """
        _check_entries("a run", data, {f.name for f in fields(cls)})
        name, path, start = data["data"], data["path"], data["start"]
        if not (isinstance(name, str) and isinstance(start, str) and (path is None or isinstance(path, str))):
            raise InvalidInput(f"not a run: data is {name!r}, path {path!r}, start {start!r}; expected names")
        numbers = {key: data[key] for key in ("dimension", "levels", "image_width")}
        for key, least in (("dimension", 1), ("levels", 0), ("image_width", 0)):
            if type(numbers[key]) is not int or numbers[key] < least:
                raise InvalidInput(f"not a run: {key} is {numbers[key]!r}, expected an integer of at least {least}")
        return cls(name, path, start=start, **numbers, **_common(data))


@dataclass(frozen=True)
class TargetConfig(_Comparable):
    name: str
    parameters: dict
    shape: tuple
    preset: str
    seed: int = 0
    flow: AnyFlowConfig = field(default_factory=FlowConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    coarse: ClassVar[None] = None

    def target(self, given=None):
        if given is None:
            raise InvalidInput("hand it the target")
        return given

    @classmethod
    def from_preset(cls, preset, target, *, flow="monge-ampere", seed=0, iterations=None, bounds="upper"):
        found = find_preset(MAGNET_PRESETS, flow, preset)
        arch = found.flow
        if not target.symmetry.translations or len(target.shape) != 2:
            arch = replace(arch, potential="dense", radial=0, oriented=0, hidden=2 * target.sites, average="exact")
        return cls(
            target.name,
            target.parameters_by_name,
            target.shape,
            preset,
            seed,
            arch,
            shortened(found.training, iterations),
        )


AnyRunConfig = RunConfig | DensityConfig | TargetConfig


def config_from_dict(data: Any) -> AnyRunConfig:
    """The configuration, of a magnet or of data, that `to_dict` described.

    Raises:
        InvalidInput: the data do not describe a run.
    """
    kind = DensityConfig if isinstance(data, dict) and "data" in data else RunConfig
    return kind.from_dict(data)


def _common(data: Mapping[str, Any]) -> dict[str, Any]:
    """Preset, seed, flow and training of a run of either kind."""
    seed, preset, flow = data["seed"], data["preset"], data["flow"]
    if type(seed) is not int or not isinstance(preset, str):
        raise InvalidInput(f"not a run: seed is {seed!r}, preset {preset!r}; expected an integer and a name")
    kind = flow.get("kind") if isinstance(flow, dict) else None
    if not isinstance(kind, str) or kind not in FLOWS:
        raise InvalidInput(f"not a flow: expected the entries kind ({', '.join(FLOWS)}) and what belongs to it")
    entries = {name: entry for name, entry in flow.items() if name != "kind"}
    return {
        "preset": preset,
        "seed": seed,
        "flow": _build(FLOWS[kind], "a flow", entries),
        "training": _build(TrainingConfig, "a training", data["training"]),
    }


def _check_entries(what: str, data: Any, expected: set[str]) -> None:
    if not isinstance(data, dict) or set(data) != expected:
        raise InvalidInput(f"not {what}: expected the entries {', '.join(sorted(expected))}")


def _build(cls: type, what: str, data: Any) -> Any:
    _check_entries(what, data, {f.name for f in fields(cls)})
    for f in fields(cls):
        if f.name == "coarse":
            continue
        kinds = (int, float) if f.type == "float" else {"int": (int,), "str": (str,), "bool": (bool,)}[f.type]
        if not isinstance(data[f.name], kinds) or isinstance(data[f.name], bool) != (f.type == "bool"):
            raise InvalidInput(f"not {what}: {f.name} is {data[f.name]!r}, expected {f.type}")
    if data.get("coarse") is not None:
        return cls(**data | {"coarse": _build(cls, what, data["coarse"])})
    return cls(**data)
