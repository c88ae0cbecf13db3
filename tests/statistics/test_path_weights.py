"""Estimators of paths in both directions, on paths whose log-weights are normal: everything about them is known."""

import numpy as np
import pytest

from isingflow.errors import InvalidInput
from isingflow.statistics.free_energy import (
    acceptance_ratio_free_energy,
    lower_bound,
    mean,
    path_free_energies,
    path_lower_bounds,
    reweighted_free_energy,
)

LOG_Z = np.array([0.5, -1.0, 2.0])
VARIANCES = np.array([0.3, 0.5, 0.2])


def paths(seed: int, forward: int, chains: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Three steps with work normal and independent, which obeys Crooks: w ~ N(ln Z -+ v / 2, v) there and back."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(forward + chains * samples, 3)) * np.sqrt(VARIANCES)
    there = np.cumsum(np.diff(LOG_Z, prepend=0) - VARIANCES / 2 + noise[:forward], axis=1)
    back = np.cumsum(np.diff(LOG_Z, prepend=0) + VARIANCES / 2 + noise[forward:], axis=1)
    return there, back.reshape(chains, samples, 3)


def test_the_last_row_is_the_acceptance_ratio():
    there, back = paths(0, 60, 16, 5)
    last = path_free_energies(there, back)[2]
    known = acceptance_ratio_free_energy(there[:, 2], back[..., 2])
    assert last.value == pytest.approx(known.value, abs=1e-9)
    assert last.stderr == pytest.approx(known.stderr, rel=1e-6)


def test_the_last_bound_is_the_lower_bound():
    _, back = paths(0, 2, 16, 5)
    last, known = path_lower_bounds(back)[2], lower_bound(back[..., 2])
    assert (last.value, last.stderr) == pytest.approx((known.value, known.stderr))


def test_estimates_and_bounds_of_all_rows():
    there, back = paths(1, 20000, 20, 1000)
    free, bounds = path_free_energies(there, back), path_lower_bounds(back)
    gaps = np.cumsum(VARIANCES) / 2
    for row in range(3):
        assert abs(free.value[row] + LOG_Z[row]) < 4 * free.stderr[row]
        assert abs(bounds.value[row] + LOG_Z[row] + gaps[row]) < 4 * bounds.stderr[row]
        assert free.stderr[row] < 0.8 * reweighted_free_energy(there[:, row]).stderr


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say():
    """400 sets of 64 + 64 paths; a fraction of 400 is uncertain by 2.3 %."""
    hits = np.zeros((4, 3))
    gaps = np.cumsum(VARIANCES) / 2
    for seed in range(400):
        there, back = paths(1000 + seed, 64, 16, 4)
        free, bounds = path_free_energies(there, back), path_lower_bounds(back)
        hits[0] += np.abs(free.value + LOG_Z) < free.stderr
        hits[1] += np.abs(bounds.value + LOG_Z + gaps) < bounds.stderr
        upper = [mean(there[:, row]) for row in range(3)]
        hits[2] += [abs(e.value - z + g) < e.stderr for e, z, g in zip(upper, LOG_Z, gaps, strict=True)]
        weighted = [reweighted_free_energy(there[:, row]) for row in range(3)]
        hits[3] += [abs(e.value + z) < e.stderr for e, z in zip(weighted, LOG_Z, strict=True)]
    assert np.all((hits / 400 >= 0.62) & (hits / 400 <= 0.74)), hits / 400


def test_paths_that_do_not_overlap_have_infinite_errors():
    there, back = paths(0, 40, 10, 4)
    found = path_free_energies(there - 400 * np.arange(1, 4), back + 400 * np.arange(1, 4))
    assert np.all(np.isinf(found.stderr))


@pytest.mark.parametrize(
    ("forward", "reverse"),
    [((4,), (4, 1)), ((4, 2), (4, 3)), ((4, 2), (4,)), ((1, 2), (4, 2)), ((4, 2), (2, 2, 2, 2))],
)
def test_shapes_that_do_not_fit(forward, reverse):
    with pytest.raises(InvalidInput):
        path_free_energies(np.zeros(forward), np.zeros(reverse))
