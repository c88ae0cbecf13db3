"""Hamiltonian Monte Carlo on many chains at once, in the latent space of a flow or in physical space.

The field is x = f(z), and z follows exp(-U(z)) with

    U(z) = E(f(z)) - ln |det df/dz| = |z|^2 / 2 + d(z),    H(z, p) = U(z) + |p|^2 / 2.

Of the equations of motion dz/dt = p, dp/dt = -z - grad d, all but grad d is solved exactly: (z, p) turn by an angle. So
a step is kick, turn, kick: time-reversible and volume-preserving for any kick, of second order for kicks by -grad d. An
accept-reject step makes it exact (Duane et al. 1987; Neal 2011; Shahbaba et al. 2014).

In latent space f is the flow, and d is what it gets wrong. A good flow leaves d small but rough: where it tears the
Gaussian apart into magnetisations up and down, forces are a hundred times the usual ones, and steps that resolve them
cost more than they gain. So the motion is guided by |z|^2 / 2 alone at first: a turn without kicks, for which gradients
are not needed. Only if turns are refused is it guided by all of U. (The Hamiltonian that accepts decides what is
sampled, not the one that guides: Duane et al. 1987.) A refused turn is continued up to twice, against the same random
number: "extra chances" (Campos and Sanz-Serna 2015). With H_k after k turns,

    P(end at k) = max(0, min(exp(-H_0), exp(-H_k)) - max over 0 < j < k of exp(-H_j)) / exp(-H_0),

which keeps detailed balance, for the path back meets the same points in reverse order.

Where the flow misses part of the target, exp(-U) has narrow peaks in latent space: turns rarely find them, and chains
that are there can hardly leave. So a sweep of block Gibbs sampling follows every trajectory: s from p(s | x), x from
p(x | s), z = f^-1(x). It knows nothing of the flow and leads in and out.

In physical space f is a linear map B, which is the same as a mass matrix (B B^T)^-1. Its spectrum is measured in the
warm-up: the geometric mean of Var(x) and 1 / Var(grad E), mode by mode, which brings the two closest to those of a
Gaussian (Seyboldt, Carlson and Carpenter 2024). Step sizes are found by dual averaging (Hoffman and Gelman 2014).
Chains share them; every trajectory stretches them anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows import Flow, SpectralScaling
from isingflow.runtime.parallel import Workers
from isingflow.sampling.sampler import Sampler, State, check_density
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

Map = Callable[[Tensor], tuple[Tensor, Tensor]]
"""z -> x = f(z) and ln |det df/dz|, shape (n,)."""

TURN = 0.4 * math.pi
"""Mean angle of a free turn. After one z is nearly forgotten (cos = 0.3); a quarter would put the second, the next
chance, at -z, which is as good as no move at all."""
CHANCES = 3
PHYSICAL_LENGTH = 2.0
"""Mean length of a trajectory in physical space, in units of a mode's standard deviation: the best of 1, 2, 4 and 8 on
16x16, critical (`benchmarks/hmc.py`)."""
QUARTER_PERIOD = math.pi / 2
JITTER = 0.1
"""Relative half-width of the step sizes' uniform distribution."""
DIVERGENCE = 1000.0
"""Energy error, in units of k_B T, from which a trajectory counts as divergent."""
DAMPING = 0.2
"""Of the step size's adaptation: gamma in Hoffman and Gelman 2014."""
RARELY = 0.2
"""Fraction of chains that move, below which free turns are given up."""
REMEMBERED = ("guided", "length", "chances", "step_size", "evaluations", "divergences", "refused")
"""Attributes that change as the sampler runs."""
SMALL_SAMPLE = 10
"""Weight of the spectrum known before in that measured, as a number of samples."""
BATCH_SITES = 2**17
"""Sites of the fields in flight: what backpropagation remembers of them takes about a gigabyte."""


@dataclass(frozen=True)
class PhasePoint(State):
    """Where a set of chains is, with what the next trajectory needs there.

    Attributes:
        energy: U(z), float64, shape (n,).
        force: -grad d = z - grad U, by which trajectories are bent, shape (n, *shape); zero in free motion.
    """

    energy: Tensor
    force: Tensor


