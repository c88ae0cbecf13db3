"""Maps that are fitted to data in closed form, where a flow starts: the best Gaussian, marginals, the unit cube.

- `GaussianWhitening`: x = mean + S^1/2 z. With the moments of the data no Gaussian has a higher likelihood.
- `Logit`: x = logit(lambda + (1 - 2 lambda) v), from the unit cube to all space (Papamakarios, Pavlakou and Murray
  2017).
- `HistogramMarginals`: v_i = F_i^-1(Phi(z_i)), a coordinate at a time, F_i the distribution function of a histogram.
  After a `GaussianWhitening` it is a Gaussian copula: exact marginals, Gaussian dependence. It is the gradient of a
  separable convex potential, so a Monge-Ampere map itself.

None is trained; what was fitted is in their buffers, so a checkpoint is self-contained. Elementwise work is done in
float64 and rounded to the type of the input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows.base import Transform
from isingflow.runtime.checks import count, instance, number
from isingflow.runtime.fields import numbers
from isingflow.statistics.moments import moments

RANK_TOLERANCE = 1e-12
"""Smallest variance of any direction, relative to the largest."""

OUTSIDE = 1e-6
"""How far rounding may carry a point out of the unit cube."""


class GaussianWhitening(Transform):
    """x = mean + S^1/2 z with the symmetric square root, which keeps z_i as close to x_i as whitening allows.

    Args:
        mean: shape (d,).
        covariance: S, symmetric and positive, shape (d, d); factorised in float64.

    Raises:
        InvalidInput: the covariance is not finite or not positive.

    Example:
        >>> gaussian = GaussianWhitening(torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])))
        >>> x, logdet = gaussian(torch.ones(1, 2))
        >>> x, logdet
        (tensor([[2., 1.]]), tensor([0.6931], dtype=torch.float64))
    """

    mean: Tensor
    factor: Tensor
    inverse_factor: Tensor
    logdet: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        mean = numbers("mean", mean, (None,))
        covariance = numbers("covariance", covariance, (len(mean), len(mean)))
        if not torch.allclose(covariance, covariance.T, rtol=1e-3, atol=1e-6 * float(covariance.abs().max())):
            raise InvalidInput("the covariance is not symmetric")
        variances, axes = torch.linalg.eigh(covariance)
        missing = int((variances <= RANK_TOLERANCE * variances[-1].clamp_min(0)).sum())
        if missing:
            raise InvalidInput(
                f"the covariance is singular: no variance in {missing} of {len(variances)} directions; "
                "leave out columns that are constant or follow from others"
            )
        deviations = variances.sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("factor", (axes * deviations) @ axes.T)
        self.register_buffer("inverse_factor", (axes / deviations) @ axes.T)
        self.register_buffer("logdet", deviations.log().sum())

    @classmethod
    def fit(cls, batches: Iterable[Tensor]) -> Self:
        """The best Gaussian for all rows of all batches, each of shape (n, d); they need not fit in memory together."""
        found = moments(batches)
        return cls(found.mean, found.covariance)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """mean + S^1/2 z and ln det S^1/2."""
        x = torch.addmm(self.mean, z.to(self.factor), self.factor)
        return x.to(z), self.logdet.double().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """S^-1/2 (x - mean) and -ln det S^1/2."""
        z = (x.to(self.mean) - self.mean) @ self.inverse_factor
        return z.to(x), -self.logdet.double().expand(len(x))

    def directions(self, rows: Tensor) -> Tensor:
        """Unit vectors w of z such that w.z is r.x, scaled to variance one and centred, for every row r of x-space."""
        images = rows.to(self.factor) @ self.factor
        return images / images.norm(dim=1, keepdim=True)


class Logit(Transform):
    """x = logit(margin + (1 - 2 margin) v), elementwise, from the unit cube to a large box.

    Args:
        margin: lambda, which keeps v = 0 and v = 1 at a finite distance.

    Raises:
        InvalidInput: the margin is not within (0, 1/2).

    Example:
        >>> x, logdet = Logit(0.25)(torch.tensor([[0.5]]))
        >>> x, logdet
        (tensor([[0.]]), tensor([0.6931], dtype=torch.float64))
    """

    def __init__(self, margin: float = 1e-6) -> None:
        super().__init__()
        self.margin = number("margin", margin, above=0, below=0.5)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and sum ln dx/dv."""
        s = self.margin + (1 - 2 * self.margin) * z.double()
        x = s.log() - torch.log1p(-s)
        return x.to(z), self._log_slope(x)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v and sum ln dv/dx."""
        v = (x.double().sigmoid() - self.margin) / (1 - 2 * self.margin)
        return v.to(x), -self._log_slope(x.double())

    def _log_slope(self, x: Tensor) -> Tensor:
        """ln dx/dv = ln(1 - 2 lambda) - ln s - ln(1 - s), s = sigmoid(x)."""
        softplus = torch.nn.functional.softplus
        return (math.log1p(-2 * self.margin) + softplus(x) + softplus(-x)).flatten(1).sum(1)


class HistogramMarginals(Transform):
    """v_i = F_i^-1(Phi(z_i)): standard normal coordinates to coordinates whose densities are histograms on [0, 1].

    Args:
        mass: probabilities of equal bins, positive, shape (d, bins); every row sums to one.

    Raises:
        InvalidInput: a probability is not positive, or a row does not sum to one.

    Example:
        >>> marginals = HistogramMarginals(torch.tensor([[0.75, 0.25]]))
        >>> v, _ = marginals(torch.tensor([[0.6744897]]))
        >>> v
        tensor([[0.5000]])
    """

    mass: Tensor
    edges: Tensor

    def __init__(self, mass: Tensor) -> None:
        super().__init__()
        mass = numbers("mass", mass, (None, None))
        if not ((mass > 0).all() and (mass.sum(1) - 1).abs().max() < 1e-5):
            raise InvalidInput("histograms need positive probabilities that sum to one")
        mass = mass / mass.sum(1, keepdim=True)
        self.register_buffer("mass", mass)
        self.register_buffer("edges", torch.cat([mass.new_zeros(len(mass), 1), mass.cumsum(1)], 1))

    @classmethod
    def fit(cls, batches: Iterable[Tensor], bins: int = 256, prior: float = 1.0) -> Self:
        """Histograms of all rows of all batches, each of shape (n, d) within [0, 1].

        Args:
            batches: the rows.
            bins: number of equal bins: 256 for bytes.
            prior: rows that are added to every histogram, spread evenly over its bins: none is ever empty.

        Raises:
            InvalidInput: there are no rows.
        """
        counts = None
        bins, prior = count("bins", bins), number("prior", prior, above=0)
        for given in instance("batches", batches, Iterable, "batches of rows"):
            batch = numbers("a batch", given, (None, None))
            d = batch.shape[1]
            index = (batch * bins).long().clamp(0, bins - 1) + bins * torch.arange(d, device="cpu")
            found = torch.bincount(index.flatten(), minlength=d * bins).view(d, bins)
            counts = found if counts is None else counts + found
        if counts is None:
            raise InvalidInput("no rows to take histograms of")
        smoothed = counts.double() + prior / bins
        return cls(smoothed / smoothed.sum(1, keepdim=True))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """v and sum ln dv/dz."""
        scores = z.double()
        probability = torch.special.ndtr(scores)
        edges = self.edges.double()
        found = torch.searchsorted(edges, probability.T.contiguous(), right=True).T - 1
        bins = found.clamp(0, self.mass.shape[1] - 1)
        start, mass = self._bin(bins)
        v = (bins + ((probability - start) / mass).clamp(0, 1)) / self.mass.shape[1]
        return v.to(z), -self._log_slope(scores, mass)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and sum ln dz/dv, minus infinity outside the unit cube."""
        scaled = x.double() * self.mass.shape[1]
        bins = scaled.long().clamp(0, self.mass.shape[1] - 1)
        start, mass = self._bin(bins)
        # Within half a unit of rounding of 0 and 1, where z is infinite.
        probability = (start + mass * (scaled - bins)).clamp(torch.finfo(torch.float64).tiny, 1 - 2**-53)
        scores = torch.special.ndtri(probability)
        outside = ((x < -OUTSIDE) | (x > 1 + OUTSIDE)).any(1)
        return scores.to(x), self._log_slope(scores, mass).masked_fill(outside, -math.inf)

    def _bin(self, bins: Tensor) -> tuple[Tensor, Tensor]:
        """Distribution function where the bins start, and their mass, shape (n, d)."""
        columns = torch.arange(bins.shape[1], device=bins.device)
        return self.edges.double()[columns, bins], self.mass.double()[columns, bins]

    def _log_slope(self, scores: Tensor, mass: Tensor) -> Tensor:
        """sum ln dz/dv = sum ln(bins mass) - ln Normal(z; 0, 1)."""
        terms = (mass * self.mass.shape[1]).log() + scores.square() / 2 + math.log(2 * math.pi) / 2
        return terms.sum(1)
