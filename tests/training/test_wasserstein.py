"""Wasserstein training: the distance against closed forms, and a flow that learns where the mass is."""

import pytest
import torch

from isingflow import datasets
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.training.loop import fit
from isingflow.training.wasserstein import WassersteinDistance, sliced_wasserstein


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow  # ten seconds of distances
def test_distances_of_shifted_and_stretched_normals():
    """W^2 of N(m, s^2) and N(0, 1) in one dimension is m^2 + (s - 1)^2; a mean over directions of m divides by d."""
    x, y = (torch.randn(20_000, 1, dtype=torch.float64, generator=generator(s)) for s in (0, 1))
    assert float(sliced_wasserstein(2 + 3 * x, y, generator())) == pytest.approx(8, abs=0.15)
    x, y = (torch.randn(5_000, 4, dtype=torch.float64, generator=generator(s)) for s in (0, 1))
    shift = torch.tensor([2.0, 0.0, 0.0, 0.0])
    assert float(sliced_wasserstein(x + shift, y, generator(), 4000)) == pytest.approx(1, abs=0.1)


def test_order_does_not_matter_and_equal_samples_are_at_zero():
    x = torch.randn(50, 3, generator=generator())
    assert float(sliced_wasserstein(x, x[torch.randperm(50, generator=generator())], generator())) == 0


def test_a_flow_learns_where_the_mass_is(tmp_path):
    data = datasets.load("moons", seed=0)
    config = DensityConfig.from_preset("quick", data, seed=0, iterations=60)
    problem = WassersteinDistance(data, config, device=torch.device("cpu"))

    def distance():
        y = data.test.draw(1000, generator(1))
        with torch.no_grad():
            return float(sliced_wasserstein(problem.flow.sample(1000, generator=generator(2))[0], y, generator(3)))

    before = distance()
    fit(RunFolder.create(tmp_path / "run", config), problem)
    assert distance() < 0.7 * before
    losses = [record["negative_log_likelihood"] for record in RunFolder.open(tmp_path / "run").metrics()]
    assert all(value == value for value in losses)