class DualAveraging:
    """The step size at which a given fraction of trajectories is accepted (Hoffman and Gelman 2014).

    With a quarter of their gain, and no pull to longer steps: theirs is for one noisy chain from an arbitrary start. On
    the mean of many it swings between too short and too long steps.

    Attributes:
        step_size: the next to try.

    Example:
        >>> adaptation = DualAveraging(0.1, target=0.8)
        >>> for _ in range(500):
        ...     adaptation.update(math.exp(-adaptation.step_size))
        >>> abs(math.exp(-adaptation.final) - 0.8) < 0.01
        True
    """

    def __init__(self, step_size: float, *, target: float) -> None:
        self.target = target
        self.step_size = step_size
        self._error = 0.0
        self._log_start = self._log_final = math.log(step_size)
        self._count = 0.0

    @property
    def final(self) -> float:
        """The averaged step size, to keep when adaptation ends."""
        return math.exp(self._log_final)

    def update(self, acceptance: float) -> None:
        """Learn from a trajectory, of which this fraction was accepted."""
        self._count += 1
        self._error += (self.target - acceptance - self._error) / (self._count + 10)
        log_step = self._log_start - math.sqrt(self._count) / DAMPING * self._error
        self._log_final += self._count**-0.75 * (log_step - self._log_final)
        self.step_size = math.exp(log_step)

    def numbers(self) -> list[float]:
        """All that `update` has changed, for saving."""
        return [self.step_size, self._error, self._log_start, self._log_final, self._count]

    def restore(self, numbers: list[float]) -> None:
        """Take up what `numbers` gave."""
        self.step_size, self._error, self._log_start, self._log_final, self._count = numbers


