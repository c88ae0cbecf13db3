"""Invertible maps with log-determinants, and the flow that pushes a standard normal base through a chain of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, overload, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput, InvalidTransform, WrongType
from isingflow.potentials.base import pulled_back
from isingflow.potentials.layers import wanted
from isingflow.runtime.checks import count, instance, lengths
from isingflow.runtime.fields import FLOATS, fields, stream
from isingflow.runtime.files import check_memory


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

    def forward_with_score(self, z: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As forward, with the score of x for a given one of z; parameters are held fixed in it.

        With p(x) = p(z) |det dz/dx|, grad ln p(x) = (dz/dx)^T grad ln p(z) + grad ln |det dz/dx|.

        Args:
            z: shape (n, *shape).
            score: grad ln p(z), of z's shape.

        Returns:
            x and ln |det dx/dz|, as from forward, and grad ln p(x), of x's shape, without a graph.
        """
        x, logdet = self(z)
        with torch.enable_grad(), wanted.of_fields_alone():
            point = x.detach().requires_grad_()
            back = self.inverse(point)
            return x, logdet, pulled_back(back, (score, torch.ones_like(logdet)), point)

    def path(self, z: Tensor, refinement: int) -> Tensor | None:
        """The points that samples pass on their way from z, shape (points, n, *shape); None for a map without a way.

        Args:
            z: shape (n, *shape).
            refinement: points for each step that the map takes.
        """
        return None

    def redraw(self, generator: torch.Generator) -> None:
        """Draw anew whatever is random in the map; between draws it is a fixed function."""


