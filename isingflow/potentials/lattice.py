"""A potential that is exactly symmetric under all translations, the point group and Z2, for the cost of convolutions.

The sum of a hidden layer over all translations is a circular convolution. With kernels w_c, C per orientation,

    u_c = w_c * x,    phi(x, t) = sum_orientations sum_sites h(u; t) + (1/2) sum_k q(k, t) |x_k|^2,
    h(u; t) = sum_m a_m(t) f(v_m.u; b_m),    f even in u,

    grad phi      = sum_c w_c * (dh/du_c) + q * x
    laplacian phi = sum_sites sum_m a_m f''(v_m.u) v_m.G.v_m + sum_k q(k, t),    G_cd = <w_c, w_d>.

Radial kernels have one value per orbit of displacements under the whole point group. A bond has a direction, so there
are oriented kernels too: symmetric only under those operations that keep a bond's axis, and summed over all directions
of it. a(t) and q(k, t) are Chebyshev series in time and start at zero: the flow starts as the identity.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.potentials.base import Field, Potential, chebyshev
from isingflow.potentials.convolutional import convolutional_layer, multiplicities
from isingflow.potentials.hidden import ACTIVATIONS, Layer
from isingflow.symmetry import Group

ACTIVATION = "even-root"


class LatticePotential(Potential):
    """The translation-, point- and Z2-symmetric potential above on an lx x ly torus.

    Args:
        symmetry: the symmetry to have: a group with all translations, inversion and Z2.
        radial: number of kernels that have the full point symmetry.
        oriented: number of kernels that have only the symmetry of a bond, per direction.
        hidden: number of hidden units.
        time_terms: number of Chebyshev polynomials in time.
        variances: variance of x by momentum when the flow starts, shape (lx, ly): kernels are scaled so that features
            start of order one. Ones if not given.
        generator: source of the initial kernels and weights.

    Raises:
        InvalidInput: a count is out of range.
        SymmetryMismatch: the group lacks what this potential has by construction.

    Example:
        >>> from isingflow.symmetry import square_torus_group
        >>> group = square_torus_group(4, 4)
        >>> potential = LatticePotential(group, radial=2, hidden=3, generator=torch.Generator().manual_seed(0))
        >>> gradient, laplacian = potential.bind()(torch.ones(2, 4, 4), 0.5)
        >>> gradient.shape, laplacian.shape
        (torch.Size([2, 4, 4]), torch.Size([2]))
    """

    def __init__(
        self,
        symmetry: Group,
        *,
        radial: int,
        oriented: int = 0,
        hidden: int,
        time_terms: int = 3,
        variances: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if min(radial, oriented) < 0 or radial + oriented < 1 or min(hidden, time_terms) < 1:
            raise InvalidInput(
                f"radial {radial}, oriented {oriented}, hidden {hidden}, time_terms {time_terms}: "
                "expected at least one kernel, one hidden unit and one polynomial in time"
            )
        needed = Group(symmetry.shape, True, _with_inversion(symmetry.shape), True)
        if not symmetry.contains(needed):
            raise SymmetryMismatch(f"a lattice potential needs {needed}; the symmetry asked for is only {symmetry}")
        self.shape = symmetry.shape
        self.symmetry = symmetry
        bond_group = _bond_group(symmetry)
        self._register_index("radial_orbits", symmetry.displacement_orbits())
        self._register_index("oriented_orbits", _orientations(symmetry, bond_group))
        self._register_index("momentum_orbits", symmetry.momentum_orbits()[:, : self.shape[1] // 2 + 1])
        self.register_buffer("conjugates", multiplicities(self.shape), persistent=False)

        variances = torch.ones(self.shape) if variances is None else variances.detach().cpu()
        self.radial = nn.Parameter(_initial_kernels(self.radial_orbits, radial, variances, generator))
        self.oriented = nn.Parameter(_initial_kernels(self.oriented_orbits[0], oriented, variances, generator))
        features = radial + oriented
        self.weight = nn.Parameter(torch.randn(hidden, features, generator=generator) / math.sqrt(features))
        self.bias = nn.Parameter(torch.randn(hidden, generator=generator))
        self.amplitude = nn.Parameter(torch.zeros(hidden, time_terms))
        self.quadratic = nn.Parameter(torch.zeros(time_terms, int(self.momentum_orbits.max()) + 1))

    def spectra(self) -> Tensor:
        """Fourier transforms of the kernels (real: kernels are even), shape (features, orientations, lx, ly//2 + 1)."""
        orientations = self.oriented_orbits if len(self.oriented) else self.oriented_orbits[:1]
        radial = self.radial[:, self.radial_orbits][:, None].expand(-1, len(orientations), -1, -1)
        return torch.fft.rfft2(torch.cat([radial, self.oriented[:, orientations]])).real

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,)."""
        momenta = torch.fft.rfft2(x)
        features = torch.fft.irfft2(self.spectra()[:, :, None] * momenta, s=self.shape).flatten(3)
        amplitude, quadratic = self._at(t, x)
        p = torch.einsum("mc,cons->mons", self.weight, features)
        hidden = ACTIVATIONS[ACTIVATION].value(p, self.bias[:, None, None, None])
        power = self.conjugates * (momenta.real**2 + momenta.imag**2) / math.prod(self.shape)
        return torch.einsum("m,mons->n", amplitude, hidden) + (quadratic * power).sum((1, 2)) / 2

    def bind(self) -> Field:
        """Gradient and Laplacian; two FFTs per kernel, orientation and sample, two small matrix products per site."""
        spectra = self.spectra()
        weighted = spectra[:, 0] * self.conjugates
        gram = torch.einsum("cxy,dxy->cd", weighted, spectra[:, 0]) / math.prod(self.shape)
        gamma = ((self.weight @ gram) * self.weight).sum(1)
        layer = Layer(ACTIVATION, self.compiled)
        # A Runge-Kutta method asks for the same times more than once.
        coefficients = lru_cache(lambda t: self._at(t, gamma))

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            amplitude, quadratic = coefficients(t)
            return convolutional_layer(x, spectra, quadratic, self.weight, self.bias, amplitude, gamma, layer)

        return field

    def _at(self, t: float, like: Tensor) -> tuple[Tensor, Tensor]:
        """a_m(t), shape (hidden,), and q(k, t), shape (lx, ly//2 + 1)."""
        basis = chebyshev(t, self.amplitude.shape[1], like)
        return self.amplitude @ basis, (basis @ self.quadratic)[self.momentum_orbits]

    def _register_index(self, name: str, labels: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(labels)), persistent=False)


