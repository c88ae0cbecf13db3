"""Input-convex networks: potentials F(x) whose gradient is an invertible map (Huang et al. 2021, arXiv 2012.05942).

    p_1 = L_1 x + b_1,                  z_1 = s(p_1) - p_1 / 2,
    p_k = W_k z_{k-1} + L_k x + b_k,    z_k = s(p_k),             W_k >= 0 in every entry,
    F(x) = c w.z_K + l.x + alpha |x|^2 / 2,                       w >= 0, c > 0, alpha > 0.

s is convex and increasing, so every z_k is convex in x (Amos et al. 2017). The first layer sees x alone and may use the
symmetric s(p) - p/2. Without the skip connections L_k, k > 1, the network is the plain one. Non-negative weights are
softplus(raw) / fan-in: averages, whose scale does not grow with the width. With J_k = dp_k/dx and d_k = dF/dz_k >= 0,

    grad F = c sum_k L_k^T (s'_k d_k) + l + alpha x,    hess F = c sum_k J_k^T diag(s''_k d_k) J_k + alpha I,

a sum of squares: products with the Hessian take one pass forward and one back through the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property, reduce

import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group, trivial_group
from isingflow.potentials.layers.activations import CONVEX, ConvexActivation
from isingflow.runtime.checks import choice, count, flag, lengths, number
from isingflow.runtime.fields import source, usual_defaults

INITIAL_SHARE = 0.2
"""Part of the Hessian's mean eigenvalue, 1, that the network has at the start; alpha has the rest."""
CALIBRATION = 1024
"""Standard normal points at which the network's curvature is measured at the start."""
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


class ConvexNetwork(nn.Module):
    """N(u) = w.z_K(u) of the module's first lines, column by column.

    Args:
        features: entries of u.
        width: hidden units in every layer.
        layers: hidden layers K.
        augmented: whether every layer sees u; else the first one only.
        activation: "softplus", "gaussian" or "squareplus".
        gain: standard deviation of L u at the start, for u standard normal: activations bend over a distance of one or
            two, so a network of small gain starts nearly quadratic, one of large gain with kinks.
        generator: source of the initial weights.

    Raises:
        InvalidInput: no unit, no layer, an unknown activation or a gain that is not positive.
    """

    def __init__(
        self,
        features: int,
        *,
        width: int,
        layers: int,
        augmented: bool = True,
        activation: str = "softplus",
        gain: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        features, width, layers = count("features", features), count("width", width), count("layers", layers)
        gain = number("gain", gain, above=0)
        self.activation = choice("activation", activation, CONVEX)
        seeing = layers if flag("augmented", augmented) else 1

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator))

        self.skips = nn.ParameterList(normal(width, features) for _ in range(seeing))
        self.biases = nn.ParameterList(normal(width) for _ in range(layers))
        self.raw = nn.ParameterList([*(normal(width, width) for _ in range(layers - 1)), normal(1, width)])
        with torch.no_grad():
            for skip in self.skips:
                skip.mul_(gain / math.sqrt(features))

    def expand(self, u: Tensor) -> NetworkExpansion:
        """N to second order about u, shape (features, columns)."""
        weights = [nn.functional.softplus(raw) / raw.shape[1] for raw in self.raw]
        return NetworkExpansion(u, list(self.skips), list(self.biases), weights, CONVEX[self.activation])