class Transforms(nn.ModuleList):
    """A chain of transforms, from the base to x: torch's list, with entries of a known type."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Transform]: ...

        @overload
        def __getitem__(self, idx: slice) -> Transforms: ...

        @overload
        def __getitem__(self, idx: int) -> Transform: ...

        def __getitem__(self, idx: int | slice) -> Transform | Transforms: ...


Maps = Sequence[tuple[Transform, Callable[..., Any]]]
"""Transforms in the order in which they are applied, with the method that does."""


class Flow(nn.Module):
    """A density p(x): standard normal noise z pushed through a chain of invertible maps.

    Fields are batches: tensors or arrays of real numbers, shape (n, *shape), n may be 0. They are converted to the
    flow's type, float32 or float64 (`flow.double()`), which is that of all fields that come out; log-determinants and
    log-probabilities are float64. Tensors must be where the flow is. NaN are not looked for: they give NaN.

    Args:
        shape: shape of one field.
        transforms: from the base to x. The flow's type is that of their parameters, of several the widest, to which
            all are converted; without any it is torch's default.

    Raises:
        InvalidInput: a shape that is none, or maps on several devices; WrongType: a transform that is none, or
            parameters of another type than float32 or float64.

    Example:
        >>> flow = Flow((4, 4), [])
        >>> x, log_prob = flow.sample(10, generator=torch.Generator().manual_seed(0))
        >>> x.shape, torch.equal(log_prob, flow.log_prob(x))
        (torch.Size([10, 4, 4]), True)
        >>> flow.log_prob(x[0])
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: x has shape (4, 4), expected (n, 4, 4): a single field needs an axis in front, \
x[None]
    """

    _like: Tensor

    def __init__(self, shape: Sequence[int], transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.shape = lengths("shape", shape)
        instance("transforms", transforms, list | tuple | nn.ModuleList, "a list of Transforms, from the base to x")
        for transform in transforms:
            instance("a map of the flow", transform, Transform, "a Transform")
        self.transforms = Transforms(transforms)
        self.register_buffer("_like", _like(self), persistent=False)
        if any(parameter.dtype in FLOATS and parameter.dtype != self._like.dtype for parameter in self.parameters()):
            self.to(self._like)

    @property
    def dimension(self) -> int:
        """Number of entries of a field."""
        return math.prod(self.shape)

    @property
    def device(self) -> torch.device:
        """Where the flow lives."""
        return self._like.device

    @property
    def dtype(self) -> torch.dtype:
        """Of all fields that come out: float32 or float64."""
        return self._like.dtype

    @property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x, shape (n, *shape), and ln |det dx/dz|, float64, shape (n,).

        Raises:
            InvalidInput: z of another shape or on another device; WrongType: no real numbers; InvalidTransform: a map
                of the user's own does not give what maps give.
        """
        return self._chain(self.taken("z", z), [(transform, transform) for transform in self.transforms])

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z, shape (n, *shape), and ln |det dz/dx|, float64, shape (n,); errors as in `forward`."""
        return self._chain(self.taken("x", x), [(part, part.inverse) for part in reversed(self.transforms)])

    def redraw(self, generator: torch.Generator) -> None:
        """Draw anew whatever is random in the maps (CPU generator); between draws they are fixed functions."""
        instance("generator", generator, torch.Generator, "a torch.Generator")
        for transform in self.transforms:
            transform.redraw(generator)

    def forward_with_cost(self, z: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As forward, with the summed cost of every sample's path, see `Transform.forward_with_cost`."""
        maps = [(transform, transform.forward_with_cost) for transform in self.transforms]
        return self._chain_with_cost(self.taken("z", z), maps, hjb)

    def inverse_with_cost(self, x: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As inverse, with the summed cost of every sample's path."""
        maps = [(transform, transform.inverse_with_cost) for transform in reversed(self.transforms)]
        return self._chain_with_cost(self.taken("x", x), maps, hjb)

    def forward_with_score(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As forward, with grad ln p(x), shape (n, *shape), without a graph, for z of the base."""
        x = self.taken("z", z)
        total, score = torch.zeros(len(x), dtype=torch.float64, device=x.device), -x.detach()
        for transform in self.transforms if len(x) else ():
            x, logdet, score = checked(transform, transform.forward_with_score(x, score), x, 3)
            total = total + logdet
        return x, total, score

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x) in nats, float64, shape (n,); errors as in `forward`."""
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

        Raises:
            InvalidInput: a number below 1, more samples than fit in memory, or a generator on another device;
                WrongType: what is no number, or no generator.
        """
        rows = n if batch is None else count("batch", batch)
        z = self.noise(n, generator)
        with torch.no_grad():
            fields, logdets = zip(*map(self, z.split(rows)), strict=True)
        return torch.cat(fields), self.base_log_prob(z) - torch.cat(logdets)

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal z, shape (n, *shape), of the flow's dtype and device; arguments as in `sample`."""
        like, number = self._like, count("n", n)
        check_memory(number, {"x": (np.float32, self.shape)}, what="samples")
        source = stream(generator, like.device)
        return torch.randn(number, *self.shape, dtype=like.dtype, device=like.device, generator=source)

    def base_log_prob(self, z: Tensor) -> Tensor:
        """ln Normal(z; 0, 1), float64, shape (n,); errors as in `forward`."""
        squares = self.taken("z", z).double().square().flatten(1).sum(1)
        return -squares / 2 - self.dimension * math.log(2 * math.pi) / 2

    def taken(self, name: str, x: Tensor) -> Tensor:
        """Fields that were handed in, as the flow's own; the name is for errors, which are as in `forward`."""
        return fields(name, x, self.shape, self._like)

    @staticmethod
    def _chain(x: Tensor, maps: Maps) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for transform, apply in maps if len(x) else ():
            x, logdet = checked(transform, apply(x), x, 2)
            total = total + logdet
        return x, total

    @staticmethod
    def _chain_with_cost(x: Tensor, maps: Maps, hjb: bool) -> tuple[Tensor, Tensor, PathCost]:
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        costs = PathCost(total, total)
        for transform, apply in maps if len(x) else ():
            x, logdet, extra = checked(transform, apply(x, hjb=hjb), x, 3)
            total, costs = total + logdet, PathCost(*map(torch.add, costs, extra))
        return x, total, costs

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What .half(), .to() and their like do to every tensor; refused before any of them has changed.
        _check_type(fn(self._like).dtype)
        return super()._apply(fn, recurse)


def _like(flow: Flow) -> Tensor:
    """A number of the type of a flow's parameters, of several the widest, where they are."""
    parameters = [parameter for parameter in flow.parameters() if parameter.is_floating_point()]
    types = {parameter.dtype for parameter in parameters} or {torch.get_default_dtype()}
    for dtype in types:
        _check_type(dtype)
    devices = {tensor.device for tensor in (parameters or flow.buffers())} or {torch.device("cpu")}
    if len(devices) > 1:
        words = " and ".join(sorted(map(str, devices)))
        raise InvalidInput(f"the maps of this flow are on {words}: expected all of them on one device")
    return torch.zeros((), dtype=max(types, key=lambda dtype: dtype.itemsize), device=devices.pop())


def _check_type(dtype: torch.dtype) -> None:
    if dtype not in FLOATS:
        raise WrongType(f"a flow in {str(dtype).removeprefix('torch.')}: expected float32 or float64")


def checked(transform: Transform, given: Any, x: Tensor, parts: int) -> Any:
    """What a map gave for x: its image, of x's type, the log-determinant and, of three parts, the cost.

    Raises:
        InvalidTransform: it is not what maps give.
    """
    found = type(given).__name__
    if isinstance(given, tuple) and len(given) == parts and all(isinstance(part, Tensor) for part in given[:2]):
        image, logdet = given[:2]
        if image.shape == x.shape and logdet.shape == x.shape[:1]:
            return given if image.dtype == x.dtype else (image.to(x.dtype), *given[1:])
        found = f"shapes {tuple(image.shape)} and {tuple(logdet.shape)}"
    raise InvalidTransform(
        f"the map {type(transform).__name__} gave {found} for fields of shape {tuple(x.shape)}: expected their images, "
        f"of the same shape, and ln |det| of each, shape ({len(x)},)"
    )


def approximations(module: nn.Module) -> list[Approximate]:
    """All transforms inside a flow, at whatever depth, that are computed in steps; from the base on.

    Those at rest, which are the identity until something is fitted, are left out.

    Example:
        >>> approximations(Flow((2,), []))
        []
    """
    parts = (part for part in module.modules() if isinstance(part, Approximate))
    return [part for part in parts if not getattr(part, "resting", False)]


@contextmanager
def refined(module: nn.Module, factor: int) -> Iterator[None]:
    """With a multiple of the steps of every transform inside a flow that is computed in steps."""
    with ExitStack() as stack:
        for part in approximations(module):
            stack.enter_context(part.refined(factor))
        yield
