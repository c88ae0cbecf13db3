"""How good the paths of a flow are: short, straight, reversible, and integrated in few steps.

    transport cost      E[int |dx/dt|^2 / 2 dt]
    straightness        E[path length / distance between the ends] >= 1, with equality for straight paths
    inverse error       E[|z - f^-1(f(z))| / |z|]
    steps needed        the fewest with E[|change of ln p at half the step|] within a tolerance

Only gradient flows have paths; the other maps of a chain move samples between them at no cost. Nothing here keeps a
graph, and flows are left as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows.base import Flow, approximations
from isingflow.runtime.checks import count, instance, number
from isingflow.statistics.estimate import Estimate

MOST_STEPS = 1024
"""Steps at which `steps_needed` gives up."""


def transport_cost(flow: Flow, latent: Tensor) -> Estimate:
    """E[int |dx/dt|^2 / 2 dt] over the noise given.

    Args:
        flow: integrated with its own steps.
        latent: z, shape (n, *shape), n at least 2.
    """
    with _frozen(flow):
        return _mean(flow.forward_with_cost(latent)[2].transport)


def hjb_residual(flow: Flow, latent: Tensor) -> Estimate:
    """E[int |d phi/dt + |grad phi|^2 / 2| dt] over the noise given.

    Raises:
        InvalidInput: a potential has no derivative by time in closed form.
    """
    with _frozen(flow):
        return _mean(flow.forward_with_cost(latent, hjb=True)[2].hjb)


def trajectories(flow: Flow, latent: Tensor, *, refinement: int = 4) -> list[Tensor]:
    """The path of every sample through each gradient flow of a chain, in the coordinates of x.

    Positions are mapped on by all later maps that have no path themselves, such as the closed-form ones that lead from
    whitened coordinates to the field. So a path ends where the next begins, and the last at flow(z).

    Args:
        flow: from z to x.
        latent: z, shape (n, *shape).
        refinement: points per integration step, at least 1.

    Returns:
        For every gradient flow positions of shape (points, n, *shape), from its start to its end.

    Example:
        >>> from isingflow.flows import GradientFlow
        >>> from isingflow.potentials import DensePotential
        >>> generator = torch.Generator().manual_seed(0)
        >>> flow = Flow((2,), [GradientFlow(DensePotential((2,), 8, generator=generator), steps=3)])
        >>> [path.shape for path in trajectories(flow, flow.noise(5, generator))]
        [torch.Size([13, 5, 2])]
    """
    latent = _of(flow).taken("latent", latent)
    with _frozen(flow):
        ways = _ways(flow, latent, refinement)
        found = []
        for index, way in enumerate(ways):
            if way is None:
                continue
            points = way.flatten(0, 1)
            for later, transform in zip(ways[index + 1 :], flow.transforms[index + 1 :], strict=True):
                points = transform(points)[0] if later is None else points
            found.append(points.view(way.shape))
    return found


def straightness(flow: Flow, latent: Tensor, *, refinement: int = 4) -> Estimate:
    """E[path length / distance], lengths and distances each summed over the gradient flows; 1 where nothing moves.

    Args:
        flow, latent, refinement: as in `trajectories`; lengths are those of the polygons through its points, in the
            coordinates in which each gradient flow acts.
    """
    latent = _of(flow).taken("latent", latent)
    length = distance = torch.zeros(len(latent), dtype=torch.float64, device=latent.device)
    with _frozen(flow):
        ways = _ways(flow, latent, refinement)
    for path in (way.double().flatten(2) for way in ways if way is not None):
        length = length + (path[1:] - path[:-1]).norm(dim=2).sum(0)
        distance = distance + (path[-1] - path[0]).norm(dim=1)
    return _mean(torch.where(length > 0, length / distance, 1.0))


def inverse_error(flow: Flow, latent: Tensor) -> Estimate:
    """E[|z - f^-1(f(z))| / |z|] over the noise given, shape (n, *shape)."""
    latent = _of(flow).taken("latent", latent)
    with _frozen(flow):
        back = flow.inverse(flow(latent)[0])[0]
    error = (back.double() - latent.double()).flatten(1).norm(dim=1)
    return _mean(error / latent.double().flatten(1).norm(dim=1))


def steps_needed(flow: Flow, x: Tensor, tolerance: float) -> int:
    """The fewest steps per gradient flow with an integration error of ln p(x) within a tolerance.

    The error is the mean absolute change of ln p(x) at half the step. Found by doubling, then by bisection.

    Args:
        flow: whose gradient flows all get the same number of steps; restored afterwards.
        x: data or samples, shape (n, *shape).
        tolerance: in nats, positive.

    Raises:
        InvalidInput: the tolerance is not positive, or not even `MOST_STEPS` steps are enough.
    """
    tolerance, x = number("tolerance", tolerance, above=0), _of(flow).taken("x", x)

    def error(steps: int) -> float:
        with _frozen(flow, steps):
            coarse = flow.log_prob(x)
        with _frozen(flow, 2 * steps):
            change = (flow.log_prob(x) - coarse).abs().mean().item()
        return change if math.isfinite(change) else math.inf

    high = 1
    while error(high) > tolerance:
        high *= 2
        if high > MOST_STEPS:
            raise InvalidInput(f"{MOST_STEPS} steps leave an integration error above {tolerance:g} nats")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= tolerance else (middle, high)
    return high


def _of(flow: Flow) -> Flow:
    return instance("flow", flow, Flow, "a Flow")


def _ways(flow: Flow, latent: Tensor, refinement: int) -> list[Tensor | None]:
    """The path through each map of a chain in the coordinates in which it acts; None of those without one."""
    refinement = count("refinement", refinement, most=MOST_STEPS)
    ways = []
    for transform in flow.transforms:
        way = transform.path(latent, refinement)
        latent = transform(latent)[0] if way is None else way[-1]
        ways.append(way)
    return ways


@contextmanager
def _frozen(flow: Flow, steps: int | None = None) -> Iterator[None]:
    """Without gradients, on regular grids, of as many steps as asked for."""
    parts = approximations(_of(flow))
    usual, training = [part.steps for part in parts], flow.training
    flow.eval()
    try:
        for part in parts:
            part.steps = steps or part.steps
        with torch.no_grad():
            yield
    finally:
        for part, number in zip(parts, usual, strict=True):
            part.steps = number
        flow.train(training)


def _mean(values: Tensor) -> Estimate:
    if len(values) < 2:
        raise InvalidInput(f"{len(values)} samples: an error bar needs at least 2")
    return Estimate(values.mean().item(), values.std().item() / math.sqrt(len(values)))
