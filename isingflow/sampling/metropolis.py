"""Metropolis with the flow as independent proposal, and block Gibbs sampling between spins and field.

A flow proposes x' from its own density p, whatever x was; with w = -E - ln p the proposal is accepted with probability
min(1, exp(w' - w)) (Hastings 1970): exact samples of the target from any flow, independent where it is good. The Gibbs
sampler needs no flow: it draws s from p(s | x) and x from p(x | s) in turn, both exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isingflow.flows import Flow
from isingflow.flows.certificate import log_weights, pushed
from isingflow.runtime.parallel import Workers
from isingflow.sampling.sampler import Sampler, State, check_density
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


@dataclass(frozen=True)
class WeightedState(State):
    """Samples of a flow and their log-weights w, float64, shape (n,)."""

    log_weight: Tensor


class FlowMetropolis(Sampler):
    """The independence sampler: proposals x = flow(z), z standard normal.

    Args:
        flow: the proposal density.
        target: E.
        pool: threads to share the chains.

    Raises:
        InvalidInput: the flow's log-determinants are stochastic.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import run_chains
        >>> target = HubbardStratonovich(square(4), beta=0.1)
        >>> run_chains(FlowMetropolis(Flow((4, 4), []), target), samples=5, chains=3).spins.shape
        (3, 5, 4, 4)
    """

    kind = WeightedState

    def __init__(self, flow: Flow, target: HubbardStratonovich, *, pool: Workers | None = None) -> None:
        check_density(flow)
        self.flow = flow
        self.target = target
        self.shape = flow.shape
        self.dtype = flow.noise(1).dtype
        self.pool = pool or Workers(1)

    @torch.no_grad()
    def start(self, position: Tensor) -> WeightedState:
        """The chains at the images of given z, shape (n, *shape)."""

        def push(latent: Tensor) -> tuple[Tensor, Tensor]:
            field, log_prob = pushed(self.flow, latent)
            weights = log_weights(self.target.energy, field, log_prob)
            return field, weights.masked_fill(weights.isnan(), -math.inf)

        position = position.to(self.dtype)
        return WeightedState(position, *map(torch.cat, zip(*self.pool.map(push, position), strict=True)))

    def step(self, state: WeightedState, generator: torch.Generator) -> tuple[WeightedState, Tensor]:
        """One proposal to every chain: the new state, and which chains moved, bool, shape (n,)."""
        proposal = self.start(self.flow.noise(len(state.position), generator))
        gain = proposal.log_weight - state.log_weight
        moved = torch.log(torch.rand(gain.shape, dtype=gain.dtype, device=gain.device, generator=generator)) < gain
        rows = moved.nonzero().flatten()
        return state.put(rows, proposal.take(rows)), moved


class BlockGibbs(Sampler):
    """Alternating exact draws of s given x and of x given s; the position is the field itself, float32.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import run_chains
        >>> chains = run_chains(BlockGibbs(HubbardStratonovich(square(4), beta=0.1)), samples=5, chains=3)
        >>> chains.acceptance
        array([1., 1., 1., 1., 1.])
    """

    def __init__(self, target: HubbardStratonovich) -> None:
        self.target = target
        self.shape = target.shape
        self.dtype = torch.float32

    def start(self, position: Tensor) -> State:
        """The chains at given fields, shape (n, *shape)."""
        return State(position, position)

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Tensor]:
        """New spins, then a new field, in every chain: the new state, and that all chains moved."""
        spins = self.target.sample_spins(state.field, generator)
        field = self.target.sample_field(spins.to(state.field.dtype), generator)
        return State(field, field), torch.ones(len(field), dtype=torch.bool, device=field.device)
