"""Monte Carlo: every sampler against all states of small lattices, streams and threads, gauges, bad input."""

import itertools
import math
import sys
from functools import cache

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isingflow.errors import InvalidInput
from isingflow.exact import thermodynamics
from isingflow.lattice import CRITICAL_BETA, Lattice, edwards_anderson, from_graph, square, triangular
from isingflow.monte_carlo import SAMPLERS, simulate, stream, tempering
from isingflow.monte_carlo.couplings import Couplings
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

CLUSTER_SAMPLERS = ("wolff", "swendsen-wang")
LOCAL_SAMPLERS = ("metropolis", "heat-bath", "tempering")


def random_graph(signs: bool) -> Lattice:
    rng = np.random.default_rng(3)
    graph = networkx.gnm_random_graph(9, 14, seed=4)
    graph.add_node("alone")
    for _, _, attributes in graph.edges(data=True):
        attributes["coupling"] = rng.normal() if signs else rng.exponential()
    return from_graph(graph)


FERROMAGNETS = {
    "torus": square(4),
    "open": square(3, 4, boundary="open"),
    "triangular": triangular(3, 4),
    "doubled bonds": square(2, 4, jy=0.5),
    "graph": random_graph(signs=False),
    "antiferromagnet": square(4, jx=-1.0, jy=-1.0),
}
FRUSTRATED = {
    "glass": edwards_anderson(4, seed=1),
    "triangular": triangular(3, 3),
    "graph": random_graph(signs=True),
}


@cache
def all_states(of: Lattice) -> np.ndarray:
    return np.array(list(itertools.product([-1, 1], repeat=of.sites)), dtype=np.int8)


def energies(of: Lattice, spins: np.ndarray) -> np.ndarray:
    """Energies bond by bond, shape (...), of states of shape (..., N)."""
    return -(spins[..., of.bonds[:, 0]] * spins[..., of.bonds[:, 1]]).astype(float) @ of.strengths


@cache
def probabilities(of: Lattice, beta: float) -> np.ndarray:
    """Boltzmann probabilities of `all_states`."""
    exponents = -beta * energies(of, all_states(of))
    weights = np.exp(exponents - exponents.max())
    return weights / weights.sum()


def deviation(values: np.ndarray, exact: float) -> float:
    """Standard errors between a mean over independent chains, shape (chains, samples), and the exact one."""
    means = values.mean(axis=1)
    return (means.mean() - exact) / (means.std(ddof=1) / math.sqrt(len(means)))


CASES = [
    *((sampler, of, beta) for sampler in SAMPLERS for of in FERROMAGNETS.values() for beta in (0.15, 0.6)),
    *((sampler, of, beta) for sampler in LOCAL_SAMPLERS for of in FRUSTRATED.values() for beta in (0.4, -0.8)),
]


@pytest.mark.parametrize(("sampler", "of", "beta"), CASES, ids=lambda value: str(value))
def test_averages_agree_with_all_states(sampler, of, beta):
    found = simulate(of, beta, samples=400, chains=32, sampler=sampler, thermalise=200, seed=1, threads=1)
    assert found.sampler == sampler
    assert found.beta == beta
    states, weights = all_states(of), probabilities(of, beta)
    magnetisation = states.mean(axis=1)
    assert abs(deviation(found.energy, weights @ energies(of, states))) < 4
    assert abs(deviation(found.magnetisation**2, weights @ magnetisation**2)) < 4
    assert abs(deviation(found.magnetisation, 0.0)) < 4


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_every_state_has_its_probability(sampler, beta):
    of = square(2, 3, jx=0.3, boundary="open")
    found = simulate(of, beta, samples=1500, chains=16, sampler=sampler, every=10, thermalise=50, seed=2, threads=1)
    codes = (found.spins.reshape(-1, 6) > 0) @ (2 ** np.arange(5, -1, -1))
    expected = codes.size * probabilities(of, beta)
    observed = np.bincount(codes, minlength=64)
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    assert stats.chisquare(observed[kept], expected[kept]).pvalue > 1e-3


