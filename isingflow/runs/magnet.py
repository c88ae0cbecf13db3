"""A run on an Ising magnet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import msgspec
import numpy as np
from msgspec.structs import replace

from isingflow import lattice as lattices
from isingflow.architectures.base import Domain
from isingflow.architectures.build import AnyFlowConfig, build_flow
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.lattice import Lattice, heading
from isingflow.runs.base import OF_DATA, Run, check_training, options_of
from isingflow.runs.presets import (
    MAGNET_PRESETS,
    find_preset,
    shortened,
)
from isingflow.runs.settings import TrainingConfig
from isingflow.runs.warmer import carried_from
from isingflow.runtime.settings import ByHand, Finite, Seed, Text
from isingflow.targets.base import Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.targets.in_fields import InFields

if TYPE_CHECKING:
    LatticeEntry = Lattice
else:
    # A description is taken too, and read when the configuration is made; see `Settings`.
    LatticeEntry = Any


STRONGEST = 1e6
"""Largest |beta J|: beyond, nothing is left of the temperature, and at last numbers overflow."""


class RunConfig(Run, frozen=True, tag="magnet"):
    """A flow on a magnet: everything that defines the run, physics, architecture, training and seed.

    Attributes:
        lattice: a `Lattice`, or its description.
        beta: inverse temperature that the flow is trained at.
        goal: inverse temperature for which evaluations anneal spins, see `evaluation.warmer`; None: beta itself.
        settings: what of `flow` and `training` is not the preset's own, by name, see `overrides`.
        made_for: what the flow is built for: "magnet", this one; or, as a member of a family, "fields", all of a range,
            so that it has no Z2 where the field is 0; or "weak fields", where it starts from the best centred Gaussian
            besides, see `targets.in_fields`.

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
    preset: Text
    seed: Seed = 0
    flow: AnyFlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    settings: ByHand = msgspec.field(default_factory=dict)
    goal: Finite | None = None
    made_for: Literal["magnet", "fields", "weak fields"] = "magnet"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_training(self, *OF_DATA)
        if not isinstance(self.lattice, Lattice):
            msgspec.structs.force_setattr(self, "lattice", lattices.from_dict(self.lattice))
        if self.goal is not None and not (0 < self.beta < self.goal or self.goal < self.beta < 0):
            raise InvalidInput(
                f"a flow trained at beta {self.beta:g} to be annealed to the goal {self.goal:g}: expected to train at "
                "a beta of the same sign that is nearer to 0, and not 0"
            )
        for name, beta in (("beta", self.beta), ("goal", self.goal or 0.0)):
            strongest = abs(beta) * _strongest(self.lattice)
            if strongest > STRONGEST:
                raise InvalidInput(f"{name} {beta:g}: |beta J| reaches {strongest:g}, expected at most {STRONGEST:g}")
        _ = self.coarse  # which refuses what cannot be

    def __str__(self) -> str:
        return str(self.lattice)

    def title(self) -> str:
        """The magnet in words, with its temperature, or both of them."""
        title = heading(self.lattice, self.beta) + (f", T = {1 / self.beta:.6g}" if self.beta else "")
        if self.goal is None:
            return title
        trained, goal = (words.rpartition("beta = ") for words in (title, heading(self.lattice, self.goal)))
        return f"{trained[0]}trained at beta = {trained[2]}, for beta = {goal[2]}"

    @property
    def coarse(self) -> RunConfig | None:
        """The run on the lattice of half the lengths with which this one starts, or None.

        Raises:
            InvalidInput: there should be one, but not on this lattice or with this potential.
        """
        if self.training.coarse is None:
            return None
        smaller = self.halved()
        if smaller is None:
            raise InvalidInput(
                f"{self.lattice}: training up from half the size (coarse) needs a flow with the lattice potential, on "
                "a uniform torus whose lengths are even and at least 6"
            )
        return replace(smaller, training=self.training.coarse)

    def halved(self) -> Self | None:
        """None too where the flow is not of the lattice potential."""
        lattice = self.lattice.halved()
        if lattice is None or not self.flow.local:
            return None
        return replace(self, lattice=lattice, training=self.training.alone())

    @property
    def domain(self) -> Domain:
        """What the flow is built for."""
        domain = Domain.of_lattice(self.lattice)
        return domain if self.made_for == "magnet" else domain.uneven()

    @property
    def geometry(self) -> Lattice:
        """The magnet's lattice."""
        return self.lattice

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

    def with_flow_of(self, earlier: Run) -> Self:
        """A member of a family in fields starts one that is made for fields as well."""
        return replace(self, made_for=earlier.made_for) if isinstance(earlier, RunConfig) else self

    def new_flow(self, target: Target | None = None) -> Flow:
        """The untrained flow.

        Args:
            target: as from `target`, where it is there already.

        Raises:
            InvalidInput: the architecture is not possible on this lattice, or the target is another one.
        """
        magnet = self.target(target)
        if self.made_for != "magnet":
            magnet = InFields(self.lattice, self.beta, centred=self.made_for == "weak fields")
        return build_flow(magnet, self.flow, **options_of(self))

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
        goal: float | None = None,
    ) -> Self:
        """The configuration of a preset on a lattice.

        Args:
            preset: its name.
            lattice, beta: the magnet.
            flow: kind of flow, "monge-ampere", "ot" or "convex".
            bounds: what training narrows, "upper" or "both", see `TrainingConfig`.
            seed: of the run.
            iterations: of training, if not the preset's own.
            goal: inverse temperature to which evaluations anneal, if not beta itself.

        Raises:
            InvalidInput: unknown flow or preset, iterations below 1, or a goal that is not beyond beta.
        """
        domain = Domain.of_lattice(lattice)
        found = find_preset(MAGNET_PRESETS, flow, preset).on(domain)
        architecture = found.flow.fitted(domain)
        training = shortened(found.training_on(lattice, carried_from(lattice, beta, preset)), iterations)
        return cls(lattice, beta, preset, seed, architecture, training.narrowing(bounds), goal=goal)


def _strongest(lattice: Lattice) -> float:
    """The largest |J| or |H|."""
    field = 0.0 if lattice.field is None else float(np.abs(lattice.field).max())
    if lattice.edges is not None:
        return max(field, float(np.abs(lattice.edges[1]).max()))
    along = [*(lattice.j or ()), *([1.0] if lattice.kind == "triangular" else [])]
    return max(field, *(float(np.abs(np.asarray(strengths)).max()) for strengths in along))
