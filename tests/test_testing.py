"""Every law finds the fault that is planted for it, by name and with its size; what keeps the laws passes."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.flows import ActNorm, Flow, Transform
from isingflow.lattice import square
from isingflow.lattice.symmetry import Group
from isingflow.potentials import ConvexFunction, Potential
from isingflow.potentials.convex import Expansion
from isingflow.targets.base import Start, Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.testing import (
    CONVEX_LAWS,
    FLOW_LAWS,
    POTENTIAL_LAWS,
    SAMPLER_LAWS,
    TARGET_LAWS,
    TRANSFORM_LAWS,
    LawBroken,
    check_convex,
    check_flow,
    check_potential,
    check_sampler,
    check_target,
    check_transform,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(faults):
    """One case for each broken class, with the law that must find it."""
    return pytest.mark.parametrize(("law", "kind"), faults, ids=[kind.__name__ for _, kind in faults])


def found(check, *args, **options) -> LawBroken:
    """The first law that is broken, by a check of all of them."""
    with pytest.raises(LawBroken) as caught:
        check(*args, **options)
    return caught.value


# --- potentials


class Waves(Potential):
    """phi(x, t) = (1 + t) sum_i [a_i x_i^2 / 2 + cos(b_i x_i)], which is even."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.shape, self.symmetry = (3,), Group((3,), flip=True)
        self.a = nn.Parameter(torch.zeros(3))
        self.b = nn.Parameter(torch.rand(3, generator=generator(seed)))
        self.calls = 0

    def value(self, x, t):
        return (1 + t) * (self.a * x.square() / 2 + torch.cos(self.b * x)).sum(1)

    def gradient(self, x, t):
        return (1 + t) * (self.a * x - self.b * torch.sin(self.b * x))

    def laplacian(self, x, t):
        return (1 + t) * (self.a - self.b.square() * torch.cos(self.b * x)).sum(1)

    def rate(self, x, t):
        return self.value(x, t) / (1 + t)

    def bind(self):
        return lambda x, t: (self.gradient(x, t), self.laplacian(x, t))

    def bind_timed(self):
        return lambda x, t: (self.gradient(x, t), self.laplacian(x, t), self.rate(x, t))


class FlatLaplacian(Waves):
    def laplacian(self, x, t):
        return super().laplacian(x, t)[:, None]


class WrongGradient(Waves):
    def gradient(self, x, t):
        return super().gradient(x, t) + 1e-9


class WrongLaplacian(Waves):
    def laplacian(self, x, t):
        return 1.001 * super().laplacian(x, t)


class NotANumber(Waves):
    def laplacian(self, x, t):
        return super().laplacian(x, t) + torch.where(x[:, 0] > 0, math.nan, 0.0)


class DetachedLaplacian(Waves):
    def laplacian(self, x, t):
        return super().laplacian(x, t).detach()


class IdleParameter(Waves):
    def __init__(self, seed=0):
        super().__init__(seed)
        self.idle = nn.Parameter(torch.zeros(2))


class CuspAtTheStart(Waves):
    """|a| as a root: at the zero where training starts its gradient is no number."""

    def cusp(self):
        return self.a.square().sum().sqrt()

    def value(self, x, t):
        return super().value(x, t) + self.cusp() * x.square().sum(1) / 2

    def gradient(self, x, t):
        return super().gradient(x, t) + self.cusp() * x

    def laplacian(self, x, t):
        return super().laplacian(x, t) + 3 * self.cusp()

    def bind_timed(self):
        raise InvalidInput("not known")


class _Both(torch.autograd.Function):
    """A backward pass that is right only where both results are asked for."""

    @staticmethod
    def forward(ctx, gradient, laplacian):
        ctx.set_materialize_grads(False)
        return gradient.clone(), laplacian.clone()

    @staticmethod
    def backward(ctx, by_gradient, by_laplacian):
        return (None, 2 * by_laplacian) if by_gradient is None else (by_gradient, by_laplacian)


class HalfABackwardPass(Waves):
    def bind(self):
        return lambda x, t: _Both.apply(self.gradient(x, t), self.laplacian(x, t))


class ClaimedTranslations(Waves):
    def __init__(self, seed=0):
        super().__init__(seed)
        self.symmetry = Group((3,), translations=True, flip=True)


class WrongRate(Waves):
    def rate(self, x, t):
        return self.value(x, t) / (1.0001 + t)


