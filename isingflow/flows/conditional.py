"""Conditional flows: a density p(x | c) for every context c, such as a label or what an encoder says of an image.

    ln p(x | c) = ln N(z) - ln |det dx/dz|,    x = f(z; c)

A map that depends on a context gives, for contexts of a batch, a `Transform` of that batch: it is bound to them. So
all that holds of flows holds of a bound one, and a conditional flow is a list of maps of which some are bound first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.flows.base import Flow, Transform
from isingflow.flows.convex import ConvexFlow
from isingflow.flows.logdet import CholeskyLogdet, LogDeterminant
from isingflow.flows.wrappers import Inverted
from isingflow.potentials.partial_convex import PartiallyConvexPotential, contexts
from isingflow.runtime.checks import count, flag, instance
from isingflow.runtime.fields import usual_defaults

TOLERANCE = 1e-4
"""Relative residual of a convex map's inverse, in single precision."""


class ConditionalTransform(nn.Module):
    """A map of x that depends on a context.

    Attributes:
        context: entries of a context.
    """

    context: int

    def bind(self, context: Tensor) -> Transform:
        """The map for these contexts, shape (n, context), a row for each sample; one row serves any number of them."""
        raise NotImplementedError


class ConditionalConvexFlow(ConditionalTransform):
    """x = grad F(z; c) with F convex in z, see `PartiallyConvexPotential`.

    Args:
        potential: F.
        inverted: whether the map is z = grad F(x; c) instead, for training on samples: the gradient is cheap, its
            inverse a minimisation.
        logdet: how ln det of the Hessian is found; exactly if not given.
        tolerance: of the minimisation, as for `ConvexFlow`.
    """

    def __init__(
        self,
        potential: PartiallyConvexPotential,
        *,
        inverted: bool = False,
        logdet: LogDeterminant | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        super().__init__()
        wanted = "a PartiallyConvexPotential"
        self.potential = instance("potential", potential, PartiallyConvexPotential, wanted)
        self.context = potential.context
        self.inverted = flag("inverted", inverted)
        self.logdet = CholeskyLogdet() if logdet is None else logdet
        self.tolerance = tolerance

    def bind(self, context: Tensor) -> Transform:
        """The gradient map for these contexts."""
        bound = ConvexFlow(self.potential.bind(context), logdet=self.logdet, tolerance=self.tolerance)
        return Inverted(bound) if self.inverted else bound


class ConditionalAffine(ConditionalTransform):
    """x = exp(s(c)) z + m(c), entry by entry, s and m affine in c: after noise alone, a Gaussian that c decides.

    Args:
        features: entries of x.
        context: entries of c.

    Example:
        >>> ConditionalAffine(2, 3).bind(torch.ones(4, 3))(torch.ones(4, 2))[0].shape
        torch.Size([4, 2])
    """

    @usual_defaults()
    def __init__(self, features: int, context: int) -> None:
        super().__init__()
        self.features, self.context = count("features", features), count("context", context)
        self.weight = nn.Parameter(torch.zeros(2 * self.features, self.context))
        self.bias = nn.Parameter(torch.zeros(2 * self.features))

    def bind(self, context: Tensor) -> Transform:
        """The scaling and shift for these contexts."""
        return _BoundAffine(self, contexts(context, self.context))


class _BoundAffine(Transform):
    """The map for given contexts, a row for each sample or one for all."""

    given: Tensor

    def __init__(self, affine: ConditionalAffine, context: Tensor) -> None:
        super().__init__()
        self.affine = affine
        self.register_buffer("given", context, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._parts()
        return z * log_scale.exp() + shift, log_scale.double().sum(1).expand(len(z))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._parts()
        return (x - shift) * (-log_scale).exp(), -log_scale.double().sum(1).expand(len(x))

    def _parts(self) -> tuple[Tensor, Tensor]:
        """m and s, shape (n or 1, features)."""
        given = self.given.to(self.affine.weight)
        shift, log_scale = torch.addmm(self.affine.bias, given, self.affine.weight.T).chunk(2, dim=1)
        return shift, log_scale


class ConditionalFlow(nn.Module):
    """A density p(x | c) of vectors x: standard normal noise through maps, some of which know the context.

    Args:
        features: entries of x.
        transforms: from the base to x: maps that depend on a context, and any `Transform`, which does not.

    Raises:
        InvalidInput: maps of contexts of several sizes, or of none; WrongType: something that is no map.

    Example:
        >>> flow = ConditionalFlow(2, [ConditionalAffine(2, 1)])
        >>> context = torch.tensor([[0.0], [1.0], [2.0]])
        >>> x, log_prob = flow.sample(context, generator=torch.Generator().manual_seed(0))
        >>> x.shape, torch.allclose(log_prob, flow.log_prob(x, context))
        (torch.Size([3, 2]), True)
    """

    def __init__(self, features: int, transforms: Sequence[ConditionalTransform | Transform]) -> None:
        super().__init__()
        self.features = count("features", features)
        for part in transforms:
            instance("a map of the flow", part, (ConditionalTransform, Transform), "a transform, conditional or not")
        sizes = {part.context for part in transforms if isinstance(part, ConditionalTransform)}
        if len(sizes) != 1:
            raise InvalidInput(f"the maps know contexts of {sorted(sizes) or 'no'} entries: expected one size")
        self.context = sizes.pop()
        self.transforms = nn.ModuleList(transforms)

    def bind(self, context: Tensor) -> Flow:
        """The flow of a batch with these contexts, shape (n, context); with one row, for any number of samples.

        Raises:
            InvalidInput: another shape; WrongType: no tensor.
        """
        contexts(context, self.context)
        return Flow((self.features,), list(self._bound(context))).train(self.training)

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """ln p(x | c), float64, shape (n,).

        Args:
            x: shape (n, features).
            context: shape (n, context), or (1, context) for all.

        Raises:
            InvalidInput: shapes that do not fit together.
        """
        _same_number(len(x), context)
        return self.bind(context).log_prob(x)

    def sample(self, context: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """One sample for each context, and its log-probability; differentiable by parameters and contexts.

        Args:
            context: shape (n, context).
            generator: source of the noise, on the flow's device.

        Returns:
            x, shape (n, features), and ln p(x | c), float64, shape (n,).
        """
        bound = self.bind(context)
        z = bound.noise(len(context), generator)
        x, logdet = bound(z)
        return x, bound.base_log_prob(z) - logdet

    def _bound(self, context: Tensor) -> Iterator[Transform]:
        for part in self.transforms:
            if isinstance(part, ConditionalTransform):
                yield part.bind(context)
            elif isinstance(part, Transform):
                yield part


def _same_number(samples: int, context: Tensor) -> None:
    if len(context) not in (1, samples):
        raise InvalidInput(f"{samples} samples with {len(context)} contexts: expected one for each, or one for all")
