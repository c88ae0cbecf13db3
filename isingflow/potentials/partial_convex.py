"""Partially input-convex networks: F(x; c), convex in x for every context c (Amos, Xu and Kolter 2017).

    u   = silu(E c + e)                                                   what is known of the context
    p_k = W_k (a_k(u) z_{k-1}) + g_k(u) (L_k x) + b_k(u),                 W_k >= 0, a_k(u) >= 0
    z_1 = s(p_1) - p_1 / 2,    z_k = s(p_k)
    F(x; c) = w.(a(u) z_K) + l(u).x + alpha |x|^2 / 2,                    w, a(u) >= 0, alpha > 0

s is convex and increasing, and p_k is affine in x but for the z_{k-1} that it averages: so F is convex in x whatever
the context does, and nothing is asked of the way in which it depends on c. Gates a, g and offsets b, l are linear in u
and start without any dependence on it, a = g = 1. With d_k = dF/dz_k >= 0 and J_k = dp_k/dx,

    grad F = sum_k L_k^T (g_k s'_k d_k) + l + alpha x,    hess F = sum_k J_k^T diag(s''_k d_k) J_k + alpha I.

Bound to contexts, one for each sample, F is a `ConvexFunction` like any other, and its gradient a `ConvexFlow`.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import trivial_group
from isingflow.potentials.convex import (
    CALIBRATION,
    INITIAL_SHARE,
    ConvexFunction,
    Expansion,
    raw_strength,
    strength,
)
from isingflow.potentials.layers.activations import CONVEX, ConvexActivation
from isingflow.runtime.checks import choice, count, instance, lengths, number
from isingflow.runtime.fields import source, usual_defaults

OPEN = math.log(math.e - 1)
"""softplus(OPEN) = 1."""


class PartiallyConvexPotential(nn.Module):
    """F(x; c) = w.(a z_K) + l.x + alpha |x|^2 / 2 for vectors x and contexts c.

    Its gradient starts near the identity for every context, as that of a `ConvexPotential` does.

    Args:
        features: entries of x.
        context: entries of c.
        width: hidden units in every layer.
        layers: hidden layers K.
        embedding: entries of u, what is made of the context.
        activation: a name in `layers.activations.CONVEX`.
        gain: standard deviation of L x at the start, for x standard normal.
        generator: source of the initial weights.

    Raises:
        InvalidInput: a number that is not positive, or an unknown activation.

    Example:
        >>> potential = PartiallyConvexPotential(3, 2, width=8, generator=torch.Generator().manual_seed(0))
        >>> bound = potential.bind(torch.ones(5, 2))
        >>> bound.gradient(torch.zeros(5, 3)).shape, bound.hessian(torch.zeros(5, 3)).shape
        (torch.Size([5, 3]), torch.Size([5, 3, 3]))
    """

    @usual_defaults()
    def __init__(
        self,
        features: int,
        context: int,
        *,
        width: int = 64,
        layers: int = 2,
        embedding: int = 32,
        activation: str = "softplus",
        gain: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        features, context = count("features", features), count("context", context)
        width, layers, embedding = count("width", width), count("layers", layers), count("embedding", embedding)
        gain = number("gain", gain, above=0)
        self.features, self.context = features, context
        self.activation = choice("activation", activation, CONVEX)
        generator = source(generator)

        def normal(*shape: int, over: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) / over)

        self.embed = normal(embedding, context, over=math.sqrt(context))
        self.embed_bias = normal(embedding)
        self.skips = nn.ParameterList(normal(width, features, over=math.sqrt(features) / gain) for _ in range(layers))
        self.biases = nn.ParameterList(normal(width) for _ in range(layers))
        self.raw = nn.ParameterList(normal(width, width) for _ in range(layers - 1))
        self.raw_out = normal(width)
        # From u to g and b of every layer, to a of every layer but the first and of the end, and to l
        self.heads = nn.Parameter(torch.zeros(3 * width * layers + features, embedding))
        with torch.no_grad():
            self.linear = nn.Parameter(torch.zeros(features))
            self.log_scale = nn.Parameter(torch.zeros(()))
            self.log_alpha = nn.Parameter(torch.tensor(-math.inf))
            points = torch.randn(CALIBRATION, features, generator=generator)
            start = self.bind(torch.zeros(1, context)).expand(points)
            probe = torch.randn(CALIBRATION, features, generator=generator).sign()
            scale = INITIAL_SHARE / ((start.product(probe) * probe).mean() - start.strength)
            self.linear.sub_(scale * (start.gradient - start.strength * points).mean(0))
            self.log_scale.copy_(scale.log())
            self.log_alpha.copy_(raw_strength(torch.tensor(1 - INITIAL_SHARE)))

    def bind(self, context: Tensor) -> BoundConvexFunction:
        """F at these contexts, as a convex function of x.

        Args:
            context: one for each sample, shape (n, context); or one for all of them, shape (1, context).

        Raises:
            InvalidInput: another shape; WrongType: no tensor.
        """
        return BoundConvexFunction(self, contexts(context, self.context))


def contexts(context: Tensor, entries: int) -> Tensor:
    """Contexts that were handed in, if they are as many numbers as they should be.

    Raises:
        InvalidInput: another shape than (n, entries); WrongType: no tensor.
    """
    instance("context", context, Tensor, "a torch.Tensor")
    if context.ndim != 2 or context.shape[1] != entries:
        raise InvalidInput(
            f"context has shape {tuple(context.shape)}, expected (n, {entries}), or (1, {entries}) for all"
        )
    return context


class BoundConvexFunction(ConvexFunction):
    """x -> F(x; c) for given contexts: sample i of a batch has the context of row i.

    Args:
        potential: F.
        context: shape (n, context), or (1, context) for any number of samples.
    """

    given: Tensor

    def __init__(self, potential: PartiallyConvexPotential, context: Tensor) -> None:
        super().__init__()
        self.potential = potential
        self.shape = lengths("shape", (potential.features,))
        self.symmetry = trivial_group(self.shape)
        self.register_buffer("given", context, persistent=False)

    def of(self, rows: Tensor) -> BoundConvexFunction:
        """At the contexts of these samples."""
        return self if len(self.given) == 1 else BoundConvexFunction(self.potential, self.given[rows])

    def expand(self, x: Tensor) -> Expansion:
        """F to second order about x, shape (n, features)."""
        return _PartialExpansion(x, self.potential, self.given)


class _PartialExpansion(Expansion):
    """Rows are samples: gates and offsets have shape (n or 1, width)."""

    def __init__(self, x: Tensor, potential: PartiallyConvexPotential, context: Tensor) -> None:
        layers, width = len(potential.skips), len(potential.raw_out)
        u = silu(torch.addmm(potential.embed_bias, context.to(x), potential.embed.T))
        parts = (u @ potential.heads.T).split([width] * (3 * layers) + [potential.features], dim=1)
        scale = potential.log_scale.exp()
        opened = [softplus(part + OPEN) for part in parts[2 * layers : 3 * layers]]
        self._gates = [1 + part for part in parts[:layers]]
        self._skips = list(potential.skips)
        # Where two layers meet, the columns of W are gated: W_k a_k, without ever being formed
        self._weights = [softplus(raw) / width for raw in potential.raw]
        self._opened = opened[:-1]
        activation = CONVEX[potential.activation]
        offsets = [bias + part for bias, part in zip(potential.biases, parts[layers : 2 * layers], strict=True)]
        end = scale * softplus(potential.raw_out) / width * opened[-1]

        self._pre: list[Tensor] = []
        self._slopes: list[Tensor] = []
        p = offsets[0] + self._gates[0] * (x @ self._skips[0].T)
        z, slope = activation.value(p) - p / 2, activation.first(p) - 0.5
        for layer in range(1, layers):
            self._pre.append(p)
            self._slopes.append(slope)
            p = offsets[layer] + self._gates[layer] * (x @ self._skips[layer].T)
            p = p + (self._opened[layer - 1] * z) @ self._weights[layer - 1].T
            z, slope = activation.value(p), activation.first(p)
        self._pre.append(p)
        self._slopes.append(slope)
        self._activation: ConvexActivation = activation
        pulls = [end.expand_as(z)]
        for layer in range(layers - 1, 0, -1):
            pulls.append(self._opened[layer - 1] * ((self._slopes[layer] * pulls[-1]) @ self._weights[layer - 1]))
        self._pulls = pulls[::-1]

        linear = potential.linear + parts[-1]
        self.strength = strength(potential.log_alpha)
        self.value = (end * z).sum(1) + (linear * x).sum(1) + self.strength * x.square().sum(1) / 2
        self.gradient = linear + self.strength * x
        for layer in range(layers):
            pull = self._gates[layer] * self._slopes[layer] * self._pulls[layer]
            self.gradient = self.gradient + pull @ self._skips[layer]

    @cached_property
    def _curvatures(self) -> list[Tensor]:
        """s''_k d_k >= 0 of every layer, shape (n, width); with their graph, even if first asked for without."""
        with torch.enable_grad():
            return [self._activation.second(p) * pull for p, pull in zip(self._pre, self._pulls, strict=True)]

    def product(self, vectors: Tensor) -> Tensor:
        """The Hessian times vectors, shape (..., n, features)."""
        layers = range(len(self._pre))
        moved: list[Tensor] = []
        for layer in layers:
            step = self._gates[layer] * (vectors @ self._skips[layer].T)
            if layer:
                inner = self._opened[layer - 1] * self._slopes[layer - 1] * moved[-1]
                step = step + inner @ self._weights[layer - 1].T
            moved.append(step)
        total = self.strength * vectors
        back: Tensor | None = None
        for layer in reversed(layers):
            pull = self._curvatures[layer] * moved[layer]
            pull = pull if back is None else pull + back
            total = total + (self._gates[layer] * pull) @ self._skips[layer]
            if layer:
                back = self._opened[layer - 1] * self._slopes[layer - 1] * (pull @ self._weights[layer - 1])
        return total

    def hessian(self) -> Tensor:
        """Shape (n, features, features)."""
        opening = self._skips[0]
        width, features = opening.shape
        outer = (opening[:, :, None] * opening[:, None, :]).view(width, -1)
        total = ((self._gates[0].square() * self._curvatures[0]) @ outer).view(-1, features, features)
        jacobian: Tensor = self._gates[0][:, :, None] * opening
        for layer, weight in enumerate(self._weights, start=1):
            inner = self._opened[layer - 1] * self._slopes[layer - 1]
            jacobian = weight @ (inner[:, :, None] * jacobian) + self._gates[layer][:, :, None] * self._skips[layer]
            total = total + jacobian.mT @ (self._curvatures[layer][:, :, None] * jacobian)
        return total + self.strength * torch.eye(features, dtype=total.dtype, device=total.device)
