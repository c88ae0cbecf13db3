"""Flows for a given magnet or for given data: the one place where the flows meet what they are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isingflow.config import AnyRunConfig, DensityConfig, FlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import (
    Flow,
    GaussianWhitening,
    GradientFlow,
    HistogramMarginals,
    Logit,
    SpectralScaling,
    Transform,
)
from isingflow.hubbard_stratonovich import HubbardStratonovich
from isingflow.potentials import DensePotential, LatticePotential, Potential, group_average
from isingflow.symmetry import require

if TYPE_CHECKING:
    from isingflow.datasets import Split

STARTS = ("gaussian", "copula", "normal")
"""What a flow of data can start from."""
LEVELS = 256
"""Bins of the marginals of a copula: one a grey level."""
FIT_BATCH = 5000


def build_flow(
    target: HubbardStratonovich, config: FlowConfig, *, seed: int, jitter: float = 0.0, recompute: bool = False
) -> Flow:
    """A Monge-Ampere flow for a continuous Ising density, in float32 on the CPU.

    Whitened: noise -> best Gaussian (mean field) -> gradient flow of y -> x = A^1/2 y. Otherwise the gradient flow acts
    on x, from a standard normal.

    Raises:
        InvalidInput: the configuration is not possible for this lattice.
        SymmetryMismatch: the potential claims more symmetry than the target has.
    """
    generator = torch.Generator().manual_seed(seed)
    mean_field = target.mean_field() if config.whitened else None
    potential = _potential(target, config, None if mean_field is None else mean_field.variances, generator)
    require(potential.symmetry, target.symmetry)
    gradient = GradientFlow(
        potential,
        time=config.time,
        steps=config.steps,
        tableau=config.tableau,
        jitter=jitter,
        recompute=recompute,
    )
    if mean_field is None:
        return Flow(target.shape, [gradient])
    gaussian = SpectralScaling(mean_field.basis, mean_field.variances.sqrt())
    unwhiten = SpectralScaling(target.basis, target.eigenvalues.sqrt())
    return Flow(target.shape, [gaussian, gradient, unwhiten])


def _potential(
    target: HubbardStratonovich, config: FlowConfig, variances: torch.Tensor | None, generator: torch.Generator
) -> Potential:
    if config.potential == "lattice":
        if not target.lattice.translation_invariant:
            raise InvalidInput(f"the lattice potential needs translation invariance; this lattice has none: {target}")
        return LatticePotential(
            target.symmetry,
            radial=config.radial,
            oriented=config.oriented,
            hidden=config.hidden,
            time_terms=config.time_terms,
            variances=variances,
            generator=generator,
        )
    if config.potential != "dense":
        raise InvalidInput(f"potential {config.potential!r}: expected lattice or dense")
    dense = DensePotential(target.shape, config.hidden, generator=generator)
    if config.average == "none":
        return dense
    return group_average(dense, target.symmetry, config.average, slots=config.steps, generator=generator)


def gradient_flow(flow: Flow) -> GradientFlow:
    """The one gradient flow inside a flow that `build_flow` made."""
    return next(transform for transform in flow.transforms if isinstance(transform, GradientFlow))


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
    potential = _data_potential(config, generator)
    integration = {"time": flow.time, "steps": flow.steps, "tableau": flow.tableau}
    return [GradientFlow(potential, **integration, jitter=training.jitter, recompute=training.recompute)]


def _data_potential(config: DensityConfig, generator: torch.Generator) -> Potential:
    shape, flow = (config.dimension,), config.flow
    directions = torch.randn(flow.hidden, config.dimension, generator=generator)
    directions *= flow.steepness / directions.norm(dim=1, keepdim=True)
    return DensePotential(
        shape,
        flow.hidden,
        activation="softplus",
        time_terms=flow.time_terms,
        directions=directions,
        generator=generator,
    )


def new_flow(config: AnyRunConfig) -> Flow:
    """The untrained flow of a run, to load a checkpoint into."""
    if isinstance(config, DensityConfig):
        return build_density_flow(config)
    return build_flow(HubbardStratonovich(config.lattice, config.beta), config.flow, seed=config.seed)
