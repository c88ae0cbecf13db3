"""The continuous representation: the identity behind it point by point, closed forms, conditionals, mean field."""

import math
from itertools import product

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from scipy.optimize import minimize

from isingflow.errors import InvalidInput
from isingflow.flows.spectral import EigenBasis, FourierBasis
from isingflow.lattice import CRITICAL_BETA, Lattice, edwards_anderson, from_graph, square, triangular
from isingflow.statistics.estimate import Estimate
from isingflow.targets.gaussian import gaussian_averages
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich, ln_cosh

PAIR = from_graph(networkx.path_graph(2))
SMALL = {
    "pair": PAIR,
    "2x2": square(2),
    "3x3": square(3),
    "2x4 anisotropic": square(2, 4, jx=0.3, jy=-1.2),
    "3x3 triangular": triangular(3),
    "2x4 open": square(2, 4, boundary="open"),
    "3x3 glass": edwards_anderson(3, seed=2),
    "disconnected": from_graph(networkx.Graph([(0, 1), (2, 3), (3, 4)])),
}
BETAS = [-0.7, 0.0, CRITICAL_BETA, 1.3]

every_small = pytest.mark.parametrize("of", SMALL.values(), ids=SMALL)
every_beta = pytest.mark.parametrize("beta", BETAS)
every_layout = pytest.mark.parametrize(
    "of", [square(4, 5), triangular(3, 4), square(3, 4, boundary="open"), PAIR], ids=str
)


def all_spins(of: Lattice) -> np.ndarray:
    return np.array(list(product([-1.0, 1.0], repeat=of.sites)))


def enumerated_log_z(of: Lattice, beta: float) -> float:
    spins = all_spins(of)
    return float(np.logaddexp.reduce(np.einsum("si,ij,sj->s", spins, of.couplings(beta), spins) / 2))


def dense_a(target: HubbardStratonovich) -> np.ndarray:
    return target.lattice.couplings(target.beta) + target.offset * np.eye(target.sites)


