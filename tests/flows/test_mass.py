"""Total mass and inverse error of flows, against sums over a fine grid of x."""

import math

import pytest
import torch

from isingflow.errors import InvalidInput
from isingflow.flows import ConvexFlow, Flow, GaussianWhitening, GradientFlow
from isingflow.flows.mass import defect, mass
from isingflow.potentials import ConvexPotential, DensePotential


def moving(dimension, *, steps, tableau, size=0.5):
    generator = torch.Generator().manual_seed(2)
    potential = DensePotential((dimension,), hidden=6, generator=generator)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.normal_(generator=generator).mul_(size)
    return Flow((dimension,), [GradientFlow(potential, steps=steps, tableau=tableau)]).eval()


def summed(flow, reach, points):
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * flow.dimension).view(-1, flow.dimension).float()
    with torch.no_grad():
        density = torch.cat([flow.log_prob(x) for x in grid.split(20_000)]).exp()
    return float(density.sum() * (axis[1] - axis[0]) ** flow.dimension)


@pytest.mark.parametrize(("dimension", "points"), [(1, 20_001), (2, 501)])
@pytest.mark.parametrize(("tableau", "steps"), [("euler", 4), ("rk4", 1), ("rk4", 12)])
def test_the_mass_is_that_of_a_fine_sum(dimension, points, tableau, steps):
    flow = moving(dimension, steps=steps, tableau=tableau)
    expected = summed(flow, 9.0, points)
    assert mass(flow) == pytest.approx(expected, abs=3e-4)
    if tableau == "euler" and dimension == 2:
        assert abs(expected - 1) > 0.01  # there is something to find


def test_a_map_without_error_has_mass_one():
    narrow = GaussianWhitening(torch.tensor([3.0, -40.0]), torch.tensor([[1e-6, 0.0], [0.0, 100.0]]))
    assert mass(Flow((2,), [narrow])) == pytest.approx(1, abs=1e-5)
    convex = ConvexFlow(ConvexPotential((2,), width=8, generator=torch.Generator().manual_seed(0)))
    found = defect(Flow((2,), [convex]), 64)
    assert found.mass == pytest.approx(1, abs=1e-4) and found.inverse_error < 1e-4 and found.nats < 3e-4


def test_the_worse_of_the_two_counts():
    flow = moving(2, steps=2, tableau="euler")
    found = defect(flow, 256)
    assert found.nats == max(abs(found.mass - 1), 2 * found.inverse_error) > 0.01
    assert not flow.training and defect(flow.train(), 8) and flow.training


def test_in_more_dimensions_there_is_the_inverse_alone():
    flow = moving(3, steps=2, tableau="euler")
    assert defect(flow, 16).mass is None and defect(flow, 16).nats > 0
    with pytest.raises(InvalidInput, match="one or two dimensions, not in 3"):
        mass(flow)


def test_what_is_no_number_is_no_density():
    flow = moving(1, steps=2, tableau="rk4")
    with torch.no_grad():
        next(flow.parameters()).fill_(math.nan)
    found = defect(flow, 8)
    assert math.isinf(found.nats)
