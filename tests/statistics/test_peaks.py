"""The largest heat capacity, beside Kaufman's: its position and height within their errors."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from isingflow.errors import InvalidInput
from isingflow.exact import thermodynamics
from isingflow.lattice import square
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.peaks import heat_capacity_peak

ERRORS = (5e-5, 3e-3, 0.02)


def curves(size, betas, errors=ERRORS, seed=None):
    """Free energy, energy and heat capacity per site with errors; exact without a seed."""
    rng = np.random.default_rng(seed)
    exact = [thermodynamics(square(size), float(beta)) for beta in betas]
    rows = [[getattr(one, name) for one in exact] for name in ("log_z_per_site", "energy_per_site")]
    rows.append([one.heat_capacity_per_site for one in exact])
    noise = rng.normal(size=(3, len(betas))) * (seed is not None)
    return [
        [Estimate(value + error * by, error) for value, by in zip(row, deviates, strict=True)]
        for row, error, deviates in zip(rows, errors, noise, strict=True)
    ]


def exact_peak(size):
    found = minimize_scalar(
        lambda beta: -thermodynamics(square(size), beta).heat_capacity_per_site, bounds=(0.3, 0.5), method="bounded"
    )
    return found.x, -found.fun


@pytest.mark.parametrize(("size", "low", "high", "points"), [(8, 0.3, 0.5, 9), (8, 0.2, 0.6, 21), (16, 0.3, 0.5, 21)])
def test_position_and_height_lie_within_their_errors(size, low, high, points):
    betas, (beta, height) = np.linspace(low, high, points), exact_peak(size)
    pulls = []
    for seed in range(40):
        found = heat_capacity_peak(betas, *curves(size, betas, seed=seed))
        assert found.beta.stderr < 0.02 * beta and found.height.stderr < 0.03 * height
        pulls.append(
            ((found.beta.value - beta) / found.beta.stderr, (found.height.value - height) / found.height.stderr)
        )
    assert (np.abs(np.mean(pulls, 0)) < 1).all() and (np.std(pulls, 0) < 1.5).all()
    assert (np.abs(pulls) < 4).all()


def test_of_exact_curves_it_is_the_exact_peak():
    betas, (beta, height) = np.linspace(0.3, 0.5, 21), exact_peak(8)
    found = heat_capacity_peak(betas, *curves(8, betas, errors=(1e-6, 1e-6, 1e-6)))
    assert found.beta.value == pytest.approx(beta, rel=2e-3) and found.height.value == pytest.approx(height, rel=2e-3)


def test_values_that_no_function_has_make_the_errors_larger():
    betas = np.linspace(0.3, 0.5, 21)
    log_z, energy, capacity = curves(8, betas, seed=1)
    scattered = [one + 0.2 * (-1) ** place for place, one in enumerate(capacity)]
    plain, worse = (heat_capacity_peak(betas, log_z, energy, one) for one in (capacity, scattered))
    assert (
        worse.degrees > 30
        and worse.chi_squared > 4 * plain.chi_squared
        and worse.height.stderr > 2 * plain.height.stderr
    )


def test_temperatures_go_in_any_order():
    betas = np.linspace(0.3, 0.5, 9)
    given = curves(8, betas, seed=2)
    forward, back = heat_capacity_peak(betas, *given), heat_capacity_peak(betas[::-1], *(row[::-1] for row in given))
    assert back.beta.value == pytest.approx(forward.beta.value)
    assert back.height.value == pytest.approx(forward.height.value)


@pytest.mark.parametrize(
    ("low", "high", "points"), [(0.2, 0.35, 9), (0.5, 0.7, 9), (0.3, 0.5, 6)], ids=["hot", "cold", "few"]
)
def test_there_is_none_at_an_end_or_of_few_temperatures(low, high, points):
    betas = np.linspace(low, high, points)
    assert heat_capacity_peak(betas, *curves(8, betas, seed=0)) is None


def test_temperatures_where_something_is_not_known_do_not_count():
    betas = np.linspace(0.3, 0.5, 9)
    given = curves(8, betas, seed=3)
    unknown = [Estimate(1.0, math.inf), Estimate(math.nan, 1.0), Estimate(1.0, 0.0), Estimate(1.0, math.nan)]
    more = [[*row, *unknown, row[0]] for row in given]
    found = heat_capacity_peak([*betas, 0.31, 0.32, 0.33, 0.34, 0.0], *more)
    assert found == heat_capacity_peak(betas, *given)


@pytest.mark.parametrize(
    ("betas", "complaint"),
    [([0.3] * 9, "different temperatures"), (np.linspace(0.3, 0.5, 8), "log_z has 9 estimates"), ([[0.3]], "betas")],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(betas, complaint):
    with pytest.raises(InvalidInput, match=complaint):
        heat_capacity_peak(betas, *curves(8, np.linspace(0.3, 0.5, 9)))