def fields(target: HubbardStratonovich, *batch: int, dtype=torch.float64, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(*batch, *target.shape, generator=generator, dtype=torch.float64).to(dtype)


@every_small
@every_beta
def test_density_is_the_mixture_of_gaussians_over_all_spins(of, beta):
    """exp(-E(x)) / Z = sum_s p(s) Normal(x; A s, A), with p(s) = exp(s.K.s / 2) / Z_Ising: every term independent."""
    target = HubbardStratonovich(of, beta)
    spins = torch.from_numpy(all_spins(of))
    a = torch.from_numpy(dense_a(target))
    log_z = enumerated_log_z(of, beta)
    log_weights = torch.einsum("si,ij,sj->s", spins, torch.from_numpy(of.couplings(beta)), spins) / 2 - log_z
    x = fields(target, 5)
    gaussians = torch.distributions.MultivariateNormal(spins @ a, covariance_matrix=a)
    joint = log_weights + gaussians.log_prob(x.reshape(5, 1, -1))
    log_density = target.free_energy(log_z) - target.energy(x)
    torch.testing.assert_close(log_density, joint.logsumexp(-1), rtol=1e-11, atol=1e-11)

    posterior = (joint - joint.logsumexp(-1, keepdim=True)).exp()
    up = posterior @ (spins + 1) / 2
    torch.testing.assert_close(up, torch.sigmoid(2 * x).reshape(5, -1), rtol=1e-9, atol=1e-11)


@every_beta
def test_free_energy_of_two_spins_by_integration(beta):
    target = HubbardStratonovich(PAIR, beta)
    grid = torch.linspace(-25, 25, 501, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    log_z = torch.logsumexp(-target.energy(x), 0) + 2 * math.log(grid[1] - grid[0])
    assert target.free_energy(enumerated_log_z(PAIR, beta)) == pytest.approx(-float(log_z), abs=1e-10)


def test_published_value_at_criticality():
    """Kaufman's four products, written out for L = 16 at T_c (gamma_0 = 0, so the last product vanishes)."""
    gammas = 2 * np.arcsinh(np.sin(np.pi * np.arange(32) / 32))
    odd, even = gammas[1::2], gammas[::2]
    products = [np.prod(2 * np.cosh(8 * odd)), np.prod(2 * np.sinh(8 * odd)), np.prod(2 * np.cosh(8 * even))]
    log_z_ising = 128 * math.log(2) + math.log(sum(products) / 2)
    free_energy = HubbardStratonovich(square(16), CRITICAL_BETA).free_energy(log_z_ising)
    assert free_energy == pytest.approx(-592.8757, abs=5e-5)


@given(st.floats(-1e4, 1e4))
def test_conversions_of_ln_z_are_inverse(log_z):
    target = HubbardStratonovich(square(4), 0.4)
    assert target.log_z_ising(target.free_energy(log_z)) == pytest.approx(log_z, abs=1e-9)


def test_conversions_take_estimates():
    converted = HubbardStratonovich(square(4), 0.4).free_energy(Estimate(20.0, 0.5))
    assert isinstance(converted, Estimate) and converted.stderr == 0.5


@every_small
@every_beta
@pytest.mark.parametrize("smallest", [0.1, 0.7])
def test_offset_puts_the_smallest_eigenvalue_where_it_is_asked(of, beta, smallest):
    target = HubbardStratonovich(of, beta, min_eigenvalue=smallest)
    expected = np.linalg.eigvalsh(dense_a(target))
    assert expected[0] == pytest.approx(smallest, abs=1e-13)
    np.testing.assert_allclose(np.sort(target.eigenvalues.numpy(), axis=None), expected, atol=1e-13)
    assert target.whitening_logdet == pytest.approx(np.log(expected).sum() / 2, abs=1e-12)


@every_layout
@every_beta
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_energy_is_its_formula(of, beta, batch):
    target = HubbardStratonovich(of, beta)
    x = fields(target, *batch)
    flat = x.reshape(*batch, -1).numpy()
    expected = (flat * np.linalg.solve(dense_a(target), flat[..., None])[..., 0]).sum(-1) / 2
    expected -= np.log(np.cosh(flat)).sum(-1)
    assert target.energy(x).shape == batch
    np.testing.assert_allclose(target.energy(x).numpy(), expected, rtol=1e-12, atol=1e-12)


@every_layout
def test_single_precision_follows_double(of):
    target = HubbardStratonovich(of, 0.5)
    x = fields(target, 6)
    torch.testing.assert_close(target.energy(x.float()).double(), target.energy(x), rtol=1e-5, atol=1e-4)


def test_large_fields_do_not_overflow():
    x = torch.tensor([-1e4, -30.0, 0.0, 1e-9, 30.0, 1e4], dtype=torch.float64, requires_grad=True)
    value = ln_cosh(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    log_two = math.log(2)
    expected = torch.tensor([1e4 - log_two, 30 - log_two, 0, 0, 30 - log_two, 1e4 - log_two], dtype=torch.float64)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, torch.tanh(x))


def test_fourier_and_dense_diagonalisation_agree():
    torus, graph = square(3, 4, jx=0.8), from_graph(square(3, 4, jx=0.8).graph)
    fourier, dense = HubbardStratonovich(torus, 0.5), HubbardStratonovich(graph, 0.5)
    assert isinstance(fourier.basis, FourierBasis) and isinstance(dense.basis, EigenBasis)
    x = fields(fourier, 3)
    flat = x.flatten(1)
    assert fourier.offset == pytest.approx(dense.offset, abs=1e-13)
    torch.testing.assert_close(fourier.energy(x), dense.energy(flat))
    torch.testing.assert_close(fourier.force(x).flatten(1), dense.force(flat))
    torch.testing.assert_close(fourier.whiten(x).flatten(1), dense.whiten(flat))
    torch.testing.assert_close(fourier.unwhiten(x).flatten(1), dense.unwhiten(flat))
    a, b = fourier.mean_field(), dense.mean_field()
    assert a.free_energy == pytest.approx(b.free_energy, abs=1e-10)
    torch.testing.assert_close(b.curvature, a.curvature.expand(12), rtol=1e-9, atol=0)
    torch.testing.assert_close(a.transform(x).flatten(1), b.transform(flat), rtol=1e-8, atol=1e-8)


@every_layout
def test_whitening(of):
    target = HubbardStratonovich(of, 0.6)
    x = fields(target, 4)
    y = target.whiten(x)
    torch.testing.assert_close(target.unwhiten(y), x)
    torch.testing.assert_close(y.square().flatten(1).sum(-1) / 2 - ln_cosh(x).flatten(1).sum(-1), target.energy(x))
    jacobian = torch.autograd.functional.jacobian(target.unwhiten, y[0]).reshape(target.sites, target.sites)
    torch.testing.assert_close(jacobian, jacobian.T)
    np.testing.assert_allclose((jacobian @ jacobian).numpy(), dense_a(target), atol=1e-12)
    assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(target.whitening_logdet, abs=1e-11)


@every_layout
def test_basis_applies_functions_of_a_matrix(of):
    target = HubbardStratonovich(of, 0.6)
    basis, values = target.basis, target.eigenvalues
    x = fields(target, 2)
    assert values.shape == basis.values_shape
    torch.testing.assert_close(basis.multiply(basis.multiply(x, values), values), basis.multiply(x, values**2))
    assert basis.trace(values).item() == pytest.approx(np.trace(dense_a(target)))
    assert basis.logdet(torch.stack([values, -values])).tolist() == pytest.approx([2 * target.whitening_logdet] * 2)
    per_sample = torch.stack([values, 2 * values])
    torch.testing.assert_close(basis.multiply(x, per_sample)[1], 2 * basis.multiply(x[1], values))
    parameter = values.clone().requires_grad_()
    basis.multiply(x, parameter).square().sum().backward()
    assert parameter.grad.abs().sum() > 0


@every_small
def test_the_symmetry_is_the_lattices(of):
    assert HubbardStratonovich(of, 0.5).symmetry == of.symmetry


def test_spins_follow_their_field():
    target = HubbardStratonovich(square(3), 0.5)
    x = fields(target)
    spins = target.sample_spins(x.expand(20000, 3, 3), torch.Generator().manual_seed(1))
    assert spins.dtype == torch.int8 and set(spins.unique().tolist()) == {-1, 1}
    stderr = (1 - torch.tanh(x) ** 2).sqrt() / math.sqrt(20000)
    assert ((spins.double().mean(0) - torch.tanh(x)).abs() < 5 * stderr + 1e-12).all()


def test_strong_fields_fix_the_spins():
    target = HubbardStratonovich(square(3), 0.5)
    assert (target.sample_spins(torch.full((100, 3, 3), 50.0)) == 1).all()
    assert (target.sample_spins(torch.full((100, 3, 3), -60.0)) == -1).all()


@every_layout
def test_fields_follow_their_spins(of):
    target = HubbardStratonovich(of, 0.5)
    spins = (2 * torch.randint(2, target.shape, generator=torch.Generator().manual_seed(1)) - 1).to(torch.int8)
    n = 40000
    x = target.sample_field(spins.double().expand(n, *target.shape), torch.Generator().manual_seed(2)).flatten(1)
    a = torch.from_numpy(dense_a(target))
    mean = a @ spins.double().flatten()
    assert ((x.mean(0) - mean).abs() < 5 * (a.diag() / n).sqrt()).all()
    covariance = torch.cov(x.T)
    stderr = ((a.diag()[:, None] * a.diag() + a**2) / n).sqrt()
    assert ((covariance - a).abs() < 5 * stderr).all()


def test_alternating_conversions_keep_the_ising_distribution():
    """Gibbs sampling with the two conditionals must have the enumerated energy."""
    of, beta, n = square(3), 0.3, 2000
    target = HubbardStratonovich(of, beta)
    generator = torch.Generator().manual_seed(0)
    spins = torch.ones(n, 3, 3, dtype=torch.int8)
    for _ in range(40):
        spins = target.sample_spins(target.sample_field(spins, generator), generator)
    states = all_spins(of)
    couplings = of.couplings(1.0)
    energies = np.einsum("si,ij,sj->s", states, couplings, states) / 2
    weights = np.exp(beta * energies) / np.exp(beta * energies).sum()
    exact = weights @ energies
    flat = spins.double().flatten(1).numpy()
    sampled = np.einsum("si,ij,sj->s", flat, couplings, flat) / 2
    assert sampled.mean() == pytest.approx(exact, abs=5 * sampled.std() / math.sqrt(n))


def test_sampling_repeats_with_the_seed_and_has_the_dtype_of_its_input():
    target = HubbardStratonovich(square(3), 0.5)
    spins = torch.ones(2, 3, 3, dtype=torch.int8)
    first, second = (target.sample_field(spins, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second) and first.dtype == torch.get_default_dtype()
    assert target.sample_field(spins.double()).dtype == torch.float64
    assert torch.equal(*(target.sample_spins(first, torch.Generator().manual_seed(4)) for _ in range(2)))


# --- mean field ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [1e-6, 0.03, 1.0, 7.0, 300.0, 1e6, 1e12])
def test_gaussian_averages_against_adaptive_quadrature(variance):
    def average(function, width):
        scale = min(10 * math.sqrt(variance), width)
        density = 2 / math.sqrt(2 * math.pi * variance)
        integrand = lambda x: density * function(x) * math.exp(-(x**2) / (2 * variance))  # noqa: E731
        return integrate.quad(integrand, 0, scale, epsabs=0, epsrel=1e-13, limit=400)[0]

    sech_squared, log_cosh, slope, *_ = gaussian_averages(variance)
    assert sech_squared == pytest.approx(average(lambda x: 1 / math.cosh(x) ** 2, 40), rel=1e-12)
    expected = average(lambda x: x + math.log1p(math.exp(-2 * x)) - math.log(2), math.inf)
    assert log_cosh == pytest.approx(expected, rel=1e-12, abs=1e-13)
    step = 1e-4 * variance
    difference = (gaussian_averages(variance + step)[0] - gaussian_averages(variance - step)[0]) / (2 * step)
    assert slope == pytest.approx(difference, rel=1e-6)


def test_mean_field_of_the_critical_lattice():
    mean_field = HubbardStratonovich(square(16), CRITICAL_BETA).mean_field()
    assert mean_field.free_energy == pytest.approx(-557.71, abs=5e-3)
    assert mean_field.variances.shape == (16, 16)


@every_small
@pytest.mark.parametrize("beta", [*BETAS, 3.0])
def test_mean_field_is_a_bound(of, beta):
    target = HubbardStratonovich(of, beta)
    exact = target.free_energy(enumerated_log_z(of, beta))
    assert target.mean_field().free_energy >= exact - 1e-10


@pytest.mark.parametrize("of", [square(4), edwards_anderson(4, seed=1)], ids=str)
def test_mean_field_bound_by_monte_carlo(of):
    """E[ln p(x) + E(x)] over samples of the Gaussian, all terms computed from the samples."""
    target = HubbardStratonovich(of, 0.5)
    mean_field = target.mean_field()
    z = torch.randn(100_000, *of.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = target.unwhiten(mean_field.transform(z))
    log_prob = torch.distributions.Normal(0, 1).log_prob(z).flatten(1).sum(-1)
    log_prob = log_prob - mean_field.logdet - target.whitening_logdet
    values = log_prob + target.energy(x)
    assert values.mean().item() == pytest.approx(
        mean_field.free_energy, abs=5 * values.std().item() / math.sqrt(len(z))
    )
    torch.testing.assert_close(mean_field.inverse(mean_field.transform(z)), z)


@pytest.mark.parametrize(
    "of", [square(4), triangular(3), square(3, 4, boundary="open"), edwards_anderson(4, seed=1)], ids=str
)
@pytest.mark.parametrize("beta", [-0.5, 0.0, 0.44, 2.0])
def test_mean_field_solves_its_equations(of, beta):
    target = HubbardStratonovich(of, beta)
    mean_field = target.mean_field()
    curvature = mean_field.curvature.expand(of.shape).flatten().numpy()
    covariance = np.linalg.inv(np.linalg.inv(dense_a(target)) - np.diag(curvature))
    np.testing.assert_allclose(gaussian_averages(np.diag(covariance))[0], curvature, rtol=1e-8)

    identity = torch.eye(of.sites, dtype=torch.float64).reshape(of.sites, *of.shape)
    root = target.unwhiten(mean_field.transform(identity)).flatten(1).numpy()
    np.testing.assert_allclose(root.T @ root, covariance, rtol=1e-7, atol=1e-7)


def test_no_gaussian_does_better():
    """A general-purpose minimiser over all covariances of a small glass ends at the same bound."""
    of = edwards_anderson(2, 3, seed=3)
    target = HubbardStratonovich(of, 0.9)
    inverse = np.linalg.inv(dense_a(target))
    lower = np.tril_indices(of.sites)

    def bound(parameters):
        factor = np.zeros((of.sites, of.sites))
        factor[lower] = parameters
        covariance = factor @ factor.T
        entropy = np.log(np.abs(np.diag(factor))).sum() + of.sites / 2 * (1 + math.log(2 * math.pi))
        return np.trace(inverse @ covariance) / 2 - gaussian_averages(np.diag(covariance))[1].sum() - entropy

    found = minimize(bound, np.eye(of.sites)[lower], method="BFGS", options={"gtol": 1e-7})
    assert target.mean_field().free_energy == pytest.approx(found.fun, abs=1e-6)
    assert target.mean_field().free_energy <= found.fun + 1e-9


@pytest.mark.parametrize("beta", [10.0, 1e3, 1e9])
@pytest.mark.parametrize("of", [square(3), square(3, boundary="open")], ids=str)
def test_deep_in_the_ordered_phase_mean_field_stays_a_bound(of, beta):
    target = HubbardStratonovich(of, beta)
    mean_field = target.mean_field()
    assert torch.isfinite(mean_field.variances).all() and (mean_field.variances > 0).all()
    assert mean_field.free_energy >= target.free_energy(enumerated_log_z(of, beta)) * (1 + 1e-12)


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [math.nan, math.inf, -math.inf, "0.4", None, True, 0.4j])
def test_bad_beta(beta):
    with pytest.raises(InvalidInput, match=r"^beta is .*, expected a finite number$"):
        HubbardStratonovich(square(4), beta)


@pytest.mark.parametrize("of", [square(4), square(4, boundary="open")], ids=str)
@pytest.mark.parametrize("beta", [1e13, 1e300])
def test_beta_beyond_floating_point(of, beta):
    with pytest.raises(InvalidInput, match=r"lost in rounding|overflows"):
        HubbardStratonovich(of, beta)


@pytest.mark.parametrize("smallest", [0, -0.1, math.nan, math.inf, "0.1", None])
def test_bad_min_eigenvalue(smallest):
    with pytest.raises(InvalidInput, match=r"min_eigenvalue is .*, expected a finite number > 0"):
        HubbardStratonovich(square(4), 0.4, min_eigenvalue=smallest)


def test_lattice_too_large_for_dense_algebra():
    with pytest.raises(InvalidInput, match=r"up to 16384 sites|of memory"):
        HubbardStratonovich(square(200, boundary="open"), 0.4)


@pytest.mark.parametrize("method", ["energy", "force", "energy_and_force", "whiten", "unwhiten", "sample_spins"])
@pytest.mark.parametrize(
    "x", [torch.zeros(4), torch.zeros(3, 5, 4), torch.zeros(16), torch.zeros(4, 4, dtype=torch.bool), "x"]
)
def test_fields_of_another_shape_or_kind(method, x):
    with pytest.raises(InvalidInput, match=r"expected .*\(\.\.\., 4, 4\)"):
        getattr(HubbardStratonovich(square(4), 0.4), method)(x)


@pytest.mark.parametrize("spins", [torch.zeros(4, 4), torch.full((4, 4), 2), torch.full((4, 4), math.nan)])
def test_spins_other_than_up_and_down(spins):
    with pytest.raises(InvalidInput, match=r"spins must be \+1 or -1"):
        HubbardStratonovich(square(4), 0.4).sample_field(spins)
