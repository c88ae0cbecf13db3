"""The residual network of `residual` on a CPU in float32: its matrix products, and compiled kernels between them.

Forward and backward as `residual.ResidualLayers` has them, with at least one layer behind the opening one; the numbers
are the same to rounding. All is done block by block, in scratch memory that blocks share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isingflow.potentials.layers import residual_kernels as kernels

BLOCK_BYTES = 2**21
"""What a block's arrays may take: half of a second-level cache."""
FEWEST = 32
"""Columns of a block at least: products with fewer are slow."""
FLAT = 8
"""Arrays of width x columns beside those that hold M."""


class _Layer(NamedTuple):
    """What the forward pass leaves of a layer: its input and what its own products became."""

    state: Tensor
    rows: Tensor
    slope: Tensor
    squares: Tensor
    product: Tensor


class _Block:
    """Scratch memory for so many columns, and the forward pass in it."""

    def __init__(self, parameters: Sequence[Tensor], columns: int, even: bool, kept: bool) -> None:
        self.v, self.bias, self.clock, self.kernels, self.biases, self.weight, self.root = parameters
        self.h = np.float32(1 / len(self.kernels))
        self.norms = self.root.square().sum(1)
        self.flat = (len(self.root), columns)
        self.deep = (*self.root.shape, columns)
        self.plus = self.empty()
        self.minus = self.empty() if even else None
        self.p, self.z = self.empty(), self.empty()
        # Without a backward pass the layers may write over what those before them have left.
        shared = [self._layer()] * len(self.kernels)
        self.layers = [self._layer() for _ in self.kernels] if kept else shared
        self.slopes = [layer.slope if kept else self.empty() for layer in self.layers]
        self.squares = [layer.squares if kept else self.empty() for layer in self.layers]

    def empty(self) -> Tensor:
        """Numbers for every unit and column."""
        return self.root.new_empty(self.flat)

    def _layer(self) -> _Layer:
        deep = (self.root.new_empty(self.deep) for _ in range(2))
        return _Layer(self.empty(), next(deep), self.empty(), self.empty(), next(deep))

    def forward(self, u: Tensor) -> None:
        """All up to the last layer."""
        torch.mm(self.v, u, out=self.p)
        first = self.layers[0]
        kernels.opening(*_arrays(self.p, self.bias, self.root, first.state, self.plus, self.minus, first.rows))
        following = [*self.layers[1:], None]
        whole = zip(self.kernels, self.biases, self.layers, self.slopes, self.squares, following, strict=True)
        for kernel, bias, layer, slope, squares, after in whole:
            torch.mm(kernel, layer.state, out=self.p)
            torch.mm(kernel, layer.rows.flatten(1), out=layer.product.flatten(1))
            now = _arrays(layer.product, slope, squares, layer.state, layer.rows)
            then = (None, None) if after is None else _arrays(after.state, after.rows)
            kernels.layer(*[*_arrays(self.p, bias), self.h, *now, *then])


