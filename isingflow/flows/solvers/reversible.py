"""An algebraically reversible integrator, made of any Runge-Kutta method (McCallum and Foster 2024).

    y' = c y + (1 - c) z + P_h(z, t),    z' = z - P_-h(y', t + h)
    z = z' + P_-h(y', t + h),            y = [y' - (1 - c) z - P_h(z, t)] / c

with P_h the increment of one step. Two copies of the state, equal at the start, take turns; both have the method's
order. A step is undone in closed form, to rounding (which grows as c^-n over n steps), so that backpropagation keeps
the end of a trajectory alone: memory does not grow with the number of steps, for about three times the work. What is
undone exactly is the pair; of y alone the inverse is as good as that of the Runge-Kutta method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isingflow.flows.solvers.runge_kutta import Derivative, State, Tableau, increment

COUPLING = 0.99
"""c, below 1: the two copies relax towards each other; near 1: rounding hardly grows when steps are undone."""


@dataclass(frozen=True)
class Reversible:
    """A trajectory of a pair of states over given steps.

    Attributes:
        tableau: of the method for the increments.
        derivative: makes that of an interval; called with gradients enabled where they are wanted.
        intervals: start and end of every step, one after the other.
    """

    tableau: Tableau
    derivative: Callable[[tuple[float, float]], Derivative]
    intervals: Sequence[tuple[float, float]]

    def advance(self, interval: tuple[float, float], y: State, z: State) -> tuple[State, State]:
        """The pair after a step."""
        (start, end), derivative = interval, self.derivative(interval)
        up = increment(self.tableau, derivative, z, start, end - start)
        y = tuple(COUPLING * a + (1 - COUPLING) * b + c for a, b, c in zip(y, z, up, strict=True))
        return y, _minus(z, increment(self.tableau, derivative, y, end, start - end))

    def undo(self, interval: tuple[float, float], y: State, z: State) -> tuple[State, State]:
        """The pair before the step."""
        (start, end), derivative = interval, self.derivative(interval)
        down = increment(self.tableau, derivative, y, end, start - end)
        z = tuple(a + b for a, b in zip(z, down, strict=True))
        up = increment(self.tableau, derivative, z, start, end - start)
        return tuple((a - (1 - COUPLING) * b - c) / COUPLING for a, b, c in zip(y, z, up, strict=True)), z

    def integrate(self, state: State, parameters: Sequence[Tensor]) -> State:
        """The state at the end, differentiable by the start and by these parameters of the derivative.

        Example:
            >>> from isingflow.flows.solvers.runge_kutta import TABLEAUX
            >>> decay = Reversible(TABLEAUX["rk4"], lambda _: lambda y, t: (-y[0],), [(0.0, 0.5), (0.5, 1.0)])
            >>> round(decay.integrate((torch.ones(1),), [])[0].item(), 2)  # about 1/e
            0.37
        """
        return _Trajectory.apply(self, len(state), *state, *parameters)


class _Trajectory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, path: Reversible, count: int, *tensors: Tensor) -> State:
        y = z = tensors[:count]
        for interval in path.intervals:
            y, z = path.advance(interval, y, z)
        ctx.path, ctx.count = path, count
        ctx.save_for_backward(*y, *z, *tensors[count:])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        path, count, tensors = ctx.path, ctx.count, ctx.saved_tensors
        y, z, parameters = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        by_pair = (*cotangents, *map(torch.zeros_like, z))
        by_parameters: tuple[Tensor, ...] = tuple(map(torch.zeros_like, parameters))
        for interval in reversed(path.intervals):
            y, z = path.undo(interval, y, z)
            with torch.enable_grad():
                pair = [tensor.detach().requires_grad_() for tensor in (*y, *z)]
                after = path.advance(interval, tuple(pair[:count]), tuple(pair[count:]))
                outputs, weights = zip(
                    *((o, w) for o, w in zip((*after[0], *after[1]), by_pair, strict=True) if o.requires_grad),
                    strict=True,
                )
                found = torch.autograd.grad(outputs, [*pair, *parameters], weights, materialize_grads=True)
            by_pair = found[: 2 * count]
            by_parameters = tuple(map(torch.add, by_parameters, found[2 * count :]))
        by_start = map(torch.add, by_pair[:count], by_pair[count:])
        return None, None, *by_start, *by_parameters


def _minus(first: State, second: State) -> State:
    return tuple(a - b for a, b in zip(first, second, strict=True))
