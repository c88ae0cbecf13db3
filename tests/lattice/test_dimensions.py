"""Lattices of any dimension: bonds against networkx, groups against all permutations, physics against autograd."""

import itertools
import math

import networkx
import numpy as np
import pytest
import torch

from isingflow import HubbardStratonovich
from isingflow.errors import IsingflowError
from isingflow.exact import enumeration, frontier
from isingflow.lattice import (
    chain,
    cubic,
    edwards_anderson,
    from_dict,
    hypercubic,
    hypercubic_torus_group,
    square,
)
from isingflow.lattice.permutations import hyperoctahedral
from isingflow.monte_carlo import simulate
from isingflow.observables import measure

LATTICES = [
    chain(6),
    chain(5, boundary="open"),
    cubic(3),
    cubic(2),
    hypercubic((2, 3, 4), boundary="open"),
    hypercubic((3, 2, 4), j=(1, 0.5, -2), boundary=("periodic", "open", "periodic")),
    hypercubic((2, 2, 2, 3)),
    edwards_anderson((2, 3, 3), seed=4),
    edwards_anderson((3, 3, 2), seed=1, boundary=("open", "periodic", "open")),
]
each_lattice = pytest.mark.parametrize("lattice", LATTICES, ids=str)


@each_lattice
def test_bonds_are_those_of_networkx(lattice):
    """Up to strengths: every pair of neighbours on the grid, doubled across a periodic length of 2."""
    graph = networkx.grid_graph(lattice.shape[::-1], periodic=[not end for end in lattice.open_axes[::-1]])
    number = {node: int(np.ravel_multi_index(np.atleast_1d(node), lattice.shape)) for node in graph}
    expected = {tuple(sorted((number[a], number[b]))) for a, b in graph.edges}
    assert {tuple(sorted(bond)) for bond in lattice.bonds.tolist()} == expected
    doubled = sum(
        lattice.sites // 2
        for length, end in zip(lattice.shape, lattice.open_axes, strict=True)
        if length == 2 and not end
    )
    assert len(lattice.bonds) == len(expected) + doubled


@each_lattice
def test_descriptions_and_couplings_survive(lattice):
    again = from_dict(lattice.to_dict())
    assert again == lattice and str(again) == str(lattice)
    assert np.array_equal(again.couplings(0.3), lattice.couplings(0.3))
    assert lattice.total_strength == pytest.approx(np.abs(lattice.strengths).sum())
    eigenvalues = np.sort(np.asarray(lattice.spectrum()).ravel())
    np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(lattice.couplings(1.0)), atol=1e-12)


@each_lattice
def test_every_element_of_the_group_leaves_the_couplings(lattice):
    matrix = lattice.couplings(1.0)
    for element in itertools.islice(lattice.symmetry.elements(), 200):
        permutation = element.permutation
        assert np.array_equal(matrix[permutation][:, permutation], matrix)


@pytest.mark.parametrize(("dimensions", "order"), [(1, 2), (2, 8), (3, 48), (4, 384)])
def test_point_groups_are_all_signed_permutations(dimensions, order):
    maps = [np.array(columns) for columns in hyperoctahedral(dimensions)]
    assert len({m.tobytes() for m in maps}) == order
    assert all(
        np.array_equal(np.abs(m).sum(0), np.ones(dimensions)) and abs(round(np.linalg.det(m))) == 1 for m in maps
    )


def test_the_cube_has_its_forty_eight_operations_and_its_orbits():
    group = hypercubic_torus_group((4, 4, 4))
    assert (group.order, str(group)) == (64 * 48 * 2, "translations x Oh x Z2")
    assert len(cubic(4, boundary="open").symmetry.point) == 48
    orbits = group.displacement_orbits()
    sites = np.indices((4, 4, 4)).reshape(3, -1).T
    shortest = np.sort(np.minimum(sites, 4 - sites), axis=1)
    assert len(np.unique(orbits)) == len(np.unique(shortest, axis=0))
    for label in np.unique(orbits):
        assert len(np.unique(shortest[orbits.ravel() == label], axis=0)) == 1
    assert np.array_equal(orbits, group.momentum_orbits())


