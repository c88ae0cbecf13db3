"""The choice of the exact method, and the package's reference number."""

import math

import networkx
import numpy as np
import pytest

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact import enumeration, thermodynamics
from isingflow.lattice import CRITICAL_BETA, edwards_anderson, from_graph, square, triangular
from isingflow.lattice.checks import MAX_LENGTH


def test_continuous_free_energy_of_the_reference_lattice():
    """The number that every run on the critical 16x16 lattice is compared with."""
    log_z = thermodynamics(square(16), CRITICAL_BETA).log_z
    eigenvalues = CRITICAL_BETA * square(16).spectrum()
    offset = 0.1 - eigenvalues.min()
    log_det = np.log(eigenvalues + offset).sum()
    assert -log_z - log_det / 2 + 128 * (math.log(2 / math.pi) - offset) == pytest.approx(-592.8757, abs=5e-5)


@pytest.mark.parametrize(
    "lattice, method",
    [
        (square(3, 4), "kaufman"),
        (square(3, 3, jx=-1.0, jy=0.5), "kaufman"),
        (square(4, 4, boundary="open"), "enumeration"),
        (square(2, 13, jy=-0.3, boundary="open"), "transfer-matrix"),
        (triangular(3, 4), "enumeration"),
        (edwards_anderson(4, seed=1), "enumeration"),
        (from_graph(networkx.petersen_graph()), "enumeration"),
    ],
)
def test_every_method_counts_states(lattice, method):
    beta = -0.37
    couplings = lattice.couplings(beta)
    exact = thermodynamics(lattice, beta)
    assert exact.method == method
    assert exact.log_z_per_site == exact.log_z / lattice.sites
    if lattice.sites <= 24:
        log_z, mean, variance = enumeration.solve(couplings)
        assert exact.log_z == pytest.approx(log_z, rel=1e-13)
        assert exact.energy_per_site == pytest.approx(-mean / beta / lattice.sites, rel=1e-12)
        assert exact.heat_capacity_per_site == pytest.approx(variance / lattice.sites, rel=1e-11)


@pytest.mark.parametrize("shape, method", [((6, 7), "transfer-matrix"), ((12, 13), "pfaffian")])
def test_arrays_and_numbers_agree(shape, method):
    """The same ferromagnet, hidden by a gauge from Kaufman's formula."""
    gauge = np.random.default_rng(0).choice([-1.0, 1.0], size=shape)
    hidden = square(*shape, jx=gauge * np.roll(gauge, -1, 0), jy=0.5 * gauge * np.roll(gauge, -1, 1))
    first, second = thermodynamics(hidden, 0.6), thermodynamics(square(*shape, jy=0.5), 0.6)
    assert (first.method, second.method) == (method, "kaufman")
    for name in ("log_z", "energy_per_site", "heat_capacity_per_site"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), rel=1e-12)


@pytest.mark.parametrize(
    "lattice, method",
    [
        (edwards_anderson(9, 12, seed=3), "transfer-matrix"),
        (edwards_anderson(11, seed=3), "pfaffian"),
        (edwards_anderson(16, 18, seed=3, boundary="open"), "transfer-matrix"),
        (edwards_anderson(17, seed=3, boundary="open"), "pfaffian"),
        (square(17, boundary="open"), "pfaffian"),
    ],
)
def test_pfaffians_take_over_from_the_transfer_matrix(lattice, method):
    exact = thermodynamics(lattice, 0.7)
    assert exact.method == method
    limit = math.log(2) + 1.4 + 1e-12
    assert math.log(2) < exact.log_z_per_site < limit
    assert -2 < exact.energy_per_site < 0 < exact.heat_capacity_per_site


def test_disconnected_parts_add_up():
    parts = [networkx.cycle_graph(20), networkx.path_graph(15), networkx.empty_graph(4)]
    whole = from_graph(networkx.disjoint_union_all(parts))
    k = 0.8
    ring = math.log((2 * math.cosh(k)) ** 20 + (2 * math.sinh(k)) ** 20)
    expected = ring + 15 * math.log(2) + 14 * math.log(math.cosh(k)) + 4 * math.log(2)
    assert thermodynamics(whole, k).log_z == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("lattice", [square(4), square(4, boundary="open"), edwards_anderson(6, seed=2)])
def test_infinite_temperature(lattice):
    exact = thermodynamics(lattice, 0.0)
    assert exact.log_z == pytest.approx(lattice.sites * math.log(2), rel=1e-15)
    assert (exact.energy_per_site, exact.heat_capacity_per_site) == (0.0, pytest.approx(0.0, abs=1e-30))


@pytest.mark.parametrize(
    "lattice",
    [
        square(300, boundary="open"),
        square(10**6, boundary="open"),
        edwards_anderson(200, seed=0),
        edwards_anderson(300, seed=0),
        triangular(10**4),
        from_graph(networkx.complete_graph(28)),
    ],
)
def test_no_method(lattice):
    with pytest.raises(NoExactSolution, match=r"up to|at most"):
        thermodynamics(lattice, 0.4)


@pytest.mark.parametrize("beta", [math.nan, math.inf, -math.inf, "abc", None])
def test_bad_beta(beta):
    with pytest.raises(InvalidInput, match="beta"):
        thermodynamics(square(4), beta)


def test_largest_lattice_needs_no_bond_list():
    assert thermodynamics(square(MAX_LENGTH), 0.3).method == "kaufman"
