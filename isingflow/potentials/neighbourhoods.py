"""Features near the sites of any graph: what every local potential opens with.

    p_im = sum_j w_imj x_j / s_j,    j within a few bonds of i, s_j the size of x_j when the flow starts

Entries of w that the symmetry maps onto each other are one parameter, and so are sites: a sum over sites of one
function of the features, with parameters by class of site, is exactly symmetric.

A potential of such features moves samples in a metric G, positive and as sparse as the graph:

    dx/dt = G dphi/dx,    laplacian = tr(G d^2 phi/dx^2).

With y = G^-1/2 x that is dy/dt = dphi/dy and the Laplacian by y: the flow of the same potential in the whitened field,
without a product with G^1/2, which is dense.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, identity
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Potential, chebyshev
from isingflow.potentials.layers.local import Metric, Rows
from isingflow.runtime.checks import count
from isingflow.runtime.fields import numbers, source

NEAR, FAR = 0.6, 0.2
"""Standard deviation of a unit's initial weights of neighbours and of sites further off, beside one of its own site."""


class Neighbourhoods(nn.Module):
    """The features of a module on a graph.

    Args:
        symmetry: of what is made of the features.
        neighbours: pairs of bonded sites, shape (m, 2).
        units: features of every site.
        radius: bonds from a site to those that its units see.
        scales: s, shape (N,), of which sites of one class get a mean; ones if not given.
        generator: source of the initial weights.

    Attributes:
        weight: w by class of entry, shape (units, classes).
        kinds: number of classes of sites.

    Raises:
        InvalidInput: an option is out of range, or the symmetry moves a site away from its neighbours.
    """

    shape: tuple[int, ...]
    symmetry: Group
    scales: Tensor
    _columns: Tensor
    _of_entries: Tensor
    _of_pairs: Tensor
    _of_sites: Tensor
    _owners: Tensor

    def __init__(
        self,
        symmetry: Group,
        neighbours: np.ndarray,
        units: int,
        radius: int,
        scales: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        units, radius = count("units", units), count("radius", radius, least=0)
        self.shape, self.symmetry = symmetry.shape, symmetry
        sites = math.prod(self.shape)
        pairs = balls(neighbours, sites, radius)
        self._rows = Rows.of_pairs(pairs, sites)
        generators = _generators(symmetry)
        entries, undirected = _classes(pairs, generators, sites), _classes(pairs, generators, sites, ordered=False)
        single = _classes(np.arange(sites)[:, None], generators, sites)
        for name, values in {
            "_of_entries": entries,
            "_of_pairs": undirected,
            "_of_sites": single,
            "_owners": self._rows.owners,
            "_columns": self._rows.sites,
        }.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        self.kinds = int(single.max()) + 1
        closest = balls(neighbours, sites, 1)
        near = np.isin(pairs @ [sites, 1], closest @ [sites, 1])
        self.weight = nn.Parameter(_initial_weights(units, entries, pairs, near, source(generator)))
        given = torch.ones(sites) if scales is None else numbers("scales", scales, (sites,)).float()
        self.register_buffer("scales", _alike(given, self._of_sites))

    def _entries(self) -> Tensor:
        """w / s for every entry of the balls, shape (units, entries)."""
        return self.weight.index_select(1, self._of_entries) / self.scales[self._columns]

    def _by_site(self, shared: Tensor) -> Tensor:
        """What classes of sites share, shape (units, kinds, ...), for every site."""
        return shared.index_select(1, self._of_sites)


class NeighbourhoodPotential(Neighbourhoods, Potential):
    """A potential of such features in a metric, with a quadratic form near sites and, if it is not even, a linear term.

    Args:
        symmetry, neighbours, units, radius, scales, generator: as above.
        metric: G, shape (N, N), dense or sparse; diagonal, the squares of the scales, if not given.

    Raises:
        InvalidInput: as above, or a metric that is of another shape or not positive.
    """

    quadratic: nn.Parameter
    linear: nn.Parameter
    _inside: Tensor
    _metric_values: Tensor
    _on_balls: Tensor

    def __init__(
        self,
        symmetry: Group,
        neighbours: np.ndarray,
        units: int,
        radius: int,
        scales: Tensor | None,
        metric: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__(symmetry, neighbours, units, radius, scales, generator)
        given = self.scales.double().square().diag() if metric is None else metric
        self._take(_sparse(given, len(self.scales)))

    @property
    def metric(self) -> Tensor:
        """G, shape (N, N)."""
        rows, sites = self._metric_rows, len(self.scales)
        dense = self._metric_values.new_zeros(sites, sites)
        dense[torch.from_numpy(rows.owners), torch.from_numpy(rows.sites)] = self._metric_values
        return dense

    def _start_quadratic(self, time_terms: int) -> None:
        """Parameters of Q(t) and, where phi is not even, of h(t), all zero."""
        self.quadratic = nn.Parameter(torch.zeros(int(self._of_pairs.max()) + 1, time_terms))
        if not self.symmetry.flip:
            self.linear = nn.Parameter(torch.zeros(self.kinds, time_terms))

    def _sparse_metric(self) -> Metric:
        return Metric(self._metric_rows, self._metric_values, self._on_balls)

    def _basis(self, t: float) -> Tensor:
        return chebyshev(t, self.quadratic.shape[1], self.quadratic)

    def _forms(self) -> tuple[Tensor, Tensor]:
        """Coefficients of Q and h in units of x, shapes (entries, T) and (N, T)."""
        sizes = (self.scales[self._owners] * self.scales[self._columns])[:, None]
        q = self.quadratic.index_select(0, self._of_pairs) / sizes
        if self.symmetry.flip:
            return q, self.scales.new_zeros(len(self.scales), self.quadratic.shape[1])
        return q, self.linear.index_select(0, self._of_sites) / self.scales[:, None]

    def _take(self, metric: Any) -> None:
        """Keep the rows of G, what w.G.w needs of it for every ball, and what tr(G Q) does.

        Balls shorter than the longest have ones on the diagonal beyond their end.
        """
        metric.sort_indices()
        padded = self._rows.padded[1].numpy()
        size, ends = len(padded) + 1, np.append(metric.indptr, metric.nnz)
        larger: Any = csr_matrix((metric.data, metric.indices, ends), (size, size))
        first, second = np.broadcast_arrays(padded[:, :, None], padded[:, None, :])
        inside = np.asarray(larger[first.ravel(), second.ravel()]).reshape(first.shape)
        rows, ended = np.nonzero(padded == len(padded))
        inside[rows, ended, ended] = 1
        if not (np.linalg.eigvalsh(inside) > 0).all():
            raise InvalidInput("metric: expected a positive matrix")
        on_balls = np.asarray(metric[self._rows.owners, self._rows.sites]).ravel()
        self._metric_rows = Rows(metric.indptr.astype(np.int64), metric.indices.astype(np.int64))
        for name, values in {"_metric_values": metric.data, "_inside": inside, "_on_balls": on_balls}.items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)


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


def _generators(symmetry: Group) -> np.ndarray:
    """Site permutations that generate the group, Z2 aside, shape (m, N)."""
    if not symmetry.translations:
        return np.stack(symmetry.point)
    units = np.eye(len(symmetry.shape), dtype=int)
    return np.stack([*symmetry.point, *(symmetry.element(shift=tuple(unit)).permutation for unit in units)])


def _classes(tuples: np.ndarray, generators: np.ndarray, sites: int, *, ordered: bool = True) -> np.ndarray:
    """Which tuples of sites, shape (m, k), a group maps onto each other: the number of each one's class, shape (m,).

    Classes are counted in the order of their first tuples.
    """
    images = generators[:, tuples]
    own, images = (tuples, images) if ordered else (np.sort(tuples, -1), np.sort(images, -1))
    places = sites ** np.arange(tuples.shape[1])[::-1]
    known, own_keys = np.unique(own @ places, return_inverse=True)
    found = np.searchsorted(known, images @ places)
    if not np.array_equal(known[np.minimum(found, len(known) - 1)], images @ places):
        raise InvalidInput("the symmetry takes sites away from their neighbours")
    links = np.ones(found.size, bool), (np.tile(own_keys.reshape(-1), len(generators)), found.ravel())
    graph: Any = csr_matrix(links, (len(known), len(known)))
    _, component = connected_components(graph, directed=False)
    firsts = np.full(component.max() + 1, len(known))
    np.minimum.at(firsts, component, np.arange(len(known)))
    return np.unique(firsts[component][own_keys.reshape(-1)], return_inverse=True)[1].reshape(-1)


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
