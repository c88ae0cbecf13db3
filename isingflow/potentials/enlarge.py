"""A lattice potential given to the torus of twice the lengths, or back to that of half of them.

What a lattice potential learns is local: kernels w(r), hidden units, and q(k, t), the spectrum of a kernel q(r, t). On
the larger torus every small displacement r becomes 2^d, such as r + (l i, m j) with i, j = 0, 1 in two dimensions, and
its value goes to the shortest of them (in equal parts where several are):

    W(R) = w(r) / n(r)  if R is one of the n(r) shortest images of r, else 0.

Kernels keep their point symmetry, because it moves displacements without changing their length, and their spectra agree
at the momenta that both lattices have. For a field x of the small torus, repeated to fill the large one, X(R) = x(r),
hence Phi(X, t) = 2^d phi(x, t), exactly. What is left to learn are the longest waves.

The way back is the sum over images, w(r) = sum W(R) over all R that are r on the small torus. The same holds again: the
small torus sees what the large one does to repeated fields. What has been enlarged comes back as it was.
"""

from __future__ import annotations

from collections.abc import Callable

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
    _check(small, large)
    shares = _shares(large.symmetry)
    _carry(small, large, lambda kernels: _enlarged(kernels, shares))


@torch.no_grad()
def fold(large: LatticePotential, small: LatticePotential) -> None:
    """Give the potential of a torus the parameters learnt on the torus of twice the lengths.

    Args:
        large: a potential on a torus.
        small: one on the torus of half the lengths, of the same make; overwritten.

    Raises:
        InvalidInput: as of `enlarge`.

    Example:
        >>> from isingflow.lattice import square
        >>> make = dict(radial=2, oriented=1, hidden=3, generator=torch.Generator().manual_seed(0))
        >>> small, large = (LatticePotential(square(n).symmetry, **make) for n in (6, 12))
        >>> fold(large, small)
        >>> x = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(1))
        >>> torch.allclose(large.value(x.repeat(1, 2, 2), 0.5), 4 * small.value(x, 0.5))
        True
    """
    _check(small, large)
    _carry(large, small, lambda kernels: _folded(kernels, len(small.shape)))


def _check(small: LatticePotential, large: LatticePotential) -> None:
    makes = [(len(p.symmetry.point), len(p.radial), len(p.oriented), *p.amplitude.shape) for p in (small, large)]
    if tuple(2 * length for length in small.shape) != large.shape or min(small.shape) < 3 or makes[0] != makes[1]:
        raise InvalidInput(
            f"a potential of shape {small.shape}, make {makes[0]}, does not enlarge to shape {large.shape}, "
            f"make {makes[1]}: expected twice the lengths, at least 3, and the same make (point operations, radial and "
            "oriented kernels, hidden units, polynomials in time)"
        )


def _carry(earlier: LatticePotential, now: LatticePotential, resized: Callable[[Tensor], Tensor]) -> None:
    """Copy all parameters, kernels by displacement as `resized` makes them."""
    now.radial.copy_(_by_orbit(resized(earlier.radial[:, earlier.radial_orbits]), now.radial_orbits))
    oriented = resized(earlier.oriented[:, earlier.oriented_orbits[0]])
    now.oriented.copy_(_by_orbit(oriented, now.oriented_orbits[0]))
    kernel = field_of(earlier.quadratic.double()[:, earlier.half_orbits], earlier.shape)
    quadratic = half_spectrum(resized(kernel), len(earlier.shape)).real
    now.quadratic.copy_(_by_orbit(quadratic, now.half_orbits))
    for name in ("weight", "bias", "amplitude"):
        getattr(now, name).copy_(getattr(earlier, name))


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


def _folded(kernels: Tensor, dimensions: int) -> Tensor:
    """Kernels of shape (..., *shape), summed over images on the torus of half the lengths, in float64."""
    lead, large = kernels.shape[:-dimensions], kernels.shape[-dimensions:]
    images = kernels.double().reshape(*lead, *[part for length in large for part in (2, length // 2)])
    return images.sum([len(lead) + 2 * axis for axis in range(dimensions)])


def _by_orbit(values: Tensor, orbits: Tensor) -> Tensor:
    """One value per label of values that are the same throughout every orbit: shape (..., number of orbits)."""
    _, first = np.unique(orbits.cpu().numpy(), return_index=True)
    return values.flatten(-orbits.ndim)[..., torch.from_numpy(first)]
