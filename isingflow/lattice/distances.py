"""How far displacements on a torus reach, as the symmetry of its lattice sees it."""

from __future__ import annotations

from itertools import product

import numpy as np

from isingflow.lattice.symmetry import Group


def squared_lengths(symmetry: Group) -> np.ndarray:
    """The squared length of the shortest way to every displacement, up to a factor: integers, of a field's shape.

    Integers, so that equal lengths are equal. On an oblique torus the shortest way may wind around a short side more
    than once.
    """
    metric = _metric(symmetry)
    turns = 1 + max(symmetry.shape) // min(symmetry.shape)
    displacement = np.indices(symmetry.shape)
    shortest = np.full(symmetry.shape, np.iinfo(int).max)
    for winding in product(range(-turns, turns + 1), repeat=len(symmetry.shape)):
        way = displacement + np.multiply(winding, symmetry.shape).reshape(-1, *[1] * len(symmetry.shape))
        length = np.einsum("a...,ab,b...->...", way, metric, way)
        shortest = np.minimum(shortest, length)
    return shortest


def _metric(symmetry: Group) -> np.ndarray:
    """Inner products of the unit displacements, shape (d, d), that the whole point group keeps: integers."""
    lengths = np.array(symmetry.shape)
    units = np.ravel_multi_index(np.eye(len(lengths), dtype=int), symmetry.shape, mode="wrap")
    images = np.stack([np.unravel_index(p[units], symmetry.shape) for p in symmetry.point]).swapaxes(1, 2)
    images = (images + lengths // 2) % lengths - lengths // 2
    return np.einsum("gax,gbx->ab", images, images)