class HamiltonianMonteCarlo(Sampler):
    """Hamiltonian Monte Carlo on the density exp(-E(x)) through x = f(z); made by `latent` and `physical`.

    Args:
        transform: f, with its log-determinant; float32 or float64.
        target: E.
        guided: whether trajectories follow U, by its gradient, or turn freely. Free turns that are refused too often
            are given up after a quarter of the warm-up: from then on they follow U.
        length: mean length of a guided trajectory, or angle of a free turn.
        chances: trajectories in a row, the first of which that is accepted is taken.
        acceptance: what fraction of guided trajectories the step size is adapted to.
        pool: threads to share the chains.
        dtype: of z.

    Attributes:
        step_size: mean step of a trajectory.
        evaluations: of U so far, after the warm-up, summed over chains: each with its gradient if guided.
        divergences: trajectories whose energy error exceeded 1000, after the warm-up.
        refused: free turns that were refused in the second eighth of the warm-up, in units of all chains.

    Raises:
        InvalidInput: an option out of range.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import run_chains
        >>> sampler = physical(HubbardStratonovich(square(4), beta=0.3))
        >>> chains = run_chains(sampler, samples=20, chains=8, warm_up=40)
        >>> bool(chains.acceptance.mean() > 0.5), sampler.divergences
        (True, 0)
    """

    kind = PhasePoint

    def __init__(
        self,
        transform: Map,
        target: HubbardStratonovich,
        *,
        guided: bool = True,
        length: float = QUARTER_PERIOD,
        chances: int = 1,
        acceptance: float = 0.8,
        pool: Workers | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not (0 < length < math.inf and 0 < acceptance < 1 and chances >= 1):
            raise InvalidInput(
                f"length {length}, acceptance {acceptance}, {chances} chances: expected a positive length, an "
                "acceptance between 0 and 1, and at least one chance"
            )
        self.transform = transform
        self.target = target
        self.shape = target.shape
        self.dtype = dtype
        self.guided = guided
        self.length = length
        self.chances = chances
        self.pool = pool or Workers(1)
        self.step_size = 0.1 if guided else length
        self.evaluations = 0
        self.divergences = 0
        self._adaptation = DualAveraging(self.step_size, target=acceptance)
        self.refused = 0.0

    def start(self, position: Tensor) -> PhasePoint:
        """The chains at given positions z, shape (n, *shape)."""
        position = position.to(self.dtype)
        batches = position.split(max(1, BATCH_SITES // self.target.sites))
        shares = [share for batch in batches for share in self.pool.map(self._evaluate, batch)]
        return PhasePoint(position, *map(torch.cat, zip(*shares, strict=True)))

    def step(self, state: PhasePoint, generator: torch.Generator) -> tuple[PhasePoint, Tensor]:
        """A trajectory of every chain, with extra chances: the new state, and which chains moved, bool, shape (n,)."""
        like = {"dtype": self.dtype, "device": state.position.device, "generator": generator}
        momentum = torch.randn(state.position.shape, **like)
        stretch = 1 + JITTER * (2 * float(torch.rand((), **like)) - 1)
        uniform = torch.rand(state.energy.shape, **like | {"dtype": torch.float64})
        steps = max(1, round(self.length / self.step_size))
        before = state.energy + kinetic(momentum)
        refused = torch.arange(len(before), device=before.device)
        proposal = state
        for _ in range(self.chances):
            proposal, momentum = self.integrate(proposal, momentum, steps, stretch * self.step_size)
            self.evaluations += steps * len(refused)
            change = proposal.energy + kinetic(momentum) - before[refused]
            self.divergences += int((~(change < DIVERGENCE)).sum())
            accepted = change < -torch.log(uniform[refused])
            state = state.put(refused[accepted], proposal.take(accepted))
            refused, proposal, momentum = refused[~accepted], proposal.take(~accepted), momentum[~accepted]
            if not len(refused):
                break
        return state, torch.ones_like(before, dtype=torch.bool).index_fill(0, refused, False)

    def integrate(self, state: PhasePoint, momentum: Tensor, steps: int, size: float) -> tuple[PhasePoint, Tensor]:
        """Follow the equations of motion: half a kick, a turn, half a kick, for some steps."""
        cos, sin = math.cos(size), math.sin(size)
        for _ in range(steps):
            momentum = momentum + size / 2 * state.force
            position, momentum = cos * state.position + sin * momentum, cos * momentum - sin * state.position
            state = self.start(position)
            momentum = momentum + size / 2 * state.force
        return state, momentum

    def adapt(self, state: PhasePoint, moved: Tensor, done: int, total: int) -> PhasePoint:
        """Adapt the step size of guided trajectories; give up free turns that are refused too often."""
        fraction = float(moved.double().mean())
        if self.guided:
            self._adaptation.update(fraction)
            self.step_size = self._adaptation.step_size if done < total else self._adaptation.final
        else:
            self.refused = self.refused + 1 - fraction if done > total // 8 else 0.0
            if done == total // 4 and self.refused > (1 - RARELY) * (total // 4 - total // 8):
                self.guided, self.length, self.chances, self.step_size = True, QUARTER_PERIOD, 1, 0.1
                self._restart_adaptation()
                state = self.start(state.position)
        if done == total:
            self.evaluations = self.divergences = 0
        return state

    def settings(self) -> dict[str, Tensor]:
        """All that steps have changed, for saving."""
        numbers = {name: getattr(self, name) for name in REMEMBERED} | {"adaptation": self._adaptation.numbers()}
        return {name: torch.from_numpy(np.asarray(value)) for name, value in numbers.items()}

    def restore(self, settings: dict[str, Tensor]) -> None:
        """Take up what `settings` gave."""
        for name in REMEMBERED:
            setattr(self, name, settings[name].item())
        self._adaptation.restore(settings["adaptation"].tolist())

    def _restart_adaptation(self) -> None:
        self._adaptation = DualAveraging(self.step_size, target=self._adaptation.target)

    def _evaluate(self, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, U and z - grad U at z."""
        with torch.set_grad_enabled(self.guided):
            z = position.detach().requires_grad_(self.guided)
            field, logdet = self.transform(z)
            energy = self.target.energy(field.double()) - logdet
        if not self.guided:
            return field, energy, torch.zeros_like(position)
        force = position - torch.autograd.grad(energy.sum(), z)[0]
        return field.detach(), energy.detach(), force


class LatentHamiltonianMonteCarlo(HamiltonianMonteCarlo):
    """Hamiltonian Monte Carlo in the latent space of a flow, every trajectory followed by a Gibbs sweep; see `latent`.

    A sweep costs one evaluation, the flow backwards, which gives U too; where trajectories are guided, another for the
    force.

    Args:
        flow: f.
        target: E.
    """

    def __init__(self, flow: Flow, target: HubbardStratonovich, **options) -> None:
        super().__init__(flow, target, **options)
        self.flow = flow

    def step(self, state: PhasePoint, generator: torch.Generator) -> tuple[PhasePoint, Tensor]:
        """A trajectory and a sweep of every chain: the new state, and which chains the trajectory moved."""
        state, moved = super().step(state, generator)
        return self.sweep(state, generator), moved

    def sweep(self, state: PhasePoint, generator: torch.Generator) -> PhasePoint:
        """New spins given the field, a new field given these, and its z."""
        spins = self.target.sample_spins(state.field, generator)
        field = self.target.sample_field(spins.to(state.field.dtype), generator)
        batches = field.split(max(1, BATCH_SITES // self.target.sites))
        shares = [share for batch in batches for share in self.pool.map(self._pull, batch)]
        position, energy = map(torch.cat, zip(*shares, strict=True))
        self.evaluations += len(field)
        if self.guided:
            self.evaluations += len(field)
            return self.start(position)
        return PhasePoint(position, field, energy, torch.zeros_like(position))

    @torch.no_grad()
    def _pull(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """z and U at x."""
        position, logdet = self.flow.inverse(field)
        return position, self.target.energy(field.double()) + logdet


class PhysicalHamiltonianMonteCarlo(HamiltonianMonteCarlo):
    """Hamiltonian Monte Carlo in physical space, with a spectral mass matrix; made by `physical`.

    f(z) = B z, diagonal in the target's own basis (momenta, where it is translation invariant). B is measured over the
    second eighth of the warm-up, and again over its second quarter; the step size is adapted throughout.

    Args:
        target: E.
        variances: eigenvalues of B^2 to start from.
    """

    def __init__(self, target: HubbardStratonovich, variances: Tensor, **options) -> None:
        super().__init__(SpectralScaling(target.basis, variances.sqrt()), target, **options)
        self._rescale(variances)

    def adapt(self, state: PhasePoint, moved: Tensor, done: int, total: int) -> PhasePoint:
        """Adapt the mass matrix and the step size."""
        if done == total // 8:
            self._rescale(self.variances)
        field = state.field.double()
        self._power += torch.stack([self.target.basis.power(v).sum(0) for v in (field, self.target.force(field))])
        if done in (total // 4, total // 2):
            field_power, force_power = map(self._symmetric, self._power)
            self._rescale((field_power / force_power).sqrt())
            self._restart_adaptation()
            return self.start(self.transform.inverse(state.field)[0])
        return super().adapt(state, moved, done, total)

    def settings(self) -> dict[str, Tensor]:
        return super().settings() | {"variances": self.variances, "power": self._power}

    def restore(self, settings: dict[str, Tensor]) -> None:
        super().restore(settings)
        self._rescale(settings["variances"])
        self._power = settings["power"].clone()

    def _evaluate(self, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        field, logdet = self.transform(position)
        energy, force = self.target.energy_and_force(field.double())
        pull = self.target.basis.multiply(force, self.variances.sqrt()).to(position)
        return field, energy - logdet, position + pull

    def _rescale(self, variances: Tensor) -> None:
        """Take this spectrum, and start to measure it anew."""
        self.variances = variances
        self.transform = SpectralScaling(self.target.basis, variances.sqrt())
        self._power = SMALL_SAMPLE * torch.stack([variances, 1 / variances])

    def _symmetric(self, power: Tensor) -> Tensor:
        """Averages over momenta that the point group makes equal, for less noise."""
        if not self.target.lattice.translation_invariant:
            return power
        orbits = torch.from_numpy(self.target.symmetry.momentum_orbits()).flatten()
        totals = torch.bincount(orbits, power.flatten().cpu())
        return (totals / torch.bincount(orbits))[orbits].view(power.shape).to(power)


def latent(flow: Flow, target: HubbardStratonovich, **options) -> LatentHamiltonianMonteCarlo:
    """Hamiltonian Monte Carlo in the latent space of a flow, in evaluation mode and with frozen parameters.

    Free turns with two extra chances to begin with. Where the flow integrates an equation, its log-determinant carries
    the integration error: the chains follow E to within it.

    Args:
        flow: f.
        target: E.
        options: of `HamiltonianMonteCarlo`, other than its own choices of guided, length and chances.

    Raises:
        InvalidInput: the flow's log-determinants are stochastic.
    """
    check_density(flow)
    defaults = {"guided": False, "length": TURN, "chances": CHANCES, "dtype": flow.noise(1).dtype}
    return LatentHamiltonianMonteCarlo(flow, target, **defaults | options)


def physical(target: HubbardStratonovich, **options) -> PhysicalHamiltonianMonteCarlo:
    """Hamiltonian Monte Carlo on the field itself, with a spectral mass matrix adapted in the warm-up.

    Args:
        target: E.
        options: of `HamiltonianMonteCarlo`; the length is that of the best trajectories at criticality if not given.
    """
    return PhysicalHamiltonianMonteCarlo(target, target.eigenvalues, **{"length": PHYSICAL_LENGTH} | options)


def kinetic(momentum: Tensor) -> Tensor:
    """|p|^2 / 2, float64, shape (n,)."""
    return momentum.double().square().flatten(1).sum(1) / 2
