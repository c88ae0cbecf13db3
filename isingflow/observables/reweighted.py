"""Observables at any temperature between those of several chains, by multi-histogram reweighting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice
from isingflow.observables.measure import row_spacing
from isingflow.observables.thermal import SQUARED_LENGTH, ThermalSeries, averages_from, named
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.reweighting import LEAST_OVERLAP, RESAMPLES, Reweighting


class Reweighted:
    """Chains of one lattice at several temperatures, taken together.

    Args:
        series: of one lattice, at one temperature each.
        resamples: draws of the bootstrap over blocks in time that gives the errors.
        seed: of the draws.

    Attributes:
        lattice: the spins.
        low, high: the range of inverse temperatures.
        reweighting: the solution of the multi-histogram equations.

    Raises:
        InvalidInput: no series, or of several lattices; temperatures so far apart that their energies do not overlap.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.monte_carlo import simulate
        >>> runs = [simulate(square(4), beta, samples=500, seed=1) for beta in (0.3, 0.35, 0.4)]
        >>> together = Reweighted([ThermalSeries.of(square(4), run.beta, run.spins) for run in runs])
        >>> binder = together.at([0.32, 0.37])[1]["binder"]
        >>> 0.35 < binder.value < 0.6, binder.stderr < 0.02
        (True, True)
    """

    def __init__(self, series: Sequence[ThermalSeries], *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        if not series or any(one.lattice != series[0].lattice for one in series):
            raise InvalidInput("series: expected those of one lattice, at least one")
        self.lattice: Lattice = series[0].lattice
        energies = [one.energy for one in series]
        self._reference = float(np.mean([values.mean() for values in energies]))
        betas = np.array([one.beta for one in series])
        self.low, self.high = float(betas.min()), float(betas.max())
        self.reweighting = Reweighting(
            betas,
            [values - self._reference for values in energies],
            [one.columns(self._reference) for one in series],
            resamples=resamples,
            seed=seed,
        )
        if self.reweighting.overlap < LEAST_OVERLAP:
            raise InvalidInput(
                f"{self.lattice}: energies at {len(betas)} temperatures from beta {self.low:g} to {self.high:g} do not "
                "overlap: temperatures closer to each other, or more samples, are needed to reweight between them"
            )

    def values(self, betas: Sequence[float] | np.ndarray) -> dict[str, np.ndarray]:
        """By name as in `thermal.averages_from`, shape (n,).

        Raises:
            InvalidInput: a temperature outside the range.
        """
        betas = np.asarray(betas, float)
        return averages_from(self.lattice, betas, self.reweighting.means(betas), self._reference)

    def replicates(self, betas: Sequence[float] | np.ndarray) -> dict[str, np.ndarray]:
        """The same of every draw of the bootstrap, shape (resamples, n).

        Raises:
            InvalidInput: a temperature outside the range.
        """
        betas = np.asarray(betas, float)
        return averages_from(self.lattice, betas, self.reweighting.replicates(betas), self._reference)

    def at(self, betas: Sequence[float] | np.ndarray) -> list[dict[str, Estimate | None]]:
        """The observables at each of several inverse temperatures, named as in `ThermalSeries.observables`.

        Raises:
            InvalidInput: a temperature outside the range.
        """
        values, draws = self.values(betas), self.replicates(betas)
        errors = {name: draws[name].std(axis=0, ddof=1) for name in values}
        rows = range(len(np.atleast_1d(betas)))
        return [
            named(self.lattice, {name: Estimate(values[name][row], errors[name][row]) for name in values})
            for row in rows
        ]


def length_over_size(lattice: Lattice, found: dict[str, np.ndarray]) -> np.ndarray:
    """xi / L from what `Reweighted.values` or `replicates` gave; 0 where the square of xi is not positive."""
    squared = np.maximum(found[SQUARED_LENGTH], 0.0)
    return row_spacing(lattice) * np.sqrt(squared) / max(lattice.shape)
