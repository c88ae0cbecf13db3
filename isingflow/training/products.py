"""What is fitted in closed form after a training: products of functions of nearby sites, by least squares.

A short way along grad phi takes y to y + grad phi, and d = ln p + E, to first order in phi, to

    d - laplacian phi + grad phi . grad E.

The potential is linear in its coefficients C, and so is the change. KL(p | target) is half the variance of d where that
is small: the C that makes it least solves a linear system, whose matrix is gathered from samples of the flow. A ridge
is chosen by what a fit to either half of the samples leaves of the other half, and fresh samples have to say that the
flow has become better: otherwise C stays zero. (To fit again from where the map has taken its samples brought nothing.)
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from isingflow.architectures.monge_ampere import PRODUCT_STEPS
from isingflow.flows import Flow, GradientFlow, gradient_flows
from isingflow.potentials import ProductPotential
from isingflow.potentials.base import pulled_back
from isingflow.runtime import stopping
from isingflow.runtime.parallel import Backend
from isingflow.targets.base import Target
from isingflow.training.schedules import FINAL_MARGIN, controlled_steps

logger = logging.getLogger(__name__)

RIDGES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Added to the matrix in units of the terms' variances; of several as good the largest is taken."""
CALIBRATION = 256
"""Samples that tell the scales of the features."""
ROWS = 64
"""Samples in flight at a time."""
OWN_PART, REFINEMENTS = 0.25, 4
"""Of a final flow's integration error, the part of the fitted map; and how often its steps are refined, at most."""
PER_TERM = 4
"""Samples for every coefficient, at least: of fewer nothing is fitted."""


class Fitted(NamedTuple):
    """What a fit has brought.

    Attributes:
        terms: coefficients that were fitted.
        samples: of the flow, that they were fitted to.
        before, after: mean of ln p + E over fresh samples, without and with the fitted map: an upper bound on -ln Z.
    """

    terms: int
    samples: int
    before: float
    after: float


@dataclass
class Moments:
    """Sums over samples: their number, of the rows (1, responses, d), shape (n, terms + 2), their products."""

    products: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.products + other.products)

    @property
    def covariance(self) -> Tensor:
        """Of responses and d, shape (terms + 1, terms + 1)."""
        n, sums = self.products[0, 0], self.products[0, 1:]
        return self.products[1:, 1:] / n - torch.outer(sums, sums) / n**2

    def solved(self, ridge: float) -> Tensor:
        """The coefficients that leave the least variance of d, shape (terms,)."""
        matrix, aim = self.covariance[:-1, :-1], self.covariance[:-1, -1]
        sizes = matrix.diagonal().sqrt().clamp_min(1e-30)
        scaled = matrix / torch.outer(sizes, sizes) + ridge * torch.eye(len(sizes), dtype=matrix.dtype)
        return -torch.linalg.solve(scaled, aim / sizes) / sizes

    def left(self, coefficients: Tensor) -> float:
        """The variance of d + responses . coefficients."""
        weights = torch.cat([coefficients, torch.ones(1, dtype=coefficients.dtype)])
        return float(weights @ self.covariance @ weights)


def fitted_map(flow: Flow) -> tuple[int, GradientFlow, ProductPotential] | None:
    """The place of a flow's products, their map and their potential; None where it has none."""
    for place, transform in enumerate(flow.transforms):
        for part in gradient_flows(transform):
            if isinstance(part.potential, ProductPotential):
                return place, part, part.potential
    return None


def rest_products(flow: Flow) -> None:
    """Take back what was fitted."""
    found = fitted_map(flow)
    if found is not None:
        found[2].rest()


