"""CP-Flow: convex potentials, their gradient maps, log-determinants and inverses, each against another way."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_potential_laws import CONVEX_POTENTIALS as POTENTIALS
from test_potential_laws import SQUARE, convex, convex_lattice, generator, randn
from torch import Tensor

from isingflow.errors import InvalidInput, IsingflowError, NotConverged, SymmetryMismatch
from isingflow.flows import ActNorm, CholeskyLogdet, ConvexFlow, Flow, Inverted, LanczosLogdet
from isingflow.flows.certificate import logdet_error
from isingflow.flows.solvers import newton, small
from isingflow.flows.solvers.cholesky_kernels import factorised, inverted
from isingflow.flows.solvers.krylov import conjugate_gradients, gauss_log, lanczos, radau_log
from isingflow.flows.solvers.lbfgs import minimise
from isingflow.lattice.symmetry import Group, square_torus_group
from isingflow.potentials import ConvexFunction, ConvexPotential, LatticeConvexPotential, LogSumExpPotential
from isingflow.potentials.convex import Expansion, raw_strength
from isingflow.potentials.layers.activations import CONVEX
from isingflow.potentials.layers.input_convex import KINDS, ConvexNetwork
from isingflow.potentials.layers.softmax import softmax_moments

every_activation = pytest.mark.parametrize("activation", CONVEX)


NETWORKS = [(kind, augmented) for kind in KINDS for augmented in (True, False) if augmented or kind != "halves"]
every_potential = pytest.mark.parametrize("make", POTENTIALS.values(), ids=POTENTIALS)


# --- activations


@every_activation
def test_activations_are_convex_and_increasing(activation):
    """Derivatives against autograd; zero at zero, s(p) - s(-p) = p, and straight far from zero."""
    s = CONVEX[activation]
    p = torch.linspace(-6, 6, 240, dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(s.value(p).sum(), p, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), p)[0]
    torch.testing.assert_close(s.first(p), first, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(s.second(p), second, rtol=1e-9, atol=1e-12)
    assert (first > 0).all() and (first < 1).all() and (second > 0).all()
    assert s.value(torch.zeros(1, dtype=torch.float64)).abs() < 1e-15
    torch.testing.assert_close(s.value(p) - s.value(-p), p, rtol=1e-12, atol=1e-12)
    far = torch.tensor([-1e4, 1e4])
    torch.testing.assert_close(s.first(far), torch.tensor([0.0, 1.0]), rtol=0, atol=4e-5)
    assert s.second(far).abs().max() < 1e-8 and s.value(far).isfinite().all()


NOISE = {
    "softplus": scipy.stats.logistic(),
    "gaussian": scipy.stats.norm(),
    "squareplus": scipy.stats.t(2, scale=math.sqrt(0.5)),
    "laplace": scipy.stats.laplace(),
    "cauchy": scipy.stats.cauchy(),
}


@every_activation
def test_activations_are_soft_maxima_under_noise(activation):
    """The second derivative is the noise's density, the first its distribution function; the value integrates it."""
    s, noise = CONVEX[activation], NOISE[activation]
    p = torch.tensor([-30.0, -4.0, -0.7, 0.0, 0.2, 3.0, 25.0], dtype=torch.float64)
    np.testing.assert_allclose(s.second(p), noise.pdf(p), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(s.first(p), noise.cdf(p), rtol=1e-10, atol=1e-15)
    integrals = [scipy.integrate.quad(noise.cdf, 0, float(end), epsabs=1e-11, epsrel=1e-11)[0] for end in p]
    np.testing.assert_allclose(s.value(p), integrals, atol=1e-9)
    if noise.mean() == 0:
        kept = [scipy.integrate.quad(noise.sf, -float(end), np.inf)[0] for end in p]
        np.testing.assert_allclose(s.value(p) + scipy.integrate.quad(noise.sf, 0, np.inf)[0], kept, atol=1e-6)


# --- potentials


def test_an_oriented_kernel_is_not_radial():
    """A bond has a direction: the kernel differs along and across it, and turning it gives the other orientation."""
    kernels = convex_lattice(square_torus_group(4, 4), radial=1, oriented=1).by_displacement()
    radial, oriented = kernels
    assert torch.equal(radial[0], radial[0].T) and not torch.equal(oriented[0], oriented[0].T)
    assert torch.equal(oriented[1], oriented[0].T)


@pytest.mark.parametrize("width", [4, 64, 256])
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_potential_is_nearly_the_identity(width, layers, kind):
    """Whatever its width and depth: displacements a fraction of x, their mean zero, eigenvalues of one on average."""
    potential = ConvexPotential((4,), width=width, layers=layers, kind=kind, generator=generator(width))
    x = torch.randn(1000, 4, generator=generator(7))
    moved = potential.gradient(x) - x
    assert moved.square().mean().sqrt() < 0.25
    assert moved.mean(0).abs().max() < 0.05
    assert torch.linalg.eigvalsh(potential.hessian(x)).mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("kind", "augmented"), NETWORKS)
def test_normalised_layers_start_with_variance_one(kind, augmented):
    """At other points than those they were normalised at; and they stay convex."""
    options = {"width": 16, "layers": 3, "kind": kind, "augmented": augmented, "activation": "gaussian"}
    network = ConvexNetwork(2, normalised=True, **options, generator=generator())
    u = torch.randn(2, 4000, generator=generator(7))
    at_start = network.expand(u)
    for pre in at_start.pre:
        assert pre.std(1).median().item() == pytest.approx(1.0, abs=0.1) and pre.std(1).max() < 1.5
    assert torch.linalg.eigvalsh(at_start.hessian()).min() > -1e-4
    medians = [pre.std(1).median() for pre in ConvexNetwork(2, **options, generator=generator()).expand(u).pre]
    assert min(medians) < 0.8 or max(medians) > 1.5


