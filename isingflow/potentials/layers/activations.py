"""Convex and increasing activations of input-convex networks, zero at zero, with two derivatives.

Soft versions of max(p, 0): E[max(p + noise, 0)] less its value at zero, for symmetric noise whose density is s'' and
whose distribution function is s'. So s(p) - p/2 is even. Noise of heavy tails bends over a long way: Cauchy's has no
mean, and its s is an integral of s' that grows as a logarithm on the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Jet(NamedTuple):
    """s(p) and its first three derivatives, in memory of their own."""

    value: Tensor
    first: Tensor
    second: Tensor
    third: Tensor


@dataclass(frozen=True)
class ConvexActivation:
    """s(p), s'(p) between 0 and 1, and s''(p) > 0, elementwise; the third derivative, given p and these two."""

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    third: Callable[[Tensor, Tensor, Tensor], Tensor]

    def jet(self, p: Tensor) -> Jet:
        """All of them, without a graph."""
        first, second = self.first(p), self.second(p)
        return Jet(self.value(p), first, second, self.third(p, first, second))


def _normal_density(p: Tensor) -> Tensor:
    return torch.exp(-p * p / 2) / math.sqrt(2 * math.pi)


def _sigmoid_slope(p: Tensor) -> Tensor:
    first = torch.sigmoid(p)
    return first * (1 - first)


def _laplace_slope(p: Tensor) -> Tensor:
    tail = _laplace_density(p)
    return torch.where(p > 0, 1 - tail, tail)


def _laplace_density(p: Tensor) -> Tensor:
    return torch.exp(-p.abs()) / 2


def _cauchy_slope(p: Tensor) -> Tensor:
    """1/2 + arctan(p) / pi, without the difference of nearly equal numbers on the left."""
    return torch.atan2(torch.ones_like(p), -p) / math.pi


ConvexName = Literal["softplus", "gaussian", "squareplus", "laplace", "cauchy"]

CONVEX: dict[str, ConvexActivation] = {
    # ln(1 + exp p): logistic noise. (torch's softplus is p itself from 20 on, 2e-9 off.)
    "softplus": ConvexActivation(
        lambda p: -logsigmoid(-p) - math.log(2),
        torch.sigmoid,
        _sigmoid_slope,
        lambda p, first, second: second * (1 - 2 * first),
    ),
    # Standard normal noise
    "gaussian": ConvexActivation(
        lambda p: p * torch.special.ndtr(p) + _normal_density(p) - 1 / math.sqrt(2 * math.pi),
        torch.special.ndtr,
        _normal_density,
        lambda p, first, second: -p * second,
    ),
    # (p + sqrt(1 + p^2)) / 2: no transcendental function; noise of Student's distribution with two degrees of freedom
    "squareplus": ConvexActivation(
        lambda p: (p + torch.sqrt(1 + p * p) - 1) / 2,
        lambda p: (1 + p * torch.rsqrt(1 + p * p)) / 2,
        lambda p: torch.rsqrt(1 + p * p) ** 3 / 2,
        lambda p, first, second: -3 * p * second / (1 + p * p),
    ),
    # max(p, 0) + exp(-|p|) / 2: noise of density exp(-|p|) / 2
    "laplace": ConvexActivation(
        lambda p: p.relu() + torch.expm1(-p.abs()) / 2,
        _laplace_slope,
        _laplace_density,
        lambda p, first, second: -p.sign() * second,
    ),
    # Noise of density 1 / pi (1 + p^2)
    "cauchy": ConvexActivation(
        lambda p: p * _cauchy_slope(p) - torch.log1p(p * p) / (2 * math.pi),
        _cauchy_slope,
        lambda p: 1 / (math.pi * (1 + p * p)),
        lambda p, first, second: -2 * math.pi * p * second.square(),
    ),
}
"""Activations by name, all of `ConvexName`."""
