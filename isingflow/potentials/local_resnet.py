"""OT-Flow's residual network at every site of any graph, behind features of the field near that site.

    phi(x, t) = sum_i F_i(p_i; t) + x.Q(t).x / 2 [+ h(t).x],    p_im = sum_j w_imj x_j / s_j

with the features of `neighbourhoods` and the network F_i of `layers.local_residual`: hidden layers are shared by all
sites, biases b_i + t k_i of the opening layer and output weights a_i(t) by those that the symmetry maps onto each
other. It opens with [s(p + b) + s(p - b)] / 2 where phi is to be even, else with s(p + b), and then there is a linear
term. a, Q and h are Chebyshev series in time and start at zero: the flow starts as the identity.

Samples move in the metric G of `neighbourhoods`, dx/dt = G dphi/dx. The Laplacian tr(G d^2 phi/dx^2) needs the Gram
matrix w_i.G.w_i^T of every site's features, and the cost of a stage is linear in the number of sites.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, TimedField, chebyshev_slopes, untimed
from isingflow.potentials.layers.local_residual import Network
from isingflow.potentials.layers.residual import EvenOpening, Opening, PlainOpening, gram_root
from isingflow.potentials.neighbourhoods import NeighbourhoodPotential
from isingflow.potentials.resnet import uniform
from isingflow.runtime.checks import count, instance
from isingflow.runtime.fields import source, usual_defaults


class _Stage(NamedTuple):
    """The network, Q and its derivative by time, h and its derivative by time."""

    network: Network
    quadratic: Tensor
    turning: Tensor
    linear: Tensor
    drift: Tensor


class LocalResidualPotential(NeighbourhoodPotential):
    """The potential above.

    Args:
        symmetry: of the potential; whether it is even, and which sites share their parameters.
        neighbours: pairs of bonded sites, shape (m, 2).
        width: features of every site, and width of the network.
        layers: number of its layers, with the opening one.
        radius: bonds from a site to those that its features see.
        time_terms: number of Chebyshev polynomials in time.
        metric: G, shape (N, N), dense or sparse; diagonal, the squares of the scales, if not given.
        scales: s, shape (N,), of which sites of one class get a mean; ones if not given.
        generator: source of the initial weights.

    Raises:
        InvalidInput: an option is out of range, or the symmetry moves a site away from its neighbours.

    Example:
        >>> from isingflow.lattice import square
        >>> lattice, generator = square(3, boundary="open"), torch.Generator().manual_seed(0)
        >>> potential = LocalResidualPotential(lattice.symmetry, lattice.bonds, width=3, generator=generator)
        >>> gradient, laplacian, rate = potential.bind_timed()(torch.ones(5, 3, 3), 0.5)
        >>> gradient.shape, laplacian.shape, rate.shape
        (torch.Size([5, 3, 3]), torch.Size([5]), torch.Size([5]))
    """

    opening_parameters = ("weight", "bias")

    @usual_defaults()
    def __init__(
        self,
        symmetry: Group,
        neighbours: np.ndarray,
        *,
        width: int,
        layers: int = 2,
        radius: int = 2,
        time_terms: int = 3,
        metric: Tensor | None = None,
        scales: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        width, layers = count("width", width), count("layers", layers)
        time_terms, generator = count("time_terms", time_terms), source(generator)
        instance("symmetry", symmetry, Group, "a lattice.Group")
        super().__init__(symmetry, neighbours, width, radius, scales, metric, generator)
        self.bias = nn.Parameter(torch.randn(width, self.kinds, generator=generator))
        self.clock = nn.Parameter(torch.zeros(width, self.kinds))
        self.kernels = nn.Parameter(uniform((layers - 1, width, width), width, generator))
        self.biases = nn.Parameter(uniform((layers - 1, width), width, generator))
        self.amplitude = nn.Parameter(torch.zeros(width, self.kinds, time_terms))
        self._start_quadratic(time_terms)

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,)."""
        rows, seen = x.flatten(1), self._rows.seen(x.flatten(1))
        features = (self._rows.by_row(self._entries()) @ seen).transpose(0, 1)
        quadratic, linear = (form @ self._basis(t) for form in self._forms())
        return self._network(t).value(features) + _form(rows, self._product(quadratic, seen), linear)

    def _bind(self) -> Field:
        """G dphi/dx and tr(G d^2 phi/dx^2)."""
        return untimed(self._bound(with_rate=False))

    def _bind_timed(self) -> TimedField:
        """The same, with the derivative by time."""
        return self._bound(with_rate=True)

    def _bound(self, with_rate: bool) -> TimedField:
        weights, metric, (q, h) = self._rows.by_row(self._entries()), self._sparse_metric(), self._forms()
        root = gram_root(weights @ torch.linalg.cholesky(self._inside)).permute(1, 2, 0)

        # A Runge-Kutta method asks for the same times more than once.
        @lru_cache
        def at(t: float) -> _Stage:
            basis, slopes = self._basis(t), self._slopes(t)
            return _Stage(self._network(t), q @ basis, q @ slopes, h @ basis, h @ slopes)

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
            network, quadratic, turning, linear, drift = at(t)
            rows = x.flatten(1)
            seen = self._rows.seen(rows)
            features = (weights @ seen).transpose(0, 1)
            by_features, laplacian, rate = network.derivatives(features, root, with_rate=with_rate)
            gradient = self._rows.summed(weights.transpose(1, 2) @ by_features.transpose(0, 1))
            gradient = gradient + self._product(quadratic, seen) + linear[:, None]
            laplacian = laplacian + (metric.on_balls * quadratic).sum()
            if with_rate:
                rate = rate + _form(rows, self._product(turning, seen), drift)
            return metric.moved(gradient).reshape(x.shape), laplacian, rate

        return field

    def _network(self, t: float) -> Network:
        opening: type[Opening] = EvenOpening if self.symmetry.flip else PlainOpening
        a, slopes = (self._by_site(self.amplitude @ of_time) for of_time in (self._basis(t), self._slopes(t)))
        clock = self._by_site(self.clock)
        return Network(opening, self._by_site(self.bias) + t * clock, clock, self.kernels, self.biases, a, slopes)

    def _product(self, quadratic: Tensor, seen: Tensor) -> Tensor:
        """Q x, shape (N, n)."""
        return (self._rows.by_row(quadratic[None]) @ seen)[:, 0]

    def _slopes(self, t: float) -> Tensor:
        return chebyshev_slopes(t, self.quadratic.shape[1], self.quadratic)


def _form(rows: Tensor, product: Tensor, linear: Tensor) -> Tensor:
    """x.Qx / 2 + h.x, shape (n,)."""
    return (rows * product.T).sum(1) / 2 + rows @ linear
