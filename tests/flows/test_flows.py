"""Flows: Runge-Kutta methods, and the laws that every flow keeps, each against an answer found another way."""

import itertools
import math

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from isingflow.architectures.build import build_flow
from isingflow.errors import InvalidInput
from isingflow.flows import (
    ActNorm,
    ConvexFlow,
    Flow,
    GaussianWhitening,
    GradientFlow,
    HistogramMarginals,
    Inverted,
    Logit,
    SpectralScaling,
    gradient_flows,
)
from isingflow.flows.solvers.runge_kutta import TABLEAUX, step
from isingflow.flows.spectral import EigenBasis, FourierBasis
from isingflow.lattice import CRITICAL_BETA, edwards_anderson, from_graph, square, triangular
from isingflow.lattice.symmetry import Group, square_torus_group, trivial_group
from isingflow.potentials import (
    ConvexPotential,
    DensePotential,
    LatticeConvexPotential,
    LatticePotential,
    LatticeResidualPotential,
    Potential,
    ResidualPotential,
    SampledAverage,
    group_average,
)
from isingflow.runs.config import FlowConfig
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

every_tableau = pytest.mark.parametrize("tableau", TABLEAUX.values(), ids=TABLEAUX)
every_method = pytest.mark.parametrize("method", TABLEAUX)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


# --- Runge-Kutta methods


def full_matrix(tableau) -> np.ndarray:
    """The tableau's a as a square matrix."""
    matrix = np.zeros((len(tableau.b), len(tableau.b)))
    for i, row in enumerate(tableau.a):
        matrix[i + 1, : len(row)] = row
    return matrix


def order_conditions(a: np.ndarray, c: np.ndarray) -> list[list[tuple[np.ndarray, float]]]:
    """For each order from 1: vectors v and numbers r with b.v = r, one for every rooted tree (Butcher)."""
    one = np.ones(len(c))
    return [
        [(one, 1)],
        [(c, 1 / 2)],
        [(c**2, 1 / 3), (a @ c, 1 / 6)],
        [(c**3, 1 / 4), (c * (a @ c), 1 / 8), (a @ c**2, 1 / 12), (a @ a @ c, 1 / 24)],
        [
            (c**4, 1 / 5),
            (c**2 * (a @ c), 1 / 10),
            (c * (a @ c**2), 1 / 15),
            (c * (a @ a @ c), 1 / 30),
            ((a @ c) ** 2, 1 / 20),
            (a @ c**3, 1 / 20),
            (a @ (c * (a @ c)), 1 / 40),
            (a @ a @ c**2, 1 / 60),
            (a @ a @ a @ c, 1 / 120),
        ],
    ]


def order_of(weights, tableau) -> int:
    """The order of the method with these weights: up to where the first condition fails."""
    conditions = order_conditions(full_matrix(tableau), np.array(tableau.c))
    kept = [all(abs(np.dot(weights, v) - r) < 1e-14 for v, r in level) for level in conditions]
    return len(list(itertools.takewhile(bool, kept)))


@every_tableau
def test_tableaux_have_their_order(tableau):
    """Exactly: all conditions up to the order, and not all of the next one."""
    assert order_of(tableau.b, tableau) == tableau.order
    np.testing.assert_allclose(full_matrix(tableau).sum(1), tableau.c, atol=1e-14)
    assert len(tableau.a) + 1 == len(tableau.b) == len(tableau.c)
    assert [len(row) for row in tableau.a] == list(range(1, len(tableau.b)))


def solved(tableau, derivative, state, steps, start=0.0, end=1.0):
    h = (end - start) / steps
    for i in range(steps):
        state = step(tableau, derivative, state, start + i * h, h)
    return state


def nonlinear(state, t):
    """Logistic growth at the rate 2 t, and how it depends on the start: z = dy/dy0."""
    y, z = state
    return 2 * t * y * (1 - y), 2 * t * (1 - 2 * y) * z


def logistic(y0, t):
    growth = math.exp(t * t)
    return np.array([y0 * growth, growth / (1 - y0 + y0 * growth)]) / (1 - y0 + y0 * growth)


def start(y0):
    return tuple(torch.tensor([number], dtype=torch.float64) for number in (y0, 1.0))


@every_tableau
@pytest.mark.parametrize("y0", [0.5, 2.0])
def test_errors_fall_with_the_order(tableau, y0):
    def error(steps):
        reached = solved(tableau, nonlinear, start(y0), steps, end=1.5)
        return np.abs(torch.cat(reached).numpy() - logistic(y0, 1.5)).sum()

    assert error(32) < 0.02
    assert math.log2(error(32) / error(64)) == pytest.approx(tableau.order, abs=0.4)


@every_tableau
def test_steps_backwards_undo_steps_forwards(tableau):
    steps = 2000 if tableau.order == 1 else 200
    there = solved(tableau, nonlinear, start(0.5), steps)
    back = solved(tableau, nonlinear, there, steps, start=1.0, end=0.0)
    for ours, expected in zip(back, start(0.5), strict=True):
        torch.testing.assert_close(ours, expected, rtol=2e-3 if tableau.order == 1 else 2e-5, atol=0)


