"""A convolutional input-convex network: a convex potential of images whose features look at pixels close by.

    u   = x as channels of h x w pixels, squares of s x s pixels folded into channels (squeezed)
    p_1 = K_1 * u + b_1,                      z_1 = a(p_1) - p_1 / 2,
    p_k = W_k * z_{k-1} + K_k * u + b_k,      z_k = a(p_k),              W_k >= 0 in every entry,
    F(x) = c sum_features sum_pixels w z_K + l.x + alpha |x|^2 / 2,      w >= 0 at every pixel, c > 0, alpha > 0,

with zeros outside the image. Convolutions are linear, so F is convex as that of `convex.ConvexNetwork` is, whose
sparse kin this is. Without the skip connections K_k, k > 1, the network is the plain one. There is no pooling: every
layer has all pixels, and coarse views come from squeezing, which is a permutation of the pixels. With d_k = dF/dz_k,

    grad F = sum_k K_k^T * (a'_k d_k) + l + alpha x,    hess F = sum_k J_k^T diag(a''_k d_k) J_k + alpha I,

and a product with the Hessian takes one pass forward and one back through the layers.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle, pixel_unshuffle, softplus

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import trivial_group
from isingflow.potentials.convex import INITIAL_SHARE, ConvexFunction, Expansion, raw_strength, strength
from isingflow.potentials.layers.activations import CONVEX
from isingflow.runtime.checks import choice, count, flag, lengths, number
from isingflow.runtime.fields import source, usual_defaults

CALIBRATION = 64
"""Standard normal images at which the network's curvature is measured at the start."""


class ConvexImagePotential(ConvexFunction):
    """The potential above on images, channel by channel and row by row: shape (channels * height * width,).

    The gradient starts near the identity: at standard normal images the Hessian's mean eigenvalue is one.

    Args:
        image_shape: channels, height and width.
        squeeze: s; it must divide height and width.
        width: features of every layer.
        layers: hidden layers K.
        kernel: width of all kernels, odd.
        augmented: whether every layer sees u; else the first one only.
        activation: a name in `layers.activations.CONVEX`.
        gain: standard deviation of K_1 * u at the start, for u standard normal.
        generator: source of the initial weights.

    Raises:
        InvalidInput: an option is out of range, or a squeeze that does not divide the image.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> potential = ConvexImagePotential((1, 4, 6), squeeze=2, width=3, generator=generator)
        >>> x = torch.ones(2, 24)
        >>> potential.gradient(x).shape, potential.product(x, x[None]).shape
        (torch.Size([2, 24]), torch.Size([1, 2, 24]))
    """

    @usual_defaults()
    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        squeeze: int = 1,
        width: int,
        layers: int = 2,
        kernel: int = 3,
        augmented: bool = True,
        activation: str = "softplus",
        gain: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.image_shape = lengths("image_shape", image_shape)
        self.squeeze = count("squeeze", squeeze)
        width, layers, kernel = count("width", width), count("layers", layers), count("kernel", kernel)
        if len(self.image_shape) != 3 or kernel % 2 == 0:
            raise InvalidInput(
                f"image {image_shape}, kernel {kernel}: expected channels, height and width, and a kernel of odd width"
            )
        if any(length % self.squeeze for length in self.image_shape[1:]):
            raise InvalidInput(f"images of shape {self.image_shape} cannot be squeezed by {self.squeeze}: no divisor")
        self.activation = choice("activation", activation, CONVEX)
        gain = number("gain", gain, above=0)
        generator = source(generator)
        self.shape = (math.prod(self.image_shape),)
        self.symmetry = trivial_group(self.shape)
        seeing = layers if flag("augmented", augmented) else 1
        channels = self.image_shape[0] * self.squeeze**2
        pixels = [length // self.squeeze for length in self.image_shape[1:]]
        spread = gain / math.sqrt(channels * kernel**2)

        def normal(*shape: int, scale: float = 1.0) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*shape, generator=generator))

        self.skips = nn.ParameterList(normal(width, channels, kernel, kernel, scale=spread) for _ in range(seeing))
        self.biases = nn.ParameterList(normal(width) for _ in range(layers))
        self.raw = nn.ParameterList(normal(width, width, kernel, kernel) for _ in range(layers - 1))
        self.raw_out = normal(width, *pixels)
        with torch.no_grad():
            self.linear = nn.Parameter(torch.zeros(self.shape))
            self.log_scale = nn.Parameter(torch.zeros(()))
            self.log_alpha = nn.Parameter(torch.tensor(-math.inf))
            points = torch.randn(CALIBRATION, *self.shape, generator=generator)
            start = self.expand(points)
            probe = torch.randn(CALIBRATION, *self.shape, generator=generator).sign()
            scale = INITIAL_SHARE / ((start.product(probe) * probe).mean() - start.strength)
            self.linear.sub_(scale * (start.gradient - start.strength * points).mean(0))
            self.log_scale.copy_(scale.log())
            self.log_alpha.copy_(raw_strength(torch.tensor(1 - INITIAL_SHARE)))

    def expand(self, x: Tensor) -> Expansion:
        return _ImageExpansion(x, self)


