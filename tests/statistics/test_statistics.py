"""Error bars: exact laws of the jackknife and of autocorrelation, and how often 68 % intervals cover."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from isingflow.errors import InvalidInput
from isingflow.statistics.chains import autocorrelation, autocorrelation_time, diagnostics, effective_samples
from isingflow.statistics.estimate import Estimate, Estimates
from isingflow.statistics.jackknife import block_starts, block_sums, jackknife, jackknife_sums
from isingflow.statistics.weights import pareto_k, relative_weights


def rng(seed=0):
    return np.random.default_rng(seed)


def ar1(rho, chains, samples, seed=0):
    """Stationary x_t = rho x_(t-1) + noise of unit variance: autocorrelation rho^t, tau = (1 + rho) / (2 (1 - rho))."""
    noise = rng(seed).normal(size=(chains, samples)) * math.sqrt(1 - rho**2)
    noise[:, 0] /= math.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=1)


def exact_tau(rho):
    return (1 + rho) / (2 * (1 - rho))


def mean(means):
    return means[..., 0]


def ratio(means):
    return means[..., 1] / means[..., 0] ** 2


def columns_of(x):
    return np.stack([x, x**2], axis=-1)


# --- autocorrelation

rhos = pytest.mark.parametrize("rho", [-0.6, -0.2, 0.0, 0.3, 0.7, 0.9, 0.97])


def test_autocorrelation_is_the_sum_of_products():
    chains = rng().normal(size=(3, 50)) + 5
    deviations = chains - chains.mean()
    covariance = [np.mean(deviations[:, : 50 - t] * deviations[:, t:]) for t in range(50)]
    np.testing.assert_allclose(autocorrelation(chains), np.array(covariance) / covariance[0], atol=1e-13)


@rhos
def test_tau_of_an_autoregressive_process(rho):
    """Every one of 20 estimates within 4 of its errors; their mean within 3 of the mean's, plus 2 % of cut-off tail."""
    estimates = [autocorrelation_time(ar1(rho, 4, 5000, seed)) for seed in range(20)]
    exact = exact_tau(rho)
    assert all(abs(e.value - exact) < 4 * e.stderr + 0.02 * exact for e in estimates)
    average, error = np.mean([e.value for e in estimates]), np.mean([e.stderr for e in estimates]) / math.sqrt(20)
    assert abs(average - exact) < 3 * error + 0.02 * exact


@rhos
def test_tau_s_error_is_the_scatter_of_tau(rho):
    """The quoted error sums over the whole window, noise included, so it may exceed the scatter but not fall short."""
    estimates = [autocorrelation_time(ar1(rho, 2, 4000, seed)) for seed in range(100)]
    scatter = np.std([e.value for e in estimates])
    assert 0.7 * scatter < np.mean([e.stderr for e in estimates]) < 3 * scatter


@rhos
def test_tau_gives_the_variance_of_the_mean(rho):
    """What tau is for: Var(mean) = 2 tau Var(x) / n."""
    samples = 400
    chains = ar1(rho, 4000, samples)
    variance = chains.mean(1).var()
    expected = 2 * exact_tau(rho) / samples
    correction = 1 - 2 * rho / (samples * (1 - rho**2))
    assert variance == pytest.approx(expected * correction, rel=0.1)
    assert effective_samples(chains) == pytest.approx(chains.size / (2 * exact_tau(rho)), rel=0.03)


def test_independent_samples_have_tau_one_half():
    tau = autocorrelation_time(rng().normal(size=(10, 10000)))
    assert tau.value == pytest.approx(0.5, abs=4 * tau.stderr) and tau.stderr < 0.01


def test_chains_that_disagree_are_slow():
    """Deviations are from the mean of all chains: four chains in four valleys are worth a few samples."""
    assert effective_samples(rng().normal(size=(4, 1000)) + 10 * np.arange(4)[:, None]) < 20


def test_a_constant_has_no_autocorrelation():
    assert autocorrelation_time(np.full((2, 10), 3.7)) == Estimate(0.5, 0.0)
    np.testing.assert_array_equal(autocorrelation(np.full((2, 4), 3.7)), [1, 0, 0, 0])


