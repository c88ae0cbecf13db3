"""Transforms made of another: run backwards, or on fields of another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows.base import LogdetEstimate, PathCost, Transform
from isingflow.runtime.checks import instance, lengths


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
        self.transform = instance("transform", transform, Transform, "a Transform")

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What the transform's inverse gives."""
        return self.transform.inverse(z)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the transform's forward gives."""
        return self.transform(x)

    def forward_with_cost(self, z: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As the transform's `inverse_with_cost`."""
        return self.transform.inverse_with_cost(z, hjb=hjb)

    def inverse_with_cost(self, x: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As the transform's `forward_with_cost`."""
        return self.transform.forward_with_cost(x, hjb=hjb)

    @property
    def stochastic(self) -> bool:
        """Whether the transform's log-determinant is an estimate."""
        return self.transform.stochastic

    def logdet_error(self, z: Tensor, x: Tensor) -> LogdetEstimate | None:
        """As the transform's, of the other sign."""
        error = self.transform.logdet_error(x, z)
        return None if error is None else replace(error, value=-error.value)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw anew whatever is random in the transform."""
        self.transform.redraw(generator)


class Viewed(Transform):
    """A transform of fields of one shape, on fields of another with as many entries.

    Args:
        transform: of fields of the shape `inner`.
        shape, inner: of fields outside and inside.

    Example:
        >>> from isingflow.flows import ActNorm
        >>> Viewed(ActNorm((4, 1)), (4,), (4, 1))(torch.ones(3, 4))[0].shape
        torch.Size([3, 4])
    """

    def __init__(self, transform: Transform, shape: Sequence[int], inner: Sequence[int]) -> None:
        super().__init__()
        self.transform = instance("transform", transform, Transform, "a Transform")
        self.shape, self.inner = lengths("shape", shape), lengths("inner", inner)
        if math.prod(self.shape) != math.prod(self.inner):
            raise InvalidInput(f"fields of shape {self.shape} have not as many entries as those of shape {self.inner}")

    @property
    def stochastic(self) -> bool:
        """Whether the transform's log-determinant is an estimate."""
        return self.transform.stochastic

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What the transform gives."""
        x, logdet = self.transform(self._in(z))
        return self._out(x), logdet

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the transform's inverse gives."""
        z, logdet = self.transform.inverse(self._in(x))
        return self._out(z), logdet

    def forward_with_cost(self, z: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As the transform's."""
        x, logdet, cost = self.transform.forward_with_cost(self._in(z), hjb=hjb)
        return self._out(x), logdet, cost

    def inverse_with_cost(self, x: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As the transform's."""
        z, logdet, cost = self.transform.inverse_with_cost(self._in(x), hjb=hjb)
        return self._out(z), logdet, cost

    def forward_with_score(self, z: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the transform's."""
        x, logdet, score = self.transform.forward_with_score(self._in(z), self._in(score))
        return self._out(x), logdet, self._out(score)

    def logdet_error(self, z: Tensor, x: Tensor) -> LogdetEstimate | None:
        """As the transform's."""
        return self.transform.logdet_error(self._in(z), self._in(x))

    def path(self, z: Tensor, refinement: int) -> Tensor | None:
        """As the transform's."""
        points = self.transform.path(self._in(z), refinement)
        return None if points is None else points.view(*points.shape[:2], *self.shape)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw anew whatever is random in the transform."""
        self.transform.redraw(generator)

    def _in(self, outer: Tensor) -> Tensor:
        return outer.reshape(len(outer), *self.inner)

    def _out(self, inner: Tensor) -> Tensor:
        return inner.reshape(len(inner), *self.shape)
