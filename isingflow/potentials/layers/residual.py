"""A residual network as a potential of its input, with gradient and exact Laplacian in closed form for any depth.

    F(u) = w.u_L,    u_0 = s(V u; b),    u_i = u_{i-1} + h s(K_i u_{i-1} + b_i),    h = 1 / max(L, 1)

with s(x) = |x| + ln(1 + exp(-2|x|)), the antiderivative of tanh (Onken et al. 2021, eq. 11). With z_L = w and
z_{i-1} = z_i + h K_i^T (s'(p_i) z_i), the gradient is V^T (s'(p_0) z_0). The Laplacian is taken in a space of which u
is a linear image: only the Gram matrix G of the rows of V in that space enters, through any root R R^T = G,

    laplacian F = s''(p_0) z_0 . diag G + h sum_i s''(p_i) z_i . |K_i M_{i-1}|^2,
    M_0 = s'(p_0) R,    M_i = M_{i-1} + h s'(p_i) K_i M_{i-1},

where |.|^2 sums the squares of a row: width x rank numbers a sample, whatever the dimension of that space. (OT-Flow's
own code carries the width x dimension Jacobian in place of M.) The backward pass is written by hand: as w.V_L of the
tangents V of the u_i, first and second order together, the scalar to be differentiated has a reverse pass with three
products of M's size a layer. All is recomputed from u, block by block in the processor's cache, but for the products
K M where `residual_fused` has room to keep them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from isingflow.potentials.layers import residual_fused, wanted

CACHE_BYTES = 2**19
"""Size of M in a block of columns on a CPU: half of a usual second-level cache."""
DEVICE_BYTES = 2**29
"""The same on any other device, where a block only bounds memory."""


class PlainOpening:
    """s(p + b): its value, its derivatives by p, and those by p once more derived by b, computed when asked for."""

    def __init__(self, p: Tensor, b: Tensor) -> None:
        self.shifted = p + b
        self.first = torch.tanh(self.shifted)

    @property
    def value(self) -> Tensor:
        """s."""
        return antiderivative(self.shifted)

    @property
    def second(self) -> Tensor:
        """s''."""
        return 1 - self.first * self.first

    @property
    def third(self) -> Tensor:
        """s'''."""
        return 2 * self.first * (self.first * self.first - 1)

    @property
    def bias_first(self) -> Tensor:
        """ds/db."""
        return self.first

    @property
    def bias_second(self) -> Tensor:
        """ds'/db."""
        return self.second

    @property
    def bias_third(self) -> Tensor:
        """ds''/db."""
        return self.third


class EvenOpening:
    """[s(p + b) + s(p - b)] / 2, even in p for every b, so that all that follows is even too; as `PlainOpening`."""

    def __init__(self, p: Tensor, b: Tensor) -> None:
        self.plus, self.minus = PlainOpening(p, b), PlainOpening(p, -b)
        self.first = (self.plus.first + self.minus.first) / 2

    @property
    def value(self) -> Tensor:
        """s."""
        return (self.plus.value + self.minus.value) / 2

    @property
    def second(self) -> Tensor:
        """s''."""
        return (self.plus.second + self.minus.second) / 2

    @property
    def third(self) -> Tensor:
        """s'''."""
        return (self.plus.third + self.minus.third) / 2

    @property
    def bias_first(self) -> Tensor:
        """ds/db."""
        return (self.plus.first - self.minus.first) / 2

    @property
    def bias_second(self) -> Tensor:
        """ds'/db."""
        return (self.plus.second - self.minus.second) / 2

    @property
    def bias_third(self) -> Tensor:
        """ds''/db."""
        return (self.plus.third - self.minus.third) / 2


Opening = PlainOpening | EvenOpening


class _Passed(NamedTuple):
    """What one block's forward pass leaves for its backward pass; lists have an entry for each K_i."""

    opening: Opening
    states: list[Tensor]
    slopes: list[Tensor]
    roots: list[Tensor]
    products: list[Tensor]
    squares: list[Tensor]


def antiderivative(x: Tensor) -> Tensor:
    """|x| + ln(1 + exp(-2|x|)) = ln(2 cosh x), without overflow."""
    magnitude = x.abs()
    return magnitude + torch.log1p(torch.exp(-2 * magnitude))