@every_tableau
def test_stages_are_evaluated_once_and_no_more_than_needed(tableau):
    asked = []

    def derivative(state, t):
        asked.append(t)
        return state

    step(tableau, derivative, (torch.ones(1),), 2.0, 0.5)
    used = [c for c, *weights in zip(tableau.c, tableau.b, strict=True) if any(weights)]
    last = max(i for i, b in enumerate(tableau.b) if b)
    assert asked == pytest.approx([2.0 + 0.5 * c for c in tableau.c[: last + 1]])
    assert len(asked) <= len(used) + 1


# --- an exact solution (appendix A of Zhang, E and Wang): a quadratic potential keeps a Gaussian Gaussian


class Quadratic(Potential):
    """phi(x, t) = -(1 + growth t) sum_i rate_i x_i^2 / 2, so that x_i(T) = exp(-rate_i T (1 + growth / 2)) x_i(0)."""

    def __init__(self, rates: Tensor, growth: float = 0.0) -> None:
        super().__init__()
        self.rates = rates
        self.growth = growth
        self.shape = tuple(rates.shape)
        self.symmetry = trivial_group(self.shape)

    def value(self, x: Tensor, t: float) -> Tensor:
        return -(1 + self.growth * t) * (self.rates * x.square()).flatten(1).sum(1) / 2

    def bind(self):
        def field(x, t):
            rates = (1 + self.growth * t) * self.rates
            return -rates * x, -rates.sum().expand(len(x))

        return field


RATES = torch.tensor([[0.5, -0.3, 0.1], [0.8, 0.2, -0.6]], dtype=torch.float64)


@every_method
@pytest.mark.parametrize(("time", "growth"), [(1.0, 0.0), (1.0, 0.8), (2.5, 0.8)])
def test_a_gaussian_stays_gaussian(method, time, growth):
    """x(T), its log-determinant, log p and transport cost against the closed form, converging at the method's order."""
    exponent = RATES * time * (1 + growth / 2)
    z = randn(20, 2, 3)
    gaussian = torch.distributions.Normal(torch.zeros(2, 3).double(), torch.exp(-exponent))

    def errors(steps):
        flow = Flow((2, 3), [GradientFlow(Quadratic(RATES, growth), time=time, steps=steps, tableau=method)])
        x, logdet = flow(z)
        log_prob = flow.log_prob(x)
        return [
            (x - torch.exp(-exponent) * z).abs().max().item(),
            (logdet + exponent.sum()).abs().max().item(),
            (log_prob - gaussian.log_prob(x).sum((1, 2))).abs().max().item(),
        ]

    order = TABLEAUX[method].order
    coarse = {1: 512, 2: 64, 4: 16, 5: 8}[order]
    first, second = errors(coarse), errors(2 * coarse)
    assert max(second) < {1: 0.1, 2: 5e-3, 4: 5e-5, 5: 5e-5}[order]
    for one, two in zip(first, second, strict=True):
        assert two < 1e-11 or order - 0.5 < math.log2(one / two) < order + 1.5


def test_transport_cost_of_a_quadratic_potential():
    """int_0^T |dx/dt|^2 / 2 dt = sum rate x0^2 (1 - exp(-2 rate T)) / 4, at any length of time."""
    z, time = randn(5, 2, 3), 1.7
    flow = Flow((2, 3), [GradientFlow(Quadratic(RATES), time=time, steps=20, tableau="dopri5")])
    x, logdet, cost = flow.forward_with_cost(z)
    exact = (RATES * z.square() * (1 - torch.exp(-2 * RATES * time)) / 4).sum((1, 2))
    torch.testing.assert_close(cost.transport, exact, rtol=1e-9, atol=1e-10)
    assert cost.transport.dtype == torch.float64 and not cost.hjb.any()
    for ours, expected in zip((x, logdet), flow(z), strict=True):
        assert torch.equal(ours, expected)


def test_the_potential_is_given_time_from_zero_to_one():
    asked = []

    class Clock(Quadratic):
        def bind(self):
            inner = super().bind()
            return lambda x, t: (asked.append(t), inner(x, t))[1]

    GradientFlow(Clock(RATES), time=5.0, steps=4)(randn(1, 2, 3))
    assert (min(asked), max(asked)) == (0.0, 1.0)


# --- laws of all flows

DENSE = FlowConfig(potential="dense", hidden=6, steps=4)
LATTICE = FlowConfig(hidden=4, radial=2, oriented=2, time_terms=3, steps=4)


def of(lattice, config, beta=0.4, **changes):
    config = replace(config, **changes)
    return lambda seed=0: build_flow(HubbardStratonovich(lattice, beta), config, seed=seed)


def moving(seed):
    """A gradient flow that changes with time, from given directions."""
    dense = DensePotential(
        (3,), 4, activation="softplus", time_terms=3, directions=randn(4, 3, seed=seed), generator=generator(seed)
    )
    return GradientFlow(dense, steps=4)


def whitening(dimension, seed):
    factor = randn(dimension, dimension, seed=seed) / 3
    return GaussianWhitening(randn(dimension, seed=seed + 1), torch.eye(dimension) / 2 + factor @ factor.T)


