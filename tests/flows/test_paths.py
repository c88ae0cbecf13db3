"""Whole paths in one operation: the numbers are those of the integration stage by stage, the only way in float64."""

import pytest
import torch

from isingflow.flows import GradientFlow
from isingflow.flows.solvers import paths
from isingflow.potentials import DensePotential, ResidualPotential

SAMPLES = 150


def potentials(dimension):
    """One hidden layer of every kind, away from its start."""
    generator = torch.Generator().manual_seed(dimension)
    directions = torch.randn(33, dimension, generator=generator)
    dense = {"directions": directions, "activation": "softplus", "generator": generator}
    found = {
        "softplus": DensePotential((dimension,), 33, **dense),
        "softplus in time": DensePotential((dimension,), 33, time_terms=3, **dense),
        "lncosh": DensePotential((dimension,), 33, generator=generator),
        "residual": ResidualPotential((dimension,), width=40, layers=1, generator=generator),
    }
    with torch.no_grad():
        for potential in found.values():
            for parameter in potential.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return found


def found(flow, x, weights, *, backwards):
    """Everything that a flow gives, and the gradient of a sum of it by everything that it depends on."""
    timed = isinstance(flow.potential, ResidualPotential)
    x = x.clone().requires_grad_()
    way = flow.inverse_with_cost if backwards else flow.forward_with_cost
    y, logdet, cost = way(x, hjb=timed)
    results = [y, logdet, cost.transport, cost.hjb]
    loss = sum(
        (result.double() * weight.view(result.shape)).sum() for result, weight in zip(results, weights, strict=True)
    )
    return [*results, *torch.autograd.grad(loss, [x, *flow.parameters()], allow_unused=True)]


@pytest.mark.parametrize("tableau", ["euler", "midpoint", "rk4", "dopri5"])
@pytest.mark.parametrize("name", ["softplus", "softplus in time", "lncosh", "residual"])
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_paths_and_gradients_are_those_of_the_stages(dimension, name, tableau):
    """Float32 goes the fused way, float64 stage by stage through autograd."""
    flow = GradientFlow(potentials(dimension)[name], steps=3, tableau=tableau, time=1.7)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, dimension, generator=generator)
    weights = [torch.randn(SAMPLES, n, generator=generator).double() for n in (dimension, 1, 1, 1)]
    for backwards in (False, True):
        fused = found(flow, x, weights, backwards=backwards)
        staged = found(flow.double(), x.double(), weights, backwards=backwards)
        flow.float()
        for ours, exact in zip(fused, staged, strict=True):
            if exact is None or not exact.numel():
                continue
            scale = exact.detach().abs().max().item() + 1e-6
            torch.testing.assert_close(ours.double(), exact.double(), rtol=0, atol=2e-5 * scale)


def test_the_fused_way_is_taken(monkeypatch):
    """Or the test above would compare nothing."""
    potential = potentials(2)["softplus"]
    x = torch.randn(4, 2)
    monkeypatch.setattr(DensePotential, "_bind", lambda self: pytest.fail("stage by stage"))
    GradientFlow(potential, steps=2)(x)
    with pytest.raises(pytest.fail.Exception):
        GradientFlow(potential, steps=2).double()(x.double())


def test_blocks_of_samples_change_nothing(monkeypatch):
    flow = GradientFlow(potentials(2)["residual"], steps=2)
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = flow(x)
        monkeypatch.setattr(paths, "COLUMNS", 7)
        for ours, expected in zip(flow(x), whole, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


def test_far_away_nothing_overflows():
    """Where tanh is one, paths are those of a constant force."""
    flow = GradientFlow(potentials(2)["residual"], steps=2)
    y, logdet = flow(torch.full((3, 2), 1e4))
    assert y.isfinite().all() and logdet.isfinite().all()
