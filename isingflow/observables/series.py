"""Energy and magnetisation of every sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice, check_magnet
from isingflow.runtime.checks import as_numpy, shown

CHUNK = 2**20
"""Numbers in a batch of samples that is worked on at once, in float64."""


@dataclass(frozen=True)
class Series:
    """What is measured on each sample, float64, of the samples' leading shape (n,) or (chains, samples).

    Attributes:
        energy: mean of E = -sum over bonds J s s - sum over sites H s given the sample, total.
        energy_variance: variance of E given the sample; 0 for spins.
        magnetisation_squared, magnetisation_fourth: means of m^2 and m^4 given the sample, m per site.
        magnetisation_abs: |m|; None where only fields are known.
        magnetisation: mean of m given the sample.
    """

    energy: np.ndarray
    energy_variance: np.ndarray
    magnetisation_squared: np.ndarray
    magnetisation_fourth: np.ndarray
    magnetisation_abs: np.ndarray | None
    magnetisation: np.ndarray


def per_sample(
    lattice: Lattice, *, spins: np.ndarray | None = None, field: np.ndarray | None = None, beta: float | None = None
) -> Series:
    """Energy and magnetisation of every sample: what autocorrelation times, R-hat and figures of chains need.

    Args:
        lattice, spins, field: as in `measure`.
        beta: inverse temperature; only the spins behind a field x of a lattice in an external field depend on it.

    Raises:
        InvalidInput: as in `measure`, or beta is missing.

    Example:
        >>> from isingflow.lattice import square
        >>> series = per_sample(square(4), spins=np.ones((2, 4, 4), np.int8))
        >>> series.energy, series.magnetisation_fourth
        (array([-32., -32.]), array([1., 1.]))
    """
    means = Means.of(lattice, spins, field, beta)
    sites = lattice.sites
    first, second = lattice.bonds.T
    couplings = coo_array((lattice.strengths, (first, second)), shape=(sites, sites)).tocsr()
    couplings = couplings + couplings.T
    squares = couplings.multiply(couplings).tocsr()
    external = lattice.field_by_site.ravel()
    energy, variance, m1, m2, m4 = np.empty((5, means.count))
    for rows, batch in means.batches(0, means.count):
        t = batch.reshape(len(batch), sites)
        v = 1 - t**2
        h = (couplings @ t.T).T
        energy[rows] = -(t * (h / 2 + external)).sum(1)
        variance[rows] = (v * ((h + external) ** 2 + (squares @ v.T).T / 2)).sum(1)
        k1, k2, k3, k4 = t.sum(1), v.sum(1), -2 * (t * v).sum(1), (v * (4 - 6 * v)).sum(1)
        m1[rows] = k1 / sites
        m2[rows] = (k2 + k1**2) / sites**2
        m4[rows] = (k4 + 4 * k3 * k1 + 3 * k2**2 + 6 * k2 * k1**2 + k1**4) / sites**4
    energy, variance, m1, m2, m4 = (values.reshape(means.leading) for values in (energy, variance, m1, m2, m4))
    absolute = None if spins is None else _absolute(Means.of(lattice, spins, None, None))
    return Series(energy, variance, m2, m4, absolute, m1)


@dataclass(frozen=True)
class Means:
    """Means t = E[s | sample] of a set of samples, in batches: tanh(x + tilt) of fields, or the spins themselves."""

    samples: np.ndarray
    leading: tuple[int, ...]
    shape: tuple[int, ...]
    fields: bool
    tilt: np.ndarray | None

    @classmethod
    def of(cls, lattice: Lattice, spins: np.ndarray | None, field: np.ndarray | None, beta: float | None) -> Means:
        """The means given the fields if there are any, else given the spins; shapes are checked.

        Raises:
            InvalidInput: as in `measure`; WrongType: no lattice.
        """
        check_magnet(lattice, 1.0)
        given: dict[str, np.ndarray] = {}
        leading: dict[str, tuple[int, ...]] = {}
        for name, samples in (("spins", spins), ("field", field)):
            if samples is None:
                continue
            entries = as_numpy(samples)
            axes = -1 if entries is None else entries.ndim - len(lattice.shape)
            if (
                entries is None
                or entries.dtype.kind not in "iuf"
                or axes not in (1, 2)
                or entries.shape[axes:] != lattice.shape
            ):
                shape = ", ".join(map(str, lattice.shape))
                found = shown(samples) if entries is None else f"{entries.dtype} of shape {entries.shape}"
                raise InvalidInput(
                    f"{name}: {found}: expected numbers, shape (n, {shape}) or (chains, samples, {shape})"
                )
            given[name], leading[name] = entries, entries.shape[:axes]
        if not leading:
            raise InvalidInput("neither spins nor field: nothing to measure")
        if len(set(leading.values())) > 1:
            shapes = " and ".join(str(samples.shape) for samples in given.values())
            raise InvalidInput(f"spins and field have different numbers of samples: {shapes}")
        name, samples = given.popitem()
        if math.prod(leading[name]) == 0:
            raise InvalidInput("0 samples: an error bar needs at least 2")
        tilt = None
        if name == "field" and lattice.field is not None:
            if beta is None:
                raise InvalidInput(f"beta is needed: in an external field ({lattice}) the spins behind x depend on it")
            tilt = check_magnet(lattice, beta) * lattice.field_by_site
        return cls(samples.reshape(-1, *lattice.shape), leading[name], lattice.shape, name == "field", tilt)

    @property
    def count(self) -> int:
        return len(self.samples)

    def batches(self, start: int, stop: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Samples start .. stop - 1 in float64, a batch of them at a time: their positions, and t."""
        length = max(1, CHUNK // math.prod(self.shape))
        for first in range(start, stop, length):
            rows = slice(first, min(first + length, stop))
            batch = self.samples[rows].astype(float)
            if self.fields:
                if not np.all(np.isfinite(batch)):
                    raise InvalidInput("the field holds values that are not finite")
                batch = np.tanh(batch if self.tilt is None else batch + self.tilt)
            elif not np.all(np.abs(batch) == 1):
                raise InvalidInput("spins must be +1 or -1")
            yield rows, batch


def _absolute(spins: Means) -> np.ndarray:
    """|m| of every sample of spins."""
    sites = math.prod(spins.shape)
    values = [np.abs(batch.reshape(-1, sites).sum(1)) / sites for _, batch in spins.batches(0, spins.count)]
    return np.concatenate(values).reshape(spins.leading)
