"""Observables: every state of small lattices against brute force, improved estimators against their definition."""

import json
import math
import sys
from functools import cache

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow.errors import InvalidInput
from isingflow.exact import thermodynamics
from isingflow.lattice import edwards_anderson, from_graph, random_field, square, triangular
from isingflow.observables import measure, per_sample
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

KEYS = [
    "energy_per_site",
    "heat_capacity_per_site",
    "magnetisation_abs",
    "magnetisation_squared",
    "magnetisation_fourth",
    "binder",
    "susceptibility",
    "correlation_length",
    "correlation_function",
    "structure_factor",
]
SCALARS = KEYS[:-2]

LATTICES = {
    "square": square(3),
    "rectangular": square(2, 4),
    "4x4": square(4),
    "anisotropic": square(4, 3, jx=0.7, jy=1.6),
    "antiferromagnetic": square(4, jx=-1.0, jy=-1.0),
    "open": square(4, 3, boundary="open"),
    "open and long": square(2, 5, boundary="open"),
    "triangular": triangular(3),
    "glass": edwards_anderson(3, 4, seed=1),
    "open glass": edwards_anderson(4, 3, seed=2, boundary="open"),
    "graph": from_graph(networkx.petersen_graph()),
    "in a field": square(3).with_field(0.3),
    "in a random field": random_field(square(4, 3, boundary="open"), 0.8, seed=1),
    "graph in a field": from_graph(networkx.petersen_graph()).with_field(np.linspace(-0.5, 1, 10)),
}
every_lattice = pytest.mark.parametrize("name", LATTICES)


def rng(seed=0):
    return np.random.default_rng(seed)


@cache
def every_state(shape):
    """All 2^N states, shape (2^N, *shape)."""
    sites = math.prod(shape)
    bits = (np.arange(2**sites)[:, None] >> np.arange(sites)) & 1
    return (2 * bits - 1).astype(np.int8).reshape(-1, *shape)


def total_energy(lattice, spins):
    """E of every state, bond by bond, and in the external field."""
    flat = spins.reshape(len(spins), -1).astype(float)
    in_field = -flat @ lattice.field_by_site.ravel()
    return in_field - sum(
        j * flat[:, a] * flat[:, b] for (a, b), j in zip(lattice.bonds, lattice.strengths, strict=True)
    )


def displaced(lattice, spins, dx, dy):
    """s(x, y) s(x + dx, y + dy) over all pairs that the boundary allows, shape (n, pairs)."""
    lx, ly = lattice.shape
    if lattice.boundary == "open":
        product = spins[:, : lx - dx, : ly - dy].astype(float) * spins[:, dx:, dy:]
    else:
        product = spins.astype(float) * np.roll(spins, (-dx, -dy), (1, 2))
    return product.reshape(len(spins), -1)


