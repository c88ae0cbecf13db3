"""Starts with powers and tails, against scipy and against what they were made of."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from isingflow.errors import InvalidInput
from isingflow.flows import Flow, GaussianWhitening
from isingflow.flows.tails import HeavyTails, Powers, fit_tails, lambert


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_lambert_s_function_is_scipy_s_with_its_derivative():
    a = torch.logspace(-12, 12, 200, dtype=torch.float64, requires_grad=True)
    w = lambert(a)
    expected = scipy.special.lambertw(a.detach().numpy()).real
    np.testing.assert_allclose(w.detach(), expected, rtol=1e-13)
    (slope,) = torch.autograd.grad(w.sum(), a)
    np.testing.assert_allclose(slope, 1 / (np.exp(expected) * (1 + expected)), rtol=1e-12)


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0, 1.6, 2.0])
def test_powers_are_those_of_yeo_and_johnson(power):
    x = randn(50, 1)
    y, _ = Powers(torch.tensor([power], dtype=torch.float64)).inverse(x)
    np.testing.assert_allclose(y[:, 0], scipy.stats.yeojohnson(x[:, 0].numpy(), power), rtol=1e-12)


@pytest.mark.parametrize("power", [-0.1, 2.1, float("nan")])
def test_powers_that_do_not_reach_every_point_are_refused(power):
    with pytest.raises(InvalidInput):
        Powers(torch.tensor([power]))


def test_the_likeliest_power_is_scipy_s():
    rows = torch.cat([randn(400, 1).exp() - 1, 0.4 * randn(400, 1, seed=1)], 1)
    *_, powers = fit_tails(rows)
    expected = [scipy.stats.yeojohnson_normmax(column) for column in rows.T.numpy()]
    np.testing.assert_allclose(powers.powers, np.clip(expected, 0, 2), atol=5e-3)


def test_what_is_fitted_is_what_the_rows_were_made_of():
    """Rows of the family itself, far too many for chance: the ellipse and the stretch come back."""
    factor = torch.tensor([[1.0, 0.0, 0.0], [0.7, 0.5, 0.0], [0.0, 0.3, 2.0]], dtype=torch.float64)
    covariance = factor @ factor.T
    made = Flow((3,), [HeavyTails(torch.tensor(0.5)), GaussianWhitening(torch.tensor([1.0, 0.0, -1.0]), covariance)])
    rows = made(randn(8000, 3))[0]
    tails, gaussian, powers = fit_tails(rows)
    assert tails.stretch.item() == 0.5
    np.testing.assert_allclose(powers.powers, 1.0, atol=0.1)
    found = (gaussian.factor @ gaussian.factor).double()
    np.testing.assert_allclose(found, covariance, rtol=0.12, atol=0.03)


def test_no_small_change_of_the_ellipse_is_likelier():
    y = randn(300, 2) * randn(300, 1, seed=3).exp()
    tails, gaussian, _ = fit_tails(y)
    if not tails.stretch:
        pytest.fail("rows with such tails have a stretch")
    straight = Powers(torch.ones(2))
    rows = fit_tails(y)[2].inverse(y)[0]
    covariance = (gaussian.factor @ gaussian.factor).double()

    def misfit(mean, covariance):
        return -Flow((2,), [tails, GaussianWhitening(mean, covariance), straight]).double().log_prob(rows).mean().item()

    mean = gaussian.mean.double()
    best = misfit(mean, covariance)
    for other in (1.02 * covariance, 0.98 * covariance, covariance + 0.02 * covariance.diag().diag()):
        assert misfit(mean, other) > best
    assert misfit(mean + 0.02, covariance) > best and misfit(mean - 0.02, covariance) > best
