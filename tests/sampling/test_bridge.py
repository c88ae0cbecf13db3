"""Annealing between a flow and its target: exact densities, exact Z, both bounds, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_cases import Wells, generator, magnet, random_flow, wrong_gaussian
from scipy.integrate import quad

from isingflow.flows import Flow
from isingflow.lattice import edwards_anderson, random_field, square
from isingflow.sampling.bridge import Bridge, Plan, Points
from isingflow.statistics.free_energy import (
    acceptance_ratio_free_energy,
    lower_bound,
    reweighted_free_energy,
    variational_free_energy,
)
from isingflow.targets import Phi4
from isingflow.targets.base import Reversible


class Unmoved(torch.nn.Module):
    """A magnet without a move of its own."""

    def __init__(self, target):
        super().__init__()
        self.shape, self.symmetry, self.energy = target.shape, target.symmetry, target.energy


BRIDGES = {
    "turns": lambda: (wrong_gaussian(magnet(0.4)), Unmoved(magnet(0.4))),
    "turns and clusters": lambda: (wrong_gaussian(magnet(0.4)), magnet(0.4)),
    "a flow that is integrated": lambda: (random_flow(magnet(0.4)), magnet(0.4)),
    "turns and Gibbs, glass": lambda: (start_of(glass := magnet(0.4, edwards_anderson(4, seed=1))), glass),
    "a field": lambda: (start_of(tilted := magnet(0.4, square(4).with_field(0.2))), tilted),
    "a random field": lambda: (start_of(tilted := magnet(0.3, random_field(square(4), 0.5, seed=2))), tilted),
}
every_bridge = pytest.mark.parametrize("make", BRIDGES.values(), ids=BRIDGES)


def start_of(target):
    """The Gaussian that flows start from."""
    return Flow(target.shape, [*target.start().latent, *target.start().field])


def fields(target, count, seed=3):
    """Samples of a magnet, along 40 chains one after the other."""
    target = target if hasattr(target, "reference") else magnet(0.4)
    spins = target.reference(count // 40, chains=40, seed=seed)
    return target.sample_field(spins.float(), generator(seed)).flatten(0, 1)


def both_ways(make, steps, paths=400):
    """ln W of paths of either direction, and the exact -ln Z."""
    flow, target = make()
    bridge, source = Bridge(flow, target), generator(5)
    plan = bridge.plan(steps, bridge.at(flow.noise(520, source)), bridge.of_fields(fields(target, 520, 4)), source)
    forward = bridge.forward(bridge.at(flow.noise(paths, source)), plan, source).log_weight.numpy()
    backward = bridge.backward(bridge.of_fields(fields(target, paths)), plan, source).log_weight.numpy()
    exact = (target if hasattr(target, "exact_free_energy") else magnet(0.4)).exact_free_energy()[0]
    return forward, backward, exact


@every_bridge
def test_both_ways_meet_the_exact_free_energy(make):
    forward, backward, exact = both_ways(make, 6)
    above, below = variational_free_energy(forward), lower_bound(backward)
    assert above.value > exact - 4 * above.stderr
    assert below.value < exact + 4 * below.stderr
    for estimate in (reweighted_free_energy(forward), acceptance_ratio_free_energy(forward, backward)):
        assert abs(estimate.value - exact) < 4 * estimate.stderr + 1e-3


@every_bridge
def test_more_steps_close_both_bounds(make):
    widths = []
    for steps in (1, 8):
        forward, backward, _ = both_ways(make, steps)
        widths.append(variational_free_energy(forward).value - lower_bound(backward).value)
    assert 0 < widths[1] < 0.7 * widths[0]


@every_bridge
def test_the_two_directions_obey_crooks(make):
    # p_F(w) exp(w) = p_R(w) Z: for every f, E_F[f(w) / (1 + 1/e)] = E_R[f(w) / (1 + e)] with e = exp(w) / Z.
    forward, backward, exact = both_ways(make, 4, paths=800)
    for f in (np.tanh, lambda w: np.exp(-(w**2))):
        one = f(forward + exact) / (1 + np.exp(-(forward + exact)))
        other = f(backward + exact) / (1 + np.exp(backward + exact))
        error = math.hypot(one.std() / math.sqrt(one.size), other.std() / math.sqrt(other.size))
        assert abs(one.mean() - other.mean()) < 4 * error


def test_one_step_is_what_there_is_without_a_bridge():
    flow, target = random_flow(magnet(0.3)), magnet(0.3)
    bridge, latent = Bridge(flow, target), flow.noise(20, generator())
    path = bridge.forward(bridge.at(latent), Plan.even(1), generator())
    field, logdet = flow(latent)
    weights = -target.energy(field.double()) - flow.base_log_prob(latent) + logdet
    back = bridge.backward(bridge.at(latent), Plan.even(1), generator())
    for found in (path, back):
        assert torch.allclose(found.log_weight, weights, rtol=1e-12)


@pytest.mark.parametrize("kernel", ["_turn", "_move"])
@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_kernels_leave_the_densities_between_invariant(kernel, strength):
    # A pair of spins, whose field has two numbers: averages over pi_b by a grid, before and after a kernel.
    target = magnet(0.5, square(2))
    flow = wrong_gaussian(target)
    bridge, source = Bridge(flow, target), generator(7)
    pool = bridge.at(flow.noise(60_000, source))
    weights = (-strength * pool.excess).softmax(0)
    start = pool.take(weights.multinomial(20_000, replacement=True, generator=source))
    end, accepted = getattr(bridge, kernel)(start, strength, 1.0, source)
    assert 0.05 < accepted < 1
    for name, measured in {
        "d": lambda p: p.excess,
        "m^2": lambda p: p.field.flatten(1).mean(1).square(),
        "z": lambda p: p.latent.flatten(1)[:, 0].square(),
    }.items():
        before = float((weights * measured(pool)).sum())
        spread = measured(end).double()
        # The resampled start repeats some points of the pool: its own scatter counts twice.
        error = 2 * float(spread.std()) / math.sqrt(len(spread))
        assert abs(float(spread.mean()) - before) < 4 * error, name


@pytest.mark.parametrize("lattice", [square(3), square(3).with_field(0.3), edwards_anderson(3, seed=0)])
def test_reversible_sweeps_keep_detailed_balance(lattice):
    # E[f(x) g(x')] = E[g(x) f(x')] for all f, g.
    target = magnet(0.4, lattice)
    assert isinstance(target, Reversible)
    before = fields(target, 8000)
    after = target.reversible_sweep(before, generator(1))
    f, g = (lambda x: x.flatten(1)[:, 0] ** 2), (lambda x: target.energy(x).tanh())
    odd = (f(before) * g(after) - g(before) * f(after)).double().view(40, -1).mean(1)
    assert abs(float(odd.mean())) < 4 * float(odd.std()) / math.sqrt(len(odd))


def test_targets_without_spins_have_bridges_of_turns():
    target = Wells()
    flow, source = Flow(target.shape, []), generator(2)
    bridge = Bridge(flow, target)
    plan = bridge.plan(12, bridge.at(flow.noise(500, source)), None, source)
    found = reweighted_free_energy(bridge.forward(bridge.at(flow.noise(4000, source)), plan, source).log_weight)
    one = quad(lambda x: math.exp(-float(target.energy(torch.tensor([[x]]).expand(1, 1))[0])), -6, 6)[0]
    assert abs(found.value + target.sites * math.log(one)) < 4 * found.stderr
    lattice_field = Phi4(4, mass_squared=-1.0, coupling=1.0)
    bridge = Bridge(start_of(lattice_field), lattice_field)
    assert bridge.forward(bridge.at(flow_noise(lattice_field)), Plan.even(3), source).log_weight.isfinite().all()


def flow_noise(target):
    return torch.randn(8, *target.shape, generator=generator())


@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 40), seed=st.integers(0, 100), scale=st.floats(0.1, 30))
def test_plans_lead_from_one_end_to_the_other(steps, seed, scale):
    target = magnet(0.4)
    flow = wrong_gaussian(target)
    bridge = Bridge(flow, target)
    points = bridge.at(flow.noise(100, generator(seed)))
    plan = bridge.plan(steps, Points(points.latent, points.field, scale * points.excess), None, generator(seed))
    assert plan.steps == steps
    assert (plan.strengths[0], plan.strengths[-1]) == (0.0, 1.0)
    assert all(np.diff(plan.strengths) > 0)
    assert len(plan.angles) == steps - 1
    assert all(0 < angle <= math.pi / 2 for angle in plan.angles)


def test_a_flow_without_error_has_paths_of_equal_weight():
    # A Gaussian target and the flow that is it: d is constant, and every W is Z.
    class Gaussian(Wells):
        def energy(self, field):
            return field.square().sum(-1) / 2

    target, source = Gaussian(), generator()
    flow = Flow(target.shape, [])
    bridge = Bridge(flow, target)
    start = bridge.at(flow.noise(50, source))
    path = bridge.forward(start, bridge.plan(5, start, start, source), source)
    exact = target.sites * math.log(2 * math.pi) / 2
    assert torch.allclose(path.log_weight, torch.full_like(path.log_weight, exact))
    assert (path.turned == 1).all()


def test_fields_that_overflow_are_turned_down():
    flow, target = wrong_gaussian(magnet(0.3)), magnet(0.3)
    bridge = Bridge(flow, target)
    start = bridge.at(flow.noise(4, generator()))
    broken = Points(start.latent, start.field, torch.tensor([math.inf, *start.excess[1:]], dtype=torch.float64))
    path = bridge.forward(broken, Plan.even(3), generator())
    assert path.log_weight[0] == -math.inf
    assert path.log_weight[1:].isfinite().all()
