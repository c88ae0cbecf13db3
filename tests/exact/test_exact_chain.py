"""Chains and rings against all states, the frontier, the transfer matrix, eigenvalues in 60 digits, and differences."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import averages, chain, frontier, thermodynamics, transfer_matrix
from isingflow.lattice import chain as chain_of
from isingflow.lattice import edwards_anderson, random_field

numbers = st.floats(-3, 3)


def summed(couplings, fields):
    """ln Z, mean and variance of x(s), and the mean of the total spin, state by state."""
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=len(couplings))))
    x = (states * np.roll(states, -1, 1)) @ couplings + states @ fields
    weights = np.exp(x - x.max())
    z = weights.sum()
    weights /= z
    mean = weights @ x
    return math.log(z) + x.max(), mean, weights @ (x - mean) ** 2, weights @ states.sum(1)


def by_eigenvalues(sites, k, h):
    """ln Z and its derivatives of a ring, from lambda_+^N + lambda_-^N in 60 digits."""
    with mp.workdps(60):

        def log_z(scale, shift=0):
            bond, tilt = scale * mpf(k), scale * mpf(h) + shift
            root = mp.sqrt(mp.exp(2 * bond) * mp.sinh(tilt) ** 2 + mp.exp(-2 * bond))
            larger, smaller = (mp.exp(bond) * mp.cosh(tilt) + sign * root for sign in (1, -1))
            return sites * mp.log(larger) + mp.log1p((smaller / larger) ** sites)

        step = mpf(10) ** -20
        up, here, down = (log_z(1 + sign * step) for sign in (1, 0, -1))
        slope = (log_z(mpf(1), step) - log_z(mpf(1), -step)) / (2 * step)
        return [float(v) for v in (here, (up - down) / (2 * step), (up - 2 * here + down) / step**2, slope)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=9), st.booleans())
def test_any_couplings_and_fields_are_those_of_all_states(spins, closed):
    """Frustrated rings among them, and two spins that are bonded twice."""
    couplings, fields = np.array(spins).T.copy()
    couplings[-1] *= closed
    np.testing.assert_allclose(chain.solve(couplings, fields), summed(couplings, fields), rtol=1e-11, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), numbers, st.sampled_from([0.0, 0.3, -2.0]), st.booleans())
def test_uniform_chains_are_those_of_equal_spins(sites, coupling, field, closed):
    couplings = np.full(sites, coupling)
    couplings[-1] *= closed
    found = chain.uniform(sites, coupling, field, closed=closed)
    np.testing.assert_allclose(found, chain.solve(couplings, np.full(sites, field)), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("field", [0.0, 0.2, -1.5])
@pytest.mark.parametrize("coupling", [0.7, -0.7, 1e-3, -4.0, 0.0, 15.0])
@pytest.mark.parametrize("sites", [2, 3, 1001, 10**9])
def test_rings_are_their_eigenvalues(sites, coupling, field):
    expected = by_eigenvalues(sites, coupling, field)
    found = chain.uniform(sites, coupling, field)
    scale = sites * (abs(coupling) + abs(field))
    assert found[0] == pytest.approx(expected[0], rel=1e-14)
    assert found[1:] == pytest.approx(expected[1:], rel=1e-9, abs=1e-12 * scale)


@pytest.mark.parametrize("boundary", ["periodic", "open"])
@pytest.mark.parametrize("beta", [-0.8, 0.5])
def test_glasses_in_random_fields_by_three_methods(boundary, beta):
    """And beyond the block in which matrices are multiplied: what is cut open there is a chain of two."""
    of = random_field(edwards_anderson((40,), seed=1, boundary=boundary), 0.6, seed=2)
    found = thermodynamics(of, beta)
    assert found.method == "chain"
    k, h = beta * of.j[0], beta * of.field_by_site
    swept = frontier.solve(of.sites, of.bonds, beta * of.strengths, h)
    strip = transfer_matrix.polarised(k[:, None], np.zeros((40, 1)), h[:, None])
    for other in (swept, strip):
        np.testing.assert_allclose(chain.solve(k, h), other, rtol=1e-11)
    assert found.energy_per_site == pytest.approx(-swept[1] / beta / 40, rel=1e-11)
    assert found.heat_capacity_per_site == pytest.approx(swept[2] / 40, rel=1e-11)
    assert found.magnetisation_per_site == pytest.approx(swept[3] / 40, rel=1e-10)
    assert averages(of, beta)["magnetisation"] == found.magnetisation_per_site


def test_long_chains_are_the_transfer_matrix():
    """Beyond a block of matrices, of any length, and a million spins."""
    rng = np.random.default_rng(0)
    for sites in (chain.BLOCK + 1, 3 * chain.BLOCK - 5):
        k, h = rng.normal(size=(2, sites))
        strip = transfer_matrix.polarised(k[:, None], np.zeros((sites, 1)), h[:, None])
        np.testing.assert_allclose(chain.solve(k, h), strip, rtol=1e-10)
    k = rng.normal(size=10**6)
    found = chain.solve(np.append(k, 0.0))
    assert found[0] == pytest.approx(math.log(2) + math.fsum(np.log(2 * np.cosh(k))), rel=1e-14)
    assert found[1] == pytest.approx(math.fsum(k * np.tanh(k)), rel=1e-12)
    assert found[2] == pytest.approx(math.fsum((k / np.cosh(k)) ** 2), rel=1e-12)


@pytest.mark.parametrize("of", [chain_of(50), chain_of(51, j=-1.0), random_field(chain_of(60, j=-0.5), 0.3, seed=0)])
def test_energy_heat_and_magnetisation_are_derivatives(of):
    beta, step = 0.6, 1e-4

    def log_z(change, field=0.0):
        return thermodynamics(of.with_field(of.field_by_site + 0.1 + field), beta + change).log_z

    found = thermodynamics(of.with_field(of.field_by_site + 0.1), beta)
    up, here, down = log_z(step), log_z(0.0), log_z(-step)
    assert found.energy_per_site == pytest.approx(-(up - down) / (2 * step) / of.sites, rel=1e-6)
    assert found.heat_capacity_per_site == pytest.approx(
        beta**2 * (up - 2 * here + down) / step**2 / of.sites, rel=1e-4
    )
    slope = (log_z(0.0, step) - log_z(0.0, -step)) / (2 * step)
    assert found.magnetisation_per_site == pytest.approx(slope / beta / of.sites, rel=1e-6)


def test_frustrated_rings_in_the_cold_count_their_walls():
    """An odd antiferromagnetic ring of N spins has 2 N ground states, one unsatisfied bond each."""
    for sites in (25, 10**6 + 1):
        found = thermodynamics(chain_of(sites, j=-1.0), 1e6)
        assert found.log_z == pytest.approx((sites - 2) * 1e6 + math.log(2 * sites), rel=1e-15)
        assert found.energy_per_site == pytest.approx(2 / sites - 1, rel=1e-14)
        assert found.heat_capacity_per_site == 0
    k = np.ones(99) * np.where(np.arange(99) % 3 == 0, 1e6, -1e6)  # 66 negative bonds: not frustrated
    assert chain.solve(k)[:3] == (pytest.approx(99e6 + math.log(2), rel=1e-15), 99e6, 0.0)


@pytest.mark.parametrize("beta", [0.0, 1e-9, -1e-9, 1e6, -1e6])
def test_extreme_temperatures(beta):
    for boundary in ("periodic", "open"):
        bonds = 10**9 - (boundary == "open")
        found = thermodynamics(chain_of(10**9, boundary=boundary), beta)
        assert found.log_z == pytest.approx(10**9 * math.log(2) if abs(beta) < 1 else bonds * abs(beta), rel=1e-15)
        assert found.energy_per_site == pytest.approx(-math.tanh(beta) * bonds / 10**9, rel=1e-6)
        assert found.heat_capacity_per_site == pytest.approx(beta**2 if abs(beta) < 1 else 0.0, rel=1e-6)


def test_what_cannot_be():
    for couplings in ([0.1], [0.1, math.nan], [[0.1, 0.2]]):
        with pytest.raises(InvalidInput):
            chain.solve(couplings)
    with pytest.raises(InvalidInput):
        chain.solve([0.1, 0.2], [0.1])
    with pytest.raises(InvalidInput):
        chain.uniform(10**9 + 1, 0.1)
    with pytest.raises(NoExactSolution, match="at most 1e"):
        chain.uniform(4, 1e13)
    with pytest.raises(InvalidInput, match="at most 1000000000"):
        chain_of(10**9 + 1)
    with pytest.raises(InvalidInput, match="too many sites to list; up to 16777216"):
        _ = chain_of(10**9).bonds
