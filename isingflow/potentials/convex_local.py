"""A convex potential of features of the field near every site of any graph.

    F(x) = sum_i c_i [N(p_i + d_i) + N(-p_i + d_i)] / 2 + sum_i q_i x_i^2 / 2,    p_im = sum_j w_imj x_j / s_j,
    hess F = sum_i c_i w_i^T [hess N(p_i + d_i) + hess N(-p_i + d_i)] w_i / 2 + q,

with the features of `neighbourhoods`, one input-convex network N for all sites, and offsets d_i, weights c_i > 0 and
q_i > 0 by those that the symmetry maps onto each other. p is linear in x, so F is convex, and the least q is its strong
convexity. Without Z2 there is N(p_i + d_i) alone, and a linear term h.x.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group
from isingflow.potentials.convex import ConvexFunction, Expansion, raw_strength, strength
from isingflow.potentials.layers.input_convex import ConvexNetwork, NetworkExpansion
from isingflow.potentials.neighbourhoods import Neighbourhoods
from isingflow.runtime.checks import instance
from isingflow.runtime.fields import source, usual_defaults

INITIAL_SHARE = 0.05
"""Part of x.(hess F).x / |x|^2, 1, that the network has at the start; the quadratic part has the rest."""
CALIBRATION = 64
"""Gaussian fields at which the network's curvature is measured at the start."""