@pytest.mark.parametrize("sampler", CLUSTER_SAMPLERS)
def test_critical_energy_agrees_with_kaufman(sampler):
    """Large clusters, in which every site must have found the others."""
    of = square(24)
    found = simulate(of, CRITICAL_BETA, samples=600, chains=16, sampler=sampler, thermalise=100, seed=1, threads=1)
    exact = thermodynamics(of, CRITICAL_BETA).energy_per_site
    assert abs(deviation(found.energy / of.sites, exact)) < 4


def test_free_spins_forget_the_parity_of_their_start():
    for sampler in SAMPLERS:
        found = simulate(square(4), 0.0, samples=200, chains=8, sampler=sampler, seed=1, threads=1)
        odd = (found.spins > 0).sum(axis=(2, 3)) % 2
        assert abs(deviation(odd, 0.5)) < 4
        assert np.all(odd.std(axis=1) > 0.4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("of", [square(2, 4, jx=0.5, jy=-1.5), random_graph(signs=False)], ids=str)
def test_what_is_recorded_belongs_to_the_spins(sampler, of):
    found = simulate(of, 0.4, samples=5, chains=3, sampler=sampler, thermalise=5, threads=1)
    assert found.spins.shape == (3, 5, *of.shape)
    assert found.spins.dtype == np.int8
    assert np.all(np.abs(found.spins) == 1)
    spins = found.spins.reshape(3, 5, -1)
    np.testing.assert_allclose(found.energy, energies(of, spins), atol=1e-12)
    np.testing.assert_allclose(found.magnetisation, spins.mean(axis=-1), atol=1e-15)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_threads_and_blocks_do_not_change_the_numbers(sampler, monkeypatch):
    options = {"samples": 7, "chains": 5, "sampler": sampler, "every": 2, "thermalise": 9, "seed": 3}
    whole = simulate(square(4, 6), 0.4, threads=1, **options)
    monkeypatch.setattr(sys.modules["isingflow.monte_carlo.simulate"], "_BLOCK_UPDATES", 600)
    blocks = list(stream(square(4, 6), 0.4, threads=3, **options))
    assert len(blocks) > 1
    for name in ("spins", "energy", "magnetisation"):
        joined = np.concatenate([getattr(block, name) for block in blocks], axis=1)
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_seeds_and_chains_differ_and_chains_do_not_depend_on_their_number():
    def run(**options) -> np.ndarray:
        return simulate(square(8), 0.3, samples=3, sampler="swendsen-wang", thermalise=5, threads=1, **options).spins

    few, many, other = run(chains=2, seed=1), run(chains=4, seed=1), run(chains=2, seed=2)
    np.testing.assert_array_equal(few, many[:2])
    assert np.any(few[0] != few[1])
    assert np.any(few[0] != other[0])


def test_progress_counts_sweeps(monkeypatch):
    monkeypatch.setattr(sys.modules["isingflow.monte_carlo.simulate"], "_BLOCK_UPDATES", 16 * 4 * 10)
    reports = []
    options = {"samples": 8, "every": 5, "chains": 4, "thermalise": 25, "threads": 1, "sampler": "heat-bath"}
    simulate(square(4), 0.3, report_progress=lambda *counts: reports.append(counts), **options)
    assert [done for done, _ in reports] == [10, 20, 25, 35, 45, 55, 65]
    assert {total for _, total in reports} == {65}


@pytest.mark.parametrize(
    ("of", "beta", "sampler"),
    [
        (square(4), 0.4, "wolff"),
        (square(4), -0.4, "wolff"),
        (square(4, boundary="open"), 0.4, "swendsen-wang"),
        (square(3), -0.4, "tempering"),
        (square(3), 0.0, "wolff"),
        (edwards_anderson(4, seed=1), 0.4, "tempering"),
    ],
)
def test_the_sampler_chosen(of, beta, sampler):
    assert simulate(of, beta, samples=1, chains=1, thermalise=1, threads=1).sampler == sampler


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=25)
def test_a_gauge_changes_nothing_but_the_spins(seed, periodic):
    """Couplings eps_i J_ij eps_j: the same chain, with spins eps_i s_i up to the signs of unconnected parts."""
    rng = np.random.default_rng(seed)
    eps = rng.choice([-1, 1], size=(4, 5))
    jx, jy = rng.exponential(size=(2, 4, 5)) * (rng.random((2, 4, 5)) < 0.8)
    boundary = "periodic" if periodic else "open"
    plain = square(4, 5, jx=jx, jy=jy, boundary=boundary)
    gauged = square(4, 5, jx=jx * eps * np.roll(eps, -1, 0), jy=jy * eps * np.roll(eps, -1, 1), boundary=boundary)
    options = {"samples": 4, "chains": 2, "sampler": "swendsen-wang", "thermalise": 3, "seed": seed, "threads": 1}
    before, after = simulate(plain, 0.5, **options), simulate(gauged, 0.5, **options)
    np.testing.assert_array_equal(before.energy, after.energy)
    signs = before.spins * after.spins * eps
    assert np.all(signs == signs[0, 0])


