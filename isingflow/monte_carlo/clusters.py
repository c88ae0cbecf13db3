"""Cluster updates of unfrustrated Ising models: Swendsen-Wang and Wolff, on any graph.

A bond between equal spins is occupied with probability p_ij = 1 - exp(-2 K_ij), K_ij >= 0; occupied bonds join spins
into clusters. Swendsen and Wang (1987) give every cluster a new sign by a fair coin; Wolff (1989) flips the one cluster
that holds a random site. Both leave exp(sum over bonds K_ij s_i s_j) invariant. Couplings of any signs will do if some
gauge s_i -> eps_i s_i makes them all ferromagnetic: the kernels work on eps_i s_i with |K_ij| and never see the signs.

Whether a bond is occupied is a coin toss that no processor predicts, so both kernels decide it without a branch.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from isingflow.monte_carlo.source import uniform


@njit(cache=True)
def ferromagnetic_gauge(starts, neighbours, couplings):
    """Signs eps with eps_i K_ij eps_j >= 0 on every bond, by breadth-first search.

    Args:
        starts, neighbours, couplings: the neighbours of site i and their K are entries starts[i] .. starts[i + 1] - 1;
            couplings of 0 do not bind.

    Returns:
        eps, int8, shape (N,), +1 throughout for a ferromagnet; None if the couplings are frustrated.

    Example:
        >>> pair = np.array([0, 1, 2]), np.array([1, 0])
        >>> ferromagnetic_gauge(*pair, np.array([-1.0, -1.0]))
        array([ 1, -1], dtype=int8)
    """
    sites = len(starts) - 1
    gauge = np.zeros(sites, np.int8)
    queue = np.empty(sites, np.int32)
    for origin in range(sites):
        if gauge[origin] != 0:
            continue
        gauge[origin] = 1
        queue[0] = origin
        head, tail = 0, 1
        while head < tail:
            site = queue[head]
            head += 1
            for bond in range(starts[site], starts[site + 1]):
                if couplings[bond] == 0:
                    continue
                other = neighbours[bond]
                wanted = gauge[site] if couplings[bond] > 0 else -gauge[site]
                if gauge[other] == 0:
                    gauge[other] = wanted
                    queue[tail] = other
                    tail += 1
                elif gauge[other] != wanted:
                    return None
    return gauge


@njit(cache=True, nogil=True)
def swendsen_wang(spins, samples, every, first, second, probabilities, rng):
    """Run a chain of Swendsen-Wang sweeps.

    Clusters are trees in which every site points to a smaller one, or to itself at the root (Rem's union by splicing,
    in Dijkstra 1976). In ascending order a site's parent therefore has its new sign already: no roots are searched.

    Args:
        spins: the state, int8 +-1, shape (N,), updated in place.
        samples: int8, shape (n, N): receives the state after every `every` sweeps.
        first, second: sites of the bonds, shape (n_bonds,); fastest in ascending order.
        probabilities: p_ij = 1 - exp(-2 |K_ij|), shape (n_bonds,).
        rng: numpy Generator.
    """
    parent = np.empty(len(spins), np.int32)
    occupied = np.empty(len(first), np.int32)
    for kept in range(len(samples)):
        for _ in range(every):
            swendsen_wang_sweep(spins, first, second, None, probabilities, parent, occupied, rng)
        samples[kept] = spins


@njit(cache=True)
def swendsen_wang_sweep(spins, first, second, strengths, probabilities, parent, occupied, source):
    """One sweep, and the energy of the state before it.

    Args:
        spins: the state, int8 +-1, shape (N,), updated in place.
        first, second, probabilities: as for `swendsen_wang`.
        strengths: J of the bonds, shape (n_bonds,); None where nobody asks for the energy.
        parent, occupied: room for int32, shapes (N,) and (n_bonds,).
        source: of random numbers, see `source.uniform`.

    Returns:
        E = -sum over bonds J_ij s_i s_j of the state before (0 without strengths), and the source that follows.
    """
    count = np.int64(0)
    energy = 0.0
    for bond in range(len(first)):
        occupied[count] = bond
        one, other = spins[first[bond]], spins[second[bond]]
        number, source = uniform(source)
        count += np.int64((one == other) & (number < probabilities[bond]))
        if strengths is not None:
            energy -= strengths[bond] * (one * other)
    for site in range(len(spins)):
        parent[site] = site
    for entry in range(count):
        bond = occupied[entry]
        _join(parent, parent[first[bond]], parent[second[bond]])
    for site in range(len(spins)):
        if parent[site] != site:
            spins[site] = spins[parent[site]]
        else:
            number, source = uniform(source)
            if number < 0.5:
                spins[site] = -spins[site]
    return energy, source


@njit(cache=True)
def _join(parent, low, high):
    while low != high:
        if low > high:
            low, high = high, low
        above = parent[high]
        parent[high] = low
        if above == high:
            break
        high = above


@njit(cache=True, nogil=True)
def wolff(spins, samples, every, starts, neighbours, probabilities, clusters, rng):
    """Run a chain of Wolff cluster flips.

    A sweep flips `clusters` clusters, and one more by a fair coin. Without the coin a chain at K = 0, where every
    cluster is one site, would only meet states of alternating parity.

    Args:
        spins: the state, int8 +-1, shape (N,), updated in place.
        samples: int8, shape (n, N): receives the state after every `every` sweeps.
        starts, neighbours: the neighbours of site i are entries starts[i] .. starts[i + 1] - 1.
        probabilities: p_ij = 1 - exp(-2 |K_ij|) to these neighbours.
        clusters: a number that does not depend on the state.
        rng: numpy Generator.

    Returns:
        Number of spins flipped and number of clusters.
    """
    queue = np.empty(len(spins) + 1, np.int32)
    flipped = grown = 0
    for kept in range(len(samples)):
        for _ in range(every):
            count = clusters + (1 if rng.random() < 0.5 else 0)
            for _ in range(count):
                flipped += _flip_cluster(spins, starts, neighbours, probabilities, queue, rng)
            grown += count
        samples[kept] = spins
    return flipped, grown


@njit(cache=True)
def _flip_cluster(spins, starts, neighbours, probabilities, queue, rng):
    seed = int(rng.random() * len(spins))
    sign = spins[seed]
    spins[seed] = -sign
    queue[0] = seed
    head, tail = 0, np.int64(1)
    while head < tail:
        site = queue[head]
        head += 1
        for bond in range(starts[site], starts[site + 1]):
            other = neighbours[bond]
            joins = np.int64((spins[other] == sign) & (rng.random() < probabilities[bond]))
            queue[tail] = other
            tail += joins
            spins[other] *= np.int8(1 - 2 * joins)
    return tail
