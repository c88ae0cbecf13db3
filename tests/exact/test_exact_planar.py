"""Planar graphs against counting states, against square lattices that other methods solve, and what is refused."""

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import enumeration, planar, thermodynamics, transfer_matrix
from isingflow.lattice import edwards_anderson, from_graph, square, triangular


def random_planar(random, sites, density):
    """Edges of a random planar graph, as dense as it can be at density 1; seldom connected where sparse."""
    graph = networkx.empty_graph(sites)
    pairs = np.array([(i, j) for i in range(sites) for j in range(i)], int).reshape(-1, 2)
    for i, j in random.permutation(pairs)[: round(density * len(pairs))].tolist():
        graph.add_edge(i, j)
        if not networkx.check_planarity(graph)[0]:
            graph.remove_edge(i, j)
    return np.array(list(graph.edges), int).reshape(-1, 2)


def counted(sites, bonds, couplings):
    matrix = np.zeros((sites, sites))
    for (i, j), k in zip(bonds, couplings, strict=True):
        matrix[i, j] += k
        matrix[j, i] += k
    return enumeration.solve(matrix)


COLD = 5.0
"""Scale of couplings beyond which frustration may cancel more than 32 digits, which is then said."""


@given(seed=st.integers(0, 2**32), sites=st.integers(1, 10), density=st.floats(0, 1), scale=st.floats(1e-3, 20))
@settings(max_examples=25, deadline=None)
def test_random_graphs_agree_with_enumeration(seed, sites, density, scale):
    """Of any connectedness, with bonds of both signs, of strength 0, and several between the same two spins."""
    random = np.random.default_rng(seed)
    bonds = random_planar(random, sites, density)
    bonds = np.concatenate([bonds, bonds[:2, ::-1]])
    couplings = scale * random.normal(size=len(bonds)) * (random.random(len(bonds)) < 0.9)
    expected = counted(sites, bonds, couplings)
    try:
        found = planar.solve(sites, bonds, couplings)
    except NoExactSolution as error:
        assert "too cold" in str(error) and scale > COLD
        return
    assert found[0] == pytest.approx(expected[0], rel=1e-13)
    assert found[1:] == pytest.approx(expected[1:], rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    "graph",
    [networkx.star_graph(7), networkx.barbell_graph(4, 3), networkx.cycle_graph(9), networkx.wheel_graph(9)],
    ids=["star", "barbell", "cycle", "wheel"],
)
def test_bridges_and_cut_vertices(graph):
    bonds = np.array(list(graph.edges))
    couplings = np.linspace(-1.0, 1.5, len(bonds))
    expected = counted(len(graph), bonds, couplings)
    assert planar.solve(len(graph), bonds, couplings) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0.4, 3.0])
def test_glasses_whose_lattice_is_forgotten(beta):
    glass = edwards_anderson(7, 20, seed=2, boundary="open")
    expected = transfer_matrix.solve(beta * np.array(glass.jx), beta * np.array(glass.jy))
    assert planar.solve(glass.sites, glass.bonds, beta * glass.strengths) == pytest.approx(expected, rel=1e-11)


def test_thermodynamics_of_graphs_and_open_triangular_lattices():
    ladder = square(2, 30, boundary="open")
    for lattice, beta in ((triangular(2, 13, boundary="open"), -0.7), (from_graph(ladder.graph), 0.5)):
        found = thermodynamics(lattice, beta)
        assert found.method == "planar"
        nearby = [thermodynamics(lattice, beta + shift).log_z for shift in (-1e-3, 1e-3)]
        slope, bend = (nearby[1] - nearby[0]) / 2e-3, (nearby[0] + nearby[1] - 2 * found.log_z) / 1e-6
        assert found.energy_per_site == pytest.approx(-slope / lattice.sites, rel=1e-4)
        assert found.heat_capacity_per_site == pytest.approx(beta**2 * bend / lattice.sites, rel=1e-3)
    assert found.log_z == pytest.approx(thermodynamics(ladder, 0.5).log_z, rel=1e-13)


def test_parts_are_solved_one_by_one():
    """A part that is not planar is counted, one that is too large is not."""
    parts = [networkx.complete_graph(6), networkx.path_graph(30)]
    found = thermodynamics(from_graph(networkx.disjoint_union_all(parts)), 0.3)
    assert found.method == "planar"
    apart = [thermodynamics(from_graph(part), 0.3) for part in parts]
    assert found.log_z == pytest.approx(sum(one.log_z for one in apart), rel=1e-14)
    assert [one.method for one in apart] == ["enumeration", "planar"]


def test_what_is_not_planar_or_too_large_is_refused():
    tangled = networkx.random_regular_graph(3, 40, seed=0)
    with pytest.raises(NoExactSolution, match=r"not planar.*enumeration of at most 24 spins.*Monte Carlo"):
        planar.solve(40, np.array(tangled.edges()), np.full(60, 0.4))
    with pytest.raises(NoExactSolution, match=r"27 connected spins.*at most 24 spins, are planar.*frontier"):
        thermodynamics(from_graph(networkx.complete_graph(27)), 0.4)
    with pytest.raises(NoExactSolution, match="at most 10000"):
        planar.solve(10**4 + 1, np.zeros((0, 2), int), np.zeros(0))
    for bonds in ([[0, 3]], [[1, 1]], [[-1, 0]]):
        with pytest.raises(InvalidInput, match=r"different sites 0 \.\. 2"):
            planar.solve(3, np.array(bonds), np.ones(1))


def test_what_is_too_cold_is_refused(monkeypatch):
    """Where the second solution, with its noise, differs from the first."""
    glass = edwards_anderson(5, seed=0, boundary="open")
    monkeypatch.setattr(planar, "NOISE", 1e24 * planar.NOISE)
    with pytest.raises(NoExactSolution, match="too cold"):
        planar.solve(glass.sites, glass.bonds, 8.0 * glass.strengths)
