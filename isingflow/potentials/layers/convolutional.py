"""A layer between two circular convolutions, forward and backward, in few large operations.

    u_c = w_c * x,    gradient = sum_c w_c * (dh/du_c) + q * x,    laplacian = sum_sites lap_h(u) + sum_k q_k

Kernels are real and even, so their spectra are real and a convolution is its own adjoint: the backward pass is made of
the same transforms. (Differentiating through rfft2 and irfft2 would take full complex ones, and one autograd node for
each of some thirty small operations.)

Spectra keep the half of the momenta that rfft2 keeps: shape (..., lx, ly // 2 + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.fft import irfft2, rfft2

from isingflow.potentials.layers import wanted


class Layer(Protocol):
    """A function h of features, column by column, with its derivatives: `hidden.Layer`, `residual.ResidualLayers`."""

    @property
    def forward(self) -> Callable[..., tuple[Tensor, ...]]:
        """From u and the parameters: dh/du, shape (features, columns), the Laplacian and whatever else is summed over
        sites, shape (columns,).
        """

    @property
    def backward(self) -> Callable[..., tuple[Tensor | None, ...]]:
        """From the list of u and the parameters, the cotangents of the results, and `parameters`, whether theirs are
        wanted: the cotangents of u and the parameters.
        """


class _Convolutional(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layer, x, spectra, quadratic, *parameters):
        features, orientations = spectra.shape[:2]
        shape, kernels = x.shape[-2:], spectra[:, :, None]
        momenta = rfft2(x)
        u = irfft2(kernels * momenta, s=shape)
        by_u, *sums = layer.forward(u.view(features, -1), *parameters)
        response = rfft2(by_u.view(u.shape))
        gradient = irfft2((kernels * response).sum((0, 1)) + quadratic * momenta, s=shape)
        counts = multiplicities(shape).to(x)
        laplacian, *others = (columns.view(orientations, len(x), -1).sum((0, 2)) for columns in sums)
        if not any(ctx.needs_input_grad[2:]):
            momenta = response = None
        ctx.save_for_backward(momenta, response, spectra, quadratic, counts, u.view(features, -1), *parameters)
        ctx.layer = layer
        return gradient, laplacian + (counts * quadratic).sum(), *others

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_gradient, *by_sums):
        momenta, response, spectra, quadratic, counts, *inputs = ctx.saved_tensors
        orientations, shape, kernels = spectra.shape[1], by_gradient.shape[-2:], spectra[:, :, None]
        sites = math.prod(shape)
        pull = rfft2(by_gradient)
        by_response = irfft2(kernels * pull, s=shape)
        by_columns = (by_sum[None, :, None].expand(orientations, -1, sites).reshape(-1) for by_sum in by_sums)
        parameters = wanted.of_parameters(ctx.needs_input_grad[2:])
        by_u, *by_layer = ctx.layer.backward(
            inputs, by_response.view(len(spectra), -1), *by_columns, parameters=parameters
        )
        push = rfft2(by_u.view(by_response.shape))
        by_x = irfft2((kernels * push).sum((0, 1)) + quadratic * pull, s=shape)
        if not parameters:
            return None, by_x, None, None, *by_layer
        weights = counts / sites
        by_spectra = (_overlap(response, pull) + _overlap(momenta, push)) * weights
        by_quadratic = _overlap(momenta, pull) * weights + counts * by_sums[0].sum()
        return None, by_x, by_spectra, by_quadratic, *by_layer


def convolutional_layer(
    layer: Layer, x: Tensor, spectra: Tensor, quadratic: Tensor, *parameters: Tensor
) -> tuple[Tensor, ...]:
    """Gradient and Laplacian of phi(x) = sum_sites h(w * x) + (1/2) sum_k q_k |x_k|^2, summed over orientations.

    Args:
        layer: h.
        x: shape (n, lx, ly).
        spectra: of the kernels w, real, shape (features, orientations, lx, ly // 2 + 1).
        quadratic: q, shape (lx, ly // 2 + 1).
        parameters: of h.

    Returns:
        Gradient, shape (n, lx, ly), and Laplacian, shape (n,), then the sums over sites of whatever else the layer
        returns, shape (n,). Differentiable once.
    """
    return _Convolutional.apply(layer, x, spectra, quadratic, *parameters)


def multiplicities(shape: Sequence[int]) -> Tensor:
    """How many momenta each entry of a half spectrum stands for, 1 or 2; shape (lx, ly // 2 + 1).

    Example:
        >>> multiplicities((2, 4))
        tensor([[1., 2., 1.],
                [1., 2., 1.]])
    """
    lx, ly = shape
    counts = torch.full((lx, ly // 2 + 1), 2.0, dtype=torch.float32, device="cpu")
    counts[:, 0] = 1.0
    if ly % 2 == 0:
        counts[:, -1] = 1.0
    return counts


def _overlap(left: Tensor, right: Tensor) -> Tensor:
    """Sum over samples of Re(conj(left) right), shape (..., n, lx, ly // 2 + 1) to (..., lx, ly // 2 + 1)."""
    return (torch.view_as_real(left) * torch.view_as_real(right)).sum(-4).sum(-1)
