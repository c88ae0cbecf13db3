"""Flows for a given magnet or for given data: the one place where the flows meet what they are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from isingflow.config import DensityConfig, FlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import Flow, GradientFlow, SpectralScaling
from isingflow.hubbard_stratonovich import HubbardStratonovich
from isingflow.potentials import DensePotential, LatticePotential, Potential, group_average
from isingflow.symmetry import require

if TYPE_CHECKING:
    from isingflow.datasets import Split


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
    """A flow for data, in float32 on the CPU: noise -> gradient flow -> best Gaussian of the training data.

    Args:
        config: of the run.
        train: what the Gaussian is fitted to; without it, the flow is one to load a checkpoint into.

    Raises:
        InvalidInput: the configuration is not possible.
    """
    raise NotImplementedError
