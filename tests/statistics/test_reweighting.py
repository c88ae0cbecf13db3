"""Multi-histogram reweighting: its equations, the acceptance ratio, densities in closed form, pymbar; honest errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow.errors import InvalidInput
from isingflow.statistics.free_energy import acceptance_ratio_free_energy
from isingflow.statistics.reweighting import LEAST_OVERLAP, Reweighting


def gaussian(betas, samples, seed=0, whole=True):
    """Energies of a Gaussian density of states: at beta they are Normal(-beta, 1), and ln Z = beta^2 / 2."""
    rng = np.random.default_rng(seed)
    energies = [rng.normal(-beta, 1.0, size=(4, count)) for beta, count in zip(betas, samples, strict=True)]
    return [np.round(4 * values) / 4 for values in energies] if whole else energies


def together(betas, energies, **options):
    return Reweighting(betas, energies, [np.stack([e, e**2], axis=-1) for e in energies], **options)


def missing(betas, log_z, energies, counts):
    """By how much each Z_k differs from the sum over samples that it should be, written out sample by sample."""
    density = sum(
        counts_k * np.exp(-beta * energies - log) for counts_k, beta, log in zip(counts, betas, log_z, strict=True)
    )
    return [abs(np.sum(np.exp(-b * energies - log) / density) - 1) for b, log in zip(betas, log_z, strict=True)]


@settings(max_examples=25)
@given(
    betas=st.lists(st.floats(-1, 1), min_size=1, max_size=5),
    samples=st.lists(st.integers(20, 60), min_size=5, max_size=5),
    shift=st.floats(-1e4, 1e4),
    seed=st.integers(0, 99),
)
def test_the_equations_are_solved_and_do_not_know_where_energies_begin(betas, samples, shift, seed):
    samples = samples[: len(betas)]
    energies = gaussian(betas, samples, seed)
    found = together(betas, energies)
    flat = np.concatenate([values.ravel() for values in energies])
    counts = [values.size for values in energies]
    assert max(missing(betas, found.log_z, flat, counts)) < 1e-7
    moved = together(betas, [values + shift for values in energies])
    expected = found.log_z - shift * (np.array(betas) - betas[0])
    np.testing.assert_allclose(moved.log_z, expected, rtol=0, atol=1e-6)


def test_two_temperatures_are_the_acceptance_ratio():
    betas, energies = (0.3, 0.9), gaussian((0.3, 0.9), (300, 200), whole=False)
    found = together(betas, energies)
    work = [-(betas[1] - betas[0]) * values.ravel() for values in energies]
    ratio = acceptance_ratio_free_energy(*work)
    assert found.log_z[1] == pytest.approx(-ratio.value, abs=1e-9)


def test_one_temperature_is_plain_reweighting():
    (energies,) = gaussian([0.5], [200])
    found = together([0.5], [energies])
    assert found.means([0.5])[0] == pytest.approx([energies.mean(), (energies**2).mean()], rel=1e-12)
    assert found.overlap == 1


def test_draws_solve_the_equations_of_their_own():
    """Every draw against the equations with its multiplicities, which nothing else in the class is asked for."""
    betas, energies = [0.0, 0.4, 0.8, 1.2], gaussian([0.0, 0.4, 0.8, 1.2], [200, 160, 240, 200])
    found = together(betas, energies, resamples=5, seed=3)
    counts, ones = found._drawn_counts, found._sums[0] @ found._draws
    for draw in range(5):
        log_z = found.log_z + found._drawn_log_z[:, draw]
        terms = np.exp(-np.outer(found._levels, betas) - log_z)
        sums = (ones[:, draw, None] * terms / (terms @ counts[:, draw])[:, None]).sum(0)
        np.testing.assert_allclose(sums, 1, atol=1e-6)
        weights = ones[:, draw] * np.exp(-0.6 * found._levels) / (terms @ counts[:, draw])
        mean = (weights * found._levels).sum() / weights.sum()
        assert found.replicates([0.6])[draw, 0, 0] == pytest.approx(mean, abs=1e-8)


def test_errors_are_honest():
    """The pulls of ln Z's derivative, and of the variance, between the temperatures, over independent sets."""
    betas, pulls = [0.2, 0.8, 1.4], []
    for seed in range(60):
        found = together(betas, gaussian(betas, [150] * 3, seed, whole=False), resamples=100, seed=seed)
        means, draws = found.means([0.5, 1.1]), found.replicates([0.5, 1.1])
        truth = np.array([[-b, 1 + b**2] for b in (0.5, 1.1)])
        pulls.append((means - truth) / draws.std(axis=0, ddof=1))
    pulls = np.array(pulls)
    assert np.abs(pulls.mean(axis=0)).max() < 4.5 / math.sqrt(60)
    spread = pulls.std(axis=0, ddof=1)
    assert np.all(np.abs(spread - 1) < 4.5 / math.sqrt(120)), spread


def test_the_same_as_pymbar():
    pymbar = pytest.importorskip("pymbar")
    betas = np.array([0.0, 0.5, 1.0])
    energies = gaussian(betas, [40, 30, 50])
    found = together(betas, energies)
    flat = np.concatenate([values.ravel() for values in energies])
    counts = [values.size for values in energies]
    theirs = pymbar.MBAR(np.outer(betas, flat), counts, solver_protocol="robust")
    np.testing.assert_allclose(found.log_z, -theirs.f_k, atol=1e-6)


def test_temperatures_far_apart_do_not_overlap():
    assert together([0.0, 0.5], gaussian([0.0, 0.5], [200, 200])).overlap > 0.5
    far = together([-20.0, 20.0], gaussian([-20.0, 20.0], [200, 200]))
    assert far.overlap < LEAST_OVERLAP


GOOD = {"betas": [0.1, 0.2], "energies": [np.ones((2, 8)), np.zeros((2, 8))]}
GOOD |= {"columns": [np.ones((2, 8, 1)), np.zeros((2, 8, 1))]}


@pytest.mark.parametrize(
    "bad",
    [
        {"betas": [0.1]},
        {"betas": [0.1, math.nan]},
        {"betas": "0.1"},
        {"energies": [np.ones((2, 8))]},
        {"energies": [np.ones(8), np.ones(8)]},
        {"energies": [np.full((2, 8), math.inf), np.ones((2, 8))]},
        {"columns": [np.ones((2, 8, 1)), np.ones((2, 8, 2))]},
        {"columns": [np.ones((2, 7, 1)), np.ones((2, 8, 1))]},
        {"energies": [np.ones((1, 1))] * 2, "columns": [np.ones((1, 1, 1))] * 2},
        {"resamples": 1},
        {"resamples": 2.0},
        {"seed": -1},
    ],
)
def test_bad_input_is_refused(bad):
    Reweighting(**GOOD)
    with pytest.raises(InvalidInput) as caught:
        Reweighting(**(GOOD | bad))
    assert "\n" not in str(caught.value)


def test_temperatures_outside_are_refused():
    found = Reweighting(**GOOD)
    with pytest.raises(InvalidInput, match=r"within 0\.1 to 0\.2"):
        found.means([0.15, 0.21])
