"""A potential for fields on any graph: units that look at the field near one site.

    phi(x, t) = sum_i sum_m a_im(t) f(p_im; b_im) + x.Q(t).x / 2 [+ h(t).x],    p_im = sum_j w_imj x_j / s_j

j within a few bonds of i, s_j the size of x_j when the flow starts, Q(t) with entries between such sites; a, Q and h
are Chebyshev series in time and start at zero: the flow starts as the identity. f is the even root where phi is to be
even, else a root, and there is a linear term. Samples move in a metric G, positive and as sparse as the graph:

    dx/dt = G dphi/dx,    laplacian = tr(G d^2 phi/dx^2) = sum_im a_im f''(p_im) w_im.G.w_im + tr(G Q).

With y = G^-1/2 x that is dy/dt = dphi/dy and the Laplacian by y: the flow of the same potential in the whitened field,
without a product with G^1/2, which is dense. A stage costs as many products as the balls have entries: O(N).

Sites that a point group maps onto each other share their parameters, so that phi is exactly symmetric under it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, ScoredField
from isingflow.potentials.layers.local import LocalLayer, Parameters
from isingflow.potentials.neighbourhoods import NeighbourhoodPotential
from isingflow.runtime.checks import count, instance
from isingflow.runtime.fields import source, usual_defaults


class LocalPotential(NeighbourhoodPotential):
    """The potential above.

    Args:
        symmetry: of the potential: its point group and whether it is even; translations are not made use of.
        neighbours: pairs of bonded sites, shape (m, 2).
        units: for every site.
        radius: bonds from a site to those that its units see.
        time_terms: number of Chebyshev polynomials in time.
        metric: G, shape (N, N), dense or sparse; diagonal, the squares of the scales, if not given.
        scales: s, shape (N,), of which sites of one class get a mean; ones if not given.
        generator: source of the initial weights.

    Raises:
        InvalidInput: an option is out of range, or the point group moves a site away from its neighbours.

    Example:
        >>> from isingflow.lattice import square
        >>> lattice, generator = square(3, boundary="open"), torch.Generator().manual_seed(0)
        >>> potential = LocalPotential(lattice.symmetry, lattice.bonds, units=2, radius=1, generator=generator)
        >>> gradient, laplacian = potential.bind()(torch.ones(5, 3, 3), 0.5)
        >>> gradient.shape, laplacian.shape, tuple(potential.weight.shape)
        (torch.Size([5, 3, 3]), torch.Size([5]), (2, 7))
    """

    opening_parameters = ("weight", "bias")

    @usual_defaults()
    def __init__(
        self,
        symmetry: Group,
        neighbours: np.ndarray,
        *,
        units: int,
        radius: int = 2,
        time_terms: int = 4,
        metric: Tensor | None = None,
        scales: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        units, time_terms, generator = count("units", units), count("time_terms", time_terms), source(generator)
        instance("symmetry", symmetry, Group, "a lattice.Group")
        own = Group(symmetry.shape, False, symmetry.point, symmetry.flip)
        super().__init__(own, neighbours, units, radius, scales, metric, generator)
        self.bias = nn.Parameter(torch.randn(units, self.kinds, generator=generator))
        self.amplitude = nn.Parameter(torch.zeros(units, self.kinds, time_terms))
        self._start_quadratic(time_terms)

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,)."""
        return self._layer.value(x.flatten(1), self._basis(t), self._expanded())

    def _bind(self) -> Field:
        """G dphi/dx and tr(G d^2 phi/dx^2)."""
        layer, parameters = self._layer, self._expanded()

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            moved, laplacian = layer(x.flatten(1), self._basis(t), parameters)
            return moved.view(x.shape), laplacian

        return field

    def scored_fields(self, midpoints: Sequence[float], context: Tensor | None = None) -> list[ScoredField]:
        """As of any potential; on a CPU in one pass."""
        if self.scales.device.type != "cpu" or context is not None:
            return super().scored_fields(midpoints, context)
        layer, parameters = self._layer, self._expanded()

        def field(x: Tensor, t: float, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            moved, laplacian, pulled = layer.scored(x.flatten(1), self._basis(t), parameters, score.flatten(1))
            return moved.view(x.shape), laplacian, pulled.view(x.shape)

        return [field] * len(midpoints)

    @property
    def _layer(self) -> LocalLayer:
        return LocalLayer(self._rows, self.symmetry.flip, self._sparse_metric())

    def _expanded(self) -> Parameters:
        """What all sites have, in units of x, from what their classes share."""
        w = self._entries()
        by_site = self._rows.by_row(w)
        gamma = ((by_site @ self._inside) * by_site).sum(2).T
        return Parameters(w, self._by_site(self.bias), self._by_site(self.amplitude), gamma, *self._forms())
