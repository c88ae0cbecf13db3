"""The residual potentials of OT-Flow: exact trace, costs along the path, diagnostics; each against another way."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_potential_laws import generator, randn, residual, residual_lattice
from torch import Tensor

from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.flows import Flow, GradientFlow, SpectralScaling, diagnostics
from isingflow.flows.spectral import FourierBasis
from isingflow.lattice import CRITICAL_BETA, square
from isingflow.lattice.symmetry import square_torus_group, trivial_group
from isingflow.potentials import (
    DensePotential,
    LatticeResidualPotential,
    Potential,
    ResidualPotential,
    SampledAverage,
)
from isingflow.potentials.base import chebyshev, chebyshev_slopes
from isingflow.potentials.layers import residual as network
from isingflow.potentials.layers.residual import EvenOpening, PlainOpening, antiderivative, gram_root
from isingflow.potentials.resnet import REACH
from isingflow.runs.config import TrainingConfig
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.testing.laws import shaken
from isingflow.testing.potentials import pulled_back
from isingflow.training.objectives import negative_log_likelihood, reverse_kl


def resnet(d: int = 3, seed: int = 0, **options) -> ResidualPotential:
    """With every parameter moved away from where it starts, w from zero above all."""
    return shaken(residual((d,), seed, **{"width": 5, **options}), 0.5, seed)


def on_lattice(group=None, seed: int = 0, strength: float = 0.5, **options) -> LatticeResidualPotential:
    return shaken(residual_lattice(group or square_torus_group(4, 4), seed, **options), strength, seed)


def differentiated(potential: Potential, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Gradient of `value` and its derivative by time, by autograd."""
    x, time = x.detach().requires_grad_(), torch.tensor(t, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(potential.value(x, t).sum(), x)
    rates = [torch.autograd.grad(potential.value(row[None], time).sum(), time)[0] for row in x.detach()]
    return gradient, torch.stack(rates)


def test_units_from_directions_bend_within_reach():
    """Their kernel but for its column of time is what was given, and the planes w.x + b = 0 fill the reach."""
    directions = 8 * torch.nn.functional.normalize(torch.randn(400, 3, generator=generator(1)), dim=1)
    potential = ResidualPotential((3,), width=400, layers=1, directions=directions, generator=generator())
    torch.testing.assert_close(potential.opening[:, :-1].detach(), directions, rtol=0, atol=0)
    assert potential.opening[:, -1].abs().max() <= 0.5
    distances = potential.opening_bias.detach().abs() / 8
    assert 0.95 * REACH < distances.max() <= REACH
    assert abs(distances.mean().item() / REACH - 0.5) < 5 / math.sqrt(12 * 400)


def test_the_trace_costs_no_more_in_more_dimensions():
    """Between two dimensions above the width nothing but products with x may grow: M keeps its size."""
    roots = [gram_root(resnet(d, width=6).opening[:, :-1]) for d in (8, 500)]
    assert [root.shape for root in roots] == [(6, 6), (6, 6)]


@pytest.mark.parametrize("limit", [1, 2**9, 2**12])
@pytest.mark.parametrize("make", [lambda: resnet(4, layers=3), on_lattice], ids=["resnet", "lattice"])
def test_blocks_change_nothing(make, limit, monkeypatch):
    """Columns go through the cache in blocks; sums over blocks are sums over columns."""
    potential = make()
    x = randn(40, *potential.shape).requires_grad_()
    inputs = [x, *potential.parameters()]

    def results():
        outputs = potential.bind_timed()(x, 0.4)
        return *outputs, *pulled_back(outputs, inputs, 1)

    whole = results()
    monkeypatch.setattr(network, "CACHE_BYTES", limit)
    for ours, expected in zip(results(), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


@given(rows=st.integers(1, 6), d=st.integers(1, 9), rank=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_gram_roots(rows, d, rank, seed):
    """R R^T is the Gram matrix and so is its derivative, for rows of any rank, also one lower than their number."""
    matrix = (randn(rows, rank, seed=seed) @ randn(rank, d, seed=seed + 1)).requires_grad_()
    root = gram_root(matrix)
    assert root.shape == (rows, min(rows, d))
    torch.testing.assert_close(root @ root.T, matrix @ matrix.T, rtol=1e-11, atol=1e-11)
    weights = randn(rows, rows, seed=seed + 2)
    ours, exact = (torch.autograd.grad((weights * (r @ r.T)).sum(), matrix)[0] for r in (gram_root(matrix), matrix))
    torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("opening", [PlainOpening, EvenOpening])
@given(p=st.floats(-20, 20), b=st.floats(-3, 3))
def test_openings_are_their_derivatives(opening, p, b):
    p, b = (torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in (p, b))

    def derivative(of: Tensor, by: Tensor) -> Tensor:
        return torch.autograd.grad(of, by, create_graph=True)[0]

    def smooth(s: Tensor) -> Tensor:
        return torch.logaddexp(s, -s)

    value = (smooth(p + b) + smooth(p - b)) / 2 if opening is EvenOpening else smooth(p + b)
    first = derivative(value, p)
    second = derivative(first, p)
    ours = opening(p.detach(), b.detach())
    pairs = {
        "value": value,
        "first": first,
        "second": second,
        "third": derivative(second, p),
        "bias_first": derivative(value, b),
        "bias_second": derivative(first, b),
        "bias_third": derivative(second, b),
    }
    for name, expected in pairs.items():
        torch.testing.assert_close(getattr(ours, name), expected.detach(), rtol=1e-9, atol=1e-9)
    if opening is EvenOpening:
        assert torch.equal(opening(-p.detach(), b.detach()).value, ours.value)


def test_the_activation_does_not_overflow():
    x = torch.tensor([-1e4, 0.0, 1e4])
    torch.testing.assert_close(antiderivative(x), torch.tensor([1e4, math.log(2), 1e4]))


def test_value_by_hand():
    """The formula of the paper, sample by sample, its sign turned."""
    potential, t = resnet(2, width=3, layers=3, rank=2), 0.7
    k0, b0, k, b, w, a, linear = (p.detach().numpy() for p in potential.parameters())
    x = randn(4, 2)
    for row, ours in zip(x.numpy(), potential.value(x, t), strict=True):
        s = np.append(row, t)
        u = np.log(2 * np.cosh(k0 @ s + b0))
        for kernel, bias in zip(k, b, strict=True):
            u = u + 0.5 * np.log(2 * np.cosh(kernel @ u + bias))
        assert ours.item() == pytest.approx(-(w @ u + s @ a.T @ a @ s / 2 + linear @ s), rel=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_they_start_near_the_identity_and_can_leave_it(layers):
    potential = ResidualPotential((5,), layers=layers, generator=generator())
    x = potential_noise = torch.randn(200, 5, generator=generator(1))
    flow = GradientFlow(potential, steps=4)
    moved, logdet = flow(x)
    assert (moved - x).norm(dim=1).mean() < 0.2 * x.norm(dim=1).mean()
    (moved * potential_noise.roll(1, 1)).sum().add(logdet.sum()).backward()
    for name in ("weight", "quadratic", "linear"):
        assert getattr(potential, name).grad.abs().max() > 1e-4, name
    assert (
        not LatticeResidualPotential(square_torus_group(4, 4), radial=1, width=3, generator=generator())
        .bind()(torch.randn(2, 4, 4), 0.3)[0]
        .any()
    )


@given(t=st.floats(0, 1), count=st.integers(1, 9))
def test_slopes_of_chebyshev_polynomials(t, count):
    like = torch.zeros(1, dtype=torch.float64)
    series = np.polynomial.chebyshev.Chebyshev
    exact = [2 * series.basis(k).deriv()(2 * t - 1) for k in range(count)]
    np.testing.assert_allclose(chebyshev_slopes(t, count, like), exact, rtol=1e-11, atol=1e-11)
    assert chebyshev_slopes(t, count, like).shape == chebyshev(t, count, like).shape


# --- costs along the path


class Quadratic(Potential):
    """phi = q(t) |x|^2 / 2, with q given as a function and its derivative."""

    def __init__(self, q, slope, shape=(3,)):
        super().__init__()
        self.q, self.slope, self.shape, self.symmetry = q, slope, shape, trivial_group(shape)

    def bind_timed(self):
        def field(x, t):
            laplacian = torch.full((len(x),), self.q(t) * x[0].numel(), dtype=x.dtype)
            return self.q(t) * x, laplacian, self.slope(t) * x.square().flatten(1).sum(1) / 2

        return field

    def bind(self):
        timed = self.bind_timed()
        return lambda x, t: timed(x, t)[:2]


def straight(scale: float, time: float = 1.0) -> Quadratic:
    """x(t) = x(0) (1 + (scale - 1) t / time): straight at constant speed, so phi solves the HJB equation."""
    speed = (scale - 1) / time
    q = lambda t: speed / (1 + speed * t * time)  # noqa: E731
    return Quadratic(q, lambda t: -time * q(t) ** 2)


@pytest.mark.parametrize("time", [1.0, 2.5])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_straight_paths_solve_the_hjb_equation(scale, time):
    """Their transport cost is |x1 - x0|^2 / (2 T), their residual is zero, to the integrator's error."""
    flow = Flow((3,), [GradientFlow(straight(scale, time), time=time, steps=40, tableau="dopri5")]).double()
    z = randn(6, 3)
    x, _, cost = flow.forward_with_cost(z, hjb=True)
    torch.testing.assert_close(x, scale * z, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(cost.transport, (x - z).square().sum(1) / (2 * time), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(cost.hjb, torch.zeros(6).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("time", [1.0, 1.6])
@pytest.mark.parametrize("rate", [0.7, -0.4])
def test_costs_of_exponential_paths(time, rate):
    """phi = r |x|^2 / 2 at all times: transport cost r |z|^2 (exp(2 r T) - 1) / 4, and the residual is the same."""
    flow = Flow(
        (3,), [GradientFlow(Quadratic(lambda t: rate, lambda t: 0.0), time=time, steps=30, tableau="dopri5")]
    ).double()
    z = randn(6, 3)
    exact = rate * z.square().sum(1) * math.expm1(2 * rate * time) / 4
    x, logdet, forward = flow.forward_with_cost(z, hjb=True)
    back, inverse_logdet, inverse = flow.inverse_with_cost(x, hjb=True)
    for cost in (*forward, *inverse):
        torch.testing.assert_close(cost, exact, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(back, z, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(inverse_logdet, -logdet, rtol=1e-8, atol=1e-10)


FLOWS = {
    "resnet": lambda: Flow((3,), [GradientFlow(resnet(3, layers=3), steps=20, time=1.5, tableau="dopri5")]),
    "lattice": lambda: Flow(
        (3, 3),
        [
            GradientFlow(on_lattice(square_torus_group(3, 3), strength=0.1), steps=20),
            SpectralScaling(FourierBasis((3, 3)), torch.full((3, 3), 1.5)),
            GradientFlow(on_lattice(square_torus_group(3, 3), strength=0.1, layers=1), steps=20, time=0.5),
        ],
    ),
}
both = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)


@both
def test_costs_are_the_same_in_both_directions(make):
    """Positive, of the same map, and nothing but what was asked for."""
    flow = make().double()
    z = randn(4, *flow.shape)
    with torch.no_grad():
        x, logdet, cost = flow.forward_with_cost(z, hjb=True)
        back, _, again = flow.inverse_with_cost(x, hjb=True)
        plain, _, transport_only = flow.forward_with_cost(z)
        assert torch.equal(plain, x) and torch.equal(flow(z)[0], x) and torch.equal(flow(z)[1], logdet)
        assert torch.equal(flow.inverse_with_cost(x)[0], flow.inverse(x)[0])
    assert torch.equal(transport_only.transport, cost.transport) and not transport_only.hjb.any()
    for one in (*cost, *again):
        assert one.dtype == torch.float64 and (one > 1e-3).all()
    torch.testing.assert_close(again.transport, cost.transport, rtol=1e-5, atol=1e-5)
    # |..| has kinks, across which no integrator keeps its order
    torch.testing.assert_close(again.hjb, cost.hjb, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(back, z, rtol=1e-5, atol=1e-5)


def test_costs_are_integrals_along_the_path():
    """Against the trapezoidal rule over positions, with the potential differentiated by autograd."""
    time, points = 1.5, 150
    potential = resnet(3, layers=3)
    gradient = GradientFlow(potential, steps=points, time=time)
    x = randn(2, 3)
    _, _, cost = gradient.forward_with_cost(x, hjb=True)
    kinetic, residual = [], []
    for i in range(points + 1):
        slope, rate = differentiated(potential, x, i / points)
        kinetic.append(slope.square().sum(1) / 2)
        residual.append((rate / time + kinetic[-1]).abs())
        if i < points:
            x, _ = gradient.integrate(x, [i / points, (i + 1) / points])
    for ours, values in zip(cost, (kinetic, residual), strict=True):
        values = torch.stack(values)
        torch.testing.assert_close(ours, torch.trapezoid(values, dx=time / points, dim=0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_costs_can_be_differentiated(recompute):
    """Along a random direction of all parameters and z, in both directions, against central differences."""
    flow = Flow((3,), [GradientFlow(resnet(3, layers=2), steps=4, recompute=recompute)])
    z = randn(3, 3).requires_grad_()
    inputs = [z, *flow.parameters()]
    directions = [randn(*tensor.shape, seed=i) for i, tensor in enumerate(inputs)]
    for direction in (flow.forward_with_cost, flow.inverse_with_cost):

        def scalar(direction=direction):
            moved, logdet, cost = direction(z, hjb=True)
            return moved.sum() + logdet.sum() + 0.3 * cost.transport.sum() + 0.7 * cost.hjb.sum()

        gradients = torch.autograd.grad(scalar(), inputs)
        slope = sum((g * way).sum() for g, way in zip(gradients, directions, strict=True)).item()
        shifted, h = [], 1e-6
        with torch.no_grad():
            for by in (h, -2 * h, h):
                for tensor, way in zip(inputs, directions, strict=True):
                    tensor.add_(by * way)
                shifted.append(scalar().item())
        assert slope == pytest.approx((shifted[0] - shifted[1]) / (2 * h), rel=1e-6)


@pytest.mark.parametrize(
    "potential",
    [
        DensePotential((2, 2), 3, generator=generator()),
        SampledAverage(DensePotential((2, 2), 3, generator=generator()), square_torus_group(2, 2)),
    ],
    ids=["dense", "sampled"],
)
def test_no_residual_without_a_derivative_by_time(potential):
    flow = Flow((2, 2), [GradientFlow(potential, steps=2)])
    with pytest.raises(InvalidInput, match=r"(Potential|Average) has no derivative by time in closed form"):
        flow.forward_with_cost(torch.zeros(1, 2, 2), hjb=True)
    assert (flow.forward_with_cost(torch.ones(1, 2, 2))[2].transport > 0).all()


def test_objectives_add_their_penalties():
    """In the direction that they integrate: from noise for the reverse KL, from data for the likelihood."""
    target = HubbardStratonovich(square(3), CRITICAL_BETA)
    flow = Flow((3, 3), [GradientFlow(on_lattice(square_torus_group(3, 3), strength=0.1), steps=3)]).double()
    z, penalised = randn(5, 3, 3), TrainingConfig(transport_cost=0.3, hjb=0.7)
    for plain, loss, (_, _, cost) in (
        (
            reverse_kl(flow, target, z, TrainingConfig()),
            reverse_kl(flow, target, z, penalised),
            flow.forward_with_cost(z, hjb=True),
        ),
        (
            negative_log_likelihood(flow, z, TrainingConfig()),
            negative_log_likelihood(flow, z, penalised),
            flow.inverse_with_cost(z, hjb=True),
        ),
    ):
        assert torch.equal(plain[1], loss[1])
        expected = plain[0] + 0.3 * cost.transport.mean() + 0.7 * cost.hjb.mean()
        torch.testing.assert_close(loss[0], expected, rtol=1e-12, atol=1e-12)


# --- diagnostics


def test_straight_paths_are_straight_and_curved_ones_are_not():
    z = randn(50, 3)
    direct = Flow((3,), [GradientFlow(straight(2.0), steps=16)])
    assert diagnostics.straightness(direct, z).value == pytest.approx(1.0, abs=1e-6)
    assert diagnostics.hjb_residual(direct, z).value == pytest.approx(0.0, abs=1e-6)
    # there and back again: no distance to speak of, at any length
    returning = Quadratic(lambda t: 2.0 if t < 0.5 else -1.9, lambda t: 0.0)
    assert diagnostics.straightness(Flow((3,), [GradientFlow(returning, steps=64)]), z).value > 5
    assert diagnostics.straightness(Flow((3,), []), z).value == 1.0


@both
def test_straightness_is_at_least_one(make):
    flow = make().double()
    z = randn(8, *flow.shape)
    straightness = diagnostics.straightness(flow, z)
    assert straightness.value >= 1.0
    assert straightness.value <= diagnostics.straightness(flow, z, refinement=9).value + 1e-12
    paths = diagnostics.trajectories(flow, z, refinement=2)
    assert [path.shape for path in paths] == [(41, 8, *flow.shape)] * len(paths)
    start = z
    for transform in flow.transforms:
        start = start if isinstance(transform, GradientFlow) else transform(start)[0]
    torch.testing.assert_close(paths[0][0], start, rtol=0, atol=0)
    for path, following in itertools.pairwise(paths):
        torch.testing.assert_close(path[-1], following[0])
    torch.testing.assert_close(paths[-1][-1], flow(z)[0], rtol=1e-4, atol=1e-4)


def test_means_have_their_error_bars():
    flow = FLOWS["resnet"]()
    z = randn(30, 3)
    cost = flow.forward_with_cost(z, hjb=True)[2]
    for ours, values in ((diagnostics.transport_cost, cost.transport), (diagnostics.hjb_residual, cost.hjb)):
        estimate = ours(flow, z)
        assert estimate.value == pytest.approx(values.mean().item(), rel=1e-12)
        assert estimate.stderr == pytest.approx(values.std().item() / math.sqrt(30), rel=1e-12)
    with pytest.raises(InvalidInput, match="1 samples: an error bar needs at least 2"):
        diagnostics.transport_cost(flow, z[:1])


def test_inverse_errors_fall_with_the_order():
    flow = Flow((3,), [GradientFlow(resnet(3), steps=4)])
    z = randn(20, 3)
    coarse = diagnostics.inverse_error(flow, z)
    flow.transforms[0].steps = 8
    fine = diagnostics.inverse_error(flow, z)
    back = flow.inverse(flow(z)[0])[0]
    assert fine.value == pytest.approx(((back - z).norm(dim=1) / z.norm(dim=1)).mean().item(), rel=1e-9)
    assert 3.0 < math.log2(coarse.value / fine.value) < 7.0


def test_steps_needed_are_the_fewest():
    flow = Flow((3,), [GradientFlow(resnet(3), steps=5, jitter=0.3)]).train()
    x, tolerance = randn(20, 3), 1e-3

    def error(steps):
        values = []
        for number in (steps, 2 * steps):
            flow.eval().transforms[0].steps = number
            values.append(flow.log_prob(x).detach())
        flow.train().transforms[0].steps = 5
        return (values[0] - values[1]).abs().mean().item()

    needed = diagnostics.steps_needed(flow, x, tolerance)
    assert needed > 2 and error(needed) <= tolerance < error(needed - 1)
    assert flow.training and flow.transforms[0].steps == 5
    assert diagnostics.steps_needed(flow, x, 1e3) == 1
    assert diagnostics.steps_needed(Flow((3,), []), x, 1e-9) == 1


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan])
def test_tolerances_are_positive(tolerance):
    with pytest.raises(InvalidInput, match="expected a finite number > 0"):
        diagnostics.steps_needed(Flow((2,), []), randn(2, 2), tolerance)


def test_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(diagnostics, "MOST_STEPS", 4)
    with pytest.raises(InvalidInput, match="4 steps leave an integration error above 1e-13 nats"):
        diagnostics.steps_needed(Flow((3,), [GradientFlow(resnet(3), steps=2)]), randn(4, 3), 1e-13)
    with pytest.raises(InvalidInput, match="expected an integer from 1 to"):
        diagnostics.trajectories(Flow((2,), []), randn(2, 2), refinement=0)


# --- what is refused


@pytest.mark.parametrize("options", [{"width": 0}, {"layers": 0}, {"rank": 0}, {"width": -3}])
def test_impossible_networks_are_refused(options):
    with pytest.raises(InvalidInput, match="expected an integer >= 1"):
        ResidualPotential((3,), generator=generator(), **options)


def test_directions_of_another_shape_are_refused():
    with pytest.raises(InvalidInput, match=r"directions is an array of shape \(5, 4\), expected shape \(5, 3\)"):
        ResidualPotential((3,), width=5, directions=torch.ones(5, 4), generator=generator())


@pytest.mark.parametrize(
    "options", [{"radial": 0, "oriented": 0}, {"radial": -1}, {"width": 0}, {"layers": 0}, {"time_terms": 0}]
)
def test_impossible_lattice_networks_are_refused(options):
    options = {"radial": 2, "oriented": 1, "width": 3, **options}
    with pytest.raises(InvalidInput, match=r"expected (at least one kernel|an integer)"):
        LatticeResidualPotential(square_torus_group(4, 4), generator=generator(), **options)


def test_groups_that_are_too_small_are_refused():
    with pytest.raises(SymmetryMismatch, match="needs translations x C2 x Z2"):
        LatticeResidualPotential(square(4, boundary="open").symmetry, radial=1, width=2, generator=generator())
