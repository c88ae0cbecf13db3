"""Maps that act on every entry of a field by itself: activation normalisation (Kingma and Dhariwal 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.flows.base import Transform
from isingflow.runtime.checks import flag, lengths

SMALLEST_SPREAD = 1e-6
"""Standard deviation below which a coordinate counts as constant, and is not scaled up further."""


class ActNorm(Transform):
    """x = exp(log_scale) z + shift, set by the first batch in training so that what comes out is standardised.

    Either direction may come first; that one's results have mean zero and variance one, in every coordinate, or over
    all of them where they are scaled as one. From then on scale and shift are ordinary parameters.

    Args:
        shape: shape of one field.
        common: one scale for all entries and no shift, which keeps every symmetry of a lattice and Z2; else a scale
            and a shift for each.

    Example:
        >>> norm = ActNorm((2,))
        >>> x = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
        >>> norm.inverse(x)[0].round(decimals=4).tolist()
        [[-1.0, -1.0], [1.0, 1.0]]
    """

    initialised: Tensor

    def __init__(self, shape: Sequence[int], *, common: bool = False) -> None:
        super().__init__()
        self.shape = lengths("shape", shape)
        self.common = flag("common", common)
        self.log_scale = nn.Parameter(torch.zeros(() if common else self.shape))
        if common:
            self.register_buffer("shift", torch.zeros(()), persistent=False)
        else:
            self.shift = nn.Parameter(torch.zeros(self.shape))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """exp(log_scale) z + shift, and the sum of log-scales."""
        if self.training and not self.initialised:
            mean, spread = self._moments(z)
            self._set(-mean / spread, 1 / spread)
        return z * self.log_scale.exp() + self.shift, self._logdet().expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(x - shift) exp(-log_scale), and minus the sum of log-scales."""
        if self.training and not self.initialised:
            self._set(*self._moments(x))
        return (x - self.shift) * (-self.log_scale).exp(), -self._logdet().expand(len(x))

    def _logdet(self) -> Tensor:
        return self.log_scale.double().sum() * (math.prod(self.shape) if self.common else 1)

    @torch.no_grad()
    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each of the scale's shape."""
        if len(x) < 2:
            raise InvalidInput(f"activation normalisation starts from a batch; {len(x)} samples are too few")
        if self.common:
            return torch.zeros_like(self.shift), x.square().mean().sqrt().clamp_min(SMALLEST_SPREAD)
        return x.mean(0), x.std(0, correction=0).clamp_min(SMALLEST_SPREAD)

    @torch.no_grad()
    def _set(self, shift: Tensor, scale: Tensor) -> None:
        self.shift.copy_(shift)
        self.log_scale.copy_(scale.log())
        self.initialised.fill_(True)
