"""The laws of samplers: a kernel is a pure function of its state, and leaves the target as it is.

    init(position) -> state;    step(state, generator) -> (state, moved);    facts(state) -> numbers by name

A state is a dataclass, a named tuple, or a tuple, list or dict of tensors, such states and constants; `field` is x, and
`position` the sampler's own coordinates, which are x where it has none.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor

from isingflow.targets.base import Target, TargetLike, as_target
from isingflow.testing.laws import Judge, check, generator
from isingflow.testing.targets import stein

STEPS = 20
"""Steps that chains make before their distribution is looked at."""
CHAINS = 8
"""Chains whose bits are compared."""


class Kernel(Protocol):
    """What is asked of a sampler."""

    def init(self, position: Tensor) -> Any:
        """The state at given positions, shape (n, *shape)."""

    def step(self, state: Any, generator: torch.Generator) -> tuple[Any, Tensor]:
        """The next state, and which of the chains moved, bool, shape (n,)."""

    def facts(self, state: Any) -> dict[str, Any]:
        """What is worth reporting of a state: numbers by name."""


def tensors(state: Any) -> list[Tensor]:
    """All tensors of a state, in order.

    Example:
        >>> [tensor.item() for tensor in tensors({"a": torch.tensor(1), "b": (torch.tensor(2), 3)})]
        [1, 2]
    """
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _mapped(state, keep)
    return found


def restored(state: Any) -> Any:
    """The state with its tensors written to the bytes of a safetensors file and read back."""
    saved = {f"{i}": tensor.detach().clone().contiguous() for i, tensor in enumerate(tensors(state))}
    loaded = safetensors.torch.load(safetensors.torch.save(saved)) if saved else {}
    replacements = iter([loaded[f"{i}"] for i in range(len(saved))])
    return _mapped(state, lambda _: next(replacements))


def _mapped(state: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return function(state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        fields = [field.name for field in dataclasses.fields(state) if field.init]
        return dataclasses.replace(state, **{name: _mapped(getattr(state, name), function) for name in fields})
    if isinstance(state, dict):
        return {name: _mapped(part, function) for name, part in state.items()}
    if isinstance(state, tuple | list):
        parts = [_mapped(part, function) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


@dataclass(frozen=True)
class _Sampler:
    """What the laws of a sampler are checked on."""

    make: Callable[[], Kernel]
    target: Target
    positions: Tensor
    steps: int
    seed: int

    def few(self) -> Tensor:
        """Positions of the chains whose bits are compared."""
        return self.positions[:CHAINS].clone()

    def run(self, sampler: Kernel, state: Any, steps: int, source: torch.Generator) -> Any:
        for _ in range(steps):
            state, _ = sampler.step(state, source)
        return state


def position(state: Any) -> Tensor:
    """The sampler's own coordinates."""
    return state if isinstance(state, Tensor) else state.position


def field(state: Any) -> Tensor:
    """x; the positions where a state has nothing else."""
    return getattr(state, "field", position(state))


def _shapes(judge: Judge, on: _Sampler) -> None:
    sampler, start = on.make(), on.few()
    state = sampler.init(start)
    judge.equal("positions given and those of the first state", [position(state)], [start])
    state, moved = sampler.step(state, generator(on.seed))
    judge.like("the position", position(state), start.shape, start.dtype)
    judge.like("what moved", moved, start.shape[:1], torch.bool)
    judge.finite("the position", position(state))
    judge.demand(
        tuple(field(state).shape[1:]) == tuple(on.target.shape), f"fields have shape {tuple(field(state).shape[1:])}"
    )


def _pure(judge: Judge, on: _Sampler) -> None:
    """The argument stays as it was, and what was stepped before does not matter."""
    sampler = on.make()
    state = on.run(sampler, sampler.init(on.few()), 3, generator(on.seed))
    before = [tensor.clone() for tensor in tensors(state)]
    after, _ = sampler.step(state, generator(on.seed + 1))
    judge.equal("states before and after they were stepped from", tensors(state), before)
    again, _ = sampler.step(state, generator(on.seed + 1))
    judge.equal("two steps from one state with equal seeds", tensors(again), tensors(after))
    fresh, _ = on.make().step(state, generator(on.seed + 1))
    judge.equal("steps of a sampler in use and of a new one", tensors(fresh), tensors(after))


