"""Any graph that can be swept by a narrow frontier: strips, slabs, cubes of length 3, trees, sparse random graphs.

Spins join one after the other and are summed over as soon as all their neighbours have joined. What is kept are the
Boltzmann weights of the states of those in between, the frontier, with their first two derivatives along a common
factor of all couplings and fields, as in `transfer_matrix`: time and memory are 2^(width of the frontier), whatever the
number of spins. The order in which spins join is found greedily.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact.transfer_matrix import LONGEST, SECONDS, normalise, tilt, weigh
from isingflow.lattice.checks import STRONGEST
from isingflow.runtime.checks import array, count
from isingflow.runtime.resources import duration, require_memory

WIDTH_LIMIT = 26
"""Widest frontier: 3 x 2^26 numbers and two copies, 5 GB."""
GREEDY_SITES = 4096
"""Sites that greedy orders visit in all: smaller graphs are tried from more starts, those with fewest bonds first."""


@dataclass(frozen=True)
class Sweep:
    """An order in which spins join.

    Attributes:
        order: sites.
        width: most spins of the frontier.
        cost: operations.
    """

    order: tuple[int, ...]
    width: int
    cost: float

    def affordable(self, longest: float = LONGEST) -> bool:
        """Whether memory suffices, and so many seconds; an hour, if not given."""
        return self.width <= WIDTH_LIMIT and self.cost * SECONDS <= longest


def solve(
    sites: int, bonds: np.ndarray, couplings: np.ndarray, fields: np.ndarray | None = None, sweep: Sweep | None = None
) -> tuple[float, float, float, float]:
    """ln Z of spins on a graph.

    Args:
        sites: number of spins N.
        bonds: pairs of sites, shape (n_bonds, 2); those of the same pair add up.
        couplings: K of every bond.
        fields: h, shape (N,), or None.
        sweep: the order; found by `sweep_of` if not given.

    Returns:
        ln Z, the mean and the variance of x(s) = sum over bonds K s s + sum_i h_i s_i, and the mean of sum_i s_i.

    Raises:
        InvalidInput: bonds, couplings or fields that are none.
        NoExactSolution: the frontier is too wide, it would take more than an hour, or couplings are so strong that
            exp(-2 |K|) underflows.

    Example:
        >>> ring = np.array([[i, (i + 1) % 50] for i in range(50)])
        >>> log_z, mean, variance, total = solve(50, ring, np.full(50, 0.5))
        >>> bool(np.isclose(log_z, np.log((2 * np.cosh(0.5)) ** 50 + (2 * np.sinh(0.5)) ** 50)))
        True
    """
    sites = count("sites", sites)
    couplings = array("couplings", couplings, (None,), most=STRONGEST, empty=True)
    pairs = array("bonds", bonds, (len(couplings), 2), integers=True, empty=True).reshape(-1, 2)
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < sites and np.all(pairs[:, 0] != pairs[:, 1])):
        raise InvalidInput(f"bonds: expected pairs of different sites 0 .. {sites - 1}")
    fields = None if fields is None else array("fields", fields, (sites,), most=STRONGEST)
    sweep = sweep_of(sites, pairs) if sweep is None else sweep
    if not sweep.affordable():
        raise NoExactSolution(
            f"the frontier of these {sites} spins is {sweep.width} wide and would take about "
            f"{duration(sweep.cost * SECONDS)}: up to {WIDTH_LIMIT} and {duration(LONGEST)} are possible"
        )
    require_memory(f"a frontier of {sweep.width} spins", 72.0 * 2**sweep.width, "a narrower graph may fit")
    neighbours = _neighbours(sites, pairs, couplings)
    vector, log_jet = np.zeros((3 if fields is None else 4, 1)), np.zeros(4)
    vector[0] = 1.0
    frontier: list[int] = []
    missing = [len(those) for those in neighbours]
    for site in sweep.order:
        vector = np.concatenate([vector, vector], axis=1)
        frontier.append(site)
        here = len(frontier) - 1
        if fields is not None:
            tilt(vector, here, fields[site])
        for other, coupling in neighbours[site].items():
            if other in frontier:
                missing[site] -= 1
                missing[other] -= 1
                weigh(vector, here, frontier.index(other), coupling)
        for done in [spin for spin in frontier if missing[spin] == 0]:
            vector = _summed(vector, frontier.index(done))
            frontier.remove(done)
        normalise(vector, log_jet)
    if not math.isfinite(log_jet[0]):
        raise NoExactSolution("the couplings are too strong for a sweep: exp(-2 |K|) underflows")
    ground = sum(abs(k) for those in neighbours for k in those.values()) / 2
    ground += 0.0 if fields is None else float(np.abs(fields).sum())
    log_z, mean, variance, total = log_jet.tolist()
    return log_z + ground, mean + ground, variance, total


def sweep_of(sites: int, bonds: np.ndarray) -> Sweep:
    """The cheapest of greedy orders and of that of the sites, which is what is left if none is affordable.

    Args:
        sites: number of spins.
        bonds: pairs of sites.

    Example:
        >>> sweep_of(5, np.array([[0, 1], [1, 2], [2, 3], [3, 4]])).width
        2
    """
    neighbours = [set(those) for those in _neighbours(sites, bonds, np.ones(len(bonds)))]
    tried = [_measured(neighbours, range(sites))]
    by_degree = sorted(range(sites), key=lambda site: len(neighbours[site]))
    for start in by_degree[: max(1, GREEDY_SITES // sites)]:
        limit = min(LONGEST / SECONDS, *(sweep.cost for sweep in tried))
        found = _greedy(neighbours, start, limit)
        if found is not None:
            tried.append(_measured(neighbours, found))
    return min(tried, key=lambda sweep: sweep.cost)


def _greedy(neighbours: list[set[int]], start: int, limit: float) -> list[int] | None:
    """An order that keeps the frontier narrow at every step; None once it is dearer than the limit."""
    missing = [set(those) for those in neighbours]
    order: list[int] = []
    frontier: set[int] = set()
    joined: set[int] = set()
    site: int | None = start
    cost = 0.0
    while site is not None:
        order.append(site)
        joined.add(site)
        frontier.add(site)
        cost += 2.0 ** len(frontier) * (1 + len(neighbours[site] & frontier))
        if cost > limit:
            return None
        for other in neighbours[site]:
            missing[other].discard(site)
        frontier = {spin for spin in frontier if missing[spin]}
        candidates = {other for spin in frontier for other in missing[spin]}
        if not candidates:
            candidates = set(range(len(neighbours))) - joined
        age = {spin: place for place, spin in enumerate(order) if spin in frontier}
        site = min(candidates, key=lambda spin: _reluctance(spin, neighbours, missing, age), default=None)
    return order


def _reluctance(
    site: int, neighbours: list[set[int]], missing: list[set[int]], age: dict[int, int]
) -> tuple[int, int, int]:
    """How much wider the frontier is once this spin has joined; then, how few and how young its neighbours are."""
    met = [other for other in neighbours[site] if other in age]
    closed = sum(missing[other] == {site} for other in met)
    return (1 if missing[site] else 0) - closed, -len(met), min((age[other] for other in met), default=len(neighbours))


def _measured(neighbours: list[set[int]], order: Sequence[int]) -> Sweep:
    """Width and cost of an order."""
    missing = [len(those) for those in neighbours]
    frontier: set[int] = set()
    width, cost = 0, 0.0
    for site in order:
        frontier.add(site)
        width = max(width, len(frontier))
        inside = neighbours[site] & frontier
        cost += 2.0 ** len(frontier) * (1 + len(inside))
        for other in inside:
            missing[other] -= 1
            missing[site] -= 1
        frontier = {spin for spin in frontier if missing[spin]}
    return Sweep(tuple(order), width, cost)


def _neighbours(sites: int, bonds: np.ndarray, couplings: np.ndarray) -> list[dict[int, float]]:
    """The neighbours of every site and the sums of the couplings to them."""
    found: list[dict[int, float]] = [{} for _ in range(sites)]
    for (a, b), coupling in zip(bonds.tolist(), couplings.tolist(), strict=True):
        found[a][b] = found[a].get(b, 0.0) + coupling
        found[b][a] = found[b].get(a, 0.0) + coupling
    return found


def _summed(vector: np.ndarray, bit: int) -> np.ndarray:
    """The vector without a spin."""
    rows = len(vector)
    return vector.reshape(rows, -1, 2, 1 << bit).sum(2).reshape(rows, -1)