def histograms(dimension, seed, bins=4):
    return HistogramMarginals(torch.softmax(randn(dimension, bins, seed=seed) / 2, 1))


def convex(shape, seed, **options):
    return ConvexFlow(ConvexPotential(shape, width=6, **options, generator=generator(seed)))


def convex_lattice(group, seed, **options):
    options = {"radial": 2, "oriented": 1, "width": 4, **options}
    return ConvexFlow(LatticeConvexPotential(group, **options, generator=generator(seed)))


def standardising(shape, seed, **options):
    """Activation normalisation that has seen a batch."""
    norm = ActNorm(shape, **options)
    norm.inverse(1.5 * torch.randn(50, *shape, generator=generator(seed)))
    return norm


FLOWS = {
    "square": of(square(4), LATTICE),
    "critical": of(square(3), LATTICE, beta=CRITICAL_BETA),
    "antiferromagnetic": of(square(4), LATTICE, beta=-0.5),
    "rectangle": of(square(3, 4), LATTICE),
    "anisotropic": of(square(4, jy=0.4), LATTICE),
    "triangular": of(triangular(3), LATTICE),
    "width 2": of(square(2), LATTICE),
    "from a standard normal": of(square(3), LATTICE, whitened=False, time=0.4),
    "longer time": of(square(2, 3), LATTICE, time=2.5, tableau="dopri5"),
    "dense": of(square(3), DENSE),
    "dense on an open lattice": of(square(2, 3, boundary="open"), DENSE),
    "dense on a glass": of(edwards_anderson(3, seed=1), DENSE),
    "dense on a graph": of(from_graph(networkx.petersen_graph()), DENSE),
    "dense from a standard normal": of(square(3), DENSE, whitened=False, time=2.0),
    "exact average": of(square(2, 3), DENSE, average="exact"),
    "sampled average": of(square(2, 3), DENSE, average="sampled"),
    "the paper's": of(square(3), DENSE, average="sampled", whitened=False, time=2.0),
    "softplus": lambda seed=0: Flow(
        (5,),
        [GradientFlow(DensePotential((5,), 6, activation="softplus", generator=generator(seed)), steps=4)],
    ),
    "two in a row": lambda seed=0: Flow(
        (2, 3),
        [
            GradientFlow(DensePotential((2, 3), 6, generator=generator(seed)), steps=4),
            SpectralScaling(FourierBasis((2, 3)), torch.full((2, 3), 1.5)),
            GradientFlow(DensePotential((2, 3), 6, generator=generator(seed + 1)), steps=4, time=0.5),
        ],
    ),
    "on data": lambda seed=0: Flow((3,), [moving(seed), whitening(3, seed), histograms(3, seed), Logit(0.01)]),
    "Gaussian": lambda seed=0: Flow((4,), [whitening(4, seed)]),
    "residual": lambda seed=0: Flow(
        (2, 3), [GradientFlow(ResidualPotential((2, 3), width=5, layers=3, generator=generator(seed)), steps=4)]
    ),
    "residual on a lattice": lambda seed=0: Flow(
        (3, 3),
        [
            GradientFlow(
                LatticeResidualPotential(
                    square_torus_group(3, 3), radial=2, oriented=1, width=4, generator=generator(seed)
                ),
                steps=4,
            )
        ],
    ),
    "convex": lambda seed=0: Flow((3,), [convex((3,), seed, layers=3)]),
    "convex, plain": lambda seed=0: Flow((2, 2), [convex((2, 2), seed, augmented=False)]),
    "convex, inverted": lambda seed=0: Flow((3,), [Inverted(convex((3,), seed, layers=1))]),
    "convex blocks": lambda seed=0: Flow(
        (3,), [standardising((3,), seed), convex((3,), seed), standardising((3,), seed), convex((3,), seed + 1)]
    ),
    "convex on a lattice": lambda seed=0: Flow((3, 4), [convex_lattice(square_torus_group(3, 4), seed)]),
    "convex blocks on a lattice": lambda seed=0: Flow(
        (3, 3),
        [
            SpectralScaling(FourierBasis((3, 3)), torch.full((3, 3), 1.5)),
            convex_lattice(square_torus_group(3, 3), seed),
            standardising((3, 3), seed, common=True),
            convex_lattice(square_torus_group(3, 3), seed + 1, layers=2),
        ],
    ),
    "linear": lambda seed=0: Flow((2, 3), [SpectralScaling(FourierBasis((2, 3)), torch.full((2, 3), 1.5))]),
    "nothing": lambda seed=0: Flow((2, 3), []),
}

every_flow = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)


def gradients_of(flow: Flow) -> list[GradientFlow]:
    return [transform for transform in flow.transforms if isinstance(transform, GradientFlow)]


def convex_of(flow: Flow) -> list[ConvexFlow]:
    return [module for module in flow.modules() if isinstance(module, ConvexFlow)]


