"""Strongly convex functions F(x), whose gradient is an invertible map (Huang et al. 2021, arXiv 2012.05942).

    F(x) = c N(x) + l.x + alpha |x|^2 / 2,    c > 0, alpha > 0,

with an input-convex network N, see `layers.input_convex`. Its gradient is c grad N + l + alpha x, its Hessian
c hess N + alpha I, and alpha its strong convexity.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group, trivial_group
from isingflow.potentials.layers.input_convex import CALIBRATION, ConvexNetwork, Layers, NetworkExpansion
from isingflow.potentials.layers.input_convex_fused import MOST_FEATURES, second_order
from isingflow.runtime.checks import lengths
from isingflow.runtime.fields import source, usual_defaults

INITIAL_SHARE = 0.2
"""Part of the Hessian's mean eigenvalue, 1, that the network has at the start; alpha has the rest."""
LEAST_STRENGTH = 0.02
"""Smallest strong convexity: a point that comes from as many times as far away must be found there by the inverse."""


def strength(raw: Tensor) -> Tensor:
    """Strong convexities, at least the smallest allowed, from a parameter that may be any number."""
    return LEAST_STRENGTH + (1 - LEAST_STRENGTH) * raw.exp()


def raw_strength(value: Tensor) -> Tensor:
    """The parameter with which `strength` has this value, above the smallest."""
    return ((value - LEAST_STRENGTH) / (1 - LEAST_STRENGTH)).log()


class Expansion:
    """A convex function about a batch of points, to second order.

    Attributes:
        value: F(x), shape (n,).
        gradient: grad F(x), shape (n, *shape).
        strength: a positive lower bound on all eigenvalues of the Hessian, a scalar.
    """

    value: Tensor
    gradient: Tensor
    strength: Tensor

    def product(self, vectors: Tensor) -> Tensor:
        """The Hessian times vectors, shape (..., n, *shape): leading axes share the points."""
        raise NotImplementedError

    def hessian(self) -> Tensor:
        """The Hessian, shape (n, N, N), N entries a field."""
        raise NotImplementedError


class ConvexFunction(nn.Module):
    """A strongly convex scalar function F(x) of fields, with its derivatives in closed form.

    Attributes:
        shape: shape of one field.
        symmetry: group under which F is exactly invariant, F(g x) = F(x).
    """

    shape: tuple[int, ...]
    symmetry: Group

    def expand(self, x: Tensor) -> Expansion:
        """F to second order about x, shape (n, *shape); differentiable by x and the parameters."""
        raise NotImplementedError

    def of(self, rows: Tensor) -> ConvexFunction:
        """F for these samples of a batch: itself, unless every sample has a function of its own."""
        return self

    def value(self, x: Tensor) -> Tensor:
        """F(x), shape (n,)."""
        return self.expand(x).value

    def gradient(self, x: Tensor) -> Tensor:
        """grad F(x), shape (n, *shape)."""
        return self.expand(x).gradient

    def product(self, x: Tensor, vectors: Tensor) -> Tensor:
        """The Hessian at x times vectors, shape (..., n, *shape)."""
        return self.expand(x).product(vectors)

    def hessian(self, x: Tensor) -> Tensor:
        """The Hessian at x, shape (n, N, N)."""
        return self.expand(x).hessian()


