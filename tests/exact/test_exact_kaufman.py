"""Kaufman's formula against counting, against 60-digit arithmetic, and against the laws it must obey."""

import itertools
import math
import warnings
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import enumeration, kaufman, onsager, transfer_matrix
from isingflow.lattice import CRITICAL_BETA, square
from isingflow.lattice.critical import anisotropic

COUPLINGS = (-2.0, -0.9, -CRITICAL_BETA, -0.2, 0.0, 1e-3, 0.3, CRITICAL_BETA, 1.3)
SMALL = [(lx, ly) for lx in range(2, 11) for ly in range(2, 11) if lx * ly <= 12]


def kaufman_digits(m, n, kx, ky):
    """ln Z as Kaufman wrote it: four products over signed gammas, in mpmath, at its present precision."""
    twists = (kx < 0 and m % 2 == 1, ky < 0 and n % 2 == 1)
    signs = {(0, 0): (1, 1, 1, 1), (0, 1): (1, -1, 1, -1), (1, 0): (1, 1, -1, -1), (1, 1): (-1, 1, 1, -1)}[twists]
    along, around = abs(kx), abs(ky)
    dual = -mp.log(mp.tanh(along)) / 2
    total = mpf(0)
    for first, (sign_cosh, sign_sinh) in ((1, signs[:2]), (0, signs[2:])):
        coshes = sinhs = mpf(1)
        for i in range(first, 2 * n, 2):
            wave = mp.sinh(2 * around) * mp.sinh(2 * dual) * mp.cos(mp.pi * i / n)
            gamma = mp.acosh(mp.cosh(2 * around) * mp.cosh(2 * dual) - wave) if i else 2 * (around - dual)
            z = mp.exp(m * gamma / 2)
            coshes *= z + 1 / z
            sinhs *= z - 1 / z
        total += sign_cosh * coshes + sign_sinh * sinhs
    return mpf(m * n) / 2 * mp.log(2 * mp.sinh(2 * along)) + mp.log(total / 2)


def solve_digits(lx, ly, jx, jy, beta):
    """ln Z, energy and heat capacity per site; 60 digits remain after cancellation between the products."""
    kx, ky = mpf(beta * jx), mpf(beta * jy)
    twisted = (kx < 0 and lx % 2 == 1) or (ky < 0 and ly % 2 == 1)
    mp.dps = 140 + (int(max(abs(kx), abs(ky)) * (lx + ly)) if twisted else 0)
    h = mpf(10) ** -35
    low, middle, high = (kaufman_digits(lx, ly, scale * kx, scale * ky) for scale in (1 - h, mpf(1), 1 + h))
    return middle, -(high - low) / (2 * h * beta * lx * ly), (high - 2 * middle + low) / (h * h * lx * ly)


@pytest.mark.parametrize("size", SMALL)
def test_all_signs_agree_with_enumeration(size):
    x_bonds, y_bonds = (square(*size, jx=jx, jy=1 - jx).couplings(1.0) for jx in (1.0, 0.0))
    for kx, ky in itertools.product(COUPLINGS, repeat=2):
        expected = enumeration.solve(kx * x_bonds + ky * y_bonds)
        assert kaufman.partition_function(*size, kx, ky) == pytest.approx(expected, rel=1e-11, abs=1e-14)


@pytest.mark.parametrize("size", [(4, 5), (5, 4), (2, 10)])
def test_twenty_spins_agree_with_enumeration(size):
    for kx, ky in ((0.4, 0.5), (-0.8, 0.6), (0.8, -0.6), (-1.1, -0.9)):
        expected = enumeration.solve(square(*size, jx=kx, jy=ky).couplings(1.0))
        assert kaufman.partition_function(*size, kx, ky) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("size", [(7, 7), (9, 7), (7, 9), (6, 5), (8, 3), (31, 5), (5, 31), (9, 9), (64, 4)])
def test_middle_sizes_agree_with_transfer_matrix(size):
    for kx, ky in ((0.3, 0.3), (-CRITICAL_BETA, -CRITICAL_BETA), (-0.5, -0.5), (-2.0, -2.0), (-1.5, 0.6), (0.7, -0.4)):
        expected = transfer_matrix.solve(np.full(size, kx), np.full(size, ky))
        actual = kaufman.partition_function(*size, kx, ky)
        assert actual[:2] == pytest.approx(expected[:2], rel=2e-14)
        assert actual[2] == pytest.approx(expected[2], rel=1e-9)


@pytest.mark.parametrize(
    "lx, ly, jx, jy",
    [
        (2, 2, 1.0, 1.0),
        (3, 3, 1.0, 1.0),
        (5, 3, -0.5, 1.0),
        (16, 16, 1.0, 1.0),
        (17, 33, 1.0, 0.3),
        (33, 17, 1.0, 1.0),
    ],
)
def test_sixty_digits(lx, ly, jx, jy):
    for beta in (-2.0, -0.6, -CRITICAL_BETA, 0.01, 0.3, CRITICAL_BETA, 0.4406868, 2.0):
        assert_promise(lx, ly, jx, jy, beta)


