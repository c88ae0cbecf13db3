"""Conditional flows: laws of the bound flow, sample by sample, and densities that depend on their context."""

import math

import pytest
import torch

from isingflow.errors import InvalidInput, WrongType
from isingflow.flows import (
    ActNorm,
    ConditionalAffine,
    ConditionalConvexFlow,
    ConditionalFlow,
    LanczosLogdet,
)
from isingflow.potentials import PartiallyConvexPotential
from isingflow.testing import FLOW_LAWS, check_flow, check_transform
from isingflow.testing.laws import shaken


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def potential(seed: int = 0, **options) -> PartiallyConvexPotential:
    return PartiallyConvexPotential(2, 3, width=5, embedding=4, generator=generator(seed), **options)


def flow(seed: int = 0, *, inverted: bool = False, tolerance: float = 1e-8) -> ConditionalFlow:
    norm = ActNorm((2,))
    norm.inverse(1.5 * torch.randn(50, 2, generator=generator(seed)))
    convex = ConditionalConvexFlow(potential(seed), inverted=inverted, tolerance=tolerance)
    maps = [convex, norm, ConditionalAffine(2, 3)]
    return shaken(ConditionalFlow(2, maps), 0.3, seed).eval()


ONE = torch.tensor([[0.4, -1.0, 0.7]])
every_direction = pytest.mark.parametrize("inverted", [False, True], ids=["forward", "inverted"])


@every_direction
def test_a_bound_flow_keeps_the_laws(inverted):
    """In double precision with tight inverses; those that ask for single precision with inverses that it reaches."""
    single = ["shapes", "samples"]
    check_flow(flow(inverted=inverted, tolerance=1e-4).bind(ONE), tolerance=1e-3, laws=single)
    others = [law for law in FLOW_LAWS if law not in single]
    check_flow(flow(inverted=inverted, tolerance=1e-10).bind(ONE), tolerance=1e-8, laws=others)


def test_conditional_maps_keep_the_laws():
    affine = shaken(ConditionalAffine(3, 2), 0.5, 0)
    check_transform(affine.bind(torch.tensor([[0.3, -2.0]])), (3,))


@every_direction
def test_every_sample_has_the_density_of_its_own_context(inverted):
    made, x, context = flow(inverted=inverted), randn(4, 2), randn(4, 3, seed=1)
    together = made.log_prob(x, context)
    alone = [made.log_prob(x[row : row + 1], context[row : row + 1]) for row in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=1e-6)
    assert float((made.log_prob(x[:1].expand(4, -1), context).diff()).abs().min()) > 1e-4


@every_direction
def test_densities_integrate_to_one_for_every_context(inverted):
    made = flow(inverted=inverted)
    axis = torch.linspace(-9, 9, 121, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    for context in randn(2, 3, seed=2):
        with torch.no_grad():
            bound = made.bind(context[None])
            samples = bound.sample(500, generator=generator())[0]
            scale = float(samples.std(0).max())
            total = bound.log_prob(samples.mean(0) + scale * grid).exp().sum() * (scale * float(axis[1] - axis[0])) ** 2
        assert abs(float(total) - 1) < 2e-3


def test_samples_have_the_density_that_is_told():
    made, context = flow(), randn(6, 3, seed=1)
    x, log_prob = made.sample(context, generator=generator())
    torch.testing.assert_close(made.log_prob(x, context), log_prob, rtol=1e-6, atol=1e-6)
    assert torch.equal(made.sample(context, generator=generator())[0], x)


def test_what_flows_back_to_contexts_is_their_derivative():
    made = flow()

    def outcome(context):
        return made.sample(context, generator=generator())

    assert torch.autograd.gradcheck(outcome, randn(3, 3, seed=1).requires_grad_())


def test_an_affine_map_alone_is_the_gaussian_of_its_context():
    affine = shaken(ConditionalAffine(2, 3), 0.5, 1)
    x, context = randn(5, 2), randn(5, 3, seed=1)
    centre, log_scale = (context @ affine.weight.T + affine.bias).chunk(2, 1)
    expected = torch.distributions.Normal(centre, log_scale.exp()).log_prob(x).sum(1)
    torch.testing.assert_close(ConditionalFlow(2, [affine]).log_prob(x, context), expected)


def test_a_label_decides_the_density_after_training():
    """Two labels, two Gaussians of other widths: a few steps reach their entropies."""
    potential = PartiallyConvexPotential(1, 2, width=8, layers=1, generator=generator())
    made = ConditionalFlow(1, [ConditionalConvexFlow(potential, inverted=True)])
    optimiser, source = torch.optim.Adam(made.parameters(), 3e-2), generator(1)
    spreads = torch.tensor([0.5, 2.0])
    for _ in range(120):
        labels = torch.randint(2, (128,), generator=source)
        x = (2 * labels - 1 + spreads[labels] * torch.randn(128, generator=source))[:, None]
        loss = -made.log_prob(x, torch.eye(2)[labels]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for label, spread in enumerate(spreads):
        x = 2 * label - 1 + spread * torch.randn(4000, 1, generator=source)
        with torch.no_grad():
            found = float(-made.log_prob(x, torch.eye(2)[label : label + 1]).mean())
        assert abs(found - math.log(float(spread) * math.sqrt(2 * math.pi * math.e))) < 0.06


def test_stochastic_determinants_can_be_had():
    made = ConditionalFlow(2, [ConditionalConvexFlow(potential(), logdet=LanczosLogdet(2, steps=2))])
    x, context = torch.randn(3, 2, generator=generator()), torch.randn(3, 3, generator=generator(1))
    exact = ConditionalFlow(2, [ConditionalConvexFlow(potential())])
    torch.testing.assert_close(made.log_prob(x, context), exact.log_prob(x, context), rtol=0.2, atol=0.5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ConditionalFlow(2, []), InvalidInput, "contexts of no entries"),
        (lambda: ConditionalFlow(2, [ActNorm((2,))]), InvalidInput, "contexts of no entries"),
        (lambda: ConditionalFlow(2, [ConditionalAffine(2, 1), ConditionalAffine(2, 3)]), InvalidInput, r"\[1, 3\]"),
        (lambda: ConditionalFlow(2, [torch.nn.Identity()]), WrongType, "a map of the flow"),
        (lambda: ConditionalFlow(0, [ConditionalAffine(2, 1)]), InvalidInput, "features is 0"),
        (lambda: flow().log_prob(randn(4, 2), randn(3, 3)), InvalidInput, "4 samples with 3 contexts"),
        (lambda: flow().log_prob(randn(4, 2), randn(4, 2)), InvalidInput, r"context has shape \(4, 2\)"),
        (lambda: ConditionalConvexFlow(ActNorm((2,))), WrongType, "a PartiallyConvexPotential"),
    ],
)
def test_what_is_no_conditional_flow_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
