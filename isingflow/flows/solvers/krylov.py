"""Linear algebra with a symmetric positive operator known by its products with vectors, for whole batches.

- conjugate gradients: H^-1 r, three vectors of memory however many iterations;
- Lanczos' method: a tridiagonal T = Q^T H Q from k products, with full reorthogonalisation;
- quadrature: r.ln(H).r ~ |r|^2 e_1.ln(T).e_1 (Gauss). Even derivatives of ln are negative and odd ones positive, so
  Gauss' rule lies above the exact number, and Gauss-Radau's with a node below the spectrum lies below it: together
  they bracket the truncation error (Golub and Meurant 1994; Ubaru, Chen and Saad 2017).

Vectors have shape (..., d), every one with its own operator; `product` multiplies them all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""H v for vectors v of shape (..., d)."""


@dataclass(frozen=True)
class Solution:
    """Of H z = r.

    Attributes:
        vectors: z, shape (..., d).
        residuals: |r - H z| / |r| as the iteration tracks it, shape (...).
        iterations: how many each took, shape (...).
    """

    vectors: Tensor
    residuals: Tensor
    iterations: Tensor


def conjugate_gradients(product: Product, right: Tensor, *, tolerance: float, iterations: int) -> Solution:
    """z with |r - H z| <= tolerance |r|, each vector stopping on its own.

    Args:
        product: H v.
        right: r, shape (..., d).
        tolerance: relative.
        iterations: most of them; who did not converge by then is told by the residuals.

    Example:
        >>> solution = conjugate_gradients(lambda v: 4 * v, torch.ones(2, 3), tolerance=1e-6, iterations=5)
        >>> solution.vectors[0], solution.iterations
        (tensor([0.2500, 0.2500, 0.2500]), tensor([1, 1]))
    """
    z, residual, direction = torch.zeros_like(right), right, right
    size = right.square().sum(-1)
    power, limit = size, tolerance**2 * size
    counts = torch.zeros(size.shape, dtype=torch.int64, device=right.device)
    for _ in range(iterations):
        active = power > limit
        if not active.any():
            break
        counts = counts + active
        image = product(direction)
        curvature = (direction * image).sum(-1)
        step = torch.where(active, power / curvature, 0.0)[..., None]
        z, residual = z + step * direction, residual - step * image
        renewed = residual.square().sum(-1)
        direction = residual + torch.where(active, renewed / power, 0.0)[..., None] * direction
        power = renewed
    relative = (power / size).sqrt()
    return Solution(z, torch.where(size == 0, 0.0, relative), counts)


@dataclass(frozen=True)
class Tridiagonal:
    """T of Lanczos' method.

    Attributes:
        diagonal: shape (..., k), float64.
        beside: entries beside the diagonal, shape (..., k): the last one couples to what was left out, and is zero
            where the k vectors span all that the operator reaches.
        size: |start|^2, shape (...).
    """

    diagonal: Tensor
    beside: Tensor
    size: Tensor


def lanczos(product: Product, start: Tensor, steps: int) -> Tridiagonal:
    """The operator on the space spanned by r, H r, .., H^(k-1) r; k products.

    Args:
        product: H v.
        start: r, shape (..., d).
        steps: k, cut to d.

    Example:
        >>> scales = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        >>> t = lanczos(lambda v: scales * v, torch.ones(3).double(), 3)
        >>> bool(torch.isclose(gauss_log(t), scales.log().sum()))
        True
    """
    steps = min(steps, start.shape[-1])
    size = start.square().sum(-1)
    vector = start / size.sqrt()[..., None]
    basis = start.new_zeros(steps, *start.shape)
    diagonal, beside = [], []
    scale = torch.zeros_like(size)
    for k in range(steps):
        basis[k] = vector
        image = product(vector)
        diagonal.append((vector * image).sum(-1))
        scale = torch.maximum(scale, diagonal[-1])
        known = basis[: k + 1]
        for _ in range(2):  # twice is enough (Kahan)
            image = image - ((known * image).sum(-1, keepdim=True) * known).sum(0)
        length = image.norm(dim=-1)
        length = torch.where(length <= 100 * torch.finfo(start.dtype).eps * scale, 0.0, length)
        beside.append(length)
        vector = torch.where(length[..., None] > 0, image / length[..., None], 0.0)
    along = torch.stack(diagonal, -1).double()
    off = torch.stack(beside, -1).double()
    # Past the end of an exhausted space any positive number will do: its weight is zero.
    exhausted = torch.cumsum(off == 0, -1).roll(1, -1) > 0
    exhausted[..., 0] = False
    return Tridiagonal(torch.where(exhausted, 1.0, along), torch.where(exhausted, 0.0, off), size.double())


def gauss_log(t: Tridiagonal) -> Tensor:
    """r.ln(H).r by Gauss' rule, from above; shape (...), float64."""
    return _quadrature(t.diagonal, t.beside[..., :-1], t.size)


def radau_log(t: Tridiagonal, node: Tensor) -> Tensor:
    """r.ln(H).r by the Gauss-Radau rule with a fixed node below the spectrum, from below; shape (...), float64."""
    shifted = _matrix(t.diagonal - node, t.beside[..., :-1])
    right = torch.zeros_like(t.diagonal)
    right[..., -1] = t.beside[..., -1] ** 2
    last = node + torch.linalg.solve(shifted, right)[..., -1:]
    return _quadrature(torch.cat([t.diagonal, last], -1), t.beside, t.size)


def _quadrature(diagonal: Tensor, beside: Tensor, size: Tensor) -> Tensor:
    nodes, vectors = torch.linalg.eigh(_matrix(diagonal, beside))
    return size * (vectors[..., 0, :].square() * nodes.log()).sum(-1)


def _matrix(diagonal: Tensor, beside: Tensor) -> Tensor:
    return torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
