"""The thermodynamic limit against Onsager's elliptic integrals, the double integral and finite tori."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ellipe, ellipk

from isingflow.exact import kaufman, onsager
from isingflow.lattice import CRITICAL_BETA
from isingflow.lattice.critical import anisotropic


def isotropic(k):
    """ln Z, energy and heat capacity per site at coupling k > 0, Onsager (1944), eqs. 109b, 112 and 117."""
    modulus = 2 * math.sinh(2 * k) / math.cosh(2 * k) ** 2
    tanh2 = math.tanh(2 * k) ** 2
    first, second = ellipk(modulus**2), ellipe(modulus**2)

    def integrand(angle):
        return math.log((1 + math.sqrt(1 - (modulus * math.sin(angle)) ** 2)) / 2)

    log_z = math.log(2 * math.cosh(2 * k)) + quad(integrand, 0, math.pi / 2, epsabs=1e-13)[0] / math.pi
    energy = -(1 + (2 / math.pi) * (2 * tanh2 - 1) * first) / math.tanh(2 * k)
    bracket = first - second - (1 - tanh2) * (math.pi / 2 + (2 * tanh2 - 1) * first)
    return log_z, energy, (4 / math.pi) * (k / math.tanh(2 * k)) ** 2 * bracket


@pytest.mark.parametrize("k", [0.1, 0.3, 0.43, 0.44, 0.4406, 0.45, 0.6, 0.9])
def test_isotropic_closed_forms(k):
    log_z, energy, heat_capacity = isotropic(k)
    assert onsager.solve(1.0, 1.0, k) == pytest.approx((log_z, energy, heat_capacity), rel=1e-8)
    assert onsager.solve(1.0, 1.0, k)[:2] == pytest.approx((log_z, energy), rel=1e-11)
    assert onsager.solve(1.0, -1.0, -k) == pytest.approx((log_z, -energy, heat_capacity), rel=1e-8)


def test_critical_values():
    log_z, energy, _ = onsager.solve(1.0, 1.0, CRITICAL_BETA)
    catalan = 0.915965594177219015
    assert log_z == pytest.approx(math.log(2) / 2 + 2 * catalan / math.pi, rel=1e-15)
    assert energy == pytest.approx(-math.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("jx, jy", [(1.0, 0.2), (0.2, 1.0), (-1.0, 0.6), (1.0, 3.0)])
@pytest.mark.parametrize("distance", [0.5, 0.99, 1.01, 2.0])
def test_anisotropic_limit_of_finite_tori(jx, jy, distance):
    beta = distance * anisotropic(jx, jy)
    log_z, energy, heat_capacity = kaufman.solve(20_000, 20_000, jx, jy, beta)
    assert onsager.solve(jx, jy, beta) == pytest.approx((log_z / 4e8, energy, heat_capacity), rel=2e-9)


def test_double_integral():
    kx, ky = 0.35, -0.2
    wave = 2 * np.pi * np.arange(400) / 400
    cosines = np.sinh(2 * kx) * np.cos(wave)[:, None] + np.sinh(2 * ky) * np.cos(wave)
    weights = np.cosh(2 * kx) * np.cosh(2 * ky) - cosines
    assert onsager.solve(kx, ky, 1.0)[0] == pytest.approx(math.log(2) + np.log(weights).mean() / 2, rel=1e-13)


def test_chains():
    log_z, energy, heat_capacity = onsager.solve(0.0, -2.0, 0.3)
    assert log_z == pytest.approx(math.log(2 * math.cosh(0.6)), rel=1e-15)
    assert energy == pytest.approx(-2 * math.tanh(0.6), rel=1e-15)
    assert heat_capacity == pytest.approx((0.6 / math.cosh(0.6)) ** 2, rel=1e-14)
    assert onsager.solve(1.0, 1.0, 0.0) == (pytest.approx(math.log(2)), 0.0, 0.0)


@pytest.mark.parametrize("jx, jy", [(1.0, 1.0), (1.0, 1e-6), (-1e3, 0.2), (3.0, -2.0)])
def test_critical_beta(jx, jy):
    beta = anisotropic(jx, jy)
    assert math.sinh(2 * beta * abs(jx)) * math.sinh(2 * beta * abs(jy)) == pytest.approx(1, rel=1e-13)
    assert onsager.spontaneous_magnetisation(jx, jy, beta * 0.999) == 0
    assert 0 < onsager.spontaneous_magnetisation(jx, jy, beta * 1.001) < 0.7


def test_critical_beta_known():
    assert anisotropic(1.0, 1.0) == pytest.approx(CRITICAL_BETA, rel=1e-15)
    assert anisotropic(0.0, 1.0) == math.inf
    assert onsager.spontaneous_magnetisation(1.0, 1.0, 1e3) == 1.0
