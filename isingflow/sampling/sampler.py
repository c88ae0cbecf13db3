"""What moves Markov chains of fields: what a sampler must provide, and where its chains are."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.flows.certificate import is_stochastic
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


@dataclass(frozen=True)
class State:
    """Where a set of chains is; samplers add what else they need to go on.

    Attributes:
        position: the sampler's own coordinates, shape (n, *shape).
        field: x, shape (n, *shape).
    """

    position: Tensor
    field: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All attributes by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def take(self, rows: Tensor) -> Self:
        """The chains of these indices, or of a mask."""
        return replace(self, **{name: tensor[rows] for name, tensor in self.tensors().items()})

    def put(self, rows: Tensor, others: Self) -> Self:
        """The chains with those of these indices replaced by `others`, in order."""
        return replace(self, **{n: t.index_copy(0, rows, getattr(others, n)) for n, t in self.tensors().items()})


class Sampler:
    """A Markov chain that leaves the density exp(-E(x)) as it is, run on many copies at once.

    Attributes:
        target: E.
        shape: shape of one position.
        dtype: of positions.
        kind: type of its states.
    """

    target: HubbardStratonovich
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: type[State] = State

    def start(self, position: Tensor) -> State:
        """The state at given positions, shape (n, *shape)."""
        raise NotImplementedError

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Tensor]:
        """The next state, and which of the chains moved, bool, shape (n,)."""
        raise NotImplementedError

    def adapt(self, state: State, moved: Tensor, done: int, total: int) -> State:
        """Learn from a step, the `done`-th of `total` of a warm-up; the state to go on from."""
        return state

    def settings(self) -> dict[str, Tensor]:
        """All that steps have changed in the sampler itself, for saving."""
        return {}

    def restore(self, settings: dict[str, Tensor]) -> None:
        """Take up what `settings` gave."""


def check_density(flow: Flow) -> None:
    """Refuse a flow whose density is known up to noise only: chains that are accepted by it follow something else.

    Raises:
        InvalidInput: the flow's log-determinants are stochastic.
    """
    if is_stochastic(flow):
        raise InvalidInput(
            "log-determinants of this flow are estimates by random probes, and its chains would not follow the Ising "
            "model: use physical space, or a flow whose log-determinants are exact"
        )