class Overflowing(Waves):
    """exp(30 x^2) is a number in float64, and none in float32."""

    def laplacian(self, x, t):
        return super().laplacian(x, t) + 0 * torch.exp(30 * x.detach().square()).sum(1)


class SeenByOthers(Waves):
    def gradient(self, x, t):
        return super().gradient(x, t) * (1 + 1e-6 * (len(x) == 1))


class OtherSteps(Waves):
    def fields(self, midpoints):
        return [lambda x, t: self.bind()(x, t + 1e-9)] * len(midpoints)


class Counting(Waves):
    def value(self, x, t):
        self.calls += 1
        return super().value(x, t) + 1e-13 * self.calls


class ShiftingItsInput(Waves):
    def gradient(self, x, t):
        slope = super().gradient(x, t)
        x.data.mul_(1 + 1e-15)
        return slope


class StateElsewhere(Waves):
    """What a redraw draws is no buffer, so that it is not saved."""

    shift = 0.0

    def redraw(self, generator):
        self.shift = float(torch.rand((), generator=generator))

    def value(self, x, t):
        return super().value(x, t) + self.shift


POTENTIAL_FAULTS = [
    ("shapes", FlatLaplacian),
    ("gradient", WrongGradient),
    ("Laplacian", WrongLaplacian),
    ("Laplacian", NotANumber),
    ("backward", DetachedLaplacian),
    ("use", IdleParameter),
    ("start", CuspAtTheStart),
    ("parts", HalfABackwardPass),
    ("symmetry", ClaimedTranslations),
    ("rate", WrongRate),
    ("float32", Overflowing),
    ("batches", SeenByOthers),
    ("steps", OtherSteps),
    ("fixed", Counting),
    ("fixed", ShiftingItsInput),
    ("state", StateElsewhere),
]


@planted(POTENTIAL_FAULTS)
def test_faults_of_potentials_are_found(law, kind):
    error = found(check_potential, kind())
    assert (error.subject, error.law) == (kind.__name__, law)


def test_a_potential_without_faults_passes():
    check_potential(Waves(), other=Waves(1))
    check_potential(Waves(), fields=torch.ones(2, 3), times=(0.5,), laws=["gradient"])


def test_messages_say_the_law_the_size_and_the_tolerance():
    error = found(check_potential, WrongLaplacian(), seed=3)
    inner = Waves().laplacian(torch.zeros(1, 3), 0.0).abs().item()
    assert 1e-5 * inner < error.size < 1e-2 and error.tolerance < 1e-11
    assert str(error).startswith(
        f'WrongLaplacian breaks the law "Laplacian": the Laplacian and the trace of the Hessian at t = 0 differ by '
        f"{error.size:.3g} (allowed: {error.tolerance:.3g})"
    )
    assert isinstance(error, AssertionError)
    moved = str(found(check_potential, ClaimedTranslations()))
    assert "g being a permutation that moves 3 of 3 sites" in moved
    assert "the parameter idle has no gradient at all" in str(found(check_potential, IdleParameter()))


def test_unknown_laws_are_refused():
    with pytest.raises(InvalidInput, match="no law 'laplacian': expected some of shapes, fixed, gradient, Laplacian"):
        check_potential(Waves(), laws=["laplacian"])


# --- convex functions


class _Bowl(Expansion):
    def __init__(self, owner, x):
        w = owner.weight.square() + 0.5
        self.value = (w * torch.cosh(x)).sum(1)
        self.gradient = w * torch.sinh(x)
        self.strength = w.min()
        self.curvature = w * torch.cosh(x)

    def product(self, vectors):
        return self.curvature * vectors

    def hessian(self):
        return self.curvature.diag_embed()


class Bowl(ConvexFunction):
    """F(x) = sum_i w_i cosh x_i, at least as curved as the smallest w."""

    expansion: type[_Bowl] = _Bowl

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.symmetry = (3,), Group((3,), flip=True)
        self.weight = nn.Parameter(torch.ones(3))

    def expand(self, x):
        return self.expansion(self, x)


def altered(name: str, **attributes) -> type[Bowl]:
    """A bowl with some results replaced by functions of its expansion."""

    class Altered(_Bowl):
        def __init__(self, owner, x):
            super().__init__(owner, x)
            for attribute, function in attributes.items():
                setattr(self, attribute, function(self, x))

    return type(name, (Bowl,), {"expansion": Altered})