def brute_force(lattice, beta, spins, weights):
    """Every observable from its definition, without Fourier transforms and cumulants."""
    weights = weights / weights.sum()
    energy, m = total_energy(lattice, spins), spins.reshape(len(spins), -1).mean(1)
    second, fourth = weights @ m**2, weights @ m**4
    answers = {
        "energy_per_site": weights @ energy / lattice.sites,
        "heat_capacity_per_site": beta**2 * (weights @ energy**2 - (weights @ energy) ** 2) / lattice.sites,
        "magnetisation_abs": weights @ np.abs(m),
        "magnetisation_squared": second,
        "magnetisation_fourth": fourth,
        "binder": 1 - fourth / (3 * second**2),
        "susceptibility": lattice.sites * second,
    }
    if lattice.field is not None:
        answers |= {"magnetisation": weights @ m, "susceptibility": lattice.sites * (second - (weights @ m) ** 2)}
    if len(lattice.shape) == 1:
        return answers
    lx, ly = lattice.shape
    length = max(lx, ly)
    correlations = np.array(
        [[weights @ displaced(lattice, spins, dx, dy).mean(1) for dy in range(ly)] for dx in range(lx)]
    )
    x, y = np.indices((lx, ly))
    waves = np.array(
        [[np.exp(-2j * np.pi * (kx * x / lx + ky * y / ly)) for ky in range(ly)] for kx in range(lx)]
    ).reshape(lx, ly, -1)
    amplitudes = np.abs(spins.reshape(len(spins), -1) @ waves.reshape(lx * ly, -1).T) ** 2
    factor = (weights @ amplitudes).reshape(lx, ly) / lattice.sites
    along = [g for g in (correlations[:, 0], correlations[0]) if len(g) == length]
    connected = factor
    if lattice.field is not None:
        mean = weights @ spins.reshape(len(spins), -1)
        mean = np.full(lattice.sites, mean.mean()) if lattice.translation_invariant else mean
        connected = factor - np.abs(waves @ mean) ** 2 / lattice.sites
    smallest = [s for s, l in ((connected[1, 0], lx), (connected[0, 1], ly)) if l == length]
    excess = connected[0, 0] / np.mean(smallest) - 1
    spacing = math.sqrt(0.75) if lattice.kind == "triangular" else 1
    xi = spacing * math.sqrt(excess) / (2 * math.sin(math.pi / length)) if excess > 0 else None
    return answers | {
        "correlations": correlations,
        "structure_factor": factor,
        "correlation_function": np.mean(along, axis=0)[: length // 2 + 1],
        "correlation_length": xi,
    }


def assert_values(measured, expected, tolerance=1e-10):
    for name, answer in expected.items():
        estimate = getattr(measured, name)
        if name == "correlation_length" and (estimate is None or answer is None):
            # Its square is a difference, which rounding may leave on either side of zero.
            assert (0.0 if estimate is None else estimate.value) < 1e-6 > (answer or 0.0), name
        elif answer is None:
            assert estimate is None, name
        else:
            np.testing.assert_allclose(estimate.value, answer, rtol=tolerance, atol=tolerance, err_msg=name)


# --- exact answers


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.7, -0.2])
@every_lattice
def test_all_states_with_their_weights_are_the_exact_answer(name, beta):
    lattice = LATTICES[name]
    spins = every_state(lattice.shape)
    log_weight = -beta * total_energy(lattice, spins)
    measured = measure(lattice, beta, spins=spins, log_weight=log_weight)
    expected = brute_force(lattice, beta, spins, np.exp(log_weight))
    # At beta = 0, S(0) = S(k), and rounding decides whether xi^2 is positive.
    if beta == 0:
        expected.pop("correlation_length", None)
    assert_values(measured, expected)
    exact = thermodynamics(lattice, beta)
    assert measured.energy_per_site.value == pytest.approx(exact.energy_per_site, abs=1e-10)
    assert measured.heat_capacity_per_site.value == pytest.approx(exact.heat_capacity_per_site, abs=1e-10)


def test_two_correlation_lengths_agree_where_the_lattice_is_long():
    """On a narrow torus G(r) = lambda^r: xi of the second moment tends to 1 / ln(1 / lambda) of a chain, 1-D."""
    beta, length = 0.8, 16
    lattice = square(2, length, jx=0.0, jy=1.0)
    decay = math.tanh(beta)
    states = every_state((1, length))
    log_weight = beta * (states * np.roll(states, 1, 2)).sum((1, 2))
    chain = np.repeat(states, 2, axis=1)
    measured = measure(lattice, beta, spins=chain, log_weight=log_weight)
    g = (decay ** np.arange(9) + decay ** (length - np.arange(9))) / (1 + decay**length)
    np.testing.assert_allclose(measured.correlation_function.value, g, rtol=1e-10)
    exact = math.sqrt(decay) / (1 - decay)
    assert measured.correlation_length.value == pytest.approx(exact, rel=0.02)


def test_the_ground_state():
    """J = 1 bonds give -2 per site; all is ordered, nothing fluctuates."""
    spins = np.ones((3, 4, 4), np.int8)
    spins[1] = -1
    measured = measure(square(4), 10.0, spins=spins)
    assert measured.energy_per_site.value == -2 and measured.heat_capacity_per_site.value == 0
    assert measured.magnetisation_abs.value == 1 and measured.susceptibility.value == 16
    assert measured.binder.value == pytest.approx(2 / 3, rel=1e-14)
    np.testing.assert_allclose(measured.correlation_function.value, 1, rtol=1e-14)


# --- improved estimators