def block_size(root: Tensor, columns: int) -> int:
    """Columns of a block, all blocks being about as long."""
    numbers = len(root) * (2 * root.shape[1] + FLAT)
    most = max(BLOCK_BYTES // (4 * numbers), FEWEST)
    return -(-columns // -(-columns // most))


def forward(u: Tensor, parameters: Sequence[Tensor], *, even: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient, Laplacian and derivative by time, as `ResidualLayers.forward`."""
    parameters = [parameter.detach().contiguous() for parameter in parameters]
    count, block = u.shape[1], None
    gradient, laplacian, rate = u.new_empty(u.shape), u.new_zeros(count), u.new_zeros(count)
    size = block_size(parameters[-1], count)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        if block is None or block.flat[1] != part.stop - start:
            block = _Block(parameters, part.stop - start, even, kept=False)
        block.forward(u[:, part])
        block.z.copy_(block.weight[:, None].expand(block.flat))
        sums = laplacian[part].numpy(), rate[part].numpy()
        whole = zip(block.kernels, block.slopes, block.squares, strict=True)
        for kernel, slope, squares in reversed(list(whole)):
            kernels.collected(*[*_arrays(block.z, slope, squares), block.h, sums[0], block.p.numpy()])
            block.z.addmm_(kernel.T, block.p)
        opening = _arrays(block.z, block.plus, block.minus, block.norms, block.clock)
        kernels.opened(*[*opening, *sums, block.p.numpy()])
        gradient[:, part] = block.v.T @ block.p
    return gradient, laplacian, rate


def backward(
    inputs: Sequence[Tensor], by_gradient: Tensor, by_laplacian: Tensor, by_rate: Tensor, *, even: bool
) -> tuple[Tensor, ...]:
    """Cotangents of u and the parameters, as `ResidualLayers.backward`."""
    u, *rest = inputs
    parameters = [parameter.detach().contiguous() for parameter in rest]
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    by_u, count, block = u.new_empty(u.shape), u.shape[1], None
    size = block_size(parameters[-1], count)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        if block is None or block.flat[1] != part.stop - start:
            block = _Block(parameters, part.stop - start, even, kept=True)
            scratch = [block.empty() for _ in range(2 + 2 * len(block.kernels))]
            by_product = u.new_empty(block.deep)
        cotangents = by_gradient[:, part], by_laplacian[part].contiguous(), by_rate[part].contiguous()
        by_u[:, part] = _backward_block(block, u[:, part], *cotangents, totals, scratch, by_product)
    return by_u, *totals


def _backward_block(
    block: _Block,
    u: Tensor,
    by_gradient: Tensor,
    by_laplacian: Tensor,
    by_rate: Tensor,
    totals: Sequence[Tensor],
    scratch: Sequence[Tensor],
    by_product: Tensor,
) -> Tensor:
    """The cotangent of u; those of the parameters are added to the totals."""
    by_v, by_bias, by_clock, by_kernels, by_biases, by_weight, by_root = totals
    block.forward(u)
    pulled, weighted, *others = scratch
    moved, tangents = others[: len(block.layers)], others[len(block.layers) :]
    torch.mm(block.v, by_gradient, out=pulled)
    opening = _arrays(block.plus, block.minus, block.norms, block.clock)
    sums = _arrays(by_laplacian, by_rate)
    kernels.tangent(*[pulled.numpy(), *opening, *sums, tangents[0].numpy()])
    for i, layer in enumerate(block.layers):
        torch.mm(block.kernels[i], tangents[i], out=moved[i])
        after = tangents[i + 1] if i + 1 < len(tangents) else weighted
        now = _arrays(tangents[i], moved[i], layer.slope, layer.squares)
        kernels.next_tangent(*[*now, block.h, sums[0], after.numpy()])
    by_weight += weighted.sum(1)

    block.z.copy_(block.weight[:, None].expand(block.flat))
    by_state, by_rows = torch.zeros_like(block.z), None
    for i in reversed(range(len(block.layers))):
        layer, kernel = block.layers[i], block.kernels[i]
        now = _arrays(block.z, moved[i], layer.slope, layer.squares)
        before = _arrays(by_state, by_rows, layer.product, block.p, weighted, by_product)
        kernels.pulled_back(*[*now, block.h, sums[0], *before])
        by_kernels[i].addmm_(block.p, layer.state.T).addmm_(weighted, tangents[i].T)
        by_kernels[i].addmm_(by_product.flatten(1), layer.rows.flatten(1).T)
        by_biases[i] += block.p.sum(1)
        by_state.addmm_(kernel.T, block.p)
        block.z.addmm_(kernel.T, weighted)
        # The layer's product is read no more.
        if by_rows is None:
            by_rows = torch.mm(kernel.T, by_product.flatten(1), out=layer.product.flatten(1)).view(block.deep)
        else:
            by_rows.flatten(1).addmm_(kernel.T, by_product.flatten(1))

    now = _arrays(block.root, by_laplacian, by_rate, by_state, by_rows, block.p, weighted, by_bias, by_clock, by_root)
    kernels.closed(*_arrays(block.z, pulled), *opening, *now)
    by_v.addmm_(block.p, u.T).addmm_(weighted, by_gradient.T)
    return block.v.T @ block.p


def _arrays(*tensors: Tensor | None) -> list[np.ndarray | None]:
    return [None if tensor is None else tensor.numpy() for tensor in tensors]
