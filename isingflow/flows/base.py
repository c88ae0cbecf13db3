"""Invertible maps with log-determinants, and the flow that pushes a standard normal base through a chain of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput


class Transform(nn.Module):
    """An invertible map of fields, shape (n, *shape) to (n, *shape)."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image x and ln |det dx/dz|, float64, shape (n,)."""
        raise NotImplementedError

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The preimage z and ln |det dz/dx|, float64, shape (n,)."""
        raise NotImplementedError

    def forward_with_cost(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As forward, with the transport cost of every sample, float64, shape (n,): zero for a map without a path."""
        x, logdet = self(z)
        return x, logdet, torch.zeros_like(logdet)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw anew whatever is random in the map; between draws it is a fixed function."""


class Inverted(Transform):
    """A transform run backwards, for maps that are cheap in one direction: it should be that of z = f(x) for data.

    Args:
        transform: whose inverse this one's forward is.

    Example:
        >>> from isingflow.flows import ActNorm
        >>> Inverted(ActNorm((2,)))(torch.ones(3, 2))[0].shape
        torch.Size([3, 2])
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What the transform's inverse gives."""
        return self.transform.inverse(z)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the transform's forward gives."""
        return self.transform(x)

    def forward_with_cost(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As forward, with the transport cost of the transform on the same path the other way."""
        x, logdet = self(z)
        return x, logdet, self.transform.forward_with_cost(x)[2]

    def redraw(self, generator: torch.Generator) -> None:
        self.transform.redraw(generator)


class Flow(nn.Module):
    """A density p(x): standard normal noise z pushed through a chain of invertible maps.

    Args:
        shape: shape of one field.
        transforms: from the base to x.

    Example:
        >>> flow = Flow((4, 4), [])
        >>> x, log_prob = flow.sample(10, generator=torch.Generator().manual_seed(0))
        >>> x.shape, torch.equal(log_prob, flow.log_prob(x))
        (torch.Size([10, 4, 4]), True)
    """

    def __init__(self, shape: Sequence[int], transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.transforms = nn.ModuleList(transforms)
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    @property
    def dimension(self) -> int:
        """Number of entries of a field."""
        return math.prod(self.shape)

    @property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x, shape (n, *shape), and ln |det dx/dz|, float64, shape (n,)."""
        return self._chain(z, list(self.transforms))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z, shape (n, *shape), and ln |det dz/dx|, float64, shape (n,)."""
        return self._chain(x, [transform.inverse for transform in reversed(self.transforms)])

    def redraw(self, generator: torch.Generator) -> None:
        """Draw anew whatever is random in the maps (CPU generator); between draws they are fixed functions."""
        for transform in self.transforms:
            transform.redraw(generator)

    def forward_with_cost(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As forward, with the summed transport cost of every sample, float64, shape (n,)."""
        total = cost = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        for transform in self.transforms:
            z, logdet, extra = transform.forward_with_cost(z)
            total, cost = total + logdet, cost + extra
        return z, total, cost

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x) in nats, float64, shape (n,)."""
        z, logdet = self.inverse(x)
        return self.base_log_prob(z) + logdet

    def sample(
        self, n: int, *, generator: torch.Generator | None = None, batch: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Independent samples and their log-probabilities, without gradients.

        Args:
            n: number of samples, at least 1.
            generator: source of the noise, on the flow's device.
            batch: samples in flight at a time; all at once if not given.

        Returns:
            x, shape (n, *shape), and ln p(x), float64, shape (n,).
        """
        if n < 1 or (batch is not None and batch < 1):
            raise InvalidInput(f"{n} samples in batches of {batch}: expected at least 1")
        z = self.noise(n, generator)
        with torch.no_grad():
            fields, logdets = zip(*map(self, z.split(batch or n)), strict=True)
        return torch.cat(fields), self.base_log_prob(z) - torch.cat(logdets)

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal z, shape (n, *shape), of the flow's dtype and device."""
        like = self._like
        return torch.randn(n, *self.shape, dtype=like.dtype, device=like.device, generator=generator)

    def base_log_prob(self, z: Tensor) -> Tensor:
        """ln Normal(z; 0, 1), float64, shape (n,)."""
        return -z.double().square().flatten(1).sum(1) / 2 - self.dimension * math.log(2 * math.pi) / 2

    @staticmethod
    def _chain(x: Tensor, maps: Sequence) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for transform in maps:
            x, logdet = transform(x)
            total = total + logdet
        return x, total