def awake(flow: Flow, seed: int = 0, strength: float = 0.1) -> Flow:
    """With all parameters moved away from where they start, where most of them do nothing."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=source).to(parameter))
    return flow


def fine(flow: Flow, refinement: int = 5) -> Flow:
    """In float64, integrated and inverted to about 1e-8: no error of method is left. (Sampled slots still fit.)"""
    for gradient in gradients_of(flow):
        gradient.tableau = "dopri5"
        gradient.steps *= refinement
    return tight(flow).double()


def tight(flow: Flow) -> Flow:
    """With inverses to rounding in float64."""
    for transform in convex_of(flow):
        transform.tolerance = 1e-11
    return flow


@every_flow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shapes_and_dtypes(make, dtype):
    flow = awake(make()).to(dtype)
    z = flow.noise(3, generator())
    assert z.shape == (3, *flow.shape) and z.dtype == dtype
    x, logdet = flow(z)
    back, inverse_logdet = flow.inverse(x)
    for field in (x, back):
        assert field.shape == z.shape and field.dtype == dtype
    costs = *flow.forward_with_cost(z)[2], *flow.inverse_with_cost(x)[2]
    for number in (logdet, inverse_logdet, flow.log_prob(x), flow.base_log_prob(z), *costs):
        assert number.shape == (3,) and number.dtype == torch.float64
    sample, log_prob = flow.sample(4, generator=generator())
    assert sample.shape == (4, *flow.shape) and sample.dtype == dtype
    assert log_prob.shape == (4,) and log_prob.dtype == torch.float64
    assert not (sample.requires_grad or log_prob.requires_grad)
    assert flow.dimension == math.prod(flow.shape)
    assert flow.parameter_count == sum(tensor.numel() for tensor in dict(flow.named_parameters()).values())


@every_flow
@settings(max_examples=2)
@given(seed=st.integers(0, 2**16))
def test_inverse_undoes_forward(make, seed):
    flow = fine(awake(make(), seed))
    z = flow.noise(3, generator(seed))
    with torch.no_grad():
        x, logdet = flow(z)
        back, inverse_logdet = flow.inverse(x)
        there, _ = flow(flow.inverse(z)[0])
    torch.testing.assert_close(back, z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(there, z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inverse_logdet, -logdet, rtol=1e-5, atol=1e-5)


def jacobians(flow: Flow, z: Tensor) -> Tensor:
    """dx/dz of every sample, shape (n, N, N), by autograd: N copies, each differentiated by another entry."""
    n, sites = len(z), flow.dimension
    copies = z.repeat(sites, *[1] * (z.ndim - 1)).requires_grad_()
    entries = torch.arange(sites).repeat_interleave(n)[:, None]
    picked = flow(copies)[0].flatten(1).gather(1, entries)
    rows = torch.autograd.grad(picked.sum(), copies)[0]
    return rows.view(sites, n, sites).transpose(0, 1)


@every_flow
def test_densities_are_those_of_the_jacobian(make):
    """ln p(x) = ln Normal(z) - ln |det dx/dz|: from forward(), sample() and log_prob(), against autograd."""
    flow = fine(awake(make()))
    z = flow.noise(3, generator(1))
    exact = torch.linalg.slogdet(jacobians(flow, z)).logabsdet
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    with torch.no_grad():
        x, log_prob = flow.sample(3, generator=generator(1))
        assert torch.equal(x, flow(z)[0])
        torch.testing.assert_close(flow(z)[1], exact, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_prob, normal - exact, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(flow.log_prob(x), normal - exact, rtol=1e-5, atol=1e-5)


@every_flow
@pytest.mark.parametrize("steps", ["coarse", "fine"])
def test_log_prob_has_the_symmetry_that_the_potential_claims(make, steps):
    """To rounding, however coarse the steps: log p(g x) = log p(x) for every element g, and g commutes with the map."""
    flow = awake(make(), strength=0.3).double()
    if steps == "fine" or convex_of(flow):
        fine(flow, refinement=1)
    potentials = [transform.potential for transform in [*gradients_of(flow), *convex_of(flow)]]
    elements = list(potentials[0].symmetry.elements()) if potentials else list(trivial_group(flow.shape).elements())
    x = flow.noise(1, generator(3))
    images = torch.cat([g.apply(x) for g in elements])
    with torch.no_grad():
        log_prob = flow.log_prob(images)
        moved, _ = flow(images)
    torch.testing.assert_close(log_prob, log_prob[:1].expand_as(log_prob), rtol=1e-10, atol=1e-10)
    turned_back = torch.stack([g.inverse().apply(image) for g, image in zip(elements, moved, strict=True)])
    torch.testing.assert_close(turned_back, moved[:1].expand_as(moved), rtol=1e-9, atol=1e-9)


EXACTLY_SYMMETRIC = {
    "square": square(4),
    "critical": square(3),
    "rectangle": square(3, 4),
    "anisotropic": square(4, jy=0.4),
    "triangular": triangular(3),
    "width 2": square(2),
    "from a standard normal": square(3),
    "exact average": square(2, 3),
    "residual on a lattice": square(3),
    "convex on a lattice": square(3, 4),
    "convex blocks on a lattice": square(3),
}


@pytest.mark.parametrize(("name", "lattice"), EXACTLY_SYMMETRIC.items(), ids=EXACTLY_SYMMETRIC)
@settings(max_examples=3)
@given(seed=st.integers(0, 2**16))
def test_log_prob_has_the_whole_symmetry_of_the_lattice(name, lattice, seed):
    """In float32 too, to its precision."""
    flow = awake(FLOWS[name](), seed, strength=0.3)
    x = flow.noise(1, generator(seed))
    images = torch.cat([g.apply(x) for g in lattice.symmetry.sample(np.random.default_rng(seed), 50)])
    with torch.no_grad():
        log_prob, expected = flow.log_prob(images), flow.log_prob(x)
    torch.testing.assert_close(log_prob, expected.expand_as(log_prob), rtol=1e-4, atol=1e-4)


def test_a_sampled_average_is_not_symmetric():
    """Which is why the exact average exists: the map of one draw prefers some elements."""
    flow = awake(FLOWS["sampled average"](), strength=0.5).double()
    x = flow.noise(1, generator())
    images = torch.cat([g.apply(x) for g in square(2, 3).symmetry.elements()])
    assert flow.log_prob(images).std() > 1e-3


PAIR = from_graph(networkx.path_graph(2))
SMALL = {
    "dense": of(PAIR, DENSE, beta=0.6),
    "dense from a standard normal": of(PAIR, DENSE, beta=0.6, whitened=False, time=2.0),
    "softplus": lambda seed=0: Flow(
        (2,), [GradientFlow(DensePotential((2,), 6, activation="softplus", generator=generator(seed)), steps=4)]
    ),
    "softplus, exact average": lambda seed=0: Flow((2,), [GradientFlow(averaged_softplus("exact", seed), steps=4)]),
    "softplus, sampled average": lambda seed=0: Flow((2,), [GradientFlow(averaged_softplus("sampled", seed), steps=4)]),
    "residual": lambda seed=0: Flow(
        (2,), [GradientFlow(ResidualPotential((2,), width=6, layers=3, generator=generator(seed)), steps=4)]
    ),
    "convex": lambda seed=0: Flow((2,), [convex((2,), seed), standardising((2,), seed), convex((2,), seed + 1)]),
    "convex, inverted": lambda seed=0: Flow((2,), [Inverted(convex((2,), seed))]),
    "2x2": of(square(2), LATTICE, beta=0.3),
    "2x2 from a standard normal": of(square(2), LATTICE, beta=0.3, whitened=False),
}


def averaged_softplus(mode, seed):
    """Over both swaps of the two sites and both signs."""
    group = Group((2,), point=(np.array([0, 1]), np.array([1, 0])), flip=True)
    dense = DensePotential((2,), 6, activation="softplus", generator=generator(seed))
    return group_average(dense, group, mode, slots=4, generator=generator(seed))


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_density_integrates_to_one(make):
    """By the trapezoidal rule in two or four dimensions, on axes along which the samples' covariance is one."""
    flow = make().double()
    plane = flow.dimension == 2
    flow = fine(awake(flow, strength=0.25 if plane else 0.05), refinement=2 if plane else 1)
    x, _ = flow.sample(4000, generator=generator())
    mean, factor = x.flatten(1).mean(0), torch.linalg.cholesky(x.flatten(1).T.cov())
    spacing, reach = (0.2, 8.0) if plane else (0.95, 4.75)
    axis = torch.arange(-reach, reach + spacing / 2, spacing, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * flow.dimension)
    with torch.no_grad():
        log_prob = flow.log_prob((mean + grid @ factor.T).view(-1, *flow.shape))
    integral = log_prob.exp().sum() * spacing**flow.dimension * factor.diagonal().prod()
    assert integral.item() == pytest.approx(1.0, abs=1e-4 if plane else 1e-3)