def test_alternating_chains_are_not_worth_infinitely_many_samples():
    """tau is 0.008: what is left after the cancellation of a hundred lags is not believed below 1 / (2 log10 n)."""
    assert autocorrelation_time(ar1(-0.97, 1, 10000)).value == pytest.approx(0.125, abs=0.02)


@given(
    st.integers(1, 3),
    st.integers(4, 40),
    st.integers(0, 10**6),
    st.floats(-1e3, 1e3),
    st.floats(1e-3, 1e3),
    st.sampled_from([1e-150, 1.0, 1e150]),
)
def test_tau_ignores_shift_scale_order_of_chains_and_direction_of_time(chains, samples, seed, shift, scale, unit):
    x = rng(seed).normal(size=(chains, samples)).cumsum(1)
    tau = autocorrelation_time(x)
    for other in ((x * scale + shift * scale) * unit, x[::-1], x[:, ::-1], -x):
        again = autocorrelation_time(other)
        assert again.value == pytest.approx(tau.value, rel=1e-6)
        assert again.stderr == pytest.approx(tau.stderr, rel=1e-6)
    assert tau.value > 0


# --- the jackknife


@pytest.mark.parametrize("n", [2, 3, 50, 256])
def test_error_of_the_mean_of_independent_samples_is_exact(n):
    x = rng().normal(size=n)
    estimate = jackknife(mean, x[:, None])
    assert estimate.value == pytest.approx(x.mean(), rel=1e-12)
    assert estimate.stderr == pytest.approx(x.std(ddof=1) / math.sqrt(n), rel=1e-10)


def test_blocks_of_unequal_length_are_weighted_by_it():
    x = rng().normal(size=1000)
    ratios = [jackknife(mean, x[:n, None]).stderr / (x[:n].std() / math.sqrt(n)) for n in range(257, 1000, 50)]
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("weighted", [False, True])
def test_jackknife_is_leaving_out_one_at_a_time(weighted):
    """A ratio, recomputed from scratch without each sample."""
    x, log_weights = rng().normal(3, 1, size=20), rng(1).normal(size=20) if weighted else np.zeros(20)

    def plain(keep):
        means = np.average(columns_of(x[keep]), axis=0, weights=np.exp(log_weights[keep]))
        return means[1] / means[0] ** 2

    left_out = [plain(np.arange(20) != i) for i in range(20)]
    estimate = jackknife(ratio, columns_of(x), log_weights if weighted else None)
    assert estimate.value == pytest.approx(plain(np.arange(20)), rel=1e-12)
    assert estimate.stderr == pytest.approx(math.sqrt(19 * np.var(left_out)), rel=1e-9)


def test_jackknife_of_arrays_is_that_of_their_entries():
    columns = rng().normal(2, 1, size=(3, 100, 4))
    whole = jackknife(lambda means: means[..., :3] / means[..., 3:], columns)
    assert isinstance(whole, Estimates) and len(whole) == 3
    for k, entry in enumerate(whole):
        single = jackknife(lambda means, k=k: means[..., k] / means[..., 3], columns)
        assert entry.value == pytest.approx(single.value, rel=1e-12)
        assert entry.stderr == pytest.approx(single.stderr, rel=1e-9)
    assert whole[1:].value.shape == (2,)


def test_jackknife_of_matrices_of_sums():
    """Sums with more axes than one, as of G(dx, dy): the same as of flattened ones."""
    sums, weights = rng().normal(size=(10, 3, 4)), rng(1).random(10)
    matrix = jackknife_sums(lambda means: means**2, sums, weights)
    flat = jackknife_sums(lambda means: means**2, sums.reshape(10, 12), weights)
    assert matrix[2, 3] == flat[11]
    np.testing.assert_array_equal(matrix.stderr.ravel(), flat.stderr)


