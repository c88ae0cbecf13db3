"""Metropolis with the flow as independent proposal, and the move that a target brings itself.

A flow proposes x' from its own density p, whatever x was; with w = -E - ln p the proposal is accepted with probability
min(1, exp(w' - w)) (Hastings 1970): exact samples of the target from any flow, independent where it is good. Block
Gibbs sampling needs no flow: of a magnet it draws s from p(s | x) and x from p(x | s) in turn, both exactly.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.flows.certificate import log_weights, pushed
from isingflow.runtime.parallel import Workers
from isingflow.sampling.sampler import Sampler, State, check_density, check_dtype
from isingflow.targets.base import GibbsSampled, Target, as_target


@dataclass(frozen=True, eq=False)
class WeightedState(State):
    """Samples of a flow and their log-weights w, float64, shape (n,)."""

    log_weight: Tensor


@dataclass(frozen=True, eq=False)
class FlowMetropolis(Sampler[WeightedState]):
    """The independence sampler: proposals x = flow(z), z standard normal.

    Args:
        flow: the proposal density.
        target: E.
        pool: threads to share the chains.

    Raises:
        InvalidInput: the flow's log-determinants are stochastic, or its fields are not of the target's shape.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import run_chains
        >>> from isingflow.targets import HubbardStratonovich
        >>> target = HubbardStratonovich(square(4), beta=0.1)
        >>> run_chains(FlowMetropolis(Flow((4, 4), []), target), samples=5, chains=3).spins.shape
        (3, 5, 4, 4)
    """

    flow: Flow
    target: Target
    _: KW_ONLY
    pool: Workers = dataclasses.field(default_factory=lambda: Workers(1))

    name = "metropolis"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", as_target(self.target))
        check_density(self.flow, self.target)
        object.__setattr__(self, "dtype", self.flow.dtype)

    @property
    def device(self) -> torch.device:
        """Where the flow is."""
        return self.flow.device

    @torch.no_grad()
    def init(self, position: Tensor) -> WeightedState:
        """The chains at the images of given z, shape (n, *shape)."""

        def push(latent: Tensor) -> tuple[Tensor, Tensor]:
            field, log_prob = pushed(self.flow, latent)
            weights = log_weights(self.target.energy, field, log_prob)
            return field, weights.masked_fill(weights.isnan(), -math.inf)

        position = position.to(self.dtype)
        return WeightedState(position, *map(torch.cat, zip(*self.pool.map(push, position), strict=True)))

    def step(self, state: WeightedState, generator: torch.Generator) -> tuple[WeightedState, Tensor]:
        """One proposal to every chain: the new state, and which chains moved, bool, shape (n,)."""
        proposal = self.init(self.flow.noise(len(state.position), generator))
        gain = proposal.log_weight - state.log_weight
        moved = torch.log(torch.rand(gain.shape, dtype=gain.dtype, device=gain.device, generator=generator)) < gain
        rows = moved.nonzero().flatten()
        return state.put(rows, proposal.take(rows)), moved


@dataclass(frozen=True, eq=False)
class BlockGibbs(Sampler[State]):
    """The target's own move, step by step; the position is the field itself.

    Args:
        target: E, with a move of its own (`targets.base.GibbsSampled`), such as that of magnets.
        dtype: of fields.

    Raises:
        InvalidInput: the target has no such move.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.sampling import run_chains
        >>> from isingflow.targets import HubbardStratonovich
        >>> chains = run_chains(BlockGibbs(HubbardStratonovich(square(4), beta=0.1)), samples=5, chains=3)
        >>> chains.acceptance
        array([1., 1., 1., 1., 1.])
    """

    target: Target
    _: KW_ONLY
    dtype: torch.dtype = torch.float32

    name = "gibbs"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", as_target(self.target))
        check_dtype(self.dtype)
        self._move()

    def init(self, position: Tensor) -> State:
        """The chains at given fields, shape (n, *shape)."""
        return State(position, position)

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Tensor]:
        """A move of every chain: the new state, and that all chains moved."""
        field = self._move().sweep(state.field, generator)
        return State(field, field), torch.ones(len(field), dtype=torch.bool, device=field.device)

    def _move(self) -> GibbsSampled:
        if not isinstance(self.target, GibbsSampled):
            raise InvalidInput(
                f"{self.target.title()} has no move of its own (a method sweep) for Gibbs sampling: use another sampler"
            )
        return self.target
