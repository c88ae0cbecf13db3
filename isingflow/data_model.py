"""Flows for given data: what is fitted to them in closed form, and what is trained on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isingflow.config import DensityConfig
from isingflow.errors import InvalidInput
from isingflow.flows import Flow, GaussianWhitening, GradientFlow, HistogramMarginals, Logit, Transform
from isingflow.potentials import DensePotential, Potential, ResidualPotential
from isingflow.settings import FlowConfig, OTFlowConfig

if TYPE_CHECKING:
    from isingflow.datasets import Split

STARTS = ("gaussian", "copula", "normal")
"""What a flow of data can start from."""
LEVELS = 256
"""Bins of the marginals of a copula: one a grey level."""
FIT_BATCH = 5000


def build_density_flow(config: DensityConfig, train: Split | None = None) -> Flow:
    """A flow for data, in float32 on the CPU: noise -> trained flow -> what is fitted to the data in closed form.

    Args:
        config: of the run.
        train: what is fitted to; without it, the flow is one to load a checkpoint into.

    Raises:
        InvalidInput: the configuration is not possible.
    """
    generator = torch.Generator().manual_seed(config.seed)
    trained = _data_transforms(config, generator)
    return Flow((config.dimension,), [*trained, *fitted_transforms(config.start, config.dimension, train)])


def fitted_transforms(start: str, dimension: int, train: Split | None) -> list[Transform]:
    """The maps, from the base to model space, that are fitted to data: a Gaussian, or a Gaussian copula of grey levels.

    Args:
        start: "gaussian", "copula" or "normal" (none).
        dimension: d.
        train: the data; without it, placeholders to load a checkpoint into.

    Raises:
        InvalidInput: unknown start.
    """
    if start not in STARTS:
        raise InvalidInput(f"start {start!r}: expected one of {', '.join(STARTS)}")
    if start == "normal":
        return []
    outer: list[Transform] = []
    if start == "copula":
        logit = Logit()
        outer = [HistogramMarginals(torch.full((dimension, LEVELS), 1 / LEVELS)), logit]
        if train is not None:
            outer[0] = HistogramMarginals.fit((logit.inverse(x)[0] for x in _all(train)), bins=LEVELS)
    if train is None:
        gaussian = GaussianWhitening(torch.zeros(dimension), torch.eye(dimension))
    else:
        gaussian = GaussianWhitening.fit(_pulled(x, outer) for x in _all(train))
    return [gaussian, *outer]


def fitted_part(flow: Flow) -> Flow:
    """The flow without what is trained: where the training of a flow for data started."""
    fitted = (GaussianWhitening, HistogramMarginals, Logit)
    return Flow(flow.shape, [transform for transform in flow.transforms if isinstance(transform, fitted)]).to(
        flow.device
    )


def _all(train: Split) -> Iterator[Tensor]:
    return train.batches(FIT_BATCH, torch.Generator().manual_seed(0))


def _pulled(x: Tensor, transforms: Sequence[Transform]) -> Tensor:
    for transform in reversed(transforms):
        x = transform.inverse(x)[0]
    return x


def _data_transforms(config: DensityConfig, generator: torch.Generator) -> list[Transform]:
    """The trained part of a flow for data, acting on coordinates of unit variance."""
    flow, training = config.flow, config.training
    potential = _POTENTIALS[flow.kind](config.dimension, flow, generator)
    return [
        GradientFlow(
            potential,
            time=flow.time,
            steps=flow.steps,
            tableau=flow.tableau,
            jitter=training.jitter,
            recompute=training.recompute,
        )
    ]


def _monge_ampere(dimension: int, config: FlowConfig, generator: torch.Generator) -> Potential:
    directions = torch.randn(config.hidden, dimension, generator=generator)
    return DensePotential(
        (dimension,),
        config.hidden,
        activation="softplus",
        time_terms=config.time_terms,
        directions=config.steepness * directions / directions.norm(dim=1, keepdim=True),
        generator=generator,
    )


def _residual(dimension: int, config: OTFlowConfig, generator: torch.Generator) -> Potential:
    return ResidualPotential(
        (dimension,), width=config.width, layers=config.layers, rank=config.rank, generator=generator
    )


_POTENTIALS = {FlowConfig.kind: _monge_ampere, OTFlowConfig.kind: _residual}
"""What builds the potential of a gradient flow, by its kind."""
