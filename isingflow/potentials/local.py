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

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, identity
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, Potential, ScoredField, chebyshev
from isingflow.potentials.layers.local import LocalLayer, Metric, Parameters, Rows
from isingflow.runtime.checks import count, instance
from isingflow.runtime.fields import numbers, source, usual_defaults

NEAR, FAR = 0.6, 0.2
"""Standard deviation of a unit's initial weights of neighbours and of sites further off, beside one of its own site."""


class LocalPotential(Potential):
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
    scales: Tensor
    _columns: Tensor
    _inside: Tensor
    _metric_values: Tensor
    _of_entries: Tensor
    _of_pairs: Tensor
    _of_sites: Tensor
    _on_balls: Tensor
    _owners: Tensor

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
        super().__init__()
        instance("symmetry", symmetry, Group, "a lattice.Group")
        units, time_terms = count("units", units), count("time_terms", time_terms)
        radius = count("radius", radius, least=0)
        self.shape, self.symmetry = symmetry.shape, Group(symmetry.shape, False, symmetry.point, symmetry.flip)
        sites, generator = math.prod(self.shape), source(generator)
        pairs = balls(neighbours, sites, radius)
        self._rows = Rows.of_pairs(pairs, sites)
        point = np.stack(symmetry.point)
        entries, undirected = _classes(pairs, point, sites), _classes(pairs, point, sites, ordered=False)
        single = _classes(np.arange(sites)[:, None], point, sites)
        for name, classes in (("_of_entries", entries), ("_of_pairs", undirected), ("_of_sites", single)):
            self.register_buffer(name, torch.from_numpy(classes), persistent=False)
        kinds = single.max() + 1
        closest = balls(neighbours, sites, 1)
        near = np.isin(pairs @ [sites, 1], closest @ [sites, 1])
        self.weight = nn.Parameter(_initial_weights(units, entries, pairs, near, generator))
        self.bias = nn.Parameter(torch.randn(units, kinds, generator=generator))
        self.amplitude = nn.Parameter(torch.zeros(units, kinds, time_terms))
        self.quadratic = nn.Parameter(torch.zeros(undirected.max() + 1, time_terms))
        if not symmetry.flip:
            self.linear = nn.Parameter(torch.zeros(kinds, time_terms))
        given = torch.ones(sites) if scales is None else numbers("scales", scales, (sites,)).float()
        self.register_buffer("scales", _alike(given, self._of_sites))
        self._take(_sparse(self.scales.double().square().diag() if metric is None else metric, sites))

    @property
    def metric(self) -> Tensor:
        """G, shape (N, N)."""
        rows, sites = self._metric_rows, len(self.scales)
        dense = self._metric_values.new_zeros(sites, sites)
        dense[torch.from_numpy(rows.owners), torch.from_numpy(rows.sites)] = self._metric_values
        return dense

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
        metric = Metric(self._metric_rows, self._metric_values, self._on_balls)
        return LocalLayer(self._rows, self.symmetry.flip, metric)

    def _basis(self, t: float) -> Tensor:
        return chebyshev(t, self.amplitude.shape[2], self.amplitude)

    def _expanded(self) -> Parameters:
        """What all sites have, in units of x, from what their classes share."""
        w = self.weight.index_select(1, self._of_entries) / self.scales[self._columns]
        by_site = self._layer.by_ball(w)
        gamma = ((by_site @ self._inside) * by_site).sum(2).T
        a, b = (shared.index_select(1, self._of_sites) for shared in (self.amplitude, self.bias))
        sizes = (self.scales[self._owners] * self.scales[self._columns])[:, None]
        q = self.quadratic.index_select(0, self._of_pairs) / sizes
        if self.symmetry.flip:
            h = self.scales.new_zeros(len(self.scales), self.amplitude.shape[2])
        else:
            h = self.linear.index_select(0, self._of_sites) / self.scales[:, None]
        return Parameters(w, b, a, gamma, q, h)

    def _take(self, metric: Any) -> None:
        """Keep the rows of G, what w.G.w needs of it for every ball, and what tr(G Q) does."""
        metric.sort_indices()
        padded = self._rows.padded[1].numpy()
        size, ends = len(padded) + 1, np.append(metric.indptr, metric.nnz)
        larger: Any = csr_matrix((metric.data, metric.indices, ends), (size, size))
        first, second = np.broadcast_arrays(padded[:, :, None], padded[:, None, :])
        inside = np.asarray(larger[first.ravel(), second.ravel()]).reshape(first.shape)
        on_balls = np.asarray(metric[self._rows.owners, self._rows.sites]).ravel()
        self._metric_rows = Rows(metric.indptr.astype(np.int64), metric.indices.astype(np.int64))
        for name, values in {
            "_metric_values": metric.data.astype(np.float32),
            "_inside": inside.astype(np.float32),
            "_on_balls": on_balls.astype(np.float32),
            "_owners": self._rows.owners,
            "_columns": self._rows.sites,
        }.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)


