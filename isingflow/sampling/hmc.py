"""Hamiltonian Monte Carlo on many chains at once, in the latent space of a flow or in physical space.

The field is x = f(z), and z follows exp(-U(z)) with

    U(z) = E(f(z)) - ln |det df/dz| = |z|^2 / 2 + d(z),    H(z, p) = U(z) + |p|^2 / 2.

Of the equations of motion dz/dt = p, dp/dt = -z - grad d, all but grad d is solved exactly: (z, p) turn by an angle. So
a step is kick, turn, kick: time-reversible and volume-preserving for any kick, of second order for kicks by -grad d. An
accept-reject step makes it exact (Duane et al. 1987; Neal 2011; Shahbaba et al. 2014).

Motion is guided by U, or turns freely, without kicks and gradients. (The Hamiltonian that accepts decides what is
sampled, not the one that guides: Duane et al. 1987.) A refused trajectory may be continued, against the same random
number: "extra chances" (Campos and Sanz-Serna 2015). With H_k after k trajectories,

    P(end at k) = max(0, min(exp(-H_0), exp(-H_k)) - max over 0 < j < k of exp(-H_j)) / exp(-H_0),

which keeps detailed balance, for the path back meets the same points in reverse order.

Step sizes are found by dual averaging (`adaptation`). Chains share them; every trajectory stretches them anew. What f
is, is a matter of `latent` and `physical`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from isingflow.runtime.checks import count, flag, instance, number
from isingflow.runtime.parallel import Workers
from isingflow.sampling.adaptation import DualAveraging
from isingflow.sampling.sampler import SHARED, Sampler, State, check_dtype, shared
from isingflow.targets.base import Target, as_target

Motion = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""z -> x, U, shape (n,), and z - grad U at z."""

QUARTER_PERIOD = math.pi / 2
FIRST_STEP = 0.1
"""Step size of guided trajectories before it is adapted."""
JITTER = 0.1
"""Relative half-width of the step sizes' uniform distribution."""
DIVERGENCE = 1000.0
"""Energy error, in units of k_B T, from which a trajectory counts as divergent."""
RARELY = 0.2
"""Fraction of chains that move, below which free turns are given up."""
BATCH_SITES = 2**17
"""Sites of the fields in flight: what backpropagation remembers of them takes about a gigabyte."""


@dataclass(frozen=True, eq=False)
class HamiltonianState(State):
    """Where a set of chains is, what the next trajectory needs there, and what the warm-up has found.

    Attributes:
        energy: U(z), float64, shape (n,).
        force: -grad d = z - grad U, by which trajectories are bent, shape (n, *shape); zero in free motion.
        guided: whether trajectories follow U, by its gradient, or turn freely.
        length: mean length of a guided trajectory, or angle of a free turn.
        chances: trajectories in a row, the first of which that is accepted is taken.
        step_size: mean step of a trajectory.
        averaging: the search for it, a `DualAveraging`, shape (5,).
        refused: free turns that were refused in the second eighth of the warm-up, in units of all chains.
        evaluations: of U so far, after the warm-up, summed over chains: each with its gradient if guided.
        divergences: trajectories whose energy error exceeded 1000, after the warm-up.
    """

    energy: Tensor
    force: Tensor
    guided: Tensor = dataclasses.field(metadata=SHARED)
    length: Tensor = dataclasses.field(metadata=SHARED)
    chances: Tensor = dataclasses.field(metadata=SHARED)
    step_size: Tensor = dataclasses.field(metadata=SHARED)
    averaging: Tensor = dataclasses.field(metadata=SHARED)
    refused: Tensor = dataclasses.field(metadata=SHARED)
    evaluations: Tensor = dataclasses.field(metadata=SHARED)
    divergences: Tensor = dataclasses.field(metadata=SHARED)


H = TypeVar("H", bound=HamiltonianState)