def _seeds(judge: Judge, on: _Sampler) -> None:
    runs = []
    for seed in (on.seed, on.seed, on.seed + 1):
        sampler = on.make()
        torch.rand(3)
        runs.append(on.run(sampler, sampler.init(on.few()), on.steps, generator(seed)))
    judge.equal("chains of equal seeds", tensors(runs[1]), tensors(runs[0]))
    judge.demand(not torch.equal(position(runs[2]), position(runs[0])), "chains of different seeds are the same")


def _moves(judge: Judge, on: _Sampler) -> None:
    sampler, source = on.make(), generator(on.seed)
    state, any_moved = sampler.init(on.few()), False
    for _ in range(on.steps):
        stepped, moved = sampler.step(state, source)
        changed = (position(stepped) != position(state)).flatten(1).any(1)
        wrong = int((changed != moved).sum())
        judge.demand(not wrong, f"{wrong} of {len(moved)} chains moved without saying so, or said so and did not")
        state, any_moved = stepped, any_moved or bool(moved.any())
    judge.demand(any_moved, f"no chain moved in {on.steps} steps")


def _state(judge: Judge, on: _Sampler) -> None:
    sampler, source = on.make(), generator(on.seed)
    state = on.run(sampler, sampler.init(on.few()), 3, source)
    later = generator(0)
    later.set_state(source.get_state())
    saved = restored(state)
    resumed = on.run(on.make(), saved, 3, later)
    ours = on.run(sampler, state, 3, source)
    judge.equal("chains that went on and chains from their saved state", tensors(resumed), tensors(ours))


def _facts(judge: Judge, on: _Sampler) -> None:
    sampler = on.make()
    state = sampler.init(on.few())
    before = [tensor.clone() for tensor in tensors(state)]
    facts = sampler.facts(state)
    judge.equal("states before and after their facts", tensors(state), before)
    try:
        json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError) as reason:
        judge.demand(False, f"facts are no plain, finite numbers by name: {reason}")
    judge.demand(isinstance(facts, dict), f"facts are a {type(facts).__name__}: expected numbers by name")


def _invariance(judge: Judge, on: _Sampler) -> None:
    sampler = on.make()
    state = sampler.init(on.positions.clone())
    for name, values in stein(on.target, field(state), on.seed).items():
        judge.mean(f"Stein's identity with {name} for the positions given", values)
    state = on.run(sampler, state, on.steps, generator(on.seed))
    for name, values in stein(on.target, field(state), on.seed).items():
        judge.mean(f"Stein's identity with {name} after {on.steps} steps from exact samples", values)


SAMPLER_LAWS = {
    "shapes": _shapes,
    "pure": _pure,
    "seeds": _seeds,
    "moves": _moves,
    "state": _state,
    "facts": _facts,
    "invariance": _invariance,
}
"""What each says:

shapes: and types. pure: a step depends on its arguments alone and leaves them as they are. seeds: equal ones give equal
chains. moves: chains that say so moved, and some do. state: saved and read back, it goes on bit for bit. facts: plain
numbers. invariance: exact samples of the target are exact samples after some steps.
"""


def check_sampler(
    make: Callable[[], Kernel],
    target: TargetLike,
    positions: Tensor,
    *,
    steps: int = STEPS,
    seed: int = 0,
    laws: Sequence[str] | None = None,
) -> None:
    """Refuse a sampler that breaks one of `SAMPLER_LAWS`.

    Args:
        make: builds the sampler; called anew wherever nothing may be remembered.
        target: what it should leave invariant.
        positions: independent exact samples of the target in the sampler's own coordinates, shape (n, *shape). The
            more, the smaller the bias that is found: two thousand find a tenth of a variance.
        steps: between exact samples and the look at what became of them.
        seed: of the chains.
        laws: names of those to check; all if not given.

    Raises:
        LawBroken: with the law and by how much.
    """
    check(make(), SAMPLER_LAWS, _Sampler(make, as_target(target), positions.detach(), steps, seed), laws)
