"""Moments of the magnetisation and correlations against explicit sums, against each other and against the energy."""

import math

import networkx
import numpy as np
import pytest

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import enumeration, kaufman, moments
from isingflow.exact.moments import graph, torus
from isingflow.lattice import CRITICAL_BETA, edwards_anderson, from_graph, square, triangular

COUPLINGS = [(0.3, 0.4), (-0.5, 0.7), (-0.6, -0.6), (0.44, -2.0), (0.0, 1.0), (0.0, 0.0), (1.5, 1.5)]


def explicit(couplings):
    """Probabilities of 0, ..., N up spins, and <s_i s_j>."""
    spins = len(couplings)
    states = 1.0 - 2.0 * ((np.arange(2**spins)[:, None] >> np.arange(spins)) & 1)
    exponent = 0.5 * np.einsum("ni,ij,nj->n", states, couplings, states)
    weights = np.exp(exponent - exponent.max())
    weights /= weights.sum()
    ups = np.count_nonzero(states > 0, axis=1)
    return np.bincount(ups, weights, minlength=spins + 1), np.einsum("n,ni,nj->ij", weights, states, states)


def average(correlation, shape):
    """<s_0 s_r> of a torus, from <s_i s_j>, one translation at a time."""
    pairs = correlation.reshape(*shape, *shape)
    return np.mean([np.roll(pairs[x, y], (-x, -y), (0, 1)) for x, y in np.ndindex(shape)], axis=0)


@pytest.mark.parametrize("spins", [2, 3, 7, 12])
def test_random_graphs(spins):
    random = np.random.default_rng(spins)
    couplings = random.normal(size=(spins, spins)) * (random.random((spins, spins)) < 0.6)
    couplings = couplings + couplings.T
    for actual, expected in zip(graph(couplings), explicit(couplings), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-14)


def test_probabilities_are_those_of_the_states():
    couplings = np.random.default_rng(0).normal(size=(5, 5))
    couplings = couplings + couplings.T
    np.fill_diagonal(couplings, 0.0)
    states = 1.0 - 2.0 * ((np.arange(16)[:, None] >> np.arange(5)) & 1)
    weights = np.exp(0.5 * np.einsum("ni,ij,nj->n", states, couplings, states) - enumeration.solve(couplings)[0])
    np.testing.assert_allclose(enumeration.probabilities(couplings), 2 * weights, rtol=1e-13)


@pytest.mark.parametrize("shape", [(2, 2), (2, 5), (3, 3), (4, 4), (3, 5), (5, 3), (4, 5)])
@pytest.mark.parametrize("kx, ky", COUPLINGS)
def test_transfer_matrix_agrees_with_enumeration(shape, kx, ky):
    counts, correlation = graph(square(*shape, jx=kx, jy=ky).couplings(1.0))
    actual = torus(*shape, kx, ky)
    np.testing.assert_allclose(actual[0], counts, atol=1e-13)
    np.testing.assert_allclose(actual[1], average(correlation, shape), atol=1e-13)


def test_twenty_four_spins():
    shape = (4, 6)
    counts, correlation = graph(square(*shape, jx=0.5, jy=-0.3).couplings(1.0))
    actual = torus(*shape, 0.5, -0.3)
    np.testing.assert_allclose(actual[0], counts, atol=1e-13)
    np.testing.assert_allclose(actual[1], average(correlation, shape), atol=1e-13)


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (10, 4)])
@pytest.mark.parametrize(
    "jx, jy, beta", [(1.0, 1.0, 0.3), (1.0, 1.0, CRITICAL_BETA), (1.0, -0.5, 0.7), (1.0, 1.0, -0.6)]
)
def test_laws_of_tori(shape, jx, jy, beta):
    exact = moments(square(*shape, jx=jx, jy=jy), beta)
    g = exact.correlation
    assert exact.method == "transfer-matrix"
    assert g.shape == shape and g[0, 0] == pytest.approx(1.0, rel=1e-13)
    assert g.sum() == pytest.approx(g.size * exact.magnetisation_squared, rel=1e-11)
    for mirrored in (np.roll(g[::-1], 1, 0), np.roll(g[:, ::-1], 1, 1)):
        np.testing.assert_allclose(g, mirrored, atol=1e-14)
    energy = kaufman.solve(*shape, jx, jy, beta)[1]
    assert -jx * g[1, 0] - jy * g[0, 1] == pytest.approx(energy, rel=1e-12)
    assert exact.binder == pytest.approx(1 - exact.magnetisation_fourth / exact.magnetisation_squared**2 / 3, rel=1e-12)
    assert exact.magnetisation_abs**2 <= exact.magnetisation_squared <= exact.magnetisation_abs