@dataclass(frozen=True, eq=False)
class HamiltonianMonteCarlo(Sampler[H]):
    """Hamiltonian Monte Carlo on the density exp(-E(x)) through x = f(z); made by `latent` and `physical`.

    Args:
        target: E.
        guided: whether trajectories follow U to begin with. Free turns that are refused too often are given up after a
            quarter of the warm-up: from then on they follow U.
        length, chances: as in `HamiltonianState`, to begin with.
        acceptance: what fraction of guided trajectories the step size is adapted to.
        pool: threads to share the chains.
        dtype: of z, float32 or float64.

    Raises:
        InvalidInput: an option out of range.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import physical, run_chains
        >>> from isingflow.targets import HubbardStratonovich
        >>> sampler = physical(HubbardStratonovich(square(4), beta=0.3))
        >>> chains = run_chains(sampler, samples=20, chains=8, warm_up=40)
        >>> bool(chains.acceptance.mean() > 0.5), chains.facts["divergences"]
        (True, 0)
    """

    target: Target
    _: KW_ONLY
    guided: bool = True
    length: float = QUARTER_PERIOD
    chances: int = 1
    acceptance: float = 0.8
    pool: Workers = dataclasses.field(default_factory=lambda: Workers(1))
    dtype: torch.dtype = torch.float32

    name = "hmc"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", as_target(self.target))
        flag("guided", self.guided)
        number("length", self.length, above=0)
        number("acceptance", self.acceptance, above=0, below=1)
        count("chances", self.chances)
        instance("pool", self.pool, Workers, "what `isingflow.runtime.parallel.workers` gives")
        check_dtype(self.dtype)

    def motion(self, state: H) -> Motion:
        """What moves chains from where they are, by what they share."""
        raise NotImplementedError

    def at(self, position: Tensor, state: H) -> H:
        """The chains at other positions, with all that they share."""
        return self._at(position, state, self.motion(state))

    def step(self, state: H, generator: torch.Generator) -> tuple[H, Tensor]:
        """A trajectory of every chain, with extra chances: the new state, and which chains moved, bool, shape (n,)."""
        shape, device = state.position.shape, state.position.device
        momentum = torch.randn(shape, dtype=self.dtype, device=device, generator=generator)
        shift = float(torch.rand((), dtype=self.dtype, device=device, generator=generator))
        uniform = torch.rand(shape[:1], dtype=torch.float64, device=device, generator=generator)
        size = float(state.step_size)
        steps, size = max(1, round(float(state.length) / size)), (1 + JITTER * (2 * shift - 1)) * size
        evaluations, divergences = int(state.evaluations), int(state.divergences)
        before = state.energy + kinetic(momentum)
        refused = torch.arange(len(before), device=device)
        proposal = state
        for _ in range(int(state.chances)):
            proposal, momentum = self.integrate(proposal, momentum, steps, size)
            evaluations += steps * len(refused)
            change = proposal.energy + kinetic(momentum) - before[refused]
            divergences += int((~(change < DIVERGENCE)).sum())
            accepted = change < -torch.log(uniform[refused])
            state = state.put(refused[accepted], proposal.take(accepted))
            refused, proposal, momentum = refused[~accepted], proposal.take(~accepted), momentum[~accepted]
            if not len(refused):
                break
        moved = torch.ones_like(before, dtype=torch.bool).index_fill(0, refused, False)
        return state.having(evaluations=evaluations, divergences=divergences), moved

    def integrate(self, state: H, momentum: Tensor, steps: int, size: float) -> tuple[H, Tensor]:
        """Follow the equations of motion: half a kick, a turn, half a kick, for some steps."""
        cos, sin, motion = math.cos(size), math.sin(size), self.motion(state)
        for _ in range(steps):
            momentum = momentum + size / 2 * state.force
            position, momentum = cos * state.position + sin * momentum, cos * momentum - sin * state.position
            state = self._at(position, state, motion)
            momentum = momentum + size / 2 * state.force
        return state, momentum

    def adapt(self, state: H, moved: Tensor, done: int, total: int) -> H:
        """Adapt the step size of guided trajectories; give up free turns that are refused too often."""
        fraction = float(moved.double().mean())
        if state.guided:
            search = DualAveraging(*state.averaging.tolist()).updated(fraction, target=self.acceptance)
            state = replace(state, averaging=search.tensor())
            state = state.having(step_size=search.step_size if done < total else search.final)
        else:
            refused = float(state.refused) + 1 - fraction if done > total // 8 else 0.0
            state = state.having(refused=refused)
            if done == total // 4 and refused > (1 - RARELY) * (total // 4 - total // 8):
                guided = state.having(guided=True, length=QUARTER_PERIOD, chances=1, step_size=FIRST_STEP)
                state = self.at(state.position, searching_anew(guided))
        return state.having(evaluations=0, divergences=0) if done == total else state

    def facts(self, state: H) -> dict[str, float | int | bool]:
        """How trajectories are, and what they have cost."""
        return {
            "step_size": float(state.step_size),
            "guided": bool(state.guided),
            "evaluations": int(state.evaluations),
            "divergences": int(state.divergences),
        }

    def _unmoved(self, position: Tensor) -> HamiltonianState:
        """New chains of which nothing is evaluated yet."""
        step_size = FIRST_STEP if self.guided else self.length
        return HamiltonianState(
            position=position,
            field=position,
            energy=position.new_zeros(len(position), dtype=torch.float64),
            force=position,
            guided=shared(self.guided),
            length=shared(float(self.length)),
            chances=shared(self.chances),
            step_size=shared(float(step_size)),
            averaging=DualAveraging.begin(step_size).tensor(),
            refused=shared(0.0),
            evaluations=shared(0),
            divergences=shared(0),
        )

    def _at(self, position: Tensor, state: H, motion: Motion) -> H:
        position = position.to(self.dtype)
        batches = position.split(max(1, BATCH_SITES // self.target.sites))
        shares = [share for batch in batches for share in self.pool.map(motion, batch)]
        field, energy, force = map(torch.cat, zip(*shares, strict=True))
        return replace(state, position=position, field=field, energy=energy, force=force)


def searching_anew(state: H) -> H:
    """The state with the search for a step size begun again, from the one it has."""
    return replace(state, averaging=DualAveraging.begin(float(state.step_size)).tensor())


def kinetic(momentum: Tensor) -> Tensor:
    """|p|^2 / 2, float64, shape (n,)."""
    return momentum.double().square().flatten(1).sum(1) / 2
