"""The residual network of `residual` on a CPU in float32: its matrix products, and compiled kernels between them.

Forward and backward as `residual.ResidualLayers` has them, with at least one layer behind the opening one; the numbers
are the same to rounding. All is done block by block, in scratch memory that blocks share.

The products K M are most of the arithmetic. Where memory allows they are kept for the backward pass, which then has two
of that size in place of three; kept or computed again, they are the same numbers.
"""

from __future__ import annotations

import math
import threading
import weakref
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
KEPT_BYTES = 2**30
"""What the products kept for backward passes to come may take, all together."""
KEPT_WIDTH = 128
"""Narrower networks compute them again sooner than memory brings them back."""


class _Room:
    """Memory that is lent until the tensor in it is gone."""

    def __init__(self) -> None:
        self.lent = 0
        # Tensors may go while this thread is in here.
        self._lock = threading.RLock()

    def take(self, shape: tuple[int, ...]) -> Tensor | None:
        """An uninitialised float32 tensor, or None where `KEPT_BYTES` do not suffice."""
        size = 4 * math.prod(shape)
        with self._lock:
            if self.lent + size > KEPT_BYTES:
                return None
            self.lent += size
        tensor = torch.empty(shape)
        weakref.finalize(tensor, self._returned, size)
        return tensor

    def _returned(self, size: int) -> None:
        with self._lock:
            self.lent -= size


_ROOM = _Room()


def room(u: Tensor, kernels: Tensor, root: Tensor) -> Tensor | None:
    """Where `forward` may keep its products for `backward`, shape (numbers of a column, columns), or None."""
    if len(root) < KEPT_WIDTH:
        return None
    return _ROOM.take((len(kernels) * (root.numel() + len(root)), u.shape[1]))


class _Layer(NamedTuple):
    """What the forward pass leaves of a layer, beside its products: its input, and what that became."""

    rows: Tensor
    slope: Tensor
    squares: Tensor


class _Block:
    """Scratch memory for so many columns, and the forward pass in it."""

    def __init__(self, parameters: Sequence[Tensor], columns: int, even: bool, kept: bool) -> None:
        self.v, self.bias, self.clock, self.kernels, self.biases, self.weight, self.root = parameters
        self.h = np.float32(1 / len(self.kernels))
        self.norms = self.root.square().sum(1)
        self.flat = (len(self.root), columns)
        self.ranks = self.root.shape[1]
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

    def deep(self, others: int) -> Tensor:
        """Numbers for M and so many arrays of width x columns, see `residual_kernels`."""
        units, columns = self.flat
        return self.root.new_empty(units, self.ranks + others, columns)

    def _layer(self) -> _Layer:
        return _Layer(self.deep(2), self.empty(), self.empty())

    def part(self, kept: Tensor, start: int) -> list[Tensor]:
        """The products of the block that starts at this column, in what is kept of all."""
        (units, columns), numbers = self.flat, len(kept)
        part = kept.view(-1)[numbers * start : numbers * (start + columns)]
        return list(part.view(len(self.kernels), units, self.ranks + 1, columns))

    def forward(self, u: Tensor, products: Sequence[Tensor], *, known: bool = False) -> None:
        """All up to the last layer, whose products are written to these tensors, unless they are known already."""
        torch.mm(self.v, u, out=self.p)
        kernels.opening(*_arrays(self.p, self.bias, self.root, self.plus, self.minus, self.layers[0].rows))
        following = [*(layer.rows for layer in self.layers[1:]), None]
        inputs = zip(self.kernels, self.biases, self.layers, strict=True)
        results = zip(self.slopes, self.squares, products, following, strict=True)
        for (kernel, bias, layer), (slope, squares, product, after) in zip(inputs, results, strict=True):
            if not known:
                torch.mm(kernel, layer.rows[:, :-1].flatten(1), out=product.flatten(1))
            kernels.layer(bias.numpy(), self.h, *_arrays(product, slope, squares, layer.rows, after))


