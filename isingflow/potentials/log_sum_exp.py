"""A convex potential from a soft maximum of affine functions, the log-sum-exp network of Huang et al. (2021).

    F(x) = gamma s^2 ln sum_m exp[(x.c_m - |c_m|^2 / 2) / s^2 + h_m] + l.x + alpha |x|^2 / 2

Every convex function is a supremum of affine ones. Up to |x|^2 / 2 the exponents are -|x - c_m|^2 / 2 s^2 + h_m: unit m
is at work where its centre c_m is the nearest, within a softness s. With p the softmax weights at x,

    grad F = gamma sum_m p_m c_m + l + alpha x,    hess F = gamma cov_p(c) / s^2 + alpha I.

Where centres are close the gradient follows x, where they part it jumps from one to the next within s^2 over their
distance: so a single layer resolves what a sum of ridge functions s(w.x + b) takes many layers for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import trivial_group
from isingflow.potentials.convex import CALIBRATION, ConvexFunction, Expansion, raw_strength, strength
from isingflow.potentials.layers.softmax import softmax_moments
from isingflow.runtime.checks import count, lengths, number
from isingflow.runtime.fields import source, usual_defaults

INITIAL_SHARE = 0.5
"""Part of the Hessian's mean eigenvalue, 1, that the soft maximum has at the start; alpha has the rest."""
SPREAD = 1.4
"""Standard deviation of the centres at the start, for x of variance one: some lie where data are rare."""


class LogSumExpPotential(ConvexFunction):
    """F(x) above, of gradient near the identity at standard normal points when it is new.

    Args:
        shape: shape of one field.
        width: number of affine functions.
        softness: s in two dimensions when it is new; in d dimensions times (d/2)^(1/4), so that the spread of exponents
            does not depend on d.
        generator: source of the initial centres.

    Raises:
        InvalidInput: no unit, or a softness that is not positive.

    Example:
        >>> potential = LogSumExpPotential((2,), width=8, generator=torch.Generator().manual_seed(0))
        >>> x = torch.ones(3, 2)
        >>> potential.value(x).shape, potential.gradient(x).shape, potential.hessian(x).shape
        (torch.Size([3]), torch.Size([3, 2]), torch.Size([3, 2, 2]))
    """

    @usual_defaults()
    def __init__(
        self, shape: tuple[int, ...], *, width: int = 256, softness: float = 0.3, generator: torch.Generator
    ) -> None:
        super().__init__()
        generator = source(generator)
        self.shape = lengths("shape", shape)
        self.symmetry = trivial_group(self.shape)
        width, softness = count("width", width), number("softness", softness, above=0)
        sites = math.prod(self.shape)
        self.centres = nn.Parameter(SPREAD * torch.randn(width, sites, generator=generator))
        self.heights = nn.Parameter(torch.zeros(width))
        self.log_sharpness = nn.Parameter(torch.tensor(-2 * math.log(softness) - math.log(sites / 2) / 2))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.log_alpha = nn.Parameter(raw_strength(torch.tensor(1 - INITIAL_SHARE)))
        self.linear = nn.Parameter(torch.zeros(sites))
        with torch.no_grad():
            points = torch.randn(CALIBRATION, *self.shape, generator=generator)
            start = self.expand(points)
            unit = start.hessian().diagonal(dim1=1, dim2=2).mean() - self.alpha
            self.log_scale.copy_((INITIAL_SHARE / unit).log())
            self.linear.sub_((self.gradient(points) - points).flatten(1).mean(0))

    @property
    def alpha(self) -> Tensor:
        """The strong convexity."""
        return strength(self.log_alpha)

    def value(self, x: Tensor) -> Tensor:
        """F(x), shape (n,), with a graph of its own, which can be differentiated twice."""
        rows, (slopes, offsets, scale) = x.flatten(1), self._affine()
        quadratic = rows @ self.linear + self.alpha * rows.square().sum(1) / 2
        return scale * torch.addmm(offsets, rows, slopes).logsumexp(1) + quadratic

    def expand(self, x: Tensor) -> Expansion:
        slopes, offsets, scale = self._affine()
        return _SoftMaximum(x, softmax_moments(x.flatten(1), slopes, offsets), scale, self.linear, self.alpha)

    def _affine(self) -> tuple[Tensor, Tensor, Tensor]:
        """Slopes, shape (N, width), and offsets, shape (width,), of the exponents; gamma s^2, which multiplies all."""
        sharpness = self.log_sharpness.exp()
        slopes = sharpness * self.centres
        offsets = self.heights - (slopes * self.centres).sum(1) / 2
        return slopes.T, offsets, self.log_scale.exp() / sharpness


class _SoftMaximum(Expansion):
    def __init__(
        self, x: Tensor, moments: tuple[Tensor, Tensor, Tensor], scale: Tensor, linear: Tensor, alpha: Tensor
    ) -> None:
        rows = x.flatten(1)
        value, mean, covariance = moments
        self._axes = x.ndim - 1
        self._curvature = scale * covariance
        self.strength = alpha
        self.value = scale * value + rows @ linear + alpha * rows.square().sum(1) / 2
        self.gradient = (scale * mean + linear + alpha * rows).view(x.shape)

    def product(self, vectors: Tensor) -> Tensor:
        rows = vectors.flatten(-self._axes)
        return (self._curvature @ rows[..., None])[..., 0].view(vectors.shape) + self.strength * vectors

    def hessian(self) -> Tensor:
        unit = torch.eye(self._curvature.shape[1], dtype=self._curvature.dtype, device=self._curvature.device)
        return self._curvature + self.strength * unit
