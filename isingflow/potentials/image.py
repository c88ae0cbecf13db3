"""A potential of local features of an image: one small kernel a feature, shared by all sites, weighted site by site.

    phi(x, t) = sum_sites sum_m a_m(s, t) f(u_m(s)),    u_m(s) = sum_d w_m(d) x(s + d) + b_m,    f = softplus

    grad phi(s)   = sum_m sum_d w_m(d) a_m(s - d, t) f'(u_m(s - d))
    laplacian phi = sum_sites sum_m a_m(s, t) f''(u_m(s)) gamma_m(s),    gamma_m(s) = sum_d w_m(d)^2

with x = 0 outside the image and gamma summed over displacements that stay inside. It is a hidden layer of
features x sites units at the cost of a few hundred dense ones, and every image shows a kernel all of its sites.
a_m(s, t) is a Chebyshev series in time and starts at zero: the flow starts as the identity.

The forward and backward pass are written by hand and run over blocks of images whose features fit into a core's cache;
none of these is kept for the backward pass.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, fold, logsigmoid
from torch.nn.grad import conv2d_weight

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, Potential, chebyshev
from isingflow.potentials.layers import wanted
from isingflow.runtime.checks import count, lengths, number
from isingflow.runtime.fields import source, usual_defaults

CACHE = 2**18
"""Numbers in the features of a block of images on a CPU: one megabyte of float32."""


class ImagePotential(Potential):
    """The potential above on fields that are images, row by row: shape (height * width,).

    Args:
        image_shape: height and width.
        features: number of kernels.
        kernel: their width, odd.
        time_terms: number of Chebyshev polynomials in time.
        steepness: norm of the initial kernels: how sharply a feature tells a difference of one standard deviation.
        generator: source of the initial kernels, each of which compares a site with zero or with a site nearby.

    Raises:
        InvalidInput: an option is out of range.

    Example:
        >>> potential = ImagePotential((6, 8), features=4, generator=torch.Generator().manual_seed(0))
        >>> gradient, laplacian = potential.bind()(torch.zeros(2, 48), 0.0)
        >>> gradient.shape, laplacian.shape
        (torch.Size([2, 48]), torch.Size([2]))
    """

    @usual_defaults()
    def __init__(
        self,
        image_shape: tuple[int, int],
        *,
        features: int,
        kernel: int = 5,
        time_terms: int = 3,
        steepness: float = 2.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.image_shape = lengths("image_shape", image_shape)
        features, time_terms = count("features", features), count("time_terms", time_terms)
        kernel, steepness = count("kernel", kernel), number("steepness", steepness, above=0)
        if len(self.image_shape) != 2 or kernel % 2 == 0:
            raise InvalidInput(f"image {image_shape}, kernel {kernel}: expected two lengths, and a kernel of odd width")
        generator = source(generator)
        self.shape = (math.prod(self.image_shape),)
        self.symmetry = Group(self.shape)
        self.weight = nn.Parameter(steepness * _initial_kernels(features, kernel, generator))
        self.bias = nn.Parameter(steepness * torch.randn(features, generator=generator) / 2)
        self.amplitude = nn.Parameter(torch.zeros(time_terms, features, *self.image_shape))

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,)."""
        features = conv2d(x.view(-1, 1, *self.image_shape), self.weight, self.bias, padding="same")
        return -logsigmoid(-features).flatten(1) @ self._at(t).flatten()

    def _bind(self) -> Field:
        """Gradient and Laplacian; two convolutions, and three more for the backward pass."""
        inside = self.weight.new_ones(1, 1, *self.image_shape)
        gamma = conv2d(inside, self.weight.square(), padding="same")[0]

        # A Runge-Kutta method asks for the same times more than once.
        @lru_cache
        def weights(t: float) -> tuple[Tensor, Tensor]:
            amplitude = self._at(t)
            return amplitude, amplitude * gamma

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            images = x.view(-1, 1, *self.image_shape)
            gradient, laplacian = _ImageLayer.apply(images, self.weight, self.bias, *weights(t))
            return gradient.view(x.shape), laplacian

        return field

    def _at(self, t: float) -> Tensor:
        """a_m(s, t), shape (features, height, width)."""
        return torch.tensordot(chebyshev(t, len(self.amplitude), self.amplitude), self.amplitude, 1)