@pytest.mark.parametrize("shape", [(40,), (300,), (3, 200), (400, 3)])
@settings(max_examples=20)
@given(shift=st.floats(-1e4, 1e4), seed=st.integers(0, 10**6))
def test_a_constant_added_to_log_weights_changes_nothing(shape, shift, seed):
    x, log_weights = rng(seed).normal(2, 0.5, size=shape), rng(seed + 1).normal(size=shape)
    before = jackknife(ratio, columns_of(x), log_weights)
    after = jackknife(ratio, columns_of(x), log_weights + shift)
    assert after.value == pytest.approx(before.value, rel=1e-10)
    assert after.stderr == pytest.approx(before.stderr, rel=1e-7)


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(2, 100), st.integers(0, 10**6))
def test_order_of_chains_does_not_matter(chains, samples, seed):
    x, log_weights = rng(seed).normal(2, 0.5, size=(chains, samples)), rng(seed + 1).normal(size=(chains, samples))
    order = rng(seed).permutation(chains)
    before, after = (jackknife(ratio, columns_of(x[o]), log_weights[o]) for o in (slice(None), order))
    assert after.value == pytest.approx(before.value, rel=1e-12)
    assert after.stderr == pytest.approx(before.stderr, rel=1e-9)


@given(st.integers(2, 100), st.integers(0, 10**6))
def test_a_sample_of_weight_zero_counts_for_nothing_in_the_value(n, seed):
    x, log_weights = rng(seed).normal(size=n), rng(seed + 1).normal(size=n)
    with_one_more = jackknife(mean, np.append(x, 7.0)[:, None], np.append(log_weights, -np.inf))
    without = jackknife(mean, x[:, None], log_weights)
    assert with_one_more.value == pytest.approx(without.value, rel=1e-10, abs=1e-12)
    expected = without.stderr * math.sqrt(n / (n + 1) * n / (n - 1))
    assert with_one_more.stderr == pytest.approx(expected, rel=0.5)


def test_equal_weights_are_no_weights():
    x = rng().normal(size=(2, 100))
    assert jackknife(ratio, columns_of(x), np.full((2, 100), -700.0)) == jackknife(ratio, columns_of(x))


def test_one_sample_with_all_the_weight_has_no_error_bar():
    log_weights = np.zeros(10)
    log_weights[3] = 1e4
    estimate = jackknife(mean, np.arange(10.0)[:, None], log_weights)
    assert estimate == Estimate(3.0, math.inf)


def test_weighted_error_is_the_delta_method_s():
    x, log_weights = rng().normal(size=(2, 200))
    weights = np.exp(log_weights)
    value = np.average(x, weights=weights)
    delta = math.sqrt(np.sum((weights * (x - value)) ** 2)) / weights.sum()
    assert jackknife(mean, x[:, None], log_weights).stderr == pytest.approx(delta, rel=0.1)


# --- blocks


def lengths(shape, columns=None, **options):
    columns = rng().normal(size=(*shape, 1)) if columns is None else columns
    starts = block_starts(columns, np.ones(shape), **options)
    assert starts[0] == 0
    return starts, np.diff(np.append(starts, math.prod(shape)))


@pytest.mark.parametrize("n", [2, 100, 256, 257, 10000])
def test_independent_samples_are_blocks_of_their_own_up_to_256(n):
    starts, length = lengths((n,))
    assert len(starts) == min(n, 256)
    assert np.ptp(length) <= 1


