"""Estimates: Gaussians with every answer in closed form, error bars that cover, bounds in order, numbers that print."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from isingflow.architectures.build import build_flow
from isingflow.errors import InvalidInput
from isingflow.flows import Flow, GradientFlow, SpectralScaling, gradient_flows
from isingflow.flows.certificate import integration_error, log_weights, pushed
from isingflow.flows.spectral import EigenBasis
from isingflow.lattice import square
from isingflow.potentials import Potential
from isingflow.runs.config import FlowConfig
from isingflow.runtime.parallel import Workers
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import (
    LITTLE_OVERLAP,
    acceptance_ratio_free_energy,
    entropy,
    internal_energy,
    lower_bound,
    mean,
    overlap,
    reverse_effective_sample_size,
    reweighted_free_energy,
    variational_free_energy,
)
from isingflow.statistics.weights import effective_sample_size
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within(estimate: Estimate, exact: float, sigmas: float = 4.5) -> bool:
    return abs(estimate.value - exact) < sigmas * estimate.stderr


# --- the flow Normal(0, s^2) for the target Normal(0, 1), N times, with energy |x|^2 / 2


def gaussian_flow(s: float, dimension: int) -> Flow:
    basis = EigenBasis((dimension,), torch.eye(dimension, dtype=torch.float64))
    return Flow((dimension,), [SpectralScaling(basis, torch.full((dimension,), s))]).double()


def gaussian_energy(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(1) / 2


def gaussian_log_weights(s: float, dimension: int, samples: int, seed: int = 0) -> torch.Tensor:
    """Forward, through the same functions that evaluate a flow."""
    flow = gaussian_flow(s, dimension)
    return log_weights(gaussian_energy, *pushed(flow, flow.noise(samples, generator(seed))))


def reverse_log_weights(s: float, dimension: int, samples: int, seed: int = 1) -> torch.Tensor:
    """Of samples of the target, through the inverse flow."""
    x = torch.randn(samples, dimension, generator=generator(seed), dtype=torch.float64)
    return log_weights(gaussian_energy, x, gaussian_flow(s, dimension).log_prob(x))


CASES = [(1.0, 1), (1.2, 1), (0.8, 1), (1.1, 6), (0.9, 6), (1.5, 2), (1.02, 100)]
every_case = pytest.mark.parametrize(("s", "dimension"), CASES)


def exact_free_energy(dimension: int) -> float:
    return -dimension * math.log(2 * math.pi) / 2


@every_case
def test_variational_bound_of_gaussians(s, dimension):
    """-ln Z + KL(p | target), KL = N (s^2 - 1 - ln s^2) / 2."""
    divergence = dimension * (s**2 - 1 - math.log(s**2)) / 2
    bound = variational_free_energy(gaussian_log_weights(s, dimension, 20000))
    exact = exact_free_energy(dimension) + divergence
    assert within(bound, exact) or abs(bound.value - exact) < 1e-10
    deviation = math.sqrt(dimension / 2) * abs(s**2 - 1)
    assert bound.stderr == pytest.approx(deviation / math.sqrt(20000), rel=0.05, abs=1e-12)


@every_case
def test_lower_bound_of_gaussians(s, dimension):
    """-ln Z - KL(target | p), KL = N (1 / s^2 - 1 + ln s^2) / 2."""
    divergence = dimension * (1 / s**2 - 1 + math.log(s**2)) / 2
    bound = lower_bound(reverse_log_weights(s, dimension, 20000))
    exact = exact_free_energy(dimension) - divergence
    assert within(bound, exact) or abs(bound.value - exact) < 1e-10


@every_case
def test_acceptance_ratio_of_gaussians(s, dimension):
    """-ln Z from both sides, and no less precise than the better one-sided estimate."""
    forward, reverse = gaussian_log_weights(s, dimension, 20000), reverse_log_weights(s, dimension, 20000)
    estimate = acceptance_ratio_free_energy(forward, reverse)
    assert within(estimate, exact_free_energy(dimension)) or abs(estimate.value - exact_free_energy(dimension)) < 1e-9
    one_sided = min(reweighted_free_energy(forward).stderr, reweighted_free_energy(-reverse).stderr)
    assert estimate.stderr <= 1.02 * one_sided + 1e-12


def test_acceptance_ratio_solves_bennett_s_equation_with_unequal_numbers():
    """Bennett (1976), eq. 12a, in its own form, with Fermi functions of the energy difference."""
    forward, reverse = gaussian_log_weights(1.3, 2, 1000), reverse_log_weights(1.3, 2, 250)
    free_energy = acceptance_ratio_free_energy(forward, reverse).value
    c = free_energy + math.log(250 / 1000)
    upward, downward = (1 / (1 + torch.exp(-forward - c))).sum(), (1 / (1 + torch.exp(reverse + c))).sum()
    assert upward.item() == pytest.approx(downward.item(), rel=1e-9)


@pytest.mark.parametrize(("distance", "trusted"), [(2.0, True), (4.0, True), (7.5, False), (12.0, False)])
def test_overlap_tells_when_the_acceptance_ratio_may_be_trusted(distance, trusted):
    """Normal(0, 1) and Normal(d, 1), ln Z = 0: an overlap of 10 gives right errors, less too small or infinite ones."""
    x = torch.randn(100, 2, 2000, generator=generator(), dtype=torch.float64)
    forward, reverse = distance * x[:, 0] - distance**2 / 2, distance * x[:, 1] + distance**2 / 2
    estimates = [acceptance_ratio_free_energy(*weights) for weights in zip(forward, reverse, strict=True)]
    overlaps = [overlap(*w, e.value) for *w, e in zip(forward, reverse, estimates, strict=True)]
    deviations = np.array([e.value / e.stderr for e in estimates if math.isfinite(e.stderr)])
    assert (np.median(overlaps) > LITTLE_OVERLAP) == trusted
    assert (len(deviations) == 100) == trusted
    assert len(deviations) < 10 or (np.sqrt(np.mean(deviations**2)) < 1.25) == trusted


def test_overlap_of_equal_densities_is_the_smaller_number_of_samples():
    assert overlap(torch.zeros(1000), torch.zeros(10, 20), 0.0) == pytest.approx(200)


@pytest.mark.parametrize("order", [1, -1], ids=["flow below", "flow above"])
@pytest.mark.parametrize("chains", [(64,), (8, 8)], ids=["independent", "chains"])
def test_acceptance_ratio_of_sets_that_move_apart(order, chains):
    """64 log-weights of deviation 5 on either side, 0 to 2000 apart: less and less overlap, no small error without."""
    noise = 5 * np.random.default_rng(1).normal(size=(2, 64))
    overlaps, errors = [], []
    for distance in [*range(0, 40, 2), 60, 100, 300, 600, 900, 1200, 1450, 1500, 2000]:
        forward, reverse = noise[0] - order * distance / 2, (noise[1] + order * distance / 2).reshape(chains)
        estimate = acceptance_ratio_free_energy(forward, reverse)
        assert abs(estimate.value) < 6  # between the sets, wherever else is as good
        overlaps.append(overlap(forward, reverse, estimate.value))
        errors.append(estimate.stderr)
        assert (estimate.stderr == math.inf) == (overlaps[-1] == 0)
        assert overlaps[-1] > 0 or estimate.as_dict()["stderr"] is None
    assert overlaps[0] > LITTLE_OVERLAP and errors[0] < 1
    assert not any(overlaps[overlaps.index(0) :])
    assert overlaps.index(0) < 20
    assert max(overlaps[5:]) < overlaps[0]
    assert min(errors[5:]) > errors[0]


@settings(max_examples=30)
@given(
    spread=st.floats(0.05, 40.0),
    log_z=st.floats(-1e4, 1e4),
    counts=st.tuples(st.integers(2, 600), st.integers(2, 600)),
    seed=st.integers(0, 2**16),
)
def test_acceptance_ratio_of_gaussian_weights_is_right_or_says_that_it_is_not(spread, log_z, counts, seed):
    """Forward Normal(ln Z - s^2 / 2, s^2), reverse Normal(ln Z + s^2 / 2, s^2): the one is the other times e^w / Z."""
    rng = np.random.default_rng(seed)
    forward, reverse = (
        log_z + sign * spread**2 / 2 + spread * rng.normal(size=n) for sign, n in zip((-1, 1), counts, strict=True)
    )
    estimate = acceptance_ratio_free_energy(forward, reverse)
    if min(counts) >= 20 and overlap(forward, reverse, estimate.value) >= LITTLE_OVERLAP:
        assert abs(estimate.value + log_z) < 6 * estimate.stderr
    if spread > 20:  # 200 nats between the sets: beyond what hundreds of samples can see
        assert estimate.stderr == math.inf


@pytest.mark.parametrize("infinite", [-math.inf, math.inf])
def test_acceptance_ratio_refuses_sets_without_a_finite_weight(infinite):
    finite, none = torch.zeros(10), torch.full((10,), infinite)
    with pytest.raises(InvalidInput, match="of the flow"):
        acceptance_ratio_free_energy(none, finite)
    with pytest.raises(InvalidInput, match="of the target"):
        acceptance_ratio_free_energy(finite, none)


def test_chains_that_stand_still_are_worth_their_number():
    """Log-weights of 16 chains, each repeating one value 50 times: the error is that of 16 values."""
    values = gaussian_log_weights(1.3, 2, 16)
    chains = values[:, None].expand(16, 50)
    assert lower_bound(chains).stderr == pytest.approx(lower_bound(values).stderr, rel=0.25)
    assert lower_bound(chains.reshape(-1)).stderr < 0.2 * lower_bound(values).stderr


@every_case
def test_effective_sample_size_from_the_other_side(s, dimension):
    measured = reverse_effective_sample_size(reverse_log_weights(s, dimension, 50000), exact_free_energy(dimension))
    assert measured == pytest.approx(exact_ess(s, dimension), rel=0.03)


def test_only_reverse_samples_see_a_mode_that_the_flow_misses():
    """Target: two Gaussians at +-10; flow: one of them. Half of the reverse weights are enormous."""
    x = torch.randn(4000, generator=generator(), dtype=torch.float64)
    density = lambda x, centre: -((x - centre) ** 2) / 2  # noqa: E731
    mixture = lambda x: torch.logaddexp(density(x, -10.0), density(x, 10.0))  # noqa: E731
    forward = mixture(x + 10) - density(x + 10, 10.0)
    target = x + 10 * torch.where(torch.arange(4000) % 2 == 0, 1.0, -1.0)
    reverse = mixture(target) - density(target, 10.0)
    assert effective_sample_size(forward) == pytest.approx(1.0)
    assert reverse_effective_sample_size(reverse, -math.log(2)) < 1e-3


@every_case
def test_internal_energy_and_entropy_of_gaussians(s, dimension):
    """E = N / 2, S = N (1 + ln 2 pi) / 2; and from the target's own samples."""
    flow = gaussian_flow(s, dimension)
    field, log_prob = pushed(flow, flow.noise(20000, generator()))
    weights = log_weights(gaussian_energy, field, log_prob)
    energies = gaussian_energy(field)
    assert within(internal_energy(energies, weights), dimension / 2)
    assert within(entropy(energies, weights), dimension * (1 + math.log(2 * math.pi)) / 2)
    x = torch.randn(20000, dimension, generator=generator(), dtype=torch.float64)
    assert within(internal_energy(gaussian_energy(x)), dimension / 2)


