"""Invertible maps with log-determinants, and the flow that pushes a standard normal base through a chain of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, overload, runtime_checkable

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput


class PathCost(NamedTuple):
    """What a sample's path costs, the same in both directions; float64, shape (n,) each.

    Attributes:
        transport: int |dx/dt|^2 / 2 dt.
        hjb: int |d phi/dt + |grad phi|^2 / 2| dt, how far the potential is from the Hamilton-Jacobi-Bellman equation,
            which potentials of straight paths at constant speed solve; zero unless it was asked for.
    """

    transport: Tensor
    hjb: Tensor


@dataclass(frozen=True)
class LogdetEstimate:
    """ln det of every sample by random probes, with what is known of its error; float64, shape (n,) each.

    Attributes:
        value: mean over the probes.
        stderr: its standard error; infinite for one probe.
        truncation: an upper limit on how far the value is from the same probes' exact one.
    """

    value: Tensor
    stderr: Tensor
    truncation: Tensor


@runtime_checkable
class Approximate(Protocol):
    """A transform whose log-determinant has an error that can be measured, by refining it or by itself.

    Attributes:
        steps: how many it is computed in, an integer that may be set: a plain attribute or a property.
        order: the error falls as steps^-order.
    """

    steps: int

    @property
    def order(self) -> int: ...

    def refined(self, factor: int) -> AbstractContextManager[None]:
        """With a multiple of the steps, for a while."""

    def logdet_error(self, z: Tensor, x: Tensor) -> LogdetEstimate | None:
        """See `Transform.logdet_error`."""


class Transform(nn.Module):
    """An invertible map of fields, shape (n, *shape) to (n, *shape)."""

    @property
    def stochastic(self) -> bool:
        """Whether the log-determinant is an estimate by random probes; `logdet_error` then tells its error."""
        return False

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image x and ln |det dx/dz|, float64, shape (n,)."""
        raise NotImplementedError

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The preimage z and ln |det dz/dx|, float64, shape (n,)."""
        raise NotImplementedError

    def forward_with_cost(self, z: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As forward, with the cost of every sample's path: zero for a map without one.

        Args:
            z: shape (n, *shape).
            hjb: whether to add up the Hamilton-Jacobi-Bellman residual too.

        Raises:
            InvalidInput: it is asked for, and the potential has no derivative by time in closed form.
        """
        x, logdet = self(z)
        return x, logdet, PathCost(*[torch.zeros_like(logdet)] * 2)

    def inverse_with_cost(self, x: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As inverse, with the cost of every sample's path; arguments as in `forward_with_cost`."""
        z, logdet = self.inverse(x)
        return z, logdet, PathCost(*[torch.zeros_like(logdet)] * 2)

    def logdet_error(self, z: Tensor, x: Tensor) -> LogdetEstimate | None:
        """What random probes say of ln |det dx/dz| and of its error; None where it takes none.

        Args:
            z, x: points and their images, shape (n, *shape).
        """
        return None

    def path(self, z: Tensor, refinement: int) -> Tensor | None:
        """The points that samples pass on their way from z, shape (points, n, *shape); None for a map without a way.

        Args:
            z: shape (n, *shape).
            refinement: points for each step that the map takes.
        """
        return None

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


class Transforms(nn.ModuleList):
    """A chain of transforms, from the base to x: torch's list, with entries of a known type."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Transform]: ...

        @overload
        def __getitem__(self, idx: slice) -> Transforms: ...

        @overload
        def __getitem__(self, idx: int) -> Transform: ...

        def __getitem__(self, idx: int | slice) -> Transform | Transforms: ...


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
        self.transform = transform
        self.shape, self.inner = tuple(shape), tuple(inner)

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

    _like: Tensor

    def __init__(self, shape: Sequence[int], transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.transforms = Transforms(transforms)
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    @property
    def dimension(self) -> int:
        """Number of entries of a field."""
        return math.prod(self.shape)

    @property
    def device(self) -> torch.device:
        """Where the flow lives."""
        return self._like.device

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

    def forward_with_cost(self, z: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As forward, with the summed cost of every sample's path, see `Transform.forward_with_cost`."""
        return self._chain_with_cost(z, [transform.forward_with_cost for transform in self.transforms], hjb)

    def inverse_with_cost(self, x: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As inverse, with the summed cost of every sample's path."""
        return self._chain_with_cost(x, [transform.inverse_with_cost for transform in reversed(self.transforms)], hjb)

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
    def _chain(x: Tensor, maps: Sequence[Callable]) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for transform in maps:
            x, logdet = transform(x)
            total = total + logdet
        return x, total

    @staticmethod
    def _chain_with_cost(x: Tensor, maps: Sequence[Callable], hjb: bool) -> tuple[Tensor, Tensor, PathCost]:
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        costs = PathCost(total, total)
        for transform in maps:
            x, logdet, extra = transform(x, hjb=hjb)
            total, costs = total + logdet, PathCost(*map(torch.add, costs, extra))
        return x, total, costs


def approximations(module: nn.Module) -> list[Approximate]:
    """All transforms inside a flow, at whatever depth, that are computed in steps; from the base on.

    Example:
        >>> approximations(Flow((2,), []))
        []
    """
    return [part for part in module.modules() if isinstance(part, Approximate)]


@contextmanager
def refined(module: nn.Module, factor: int) -> Iterator[None]:
    """With a multiple of the steps of every transform inside a flow that is computed in steps."""
    with ExitStack() as stack:
        for part in approximations(module):
            stack.enter_context(part.refined(factor))
        yield
