"""One table of magnets of all kinds, and what holds for each of them: a new kind of magnet is a line here.

All truth is from `in_three_parts`, which shares nothing with the package: the sites are cut into three parts, and Z is
a trace of three matrices over the states of these.
"""

import itertools
import math
from functools import cache

import networkx
import numpy as np
import pytest
import torch

from isingflow.exact import thermodynamics
from isingflow.exact.frontier import solve as swept
from isingflow.flows import gradient_flows
from isingflow.lattice import (
    CRITICAL_BETA,
    chain,
    cubic,
    edwards_anderson,
    from_graph,
    hypercubic,
    random_field,
    square,
    triangular,
)
from isingflow.monte_carlo import simulate
from isingflow.runs.config import RunConfig
from isingflow.targets import HubbardStratonovich
from isingflow.testing.laws import shaken

CHAINS = 48
STEP = 2e-3
"""Of differences that stand for derivatives."""


def petersen(fields=False):
    """With normal couplings, and fields on its nodes if they are to have some."""
    graph, rng = networkx.petersen_graph(), np.random.default_rng(1)
    for edge in graph.edges:
        graph.edges[edge]["coupling"] = float(rng.normal())
    for node in graph if fields else ():
        graph.nodes[node]["field"] = float(rng.normal())
    return from_graph(graph)


MAGNETS = {
    "open": (square(4, boundary="open"), CRITICAL_BETA),
    "glass": (edwards_anderson(4, seed=1), 0.7),
    "graph": (petersen(), 1.0),
    "fields on nodes": (petersen(fields=True), 0.8),
    "triangular": (triangular(3, 4), 0.25),
    "triangular, frustrated": (triangular(3), -0.4),
    "cubic": (cubic(3), 0.22),
    "mixed boundaries": (hypercubic((3, 2, 4), j=(1, 0.5, -0.7), boundary=("periodic", "open", "periodic")), 0.4),
    "ring": (chain(25), 0.6),
    "open chain, negative": (chain(11, j=-1.0, boundary="open"), 0.7),
    "frustrated ring": (chain(9, j=-1.0), 0.9),
    "two that are bonded twice": (chain(2).with_field(0.3), 0.5),
    "honeycomb": (from_graph(networkx.hexagonal_lattice_graph(2, 2)), 0.6),
    "field": (square(4).with_field(0.2), 0.4),
    "random field": (random_field(square(3, 4), 0.6, seed=2), 0.5),
    "glass in a field": (edwards_anderson((2, 3, 3), seed=4).with_field(-0.3), 0.5),
}
FRUSTRATED = {"glass", "graph", "fields on nodes", "triangular, frustrated", "frustrated ring", "random field",
              "glass in a field"}  # fmt: skip
"""Where no choice of spin signs makes everything a ferromagnet, so that no clusters can be flipped."""
each = pytest.mark.parametrize("name", MAGNETS)


@cache
def parts_of(sites):
    """Three parts of the sites, and the states of each."""
    parts = np.array_split(np.arange(sites), 3)
    return parts, [np.array(list(itertools.product((-1.0, 1.0), repeat=len(part)))) for part in parts]


def in_three_parts(lattice, beta, field=0.0):
    """ln Z with `field` added to beta H on every site: the trace of A B C, A over the states of parts 1 and 2, ..."""
    parts, states = parts_of(lattice.sites)
    couplings = np.zeros((lattice.sites,) * 2)
    np.add.at(couplings, tuple(lattice.bonds.T), beta * lattice.strengths)
    couplings += couplings.T
    tilt = beta * lattice.field_by_site.ravel() + field
    product, log_z = None, 0.0
    for one, two in ((0, 1), (1, 2), (2, 0)):
        of, within = states[one], couplings[np.ix_(parts[one], parts[one])]
        exponents = (of @ within * of).sum(1)[:, None] / 2 + (of @ tilt[parts[one]])[:, None]
        exponents = exponents + of @ couplings[np.ix_(parts[one], parts[two])] @ states[two].T
        log_z += exponents.max()
        matrix = np.exp(exponents - exponents.max())
        product = matrix if product is None else product @ matrix
    return log_z + math.log(np.trace(product))


def slopes(function, step):
    """The first and second derivative at 0, to fourth order."""
    far, up, here, down, back = (function(step * n) for n in (2, 1, 0, -1, -2))
    return (8 * (up - down) - far + back) / (12 * step), (16 * (up + down) - far - back - 30 * here) / (12 * step**2)


