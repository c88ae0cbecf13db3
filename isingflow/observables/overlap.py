"""The overlap of replicas, q = sum_i s_i^a s_i^b / N: the order parameter of glasses, from pairs of independent chains.

Chains 0 and 1 are one pair, 2 and 3 the next, so that no state counts twice and pairs are as independent as chains. The
distribution P(q) is a density: its integral from -1 to 1 is one. Where chains mix and no field is applied it is even;
where it is not, they have not met all states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice
from isingflow.runtime.checks import as_numpy, instance, shown
from isingflow.statistics.estimate import Estimate, Estimates
from isingflow.statistics.jackknife import block_starts, jackknife, jackknife_sums

MOST_BINS = 65
"""Of the distribution: as many as there are values of q, if they are not more."""
CHUNK = 2**22
"""Spins multiplied at once."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """Averages over pairs of replicas at one temperature, with one sigma errors.

    Attributes:
        lattice: of the spins.
        pairs, samples: how many pairs of chains, and states of each.
        overlap_abs, overlap_squared, overlap_fourth: <|q|>, <q^2> and <q^4>.
        binder: 1 - <q^4> / (3 <q^2>^2): 0 for a Gaussian, 2/3 where |q| has one value.
        edges: of the bins of q, shape (bins + 1,).
        distribution: P(q) in each of them, a density, shape (bins,).
    """

    lattice: Lattice
    pairs: int
    samples: int
    overlap_abs: Estimate
    overlap_squared: Estimate
    overlap_fourth: Estimate
    binder: Estimate
    edges: np.ndarray
    distribution: Estimates

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys that `isingflow observables --overlap --json` has under `overlap`."""
        return {
            "pairs": self.pairs,
            "samples": self.samples,
            **{name: estimate.as_dict() for name, estimate in self._scalars().items()},
            "edges": self.edges.tolist(),
            "distribution": self.distribution.as_dict(),
        }

    def __str__(self) -> str:
        lines = [f"overlap q of replicas, {self.pairs} pairs of {self.samples} samples"]
        lines += [f"  {name.replace('_', ' '):<30}{estimate!s:>26}" for name, estimate in self._scalars().items()]
        return "\n".join(lines)

    def _scalars(self) -> dict[str, Estimate]:
        return {
            "overlap_abs": self.overlap_abs,
            "overlap_squared": self.overlap_squared,
            "overlap_fourth": self.overlap_fourth,
            "overlap_binder": self.binder,
        }


def overlap(lattice: Lattice, spins: np.ndarray) -> Overlap:
    """Overlaps between independent chains of the same magnet.

    Args:
        lattice: the spins' lattice.
        spins: +1 or -1, shape (chains, samples, *lattice.shape), of at least two chains; the last of an odd number is
            left out.

    Raises:
        InvalidInput: another shape, one chain, fewer than 2 samples, spins other than +1 and -1; WrongType: no lattice.

    Example:
        >>> from isingflow.lattice import square
        >>> found = overlap(square(4), np.random.default_rng(0).choice([-1, 1], size=(8, 500, 4, 4)))
        >>> round(found.overlap_squared.value, 4), 1 / 16
        (0.0623, 0.0625)
    """
    q = overlaps(lattice, spins)
    columns = np.stack([np.abs(q), q**2, q**4], axis=-1)
    magnitude, second, fourth, binder = (_estimate(columns, function) for function in _FUNCTIONS)
    edges, width, bins = _bins(lattice.sites)
    weights = np.ones(q.shape)
    starts = block_starts(columns, weights)
    block = np.searchsorted(starts, np.arange(q.size), side="right") - 1
    place = np.searchsorted(edges, q.ravel(), side="right") - 1
    sums = np.bincount(block * bins + place, minlength=len(starts) * bins).reshape(-1, bins)
    found = jackknife_sums(lambda means: means / width, sums, np.add.reduceat(weights.ravel(), starts))
    assert isinstance(found, Estimates)
    pairs, samples = q.shape
    return Overlap(lattice, pairs, samples, magnitude, second, fourth, binder, edges, found)


def overlaps(lattice: Lattice, spins: np.ndarray) -> np.ndarray:
    """q of every pair of states, chains 2k and 2k + 1 at the same time: float64, shape (chains // 2, samples).

    Raises:
        InvalidInput, WrongType: as for `overlap`.
    """
    instance("lattice", lattice, Lattice, "a Lattice, for example square(16)")
    states = as_numpy(spins)
    shape = () if states is None else states.shape
    if states is None or states.dtype.kind not in "iuf" or len(shape) < 2 or shape[2:] != lattice.shape:
        raise InvalidInput(f"spins is {shown(spins)}, expected +1 or -1 of shape (chains, samples, *{lattice.shape})")
    if shape[0] < 2 or shape[1] < 2:
        raise InvalidInput(f"{shape[0]} chains of {shape[1]} samples: overlaps need two of each at least")
    pairs, samples = shape[0] // 2, shape[1]
    q = np.empty((pairs, samples))
    rows = max(1, CHUNK // lattice.sites)
    for pair in range(pairs):
        for start in range(0, samples, rows):
            here = slice(start, start + rows)
            first, second = (states[chain, here].reshape(-1, lattice.sites) for chain in (2 * pair, 2 * pair + 1))
            if not (np.all(np.abs(first) == 1) and np.all(np.abs(second) == 1)):
                raise InvalidInput("spins must be +1 or -1")
            q[pair, here] = (first * second).sum(1, dtype=float) / lattice.sites
    return q


_FUNCTIONS = (
    lambda mean: mean[..., 0],
    lambda mean: mean[..., 1],
    lambda mean: mean[..., 2],
    lambda mean: 1 - mean[..., 2] / (3 * mean[..., 1] ** 2),
)


def _estimate(columns: np.ndarray, function: Any) -> Estimate:
    found = jackknife(function, columns)
    assert isinstance(found, Estimate)
    return found


def _bins(sites: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Edges, widths and number of the bins: between the values q = -1, -1 + 2/N, ..., 1, several of them in each."""
    bins = min(sites + 1, MOST_BINS)
    firsts = -(-np.arange(bins + 1) * (sites + 1) // bins)  # the number of the first value of each bin
    edges = (2 * firsts - 1) / sites - 1
    return edges, np.diff(edges), bins