class _ImageExpansion(Expansion):
    """Features of the samples have shape (n, width, h, w)."""

    def __init__(self, x: Tensor, potential: ConvexImagePotential) -> None:
        self._image_shape, self._squeeze = potential.image_shape, potential.squeeze
        self._skips = list(potential.skips)
        self._weights = [softplus(raw) / raw[0].numel() for raw in potential.raw]
        self._activation = CONVEX[potential.activation]
        end = potential.log_scale.exp() * softplus(potential.raw_out) / len(potential.raw_out)
        u = self._channels(x)
        self._pre: list[Tensor] = []
        self._slopes: list[Tensor] = []
        p = _convolved(u, self._skips[0]) + potential.biases[0][:, None, None]
        z, slope = self._activation.value(p) - p / 2, self._activation.first(p) - 0.5
        for layer, weight in enumerate(self._weights, start=1):
            self._pre.append(p)
            self._slopes.append(slope)
            p = _convolved(z, weight) + potential.biases[layer][:, None, None]
            if layer < len(self._skips):
                p = p + _convolved(u, self._skips[layer])
            z, slope = self._activation.value(p), self._activation.first(p)
        self._pre.append(p)
        self._slopes.append(slope)
        pulls = [end.expand_as(z)]
        for weight, slope in zip(reversed(self._weights), reversed(self._slopes[1:]), strict=True):
            pulls.append(_transposed(slope * pulls[-1], weight))
        self._pulls = pulls[::-1]

        self.strength = strength(potential.log_alpha)
        self.value = (end * z).flatten(1).sum(1) + x @ potential.linear + self.strength * x.square().sum(1) / 2
        pulled = torch.zeros_like(u)
        for skip, slope, pull in zip(self._skips, self._slopes, self._pulls, strict=False):
            pulled = pulled + _transposed(slope * pull, skip)
        self.gradient = self._flat(pulled) + potential.linear + self.strength * x

    @cached_property
    def _curvatures(self) -> list[Tensor]:
        """a''_k d_k >= 0 of every layer; with their graph, even if first asked for without."""
        with torch.enable_grad():
            return [self._activation.second(p) * pull for p, pull in zip(self._pre, self._pulls, strict=True)]

    def product(self, vectors: Tensor) -> Tensor:
        """The Hessian times vectors, shape (..., n, d)."""
        n = len(self._pre[0])
        v = self._channels(vectors.flatten(0, -2))

        def under(coefficients: Tensor, images: Tensor) -> Tensor:
            return (coefficients * images.view(-1, n, *images.shape[1:])).view(images.shape)

        moved: list[Tensor] = []
        for layer in range(len(self._pre)):
            steps = [_convolved(v, self._skips[layer])] if layer < len(self._skips) else []
            if layer:
                steps.append(_convolved(under(self._slopes[layer - 1], moved[-1]), self._weights[layer - 1]))
            moved.append(sum(steps[1:], start=steps[0]))
        total = torch.zeros_like(v)
        back: Tensor | None = None
        for layer in reversed(range(len(moved))):
            pull = under(self._curvatures[layer], moved[layer])
            pull = pull if back is None else pull + back
            if layer < len(self._skips):
                total = total + _transposed(pull, self._skips[layer])
            if layer:
                back = under(self._slopes[layer - 1], _transposed(pull, self._weights[layer - 1]))
        return self._flat(total).view(vectors.shape) + self.strength * vectors

    def hessian(self) -> Tensor:
        """Shape (n, d, d), a column for every unit vector."""
        n, entries = self.gradient.shape
        units = torch.eye(entries, dtype=self.gradient.dtype, device=self.gradient.device)
        return self.product(units[:, None].expand(-1, n, -1)).transpose(0, 1)

    def _channels(self, x: Tensor) -> Tensor:
        """Squeezed images, shape (n, channels s^2, h, w), of rows, shape (n, d)."""
        return pixel_unshuffle(x.reshape(-1, *self._image_shape), self._squeeze)

    def _flat(self, images: Tensor) -> Tensor:
        return pixel_shuffle(images, self._squeeze).flatten(1)


def _convolved(images: Tensor, kernels: Tensor) -> Tensor:
    return conv2d(images, kernels, padding=kernels.shape[-1] // 2)


def _transposed(images: Tensor, kernels: Tensor) -> Tensor:
    """The transposed convolution: one with the turned kernels, which is faster than torch's transposed one on a CPU."""
    return _convolved(images, kernels.flip(2, 3).transpose(0, 1))
