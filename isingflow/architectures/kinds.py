"""Every kind of flow."""

from __future__ import annotations

from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig

AnyFlowConfig = FlowConfig | OTFlowConfig | ConvexFlowConfig

FLOWS: dict[str, type[AnyFlowConfig]] = {cls.kind: cls for cls in (FlowConfig, OTFlowConfig, ConvexFlowConfig)}
"""Settings by kind of flow."""
