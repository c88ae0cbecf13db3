"""Input-convex networks N(u): weights of a layer on those before it are not negative (Amos, Xu and Kolter 2017).

    p_1 = L_1 u + b_1,                     z_1 = s(p_1) - p_1 / 2,
    p_k = V_k y_{k-1} + L_k u + b_k,       z_k = s(p_k),               N(u) = w.y_K,      V_k, w >= 0 in every entry.

s is convex and increasing, so every z_k is convex in u. The first layer sees u alone and may use the symmetric
s(p) - p/2. Kinds differ in what a layer hands on, y_k, and in V_k, with W_k = softplus(raw) / fan-in, an average whose
scale does not grow with the width:

    layers      y_k = z_k,               V_k = W_k
    residual    y_k = z_k,               V_k = 1 + W_k / K
    dense       y_k = (z_1, ..., z_k),   V_k = W_k
    halves      y_k = z_k,               V_k = W_k in half of the rows and zero in the others, whose z_k is symmetric

The last are those of equation 7 of Huang et al. (2021), whose code has the other two as well. Normalised, every row of
L_k and V_k has a positive factor, and pre-activations start with variance one. With J_k = dp_k/du, d_k = dN/dz_k >= 0,

    grad N = sum_k L_k^T (s'_k d_k),    hess N = sum_k J_k^T diag(s''_k d_k) J_k,

a sum of squares: products with the Hessian take one pass forward and one back through the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from isingflow.errors import InvalidInput
from isingflow.potentials.layers.activations import CONVEX, ConvexActivation
from isingflow.runtime.checks import choice, count, flag, number

CALIBRATION = 1024
"""Standard normal points at which a network is measured at the start."""

ConvexKind = Literal["layers", "residual", "dense", "halves"]
KINDS: tuple[str, ...] = get_args(ConvexKind)


@dataclass(frozen=True)
class Layers:
    """A network's numbers, as an expansion needs them.

    Attributes:
        skips: L_k, shape (width, features); fewer than layers where later ones do not see u.
        biases: b_k, shape (width, 1).
        inner: V_k of the layers behind the first, shape (width, entries of y).
        outer: w, shape (1, entries of y).
        symmetric: of every layer, the last rows that lose p/2.
        activation: s.
        dense: whether y has all layers so far.
    """

    skips: Sequence[Tensor]
    biases: Sequence[Tensor]
    inner: Sequence[Tensor]
    outer: Tensor
    symmetric: Sequence[int]
    activation: ConvexActivation
    dense: bool


class ConvexNetwork(nn.Module):
    """N(u) of the module's first lines, column by column.

    Args:
        features: entries of u.
        width: hidden units in every layer.
        layers: hidden layers K.
        kind: "layers", "residual", "dense" or "halves".
        augmented: whether every layer sees u; else the first one only.
        normalised: whether rows have factors, with which pre-activations start with variance one at standard normal u.
        activation: a name in `activations.CONVEX`.
        gain: standard deviation of L u at the start, for u standard normal: activations bend over a distance of one or
            two, so a network of small gain starts nearly quadratic, one of large gain with kinks.
        generator: source of the initial weights.

    Raises:
        InvalidInput: no unit, no layer, an unknown kind or activation, a gain that is not positive, halves that do not
            see u.
    """

    def __init__(
        self,
        features: int,
        *,
        width: int,
        layers: int,
        kind: str = "layers",
        augmented: bool = True,
        normalised: bool = False,
        activation: str = "softplus",
        gain: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        features, width, layers = count("features", features), count("width", width), count("layers", layers)
        gain = number("gain", gain, above=0)
        self.kind = choice("kind", kind, KINDS)
        self.activation = choice("activation", activation, CONVEX)
        if not flag("augmented", augmented) and self.kind == "halves":
            raise InvalidInput("augmented is False, but half of a network of halves sees nothing else: expected True")
        seeing = layers if augmented else 1
        rows = width - width // 2 if self.kind == "halves" else width
        entries = [width * layer if self.kind == "dense" else width for layer in range(1, layers + 1)]

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator))

        self.skips = nn.ParameterList(normal(width, features) for _ in range(seeing))
        self.biases = nn.ParameterList(normal(width) for _ in range(layers))
        self.raw = nn.ParameterList([*(normal(rows, seen) for seen in entries[:-1]), normal(1, entries[-1])])
        normalised = flag("normalised", normalised)
        self.log_gains = nn.ParameterList(torch.zeros(width) for _ in range(layers if normalised else 0))
        with torch.no_grad():
            for skip in self.skips:
                skip.mul_(gain / math.sqrt(features))
            if normalised:
                self._normalise(torch.randn(features, CALIBRATION, generator=generator))

    def _normalise(self, u: Tensor) -> None:
        """Pre-activations of variance one, and mean b_k as it was drawn, at the columns of u."""
        for layer, (log_gain, bias) in enumerate(zip(self.log_gains, self.biases, strict=True)):
            deviation, mean = torch.std_mean(self.expand(u).pre[layer], 1)
            log_gain.sub_(deviation.log())
            bias.sub_((mean - bias) / deviation)

    def expand(self, u: Tensor) -> NetworkExpansion:
        """N to second order about u, shape (features, columns)."""
        return NetworkExpansion(u, self.numbers())

    def numbers(self, scale: Tensor | None = None) -> Layers:
        """What the parameters stand for; of the network times a scale, if it is given."""
        width, depth = len(self.biases[0]), len(self.biases)
        weights = [softplus(raw) / raw.shape[1] for raw in self.raw]
        inner, halves = weights[:-1], self.kind == "halves"
        if self.kind == "residual":
            unit = torch.eye(width, dtype=self.raw[0].dtype, device=self.raw[0].device)
            inner = [unit + weight / depth for weight in inner]
        if halves:
            inner = [pad(weight, (0, 0, 0, width // 2)) for weight in inner]
        skips = list(self.skips)
        if len(self.log_gains):
            gains = [log_gain.exp()[:, None] for log_gain in self.log_gains]
            skips = [gain * skip for gain, skip in zip(gains, skips, strict=False)]
            inner = [gain * weight for gain, weight in zip(gains[1:], inner, strict=True)]
        symmetric = [width, *[width // 2 if halves else 0] * (depth - 1)]
        biases = [bias[:, None] for bias in self.biases]
        outer = weights[-1] if scale is None else scale * weights[-1]
        return Layers(skips, biases, inner, outer, symmetric, CONVEX[self.activation], self.kind == "dense")


class NetworkExpansion:
    """The network about a batch of columns; see `ConvexNetwork`.

    Attributes:
        value: N(u), shape (columns,).
        gradient: shape (features, columns).
        pre: p_k of every layer, shape (width, columns).
    """

    def __init__(self, u: Tensor, layers: Layers) -> None:
        self._layers, activation = layers, layers.activation
        self.pre: list[Tensor] = []
        self._slopes: list[Tensor] = []
        seen: Tensor | None = None
        for layer, (bias, symmetric) in enumerate(zip(layers.biases, layers.symmetric, strict=True)):
            sees = layer < len(layers.skips)
            p = torch.addmm(bias, layers.skips[layer], u) if sees else bias
            p = p if seen is None else torch.addmm(p, layers.inner[layer - 1], seen)
            z, slope = activation.value(p), activation.first(p)
            if symmetric:
                half = _half(p, symmetric)
                z, slope = z - half * p, slope - half
            self.pre.append(p)
            self._slopes.append(slope)
            seen = self._handed_on(seen, z)
        assert seen is not None
        self.value = (layers.outer @ seen)[0]
        # dN/dz_k of every layer, from the last to the first
        self._pulls: list[Tensor] = []
        pull: Tensor | None = layers.outer.T.expand(-1, u.shape[1])
        for layer in reversed(range(len(self.pre))):
            assert pull is not None
            new, pull = self._pulled(pull)
            self._pulls.insert(0, new)
            if layer:
                through = layers.inner[layer - 1].T @ (self._slopes[layer] * new)
                pull = through if pull is None else through + pull
        parts = zip(layers.skips, self._slopes, self._pulls, strict=False)
        self.gradient = _sum(skip.T @ (slope * pull) for skip, slope, pull in parts)

    def _handed_on(self, seen: Tensor | None, new: Tensor) -> Tensor:
        """y_k of y_{k-1} and z_k, or what linear maps make of them."""
        return torch.cat([seen, new]) if self._layers.dense and seen is not None else new

    def _pulled(self, pull: Tensor) -> tuple[Tensor, Tensor | None]:
        """By z_k and, where that was handed on too, by y_{k-1}, from what is pulled back to y_k."""
        width = len(self.pre[0])
        return pull[-width:], pull[:-width] if len(pull) > width else None

    @cached_property
    def _curvatures(self) -> list[Tensor]:
        """s''_k d_k >= 0 of every layer, shape (width, columns); with their graph, even if first asked for without."""
        with torch.enable_grad():
            return [self._layers.activation.second(p) * pull for p, pull in zip(self.pre, self._pulls, strict=True)]

    def product(self, vectors: Tensor) -> Tensor:
        """The Hessian times vectors, shape (features, ..., columns)."""
        layers = self._layers
        moved: list[Tensor] = []
        seen: Tensor | None = None
        for layer, slope in enumerate(self._slopes):
            steps = [torch.tensordot(layers.skips[layer], vectors, 1)] if layer < len(layers.skips) else []
            steps += [] if seen is None else [torch.tensordot(layers.inner[layer - 1], seen, 1)]
            moved.append(_sum(steps))
            seen = self._handed_on(seen, _under(slope, moved[-1]) * moved[-1])
        totals: list[Tensor] = []
        pull: Tensor | None = None
        for layer in reversed(range(len(moved))):
            by_pre = _under(self._curvatures[layer], moved[layer]) * moved[layer]
            if pull is not None:
                new, pull = self._pulled(pull)
                by_pre = by_pre + _under(self._slopes[layer], new) * new
            if layer < len(layers.skips):
                totals.append(torch.tensordot(layers.skips[layer].T, by_pre, 1))
            if layer:
                through = torch.tensordot(layers.inner[layer - 1].T, by_pre, 1)
                pull = through if pull is None else through + pull
        return _sum(totals)

    def hessian(self) -> Tensor:
        """Shape (columns, features, features)."""
        layers = self._layers
        opening = layers.skips[0]
        width, features = opening.shape
        outer = (opening[:, :, None] * opening[:, None, :]).view(width, -1)
        total = (self._curvatures[0].T @ outer).view(-1, features, features)
        jacobian, seen = opening, None
        for layer, weight in enumerate(layers.inner, start=1):
            step = self._slopes[layer - 1].T[:, :, None] * jacobian
            seen = torch.cat([seen, step], 1) if layers.dense and seen is not None else step
            jacobian = weight @ seen
            if layer < len(layers.skips):
                jacobian = jacobian + layers.skips[layer]
            total = total + jacobian.mT @ (self._curvatures[layer].T[:, :, None] * jacobian)
        return total


def _half(p: Tensor, rows: int) -> Tensor | float:
    """One half in the last rows, else zero, shape (width, 1); or the number, where that is all of them."""
    if rows == len(p):
        return 0.5
    half = p.new_zeros(len(p), 1)
    half[len(p) - rows :] = 0.5
    return half


def _sum(terms: Iterable[Tensor]) -> Tensor:
    """Of at least one term, from left to right."""
    return reduce(torch.add, terms)


def _under(coefficients: Tensor, vectors: Tensor) -> Tensor:
    """Coefficients, shape (width, columns), for products with vectors of shape (width, ..., columns)."""
    return coefficients.reshape(len(coefficients), *[1] * (vectors.ndim - 2), -1)
