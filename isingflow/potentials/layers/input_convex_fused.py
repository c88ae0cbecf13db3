"""Value, gradient and Hessian of an input-convex network on a CPU in few dimensions, as one operation.

The mathematics of `input_convex`, with the backward pass written out: per layer one matrix product with the features'
Jacobians of all columns forward, two back, and compiled kernels between them. With d_k, q_k = s'_k d_k, c_k = s''_k and
T_k = s'_k J_k, bars for cotangents, the Hessian's being symmetric:

    J_k-   = 2 c_k d_k (J_k H-) + s'_k T_k-,      T_{k-1}- = V_k^T J_k-,      V_k- += J_k- T_{k-1}^T,
    q_k-   = L_k g- + V_k d_{k-1}-,               d_k-     = s'_k q_k- + c_k (J_k H- J_k^T),
    p_k-   = s'_k z_k- + c_k (d_k q_k- + T_k-.J_k) + s'''_k d_k (J_k H- J_k^T),     z_{k-1}- = V_k^T p_k-.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow.potentials.layers import input_convex_kernels as kernels
from isingflow.potentials.layers.activations import CONVEX, ConvexActivation, Jet

MOST_FEATURES = 16
"""Dimensions in which the kernels' work, which grows with the square, is little beside the matrix products."""


def second_order(
    u: Tensor,
    linear: Tensor,
    alpha: Tensor,
    skips: Sequence[Tensor],
    biases: Sequence[Tensor],
    inner: Sequence[Tensor],
    outer: Tensor,
    symmetric: Sequence[int],
    activation: ConvexActivation,
) -> tuple[Tensor, Tensor, Tensor]:
    """N(u) + l.u + alpha |u|^2 / 2, its gradient and its Hessian, differentiable once.

    Args:
        u: shape (features, columns).
        linear: l, shape (features, 1).
        alpha: a scalar.
        skips, biases, inner, outer, symmetric, activation: as of `input_convex.Layers`, of a network that is not dense.

    Returns:
        Shapes (columns,), (features, columns) and (features, features, columns).
    """
    return _SecondOrder.apply(len(skips), symmetric, activation, u, linear, alpha, outer, *skips, *biases, *inner)


class _Pass:
    """All that a forward pass makes of a batch; shapes (width, columns), Jacobians (width, features, columns)."""

    def __init__(
        self,
        u: Tensor,
        linear: Tensor,
        alpha: Tensor,
        outer: Tensor,
        skips: Sequence[Tensor],
        biases: Sequence[Tensor],
        inner: Sequence[Tensor],
        symmetric: Sequence[int],
        activation: ConvexActivation,
    ) -> None:
        features, columns = u.shape
        self.jets: list[Jet] = []
        self.seen: list[Tensor] = []
        for layer, bias in enumerate(biases):
            p = torch.addmm(bias, skips[layer], u) if layer < len(skips) else bias.expand(-1, columns)
            p = torch.addmm(p, inner[layer - 1], self.seen[-1]) if layer else p
            jet = _jet(activation, p, symmetric[layer])
            self.jets.append(jet)
            self.seen.append(jet.value)

        self.pulls = [outer.T.expand(-1, columns)]
        self.weighted = [self.jets[-1].first * self.pulls[0]]
        for layer in reversed(range(1, len(biases))):
            self.pulls.insert(0, inner[layer - 1].T @ self.weighted[0])
            self.weighted.insert(0, self.jets[layer - 1].first * self.pulls[0])
        gradient = torch.addmm(linear + alpha * u, skips[0].T, self.weighted[0])
        for skip, weighted in zip(skips[1:], self.weighted[1:], strict=False):
            gradient.addmm_(skip.T, weighted)

        self.curvatures = [jet.second * pull for jet, pull in zip(self.jets, self.pulls, strict=True)]
        self.outer_products = (skips[0][:, :, None] * skips[0][:, None]).flatten(1)
        hessian = (self.outer_products.T @ self.curvatures[0]).view(features, features, columns)
        self.jacobians: list[Tensor] = []
        self.tangents: list[Tensor] = []
        shape = len(skips[0]), features, columns
        if inner:
            self.tangents.append(u.new_empty(shape))
            kernels.opened(*_arrays(self.jets[0].first, skips[0], self.tangents[0]))
        for layer, weight in enumerate(inner, start=1):
            jacobian = (weight @ self.tangents[-1].flatten(1)).view(shape)
            self.jacobians.append(jacobian)
            seeing = skips[layer] if layer < len(skips) else None
            after = u.new_empty(shape) if layer < len(inner) else None
            bent = jacobian, seeing, self.curvatures[layer], hessian, self.jets[layer].first, after
            kernels.bent(*_arrays(*bent))
            if after is not None:
                self.tangents.append(after)
        kernels.mirrored(*_arrays(hessian))
        hessian.diagonal().add_(alpha)
        # With the slope halfway to zero the quadratic part is a product
        value = (outer @ self.seen[-1])[0] + ((linear + alpha / 2 * u) * u).sum(0)
        self.results: tuple[Tensor, ...] = value, gradient, hessian

    def taken(self) -> tuple[Tensor, ...]:
        """The results, once: what keeps them would keep the graph that they are part of."""
        results, self.results = self.results, ()
        return results


class _SecondOrder(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, seeing: int, symmetric: Sequence[int], activation: ConvexActivation, *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        u, linear, alpha, outer, *rest = (tensor.detach().contiguous() for tensor in tensors)
        depth = len(symmetric)
        skips, biases, inner = rest[:seeing], rest[seeing : seeing + depth], rest[seeing + depth :]
        ctx.given, ctx.found = (
            (u, linear, alpha, outer, skips, biases, inner),
            _Pass(u, linear, alpha, outer, skips, biases, inner, symmetric, activation),
        )
        return ctx.found.taken()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_value: Tensor, by_gradient: Tensor, by_hessian: Tensor) -> tuple[Any, ...]:
        by_hessian = ((by_hessian + by_hessian.transpose(0, 1)) / 2).contiguous()
        return None, None, None, *_pulled_back(ctx.given, ctx.found, by_value, by_gradient, by_hessian)


