"""Ground states: matching against counting states and cold thermodynamics; tempering against both."""

from itertools import product

import networkx
import numpy as np
import pytest

from isingflow.errors import NoExactSolution
from isingflow.exact import enumeration, ground_state, thermodynamics
from isingflow.exact.ground_state import GroundState
from isingflow.lattice import edwards_anderson, from_graph, random_field, square, triangular
from isingflow.monte_carlo import lowest_energy


def gaussian(shape, seed):
    random = np.random.default_rng(seed)
    return square(*shape, jx=random.normal(size=shape), jy=random.normal(size=shape), boundary="open")


def wheel(seed):
    """A planar graph with parallel edges, bridges and a part of its own."""
    random = np.random.default_rng(seed)
    graph = networkx.MultiGraph(networkx.disjoint_union(networkx.wheel_graph(8), networkx.cycle_graph(5)))
    graph.add_edges_from([(0, 1), (3, 13), (13, 14)])
    networkx.set_edge_attributes(graph, {edge: random.normal() for edge in graph.edges(keys=True)}, "coupling")
    return from_graph(graph)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "lattice",
    [
        lambda seed: edwards_anderson(3, 5, seed=seed, boundary="open"),
        lambda seed: gaussian((4, 4), seed),
        lambda seed: triangular(3, 2 + seed, boundary="open"),
        wheel,
    ],
    ids=["glass", "gaussian", "triangular", "wheel"],
)
def test_matching_finds_what_counting_finds(lattice, seed, monkeypatch):
    lattice = lattice(seed)
    counted = ground_state(lattice)
    assert counted.method == "enumeration" and counted.exact
    largest = max(-counted.energy, 0.0)
    cold = 40.0 / max(abs(lattice.strengths).min(), 0.05)
    assert enumeration.solve(lattice.couplings(cold))[1] / cold == pytest.approx(largest, rel=1e-6)
    monkeypatch.setattr(enumeration, "SPIN_LIMIT", 0)
    matched = ground_state(lattice)
    assert matched.method == "matching" and matched.spins.shape == lattice.shape
    assert matched.energy == pytest.approx(counted.energy, rel=1e-12)


def test_larger_glasses_are_as_cold_as_their_thermodynamics():
    """Excitations cost 4 at least: at beta = 4 there are hardly any."""
    glass = edwards_anderson(12, seed=5, boundary="open")
    found = ground_state(glass)
    assert found.energy == round(glass.sites * thermodynamics(glass, 4.0).energy_per_site)
    assert found.energy_per_site == found.energy / 144


def test_states_have_the_energies_that_are_told():
    glass = edwards_anderson(5, seed=2, boundary="open")
    found = ground_state(glass)
    first, second = found.spins.ravel()[glass.bonds].T
    assert found.energy == -(glass.strengths * first * second).sum()
    assert found.energy == GroundState.of(glass, found.spins.ravel(), "matching").energy


def test_ferromagnets_and_what_is_not_planar():
    assert ground_state(square(6, 7, boundary="open")).energy == -(5 * 7 + 6 * 6)
    torus = edwards_anderson(6, seed=1)
    with pytest.raises(NoExactSolution, match="not planar; possible are enumeration"):
        ground_state(torus)
    found = lowest_energy(torus, samples=40)
    assert (found.method, found.exact) == ("tempering", False)
    assert found.energy == round(36 * thermodynamics(torus, 4.0).energy_per_site)


def test_fields_count_too():
    """By counting, and by tempering where there is no exact method."""
    glass = random_field(edwards_anderson(3, 4, seed=1), 0.7, seed=2)
    states = np.array(list(product([-1, 1], repeat=12)))
    first, second = states[:, glass.bonds].transpose(2, 0, 1)
    energies = -(glass.strengths * first * second).sum(1) - states @ glass.field_by_site.ravel()
    assert ground_state(glass).energy == pytest.approx(energies.min())
    assert lowest_energy(glass, samples=50).energy == pytest.approx(energies.min())
    with pytest.raises(NoExactSolution, match="in a field"):
        ground_state(square(6, boundary="open").with_field(0.1))
    assert lowest_energy(square(6, boundary="open").with_field(-0.1), samples=5).energy == pytest.approx(-63.6)
