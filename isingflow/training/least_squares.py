"""Least squares of what is linear in its coefficients, from sums over samples; the coefficients may be a series.

With responses r of every sample and d that is to become constant, the coefficients C = sum_b C_b T_b of a temperature
leave the variance of d + r . C. The mean of these over some temperatures is a quadratic form of all C_b together.

What is left at a temperature is also the noise of its samples: cold ones have a hundred times that of hot ones. So the
fit is made twice, and every temperature counts by the inverse of what the first has left there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Added to the matrix in units of the responses' variances; of several as good the largest is taken."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over samples of the products of their rows (1, r, d): shape (terms + 2, terms + 2), float64."""

    products: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.products + other.products)

    @property
    def covariance(self) -> Tensor:
        """Of r and d, shape (terms + 1, terms + 1)."""
        n, sums = self.products[0, 0], self.products[0, 1:]
        return self.products[1:, 1:] / n - torch.outer(sums, sums) / n**2


def solved(moments: Sequence[Moments], basis: Tensor, ridge: float, weights: Tensor) -> Tensor:
    """The coefficients that leave the least weighted mean of the variances of d, with a ridge.

    Args:
        moments: of every temperature.
        basis: T_b there, float64, shape (temperatures, terms of the series).
        ridge: in units of the responses' variances.
        weights: of the temperatures, float64, above 0; their sum does not matter.

    Returns:
        Shape (terms of the series, terms).
    """
    covariances = [weight * part.covariance for weight, part in zip(weights / weights.sum(), moments, strict=True)]
    pairs = list(zip(basis, covariances, strict=True))
    matrix = _sum([torch.kron(torch.outer(row, row), part[:-1, :-1].contiguous()) for row, part in pairs])
    aim = _sum([torch.kron(row, part[:-1, -1].contiguous()) for row, part in pairs])
    sizes = matrix.diagonal().sqrt().clamp_min(1e-30)
    scaled = matrix / torch.outer(sizes, sizes) + ridge * torch.eye(len(sizes), dtype=matrix.dtype)
    return (-torch.linalg.solve(scaled, aim / sizes) / sizes).view(basis.shape[1], -1)


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    return sum(tensors[1:], tensors[0])


def left(moments: Sequence[Moments], basis: Tensor, coefficients: Tensor) -> Tensor:
    """The variance of d + r . C at every temperature, float64, shape (temperatures,); arguments as of `solved`."""
    variances = []
    for row, part in zip(basis, moments, strict=True):
        combination = torch.cat([row @ coefficients, torch.ones(1, dtype=coefficients.dtype)])
        variances.append(combination @ part.covariance @ combination)
    return torch.stack(variances)


def solution(halves: Sequence[tuple[Moments, Moments]], basis: Tensor) -> Tensor:
    """The coefficients fitted to all samples, by that ridge which serves best from either half to the other.

    Args:
        halves: moments of the two halves of the samples of every temperature.
        basis: as of `solved`.
    """
    first, second = ([pair[half] for pair in halves] for half in (0, 1))

    def best(weights: Tensor) -> tuple[float, Tensor]:
        """The ridge that leaves least, and the variances that it leaves."""

        def crossed(ridge: float) -> Tensor:
            one, other = solved(first, basis, ridge, weights), solved(second, basis, ridge, weights)
            return (left(second, basis, one) + left(first, basis, other)) / 2

        return min(((ridge, crossed(ridge)) for ridge in RIDGES), key=lambda pair: float(weights @ pair[1]))

    weights = torch.ones(len(halves), dtype=torch.float64)
    if len(halves) > 1:
        weights = 1 / best(weights)[1].clamp_min(1e-30)
    return solved([one + other for one, other in halves], basis, best(weights)[0], weights)