class ClaimedPermutations(Bowl):
    def __init__(self):
        super().__init__()
        self.symmetry = Group((3,), translations=True)


class DrawnWithoutBuffer(Bowl):
    shift = 0.0

    def redraw(self, generator):
        self.shift = 1.0

    def expand(self, x):
        expansion = super().expand(x)
        expansion.value = expansion.value + self.shift
        return expansion


CONVEX_FAULTS = [
    ("shapes", altered("FlatValue", value=lambda e, x: e.value[:, None])),
    ("derivatives", altered("WrongGradient", gradient=lambda e, x: e.gradient + 1e-9)),
    ("derivatives", altered("WrongHessian", curvature=lambda e, x: 1.001 * e.curvature)),
    ("derivatives", altered("WrongProduct", product=lambda e, x: lambda v: e.curvature * v + 1e-9)),
    ("backward", altered("Detached", gradient=lambda e, x: e.gradient.detach())),
    ("convexity", altered("TooStrong", strength=lambda e, x: 20 * e.strength)),
    ("convexity", altered("Concave", strength=lambda e, x: -e.strength)),
    ("symmetry", ClaimedPermutations),
    ("float32", altered("Overflowing", value=lambda e, x: e.value + 0 * torch.exp(30 * x.detach().square()).sum(1))),
    ("batches", altered("SeenByOthers", gradient=lambda e, x: e.gradient * (1 + 1e-6 * (len(x) == 1)))),
    ("state", DrawnWithoutBuffer),
]


@planted(CONVEX_FAULTS)
def test_faults_of_convex_functions_are_found(law, kind):
    assert found(check_convex, kind()).law == law


def test_a_convex_function_without_faults_passes():
    check_convex(Bowl(), other=Bowl())


# --- transforms and flows


