"""Flows for a target or for data: what starts them in closed form, and the maps of an architecture in between.

target    noise -> latent maps -> trained maps -> field maps -> x, or latent maps -> field maps -> trained maps
data      noise -> trained maps -> what is fitted in closed form -> x
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from isingflow.architectures.base import Architecture, Domain
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.cp_image import ConvexImageFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.architectures.own import OwnFlow
from isingflow.architectures.start import kept
from isingflow.flows import Flow, Transform, Viewed
from isingflow.runtime.fields import usual_defaults
from isingflow.targets.base import Start, Target

AnyFlowConfig = FlowConfig | OTFlowConfig | ConvexFlowConfig | ConvexImageFlowConfig | OwnFlow

SCALE_SAMPLES = 4096

FLOWS: dict[str, type[AnyFlowConfig]] = {cls.kind: cls for cls in (FlowConfig, OTFlowConfig, ConvexFlowConfig)}
"""Settings by kind of flow, of those that build themselves on any domain; `ConvexImageFlowConfig` needs images."""


def build_flow(
    target: Target,
    architecture: Architecture,
    *,
    seed: int,
    jitter: float = 0.0,
    recompute: bool = False,
    keep_start: bool = False,
) -> Flow:
    """A flow for an unnormalised density, in float32 on the CPU.

    Whitened: noise -> what the target knows in closed form, for magnets the best Gaussian -> trained maps of its
    coordinates. Otherwise the trained maps act on x, from a standard normal.

    Args:
        target: the density.
        architecture: of any kind of flow.
        seed: of the initial parameters.
        jitter, recompute: of gradient flows.
        keep_start: whether the tensors of the target's start are part of the flow's state, so that a checkpoint can be
            loaded without the target.

    Raises:
        InvalidInput: the architecture is not possible for this target.
        SymmetryMismatch: a potential claims more symmetry than the target has.
    """
    start = target.start() if architecture.whitened else Start()
    if keep_start:
        start = start._replace(latent=kept(start.latent), field=kept(start.field))
    domain = Domain.of_target(target, start.variances)
    return build_between(start, domain, architecture, seed=seed, jitter=jitter, recompute=recompute)


def build_between(
    start: Start,
    domain: Domain,
    architecture: Architecture,
    *,
    seed: int,
    jitter: float = 0.0,
    recompute: bool = False,
) -> Flow:
    """A flow whose trained maps stand between the maps of a start, or after them; arguments as in `build_flow`."""
    generator = torch.Generator().manual_seed(seed)
    plane = domain.plane
    with usual_defaults():
        if architecture.last:
            before: Sequence[Transform] = [*start.latent, *start.field]
            after: Sequence[Transform] = []
            plane = replace(plane, scales=_scales(Flow(domain.shape, before)), metric=start.metric)
        else:
            before, after = start.latent, start.field
        trained = architecture.build(plane, generator, jitter=jitter, recompute=recompute)
        if plane.shape != domain.shape:
            trained = [Viewed(transform, domain.shape, plane.shape) for transform in trained]
        return Flow(domain.shape, [*before, *trained, *after])


def _scales(start: Flow) -> Tensor:
    """How large the fields are that a flow starts from, by site; ones where they have not been loaded yet."""
    x, _ = start.sample(SCALE_SAMPLES, generator=torch.Generator().manual_seed(0))
    sizes = x.flatten(1).square().mean(0).sqrt()
    return torch.where(sizes.isfinite() & (sizes > 0), sizes, 1.0)


def build_density_flow(
    domain: Domain,
    architecture: Architecture,
    fitted: Sequence[Transform],
    *,
    seed: int,
    jitter: float = 0.0,
    recompute: bool = False,
) -> Flow:
    """A flow for data, in float32 on the CPU: noise -> trained maps -> what is fitted to the data in closed form.

    Args:
        domain: of the data, `Domain.of_data`.
        architecture: of any kind of flow.
        fitted: as from `start.fitted_start`; `start.blank_start` to load a checkpoint into.
        seed: of the initial parameters.
        jitter, recompute: of gradient flows.

    Raises:
        InvalidInput: the architecture is not possible for these data.
    """
    return build_between(Start(field=fitted), domain, architecture, seed=seed, jitter=jitter, recompute=recompute)