class _ImageLayer(torch.autograd.Function):
    """Gradient (n, 1, height, width) and Laplacian (n,) from images, w, b, a and a gamma; differentiable once."""

    @staticmethod
    def forward(ctx, x, weight, bias, amplitude, second):
        ctx.save_for_backward(x, weight, bias, amplitude, second)
        gradient, laplacian = torch.empty_like(x), x.new_empty(len(x))
        for rows in _blocks(x, amplitude):
            first = conv2d(x[rows], weight, bias, padding="same").sigmoid_()
            torch.mv((first - first.square()).flatten(1), second.flatten(), out=laplacian[rows])
            gradient[rows] = _transposed(first.mul_(amplitude), weight)
        return gradient, laplacian

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_gradient, by_laplacian):
        x, weight, bias, amplitude, second = ctx.saved_tensors
        parameters = wanted.of_parameters(ctx.needs_input_grad[1:])
        by_x = torch.empty_like(x)
        by_weight, by_bias, by_amplitude, by_second = map(torch.zeros_like, (weight, bias, amplitude, second))
        for rows in _blocks(x, amplitude):
            pull, scale = by_gradient[rows], by_laplacian[rows, None, None, None]
            first = conv2d(x[rows], weight, bias, padding="same").sigmoid_()
            curvature = first - first.square()
            by_first = conv2d(pull, weight, padding="same")
            by_features = (1 - 2 * first).mul_(scale * second).addcmul_(by_first, amplitude).mul_(curvature)
            by_x[rows] = _transposed(by_features, weight)
            if parameters:
                by_amplitude += (by_first * first).sum(0)
                by_second += torch.tensordot(by_laplacian[rows], curvature, 1)
                by_bias += by_features.sum((0, 2, 3))
                by_weight += _by_kernel(x[rows], by_features, weight)
                by_weight += _by_kernel(pull, first.mul_(amplitude), weight)
        return by_x, *((by_weight, by_bias, by_amplitude, by_second) if parameters else [None] * 4)


def _blocks(x: Tensor, amplitude: Tensor) -> list[slice]:
    """Slices of the images: all of them at once on a GPU."""
    size = len(x) if x.device.type != "cpu" else max(CACHE // amplitude.numel(), 1)
    return [slice(start, start + size) for start in range(0, len(x), max(size, 1))]


def _transposed(features: Tensor, weight: Tensor) -> Tensor:
    """The transposed convolution: a matrix product and a sum of patches, twice as fast as that of torch on a CPU."""
    width = weight.shape[-1]
    patches = weight.flatten(1).T @ features.flatten(2)
    return fold(patches, features.shape[2:], width, padding=width // 2)


def _by_kernel(x: Tensor, by_features: Tensor, weight: Tensor) -> Tensor:
    return conv2d_weight(x, weight.shape, by_features, padding=weight.shape[-1] // 2)


def _initial_kernels(features: int, kernel: int, generator: torch.Generator) -> Tensor:
    """Unit kernels, shape (features, 1, kernel, kernel): a third read one site, the others two."""
    kernels = torch.zeros(features, kernel * kernel)
    centre = kernel * kernel // 2
    signs = 2.0 * torch.randint(2, (features, 2), generator=generator) - 1
    neighbours = torch.randint(kernel * kernel, (features,), generator=generator)
    kernels[:, centre] = signs[:, 0]
    pairs = torch.arange(features // 3, features)
    kernels[pairs, neighbours[pairs]] += signs[pairs, 1]
    flat = kernels.norm(dim=1) == 0
    kernels[flat, centre] = 1.0
    return (kernels / kernels.norm(dim=1, keepdim=True)).view(features, 1, kernel, kernel)