def test_the_correction_removes_the_bias_of_the_reweighted_estimate():
    """To first order the bias is (1 / ESS - 1) / 2 n; the means of 20,000 repeats have an error of a tenth of it."""
    s, dimension, samples = 1.5, 6, 100
    repeats = gaussian_log_weights(s, dimension, 20000 * samples).view(-1, samples)
    plain, corrected = (
        np.mean([reweighted_free_energy(weights, corrected=c).value for weights in repeats])
        - exact_free_energy(dimension)
        for c in (False, True)
    )
    assert plain == pytest.approx((1 / exact_ess(s, dimension) - 1) / (2 * samples), rel=0.3)
    assert abs(corrected) < plain / 3


@every_case
def test_reweighted_free_energy_of_gaussians(s, dimension):
    """-ln Z, whatever the flow; the error is that of the weights' mean."""
    estimate = reweighted_free_energy(gaussian_log_weights(s, dimension, 20000))
    assert within(estimate, exact_free_energy(dimension)) or estimate.stderr < 1e-10
    assert estimate.stderr == pytest.approx(math.sqrt((1 / exact_ess(s, dimension) - 1) / 20000), rel=0.1, abs=1e-9)


def exact_ess(s: float, dimension: int) -> float:
    """1 / E_p[(target / p)^2] = (sqrt(2 s^2 - 1) / s^2)^N; none below s^2 = 1/2."""
    return (math.sqrt(2 * s**2 - 1) / s**2) ** dimension


