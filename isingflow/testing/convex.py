"""The laws of convex functions F(x): gradient, Hessian and products against autograd, strong convexity, symmetry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isingflow.potentials.convex import ConvexFunction
from isingflow.testing.laws import OPERATIONS, Judge, check, normal, rebuilt, shaken, single
from isingflow.testing.potentials import (
    SAMPLES,
    SPREAD,
    compare_gradients,
    compare_images,
    demand_use,
    derivatives,
    pulled_back,
)


@dataclass(frozen=True)
class _Convex:
    """What the laws of a convex function are checked on."""

    function: ConvexFunction
    other: ConvexFunction | None
    x: Tensor
    vectors: Tensor
    seed: int

    @property
    def inputs(self) -> list[Tensor]:
        return [self.x, *self.function.parameters()]


def _results(function: ConvexFunction, x: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    expansion = function.expand(x)
    return expansion.value, expansion.gradient, expansion.hessian(), expansion.product(vectors)


NAMES = "values", "gradients", "Hessians", "products with the Hessian"


def _exact(on: _Convex) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gradient, hessian = derivatives(on.function.value, on.x)
    products = torch.einsum("nij,anj->ani", hessian, on.vectors.flatten(2)).view(on.vectors.shape)
    return on.function.value(on.x), gradient, hessian, products


def _convex_shapes(judge: Judge, on: _Convex) -> None:
    n, sites = len(on.x), on.x[0].numel()
    for function, dtype in ((on.function, torch.float64), (single(on.function), torch.float32)):
        results = _results(function, on.x.detach().to(dtype), on.vectors.to(dtype))
        shapes = (n,), on.x.shape, (n, sites, sites), on.vectors.shape
        for name, ours, shape in zip(NAMES, results, shapes, strict=True):
            judge.like(name, ours, shape, dtype)


def _convex_derivatives(judge: Judge, on: _Convex) -> None:
    for name, ours, exact in zip(NAMES, _results(on.function, on.x, on.vectors), _exact(on), strict=True):
        judge.close(f"{name} and those of autograd", ours, exact)
    function, x, vectors = on.function, on.x, on.vectors
    shortcuts = function.value(x), function.gradient(x), function.hessian(x), function.product(x, vectors)
    for name, ours, expanded in zip(NAMES, shortcuts, _results(function, x, vectors), strict=True):
        judge.close(f"{name} of the function and of its expansion", ours, expanded)
    judge.close("products with one vector and with many", function.product(x, vectors[0]), shortcuts[3][0])
    deeper = function.product(x, vectors[None])
    judge.close("products with vectors and with rows of them", deeper[0], shortcuts[3])


def _convex_backward(judge: Judge, on: _Convex) -> None:
    ours = pulled_back(_results(on.function, on.x, on.vectors), on.inputs, on.seed)
    exact = pulled_back(_exact(on), on.inputs, on.seed)
    compare_gradients(judge, "value, gradient, Hessian and product", on.function, ours, exact)
    demand_use(judge, on.function, [ours[1:]])


def _convexity(judge: Judge, on: _Convex) -> None:
    """By the eigenvalues, and by the definition, between far points: no derivative enters that one."""
    x = on.x.detach()
    expansion = on.function.expand(x)
    strength = float(expansion.strength.detach())
    judge.demand(strength > 0, f"its strength is {strength:.3g}: expected a positive number")
    eigenvalues = torch.linalg.eigvalsh(expansion.hessian().detach())
    rounding = OPERATIONS * torch.finfo(torch.float64).eps * float(eigenvalues.abs().max())
    below = strength - float(eigenvalues.min())
    judge.demand(below <= rounding, "the smallest eigenvalue of the Hessian lies below its strength", below, rounding)
    y = x + 4 * normal(*x.shape, seed=on.seed + 2)
    ends = on.function.value(x), on.function.value(y)
    chord = (ends[0] + ends[1]) / 2 - strength * (x - y).square().flatten(1).sum(1) / 8
    above = float((on.function.value((x + y) / 2) - chord).detach().max())
    rounding = (
        OPERATIONS * torch.finfo(torch.float64).eps * max(1.0, *(float(end.detach().abs().max()) for end in ends))
    )
    judge.demand(above <= rounding, "F in the middle of two points lies above its chord", above, rounding)


def _convex_symmetry(judge: Judge, on: _Convex) -> None:
    def results(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        expansion = on.function.expand(x)
        return [expansion.value], [expansion.gradient]

    what = ["F"], ["the gradient, turned back,"]
    compare_images(judge, on.function.symmetry, results, on.x[:1].detach(), on.seed, what)


def _convex_single_precision(judge: Judge, on: _Convex) -> None:
    with torch.no_grad():
        coarse = _results(single(on.function), on.x.float(), on.vectors.float())
        for name, ours, exact in zip(NAMES, coarse, _results(on.function, on.x, on.vectors), strict=True):
            judge.close(f"{name} in float32 and float64", ours, exact)


def _convex_batches(judge: Judge, on: _Convex) -> None:
    with torch.no_grad():
        together = _results(on.function, on.x, on.vectors)
        alone = [_results(on.function, row[None], on.vectors[:, i : i + 1]) for i, row in enumerate(on.x)]
    for i, name in enumerate(NAMES):
        judge.close(f"{name} of fields together and alone", together[i], torch.cat([one[i] for one in alone], i // 3))


def _convex_state(judge: Judge, on: _Convex) -> None:
    again = rebuilt(on.function, on.other, on.seed + 1)
    ours, expected = _results(again, on.x, on.vectors), _results(on.function, on.x, on.vectors)
    judge.equal("the function and its saved state", ours, expected)


CONVEX_LAWS = {
    "shapes": _convex_shapes,
    "derivatives": _convex_derivatives,
    "backward": _convex_backward,
    "convexity": _convexity,
    "symmetry": _convex_symmetry,
    "float32": _convex_single_precision,
    "batches": _convex_batches,
    "state": _convex_state,
}
"""What each says:

derivatives: gradient, Hessian and products are those of the value. convexity: the Hessian's eigenvalues and the chords
of F lie above what `strength` promises. The others are as in `POTENTIAL_LAWS`.
"""


def check_convex(
    function: ConvexFunction,
    *,
    fields: Tensor | None = None,
    seed: int = 0,
    shake: float = 0.5,
    other: ConvexFunction | None = None,
    laws: Sequence[str] | None = None,
) -> None:
    """Refuse a convex function that breaks one of `CONVEX_LAWS`; arguments as in `check_potential`.

    Raises:
        LawBroken: with the law and by how much.

    Example:
        >>> from isingflow.potentials import ConvexPotential
        >>> check_convex(ConvexPotential((3,), width=4, generator=torch.Generator().manual_seed(0)))
    """
    moved = shaken(function, shake, seed)
    x = SPREAD * normal(SAMPLES, *function.shape, seed=seed) if fields is None else fields.detach().double().clone()
    on = _Convex(moved, other, x.requires_grad_(), normal(2, *x.shape, seed=seed + 1), seed)
    check(function, CONVEX_LAWS, on, laws)
