"""Single-spin updates of any Ising model: Metropolis and heat bath, and the energies of its states.

A spin s_i feels the field h_i = sum over neighbours J_ij s_j. Metropolis proposes to flip it and accepts with
probability min(1, exp(-2 beta s_i h_i)); the heat bath draws it anew, p(s_i = +1) = 1 / (1 + exp(-2 beta h_i)).
Metropolis visits sites at random: in order, free spins (all of them, at beta = 0) would flip at every visit and the
chain would never mix. The heat bath has no such memory and visits them in order.

Graphs are given by `starts, neighbours, strengths`: the neighbours of site i and their J_ij are the entries
starts[i] .. starts[i + 1] - 1.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from isingflow.monte_carlo.source import uniform


@njit(cache=True, nogil=True)
def metropolis(spins, samples, every, starts, neighbours, strengths, beta, rng):
    """Run a chain of Metropolis sweeps: N attempted flips at random sites, and one more by a fair coin.

    Without the coin, a chain at beta = 0 would only meet states of alternating parity.

    Args:
        spins: the state, int8 +-1, shape (N,), updated in place.
        samples: int8, shape (n, N): receives the state after every `every` sweeps.
        starts, neighbours, strengths: the graph, as above.
        beta: inverse temperature, K = beta J.
        rng: numpy Generator.
    """
    sites = len(spins)
    for kept in range(len(samples)):
        for _ in range(every):
            for _ in range(sites + (1 if rng.random() < 0.5 else 0)):
                site = int(rng.random() * sites)
                field = _field(spins, site, starts, neighbours, strengths)
                if rng.random() < math.exp(-2 * beta * spins[site] * field):
                    spins[site] = -spins[site]
        samples[kept] = spins


@njit(cache=True, nogil=True)
def heat_bath(spins, samples, every, starts, neighbours, strengths, beta, rng):
    """Run a chain of heat-bath sweeps, which draw every spin once, in order; arguments as for `metropolis`."""
    for kept in range(len(samples)):
        for _ in range(every):
            heat_bath_sweep(spins, starts, neighbours, strengths, beta, rng)
        samples[kept] = spins


@njit(cache=True, nogil=True)
def heat_bath_sweep(spins, starts, neighbours, strengths, beta, rng):
    """Draw every spin of a state once, in order, given the others."""
    heat_bath_energy_sweep(spins, starts, neighbours, strengths, beta, False, rng)


@njit(cache=True)
def heat_bath_energy_sweep(spins, starts, neighbours, strengths, beta, backwards, source):
    """The same, and by how much it changes the energy.

    Args:
        spins, starts, neighbours, strengths, beta: as for `heat_bath_sweep`.
        backwards: from the last site to the first: the time reversal of a sweep in order, with respect to exp(-beta E).
        source: of random numbers, see `source.uniform`.

    Returns:
        The energy after the sweep minus that before, and the source that follows.
    """
    change, sites = 0.0, len(spins)
    for visit in range(sites):
        site = sites - 1 - visit if backwards else visit
        field = _field(spins, site, starts, neighbours, strengths)
        number, source = uniform(source)
        drawn = np.int8(2 * np.int64(number * (1 + math.exp(-2 * beta * field)) < 1) - 1)
        change -= field * (drawn - spins[site])
        spins[site] = drawn
    return change, source


@njit(cache=True)
def _field(spins, site, starts, neighbours, strengths):
    field = 0.0
    for bond in range(starts[site], starts[site + 1]):
        field += strengths[bond] * spins[neighbours[bond]]
    return field


@njit(cache=True, nogil=True)
def energies(spins, first, second, strengths):
    """Energies E(s) = -sum over bonds J_ij s_i s_j of many states.

    Args:
        spins: int8 +-1, shape (n, N).
        first, second, strengths: sites and J of the bonds, shape (n_bonds,).

    Returns:
        E, float64, shape (n,).

    Example:
        >>> energies(np.ones((1, 2), np.int8), np.array([0]), np.array([1]), np.array([1.0]))
        array([-1.])
    """
    result = np.empty(len(spins))
    for state in range(len(spins)):
        energy = 0.0
        for bond in range(len(first)):
            energy -= strengths[bond] * (spins[state, first[bond]] * spins[state, second[bond]])
        result[state] = energy
    return result
