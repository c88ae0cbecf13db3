"""States of exp(-beta E) to begin paths with, from chains that are compared with each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from isingflow.lattice import Lattice
from isingflow.monte_carlo.simulate import SpinChains, stream
from isingflow.statistics.chains import MOST_R_HAT, diagnostics

CHAINS = 16
"""Independent chains."""
_THERMALISE, _RECORDED = 1000, 1000
"""Sweeps of each chain before the first state, and after it at least."""
_LONGER, _LONGEST, _MOST_UPDATES = 4, 16, 2e8
"""Where chains do not agree, others of so many times the sweeps are run, up to so many times, or so many updates."""
_APART = 10
"""Sweeps from one state to the next at least."""


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """States of Markov chains, thinned.

    Attributes:
        states: int8 +-1, shape (chains, samples, sites).
        r_hat: the worse one of the energy and of the squared overlap with a state of low energy; 1 where chains agree.
        sampler: what moved the chains.
    """

    states: np.ndarray
    r_hat: float
    sampler: str


def chains_of(states: int) -> tuple[int, int]:
    """Number of chains and of states of each: as many as asked for, rounded up to a multiple.

    Example:
        >>> chains_of(64), chains_of(20), chains_of(3)
        ((16, 4), (16, 2), (3, 1))
    """
    chains = min(CHAINS, states)
    return chains, -(-states // chains)


def equilibrium(
    lattice: Lattice,
    beta: float,
    states: int,
    *,
    seed: int,
    threads: int | None = None,
    report_progress: Callable[[int, int], None] | None = None,
) -> Equilibrium:
    """Sample a lattice in equilibrium, by the sampler that suits it; where chains do not agree, by longer ones.

    Args:
        lattice, beta: the magnet.
        states: how many, see `chains_of`.
        seed, threads, report_progress: as for `simulate`.

    Raises:
        InvalidInput: as for `simulate`.

    Example:
        >>> from isingflow.lattice import square
        >>> found = equilibrium(square(4), 0.3, 32, seed=0)
        >>> found.states.shape, found.sampler, found.r_hat < 1.01
        ((16, 2, 16), 'wolff', True)
    """
    chains, samples = chains_of(states)
    sweeps = samples * max(_APART, math.ceil(_RECORDED / samples))
    factor = 1
    while True:
        blocks = stream(
            lattice,
            beta,
            samples=factor * sweeps,
            chains=chains,
            thermalise=factor * _THERMALISE,
            seed=seed,
            threads=threads,
            report_progress=report_progress,
        )
        found = _thinned(blocks, (chains, factor * sweeps), samples, lattice.sites)
        factor *= _LONGER
        work = float(factor) * chains * (sweeps + _THERMALISE) * lattice.sites
        if found.r_hat <= MOST_R_HAT or factor > _LONGEST or work > _MOST_UPDATES:
            return found


def _thinned(blocks: Iterator[SpinChains], shape: tuple[int, int], samples: int, sites: int) -> Equilibrium:
    """What to keep of chains and sweeps of this shape: so many states of each chain, as far apart as they can be."""
    (chains, total), every = shape, shape[1] // samples
    kept = np.empty((chains, samples, sites), np.int8)
    energy, overlap = np.empty((2, chains, total))
    done, reference = 0, None
    for block in blocks:
        spins = block.spins.reshape(chains, -1, sites)
        now = slice(done, done + spins.shape[1])
        if reference is None:
            lowest = np.unravel_index(np.argmin(block.energy), block.energy.shape)
            reference = spins[lowest].astype(np.float32) / sites
        energy[:, now] = block.energy
        for chain in range(chains):
            overlap[chain, now] = (spins[chain].astype(np.float32) @ reference) ** 2
        first = -(done + 1) % every
        kept[:, (done + first) // every : now.stop // every] = spins[:, first::every]
        done = now.stop
    r_hat = max(diagnostics(energy).r_hat, diagnostics(overlap).r_hat)
    return Equilibrium(kept, r_hat, block.sampler)
