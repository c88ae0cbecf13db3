"""Paths of spins from one temperature to another: annealed importance sampling (Jarzynski 1997, Neal 2001).

A path begins with a state of exp(-beta_0 E) and takes a sweep at each temperature of a schedule beta_0, ..., beta_n:

    w = sum over k of (beta_k - beta_{k+1}) E(s_k),      s_{k+1} ~ a sweep of s_k at beta_{k+1},

so that the mean of exp(w) is Z(beta_n) / Z(beta_0), at any n, with sweeps that leave exp(-beta_{k+1} E) invariant.
A path in reverse begins with a state of exp(-beta_n E) and takes the same sweeps, each reversed, in the opposite order.
With the same w of either, p_forward(w) = p_reverse(w) Z(beta_n) / Z(beta_0) exp(-w) (Crooks 1999).

The state at a step is that before its sweep in forward paths, and after it in reverse ones: one loop does both.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from isingflow.monte_carlo import clusters, local
from isingflow.monte_carlo.couplings import Couplings
from isingflow.monte_carlo.source import words_of


@njit(cache=True, nogil=True)
def anneal_by_clusters(spins, betas, energies, first, second, strengths, sizes, kinds, words):
    """Sweep by Swendsen and Wang's clusters, one sweep at each inverse temperature.

    Args:
        spins: the state in the gauge, int8 +-1, shape (N,), updated in place.
        betas: inverse temperatures, shape (n,).
        energies: receives that of the state before each sweep, shape (n,).
        first, second: sites of the bonds, shape (n_bonds,).
        strengths: J of the bonds in the gauge.
        sizes, kinds: the different |J|, and which of them each bond has.
        words: of a source of random numbers, uint64, shape (4,), updated in place.
    """
    source = words[0], words[1], words[2], words[3]
    parent = np.empty(len(spins), np.int32)
    occupied = np.empty(len(first), np.int32)
    by_kind = np.empty(len(sizes))
    probabilities = np.empty(len(first))
    for step in range(len(betas)):
        for kind in range(len(sizes)):
            by_kind[kind] = -math.expm1(-2 * abs(betas[step]) * sizes[kind])
        for bond in range(len(first)):
            probabilities[bond] = by_kind[kinds[bond]]
        energies[step], source = clusters.swendsen_wang_sweep(
            spins, first, second, strengths, probabilities, parent, occupied, source
        )
    words[0], words[1], words[2], words[3] = source


@njit(cache=True, nogil=True)
def anneal_by_heat_bath(spins, betas, energies, starts, neighbours, strengths, backwards, words):
    """Sweep by the heat bath; arguments as for `anneal_by_clusters` and `local.heat_bath_energy_sweep`.

    energies[0] holds that of the state at the start; the energy is followed from there.
    """
    source = words[0], words[1], words[2], words[3]
    energy = energies[0]
    for step in range(len(betas)):
        energies[step] = energy
        change, source = local.heat_bath_energy_sweep(
            spins, starts, neighbours, strengths, betas[step], backwards, source
        )
        energy += change
    words[0], words[1], words[2], words[3] = source


class Moves:
    """What moves the spins of a model along a path.

    Attributes:
        name: "swendsen-wang" or "heat-bath".
        model: the couplings.
    """

    name: str

    def __init__(self, model: Couplings) -> None:
        self.model = model

    def sweep(self, spins: np.ndarray, betas: np.ndarray, words: np.ndarray, *, reverse: bool = False) -> np.ndarray:
        """Sweep a state once at each inverse temperature.

        Args:
            spins: int8 +-1, shape (N,), the ghost included; updated in place.
            betas: shape (n,).
            words: of the source of random numbers, updated in place.
            reverse: whether each sweep is reversed in time.

        Returns:
            The energy of the state before each sweep, shape (n,).
        """
        raise NotImplementedError

    def moved(self, states: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
        """States of the sites after a sweep each, int8, shape (n, sites).

        Args:
            states: of that shape and type.
            beta: inverse temperature.
            rng: an SFC64 Generator at the start of its stream.
        """
        spins, betas, words = self.model.with_ghost(states), np.array([beta]), words_of(rng)
        for state in spins:
            self.sweep(state, betas, words)
        return self.model.seen(spins)


class Clusters(Moves):
    """Swendsen-Wang sweeps, which are their own reversal; for couplings with a gauge."""

    name = "swendsen-wang"

    def __init__(self, model: Couplings) -> None:
        super().__init__(model)
        first, second, strengths = model.bonds
        assert model.gauge is not None
        self._gauge = model.gauge
        sizes, kinds = np.unique(np.abs(strengths), return_inverse=True)
        gauged = strengths * self._gauge[first] * self._gauge[second]
        self._arguments = (first, second, gauged, sizes, kinds.astype(np.int32))

    def sweep(self, spins: np.ndarray, betas: np.ndarray, words: np.ndarray, *, reverse: bool = False) -> np.ndarray:
        energies = np.empty(len(betas))
        spins *= self._gauge
        anneal_by_clusters(spins, betas, energies, *self._arguments, words)
        spins *= self._gauge
        return energies


class HeatBath(Moves):
    """Heat-bath sweeps in the order of the sites, reversed from the last to the first."""

    name = "heat-bath"

    def sweep(self, spins: np.ndarray, betas: np.ndarray, words: np.ndarray, *, reverse: bool = False) -> np.ndarray:
        energies = np.empty(len(betas))
        energies[:1] = local.energies(spins[None], *self.model.bonds)
        anneal_by_heat_bath(spins, betas, energies, *self.model.graph, reverse, words)
        return energies


MOVES: dict[str, type[Moves]] = {kind.name: kind for kind in (Clusters, HeatBath)}