@pytest.mark.parametrize("sampler", CLUSTER_SAMPLERS)
@pytest.mark.parametrize(("of", "beta"), [(triangular(3), -0.4), (edwards_anderson(4, seed=1), 1.0), (square(3), -1.0)])
def test_clusters_refuse_frustrated_couplings_and_name_those_who_can(sampler, of, beta):
    with pytest.raises(InvalidInput, match=f"sampler {sampler}: .*frustrated.* metropolis, heat-bath, tempering$"):
        simulate(of, beta, samples=1, sampler=sampler)


def test_bonds_that_cancel_do_not_frustrate():
    graph = networkx.MultiGraph([(0, 1), (1, 2), (2, 0)])
    graph.add_edge(0, 1, coupling=-1.0)
    assert simulate(from_graph(graph), 0.4, samples=1, sampler="wolff", threads=1).sampler == "wolff"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples is 0, expected an integer >= 1"),
        ({"samples": -5}, "samples is -5"),
        ({"samples": 2.5}, "samples is 2.5"),
        ({"chains": 0}, "chains is 0"),
        ({"every": 0}, "every is 0"),
        ({"thermalise": 0}, "thermalise is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": True}, "threads is True"),
        ({"seed": -1}, "seed is -1, expected an integer from 0 to"),
        ({"seed": None}, "seed is None"),
        (
            {"sampler": "gibbs"},
            "sampler is 'gibbs', expected wolff, swendsen-wang, metropolis, heat-bath or tempering",
        ),
        ({"beta": math.nan}, "beta is nan"),
        ({"beta": 1e308}, "overflows"),
        (
            {"chains": 10**10},
            r"one sample of each of 10000000000 chains of periodic 4x4 needs \d+ GiB of memory, .* are free",
        ),
        ({"samples": 10**12, "every": 10**3}, r"would take 4.06 years and more"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options, message):
    arguments = {"beta": 0.4, "samples": 1} | options
    with pytest.raises(InvalidInput, match=message):
        stream(square(4), **arguments)


def test_memory_and_temperatures_that_cannot_be_are_refused_before_they_are_tried(monkeypatch):
    with pytest.raises(InvalidInput, match=r"needs \d+ TiB of memory, .* are free: fewer samples"):
        simulate(square(64), 0.4, samples=10**10, chains=8)
    with pytest.raises(InvalidInput, match=r"one sample of each of 100000 chains .* needs .* of memory"):
        stream(square(4096), 0.4, samples=1, chains=10**5)
    monkeypatch.setattr(tempering, "LOOK_AHEAD", 50)
    with pytest.raises(InvalidInput, match=r"would need about .*e\+.. temperatures, more than 10000"):
        simulate(edwards_anderson(8, seed=1), 1e6, samples=1, chains=1, sampler="tempering")


