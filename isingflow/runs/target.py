"""A run on a target of the user's own: everything of it that can be written without its code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec
import numpy as np
from msgspec.structs import replace

from isingflow.architectures.base import Domain
from isingflow.architectures.build import AnyFlowConfig, build_between, build_flow
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.start import blank, describe
from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.lattice import Group
from isingflow.lattice.symmetry import group_from_dict
from isingflow.runs.base import OF_DATA, Run, check_training, options_of
from isingflow.runs.presets import (
    MAGNET_PRESETS,
    evaluated_on,
    find_preset,
    shortened,
)
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.differences import differences, in_a_line
from isingflow.runtime.settings import ByHand, Count, CountFromZero, Finite, Name, Seed, Settings, Text, Whole, types
from isingflow.targets.base import Start, Target

if TYPE_CHECKING:
    GroupEntry = Group
else:
    # A description is taken too, and read when the configuration is made; see `Settings`.
    GroupEntry = Any


SAME = 1e-9
"""Relative difference up to which a parameter of a target is the same."""


class StartMaps(Settings, frozen=True):
    """The maps of a target's start, described as by `architectures.start.describe`."""

    latent: tuple[dict[Text, Text], ...] = ()
    field: tuple[dict[Text, Text], ...] = ()


class TargetConfig(Run, frozen=True, tag="target"):
    """A flow on a target of the user's own: everything of it that can be written without its code.

    Attributes:
        name, parameters: of the target, `Target.name` and `Target.parameters_by_name`: for people, and to tell whether
            a target that is handed is that of the run.
        shape, symmetry: of its fields; the symmetry is a `Group`, or its description.
        start: the maps with which its flow starts; their tensors are in the checkpoint.
        settings: what of `flow` and `training` is not the preset's own, by name, see `overrides`.
        neighbours: pairs of sites that interact, where the target says so.

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
    parameters: dict[Text, bool | Whole | Finite | Text]
    shape: tuple[Count, ...]
    symmetry: GroupEntry
    preset: Text
    start: StartMaps = StartMaps()
    seed: Seed = 0
    flow: AnyFlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    settings: ByHand = msgspec.field(default_factory=dict)
    neighbours: tuple[tuple[CountFromZero, CountFromZero], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self, "coarse", *OF_DATA)
        if not isinstance(self.symmetry, Group):
            msgspec.structs.force_setattr(self, "symmetry", group_from_dict(self.symmetry))
        if self.symmetry.shape != self.shape:
            raise InvalidInput(f"fields of shape {self.shape}, but a symmetry of fields of shape {self.symmetry.shape}")

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        return ", ".join([self.name, *(f"{name} = {value}" for name, value in self.parameters.items()), size])

    @property
    def domain(self) -> Domain:
        """What the flow is built for."""
        neighbours = np.array(self.neighbours) if self.neighbours else None
        return Domain(self.shape, self.symmetry, neighbours=neighbours)

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
            return build_flow(self.target(target), self.flow, **options_of(self), keep_start=True)
        start = Start(blank(self.start.latent, self.shape), blank(self.start.field, self.shape))
        return build_between(start, self.domain, self.flow, **options_of(self))

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
        domain = Domain.of_target(target)
        found = find_preset(MAGNET_PRESETS, flow, preset).on(domain)
        architecture = found.flow.fitted(domain)
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
            neighbours=() if domain.neighbours is None else tuple(map(tuple, np.asarray(domain.neighbours).tolist())),
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
            raise InvalidInput(f"not the target of this run: {in_a_line(changed) or 'it has another symmetry'}")


def _close(one: Any, other: Any) -> bool:
    return isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=SAME)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, texts and truth values as such, also those of numpy."""
    kinds = (bool, int, float, str)
    return {
        name: next((kind(value) for kind in kinds if isinstance(value, kind)), value)
        for name, value in parameters.items()
    }