@torch.no_grad()
def fit_products(
    flow: Flow, target: Target, samples: int, generator: torch.Generator, pool: Backend, *, tolerance: float
) -> Fitted | None:
    """Fit the products of a trained flow, if it has some.

    Args:
        flow: trained; the coefficients of its `ProductPotential` are set.
        target: E.
        samples: of the flow to fit to; too few for the number of terms fit nothing.
        generator: of their noise.
        pool: shares the samples.
        tolerance: integration error that the whole flow may have, in nats; the fitted map alone has a part of it.

    Returns:
        What it has brought; None where nothing was fitted, and the products rest.
    """
    found = fitted_map(flow)
    if found is None:
        return None
    place, products, potential = found
    potential.rest()
    if samples < PER_TERM * potential.terms:
        return None
    products.steps = PRODUCT_STEPS
    inner, outer = (Flow(flow.shape, list(part)) for part in (flow.transforms[:place], flow.transforms[place + 1 :]))
    latent = flow.noise(pool.share(samples), generator)
    start, log_prob = pool.run(lambda: _pushed(inner, latent, pool))
    (squares,) = pool.sum([potential.squares(start[:CALIBRATION].view(-1, *potential.shape))])
    potential.calibrate(squares / pool.world)
    halves = _moments(potential, outer, target, start, log_prob, pool)
    fresh = flow.noise(max(samples // (4 * pool.world), ROWS), generator)
    before = _bound(flow, target, fresh, pool)
    if all(bool(half.products.isfinite().all()) for half in halves):
        potential.choose(_solution(*halves))
        _integrate_finely(products, outer, target, start[:CALIBRATION], tolerance, pool)
    change = _bound(flow, target, fresh, pool) - before
    better = bool(change.isfinite().all()) and float(change.mean()) < 0
    logger.info(
        "%d products of nearby sites, fitted to %d samples: ln p + E changes by %.3g nats on fresh ones%s",
        potential.terms,
        samples,
        float(change.mean()),
        "" if better else ", so that they are left out",
    )
    if not better:
        potential.rest()
        return None
    return Fitted(potential.terms, samples, float(before.mean()), float((before + change).mean()))


def _pushed(flow: Flow, latent: Tensor, pool: Backend) -> tuple[Tensor, Tensor]:
    """Images of noise and their ln p."""

    def share(z: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(*flow(rows), flow.base_log_prob(rows)) for rows in z.split(ROWS)]

    parts = [part for parts in pool.map(share, latent) for part in parts]
    fields, logdets, base = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return fields, base - logdets


def _bound(flow: Flow, target: Target, latent: Tensor, pool: Backend) -> Tensor:
    """ln p + E of samples."""
    fields, log_prob = pool.run(lambda: _pushed(flow, latent, pool))
    return pool.gather(log_prob + target.energy(fields.double()))


def _moments(
    potential: ProductPotential, outer: Flow, target: Target, start: Tensor, log_prob: Tensor, pool: Backend
) -> tuple[Moments, Moments]:
    """Those of the two halves of the samples."""
    indices = torch.arange(len(start))

    def share(chosen: Tensor) -> Tensor:
        size = potential.terms + 2
        sums = torch.zeros(2, size, size, dtype=torch.float64)
        for rows in chosen.split(ROWS):
            stopping.check()
            energy, slope = _energy_and_slope(outer, target, start[rows])
            within = len(rows), *potential.shape
            responses = potential.responses(start[rows].view(within), slope.view(within))
            d = log_prob[rows] + energy
            entries = torch.cat([torch.ones_like(d)[:, None], responses.double(), d[:, None]], 1).cpu()
            for half in (0, 1):
                own = entries[rows % 2 == half]
                sums[half] += own.T @ own
        return sums

    shares = pool.run(lambda: pool.map(share, indices))
    (total,) = pool.sum([sum(shares, torch.zeros(()))])
    return Moments(total[0]), Moments(total[1])


def _integrate_finely(
    products: GradientFlow, outer: Flow, target: Target, start: Tensor, tolerance: float, pool: Backend
) -> None:
    """Give the map of products as many steps as it needs, whatever the rest of the flow needs."""

    def excess(steps: int) -> Tensor:
        products.steps = steps
        y, logdet = products(start.view(-1, *products.potential.shape))
        x, outer_logdet = outer(y.view(start.shape))
        return target.energy(x.double()) - logdet - outer_logdet

    def halved(steps: int) -> Tensor:
        return excess(steps) - excess(2 * steps)

    steps, allowed = PRODUCT_STEPS, OWN_PART * FINAL_MARGIN * tolerance
    for _ in range(REFINEMENTS):
        change = pool.gather(pool.run(partial(halved, steps)))
        error = float(change.abs().mean().nan_to_num(nan=math.inf))
        if error <= allowed:
            break
        steps = controlled_steps(steps, error, allowed, products.order)
    products.steps = steps


def _energy_and_slope(outer: Flow, target: Target, y: Tensor) -> tuple[Tensor, Tensor]:
    """E(x) - ln |det dx/dy| for x = outer(y), which is the energy of y, and its gradient by y."""
    with torch.enable_grad():
        point = y.detach().requires_grad_()
        x, logdet = outer(point)
        energy, force = target.energy_and_force(x.detach())
        slope = pulled_back((x, logdet), (-force.to(x), -torch.ones_like(logdet)), point)
    return energy.double() - logdet.detach(), slope


def _solution(first: Moments, second: Moments) -> Tensor:
    """The coefficients fitted to all samples, by that ridge which serves best from either half to the other."""

    def left(ridge: float) -> float:
        return second.left(first.solved(ridge)) + first.left(second.solved(ridge))

    return (first + second).solved(min(RIDGES, key=left))
