"""The one-hidden-layer potential of Zhang, E and Wang (2018), with weights that may depend on time.

    phi(x, t) = sum_h a_h(t) f(w_h.x + b_h)
    grad phi = W^T (a f'(Wx + b)),    laplacian phi = sum_h a_h |w_h|^2 f''(w_h.x + b_h)

f = softplus with a bias for generic data; f = ln cosh without one where phi must be even (Z2), as for magnets. a(t) is
a Chebyshev series: with one term, the paper's constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, Potential, Tables, chebyshev, chebyshev_table
from isingflow.potentials.layers.hidden import ACTIVATIONS, Layer, hidden_layer
from isingflow.runtime.checks import choice, count, lengths
from isingflow.runtime.fields import numbers, source, usual_defaults

DENSE_ACTIVATIONS = ("lncosh", "softplus")
_AT_ONCE = 2**18
"""Pre-activations of an average that are held at a time: they stay in the cache."""


class DensePotential(Potential):
    """phi(x, t) = sum_h a_h(t) f(w_h.x + b_h).

    Args:
        shape: shape of one field; N is its number of entries.
        hidden: number of hidden units.
        activation: "lncosh" (no bias: even in x) or "softplus" (with bias).
        time_terms: number of Chebyshev polynomials in time.
        directions: initial w_h, shape (hidden, N). The planes in which units bend then have standard normal distances
            from the origin, and a(t) starts at zero: the flow starts as the identity.
        generator: source of the initial weights: entries of w_h, and b_h, uniform within +-1/sqrt(N), a_h within
            +-1/sqrt(hidden), as in the paper's implementation; higher terms of a_h(t) start at zero.

    Raises:
        InvalidInput: an option is out of range.

    Example:
        >>> potential = DensePotential((4, 4), hidden=8, generator=torch.Generator().manual_seed(0))
        >>> gradient, laplacian = potential.bind()(torch.zeros(2, 4, 4), 0.0)
        >>> gradient.shape, laplacian.shape
        (torch.Size([2, 4, 4]), torch.Size([2]))
    """

    opening_parameters = ("weight", "bias")

    @usual_defaults()
    def __init__(
        self,
        shape: tuple[int, ...],
        hidden: int,
        *,
        activation: str = "lncosh",
        time_terms: int = 1,
        directions: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape = lengths("shape", shape)
        self.activation = choice("activation", activation, DENSE_ACTIVATIONS)
        hidden, time_terms = count("hidden", hidden), count("time_terms", time_terms)
        generator = source(generator)
        even = activation == "lncosh"
        self.symmetry = Group(self.shape, flip=even)
        sites = math.prod(self.shape)
        if directions is None:
            self.weight = nn.Parameter(_uniform((hidden, sites), generator) / math.sqrt(sites))
            constant = _uniform((hidden,), generator) / math.sqrt(hidden)
            bias = torch.zeros(hidden) if even else _uniform((hidden,), generator) / math.sqrt(sites)
        else:
            self.weight = nn.Parameter(numbers("directions", directions, (hidden, sites)).float())
            constant = torch.zeros(hidden)
            bias = torch.randn(hidden, generator=generator) * self.weight.detach().norm(dim=1)
        # One term is kept without its axis, as a constant was before there were more.
        rest = torch.zeros(hidden, time_terms - 1)
        self.amplitude = nn.Parameter(constant if time_terms == 1 else torch.cat([constant[:, None], rest], 1))
        if even:
            self.register_buffer("bias", torch.zeros(hidden), persistent=False)
        else:
            self.bias = nn.Parameter(bias)

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,)."""
        return ACTIVATIONS[self.activation].value(x.flatten(1) @ self.weight.T, self.bias) @ self._at(t)

    def _bind(self) -> Field:
        """Gradient and Laplacian; two matrix products of n x N x hidden."""
        gamma = self.weight.square().sum(1)
        layer = Layer(self.activation, self.compiled)
        # A Runge-Kutta method asks for the same times more than once.
        amplitude = lru_cache(self._at)

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            columns = x.flatten(1).T
            gradient, laplacian = hidden_layer(columns, self.weight, self.bias, amplitude(t), gamma, layer)
            return gradient.T.reshape(x.shape), laplacian

        return field

    def bind_average(self, points: Tensor, flip: bool) -> Field:
        """Gradient and Laplacian of the mean of phi(g x, t) over all translations, times point operations and sign.

        The pre-activations of all translations of x are correlations u_f = w_f * x with filters w_f, one for each
        hidden unit, point operation and sign:

            phi_G = mean over sites and filters of the sum over h,    laplacian phi_G = mean of a_h |w_h|^2 f''(u_f)

        Args:
            points: site permutations, shape (operations, N).
            flip: whether the mean is over x and -x too.
        """
        axes, inverses = tuple(range(-len(self.shape), 0)), points.argsort(1)
        filters = self.weight[:, inverses].transpose(0, 1).reshape(-1, *self.shape)
        filters = torch.cat([filters, -filters]) if flip else filters
        copies, units = len(filters) // len(self.weight), (-1, 1, *[1] * len(axes))
        spectra, bias = torch.fft.rfftn(filters, dim=axes), self.bias.repeat(copies)
        gamma = self.weight.square().sum(1).repeat(copies)
        scale = 1 / (copies * self.weight.shape[1])
        derivatives = ACTIVATIONS[self.activation].derivatives
        amplitude = lru_cache(lambda t: scale * self._at(t).repeat(copies))

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            momenta = torch.fft.rfftn(x, dim=axes)
            gradient, laplacian = torch.zeros_like(momenta), torch.zeros_like(x.flatten(1)[:, 0])
            rows = max(_AT_ONCE // max(x.numel(), 1), 1)
            for w, b, a, g in zip(*(every.split(rows) for every in (spectra, bias, amplitude(t), gamma)), strict=True):
                u = torch.fft.irfftn(w.conj()[:, None] * momenta, s=self.shape, dim=axes)
                first, second, *_ = derivatives(u, b.view(units))
                gradient = gradient + ((a.view(units) * w[:, None]) * torch.fft.rfftn(first, dim=axes)).sum(0)
                laplacian = laplacian + (a * g) @ second.flatten(2).sum(2)
            return torch.fft.irfftn(gradient, s=self.shape, dim=axes), laplacian

        return field

    def tabulated(self, times: Sequence[float]) -> Tables:
        """As in `Tables`; softplus is (p + ln 2 cosh(p/2)) / 2 up to a constant."""
        if self.amplitude.ndim == 1:
            amplitude = self.amplitude.expand(len(times), -1)
        else:
            amplitude = chebyshev_table(times, self.amplitude.shape[1], self.amplitude) @ self.amplitude.T
        softplus = self.activation == "softplus"
        v, bias = (self.weight / 2, self.bias / 2) if softplus else (self.weight, self.bias)
        linear = amplitude @ v if softplus else v.new_zeros(len(times), v.shape[1])
        quadratic = v.new_zeros(v.shape[1], v.shape[1])
        return Tables(v, bias.expand(len(times), -1), amplitude, v.square().sum(1), quadratic, linear)

    def _at(self, t: float) -> Tensor:
        """a_h(t), shape (hidden,)."""
        if self.amplitude.ndim == 1:
            return self.amplitude
        return self.amplitude @ chebyshev(t, self.amplitude.shape[1], self.amplitude)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=generator) - 1
