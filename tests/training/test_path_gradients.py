"""Path gradients: the score that they need, their mean, and that their noise vanishes where the flow is exact."""

import itertools
import math

import pytest
import torch
from msgspec.structs import replace

from isingflow.architectures.build import build_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.flows import CholeskyLogdet, ConvexFlow, Flow, GradientFlow, LanczosLogdet, SpectralScaling
from isingflow.flows.spectral import EigenBasis
from isingflow.lattice import edwards_anderson, square, triangular
from isingflow.potentials import DensePotential, LatticeConvexPotential
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.parallel import Workers
from isingflow.targets.base import Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.testing.laws import shaken
from isingflow.training import objectives, train
from isingflow.training.objectives import both_bounds, path_gradient, reverse_kl
from isingflow.training.progress import Outcome

DENSE = FlowConfig(potential="dense", hidden=6, steps=12)
SETTINGS = TrainingConfig(gradient="path")
KINDS = {
    "lattice": (square(3), FlowConfig(hidden=4, radial=2, oriented=1, steps=12)),
    "glass": (edwards_anderson(3, seed=1), DENSE),
    "local": (edwards_anderson(3, seed=1), FlowConfig(potential="local", hidden=2, radius=1, steps=12)),
    "longer time": (triangular(3), replace(DENSE, time=2.0, steps=20)),
    "recomputed": (square(3), replace(DENSE, steps=8)),
    "reversible": (square(3), replace(DENSE, reversible=True)),
    "ot": (square(3), OTFlowConfig(width=4, steps=12)),
    "ot, local": (edwards_anderson(3, seed=1), OTFlowConfig(radial=0, oriented=0, features=3, radius=1, steps=12)),
    "convex": (square(3), ConvexFlowConfig(blocks=2, width=4)),
    "convex, local": (
        edwards_anderson(3, seed=1),
        ConvexFlowConfig(blocks=2, width=4, radial=0, oriented=0, features=3, radius=1),
    ),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def moved(flow, seed=0, by=0.1):
    """The flow with other parameters, in training mode, on a grid of its own."""
    source = generator(seed)
    with torch.no_grad():
        flow(flow.noise(8, source))
        for parameter in flow.parameters():
            parameter += by * torch.randn(parameter.shape, generator=source).to(parameter)
    flow.train().redraw(source)
    return flow


def built(kind, by=0.1, steps=None, **options):
    lattice, config = KINDS[kind]
    config = config if steps is None else replace(config, steps=steps)
    target = HubbardStratonovich(lattice, 0.4)
    flow = build_flow(target, config, seed=1, recompute=kind == "recomputed", **options).double()
    for transform in flow.modules():
        if isinstance(transform, ConvexFlow):
            transform.tolerance = 1e-12
    return target, moved(flow, by=by)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_that_comes_with_samples_is_that_of_their_density(kind):
    _, flow = built(kind, jitter=0.3)
    z = flow.noise(4, generator(2))
    x, logdet, score = flow.forward_with_score(z)
    torch.testing.assert_close((x, logdet), flow(z))
    point = x.detach().requires_grad_()
    (exact,) = torch.autograd.grad(flow.log_prob(point).sum(), point)
    torch.testing.assert_close(score, exact, rtol=1e-4, atol=1e-5)


def test_scores_by_products_with_the_hessian_are_the_exact_ones_up_to_their_probes():
    potential = LatticeConvexPotential(square(3).symmetry, radial=2, width=4, generator=generator())
    potential = shaken(potential, 0.5, 0)
    z = torch.randn(3, 3, 3, generator=generator(1), dtype=torch.float64)
    exact, few, many = (
        ConvexFlow(potential, logdet=logdet).forward_with_score(z, -z)
        for logdet in (CholeskyLogdet(), *(LanczosLogdet(probes, tolerance=1e-8) for probes in (20, 2000)))
    )
    torch.testing.assert_close(many[:2], exact[:2], rtol=0.01, atol=0.01)
    errors = [float((found[2] - exact[2]).norm()) for found in (few, many)]
    assert errors[1] < 0.3 * errors[0] and errors[1] < 0.01 * float(exact[2].norm())


def gradients(objective, target, flow, batches, n, settings=SETTINGS):
    """A row for every batch."""
    rows = []
    for seed in range(batches):
        loss, _ = objective(flow, target, flow.noise(n, generator(seed)), settings)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(flow.parameters()))]))
    return torch.stack(rows)