def value_by_definition(potential: ConvexPotential, x: Tensor) -> Tensor:
    """F unit by unit and layer after layer, without any of the package's closed forms."""
    network, kind = potential.network, potential.network.kind
    s, width, depth = CONVEX[network.activation].value, len(network.biases[0]), len(network.biases)
    averages = [torch.nn.functional.softplus(raw) / raw.shape[1] for raw in network.raw]
    seen: list[Tensor] = []
    for k in range(depth):
        p = x @ network.skips[k].T if k < len(network.skips) else torch.zeros(len(x), width, dtype=x.dtype)
        if k and kind == "dense":
            p = p + torch.cat(seen, 1) @ averages[k - 1].T
        elif k and kind == "residual":
            p = p + seen[-1] + seen[-1] @ averages[k - 1].T / depth
        elif k:
            p[:, : len(averages[k - 1])] += seen[-1] @ averages[k - 1].T
        p = p * network.log_gains[k].exp() if len(network.log_gains) else p
        p = p + network.biases[k]
        symmetric = width if k == 0 else width // 2 if kind == "halves" else 0
        z = s(p)
        z[:, width - symmetric :] -= p[:, width - symmetric :] / 2
        seen.append(z)
    last = torch.cat(seen, 1) if kind == "dense" else seen[-1]
    quadratic = potential.alpha * x.square().sum(1) / 2
    return potential.scale * last @ averages[-1][0] + x @ potential.linear + quadratic


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("kind", "augmented"), NETWORKS)
def test_networks_are_what_their_definition_says(kind, augmented, normalised):
    potential = convex(layers=4, kind=kind, augmented=augmented, normalised=normalised, activation="laplace")
    x = 2 * randn(30, 3)
    torch.testing.assert_close(potential.value(x), value_by_definition(potential, x), rtol=1e-12, atol=1e-12)


def test_a_new_lattice_potential_is_nearly_the_identity():
    """On the fields that it is told about, here strongly correlated ones."""
    variances = torch.ones(8, 8)
    variances[0, 0] = 50.0
    potential = LatticeConvexPotential(
        square_torus_group(8, 8), radial=4, oriented=2, width=8, variances=variances, generator=generator()
    )
    x = torch.fft.ifft2(torch.fft.fft2(torch.randn(500, 8, 8, generator=generator(1))) * variances.sqrt()).real
    assert (potential.gradient(x) - x).square().mean() < 0.1 * x.square().mean()
    along = (potential.product(x, x) * x).sum() / x.square().sum()
    assert along.item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("sites", [1, 2, 3, 12])
def test_a_new_soft_maximum_is_nearly_the_identity(sites):
    potential = LogSumExpPotential((sites,), width=200, generator=generator(sites))
    x = torch.randn(1000, sites, generator=generator(7))
    moved = potential.gradient(x) - x
    assert moved.square().mean().sqrt() < 0.6
    assert moved.mean(0).abs().max() < 0.05
    eigenvalues = torch.linalg.eigvalsh(potential.hessian(x))
    assert eigenvalues.mean().item() == pytest.approx(1.0, abs=0.05) and eigenvalues.min() > 0.49


