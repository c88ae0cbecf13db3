"""Conditional toys and the autoencoder's bound: densities that integrate to one, the closed form of a Gaussian's KL."""

import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def figures():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        from figures import cp_conditional, cp_vae
    finally:
        sys.path.remove(folder)
    return cp_conditional, cp_vae


def test_conditional_truths_integrate_to_one_and_are_those_of_their_samples(figures):
    conditional, _ = figures
    axis = torch.linspace(-7, 7, 281, dtype=torch.float64)
    cell = float(axis[1] - axis[0])
    for name, toy in conditional.TOYS.items():
        x, context = toy.draw(4000, torch.Generator().manual_seed(0))
        grid = torch.cartesian_prod(*[axis] * toy.features).view(-1, toy.features)
        densities = toy.log_prob(grid, context[:1].expand(len(grid), -1)).exp() * cell**toy.features
        assert abs(float(densities.sum()) - 1) < 1e-3, name
        same = (context == context[0]).all(1) if name == "pairs" else (context[:, 0] - context[0, 0]).abs() < 0.05
        second = float((densities[:, None] * grid.square()).sum())
        found = float(x[same].double().square().sum(1).mean())
        assert abs(second - found) < 0.1 * second, name


def test_the_kl_term_of_a_gaussian_posterior_is_its_closed_form(figures):
    _, vae = figures
    model = vae.Autoencoder("gaussian", torch.full((vae.PIXELS,), 0.2), seed=0)
    (affine,) = model.posterior.transforms
    with torch.no_grad():
        affine.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
        x = torch.bernoulli(torch.full((1, vae.PIXELS), 0.2), generator=torch.Generator().manual_seed(2))
        torch.manual_seed(0)
        images = x.expand(4000, -1)
        kl = model.bound(images, 0.0).mean() - model.bound(images, 1.0).mean()
        mean, log_scale = (model.encoder(x) @ affine.weight.T + affine.bias).chunk(2, 1)
        exact = (mean.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum() / 2
    assert abs(float(kl - exact)) < 0.05 * float(exact) and float(exact) > 3


def test_a_flow_posterior_starts_as_good_as_its_gaussian(figures):
    _, vae = figures
    average = torch.full((vae.PIXELS,), 0.2)
    x = torch.bernoulli(average.expand(200, -1), generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    with torch.no_grad():
        found = [float(vae.Autoencoder(kind, average, seed=0).bound(x).mean()) for kind in ("gaussian", "cp-flow")]
    assert abs(found[0] - found[1]) < 10