def _with_inversion(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    sites = np.arange(math.prod(shape))
    inverted = np.ravel_multi_index([-i % n for i, n in zip(np.unravel_index(sites, shape), shape, strict=True)], shape)
    return sites, inverted


def _bond_group(symmetry: Group) -> Group:
    """Those point operations that keep the axis of the bond from (0, 0) to (0, 1)."""
    axis = {1, symmetry.shape[1] - 1}
    return Group(symmetry.shape, True, tuple(p for p in symmetry.point if int(p[1]) in axis), True)


def _orientations(symmetry: Group, bond_group: Group) -> np.ndarray:
    """Orbits of displacements under the bond group, seen along every direction that a bond can be turned to.

    Shape (orientations, lx, ly): labels[g r] for one g of every coset of the bond group in the point group.
    """
    labels = bond_group.displacement_orbits()
    turned = np.stack([labels.ravel()[p].reshape(labels.shape) for p in symmetry.point])
    _, first = np.unique(turned.reshape(len(turned), -1), axis=0, return_index=True)
    return turned[np.sort(first)]


def _initial_kernels(orbits: Tensor, count: int, variances: Tensor, generator: torch.Generator) -> Tensor:
    """Kernels that decay over 0.5 to 3.5 sites, their values blurred by half, scaled to features of variance one.

    Shape (count, number of orbits).
    """
    labels = orbits.flatten()
    sizes = torch.bincount(labels)
    if count == 0:
        return torch.zeros(0, len(sizes))
    lengths = torch.tensor(orbits.shape)[:, None]
    displacement = torch.stack(torch.unravel_index(torch.arange(labels.numel()), orbits.shape))
    distance = torch.minimum(displacement, lengths - displacement).float().square().sum(0).sqrt()
    ranges = torch.linspace(0.5, 3.5, count)[:, None]
    profile = torch.zeros(count, len(sizes)).index_add_(1, labels, torch.exp(-distance / ranges)) / sizes
    values = profile * (1 + 0.5 * torch.randn(profile.shape, generator=generator))
    spectra = torch.fft.fft2(values[:, orbits]).real
    deviation = (spectra.square() * variances.float()).mean((1, 2)).sqrt()
    return values / deviation[:, None]