def test_a_soft_maximum_of_two_functions_is_a_logistic_step():
    """F = gamma s^2 ln(e^u + e^-u) + .., u = x c / s^2: its slope is tanh, its curvature sech^2."""
    potential = LogSumExpPotential((1,), width=2, softness=0.5, generator=generator()).double()
    with torch.no_grad():
        potential.centres.copy_(torch.tensor([[-1.5], [1.5]]))
        potential.linear.zero_()
    scale, sharpness = (getattr(potential, f"log_{name}").exp().item() for name in ("scale", "sharpness"))
    alpha = 0.02 + 0.98 * potential.log_alpha.exp().item()
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    u = 1.5 * sharpness * x
    torch.testing.assert_close(potential.gradient(x), 1.5 * scale * u.tanh() + alpha * x)
    torch.testing.assert_close(potential.hessian(x)[..., 0], 2.25 * scale * sharpness / u.cosh() ** 2 + alpha)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_fused_moments_are_those_of_tensor_operations(d, dtype, monkeypatch):
    """Results and cotangents of steep exponents, some of them past the floor, against autograd in double precision."""
    x, w, b = 2 * randn(40, d), 20 * randn(d, 30), 10 * randn(30)
    arguments = [tensor.to(dtype).requires_grad_() for tensor in (x, w, b)]
    fused = softmax_moments(*arguments)
    weights = [randn(*result.shape, seed=i) for i, result in enumerate(fused)]

    def pulled(results, inputs):
        total = sum((result.double() * weight).sum() for result, weight in zip(results, weights, strict=True))
        return torch.autograd.grad(total, inputs)

    ours = pulled(fused, arguments)
    monkeypatch.setattr("isingflow.potentials.layers.softmax.FUSED_DIMENSION", 0)
    doubled = [tensor.detach().double().requires_grad_() for tensor in arguments]
    plain = softmax_moments(*doubled)
    for one, other in zip([*fused, *ours], [*plain, *pulled(plain, doubled)], strict=True):
        assert one.dtype == dtype
        error = (one.double() - other).abs().max() / other.abs().max()
        assert error < (2e-5 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"activation": "relu"}, "'relu', expected softplus, gaussian, squareplus, laplace or cauchy"),
        ({"kind": "pooled"}, "'pooled', expected layers, residual, dense or halves"),
        ({"kind": "halves", "augmented": False}, "augmented is False, but half of a network of halves sees"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        ConvexPotential((2,), **options, generator=generator())
    with pytest.raises(InvalidInput, match="gain is 0, expected a finite number > 0"):
        ConvexPotential((2,), gain=0, generator=generator())
    with pytest.raises(InvalidInput, match=message):
        LatticeConvexPotential(SQUARE, radial=1, **{"width": 2, **options}, generator=generator())


@pytest.mark.parametrize(("options", "message"), [({"width": 0}, "width is 0"), ({"softness": 0}, "softness is 0")])
def test_impossible_soft_maxima_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        LogSumExpPotential((2,), **options, generator=generator())


def test_lattice_potentials_need_kernels_and_their_symmetry():
    with pytest.raises(InvalidInput, match="expected at least one kernel"):
        LatticeConvexPotential(SQUARE, radial=0, width=2, generator=generator())
    with pytest.raises(SymmetryMismatch, match="needs translations x C2 x Z2"):
        LatticeConvexPotential(Group((3, 3), True), radial=1, width=2, generator=generator())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", CONVEX)
@pytest.mark.parametrize("kind", ["layers", "residual", "halves"])
def test_the_fused_network_is_that_of_tensor_operations(kind, activation, dtype, monkeypatch):
    """Results and all cotangents, at points far out too, against autograd through the layers in double precision."""
    options = {"layers": 3, "kind": kind, "activation": activation, "normalised": kind == "halves"}
    potential = convex((3,), **options)
    coarse = convex((3,), **options).to(dtype)
    x = torch.cat([randn(20, 3), 30 * randn(20, 3, seed=1)])
    weights = [randn(40, seed=2), randn(40, 3, seed=3), randn(40, 3, 3, seed=4)]

    def results(function: ConvexPotential, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        expansion = function.expand(x)
        found = [expansion.value, expansion.gradient, expansion.hessian()]
        total = sum((result.double() * weight).sum() for result, weight in zip(found, weights, strict=True))
        return [*found, *torch.autograd.grad(total, [x, *function.parameters()])]

    fused = results(coarse, x.to(dtype))
    monkeypatch.setattr("isingflow.potentials.convex.MOST_FEATURES", 0)
    for one, other in zip(fused, results(potential, x), strict=True):
        assert one.dtype == dtype and one.shape == other.shape
        error = (one.double() - other).abs().max() / other.abs().max()
        assert error < (2e-5 if dtype == torch.float32 else 1e-13)


# --- linear algebra


@pytest.mark.parametrize("d", [1, 2, 5, 16])
def test_compiled_factors_of_many_matrices(d):
    """Determinants, inverses and their derivative against those of LAPACK; an indefinite matrix is told of."""
    matrices = positive(30, d, condition=1e3).requires_grad_()
    weights = randn(30)
    factor, value = matrices.detach().permute(1, 2, 0).contiguous().numpy(), np.empty(30)
    assert factorised(factor, value)
    np.testing.assert_allclose(value, torch.linalg.slogdet(matrices).logabsdet.detach(), rtol=1e-12, atol=1e-12)
    inverse = np.empty_like(factor)
    inverted(factor, inverse)
    exact = torch.linalg.inv(matrices).detach().permute(1, 2, 0).numpy()
    np.testing.assert_allclose(inverse, exact, rtol=0, atol=1e-9 * abs(exact).max())

    class Given(Expansion):
        gradient = torch.zeros(30, d)

        def hessian(self) -> Tensor:
            return matrices

    ours = torch.autograd.grad((CholeskyLogdet()(Given(), matrices) * weights).sum(), matrices)[0]
    np.testing.assert_allclose(ours, exact.transpose(2, 0, 1) * weights.numpy()[:, None, None], rtol=0, atol=1e-9)
    with torch.no_grad():
        matrices[7] *= -1
    with pytest.raises(NotConverged, match="1 of 30"):
        CholeskyLogdet()(Given(), matrices)


def positive(n: int, d: int, seed: int = 0, condition: float = 30.0) -> Tensor:
    """Symmetric matrices with eigenvalues from 1 to the condition number."""
    vectors = torch.linalg.qr(randn(n, d, d, seed=seed)).Q
    return vectors * torch.logspace(0, math.log10(condition), d, dtype=torch.float64) @ vectors.mT


def times(matrices: Tensor):
    return lambda v: torch.einsum("nij,...nj->...ni", matrices, v)


def test_conjugate_gradients_solve_each_system_to_its_tolerance():
    """Against a direct solution; the residual is the true one; easy systems stop early, d steps are enough for all."""
    matrices = torch.cat([positive(3, 12), torch.eye(12, dtype=torch.float64)[None]])
    right = randn(5, 4, 12)
    for tolerance in (1e-2, 1e-4, 1e-10):
        solution = conjugate_gradients(times(matrices), right, tolerance=tolerance, iterations=20)
        left = right - times(matrices)(solution.vectors)
        true = left.norm(dim=-1) / right.norm(dim=-1)
        assert true.max() <= tolerance * (1 + 1e-6)
        torch.testing.assert_close(solution.residuals, true, rtol=1e-3, atol=1e-14)
        assert (solution.iterations[:, 3] == 1).all() and (solution.iterations[:, :3] > 1).all()
    exact = torch.linalg.solve(matrices, right[..., None])[..., 0]
    torch.testing.assert_close(solution.vectors, exact, rtol=1e-8, atol=1e-9)
    assert solution.iterations.max() <= 13


def test_conjugate_gradients_of_nothing_are_nothing():
    solution = conjugate_gradients(times(positive(2, 3)), torch.zeros(2, 3).double(), tolerance=1e-3, iterations=5)
    assert not solution.vectors.any() and not solution.residuals.any() and not solution.iterations.any()


def test_conjugate_gradients_tell_who_did_not_converge():
    matrices = torch.cat([torch.eye(30, dtype=torch.float64)[None], positive(1, 30, condition=1e4)])
    solution = conjugate_gradients(times(matrices), randn(2, 30), tolerance=1e-6, iterations=5)
    assert solution.residuals[0] <= 1e-6 < solution.residuals[1]
    assert solution.iterations.tolist() == [1, 5]


def log_form(matrices: Tensor, vectors: Tensor) -> Tensor:
    """r.ln(H).r by diagonalisation."""
    values, axes = torch.linalg.eigh(matrices)
    return ((axes.mT @ vectors[..., None])[..., 0].square() * values.log()).sum(-1)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16), condition=st.floats(1.5, 1e4))