def _pulled_back(
    given: tuple[Any, ...], found: _Pass, by_value: Tensor, by_gradient: Tensor, by_hessian: Tensor
) -> list[Tensor]:
    """Cotangents of u, linear, alpha, outer, and every skip, bias and inner weight."""
    u, linear, alpha, outer, skips, biases, inner = given
    features, columns = u.shape
    depth, width = len(biases), len(skips[0])
    by_inner = [torch.empty_like(weight) for weight in inner]
    by_skips: list[Tensor] = [torch.empty_like(skip) for skip in skips]

    # The Hessian, from the last layer to the first
    by_curvatures, by_slopes = ([u.new_empty(width, columns) for _ in range(depth)] for _ in range(2))
    by_tangent: Tensor | None = None
    for layer in reversed(range(1, depth)):
        jacobian, by_jacobian = found.jacobians[layer - 1], torch.empty_like(found.jacobians[layer - 1])
        slope, of_slope = (found.jets[layer].first, by_slopes[layer]) if by_tangent is not None else (None, None)
        parts = jacobian, found.curvatures[layer], by_hessian, slope, by_tangent, by_jacobian
        kernels.pulled_back(*_arrays(*parts, by_curvatures[layer], of_slope))
        if by_tangent is None:
            by_slopes[layer].zero_()
        if layer < len(skips):
            torch.sum(by_jacobian, 2, out=by_skips[layer])
        flat = by_jacobian.flatten(1)
        torch.mm(flat, found.tangents[layer - 1].flatten(1).T, out=by_inner[layer - 1])
        by_tangent = torch.mm(inner[layer - 1].T, flat).view(jacobian.shape)
    rows = by_hessian.flatten(0, 1)
    torch.mm(found.outer_products, rows, out=by_curvatures[0])
    moments = (found.curvatures[0] @ rows.T).view(width, features, features)
    by_skips[0] = 2 * (moments @ skips[0][:, :, None])[:, :, 0]
    if by_tangent is None:
        by_slopes[0].zero_()
    else:
        kernels.closed(*_arrays(skips[0], found.jets[0].first, by_tangent, by_slopes[0], by_skips[0]))

    # The gradient, from the first layer to the last
    by_pull: Tensor | None = None
    for layer, jet in enumerate(found.jets):
        by_weighted = skips[layer] @ by_gradient if layer < len(skips) else torch.zeros_like(jet.first)
        if layer < len(skips):
            by_skips[layer].addmm_(found.weighted[layer], by_gradient.T)
        if by_pull is not None:
            by_weighted.addmm_(inner[layer - 1], by_pull)
            by_inner[layer - 1].addmm_(found.weighted[layer], by_pull.T)
        by_slopes[layer].addcmul_(by_weighted, found.pulls[layer])
        by_pull = torch.addcmul(by_weighted * jet.first, by_curvatures[layer], jet.second)
    assert by_pull is not None
    by_outer = by_pull.sum(1)[None] + by_value[None] @ found.seen[-1].T

    # The value, and the points that all of it was evaluated at, from the last layer to the first
    by_u = torch.addcmul(alpha * by_gradient, linear + alpha * u, by_value)
    by_alpha = torch.dot(by_gradient.flatten(), u.flatten()) + by_hessian.diagonal().sum()
    by_alpha = by_alpha + (u.square().sum(0) @ by_value) / 2
    by_linear = by_gradient.sum(1, keepdim=True) + (u @ by_value)[:, None]
    by_biases = [torch.empty_like(bias) for bias in biases]
    by_seen = outer.T * by_value
    for layer in reversed(range(depth)):
        jet = found.jets[layer]
        by_pre = torch.addcmul(by_seen * jet.first, by_slopes[layer], jet.second)
        by_pre.addcmul_(by_curvatures[layer].mul_(found.pulls[layer]), jet.third)
        torch.sum(by_pre, 1, keepdim=True, out=by_biases[layer])
        if layer < len(skips):
            by_skips[layer].addmm_(by_pre, u.T)
            by_u.addmm_(skips[layer].T, by_pre)
        if layer:
            by_inner[layer - 1].addmm_(by_pre, found.seen[layer - 1].T)
            by_seen = inner[layer - 1].T @ by_pre
    return [by_u, by_linear, by_alpha, by_outer, *by_skips, *by_biases, *by_inner]


def _jet(activation: ConvexActivation, p: Tensor, symmetric: int) -> Jet:
    """Of s, and in the last rows of s - p/2; compiled, where there is a kernel."""
    if activation in (CONVEX["softplus"], CONVEX["squareplus"]):
        jet = Jet(*(torch.empty_like(p) for _ in range(4)))
        if activation is CONVEX["softplus"]:
            t = p.abs().neg_().exp_()
            kernels.softplus(*[*_arrays(p, t, t.log1p(), *jet), len(p) - symmetric])
        else:
            kernels.squareplus(*[*_arrays(p, *jet), len(p) - symmetric])
        return jet
    jet = activation.jet(p)
    if symmetric:
        jet.value[-symmetric:].sub_(p[-symmetric:], alpha=0.5)
        jet.first[-symmetric:].sub_(0.5)
    return jet


def _arrays(*tensors: Tensor | None) -> list[np.ndarray | None]:
    return [None if tensor is None else tensor.numpy() for tensor in tensors]
