"""Hamiltonian Monte Carlo on the field itself: f is a linear map B, the same as a mass matrix (B B^T)^-1.

B is diagonal in the target's own basis if it has one; in momenta where the target is translation invariant on a torus;
else site by site. Its spectrum is measured in the warm-up: the geometric mean of Var(x) and 1 / Var(grad E), mode by
mode, which brings the two closest to those of a Gaussian (Seyboldt, Carlson and Carpenter 2024).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from isingflow.flows import SpectralScaling
from isingflow.flows.spectral import FourierBasis, SpectralBasis
from isingflow.sampling.hmc import HamiltonianMonteCarlo, HamiltonianState, Motion, searching_anew
from isingflow.sampling.sampler import SHARED, device_of, shared
from isingflow.targets.base import Target, as_target

PHYSICAL_LENGTH = 2.0
"""Mean length of a trajectory in physical space, in units of a mode's standard deviation: the best of 1, 2, 4 and 8 on
16x16, critical (`benchmarks/hmc.py`)."""
SMALL_SAMPLE = 10
"""Weight of the spectrum known before in that measured, as a number of samples."""


@runtime_checkable
class Spectral(Protocol):
    """A target that is nearly diagonal in a basis of its own, with eigenvalues of the order of the variances there."""

    basis: SpectralBasis
    eigenvalues: Tensor


class SiteBasis(SpectralBasis):
    """The sites themselves: the basis of diagonal matrices, whose values have the shape of a field.

    Example:
        >>> SiteBasis((2,)).multiply(torch.ones(3, 2), torch.tensor([1.0, 2.0]))[0]
        tensor([1., 2.])
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = self.values_shape = tuple(shape)

    def multiply(self, field: Tensor, values: Tensor) -> Tensor:
        return field * values.to(field)

    def power(self, field: Tensor) -> Tensor:
        return field.square()


@dataclass(frozen=True, eq=False)
class SpectralState(HamiltonianState):
    """Where chains in physical space are, and what the warm-up has measured of their spectrum.

    Attributes:
        variances: eigenvalues of B^2.
        power: sums of |x|^2 and |grad E|^2 by mode, since they were last begun anew, shape (2, *values_shape).
        total: sum of x, shape `shape`.
        count: fields in these sums.
    """

    variances: Tensor = dataclasses.field(metadata=SHARED)
    power: Tensor = dataclasses.field(metadata=SHARED)
    total: Tensor = dataclasses.field(metadata=SHARED)
    count: Tensor = dataclasses.field(metadata=SHARED)


@dataclass(frozen=True, eq=False)
class PhysicalHamiltonianMonteCarlo(HamiltonianMonteCarlo[SpectralState]):
    """Trajectories in physical space, with a spectral mass matrix; made by `physical`.

    B is measured over the second eighth of the warm-up, and again over its second quarter; the step size is adapted
    throughout.

    Args:
        basis: in which B is diagonal.
        variances: eigenvalues of B^2 to start from, float64.
    """

    basis: SpectralBasis
    variances: Tensor

    space = "physical"

    def init(self, position: Tensor) -> SpectralState:
        """The chains at given positions z = B^-1 x, shape (n, *shape)."""
        blank = {name: self.variances for name in ("variances", "power", "total", "count")}
        state = SpectralState(**self._unmoved(position).tensors(), **blank)
        return self.at(position, self._measuring_anew(state, self.variances))

    def adapt(self, state: SpectralState, moved: Tensor, done: int, total: int) -> SpectralState:
        """Adapt the mass matrix and the step size."""
        if done == total // 8:
            state = self._measuring_anew(state, state.variances)
        field = state.field.double()
        power = torch.stack([self.basis.power(v).sum(0) for v in (field, self.target.force(field))])
        state = replace(state, power=state.power + power, total=state.total + field.sum(0))
        state = state.having(count=int(state.count) + len(field))
        if done in (total // 4, total // 2):
            variances = self._measured(state)
            state = searching_anew(self._measuring_anew(state, variances))
            return self.at(SpectralScaling(self.basis, variances.sqrt()).inverse(state.field)[0], state)
        return super().adapt(state, moved, done, total)

    def motion(self, state: SpectralState) -> Motion:
        """By all of U, whose gradient is B grad E."""
        scales = state.variances.sqrt()
        transform = SpectralScaling(self.basis, scales)

        def evaluate(position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            field, logdet = transform(position)
            energy, force = self.target.energy_and_force(field.double())
            return field, energy - logdet, position + self.basis.multiply(force, scales).to(position)

        return evaluate

    def _measuring_anew(self, state: SpectralState, variances: Tensor) -> SpectralState:
        """The state with this spectrum, of which nothing is measured yet: it counts as a small sample of its own."""
        power = SMALL_SAMPLE * torch.stack([variances, 1 / variances])
        total = variances.new_zeros(self.shape)
        return replace(state, variances=variances, power=power, total=total, count=shared(0))

    def _measured(self, state: SpectralState) -> Tensor:
        """sqrt(Var(x) / Var(grad E)), mode by mode."""
        field_power, force_power = state.power
        if not self.target.symmetry.flip:  # with it the mean is zero, and one that is measured only noise
            field_power = field_power - self.basis.power(state.total) / max(int(state.count), 1)
        return (self._symmetric(field_power) / self._symmetric(force_power)).sqrt()

    def _symmetric(self, power: Tensor) -> Tensor:
        """Averages over modes that the symmetry makes equal, for less noise."""
        symmetry = self.target.symmetry
        if isinstance(self.basis, SiteBasis):
            labels = symmetry.orbits()
        elif isinstance(self.basis, FourierBasis) and symmetry.translations:
            labels = symmetry.momentum_orbits()
        else:
            return power
        orbits = torch.from_numpy(labels).flatten()
        totals = torch.bincount(orbits, power.flatten().cpu())
        return (totals / torch.bincount(orbits))[orbits].view(power.shape).to(power)


def physical(target: Target, **options: Any) -> PhysicalHamiltonianMonteCarlo:
    """Hamiltonian Monte Carlo on the field itself, with a spectral mass matrix adapted in the warm-up.

    Args:
        target: E; its force is asked for at every step.
        options: of `HamiltonianMonteCarlo`; the length is that of the best trajectories at criticality if not given.

    Example:
        >>> class Wells(Target):
        ...     shape = (2,)
        ...
        ...     def energy(self, field):
        ...         return (field**2 - 1).square().sum(-1)
        >>> type(physical(Wells()).basis).__name__
        'SiteBasis'
    """
    target = as_target(target)
    basis: SpectralBasis
    if isinstance(target, Spectral):
        basis, variances = target.basis, target.eigenvalues
    else:
        shape = tuple(target.shape)
        basis = FourierBasis(shape) if target.symmetry.translations and len(shape) == 2 else SiteBasis(shape)
        variances = torch.ones(basis.values_shape, dtype=torch.float64, device=device_of(target))
    return PhysicalHamiltonianMonteCarlo(target, basis, variances, **{"length": PHYSICAL_LENGTH} | options)
