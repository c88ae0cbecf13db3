"""Potentials that are convex in x for every context: gates and offsets against autograd, sample by sample."""

import pytest
import torch

from isingflow.errors import InvalidInput, WrongType
from isingflow.potentials import PartiallyConvexPotential
from isingflow.potentials.layers.activations import CONVEX
from isingflow.testing.laws import shaken
from isingflow.testing.potentials import derivatives


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def potential(seed: int = 0, **options) -> PartiallyConvexPotential:
    options = {"width": 6, "embedding": 5, "layers": 3} | options
    return shaken(PartiallyConvexPotential(3, 2, **options, generator=generator(seed)), 0.5, seed)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("activation", CONVEX)
def test_every_sample_has_the_derivatives_of_its_own_context(layers, activation):
    made = potential(layers=layers, activation=activation)
    x, context, vectors = randn(5, 3, seed=1).requires_grad_(), randn(5, 2, seed=2), randn(2, 5, 3, seed=3)
    bound = made.bind(context)
    gradient, hessian = derivatives(lambda copies: made.bind(context.repeat(len(copies) // 5, 1)).value(copies), x)
    torch.testing.assert_close(bound.gradient(x), gradient)
    torch.testing.assert_close(bound.hessian(x), hessian)
    torch.testing.assert_close(bound.product(x, vectors), torch.einsum("nij,anj->ani", hessian, vectors))
    for row in range(5):
        alone = made.bind(context[row : row + 1])
        torch.testing.assert_close(alone.value(x[row : row + 1]), bound.value(x)[row : row + 1])


def test_what_flows_back_to_contexts_is_their_derivative():
    made, x = potential(), randn(4, 3)

    def summed(context):
        expansion = made.bind(context).expand(x)
        return expansion.value.sum(), expansion.gradient, expansion.hessian(), expansion.product(x)

    assert torch.autograd.gradcheck(summed, randn(4, 2, seed=5).requires_grad_())


def test_it_is_convex_in_x_and_not_in_the_context():
    """Between far points and for far contexts, where gates close; in the context nothing keeps it convex."""
    made = potential()
    x, y, context = 3 * randn(200, 3, seed=1), 3 * randn(200, 3, seed=2), 5 * randn(200, 2, seed=3)
    bound = made.bind(context)
    chord = (bound.value(x) + bound.value(y)) / 2 - bound.value((x + y) / 2)
    strength = float(bound.expand(x).strength.detach())
    assert bool((chord >= strength * (x - y).square().sum(1) / 8 - 1e-9).all())
    assert float(torch.linalg.eigvalsh(bound.hessian(x)).min()) >= strength - 1e-9
    other = -context
    middle = made.bind((context + other) / 2).value(x)
    along = (made.bind(context).value(x) + made.bind(other).value(x)) / 2 - middle
    assert float(along.min()) < 0 < float(along.max())


def test_the_context_matters_and_starts_without_effect():
    fresh = PartiallyConvexPotential(3, 2, width=6, generator=generator())
    x = torch.randn(4, 3, generator=generator(1))
    values = [fresh.bind(torch.full((4, 2), value)).gradient(x) for value in (-2.0, 3.0)]
    assert torch.equal(*values)
    moved = potential()
    values = [moved.bind(torch.full((4, 2), value)).gradient(x.double()) for value in (-2.0, 3.0)]
    assert float((values[0] - values[1]).abs().min()) > 1e-3


@pytest.mark.parametrize(
    ("context", "error", "message"),
    [
        (torch.zeros(3), InvalidInput, r"context has shape \(3,\), expected \(n, 2\)"),
        (torch.zeros(4, 3), InvalidInput, r"context has shape \(4, 3\)"),
        ([[1.0, 2.0]], WrongType, r"context is \[\[1.0, 2.0\]\], expected a torch.Tensor"),
    ],
)
def test_contexts_that_are_none_are_refused(context, error, message):
    with pytest.raises(error, match=message):
        potential().bind(context)


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"layers": 0}, {"embedding": 0}, {"gain": 0.0}, {"activation": "relu"}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InvalidInput, match=next(iter(options))):
        PartiallyConvexPotential(3, 2, **options, generator=generator())