@dataclass(frozen=True)
class ResidualLayers:
    """Forward and backward pass of the network as functions of plain tensors, without autograd.

    Parameters, in this order: v, shape (width, features); b, its bias, and the bias' derivative by time, (width,); K,
    (L, width, width), and their biases, (L, width); w, (width,); R, (width, rank).

    Attributes:
        opening: the activation of the first layer.
    """

    opening: type[Opening] = PlainOpening

    def value(self, u: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """F(u), shape (columns,)."""
        v, b, _, kernels, biases, w, _ = parameters
        state = self.opening(v @ u, b[:, None]).value
        for kernel, bias in zip(kernels, biases, strict=True):
            state = state + antiderivative(torch.addmm(bias[:, None], kernel, state)) / len(kernels)
        return w @ state

    def room(self, u: Tensor, *parameters: Tensor) -> Tensor | None:
        """Where `forward` may leave its largest products for `backward`; None if it shall not."""
        _, _, _, kernels, _, _, root = parameters
        return residual_fused.room(u, kernels, root) if self._fused(u, kernels) else None

    def forward(self, u: Tensor, *parameters: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient, shape (features, columns), Laplacian and derivative by time, both shape (columns,)."""
        v, _, clock, kernels, _, w, root = parameters
        if self._fused(u, kernels):
            return residual_fused.forward(u, parameters, even=self.opening is EvenOpening, kept=kept)
        norms = root.square().sum(1, keepdim=True)
        results = []
        # Fresh memory for every block would cost as much as the arithmetic.
        scratch = root.new_empty(2, root.numel() * _block_size(root)) if len(kernels) else None
        for columns in u.split(_block_size(root), -1):
            passed = self._pass(columns, parameters, scratch)
            z = w[:, None].expand(-1, columns.shape[1])
            laplacian = columns.new_zeros(())
            for kernel, slope, squares in reversed(list(zip(kernels, passed.slopes, passed.squares, strict=True))):
                laplacian = laplacian + ((z - slope * slope * z) * squares).sum(0) / len(kernels)
                z = torch.addmm(z, kernel.T, slope * z, alpha=1 / len(kernels))
            laplacian = laplacian + (passed.opening.second * z * norms).sum(0)
            rate = (clock[:, None] * z * passed.opening.bias_first).sum(0)
            results.append((v.T @ (passed.opening.first * z), laplacian, rate))
        gradients, laplacians, rates = zip(*results, strict=True)
        return torch.cat(gradients, 1), torch.cat(laplacians), torch.cat(rates)

    def backward(
        self,
        inputs: Sequence[Tensor],
        by_gradient: Tensor,
        by_laplacian: Tensor,
        by_rate: Tensor,
        *,
        parameters: bool = True,
        kept: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        """Cotangents of the inputs (u and the parameters) from those of `forward`'s results.

        Without `parameters` all but that of u are None. `kept` is what `forward` was given, if anything.
        """
        u, *rest = inputs
        if parameters and self._fused(u, rest[3]):
            even = self.opening is EvenOpening
            return residual_fused.backward(inputs, by_gradient, by_laplacian, by_rate, even=even, kept=kept)
        totals = [torch.zeros_like(tensor) for tensor in rest] if parameters else None
        by_u, size = [], _block_size(rest[-1])
        blocks = zip(*(x.split(size, -1) for x in (u, by_gradient, by_laplacian, by_rate)), strict=True)
        for columns, gradient, laplacian, rate in blocks:
            by_u.append(self._backward_block(columns, gradient, laplacian, rate, rest, totals))
        return torch.cat(by_u, 1), *([None] * len(rest) if totals is None else totals)

    @staticmethod
    def _fused(u: Tensor, kernels: Tensor) -> bool:
        return bool(len(kernels)) and u.device.type == "cpu" and u.dtype == torch.float32

    def _pass(self, u: Tensor, parameters: Sequence[Tensor], scratch: Tensor | None = None) -> _Passed:
        """The forward pass of a block; with scratch, shape (2, numbers of M), roots and products do not outlive it."""
        v, b, _, kernels, biases, _, root = parameters
        h = 1 / max(len(kernels), 1)
        passed = _Passed(self.opening(v @ u, b[:, None]), [], [], [], [], [])
        if not len(kernels):
            return passed
        shape = (*root.shape, u.shape[1])
        spaces = scratch[:, : math.prod(shape)].view(2, *shape) if scratch is not None else (None, None)
        state = passed.opening.value
        rows = torch.mul(passed.opening.first[:, None], root[:, :, None], out=spaces[0])
        for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            p = torch.addmm(bias[:, None], kernel, state)
            slope = torch.tanh(p)
            space = None if spaces[1] is None else spaces[1].flatten(1)
            product = torch.mm(kernel, rows.flatten(1), out=space).view(shape)
            kept = state, slope, rows, product, product.square().sum(1)
            for entries, entry in zip(passed[1:], kept, strict=True):
                entries.append(entry)
            if i + 1 < len(kernels):
                state = state + h * antiderivative(p)
                rows = torch.addcmul(rows, slope[:, None], product, value=h, out=spaces[0])
        return passed

    def _backward_block(
        self,
        u: Tensor,
        by_gradient: Tensor,
        by_laplacian: Tensor,
        by_rate: Tensor,
        parameters: Sequence[Tensor],
        totals: Sequence[Tensor] | None,
    ) -> Tensor:
        """The cotangent of u; those of the parameters are added to the totals."""
        v, _, clock, kernels, _, w, root = parameters
        h, norms, count = 1 / max(len(kernels), 1), root.square().sum(1, keepdim=True), len(kernels)
        opening, states, slopes, roots, products, squares = self._pass(u, parameters)

        # V_i, the tangents of the states: the scalar to differentiate is w.V_L
        pulled, ticking = v @ by_gradient, clock[:, None] * by_rate
        second = opening.second
        tangent = opening.first * pulled + second * (norms * by_laplacian) + opening.bias_first * ticking
        tangents, moved = [], []
        for kernel, slope, square in zip(kernels, slopes, squares, strict=True):
            tangents.append(tangent)
            moved.append(kernel @ tangent)
            tangent = tangent + h * (slope * moved[-1] + (1 - slope * slope) * (by_laplacian * square))

        z, by_state, by_rows = w[:, None].expand_as(tangent), torch.zeros_like(tangent), None
        for i in reversed(range(count)):
            kernel, slope = kernels[i], slopes[i]
            curvature = 1 - slope * slope
            weight = h * by_laplacian * z
            by_slope = h * z * moved[i]
            by_product = (2 * weight * curvature)[:, None] * products[i]
            if by_rows is not None:
                by_slope = by_slope + h * (by_rows * products[i]).sum(1)
                by_product = torch.addcmul(by_product, slope[:, None], by_rows, value=h)
            by_p = h * by_state * slope + curvature * (by_slope - 2 * slope * weight * squares[i])
            weighted = h * slope * z
            if totals is not None:
                totals[3][i].addmm_(by_p, states[i].T).addmm_(weighted, tangents[i].T)
                totals[3][i].addmm_(by_product.flatten(1), roots[i].flatten(1).T)
                totals[4][i] += by_p.sum(1)
            by_state = torch.addmm(by_state, kernel.T, by_p)
            back = (kernel.T @ by_product.flatten(1)).view(by_product.shape)
            by_rows = back if by_rows is None else by_rows + back
            z = torch.addmm(z, kernel.T, weighted)

        by_first, by_second, by_ticking = z * pulled, z * (norms * by_laplacian), z * ticking
        if by_rows is not None:
            by_first = by_first + (by_rows * root[:, :, None]).sum(1)
        by_p = by_state * opening.first + by_first * second
        by_p = by_p + by_second * opening.third + by_ticking * opening.bias_second
        if totals is not None:
            by_bias = by_state * opening.bias_first + by_first * opening.bias_second
            by_bias = by_bias + by_second * opening.bias_third + by_ticking * second
            totals[0].addmm_(by_p, u.T).addmm_(z * opening.first, by_gradient.T)
            totals[1].add_(by_bias.sum(1))
            totals[2].add_((z * opening.bias_first) @ by_rate)
            totals[5].add_(tangent.sum(1))
            totals[6].add_(2 * root * ((z * second) @ by_laplacian)[:, None])
            if by_rows is not None:
                totals[6].add_((opening.first[:, None] * by_rows).sum(2))
        return v.T @ by_p


class _ResidualNetwork(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layers, kept, *inputs):
        ctx.save_for_backward(*inputs)
        ctx.layers, ctx.kept = layers, kept
        return layers.forward(*inputs, kept=kept)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_gradient, by_laplacian, by_rate):
        parameters = wanted.of_parameters(ctx.needs_input_grad[3:])
        cotangents = by_gradient, by_laplacian, by_rate
        found = ctx.layers.backward(ctx.saved_tensors, *cotangents, parameters=parameters, kept=ctx.kept)
        # The loss may outlive its backward pass; a second one computes the products again, but for one by x alone.
        if parameters or not any(ctx.needs_input_grad[3:]):
            ctx.kept = None
        return None, None, *found


def residual_network(layers: ResidualLayers, u: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient, Laplacian and derivative by time of the network, column by column; differentiable once.

    Args:
        layers: how it opens.
        u: inputs, shape (features, columns).
        parameters: as listed in `ResidualLayers`.

    Returns:
        Shapes (features, columns), (columns,) and (columns,).
    """
    kept = None
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
        kept = layers.room(u, *parameters)
    return _ResidualNetwork.apply(layers, kept, u, *parameters)


def gram_root(rows: Tensor) -> Tensor:
    """R with R R^T = rows rows^T and no more columns than rows; differentiable once.

    R = rows Q with Q an orthonormal basis of the space that the rows span. Q may be held fixed: changes of the rows out
    of that space change their inner products only in second order. So there is no inverse, and no rank is too low.

    Args:
        rows: shape (..., m, d).

    Returns:
        Shape (..., m, min(m, d)).

    Example:
        >>> rows = torch.tensor([[3.0, 4.0, 0.0]])
        >>> gram_root(rows).abs()
        tensor([[5.]])
    """
    if rows.shape[-1] <= rows.shape[-2]:
        return rows
    return rows @ torch.linalg.qr(rows.detach().mT).Q


def _block_size(root: Tensor) -> int:
    """Columns in a block whose M fits into the cache."""
    limit = CACHE_BYTES if root.device.type == "cpu" else DEVICE_BYTES
    return max(limit // (root.numel() * root.element_size()), 16)
