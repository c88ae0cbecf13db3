"""Triangular tori against counting states and the planar graphs they unroll to, and their limit."""

import math

import numpy as np
import pytest

from isingflow.errors import NoExactSolution
from isingflow.exact import enumeration, onsager, thermodynamics
from isingflow.exact import triangular as exact
from isingflow.lattice import triangular
from isingflow.lattice.checks import MAX_SITES

CRITICAL = math.log(3) / 4


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (2, 7), (3, 3), (3, 4), (4, 4), (4, 5)])
def test_tori_agree_with_enumeration(shape):
    """Of both signs, through criticality, and down to the degenerate ground states of the antiferromagnet."""
    for beta in (-3.0, -1.0, -0.3, -1e-9, 0.0, 1e-9, 0.1, CRITICAL, 0.4, 1.0, 5.0):
        expected = enumeration.solve(triangular(*shape).couplings(beta))
        found = exact.solve(*shape, beta)
        assert found[0] == pytest.approx(expected[0], rel=1e-13)
        assert found[1:] == pytest.approx(expected[1:], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("beta", [-0.6, 0.2, 0.5])
def test_derivatives_of_larger_tori(beta):
    lattice = triangular(12, 30)
    found = thermodynamics(lattice, beta)
    assert found.method == "triangular-torus"
    step = 1e-3
    lower, upper = (thermodynamics(lattice, beta + shift).log_z for shift in (-step, step))
    assert found.energy_per_site == pytest.approx(-(upper - lower) / (2 * step * 360), rel=1e-4)
    bend = (lower + upper - 2 * found.log_z) / step**2
    assert found.heat_capacity_per_site == pytest.approx(beta**2 * bend / 360, rel=1e-3)


@pytest.mark.parametrize("beta", [-0.8, -0.5, 1e-3, 0.2, 0.36, 1.0])
def test_large_tori_meet_the_infinite_lattice(beta):
    """Below criticality two ordered states add ln 2."""
    sites = 150**2
    log_z, mean, variance = exact.solve(150, 150, beta)
    limit = np.array(onsager.triangular(beta))
    extra = math.log(2) if beta > CRITICAL else 0.0
    assert limit == pytest.approx([(log_z - extra) / sites, -mean / beta / sites, variance / sites], abs=1e-9)


def test_infinite_lattice_where_it_is_known():
    """Wannier (1950): the entropy of the cold antiferromagnet; -2 per site at criticality, where C diverges."""
    assert onsager.triangular(-60.0)[0] - 60 == pytest.approx(0.32306594721945, abs=1e-13)
    assert onsager.triangular(60.0, -1.0)[1] == pytest.approx(-1.0)
    assert onsager.triangular(0.0) == (pytest.approx(math.log(2)), 0.0, 0.0)
    _, energy, heat_capacity = onsager.triangular(CRITICAL)
    assert energy == pytest.approx(-2.0, abs=1e-12) and heat_capacity > 10
    # of two integrals, by brute force over a fine grid of momenta
    k = 2 * np.pi * (np.arange(2000) + 0.5) / 2000
    cosines = np.cos(k)[:, None] + np.cos(k) + np.cos(k[:, None] + k)
    c, s = math.cosh(0.4), math.sinh(0.4)
    expected = math.log(2) + np.log(c**3 + s**3 - s * cosines).mean() / 2
    assert onsager.triangular(0.2)[0] == pytest.approx(expected, rel=1e-13)


def test_what_is_refused():
    with pytest.raises(NoExactSolution, match="possible are higher temperatures"):
        exact.solve(4, 300, -2.0)
    with pytest.raises(NoExactSolution, match=str(MAX_SITES)):
        thermodynamics(triangular(10**4), 0.4)
