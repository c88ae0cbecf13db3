"""What defines a run: a magnet, data or a user's own target, the flow, its training and the seed; to and from JSON."""

from __future__ import annotations

from typing import Any

from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.runs.base import FORMAT, entries_of
from isingflow.runs.density import DensityConfig
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
    "DensityConfig",
    "FlowConfig",
    "OTFlowConfig",
    "RunConfig",
    "TargetConfig",
    "TrainingConfig",
    "config_from_dict",
    "differences",
]


AnyRunConfig = RunConfig | DensityConfig | TargetConfig


def config_from_dict(data: Any) -> AnyRunConfig:
    """The configuration, of any kind of run, that `to_dict` described, also one of version 0.1.

    Raises:
        InvalidInput: the data do not describe a run, or were written by a newer version.
    """
    return read(entries_of(data), AnyRunConfig, "a run")
