"""Flows for given data: what is fitted to them in closed form, and what is trained on top."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isingflow.architectures.cp_flow import INVERSE_TOLERANCE, ConvexFlowConfig, log_determinant
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.architectures.start import blank_start, fitted_start
from isingflow.errors import InvalidInput
from isingflow.flows import (
    ActNorm,
    ConvexFlow,
    Flow,
    GaussianWhitening,
    GradientFlow,
    HistogramMarginals,
    Inverted,
    Logit,
    Transform,
)
from isingflow.potentials import ConvexPotential, DensePotential, ImagePotential, Potential, ResidualPotential
from isingflow.runs.config import DensityConfig

if TYPE_CHECKING:
    from isingflow.datasets import Dataset


def build_density_flow(config: DensityConfig, data: Dataset | None = None) -> Flow:
    """A flow for data, in float32 on the CPU: noise -> trained flow -> what is fitted to the data in closed form.

    Args:
        config: of the run.
        data: what is fitted to; without it, the flow is one to load a checkpoint into.

    Raises:
        InvalidInput: the configuration is not possible.
    """
    generator = torch.Generator().manual_seed(config.seed)
    trained = _trained_transforms(config, generator)
    if data is None:
        start = blank_start(config.start, config.dimension, config.levels)
    else:
        start = fitted_start(data, config.start, torch.Generator().manual_seed(config.seed))
    return Flow((config.dimension,), [*trained, *start])


def fitted_part(flow: Flow) -> Flow:
    """The flow without what is trained: where the training of a flow for data started."""
    fitted = (GaussianWhitening, HistogramMarginals, Logit)
    return Flow(flow.shape, [transform for transform in flow.transforms if isinstance(transform, fitted)]).to(
        flow.device
    )


def _trained_transforms(config: DensityConfig, generator: torch.Generator) -> list[Transform]:
    """The trained part of a flow for data, acting on coordinates of unit variance."""
    flow, training = config.flow, config.training
    if isinstance(flow, ConvexFlowConfig):
        return _convex_maps(config, generator)
    potential = _POTENTIALS[flow.kind](config, generator)
    options = {"time": flow.time, "steps": flow.steps, "tableau": flow.tableau}
    return [GradientFlow(potential, **options, jitter=training.jitter, recompute=training.recompute)]


def _convex_maps(config: DensityConfig, generator: torch.Generator) -> list[Transform]:
    """Convex maps from data to noise, run backwards, each behind its activation normalisation."""
    shape, flow = (config.dimension,), config.flow
    maps: list[Transform] = []
    for _ in range(flow.blocks):
        potential = ConvexPotential(
            shape,
            width=flow.width,
            layers=flow.layers,
            augmented=flow.augmented,
            activation=flow.activation,
            generator=generator,
        )
        convex = ConvexFlow(potential, logdet=log_determinant(flow), tolerance=INVERSE_TOLERANCE)
        maps += [Inverted(convex), ActNorm(shape)]
    return maps


def _monge_ampere(config: DensityConfig, generator: torch.Generator) -> Potential:
    flow, dimension = config.flow, config.dimension
    if flow.potential == "image":
        if not config.image_width:
            raise InvalidInput(f"the image potential needs images; {config} are none")
        return ImagePotential(
            (dimension // config.image_width, config.image_width),
            features=flow.hidden,
            time_terms=flow.time_terms,
            steepness=flow.steepness,
            generator=generator,
        )
    if flow.potential != "dense":
        raise InvalidInput(f"potential {flow.potential!r}: expected dense or image")
    return DensePotential(
        (dimension,),
        flow.hidden,
        activation="softplus",
        time_terms=flow.time_terms,
        directions=_directions(flow.hidden, dimension, flow.steepness, generator),
        generator=generator,
    )


def _residual(config: DensityConfig, generator: torch.Generator) -> Potential:
    flow = config.flow
    return ResidualPotential(
        (config.dimension,),
        width=flow.width,
        layers=flow.layers,
        rank=flow.rank,
        directions=_directions(flow.width, config.dimension, flow.steepness, generator),
        generator=generator,
    )


def _directions(count: int, dimension: int, length: float, generator: torch.Generator) -> Tensor:
    """Random directions of hidden units, all of one length, shape (count, dimension)."""
    directions = torch.randn(count, dimension, generator=generator)
    return length * directions / directions.norm(dim=1, keepdim=True)


_POTENTIALS = {FlowConfig.kind: _monge_ampere, OTFlowConfig.kind: _residual}
"""What builds the potential of a gradient flow, by its kind."""
