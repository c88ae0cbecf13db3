"""What defines a run: a magnet, data or a user's own target, the flow, its training and the seed; to and from JSON."""

from __future__ import annotations

from typing import Any

from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.cp_image import ConvexImageFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.runs.base import FORMAT, entries_of
from isingflow.runs.density import DensityConfig
from isingflow.runs.family import FamilyConfig
from isingflow.runs.magnet import RunConfig
from isingflow.runs.presets import (
    PRESETS,
)
from isingflow.runs.settings import TrainingConfig
from isingflow.runs.target import TargetConfig
from isingflow.runtime.differences import differences
from isingflow.runtime.settings import read

__all__ = [
    "FORMAT",
    "PRESETS",
    "AnyRunConfig",
    "ConvexFlowConfig",
    "ConvexImageFlowConfig",
    "DensityConfig",
    "FamilyConfig",
    "FlowConfig",
    "OTFlowConfig",
    "RunConfig",
    "TargetConfig",
    "TrainingConfig",
    "by_hand",
    "config_from_dict",
    "differences",
    "heading",
]


AnyRunConfig = RunConfig | FamilyConfig | DensityConfig | TargetConfig


def heading(config: AnyRunConfig) -> str:
    """What a run is on, its flow, preset, settings by hand and seed: the heading of its tables and figures.

    Example:
        >>> from isingflow.lattice import square
        >>> heading(RunConfig.from_preset("quick", square(8), 0.5))
        '2D Ising, periodic 8x8, beta = 0.500000, T = 2; Monge-Ampère flow, preset quick, seed 0'
    """
    return f"{config.title()}; {config.flow.title}, preset {config.preset}{by_hand(config)}, seed {config.seed}"


def by_hand(config: AnyRunConfig) -> str:
    """What of a run is not the preset's own, to follow its name: ", flow.width = 64"; empty if nothing is."""
    return "".join(f", {name} = {value}" for name, value in config.settings.items())


def config_from_dict(data: Any) -> AnyRunConfig:
    """The configuration, of any kind of run, that `to_dict` described, also one of version 0.1.

    Raises:
        InvalidInput: the data do not describe a run, or were written by a newer version.
    """
    return read(entries_of(data), AnyRunConfig, "a run")