def test_quadrature_brackets_the_logarithm(seed, condition):
    """Gauss above, Radau below, at every number of steps; both exact when the steps span the space."""
    matrices, r = positive(3, 8, seed, condition), randn(3, 8, seed=seed + 1)
    exact = log_form(matrices, r)
    gaps = []
    for steps in (1, 2, 4, 8):
        t = lanczos(times(matrices), r, steps)
        above, below = gauss_log(t), radau_log(t, torch.tensor(0.99).double())
        slack = 1e-9 * (1 + exact.abs())
        assert (below <= exact + slack).all() and (exact <= above + slack).all()
        gaps.append((above - below).max().item())
    assert gaps[-1] < 1e-7 * (1 + exact.abs().max()) and gaps[0] > gaps[2] > 0
    torch.testing.assert_close(above, exact, rtol=1e-9, atol=1e-9)


def test_lanczos_of_an_exhausted_space():
    """Multiples of the identity, and vectors with few components: no division by the zero that is left."""
    matrices = torch.stack([3.0 * torch.eye(6), torch.diag(torch.tensor([1.0, 2, 2, 2, 5, 5]))]).double()
    r = torch.ones(2, 6).double()
    t = lanczos(times(matrices), r, 6)
    for rule in (gauss_log(t), radau_log(t, torch.tensor(0.5).double())):
        torch.testing.assert_close(rule, log_form(matrices, r), rtol=1e-12, atol=1e-12)


# --- log-determinants


def autograd_logdet(potential: ConvexFunction, x: Tensor) -> Tensor:
    """ln |det| of the autograd Hessian of the value."""
    sites = math.prod(potential.shape)
    rows = [torch.autograd.functional.hessian(lambda y: potential.value(y[None])[0], one, True) for one in x]
    return torch.stack([torch.linalg.slogdet(row.reshape(sites, sites)).logabsdet for row in rows])


@every_potential
def test_the_exact_logarithm_of_the_determinant(make):
    potential = make()
    x = randn(3, *potential.shape)
    logdet = CholeskyLogdet()(potential.expand(x), x)
    torch.testing.assert_close(logdet, autograd_logdet(potential, x), rtol=1e-11, atol=1e-11)


