"""A layer between two circular convolutions, forward and backward, in few large operations.

    u_c = w_c * x,    gradient = sum_c w_c * (dh/du_c) + q * x,    laplacian = sum_sites lap_h(u) + sum_k q_k

Kernels are real and even, so their spectra are real and a convolution is its own adjoint: the backward pass is made of
the same transforms. (Differentiating through them would take full complex ones, and one autograd node for each of some
thirty small operations.)

Fields live on a torus of any dimension d. Spectra keep the half of the momenta that a real transform keeps: on a plane
shape (..., lx, ly // 2 + 1), in general the last axis is halved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

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
        shape, kernels = x.shape[1:], spectra[:, :, None]
        momenta = half_spectrum(x, len(shape))
        u = field_of(kernels * momenta, shape)
        by_u, *sums = layer.forward(u.view(features, -1), *parameters)
        response = half_spectrum(by_u.view(u.shape), len(shape))
        gradient = field_of((kernels * response).sum((0, 1)) + quadratic * momenta, shape)
        counts = multiplicities(shape).to(x)
        laplacian, *others = (columns.view(orientations, len(x), -1).sum((0, 2)) for columns in sums)
        waves = (momenta, response) if any(ctx.needs_input_grad[2:]) else (None, None)
        ctx.save_for_backward(*waves, spectra, quadratic, counts, u.view(features, -1), *parameters)
        ctx.layer = layer
        return gradient, laplacian + (counts * quadratic).sum(), *others

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_gradient, *by_sums):
        momenta, response, spectra, quadratic, counts, *inputs = ctx.saved_tensors
        orientations, shape, kernels = spectra.shape[1], by_gradient.shape[1:], spectra[:, :, None]
        sites = math.prod(shape)
        pull = half_spectrum(by_gradient, len(shape))
        by_response = field_of(kernels * pull, shape)
        by_columns = (by_sum[None, :, None].expand(orientations, -1, sites).reshape(-1) for by_sum in by_sums)
        parameters = wanted.of_parameters(ctx.needs_input_grad[2:])
        by_u, *by_layer = ctx.layer.backward(
            inputs, by_response.view(len(spectra), -1), *by_columns, parameters=parameters
        )
        push = half_spectrum(by_u.view(by_response.shape), len(shape))
        by_x = field_of((kernels * push).sum((0, 1)) + quadratic * pull, shape)
        if not parameters:
            return None, by_x, None, None, *by_layer
        weights = counts / sites
        axis = -1 - len(shape)
        by_spectra = (_overlap(response, pull, axis) + _overlap(momenta, push, axis)) * weights
        by_quadratic = _overlap(momenta, pull, axis) * weights + counts * by_sums[0].sum()
        return None, by_x, by_spectra, by_quadratic, *by_layer


def convolutional_layer(
    layer: Layer, x: Tensor, spectra: Tensor, quadratic: Tensor, *parameters: Tensor
) -> tuple[Tensor, ...]:
    """Gradient and Laplacian of phi(x) = sum_sites h(w * x) + (1/2) sum_k q_k |x_k|^2, summed over orientations.

    Args:
        layer: h.
        x: shape (n, *shape), such as (n, lx, ly).
        spectra: of the kernels w, real, shape (features, orientations, *half), such as (.., lx, ly // 2 + 1).
        quadratic: q, shape `half`.
        parameters: of h.

    Returns:
        Gradient, shape (n, *shape), and Laplacian, shape (n,), then the sums over sites of whatever else the layer
        returns, shape (n,). Differentiable once.
    """
    return _Convolutional.apply(layer, x, spectra, quadratic, *parameters)


def half_spectrum(x: Tensor, dimensions: int) -> Tensor:
    """The transform of real fields over their last axes, as many as the torus has dimensions."""
    return torch.fft.rfftn(x, dim=tuple(range(-dimensions, 0)))


def field_of(momenta: Tensor, shape: Sequence[int]) -> Tensor:
    """The real fields, shape (..., *shape), of half spectra."""
    return torch.fft.irfftn(momenta, s=tuple(shape), dim=tuple(range(-len(shape), 0)))


def multiplicities(shape: Sequence[int]) -> Tensor:
    """How many momenta each entry of a half spectrum stands for, 1 or 2; of the shape of a half spectrum.

    Example:
        >>> multiplicities((2, 4))
        tensor([[1., 2., 1.],
                [1., 2., 1.]])
    """
    *others, last = shape
    counts = torch.full((*others, last // 2 + 1), 2.0, dtype=torch.float32, device="cpu")
    counts[..., 0] = 1.0
    if last % 2 == 0:
        counts[..., -1] = 1.0
    return counts


def _overlap(left: Tensor, right: Tensor, samples: int) -> Tensor:
    """Sum over samples, which are this axis, of Re(conj(left) right), shape (..., n, *half) to (..., *half)."""
    return (torch.view_as_real(left) * torch.view_as_real(right)).sum(samples - 1).sum(-1)