@pytest.mark.parametrize(
    "lx, ly, beta",
    [(256, 256, CRITICAL_BETA), (256, 256, -2.0), (255, 255, -0.5), (255, 255, -1.0), (255, 256, 0.44)],
)
def test_sixty_digits_when_large(lx, ly, beta):
    assert_promise(lx, ly, 1.0, 1.0, beta)


def test_sixty_digits_at_anisotropic_criticality():
    for jy in (0.01, 0.3, 2.0):
        beta = anisotropic(1.0, jy)
        for size in ((12, 30), (30, 12), (15, 15)):
            assert_promise(*size, 1.0, jy, beta)
            assert_promise(*size, -1.0, -jy, beta)


def assert_promise(lx, ly, jx, jy, beta):
    exact = solve_digits(lx, ly, jx, jy, beta)
    pairs = zip(kaufman.solve(lx, ly, jx, jy, beta), exact, strict=True)
    errors = [abs(value / reference - 1) for value, reference in pairs]
    assert errors[0] < 2e-15 and errors[1] < 1e-12 and errors[2] < 1e-11, (lx, ly, jx, jy, beta, errors)


def test_two_by_two_has_doubled_bonds():
    k = 0.37
    expected = math.log(2 * math.exp(8 * k) + 12 + 2 * math.exp(-8 * k))
    assert kaufman.log_z(2, 2, k, k) == pytest.approx(expected, rel=1e-15)


@given(
    st.integers(2, 40),
    st.integers(2, 40),
    st.floats(-2, 2, allow_subnormal=False),
    st.floats(-2, 2, allow_subnormal=False),
)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_axes_are_equivalent_and_even_sides_have_no_sign(lx, ly, kx, ky):
    jet = kaufman.partition_function(lx, ly, kx, ky)
    assert jet == pytest.approx(kaufman.partition_function(ly, lx, ky, kx), rel=1e-12, abs=1e-13)
    gauged = kaufman.partition_function(lx, ly, kx if lx % 2 else -kx, ky if ly % 2 else -ky)
    assert jet == gauged
    assert jet[0] >= lx * ly * math.log(2) * (1 - 1e-15)
    assert jet[0] <= lx * ly * (math.log(2) + abs(kx) + abs(ky)) * (1 + 1e-15)
    assert jet[2] >= 0


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 1.5), st.floats(0.05, 1.5))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_duality(half_x, half_y, kx, ky):
    """On a torus the dual of Z is the sum over boundary twists; on odd sides, signs of the couplings are the twists."""
    lx, ly = 2 * half_x + 1, 2 * half_y + 1
    dual_x, dual_y = -math.log(math.tanh(ky)) / 2, -math.log(math.tanh(kx)) / 2
    twists = [kaufman.log_z(lx, ly, sx * dual_x, sy * dual_y) for sx in (1, -1) for sy in (1, -1)]
    expected = np.logaddexp.reduce(twists) - math.log(2)
    shift = lx * ly / 2 * (math.log(math.sinh(2 * kx)) + math.log(math.sinh(2 * ky)))
    assert kaufman.log_z(lx, ly, kx, ky) == pytest.approx(expected + shift, rel=1e-13, abs=1e-14 * lx * ly * 10)


def test_high_temperature_expansion():
    beta, size = 1e-3, 32
    v = math.tanh(beta)
    expected = math.log(2) + 2 * math.log(math.cosh(beta)) + v**4 + 2 * v**6
    log_z, energy, heat_capacity = kaufman.solve(size, size, 1.0, 1.0, beta)
    assert log_z / size**2 == pytest.approx(expected, rel=1e-15)
    assert energy == pytest.approx(-2 * v - 4 * v**3 * (1 - v * v), rel=1e-13)
    assert heat_capacity == pytest.approx(beta**2 * (2 + 10 * beta**2), rel=1e-10)


def test_low_temperature_expansion():
    beta, size = 2.0, 32
    w = math.exp(-8 * beta)
    log_z, energy, _ = kaufman.solve(size, size, 1.0, 1.0, beta)
    flips = size**2 * (w + 2 * w * math.exp(-4 * beta))
    assert log_z - 2 * beta * size**2 - math.log(2) == pytest.approx(flips, rel=1e-5)
    assert energy + 2 == pytest.approx(8 * w, rel=1e-2)


def test_extreme_temperatures():
    assert kaufman.solve(16, 16, 1.0, 1.0, 0.0) == (pytest.approx(256 * math.log(2), rel=1e-15), 0.0, 0.0)
    log_z, energy, heat_capacity = kaufman.solve(16, 16, 1.0, 1.0, 1e-9)
    assert log_z == pytest.approx(256 * math.log(2), rel=1e-15)
    assert energy == pytest.approx(-2e-9, rel=1e-6) and heat_capacity == pytest.approx(2e-18, rel=1e-6)
    frozen = pytest.approx(512e3 + math.log(2), rel=1e-15), -2.0, pytest.approx(0.0, abs=1e-150)
    assert kaufman.solve(16, 16, 1.0, 1.0, 1e3) == frozen
    log_z, energy, heat_capacity = kaufman.solve(15, 15, 1.0, 1.0, -1e3)
    walls = 15 * math.comb(30, 15) - 225  # shortest walls around both ways: 450 / 30 cyclic paths, crosses counted once
    assert energy == pytest.approx(2 - 4 / 15, rel=1e-14) and heat_capacity < 1e-20
    assert log_z == pytest.approx((450 - 60) * 1e3 + math.log(2 * walls), rel=1e-15)