@settings(max_examples=8)
@given(st.sampled_from(sorted(LATTICES)), st.floats(0.1, 5), st.integers(0, 10**6))
def test_improved_estimators_are_averages_over_spins(name, width, seed):
    """Given one field, the weighted average over all spin states with p(s | x) is the estimator, to rounding."""
    lattice = LATTICES[name]
    field = rng(seed).normal(scale=width, size=lattice.shape)
    spins = every_state(lattice.shape)
    tilted = field + 0.5 * lattice.field_by_site
    log_p = -np.log1p(np.exp(-2 * spins * tilted)).reshape(len(spins), -1).sum(1)
    twice = np.stack([field, field])
    from_field = measure(lattice, 0.5, field=twice)
    expected = brute_force(lattice, 0.5, spins, np.exp(log_p))
    del expected["magnetisation_abs"]
    if lattice.field is not None and not lattice.translation_invariant:
        # Given x the spins are independent: of the connected S, S(0) = S(k), and rounding decides as at beta = 0.
        expected.pop("correlation_length", None)
    assert from_field.magnetisation_abs is None
    assert_values(from_field, expected, 1e-10)
    series = per_sample(lattice, field=twice, beta=0.5)
    energy, m = total_energy(lattice, spins), spins.reshape(len(spins), -1).mean(1)
    p = np.exp(log_p)
    for measured, exact in (
        (series.energy, p @ energy),
        (series.energy_variance, p @ energy**2 - (p @ energy) ** 2),
        (series.magnetisation, p @ m),
        (series.magnetisation_squared, p @ m**2),
        (series.magnetisation_fourth, p @ m**4),
    ):
        np.testing.assert_allclose(measured, exact, rtol=1e-12, atol=1e-12)


def test_fields_and_spins_agree_and_fields_are_more_precise():
    """Exact samples of a 4x4 torus by x | s ~ Normal(A s, A), then spins drawn anew."""
    lattice, beta, n = square(4), 0.35, 20000
    states = every_state(lattice.shape)
    p = np.exp(-beta * total_energy(lattice, states))
    start = states[rng().choice(len(states), size=n, p=p / p.sum())]
    target = HubbardStratonovich(lattice, beta)
    generator = torch.Generator().manual_seed(0)
    field = target.sample_field(torch.from_numpy(start).double(), generator)
    spins = target.sample_spins(field, generator).numpy()
    from_spins = measure(lattice, beta, spins=spins)
    from_field = measure(lattice, beta, field=field.numpy())
    exact = brute_force(lattice, beta, states, p)
    for name in SCALARS:
        for measured in (from_spins, from_field):
            estimate = getattr(measured, name)
            if estimate is not None:
                assert abs(estimate.value - exact[name]) < 4 * estimate.stderr, name
    for name in ("energy_per_site", "heat_capacity_per_site", "magnetisation_squared", "correlation_length"):
        assert getattr(from_field, name).stderr < getattr(from_spins, name).stderr


def test_spins_beside_fields_serve_for_the_absolute_magnetisation_only():
    spins, field = rng().choice([-1, 1], size=(50, 3, 3)), rng(1).normal(size=(50, 3, 3))
    both = measure(square(3), 0.4, spins=spins, field=field).as_dict()
    from_spins, from_field = (measure(square(3), 0.4, **s).as_dict() for s in ({"spins": spins}, {"field": field}))
    assert both == from_field | {"magnetisation_abs": from_spins["magnetisation_abs"]}


def test_large_fields_are_spins():
    spins = rng().choice([-1, 1], size=(2, 100, 4, 4)).astype(np.int8)
    series, saturated = per_sample(square(4), spins=spins), per_sample(square(4), field=40.0 * spins)
    np.testing.assert_array_equal(saturated.energy, series.energy)
    np.testing.assert_array_equal(saturated.energy_variance, 0)
    np.testing.assert_allclose(saturated.magnetisation_fourth, series.magnetisation_fourth, rtol=1e-13)
    assert series.magnetisation_abs.shape == (2, 100)


# --- invariances


