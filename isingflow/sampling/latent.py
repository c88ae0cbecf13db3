"""Hamiltonian Monte Carlo in the latent space of a flow: f is the flow, and d is what it gets wrong.

A good flow leaves d small but rough: where it tears the Gaussian apart into magnetisations up and down, forces are a
hundred times the usual ones, and steps that resolve them cost more than they gain. So the motion is guided by |z|^2 / 2
alone at first: a turn without kicks, for which gradients are not needed. Only if turns are refused is it guided by all
of U.

Where the flow misses part of the target, exp(-U) has narrow peaks in latent space: turns rarely find them, and chains
that are there can hardly leave. So where the target has a move of its own, it follows every trajectory: x' from the
move, z' = f^-1(x'). It knows nothing of the flow and leads in and out. Of a magnet it is a sweep of block Gibbs
sampling: s from p(s | x), x' from p(x | s).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from isingflow.flows import Flow
from isingflow.sampling.hmc import BATCH_SITES, HamiltonianMonteCarlo, HamiltonianState, Motion
from isingflow.sampling.sampler import check_density
from isingflow.targets.base import GibbsSampled, Target, as_target

TURN = 0.4 * math.pi
"""Mean angle of a free turn. After one z is nearly forgotten (cos = 0.3); a quarter would put the second, the next
chance, at -z, which is as good as no move at all."""
CHANCES = 3


@dataclass(frozen=True, eq=False)
class LatentHamiltonianMonteCarlo(HamiltonianMonteCarlo[HamiltonianState]):
    """Trajectories in the latent space of a flow, each followed by a move of the target's own; see `latent`.

    A move costs one evaluation, the flow backwards, which gives U too; where trajectories are guided, another for the
    force.

    Args:
        flow: f, in evaluation mode and with frozen parameters.
    """

    flow: Flow

    space = "latent"

    @property
    def device(self) -> torch.device:
        """Where the flow is."""
        return self.flow.device

    def init(self, position: Tensor) -> HamiltonianState:
        """The chains at given positions z, shape (n, *shape)."""
        return self.at(position, self._unmoved(position))

    def step(self, state: HamiltonianState, generator: torch.Generator) -> tuple[HamiltonianState, Tensor]:
        """A trajectory and a sweep of every chain: the new state, and which chains the trajectory moved."""
        state, moved = super().step(state, generator)
        return self.sweep(state, generator), moved

    def sweep(self, state: HamiltonianState, generator: torch.Generator) -> HamiltonianState:
        """The target's own move of the field, if it has one, seen from latent space."""
        if not isinstance(self.target, GibbsSampled):
            return state
        field = self.target.sweep(state.field, generator)
        batches = field.split(max(1, BATCH_SITES // self.target.sites))
        shares = [share for batch in batches for share in self.pool.map(self._pull, batch)]
        position, energy = map(torch.cat, zip(*shares, strict=True))
        evaluations = int(state.evaluations) + len(field)
        if state.guided:
            return self.at(position, state.having(evaluations=evaluations + len(field)))
        swept = replace(state, position=position, field=field, energy=energy, force=torch.zeros_like(position))
        return swept.having(evaluations=evaluations)

    def motion(self, state: HamiltonianState) -> Motion:
        """By all of U, or freely."""
        guided = bool(state.guided)

        def evaluate(position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with torch.set_grad_enabled(guided):
                z = position.detach().requires_grad_(guided)
                field, logdet = self.flow(z)
                energy = self.target.energy(field.double()) - logdet
            if not guided:
                return field, energy, torch.zeros_like(position)
            force = position - torch.autograd.grad(energy.sum(), z)[0]
            return field.detach(), energy.detach(), force

        return evaluate

    @torch.no_grad()
    def _pull(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """z and U at x."""
        position, logdet = self.flow.inverse(field)
        return position, self.target.energy(field.double()) + logdet


def latent(flow: Flow, target: Target, **options: Any) -> LatentHamiltonianMonteCarlo:
    """Hamiltonian Monte Carlo in the latent space of a flow, in evaluation mode and with frozen parameters.

    Free turns with two extra chances to begin with. Where the flow integrates an equation, its log-determinant carries
    the integration error: the chains follow E to within it.

    Args:
        flow: f.
        target: E, differentiable by torch where trajectories are guided.
        options: of `HamiltonianMonteCarlo`, other than its own choices of guided, length and chances.

    Raises:
        InvalidInput: the flow's log-determinants are stochastic, its fields are not of the target's shape, or an option
            is out of range; WrongType: something else than these.

    Example:
        >>> from isingflow.sampling import run_chains
        >>> class Wells(Target):
        ...     shape = (2,)
        ...
        ...     def energy(self, field):
        ...         return (field**2 - 1).square().sum(-1)
        >>> run_chains(latent(Flow((2,), []), Wells()), samples=5, chains=3).field.shape
        (3, 5, 2)
    """
    target = as_target(target)
    check_density(flow, target)
    defaults: dict[str, Any] = {"guided": False, "length": TURN, "chances": CHANCES, "dtype": flow.dtype}
    return LatentHamiltonianMonteCarlo(target, flow, **defaults | options)
