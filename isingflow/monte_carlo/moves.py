"""Moves of many states at once that keep detailed balance at beta: Swendsen-Wang sweeps, each state on its own.

A sweep is reversible, p(s) P(s -> s') = p(s') P(s' -> s), and so are several in a row: a bridge may take them forwards
and backwards.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice
from isingflow.monte_carlo.clusters import swendsen_wang
from isingflow.monte_carlo.couplings import Couplings


class ClusterMove:
    """Swendsen-Wang sweeps of states of one lattice.

    Args:
        lattice: with couplings, and fields, that some gauge turns into a ferromagnet's.
        beta: inverse temperature.

    Raises:
        InvalidInput: they are frustrated.

    Example:
        >>> from isingflow.lattice import square
        >>> spins = np.ones((5, 4, 4), np.int8)
        >>> ClusterMove(square(4), 0.0)(spins, 1, np.random.default_rng(0)).shape
        (5, 4, 4)
    """

    def __init__(self, lattice: Lattice, beta: float) -> None:
        self._model = Couplings.of(lattice, beta)
        if self._model.gauge is None:
            raise InvalidInput(f"clusters: the couplings of {lattice} are frustrated at beta {beta:g}")

    @classmethod
    def possible(cls, lattice: Lattice, beta: float) -> bool:
        """Whether there is such a gauge."""
        return Couplings.of(lattice, beta).gauge is not None

    def __call__(self, spins: np.ndarray, sweeps: int, rng: np.random.Generator) -> np.ndarray:
        """States after so many sweeps, int8, of the shape of the states given, (n, *shape)."""
        model, gauge = self._model, self._model.gauge
        states = spins.reshape(len(spins), -1)
        if model.ghost:
            states = np.concatenate([states, np.ones((len(states), 1), np.int8)], 1)
        moved = states * gauge
        _sweep(moved, sweeps, *model.bonds[:2], model.occupation(model.bonds[2]), rng)
        return model.seen(moved * gauge).reshape(spins.shape)


@njit(cache=True, nogil=True)
def _sweep(states, sweeps, first, second, probabilities, rng):
    after = np.empty((1, states.shape[1]), np.int8)
    for state in range(len(states)):
        swendsen_wang(states[state], after, sweeps, first, second, probabilities, rng)
