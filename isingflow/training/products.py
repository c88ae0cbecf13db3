"""What is fitted in closed form after a training: products of functions of nearby sites, by least squares.

A short way along grad phi takes y to y + grad phi, and d = ln p + E, to first order in phi, to

    d - laplacian phi + grad phi . grad E.

The potential is linear in its coefficients C, and so is the change. KL(p | target) is half the variance of d where that
is small: the C that makes it least solves a linear system, whose matrix is gathered from samples of the flow. A ridge
is chosen by what a fit to either half of the samples leaves of the other half, and fresh samples have to say that the
flow has become better: otherwise C stays zero. (To fit again from where the map has taken its samples brought nothing.)

Of a family of flows C is a series in the temperature, C = sum_b C_b T_b(beta): still linear, and the variances at some
temperatures are wanted small in their own units, see `training.least_squares`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from isingflow.architectures.monge_ampere import PRODUCT_STEPS
from isingflow.flows import Flow
from isingflow.flows.products import FittedMap, fitted_map
from isingflow.potentials.base import pulled_back
from isingflow.runtime import stopping
from isingflow.runtime.parallel import Backend
from isingflow.targets.base import Target
from isingflow.training.least_squares import Moments, solution
from isingflow.training.schedules import FINAL_MARGIN, controlled_steps

logger = logging.getLogger(__name__)

OWN_PART, REFINEMENTS = 0.25, 4
"""Of a final flow's integration error, the part of the fitted map; and how often its steps are refined, at most."""
CALIBRATION = 256
"""Samples that tell the scales of the features, and the steps of the map."""
ROWS = 64
"""Samples in flight at a time."""
PER_TERM = 4
"""Samples for every coefficient, at least: of fewer nothing is fitted."""


class Fitted(NamedTuple):
    """What a fit has brought.

    Attributes:
        terms: coefficients that were fitted.
        samples: of the flow, that they were fitted to.
        before, after: mean of ln p + E over fresh samples, without and with the fitted map: an upper bound on -ln Z, of
            a family the mean of them over its temperatures.
    """

    terms: int
    samples: int
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Member:
    """A flow to fit for, at one temperature, with samples of it.

    Attributes:
        flow, target: p and E.
        fitted: the flow's map of products.
        start, log_prob: samples before that map, and their ln p there.
    """

    flow: Flow
    target: Target
    fitted: FittedMap
    start: Tensor
    log_prob: Tensor

    def fields(self, rows: Tensor) -> Tensor:
        """Some of the samples, in the shape of the potential's fields."""
        return rows.view(-1, *self.fitted.potential.shape)


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

    def choose(coefficients: Tensor) -> None:
        found.potential.choose(coefficients[0])

    one = torch.ones(1, 1, dtype=torch.float64)
    return fit_series([flow], [target], one, choose, samples, generator, pool, tolerance=tolerance)