@each
def test_force_and_energy_against_autograd_of_the_dense_formula(name):
    lattice, beta = MAGNETS[name]
    target = HubbardStratonovich(lattice, beta)
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(4, *lattice.shape, dtype=torch.float64, generator=generator)).requires_grad_()
    a = torch.from_numpy(lattice.couplings(beta)) + target.offset * torch.eye(lattice.sites, dtype=torch.float64)
    flat, tilt = x.flatten(1), torch.from_numpy(beta * lattice.field_by_site.ravel())
    energy = (flat * torch.linalg.solve(a, flat.T).T).sum(1) / 2 - torch.log(torch.cosh(flat + tilt)).sum(1)
    (slope,) = torch.autograd.grad(energy.sum(), x)
    torch.testing.assert_close(target.energy(x), energy, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(target.force(x), -slope, rtol=1e-9, atol=1e-9)
    (own,) = torch.autograd.grad(target.energy(x).sum(), x)
    torch.testing.assert_close(target.force(x), -own, rtol=1e-9, atol=1e-9)


@each
def test_log_z_energy_and_heat_capacity_by_three_methods(name):
    lattice, beta = MAGNETS[name]
    found = thermodynamics(lattice, beta)
    fields = None if lattice.field is None else beta * lattice.field_by_site.ravel()
    log_z, mean, variance, total = swept(lattice.sites, lattice.bonds, beta * lattice.strengths, fields)
    assert found.log_z == pytest.approx(log_z, rel=1e-12)
    assert found.log_z == pytest.approx(in_three_parts(lattice, beta), rel=1e-12)
    assert found.energy_per_site == pytest.approx(-mean / beta / lattice.sites, rel=1e-10)
    assert found.heat_capacity_per_site == pytest.approx(variance / lattice.sites, rel=1e-9)
    first, second = slopes(lambda change: in_three_parts(lattice, beta + change), STEP)
    assert found.energy_per_site == pytest.approx(-first / lattice.sites, rel=1e-6)
    assert found.heat_capacity_per_site == pytest.approx(beta**2 * second / lattice.sites, rel=1e-5)
    first, _ = slopes(lambda change: in_three_parts(lattice, beta, change), STEP)
    assert found.magnetisation_per_site == pytest.approx(first / lattice.sites, rel=1e-6, abs=1e-10)
    assert total == pytest.approx(found.magnetisation_per_site * lattice.sites, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        (name, sampler)
        for name in MAGNETS
        for sampler in ("wolff", "swendsen-wang", "heat-bath", "tempering")
        if name not in FRUSTRATED or sampler in ("heat-bath", "tempering")
    ],
)
def test_samplers_against_the_sum_over_states(name, sampler):
    lattice, beta = MAGNETS[name]
    n = lattice.sites
    energy = -slopes(lambda change: in_three_parts(lattice, beta + change), STEP)[0]
    first, second = slopes(lambda change: in_three_parts(lattice, beta, change), STEP)
    found = simulate(lattice, beta, samples=300, chains=CHAINS, sampler=sampler, thermalise=100, seed=3, threads=1)
    for values, exact in (
        (found.energy, energy),
        (found.magnetisation, first / n),
        (found.magnetisation**2, (second + first**2) / n**2),
    ):
        means = values.mean(1)
        assert abs(means.mean() - exact) < 4 * means.std(ddof=1) / math.sqrt(CHAINS)


@each
def test_densities_of_preset_flows_are_invariant_under_the_whole_group(name):
    lattice, beta = MAGNETS[name]
    target = HubbardStratonovich(lattice, beta)
    flow = shaken(RunConfig.from_preset("quick", lattice, beta).new_flow(target), 0.1, seed=0).double().eval()
    for part in gradient_flows(flow):
        part.steps = 3  # the law is one of the map as it is computed, however coarsely
    x = 1.5 * torch.randn(lattice.sites, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    images = torch.stack([element.sign * x[element.permutation.copy()] for element in target.symmetry.elements()])
    assert len(images) == target.symmetry.order
    with torch.no_grad():
        log_prob = flow.log_prob(images.view(-1, *lattice.shape))
        start = torch.stack([target.energy(image.view(lattice.shape)) for image in images[:100]])
    torch.testing.assert_close(log_prob, log_prob[:1].expand(len(images)), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(start, start[:1].expand(len(start)), rtol=1e-10, atol=1e-10)
    blank = RunConfig.from_preset("quick", lattice, beta).new_flow(target).double().eval()
    with torch.no_grad():
        moved = (blank.log_prob(images[:1].view(1, *lattice.shape)) - log_prob[0]).abs()
    assert moved > 1e-3  # what was perturbed is seen
