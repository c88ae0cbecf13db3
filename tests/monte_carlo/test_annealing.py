"""Paths of annealing: the sum over all their states by matrices, Crooks' theorem, bounds, threads, schedules."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm as normal
from scipy.stats import t as student

from isingflow import exact
from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice, chain, cubic, edwards_anderson, random_field, square, triangular
from isingflow.monte_carlo.annealing import MOVES, Clusters, HeatBath
from isingflow.monte_carlo.couplings import Couplings
from isingflow.monte_carlo.equilibrium import CHAINS, equilibrium
from isingflow.monte_carlo.paths import Paths, moves_for, prepare, run
from isingflow.monte_carlo.schedule import Pilot, pilot, schedule
from isingflow.monte_carlo.source import random_stream, uniform, words_of
from isingflow.monte_carlo.tempering import random_spins
from isingflow.runtime.compiled import compiled
from isingflow.statistics.chains import MOST_R_HAT
from isingflow.statistics.free_energy import mean, path_free_energies, path_lower_bounds
from isingflow.statistics.weights import effective_fraction

MAGNETS = {
    "torus": square(4),
    "anisotropic": square(4, jy=0.5),
    "open": square(4, boundary="open"),
    "antiferromagnet": square(4, jx=-1.0, jy=-1.0),
    "field": square(4).with_field(0.3),
    "varying field": square(4).with_field(np.linspace(0.1, 0.4, 16).reshape(4, 4)),
    "glass": edwards_anderson(4, seed=1),
    "random field": random_field(square(4), 0.7, seed=2),
    "frustrated": triangular(4, 3),
}
CASES = [(name, "heat-bath") for name in MAGNETS] + [
    (name, "swendsen-wang") for name in list(MAGNETS)[: list(MAGNETS).index("glass")]
]


def annealed(lattice: Lattice, rows, *, start=0.0, paths=64, sweeps=None, moves=None, seed=0, threads=1) -> Paths:
    rows = np.atleast_1d(np.asarray(rows, dtype=float))
    found, _ = moves_for(lattice, start, float(rows[-1]), moves)
    options = {"start": start, "paths": paths, "sweeps": sweeps, "seed": seed, "threads": threads}
    prepared = prepare(lattice, rows, moves=found, **options)
    run(prepared, threads=threads)
    return prepared


def log_ratio(lattice: Lattice, start: float, beta: float) -> float:
    return exact.thermodynamics(lattice, beta).log_z - exact.thermodynamics(lattice, start).log_z


def test_words_give_the_numbers_of_the_generator():
    @compiled(cache=False)
    def three(source):
        first, source = uniform(source)
        second, source = uniform(source)
        third, source = uniform(source)
        return first, second, third

    @compiled(cache=False)
    def of_words(words):
        return three((words[0], words[1], words[2], words[3]))

    found = of_words(words_of(random_stream(5, 1)))
    assert found == three(random_stream(5, 1)) == tuple(random_stream(5, 1).random(3))


@pytest.mark.parametrize(("name", "moves"), CASES)
def test_energies_are_those_of_the_states_before_each_sweep(name, moves):
    lattice = MAGNETS[name]
    model = Couplings.of(lattice, 0.5)
    made, betas = MOVES[moves](model), np.linspace(0.1, 0.6, 5)
    spins = random_spins(random_stream(3), (model.sites,))
    together, words = spins.copy(), words_of(random_stream(4))
    energies = made.sweep(together, betas, words)
    words = words_of(random_stream(4))
    for energy, beta in zip(energies, betas, strict=True):
        assert energy == pytest.approx(model.measure(spins[None])[0][0], abs=1e-12)
        made.sweep(spins, np.array([beta]), words)
    assert np.array_equal(spins, together)


def transition(moves, states: np.ndarray, beta: float, reverse: bool, draws: int) -> np.ndarray:
    """Frequencies of the states after a sweep, by that before."""
    index, words = 2 ** np.arange(states.shape[1]), words_of(random_stream(11, int(reverse)))
    found = np.zeros((len(states), len(states)))
    for before in range(len(states)):
        for _ in range(draws):
            spins = states[before].copy()
            moves.sweep(spins, np.array([beta]), words, reverse=reverse)
            found[before, int(((spins + 1) // 2) @ index)] += 1 / draws
    return found


@pytest.mark.parametrize("name", ["swendsen-wang", "heat-bath"])
def test_a_reversed_sweep_is_the_time_reversal(name):
    """p(s) T(s -> t) = p(t) R(t -> s) for all pairs of states of an open chain of unequal fields, where R is not T."""
    lattice, beta, draws = chain(3, boundary="open").with_field([0.2, 0.5, 0.9]), 0.7, 2500
    model = Couplings.of(lattice, beta)
    states = np.array(list(itertools.product([-1, 1], repeat=model.sites)), np.int8)[:, ::-1]
    weights = np.exp(-beta * model.measure(np.ascontiguousarray(states))[0])
    there, back = (transition(MOVES[name](model), states, beta, reverse, draws) for reverse in (False, True))
    assert apart(weights, there, back, draws) < 5
    if name == "heat-bath":  # the test can tell: a sweep in order is not its own reversal
        assert apart(weights, there, there, draws) > 10


def apart(weights: np.ndarray, there: np.ndarray, back: np.ndarray, draws: int) -> float:
    """Standard errors between p(s) T(s -> t) and p(t) R(t -> s), at most, where either is seen often."""
    pairs = weights[:, None] * there, (weights[:, None] * back).T
    errors = weights[:, None] * np.sqrt(there / draws), (weights[:, None] * np.sqrt(back / draws)).T
    often = (there * draws > 20) & (back.T * draws > 20) & ~np.eye(len(there), dtype=bool)
    return float((np.abs(pairs[0] - pairs[1]) / np.hypot(*errors))[often].max())


@pytest.mark.parametrize(("name", "moves"), CASES)
def test_the_mean_weight_is_z(name, moves):
    """At few steps, whatever is lost on the way."""
    lattice, beta = MAGNETS[name], 0.3
    found = annealed(lattice, beta, paths=1200, sweeps=6, moves=moves, seed=7)
    answer = log_ratio(lattice, 0.0, beta)
    for estimate in (mean(np.exp(found.forward[:, 0] - answer)), mean(np.exp(answer - found.by_chains[1][..., 0]))):
        assert abs(estimate.value - 1) < 4 * estimate.stderr
        assert estimate.stderr < 0.1


@pytest.mark.parametrize(
    ("lattice", "start", "beta"),
    [
        (square(4), 0.2, 0.5),
        (square(4), 0.5, 0.2),
        (edwards_anderson(4, seed=1), 0.3, 0.9),
        (square(4), -0.2, -0.5),
        (square(4), 0.4, 0.0),
    ],
)
def test_from_another_temperature(lattice, start, beta):
    found = annealed(lattice, beta, start=start, paths=600, sweeps=8, seed=3)
    forward, reverse = found.by_chains
    answer = log_ratio(lattice, start, beta)
    for estimate in (mean(np.exp(forward[..., 0] - answer)), mean(np.exp(answer - reverse[..., 0]))):
        assert abs(estimate.value - 1) < 4 * estimate.stderr
    estimate = -path_free_energies(forward, reverse)[0]
    assert abs(estimate.value - answer) < 4 * estimate.stderr


def test_crooks():
    """Log-weights of reverse paths are distributed as those of forward paths that count with their weights.

    The largest distance of two such distributions exceeds 1.95 / sqrt(n), n the harmonic sum of both sizes, once in a
    thousand times (Kolmogorov and Smirnov).
    """
    lattice, beta, n = edwards_anderson(4, seed=1), 0.6, 2000
    found = annealed(lattice, beta, paths=n, sweeps=15, seed=2)
    forward, reverse = np.sort(found.forward[:, 0]), np.sort(found.reverse[:, 0])
    weights = np.exp(forward - forward.max())
    grid = np.concatenate([forward, reverse])

    def distance(weights: np.ndarray) -> float:
        steps = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
        gap = steps[np.searchsorted(forward, grid)] - np.searchsorted(reverse, grid) / len(reverse)
        return float(np.abs(gap).max() / math.sqrt(1 / (len(weights) * effective_fraction(weights)) + 1 / len(reverse)))

    assert distance(weights) < 1.95
    assert distance(np.ones(n)) > 3


def limit(blocks: int) -> float:
    """Errors, taken from so many blocks, that are exceeded as seldom as 4 normal ones: once in 30,000 times."""
    return float(student.isf(normal.sf(4), blocks - 1))


def bounds_hold(seed: int) -> None:
    """Of a random lattice at a random temperature, annealed in a random number of sweeps."""
    rng = np.random.default_rng(seed)
    lengths = tuple(rng.integers(2, 6, size=2).tolist())
    lattice = [
        square(*lengths, jx=float(rng.normal()), jy=float(rng.normal())),
        edwards_anderson(*lengths, seed=seed),
        square(*lengths, boundary="open").with_field(float(rng.normal())),
        chain(int(rng.integers(3, 12)), boundary="open"),
        random_field(square(*lengths), 0.5, seed=seed),
    ][seed % 5]
    beta, sweeps = float(rng.uniform(-0.8, 0.8)), int(rng.integers(1, 60))
    rows = [beta * part for part in (0.3, 0.7, 1.0)[: 1 + 2 * (sweeps >= 3)]]
    rows = rows if len(rows) > 1 else [beta]
    forward, reverse = annealed(lattice, rows, paths=64, sweeps=sweeps, seed=seed).by_chains
    upper, middle = path_lower_bounds(reverse), path_free_energies(forward, reverse)
    for row, at in enumerate(rows):
        answer = log_ratio(lattice, 0.0, at)
        lower = mean(forward[..., row])
        assert lower.value - answer < limit(64) * lower.stderr + 1e-9, (seed, lattice, at)
        assert answer + upper.value[row] < limit(CHAINS) * upper.stderr[row] + 1e-9, (seed, lattice, at)
        if row == len(rows) - 1:
            assert abs(answer + middle.value[row]) < 5 * middle.stderr[row] + 1e-9, (seed, lattice, at)


@pytest.mark.parametrize("seed", range(10))
def test_both_bounds_hold(seed):
    bounds_hold(seed)


@pytest.mark.slow
def test_both_bounds_hold_in_five_hundred_cases():
    for seed in range(100, 600):
        bounds_hold(seed)


def test_threads_do_not_matter():
    one, two = (annealed(square(4), [0.2, 0.5], paths=40, sweeps=30, threads=threads) for threads in (1, 3))
    assert np.array_equal(one.forward, two.forward)
    assert np.array_equal(one.reverse, two.reverse)


def test_paths_are_independent_and_depend_on_the_seed():
    found, other = (annealed(square(4), 0.5, paths=40, sweeps=30, seed=seed) for seed in (0, 1))
    assert len(np.unique(found.forward)) > 35
    assert not np.intersect1d(found.forward, other.forward).size


def test_the_curve_needs_one_set_of_paths():
    """All temperatures of a range, from paths to the last of them."""
    lattice, rows = square(4), np.linspace(0.0, 0.7, 8)
    forward, reverse = annealed(lattice, rows, paths=320, sweeps=100, seed=5).by_chains
    assert not forward[..., 0].any()
    curve, upper = path_free_energies(forward, reverse), path_lower_bounds(reverse)
    for row, beta in enumerate(rows):
        answer = log_ratio(lattice, 0.0, float(beta))
        assert abs(answer + curve.value[row]) < 4 * curve.stderr[row] + 1e-12
        assert forward[..., row].mean() - 0.2 < answer < 0.2 - upper.value[row]
    assert curve.stderr[1:].max() < 0.05


def test_zero_temperature_has_an_end():
    found = annealed(square(4), 1e6, paths=16, sweeps=200)
    ground = 1e6 * 32 + math.log(2) - 16 * math.log(2)
    assert found.forward[:, 0] == pytest.approx(ground, abs=4)
    assert found.reverse[:, 0] == pytest.approx(ground, abs=4)


def test_where_the_path_has_no_length():
    for start, beta in ((0.0, 0.0), (0.4, 0.4)):
        found = annealed(square(4), beta, start=start, paths=4, sweeps=10)
        assert not found.forward.any()
        assert not found.reverse.any()


def test_couplings_of_nothing():
    found = annealed(square(4, jx=0.0, jy=0.0), [0.1, 0.5], paths=4, sweeps=10)
    assert not found.forward.any()
    assert np.array_equal(found.marks, [2, 10])


def test_moves_that_suit():
    assert moves_for(square(4), 0.0, 0.4)[0].name == Clusters.name
    assert moves_for(square(5), 0.0, -0.4)[0].name == HeatBath.name
    found, note = moves_for(edwards_anderson(4, seed=0), 0.0, 1.0, Clusters.name)
    assert found.name == HeatBath.name
    assert "heat-bath is used instead" in note
    assert moves_for(square(4), 0.0, 0.4, HeatBath.name)[0].name == HeatBath.name


def test_the_pilot_measures_the_heat_capacity():
    lattice = square(16)
    model = Couplings.of(lattice, 0.4)
    found = pilot(Clusters(model), random_spins(random_stream(0), (8, 256)), 0.0, 0.4, seed=0)
    answer = [256 * exact.thermodynamics(lattice, float(b)).heat_capacity_per_site / b**2 for b in found.betas[1:]]
    assert np.mean(found.variance[1:] / answer) == pytest.approx(1, abs=0.15)
    assert found.variance[0] == pytest.approx(512, rel=0.5)
    assert np.all(found.friction >= found.variance)


@given(
    rows=st.lists(st.floats(0.01, 2.0), min_size=1, max_size=6, unique=True),
    spare=st.integers(0, 40),
    sign=st.sampled_from([-1, 1]),
    friction=st.lists(st.floats(0, 1e4), min_size=5, max_size=5),
)
@settings(max_examples=60)
def test_schedules_meet_all_temperatures_in_order(rows, spare, sign, friction):
    rows = sign * np.sort(np.array(rows))
    measured = Pilot(np.linspace(0, rows[-1], 5), np.array(friction), np.array(friction))
    betas, marks = schedule(measured, rows, len(rows) + spare)
    assert len(betas) == len(rows) + spare + 1
    assert np.array_equal(betas[marks], rows)
    assert betas[0] == 0
    assert marks[-1] == len(betas) - 1
    assert np.all(np.diff(marks) >= 1)
    assert np.all(sign * np.diff(betas) >= 0)


def test_steps_are_of_equal_length():
    """With friction that rises as beta^2 the length is beta^2 / 2, so that beta^2 goes in equal steps."""
    grid = np.linspace(0, 1, 2001)
    betas, _ = schedule(Pilot(grid, grid**2, grid**2), np.array([1.0]), 10)
    assert betas**2 == pytest.approx(np.linspace(0, 1, 11), abs=1e-4)


def test_too_few_sweeps_for_a_range():
    with pytest.raises(InvalidInput, match="3 sweeps: a range of 4 temperatures"):
        annealed(square(4), [0.1, 0.2, 0.3, 0.4], paths=4, sweeps=3)


def test_chains_that_do_not_mix_are_told():
    """A strong ferromagnet by heat bath alone would not; tempering of a cold glass of two valleys does."""
    assert equilibrium(cubic(3), 0.3, 32, seed=0).r_hat < MOST_R_HAT
    found = equilibrium(edwards_anderson(4, seed=1), 0.8, 30, seed=1)
    assert found.states.shape == (16, 2, 16)
    assert found.sampler == "tempering"
    assert np.all(np.abs(found.states) == 1)