def test_both_gradients_have_the_same_value_and_the_same_mean():
    target, flow = built("glass", by=0.4, steps=6)
    z = flow.noise(50, generator(3))
    (loss, values), (plain, plainly) = (f(flow, target, z, SETTINGS) for f in (path_gradient, reverse_kl))
    torch.testing.assert_close((loss, values), (plain, plainly))
    path, total = (gradients(objective, target, flow, 30, 32) for objective in (path_gradient, reverse_kl))
    difference = path - total
    stderr = difference.std(0) / len(difference) ** 0.5
    deviations = difference.mean(0) / stderr
    assert deviations.abs().max() < 5 and deviations.square().mean().sqrt() < 1.4
    assert path.mean(0).norm() > 5 * stderr.norm()  # so that something is compared


def test_far_from_the_target_the_whole_gradient_is_taken():
    """There scores are large, and their scatter is what does harm; 8x8 at beta 0.6 diverged by path gradients alone."""
    target = HubbardStratonovich(square(3), 0.1)
    for by, same in ((0.02, False), (1.0, True)):
        flow = moved(build_flow(target, KINDS["lattice"][1], seed=1).double(), by=by)
        z = flow.noise(40, generator(5))
        found, total = (
            torch.cat([g.flatten() for g in torch.autograd.grad(f(flow, target, z, SETTINGS)[0], flow.parameters())])
            for f in (path_gradient, reverse_kl)
        )
        assert torch.allclose(found, total, rtol=1e-6, atol=1e-8 * float(total.norm())) == same


class Gaussian(Target):
    shape = (4,)

    def energy(self, field):
        return (field.square() * torch.arange(1, 5)).sum(-1) / 2


def test_noise_vanishes_where_the_flow_is_exact():
    start = SpectralScaling(EigenBasis((4,), torch.eye(4)), torch.arange(1, 5).double().rsqrt())
    dense = DensePotential((4,), 5, time_terms=2, generator=generator())
    flow = Flow((4,), [GradientFlow(dense, steps=8), start]).double()
    with torch.no_grad():
        dense.amplitude.zero_()
    exact = gradients(path_gradient, Gaussian(), flow, 5, 8)
    assert exact.abs().max() < 1e-12 < 1e-3 < gradients(reverse_kl, Gaussian(), flow, 5, 8).std(0).max()
    spreads = []
    for distance in (1e-3, 1e-2):
        with torch.no_grad():
            dense.amplitude.fill_(distance)
        spreads.append(float(gradients(path_gradient, Gaussian(), flow, 5, 8).std(0).norm()))
    assert spreads[1] == pytest.approx(10 * spreads[0], rel=0.1)


def test_penalties_other_bounds_and_shares_of_threads(monkeypatch):
    monkeypatch.setattr(objectives, "FAR", math.inf)  # a share may be far where the batch is not
    target, flow = built("glass", steps=4)
    z = flow.noise(8, generator(5))
    parameters = list(flow.parameters())
    settings = replace(SETTINGS, transport_cost=0.3, force_matching=0.2)

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    def penalty(objective):
        with_it, without = (objective(flow, target, z, each)[0] for each in (settings, SETTINGS))
        return gradient(with_it) - gradient(without)

    torch.testing.assert_close(penalty(path_gradient), penalty(reverse_kl))
    reference = target.sample_field(torch.ones(8, 3, 3, dtype=torch.float64), generator(6))
    lower = (flow.log_prob(reference) + target.energy(reference)).mean()
    loss = both_bounds(flow, target, z, reference, SETTINGS)[0]
    upper = path_gradient(flow, target, z, SETTINGS)[0]
    torch.testing.assert_close((loss, gradient(loss)), (upper - lower, gradient(upper) - gradient(lower)))
    pool = Workers(2)
    shares = pool.map(lambda share: gradient(path_gradient(flow, target, share, SETTINGS)[0]), z)
    pool.close()
    torch.testing.assert_close(sum(shares) / 2, gradient(path_gradient(flow, target, z, SETTINGS)[0]))


def test_a_training_by_path_gradients_resumes_bit_for_bit(tmp_path):
    training = TrainingConfig(iterations=6, batch=8, gradient="path", check_every=2, evaluation_samples=16)
    config = RunConfig(edwards_anderson(3, seed=1), 0.4, "mine", 0, replace(DENSE, steps=4), training)

    def trained(path, **options):
        return train(RunFolder.create(path, config), device="cpu", progress=False, **options)

    whole, calls = trained(tmp_path / "whole"), itertools.count(1)
    part = trained(tmp_path / "part", should_stop=lambda: next(calls) == 3)
    assert part.outcome is Outcome.INTERRUPTED
    rest = train(RunFolder.open(tmp_path / "part"), device="cpu", progress=False)
    assert all(map(torch.equal, rest.flow.parameters(), whole.flow.parameters()))
    named = train(RunFolder.create(tmp_path / "named", config), device="cpu", progress=False, objective=path_gradient)
    assert all(map(torch.equal, named.flow.parameters(), whole.flow.parameters()))