@settings(max_examples=50)
@given(st.integers(2, 600), st.integers(1, 100))
def test_blocks_do_not_mix_pieces_of_chains(chains, samples):
    starts, length = lengths((chains, samples))
    assert np.all(length > 0) and len(starts) <= 256
    whole = np.all(starts % samples == 0)
    assert whole or np.all(starts // samples == (starts + length - 1) // samples)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.98])
def test_blocks_are_long_beside_tau(rho):
    _, length = lengths((4, 20000), ar1(rho, 4, 20000)[..., None])
    assert length.min() >= 15 * exact_tau(rho)
    assert len(length) >= 16


def test_the_slowest_column_sets_the_length():
    fast, slow = ar1(0.0, 2, 5000), ar1(0.95, 2, 5000, seed=1)
    together = lengths((2, 5000), np.stack([fast, slow, fast], axis=-1))[0]
    np.testing.assert_array_equal(together, lengths((2, 5000), slow[..., None])[0])


def test_short_chains_are_cut_in_eight_all_the_same():
    assert len(lengths((1, 100), ar1(0.99, 1, 100)[..., None])[0]) == 8
    assert len(lengths((3, 2))[0]) == 6


def test_fewer_blocks_on_request():
    assert len(lengths((1000,), most=16)[0]) == 16
    assert len(lengths((2, 10000), most=16)[0]) == 16


def test_block_sums_add_up():
    columns, weights = rng().normal(size=(3, 50, 2)), rng(1).random((3, 50))
    starts = block_starts(columns, weights)
    sums, first = block_sums(columns, weights, starts), starts[1]
    np.testing.assert_allclose(sums.sum(0), np.einsum("cs,csk->k", weights, columns), rtol=1e-12)
    np.testing.assert_allclose(sums[0], weights[0, :first] @ columns[0, :first], rtol=1e-12)


# --- coverage: 600 repeats, so that the number covered has a standard deviation of 1.9 %

REPEATS = 600


def coverage(experiment, exact):
    estimates = [experiment(seed) for seed in range(REPEATS)]
    covered = np.mean([abs(e.value - exact) < e.stderr for e in estimates])
    assert 0.683 - 0.065 < covered < 0.683 + 0.065


def test_coverage_of_independent_samples():
    """<x^2> / <x>^2 of Normal(2, 1)."""
    coverage(lambda seed: jackknife(ratio, columns_of(rng(seed).normal(2, 1, 200))), 1.25)


@pytest.mark.parametrize(("rho", "samples"), [(0.5, 500), (0.9, 2000), (-0.5, 500)])
def test_coverage_of_chains(rho, samples):
    coverage(lambda seed: jackknife(ratio, columns_of(2 + ar1(rho, 4, samples, seed))), 1.25)


def test_coverage_of_many_short_chains():
    coverage(lambda seed: jackknife(ratio, columns_of(2 + ar1(0.9, 100, 10, seed))), 1.25)


def test_coverage_of_weighted_samples():
    """Normal(2, 1) from Normal(1.5, 1.2): log-weights are the difference of the two exponents."""

    def experiment(seed):
        x = rng(seed).normal(1.5, 1.2, 400)
        return jackknife(ratio, columns_of(x), -((x - 2) ** 2) / 2 + ((x - 1.5) / 1.2) ** 2 / 2)

    coverage(experiment, 1.25)


def test_coverage_of_weighted_chains():
    def experiment(seed):
        x = 1.5 + 1.2 * ar1(0.8, 4, 1000, seed)
        return jackknife(ratio, columns_of(x), -((x - 2) ** 2) / 2 + ((x - 1.5) / 1.2) ** 2 / 2)

    coverage(experiment, 1.25)


# --- diagnostics


def test_agreeing_chains():
    result = diagnostics(ar1(0.5, 4, 4000))
    assert 0.99 < result.r_hat < 1.01
    expected = 16000 / (2 * exact_tau(0.5))
    assert result.ess_bulk == pytest.approx(expected, rel=0.1)
    assert expected < result.ess_tail < 16000


def test_disagreeing_chains_of_equal_mean():
    """R-hat is rank-normalised and folded: it sees a chain of another width."""
    assert diagnostics(ar1(0.0, 4, 1000) * np.array([1, 1, 1, 3])[:, None]).r_hat > 1.05


def test_a_single_chain_is_compared_with_itself():
    chain = ar1(0.0, 1, 2000)[0]
    assert diagnostics(chain).r_hat == pytest.approx(1, abs=0.01)
    assert diagnostics(chain + np.linspace(0, 3, 2000)).r_hat > 1.2


def test_chains_that_never_move():
    assert diagnostics(np.ones((2, 10))).r_hat == 1.0
    assert diagnostics(np.ones((2, 10)) * [[1], [2]]).r_hat == math.inf


# --- importance weights' tails


@pytest.mark.parametrize("k", [0.3, 0.5, 0.7, 1.0, 1.5])
def test_pareto_k_of_pareto_weights(k):
    """P(w > u) = u^(-1/k); the fit leans towards 1/2 by its prior."""
    estimates = [pareto_k(-k * np.log(rng(seed).random(20000))) for seed in range(10)]
    assert np.mean(estimates) == pytest.approx(k, abs=0.06)


def test_pareto_k_of_bounded_weights_is_negative():
    assert pareto_k(np.log(rng().random(10000))) < -0.5


@given(st.floats(-1e4, 1e4), st.integers(25, 400))
def test_pareto_k_ignores_the_scale_and_order_of_weights(shift, n):
    log_weights = rng(n).normal(size=n)
    assert pareto_k(rng().permutation(log_weights) + shift) == pytest.approx(pareto_k(log_weights), abs=1e-6)


@pytest.mark.parametrize(
    ("log_weights", "expected"),
    [
        (np.zeros(25), 0.0),
        (np.full(1000, -1e5), 0.0),
        (1e-14 * np.arange(1000), 0.0),
        (np.repeat([-np.inf, 2.0], 500), 0.0),
        (np.append(np.zeros(999), 50.0), math.inf),
        (np.append(np.full(999, -np.inf), 0.0), math.inf),
        (1e3 * np.arange(1000.0), math.inf),
    ],
)
def test_pareto_k_of_degenerate_weights(log_weights, expected):
    assert pareto_k(log_weights) == expected


@pytest.mark.parametrize("n", [1, 2, 24])
def test_pareto_k_is_not_known_from_few_samples(n):
    assert math.isnan(pareto_k(np.zeros(n)))


# --- bad input

SERIES_FUNCTIONS = [autocorrelation, autocorrelation_time, effective_samples, diagnostics]


@pytest.mark.parametrize("function", SERIES_FUNCTIONS)
@pytest.mark.parametrize(
    ("chains", "message"),
    [
        (np.zeros((2, 2, 20)), "expected .samples,. or .chains, samples."),
        (np.array(1.0), "expected .samples,. or .chains, samples."),
        (np.zeros((2, 1)), "expected at least"),
        (np.zeros((0, 20)), "0 samples"),
        (np.full(20, np.nan), "not finite"),
        (np.full(20, np.inf), "not finite"),
    ],
)
def test_series_that_are_none(function, chains, message):
    with pytest.raises(InvalidInput, match=message):
        function(chains)


@pytest.mark.parametrize(
    ("columns", "log_weights", "message"),
    [
        (np.zeros(5), None, r"expected \(n, k\) or \(chains, samples, k\)"),
        (np.zeros((1, 2)), None, "1 samples: an error bar needs at least 2"),
        (np.zeros((0, 2)), None, "0 samples: an error bar needs at least 2"),
        (np.full((5, 1), np.nan), None, "not finite"),
        (np.zeros((5, 1)), np.zeros(4), r"log-weights of shape \(4,\): expected \(5,\)"),
        (np.zeros((5, 1)), np.array([0, 0, np.nan, np.inf, 0]), "2 of 5 log-weights are NaN or infinite"),
        (np.zeros((5, 1)), np.full(5, -np.inf), "all weights are zero"),
    ],
)
def test_columns_and_weights_that_are_refused(columns, log_weights, message):
    with pytest.raises(InvalidInput, match=message) as error:
        jackknife(mean, columns, log_weights)
    assert "\n" not in str(error.value)


def test_pareto_k_refuses_weights_that_are_none():
    for log_weights in (np.full(30, np.nan), np.full(30, np.inf), np.full(30, -np.inf)):
        with pytest.raises(InvalidInput):
            pareto_k(log_weights)


def test_relative_weights_do_not_overflow():
    np.testing.assert_allclose(relative_weights(np.array([1e5, 1e5 - 1, -1e5]), (3,)), [1, math.exp(-1), 0])
