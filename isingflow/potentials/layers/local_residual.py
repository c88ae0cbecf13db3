"""The residual network of `residual` at every site of a graph: its opening layer is the features of that site.

    F_i(p) = a_i.u_L,    u_0 = s(p; b_i),    u_l = u_{l-1} + h s(K_l u_{l-1} + c_l),    h = 1 / max(L, 1)

K and c are shared by all sites, b_i and the output weights a_i are their own. Gradient and Laplacian are those of
`residual`, with a root R_i of the Gram matrix of every site's features. All is operations of torch, over all sites and
samples at once: autograd has the derivatives by the parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from isingflow.potentials.layers.residual import Opening, antiderivative


class Network(NamedTuple):
    """The network's numbers at a time.

    Attributes:
        opening: the activation of the first layer, `residual.PlainOpening` or `residual.EvenOpening`.
        b, clock: biases and their derivatives by time, shape (width, N).
        kernels, biases: shapes (L, width, width) and (L, width).
        a, slopes: output weights and their derivatives by time, shape (width, N).
    """

    opening: type[Opening]
    b: Tensor
    clock: Tensor
    kernels: Tensor
    biases: Tensor
    a: Tensor
    slopes: Tensor

    def value(self, p: Tensor) -> Tensor:
        """The sum of F_i over sites, shape (n,), for features of shape (width, N, n)."""
        state = self.opening(p, self.b[..., None]).value
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            state = state + antiderivative(_through(kernel, state, bias)) / len(self.kernels)
        return torch.einsum("mi,min->n", self.a, state)

    def derivatives(self, p: Tensor, root: Tensor, *, with_rate: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients by the features, of their shape, the sum of all Laplacians and the derivative by time, shape (n,).

        Args:
            p: features, shape (width, N, n).
            root: R, shape (width, rank, N).
            with_rate: whether the derivative by time is wanted; else it is zero.
        """
        h, passed = 1 / max(len(self.kernels), 1), []
        opening = self.opening(p, self.b[..., None])
        state, rows = opening.value, opening.first[:, None] * root[..., None]
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            pre, product = _through(kernel, state, bias), _through(kernel, rows)
            slope = torch.tanh(pre)
            passed.append((kernel, slope, product.square().sum(1)))
            last = len(passed) == len(self.kernels)
            if with_rate or not last:
                state = torch.add(state, antiderivative(pre), alpha=h)
            if not last:
                rows = torch.addcmul(rows, slope[:, None], product, value=h)
        z, laplacian = self.a[..., None].expand_as(p), p.new_zeros(p.shape[2])
        for kernel, slope, squares in reversed(passed):
            laplacian = laplacian + h * ((1 - slope * slope) * z * squares).sum((0, 1))
            z = torch.add(z, _through(kernel.T, slope * z), alpha=h)
        norms = root.square().sum(1)[..., None]
        laplacian = laplacian + (opening.second * z * norms).sum((0, 1))
        if not with_rate:
            return opening.first * z, laplacian, torch.zeros_like(laplacian)
        rate = (self.clock[..., None] * z * opening.bias_first).sum((0, 1))
        return opening.first * z, laplacian, rate + torch.einsum("mi,min->n", self.slopes, state)


def _through(kernel: Tensor, state: Tensor, bias: Tensor | None = None) -> Tensor:
    """The kernel times a state, shape (width, ...), plus a bias."""
    columns = state.flatten(1)
    moved = kernel @ columns if bias is None else torch.addmm(bias[:, None], kernel, columns)
    return moved.view(state.shape)