class ConvexPotential(ConvexFunction):
    """F(x) = c N(x) + l.x + alpha |x|^2 / 2 with an input-convex network N, for vectors or fields without symmetry.

    The gradient starts near the identity: at standard normal points its mean is zero and the Hessian's mean eigenvalue
    one, of which the network has a fifth.

    Args:
        shape: shape of one field.
        width, layers, kind, augmented, normalised, activation, gain: of the network, see `ConvexNetwork`.
        generator: source of the initial weights.

    Raises:
        InvalidInput: as `ConvexNetwork` does.

    Example:
        >>> potential = ConvexPotential((3,), width=8, generator=torch.Generator().manual_seed(0))
        >>> x = torch.ones(2, 3)
        >>> potential.value(x).shape, potential.gradient(x).shape, potential.hessian(x).shape
        (torch.Size([2]), torch.Size([2, 3]), torch.Size([2, 3, 3]))
    """

    @usual_defaults()
    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        layers: int = 2,
        kind: str = "layers",
        augmented: bool = True,
        normalised: bool = False,
        activation: str = "softplus",
        gain: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        generator = source(generator)
        self.shape = lengths("shape", shape)
        self.symmetry = trivial_group(self.shape)
        sites = math.prod(self.shape)
        self.network = ConvexNetwork(
            sites,
            width=width,
            layers=layers,
            kind=kind,
            augmented=augmented,
            normalised=normalised,
            activation=activation,
            gain=gain,
            generator=generator,
        )
        with torch.no_grad():
            start = self.network.expand(torch.randn(sites, CALIBRATION, generator=generator))
            probe = torch.randn(sites, CALIBRATION, generator=generator).sign()
            scale = INITIAL_SHARE / (start.product(probe) * probe).mean()
            self.linear = nn.Parameter(-scale * start.gradient.mean(1))
        self.log_scale = nn.Parameter(scale.log())
        self.log_alpha = nn.Parameter(raw_strength(torch.tensor(1 - INITIAL_SHARE)))

    @property
    def scale(self) -> Tensor:
        """c, the network's weight."""
        return self.log_scale.exp()

    @property
    def alpha(self) -> Tensor:
        """The strong convexity."""
        return strength(self.log_alpha)

    def value(self, x: Tensor) -> Tensor:
        """F(x), shape (n,), with a graph of its own, which can be differentiated twice."""
        return _LayersExpansion(x, self.network.numbers(self.scale), self.linear, self.alpha).value

    def expand(self, x: Tensor) -> Expansion:
        layers = self.network.numbers(self.scale)
        fused = x.device.type == "cpu" and x[0].numel() <= MOST_FEATURES and x.dtype in (torch.float32, torch.float64)
        kind = _FusedExpansion if fused and not layers.dense else _LayersExpansion
        return kind(x, layers, self.linear, self.alpha)


class _LayersExpansion(Expansion):
    def __init__(self, x: Tensor, layers: Layers, linear: Tensor, alpha: Tensor) -> None:
        rows = x.flatten(1)
        network = NetworkExpansion(rows.T, layers)
        self._network, self._axes = network, x.ndim - 1
        self.strength = alpha
        self.value = network.value + rows @ linear + alpha * rows.square().sum(1) / 2
        self.gradient = (network.gradient.T + linear + alpha * rows).view(x.shape)

    def product(self, vectors: Tensor) -> Tensor:
        columns = vectors.flatten(-self._axes).movedim(-1, 0)
        return self._network.product(columns).movedim(0, -1).reshape(vectors.shape) + self.strength * vectors

    def hessian(self) -> Tensor:
        curvature = self._network.hessian()
        return curvature + self.strength * torch.eye(curvature.shape[1], dtype=curvature.dtype, device=curvature.device)


class _FusedExpansion(Expansion):
    """The same by one operation; products with vectors, for which there is none, by the former."""

    def __init__(self, x: Tensor, layers: Layers, linear: Tensor, alpha: Tensor) -> None:
        self._given, self._graph = (x, layers, linear, alpha), torch.is_grad_enabled()
        self.strength = alpha
        parts = layers.skips, layers.biases, layers.inner, layers.outer, layers.symmetric, layers.activation
        self.value, gradient, self._hessian = second_order(x.flatten(1).T, linear[:, None], alpha, *parts)
        self.gradient = gradient.T.reshape(x.shape)

    @cached_property
    def _in_layers(self) -> _LayersExpansion:
        with torch.set_grad_enabled(self._graph):
            return _LayersExpansion(*self._given)

    def product(self, vectors: Tensor) -> Tensor:
        return self._in_layers.product(vectors)

    def hessian(self) -> Tensor:
        return self._hessian.permute(2, 0, 1)
