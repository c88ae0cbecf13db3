"""Trainings by the published recipe: decay beside the loss per site, sampled stages, and what is said of their loss."""

import itertools

import pytest
import torch
from msgspec.structs import replace

from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.evaluation.targets import evaluate_target
from isingflow.flows import GradientFlow
from isingflow.lattice import square
from isingflow.potentials import DensePotential
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import load
from isingflow.runs.presets import PRESETS
from isingflow.training import train
from isingflow.training.progress import Outcome

FLOW = FlowConfig(potential="dense", hidden=6, average="sampled", whitened=False, steps=3, training_steps=4)


def configured(flow=FLOW, **training):
    usual = {"iterations": 6, "batch": 8, "check_every": 100, "evaluation_samples": 16}
    return RunConfig(square(3), 0.3, "paper", 0, flow, replace(PRESETS["paper"].training, **(usual | training)))


def trained(path, config, should_stop=lambda: False):
    found = train(RunFolder.create(path, config), device="cpu", progress=False, should_stop=should_stop)
    return found, [record["loss"] for record in found.run.metrics()]


def test_decay_beside_the_loss_per_site_is_as_many_times_stronger(tmp_path):
    """Adam sees gradients and decay alike: dividing the loss is multiplying the decay. (Draws would feel rounding.)"""
    flows = []
    for name, options in {
        "site": {"per_site": True, "weight_decay": 0.1},
        "total": {"per_site": False, "weight_decay": 0.9},
        "weak": {"per_site": False, "weight_decay": 0.1},
    }.items():
        found, losses = trained(tmp_path / name, configured(replace(FLOW, average="exact"), **options))
        flows.append((torch.cat([p.flatten() for p in found.flow.parameters()]).detach(), losses))
    (site, per_site), (total, whole), (weak, _) = flows
    torch.testing.assert_close(site, total, rtol=1e-3, atol=1e-5)
    assert (weak - total).abs().max() > 1e-4
    assert [9 * loss for loss in per_site] == pytest.approx(whole, rel=1e-4)


def test_resumed_is_uninterrupted_bit_for_bit(tmp_path):
    whole, losses = trained(tmp_path / "whole", configured())
    calls = itertools.count(1)
    part, first = trained(tmp_path / "part", configured(), lambda: next(calls) == 3)
    assert part.outcome is Outcome.INTERRUPTED and len(first) == 3
    rest = train(RunFolder.open(tmp_path / "part"), device="cpu", progress=False)
    assert [record["loss"] for record in rest.run.metrics()] == losses
    assert all(map(torch.equal, rest.flow.parameters(), whole.flow.parameters()))


def test_the_loss_of_sampled_stages_is_no_bound_and_the_exact_average_has_one(tmp_path):
    found, losses = trained(tmp_path / "run", configured())
    last = found.run.metrics()[-1]
    assert last["sampled_loss"] == pytest.approx(9 * losses[-1])
    assert not {"variational_free_energy", "gap_nats", "effective_sample_size"} & set(last)
    report = evaluate_target(found.run, samples=200, device="cpu")
    assert report.sampled_loss == pytest.approx(9 * sum(losses) / len(losses))
    assert report.variational.value > report.exact and report.certified
    assert "no bound" in report.table()
    # The bound is that of the weights' exact average: as symmetric as the lattice.
    x, log_prob = found.flow.sample(3, generator=torch.Generator().manual_seed(0))
    turned = x.transpose(1, 2).roll((1, 2), (1, 2))
    torch.testing.assert_close(load(found.run).log_prob(turned), log_prob, rtol=1e-3, atol=1e-3)


def test_steps_in_training_are_their_own():
    flow = GradientFlow(DensePotential((2,), 3, generator=torch.Generator()), steps=3, training_steps=5, jitter=0.2)
    assert flow.grid() == pytest.approx([i / 5 for i in range(6)])
    flow.redraw(torch.Generator().manual_seed(0))
    assert len(flow.grid()) == 6 and flow.grid() != pytest.approx([i / 5 for i in range(6)])
    assert flow.eval().grid() == pytest.approx([i / 3 for i in range(4)])
    with flow.refined(2):
        assert len(flow.grid()) == 7
        assert len(flow.train().grid()) == 6
