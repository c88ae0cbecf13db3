"""A lattice potential given to the torus of twice the lengths."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice
from isingflow.potentials import LatticePotential


@torch.no_grad()
def enlarge(small: LatticePotential, large: LatticePotential, lattice: Lattice) -> None:
    """Give the potential of a torus the parameters learnt on the torus of half the lengths.

    Args:
        small: the potential on `lattice.halved()`.
        large: the potential on `lattice`, with as many kernels, hidden units and polynomials in time; overwritten.
        lattice: the larger torus.

    Raises:
        InvalidInput: the potentials are not on these lattices, or not of the same make.

    Example:
        >>> from isingflow.lattice import square
        >>> make = dict(radial=2, oriented=1, hidden=3, generator=torch.Generator().manual_seed(0))
        >>> small, large = (LatticePotential(square(n).symmetry, **make) for n in (6, 12))
        >>> enlarge(small, large, square(12))
        >>> x = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(1))
        >>> torch.allclose(large.value(x.repeat(1, 2, 2), 0.5), 4 * small.value(x, 0.5))
        True
    """
    half = lattice.halved()
    counts = [(len(p.radial), len(p.oriented), *p.amplitude.shape) for p in (small, large)]
    if half is None or (small.shape, large.shape) != (half.shape, lattice.shape) or counts[0] != counts[1]:
        raise InvalidInput(
            f"a potential of shape {small.shape}, make {counts[0]}, does not enlarge to shape {large.shape}, "
            f"make {counts[1]}, on {lattice}"
        )
    shares = _shares(lattice)
    radial = _enlarged(small.radial[:, small.radial_orbits], shares)
    large.radial.copy_(_by_orbit(radial, large.radial_orbits))
    oriented = _enlarged(small.oriented[:, small.oriented_orbits[0]], shares)
    large.oriented.copy_(_by_orbit(oriented, large.oriented_orbits[0]))
    kernel = torch.fft.irfft2(small.quadratic.double()[:, small.half_orbits], s=small.shape)
    quadratic = torch.fft.rfft2(_enlarged(kernel, shares)).real
    large.quadratic.copy_(_by_orbit(quadratic, large.half_orbits))
    for name in ("weight", "bias", "amplitude"):
        getattr(large, name).copy_(getattr(small, name))


def _shares(lattice: Lattice) -> Tensor:
    """1 / n(r) for the shortest images of every small displacement, else 0: float64, shape (2, lx / 2, 2, ly / 2)."""
    images = _squared_lengths(lattice).reshape(2, lattice.shape[0] // 2, 2, lattice.shape[1] // 2)
    shortest = images == images.min(axis=(0, 2), keepdims=True)
    return torch.from_numpy(shortest / shortest.sum(axis=(0, 2), keepdims=True))


def _squared_lengths(lattice: Lattice) -> np.ndarray:
    """Twice the squared length of the shortest way to every displacement on a torus: integers, shape (lx, ly).

    Integers, so that equal lengths are equal. On an oblique torus the shortest way may wind around a short side more
    than once.
    """
    unit_vectors = lattice.coordinates()[[lattice.shape[1], 1]]
    metric = np.rint(2 * unit_vectors @ unit_vectors.T).astype(int)
    turns = 1 + max(lattice.shape) // min(lattice.shape)
    displacement = np.indices(lattice.shape)
    shortest = np.full(lattice.shape, np.iinfo(int).max)
    for winding in product(range(-turns, turns + 1), repeat=2):
        way = displacement + (np.array(winding) * lattice.shape)[:, None, None]
        length = np.einsum("axy,ab,bxy->xy", way, metric, way)
        shortest = np.minimum(shortest, length)
    return shortest


def _enlarged(kernels: Tensor, shares: Tensor) -> Tensor:
    """Kernels of shape (..., lx, ly) on the torus of twice the lengths, in float64."""
    return (kernels.double()[..., None, :, None, :] * shares).flatten(-2).flatten(-3, -2)


def _by_orbit(values: Tensor, orbits: Tensor) -> Tensor:
    """One value per label of values that are the same throughout every orbit: shape (..., number of orbits)."""
    _, first = np.unique(orbits.cpu().numpy(), return_index=True)
    return values.flatten(-2)[..., torch.from_numpy(first)]