@every_case
def test_effective_sample_size_of_gaussians(s, dimension):
    measured = effective_sample_size(gaussian_log_weights(s, dimension, 50000))
    assert measured == pytest.approx(exact_ess(s, dimension), rel=0.03)


@pytest.mark.parametrize(("s", "dimension"), [(1.2, 1), (1.1, 6), (0.9, 3)])
def test_a_68_percent_interval_covers_68_percent_of_the_time(s, dimension):
    """1000 repeats: the number covered is binomial, of standard deviation 1.5 %."""
    divergence = dimension * (s**2 - 1 - math.log(s**2)) / 2
    backward = dimension * (1 / s**2 - 1 + math.log(s**2)) / 2
    exact = exact_free_energy(dimension)
    forward = gaussian_log_weights(s, dimension, 1000 * 1000).view(1000, 1000)
    reverse = reverse_log_weights(s, dimension, 1000 * 500).view(1000, 10, 50)
    for estimator, truth in (
        (lambda w, _: variational_free_energy(w), exact + divergence),
        (lambda w, _: reweighted_free_energy(w), exact),
        (lambda w, _: reweighted_free_energy(w, corrected=True), exact),
        (lambda _, w: lower_bound(w.flatten()), exact - backward),
        (lambda _, w: lower_bound(w), exact - backward),
        (acceptance_ratio_free_energy, exact),
        (lambda w, _: mean(w.square()), forward.square().mean().item()),
    ):
        estimates = [estimator(*weights) for weights in zip(forward, reverse, strict=True)]
        covered = np.mean([abs(e.value - truth) < e.stderr for e in estimates])
        assert 0.63 < covered < 0.73, estimator


