"""Circular convolutions with real, even kernels on a torus, by FFT, with their own backward pass.

A real even kernel has a real spectrum, so convolving with it is its own adjoint: the backward pass is another convolution
of the same cost. (Differentiating through rfft2 and irfft2 instead would take full complex transforms.)

Spectra have shape (features, orientations, lx, ly // 2 + 1): the half of the momenta that rfft2 keeps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, spectra):
        momenta = torch.fft.rfft2(x)
        ctx.save_for_backward(momenta, spectra)
        return torch.fft.irfft2(spectra[:, :, None] * momenta, s=x.shape[-2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, cotangent):
        momenta, spectra = ctx.saved_tensors
        shape = cotangent.shape[-2:]
        cotangent = torch.fft.rfft2(cotangent)
        by_x = torch.fft.irfft2(_contract(spectra, cotangent), s=shape)
        by_spectra = _by_spectra(momenta, cotangent, shape) if ctx.needs_input_grad[1] else None
        return by_x, by_spectra


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, spectra):
        momenta = torch.fft.rfft2(features)
        ctx.save_for_backward(momenta, spectra)
        return torch.fft.irfft2(_contract(spectra, momenta), s=features.shape[-2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, cotangent):
        momenta, spectra = ctx.saved_tensors
        shape = cotangent.shape[-2:]
        cotangent = torch.fft.rfft2(cotangent)
        by_features = torch.fft.irfft2(spectra[:, :, None] * cotangent, s=shape)
        by_spectra = _by_spectra(momenta, cotangent, shape) if ctx.needs_input_grad[1] else None
        return by_features, by_spectra


def spread(x: Tensor, spectra: Tensor) -> Tensor:
    """Convolutions of one field with every kernel: w_c * x.

    Args:
        x: shape (n, lx, ly).
        spectra: real.

    Returns:
        Shape (features, orientations, n, lx, ly). Differentiable once.

    Example:
        >>> identity = torch.ones(1, 1, 4, 3)
        >>> x = torch.arange(16.0).view(1, 4, 4)
        >>> torch.allclose(spread(x, identity)[0, 0], x, atol=1e-5)
        True
    """
    return _Spread.apply(x, spectra)


def gather(features: Tensor, spectra: Tensor) -> Tensor:
    """The adjoint of `spread`: sum over kernels of w_c * u_c, shape (n, lx, ly), for u of `spread`'s shape."""
    return _Gather.apply(features, spectra)


def multiplicities(shape: tuple[int, int]) -> Tensor:
    """How many momenta each entry of a half spectrum stands for, 1 or 2; shape (lx, ly // 2 + 1).

    Example:
        >>> multiplicities((2, 4))
        tensor([[1., 2., 1.],
                [1., 2., 1.]])
    """
    lx, ly = shape
    counts = torch.full((lx, ly // 2 + 1), 2.0)
    counts[:, 0] = 1.0
    if ly % 2 == 0:
        counts[:, -1] = 1.0
    return counts


def _contract(spectra: Tensor, momenta: Tensor) -> Tensor:
    """Sum over kernels of spectra times momenta, (features, orientations, n, ...) to (n, ...)."""
    return (spectra[:, :, None] * momenta).sum((0, 1))


def _by_spectra(momenta: Tensor, cotangent: Tensor, shape: tuple[int, int]) -> Tensor:
    overlap = (torch.view_as_real(momenta) * torch.view_as_real(cotangent)).sum(-4).sum(-1)
    return overlap * multiplicities(shape).to(overlap) / math.prod(shape)
