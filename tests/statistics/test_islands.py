"""Free energies from islands of paths, against the plain formulae, and how often their intervals hold."""

import math

import numpy as np
import pytest

from isingflow.errors import InvalidInput
from isingflow.statistics.free_energy import reweighted_free_energy
from isingflow.statistics.islands import islands_free_energy, log_means


def islands(seed, number, paths, spread, within=0.5):
    """ln W of islands with Z = 1: normal, of which a part is common to an island."""
    rng = np.random.default_rng(seed)
    common = rng.normal(-(spread**2) / 2, spread, size=(number, 1))
    return common + rng.normal(-(within**2) / 2, within, size=(number, paths))


def test_means_are_those_of_the_weights():
    logs = islands(0, 5, 7, 1.0)
    np.testing.assert_allclose(np.exp(log_means(logs)), np.exp(logs).mean(1), rtol=1e-14)
    np.testing.assert_allclose(log_means(logs + 1e4), log_means(logs) + 1e4, rtol=1e-14)
    assert log_means(np.array([[-math.inf, -math.inf], [0.0, -math.inf]])).tolist() == [-math.inf, -math.log(2)]


def test_the_value_is_that_of_all_weights_and_the_error_that_of_islands():
    logs = islands(1, 16, 50, 0.2)
    found = islands_free_energy(logs)
    assert found.value == reweighted_free_energy(logs.ravel()).value
    means = np.exp(log_means(logs))
    left_out = [-math.log(np.delete(means, i).mean()) for i in range(16)]
    # Student's interval for 16 numbers is 3 % wider, and more where their scatter is less certain.
    assert 1.02 < found.stderr / math.sqrt(15 * np.var(left_out)) < 1.15
    # The paths alone know nothing of what they have in common.
    assert found.stderr > 1.5 * reweighted_free_energy(logs.ravel()).stderr


def test_one_island_with_all_the_weight_has_no_error():
    logs = np.full((16, 4), -math.inf)
    logs[3] = 1.0
    found = islands_free_energy(logs)
    assert found.value == pytest.approx(math.log(16) - 1) and found.stderr == math.inf


@pytest.mark.parametrize("spread", [0.1, 0.4])
def test_intervals_cover_as_often_as_they_say(spread):
    """Of 1,000 sets of 16 islands, which is known to 1.5 %."""
    found = [islands_free_energy(islands(seed, 16, 8, spread, within=0.1)) for seed in range(1000)]
    covered = np.mean([abs(estimate.value) < estimate.stderr for estimate in found])
    assert abs(covered - 0.683) < 0.05


@pytest.mark.parametrize(
    "logs", [np.zeros(4), np.zeros((1, 4)), np.zeros((0, 4)), [[0.0, math.nan], [0.0, 0.0]], [[0.0, math.inf]] * 2]
)
def test_what_is_no_set_of_islands_is_refused(logs):
    for function in (log_means, islands_free_energy):
        with pytest.raises(InvalidInput):
            function(logs)