@every_flow
def test_every_parameter_gets_a_finite_gradient(make):
    """Through samples and through log_prob; from the start and later."""
    for strength in (0.0, 0.2):
        flow = awake(make(), strength=strength)
        x, logdet = flow(flow.noise(4, generator()))
        for loss in (x.square().sum() + logdet.sum(), flow.log_prob(x.detach()).sum()):
            if flow.parameter_count:
                flow.zero_grad()
                loss.backward()
            for name, parameter in flow.named_parameters():
                assert parameter.grad is not None and parameter.grad.isfinite().all(), name
                assert strength == 0.0 or parameter.grad.any(), name


@every_flow
def test_the_gradient_is_the_derivative(make):
    """Of a scalar of x and logdet along a random direction of all parameters and z, by central differences."""
    flow = tight(awake(make(), strength=0.2)).double()
    z = flow.noise(2, generator()).requires_grad_()
    inputs = [z, *flow.parameters()]
    directions = [randn(*tensor.shape, seed=i) for i, tensor in enumerate(inputs)]

    def scalar():
        x, logdet, cost = flow.forward_with_cost(z)
        return (x * randn(*x.shape, seed=50)).sum() + (logdet * randn(2, seed=51)).sum() + 0.3 * cost.transport.sum()

    gradients = torch.autograd.grad(scalar(), inputs, materialize_grads=True)
    slope = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True)).item()

    def moved(by):
        with torch.no_grad():
            for tensor, direction in zip(inputs, directions, strict=True):
                tensor.add_(by * direction)
            return scalar().item()

    h = 1e-5
    numerical = (moved(h) - moved(-2 * h)) / (2 * h)
    assert slope == pytest.approx(numerical, rel=1e-5, abs=1e-6)