def test_symmetric_points():
    """Axes of a square, its diagonals, and the sublattice flip that turns a magnet into an antiferromagnet."""
    g = moments(square(6), 0.5).correlation
    np.testing.assert_allclose(g, g.T, atol=1e-14)
    staggered = (-1.0) ** np.indices((6, 6)).sum(axis=0)
    np.testing.assert_allclose(moments(square(6), -0.5).correlation, staggered * g, atol=1e-14)
    np.testing.assert_allclose(moments(square(6, 4, jy=0.3), 0.5).correlation.T, torus(4, 6, 0.15, 0.5)[1], atol=1e-14)


def test_infinite_temperature():
    sites = 64
    exact = moments(square(8), 0.0)
    assert exact.magnetisation_squared == pytest.approx(1 / sites, rel=1e-12)
    assert exact.magnetisation_fourth == pytest.approx((3 * sites - 2) / sites**3, rel=1e-12)
    ups = np.arange(sites + 1)
    binomial = [math.comb(sites, int(n)) / 2**sites for n in ups]
    assert exact.magnetisation_abs == pytest.approx(np.abs(2 * ups / sites - 1) @ binomial, rel=1e-12)
    np.testing.assert_allclose(exact.correlation, np.eye(1, sites).reshape(8, 8), atol=1e-14)


def test_zero_temperature():
    ferro = moments(square(8), 30.0)
    assert (ferro.magnetisation_abs, ferro.magnetisation_fourth, ferro.binder) == pytest.approx((1.0, 1.0, 2 / 3))
    antiferro = moments(square(8), -300.0)
    assert antiferro.magnetisation_squared == 0.0 and math.isnan(antiferro.binder)
    np.testing.assert_allclose(antiferro.correlation, (-1.0) ** np.indices((8, 8)).sum(axis=0), atol=1e-14)


def test_binder_of_the_critical_lattice():
    """Finite lattices approach the universal value 0.61069 (Kamieniarz & Bloete 1993) from above."""
    values = [moments(square(length), CRITICAL_BETA).binder for length in (4, 6, 8, 10)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0.61069, abs=2e-3)


@pytest.mark.parametrize(
    "lattice",
    [
        square(4, boundary="open"),
        triangular(3, 4),
        triangular(3, 4, boundary="open"),
        edwards_anderson(4, seed=1),
        from_graph(networkx.petersen_graph()),
    ],
)
def test_other_lattices_are_enumerated(lattice):
    exact = moments(lattice, 0.4)
    counts, correlation = explicit(lattice.couplings(0.4))
    assert exact.method == "enumeration"
    m = 2 * np.arange(lattice.sites + 1) / lattice.sites - 1
    assert exact.magnetisation_abs == pytest.approx(counts @ np.abs(m), rel=1e-12)
    assert exact.magnetisation_fourth == pytest.approx(counts @ m**4, rel=1e-12)
    if lattice.boundary == "periodic":
        correlation = average(correlation, lattice.shape)
        assert exact.correlation.sum() == pytest.approx(lattice.sites * exact.magnetisation_squared, rel=1e-12)
    np.testing.assert_allclose(exact.correlation, correlation, atol=1e-13)


@pytest.mark.parametrize(
    "lattice", [square(13), square(5, 80), square(5, boundary="open"), edwards_anderson(5, seed=0), triangular(5)]
)
def test_no_method(lattice):
    with pytest.raises(NoExactSolution, match=r"possible are .* 24 spins"):
        moments(lattice, 0.4)


def test_bad_input():
    with pytest.raises(InvalidInput, match="beta"):
        moments(square(4), math.nan)
    with pytest.raises(NoExactSolution, match="24"):
        enumeration.probabilities(np.zeros((25, 25)))
    with pytest.raises(NoExactSolution, match="strong"):
        moments(square(7, 8), -100.0)
