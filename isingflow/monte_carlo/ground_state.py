"""Ground states where no exact method reaches: the least energy that tempering has seen, every state of it quenched."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array

from isingflow.exact.ground_state import GroundState, field_of
from isingflow.lattice import Lattice
from isingflow.monte_carlo.simulate import simulate
from isingflow.runtime.checks import count, instance

COLD = 3.0
"""Inverse temperature of the coldest replica, in units of the typical local field."""


def lowest_energy(lattice: Lattice, *, samples: int = 200, chains: int = 8, seed: int = 0) -> GroundState:
    """The best state that parallel tempering finds: an upper bound of the ground-state energy, usually reached.

    Args:
        lattice: of any kind.
        samples: states of each chain, every one quenched to a local minimum.
        chains: independent chains. How many of them end at the same energy tells how far to trust it.
        seed: an integer from 0 to 2**62.

    Raises:
        InvalidInput: a number out of range; WrongType: no lattice.

    Example:
        >>> from isingflow.lattice import edwards_anderson
        >>> found = lowest_energy(edwards_anderson(4, seed=1), samples=50)
        >>> found.energy, found.exact
        (-22.0, False)
    """
    instance("lattice", lattice, Lattice, "a Lattice, for example square(16)")
    samples, chains = count("samples", samples), count("chains", chains)
    typical = float(np.median(np.abs(lattice.strengths))) or float(np.abs(lattice.strengths).max()) or 1.0
    found = simulate(lattice, COLD / typical, samples=samples, chains=chains, sampler="tempering", seed=seed)
    states = found.spins.reshape(-1, lattice.sites)
    lowest = np.unique(states[np.argsort(found.energy.ravel(), kind="stable")[: max(16, len(states) // 8)]], axis=0)
    couplings = coo_array((lattice.strengths, tuple(lattice.bonds.T)), shape=(lattice.sites, lattice.sites)).tocsr()
    couplings, fields = couplings + couplings.T, field_of(lattice)
    quenched = (GroundState.of(lattice, _quenched(s, couplings, fields), "tempering", exact=False) for s in lowest)
    return min(quenched, key=lambda state: state.energy)


def _quenched(state: np.ndarray, couplings: csr_array, fields: np.ndarray) -> np.ndarray:
    """The state after flips that lower its energy, one by one, until there are none left."""
    spins = state.astype(float)
    while True:
        local = couplings @ spins + fields
        gain = spins * local
        worst = int(np.argmin(gain))
        if gain[worst] >= -1e-12 * np.abs(local).max():
            return spins.astype(np.int8)
        spins[worst] = -spins[worst]