class Bend(Transform):
    """x = s (z + sinh z), inverted by Newton's method."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, z):
        slope = self.log_scale.exp() * (1 + torch.cosh(z))
        return self.log_scale.exp() * (z + torch.sinh(z)), slope.double().log().sum(1)

    def inverse(self, x):
        y = x * (-self.log_scale).exp()
        z = torch.asinh(y / 2)
        for _ in range(8):
            z = z - (z + torch.sinh(z) - y) / (1 + torch.cosh(z))
        return z, -self(z)[1]


class SingleLogdet(Bend):
    def forward(self, z):
        x, logdet = super().forward(z)
        return x, logdet.float()


class OtherMapWithCosts(Bend):
    def forward_with_cost(self, z, *, hjb=False):
        x, logdet, costs = super().forward_with_cost(z, hjb=hjb)
        return x + 1e-9, logdet, costs


class NotInvertible(Bend):
    def inverse(self, x):
        z, logdet = super().inverse(x)
        return z.abs(), logdet


class WrongLogdet(Bend):
    def forward(self, z):
        x, logdet = super().forward(z)
        return x, 1.001 * logdet


class LogdetsDoNotCancel(Bend):
    def inverse(self, x):
        z, logdet = super().inverse(x)
        return z, logdet + 1e-6


class GradientsThatAreNoNumbers(Bend):
    def forward(self, z):
        x, logdet = super().forward(z)
        return x + 0 * (self.log_scale - self.log_scale).sqrt(), logdet


class Unused(Bend):
    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(1))


class DetachedScale(Bend):
    def forward(self, z):
        x, logdet = super().forward(z)
        return x + (x.detach() - x) / 2, logdet


class MixedSamples(Bend):
    def forward(self, z):
        x, logdet = super().forward(z)
        return x + 1e-9 * (len(z) == 1), logdet


class Noisy(Bend):
    """Draws inside the map: nothing is fixed between draws."""

    def forward(self, z):
        x, logdet = super().forward(z)
        return x + 1e-14 * torch.rand_like(x), logdet


class Forgetful(Bend):
    shift = 0.0

    def redraw(self, generator):
        self.shift = float(torch.rand((), generator=generator))

    def forward(self, z):
        x, logdet = super().forward(z)
        return x + self.shift, logdet


TRANSFORM_FAULTS = [
    ("shapes", SingleLogdet),
    ("costs", OtherMapWithCosts),
    ("inverse", NotInvertible),
    ("log-determinant", WrongLogdet),
    ("cancel", LogdetsDoNotCancel),
    ("finite", GradientsThatAreNoNumbers),
    ("finite", Unused),
    ("backward", DetachedScale),
    ("symmetry", Bend),
    ("batches", MixedSamples),
    ("fixed", Noisy),
    ("state", Forgetful),
]


@planted(TRANSFORM_FAULTS)
def test_faults_of_transforms_are_found(law, kind):
    """The sound one does not commute with the group that it is asked to, after its scales have been moved."""
    swaps = Group((2,), translations=True) if kind is Bend else None
    laws = [name for name in TRANSFORM_LAWS if (law, name) != ("backward", "log-determinant")]
    error = found(check_transform, kind(), (2,), symmetry=swaps, laws=laws)
    assert (error.subject, error.law) == (kind.__name__, law)


def test_a_transform_without_faults_passes():
    check_transform(Bend(), (2,), symmetry=Group((2,), flip=True), other=Bend())
    check_flow(Flow((2,), [Bend()]), Group((2,), flip=True))
    check_transform(ActNorm((2,)).eval(), points=torch.ones(3, 2))


def test_errors_of_method_are_allowed_where_they_are_told():
    class Rough(Bend):
        def inverse(self, x):
            z, logdet = super().inverse(x)
            return z + 1e-4, logdet

    assert found(check_transform, Rough(), (2,)).size == pytest.approx(1e-4)
    check_transform(Rough(), (2,), tolerance=1e-3)


class GlobalNoise(Flow):
    def noise(self, n, generator=None):
        return super().noise(n)


class Heavy(Flow):
    """Half of its density is missing."""

    def base_log_prob(self, z):
        return super().base_log_prob(z) - math.log(2)


class OtherLogProb(Flow):
    def log_prob(self, x):
        return super().log_prob(x) + 1e-3


FLOW_FAULTS = [
    ("samples", GlobalNoise),
    ("density", OtherLogProb),
    ("symmetry", Flow),
    ("normalisation", Heavy),
]


@planted(FLOW_FAULTS)
def test_faults_of_flows_are_found(law, kind):
    laws = [name for name in FLOW_LAWS if (law, name) != ("normalisation", "density")]
    swaps = Group((2,), translations=True) if kind is Flow else None
    error = found(check_flow, kind((2,), [Bend()]), swaps, laws=laws)
    assert error.law == law
    if kind is Heavy:
        assert error.size == pytest.approx(0.5, abs=0.01)


# --- targets


class Quartic(Target):
    """E = sum_i [x_i^2 / 2 + x_i^4 / 4], with a force of its own and the best that is known of its start."""

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.symmetry = (2,), Group((2,), translations=True, flip=True)

    def energy(self, field):
        return (field.square() / 2 + field.pow(4) / 4).sum(-1)

    def force(self, field):
        return -field - field.pow(3)

    def exact_free_energy(self):
        grid = torch.linspace(-8, 8, 20001, dtype=torch.float64)
        return -2 * math.log(torch.trapezoid(torch.exp(-(grid**2) / 2 - grid**4 / 4), grid)), "quadrature"

    def reference(self, samples, *, chains, seed):
        """Rejection of normal noise, which is exact; states are signs and magnitudes."""
        noise = torch.randn(20 * samples * chains, dtype=torch.float64, generator=generator(seed))
        uniform = torch.rand(noise.shape, dtype=torch.float64, generator=generator(seed + 1))
        kept = noise[uniform < torch.exp(-noise.pow(4) / 4)]
        return kept[: 2 * samples * chains].view(chains, samples, 2)

    def sample_field(self, states, generator=None):
        return states

    def draw(self, field, generator=None):
        return {"magnitudes": field.abs() * (2 * torch.randint(2, field.shape, generator=generator) - 1)}

    def sweep(self, field, generator=None):
        return field * (2 * torch.randint(2, field.shape, generator=generator) - 1)


class TiltedQuartic(Quartic):
    def energy(self, field):
        return super().energy(field) + field.sum(-1)


class WrongForce(Quartic):
    def force(self, field):
        return -field - 1.1 * field.pow(3)


class WrongStart(Quartic):
    def start(self):
        return Start(field=[WrongLogdet()])


class WrongFreeEnergy(Quartic):
    def exact_free_energy(self):
        return super().exact_free_energy()[0] - 0.3, "hope"


class WrongReference(Quartic):
    def sample_field(self, states, generator=None):
        return 1.2 * states


class WrongSweep(Quartic):
    def sweep(self, field, generator=None):
        return field + 0.3 * torch.randn(field.shape, dtype=field.dtype, generator=generator)


class MovesAway(Quartic):
    def reversible_sweep(self, field, generator=None):
        return WrongSweep.sweep(self, field, generator)


class QuarterTurns(Quartic):
    """The target is invariant, and yet there is a way round."""

    def reversible_sweep(self, field, generator=None):
        return torch.stack([-field[:, 1], field[:, 0]], 1)


class WithoutGenerator(Quartic):
    def reversible_sweep(self, field, generator=None):
        return super().sweep(field)


class Correlated(Target):
    """A Gaussian of three numbers that all know each other, one drawn after the other."""

    shape = (3,)
    precision = torch.eye(3, dtype=torch.float64) + 1.0
    places = (0, 1, 2)

    def energy(self, field):
        return (field @ self.precision.to(field) * field).sum(-1) / 2

    def reference(self, samples, *, chains, seed):
        noise = torch.randn(chains, samples, 3, dtype=torch.float64, generator=generator(seed))
        return noise @ torch.linalg.cholesky(self.precision.inverse()).T

    def sample_field(self, states, generator=None):
        return states

    def reversible_sweep(self, field, generator=None):
        field = field.clone()
        for place in self.places:
            noise = torch.randn(len(field), dtype=field.dtype, generator=generator)
            others = field.sum(1) - field[:, place]
            field[:, place] = -others / 2 + noise / math.sqrt(2)
        return field


class ThereAndBack(Correlated):
    places = (0, 1, 2, 1, 0)


class WrongDraw(Quartic):
    def draw(self, field, generator=None):
        return {"magnitudes": 1.3 * super().draw(field, generator)["magnitudes"]}


class DrawsWithoutGenerator(Quartic):
    def draw(self, field, generator=None):
        return super().draw(field)


TARGET_FAULTS = [
    ("energy", TiltedQuartic),
    ("force", WrongForce),
    ("start", WrongStart),
    ("free energy", WrongFreeEnergy),
    ("reference", WrongReference),
    ("sweep", WrongSweep),
    ("reversible sweep", MovesAway),
    ("reversible sweep", QuarterTurns),
    ("reversible sweep", WithoutGenerator),
    ("reversible sweep", Correlated),
    ("draw", WrongDraw),
    ("draw", DrawsWithoutGenerator),
]


@planted(TARGET_FAULTS)
def test_faults_of_targets_are_found(law, kind):
    error = found(check_target, kind())
    assert (error.subject, error.law) == (kind.__name__, law)


def test_targets_without_faults_pass():
    check_target(Quartic())
    check_target(ThereAndBack())
    check_target(HubbardStratonovich(square(3), 0.3))


def test_anything_with_a_shape_and_an_energy_can_be_checked():
    class Plain:
        shape = (3,)

        def energy(self, field):
            return field.square().sum(-1)

    check_target(Plain())
    assert "a object is not a target" in str(found(check_target, object()))


# --- samplers


class Normal(Target):
    """A Gaussian of standard deviations 1 and 1/2."""

    shape = (2,)

    def energy(self, field):
        return (field * field.new_tensor([1.0, 2.0])).square().sum(-1) / 2


def exact_samples(n: int) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=generator(5)) / torch.tensor([1.0, 2.0]).double()


@dataclasses.dataclass(frozen=True)
class Walker:
    position: Tensor
    energy: Tensor
    accepted: Tensor

    @property
    def field(self) -> Tensor:
        return self.position


class Metropolis:
    """A random walk, accepted with min(1, exp(-change of E)); the state holds all there is."""

    def __init__(self) -> None:
        self.target = Normal()

    def init(self, position):
        return Walker(position, self.target.energy(position), torch.zeros(len(position), dtype=torch.int64))

    def propose(self, position, generator):
        return position + torch.randn(position.shape, dtype=position.dtype, generator=generator)

    def chance(self, change):
        return torch.exp(-change)

    def step(self, state, generator):
        proposed = self.propose(state.position, generator)
        energy = self.target.energy(proposed)
        uniform = torch.rand(len(proposed), dtype=torch.float64, generator=generator)
        moved = uniform < self.chance(energy - state.energy)
        position = torch.where(moved[:, None], proposed, state.position)
        return Walker(position, torch.where(moved, energy, state.energy), state.accepted + moved), moved

    def facts(self, state):
        return {"accepted": int(state.accepted.sum())}


class IntegersForMoved(Metropolis):
    def step(self, state, generator):
        state, moved = super().step(state, generator)
        return state, moved.long()


class StepsInPlace(Metropolis):
    def step(self, state, generator):
        after, moved = super().step(state, generator)
        state.accepted.add_(1)
        return after, moved


class RemembersItsSteps(Metropolis):
    scale = 1.0

    def propose(self, position, generator):
        self.scale *= 0.999
        return position + self.scale * (super().propose(position, generator) - position)


class IgnoresItsGenerator(Metropolis):
    def propose(self, position, generator):
        return position + torch.randn(position.shape, dtype=position.dtype, generator=globals()["generator"](3))

    def step(self, state, generator):
        return super().step(state, globals()["generator"](4))


class SaysItMoved(Metropolis):
    def step(self, state, generator):
        state, moved = super().step(state, generator)
        return state, torch.ones_like(moved)


class Stuck(Metropolis):
    def chance(self, change):
        return torch.zeros_like(change)

    def step(self, state, generator):
        state, moved = super().step(state, generator)
        state.position.add_(0.0)
        return dataclasses.replace(state, energy=state.energy + torch.rand(1, generator=generator)), moved


@dataclasses.dataclass(frozen=True)
class Numbered(Walker):
    """A number that counts steps is no tensor, and a new one starts where states are rebuilt."""

    steps: int = dataclasses.field(default=0, init=False)


class StateBesideTheTensors(Metropolis):
    def init(self, position):
        return Numbered(**vars(super().init(position)))

    def step(self, state, generator):
        after, moved = super().step(state, generator)
        after = Numbered(after.position + 1e-9 * state.steps * moved[:, None], after.energy, after.accepted)
        object.__setattr__(after, "steps", state.steps + 1)
        return after, moved


class FactsWithTensors(Metropolis):
    def facts(self, state):
        return {"accepted": state.accepted}


class AcceptsTooMuch(Metropolis):
    """At twice the temperature."""

    def chance(self, change):
        return torch.exp(-change / 2)


class DriftsAway(Metropolis):
    """A proposal that is not symmetric, without its correction."""

    def propose(self, position, generator):
        return super().propose(position, generator) + 0.2


SAMPLER_FAULTS = [
    ("shapes", IntegersForMoved),
    ("pure", StepsInPlace),
    ("pure", RemembersItsSteps),
    ("seeds", IgnoresItsGenerator),
    ("moves", SaysItMoved),
    ("moves", Stuck),
    ("state", StateBesideTheTensors),
    ("facts", FactsWithTensors),
    ("invariance", AcceptsTooMuch),
    ("invariance", DriftsAway),
]


@planted(SAMPLER_FAULTS)
def test_faults_of_samplers_are_found(law, kind):
    laws = [name for name in SAMPLER_LAWS if (kind, name) != (Stuck, "seeds")]
    error = found(check_sampler, kind, Normal(), exact_samples(2000), laws=laws)
    assert (error.subject, error.law) == (kind.__name__, law)


def test_a_sampler_without_faults_passes():
    check_sampler(Metropolis, Normal(), exact_samples(4000))


def test_samples_of_another_density_are_no_place_to_start():
    error = found(check_sampler, Metropolis, Normal(), 2 * exact_samples(2000))
    assert error.law == "invariance" and "for the positions given" in str(error)


# --- every law is tried


@pytest.mark.parametrize(
    ("faults", "laws"),
    [
        (POTENTIAL_FAULTS, POTENTIAL_LAWS),
        (CONVEX_FAULTS, CONVEX_LAWS),
        (TRANSFORM_FAULTS, TRANSFORM_LAWS),
        (TRANSFORM_FAULTS + FLOW_FAULTS, FLOW_LAWS | TRANSFORM_LAWS),
        (TARGET_FAULTS, TARGET_LAWS),
        (SAMPLER_FAULTS, SAMPLER_LAWS),
    ],
    ids=["potentials", "convex functions", "transforms", "flows", "targets", "samplers"],
)
def test_every_law_has_a_fault_that_breaks_it(faults, laws):
    assert {law for law, _ in faults} == set(laws)
