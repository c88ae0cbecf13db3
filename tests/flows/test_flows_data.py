"""Maps fitted to data in closed form: against distributions of torch and scipy, and against brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isingflow.errors import InvalidInput
from isingflow.flows import Flow, GaussianWhitening, HistogramMarginals, Logit
from isingflow.statistics.moments import moments

seeds = st.integers(0, 2**16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def correlated(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return randn(count, dimension, seed=seed) @ randn(dimension, dimension, seed=seed + 1) + 3


# --- moments


@settings(max_examples=20)
@given(seed=seeds, sizes=st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 1))
def test_moments_do_not_depend_on_the_batches(seed, sizes):
    rows = correlated(sum(sizes), 3, seed)
    found = moments(rows.split(sizes))
    assert found.count == len(rows)
    torch.testing.assert_close(found.mean, rows.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.covariance, torch.cov(rows.T, correction=0), rtol=1e-10, atol=1e-10)


def test_a_large_mean_costs_no_digits_of_the_covariance():
    rows = randn(1000, 2)
    shifted = moments((rows + 1e8).split(10)).covariance
    torch.testing.assert_close(shifted, torch.cov(rows.T, correction=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("batches", "message"),
    [([], "no rows"), ([torch.zeros(0, 2)], "no rows"), ([torch.tensor([[1.0, math.nan]])], "not all finite")],
)
def test_moments_refuse(batches, message):
    with pytest.raises(InvalidInput, match=message):
        moments(batches)


# --- the best Gaussian


@settings(max_examples=10)
@given(seed=seeds)
def test_whitening_is_the_gaussian_of_its_moments(seed):
    mean, factor = randn(4, seed=seed), torch.eye(4) + randn(4, 4, seed=seed + 1)
    covariance = factor @ factor.T
    flow = Flow((4,), [GaussianWhitening(mean, covariance)]).double()
    x = randn(6, 4, seed=seed + 2)
    expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-7, atol=1e-7)


def test_no_gaussian_beats_the_fitted_one():
    """On the rows it was fitted to: any other mean or covariance has a lower likelihood."""
    rows = correlated(200, 3)
    best = GaussianWhitening.fit(rows.split(64))
    likelihood = Flow((3,), [best]).double().log_prob(rows).mean()
    covariance = torch.cov(rows.T, correction=0)
    for other in (
        GaussianWhitening(best.mean + 1e-2, covariance),
        GaussianWhitening(best.mean, 1.02 * covariance),
        GaussianWhitening(best.mean, covariance + 0.02 * covariance.diag().diag()),
        GaussianWhitening(best.mean, torch.cov(rows.T)),
    ):
        assert Flow((3,), [other]).double().log_prob(rows).mean() < likelihood


def test_whitened_rows_are_white_and_as_close_to_the_rows_as_can_be():
    rows = correlated(500, 3)
    whitening = GaussianWhitening.fit([rows])
    z = whitening.inverse(rows)[0]
    torch.testing.assert_close(torch.cov(z.T, correction=0), torch.eye(3, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    distance = (z - (rows - rows.mean(0))).square().sum()
    turn = torch.linalg.qr(torch.eye(3) + 0.05 * randn(3, 3, seed=5))[0]
    turn = turn * turn.diagonal().sign()
    assert (z @ turn - (rows - rows.mean(0))).square().sum() > distance


def test_directions_read_standardised_coordinates_of_x():
    rows = correlated(500, 3)
    whitening = GaussianWhitening.fit([rows])
    wanted = torch.tensor([[1.0, 0.0, 0.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
    read = whitening.inverse(rows)[0] @ whitening.directions(wanted).T
    features = rows @ wanted.T
    expected = (features - features.mean(0)) / features.std(0, correction=0)
    torch.testing.assert_close(read, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (torch.ones(2, 2), "no variance in 1 of 2 directions"),
        (torch.zeros(2, 2), "no variance in 2 of 2 directions"),
        (torch.tensor([[1.0, 0.0], [0.0, -1.0]]), "singular"),
        (torch.full((2, 2), math.nan), "finite"),
    ],
)
def test_whitening_refuses(covariance, message):
    with pytest.raises(InvalidInput, match=message):
        GaussianWhitening(torch.zeros(2), covariance)


# --- logit


@given(v=st.floats(0, 1), margin=st.floats(1e-7, 0.4))
def test_logit_and_its_slope(v, margin):
    point = torch.tensor([[v]], dtype=torch.float64, requires_grad=True)
    x, logdet = Logit(margin)(point)
    expected = torch.special.logit(margin + (1 - 2 * margin) * point.detach())
    torch.testing.assert_close(x.detach(), expected, rtol=1e-8, atol=1e-8)
    slope = torch.autograd.grad(x.sum(), point)[0]
    assert logdet.item() == pytest.approx(float(slope.log()), abs=1e-7)
    back, inverse_logdet = Logit(margin).inverse(x)
    torch.testing.assert_close(back, point, rtol=1e-7, atol=1e-9)
    assert inverse_logdet.item() == pytest.approx(-logdet.item(), abs=1e-7)


@pytest.mark.parametrize("margin", [0.0, 0.5, -1.0, math.nan])
def test_logit_refuses(margin):
    with pytest.raises(InvalidInput, match=r"expected a finite number > 0 and < 0\.5"):
        Logit(margin)


# --- marginals


@settings(max_examples=20)
@given(seed=seeds, bins=st.integers(1, 6))
def test_marginals_have_the_density_of_their_histograms(seed, bins):
    """Normal noise becomes a histogram: ln p(v) is the logarithm of its height, whatever z is."""
    mass = torch.softmax(randn(2, bins, seed=seed), 1)
    flow = Flow((2,), [HistogramMarginals(mass)]).double()
    v = torch.rand(50, 2, generator=generator(seed), dtype=torch.float64)
    heights = (bins * mass).numpy()
    index = np.minimum((v.numpy() * bins).astype(int), bins - 1)
    expected = np.log(heights[[0, 1], index]).sum(1)
    np.testing.assert_allclose(flow.log_prob(v).numpy(), expected, rtol=1e-9, atol=1e-9)


def test_marginals_invert_the_distribution_function_of_scipy():
    counts = np.array([4.0, 0.5, 2.5, 3.0])
    histogram = stats.rv_histogram((counts, np.linspace(0, 1, 5)), density=False)
    z = randn(100, 1)
    v, _ = HistogramMarginals(torch.from_numpy(counts / counts.sum())[None])(z)
    np.testing.assert_allclose(v.numpy(), histogram.ppf(stats.norm.cdf(z.numpy())), rtol=1e-10, atol=1e-12)


def test_fitted_histograms_count_rows_and_smooth_them():
    rows = torch.tensor([[0.1, 0.9], [0.2, 1.0], [0.7, 0.4]])
    fitted = HistogramMarginals.fit(rows.split(2), bins=2, prior=1.0)
    expected = torch.tensor([[2.5, 1.5], [1.5, 2.5]], dtype=torch.float64) / 4
    torch.testing.assert_close(fitted.mass, expected)


def test_rare_bins_survive_the_way_back_and_forth():
    """In float32 too, 1e-7 of mass at the far end of the distribution is not lost."""
    marginals = HistogramMarginals(torch.tensor([[1 - 2e-7, 1e-7, 1e-7]], dtype=torch.float64))
    v = torch.tensor([[0.0], [0.1], [0.35], [0.9], [1.0]])
    z, logdet = marginals.inverse(v)
    assert z.dtype == torch.float32 and z.isfinite().all() and logdet.isfinite().all()
    assert (z[1:] > z[:-1]).all()
    torch.testing.assert_close(marginals(z)[0][1:4], v[1:4], rtol=0, atol=2e-2)


def test_outside_the_unit_cube_nothing_has_any_probability():
    flow = Flow((2,), [HistogramMarginals(torch.full((2, 3), 1 / 3))])
    v = torch.tensor([[0.5, 0.5], [-0.1, 0.5], [0.5, 1.1]])
    assert flow.log_prob(v).tolist() == [pytest.approx(0.0, abs=1e-6), -math.inf, -math.inf]


@pytest.mark.parametrize("mass", [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.4]])], ids=["empty", "sum"])
def test_marginals_refuse(mass):
    with pytest.raises(InvalidInput, match="positive probabilities that sum to one"):
        HistogramMarginals(mass)


def test_a_copula_is_its_marginals_times_a_gaussian_of_scores():
    """Correlated bits of the unit square: ln p(v) = sum ln f_i(v_i) + ln N(scores; 0, R) - sum ln N(score_i; 0, 1)."""
    marginals = HistogramMarginals(torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=torch.float64))
    correlation = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    flow = Flow((2,), [GaussianWhitening(torch.zeros(2), correlation), marginals]).double()
    v = torch.rand(20, 2, generator=generator(), dtype=torch.float64)
    points = v.numpy()
    histograms = [stats.rv_histogram((row, np.array([0, 0.5, 1])), density=False) for row in marginals.mass.numpy()]
    scores = stats.norm.ppf(np.stack([h.cdf(points[:, i]) for i, h in enumerate(histograms)], 1))
    expected = (
        sum(h.logpdf(points[:, i]) for i, h in enumerate(histograms))
        + stats.multivariate_normal(np.zeros(2), correlation).logpdf(scores)
        - stats.norm.logpdf(scores).sum(1)
    )
    np.testing.assert_allclose(flow.log_prob(v).numpy(), expected, rtol=1e-8, atol=1e-8)


def test_everything_fitted_is_in_the_state():
    rows = torch.rand(50, 3, generator=generator(), dtype=torch.float64)
    marginals = HistogramMarginals.fit([rows], bins=4)
    fitted = Flow((3,), [GaussianWhitening.fit([marginals.inverse(rows)[0]]), marginals])
    blank = Flow(
        (3,),
        [GaussianWhitening(torch.zeros(3), torch.eye(3)), HistogramMarginals(torch.full((3, 4), 0.25))],
    )
    blank.load_state_dict(fitted.state_dict())
    assert torch.equal(blank.log_prob(rows), fitted.log_prob(rows))
    assert fitted.parameter_count == 0
