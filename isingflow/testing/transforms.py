"""The laws of transforms and flows: each direction against the other, log-determinants against autograd's Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from isingflow.flows.base import Flow, Transform
from isingflow.lattice.symmetry import Group
from isingflow.runtime.checks import instance, lengths
from isingflow.testing.laws import Judge, check, generator, normal, rebuilt, shaken, single, slope
from isingflow.testing.potentials import compare_images, demand_use

SAMPLES = 3
"""Points that laws are checked on where none are given."""
STEP = 1e-3
"""Of differences along a random direction of points and parameters."""
GRIDS = {1: (0.1, 10.0), 2: (0.2, 8.0), 3: (0.5, 6.0), 4: (1.1, 4.4)}
"""Spacing and reach of the grid that a density is integrated on, by dimension, in standard deviations."""
GAUGE = 4000
"""Samples from which the grid's axes are found."""


def jacobians(map_of: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """dx/dz of every sample, shape (n, N, N), by autograd: N copies, each differentiated by another entry.

    Example:
        >>> jacobians(lambda z: 3 * z, torch.zeros(1, 2))
        tensor([[[3., 0.],
                 [0., 3.]]])
    """
    n, sites = len(z), z[0].numel()
    copies = z.detach().repeat(sites, *[1] * (z.ndim - 1)).requires_grad_()
    entries = torch.arange(sites, device=z.device).repeat_interleave(n)[:, None]
    picked = map_of(copies).flatten(1).gather(1, entries)
    rows = torch.autograd.grad(picked.sum(), copies)[0]
    return rows.view(sites, n, sites).transpose(0, 1)


@dataclass(frozen=True)
class _Map:
    """What the laws of a transform are checked on; a flow is one, too.

    Attributes:
        tolerance: relative error of the map itself, zero if nothing but rounding.
    """

    map: Transform | Flow
    unmoved: Transform | Flow
    other: Transform | Flow | None
    z: Tensor
    symmetry: Group | None
    tolerance: float
    seed: int

    @cached_property
    def image(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.map(self.z)

    @cached_property
    def preimage(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.map.inverse(self.image[0])

    @property
    def inputs(self) -> list[Tensor]:
        return [self.z, *self.map.parameters()]

    def off(self, *tensors: Tensor) -> float:
        """How far results of this size may be off by the map's own error."""
        return self.tolerance * max([1.0, *(float(tensor.detach().abs().max()) for tensor in tensors)])


def _shapes(judge: Judge, on: _Map) -> None:
    n = on.z.shape[:1]
    for one, dtype in ((on.map, torch.float64), (single(on.map), torch.float32)):
        z = on.z.detach().to(dtype)
        x, logdet, costs = one.forward_with_cost(z)
        back, back_logdet, back_costs = one.inverse_with_cost(x)
        judge.like("the image", x, z.shape, dtype)
        judge.like("the preimage", back, z.shape, dtype)
        for what, number in (("the log-determinant", logdet), ("the log-determinant of the inverse", back_logdet)):
            judge.like(what, number, n, torch.float64)
            judge.finite(what, number)
        for cost in (*costs, *back_costs):
            judge.like("the cost of a path", cost, n, torch.float64)


def _costs(judge: Judge, on: _Map) -> None:
    with torch.no_grad():
        judge.equal("forward() and forward_with_cost()", on.map.forward_with_cost(on.z)[:2], on.image)
        judge.equal("inverse() and inverse_with_cost()", on.map.inverse_with_cost(on.image[0])[:2], on.preimage)


def _inverse(judge: Judge, on: _Map) -> None:
    x, back = on.image[0], on.preimage[0]
    with torch.no_grad():
        there, _ = on.map(back)
    judge.close("z and inverse(forward(z))", back, on.z, besides=on.off(on.z))
    judge.close("x and forward(inverse(x))", there, x, besides=on.off(x))


def _logdet(judge: Judge, on: _Map) -> None:
    exact = torch.linalg.slogdet(jacobians(lambda z: on.map(z)[0], on.z)).logabsdet
    judge.close("the log-determinant and that of autograd's Jacobian", on.image[1], exact, besides=on.off(exact))


def _cancel(judge: Judge, on: _Map) -> None:
    logdet, back = on.image[1], on.preimage[1]
    judge.close("log-determinants of the inverse and minus those of the map", back, -logdet, besides=on.off(logdet))


def _finite(judge: Judge, on: _Map) -> None:
    for one in (on.unmoved, on.map):
        point, rows = on.z, []
        for way, direction in (("forward", one), ("inverse", one.inverse)):
            moved, logdet = direction(point)
            judge.finite(f"the result of {way}()", moved)
            judge.finite(f"the log-determinant of {way}()", logdet)
            scalar = moved.square().sum() + logdet.sum()
            by_point, *rest = torch.autograd.grad(scalar, [point, *one.parameters()], materialize_grads=True)
            judge.finite(f"the gradient through {way}() by the point", by_point)
            for (name, _), gradient in zip(one.named_parameters(), rest, strict=True):
                judge.finite(f"the gradient through {way}() by {name}", gradient)
            rows.append(rest)
            point = moved.detach().requires_grad_()
    demand_use(judge, on.map, rows)


def _backward(judge: Judge, on: _Map) -> None:
    """Along one random direction of z and all parameters: any wrong gradient shows."""
    directions = [normal(*tensor.shape, seed=on.seed + i).to(tensor) for i, tensor in enumerate(on.inputs)]
    weights = normal(*on.z.shape, seed=on.seed + 50), normal(len(on.z), seed=on.seed + 51)

    def scalar() -> Tensor:
        x, logdet, costs = on.map.forward_with_cost(on.z)
        return (x * weights[0]).sum() + (logdet * weights[1]).sum() + 0.3 * costs.transport.sum()

    gradients = torch.autograd.grad(scalar(), on.inputs, materialize_grads=True)
    along = sum(((g * d).sum() for g, d in zip(gradients, directions, strict=True)), torch.zeros(()))
    start = [tensor.detach().clone() for tensor in on.inputs]

    @torch.no_grad()
    def moved(by: float) -> Tensor:
        for tensor, origin, direction in zip(on.inputs, start, directions, strict=True):
            tensor.copy_(origin + by * direction)
        return scalar()

    exact, besides = slope(moved, STEP)
    moved(0.0)
    judge.close("the gradient and the slope along a random direction", along, exact, besides=besides, eps=2.0**-40)


def _symmetry(judge: Judge, on: _Map) -> None:
    if on.symmetry is None:
        return

    def results(z: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        x, logdet = on.map(z)
        return [logdet], [x]

    what = ["the log-determinant"], ["the image, turned back,"]
    compare_images(judge, on.symmetry, results, on.z[:1].detach(), on.seed, what)


def _batches(judge: Judge, on: _Map) -> None:
    with torch.no_grad():
        images, logdets = map(torch.cat, zip(*[on.map(row[None]) for row in on.z], strict=True))
    judge.close("images of points together and alone", images, on.image[0])
    judge.close("log-determinants of points together and alone", logdets, on.image[1])


def _fixed(judge: Judge, on: _Map) -> None:
    before = on.z.detach().clone()
    with torch.no_grad():
        first = on.map(on.z)
        on.map.inverse(first[0])
        torch.rand(3)
        judge.equal("two evaluations without a draw between", on.map(on.z), first)
    judge.equal("points before and after", [on.z], [before])


def _state(judge: Judge, on: _Map) -> None:
    again = rebuilt(on.map, on.other, on.seed + 1)
    with torch.no_grad():
        judge.equal("the map and its saved state", again(on.z), on.map(on.z))


TRANSFORM_LAWS = {
    "shapes": _shapes,
    "fixed": _fixed,
    "costs": _costs,
    "inverse": _inverse,
    "log-determinant": _logdet,
    "cancel": _cancel,
    "finite": _finite,
    "backward": _backward,
    "symmetry": _symmetry,
    "batches": _batches,
    "state": _state,
}
"""What each says:

shapes: and types, log-determinants and costs float64. fixed: a function between draws. costs: paths with their cost are
the same paths. inverse: undoes forward. log-determinant: that of the Jacobian. cancel: the two directions'
log-determinants add up to zero. finite: results and gradients are, at the parameters given and at others, and every
parameter has one. backward: gradients are derivatives. symmetry: f(g z) = g f(z), if a group is given. batches: samples
do not see each other. state: parameters and draws survive save and load.
"""


def check_transform(
    transform: Transform | Flow,
    shape: Sequence[int] | None = None,
    *,
    points: Tensor | None = None,
    symmetry: Group | None = None,
    tolerance: float = 0.0,
    seed: int = 0,
    shake: float = 0.1,
    other: Transform | Flow | None = None,
    laws: Sequence[str] | None = None,
) -> None:
    """Refuse a transform that breaks one of `TRANSFORM_LAWS`.

    Args:
        transform: the map; it is copied, and the copy's parameters are moved.
        shape: of one field; not needed with points.
        points: z to check it at, shape (n, *shape), where the map is defined; normal ones if not given.
        symmetry: group with which the map commutes.
        tolerance: relative error of the map itself, such as that of an integration's steps.
        seed: of points, parameters and symmetry elements.
        shake: standard deviation of what is added to the parameters.
        other: a transform of the same settings built from another seed, which must become the same by loading its
            state; a copy with other parameters and draws if not given.
        laws: names of those to check; all if not given.

    Raises:
        LawBroken: with the law and by how much.

    Example:
        >>> class Doubled(Transform):
        ...     def forward(self, z):
        ...         return 2 * z, torch.zeros(len(z), dtype=torch.float64)
        ...
        ...     def inverse(self, x):
        ...         return x / 2, torch.zeros(len(x), dtype=torch.float64)
        >>> check_transform(Doubled(), (3,))
        Traceback (most recent call last):
        isingflow.testing.laws.LawBroken: Doubled breaks the law "log-determinant": the log-determinant and that of \
autograd's Jacobian differ by 2.08 (allowed: 1.89e-12)
    """
    shape = None if shape is None else lengths("shape", shape)
    check(transform, TRANSFORM_LAWS, _on(transform, shape, points, symmetry, tolerance, seed, shake, other), laws)


def _on(
    transform: Transform | Flow,
    shape: Sequence[int] | None,
    points: Tensor | None,
    symmetry: Group | None,
    tolerance: float,
    seed: int,
    shake: float,
    other: Transform | Flow | None,
) -> _Map:
    moved = shaken(transform, shake, seed)
    if points is None:
        points = normal(SAMPLES, *(getattr(transform, "shape", ()) if shape is None else shape), seed=seed)
    return _Map(
        moved,
        shaken(transform, 0.0, seed),
        other,
        points.detach().double().clone().requires_grad_(),
        symmetry,
        tolerance,
        seed,
    )


# --- flows


def _flow(on: _Map) -> Flow:
    assert isinstance(on.map, Flow)
    return on.map


def _samples(judge: Judge, on: _Map) -> None:
    n = len(on.z)
    for flow, dtype in ((_flow(on), torch.float64), (single(_flow(on)), torch.float32)):
        x, log_prob = flow.sample(n, generator=generator(on.seed))
        judge.like("a sample", x, (n, *flow.shape), dtype)
        judge.like("its log-probability", log_prob, (n,), torch.float64)
        judge.like("log_prob(x)", flow.log_prob(x), (n,), torch.float64)
        judge.demand(not (x.requires_grad or log_prob.requires_grad), "samples keep the graph that made them")
        judge.equal("samples of equal seeds", flow.sample(n, generator=generator(on.seed)), (x, log_prob))


def _density(judge: Judge, on: _Map) -> None:
    """ln p(x) = ln Normal(z) - ln |det dx/dz|: from sample() and log_prob(), against autograd."""
    flow = _flow(on)
    z = flow.noise(len(on.z), generator(on.seed))
    normal_log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    exact = normal_log_prob - torch.linalg.slogdet(jacobians(lambda z: flow(z)[0], z)).logabsdet
    x, log_prob = flow.sample(len(on.z), generator=generator(on.seed))
    with torch.no_grad():
        judge.equal("samples and images of their noise", [x], [flow(z)[0]])
        judge.close("ln p of samples and that of autograd's Jacobian", log_prob, exact, besides=on.off(exact))
        judge.close("log_prob(x) and that of autograd's Jacobian", flow.log_prob(x), exact, besides=on.off(exact))


def _density_symmetry(judge: Judge, on: _Map) -> None:
    if on.symmetry is None:
        return
    flow = _flow(on)
    x = flow.sample(1, generator=generator(on.seed + 3))[0]
    compare_images(judge, on.symmetry, lambda x: ([flow.log_prob(x)], []), x, on.seed, (["ln p"], []))


def _normalisation(judge: Judge, on: _Map) -> None:
    """By the trapezoidal rule on axes along which the samples' covariance is one.

    Its error for smooth functions changes sign when the grid is moved by half a cell: two grids measure it. What lies
    outside is of the order of the outermost cells' share, where the density falls by half from cell to cell.
    """
    flow = _flow(on)
    if flow.dimension not in GRIDS:
        return
    spacing, reach = GRIDS[flow.dimension]
    x = flow.sample(GAUGE, generator=generator(on.seed))[0].flatten(1)
    mean, factor = x.mean(0), torch.linalg.cholesky(torch.cov(x.T).view(flow.dimension, flow.dimension))
    axis = torch.arange(-reach, reach + spacing / 2, spacing, dtype=torch.float64)
    integrals, outside = [], 0.0
    for shift in (0.0, spacing / 2):
        grid = torch.cartesian_prod(*[axis + shift] * flow.dimension).view(-1, flow.dimension)
        with torch.no_grad():
            density = flow.log_prob((mean + grid @ factor.T).view(-1, *flow.shape)).exp()
        density = density * spacing**flow.dimension * factor.diagonal().prod()
        integrals.append(float(density.sum()))
        outside += float(density[((grid - shift).abs() > reach - spacing / 2).any(1)].sum())
    total = torch.tensor(integrals).mean()
    besides = abs(integrals[0] - integrals[1]) + outside + on.tolerance
    judge.close("the integral of the density and one", total, torch.ones(()), besides=besides)


FLOW_LAWS = {
    **{name: law for name, law in TRANSFORM_LAWS.items() if name not in ("symmetry", "log-determinant")},
    "samples": _samples,
    "density": _density,
    "symmetry": _density_symmetry,
    "normalisation": _normalisation,
}
"""Those of a transform that are not said of the density, and

samples: shapes, types and equal seeds. density: of samples and of log_prob(), is that of the
Jacobian. symmetry: log p(g x) = log p(x). normalisation: the density integrates to one, in up to four dimensions.
"""


def check_flow(
    flow: Flow,
    symmetry: Group | None = None,
    *,
    tolerance: float = 0.0,
    seed: int = 0,
    shake: float = 0.1,
    other: Flow | None = None,
    laws: Sequence[str] | None = None,
) -> None:
    """Refuse a flow that breaks one of `FLOW_LAWS`; arguments as in `check_transform`.

    Args:
        flow: it is copied, and the copy's parameters are moved.
        symmetry: group under which its density is invariant.
        tolerance: relative error of its maps.
        seed: of samples, parameters and symmetry elements.
        shake: standard deviation of what is added to the parameters.
        other: a flow of the same settings from another seed.
        laws: names of those to check; all if not given.

    Raises:
        LawBroken: with the law and by how much.

    Example:
        >>> from isingflow.flows import ActNorm
        >>> check_flow(Flow((2,), [ActNorm((2,))]).eval())
    """
    instance("flow", flow, Flow, "a Flow")
    points = shaken(flow, shake, seed).noise(SAMPLES, generator(seed))
    check(flow, FLOW_LAWS, _on(flow, None, points, symmetry, tolerance, seed, shake, other), laws)