@pytest.mark.parametrize(
    ("width", "samples"),
    [(s, n) for n in (16, 64, 256, 2048) for s in (0.1, 0.5, 1.0, 1.5, 2.0) if n * math.exp(-(s**2)) > 5],
)
def test_reweighted_intervals_cover_as_they_say_wherever_more_than_five_samples_count(width, samples):
    """w ~ Normal(-s^2 / 2, s^2): E[exp w] = 1. By the delta method 58 % are covered at s = 1.5 with 64 samples."""
    log_weights = width * np.random.default_rng(samples).normal(size=(2000, samples)) - width**2 / 2
    for corrected in (False, True):
        found = [reweighted_free_energy(weights, corrected=corrected) for weights in log_weights]
        covered = np.mean([abs(estimate.value) < estimate.stderr for estimate in found])
        assert 0.62 < covered < 0.74, corrected


def test_the_reweighted_error_is_the_jackknife_s_times_student_s():
    """Of seven weights, left out one by one."""
    weights = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 0.5, 30.0])
    left_out = np.array([-math.log(np.delete(weights, i).mean()) for i in range(7)])
    kurtosis = scipy.stats.kurtosis(left_out, fisher=False)
    student = scipy.stats.t.ppf(scipy.stats.norm.cdf(1), min(2 * 7 / (kurtosis - 1), 6))
    plain, corrected = (reweighted_free_energy(np.log(weights), corrected=c) for c in (False, True))
    assert plain.stderr == corrected.stderr == pytest.approx(math.sqrt(6) * left_out.std() * student, rel=1e-12)
    assert plain.value == pytest.approx(-math.log(weights.mean()), rel=1e-12)
    assert corrected.value == pytest.approx(7 * plain.value - 6 * left_out.mean(), rel=1e-12)


