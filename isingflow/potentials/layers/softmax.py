"""ln sum_m exp(x.w_m + b_m), a soft maximum of affine functions, with gradient and Hessian.

They are mean and covariance of the slopes w_m under the softmax weights p_m ~ exp(x.w_m + b_m).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow.potentials.layers import fused_softmax

FUSED_DIMENSION = 3
"""Largest dimension of the fused kernels, whose work grows with its square; above it matrix products are better."""
_FLOORS = {torch.float32: np.float32(-60), torch.float64: np.float64(-600)}
"""Least exponent of a weight over the largest; products of such weights with slopes are no denormal numbers yet."""
_BITS = {torch.float32: np.int32, torch.float64: np.int64}


def softmax_moments(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln sum_m exp(x.w_m + b_m), shape (n,), its gradient, (n, d), and its Hessian, (n, d, d), by x.

    Args:
        x: points, shape (n, d).
        w: slopes, shape (d, units).
        b: offsets, shape (units,).

    Example:
        >>> value, slope, curvature = softmax_moments(torch.zeros(1, 1), torch.tensor([[-1.0, 1.0]]), torch.zeros(2))
        >>> value, slope, curvature
        (tensor([0.6931]), tensor([[0.]]), tensor([[[1.]]]))
    """
    if x.device.type == "cpu" and x.shape[1] <= FUSED_DIMENSION and x.dtype in _FLOORS:
        return _Fused.apply(x, w, b)
    exponents = torch.addmm(b, x, w)
    p = exponents.softmax(1)
    mean = p @ w.T
    away = w.T - mean[:, None]
    return exponents.logsumexp(1), mean, (p[:, :, None] * away).mT @ away


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, w, b = (tensor.detach().contiguous() for tensor in (x, w, b))
        n, d = x.shape
        results = x.new_empty(n), x.new_empty(n, d), x.new_empty(n, d, d)
        fused_softmax.forward(*_given(x, w, b), *_arrays(*results))
        ctx.save_for_backward(x, w, b, results[1], results[2])
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *cotangents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, w, b, mean, covariance = ctx.saved_tensors
        by_value, by_mean, by_covariance = cotangents
        # The formulas are those of a symmetric cotangent; the covariance is symmetric, so that half of both is as good.
        given = by_value.contiguous(), by_mean.contiguous(), (by_covariance + by_covariance.mT) / 2
        pulled = torch.empty_like(x), torch.empty_like(w), torch.empty_like(b)
        fused_softmax.backward(*_given(x, w, b), *_arrays(mean, covariance, *given, *pulled))
        return pulled


def _given(x: Tensor, w: Tensor, b: Tensor) -> list[Any]:
    """What both kernels are told, with their scratch."""
    return [*_arrays(x, w, b), _FLOORS[b.dtype], np.empty(len(b), _BITS[b.dtype])]


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in tensors]
