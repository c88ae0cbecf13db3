"""Maps between the space of the data and the space in which flows live.

- `Pixels`: grey levels 0 .. L-1 become logit(lambda + (1 - 2 lambda) (level + u) / L), u uniform on [0, 1).
- `Standardised`: columns become (y - mean) / deviation.
- `Space` itself: the identity.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from isingflow.flows.data import Logit

LOST_BITS = 4
"""Bits of a float32 that the mean of a column may take from its deviation."""


class Space:
    """The identity: data that flows can take as they are.

    Attributes:
        discrete: whether data are whole numbers, made continuous by noise of width one.
        dtype: of points in data units, in files.
    """

    discrete = False
    dtype: np.dtype = np.dtype(np.float32)

    def to_model(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Points of model space for rows of data, float32, shape (n, d)."""
        return rows.float()

    def to_data(self, x: Tensor) -> Tensor:
        """Points in data units for points of model space, shape (n, d)."""
        return x

    def log_slope(self, x: Tensor) -> Tensor:
        """ln |det d data / d x|, float64, shape (n,)."""
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)


class Pixels(Space):
    """Grey levels with uniform jitter, in logit space (Papamakarios, Pavlakou and Murray 2017).

    Args:
        levels: number of grey levels L.
        margin: lambda.

    Example:
        >>> x = Pixels(256).to_model(torch.tensor([[0, 255]]), torch.Generator().manual_seed(0))
        >>> Pixels(256).to_data(x).int()
        tensor([[  0, 255]], dtype=torch.int32)
    """

    discrete = True

    def __init__(self, levels: int, margin: float = 1e-6) -> None:
        self.levels = levels
        self.logit = Logit(margin)

    def to_model(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Jittered levels in logit space; new jitter at every call."""
        jittered = (rows.float() + torch.rand(rows.shape, generator=generator, dtype=torch.float32)) / self.levels
        return self.logit(jittered)[0]

    def to_data(self, x: Tensor) -> Tensor:
        """Jittered levels, within 0 and L: their floor is the grey level."""
        return (self.logit.inverse(x)[0] * self.levels).clamp(0, self.levels)

    def log_slope(self, x: Tensor) -> Tensor:
        """sum ln d(L v)/dx: L, and the exact derivative of the logistic function."""
        return self.logit.inverse(x)[1] + x.shape[1] * math.log(self.levels)


class Standardised(Space):
    """Columns of mean zero and variance one.

    Args:
        mean, deviation: float64, shape (d,).
        noise: width of the uniform noise added to every column of the data, shape (d,); none if not given.

    In files, points are float64 where a mean is more than 16 times its deviation, or a number is too large or too small
    for a float32: it would round points of a narrow column to a few values.
    """

    def __init__(self, mean: Tensor, deviation: Tensor, noise: Tensor | None = None) -> None:
        self.mean = mean
        self.deviation = deviation
        self.noise = noise
        # Of what a float32 holds, 1e-38 to 3e38, with room for samples much smaller or larger than the deviation.
        held = (mean.abs() <= 2**LOST_BITS * deviation) & (deviation > 1e-30) & (deviation < 1e30)
        self.dtype = np.dtype(np.float32 if held.all() else np.float64)

    def to_model(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """(y - mean) / deviation; subtracted in float64, so that a large mean costs no digits."""
        rows = rows.double()
        if self.noise is not None:
            rows = rows + self.noise * torch.rand(rows.shape, generator=generator, dtype=torch.float64)
        return ((rows - self.mean) / self.deviation).float()

    def to_data(self, x: Tensor) -> Tensor:
        """mean + deviation x, float64."""
        return self.mean.to(x.device) + self.deviation.to(x.device) * x.double()

    def log_slope(self, x: Tensor) -> Tensor:
        """sum ln deviation."""
        return self.deviation.log().sum().to(x.device).expand(len(x))
