"""One hidden layer, with the derivatives that a potential flow needs, in closed form.

    phi(u) = sum_m a_m f(v_m.u; b_m),    grad_u phi = sum_m a_m f'(p_m) v_m,    p_m = v_m.u,
    laplacian phi = sum_m a_m gamma_m f''(p_m),

where gamma_m is the squared norm of v_m in the space in which the Laplacian is taken: |v_m|^2 if that is the space of
u, v_m G v_m if u = W x and G = W W^T is the Gram matrix of the opening linear map. The backward pass is written by
hand: it needs f''' once and recomputes all elementwise work from u, which is all that a stage of an integrator stores.

An activation is a function of pre-activation p and bias b. Those with `even` in their name are even in p for every b,
hence exactly Z2-symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from isingflow.potentials.layers import fused, wanted

Derivatives = tuple[Tensor, ...]


def softplus_derivatives(p: Tensor, b: Tensor) -> Derivatives:
    """f = softplus(p + b): f', f'', f''', d f'/db, d f''/db."""
    first = torch.sigmoid(p + b)
    second = first * (1 - first)
    third = second * (1 - 2 * first)
    return first, second, third, second, third


def lncosh_derivatives(p: Tensor, b: Tensor) -> Derivatives:
    """f = ln cosh(p + b), even in p where b = 0: f', f'', f''', d f'/db, d f''/db."""
    first = torch.tanh(p + b)
    second = 1 - first * first
    third = -2 * first * second
    return first, second, third, second, third


def even_root_derivatives(p: Tensor, b: Tensor) -> Derivatives:
    """f = [r(p + b) + r(p - b)] / 2, r(s) = sqrt(1 + s^2): f', f'', f''', d f'/db, d f''/db.

    r is a soft |s| like ln cosh, with no transcendental function.
    """
    plus, minus = p + b, p - b
    inverse_plus, inverse_minus = torch.rsqrt(1 + plus * plus), torch.rsqrt(1 + minus * minus)
    second_plus = inverse_plus * inverse_plus * inverse_plus
    second_minus = inverse_minus * inverse_minus * inverse_minus
    third_plus = -3 * plus * second_plus * inverse_plus * inverse_plus
    third_minus = -3 * minus * second_minus * inverse_minus * inverse_minus
    first = (plus * inverse_plus + minus * inverse_minus) / 2
    return (
        first,
        (second_plus + second_minus) / 2,
        (third_plus + third_minus) / 2,
        (second_plus - second_minus) / 2,
        (third_plus - third_minus) / 2,
    )


def root_derivatives(p: Tensor, b: Tensor) -> Derivatives:
    """f = r(p + b), r(s) = sqrt(1 + s^2): f', f'', f''', d f'/db, d f''/db."""
    s = p + b
    inverse = torch.rsqrt(1 + s * s)
    second = inverse * inverse * inverse
    third = -3 * s * second * inverse * inverse
    return s * inverse, second, third, second, third


def softplus_value(p: Tensor, b: Tensor) -> Tensor:
    """softplus(p + b); torch's own is a straight line above 20, 2e-9 off."""
    return -logsigmoid(-p - b)


def lncosh_value(p: Tensor, b: Tensor) -> Tensor:
    """ln cosh(p + b)."""
    magnitude = (p + b).abs()
    return magnitude + torch.log1p(torch.exp(-2 * magnitude)) - math.log(2)


def root_value(p: Tensor, b: Tensor) -> Tensor:
    """sqrt(1 + (p + b)^2)."""
    return torch.sqrt(1 + (p + b) ** 2)


def even_root_value(p: Tensor, b: Tensor) -> Tensor:
    """[sqrt(1 + (p + b)^2) + sqrt(1 + (p - b)^2)] / 2."""
    return (torch.sqrt(1 + (p + b) ** 2) + torch.sqrt(1 + (p - b) ** 2)) / 2


@dataclass(frozen=True)
class Activation:
    """A scalar function of pre-activation and bias, and its derivatives."""

    value: Callable[[Tensor, Tensor], Tensor]
    derivatives: Callable[[Tensor, Tensor], Derivatives]
    saturating: Saturating | None = None


