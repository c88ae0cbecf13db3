"""Minimisation of many convex functions at once by L-BFGS (Nocedal 1980), every sample with its own steps.

All samples of a batch advance together, but a step is accepted, halved or refused for each of them alone, and those
that have converged stay where they are. Convexity makes every pair of a step and its change of gradient usable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isingflow.runtime import stopping

Function = Callable[[Tensor], tuple[Tensor, Tensor]]
"""z, shape (n, d), to values, shape (n,), and gradients, shape (n, d)."""

HISTORY = 10
"""Pairs of steps and changes of the gradient that the inverse Hessian is built from."""
DECREASE = 1e-4
"""Part of the decrease promised by the slope that a step must make (Armijo)."""
HALVINGS = 30
SLACK = 16
"""Rounding of the values, in units of machine epsilon: near the minimum they cannot tell better from worse."""


@dataclass(frozen=True)
class Minimum:
    """Attributes:
    points: z, shape (n, d).
    residuals: norm of the gradient over that of its scale, shape (n,).
    iterations: steps that each sample took, shape (n,).
    """

    points: Tensor
    residuals: Tensor
    iterations: Tensor


@torch.no_grad()
def minimise(function: Function, start: Tensor, scale: Tensor, *, tolerance: float, iterations: int) -> Minimum:
    """Points where the gradient's norm is at most tolerance * scale; the residuals tell where it is not.

    Args:
        function: strictly convex for every sample.
        start: shape (n, d).
        scale: of the gradients, shape (n,).
        tolerance: relative to the scale.
        iterations: most of them.

    Example:
        >>> centre = torch.tensor([[1.0, 2.0]])
        >>> bowl = lambda z: (2 * (z - centre).square().sum(1), 4 * (z - centre))
        >>> minimise(bowl, torch.zeros(1, 2), torch.ones(1), tolerance=1e-6, iterations=50).points
        tensor([[1., 2.]])
    """
    z = start
    value, gradient = function(z)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
    shrink = torch.ones_like(value)
    counts = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    for _ in range(iterations):
        stopping.check()
        residuals = gradient.norm(dim=1) / scale
        active = residuals > tolerance
        if not active.any():
            break
        counts = counts + active
        direction = -_preconditioned(gradient, pairs, shrink)
        slope = (gradient * direction).sum(1)
        moved, value, renewed = _step(function, z, value, gradient, direction, slope, active)
        change = renewed - gradient
        step = moved - z
        curvature = (step * change).sum(1)
        usable = curvature > torch.finfo(z.dtype).tiny
        pairs.append((step, change, torch.where(usable, 1 / curvature, 0.0)))
        shrink = torch.where(usable, curvature / change.square().sum(1), shrink)
        z, gradient = moved, renewed
    return Minimum(z, gradient.norm(dim=1) / scale, counts)


def _preconditioned(gradient: Tensor, pairs: deque, shrink: Tensor) -> Tensor:
    """The inverse Hessian's estimate times the gradient, by the two loops."""
    q, weights = gradient, []
    for step, change, inverse in reversed(pairs):
        weight = inverse * (step * q).sum(1)
        q = q - weight[:, None] * change
        weights.append(weight)
    q = shrink[:, None] * q
    for (step, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
        q = q + (weight - inverse * (change * q).sum(1))[:, None] * step
    return q


def _step(
    function: Function,
    z: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
    slope: Tensor,
    active: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Point, value and gradient after a step that is halved until it is accepted; refused steps stay at z."""
    length = torch.ones_like(value)
    pending = active
    moved, new_value, new_gradient = z, value, gradient
    slack = SLACK * torch.finfo(z.dtype).eps * (1 + value.abs())
    for _ in range(HALVINGS):
        trial = torch.where(pending[:, None], z + length[:, None] * direction, moved)
        trial_value, trial_gradient = function(trial)
        accepted = pending & (trial_value <= value + DECREASE * length * slope + slack)
        moved = torch.where(accepted[:, None], trial, moved)
        new_value = torch.where(accepted, trial_value, new_value)
        new_gradient = torch.where(accepted[:, None], trial_gradient, new_gradient)
        pending = pending & ~accepted
        if not pending.any():
            break
        length = torch.where(pending, length / 2, length)
    return moved, new_value, new_gradient
