"""The sweep of a narrow frontier against enumeration, the transfer matrix, closed forms, and its own bounds."""

import math

import networkx
import numpy as np
import pytest

from isingflow.errors import InvalidInput, IsingflowError, NoExactSolution
from isingflow.exact import enumeration, frontier, transfer_matrix
from isingflow.lattice import chain, cubic, edwards_anderson, hypercubic


def solved(lattice, beta):
    return frontier.solve(lattice.sites, lattice.bonds, beta * lattice.strengths)


def test_random_graphs_in_random_fields_are_those_of_enumeration():
    """Isolated spins, several parts and couplings of any sign among them."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        sites = int(rng.integers(2, 12))
        graph = networkx.gnp_random_graph(sites, rng.uniform(0.05, 0.9), seed=int(rng.integers(10**6)))
        bonds = np.array(graph.edges(), dtype=int).reshape(-1, 2)
        couplings = 2 * rng.normal(size=len(bonds))
        fields = rng.normal(size=sites) * rng.integers(2)
        matrix = np.zeros((sites, sites))
        matrix[bonds[:, 0], bonds[:, 1]] = matrix[bonds[:, 1], bonds[:, 0]] = couplings
        found = frontier.solve(sites, bonds, couplings, fields)
        np.testing.assert_allclose(found, enumeration.polarised(matrix, fields), rtol=1e-10, atol=1e-9)


def test_a_pair_that_is_bonded_twice_has_both_strengths():
    twice = frontier.solve(2, np.array([[0, 1], [1, 0]]), np.array([0.3, -0.1]))
    assert twice[0] == pytest.approx(math.log(4 * math.cosh(0.2)), rel=1e-14)


@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_long_chains_have_their_closed_form(boundary):
    beta, length = 0.7, 300
    lattice = chain(length, boundary=boundary)
    plus, minus = math.log(2 * math.cosh(beta)), math.log(2 * math.sinh(beta))
    exact = length * plus + math.log1p(math.exp(length * (minus - plus)))
    if boundary == "open":
        exact = math.log(2) + (length - 1) * plus
    log_z, mean, variance, _ = solved(lattice, beta)
    assert log_z == pytest.approx(exact, rel=1e-13)
    assert mean / beta == pytest.approx(
        (solved(lattice, beta + 1e-4)[0] - solved(lattice, beta - 1e-4)[0]) / 2e-4, rel=1e-6
    )
    assert variance > 0


def test_square_glasses_are_those_of_the_transfer_matrix():
    glass = edwards_anderson(5, 6, seed=3)
    known = transfer_matrix.solve(0.9 * glass.jx, 0.9 * glass.jy)
    np.testing.assert_allclose(solved(glass, 0.9)[:3], known, rtol=1e-11)


def test_a_dimension_of_length_two_is_one_of_doubled_bonds():
    """The periodic 3x3x2 lattice is the open one whose bonds along z are twice as strong."""
    doubled = hypercubic((3, 3, 2), j=(1, 1, 2), boundary=("periodic", "periodic", "open"))
    np.testing.assert_allclose(solved(hypercubic((3, 3, 2)), 0.3), solved(doubled, 0.3), rtol=1e-12)


def test_cubes_of_length_three_at_high_temperature():
    """ln Z = N ln 2 + 3N ln cosh K + ln(1 + 27 v^3 + 81 v^4 + ...): loops around the torus, and squares."""
    k = 0.01
    v = math.tanh(k)
    series = 27 * math.log(2) + 81 * math.log(math.cosh(k)) + math.log1p(27 * v**3 + 81 * v**4)
    assert solved(cubic(3), k)[0] == pytest.approx(series, abs=40 * 81 * v**5)


def test_what_is_too_wide_is_refused_before_it_is_begun():
    lattice = cubic(6)
    with pytest.raises(NoExactSolution, match=r"frontier of these 216 spins is \d+ wide"):
        solved(lattice, 0.2)
    with pytest.raises(NoExactSolution, match="underflows"):
        frontier.solve(3, np.array([[0, 1], [1, 2], [2, 0]]), np.full(3, -1e5))
    for bonds, couplings in (([[0, 2]], [1.0]), ([[0, 0]], [1.0]), ([[0, 1]], [math.nan]), ([[0, 1]], [1.0, 2.0])):
        with pytest.raises(IsingflowError):
            frontier.solve(2, np.array(bonds), np.array(couplings))
    with pytest.raises(InvalidInput):
        frontier.solve(2, np.array([[0, 1]]), np.array([1.0]), np.array([math.inf, 0.0]))


@pytest.mark.slow
def test_the_cube_of_length_four_against_monte_carlo():
    """51 s and 5 GB: energy and heat capacity within 4 standard errors of Wolff's algorithm."""
    from isingflow.monte_carlo import simulate

    beta = 0.22165463
    log_z, mean, variance, _ = solved(cubic(4), beta)
    energy = simulate(cubic(4), beta, samples=20_000, chains=16, seed=1).energy
    means, squares = energy.mean(1), beta**2 * energy.var(1)
    for exact, values in ((-mean / beta, means), (variance, squares)):
        assert abs(values.mean() - exact) < 4 * values.std(ddof=1) / 4
    assert log_z > 64 * math.log(2)