def by_parameters(potential: ConvexFunction, scalar: Tensor) -> Tensor:
    """Its derivatives by all parameters, as one vector; the graph is kept."""
    gradients = torch.autograd.grad(scalar, list(potential.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


@every_potential
def test_the_gradient_of_the_exact_logarithm(make):
    """The trace formula against differentiation through slogdet of the autograd Hessian."""
    potential = make()
    x = randn(3, *potential.shape)
    ours = by_parameters(potential, CholeskyLogdet()(potential.expand(x), x).sum())
    exact = by_parameters(potential, autograd_logdet(potential, x).sum())
    torch.testing.assert_close(ours, exact, rtol=1e-8, atol=1e-9)


def unit_probes(n: int, shape: tuple[int, ...]) -> Tensor:
    """All unit vectors times sqrt(N): their mean of r A r is the trace of A."""
    sites = math.prod(shape)
    identity = math.sqrt(sites) * torch.eye(sites, dtype=torch.float64)
    return identity.view(sites, 1, *shape).expand(-1, n, *shape)


@every_potential
def test_what_is_first_asked_for_without_a_graph_has_one(make):
    """Training looks at the value first, without a graph, and differentiates products afterwards."""
    potential = make()
    x, logdet = randn(3, *potential.shape), LanczosLogdet(2, tolerance=1e-12)
    surrogate, _ = logdet.surrogate(potential.expand(x), logdet.draw(x))
    ours, true = (
        by_parameters(potential, logdet(potential.expand(x), x).sum()),
        by_parameters(potential, surrogate.sum()),
    )
    torch.testing.assert_close(ours, true, rtol=1e-9, atol=1e-9)


@every_potential
def test_all_unit_vectors_are_exact(make):
    """Value, and gradient at a tight tolerance, of the stochastic log-determinant in the limit."""
    potential = make()
    x = randn(3, *potential.shape)
    expansion, probes = potential.expand(x), unit_probes(3, potential.shape)
    exact = CholeskyLogdet()(expansion, x)
    lanczos_logdet = LanczosLogdet(steps=50, tolerance=1e-12)
    estimate = lanczos_logdet.quadrature(expansion, probes)
    torch.testing.assert_close(estimate.value, exact.detach(), rtol=1e-10, atol=1e-10)
    assert estimate.truncation.max() < 1e-8
    surrogate, _ = lanczos_logdet.surrogate(expansion, probes)
    ours, true = by_parameters(potential, surrogate.sum()), by_parameters(potential, exact.sum())
    torch.testing.assert_close(ours, true, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["augmented", "square"])
def test_the_stochastic_value_is_within_its_own_errors(name):
    """z-scores of many samples: mean zero, variance one, within what so many independent numbers allow."""
    potential = POTENTIALS[name]()
    x = randn(200, *potential.shape)
    expansion = potential.expand(x)
    exact = CholeskyLogdet()(expansion, x).detach()
    estimate = LanczosLogdet(40, steps=9).estimate(expansion, x)
    z = (estimate.value - exact) / estimate.stderr
    assert abs(z.mean().item()) < 4 / math.sqrt(200) and abs(z.std().item() - 1) < 0.25
    assert estimate.truncation.max() < 1e-3 and estimate.value.dtype == torch.float64


def test_errors_shrink_with_the_root_of_the_probes():
    potential = convex((6,))
    x = randn(100, 6)
    expansion = potential.expand(x)
    stderr = [LanczosLogdet(probes).estimate(expansion, x).stderr.mean().item() for probes in (16, 64, 256)]
    assert np.diff(np.log2(stderr)) == pytest.approx([-1, -1], abs=0.15)
    assert LanczosLogdet(1).estimate(expansion, x).stderr.isinf().all()


def gradient_draws(potential, x, tolerance, draws):
    """Gradients by the parameters from `draws` independent probes, shape (draws, parameters), and the exact one."""
    expansion = potential.expand(x)
    exact = by_parameters(potential, CholeskyLogdet()(expansion, x).sum())
    estimator = LanczosLogdet(1, tolerance=tolerance)
    source = generator(1)
    estimates = []
    for _ in range(draws):
        estimator.redraw(source)
        surrogate, _ = estimator.surrogate(expansion, estimator.draw(x))
        estimates.append(by_parameters(potential, surrogate.sum()))
    return torch.stack(estimates), exact


def test_the_training_gradient_is_unbiased():
    """The mean over many probes is the exact gradient within its standard error, in every direction together."""
    potential, x = convex((4,), width=4), randn(8, 4)
    estimates, exact = gradient_draws(potential, x, 1e-10, 300)
    stderr = estimates.std(0) / math.sqrt(len(estimates))
    varying = stderr > 1e-9 * exact.abs().max()
    z = (estimates.mean(0) - exact)[varying] / stderr[varying]
    assert varying.sum() > 20 and z.abs().max() < 5 and z.square().mean() < 2.5


def test_loose_conjugate_gradients_bias_little():
    """Below 1 % of the gradient's norm at 1e-3: the same probes solved loosely and tightly, so no noise is left."""
    potential, x = convex((20,), width=30), randn(8, 20)
    tight, exact = gradient_draws(potential, x, 1e-12, 20)
    biases = []
    for tolerance in (1e-1, 1e-2, 1e-3):
        loose, _ = gradient_draws(potential, x, tolerance, 20)
        biases.append(((loose - tight).mean(0).norm() / exact.norm()).item())
    assert biases[2] < 0.01 and biases[0] > biases[1] > biases[2] > 0


def test_the_returned_logdet_has_the_quadratures_value_and_the_surrogates_gradient():
    potential, x = convex((5,)), randn(6, 5)
    lanczos_logdet = LanczosLogdet(3, tolerance=1e-8)
    expansion = potential.expand(x)
    logdet = lanczos_logdet(expansion, x)
    assert torch.equal(logdet, lanczos_logdet.estimate(expansion, x).value)
    surrogate, solution = lanczos_logdet.surrogate(expansion, lanczos_logdet.draw(x))
    assert torch.equal(by_parameters(potential, logdet.sum()), by_parameters(potential, surrogate.sum()))
    assert lanczos_logdet.cg_iterations == solution.iterations.max() > 1


def test_probes_belong_to_samples():
    """The same in any batch; others for other samples, seeds and probes; balanced and uncorrelated signs."""
    lanczos_logdet, x = LanczosLogdet(50), randn(40, 3, 4)
    probes = lanczos_logdet.draw(x)
    assert probes.shape == (50, 40, 3, 4) and (probes.abs() == 1).all()
    assert torch.equal(lanczos_logdet.draw(x[7:9]), probes[:, 7:9])
    lanczos_logdet.redraw(generator())
    again = lanczos_logdet.draw(x)
    bits = torch.stack([probes, again]).flatten().numpy()
    # 48,000 signs: every correlation is normal with this deviation
    assert abs(bits.mean()) < 5 / math.sqrt(bits.size)
    for lag in (1, 2, 4, 12, 12 * 40, bits.size // 2):
        assert abs((bits[lag:] * bits[:-lag]).mean()) < 5 / math.sqrt(bits.size - lag)
    counts = np.unique(probes.flatten(2).flatten(0, 1).numpy(), axis=0, return_counts=True)[1]
    assert len(counts) > 1500  # 2,000 draws of 4,096 patterns: 1,580 distinct ones expected


def test_a_redrawn_seed_survives_save_and_load():
    flow, other = (ConvexFlow(convex((3,), seed=s), logdet=LanczosLogdet(2)) for s in (0, 1))
    flow.redraw(generator(5))
    x = randn(4, 3)
    assert not torch.equal(flow(x)[1], other(x)[1])
    other.load_state_dict(flow.state_dict())
    assert torch.equal(flow(x)[1], other(x)[1])


def test_the_error_of_a_flow_covers_its_exact_answer():
    """Two stochastic blocks, one of them inverted, against the same flow with exact determinants."""
    potentials = [convex((6,), seed=s, width=20) for s in (0, 1)]

    def flow(logdet):
        first, second = (ConvexFlow(p, logdet=logdet(), tolerance=1e-9) for p in potentials)
        return Flow((6,), [first, ActNorm((6,)), Inverted(second)]).double().eval()

    z = randn(300, 6)
    with torch.no_grad():
        exact = flow(CholeskyLogdet)(z)[1].mean().item()
    error = logdet_error(flow(lambda: LanczosLogdet(4, steps=6)), z, batch=100)
    assert 0 < error.stderr < 0.2 and 0 < error.truncation < 0.01
    assert abs(error.value - exact) < 4 * error.stderr
    none = logdet_error(flow(CholeskyLogdet), z)
    assert (none.value, none.stderr, none.truncation) == (0, 0, 0)


def test_fields_too_large_for_a_hessian_are_refused():
    potential, x = convex((5,)), randn(2, 5)
    with pytest.raises(InvalidInput, match="5 entries: the limit is 4; use Lanczos"):
        CholeskyLogdet(limit=4)(potential.expand(x), x)


@pytest.mark.parametrize("options", [{"probes": 0}, {"steps": 0}, {"iterations": 0}, {"tolerance": 0.0}])
def test_impossible_estimates_are_refused(options):
    with pytest.raises(InvalidInput, match=r"expected (an integer >= 1|a finite number > 0 and < 1)"):
        LanczosLogdet(**options)


def test_conjugate_gradients_that_stop_short_are_reported():
    potential, x = convex((30,), width=40, layers=1), randn(5, 30)
    with torch.no_grad():
        potential.log_alpha.fill_(-12.0)
        potential.log_scale.add_(8.0)
    logdet = LanczosLogdet(2, tolerance=1e-8, iterations=3)
    with pytest.raises(NotConverged, match="conjugate gradients: 5 of 5 samples did not converge in 3") as caught:
        logdet(potential.expand(x), x)
    assert caught.value.residuals.shape == (5,) and isinstance(caught.value, IsingflowError)


@pytest.mark.parametrize(("size", "what"), [(3, "Cholesky factorisation"), (4, "Cholesky factorisation")])
def test_a_hessian_that_is_no_number_is_reported(size, what):
    potential, x = convex((size,)), randn(4, size)
    x[2] = math.nan
    with pytest.raises(NotConverged, match=f"{what} of the Hessian: 1 of 4"):
        CholeskyLogdet()(potential.expand(x), x)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_matrices_that_are_not_positive_are_reported(size):
    """Whatever the sign of their determinant: one, two and all eigenvalues negative, of four matrices."""

    class Given(Expansion):
        def __init__(self, matrices):
            self.gradient, self.matrices = randn(4, size), matrices

        def hessian(self):
            return self.matrices

    vectors = torch.linalg.qr(randn(4, size, size)).Q
    values = torch.ones(4, size, dtype=torch.float64)
    values[1, 0] = values[2, :2] = values[3] = -1.0
    with pytest.raises(NotConverged, match="of the Hessian: 3 of 4"):
        CholeskyLogdet()(Given(vectors * values[:, None] @ vectors.mT), vectors)


# --- inversion


def test_minimisation_takes_each_sample_to_its_own_minimum():
    """Quadratic bowls of conditions 1 to 1000 at once; the residuals are the gradients'."""
    matrices = torch.cat([positive(1, 15, condition=c) for c in (1.0, 10.0, 1000.0)])
    centres = randn(3, 15)

    def function(z):
        pull = torch.einsum("nij,nj->ni", matrices, z - centres)
        return ((z - centres) * pull).sum(1) / 2, pull

    minimum = minimise(function, torch.zeros(3, 15).double(), torch.ones(3).double(), tolerance=1e-9, iterations=300)
    torch.testing.assert_close(minimum.points, centres, rtol=0, atol=2e-9)
    assert (minimum.residuals <= 1e-9).all()
    assert minimum.iterations[0] < minimum.iterations[1] < minimum.iterations[2]
    cut = minimise(function, torch.zeros(3, 15).double(), torch.ones(3).double(), tolerance=1e-9, iterations=3)
    assert cut.residuals[2] > 1e-9 and cut.iterations.max() <= 3


def test_minimisation_from_far_away_of_a_function_that_is_nowhere_quadratic():
    """ln cosh has nearly no curvature far out: full steps would overshoot without end."""

    def function(z):
        value = (torch.nn.functional.softplus(2 * z) - z + 1e-3 * z**2 / 2).sum(1)
        return value, torch.tanh(z) + 1e-3 * z

    start = torch.tensor([[300.0, -20.0], [1e-3, 5.0]]).double()
    minimum = minimise(function, start, torch.ones(2).double(), tolerance=1e-10, iterations=200)
    torch.testing.assert_close(minimum.points, torch.zeros(2, 2).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_small_matrices_by_formula(d):
    matrices, right = positive(20, d), randn(20, d)
    torch.testing.assert_close(small.solve(matrices, right), torch.linalg.solve(matrices, right))
    exact = torch.stack([torch.linalg.det(matrices[:, :k, :k]) for k in range(1, d + 1)], 1)
    torch.testing.assert_close(small.minors(matrices), exact)


@pytest.mark.parametrize("d", [2, 3, 6])
def test_newtons_method_takes_each_sample_to_its_own_minimum(d):
    """Quadratic bowls take one step; the root of 1 + z^2 overshoots from afar unless steps are halved."""
    matrices, centres = positive(4, d, condition=100.0), randn(4, d)

    def bowl(z, rows):
        pull = torch.einsum("nij,nj->ni", matrices[rows], z - centres[rows])
        return ((z - centres[rows]) * pull).sum(1) / 2, pull, matrices[rows]

    ones = torch.ones(4, dtype=torch.float64)
    minimum = newton.minimise(bowl, torch.zeros(4, d).double(), ones, tolerance=1e-9, iterations=20)
    torch.testing.assert_close(minimum.points, centres, rtol=0, atol=1e-8)
    assert (minimum.residuals <= 1e-9).all() and (minimum.iterations == 1).all()

    def root(z, rows):
        r = (1 + z * z).sqrt()
        return r.sum(1) + 1e-3 * z.square().sum(1) / 2, z / r + 1e-3 * z, torch.diag_embed(r**-3 + 1e-3)

    far = torch.linspace(-50, 3, 4 * d, dtype=torch.float64).view(4, d)
    minimum = newton.minimise(root, far, ones, tolerance=1e-10, iterations=100)
    torch.testing.assert_close(minimum.points, torch.zeros(4, d).double(), rtol=0, atol=1e-9)
    cut = newton.minimise(root, far, ones, tolerance=1e-10, iterations=2)
    assert cut.iterations.max() == 2 and cut.residuals.max() > 1e-10


@every_potential
def test_the_inverse_is_the_gradient_of_the_conjugate(make):
    """Fenchel: F(z) + F*(x) = x.z at x = grad F(z), and x.y - F(y) <= F*(x) for every other y; grad F* = z."""
    potential = make()
    flow = ConvexFlow(potential, tolerance=1e-11)
    z = randn(4, *potential.shape)
    x, logdet = (tensor.detach() for tensor in flow(z))
    with torch.no_grad():
        back, inverse_logdet = flow.inverse(x)
    torch.testing.assert_close(back, z, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(inverse_logdet, -logdet, rtol=1e-7, atol=1e-8)

    def conjugate(points):
        at, _ = flow.inverse(points)
        return (points * at).flatten(1).sum(1) - potential.value(at)

    other = z + 0.5 * randn(50, *z.shape, seed=3)
    bound = (x * other).flatten(2).sum(2) - potential.value(other.flatten(0, 1)).view(50, -1)
    assert (bound <= conjugate(x)).all()
    x.requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(conjugate(x).sum(), x)[0], z, rtol=1e-6, atol=1e-7)


@every_potential
@pytest.mark.parametrize("logdet", [CholeskyLogdet, lambda: LanczosLogdet(1, tolerance=1e-11)], ids=["exact", "cg"])
def test_the_inverse_has_the_derivative_of_an_implicit_function(make, logdet):
    """dz by x and the parameters along a random direction, by central differences of the minimisation."""
    potential = make()
    flow = ConvexFlow(potential, logdet=logdet(), tolerance=1e-11)
    x = randn(2, *potential.shape).requires_grad_()
    inputs = [x, *potential.parameters()]
    directions = [randn(*p.shape, seed=i) for i, p in enumerate(inputs)]
    weight = randn(*x.shape, seed=40)
    gradients = torch.autograd.grad((flow.inverse(x)[0] * weight).sum(), inputs, materialize_grads=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()

    def moved(by):
        with torch.no_grad():
            for tensor, direction in zip(inputs, directions, strict=True):
                tensor.add_(by * direction)
            return (flow.inverse(x)[0] * weight).sum().item()

    h = 1e-5
    assert slope == pytest.approx((moved(h) - moved(-2 * h)) / (2 * h), rel=1e-5, abs=1e-7)


def test_one_hidden_layer_is_a_sylvester_map():
    """Inverse and determinant in the hidden space alone, of 3 units for 8 entries (van den Berg et al. 2018).

    x = alpha z + l + L^T g(L z), so h = L z solves the 3 equations alpha h + L L^T g(h) = L (x - l), and
    det(alpha I_8 + L^T diag(g') L) = alpha^8 det(I_3 + diag(g') L L^T / alpha).
    """
    potential = convex((8,), width=3, layers=1)
    weight = potential.network.skips[0].detach()
    bias, alpha = potential.network.biases[0].detach(), potential.alpha.item()
    amplitude = (potential.scale * torch.nn.functional.softplus(potential.network.raw[0][0]) / 3).detach()
    linear, gram = potential.linear.detach(), weight @ weight.T

    def slope(h):
        return amplitude * (torch.sigmoid(h + bias) - 0.5)

    x = 2 * randn(5, 8)
    with torch.no_grad():
        z, logdet = ConvexFlow(potential, tolerance=1e-12).inverse(x)
    for row, ours, inverse_logdet in zip(x, z, logdet, strict=True):
        right = (weight @ (row - linear)).numpy()

        def equations(h, right=right):
            return alpha * h + (gram @ slope(torch.from_numpy(h))).numpy() - right

        h = torch.from_numpy(scipy.optimize.root(equations, right / alpha, tol=1e-13).x)
        torch.testing.assert_close(ours, (row - linear - weight.T @ slope(h)) / alpha, rtol=1e-9, atol=1e-9)
        first = torch.sigmoid(h + bias)
        small = torch.eye(3).double() + (amplitude * first * (1 - first))[:, None] * gram / alpha
        exact = 8 * math.log(alpha) + torch.linalg.slogdet(small).logabsdet
        torch.testing.assert_close(inverse_logdet, -exact, rtol=1e-9, atol=1e-9)


def test_samples_that_do_not_converge_are_counted():
    """Never silent: how many of how many, and the worst residual; the others are told apart."""
    flow = ConvexFlow(convex((10,), width=30), tolerance=1e-9, iterations=2)
    x = randn(6, 10)
    x[0] = flow.potential.gradient(x[:1]).detach()[0]
    x[1] = math.nan
    with pytest.raises(NotConverged, match="6 of 6 samples did not converge in 2 iterations; the worst") as caught:
        flow.inverse(x)
    assert caught.value.residuals.isnan().tolist() == [False, True, False, False, False, False]
    flow.iterations = 200
    with pytest.raises(NotConverged, match="1 of 6 samples did not converge in 200 iterations; the worst residual"):
        flow.inverse(x)


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": math.nan}, {"iterations": 0}])
def test_impossible_inversions_are_refused(options):
    with pytest.raises(InvalidInput, match=r"expected (an integer >= 1|a finite number > 0 and < 1)"):
        ConvexFlow(convex(), **options)


def test_the_transport_cost_of_a_gradient_map():
    """|x - z|^2 / 2; for a quadratic F, a linear map, it is the closed form of its Gaussian."""
    potential = ConvexPotential((2,), width=1, generator=generator()).double()
    with torch.no_grad():
        potential.log_scale.fill_(-80.0)
        potential.linear.zero_()
        potential.log_alpha.copy_(raw_strength(torch.tensor(3.0, dtype=torch.float64)))
    z = randn(20, 2)
    x, logdet, cost = ConvexFlow(potential).forward_with_cost(z)
    torch.testing.assert_close(x, 3 * z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logdet, torch.full((20,), 2 * math.log(3)).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(cost.transport, 2 * z.square().sum(1), rtol=1e-12, atol=1e-12)
    assert not cost.hjb.any()


# --- maps of single entries, and maps run backwards


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_activation_normalisation_standardises_its_first_batch(way):
    norm = ActNorm((3,)).double()
    data = randn(500, 3) * torch.tensor([0.1, 1, 30]) + torch.tensor([5.0, 0, -2])
    out, logdet = getattr(norm, way)(data)
    torch.testing.assert_close(out.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3).double(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logdet[0], -data.std(0, correction=0).log().sum(), rtol=1e-9, atol=1e-9)
    later, _ = getattr(norm, way)(data + 1)
    assert not torch.allclose(later.mean(0), torch.zeros(3).double(), atol=1e-3)


def test_activation_normalisation_of_lattice_fields_keeps_their_symmetry():
    norm = ActNorm((4, 4), common=True).double()
    data = 3 * randn(50, 4, 4) + 1
    out, logdet = (tensor.detach() for tensor in norm.inverse(data))
    assert out.square().mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(out, data * (out[0, 0, 0] / data[0, 0, 0]), rtol=1e-12, atol=1e-12)
    assert logdet[0].item() == pytest.approx(16 * math.log(out[0, 0, 0] / data[0, 0, 0]))
    assert [name for name, _ in norm.named_parameters()] == ["log_scale"]


def test_activation_normalisation_waits_for_training():
    norm = ActNorm((2,)).double().eval()
    x = 5 + randn(10, 2)
    assert torch.equal(norm(x)[0], x) and not norm.initialised
    norm.train()(x)
    saved = ActNorm((2,)).double()
    saved.load_state_dict(norm.state_dict())
    assert saved.initialised and torch.equal(saved.train()(x)[0], norm(x)[0])


def test_activation_normalisation_of_constants_and_of_nothing():
    x = torch.stack([torch.full((9,), 4.0), torch.arange(9.0)], 1)
    out, logdet = ActNorm((2,)).inverse(x)
    assert not out[:, 0].any() and logdet.isfinite().all()
    with pytest.raises(InvalidInput, match="1 samples are too few"):
        ActNorm((2,))(x[:1])


def test_an_inverted_map_swaps_its_directions():
    flow = ConvexFlow(convex((3,)), logdet=LanczosLogdet(2), tolerance=1e-10)
    inverted, x = Inverted(flow), randn(5, 3)
    for ours, expected in zip(inverted.inverse(x), flow(x), strict=True):
        assert torch.equal(ours, expected)
    for ours, expected in zip(inverted(x), flow.inverse(x), strict=True):
        assert torch.equal(ours, expected)
    cost = inverted.forward_with_cost(x)[2].transport
    assert torch.equal(inverted.inverse_with_cost(x)[2].transport, flow.forward_with_cost(x)[2].transport)
    torch.testing.assert_close(cost, (x - inverted(x)[0]).square().sum(1) / 2, rtol=1e-8, atol=1e-8)
    inverted.redraw(generator(3))
    assert flow.logdet.seed != 0


@pytest.mark.parametrize("far", [1.0, 100.0, 1000.0])
def test_newtons_method_finds_kinks_that_rounding_hides(far):
    """Where two parabolas meet the slope jumps, and in float32 the values nearby are all alike."""
    kinks = far * torch.randn(256, 1, generator=torch.Generator().manual_seed(0))

    def valley(z, rows):
        offset = z - kinks[rows]
        bend = 0.01 + 1e-6 * far
        slope, second = torch.tanh(offset / bend), (1 - torch.tanh(offset / bend).square()) / bend
        value = 0.35 * z.square() + bend * torch.logaddexp(offset / bend, -offset / bend)
        gradient = 0.7 * offset + slope + 0.3
        linear = 0.7 * kinks[rows] - 0.3
        return (value - linear * z)[:, 0], gradient, 0.7 + second[..., None]

    least = newton.minimise(valley, torch.zeros(256, 1), torch.ones(256), tolerance=1e-2, iterations=100)
    assert float(least.residuals.max()) <= 1e-2
    expected = kinks - 0.01 * math.atanh(0.3) - 1e-6 * far * math.atanh(0.3)
    assert float((least.points - expected).abs().max()) < 2e-3 + 1e-6 * far


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [100.0, 1000.0])
def test_newtons_method_follows_a_kink_to_a_far_minimum(far, dtype):
    """Along a crease between two planes, where steps across it gain a little, and positions are rounded."""
    source, width, bend, steep = generator(0), 0.01, 0.02, 5.0
    angle = 2 * math.pi * torch.rand(256, generator=source, dtype=torch.float64)
    across = torch.stack([angle.cos(), angle.sin()], 1).to(dtype)
    along = torch.stack([-across[:, 1], across[:, 0]], 1)
    crease = (far * torch.randn(256, 1, generator=source, dtype=torch.float64)).to(dtype) * along
    tilt = (1.6 * torch.rand(256, generator=source, dtype=torch.float64) - 0.8).to(dtype)

    def crossing(z, rows):
        s, offset, n = (z * across[rows]).sum(1) / width, z - crease[rows], across[rows]
        value = bend * offset.square().sum(1) / 2 + steep * width * (torch.logaddexp(s, -s) - tilt[rows] * s)
        gradient = bend * offset + steep * (s.tanh() - tilt[rows])[:, None] * n
        second = steep / width * (1 - s.tanh().square())
        return value, gradient, bend * torch.eye(2, dtype=dtype) + second[:, None, None] * n[:, :, None] * n[:, None]

    start = 10 * torch.randn(256, 2, generator=source, dtype=torch.float64).to(dtype)
    scale = torch.full((256,), 10.0, dtype=dtype)
    least = newton.minimise(crossing, start, scale, tolerance=1e-4, iterations=500)
    assert float(least.residuals.max()) <= 1e-4
    expected = crease + width * torch.atanh(tilt)[:, None] * across
    assert float((least.points - expected).norm(dim=1).max()) <= 0.05


@every_potential
def test_far_points_come_from_somewhere_whatever_training_does(make):
    """Without strong convexity a gradient is bounded; a training may let it fall to zero, if nothing is below it."""
    potential = make().requires_grad_(False)
    x = 5 * torch.nn.functional.normalize(randn(16, math.prod(potential.shape))).view(16, *potential.shape)
    least = {}
    for name, parameter in potential.named_parameters():
        before = parameter.clone()
        parameter.fill_(-30.0)
        least[name] = float(potential.expand(x).strength)
        if least[name] == pytest.approx(0.02):
            flow = ConvexFlow(potential, tolerance=1e-4)
            torch.testing.assert_close(flow(flow.inverse(x)[0])[0], x, atol=1e-3, rtol=1e-3)
        parameter.copy_(before)
    assert min(least.values()) == pytest.approx(0.02)


def test_points_beyond_all_centres_are_found_in_single_precision():
    potential = LogSumExpPotential((2,), width=64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        potential.log_alpha.fill_(-30.0)
    flow = ConvexFlow(potential, tolerance=1e-4)
    x = 5 * torch.nn.functional.normalize(torch.randn(512, 2, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(flow(flow.inverse(x)[0])[0], x, atol=1e-3, rtol=1e-3)