def balls(neighbours: np.ndarray, sites: int, radius: int) -> np.ndarray:
    """All pairs of sites that are at most so many bonds apart, each with itself too, both ways, in the order of sites.

    Example:
        >>> balls(np.array([[0, 1], [1, 2]]), 3, 1).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 1], [2, 2]]
    """
    pairs = np.asarray(neighbours, dtype=np.int64).reshape(-1, 2)
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < sites:
        raise InvalidInput(f"neighbours: expected pairs of the sites 0 .. {sites - 1}")
    near: Any = csr_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (sites, sites))
    near = near + near.T + identity(sites, bool, "csr")
    reached: Any = identity(sites, bool, "csr")
    for _ in range(radius):
        reached = reached @ near
    reached.sort_indices()
    return np.stack([np.repeat(np.arange(sites), np.diff(reached.indptr)), reached.indices], 1).astype(np.int64)


def _classes(tuples: np.ndarray, point: np.ndarray, sites: int, *, ordered: bool = True) -> np.ndarray:
    """Which tuples of sites, shape (m, k), a group maps onto each other: the number of each one's class, shape (m,)."""
    images = point[:, tuples]
    own, images = (tuples, images) if ordered else (np.sort(tuples, -1), np.sort(images, -1))
    places = sites ** np.arange(tuples.shape[1])[::-1]
    keys = images @ places
    if not np.isin(keys, own @ places).all():
        raise InvalidInput("the point group takes sites away from their neighbours")
    return np.unique(keys.min(0), return_inverse=True)[1].reshape(-1)


def _initial_weights(
    units: int, classes: np.ndarray, pairs: np.ndarray, near: np.ndarray, generator: torch.Generator
) -> Tensor:
    """By class of entry, shape (units, classes): one at a unit's own site, noise around, of length one in all."""
    weight = FAR * torch.randn(units, classes.max() + 1, generator=generator)
    weight[:, np.unique(classes[near])] *= NEAR / FAR
    weight[:, np.unique(classes[pairs[:, 0] == pairs[:, 1]])] = 1.0
    squares = torch.zeros(units, pairs.max() + 1)
    squares.index_add_(1, torch.from_numpy(pairs[:, 0]), weight[:, classes].square())
    lengths = torch.empty_like(weight)
    lengths[:, classes] = squares.sqrt()[:, pairs[:, 0]]
    return weight / lengths


def _alike(scales: Tensor, classes: Tensor) -> Tensor:
    """Scales with the same mean square on all sites of a class."""
    totals = scales.new_zeros(int(classes.max()) + 1).index_add(0, classes, scales.square())
    return (totals / classes.bincount())[classes].sqrt()


def _sparse(metric: Tensor, sites: int) -> Any:
    """G as rows of numbers.

    Raises:
        InvalidInput: it has another shape.
    """
    if tuple(metric.shape) != (sites, sites):
        raise InvalidInput(f"metric of shape {tuple(metric.shape)}, expected {(sites, sites)}")
    given = metric.detach().cpu().to_sparse().coalesce()
    rows, columns = given.indices().numpy()
    return csr_matrix((given.values().numpy(), (rows, columns)), (sites, sites))
