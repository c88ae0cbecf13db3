"""Parallel tempering: replicas at a ladder of temperatures that trade places, for frustrated and glassy couplings.

Every replica takes a heat-bath sweep at its own beta_r; then neighbours on the ladder swap their states with
probability min(1, exp[(beta_r - beta_{r+1}) (E_r - E_{r+1})]), which leaves the product of all Boltzmann distributions
invariant (Hukushima and Nemoto 1996). A state that is stuck in one valley at the target temperature is carried up to
beta = 0, where every sweep forgets it, and another comes down.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from isingflow.errors import InvalidInput
from isingflow.monte_carlo.local import energies, heat_bath_sweep
from isingflow.runtime.checks import count, instance

_POPULATION = 32
_SWEEPS = 10
MOST_REPLICAS = 10**4
LOOK_AHEAD = 1000
"""Temperatures from which on it is foreseen how many there will be."""


def ladder(graph: tuple, bonds: tuple, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Inverse temperatures from 0 to beta, close enough for about half of the swaps to be accepted.

    For Gaussian energies of standard deviation sigma a swap over a gap d is accepted with probability
    erfc(d sigma / 2), so every step is 1 / sigma. A population of states, annealed along the ladder as it is built,
    measures sigma.

    Args:
        graph: (starts, neighbours, strengths), the neighbours of every site.
        bonds: (first, second, strengths), every bond once.
        beta: the target, of either sign.
        rng: source of the population's random numbers.

    Returns:
        Inverse temperatures, shape (R,), the first 0 and the last beta; [0] if beta is 0.

    Raises:
        InvalidInput: beta is so large that more than 10,000 temperatures would be needed.
    """
    spins = random_spins(rng, (_POPULATION, len(graph[0]) - 1))
    starts, neighbours, strengths = graph
    betas = [0.0]
    while betas[-1] != beta:
        spread = np.std(energies(spins, *bonds))
        needed = len(betas) + (abs(beta) - abs(betas[-1])) * spread
        if len(betas) > LOOK_AHEAD and needed > MOST_REPLICAS:
            raise InvalidInput(
                f"beta {beta:g}: tempering would need about {needed:.2g} temperatures, more than {MOST_REPLICAS}: "
                "a smaller beta, or heat-bath, is possible"
            )
        reach = abs(betas[-1]) + (1 / spread if spread > 0 else math.inf)
        betas.append(math.copysign(min(reach, abs(beta)), beta))
        for state in spins:
            for _ in range(_SWEEPS):
                heat_bath_sweep(state, starts, neighbours, strengths, betas[-1], rng)
    return np.array(betas)


def random_spins(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Independent fair spins, int8 +-1.

    Raises:
        InvalidInput, WrongType: no generator, or no shape.
    """
    instance("rng", rng, np.random.Generator, "a numpy Generator")
    for length in instance("shape", shape, tuple, "a tuple of lengths"):
        count("a length of the shape", length)
    return 2 * rng.integers(2, size=shape, dtype=np.int8) - 1


@njit(cache=True, nogil=True)
def temper(spins, samples, every, graph, bonds, betas, rng):
    """Run replicas with swaps and keep the states of the last one.

    Args:
        spins: the states, int8 +-1, shape (R, N), updated in place.
        samples: int8, shape (n, N): receives the last replica's state after every `every` sweeps of all.
        graph: (starts, neighbours, strengths), the neighbours of every site.
        bonds: (first, second, strengths), every bond once.
        betas: inverse temperatures, shape (R,).
        rng: numpy Generator.
    """
    starts, neighbours, strengths = graph
    for kept in range(len(samples)):
        for _ in range(every):
            for replica in range(len(betas)):
                heat_bath_sweep(spins[replica], starts, neighbours, strengths, betas[replica], rng)
            energy = energies(spins, bonds[0], bonds[1], bonds[2])
            for replica in range(len(betas) - 1):
                log_ratio = (betas[replica] - betas[replica + 1]) * (energy[replica] - energy[replica + 1])
                if rng.random() < math.exp(log_ratio):
                    for site in range(spins.shape[1]):
                        spins[replica, site], spins[replica + 1, site] = spins[replica + 1, site], spins[replica, site]
                    energy[replica], energy[replica + 1] = energy[replica + 1], energy[replica]
        samples[kept] = spins[-1]
