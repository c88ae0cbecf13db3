"""Hamiltonian Monte Carlo on many chains at once, in the latent space of a flow or in physical space.

The field is x = f(z), and z follows exp(-U(z)) with

    U(z) = E(f(z)) - ln |det df/dz|,    H(z, p) = U(z) + |p|^2 / 2,    dz/dt = p,    dp/dt = -grad U,

integrated by the leapfrog, with an accept-reject step that makes it exact (Duane et al. 1987; Neal 2011). In latent
space f is the flow: where it is good, U is close to |z|^2 / 2 and a quarter of a period forgets the past. In physical
space f is a linear map B, which is the same as a mass matrix (B B^T)^-1: its spectrum is measured during the warm-up,
so that every mode of the field has unit variance in z. Chains share the step size, found by dual averaging (Hoffman and
Gelman 2014), and the lengths of their trajectories, which are random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows import Flow, SpectralScaling
from isingflow.hubbard_stratonovich import HubbardStratonovich
from isingflow.parallel import Workers
from isingflow.sampling.chains import Sampler, State

Map = Callable[[Tensor], tuple[Tensor, Tensor]]
"""z -> x = f(z) and ln |det df/dz|, shape (n,)."""

TRAJECTORY = math.pi / 2
"""Mean length of a trajectory: a quarter of a unit oscillator's period, after which it has forgotten its start."""
LENGTH_JITTER = 0.4
DIVERGENCE = 1000.0
"""Energy error, in units of k_B T, from which a trajectory counts as divergent."""


@dataclass(frozen=True)
class PhasePoint(State):
    """Where a set of chains is, with what the leapfrog needs there.

    Attributes:
        energy: U(z), float64, shape (n,).
        gradient: grad U, shape (n, *shape).
    """

    energy: Tensor
    gradient: Tensor


class DualAveraging:
    """The step size at which trajectories are accepted with a given mean probability (Hoffman and Gelman 2014).

    Example:
        >>> adaptation = DualAveraging(0.1, target=0.8)
        >>> for _ in range(500):
        ...     step_size = adaptation.update(math.exp(-adaptation.step_size))
        >>> abs(math.exp(-adaptation.final) - 0.8) < 0.01
        True
    """

    def __init__(self, step_size: float, *, target: float) -> None:
        self.target = target
        self.step_size = step_size
        self._shift = math.log(10 * step_size)
        self._error = 0.0
        self._log_final = math.log(step_size)
        self._count = 0

    @property
    def final(self) -> float:
        """The averaged step size, to keep when adaptation ends."""
        return math.exp(self._log_final)

    def update(self, acceptance: float) -> float:
        """The next step size to try after a trajectory of this mean acceptance probability."""
        self._count += 1
        n = self._count
        self._error += (self.target - acceptance - self._error) / (n + 10)
        log_step = self._shift - math.sqrt(n) / 0.05 * self._error
        self._log_final += n**-0.75 * (log_step - self._log_final)
        self.step_size = math.exp(log_step)
        return self.step_size