def test_largest_sizes_meet_onsager():
    for beta in (0.3, CRITICAL_BETA, -1.0):
        limit = onsager.solve(1.0, 1.0, beta)
        log_z, energy, heat_capacity = kaufman.solve(10**6, 10**6, 1.0, 1.0, beta)
        assert log_z == pytest.approx(1e12 * limit[0], rel=1e-12)
        assert energy == pytest.approx(limit[1], rel=1e-5)
        if beta != CRITICAL_BETA:
            assert heat_capacity == pytest.approx(limit[2], rel=1e-10)


def test_twisted_and_lopsided_large_sizes():
    for lx, ly in ((999_999, 999_999), (3, 999_999), (999_999, 3), (2, 10**6), (10**6, 2)):
        for beta in (-1.0, -0.3, 0.7):
            values = kaufman.solve(lx, ly, 1.0, 1.0, beta)
            assert all(map(math.isfinite, values)) and values[2] >= 0
    frustrated = kaufman.solve(565_913, 6_713, 1.0, 1.0, -474.0)  # a gap of 10^9: only its differences may be used
    assert frustrated[1] == pytest.approx(2 - 2 / 565_913 - 2 / 6_713, rel=1e-14)
    assert kaufman.solve(15, 15, 1.0, 1e-263, -300.0) == kaufman.solve(15, 15, 1.0, 0.0, -300.0)


def test_bad_input():
    with pytest.raises(InvalidInput):
        kaufman.solve(1, 4, 1.0, 1.0, 0.4)
    with pytest.raises(NoExactSolution, match="1000000"):
        kaufman.solve(10**9, 4, 1.0, 1.0, 0.4)
    with pytest.raises(InvalidInput):
        kaufman.solve(4, 4, 1.0, 1.0, math.nan)


@pytest.mark.parametrize(("lx", "ly"), [(2, 2), (3, 4), (5, 3), (9, 9)])
@pytest.mark.parametrize("kx", [-500.0, 500.0])
@pytest.mark.parametrize("ky", [-600.0, 450.0, 0.3, -0.3, -1e-20])
def test_rigid_bonds_change_nothing_but_the_ground_state(lx, ly, kx, ky, monkeypatch):
    """Beyond RIGID ln Z is continued linearly; the modes themselves still have ten digits there."""
    found = kaufman.partition_function(lx, ly, kx, ky)
    monkeypatch.setattr(kaufman, "RIGID", math.inf)
    assert found == pytest.approx(kaufman.partition_function(lx, ly, kx, ky), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("kx", [500.0, 1e9, 1e60])
@pytest.mark.parametrize("ky", [0.2, -0.2, 1e-3])
def test_a_row_of_rigid_bonds_is_one_spin(kx, ky):
    """Ten rows of six spins each are a ring of ten, its bonds six times as strong."""
    count = np.arange(11)
    exponents = 6 * ky * (10 - 2 * count)
    ways = np.array([2.0 * math.comb(10, n) if n % 2 == 0 else 0.0 for n in count])
    weights = ways * np.exp(exponents)
    mean = weights @ exponents / weights.sum()
    variance = weights @ (exponents - mean) ** 2 / weights.sum()
    expected = 60 * kx + math.log(weights.sum()), 60 * kx + mean, variance
    assert kaufman.partition_function(6, 10, kx, ky) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=200)
@given(
    lx=st.integers(2, 40),
    ly=st.integers(2, 40),
    kx=st.floats(1e-12, 1e4) | st.sampled_from([1e-90, CRITICAL_BETA, 1e9]),
    ky=st.floats(1e-12, 1e4) | st.sampled_from([1e-90, CRITICAL_BETA, 1e9]),
    signs=st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1])),
)
def test_small_lattices_need_no_compiler(lx, ly, kx, ky, signs):
    """As they stand, the kernels say what they say when compiled, without a warning."""
    words = lx, ly, signs[0] * kx, signs[1] * ky
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interpreted = kaufman.partition_function(*words)
    with mock.patch.object(kaufman, "INTERPRETED", 0):
        compiled = kaufman.partition_function(*words)
    assert all(type(value) is float for value in (*interpreted, *compiled))
    scale = lx * ly * max(1.0, kx, ky)
    np.testing.assert_allclose(interpreted[:2], compiled[:2], rtol=1e-12, atol=1e-13 * scale)
    np.testing.assert_allclose(interpreted[2], compiled[2], rtol=1e-8, atol=1e-9 * lx * ly)
