"""How a run is set up: the flow, its training, and the presets, as plain frozen data that goes to and from JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice

LONGEST_SHOWN = 60
"""Characters of an entry that an error message shows; the bonds of a graph have more."""


@dataclass(frozen=True)
class FlowConfig:
    """Architecture of a Monge-Ampere flow.

    Attributes:
        potential: "lattice" (exactly symmetric; needs translation invariance) or "dense" (one hidden layer, ln cosh).
        hidden: number of hidden units.
        radial, oriented, time_terms: lattice potential only, see `potentials.LatticePotential`.
        average: dense potential only: "none", "exact" or "sampled" average over the target's symmetry group.
        whitened: whether the flow acts on y = A^-1/2 x from the best Gaussian; else on x from a standard normal.
        time, steps, tableau: of the integration.
    """

    potential: str = "lattice"
    hidden: int = 32
    radial: int = 6
    oriented: int = 3
    time_terms: int = 4
    average: str = "none"
    whitened: bool = True
    time: float = 1.0
    steps: int = 8
    tableau: str = "rk4"


@dataclass(frozen=True)
class TrainingConfig:
    """How a flow is trained.

    Attributes:
        iterations: number of optimiser steps.
        batch: samples per step.
        learning_rate: peak of the one-cycle schedule, or the constant rate.
        schedule: "one-cycle" or "constant".
        weight_decay, beta2, clip: of Adam (L2 form) and of the gradient's norm, for the loss of the whole lattice;
            clip 0 for none.
        jitter: relative half-width of random integration step lengths during training, 0 for a fixed grid.
        adapt_steps: whether training adds and removes integration steps to hold the error near its tolerance.
        transport_cost: weight of the penalty int |dx/dt|^2 / 2 dt.
        hjb: weight of the penalty int |d phi/dt + |grad phi|^2 / 2| dt; needs a potential with a derivative by time.
        force_matching: weight of the penalty |grad ln p + grad E|^2 / N.
        tolerance: largest certified integration error, in nats, of the final flow.
        check_every: iterations between measurements of the integration error.
        evaluation_samples: samples of the report at the end.
        recompute: trade time for memory in backpropagation, see `flows.GradientFlow`.
    """

    iterations: int = 400
    batch: int = 32
    learning_rate: float = 1e-2
    schedule: str = "one-cycle"
    weight_decay: float = 0.0
    beta2: float = 0.99
    clip: float = 10.0
    jitter: float = 0.3
    adapt_steps: bool = True
    transport_cost: float = 0.0
    hjb: float = 0.0
    force_matching: float = 0.0
    tolerance: float = 0.01
    check_every: int = 25
    evaluation_samples: int = 16384
    recompute: bool = False


@dataclass(frozen=True)
class Preset:
    """A named pair of architecture and training."""

    flow: FlowConfig
    training: TrainingConfig


PRESETS = {
    "quick": Preset(
        FlowConfig(steps=6),
        TrainingConfig(iterations=340, batch=32, learning_rate=6e-3, evaluation_samples=4096),
    ),
    "accurate": Preset(
        FlowConfig(radial=6, oriented=4, steps=6),
        TrainingConfig(iterations=1800, batch=48, learning_rate=5e-3),
    ),
    "paper": Preset(
        FlowConfig(
            potential="dense", hidden=512, average="sampled", whitened=False, time=5.0, steps=50, radial=0, oriented=0
        ),
        TrainingConfig(
            iterations=2000,
            batch=64,
            learning_rate=1e-3,
            schedule="constant",
            weight_decay=1e-3,
            beta2=0.999,
            clip=0.0,
            jitter=0.0,
            adapt_steps=False,
        ),
    ),
}


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines a run: physics, architecture, training and seed.

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
    flow: FlowConfig = field(default_factory=FlowConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    @classmethod
    def from_preset(
        cls, preset: str, lattice: Lattice, beta: float, *, seed: int = 0, iterations: int | None = None
    ) -> RunConfig:
        """The configuration of a preset.

        Lattices without translation invariance get the dense potential in place of the convolutional one, averaged over
        their point group where they have one.

        Raises:
            InvalidInput: unknown preset, or iterations below 1.
        """
        if preset not in PRESETS:
            raise InvalidInput(f"preset {preset!r}: expected one of {', '.join(PRESETS)}")
        if iterations is not None and iterations < 1:
            raise InvalidInput(f"{iterations} steps: expected at least 1")
        flow, training = PRESETS[preset].flow, PRESETS[preset].training
        if flow.potential == "lattice" and not lattice.translation_invariant:
            average = "exact" if len(lattice.symmetry.point) > 1 else "none"
            flow = replace(flow, potential="dense", hidden=2 * lattice.sites, radial=0, oriented=0, average=average)
        if iterations is not None:
            training = replace(training, iterations=iterations)
        return cls(lattice, beta, preset, seed, flow, training)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form, from which `from_dict` builds an equal configuration."""
        return {
            "lattice": self.lattice.to_dict(),
            "beta": self.beta,
            "preset": self.preset,
            "seed": self.seed,
            "flow": asdict(self.flow),
            "training": asdict(self.training),
        }

    @classmethod
    def from_dict(cls, data: Any) -> RunConfig:
        """The configuration that `to_dict` described.

        Raises:
            InvalidInput: the data do not describe a run.
        """
        _check_entries("a run", data, cls)
        beta, seed, preset = data["beta"], data["seed"], data["preset"]
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not math.isfinite(beta):
            raise InvalidInput(f"not a run: beta is {beta!r}, expected a finite number")
        if type(seed) is not int or not isinstance(preset, str):
            raise InvalidInput(f"not a run: seed is {seed!r}, preset {preset!r}; expected an integer and a name")
        return cls(
            Lattice.from_dict(data["lattice"]),
            float(beta),
            preset,
            seed,
            _build(FlowConfig, "a flow", data["flow"]),
            _build(TrainingConfig, "a training", data["training"]),
        )

    def differences(self, other: RunConfig) -> list[str]:
        """What differs between two configurations, as "flow.hidden: 32 here, 48 there"."""
        here, there = _flatten(self.to_dict()), _flatten(other.to_dict())
        names = [name for name in here | there if here.get(name) != there.get(name)]
        return [f"{name}: {_shown(here, name)} here, {_shown(there, name)} there" for name in names]


def _shown(flat: dict[str, Any], name: str) -> str:
    """An entry in words that fit on a line."""
    text = str(flat.get(name, "absent"))
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _check_entries(what: str, data: Any, cls: type) -> None:
    expected = {f.name for f in fields(cls)}
    if not isinstance(data, dict) or set(data) != expected:
        raise InvalidInput(f"not {what}: expected the entries {', '.join(sorted(expected))}")


def _build(cls: type, what: str, data: Any) -> Any:
    _check_entries(what, data, cls)
    for f in fields(cls):
        kinds = (int, float) if f.type == "float" else {"int": (int,), "str": (str,), "bool": (bool,)}[f.type]
        if not isinstance(data[f.name], kinds) or isinstance(data[f.name], bool) != (f.type == "bool"):
            raise InvalidInput(f"not {what}: {f.name} is {data[f.name]!r}, expected {f.type}")
    return cls(**data)


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
