"""Minimisation of many strongly convex functions at once by Newton's method, every sample with its own steps.

For few dimensions, where Hessians are cheap: near the minimum the number of right digits doubles with every step. A
step that lowers the value too little is halved, and so is one that overshoots the minimum along its direction by far:
across a kink the value falls a little, and the next step leads back, for ever. One evaluation serves all samples that
have not converged, whatever they do.

A point far away cannot be written down more precisely than its distance allows, and times a large curvature that is a
gradient above any tolerance. So a point has also converged where a step fails that is lost in its rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isingflow.flows.solvers import small
from isingflow.flows.solvers.lbfgs import DECREASE, SLACK, Minimum

CURVATURE = 0.5
"""Largest steepness behind the minimum along a direction, in units of that before it."""
ROUNDING = 4
"""Length of a step that is none, in units of machine epsilon and of the point's distance from the origin."""

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Points z, shape (m, d), and which samples they belong to, shape (m,), to values, gradients and Hessians."""


@torch.no_grad()
def minimise(function: Function, start: Tensor, scale: Tensor, *, tolerance: float, iterations: int) -> Minimum:
    """Points where the gradient's norm is at most tolerance * scale; the residuals tell where it is not.

    They are zero where all that is left of the gradient is the rounding of the point.

    Args:
        function: strictly convex for every sample.
        start: shape (n, d).
        scale: of the gradients, shape (n,).
        tolerance: relative to the scale.
        iterations: most evaluations after the first.

    Example:
        >>> centre = torch.tensor([[1.0, 2.0]])
        >>> bowl = lambda z, rows: (2 * (z - centre).square().sum(1), 4 * (z - centre), 4 * torch.eye(2)[None])
        >>> least = minimise(bowl, torch.zeros(1, 2), torch.ones(1), tolerance=1e-6, iterations=5)
        >>> least.points, least.iterations
        (tensor([[1., 2.]]), tensor([1]))
    """
    rows = torch.arange(len(start), device=start.device)
    points, residuals, counts = start.clone(), torch.empty_like(scale), torch.zeros_like(rows)
    value, gradient, hessian = function(start, rows)
    state = [start, value, gradient, _direction(hessian, gradient), torch.ones_like(value)]
    for iteration in range(iterations + 1):
        z, _, gradient, direction, length = state
        failed = (length < 1) | (iteration == iterations)
        settled = failed & (direction.norm(dim=1) <= ROUNDING * torch.finfo(z.dtype).eps * z.norm(dim=1))
        residual = (gradient.norm(dim=1) / scale[rows]).masked_fill(settled, 0.0)
        points[rows], residuals[rows], counts[rows] = z, residual, iteration
        active = ~(residuals[rows] <= tolerance)
        if iteration == iterations or not active.any():
            break
        rows = rows[active]
        z, value, gradient, direction, length = (part[active] for part in state)
        trial = z - length[:, None] * direction
        found, slope, hessian = function(trial, rows)
        steepness = (gradient * direction).sum(1)
        short = (slope * direction).sum(1) >= -CURVATURE * steepness
        wanted = value - DECREASE * length * steepness
        slack = SLACK * torch.finfo(z.dtype).eps * (1 + value.abs())
        better = short & (found <= wanted + slack)
        moved = better[:, None]
        state = [
            torch.where(moved, trial, z),
            torch.where(better, found, value),
            torch.where(moved, slope, gradient),
            torch.where(moved, _direction(hessian, slope), direction),
            torch.where(better, 1.0, length / 2),
        ]
    return Minimum(points, residuals, counts)


def _direction(hessian: Tensor, gradient: Tensor) -> Tensor:
    """The gradient divided by the Hessian."""
    if hessian.shape[-1] <= small.LARGEST:
        return small.solve(hessian, gradient)
    return torch.linalg.solve(hessian, gradient)