def test_the_ladder_spaces_temperatures_by_the_energys_spread():
    of = square(6)
    model = Couplings.of(of, CRITICAL_BETA)
    betas = tempering.ladder(model.graph, model.bonds, CRITICAL_BETA, np.random.default_rng(0))
    assert betas[0] == 0
    assert betas[-1] == CRITICAL_BETA
    assert np.all(np.diff(betas) > 0)
    # At beta = 0 the energy's variance is the sum of J^2 over bonds.
    assert betas[1] == pytest.approx(1 / math.sqrt(72), rel=0.4)
    mirrored = Couplings.of(of, -1.0)
    assert np.all(np.diff(tempering.ladder(mirrored.graph, mirrored.bonds, -1.0, np.random.default_rng(0))) < 0)
    np.testing.assert_array_equal(tempering.ladder(model.graph, model.bonds, 0.0, np.random.default_rng(0)), [0.0])


def test_tempering_leaves_a_valley_where_the_heat_bath_stays():
    of, beta = square(4, jx=1.0, jy=1.0), 1.5
    options = {"samples": 300, "chains": 8, "thermalise": 100, "threads": 1}
    stuck, free = (simulate(of, beta, sampler=name, **options) for name in ("heat-bath", "tempering"))
    assert np.abs(stuck.magnetisation.mean(axis=1)).min() > 0.9
    assert np.abs(free.magnetisation.mean(axis=1)).max() < 0.6


def test_fields_drawn_from_the_spins_have_the_moments_of_the_continuous_model():
    """<x x^T> = A + A <s s^T> A for x | s ~ Normal(A s, A)."""
    of, beta = square(2, 3), 0.3
    target = HubbardStratonovich(of, beta)
    found = simulate(of, beta, samples=2000, chains=16, seed=5, threads=1)
    spins = torch.from_numpy(found.spins).double()
    torch.manual_seed(0)
    fields = target.sample_field(spins).flatten(-2).numpy()
    a = of.couplings(beta) + target.offset * np.eye(6)
    states = all_states(of)
    correlations = states.T @ (states * probabilities(of, beta)[:, None])
    expected = a + a @ correlations @ a
    for i, j in itertools.combinations_with_replacement(range(6), 2):
        assert abs(deviation(fields[..., i] * fields[..., j], expected[i, j])) < 4.5


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "of",
    [square(12), square(12, jx=-1.0, jy=-1.0), square(12).with_field(0.5), square(12, jx=-1.0)],
    ids=str,
)
def test_chains_begin_with_the_states_that_are_given(of, sampler):
    """Near zero temperature a ground state stays one; from random states a sweep does not get there."""
    x, y = np.indices(of.shape)
    signs = np.sign([of.jx, of.jy])
    state = np.where(signs[0] < 0, (-1) ** x, 1) * np.where(signs[1] < 0, (-1) ** y, 1)
    start = np.broadcast_to(state, (3, *of.shape))
    lowest = -2 * of.sites - (0.5 * of.sites if of.field else 0)
    options = {"samples": 1, "chains": 3, "sampler": sampler, "thermalise": 1}
    found = simulate(of, 20.0, start=start, **options)
    assert found.energy.ravel().tolist() == [lowest] * 3
    if sampler in LOCAL_SAMPLERS[:2] and of.field is None:
        assert simulate(of, 20.0, **options).energy.min() > lowest


@pytest.mark.parametrize("start", [np.ones((2, 4, 4)), np.zeros((3, 4, 4)), np.full((3, 4, 4), 0.5), "up", np.ones(48)])
def test_states_to_begin_with_are_checked(start):
    with pytest.raises(InvalidInput, match="start"):
        simulate(square(4), 0.3, samples=1, chains=3, start=start)
