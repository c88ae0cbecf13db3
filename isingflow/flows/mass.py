"""Whether a flow is a density: its total mass, and how well its inverse returns.

Where ln p(x) comes from the inverse map g and its log-determinant, both in finitely many steps, p need not integrate to
one. With x = f(z) of the flow's own samples and the exact Jacobian of f as it is computed,

    mass = int p(x) dx = int p(f(z)) |det df/dz| dz = int N(z) [p(f(z)) |det df/dz| / N(z)] dz

whose bracket is one up to what is wrong with g. It is smooth and the Gaussian falls to zero, so the trapezoid rule on a
grid of z finds the deviation from one to many digits, however narrow the features of p are. In one or two dimensions;
in more, grids have no room.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from isingflow.errors import InvalidInput, NotConverged
from isingflow.flows.base import Flow
from isingflow.flows.diagnostics import inverse_error

LARGEST = 2
"""Dimensions in which the mass is found."""
REACH, POINTS = 5.0, {1: 257, 2: 65}
"""Of the grid of z: radius, beyond which less than 4e-6 of the noise is, and points along an axis."""
BATCH = 1024


class Defect(NamedTuple):
    """How far a flow is from being a density.

    Attributes:
        mass: int p(x) dx; None in more than two dimensions.
        inverse_error: relative distance of noise from its image under the flow and its inverse.
        nats: the larger of |mass - 1| and what the inverse error can change in the mean of ln N(z): noise z that is
            moved by a part e of its length has a density that changes by e |z|^2, d e in the mean.
    """

    mass: float | None
    inverse_error: float
    nats: float


def defect(flow: Flow, samples: int, seed: int = 0) -> Defect:
    """What is wrong with a flow as a density.

    Args:
        flow: with fields of shape (d,); as it is, in evaluation mode.
        samples: of noise, for the inverse error.
        seed: of the noise.

    Example:
        >>> from isingflow.flows import GaussianWhitening
        >>> gaussian = Flow((2,), [GaussianWhitening(torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])))])
        >>> round(defect(gaussian, 8).mass, 5)
        1.0
    """
    training = flow.training
    flow.eval()
    try:
        latent = flow.noise(samples, torch.Generator(flow.device).manual_seed(seed))
        returned = inverse_error(flow, latent).value
        found = mass(flow) if flow.dimension <= LARGEST else None
    except NotConverged:
        return Defect(None, math.inf, math.inf)
    finally:
        flow.train(training)
    returned = returned if math.isfinite(returned) else math.inf
    return Defect(found, returned, max(flow.dimension * returned, 0.0 if found is None else abs(found - 1)))


def mass(flow: Flow) -> float:
    """The integral of the density of a flow over a line or a plane; infinite where it has values that are no numbers.

    Args:
        flow: with fields of shape (1,) or (2,).

    Raises:
        InvalidInput: in more dimensions.
    """
    if flow.dimension not in POINTS:
        raise InvalidInput(f"the total mass is found in one or two dimensions, not in {flow.dimension}")
    axis = torch.linspace(-REACH, REACH, POINTS[flow.dimension], device=flow.device)
    grid = torch.cartesian_prod(*[axis] * flow.dimension).view(-1, flow.dimension)
    grid = grid[grid.norm(dim=1) <= REACH + 1e-4]
    weights = flow.base_log_prob(grid).exp()
    ratios = torch.cat([_ratio(flow, z) for z in grid.split(BATCH)])
    found = float((weights * ratios).sum() / weights.sum())
    return found if math.isfinite(found) else math.inf


def _ratio(flow: Flow, latent: Tensor) -> Tensor:
    """p(f(z)) det df/dz / N(z), float64, shape (n,)."""
    with torch.enable_grad():
        z = latent.detach().requires_grad_()
        field, _ = flow(z)
        rows = [torch.autograd.grad(column.sum(), z, retain_graph=True)[0] for column in field.unbind(1)]
    with torch.no_grad():
        determinant = torch.linalg.det(torch.stack(rows, 1).double())
        return (flow.log_prob(field.detach()) - flow.base_log_prob(latent)).exp() * determinant
