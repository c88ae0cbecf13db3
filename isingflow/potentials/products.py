"""Products of functions of nearby sites: what a sum over sites of functions of single features cannot say.

    phi(x) = (1/2) sum_fg sum_r C_fg(r) sum_i g_f(i) g_g(i + r),    g_f = u_f / sqrt(1 + u_f^2),    u_f = s_f S^p(f) x

S averages a site with its nearest neighbours, (1 + M) / 2 with M their mean; powers p and steepnesses s_f make the
features. C has one value per orbit of displacements under the point group, out to a few sites. With h = C * g,
G_f = s_f^2 (S^2p)(0) and primes for derivatives by u,

    grad phi      = sum_f s_f S^p(f) (g'_f h_f)
    laplacian phi = sum_i sum_f g''_f G_f h_f
                    + sum_fg sum_r C_fg(r) s_f s_g (S^(p(f) + p(g)))(r) sum_i g'_f(i) g'_g(i + r)

The potential is linear in C. C is no parameter of a training: it is fitted after one by least squares, see
`training.products`. Until then it is zero, and a flow along the potential is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.lattice.distances import squared_lengths
from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, Potential
from isingflow.potentials.kernels import with_inversion
from isingflow.potentials.layers.convolutional import field_of, half_spectrum, multiplicities
from isingflow.runtime.checks import count, instance
from isingflow.runtime.fields import usual_defaults

STEEPNESSES = (2.0, 0.8, 0.3)
"""Of the functions g, in units of 1 / the deviation of their features."""
REACH = 8
"""Largest squared length of r, in units of that to a nearest neighbour."""


class ProductPotential(Potential):
    """The potential above on a torus of any dimension.

    Args:
        symmetry: the symmetry to have: a group with all translations, inversion and Z2.
        smoothings: number of powers p, which are 1/2, 1, 2, 4 and so on.
        steepnesses: of g, for every power.
        reach: largest squared length of r, in units of that to a nearest neighbour.

    Attributes:
        coefficients: C, by features and orbit, shape (features, features, orbits), symmetric in the first two.
        scales: s_f, shape (features,).
        terms: number of coefficients that can be chosen: one for every two features and every orbit.
        resting: whether all coefficients are zero, as they are until they are fitted.

    Raises:
        InvalidInput: a number is out of range.
        SymmetryMismatch: the group lacks what this potential has by construction.

    Example:
        >>> from isingflow.lattice import square
        >>> potential = ProductPotential(square(4).symmetry, smoothings=2)
        >>> potential.terms, potential.resting
        (126, True)
        >>> potential.bind()(torch.ones(2, 4, 4), 0.5)[1]
        tensor([0., 0.])
    """

    coefficients: Tensor
    scales: Tensor
    spectra: Tensor
    orbits: Tensor
    conjugates: Tensor

    @usual_defaults()
    def __init__(
        self,
        symmetry: Group,
        *,
        smoothings: int = 4,
        steepnesses: Sequence[float] = STEEPNESSES,
        reach: float = REACH,
    ) -> None:
        super().__init__()
        instance("symmetry", symmetry, Group, "a lattice.Group")
        smoothings = count("smoothings", smoothings)
        if not steepnesses:
            raise InvalidInput("steepnesses is empty: expected at least one")
        needed = Group(symmetry.shape, True, with_inversion(symmetry.shape), True)
        if not symmetry.contains(needed):
            raise SymmetryMismatch(f"products need {needed}; the symmetry asked for is only {symmetry}")
        self.shape, self.symmetry = symmetry.shape, symmetry
        lengths = squared_lengths(symmetry)
        nearest = lengths == lengths[lengths > 0].min(initial=np.iinfo(int).max)
        orbits = np.where(lengths <= reach * lengths[nearest].max(initial=1), symmetry.displacement_orbits(), -1)
        self._keep("orbits", torch.from_numpy(np.searchsorted(np.unique(orbits[orbits >= 0]), orbits)))
        self.orbits[torch.from_numpy(orbits) < 0] = -1
        average = torch.from_numpy(nearest / max(nearest.sum(), 1)).double()
        smoothing = ((1 + half_spectrum(average, len(self.shape)).real) / 2).clamp_min(0)
        spectra = torch.stack([smoothing**power for power in _powers(smoothings)])
        self._keep("spectra", spectra.float())
        self._keep("conjugates", multiplicities(self.shape))
        self.steepnesses = tuple(map(float, steepnesses))
        features = smoothings * len(self.steepnesses)
        self.register_buffer("scales", torch.tensor(self.steepnesses).repeat(smoothings))
        self.register_buffer("coefficients", torch.zeros(features, features, int(self.orbits.max()) + 1))
        # A truth value beside the tensor: to look at that would wait for a GPU at every step.
        self.resting = True

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    @property
    def terms(self) -> int:
        features, _, orbits = self.coefficients.shape
        return features * (features + 1) // 2 * orbits

    @property
    def fitted(self) -> int:  # type: ignore[override]
        return 0 if self.resting else self.terms

    def calibrate(self, squares: Tensor) -> None:
        """Set the scales, so that steepnesses are in units of the features' deviations.

        Args:
            squares: mean squares of S^p x by power p, shape (smoothings,); see `squares`.
        """
        steepnesses = torch.tensor(self.steepnesses, dtype=self.scales.dtype, device=self.scales.device)
        self.scales.copy_((steepnesses / squares.sqrt()[:, None].to(self.scales)).flatten())

    def squares(self, x: Tensor) -> Tensor:
        """Mean squares of S^p x over samples and sites, by power p, shape (smoothings,)."""
        return self._smoothed(x).square().transpose(0, 1).flatten(1).mean(1)

    def choose(self, chosen: Tensor) -> None:
        """Set the coefficients, by term: shape (terms,), in the order of `responses`."""
        features = len(self.scales)
        rows, columns = torch.triu_indices(features, features)
        values = chosen.view(-1, len(rows)).T.to(self.coefficients) / 2
        self.rest()
        self.coefficients[rows, columns] += values
        self.coefficients[columns, rows] += values
        self.resting = not bool(values.any())

    def rest(self) -> None:
        """Set all coefficients to zero."""
        self.coefficients.zero_()
        self.resting = True

    @property
    def chosen(self) -> Tensor:
        """The coefficients by term, as `choose` takes them."""
        rows, columns = torch.triu_indices(len(self.scales), len(self.scales))
        twice = torch.where(rows == columns, 1, 2).to(self.coefficients)
        return (twice[:, None] * self.coefficients[rows, columns]).T.flatten()

    @torch.no_grad()
    def responses(self, x: Tensor, slope: Tensor) -> Tensor:
        """Of every term, what a short way along its gradient adds to ln p + E: slope . grad phi - laplacian phi.

        Args:
            x: shape (n, *shape).
            slope: grad E there, of x's shape.

        Returns:
            Shape (n, terms).
        """
        functions, first, second = self._functions(x)
        gram = self._gram()
        pulled = (self._featured(self._smoothed(slope)) * first - self._times(second, _own(gram))).flatten(2)
        waves = [half_spectrum(part, len(self.shape)) for part in (functions, first)]
        features = len(self.scales)
        rows, columns = torch.triu_indices(features, features)
        found = []
        for orbit in range(self.coefficients.shape[2]):
            members = (self.orbits == orbit).to(x)
            spectrum = half_spectrum(members, len(self.shape)).real
            around, slopes = (field_of(spectrum * wave, self.shape).flatten(2) for wave in waves)
            both = pulled @ around.transpose(1, 2)
            crossed = (gram * members).flatten(2).sum(2) / members.sum()
            response = (both + both.transpose(1, 2)) / 2 - crossed * (first.flatten(2) @ slopes.transpose(1, 2))
            found.append(response[:, rows, columns])
        return torch.cat(found, 1)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.resting = not bool(self.coefficients.any())

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x), shape (n,)."""
        functions = self._functions(x)[0]
        coupled = self._coupled(self._spectrum(), half_spectrum(functions, len(self.shape)))
        return (functions * field_of(coupled, self.shape)).flatten(1).sum(1) / 2

    def _bind(self) -> Field:
        """Gradient and Laplacian; three FFTs per feature and two per power, a small matrix product per momentum."""
        gram = self._gram()
        spectrum, crossed, gammas = self._spectrum(), self._spectrum(gram), _own(gram)
        weights = self.conjugates / math.prod(self.shape)
        dimensions = len(self.shape)

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            functions, first, second = self._functions(x)
            coupled = field_of(self._coupled(spectrum, half_spectrum(functions, dimensions)), self.shape)
            waves = half_spectrum(first, dimensions)
            across = torch.view_as_real(waves) * torch.view_as_real(self._coupled(crossed, waves))
            laplacian = (second * self._times(coupled, gammas)).flatten(1).sum(1)
            laplacian = laplacian + (across.sum((1, -1)) * weights).flatten(1).sum(1)
            scales = self.scales.view(-1, *[1] * dimensions)
            moved = (scales * first * coupled).unflatten(1, (len(self.spectra), -1)).sum(2)
            gradient = field_of((self.spectra * half_spectrum(moved, dimensions)).sum(1), self.shape)
            return gradient, laplacian

        return field

    def _smoothed(self, x: Tensor) -> Tensor:
        """S^p x, shape (n, smoothings, *shape)."""
        return field_of(self.spectra * half_spectrum(x, len(self.shape))[:, None], self.shape)

    def _featured(self, smoothed: Tensor) -> Tensor:
        """s_f S^p x, shape (n, features, *shape)."""
        return self._times(smoothed.repeat_interleave(len(self.steepnesses), 1), self.scales)

    def _functions(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """g, g' and g'' of all features, shape (n, features, *shape) each."""
        u = self._featured(self._smoothed(x))
        inverse = (1 + u * u).rsqrt()
        first = inverse * inverse * inverse
        return u * inverse, first, -3 * u * first * inverse * inverse

    def _gram(self) -> Tensor:
        """s_f s_g S^(p(f) + p(g)) by displacement, shape (features, features, *shape)."""
        repeats, squares = len(self.steepnesses), self.spectra[:, None] * self.spectra
        grams = field_of(torch.complex(squares, torch.zeros_like(squares)), self.shape)
        grams = grams.repeat_interleave(repeats, 0).repeat_interleave(repeats, 1)
        return grams * (self.scales[:, None] * self.scales).view(*grams.shape[:2], *[1] * len(self.shape))

    def _spectrum(self, by_displacement: Tensor | float = 1.0) -> Tensor:
        """Of C(r), times a function of r, shape (features, features, *half)."""
        within = (self.orbits >= 0).to(self.coefficients)
        kernels = self.coefficients[:, :, self.orbits.clamp_min(0)] * within * by_displacement
        return half_spectrum(kernels, len(self.shape)).real

    def _coupled(self, spectrum: Tensor, waves: Tensor) -> Tensor:
        """sum_g C_fg * g_g, all by momentum: shape (n, features, *half)."""
        given = torch.view_as_real(waves).flatten(2, -2)
        coupled = torch.einsum("fgk,ngkc->nfkc", spectrum.flatten(2), given)
        return torch.view_as_complex(coupled.contiguous()).view(waves.shape)

    def _times(self, by_feature: Tensor, factors: Tensor) -> Tensor:
        """What is given by feature, shape (n, features, *shape), times a factor of each."""
        return by_feature * factors.view(-1, *[1] * len(self.shape))


def _own(gram: Tensor) -> Tensor:
    """G_f, shape (features,)."""
    return gram.flatten(2)[:, :, 0].diagonal()


def _powers(smoothings: int) -> list[float]:
    """1/2, 1, 2, 4 and so on.

    Example:
        >>> _powers(3)
        [0.5, 1.0, 2.0]
    """
    return [2.0 ** (index - 1) for index in range(smoothings)]