def block_size(root: Tensor, columns: int) -> int:
    """Columns of a block, all blocks being about as long."""
    numbers = len(root) * (2 * root.shape[1] + FLAT)
    most = max(BLOCK_BYTES // (4 * numbers), FEWEST)
    return -(-columns // -(-columns // most))


def forward(
    u: Tensor, parameters: Sequence[Tensor], *, even: bool, kept: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient, Laplacian and derivative by time, as `ResidualLayers.forward`; the products are left in `kept`."""
    parameters = [parameter.detach().contiguous() for parameter in parameters]
    count, block = u.shape[1], None
    gradient, laplacian, rate = u.new_empty(u.shape), u.new_zeros(count), u.new_zeros(count)
    size = block_size(parameters[-1], count)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        if block is None or block.flat[1] != part.stop - start:
            block = _Block(parameters, part.stop - start, even, kept=False)
            passing = [block.deep(1)] * len(block.kernels) if kept is None else []
        block.forward(u[:, part], passing if kept is None else block.part(kept, start))
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
    inputs: Sequence[Tensor],
    by_gradient: Tensor,
    by_laplacian: Tensor,
    by_rate: Tensor,
    *,
    even: bool,
    kept: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Cotangents of u and the parameters, as `ResidualLayers.backward`; `kept` is what `forward` left there."""
    u, *rest = inputs
    parameters = [parameter.detach().contiguous() for parameter in rest]
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    by_u, count, block = u.new_empty(u.shape), u.shape[1], None
    size = block_size(parameters[-1], count)
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        if block is None or block.flat[1] != part.stop - start:
            block = _Block(parameters, part.stop - start, even, kept=True)
            scratch = [block.empty() for _ in range(2 + len(block.kernels))]
            deep = [block.deep(2) for _ in range(2)]
            computed = [block.deep(1) for _ in block.kernels] if kept is None else []
        products = computed if kept is None else block.part(kept, start)
        block.forward(u[:, part], products, known=kept is not None)
        cotangents = by_gradient[:, part], by_laplacian[part].contiguous(), by_rate[part].contiguous()
        by_u[:, part] = _backward_block(block, u[:, part], *cotangents, totals, scratch, products, deep)
    return by_u, *totals


def _backward_block(
    block: _Block,
    u: Tensor,
    by_gradient: Tensor,
    by_laplacian: Tensor,
    by_rate: Tensor,
    totals: Sequence[Tensor],
    scratch: Sequence[Tensor],
    products: Sequence[Tensor],
    deep: Sequence[Tensor],
) -> Tensor:
    """The cotangent of u, after `_Block.forward`; those of the parameters are added to the totals."""
    by_v, by_bias, by_clock, by_kernels, by_biases, by_weight, by_root = totals
    given, back = deep
    pulled, weighted, *moved = scratch
    torch.mm(block.v, by_gradient, out=pulled)
    opening = _arrays(block.plus, block.minus, block.norms, block.clock)
    sums = _arrays(by_laplacian, by_rate)
    kernels.tangent(*[pulled.numpy(), *opening, *sums, block.layers[0].rows.numpy()])
    following = [*(layer.rows for layer in block.layers[1:]), weighted[:, None]]
    for kernel, layer, product, after in zip(block.kernels, block.layers, moved, following, strict=True):
        torch.mm(kernel, layer.rows[:, -1], out=product)
        now = _arrays(layer.rows, product, layer.slope, layer.squares)
        kernels.next_tangent(*[*now, block.h, sums[0], after.numpy()])
    by_weight += weighted.sum(1)

    back[:, -2], back[:, -1] = 0, block.weight[:, None]
    last = True
    for i in reversed(range(len(block.layers))):
        layer, kernel = block.layers[i], block.kernels[i]
        now = _arrays(back, moved[i], layer.slope, layer.squares)
        kernels.pulled_back(*[*now, block.h, sums[0], products[i].numpy(), last, given.numpy()])
        by_kernels[i].addmm_(given.flatten(1), layer.rows.flatten(1).T)
        by_biases[i] += given[:, -2].sum(1)
        if last:
            torch.mm(kernel.T, given.flatten(1), out=back.flatten(1))
            back[:, -1] += block.weight[:, None]
        else:
            back.flatten(1).addmm_(kernel.T, given.flatten(1))
        last = False

    now = _arrays(block.root, by_laplacian, by_rate, block.p, weighted, by_bias, by_clock, by_root)
    kernels.closed(*_arrays(back, pulled), *opening, *now)
    by_v.addmm_(block.p, u.T).addmm_(weighted, by_gradient.T)
    return block.v.T @ block.p


def _arrays(*tensors: Tensor | None) -> list[np.ndarray | None]:
    return [None if tensor is None else tensor.numpy() for tensor in tensors]