class NetworkExpansion:
    """The network about a batch of columns; see `ConvexNetwork`.

    Attributes:
        value: N(u), shape (columns,).
        gradient: shape (features, columns).
    """

    def __init__(
        self,
        u: Tensor,
        skips: Sequence[Tensor],
        biases: Sequence[Tensor],
        weights: Sequence[Tensor],
        activation: ConvexActivation,
    ) -> None:
        self._skips, self._inner, self._activation = skips, weights[:-1], activation
        self._pre: list[Tensor] = []
        self._slopes: list[Tensor] = []
        p = torch.addmm(biases[0][:, None], skips[0], u)
        z, slope = activation.value(p) - p / 2, activation.first(p) - 0.5
        for layer, (bias, weight) in enumerate(zip(biases[1:], self._inner, strict=True), start=1):
            self._pre.append(p)
            self._slopes.append(slope)
            p = torch.addmm(bias[:, None], weight, z)
            p = torch.addmm(p, skips[layer], u) if layer < len(skips) else p
            z, slope = activation.value(p), activation.first(p)
        self._pre.append(p)
        self._slopes.append(slope)
        self.value = (weights[-1] @ z)[0]
        # dN/dz_k of every layer, from the last to the first
        pulls = [weights[-1].T]
        for weight, slope in zip(reversed(self._inner), reversed(self._slopes[1:]), strict=True):
            pulls.append(weight.T @ (slope * pulls[-1]))
        self._pulls = pulls[::-1]
        layers = zip(skips, self._slopes, self._pulls, strict=False)
        self.gradient = _sum(skip.T @ (slope * pull) for skip, slope, pull in layers)

    @cached_property
    def _curvatures(self) -> list[Tensor]:
        """s''_k d_k >= 0 of every layer, shape (width, columns)."""
        return [self._activation.second(p) * pull for p, pull in zip(self._pre, self._pulls, strict=True)]

    def product(self, vectors: Tensor) -> Tensor:
        """The Hessian times vectors, shape (features, ..., columns)."""
        moved: list[Tensor] = []
        for layer in range(len(self._pre)):
            steps = [torch.tensordot(self._skips[layer], vectors, 1)] if layer < len(self._skips) else []
            if layer:
                inner = _under(self._slopes[layer - 1], moved[-1]) * moved[-1]
                steps.append(torch.tensordot(self._inner[layer - 1], inner, 1))
            moved.append(_sum(steps))
        totals: list[Tensor] = []
        back: list[Tensor] = []
        for layer in reversed(range(len(moved))):
            pull = _sum([*back, _under(self._curvatures[layer], moved[layer]) * moved[layer]])
            if layer < len(self._skips):
                totals.append(torch.tensordot(self._skips[layer].T, pull, 1))
            if layer:
                slope = self._slopes[layer - 1]
                back = [_under(slope, pull) * torch.tensordot(self._inner[layer - 1].T, pull, 1)]
        return _sum(totals)

    def hessian(self) -> Tensor:
        """Shape (columns, features, features)."""
        opening = self._skips[0]
        width, features = opening.shape
        outer = (opening[:, :, None] * opening[:, None, :]).view(width, -1)
        total = (self._curvatures[0].T @ outer).view(-1, features, features)
        jacobian = opening
        for layer, weight in enumerate(self._inner, start=1):
            jacobian = weight @ (self._slopes[layer - 1].T[:, :, None] * jacobian)
            if layer < len(self._skips):
                jacobian = jacobian + self._skips[layer]
            total = total + jacobian.mT @ (self._curvatures[layer].T[:, :, None] * jacobian)
        return total


class ConvexPotential(ConvexFunction):
    """F(x) = c N(x) + l.x + alpha |x|^2 / 2 with an input-convex network N, for vectors or fields without symmetry.

    The gradient starts near the identity: at standard normal points its mean is zero and the Hessian's mean eigenvalue
    one, of which the network has a fifth.

    Args:
        shape: shape of one field.
        width, layers, augmented, activation, gain: of the network, see `ConvexNetwork`.
        generator: source of the initial weights.

    Raises:
        InvalidInput: no unit, no layer, an unknown activation or a gain that is not positive.

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
        augmented: bool = True,
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
            augmented=augmented,
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

    def expand(self, x: Tensor) -> Expansion:
        return _DenseExpansion(x, self.network.expand(x.flatten(1).T), self.scale, self.linear, self.alpha)


class _DenseExpansion(Expansion):
    def __init__(self, x: Tensor, network: NetworkExpansion, scale: Tensor, linear: Tensor, alpha: Tensor) -> None:
        rows = x.flatten(1)
        self._network, self._scale, self._axes = network, scale, x.ndim - 1
        self.strength = alpha
        self.value = scale * network.value + rows @ linear + alpha * rows.square().sum(1) / 2
        self.gradient = (scale * network.gradient.T + linear + alpha * rows).view(x.shape)

    def product(self, vectors: Tensor) -> Tensor:
        columns = vectors.flatten(-self._axes).movedim(-1, 0)
        return (self._scale * self._network.product(columns)).movedim(0, -1).reshape(vectors.shape) + (
            self.strength * vectors
        )

    def hessian(self) -> Tensor:
        curvature = self._scale * self._network.hessian()
        return curvature + self.strength * torch.eye(curvature.shape[1], dtype=curvature.dtype, device=curvature.device)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    """Of at least one term, from left to right."""
    return reduce(torch.add, terms)


def _under(coefficients: Tensor, vectors: Tensor) -> Tensor:
    """Coefficients, shape (width, columns), for products with vectors of shape (width, ..., columns)."""
    return coefficients.reshape(len(coefficients), *[1] * (vectors.ndim - 2), -1)
