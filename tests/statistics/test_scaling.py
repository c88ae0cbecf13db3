"""Finite-size scaling: curves made from a known critical point, honest errors, windows, and what is no fit."""

import math

import numpy as np
import pytest

from isingflow.errors import InvalidInput
from isingflow.statistics.scaling import ACCEPTED, fit

BETA, NU = 0.44, 0.9


def points(betas=None, sizes=(8.0, 16.0, 32.0)):
    betas = np.linspace(0.42, 0.46, 9) if betas is None else betas
    return tuple(axis.ravel() for axis in np.meshgrid(sizes, betas))


def curve(sizes, betas, function):
    return function((betas - BETA) * sizes ** (1 / NU))


def cubic(x):
    return 0.6 + 0.2 * x - 0.05 * x**2 + 0.01 * x**3


def test_a_cubic_is_found_again():
    sizes, betas = points()
    found = fit(sizes, betas, curve(sizes, betas, cubic), np.full(27, 1e-3), beta=0.438, nu=1.1)
    assert found.beta.value == pytest.approx(BETA, abs=1e-9) and found.nu.value == pytest.approx(NU, abs=1e-6)
    assert found.coefficients == pytest.approx([0.6, 0.2, -0.05, 0.01], abs=1e-6)
    assert found.value.value == pytest.approx(0.6) and found.chi_squared < 1e-9
    assert (found.points, found.degrees, found.sizes) == (27, 21, (8.0, 16.0, 32.0)) and found.accepted


def test_errors_are_honest_and_chi_squared_is_one():
    """The window is chosen by chi^2; that takes fits with bad luck away, and leaves the pulls what they are."""
    rng, (sizes, betas) = np.random.default_rng(1), points()
    truth, errors = curve(sizes, betas, cubic), np.full(27, 3e-3)
    pulls, chis = [], []
    for _ in range(200):
        found = fit(sizes, betas, truth + errors * rng.normal(size=27), errors, beta=0.441, nu=1.0)
        pulls.append([(found.beta.value - BETA) / found.beta.stderr, (found.nu.value - NU) / found.nu.stderr])
        chis.append(found.chi_squared / found.degrees)
    assert np.abs(np.mean(pulls, axis=0)).max() < 4.5 / math.sqrt(200)
    assert np.abs(np.std(pulls, axis=0) - 1).max() < 4.5 / math.sqrt(400)
    assert abs(np.mean(chis) - 1) < 0.1


def test_the_window_narrows_where_a_cubic_does_not_do():
    sizes, betas = points(np.linspace(0.3, 0.58, 41))
    rng, errors = np.random.default_rng(2), np.full(len(sizes), 1e-3)
    values = curve(sizes, betas, lambda x: np.tanh(x) / 2 + 0.6) + errors * rng.normal(size=len(sizes))
    found = fit(sizes, betas, values, errors, beta=0.44, nu=0.9)
    assert found.points < len(sizes) / 2 and found.probability >= ACCEPTED
    assert abs(found.beta.value - BETA) < 4.5 * found.beta.stderr


def test_errors_grow_where_no_window_does():
    rng, (sizes, betas) = np.random.default_rng(3), points()
    noise = rng.normal(size=27)
    honest, small = (
        fit(sizes, betas, curve(sizes, betas, cubic) + 5e-3 * noise, np.full(27, error), beta=0.44, nu=0.9)
        for error in (5e-3, 1e-4)
    )
    assert honest.accepted and not small.accepted
    assert small.beta.stderr > 5 * honest.beta.stderr * 1e-4 / 5e-3


@pytest.mark.parametrize(
    ("sizes", "betas"),
    [
        (np.full(9, 8.0), np.linspace(0.42, 0.46, 9)),
        (np.array([8.0, 8.0, 16.0, 16.0]), np.array([0.43, 0.45] * 2)),
        (np.repeat([8.0, 16.0], 9), np.tile(np.linspace(0.45, 0.5, 9), 2)),
    ],
)
def test_too_few_points_or_one_side_are_no_fit(sizes, betas):
    assert fit(sizes, betas, np.linspace(0, 1, len(sizes)), np.ones(len(sizes)), beta=0.44, nu=1.0) is None


@pytest.mark.parametrize(
    "bad", [{"errors": np.zeros(27)}, {"values": np.ones(3)}, {"nu": 0.0}, {"beta": math.nan}, {"sizes": -points()[0]}]
)
def test_bad_input_is_refused(bad):
    sizes, betas = points()
    good = {"sizes": sizes, "betas": betas, "values": np.ones(27), "errors": np.ones(27), "beta": 0.44, "nu": 1.0}
    with pytest.raises(InvalidInput):
        fit(**(good | bad))


def test_corrections_of_small_sizes_are_found_again():
    sizes, betas = points(sizes=(8.0, 12.0, 16.0, 32.0))
    values = curve(sizes, betas, cubic) + 0.3 * sizes**-1.75
    found = fit(sizes, betas, values, np.full(36, 1e-3), beta=0.438, nu=1.1, omega=1.75)
    assert found.beta.value == pytest.approx(BETA, abs=1e-8) and found.nu.value == pytest.approx(NU, abs=1e-5)
    assert found.correction.value == pytest.approx(0.3, rel=1e-5) and found.degrees == 29
    assert found.corrected(values[sizes == 12.0], 12.0) == pytest.approx(values[sizes == 12.0] - 0.3 * 12**-1.75)
    plain = fit(sizes, betas, values, np.full(36, 1e-4), beta=0.438, nu=1.1)
    assert not plain.accepted
    assert fit(*(a[sizes < 16] for a in (sizes, betas, values, values)), beta=0.44, nu=1.0, omega=1.75) is None


def test_errors_with_a_correction_are_honest():
    rng, (sizes, betas) = np.random.default_rng(4), points()
    truth, errors = curve(sizes, betas, cubic) + 0.2 * sizes**-1.75, np.full(27, 1e-3)
    pulls = []
    for _ in range(150):
        found = fit(sizes, betas, truth + errors * rng.normal(size=27), errors, beta=0.441, nu=1.0, omega=1.75)
        pulls.append(
            [
                (found.beta.value - BETA) / found.beta.stderr,
                (found.nu.value - NU) / found.nu.stderr,
                (found.correction.value - 0.2) / found.correction.stderr,
            ]
        )
    assert np.abs(np.mean(pulls, axis=0)).max() < 4.5 / math.sqrt(150)
    assert np.abs(np.std(pulls, axis=0) - 1).max() < 4.5 / math.sqrt(300)
