"""What moves Markov chains of fields: a pure kernel, and the state that it moves.

A sampler is a set of frozen settings. All that changes as chains run is in their state, what adapts included: a step
takes a state and returns another, so that a saved state is all it takes to go on.

    state = sampler.init(position)
    state, moved = sampler.step(state, generator)
    state = sampler.adapt(state, moved, done, total)        in the warm-up
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from isingflow.errors import InvalidInput, WrongType
from isingflow.flows import Flow
from isingflow.flows.certificate import is_stochastic
from isingflow.runtime.checks import instance, shown
from isingflow.runtime.fields import FLOATS
from isingflow.targets.base import Target

SHARED = {"shared": True}
"""Metadata of a state's attributes that all chains have in common, as opposed to a row for each of them."""


@dataclass(frozen=True, eq=False)
class State:
    """Where a set of chains is; samplers add what else they need to go on.

    Attributes are tensors with a row for each chain, except those with the metadata `SHARED`: they belong to all chains
    together, and numbers among them are tensors without axes, on the CPU.

    Attributes:
        position: the sampler's own coordinates, shape (n, *shape).
        field: x, shape (n, *shape).

    Example:
        >>> @dataclass(frozen=True, eq=False)
        ... class Stepping(State):
        ...     step_size: Tensor = dataclasses.field(metadata=SHARED)
        >>> state = Stepping(torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor(0.1)).having(step_size=0.2)
        >>> state.take(torch.tensor([0, 2])).field.shape, float(state.step_size)
        (torch.Size([2, 2]), 0.2)
    """

    position: Tensor
    field: Tensor

    @classmethod
    def names(cls, *, shared: bool) -> list[str]:
        """The attributes that all chains share, or those with a row for each."""
        return [f.name for f in dataclasses.fields(cls) if f.metadata.get("shared", False) == shared]

    def tensors(self) -> dict[str, Tensor]:
        """All attributes by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def take(self, rows: Tensor) -> Self:
        """The chains of these indices, or of a mask, with all that they share."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.names(shared=False)})

    def put(self, rows: Tensor, others: State) -> Self:
        """The chains with those of these indices replaced by `others`, in order; what they share stays."""
        mine = {name: getattr(self, name) for name in self.names(shared=False)}
        return replace(self, **{name: mine[name].index_copy(0, rows, getattr(others, name)) for name in mine})

    def having(self, **numbers: float | int | bool) -> Self:
        """The same chains with other numbers shared."""
        return replace(self, **{name: shared(value) for name, value in numbers.items()})


S = TypeVar("S", bound=State)


class Sampler(Generic[S]):
    """A Markov chain that leaves the density exp(-E(x)) as it is, run on many copies at once.

    Subclasses are frozen dataclasses of settings.

    Attributes:
        target: E.
        dtype: of positions.
        name: what results and files call the sampler.
        space: in which space chains move, where there is a choice.
    """

    target: Target
    dtype: torch.dtype
    name: ClassVar[str] = "sampler"
    space: ClassVar[str | None] = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one position."""
        return tuple(self.target.shape)

    @property
    def device(self) -> torch.device:
        """Where the chains are."""
        return device_of(self.target)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are numbers, words or truth values: chains are continued with the same only."""
        kinds = (bool, int, float, str)
        return {name: value for name, value in vars(self).items() if isinstance(value, kinds)}

    def init(self, position: Tensor) -> S:
        """The state of new chains at given positions, shape (n, *shape)."""
        raise NotImplementedError

    def step(self, state: S, generator: torch.Generator) -> tuple[S, Tensor]:
        """The next state, and which of the chains moved, bool, shape (n,); the state given is left as it is."""
        raise NotImplementedError

    def adapt(self, state: S, moved: Tensor, done: int, total: int) -> S:
        """Learn from a step, the `done`-th of `total` of a warm-up; the state to go on from."""
        return state

    def facts(self, state: S) -> dict[str, float | int | bool]:
        """What results say of the sampler besides acceptance, by name."""
        return {}


def device_of(target: Target) -> torch.device:
    """Where a target has its tensors; the CPU if it has none."""
    tensors = (*target.buffers(), *target.parameters())
    return tensors[0].device if tensors else torch.device("cpu")


def shared(value: float | int | bool) -> Tensor:
    """A number that chains share, as a tensor without axes; float64 if it is a float."""
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse positions that are neither float32 nor float64.

    Raises:
        WrongType: they are.
    """
    if dtype not in FLOATS:
        raise WrongType(f"dtype is {shown(dtype)}, expected torch.float32 or torch.float64")


def check_density(flow: Flow, target: Target) -> None:
    """Refuse a flow whose density is known up to noise only: chains that are accepted by it follow something else.

    Raises:
        InvalidInput: the flow's log-determinants are stochastic, or its fields are not of the target's shape;
            WrongType: it is no flow.
    """
    if instance("flow", flow, Flow, "a Flow").shape != tuple(target.shape):
        raise InvalidInput(f"the flow has fields of shape {flow.shape}, the target of shape {tuple(target.shape)}")
    if is_stochastic(flow):
        raise InvalidInput(
            "log-determinants of this flow are estimates by random probes, and its chains would not follow the "
            "target: use physical space, or a flow whose log-determinants are exact"
        )
