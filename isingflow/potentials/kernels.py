"""Symmetric convolutions: what every potential opens with that is exactly symmetric on a torus.

    u_c = w_c * x,    C features per site and orientation

Radial kernels have one value per orbit of displacements under the whole point group. A bond has a direction, so there
are oriented kernels too: symmetric only under those operations that keep a bond's axis, and convolved once for every
direction of it. A sum over sites and orientations of any function of the features has all translations and the whole
point group; if the function is even, Z2 too. A term (1/2) sum_k q_k |x_k|^2 with one value per orbit of momenta has the
same symmetry.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Potential
from isingflow.potentials.layers.convolutional import field_of, half_spectrum, multiplicities
from isingflow.runtime.checks import count, instance
from isingflow.runtime.fields import numbers, source


class SymmetricKernels(nn.Module):
    """The kernels w of a module on a torus of any dimension, one parameter per orbit of displacements.

    Args:
        symmetry: the symmetry to have: a group with all translations, inversion and, where `even`, Z2.
        radial: number of kernels that have the full point symmetry.
        oriented: number of kernels that have only the symmetry of a bond, per direction.
        variances: variance of x by momentum when the flow starts, of a field's shape: kernels are scaled so that
            features start of order one. Ones if not given.
        generator: source of the initial kernels.

    Attributes:
        even: whether what is made of the features is even by construction, so that Z2 must be asked for; of the class.

    Raises:
        InvalidInput: there is no kernel.
        SymmetryMismatch: the group lacks what these potentials have by construction.
    """

    shape: tuple[int, ...]
    radial_orbits: Tensor
    oriented_orbits: Tensor
    momentum_orbits: Tensor
    conjugates: Tensor
    even: ClassVar[bool] = True

    def __init__(
        self, symmetry: Group, radial: int, oriented: int, variances: Tensor | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        instance("symmetry", symmetry, Group, "a lattice.Group")
        radial, oriented = count("radial", radial, least=0), count("oriented", oriented, least=0)
        if radial + oriented < 1:
            raise InvalidInput(f"radial {radial}, oriented {oriented}: expected at least one kernel")
        generator = source(generator)
        needed = Group(symmetry.shape, True, with_inversion(symmetry.shape), self.even)
        if not symmetry.contains(needed):
            raise SymmetryMismatch(f"a lattice potential needs {needed}; the symmetry asked for is only {symmetry}")
        self.shape = symmetry.shape
        self.symmetry = symmetry
        self._register_index("radial_orbits", symmetry.displacement_orbits())
        self._register_index("oriented_orbits", orientations(symmetry, bond_group(symmetry)))
        self._register_index("momentum_orbits", symmetry.momentum_orbits())
        self.register_buffer("conjugates", multiplicities(self.shape), persistent=False)

        variances = torch.ones(self.shape) if variances is None else _variances(variances, self.shape)
        self.radial = nn.Parameter(initial_kernels(self.radial_orbits, radial, variances, generator))
        self.oriented = nn.Parameter(initial_kernels(self.oriented_orbits[0], oriented, variances, generator))

    @property
    def momentum_classes(self) -> int:
        """Number of orbits of momenta."""
        return int(self.momentum_orbits.max()) + 1

    def by_displacement(self) -> Tensor:
        """w, shape (features, orientations, *shape)."""
        orientations = self.oriented_orbits if len(self.oriented) else self.oriented_orbits[:1]
        radial = self.radial[:, self.radial_orbits][:, None].expand(-1, len(orientations), *self.shape)
        return torch.cat([radial, self.oriented[:, orientations]])

    def _register_index(self, name: str, labels: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(labels)), persistent=False)


def _variances(given: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Variances by momentum, float64."""
    variances = numbers("variances", given, shape)
    if not bool((variances > 0).all()):
        raise InvalidInput("variances: expected positive numbers")
    return variances


class ConvolutionalPotential(SymmetricKernels, Potential):
    """A potential of symmetric convolutions on a torus; what it makes of the features is up to the subclass.

    A subclass has `quadratic`: coefficients of q in some basis of functions of time, shape (terms, momentum_classes).
    """

    quadratic: nn.Parameter

    def spectra(self) -> Tensor:
        """Fourier transforms of the kernels (real: kernels are even), shape (features, orientations, *half)."""
        return half_spectrum(self.by_displacement(), len(self.shape)).real

    def features(self, momenta: Tensor) -> Tensor:
        """u, shape (features, orientations, n, sites), for the fields' half spectra, shape (n, *half)."""
        return field_of(self.spectra()[:, :, None] * momenta, self.shape).flatten(3)

    def quadratic_value(self, basis: Tensor, momenta: Tensor) -> Tensor:
        """(1/2) sum_k q_k |x_k|^2, shape (n,), for the values of the basis of time, shape (terms,)."""
        power = self.conjugates * (momenta.real**2 + momenta.imag**2) / math.prod(self.shape)
        return (self.quadratic_spectrum(basis) * power).flatten(1).sum(1) / 2

    def quadratic_spectrum(self, basis: Tensor) -> Tensor:
        """q_k, of the shape of a half spectrum."""
        return (basis @ self.quadratic)[self.half_orbits]

    @property
    def half_orbits(self) -> Tensor:
        """Orbits of the momenta that a half spectrum keeps."""
        return self.momentum_orbits[..., : self.shape[-1] // 2 + 1]


def with_inversion(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    sites = np.arange(math.prod(shape))
    inverted = np.ravel_multi_index([-i % n for i, n in zip(np.unravel_index(sites, shape), shape, strict=True)], shape)
    return sites, inverted


def bond_group(symmetry: Group) -> Group:
    """Those point operations that keep the axis of a bond along the last direction that is longer than one site."""
    shape = symmetry.shape
    last = max((axis for axis, length in enumerate(shape) if length > 1), default=0)
    stride = math.prod(shape[last + 1 :])
    axis = {stride % symmetry.sites, (shape[last] - 1) * stride}
    point = tuple(p for p in symmetry.point if int(p[stride % symmetry.sites]) in axis)
    return Group(shape, True, point, symmetry.flip)


def orientations(symmetry: Group, bond_group: Group) -> np.ndarray:
    """Orbits of displacements under the bond group, seen along every direction that a bond can be turned to.

    Shape (orientations, *shape): labels[g r] for one g of every coset of the bond group in the point group.
    """
    labels = bond_group.displacement_orbits()
    turned = np.stack([labels.ravel()[p].reshape(labels.shape) for p in symmetry.point])
    _, first = np.unique(turned.reshape(len(turned), -1), axis=0, return_index=True)
    return turned[np.sort(first)]


def initial_kernels(orbits: Tensor, count: int, variances: Tensor, generator: torch.Generator) -> Tensor:
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
    spectra = torch.fft.fftn(values[:, orbits], dim=tuple(range(1, orbits.ndim + 1))).real
    deviation = (spectra.square() * variances.float()).flatten(1).mean(1).sqrt()
    return values / deviation[:, None]
