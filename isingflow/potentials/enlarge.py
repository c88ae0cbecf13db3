"""A lattice potential given to the torus of twice the lengths.

What a lattice potential learns is local: kernels w(r), hidden units, and q(k, t), the spectrum of a kernel q(r, t). On
the larger torus every small displacement r becomes 2^d, such as r + (l i, m j) with i, j = 0, 1 in two dimensions, and
its value goes to the shortest of them (in equal parts where several are):

    W(R) = w(r) / n(r)  if R is one of the n(r) shortest images of r, else 0.

Kernels keep their point symmetry, because it moves displacements without changing their length, and their spectra agree
at the momenta that both lattices have. For a field x of the small torus, repeated to fill the large one, X(R) = x(r),
hence Phi(X, t) = 2^d phi(x, t), exactly. What is left to learn are the longest waves.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.lattice.distances import squared_lengths
from isingflow.lattice.symmetry import Group
from isingflow.potentials import LatticePotential
from isingflow.potentials.layers.convolutional import field_of, half_spectrum


@torch.no_grad()
def enlarge(small: LatticePotential, large: LatticePotential) -> None:
    """Give the potential of a torus the parameters learnt on the torus of half the lengths.

    Args:
        small: a potential on a torus.
        large: one on the torus of twice the lengths, with the same point group, kernels, hidden units and polynomials
            in time; overwritten.

    Raises:
        InvalidInput: the potentials are not on these lattices, or not of the same make.

    Example:
        >>> from isingflow.lattice import square
        >>> make = dict(radial=2, oriented=1, hidden=3, generator=torch.Generator().manual_seed(0))
        >>> small, large = (LatticePotential(square(n).symmetry, **make) for n in (6, 12))
        >>> enlarge(small, large)
        >>> x = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(1))
        >>> torch.allclose(large.value(x.repeat(1, 2, 2), 0.5), 4 * small.value(x, 0.5))
        True
    """
    makes = [(len(p.symmetry.point), len(p.radial), len(p.oriented), *p.amplitude.shape) for p in (small, large)]
    if tuple(2 * length for length in small.shape) != large.shape or min(small.shape) < 3 or makes[0] != makes[1]:
        raise InvalidInput(
            f"a potential of shape {small.shape}, make {makes[0]}, does not enlarge to shape {large.shape}, "
            f"make {makes[1]}: expected twice the lengths, at least 3, and the same make (point operations, radial and "
            "oriented kernels, hidden units, polynomials in time)"
        )
    shares = _shares(large.symmetry)
    radial = _enlarged(small.radial[:, small.radial_orbits], shares)
    large.radial.copy_(_by_orbit(radial, large.radial_orbits))
    oriented = _enlarged(small.oriented[:, small.oriented_orbits[0]], shares)
    large.oriented.copy_(_by_orbit(oriented, large.oriented_orbits[0]))
    kernel = field_of(small.quadratic.double()[:, small.half_orbits], small.shape)
    quadratic = half_spectrum(_enlarged(kernel, shares), len(small.shape)).real
    large.quadratic.copy_(_by_orbit(quadratic, large.half_orbits))
    for name in ("weight", "bias", "amplitude"):
        getattr(large, name).copy_(getattr(small, name))


def _shares(symmetry: Group) -> Tensor:
    """1 / n(r) for the shortest images of every small displacement, else 0: float64, shape (2, lx / 2, 2, ly / 2)."""
    images = squared_lengths(symmetry).reshape([part for length in symmetry.shape for part in (2, length // 2)])
    axes = tuple(range(0, images.ndim, 2))
    shortest = images == images.min(axis=axes, keepdims=True)
    return torch.from_numpy(shortest / shortest.sum(axis=axes, keepdims=True))


def _enlarged(kernels: Tensor, shares: Tensor) -> Tensor:
    """Kernels of shape (..., *shape) on the torus of twice the lengths, in float64."""
    lead = kernels.shape[: kernels.ndim - shares.ndim // 2]
    small = kernels.shape[len(lead) :]
    images = kernels.double().reshape(*lead, *[part for length in small for part in (1, length)]) * shares
    return images.reshape(*lead, *[2 * length for length in small])


def _by_orbit(values: Tensor, orbits: Tensor) -> Tensor:
    """One value per label of values that are the same throughout every orbit: shape (..., number of orbits)."""
    _, first = np.unique(orbits.cpu().numpy(), return_index=True)
    return values.flatten(-orbits.ndim)[..., torch.from_numpy(first)]
