"""Chains of fields: laws of Hamiltonian motion, averages against exact ones, resumption, `isingflow hmc`."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from isingflow import cli
from isingflow.architectures.build import build_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.errors import FileError, InvalidInput
from isingflow.exact import moments, thermodynamics
from isingflow.flows import Flow, GradientFlow, SpectralScaling
from isingflow.lattice import edwards_anderson, from_graph, square
from isingflow.lattice.symmetry import square_torus_group
from isingflow.observables import measure, per_sample
from isingflow.plots import magnets as plots
from isingflow.potentials import DensePotential, LatticePotential, group_average
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runtime.files import ArrayWriter, read_arrays
from isingflow.runtime.parallel import Workers
from isingflow.sampling import BlockGibbs, Chains, FlowMetropolis, latent, physical, run_chains
from isingflow.sampling import chains as chains_module
from isingflow.sampling.files import check_disk
from isingflow.sampling.hmc import DualAveraging, kinetic
from isingflow.statistics.mixing import Mixing
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


@cache
def magnet(beta, lattice=None):
    return HubbardStratonovich(lattice or square(4), beta)


def wrong_gaussian(target):
    """A Gaussian 1.2 times too wide, which knows nothing of two magnetisations."""
    scales = 1.2 * (target.mean_field().variances * target.eigenvalues).sqrt()
    return Flow(target.shape, [SpectralScaling(target.basis, scales)])


def random_flow(target, strength=0.1):
    """The same, bent by a potential that nobody trained."""
    potential = LatticePotential(target.symmetry, radial=1, oriented=1, hidden=2, generator=generator())
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=generator(1)))
    flow = Flow(target.shape, [*wrong_gaussian(target).transforms, GradientFlow(potential, steps=2)])
    return flow.eval().requires_grad_(False)


def guided(target, flow=wrong_gaussian, **options):
    return latent(flow(target), target, guided=True, length=math.pi / 2, chances=1, **options)


SAMPLERS = {
    "physical": lambda target, flow=None: physical(target),
    "latent": lambda target, flow=wrong_gaussian: latent(flow(target), target),
    "latent, guided": guided,
    "flow as proposal": lambda target, flow=wrong_gaussian: FlowMetropolis(flow(target), target),
    "block Gibbs": lambda target, flow=None: BlockGibbs(target),
}
MOTIONS = {
    "physical": lambda target: physical(target, dtype=torch.float64),
    "latent": lambda target: latent(random_flow(target).double(), target, guided=True),
}
every_motion = pytest.mark.parametrize("make", MOTIONS.values(), ids=MOTIONS)
every_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)


# --- laws of the motion, float64


@every_motion
def test_motion_is_reversible(make):
    sampler = make(magnet(0.44))
    start, momentum = sampler.start(randn(5, 4, 4)), randn(5, 4, 4, seed=1)
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
    end, final = sampler.integrate(sampler.start(position), momentum, 5, 0.3)
    ahead, behind = torch.stack([end.position, final], 1).view(2, dimension, dimension)
    assert abs(float(torch.linalg.det((ahead - behind) / (2 * h)))) == pytest.approx(1, abs=1e-6)


@every_motion
def test_energy_error_falls_as_the_square_of_the_step(make):
    sampler = make(magnet(0.44))
    start, momentum = sampler.start(randn(64, 4, 4)), randn(64, 4, 4, seed=1)
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
    transform = sampler.transform
    if isinstance(transform, Flow):
        transform.transforms[1].steps = 8
    start, momentum = sampler.start(transform.inverse(field)[0]), randn(n, 2, 3, seed=4)
    torch.testing.assert_close(start.field, field, rtol=0, atol=1e-3)
    end, final = sampler.integrate(start, momentum, 2, step)
    change = end.energy + kinetic(final) - start.energy - kinetic(momentum)
    assert 0.1 < change.std() < 1
    values = torch.exp(-change)
    assert abs(values.mean() - 1) < 3 * values.std() / math.sqrt(n)


@every_motion
def test_small_steps_are_always_accepted(make):
    sampler, source = make(magnet(0.44)), generator(1)
    sampler.length, sampler.chances = 0.5, 1
    state = sampler.start(randn(64, 4, 4))
    rates = []
    for sampler.step_size in (0.5, 0.1, 0.01):
        momentum = randn(64, 4, 4, seed=1)
        end, final = sampler.integrate(state, momentum, round(0.5 / sampler.step_size), sampler.step_size)
        change = end.energy + kinetic(final) - state.energy - kinetic(momentum)
        rates.append(float(torch.exp(-change).clamp(max=1).mean()))
    assert rates == sorted(rates) and rates[-1] > 0.999
    assert bool(sampler.step(state, source)[1].all())


@pytest.mark.parametrize(
    "target", [magnet(0.44), magnet(0.5, edwards_anderson(3, seed=1))], ids=["torus", "glass in its own basis"]
)
def test_forces_in_physical_space_are_gradients(target):
    sampler = physical(target, dtype=torch.float64)
    z = randn(6, *target.shape)
    state = sampler.start(z)
    z.requires_grad_()
    field, logdet = sampler.transform(z)
    energy = target.energy(field) - logdet
    (gradient,) = torch.autograd.grad(energy.sum(), z)
    torch.testing.assert_close(state.field, field.detach(), rtol=0, atol=0)
    torch.testing.assert_close(state.energy, energy.detach(), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(state.force, (z - gradient).detach(), rtol=1e-11, atol=1e-11)


def test_forces_in_latent_space_are_differences_of_the_energy():
    sampler = MOTIONS["latent"](magnet(0.44))
    z, direction, h = randn(6, 4, 4), randn(6, 4, 4, seed=1), 1e-5
    slope = (sampler.start(z + h * direction).energy - sampler.start(z - h * direction).energy) / (2 * h)
    expected = ((z - sampler.start(z).force) * direction).sum((1, 2))
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


# --- what chains converge to


CASES = [(name, wrong_gaussian, beta) for name in SAMPLERS for beta in (0.2, 0.44, -0.3)]
CASES += [(name, random_flow, 0.2) for name in ("latent", "latent, guided", "flow as proposal")]


@pytest.mark.parametrize(("name", "flow", "beta"), CASES)
def test_averages_are_exact_whatever_the_flow(name, flow, beta):
    target = magnet(beta)
    samples, warm_up = (50, 40) if flow is random_flow or name in ("physical", "latent, guided") else (300, 150)
    chains = run_chains(SAMPLERS[name](target, flow), samples=samples, chains=128, warm_up=warm_up, seed=3)
    found = measure(target.lattice, beta, field=chains.field, spins=chains.spins)
    exact = thermodynamics(target.lattice, beta)
    magnetisation = moments(target.lattice, beta)
    assert abs(found.energy_per_site.value - exact.energy_per_site) < 4 * found.energy_per_site.stderr
    for quantity in ("magnetisation_squared", "magnetisation_fourth", "magnetisation_abs"):
        estimate = getattr(found, quantity)
        assert abs(estimate.value - getattr(magnetisation, quantity)) < 4 * estimate.stderr, quantity
    assert found.energy_per_site.stderr < 0.04


@pytest.mark.parametrize(
    "lattice", [edwards_anderson(4, seed=1), square(3, 4, boundary="open"), "graph"], ids=["glass", "open", "graph"]
)
def test_physical_space_of_any_lattice(lattice):
    if lattice == "graph":
        import networkx

        lattice = from_graph(networkx.petersen_graph())
    chains = run_chains(physical(magnet(0.4, lattice)), samples=150, chains=64, warm_up=80, seed=1)
    found = measure(lattice, 0.4, field=chains.field).energy_per_site
    assert abs(found.value - thermodynamics(lattice, 0.4).energy_per_site) < 4 * found.stderr < 0.1


def test_free_turns_that_are_refused_are_given_up():
    """A Gaussian twenty times too wide in 16 dimensions: hardly a turn is accepted, and gradients must help."""
    target = magnet(0.3)
    flow = Flow((4, 4), [SpectralScaling(target.basis, 20 * target.eigenvalues.sqrt())])
    sampler = latent(flow, target)
    chains = run_chains(sampler, samples=100, chains=64, warm_up=120, seed=1)
    assert sampler.guided and sampler.chances == 1 and sampler.step_size < 1
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
        assert sampler.evaluations >= 64 * 250 + swept
        assert chances > 1 or sampler.evaluations == 64 * 250 + swept
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
        assert sampler.divergences < 5


def test_divergences_are_counted_after_the_warm_up_and_refused():
    sampler = physical(magnet(0.44), length=500.0)
    sampler.step_size = 500.0
    state = sampler.start(randn(16, 4, 4))
    end, moved = sampler.step(state, generator(1))
    assert sampler.divergences == 16 and not moved.any()
    torch.testing.assert_close(end.position, state.position, rtol=0, atol=0)
    sampler.adapt(end, moved, done=8, total=8)
    assert sampler.divergences == sampler.evaluations == 0


def test_restored_adaptation_goes_on_as_before():
    first, second = DualAveraging(0.1, target=0.8), DualAveraging(0.7, target=0.8)
    for acceptance in (0.3, 0.9, 0.7):
        first.update(acceptance)
    second.restore(first.numbers())
    for adaptation in (first, second):
        adaptation.update(0.5)
    assert first.numbers() == second.numbers() and first.final == second.final


# --- stopping, saving, resuming


def same(left, right):
    for name in ("field", "spins", "acceptance"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert torch.equal(left.generator, right.generator)
    assert (left.lattice, left.beta, left.identity, left.steps) == (
        right.lattice,
        right.beta,
        right.identity,
        right.steps,
    )
    for tensors, others in ((left.state, right.state), (left.settings, right.settings)):
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


@every_sampler
@pytest.mark.parametrize("stops", [(20,), (2, 9, 15)], ids=str)
def test_chains_continue_bit_for_bit(make, stops, tmp_path):
    """However often they were interrupted, also in the warm-up, and saved to disk."""
    target, path = magnet(0.44), tmp_path / "chains.npz"
    options = {"chains": 6, "warm_up": 11, "every": 2, "seed": 5, "identity": {"run": {"beta": 0.44}}}
    whole, earlier = run_chains(make(target), samples=10, **options), None
    for stop in stops:
        seen = []
        partial = run_chains(
            make(target),
            samples=10,
            earlier=earlier,
            report_progress=lambda done, total, seen=seen: seen.append((done, total)),
            should_stop=lambda stop=stop, seen=seen: bool(seen) and seen[-1][0] == stop,
            **options,
        )
        assert seen[-1] == (stop, 31) and partial.steps == stop and partial.samples == max(0, stop - 11) // 2
        partial.save(path)
        earlier = Chains.read(path)
        same(earlier, partial)
    same(run_chains(make(target), samples=10, earlier=earlier, **options), whole)


def test_chains_grow_bit_for_bit(tmp_path):
    target = magnet(0.44)
    options = {"chains": 4, "warm_up": 8, "seed": 1}
    half = run_chains(physical(target), samples=10, **options)
    half.save(tmp_path / "chains.npz")
    longer = run_chains(physical(target), samples=20, earlier=Chains.read(tmp_path / "chains.npz"), **options)
    same(longer, run_chains(physical(target), samples=20, **options))
    again = run_chains(physical(target), samples=10, earlier=half, **options)
    same(again, half)
    with pytest.raises(InvalidInput, match="5 samples: the chains to continue have 10 of them already"):
        run_chains(physical(target), samples=5, earlier=half, **options)


def test_threads_share_the_chains():
    target = magnet(0.44)
    alone = run_chains(guided(target), samples=6, chains=7, warm_up=4)
    pool = Workers(2)
    shared = run_chains(guided(target, pool=pool), samples=6, chains=7, warm_up=4)
    pool.close()
    np.testing.assert_allclose(shared.field[:, 0], alone.field[:, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": {"run": {"beta": 0.5, "seed": 1}}}, "run.beta: 0.5 here, 0.44 there"),
        ({"identity": {"run": {"beta": 0.44}}}, "run.seed: absent here, 1 there"),
        ({"seed": 7}, "seed: 7 here, 5 there"),
        ({"warm_up": 3}, "warm_up: 3 here, 2 there"),
        ({"every": 4}, "every: 4 here, 1 there"),
        ({"chains": 4}, "chains: 4 here, 3 there"),
    ],
)
def test_chains_of_another_run_are_refused(change, message):
    target = magnet(0.44)
    options = {"chains": 3, "warm_up": 2, "seed": 5, "identity": {"run": {"beta": 0.44, "seed": 1}}}
    earlier = run_chains(BlockGibbs(target), samples=3, **options)
    with pytest.raises(InvalidInput, match="belong to another run and cannot be continued: " + message):
        run_chains(BlockGibbs(target), samples=6, earlier=earlier, **options | change)
    with pytest.raises(InvalidInput, match="sampler: FlowMetropolis here, BlockGibbs there"):
        run_chains(SAMPLERS["flow as proposal"](target), samples=6, earlier=earlier, **options)


@pytest.mark.parametrize("change", [{"samples": 0}, {"chains": 0}, {"every": 0}, {"warm_up": -1}, {"samples": -3}])
def test_counts_that_are_not_positive_are_refused(change):
    with pytest.raises(InvalidInput, match="expected positive numbers"):
        run_chains(BlockGibbs(magnet(0.44)), **{"samples": 2, "chains": 2} | change)


@pytest.mark.parametrize("options", [{"length": 0.0}, {"acceptance": 1.0}, {"chances": 0}, {"length": math.nan}])
def test_impossible_trajectories_are_refused(options):
    with pytest.raises(InvalidInput, match="expected a positive length"):
        physical(magnet(0.44), **options)


def test_more_than_memory_or_disk_hold_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InvalidInput, match=r"10000000000 samples of 64 chains on 16 sites take .* GB of memory"):
        run_chains(BlockGibbs(magnet(0.44)), samples=10**10, chains=64)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**24 + 10**6))
    check_disk(tmp_path / "a.npz", samples=10, chains=64, sites=16)
    with pytest.raises(FileError, match=r"1000 samples of 64 chains need 0.0154 GB .* at most 65 samples fit"):
        check_disk(tmp_path / "a.npz", samples=1000, chains=64, sites=16)
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"cannot write .*: No such file or directory"):
        check_disk(tmp_path / "nowhere" / "a.npz", samples=10, chains=64, sites=16)


def test_a_flow_that_gives_no_numbers_cannot_start():
    flow = Flow((4, 4), [SpectralScaling(magnet(0.44).basis, torch.full((4, 4), math.nan))])
    for sampler in (latent(flow, magnet(0.44)), FlowMetropolis(flow, magnet(0.44))):
        with pytest.raises(InvalidInput, match="cannot start: the flow gives fields or energies that are not finite"):
            run_chains(sampler, samples=2, chains=2)


def test_stochastic_densities_are_refused():
    """Probes depend on the point they are for: the same field has another density forward than backwards."""
    config = ConvexFlowConfig(blocks=1, width=4, logdet="lanczos")
    target = magnet(0.44)
    flow = build_flow(target, config, seed=0)
    for make in (latent, FlowMetropolis):
        with pytest.raises(InvalidInput, match="estimates by random probes"):
            make(flow, target)
    assert latent(build_flow(target, ConvexFlowConfig(blocks=1, width=4), seed=0), target).target is target


@pytest.mark.parametrize(
    "damage",
    [
        {"field": None},
        {"generator": None},
        {"identity": np.array("{")},
        {"identity": np.array("3")},
        {"lattice": np.array('{"kind": "round"}')},
        {"beta": np.array(math.nan)},
        {"spins": np.zeros((3, 2, 4, 4), np.int8)},
        {"state_position": np.zeros((2, 4, 4))},
        {"steps": np.array([1, 2])},
        {"steps": np.array(10**6)},
        {"steps": np.array(0)},
        {"identity": np.array('{"warm_up": 0, "every": 0}')},
        {"identity": np.array("{}")},
        {"acceptance": np.array(["a", "b", "c"])},
        {"acceptance": np.array([[1.0], [1.0], [1.0]])},
        {"acceptance": np.array([1.0, math.nan, 1.0])},
        {"spins": np.zeros((3, 3, 4, 4), np.int8)},
        {"field": np.full((3, 3, 4, 4), math.inf, np.float32)},
        {"field": np.full((3, 3, 4, 4), "x")},
        {"field": np.zeros((3, 3, 4, 4), np.complex64)},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "chains.npz"
    run_chains(BlockGibbs(magnet(0.44)), samples=3, chains=3).save(path)
    arrays = read_arrays(path, ()) | damage
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(FileError, match=r"chains\.npz"):
        Chains.read(path)


@pytest.mark.parametrize(
    "damage",
    [
        {"generator": np.zeros(8, np.uint8)},
        {"generator": np.zeros(5056)},
        {"setting_guided": None},
        {"setting_guided": np.zeros(2)},
        {"setting_adaptation": np.ones(2)},
        {"setting_step_size": np.array(math.nan)},
        {"state_energy": None},
        {"state_foo": np.zeros(3)},
        {"state_position": np.zeros((3, 2, 8))},
        {"state_field": np.zeros((3, 4, 5), np.float32)},
        {"beta": np.array(0.3)},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_damaged_states_are_not_continued(damage, tmp_path):
    path, options = tmp_path / "chains.npz", {"chains": 3, "warm_up": 2}
    run_chains(physical(magnet(0.44)), samples=3, **options).save(path)
    arrays = read_arrays(path, ()) | damage
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InvalidInput, match="cannot be continued"):
        run_chains(physical(magnet(0.44)), samples=6, earlier=Chains.read(path), **options)


def test_chains_are_kept_while_they_run(tmp_path, monkeypatch):
    """Killed at any step, they continue from the last save as if nothing had happened."""
    monkeypatch.setattr(chains_module, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(chains_module, "SAVING", math.inf)
    target, path = magnet(0.44), tmp_path / "chains.npz"
    options = {"samples": 10, "chains": 3, "warm_up": 4, "every": 2}
    for killed in (2, 9):

        def kill(done, total, killed=killed):
            if done == killed:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            earlier = Chains.read(path) if path.exists() else None
            save = lambda chains: chains.save(path)  # noqa: E731
            run_chains(physical(target), earlier=earlier, report_progress=kill, keep=save, **options)
        assert Chains.read(path).steps == killed - 1
    same(run_chains(physical(target), earlier=Chains.read(path), **options), run_chains(physical(target), **options))


def test_certificates_of_continued_chains_are_those_of_all_their_parts():
    """A flow may be evaluated between two parts: that is no other run."""
    options = {"chains": 2, "seed": 1}
    for before, now in ((True, False), (False, True)):
        earlier = run_chains(BlockGibbs(magnet(0.44)), samples=2, certified=before, **options)
        assert not run_chains(BlockGibbs(magnet(0.44)), samples=4, certified=now, earlier=earlier, **options).certified


def test_a_failing_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "chains.npz"
    chains = run_chains(BlockGibbs(magnet(0.44)), samples=3, chains=3)
    chains.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FileError, match="No space left on device"):
        replace(chains, seconds=1e9).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 1), (3, 7), (1, 8)], ids=str)
def test_short_chains_say_what_is_not_known(shape):
    mixing = Mixing.of(np.random.default_rng(0).normal(size=shape))
    found = mixing.as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["stderr"] is None) == (shape == (1, 1))
    assert (found["tau"] is None) == (found["ess"] is None) == (shape[1] < 4)
    assert math.isnan(mixing.r_hat) == (shape[1] < 8)


@pytest.mark.parametrize("shape", [(1, 2), (8, 100), (3, 2000)], ids=str)
def test_figures_of_chains(shape):
    values = np.random.default_rng(0).normal(size=shape)
    figure = plots.chains_figure({"noise": values, "constant": np.zeros(shape)}, {"noise": 0.0})
    assert plots.png(figure).startswith(b"\x89PNG")
    trace, decay = figure.axes[:2]
    np.testing.assert_array_equal(trace.lines[0].get_ydata(), values[0, -600:])
    assert decay.lines[1].get_ydata()[0] == 1


# --- the command


KEYS = {"acceptance", "step_size", "r_hat", "seconds", "energy_per_site", "magnetisation_squared", "space", "chains"}
KEYS |= {"samples", "evaluations", "divergences", "diagnostics", "warnings", "certified", "output"}


def invoke(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def failure(*words):
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.strip().splitlines()
    return line.removeprefix("isingflow: error: ")


def make_run(path, steps=3):
    """The folder of a run whose training ended before it began."""
    config = RunConfig.from_preset("quick", square(4), 0.44, iterations=steps)
    folder = RunFolder.create(path, config)
    flow = build_flow(magnet(0.44), config.flow, seed=steps)
    state = {"steps": 2, "seconds": 0.0, "integration_error_nats": 0.0}
    folder.save_checkpoint({f"flow.{name}": tensor for name, tensor in flow.state_dict().items()}, state)
    return str(path)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_run("run")


def hmc(run, space, samples, *words, chains=8):
    counts = ["--chains", chains, "--samples", samples]
    return ["hmc", run, "--space", space, *counts, "--output", "chains.npz", "--device", "cpu", *words]


@pytest.mark.parametrize("space", ["latent", "physical"])
def test_command(run, space):
    result = invoke(*hmc(run, space, 20, "--json", "--warm-up", 20))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.keys() >= KEYS
    for name in ("energy_per_site", "magnetisation_squared"):
        assert found[name].keys() == {"value", "stderr", "tau", "ess"}
        assert found[name]["ess"] == pytest.approx(8 * 20 / (2 * found[name]["tau"]))
        assert found["diagnostics"][name].keys() == {"r_hat", "ess_bulk", "ess_tail"}
    assert (found["space"], found["chains"], found["samples"]) == (space, 8, 20)
    arrays = read_arrays("chains.npz", ("field", "spins", "beta", "size", "lattice", "certified"))
    assert arrays["field"].shape == arrays["spins"].shape == (8, 20, 4, 4)
    assert (os.path.getsize(f"run/figures/hmc-{space}.png")) > 1000
    observables = invoke("observables", "chains.npz", "--json")
    assert observables.exit_code == 0, observables.output
    again = json.loads(observables.stdout)["energy_per_site"]["value"]
    assert again == pytest.approx(found["energy_per_site"]["value"], rel=1e-12)


def test_command_continues_bit_for_bit(run):
    assert invoke(*hmc(run, "latent", 12, "--warm-up", 4, "--every", 2)).exit_code == 0
    whole = read_arrays("chains.npz", ())
    os.remove("chains.npz")
    assert invoke(*hmc(run, "latent", 5, "--warm-up", 4, "--every", 2)).exit_code == 0
    result = invoke(*hmc(run, "latent", 12, "--warm-up", 4, "--every", 2, "--resume"))
    assert result.exit_code == 0 and "-1." in result.stdout and "exact" in result.stdout, result.output
    resumed = read_arrays("chains.npz", ())
    assert resumed.keys() == whole.keys()
    for name in whole.keys() - {"seconds"}:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)


def test_command_refuses(run):
    assert failure(*hmc(run, "latent", 0)).startswith("--samples 0: expected an integer from 1 to")
    assert failure(*hmc(run, "latent", 5, chains=-2)).startswith("--chains -2: expected an integer from 1 to")
    assert failure(*hmc(run, "outer", 5)) == "--space outer: expected latent or physical"
    assert failure(*hmc("nowhere", "latent", 5)) == "no run folder at nowhere"
    assert failure(*hmc(run, "latent", 5, "--resume")) == "chains.npz: there is no such file"
    assert "GB" in failure(*hmc(run, "latent", 10**7, chains=10**5))
    assert not os.path.exists("chains.npz")
    assert invoke(*hmc(run, "physical", 5, "--warm-up", 2)).exit_code == 0
    before = read_arrays("chains.npz", ())
    assert failure(*hmc(run, "latent", 9)).startswith("--output chains.npz: exists already")
    message = failure(*hmc(run, "latent", 9, "--resume", "--seed", 1, "--warm-up", 2))
    assert "belong to another run" in message
    assert "space: latent here, physical there" in message and "seed: 1 here, 0 there" in message
    message = failure(*hmc(make_run("other", steps=2), "physical", 9, "--resume", "--warm-up", 2))
    assert "run.training.iterations: 2 here, 3 there" in message and "flow: " in message
    assert all(np.array_equal(before[name], array) for name, array in read_arrays("chains.npz", ()).items())
    with open("chains.npz", "r+b") as file:
        file.truncate(1000)
    assert "not a readable .npz file" in failure(*hmc(run, "physical", 9, "--resume", "--warm-up", 2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_last_save_loses_nothing(run, number, monkeypatch):
    assemble = ArrayWriter._assemble

    def interrupted(writer):
        os.kill(os.getpid(), number)
        assemble(writer)

    monkeypatch.setattr(ArrayWriter, "_assemble", interrupted)
    result = invoke(*hmc(run, "physical", 9, "--warm-up", 2))
    assert result.exit_code == 0, result.output
    assert Chains.read("chains.npz").samples == 9


def test_a_figure_that_cannot_be_written_loses_nothing(run):
    with open("run/figures", "w"):
        pass
    result = invoke(*hmc(run, "physical", 9, "--warm-up", 2, "--json"))
    assert result.exit_code == 0 and json.loads(result.stdout)["samples"] == 9
    assert "warning: no figure: cannot create" in result.stderr


def test_command_says_what_is_intact_when_the_disk_fills(run, monkeypatch):
    assert invoke(*hmc(run, "physical", 3, "--warm-up", 2)).exit_code == 0
    monkeypatch.setattr(ArrayWriter, "_assemble", lambda self: (_ for _ in ()).throw(OSError(28, "No space left")))
    message = failure(*hmc(run, "physical", 9, "--warm-up", 2, "--resume", "--quiet"))
    assert "No space left; what was saved before is intact, --resume goes on from there" in message
    assert Chains.read("chains.npz").samples == 3


def test_command_marks_what_is_not_certified(run):
    RunFolder.open(run).save_report({"certified": False})
    result = invoke(*hmc(run, "latent", 9, "--warm-up", 2))
    assert result.exit_code == 0 and "not certified" in result.stdout and "not certified" in result.stderr
    assert not read_arrays("chains.npz", ())["certified"]


def test_command_saves_when_it_is_told_to_stop(run):
    words = [str(word) for word in hmc(run, "physical", 10**5, "--warm-up", 10, chains=2)]
    command = [sys.executable, "-m", "isingflow.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stderr.readline()
    assert "trajectories" in first, first + process.stderr.read()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (128 + signal.SIGTERM, ""), stderr
    resuming = (
        "isingflow hmc run --space physical --chains 2 --samples 100000 --output chains.npz --warm-up 10 --every 1"
    )
    assert resuming in stderr and "--resume" in stderr
    chains = Chains.read("chains.npz")
    assert chains.steps > 0
    result = invoke(*hmc(run, "physical", chains.samples + 3, "--warm-up", 10, "--resume", chains=2))
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(Chains.read("chains.npz").field[:, : chains.samples], chains.field)


@pytest.mark.parametrize(("reverse", "warned"), [(0.01, True), (0.3, False), ("x", False)])
def test_chains_of_a_flow_that_misses_a_part_come_with_a_warning(run, reverse, warned):
    """As the last evaluation of the run has it: the chains themselves cannot know."""
    RunFolder.open(run).save_report({"effective_sample_size": 0.4, "reverse_effective_sample_size": reverse})
    result = invoke(*hmc(run, "latent", 4, "--json", "--warm-up", 4))
    assert result.exit_code == 0, result.output
    warnings = json.loads(result.stdout)["warnings"]
    assert [f"isingflow: warning: run: {warning}" for warning in warnings] == result.stderr.splitlines()
    assert any("the flow misses part of the target" in warning for warning in warnings) == warned


def test_a_sweep_is_a_step_of_block_gibbs_seen_from_latent_space():
    target = magnet(0.4)
    sampler = latent(wrong_gaussian(target), target)
    state = sampler.start(torch.randn(50, *target.shape, generator=torch.Generator().manual_seed(0)))
    swept = sampler.sweep(state, torch.Generator().manual_seed(1))
    expected, _ = BlockGibbs(target).step(BlockGibbs(target).start(state.field), torch.Generator().manual_seed(1))
    torch.testing.assert_close(swept.field, expected.field)
    again = sampler.start(swept.position)
    torch.testing.assert_close(swept.field, again.field, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(swept.energy, again.energy, rtol=1e-4, atol=1e-4)


def test_a_sweep_of_guided_trajectories_knows_the_force():
    target = magnet(0.4)
    sampler = latent(wrong_gaussian(target), target, guided=True)
    state = sampler.start(torch.randn(50, *target.shape, generator=torch.Generator().manual_seed(0)))
    swept = sampler.sweep(state, torch.Generator().manual_seed(1))
    torch.testing.assert_close(swept.force, sampler.start(swept.position).force)
    assert sampler.evaluations == 100
