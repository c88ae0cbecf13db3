"""The continuous form in an external field: energies, ln Z, the spins behind x, and the best Gaussian and its mean."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from isingflow.architectures.base import Domain, allowed
from isingflow.architectures.build import build_flow
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.lattice import CRITICAL_BETA, edwards_anderson, random_field, square, triangular
from isingflow.potentials import LatticePotential
from isingflow.targets import HubbardStratonovich
from isingflow.targets.base import Target
from isingflow.targets.gaussian import gaussian_averages
from isingflow.targets.polarised import gaussians_in_field

CASES = {
    "uniform": (square(3), 0.4, 0.3),
    "down": (triangular(3), -0.2, -1.5),
    "varying": (square(3), 0.4, np.linspace(-1, 1, 9).reshape(3, 3)),
    "open": (square(2, 4, boundary="open"), CRITICAL_BETA, 0.1),
    "glass": (edwards_anderson(3, seed=1), 0.7, 0.3),
}
cases = pytest.mark.parametrize("name", CASES)


def target(name):
    of, beta, field = CASES[name]
    return HubbardStratonovich(of, beta, field=field)


def every_state(sites):
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=sites)), dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cases
def test_energy_force_and_what_is_known_of_the_lattice(name):
    of, beta, field = CASES[name]
    found, x = target(name), 2 * randn(5, *of.shape)
    assert found.lattice == of.with_field(field)
    assert not found.symmetry.flip and not Domain.of_target(found).even
    plain = HubbardStratonovich(of, beta)
    a = np.eye(of.sites) * found.offset + of.couplings(beta)
    b = beta * np.broadcast_to(field, of.shape)
    expected = (x.flatten(1) * (x.flatten(1) @ torch.from_numpy(np.linalg.inv(a)))).sum(1) / 2
    expected -= torch.log(torch.cosh(x + torch.from_numpy(b))).flatten(1).sum(1)
    torch.testing.assert_close(found.energy(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.force(x), Target.energy_and_force(found, x)[1], rtol=1e-9, atol=1e-9)
    assert found.energy(x.float()).dtype == torch.float32
    assert found.at(beta=0.2).lattice == found.lattice
    nothing = HubbardStratonovich(of, beta, field=0)
    torch.testing.assert_close(nothing.energy(x), plain.energy(x), rtol=0, atol=0)


@cases
def test_the_constant_between_free_energies_is_that_without_field(name):
    """The density is the mixture of Normal(A s, A) over all states s, each with its Boltzmann weight."""
    of, beta, _ = CASES[name]
    found = target(name)
    assert found.free_energy(1.5) == pytest.approx(HubbardStratonovich(of, beta).free_energy(1.5), rel=1e-13)
    states = every_state(of.sites)
    a = torch.from_numpy(np.eye(of.sites) * found.offset + of.couplings(beta))
    tilt = torch.from_numpy(beta * found.lattice.field_by_site.ravel())
    log_weights = (states @ a * states).sum(1) / 2 - of.sites * found.offset / 2 + states @ tilt
    x = randn(3, of.sites, seed=1)
    residual = x[:, None] - states @ a
    log_normal = -(residual * (residual @ torch.linalg.inv(a))).sum(-1) / 2 - torch.logdet(2 * math.pi * a) / 2
    log_density = torch.logsumexp(log_weights + log_normal, 1) - torch.logsumexp(log_weights, 0)
    exact_free_energy, _ = found.exact_free_energy()
    energy = found.energy(x.view(3, *of.shape))
    torch.testing.assert_close(exact_free_energy - energy, log_density, rtol=1e-9, atol=1e-9)


def test_spins_behind_fields():
    """p(s | x) is its formula; exact spins, fields drawn from p(x | s) and spins drawn anew have the exact averages."""
    of, n = square(2, boundary="open").with_field(np.array([[0.5, -0.5], [1.0, 0]])), 40_000
    found, tilt = HubbardStratonovich(of, 0.8), torch.tensor(0.8 * of.field_by_site)
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([[0.2, -0.1], [-1.0, 0.4]], dtype=torch.float64)
    means = found.sample_spins(x.expand(n, 2, 2), generator).double().mean(0)
    torch.testing.assert_close(means, torch.tanh(x + tilt), rtol=0, atol=0.02)

    states = every_state(4)
    weights = (states @ torch.tensor(of.couplings(0.8)) * states).sum(1) / 2 + states @ tilt.flatten()
    weights = (weights - torch.logsumexp(weights, 0)).exp()
    spins = states[torch.multinomial(weights, n, replacement=True, generator=generator)].view(n, 2, 2)
    again = found.sweep(found.sample_field(spins, generator), generator)
    m = torch.tanh(again + tilt)
    error = m.flatten(1).std(0) / math.sqrt(n)
    assert bool(((m.flatten(1).mean(0) - weights @ states).abs() < 4 * error).all())


# --- the best Gaussian


@pytest.mark.parametrize("mean", [0.0, -0.3, 2.0, 30.0])
@pytest.mark.parametrize("variance", [1e-3, 1.0, 50.0, 1e5])
def test_averages_with_a_mean(variance, mean):
    """Against a fine trapezoidal sum, and derivatives against differences."""
    sigma = math.sqrt(variance)
    near = np.linspace(-25, 25, 200_001)
    x = near if sigma > 1 else mean + sigma * np.linspace(-12, 12, 100_001)
    density = np.exp(-((x - mean) ** 2) / (2 * variance)) / (sigma * math.sqrt(2 * math.pi)) * (x[1] - x[0])
    found = gaussian_averages(variance, mean)
    assert found.sech_squared == pytest.approx((density / np.cosh(np.clip(x, -300, 300)) ** 2).sum(), rel=1e-9)
    step = 1e-5 * max(1.0, sigma)
    up, down = gaussian_averages(variance, mean + step), gaussian_averages(variance, mean - step)
    for value, high, low in (
        (found.tanh, up.ln_cosh, down.ln_cosh),
        (found.sech_squared, up.tanh, down.tanh),
        (found.third, up.sech_squared, down.sech_squared),
    ):
        assert value == pytest.approx((high - low) / (2 * step), rel=1e-5, abs=1e-7)


def test_mean_field_is_a_bound_and_stationary_in_random_cases():
    rng = np.random.default_rng(0)
    kinds = (square(3), square(2, 4, boundary="open"), edwards_anderson(3, seed=2), triangular(3))
    for case in range(24):
        of, beta, field = kinds[case % 4], rng.uniform(-1, 1.5), rng.normal() * 10 ** rng.uniform(-3, 0.5)
        if case % 3 == 0:
            field = field * rng.normal(size=of.shape)
        found = HubbardStratonovich(of, beta, field=field)
        best = found.mean_field()
        assert best.free_energy >= found.exact_free_energy()[0] - 1e-9
        a = np.eye(of.sites) * found.offset + of.couplings(beta)
        c, mean = (v.expand(of.shape).numpy().ravel() for v in (best.curvature, best.mean))
        covariance = np.linalg.inv(np.linalg.inv(a) - np.diag(c))
        averages = gaussian_averages(np.diag(covariance), mean + beta * found.lattice.field_by_site.ravel())
        np.testing.assert_allclose(a @ averages.tanh, mean, atol=1e-7)
        np.testing.assert_allclose(averages.sech_squared, c, rtol=1e-6)


@pytest.mark.parametrize("of", [square(3), random_field(square(3), 1, seed=0)], ids=str)
@pytest.mark.parametrize("strength", [1e-12, 30, -100, 1e8])
def test_extreme_fields(of, strength):
    """Where tanh is 1 to rounding, and where the field is lost beside the couplings."""
    field = strength if of.field is None else strength * of.field
    for beta in (0.0, -0.4, 5.0):
        found = HubbardStratonovich(of, beta, field=field)
        exact = found.exact_free_energy()[0]
        assert found.mean_field().free_energy >= exact - 1e-12 * max(1, abs(exact))


def test_no_gaussian_does_better():
    """A general-purpose minimiser over means and covariances, from several starts, ends at the same bound or above."""
    of = edwards_anderson(2, 2, seed=3).with_field(np.array([[0.4, -0.2], [0.1, 0.7]]))
    found = HubbardStratonovich(of, 0.6)
    inverse = np.linalg.inv(np.eye(4) * found.offset + of.couplings(0.6))
    b, lower = 0.6 * of.field_by_site.ravel(), np.tril_indices(4)

    def bound(parameters):
        mean, factor = parameters[:4], np.zeros((4, 4))
        factor[lower] = parameters[4:]
        covariance = factor @ factor.T
        entropy = np.log(np.abs(np.diag(factor))).sum() + 2 * (1 + math.log(2 * math.pi))
        log_cosh = gaussian_averages(np.diag(covariance), mean + b).ln_cosh.sum()
        return mean @ inverse @ mean / 2 + np.trace(inverse @ covariance) / 2 - log_cosh - entropy

    starts = [np.append(sign * np.ones(4), np.eye(4)[lower]) for sign in (1.5, 0, -1.5)]
    least = min(minimize(bound, start, method="BFGS", options={"gtol": 1e-6}).fun for start in starts)
    assert found.mean_field().free_energy == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("of", [square(4), square(3, boundary="open")], ids=str)
@pytest.mark.parametrize("beta", [0.15, CRITICAL_BETA])
def test_weak_fields_meet_the_answer_without(of, beta):
    """The bound is never above that of the centred Gaussian; in the disordered phase both meet."""
    without = HubbardStratonovich(of, beta).mean_field().free_energy
    weak = HubbardStratonovich(of, beta, field=1e-7).mean_field()
    assert weak.free_energy <= without + 1e-9
    if beta < 0.2:
        assert weak.free_energy == pytest.approx(without, abs=1e-9) and weak.mean.abs().max() < 1e-5


def test_fourier_and_eigenbasis_agree():
    of = square(3, 4).with_field(0.2)
    nearly = np.full((3, 4), 0.2)
    nearly[0, 0] += 1e-13  # no longer uniform
    torus, sites = (HubbardStratonovich(l, 0.5) for l in (of, of.with_field(nearly)))
    assert type(torus.basis) is not type(sites.basis)
    a, b = torus.mean_field(), sites.mean_field()
    assert a.free_energy == pytest.approx(b.free_energy, abs=1e-9)
    torch.testing.assert_close(b.mean, a.mean.expand(3, 4), rtol=1e-8, atol=0)
    torch.testing.assert_close(b.curvature, a.curvature.expand(3, 4), rtol=1e-8, atol=0)
    torch.testing.assert_close(a.logdet, b.logdet)


def test_where_flows_start():
    """From the best Gaussian if its sign is the only one that counts, else from the centred one, which covers both."""
    for field, alone in ((1.0, True), (-1.0, True), (0.05, False)):
        found = HubbardStratonovich(square(4), CRITICAL_BETA, field=field)
        known = found.basis, found.eigenvalues, found.whitening_logdet, found.tilt.numpy()
        best, start = gaussians_in_field(*known)
        assert (best is start) == alone == (not found.undecided)
        assert (start.mean == 0) != alone
        assert best.free_energy == found.mean_field().free_energy
        assert math.copysign(1, best.mean) == math.copysign(1, field)


def test_no_sign_is_preferred_without_a_field_or_by_one_of_both_signs():
    varying = np.linspace(-0.1, 0.1, 16).reshape(4, 4)
    assert not any(HubbardStratonovich(square(4), CRITICAL_BETA, field=field).undecided for field in (None, varying))


@pytest.mark.parametrize("name", ["uniform", "varying"])
def test_a_flow_starts_as_that_gaussian(name):
    """The whole flow without trained maps has the Gaussian's mean, covariance and log-density."""
    found = target(name)
    start, gaussian = found.start(), found._solutions().start
    z = randn(4000, *found.shape)
    x, logdet = z, torch.zeros(len(z), dtype=torch.float64)
    for transform in (*start.latent, *start.field):
        x, change = transform(x)
        logdet = logdet + change
    torch.testing.assert_close(x - gaussian.mean, found.unwhiten(gaussian.transform(z)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logdet, (gaussian.logdet + found.whitening_logdet).expand(4000))
    log_prob = torch.distributions.Normal(0, 1).log_prob(z).flatten(1).sum(1) - logdet
    values = log_prob + found.energy(x)
    assert abs(values.mean() - gaussian.free_energy) < 5 * values.std() / math.sqrt(len(z))


# --- flows


def test_potentials_with_more_symmetry_are_refused():
    found = HubbardStratonovich(square(4), 0.4, field=0.1)
    generator = torch.Generator().manual_seed(0)
    even = LatticePotential(square(4).symmetry, radial=1, oriented=0, hidden=4, time_terms=1, generator=generator)
    with pytest.raises(SymmetryMismatch, match="the spin flip Z2"):
        allowed(even, Domain.of_target(found))
    varying = HubbardStratonovich(random_field(square(4), 0.1, seed=0), 0.4)
    with pytest.raises(SymmetryMismatch, match="translations"):
        allowed(even, Domain.of_target(varying))
    build_flow(found, FlowConfig().fitted(Domain.of_target(found)), seed=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, "x", 1j, np.ones((3, 3)), np.full((4, 4), -math.inf), 1e300])
def test_fields_that_cannot_be(bad):
    with pytest.raises(InvalidInput):
        HubbardStratonovich(square(4), 0.4, field=bad)
