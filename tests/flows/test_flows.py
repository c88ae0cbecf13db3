"""Flows: Runge-Kutta methods, and the laws that every flow keeps, each against an answer found another way."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_flow_laws import FLOWS, awake, every_flow, fine, generator, gradients_of, randn
from torch import Tensor

from isingflow.architectures.build import build_flow
from isingflow.errors import InvalidInput
from isingflow.flows import (
    Flow,
    GradientFlow,
    SpectralScaling,
    gradient_flows,
)
from isingflow.flows.solvers.runge_kutta import TABLEAUX, step
from isingflow.flows.spectral import EigenBasis, FourierBasis
from isingflow.lattice import CRITICAL_BETA, square, triangular
from isingflow.lattice.symmetry import square_torus_group, trivial_group
from isingflow.potentials import (
    LatticePotential,
    Potential,
    SampledAverage,
)
from isingflow.runs.config import FlowConfig
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.testing.transforms import jacobians

every_tableau = pytest.mark.parametrize("tableau", TABLEAUX.values(), ids=TABLEAUX)
every_method = pytest.mark.parametrize("method", TABLEAUX)


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
        flow = Flow((2, 3), [GradientFlow(Quadratic(RATES, growth), time=time, steps=steps, tableau=method)]).double()
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
    flow = Flow((2, 3), [GradientFlow(Quadratic(RATES), time=time, steps=20, tableau="dopri5")]).double()
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


# --- flows as a whole


def test_a_flow_counts_its_entries_and_parameters():
    flow = FLOWS["square"]()
    assert flow.dimension == 16
    assert flow.parameter_count == sum(tensor.numel() for tensor in dict(flow.named_parameters()).values())
    for dtype in (torch.float32, torch.float64):
        z = flow.to(dtype).noise(3, generator())
        assert z.shape == (3, 4, 4) and z.dtype == dtype


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
    with pytest.raises(InvalidInput, match="expected an integer >= 1"):
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
    jacobian = jacobians(lambda z: flow(z)[0], x[:1])[0]
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


@pytest.mark.parametrize("name", ["square", "dense", "exact average"])
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


def test_a_sampled_flow_draws_in_training_alone():
    flow = awake(FLOWS["the paper's"](), strength=0.4)
    z = flow.noise(3, generator())
    assert isinstance(gradient_flows(flow)[0].potential, SampledAverage)
    flow.redraw(generator(8))
    x = flow(z)[0]
    assert torch.equal(flow(z)[0], x)
    flow.redraw(generator(9))
    assert not torch.equal(flow(z)[0], x)
    exact = flow.eval()(z)[0]
    flow.redraw(generator(8))
    assert torch.equal(flow(z)[0], exact)
    torch.testing.assert_close(flow.inverse(exact)[0], z, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tableau": "rk5"}, "tableau is 'rk5', expected euler, midpoint, rk4 or dopri5"),
        ({"steps": 0}, "steps is 0, expected an integer >= 1"),
        ({"steps": -2}, "steps is -2"),
        ({"time": 0.0}, "time is .*, expected a finite number > 0"),
        ({"time": -1.0}, "time is .*, expected a finite number > 0"),
        ({"time": math.nan}, "time is .*, expected a finite number > 0"),
        ({"time": math.inf}, "time is .*, expected a finite number > 0"),
        ({"jitter": 1.0}, "jitter is .*, expected a finite number >= 0 and < 1"),
        ({"jitter": -0.1}, "jitter is .*, expected a finite number >= 0 and < 1"),
        ({"jitter": math.nan}, "jitter is .*, expected a finite number >= 0 and < 1"),
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
    sampled = {name.rpartition(".")[2] for name in FLOWS["sampled average"]().state_dict()}
    assert sampled == {"weight", "amplitude", "seed", "step_count"}


def test_a_large_lattice_is_affordable():
    """64x64: nothing quadratic in the number of sites hides in a flow."""
    group = square_torus_group(64, 64)
    potential = LatticePotential(group, radial=2, oriented=1, hidden=4, generator=generator())
    x, logdet = GradientFlow(potential, steps=1)(randn(2, 64, 64, dtype=torch.float32))
    assert x.shape == (2, 64, 64) and logdet.shape == (2,)
    assert sum(buffer.numel() for buffer in potential.buffers()) < 10 * 64 * 64
