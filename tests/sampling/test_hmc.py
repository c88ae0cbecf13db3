"""Hamiltonian Monte Carlo: laws of the motion, its adaptation, and the force in either space."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from sampling_cases import generator, magnet, randn, random_flow, wrong_gaussian

from isingflow.exact import moments, thermodynamics
from isingflow.flows import Flow, SpectralScaling
from isingflow.lattice import edwards_anderson, square
from isingflow.lattice.symmetry import Group, square_torus_group
from isingflow.observables import measure, per_sample
from isingflow.potentials import DensePotential, LatticePotential, group_average
from isingflow.sampling import BlockGibbs, latent, physical, run_chains
from isingflow.sampling.hmc import kinetic
from isingflow.statistics.mixing import Mixing
from isingflow.targets.base import Target

MOTIONS = {
    "physical": lambda target: physical(target, dtype=torch.float64),
    "latent": lambda target: latent(random_flow(target).double(), target, guided=True),
}
every_motion = pytest.mark.parametrize("make", MOTIONS.values(), ids=MOTIONS)


# --- laws of the motion, float64


@every_motion
def test_motion_is_reversible(make):
    sampler = make(magnet(0.44))
    start, momentum = sampler.init(randn(5, 4, 4)), randn(5, 4, 4, seed=1)
    end, final = sampler.integrate(start, momentum, 20, 0.1)
    assert (end.position - start.position).norm() > 1
    back, returned = sampler.integrate(end, -final, 20, 0.1)
    torch.testing.assert_close(back.position, start.position, rtol=0, atol=1e-6)
    torch.testing.assert_close(-returned, momentum, rtol=0, atol=1e-6)


@every_motion
def test_motion_preserves_volume(make):
    lattice = square(2, 3)
    sampler = make(magnet(0.4, lattice))
    dimension, h = 2 * lattice.sites, 1e-5
    point = randn(dimension)
    points = torch.cat([point + h * torch.eye(dimension), point - h * torch.eye(dimension)]).double()
    position, momentum = points.view(2 * dimension, 2, *lattice.shape).unbind(1)
    end, final = sampler.integrate(sampler.init(position), momentum, 5, 0.3)
    ahead, behind = torch.stack([end.position, final], 1).view(2, dimension, dimension)
    assert abs(float(torch.linalg.det((ahead - behind) / (2 * h)))) == pytest.approx(1, abs=1e-6)


@every_motion
def test_energy_error_falls_as_the_square_of_the_step(make):
    sampler = make(magnet(0.44))
    start, momentum = sampler.init(randn(64, 4, 4)), randn(64, 4, 4, seed=1)
    before, errors = start.energy + kinetic(momentum), []
    for steps in (16, 32, 64):
        end, final = sampler.integrate(start, momentum, steps, 1.0 / steps)
        errors.append(float((end.energy + kinetic(final) - before).square().mean().sqrt()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(("motion", "step"), [("physical", 0.8), ("latent", 0.25)])
def test_mean_of_exponential_energy_errors_is_one_in_equilibrium(motion, step):
    """From exact samples: x drawn from p(x | s), s from the Boltzmann weights of all states."""
    target = magnet(0.3, square(2, 3))
    sampler = MOTIONS[motion](target)
    n = 8192
    states = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 6).view(-1, 2, 3)
    couplings = torch.from_numpy(target.lattice.couplings(0.3))
    weights = torch.exp(torch.einsum("si,ij,sj->s", states.flatten(1), couplings, states.flatten(1)) / 2)
    field = target.sample_field(states[torch.multinomial(weights, n, True, generator=generator(2))], generator(3))
    if motion == "latent":
        sampler.flow.transforms[1].steps = 8
        transform = sampler.flow
    else:
        transform = SpectralScaling(sampler.basis, sampler.variances.sqrt())
    start, momentum = sampler.init(transform.inverse(field)[0]), randn(n, 2, 3, seed=4)
    torch.testing.assert_close(start.field, field, rtol=0, atol=1e-3)
    end, final = sampler.integrate(start, momentum, 2, step)
    change = end.energy + kinetic(final) - start.energy - kinetic(momentum)
    assert 0.1 < change.std() < 1
    values = torch.exp(-change)
    assert abs(values.mean() - 1) < 3 * values.std() / math.sqrt(n)


@every_motion
def test_small_steps_are_always_accepted(make):
    sampler, source = replace(make(magnet(0.44)), length=0.5, chances=1), generator(1)
    state = sampler.init(randn(64, 4, 4))
    rates = []
    for step_size in (0.5, 0.1, 0.01):
        momentum = randn(64, 4, 4, seed=1)
        end, final = sampler.integrate(state, momentum, round(0.5 / step_size), step_size)
        change = end.energy + kinetic(final) - state.energy - kinetic(momentum)
        rates.append(float(torch.exp(-change).clamp(max=1).mean()))
    assert rates == sorted(rates) and rates[-1] > 0.999
    assert bool(sampler.step(state.having(step_size=0.01), source)[1].all())


@pytest.mark.parametrize(
    "target", [magnet(0.44), magnet(0.5, edwards_anderson(3, seed=1))], ids=["torus", "glass in its own basis"]
)
def test_forces_in_physical_space_are_gradients(target):
    sampler = physical(target, dtype=torch.float64)
    z = randn(6, *target.shape)
    state = sampler.init(z)
    z.requires_grad_()
    field, logdet = SpectralScaling(sampler.basis, sampler.variances.sqrt())(z)
    energy = target.energy(field) - logdet
    (gradient,) = torch.autograd.grad(energy.sum(), z)
    torch.testing.assert_close(state.field, field.detach(), rtol=0, atol=0)
    torch.testing.assert_close(state.energy, energy.detach(), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(state.force, (z - gradient).detach(), rtol=1e-11, atol=1e-11)


def test_forces_in_latent_space_are_differences_of_the_energy():
    sampler = MOTIONS["latent"](magnet(0.44))
    z, direction, h = randn(6, 4, 4), randn(6, 4, 4, seed=1), 1e-5
    slope = (sampler.init(z + h * direction).energy - sampler.init(z - h * direction).energy) / (2 * h)
    expected = ((z - sampler.init(z).force) * direction).sum((1, 2))
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LatticePotential(square_torus_group(4, 4), radial=2, oriented=1, hidden=5, generator=generator()),
        lambda: DensePotential((4, 4), 6, generator=generator()),
        lambda: DensePotential((4, 4), 6, activation="softplus", generator=generator()),
        lambda: group_average(DensePotential((4, 4), 3, generator=generator()), square_torus_group(4, 4)),
    ],
    ids=["lattice", "dense lncosh", "dense softplus", "average"],
)
def test_gradients_by_the_field_alone_are_those_with_parameters(make):
    """Backward passes leave out what frozen parameters do not ask for."""
    potential = make().double()
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator(1)))
    found = []
    for trained in (True, False):
        potential.requires_grad_(trained)
        x = randn(3, 4, 4).requires_grad_()
        gradient, laplacian = potential.bind()(x, 0.3)
        found.append(torch.autograd.grad((gradient * randn(3, 4, 4, seed=2)).sum() + laplacian.sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


# --- adaptation, chances, sweeps


def test_free_turns_that_are_refused_are_given_up():
    """A Gaussian twenty times too wide in 16 dimensions: hardly a turn is accepted, and gradients must help."""
    target = magnet(0.3)
    flow = Flow((4, 4), [SpectralScaling(target.basis, 20 * target.eigenvalues.sqrt())])
    sampler = latent(flow, target)
    chains = run_chains(sampler, samples=100, chains=64, warm_up=120, seed=1)
    assert chains.facts["guided"] and chains.state["chances"] == 1 and chains.facts["step_size"] < 1
    assert chains.acceptance.mean() == pytest.approx(0.8, abs=0.1)
    found = measure(target.lattice, 0.3, field=chains.field).energy_per_site
    assert abs(found.value - thermodynamics(target.lattice, 0.3).energy_per_site) < 4 * found.stderr < 0.1


def test_extra_chances_move_more_chains_to_the_same_density():
    target, found = magnet(0.3), {}
    for chances in (1, 4):
        sampler = latent(wrong_gaussian(target), target, chances=chances)
        chains = run_chains(sampler, samples=250, chains=64, warm_up=30, seed=2)
        found[chances] = chains.acceptance.mean(), Mixing.of(measured(chains).magnetisation_squared).mean
        swept = 64 * 250
        assert chains.facts["evaluations"] >= 64 * 250 + swept
        assert chances > 1 or chains.facts["evaluations"] == 64 * 250 + swept
    (once, first), (often, second) = found.values()
    assert often > once + 0.2
    exact = moments(target.lattice, 0.3).magnetisation_squared
    assert abs(first.value - exact) < 4 * first.stderr and abs(second.value - exact) < 4 * second.stderr


def measured(chains):
    return per_sample(chains.lattice, field=chains.field)


def test_step_sizes_are_adapted_to_the_acceptance_asked_for():
    for acceptance in (0.5, 0.9):
        sampler = physical(magnet(0.44), acceptance=acceptance)
        chains = run_chains(sampler, samples=60, chains=64, warm_up=160, seed=1)
        assert chains.acceptance.mean() == pytest.approx(acceptance, abs=0.06)
        assert chains.facts["divergences"] < 5


def test_divergences_are_counted_after_the_warm_up_and_refused():
    sampler = physical(magnet(0.44), length=500.0)
    state = sampler.init(randn(16, 4, 4)).having(step_size=500.0)
    end, moved = sampler.step(state, generator(1))
    assert end.divergences == 16 and not moved.any()
    torch.testing.assert_close(end.position, state.position, rtol=0, atol=0)
    ended = sampler.adapt(end, moved, done=8, total=8)
    assert ended.divergences == ended.evaluations == 0


def test_a_sweep_is_a_step_of_block_gibbs_seen_from_latent_space():
    target = magnet(0.4)
    sampler = latent(wrong_gaussian(target), target)
    state = sampler.init(torch.randn(50, *target.shape, generator=torch.Generator().manual_seed(0)))
    swept = sampler.sweep(state, torch.Generator().manual_seed(1))
    expected, _ = BlockGibbs(target).step(BlockGibbs(target).init(state.field), torch.Generator().manual_seed(1))
    torch.testing.assert_close(swept.field, expected.field)
    again = sampler.init(swept.position)
    torch.testing.assert_close(swept.field, again.field, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(swept.energy, again.energy, rtol=1e-4, atol=1e-4)


def test_a_sweep_of_guided_trajectories_knows_the_force():
    target = magnet(0.4)
    sampler = latent(wrong_gaussian(target), target, guided=True)
    state = sampler.init(torch.randn(50, *target.shape, generator=torch.Generator().manual_seed(0)))
    swept = sampler.sweep(state, torch.Generator().manual_seed(1))
    torch.testing.assert_close(swept.force, sampler.init(swept.position).force)
    assert swept.evaluations == 100


class Spring(Target):
    """Independent Gaussians of given means and widths, without any symmetry."""

    def __init__(self, means, widths):
        super().__init__()
        self.register_buffer("means", torch.tensor(means, dtype=torch.float64))
        self.register_buffer("widths", torch.tensor(widths, dtype=torch.float64))
        self.shape = tuple(self.means.shape)

    def energy(self, field):
        return (((field - self.means) / self.widths) ** 2 / 2).sum(-1)


def test_masses_of_any_target_are_its_variances_site_by_site():
    """Of a target whose fields are far from zero: the mean is no part of the variance."""
    target = Spring([30.0, 0.0, -5.0], [0.1, 1.0, 10.0])
    chains = run_chains(physical(target), samples=60, chains=64, warm_up=400)
    torch.testing.assert_close(chains.state["variances"].sqrt(), target.widths, rtol=0.05, atol=0)
    found = Mixing.of(chains.field[..., 2])
    assert abs(found.mean.value + 5) < 4 * found.mean.stderr and found.tau < 2


def test_masses_follow_the_symmetry():
    """Plane waves on a torus that has no basis of its own; one value for sites that a symmetry makes equal."""

    class Torus(Target):
        shape, symmetry = (4, 4), square_torus_group(4, 4)

        def energy(self, field):
            neighbours = field.roll(1, -1) + field.roll(1, -2)
            return (field**2 + field**4 / 4 - 0.4 * field * neighbours).sum((-2, -1))

    class Row(Torus):
        shape, symmetry = (4,), Group((4,), translations=True, flip=True)

        def energy(self, field):
            return (field**2 - 0.4 * field * field.roll(1, -1)).sum(-1)

    momenta = run_chains(physical(Torus()), samples=2, chains=64, warm_up=200).state["variances"]
    assert momenta[0, 0] > 1.5 * momenta[2, 2]
    assert momenta[0, 1] == momenta[1, 0] == momenta[3, 0]
    sites = run_chains(physical(Row()), samples=2, chains=64, warm_up=200).state["variances"]
    assert len(sites.unique()) == 1