def test_one_sample_with_all_the_weight_has_no_reweighted_error():
    found = reweighted_free_energy(np.array([0.0, -1000.0, -1000.0]), corrected=True)
    assert (found.value, found.stderr) == (pytest.approx(math.log(3)), math.inf)


# --- laws for any weights

weights_lists = st.lists(st.floats(-50, 50), min_size=2, max_size=40).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


@given(weights_lists)
def test_bounds_are_in_order(weights):
    """reweighted <= variational for every single set of samples (Jensen's inequality)."""
    assert reweighted_free_energy(weights).value <= variational_free_energy(weights).value + 1e-9


@settings(max_examples=20)
@given(s=st.floats(0.8, 1.6), dimension=st.integers(1, 10), seed=st.integers(0, 2**16))
def test_bounds_enclose_the_exact_answer(s, dimension, seed):
    weights = gaussian_log_weights(s, dimension, 4000, seed)
    low, high = lower_bound(reverse_log_weights(s, dimension, 4000, seed)), variational_free_energy(weights)
    exact = exact_free_energy(dimension)
    assert low.value - 5 * low.stderr - 1e-9 <= exact <= high.value + 5 * high.stderr + 1e-9


@given(weights_lists, st.floats(-1e3, 1e3))
def test_a_factor_in_z_shifts_free_energies_and_nothing_else(weights, shift):
    for estimator in (variational_free_energy, reweighted_free_energy, lower_bound):
        before, after = estimator(weights), estimator(weights + shift)
        assert after.value == pytest.approx(before.value - shift, rel=1e-9, abs=1e-8)
        assert after.stderr == pytest.approx(before.stderr, rel=1e-6, abs=1e-6)
    assert effective_sample_size(weights + shift) == pytest.approx(effective_sample_size(weights), rel=1e-9)
    both = [acceptance_ratio_free_energy(w, w.flip(0) - 1).value for w in (weights, weights + shift)]
    assert both[1] == pytest.approx(both[0] - shift, rel=1e-9, abs=1e-8)


@given(weights_lists, st.randoms(use_true_random=False))
def test_order_does_not_matter(weights, random):
    order = list(range(len(weights)))
    random.shuffle(order)
    for estimator in (variational_free_energy, reweighted_free_energy, lower_bound):
        before, after = estimator(weights), estimator(weights[order])
        assert after.value == pytest.approx(before.value, rel=1e-12, abs=1e-10)
        assert after.stderr == pytest.approx(before.stderr, rel=1e-8, abs=1e-8)


@given(weights_lists)
def test_effective_sample_size_is_between_one_sample_and_all(weights):
    share = effective_sample_size(weights)
    assert 1 / len(weights) - 1e-12 <= share <= 1 + 1e-12
    plain = torch.exp(weights - weights.max())
    assert share == pytest.approx((plain.sum() ** 2 / (len(plain) * plain.square().sum())).item(), rel=1e-10)