@torch.no_grad()
def fit_series(
    flows: Sequence[Flow],
    targets: Sequence[Target],
    basis: Tensor,
    choose: Callable[[Tensor], None],
    samples: int,
    generator: torch.Generator,
    pool: Backend,
    *,
    tolerance: float,
) -> Fitted | None:
    """Fit the products of flows of one make, whose coefficients are a series.

    Args:
        flows, targets: of some temperatures.
        basis: of the series at these temperatures, float64, shape (temperatures, terms of the series).
        choose: gives the coefficients, shape (terms of the series, terms), to whoever keeps them; the flows have theirs
            already.
        samples, generator, pool, tolerance: as of `fit_products`; samples of all flows together.

    Returns:
        As `fit_products`.
    """
    maps = [found for flow in flows if (found := fitted_map(flow)) is not None]
    for found in maps:
        found.potential.rest()
    terms = maps[0].potential.terms * basis.shape[1] if maps else 0
    if not maps or samples < PER_TERM * terms:
        return None
    logger.info("fitting %d products of nearby sites to %d samples of the trained flow", terms, samples)
    each = samples // len(flows)
    makes = list(zip(flows, targets, maps, strict=True))
    members = [_member(*make, each, generator, pool) for make in makes]
    _calibrate(members, pool)
    halves = [_moments(member, pool) for member in members]
    if all(bool(part.products.isfinite().all()) for pair in halves for part in pair):
        coefficients = solution(halves, basis)
        fresh = [_member(*make, max(each // 4, ROWS * pool.world), generator, pool) for make in makes]
        bounds = _narrowed(fresh, basis @ coefficients, pool, tolerance)
        if bounds is not None:
            choose(coefficients)
            return Fitted(terms, samples, *bounds)
    logger.info("products of nearby sites would not narrow the bound on fresh samples: they are left out")
    return None


@torch.no_grad()
def take_products(
    flow: Flow,
    target: Target,
    smaller: Flow,
    fitted: Fitted,
    generator: torch.Generator,
    pool: Backend,
    *,
    tolerance: float,
) -> Fitted | None:
    """Give a flow the products that were fitted to that of half the lengths, if they narrow its bound as well.

    Args:
        flow, target, generator, pool, tolerance: as of `fit_products`.
        smaller: a flow with products of the same features and displacements.
        fitted: what they have brought there.

    Returns:
        What they bring here; None where that is nothing, and the products rest.
    """
    found, source = fitted_map(flow), fitted_map(smaller)
    if found is None or source is None:
        return None
    found.potential.rest()
    found.potential.scales.copy_(source.potential.scales)
    fresh = _member(flow, target, found, ROWS * pool.world, generator, pool)
    bounds = _narrowed([fresh], source.potential.chosen[None], pool, tolerance)
    if bounds is None:
        logger.info("products fitted on half the lengths would not narrow the bound here: they are left out")
        return None
    return fitted._replace(before=bounds[0], after=bounds[1])


def _member(
    flow: Flow, target: Target, fitted: FittedMap, samples: int, generator: torch.Generator, pool: Backend
) -> Member:
    """A flow with new samples, of which this process has its share."""
    latent = fitted.inner.noise(samples // pool.world, generator)
    return Member(flow, target, fitted, *_pushed(fitted.inner, latent, pool))


def _narrowed(members: Sequence[Member], chosen: Tensor, pool: Backend, tolerance: float) -> tuple[float, float] | None:
    """Give flows their coefficients, shape (members, terms), if that narrows the mean of their bounds.

    Returns:
        The mean bound before and after, on the members' samples; None where the products rest.
    """

    def bounds() -> list[Tensor]:
        return [pool.gather(torch.cat(_values(member, pool))) for member in members]

    before = bounds()
    for member, row in zip(members, chosen, strict=True):
        member.fitted.potential.choose(row)
    _integrate_finely(members, tolerance, pool)
    change = torch.stack([(now - old).mean() for now, old in zip(bounds(), before, strict=True)]).mean()
    if change < 0:
        bound = float(torch.stack([part.mean() for part in before]).mean())
        logger.info("products of nearby sites: %+.3g nats", change)
        return bound, bound + float(change)
    for member in members:
        member.fitted.potential.rest()
    return None


def _pushed(flow: Flow, latent: Tensor, pool: Backend) -> tuple[Tensor, Tensor]:
    """Images of noise and their ln p."""

    def share(z: Tensor) -> list[tuple[Tensor, ...]]:
        return [(*flow(rows), flow.base_log_prob(rows)) for rows in z.split(ROWS)]

    parts = [part for parts in pool.run(lambda: pool.map(share, latent)) for part in parts]
    fields, logdets, base = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return fields, base - logdets


def _values(member: Member, pool: Backend) -> list[Tensor]:
    """ln p + E of all samples, behind the map as it is now, in parts."""

    def share(chosen: Tensor) -> Tensor:
        return torch.cat([_value(member, rows) for rows in chosen.split(ROWS)])

    return pool.run(lambda: pool.map(share, torch.arange(len(member.start))))


def _value(member: Member, rows: Tensor) -> Tensor:
    stopping.check()
    start = member.start[rows]
    y, logdet = member.fitted.gradient(member.fields(start))
    x, outer = member.fitted.outer(y.view(start.shape))
    return member.log_prob[rows] + member.target.energy(x.double()) - logdet - outer


def _calibrate(members: Sequence[Member], pool: Backend) -> None:
    """Give all potentials the same scales."""
    squares = [member.fitted.potential.squares(member.fields(member.start[:CALIBRATION])) for member in members]
    (total,) = pool.sum([sum(squares[1:], squares[0])])
    for member in members:
        member.fitted.potential.calibrate(total / (len(members) * pool.world))


def _moments(member: Member, pool: Backend) -> tuple[Moments, Moments]:
    """Those of the two halves of the samples."""
    potential, start = member.fitted.potential, member.start

    def share(chosen: Tensor) -> Tensor:
        size = potential.terms + 2
        sums = torch.zeros(2, size, size, dtype=torch.float64)
        for rows in chosen.split(ROWS):
            stopping.check()
            energy, slope = _energy_and_slope(member.fitted.outer, member.target, start[rows])
            responses = potential.responses(member.fields(start[rows]), member.fields(slope))
            d = member.log_prob[rows] + energy
            entries = torch.cat([torch.ones_like(d)[:, None], responses.double(), d[:, None]], 1).cpu()
            for half in (0, 1):
                own = entries[rows % 2 == half]
                sums[half] += own.T @ own
        return sums

    shares = pool.run(lambda: pool.map(share, torch.arange(len(start))))
    (total,) = pool.sum([sum(shares[1:], shares[0])])
    return Moments(total[0]), Moments(total[1])


def _integrate_finely(members: Sequence[Member], tolerance: float, pool: Backend) -> None:
    """Give all maps of products as many steps as they need, whatever the rest of a flow needs."""

    def values(member: Member, steps: int) -> Tensor:
        member.fitted.gradient.steps = steps
        return _value(member, torch.arange(len(member.start))[:CALIBRATION])

    def error(member: Member, steps: int) -> float:
        change = pool.gather(pool.run(lambda: values(member, steps) - values(member, 2 * steps)))
        return float(change.abs().mean().nan_to_num(nan=math.inf))

    steps, allowed = PRODUCT_STEPS, OWN_PART * FINAL_MARGIN * tolerance
    for _ in range(REFINEMENTS):
        worst = max(error(member, steps) for member in members)
        if worst <= allowed:
            break
        steps = controlled_steps(steps, worst, allowed, members[0].fitted.gradient.order)
    for member in members:
        member.fitted.gradient.steps = steps


def _energy_and_slope(outer: Flow, target: Target, y: Tensor) -> tuple[Tensor, Tensor]:
    """E(x) - ln |det dx/dy| for x = outer(y), which is the energy of y, and its gradient by y."""
    with torch.enable_grad():
        point = y.detach().requires_grad_()
        x, logdet = outer(point)
        energy, force = target.energy_and_force(x.detach())
        slope = pulled_back((x, logdet), (-force.to(x), -torch.ones_like(logdet)), point)
    return energy.double() - logdet.detach(), slope