class LocalConvexPotential(Neighbourhoods, ConvexFunction):
    """The convex potential above. Its gradient starts near the identity.

    Args:
        symmetry: of the potential; whether it is even, and which sites share their parameters.
        neighbours: pairs of bonded sites, shape (m, 2).
        features: of every site.
        radius: bonds from a site to those that its features see.
        width, layers, kind, augmented, normalised, activation: of the network, see `ConvexNetwork`.
        scales: s, shape (N,), of which sites of one class get a mean; ones if not given.
        generator: source of the initial weights.

    Raises:
        InvalidInput: an option is out of range, or the symmetry moves a site away from its neighbours.

    Example:
        >>> from isingflow.lattice import square
        >>> lattice, generator = square(3, boundary="open"), torch.Generator().manual_seed(0)
        >>> options = {"features": 2, "width": 4, "generator": generator}
        >>> potential = LocalConvexPotential(lattice.symmetry, lattice.bonds, **options)
        >>> x = torch.ones(5, 3, 3)
        >>> potential.gradient(x).shape, bool((potential.value(x) == potential.value(-x)).all())
        (torch.Size([5, 3, 3]), True)
    """

    @usual_defaults()
    def __init__(
        self,
        symmetry: Group,
        neighbours: np.ndarray,
        *,
        features: int,
        radius: int = 2,
        width: int,
        layers: int = 1,
        kind: str = "layers",
        augmented: bool = True,
        normalised: bool = False,
        activation: str = "squareplus",
        scales: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        instance("symmetry", symmetry, Group, "a lattice.Group")
        generator = source(generator)
        super().__init__(symmetry, neighbours, features, radius, scales, generator)
        self.network = ConvexNetwork(
            features,
            width=width,
            layers=layers,
            kind=kind,
            augmented=augmented,
            normalised=normalised,
            activation=activation,
            generator=generator,
        )
        self.offset = nn.Parameter(torch.zeros(features, self.kinds))
        self.log_quadratic = nn.Parameter(raw_strength(torch.full((self.kinds,), 1 - INITIAL_SHARE)))
        self.log_scale = nn.Parameter(torch.zeros(self.kinds))
        if not symmetry.flip:
            self.linear = nn.Parameter(torch.zeros(self.kinds))
        with torch.no_grad():
            fields = self.scales.view(self.shape) * torch.randn(CALIBRATION, *self.shape, generator=generator)
            share = (self.product(fields, fields) * fields).sum() / fields.square().sum() - (1 - INITIAL_SHARE)
            self.log_scale.add_((INITIAL_SHARE / share).log())
            if not symmetry.flip:
                mean = self.gradient(fields).flatten(1).mean(0)
                totals = mean.new_zeros(self.kinds).index_add(0, self._of_sites, mean)
                self.linear.sub_(totals / self._of_sites.bincount())

    def expand(self, x: Tensor) -> Expansion:
        return _LocalExpansion(x, self)


class _LocalExpansion(Expansion):
    def __init__(self, x: Tensor, of: LocalConvexPotential) -> None:
        self._shape, self._rows = x.shape[1:], of._rows
        self._weights = of._rows.by_row(of._entries())
        self._scale = of.log_scale.exp()[of._of_sites]
        self._quadratic = strength(of.log_quadratic)[of._of_sites]
        self.strength = self._quadratic.min()
        rows, offset = x.flatten(1), of.offset.index_select(1, of._of_sites)[:, None, :, None]
        features = self._features(rows)
        signs = features.new_tensor([1.0, -1.0] if of.symmetry.flip else [1.0])
        self._signs = signs / len(signs)
        columns = signs[:, None, None] * features[:, None] + offset
        self._network: NetworkExpansion = of.network.expand(columns.flatten(1))
        by_sign = self._network.value.view(columns.shape[1:])
        self.value = (self._scale @ by_sign.sum(0)) / len(signs) + rows.square() @ self._quadratic / 2
        slopes = self._network.gradient.view(columns.shape)
        gradient = self._back(torch.einsum("fsin,s->fin", slopes, self._signs), rows)
        if not of.symmetry.flip:
            linear = of.linear[of._of_sites]
            self.value, gradient = self.value + rows @ linear, gradient + linear
        self.gradient = gradient.view(x.shape)

    def product(self, vectors: Tensor) -> Tensor:
        flat = vectors.flatten(-len(self._shape))
        rows = flat.flatten(0, -2)
        signs, sites = len(self._signs), flat.shape[-1]
        n = flat.shape[-2]
        # (features, sites, lead x n) to (features, lead, signs x sites x n)
        moved = self._features(rows).view(-1, sites, len(rows) // max(n, 1), n).transpose(1, 2)
        pairs = moved[:, :, None].expand(-1, -1, signs, -1, -1)
        image = self._network.product(pairs.flatten(2)).view(pairs.shape).sum(2) / signs
        return self._back(image.transpose(1, 2).flatten(2), rows).view(vectors.shape)

    def hessian(self) -> Tensor:
        sites, signs, features = len(self._scale), len(self._signs), self._weights.shape[1]
        by_site = self._network.hessian().view(signs, sites, -1, features**2).sum(0)
        by_site = self._scale[:, None, None] / signs * by_site
        first, second = self._weights[:, :, None, :, None], self._weights[:, None, :, None, :]
        squares = (first * second).flatten(3).flatten(1, 2)  # (sites, features x features, ball x ball)
        blocks = (squares.mT @ by_site.mT).flatten(0, 1)
        columns = self._rows.padded[1].to(blocks.device)
        places = (columns[:, :, None] * (sites + 1) + columns[:, None, :]).flatten()
        total = blocks.new_zeros((sites + 1) ** 2, blocks.shape[1]).index_add(0, places, blocks)
        near = total.view(sites + 1, sites + 1, -1)[:sites, :sites].permute(2, 0, 1)
        return near + self._quadratic.diag()

    def _features(self, rows: Tensor) -> Tensor:
        """p, shape (features, N, n)."""
        return (self._weights @ self._rows.seen(rows)).transpose(0, 1)

    def _back(self, by_features: Tensor, rows: Tensor) -> Tensor:
        """What is pulled back from features, with the weights of sites, plus the quadratic part, shape (n, N)."""
        scaled = (self._scale[:, None] * by_features).transpose(0, 1)
        return self._rows.summed(self._weights.transpose(1, 2) @ scaled).T + self._quadratic * rows
