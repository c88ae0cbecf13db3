"""Convex and increasing activations of input-convex networks, zero at zero, with two derivatives.

All tend to 0 + constant on the left and grow as s on the right: soft versions of max(s, 0). Minus s/2 each is even.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class ConvexActivation:
    """s(p), s'(p) between 0 and 1, and s''(p) > 0, elementwise."""

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]


def _normal_density(p: Tensor) -> Tensor:
    return torch.exp(-p * p / 2) / math.sqrt(2 * math.pi)


def _sigmoid_slope(p: Tensor) -> Tensor:
    first = torch.sigmoid(p)
    return first * (1 - first)


ConvexName = Literal["softplus", "gaussian", "squareplus"]

CONVEX: dict[str, ConvexActivation] = {
    # ln(1 + exp p). (torch's softplus is p itself from 20 on, 2e-9 off.)
    "softplus": ConvexActivation(lambda p: -logsigmoid(-p) - math.log(2), torch.sigmoid, _sigmoid_slope),
    # E[max(p + noise, 0)], noise standard normal: its slope is the normal distribution function
    "gaussian": ConvexActivation(
        lambda p: p * torch.special.ndtr(p) + _normal_density(p) - 1 / math.sqrt(2 * math.pi),
        torch.special.ndtr,
        _normal_density,
    ),
    # (p + sqrt(1 + p^2)) / 2: no transcendental function
    "squareplus": ConvexActivation(
        lambda p: (p + torch.sqrt(1 + p * p) - 1) / 2,
        lambda p: (1 + p * torch.rsqrt(1 + p * p)) / 2,
        lambda p: torch.rsqrt(1 + p * p) ** 3 / 2,
    ),
}
"""Activations by name, all of `ConvexName`."""