@every_flow
def test_state_survives_save_and_load(make):
    """Another seed's flow becomes the same map: nothing that matters is outside the state."""
    flow, other = awake(make(0), 0), awake(make(7), 7)
    other.load_state_dict(flow.state_dict())
    z = flow.noise(3, generator())
    for ours, expected in zip(other(z), flow(z), strict=True):
        assert torch.equal(ours, expected)


@every_flow
def test_seeds_decide_everything(make):
    def drawn(seed, noise):
        return awake(make(seed), 0).sample(3, generator=generator(noise))

    first, again = drawn(3, 4), drawn(3, 4)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], drawn(3, 5)[0])
    if make(0).parameter_count:
        assert not torch.equal(first[0], drawn(4, 4)[0])


@pytest.mark.parametrize("name", ["square", "rectangle", "dense on a graph", "sampled average", "nothing"])
@pytest.mark.parametrize("batch", [1, 3, 4, 10, 100])
def test_batches_change_nothing(name, batch):
    """The same samples, however many are in flight at a time."""
    flow = awake(FLOWS[name]())
    whole, log_prob = flow.sample(10, generator=generator(1))
    parts, part_log_prob = flow.sample(10, generator=generator(1), batch=batch)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(part_log_prob, log_prob, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "batch"), [(0, None), (-3, None), (5, 0), (5, -1)])
def test_there_is_at_least_one_sample(n, batch):
    with pytest.raises(InvalidInput, match="expected at least 1"):
        Flow((2,), []).sample(n, batch=batch)


def test_samples_follow_the_global_seed_without_a_generator():
    flow = awake(FLOWS["square"]())
    torch.manual_seed(5)
    first = flow.sample(3)[0]
    torch.manual_seed(5)
    assert torch.equal(flow.sample(3)[0], first)


def test_sampling_leaves_gradients_as_they_were():
    flow = awake(FLOWS["square"]())
    flow.sample(4, generator=generator(), batch=2)
    assert torch.is_grad_enabled()
    assert flow(flow.noise(1))[0].requires_grad


# --- a flow that has not been trained


@pytest.mark.parametrize(
    "lattice", [square(3), square(3, jy=0.2), triangular(3), square(2, 3, boundary="open")], ids=str
)
@pytest.mark.parametrize("beta", [CRITICAL_BETA, -0.6])
def test_a_new_flow_is_the_best_gaussian(lattice, beta):
    """Its covariance is (A^-1 - diag(c))^-1, with the mean field's c; density and map both say so."""
    target = HubbardStratonovich(lattice, beta)
    potential = "lattice" if lattice.translation_invariant else "dense"
    flow = build_flow(target, FlowConfig(potential=potential, hidden=4), seed=0).double()
    if potential == "dense":
        with torch.no_grad():
            gradient_flows(flow)[0].potential.amplitude.zero_()
    a = lattice.couplings(beta) + target.offset * np.eye(target.sites)
    curvature = np.broadcast_to(target.mean_field().curvature.numpy().ravel(), target.sites)
    covariance = torch.from_numpy(np.linalg.inv(np.linalg.inv(a) - np.diag(curvature)))
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(target.sites).double(), covariance)
    x, log_prob = flow.sample(50, generator=generator())
    torch.testing.assert_close(log_prob, gaussian.log_prob(x.flatten(1)), rtol=1e-9, atol=1e-9)
    jacobian = jacobians(flow, x[:1])[0]
    torch.testing.assert_close(jacobian @ jacobian.T, covariance, rtol=1e-9, atol=1e-9)


def test_a_new_flow_from_a_standard_normal_is_one():
    flow = build_flow(HubbardStratonovich(square(4), 0.4), FlowConfig(whitened=False), seed=0)
    x, log_prob = flow.sample(10, generator=generator())
    assert torch.equal(x, flow.noise(10, generator()))
    exact = torch.distributions.Normal(0.0, 1.0).log_prob(x.double()).sum((1, 2))
    torch.testing.assert_close(log_prob, exact, rtol=1e-12, atol=1e-12)


def test_flows_are_built_in_float32_with_the_steps_they_are_asked_for():
    config = FlowConfig(time=1.5, steps=7, tableau="midpoint")
    flow = build_flow(HubbardStratonovich(square(4), 0.4), config, seed=0, jitter=0.2, recompute=True)
    gradient = gradient_flows(flow)[0]
    assert {parameter.dtype for parameter in flow.parameters()} == {torch.float32}
    assert (gradient.time, gradient.steps, gradient.tableau) == (1.5, 7, "midpoint")
    assert (gradient.jitter, gradient.recompute, gradient.order) == (0.2, True, 2)


# --- memory