def test_two_dimensions_are_the_square_lattice():
    for boundary in ("periodic", "open"):
        plane, known = hypercubic((4, 6), boundary=boundary), square(4, 6, boundary=boundary)
        assert np.array_equal(plane.couplings(0.4), known.couplings(0.4))
        assert plane.symmetry == known.symmetry


@each_lattice
def test_the_continuous_form_against_autograd_and_enumeration(lattice):
    target = HubbardStratonovich(lattice, 0.4)
    x = torch.randn(3, *lattice.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a = torch.from_numpy(lattice.couplings(0.4)) + target.offset * torch.eye(lattice.sites, dtype=torch.float64)
    flat = x.flatten(1)
    energy = (flat @ torch.linalg.inv(a) * flat).sum(1) / 2 - torch.log(torch.cosh(flat)).sum(1)
    torch.testing.assert_close(target.energy(x), energy)
    (slope,) = torch.autograd.grad(energy.sum(), x)
    torch.testing.assert_close(target.force(x), -slope)
    log_z = frontier.solve(lattice.sites, lattice.bonds, 0.4 * lattice.strengths)[0]
    if lattice.sites <= 24:
        assert log_z == pytest.approx(enumeration.solve(lattice.couplings(0.4))[0], rel=1e-12)
    assert target.mean_field().free_energy >= target.free_energy(log_z) - 1e-9


def test_correlations_of_a_cube_by_brute_force():
    lattice = hypercubic((2, 3, 3), boundary=("open", "periodic", "open"))
    found = simulate(lattice, 0.3, samples=40, chains=2, seed=0).spins.reshape(-1, *lattice.shape).astype(float)
    measured = measure(lattice, 0.3, spins=found.astype(np.int8))
    for displacement in itertools.product(range(2), range(3), range(3)):
        products = []
        for site in itertools.product(range(2), range(3), range(3)):
            there = [a + d for a, d in zip(site, displacement, strict=True)]
            there[1] %= 3
            if there[0] < 2 and there[2] < 3:
                products.append((found[:, *site] * found[:, *there]).mean())
        assert measured.correlations.value[displacement] == pytest.approx(np.mean(products), abs=1e-12)
    factor = (np.abs(np.fft.fftn(found, axes=(1, 2, 3))) ** 2).mean(0) / 18
    np.testing.assert_allclose(measured.structure_factor.value, factor, atol=1e-10)


def test_the_correlation_length_of_a_ring():
    """G(r) = (v^r + v^(L-r)) / (1 + v^L), v = tanh K, and the second moment of it."""
    beta, length = 0.8, 12
    v = math.tanh(beta)
    g = np.array([(v**r + v ** (length - r)) / (1 + v**length) for r in range(length)])
    factor = np.fft.fft(g).real
    xi = math.sqrt(factor[0] / factor[1] - 1) / (2 * math.sin(math.pi / length))
    states = simulate(chain(length), beta, samples=4000, chains=8, seed=2)
    found = measure(chain(length), beta, spins=states.spins)
    assert abs(found.correlation_length.value - xi) < 4 * found.correlation_length.stderr
    np.testing.assert_array_less(
        np.abs(found.correlation_function.value[1:] - g[1 : length // 2 + 1]), 4 * found.correlation_function.stderr[1:]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: hypercubic(()),
        lambda: hypercubic((2,) * 7),
        lambda: hypercubic((4, 1, 4)),
        lambda: hypercubic(4),
        lambda: hypercubic((4, 4, 4), boundary=("open", "periodic")),
        lambda: hypercubic((4, 4, 4), boundary="closed"),
        lambda: hypercubic((4, 4, 4), j=(1, 1)),
        lambda: hypercubic((4, 4, 4), j=(1, 1, math.nan)),
        lambda: hypercubic((2, 2), j=(np.ones((2, 3)), 1)),
        lambda: cubic(1),
        lambda: chain(8, j=math.inf),
        lambda: edwards_anderson((4, 4, 4), 4, seed=0),
        lambda: edwards_anderson((4,) * 7, seed=0),
        lambda: from_dict({**cubic(3).to_dict(), "shape": [3] * 7}),
    ],
)
def test_bad_lattices_are_refused(make):
    with pytest.raises(IsingflowError):
        make()
