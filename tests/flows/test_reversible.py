"""The reversible integrator: order, steps undone to rounding, gradients, memory."""

import math
from itertools import pairwise

import pytest
import torch

from isingflow.flows import GradientFlow
from isingflow.flows.solvers.reversible import Reversible
from isingflow.flows.solvers.runge_kutta import TABLEAUX
from isingflow.potentials import DensePotential, ResidualPotential


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def potential(kind="dense"):
    options = {
        "dense": {"hidden": 16, "activation": "softplus", "time_terms": 3},
        "residual": {"width": 6, "layers": 2},
    }[kind]
    make = {"dense": DensePotential, "residual": ResidualPotential}[kind]
    made = make((5,), generator=generator(), **options).double()
    source = generator(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=source).double())
    return made


def noise(n=4):
    return torch.randn(n, 5, dtype=torch.float64, generator=generator(2))


@pytest.mark.parametrize("tableau", TABLEAUX)
def test_the_order_is_that_of_the_tableau(tableau):
    """Errors of points and log-determinants fall by 2^order when steps are halved; towards another method's limit."""
    z, limit = noise(), GradientFlow(potential(), steps=200, tableau="dopri5")(noise())
    errors = []
    for steps in (16, 32):
        found = GradientFlow(potential(), steps=steps, tableau=tableau, reversible=True)(z)
        errors.append([float((ours - exact).detach().abs().max()) for ours, exact in zip(found, limit, strict=True)])
    for coarse, fine in zip(*errors, strict=True):
        assert math.log2(coarse / fine) > TABLEAUX[tableau].order - 0.3


@pytest.mark.parametrize("tableau", TABLEAUX)
def test_steps_are_undone_to_rounding(tableau):
    """From coarse steps, whose own error is large, of uneven lengths."""
    field = potential().bind()
    derivative = lambda _: lambda state, t: field(state[0], t)  # noqa: E731
    edges = [0.0, 0.1, 0.35, 0.5, 0.9, 1.0]
    path = Reversible(TABLEAUX[tableau], derivative, list(pairwise(edges)))
    start = (noise(), torch.zeros(4, dtype=torch.float64))
    with torch.no_grad():
        y, z = start, start
        for interval in path.intervals:
            y, z = path.advance(interval, y, z)
        assert (y[0] - start[0]).abs().max() > 0.1
        assert (y[0] - z[0]).abs().max() > 1e-9, "the pair must be no copy"
        for interval in reversed(path.intervals):
            y, z = path.undo(interval, y, z)
    for ours in (y, z):
        for one, other in zip(ours, start, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ["dense", "residual"])
def test_gradients_are_those_of_the_steps(kind):
    """By the start and by all parameters, against autograd through the same steps."""
    flow = GradientFlow(potential(kind), steps=6, reversible=True)
    z = noise().requires_grad_()

    def gradients(x, logdet):
        loss = x.pow(3).sum() + logdet.square().sum()
        return torch.autograd.grad(loss, [z, *flow.potential.parameters()])

    path = flow._reversible(list(pairwise(flow.grid())))
    y = w = (z, torch.zeros(4, dtype=torch.float64))
    for interval in path.intervals:
        y, w = path.advance(interval, y, w)
    for ours, exact in zip(gradients(*flow(z)), gradients(*y), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-10)


def test_costs_and_contexts_are_integrated_too():
    class Tilted(DensePotential):
        def bind(self, context=None):
            inner = super().bind()
            return lambda x, t: (inner(x, t)[0] + context, inner(x, t)[1])

    beta = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    tilted = Tilted((5,), 8, generator=generator()).double()
    (by_context,) = torch.autograd.grad(
        GradientFlow(tilted, steps=8, reversible=True, context=beta)(noise())[0].sum(), beta
    )
    (exact,) = torch.autograd.grad(GradientFlow(tilted, steps=8, context=beta)(noise())[0].sum(), beta)
    torch.testing.assert_close(by_context, exact, rtol=1e-4, atol=1e-6)
    plain, reversible = (GradientFlow(potential("residual"), steps=64, reversible=r) for r in (False, True))
    for ours, exact in zip(
        reversible.forward_with_cost(noise(), hjb=True)[2], plain.forward_with_cost(noise(), hjb=True)[2], strict=True
    ):
        torch.testing.assert_close(ours, exact, rtol=1e-3, atol=1e-6)


def test_memory_does_not_grow_with_steps():
    """Of what backpropagation keeps: the end, of a plain trajectory every stage."""

    def kept(steps, **options):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        flow = GradientFlow(potential(), steps=steps, **options)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            flow(noise(50))
        return total

    assert kept(40, reversible=True) == kept(4, reversible=True)
    assert kept(40, reversible=True) < kept(40) / 40