class Saved:
    """Bytes of distinct memory that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}
        self._kept: list[Tensor] = []

    def pack(self, tensor: Tensor) -> Tensor:
        self._kept.append(tensor)  # or its memory could be given to the next one
        self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


def loss_gradients(flow: Flow, z: Tensor) -> tuple[list[Tensor], int]:
    saved = Saved()
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        x, logdet, cost = flow.forward_with_cost(z)
        loss = x.square().sum() + logdet.sum() + cost.transport.sum()
    return [part.clone() for part in torch.autograd.grad(loss, [z, *flow.parameters()])], saved.bytes


@pytest.mark.parametrize(
    "name", ["square", "anisotropic", "width 2", "longer time", "dense", "exact average", "the paper's"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_recomputing_gives_the_same_gradients_for_less_memory(name, dtype):
    """To rounding errors: those of the largest entry of each gradient."""
    flow = awake(FLOWS[name](), strength=0.2).to(dtype)
    z = flow.noise(6, generator()).requires_grad_()
    plain, kept = loss_gradients(flow, z)
    for gradient in gradients_of(flow):
        gradient.recompute = True
    recomputed, less = loss_gradients(flow, z)
    for ours, expected in zip(recomputed, plain, strict=True):
        rounding = 20 * torch.finfo(dtype).eps * float(expected.abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=rounding)
    assert less < kept / 2


def test_recomputing_keeps_no_more_for_more_stages():
    """Euler has one stage a step, Dormand-Prince six: with recomputation both keep one state a step."""

    def kept(method, recompute):
        flow = awake(FLOWS["dense"]())
        gradient_flows(flow)[0].tableau = method
        gradient_flows(flow)[0].recompute = recompute
        return loss_gradients(flow, flow.noise(64, generator()).requires_grad_())[1]

    assert kept("dopri5", True) < 1.2 * kept("euler", True)
    assert kept("dopri5", False) > 3 * kept("euler", False)


@pytest.mark.parametrize("name", ["square", "dense"])
def test_recomputing_changes_nothing_without_gradients(name):
    flow = awake(FLOWS[name]())
    z = flow.noise(3, generator())
    with torch.no_grad():
        plain = flow(z)
        gradient_flows(flow)[0].recompute = True
        assert all(map(torch.equal, flow(z), plain))
        assert all(map(torch.equal, flow.inverse(plain[0]), flow.inverse(plain[0])))


# --- step lengths


@given(steps=st.integers(1, 40), jitter=st.floats(0.01, 0.9), seed=st.integers(0, 2**16))
def test_jittered_grids(steps, jitter, seed):
    """Only in training mode, only after a draw; from 0 to 1, lengths in the stated proportions."""
    gradient = GradientFlow(Quadratic(RATES), steps=steps, jitter=jitter)
    regular = pytest.approx([i / steps for i in range(steps + 1)])
    assert gradient.train().grid() == regular
    gradient.redraw(generator(seed))
    grid = np.array(gradient.grid())
    assert len(grid) == steps + 1 and grid[0] == 0 and grid[-1] == 1
    lengths = np.diff(grid)
    assert lengths.min() > 0 and lengths.max() / lengths.min() <= (1 + jitter) / (1 - jitter) * (1 + 1e-9)
    assert gradient.grid() == list(grid)
    assert gradient.eval().grid() == regular
    assert gradient.train().grid() == list(grid)
    gradient.redraw(generator(seed + 1))
    assert steps == 1 or gradient.grid() != list(grid)
    gradient.redraw(generator(seed))
    assert gradient.grid() == list(grid)


def test_without_jitter_training_changes_nothing():
    gradient = GradientFlow(Quadratic(RATES), steps=5)
    gradient.train().redraw(generator())
    assert gradient.grid() == gradient.eval().grid()


def test_new_step_numbers_make_regular_grids():
    """Drawn lengths are for the number of steps that they were drawn for."""
    gradient = GradientFlow(Quadratic(RATES), steps=5, jitter=0.5).train()
    gradient.redraw(generator())
    gradient.steps = 10
    assert gradient.grid() == pytest.approx([i / 10 for i in range(11)])


@pytest.mark.parametrize("name", ["square", "dense", "sampled average"])
def test_a_jittered_flow_is_inverted_on_its_own_grid(name):
    """Lengths stay as drawn between forward and inverse, or coarse steps would not retrace each other."""
    flow = fine(awake(FLOWS[name]()), refinement=6).train()
    for gradient in gradients_of(flow):
        gradient.jitter = 0.4
    flow.redraw(generator(4))
    z = flow.noise(3, generator())
    x, logdet = flow(z)
    back, inverse_logdet = flow.inverse(x)
    torch.testing.assert_close(back, z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inverse_logdet, -logdet, rtol=1e-4, atol=1e-4)
    regular, _ = flow.eval()(z)
    assert not torch.equal(regular, x)
    flow.redraw(generator(5))
    assert not torch.equal(flow.train()(z)[0], x)


def test_a_sampled_flow_is_frozen_until_redrawn():
    flow = awake(FLOWS["the paper's"](), strength=0.4)
    z = flow.noise(3, generator())
    x, logdet = flow(z)
    assert all(map(torch.equal, flow(z), (x, logdet)))
    assert isinstance(gradient_flows(flow)[0].potential, SampledAverage)
    flow.redraw(generator(9))
    assert not torch.equal(flow(z)[0], x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tableau": "rk5"}, "'rk5': expected one of euler, midpoint, rk4, dopri5"),
        ({"steps": 0}, "steps 0"),
        ({"steps": -2}, "steps -2"),
        ({"time": 0.0}, "expected a positive time"),
        ({"time": -1.0}, "expected a positive time"),
        ({"time": math.nan}, "expected a positive time"),
        ({"time": math.inf}, "expected a positive time"),
        ({"jitter": 1.0}, "a jitter below 1"),
        ({"jitter": -0.1}, "a jitter below 1"),
        ({"jitter": math.nan}, "a jitter below 1"),
    ],
)
def test_impossible_integrations_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        GradientFlow(Quadratic(RATES), **{"steps": 4, **options})


# --- linear maps


def random_orthogonal(sites: int) -> Tensor:
    return torch.linalg.qr(randn(sites, sites)).Q


BASES = {
    "Fourier": FourierBasis((4, 4)),
    "Fourier odd": FourierBasis((3, 5)),
    "Fourier rectangle": FourierBasis((2, 4)),
    "eigenvectors": EigenBasis((2, 3), random_orthogonal(6)),
    "eigenvectors of a graph": EigenBasis((5,), random_orthogonal(5)),
}


def even_values(basis) -> Tensor:
    values = 0.3 + randn(*basis.values_shape).abs()
    if isinstance(basis, FourierBasis):
        values = values + values.flip((0, 1)).roll((1, 1), (0, 1))
    return values


@pytest.mark.parametrize("basis", BASES.values(), ids=BASES)
def test_spectral_scaling_is_a_symmetric_matrix(basis):
    """Column by column: symmetric, with the eigenvalues it was given, their determinant, and its own inverse."""
    scale = even_values(basis)
    scaling = SpectralScaling(basis, scale)
    sites = math.prod(basis.shape)
    identity = torch.eye(sites, dtype=torch.float64)
    columns, logdet = scaling(identity.view(sites, *basis.shape))
    matrix = columns.view(sites, sites)
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.linalg.eigvalsh(matrix), scale.flatten().sort().values, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(logdet, torch.linalg.slogdet(matrix).logabsdet.expand(sites), rtol=1e-11, atol=1e-11)
    back, inverse_logdet = scaling.inverse(columns)
    torch.testing.assert_close(back.view(sites, sites), identity, rtol=1e-11, atol=1e-11)
    assert torch.equal(inverse_logdet, -logdet) and logdet.dtype == torch.float64
    x = randn(3, *basis.shape)
    torch.testing.assert_close(scaling(x)[0].flatten(1), x.flatten(1) @ matrix, rtol=1e-11, atol=1e-11)


def test_plane_waves_are_scaled_by_their_own_eigenvalue():
    scaling = SpectralScaling(FourierBasis((4, 6)), even_values(FourierBasis((4, 6))))
    sites = torch.cartesian_prod(torch.arange(4.0), torch.arange(6.0)).double()
    for k in ((0, 0), (1, 0), (0, 2), (3, 5), (2, 3)):
        phase = 2 * math.pi * (sites @ torch.tensor([k[0] / 4, k[1] / 6], dtype=torch.float64))
        wave = torch.cos(phase).view(1, 4, 6)
        torch.testing.assert_close(scaling(wave)[0], scaling.scale[k] * wave, rtol=1e-12, atol=1e-12)


def test_fixed_maps_cost_nothing_and_stay_out_of_the_state():
    scaling = SpectralScaling(FourierBasis((4, 4)), torch.full((4, 4), 2.0))
    z = randn(3, 4, 4)
    x, logdet, cost = scaling.forward_with_cost(z, hjb=True)
    assert all(map(torch.equal, (x, logdet), scaling(z))) and not (cost.transport.any() or cost.hjb.any())
    back, logdet, cost = scaling.inverse_with_cost(x, hjb=True)
    assert all(map(torch.equal, (back, logdet), scaling.inverse(x))) and not (cost.transport.any() or cost.hjb.any())
    assert not scaling.state_dict() and not list(scaling.parameters())


def test_checkpoints_hold_parameters_and_draws_only():
    """What is rebuilt from the configuration is not stored: bases, scales, orbits."""
    names = ("radial", "oriented", "weight", "bias", "amplitude", "quadratic")
    stored = {"transforms.1.step_count", *(f"transforms.1.potential.{name}" for name in names)}
    assert set(FLOWS["square"]().state_dict()) == stored
    assert isinstance(gradient_flows(FLOWS["square"]())[0].potential, LatticePotential)
    drawn = {name.rpartition(".")[2] for name in FLOWS["sampled average"]().state_dict()}
    assert drawn == {"weight", "amplitude", "permutations", "inverses", "signs", "step_count"}


def test_a_large_lattice_is_affordable():
    """64x64: nothing quadratic in the number of sites hides in a flow."""
    group = square_torus_group(64, 64)
    potential = LatticePotential(group, radial=2, oriented=1, hidden=4, generator=generator())
    x, logdet = GradientFlow(potential, steps=1)(randn(2, 64, 64, dtype=torch.float32))
    assert x.shape == (2, 64, 64) and logdet.shape == (2,)
    assert sum(buffer.numel() for buffer in potential.buffers()) < 10 * 64 * 64
