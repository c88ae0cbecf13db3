"""Chains at one temperature as short series, a few numbers a sample, and the averages that follow from them.

Energy, magnetisation and the structure factor at the smallest momentum are enough for every thermal observable, at the
temperature of the chains and, reweighted, at others. They take 24 bytes a sample, its spins one a site.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice, check_magnet
from isingflow.monte_carlo.simulate import SpinChains
from isingflow.observables.measure import length_of
from isingflow.observables.series import CHUNK, per_sample
from isingflow.runtime.checks import array
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.jackknife import MAX_BLOCKS, block_starts, block_sums, jackknife_sums

COLUMNS = ("excess", "excess_squared", "magnetisation", "absolute", "squared", "fourth", "structure_factor")
"""Of a sample, the energy relative to a reference; the last one only where it is known."""
SQUARED_LENGTH = "correlation_length_squared"


@dataclass(frozen=True, eq=False)
class ThermalSeries:
    """What was measured along chains at one temperature; made by `ThermalSeries.of`.

    Attributes:
        lattice, beta: the magnet.
        energy: E(s), total, float64, shape (chains, samples).
        magnetisation: mean spin per site, of the same shape.
        structure_factor: S(k) = |sum_r s_r exp(-i k.r)|^2 / N at k = 2 pi / L along an axis, averaged over the axes of
            the largest length L, of the same shape; None on graphs.
    """

    lattice: Lattice
    beta: float
    energy: np.ndarray
    magnetisation: np.ndarray
    structure_factor: np.ndarray | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", check_magnet(self.lattice, self.beta))
        object.__setattr__(self, "energy", array("energy", self.energy, (None, None)))
        shape, known = self.energy.shape, self.structure_factor is not None
        object.__setattr__(self, "magnetisation", array("magnetisation", self.magnetisation, shape))
        if known != (self.lattice.dimensions is not None):
            raise InvalidInput(f"structure_factor: expected {'none' if known else 'one'} on the lattice {self.lattice}")
        if known:
            object.__setattr__(self, "structure_factor", array("structure_factor", self.structure_factor, shape))
        if np.any(np.abs(self.magnetisation) > 1 + 1e-12):
            raise InvalidInput("magnetisation: expected means of spins, from -1 to 1")

    @classmethod
    def of(cls, lattice: Lattice, beta: float, spins: np.ndarray) -> ThermalSeries:
        """Of states of chains.

        Args:
            lattice, beta: the magnet.
            spins: +1 or -1, shape (chains, samples, *lattice.shape).

        Raises:
            InvalidInput: another shape, no spins, or no such temperature; WrongType: no lattice, or no numbers.

        Example:
            >>> from isingflow.lattice import square
            >>> series = ThermalSeries.of(square(4), 0.4, np.ones((2, 3, 4, 4), np.int8))
            >>> series.energy[0], series.structure_factor[0].round(9)
            (array([-32., -32., -32.]), array([0., 0., 0.]))
        """
        found = per_sample(lattice, spins=spins)
        if found.energy.ndim != 2:
            raise InvalidInput("spins: expected chains, shape (chains, samples, *lattice.shape)")
        return cls(lattice, beta, found.energy, found.magnetisation, _at_smallest_momentum(lattice, spins))

    @classmethod
    def from_blocks(cls, lattice: Lattice, blocks: Iterable[SpinChains]) -> ThermalSeries:
        """Of chains as `monte_carlo.stream` hands them out; their spins are not kept."""
        energies, magnetisations, factors = [], [], []
        for block in blocks:
            energies.append(block.energy)
            magnetisations.append(block.magnetisation)
            factors.append(_at_smallest_momentum(lattice, block.spins))
        known = [factor for factor in factors if factor is not None]
        energy, magnetisation = (np.concatenate(parts, axis=1) for parts in (energies, magnetisations))
        return cls(lattice, block.beta, energy, magnetisation, np.concatenate(known, axis=1) if known else None)

    def columns(self, reference: float) -> np.ndarray:
        """What averages are taken of, by `COLUMNS`, shape (chains, samples, k); energies less a reference."""
        excess, m = self.energy - reference, self.magnetisation
        known = [] if self.structure_factor is None else [self.structure_factor]
        return np.stack([excess, excess**2, m, np.abs(m), m**2, m**4, *known], axis=-1)

    def observables(self) -> dict[str, Estimate | None]:
        """Averages with jackknife errors, named as in `observables.measure`; None for what is not defined.

        Raises:
            InvalidInput: fewer than two samples.

        Example:
            >>> from isingflow.lattice import square
            >>> from isingflow.monte_carlo import simulate
            >>> spins = simulate(square(4), 0.3, samples=200).spins
            >>> sorted(ThermalSeries.of(square(4), 0.3, spins).observables())[:3]
            ['binder', 'correlation_length', 'correlation_length_over_size']
        """
        reference = float(self.energy.mean())
        columns, weights = self.columns(reference), np.ones(self.energy.shape)
        starts = block_starts(columns, weights, MAX_BLOCKS)
        totals = np.add.reduceat(weights.ravel(), starts)
        names: list[str] = []

        def functions(means: np.ndarray) -> np.ndarray:
            found = averages_from(self.lattice, self.beta, means, reference)
            names[:] = found
            return np.stack(list(found.values()), axis=-1)

        estimates = jackknife_sums(functions, block_sums(columns, weights, starts), totals)
        pairs = zip(estimates.value.tolist(), estimates.stderr.tolist(), strict=True)  # type: ignore[union-attr]
        return named(self.lattice, dict(zip(names, (Estimate(*pair) for pair in pairs), strict=True)))


def averages_from(
    lattice: Lattice, beta: float | np.ndarray, means: np.ndarray, reference: float
) -> dict[str, np.ndarray]:
    """Observables as functions of the means of `COLUMNS`.

    Args:
        lattice: the spins.
        beta: inverse temperature, of a shape that fits the means'.
        means: shape (..., k).
        reference: of the energies.

    Returns:
        By name, arrays of shape (...); the square of the correlation length in place of the length.
    """
    excess, square, first, absolute, second, fourth, *factor = np.moveaxis(means, -1, 0)
    polarised, sites = lattice.field is not None, lattice.sites
    susceptibility = sites * (second - first**2 if polarised else second)
    found = {
        "energy_per_site": (excess + reference) / sites,
        "heat_capacity_per_site": beta**2 * (square - excess**2) / sites,
        **({"magnetisation": first} if polarised else {}),
        "magnetisation_abs": absolute,
        "magnetisation_squared": second,
        "magnetisation_fourth": fourth,
        "binder": 1 - fourth / (3 * second**2),
        "susceptibility": susceptibility,
    }
    if factor and (lattice.translation_invariant or not polarised):  # else <s> at k would have to be taken away
        with np.errstate(divide="ignore", invalid="ignore"):
            found[SQUARED_LENGTH] = (susceptibility / factor[0] - 1) / (2 * math.sin(math.pi / max(lattice.shape))) ** 2
    return found


def named(lattice: Lattice, estimates: Mapping[str, Estimate]) -> dict[str, Estimate | None]:
    """The same estimates with the correlation length, and that over L, in place of its square."""
    found: dict[str, Estimate | None] = {name: value for name, value in estimates.items() if name != SQUARED_LENGTH}
    squared = estimates.get(SQUARED_LENGTH)
    length = None if squared is None else length_of(lattice, squared)
    over_size = None if length is None else length / max(lattice.shape)
    return found | {"correlation_length": length, "correlation_length_over_size": over_size}


def _at_smallest_momentum(lattice: Lattice, spins: np.ndarray) -> np.ndarray | None:
    """S(k) of every sample at k = 2 pi / L, averaged over the axes of the largest length L; None on graphs."""
    if lattice.dimensions is None:
        return None
    shape, longest = lattice.shape, max(lattice.shape)
    leading = spins.shape[: spins.ndim - len(shape)]
    samples = spins.reshape(-1, *shape)
    wave = np.exp(-2j * np.pi * np.arange(longest) / longest)
    along = [axis for axis, length in enumerate(shape) if length == longest]
    found = np.empty(len(samples))
    length = max(1, CHUNK // lattice.sites)
    for first in range(0, len(samples), length):
        batch = samples[first : first + length]
        power = 0.0
        for axis in along:
            others = tuple(1 + other for other in range(len(shape)) if other != axis)
            power = power + np.abs(batch.sum(axis=others, dtype=float) @ wave) ** 2
        found[first : first + length] = power / len(along) / lattice.sites
    return found.reshape(leading)