@dataclass(frozen=True)
class Saturating:
    """What defines a function of p + b whose f'' = constant + slope f' - f'^2: its f' is all that needs computing.

    Attributes:
        first: f' as a function of p + b.
        constant, slope: the numbers above.
    """

    first: Callable[[Tensor], Tensor]
    constant: float
    slope: float


ACTIVATIONS = {
    "softplus": Activation(softplus_value, softplus_derivatives, Saturating(torch.sigmoid, 0.0, 1.0)),
    "lncosh": Activation(lncosh_value, lncosh_derivatives, Saturating(torch.tanh, 1.0, 0.0)),
    "even-root": Activation(even_root_value, even_root_derivatives),
    "root": Activation(root_value, root_derivatives),
}


@dataclass(frozen=True)
class Kernels:
    """The elementwise work of one activation, in two functions that a compiler can fuse."""

    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[..., tuple[Tensor, ...]]


@lru_cache
def kernels(activation: str, compiled: bool) -> Kernels:
    """The elementwise kernels of an activation, eager or fused by torch.compile.

    Arguments of the kernels: p and the cotangent e of f', shape (hidden, columns); the cotangent l of the Laplacian,
    (columns,); bias b, weight a and squared norm gamma, (hidden, 1); whether cotangents of the parameters are wanted.
    """
    derivatives = ACTIVATIONS[activation].derivatives

    def forward(p: Tensor, b: Tensor, a: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        first, second, *_ = derivatives(p, b)
        return a * first, (a * gamma)[:, 0] @ second

    def backward(
        p: Tensor, e: Tensor, l: Tensor, b: Tensor, a: Tensor, gamma: Tensor, parameters: bool
    ) -> tuple[Tensor, ...]:
        first, second, third, first_by_bias, second_by_bias = derivatives(p, b)
        by_second = gamma * l
        by_p = a * torch.addcmul(e * second, by_second, third)
        if not parameters:
            return (by_p,)
        weighted_second = second @ l
        by_a = (e * first).sum(1) + gamma[:, 0] * weighted_second
        # b enters next to p alone, unless f is made even.
        if first_by_bias is second:
            by_b = by_p.sum(1)
        else:
            by_b = (a * torch.addcmul(e * first_by_bias, by_second, second_by_bias)).sum(1)
        return by_p, a * first, by_a, by_b, a[:, 0] * weighted_second

    if compiled:
        return Kernels(torch.compile(forward, dynamic=False), torch.compile(backward, dynamic=False))
    return Kernels(forward, backward)


@dataclass(frozen=True)
class Layer:
    """The forward and backward pass of one hidden layer as functions of plain tensors, without autograd.

    Attributes:
        activation: a key of `ACTIVATIONS`.
        compiled: fuse elementwise work by torch.compile, where there is no kernel of our own (`fused`: even-root on a
            CPU).
    """

    activation: str
    compiled: bool = False

    def prepare(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor | None:
        """What `forward` and `backward` share, shape (hidden, columns): f' where f saturates on a CPU, else p = v @ u.

        None where a fused kernel forms neither.
        """
        return None if self._fused(u) else self._preactivation(u, v, b, self._saturating(u))

    def forward(
        self, u: Tensor, v: Tensor, b: Tensor, a: Tensor, gamma: Tensor, prepared: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradient, shape (features, columns), and Laplacian, shape (columns,); arguments as in `hidden_layer`."""
        if self._fused(u):
            gradient, laplacian = u.new_empty(u.shape), u.new_empty(u.shape[1])
            fused.forward(*_arrays(u, v, b, a, gamma, gradient, laplacian))
            return gradient, laplacian
        saturating = self._saturating(u)
        prepared = self._preactivation(u, v, b, saturating) if prepared is None else prepared
        if saturating is None:
            elementwise = kernels(self.activation, self.compiled)
            weighted, laplacian = elementwise.forward(prepared, b[:, None], a[:, None], gamma[:, None])
        else:
            weighted, laplacian = torch.empty_like(prepared), u.new_empty(u.shape[1])
            inputs = _arrays(prepared, a, gamma)
            fused.saturating_forward(*inputs, *_numbers(saturating, inputs[0]), *_arrays(weighted, laplacian))
        return v.T @ weighted, laplacian

    def backward(
        self,
        inputs: Sequence[Tensor],
        by_gradient: Tensor,
        by_laplacian: Tensor,
        prepared: Tensor | None = None,
        *,
        parameters: bool = True,
    ) -> tuple[Tensor | None, ...]:
        """Cotangents of the inputs (u, v, b, a, gamma) from those of gradient and Laplacian.

        Without `parameters` all but that of u are None and cost nothing.
        """
        u, v, b, a, gamma = inputs
        if self._fused(u):
            wanted = inputs if parameters else inputs[:1]
            results = [tensor.new_empty(tensor.shape) for tensor in wanted]
            unwanted = [None] * (len(inputs) - len(wanted))
            given = _arrays(*inputs, by_gradient.contiguous(), by_laplacian.contiguous())
            fused.backward(*given, *_arrays(*results), *unwanted)
            return *results, *unwanted
        saturating = self._saturating(u)
        prepared = self._preactivation(u, v, b, saturating) if prepared is None else prepared
        by_first = v @ by_gradient
        if saturating is None:
            columns = (b[:, None], a[:, None], gamma[:, None])
            elementwise = kernels(self.activation, self.compiled)
            by_p, *sums = elementwise.backward(prepared, by_first, by_laplacian, *columns, parameters)
        else:
            by_p, *sums = (torch.empty_like(x) for x in (prepared, prepared, a, b, gamma))
            given = _arrays(prepared, by_first, by_laplacian, a, gamma)
            fused.saturating_backward(*given, *_numbers(saturating, given[0]), *_arrays(by_p, *sums))
        if not parameters:
            return v.T @ by_p, None, None, None, None
        weighted, by_a, by_b, by_gamma = sums
        by_v = torch.addmm(weighted @ by_gradient.T, by_p, u.T)
        return v.T @ by_p, by_v, by_b, by_a, by_gamma

    @staticmethod
    def _preactivation(u: Tensor, v: Tensor, b: Tensor, saturating: Saturating | None) -> Tensor:
        return v @ u if saturating is None else saturating.first(torch.addmm(b[:, None], v, u))

    def _fused(self, u: Tensor) -> bool:
        return self.activation == "even-root" and u.device.type == "cpu"

    def _saturating(self, u: Tensor) -> Saturating | None:
        return ACTIVATIONS[self.activation].saturating if u.device.type == "cpu" else None


class _HiddenLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, v, b, a, gamma, layer):
        prepared = layer.prepare(u, v, b)
        ctx.save_for_backward(u, v, b, a, gamma, prepared)
        ctx.layer = layer
        return layer.forward(u, v, b, a, gamma, prepared)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_gradient, by_laplacian):
        *inputs, prepared = ctx.saved_tensors
        parameters = wanted.of_parameters(ctx.needs_input_grad[1:])
        return *ctx.layer.backward(inputs, by_gradient, by_laplacian, prepared, parameters=parameters), None


def hidden_layer(u: Tensor, v: Tensor, b: Tensor, a: Tensor, gamma: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """Gradient and Laplacian of phi(u) = sum_m a_m f(v_m.u; b_m), column by column.

    Args:
        u: inputs, shape (features, columns): columns are samples, or samples x sites.
        v: weights, shape (hidden, features).
        b, a, gamma: bias, output weight and squared norm of v_m, shape (hidden,).
        layer: activation, and how it is computed.

    Returns:
        grad_u phi, shape (features, columns), and the Laplacian, shape (columns,). Differentiable once.
    """
    return _HiddenLayer.apply(u, v, b, a, gamma, layer)


def _numbers(saturating: Saturating, like: np.ndarray) -> np.ndarray:
    """Its numbers in the precision of the arrays: a double among them would make a kernel work in double."""
    return np.array([saturating.constant, saturating.slope], like.dtype)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