class HamiltonianMonteCarlo(Sampler):
    """Hamiltonian Monte Carlo on the density exp(-E(x)) through x = f(z).

    Args:
        transform: f, with its log-determinant; float32 or float64.
        target: E.
        length: mean length of a trajectory, in the units of z.
        acceptance: mean acceptance probability that the step size is adapted to.
        pool: threads to share the chains.
        dtype: of z.

    Attributes:
        step_size: of the leapfrog.
        gradients: evaluations of grad U so far, summed over chains.
        divergences: trajectories whose energy error exceeded 1000, after the warm-up.

    Example:
        >>> from isingflow.lattice import square
        >>> target = HubbardStratonovich(square(4), beta=0.3)
        >>> sampler = physical(target)
        >>> generator = torch.Generator().manual_seed(0)
        >>> state = sampler.start(torch.randn(8, 4, 4, generator=generator))
        >>> state, acceptance = sampler.step(sampler.warm_up(state, 50, generator), generator)
        >>> state.field.shape, bool((acceptance <= 1).all())
        (torch.Size([8, 4, 4]), True)
    """

    def __init__(
        self,
        transform: Map,
        target: HubbardStratonovich,
        *,
        length: float = TRAJECTORY,
        acceptance: float = 0.85,
        pool: Workers | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not (0 < length < math.inf and 0 < acceptance < 1):
            raise InvalidInput(f"length {length}, acceptance {acceptance}: expected a positive length, a probability")
        self.transform = transform
        self.target = target
        self.shape = target.shape
        self.dtype = dtype
        self.length = length
        self.acceptance = acceptance
        self.pool = pool or Workers(1)
        self.step_size = 0.1
        self.gradients = 0
        self.divergences = 0

    def start(self, position: Tensor) -> PhasePoint:
        """The chains at given positions z, shape (n, *shape)."""
        shares = self.pool.map(self._evaluate, position.to(self.dtype))
        self.gradients += len(position)
        return PhasePoint(position.to(self.dtype), *map(torch.cat, zip(*shares, strict=True)))

    def warm_up(self, state: PhasePoint, iterations: int, generator: torch.Generator) -> PhasePoint:
        """Adapt the step size over this many trajectories."""
        if iterations:
            adaptation = DualAveraging(self.step_size, target=self.acceptance)
            for _ in range(iterations):
                state, acceptance = self.step(state, generator)
                self.step_size = adaptation.update(float(acceptance.mean()))
            self.step_size = adaptation.final
        self.divergences = 0
        return state

    def step(self, state: PhasePoint, generator: torch.Generator) -> tuple[PhasePoint, Tensor]:
        """One trajectory of every chain: the new state, and the acceptance probabilities, float64, shape (n,)."""
        like = {"dtype": self.dtype, "device": state.position.device, "generator": generator}
        momentum = torch.randn(state.position.shape, **like)
        stretch = 1 + LENGTH_JITTER * (2 * float(torch.rand((), **like)) - 1)
        steps = max(1, round(stretch * self.length / self.step_size))
        proposal, end = self.leapfrog(state, momentum, steps)
        change = proposal.energy - state.energy + kinetic(end) - kinetic(momentum)
        change = torch.where(torch.isfinite(change), change, math.inf)
        self.divergences += int((change > DIVERGENCE).sum())
        acceptance = torch.exp(-change).clamp(max=1)
        uniform = torch.rand(len(change), dtype=torch.float64, device=change.device, generator=generator)
        return state.moved(uniform < acceptance, proposal), acceptance

    def leapfrog(self, state: PhasePoint, momentum: Tensor, steps: int) -> tuple[PhasePoint, Tensor]:
        """Follow the equations of motion for some steps: time-reversible and volume-preserving, of second order."""
        size = self.step_size
        for _ in range(steps):
            halfway = momentum - size / 2 * state.gradient
            state = self.start(state.position + size * halfway)
            momentum = halfway - size / 2 * state.gradient
        return state, momentum

    def settings(self) -> dict[str, Tensor]:
        """What the warm-up found, for saving."""
        return {"step_size": torch.tensor(self.step_size, dtype=torch.float64)}

    def restore(self, settings: dict[str, Tensor]) -> None:
        """Take up what `settings` gave."""
        self.step_size = float(settings["step_size"])

    def _evaluate(self, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, U and grad U."""
        with torch.enable_grad():
            z = position.detach().requires_grad_()
            field, logdet = self.transform(z)
            energy = self.target.energy(field.double()) - logdet
            gradient = torch.autograd.grad(energy.sum(), z)[0]
        return field.detach(), energy.detach(), gradient


class PhysicalHamiltonianMonteCarlo(HamiltonianMonteCarlo):
    """Hamiltonian Monte Carlo in physical space, with a spectral mass matrix; made by `physical`.

    f(z) = B z, diagonal in the target's own basis (momenta, where it is translation invariant). It starts from the
    covariance of the mean-field Gaussian; half of the warm-up measures the spectrum of the field, the rest the step.
    """

    def __init__(self, target: HubbardStratonovich, variances: Tensor, **options) -> None:
        super().__init__(SpectralScaling(target.basis, variances.sqrt()), target, **options)
        self.variances = variances

    def warm_up(self, state: PhasePoint, iterations: int, generator: torch.Generator) -> PhasePoint:
        """Adapt the mass matrix, then the step size, over this many trajectories."""
        state = super().warm_up(state, iterations // 4, generator)
        power, count = torch.zeros_like(self.variances), iterations // 4
        for _ in range(count):
            state, _ = self.step(state, generator)
            power += self.target.basis.power(state.field.double()).mean(0)
        if count:
            self._rescale(self._symmetric(power / count))
            state = self.start(self.transform.inverse(state.field)[0])
        return super().warm_up(state, iterations - 2 * count, generator)

    def settings(self) -> dict[str, Tensor]:
        return super().settings() | {"variances": self.variances}

    def restore(self, settings: dict[str, Tensor]) -> None:
        super().restore(settings)
        self._rescale(settings["variances"])

    def _evaluate(self, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        field, logdet = self.transform(position)
        energy, force = self.target.energy_and_force(field.double())
        return field, energy - logdet, -self.target.basis.apply(force, self.variances.sqrt()).to(position)

    def _rescale(self, variances: Tensor) -> None:
        self.variances = variances
        self.transform = SpectralScaling(self.target.basis, variances.sqrt())

    def _symmetric(self, power: Tensor) -> Tensor:
        """Averages over momenta that the point group makes equal, for less noise."""
        if not self.target.lattice.translation_invariant:
            return power
        orbits = torch.from_numpy(self.target.symmetry.momentum_orbits()).flatten()
        totals = torch.bincount(orbits, power.flatten().cpu())
        return (totals / torch.bincount(orbits))[orbits].view(power.shape).to(power)


def latent(flow: Flow, target: HubbardStratonovich, **options) -> HamiltonianMonteCarlo:
    """Hamiltonian Monte Carlo in the latent space of a flow (`Flow`: forward(z) -> x, logdet; parameters frozen).

    Where the flow integrates an equation, its log-determinant carries the integration error: the chains follow E to
    within it.
    """
    dtype = next(flow.parameters()).dtype
    return HamiltonianMonteCarlo(flow, target, dtype=dtype, **options)


def physical(target: HubbardStratonovich, **options) -> PhysicalHamiltonianMonteCarlo:
    """Hamiltonian Monte Carlo on the field itself, with a spectral mass matrix adapted in the warm-up."""
    variances = target.eigenvalues
    if target.lattice.translation_invariant:
        variances = variances * target.mean_field().variances
    return PhysicalHamiltonianMonteCarlo(target, variances, **options)


def kinetic(momentum: Tensor) -> Tensor:
    """|p|^2 / 2, float64, shape (n,)."""
    return momentum.double().square().flatten(1).sum(1) / 2
