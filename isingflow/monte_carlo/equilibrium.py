"""States of exp(-beta E) to begin paths with, from chains that are compared with each other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from isingflow.lattice import Lattice
from isingflow.monte_carlo.simulate import SpinChains, stream
from isingflow.runtime import stopping
from isingflow.statistics.chains import MOST_R_HAT, diagnostics

CHAINS = 16
"""Independent chains."""
_THERMALISE, _RECORDED = 1000, 1000
"""Sweeps of each chain before the first state, and after it at least."""
_LONGER, _LONGEST, _MOST_UPDATES = 4, 16, 2e8
"""Where chains do not agree, others of so many times the sweeps are run, up to so many times, or so many updates."""
_SHORTEST = 1 / 16
"""Of these sweeps, where there is a limit of time: longer chains follow as long as there is some left."""
_APART = 10
"""Sweeps from one state to the next at least."""


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """States of Markov chains, thinned.

    Attributes:
        states: int8 +-1, shape (chains, samples, sites).
        r_hat: the worse one of the energy and of the squared overlap with a state of low energy; 1 where chains agree.
        sampler: what moved the chains.
        shortened: whether a limit of time left no room for chains of the usual length, or for longer ones where these
            do not agree.
    """

    states: np.ndarray
    r_hat: float
    sampler: str
    shortened: bool = False


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
    seconds: float = math.inf,
    report_progress: Callable[[int, int], None] | None = None,
) -> Equilibrium:
    """Sample a lattice in equilibrium, by the sampler that suits it; where chains do not agree, by longer ones.

    Args:
        lattice, beta: the magnet.
        states: how many, see `chains_of`.
        seed, threads, report_progress: as for `simulate`.
        seconds: for the chains: the longest that have ended by then are taken, whether they agree or not.

    Raises:
        InvalidInput: as for `simulate`.
        OutOfTime: not even the shortest chains have ended by then.

    Example:
        >>> from isingflow.lattice import square
        >>> found = equilibrium(square(4), 0.3, 32, seed=0)
        >>> found.states.shape, found.sampler, found.r_hat < 1.01
        ((16, 2, 16), 'wolff', True)
    """
    chains, samples = chains_of(states)
    sweeps = samples * max(_APART, math.ceil(_RECORDED / samples))
    ends, found = time.perf_counter() + seconds, None
    factor = 1 if math.isinf(seconds) else _SHORTEST
    while True:
        length = samples * max(1, round(factor * sweeps / samples))
        blocks = stream(
            lattice,
            beta,
            samples=length,
            chains=chains,
            thermalise=round(factor * _THERMALISE),
            seed=seed,
            threads=threads,
            report_progress=report_progress,
        )
        left = ends - time.perf_counter()
        longer = stopping.within(left, _thinned, blocks, (chains, length), samples, lattice.sites)
        if longer is None:
            if found is None:
                raise stopping.OutOfTime
            return replace(found, shortened=True)
        found, agree = longer, longer.r_hat <= MOST_R_HAT
        factor *= _LONGER
        work = float(factor) * chains * (sweeps + _THERMALISE) * lattice.sites
        if factor > 1 and (agree or factor > _LONGEST or work > _MOST_UPDATES):
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