def close(a, b, names=SCALARS):
    for name in names:
        before, after = getattr(a, name), getattr(b, name)
        assert (before is None) == (after is None)
        if before is not None:
            assert after.value == pytest.approx(before.value, rel=1e-9, abs=1e-11), name
            assert after.stderr == pytest.approx(before.stderr, rel=1e-6, abs=1e-9), name
    np.testing.assert_allclose(b.correlation_function.value, a.correlation_function.value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(b.correlation_function.stderr, a.correlation_function.stderr, rtol=1e-6, atol=1e-9)


@settings(max_examples=25)
@given(st.booleans(), st.integers(0, 3), st.integers(0, 5), st.integers(0, 10**6))
def test_translations_and_spin_flip_change_nothing(fields, dx, dy, seed):
    lattice = square(4, 6, jy=0.5)
    samples = rng(seed).normal(1.0, 1.0, size=(60, 4, 6))
    key = "field" if fields else "spins"
    samples = samples if fields else np.where(samples > 0, 1, -1)
    log_weight = rng(seed + 1).normal(size=60)
    before = measure(lattice, 0.4, **{key: samples}, log_weight=log_weight)
    moved = np.roll(samples, (dx, dy), (1, 2)) * (1 - 2 * (seed % 2))
    after = measure(lattice, 0.4, **{key: moved}, log_weight=log_weight)
    close(before, after)
    np.testing.assert_allclose(after.structure_factor.value, before.structure_factor.value, rtol=1e-9, atol=1e-10)


@settings(max_examples=25)
@given(st.floats(-1e4, 1e4), st.integers(0, 10**6))
def test_a_constant_added_to_log_weights_changes_nothing(shift, seed):
    spins = rng(seed).choice([-1, 1], p=[0.3, 0.7], size=(2, 40, 4, 4))
    log_weight = rng(seed + 1).normal(size=(2, 40))
    before, after = (measure(square(4), 0.4, spins=spins, log_weight=w) for w in (log_weight, log_weight + shift))
    close(before, after)
    assert after.effective_sample_size == pytest.approx(before.effective_sample_size, rel=1e-9)


@settings(max_examples=10)
@given(st.permutations(range(5)))
def test_order_of_chains_does_not_matter(order):
    spins = rng().choice([-1, 1], p=[0.3, 0.7], size=(5, 40, 4, 4))
    close(measure(square(4), 0.4, spins=spins), measure(square(4), 0.4, spins=spins[order]))


def test_batches_do_not_matter(monkeypatch):
    spins, field = rng().choice([-1, 1], size=(700, 4, 4)), rng(1).normal(size=(700, 4, 4))
    log_weight = rng(2).normal(size=700)
    before = measure(square(4), 0.4, spins=spins, field=field, log_weight=log_weight)
    monkeypatch.setattr(sys.modules["isingflow.observables.series"], "CHUNK", 50)
    close(before, measure(square(4), 0.4, spins=spins, field=field, log_weight=log_weight))


def test_large_lattices_have_fewer_blocks(monkeypatch):
    spins = rng().choice([-1, 1], size=(700, 4, 4))
    monkeypatch.setattr(sys.modules["isingflow.observables.measure"], "MAX_BLOCK_SUMS", 16 * 50)
    assert measure(square(4), 0.4, spins=spins).blocks == 50
    assert measure(square(4, boundary="open"), 0.4, spins=spins).blocks == 16


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_the_dtype_of_spins_does_not_matter(dtype):
    spins = rng().choice([-1, 1], size=(20, 4, 4))
    assert (
        measure(square(4), 0.4, spins=spins.astype(dtype)).as_dict() == measure(square(4), 0.4, spins=spins).as_dict()
    )


# --- error bars


def heat_bath_chains(lattice, beta, chains, samples, seed):
    """A Markov chain over all states of a small lattice: one random site a sample, drawn given its neighbours."""
    generator, sites = rng(seed), lattice.sites
    couplings = lattice.couplings(beta)
    spins = generator.choice([-1.0, 1.0], size=(chains, sites))
    rows, history = np.arange(chains), np.empty((samples, chains, sites))
    for sample in range(-300, samples):
        site = generator.integers(sites, size=chains)
        local = np.einsum("cj,cj->c", couplings[site], spins)
        spins[rows, site] = np.where(generator.random(chains) < 1 / (1 + np.exp(-2 * local)), 1, -1)
        if sample >= 0:
            history[sample] = spins
    return history.swapaxes(0, 1).reshape(chains, samples, *lattice.shape)


def test_coverage():
    """Exact independent samples, uniform ones with weights, and slow chains: 68 % intervals cover 68 %.

    Each within 4 binomial standard deviations; their mean, over observables that are correlated, within 4 %.
    """
    lattice, beta = square(3), 0.3
    states = every_state(lattice.shape)
    energy = total_energy(lattice, states)
    p = np.exp(-beta * energy) / np.exp(-beta * energy).sum()
    exact = brute_force(lattice, beta, states, p)

    def independent(seed):
        return {"spins": states[rng(seed).choice(len(states), size=400, p=p)]}

    def weighted(seed):
        picked = rng(seed).integers(len(states), size=2000)
        return {"spins": states[picked], "log_weight": -beta * energy[picked]}

    slow = heat_bath_chains(lattice, beta, 8 * 60, 1000, seed=0).astype(np.int8)

    def chains(seed):
        return {"spins": slow[8 * seed : 8 * (seed + 1)]}

    rates = []
    for experiment, repeats in ((independent, 150), (weighted, 150), (chains, 60)):
        results = [measure(lattice, beta, **experiment(seed)) for seed in range(repeats)]
        for name in SCALARS:
            covered = np.mean([abs(getattr(r, name).value - exact[name]) < getattr(r, name).stderr for r in results])
            assert abs(covered - 0.683) < 4 * math.sqrt(0.683 * 0.317 / repeats), (experiment.__name__, name)
            rates.append(covered)
        g = np.array([np.abs(r.correlation_function.value - exact["correlation_function"]) for r in results])
        covered = np.mean(g[:, 1] < [r.correlation_function.stderr[1] for r in results])
        assert abs(covered - 0.683) < 4 * math.sqrt(0.683 * 0.317 / repeats), experiment.__name__
    assert np.mean(rates) == pytest.approx(0.683, abs=0.04)


def test_autocorrelation_times_of_chains():
    slow = measure(square(3), 0.3, spins=heat_bath_chains(square(3), 0.3, 4, 4000, 0)).autocorrelation_times
    assert list(slow) == ["energy_per_site", "magnetisation_squared"]
    assert all(tau.value > 4 for tau in slow.values())
    spins = rng().choice([-1, 1], size=(4, 4000, 3, 3))
    for tau in measure(square(3), 0.3, spins=spins).autocorrelation_times.values():
        assert tau.value == pytest.approx(0.5, abs=5 * tau.stderr)
    assert measure(square(3), 0.3, spins=spins[0]).autocorrelation_times == {}
    assert measure(square(3), 0.3, spins=spins[:, :3]).autocorrelation_times == {}


# --- how results show themselves


def test_json_has_the_contract_s_keys():
    spins = rng().choice([-1, 1], p=[0.2, 0.8], size=(100, 4, 6))
    result = measure(square(4, 6), 0.4, spins=spins).as_dict()
    assert list(result) == KEYS
    assert len(result["correlation_function"]) == 4
    for entry in [*(result[name] for name in SCALARS), *result["correlation_function"]]:
        assert sorted(entry) == ["stderr", "value"]
        assert all(math.isfinite(number) for number in entry.values())
    assert np.shape(result["structure_factor"]["value"]) == np.shape(result["structure_factor"]["stderr"]) == (4, 6)
    assert result["structure_factor"]["value"][0][0] == pytest.approx(result["susceptibility"]["value"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize("convert", [torch.from_numpy, np.ndarray.tolist], ids=["tensors", "lists"])
def test_tensors_and_lists_are_measured_too(convert):
    spins, weights = rng().choice([-1, 1], size=(50, 4, 4)), rng().normal(size=50)
    expected = measure(square(4), 0.3, spins=spins, log_weight=weights)
    found = measure(square(4), 0.3, spins=convert(spins), log_weight=convert(weights))
    assert found.as_dict() == expected.as_dict()


@pytest.mark.parametrize("weights", [np.array(["1", "2", "3"]), np.ones(3, complex), np.array([True] * 3)], ids=str)
def test_weights_must_be_real_numbers(weights):
    with pytest.raises(InvalidInput, match="expected an array of real numbers"):
        measure(square(4), 0.3, spins=np.ones((3, 4, 4)), log_weight=weights)


def test_json_of_what_is_not_defined():
    """A graph has no distances, fields have no |m|, one sample with all the weight has no error."""
    graph = LATTICES["graph"]
    result = measure(graph, 0.4, field=rng().normal(size=(3, 10)), log_weight=np.array([0, 1e4, 0])).as_dict()
    assert list(result) == KEYS
    assert result["magnetisation_abs"] is result["correlation_length"] is result["correlation_function"] is None
    assert result["structure_factor"] is None
    assert result["energy_per_site"]["value"] is not None and result["energy_per_site"]["stderr"] is None
    json.dumps(result, allow_nan=False)


def test_table():
    spins = heat_bath_chains(square(4), 0.4, 3, 200, 0)
    measured = measure(square(4), 0.4, spins=spins, log_weight=rng().normal(size=(3, 200)))
    text = measured.table({"energy_per_site": -1.25})
    lines = text.splitlines()
    assert lines[0].startswith("periodic 4x4, beta 0.4, 600 samples in ")
    assert f"{100 * measured.effective_sample_size:.2g} %" in lines[0]
    assert str(measured.energy_per_site) in lines[1] and lines[1].endswith("exact -1.25")
    assert str(measured.correlation_function[2]) in text and "tau of energy per site" in text
    assert "not defined" in measure(LATTICES["graph"], 0.4, spins=every_state((10,))[:50]).table()
    assert max(map(len, lines)) < 120


# --- bad input

GOOD = np.ones((4, 3, 3), np.int8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither spins nor field"),
        (
            {"spins": np.ones((4, 3, 4))},
            r"spins: .* shape \(4, 3, 4\): expected numbers, shape \(n, 3, 3\)",
        ),
        ({"spins": np.ones((3, 3))}, "expected numbers, shape"),
        ({"field": np.ones((2, 2, 2, 3, 3))}, "field: .* expected numbers, shape"),
        ({"spins": np.full((4, 3, 3), "up")}, "expected numbers, shape"),
        ({"spins": GOOD[:1]}, "1 samples: an error bar needs at least 2"),
        ({"spins": GOOD[:0]}, "0 samples: an error bar needs at least 2"),
        ({"spins": 0 * GOOD}, r"spins must be \+1 or -1"),
        ({"spins": 2 * GOOD}, r"spins must be \+1 or -1"),
        ({"spins": np.nan * GOOD}, r"spins must be \+1 or -1"),
        ({"spins": GOOD, "field": 0 * GOOD[:3]}, "different numbers of samples"),
        ({"spins": 3 * GOOD, "field": 0 * GOOD}, r"spins must be \+1 or -1"),
        ({"field": np.full((4, 3, 3), np.nan)}, "field holds values that are not finite"),
        ({"field": np.full((4, 3, 3), np.inf)}, "field holds values that are not finite"),
        ({"spins": GOOD, "log_weight": np.zeros(3)}, r"log-weights of shape \(3,\): expected \(4,\)"),
        ({"spins": GOOD, "log_weight": np.array([0, np.nan, 0, 0])}, "1 of 4 log-weights are NaN or infinite"),
        ({"spins": GOOD, "log_weight": np.full(4, -np.inf)}, "all weights are zero"),
        ({"spins": GOOD, "beta": math.nan}, "beta is nan, expected a finite number"),
    ],
)
def test_input_that_is_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message) as error:
        measure(square(3), **({"beta": 0.4} | arguments))
    assert "\n" not in str(error.value)


# --- in an external field


def test_fields_need_beta_where_spins_depend_on_it():
    x = rng().normal(size=(4, 3, 3))
    with pytest.raises(InvalidInput, match="beta is needed"):
        per_sample(square(3).with_field(0.1), field=x)
    assert per_sample(square(3), field=x).magnetisation.shape == (4,)


def test_words_and_keys_in_a_field():
    spins = rng().choice([-1, 1], size=(50, 3, 3))
    within, without = (measure(square(3).with_field(h), 0.4, spins=spins) for h in (0.1, None))
    assert "susceptibility (connected)" in within.table() and "connected" not in without.table()
    assert set(within.as_dict()) == {*without.as_dict(), "magnetisation"}
    assert within.magnetisation.value == pytest.approx(spins.mean())
