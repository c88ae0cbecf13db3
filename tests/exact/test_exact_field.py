"""Exact answers in a field, against sums over all states with the energy written out, and against each other."""

import itertools
import math

import networkx
import numpy as np
import pytest

from isingflow.errors import NoExactSolution
from isingflow.exact import averages, enumeration, moments, thermodynamics, transfer_matrix
from isingflow.lattice import edwards_anderson, from_graph, random_field, square, triangular

LATTICES = {
    "uniform": square(3).with_field(0.2),
    "long": square(2, 5).with_field(-0.4),
    "random": random_field(square(3, 4), 0.7, seed=2),
    "open": random_field(square(4, 3, boundary="open"), 1.3, seed=1),
    "glass": edwards_anderson(3, seed=1).with_field(np.linspace(-1, 1, 9).reshape(3, 3)),
    "triangular": triangular(3).with_field(0.1),
    "graph": from_graph(networkx.petersen_graph()).with_field(np.linspace(0, 1, 10)),
    "parts": from_graph(networkx.Graph([(0, 1), (2, 3), (3, 4)])).with_field([0.3, 0.1, -0.2, 0.5, 0.4]),
}
GRIDS = ("uniform", "long", "random", "open", "glass")
cases = pytest.mark.parametrize("name", LATTICES)


def summed(of, beta):
    """ln Z, <E>, Var E, <M>, <m^2>, <|m|> and <s_i s_j> by adding up all states."""
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=of.sites)))
    energies = np.zeros(len(states))
    for (a, b), strength in zip(of.bonds, of.strengths, strict=True):
        energies -= strength * states[:, a] * states[:, b]
    energies -= states @ of.field_by_site.ravel()
    weights = np.exp(-beta * energies)
    z = weights.sum()
    weights /= z
    mean, m = weights @ energies, states.mean(1)
    pairs = np.einsum("n,ni,nj->ij", weights, states, states)
    return math.log(z), mean, weights @ (energies - mean) ** 2, weights @ m, weights @ m**2, weights @ abs(m), pairs


@cases
@pytest.mark.parametrize("beta", [-0.4, 0.0, 0.6])
def test_thermodynamics_and_moments(name, beta):
    of = LATTICES[name]
    log_z, energy, variance, m, square_of_m, absolute, pairs = summed(of, beta)
    found, moment = thermodynamics(of, beta), moments(of, beta)
    n = of.sites
    assert found.log_z == pytest.approx(log_z, rel=1e-13)
    assert found.magnetisation_per_site == pytest.approx(m, abs=1e-14)
    assert found.heat_capacity_per_site == pytest.approx(beta**2 * variance / n, rel=1e-12)
    if beta != 0:
        assert found.energy_per_site == pytest.approx(energy / n, rel=1e-12)
    assert (moment.magnetisation, moment.magnetisation_squared, moment.magnetisation_abs) == pytest.approx(
        (m, square_of_m, absolute), abs=1e-14
    )
    assert moment.correlation.sum() == pytest.approx(n * square_of_m if of.boundary == "periodic" else pairs.sum())
    if of.kind == "graph":
        np.testing.assert_allclose(moment.correlation, pairs, atol=1e-14)
    known = averages(of, beta)
    assert known["magnetisation"] == pytest.approx(m, abs=1e-14)
    assert known["susceptibility"] == pytest.approx(n * (square_of_m - m**2), abs=1e-12)


@pytest.mark.parametrize("name", GRIDS)
def test_transfer_matrix_enumeration_and_ghost_agree(name):
    of, beta = LATTICES[name], 0.5
    fields = beta * of.field_by_site
    kx, ky = (beta * np.broadcast_to(np.asarray(j), of.shape).copy() for j in (of.jx, of.jy))
    if of.boundary == "open":
        kx[-1], ky[:, -1] = 0, 0
    strip = transfer_matrix.polarised(kx, ky, fields)
    states = enumeration.polarised(of.couplings(beta), fields.ravel())
    assert strip == pytest.approx(states, rel=1e-12)
    # the ghost: one more spin, bonded to all; twice the states, no fields
    ghost = np.zeros((of.sites + 1,) * 2)
    ghost[:-1, :-1], ghost[-1, :-1], ghost[:-1, -1] = of.couplings(beta), fields.ravel(), fields.ravel()
    log_z, mean, variance = enumeration.solve(ghost)
    assert (log_z - math.log(2), mean, variance) == pytest.approx(strip[:3], rel=1e-12)


@pytest.mark.parametrize("of", [square(6, boundary="open"), square(5), edwards_anderson(5, 6, seed=1)], ids=str)
def test_magnetisation_and_energy_are_derivatives(of):
    """Beyond enumeration: finite differences of ln Z by H and by beta, of the transfer matrix."""
    beta, field, step = 0.45, 0.07, 1e-5
    found = thermodynamics(of, beta, field)
    assert found.method == "transfer-matrix" and found == thermodynamics(of.with_field(field), beta)

    def slope(function):
        return (function(step).log_z - function(-step).log_z) / (2 * step * of.sites)

    by_field = slope(lambda d: thermodynamics(of, beta, field + d))
    assert found.magnetisation_per_site == pytest.approx(by_field / beta, rel=1e-7)
    assert found.energy_per_site == pytest.approx(-slope(lambda d: thermodynamics(of, beta + d, field)), rel=1e-7)


def test_no_bonds_no_correlation():
    of = square(3, 40, jx=0, jy=0, boundary="open")
    found = thermodynamics(of, 0.5, 0.8)
    assert found.log_z_per_site == pytest.approx(math.log(2 * math.cosh(0.4)), rel=1e-14)
    assert found.magnetisation_per_site == pytest.approx(math.tanh(0.4), rel=1e-14)


def test_a_ring_is_the_closed_form():
    """One dimension: lambda = e^K cosh h +- sqrt(e^2K sinh^2 h + e^-2K), m of the larger one alone on a long ring."""
    k, h, sites = 0.7, 0.3, 60
    ring = np.full((sites, 1), k), np.zeros((sites, 1))
    log_z, _, _, total = transfer_matrix.polarised(*ring, np.full((sites, 1), h))
    root = math.sqrt(math.exp(2 * k) * math.sinh(h) ** 2 + math.exp(-2 * k))
    larger, smaller = (math.exp(k) * math.cosh(h) + sign * root for sign in (1, -1))
    assert log_z == pytest.approx(sites * math.log(larger) + math.log1p((smaller / larger) ** sites), rel=1e-13)
    assert total / sites == pytest.approx(math.exp(k) * math.sinh(h) / root, rel=1e-9)


@pytest.mark.parametrize("of", [square(64), square(14), edwards_anderson(20, seed=0), triangular(14)], ids=str)
def test_where_there_is_no_method(of):
    with pytest.raises(NoExactSolution, match="possible are"):
        thermodynamics(of, 0.4, 0.1)
    assert thermodynamics(square(64), 0.4, 0).method == "kaufman"
    assert thermodynamics(square(64), 0.4).magnetisation_per_site == 0
