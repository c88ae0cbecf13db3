"""Pfaffians against counting states, Kaufman's formula, the transfer matrix, and the laws that any lattice obeys."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import enumeration, kaufman, pfaffian, transfer_matrix
from isingflow.lattice import CRITICAL_BETA, edwards_anderson, square

BOUNDARIES = {"torus": (1, 1), "around x": (1, 0), "around y": (0, 1), "open": (0, 0)}


def random_couplings(shape, boundary, seed=0, dilution=0.0):
    random = np.random.default_rng(seed)
    kx, ky = random.normal(size=(2, *shape)) * (random.random((2, *shape)) >= dilution)
    around_x, around_y = BOUNDARIES[boundary]
    kx[-1, :] *= around_x
    ky[:, -1] *= around_y
    return kx, ky


def matrix(kx, ky):
    """The dense coupling matrix of the same bonds; those that join the same two sites add up."""
    return square(*kx.shape, jx=kx, jy=ky).couplings(1.0)


def assert_equal(actual, expected, log_z=1e-13, variance=1e-11):
    assert actual[0] == pytest.approx(expected[0], rel=log_z)
    assert actual[1] == pytest.approx(expected[1], rel=1e-12, abs=1e-12)
    assert actual[2] == pytest.approx(expected[2], rel=1e-10, abs=variance)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (3, 3), (2, 6), (5, 3), (4, 4)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dilution", [0.0, 0.4])
def test_random_bonds_agree_with_enumeration(shape, boundary, dilution):
    kx, ky = random_couplings(shape, boundary, dilution=dilution)
    for scale in (0.3, 1.0, 4.0):
        assert_equal(pfaffian.solve(scale * kx, scale * ky), enumeration.solve(matrix(scale * kx, scale * ky)))


@pytest.mark.parametrize("shape", [(7, 7), (5, 9)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_random_bonds_agree_with_transfer_matrix(shape, boundary):
    kx, ky = random_couplings(shape, boundary)
    for scale in (0.5, 2.0):
        assert_equal(pfaffian.solve(scale * kx, scale * ky), transfer_matrix.solve(scale * kx, scale * ky))


@pytest.mark.parametrize("beta", [0.2, CRITICAL_BETA, 1.0, 2.0, 4.0, 5.0])
def test_promise_for_glasses_of_64_spins(beta):
    """1e-12 relative, down to temperatures where frustration cancels 25 digits."""
    glass = edwards_anderson(8, seed=1)
    expected = transfer_matrix.solve(beta * glass.jx, beta * glass.jy)
    assert_equal(pfaffian.solve(beta * glass.jx, beta * glass.jy), expected, log_z=1e-14, variance=1e-8)


def test_wide_open_strip():
    kx, ky = random_couplings((16, 40), "open")
    assert_equal(pfaffian.solve(kx, ky), transfer_matrix.solve(kx, ky))


def test_larger_torus():
    kx, ky = random_couplings((10, 10), "torus")
    assert_equal(pfaffian.solve(kx, ky), transfer_matrix.solve(kx, ky))


@pytest.mark.parametrize("size", [(16, 16), (15, 15), (15, 16), (13, 24)])
@pytest.mark.parametrize("beta", [-1.0, -CRITICAL_BETA, -0.1, 1e-9, 0.44, CRITICAL_BETA, 0.6])
def test_uniform_tori_agree_with_kaufman(size, beta):
    kx, ky = np.full(size, beta), np.full(size, 0.7 * beta)
    assert_equal(pfaffian.solve(kx, ky), kaufman.partition_function(*size, beta, 0.7 * beta), log_z=1e-14)


@pytest.mark.parametrize("beta", [CRITICAL_BETA, -0.8])
def test_64_by_64_agrees_with_kaufman(beta):
    """A gauge hides the uniform lattice; at criticality one Pfaffian vanishes."""
    gauge = np.random.default_rng(0).choice([-1.0, 1.0], size=(64, 64))
    bonds = beta * gauge * np.roll(gauge, -1, 0), beta * gauge * np.roll(gauge, -1, 1)
    assert_equal(pfaffian.solve(*bonds), kaufman.partition_function(64, 64, beta, beta), log_z=1e-14)


sizes = st.integers(2, 7)
seeds = st.integers(0, 10**6)


@given(sizes, sizes, seeds, st.sampled_from(sorted(BOUNDARIES)), st.floats(0.1, 2.5))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_laws(lx, ly, seed, boundary, scale):
    """Gauge, transposition, translation: s_i -> -s_i in four bonds, x and y exchanged, another origin."""
    kx, ky = random_couplings((lx, ly), boundary, seed, dilution=0.1)
    kx, ky = scale * kx, scale * ky
    expected = pfaffian.solve(kx, ky)
    random = np.random.default_rng(seed)
    gauge = random.choice([-1.0, 1.0], size=kx.shape)
    assert_equal(pfaffian.solve(kx * gauge * np.roll(gauge, -1, 0), ky * gauge * np.roll(gauge, -1, 1)), expected)
    assert_equal(pfaffian.solve(ky.T, kx.T), expected)
    if boundary == "torus":
        shift = random.integers(7, size=2)
        assert_equal(pfaffian.solve(*(np.roll(k, shift, (0, 1)) for k in (kx, ky))), expected)


@given(sizes, sizes, seeds)
@settings(deadline=None, max_examples=20, derandomize=True)
def test_derivatives(lx, ly, seed):
    """Mean and variance are derivatives of ln Z along a common factor of all bonds."""
    kx, ky = random_couplings((lx, ly), "torus", seed)
    h = 1e-4
    below, here, above = (pfaffian.solve((1 + x) * kx, (1 + x) * ky) for x in (-h, 0.0, h))
    assert here[1] == pytest.approx((above[0] - below[0]) / (2 * h), rel=1e-6)
    assert here[2] == pytest.approx((above[1] / (1 + h) - below[1] / (1 - h)) / (2 * h), rel=1e-5)


def test_trees_have_a_closed_form():
    kx, ky = random_couplings((60, 40), "open")
    ky[1:] = 0.0
    ends = np.concatenate([kx[:-1].ravel(), ky[0, :-1]])
    log_z, mean, variance = pfaffian.solve(kx, ky)
    assert log_z == pytest.approx(kx.size * math.log(2) + np.log(np.cosh(ends)).sum(), rel=1e-14)
    assert mean == pytest.approx((ends * np.tanh(ends)).sum(), rel=1e-13)
    assert variance == pytest.approx((ends**2 / np.cosh(ends) ** 2).sum(), rel=1e-12)


def test_ground_states_without_frustration():
    bonds = 2 * 18 * 18
    for strength in (50.0, 500.0):
        k = np.full((18, 18), strength)
        expected = (strength * bonds + math.log(2), strength * bonds, 0.0)
        assert pfaffian.solve(k, k) == pytest.approx(expected, rel=1e-15, abs=1e-15)


def test_no_bonds():
    assert pfaffian.solve(np.zeros((20, 30)), np.zeros((20, 30))) == pytest.approx((600 * math.log(2), 0, 0), rel=1e-15)


@pytest.mark.parametrize("beta", [7.0, 10.0, 20.0, 40.0, 300.0, 1e4])
@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 3), (4, 4)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_cold_frustration_is_exact_or_refused(shape, boundary, beta):
    """Where digits run out there is an error, not a wrong number."""
    for seed in range(4):
        kx, ky = (beta * np.sign(k) for k in random_couplings(shape, boundary, seed))
        try:
            actual = pfaffian.solve(kx, ky)
        except NoExactSolution:
            continue
        log_z, mean, variance = enumeration.solve(matrix(kx, ky))
        assert actual == pytest.approx((log_z, mean, variance), rel=1e-10, abs=1e-10 * kx.size)


def test_bad_input():
    glass = edwards_anderson(24, seed=0)
    with pytest.raises(NoExactSolution, match="too cold"):
        pfaffian.solve(20 * glass.jx, 20 * glass.jy)
    with pytest.raises(NoExactSolution, match="up to about"):
        pfaffian.solve(*random_couplings((200, 200), "torus"))
    for kx, ky in (
        (np.zeros((3, 2)), np.zeros((2, 3))),
        (np.zeros((1, 5)), np.zeros((1, 5))),
        (np.zeros(4), np.zeros(4)),
        (np.full((3, 3), np.nan), np.zeros((3, 3))),
    ):
        with pytest.raises(InvalidInput, match=r"^k[xy]\b"):
            pfaffian.solve(kx, ky)