@pytest.mark.parametrize("n", [2, 7, 1000])
def test_limits_of_the_effective_sample_size(n):
    assert effective_sample_size(torch.full((n,), -3.0)) == pytest.approx(1.0, rel=1e-12)
    one = torch.zeros(n)
    one[0] = 1e4
    assert effective_sample_size(one) == pytest.approx(1 / n, rel=1e-12)
    half = torch.zeros(n)
    half[n // 2 :] = -math.inf
    assert effective_sample_size(half) == pytest.approx((n // 2) / n, rel=1e-12)


def test_huge_weights_do_not_overflow():
    weights = torch.tensor([1e5, 1e5 + 1, -1e5])
    assert reweighted_free_energy(weights).value == pytest.approx(-1e5 - math.log((1 + math.e) / 3), rel=1e-12)
    small = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    plain = acceptance_ratio_free_energy(small, small + 1).value
    assert acceptance_ratio_free_energy(small + 1e5, small + 1e5 + 1).value == pytest.approx(plain - 1e5, rel=1e-13)


def test_a_sample_where_the_target_vanishes_has_no_weight():
    """w = -inf: it counts in the mean weight; the variational bound is infinite."""
    weights = torch.tensor([0.3, 0.9, -0.2], dtype=torch.float64)
    with_one_more = torch.cat([weights, torch.tensor([-math.inf])])
    shift = math.log(4 / 3)
    assert reweighted_free_energy(with_one_more).value == pytest.approx(reweighted_free_energy(weights).value + shift)
    assert variational_free_energy(with_one_more).value == math.inf


def test_single_precision_weights_are_summed_in_double():
    values = torch.full((10**6,), 0.1, dtype=torch.float32)
    assert mean(values).value == pytest.approx(float(np.float32(0.1)), rel=1e-14)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_mean_and_its_standard_error(values):
    estimate = mean(torch.tensor(values, dtype=torch.float64))
    assert estimate.value == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12)
    assert estimate.stderr == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("estimator", [mean, variational_free_energy, reweighted_free_energy, lower_bound])
@pytest.mark.parametrize("n", [0, 1])
def test_one_sample_has_no_error_bar(estimator, n):
    with pytest.raises(InvalidInput, match=f"{n} samples: an error bar needs at least 2"):
        estimator(torch.zeros(n))


# --- log-weights of flows


def test_log_weights_are_those_of_the_definition():
    """w = -E(x) - ln p(x), with both written out: a Gaussian flow in an Ising energy."""
    target = HubbardStratonovich(square(3), 0.4)
    flow = build_flow(target, FlowConfig(potential="dense", whitened=False, hidden=3), seed=0).double()
    with torch.no_grad():
        gradient_flows(flow)[0].potential.amplitude.zero_()
    z = flow.noise(5, generator())
    field, log_prob = pushed(flow, z)
    x = z.numpy().reshape(5, 9)
    a = target.lattice.couplings(0.4) + target.offset * np.eye(9)
    energy = np.einsum("ni,ij,nj->n", x, np.linalg.inv(a), x) / 2 - np.log(np.cosh(x)).sum(1)
    normal = -(x**2).sum(1) / 2 - 9 * math.log(2 * math.pi) / 2
    np.testing.assert_allclose(log_weights(target.energy, field, log_prob).detach(), -energy - normal, rtol=1e-11)


def test_energies_are_evaluated_in_double():
    """Promise 2: a float32 flow's fields are float32, its energies and weights float64."""
    seen = []

    def energy(x):
        seen.append(x.dtype)
        return x.square().sum(1)

    flow = Flow((3,), [])
    field, log_prob = pushed(flow, flow.noise(4, generator()))
    assert field.dtype == torch.float32
    assert log_weights(energy, field, log_prob).dtype == torch.float64
    assert seen == [torch.float64]


# --- the integration error


class Quartic(Potential):
    """phi(x) = -x^4 / 4 in one dimension: x(t) = x0 / sqrt(1 + 2 t x0^2), ln |dx/dx0| = -(3/2) ln(1 + 2 t x0^2)."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = (1,)

    def bind(self):
        return lambda x, t: (-(x**3), -3 * x[:, 0] ** 2)


def quartic_energy(x):
    return x[:, 0] ** 2 / 2


@pytest.mark.parametrize("tableau", ["euler", "midpoint", "rk4", "dopri5"])
def test_integration_error_is_the_change_at_half_the_step_and_falls_with_the_order(tableau):
    """It estimates the true error of ln p + E, known here in closed form, to a factor of two."""
    gradient = GradientFlow(Quartic(), steps=1, tableau=tableau)
    flow = Flow((1,), [gradient]).double()
    z = torch.linspace(-1.2, 1.2, 50, dtype=torch.float64)[:, None]
    squeezed = 1 + 2 * z[:, 0] ** 2
    exact = quartic_energy(z / squeezed.sqrt()[:, None]) + flow.base_log_prob(z) + 1.5 * squeezed.log()

    def errors(steps):
        gradient.steps = steps
        field, log_prob = pushed(flow, z)
        true = (-log_weights(quartic_energy, field, log_prob) - exact).abs().mean().item()
        return integration_error(flow, quartic_energy, z).value, true

    coarse = {"euler": 128, "midpoint": 32, "rk4": 16, "dopri5": 8}[tableau]
    (first, true), (second, _), (third, _) = errors(coarse), errors(2 * coarse), errors(4 * coarse)
    assert first > second > third > 0
    assert true / 2 < first < 2 * true
    assert gradient.order - 0.6 < math.log2(second / third) < gradient.order + 2.5
    assert gradient.steps == 4 * coarse


def test_integration_error_bounds_the_change_of_the_bound():
    flow, target, z = wavy_flow()
    change = []
    for steps in (3, 6):
        gradient_flows(flow)[0].steps = steps
        change.append(variational_free_energy(log_weights(target.energy, *pushed(flow, z))).value)
    gradient_flows(flow)[0].steps = 3
    error = integration_error(flow, target.energy, z)
    assert 0 < abs(change[1] - change[0]) <= error.value
    assert 0 < error.stderr < error.value


def wavy_flow():
    target = HubbardStratonovich(square(3), 0.4)
    flow = build_flow(target, FlowConfig(potential="dense", hidden=6, steps=3), seed=0)
    with torch.no_grad():
        gradient_flows(flow)[0].potential.amplitude.mul_(20)
    flow = flow.double().requires_grad_(False)
    return flow, target, flow.noise(64, generator())


@pytest.mark.parametrize("threads", [1, 2, 3, 100])
def test_integration_error_does_not_depend_on_the_threads(threads):
    flow, target, z = wavy_flow()
    pool = Workers(threads)
    shared = integration_error(flow, target.energy, z, pool)
    pool.close()
    alone = integration_error(flow, target.energy, z)
    assert shared.value == pytest.approx(alone.value, rel=1e-9)
    assert shared.stderr == pytest.approx(alone.stderr, rel=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_integration_error_in_training_mode_is_that_of_the_regular_grid(training):
    """Not the difference between a jittered grid and a regular one, which is no statement about either."""
    flow, target, z = wavy_flow()
    gradient = gradient_flows(flow)[0]
    alone = integration_error(flow.eval(), target.energy, z).value
    gradient.jitter = 0.9
    flow.train(training).redraw(generator(3))
    assert integration_error(flow, target.energy, z).value == pytest.approx(alone, rel=1e-5)
    assert flow.training == training


def test_flows_that_integrate_nothing_have_no_integration_error():
    flow = Flow((4,), [SpectralScaling(EigenBasis((4,), torch.eye(4, dtype=torch.float64)), torch.full((4,), 1.3))])
    assert integration_error(flow, lambda x: x.square().sum(1), flow.noise(9, generator())) == Estimate(0.0, 0.0)


def test_integration_error_restores_the_steps_after_a_failure():
    flow, _, z = wavy_flow()
    calls = []

    def failing_at_half_the_step(x):
        calls.append(gradient_flows(flow)[0].steps)
        if len(calls) == 2:
            raise ZeroDivisionError
        return x.flatten(1).sum(1)

    with pytest.raises(ZeroDivisionError):
        integration_error(flow, failing_at_half_the_step, z)
    assert calls == [3, 6] and gradient_flows(flow)[0].steps == 3


def test_integration_error_leaves_no_graph():
    flow, target, z = wavy_flow()
    flow.requires_grad_(True)
    seen = []
    integration_error(flow, lambda x: (seen.append(x.requires_grad), target.energy(x))[1], z)
    assert seen == [False, False] and torch.is_grad_enabled()


def test_a_diverging_flow_has_an_infinite_integration_error():
    """NaN would compare as neither above nor below the tolerance."""
    flow, _, z = wavy_flow()
    error = integration_error(flow, lambda x: x.flatten(1).sum(1) * math.nan, z).value
    assert error == math.inf


# --- numbers with error bars

numbers = st.floats(-1e6, 1e6)
errors = st.floats(0, 1e4)
estimates = st.builds(Estimate, numbers, errors)


@given(estimates, estimates)
def test_sums_add_in_quadrature(a, b):
    for total, value in ((a + b, a.value + b.value), (a - b, a.value - b.value)):
        assert total.value == pytest.approx(value)
        assert total.stderr == pytest.approx(math.sqrt(a.stderr**2 + b.stderr**2))


@given(estimates, numbers, st.floats(-1e3, 1e3).filter(lambda c: abs(c) > 1e-3))
def test_numbers_shift_and_scale(a, shift, factor):
    for moved in (a + shift, shift + a):
        assert moved == Estimate(a.value + shift, a.stderr)
    assert a - shift == Estimate(a.value - shift, a.stderr)
    assert shift - a == Estimate(-a.value + shift, a.stderr)
    for scaled in (a * factor, factor * a):
        assert scaled == Estimate(a.value * factor, a.stderr * abs(factor))
    assert (a / factor).value == pytest.approx(a.value / factor)
    assert (a / factor).stderr == pytest.approx(a.stderr / abs(factor))
    assert -a == Estimate(-a.value, a.stderr)
    assert sum([a, a]).value == pytest.approx(2 * a.value)


@given(st.builds(Estimate, st.floats(-1e4, 1e4), st.floats(1e-9, 99)))
def test_printed_numbers_read_back(estimate):
    """Two significant digits of the error, the value to the same decimal: nothing lost beyond half of that digit."""
    value, stderr = str(estimate).split(" ± ")
    decimals = len(stderr.partition(".")[2])
    assert len(value.partition(".")[2]) == decimals == estimate.decimals
    digits = stderr.replace(".", "").lstrip("0")
    assert len(digits) == 2
    half = 0.5 * 10.0**-decimals * (1 + 1e-6)
    assert abs(float(value) - estimate.value) <= half + 1e-12
    assert abs(float(stderr) - estimate.stderr) <= half
    assert abs(float(stderr) / estimate.stderr - 1) <= 0.051


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(-592.8761, 0.0123), "-592.876 ± 0.012"),
        (Estimate(1.0, 0.3), "1.00 ± 0.30"),
        (Estimate(1.0, 0.0996), "1.00 ± 0.10"),
        (Estimate(1.0, 0.00996), "1.000 ± 0.010"),
        (Estimate(1.0, 0.00994), "1.0000 ± 0.0099"),
        (Estimate(123.456, 9.96), "123 ± 10"),
        (Estimate(123.456, 9.94), "123.5 ± 9.9"),
        (Estimate(1234.5, 250.0), "1234 ± 250"),
        (Estimate(-0.5, 1e-3), "-0.5000 ± 0.0010"),
        (Estimate(2.0, 0.0), "2.000000 ± 0.000000"),
        (Estimate(2.0, math.nan), "2.000000 ± nan"),
        (Estimate(math.inf, math.inf), "inf ± inf"),
    ],
)
def test_printed_numbers(estimate, text):
    assert str(estimate) == text


@given(estimates)
def test_json_form(a):
    assume(math.isfinite(a.value))
    assert a.as_dict() == {"value": a.value, "stderr": a.stderr}
    assert Estimate(**a.as_dict()) == a
