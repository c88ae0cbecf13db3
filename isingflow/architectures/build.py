"""Flows for a given magnet: the one place where the flows meet the physics."""

from __future__ import annotations

import torch
from torch import Tensor

from isingflow.architectures.cp_flow import INVERSE_TOLERANCE, ConvexFlowConfig, log_determinant
from isingflow.architectures.kinds import AnyFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.errors import InvalidInput
from isingflow.flows import ActNorm, ConvexFlow, Flow, GradientFlow, Transform
from isingflow.lattice.symmetry import require
from isingflow.potentials import (
    ConvexPotential,
    DensePotential,
    LatticeConvexPotential,
    LatticePotential,
    LatticeResidualPotential,
    Potential,
    ResidualPotential,
    group_average,
)
from isingflow.targets.base import Start
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


def build_flow(
    target: HubbardStratonovich, config: AnyFlowConfig, *, seed: int, jitter: float = 0.0, recompute: bool = False
) -> Flow:
    """A flow for a continuous Ising density, in float32 on the CPU.

    Whitened: noise -> best Gaussian (mean field) -> trained maps of y -> x = A^1/2 y. Otherwise the trained maps act on
    x, from a standard normal.

    Args:
        target: the density.
        config: architecture, of any kind of flow.
        seed: of the initial parameters.
        jitter, recompute: of gradient flows.

    Raises:
        InvalidInput: the configuration is not possible for this lattice.
        SymmetryMismatch: a potential claims more symmetry than the target has.
    """
    generator = torch.Generator().manual_seed(seed)
    start = target.start() if config.whitened else Start()
    variances = start.variances
    if isinstance(config, ConvexFlowConfig):
        trained = _convex_maps(target, config, variances, generator)
    else:
        potential = _POTENTIALS[config.kind](target, config, variances, generator)
        require(potential.symmetry, target.symmetry)
        options = {"time": config.time, "steps": config.steps, "tableau": config.tableau}
        trained = [GradientFlow(potential, **options, jitter=jitter, recompute=recompute)]
    return Flow(target.shape, [*start.latent, *trained, *start.field])


def _monge_ampere(
    target: HubbardStratonovich, config: FlowConfig, variances: Tensor | None, generator: torch.Generator
) -> Potential:
    if config.potential == "lattice":
        if not target.symmetry.translations:
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


def _residual(
    target: HubbardStratonovich, config: OTFlowConfig, variances: Tensor | None, generator: torch.Generator
) -> Potential:
    if target.symmetry.translations and config.radial + config.oriented:
        return LatticeResidualPotential(
            target.symmetry,
            radial=config.radial,
            oriented=config.oriented,
            width=config.width,
            layers=config.layers,
            time_terms=config.time_terms,
            variances=variances,
            generator=generator,
        )
    return ResidualPotential(
        target.shape, width=config.width, layers=config.layers, rank=config.rank, generator=generator
    )


def _convex_maps(
    target: HubbardStratonovich, config: ConvexFlowConfig, variances: Tensor | None, generator: torch.Generator
) -> list[Transform]:
    """Convex maps, each behind a common scale: what keeps the symmetry of fields on a lattice."""
    maps: list[Transform] = []
    for _ in range(config.blocks):
        if target.symmetry.translations and config.radial + config.oriented:
            potential = LatticeConvexPotential(
                target.symmetry,
                radial=config.radial,
                oriented=config.oriented,
                width=config.width,
                layers=config.layers,
                augmented=config.augmented,
                activation=config.activation,
                variances=variances,
                generator=generator,
            )
        else:
            potential = ConvexPotential(
                target.shape,
                width=config.width,
                layers=config.layers,
                augmented=config.augmented,
                activation=config.activation,
                generator=generator,
            )
        require(potential.symmetry, target.symmetry)
        convex = ConvexFlow(potential, logdet=log_determinant(config), tolerance=INVERSE_TOLERANCE)
        maps += [ActNorm(target.shape, common=True), convex]
    return maps


_POTENTIALS = {FlowConfig.kind: _monge_ampere, OTFlowConfig.kind: _residual}
"""What builds the potential of a gradient flow, by its kind."""


def gradient_flow(flow: Flow) -> GradientFlow:
    """The one gradient flow inside a flow that `build_flow` made."""
    return next(transform for transform in flow.transforms if isinstance(transform, GradientFlow))
