"""Flows in time: paths are in the coordinates of the field."""

import networkx
import numpy as np
import pytest
import torch

from isingflow.flows import Flow, GaussianWhitening, GradientFlow
from isingflow.flows.diagnostics import straightness, trajectories
from isingflow.flows.products import fitted_map
from isingflow.lattice import edwards_anderson, from_graph, square, triangular
from isingflow.plots.in_time import evolution, flow_in_time_figure
from isingflow.potentials import DensePotential
from isingflow.runs.config import RunConfig
from isingflow.runs.loading import new_flow

LATTICES = [square(4), square(3, boundary="open"), triangular(3), edwards_anderson(3, seed=0)]
LATTICES.append(from_graph(networkx.petersen_graph()))


def stirred(flow: Flow) -> Flow:
    """With other parameters than those it starts with, which move nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return flow.eval()


def magnet(lattice, flow="monge-ampere") -> tuple[Flow, list]:
    """A flow, and the closed-form maps of its target's start."""
    config = RunConfig.from_preset("quick", lattice, 0.4, flow=flow)
    start = config.target().start()
    return stirred(new_flow(config)), [*start.latent, *start.field]


def through(maps, z):
    for transform in maps:
        z = transform(z)[0]
    return z


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
@pytest.mark.parametrize("flow", ["monge-ampere", "ot"])
def test_trajectories_lead_from_the_start_to_the_samples_in_the_field(lattice, flow):
    flow, start = magnet(lattice, flow)
    z = flow.noise(5, torch.Generator().manual_seed(0))
    (path,) = trajectories(flow, z)
    with torch.no_grad():
        x = flow(z)[0]
        torch.testing.assert_close(path[0], through(start, z))
    torch.testing.assert_close(path[-1], x, atol=2e-3, rtol=2e-3)
    assert (path[-1] - path[0]).abs().max() > 0.05


def test_paths_of_a_chain_join():
    generator = torch.Generator().manual_seed(0)
    first, second = (GradientFlow(DensePotential((2,), 8, generator=generator), steps=8) for _ in range(2))
    whitening = GaussianWhitening(torch.tensor([3.0, -1.0]), torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
    flow = stirred(Flow((2,), [first, second, whitening]))
    z = flow.noise(6, generator)
    one, two = trajectories(flow, z)
    torch.testing.assert_close(one[0], whitening(z)[0])
    torch.testing.assert_close(one[-1], two[0])
    torch.testing.assert_close(two[-1], flow(z)[0].detach(), atol=1e-3, rtol=1e-3)
    # Straightness is that of the paths in their own coordinates: no matter what follows.
    plain = Flow((2,), [first, second]).eval()
    assert straightness(flow, z) == straightness(plain, z)


def test_what_was_fitted_after_the_training_takes_no_time():
    flow, _ = magnet(square(4))
    before = evolution(flow, samples=4)
    found = fitted_map(flow)
    found.potential.choose(torch.full((found.potential.terms,), 1e-3, dtype=torch.float64))
    assert found.potential.fitted and straightness(flow, torch.from_numpy(before.noise)).value >= 1
    after = evolution(flow, samples=4)
    np.testing.assert_array_equal(after.times, before.times)
    assert after.times[-1] == 1 and not after.straight
    assert np.abs(after.field - before.field).max() > 1e-4
    with torch.no_grad():
        np.testing.assert_allclose(after.field[-1], flow(torch.from_numpy(before.noise))[0], atol=1e-4)


@pytest.mark.parametrize(("shape", "samples"), [((4,), 64), ((64, 64), 64), ((128, 128), 16), ((512, 512), 8)])
def test_of_large_fields_fewer_samples_are_shown(shape, samples):
    assert evolution(Flow(shape, [])).noise.shape == (samples, *shape)


@pytest.mark.parametrize(("steps", "points"), [(1, 25), (5, 26), (24, 25), (40, 41)])
def test_ways_have_points_enough_and_no_step_is_refined_for_nothing(steps, points):
    generator = torch.Generator().manual_seed(0)
    flow = stirred(Flow((2,), [GradientFlow(DensePotential((2,), 8, generator=generator), steps=steps)]))
    found = evolution(flow, samples=3)
    assert len(found.times) == points
    with torch.no_grad():
        np.testing.assert_allclose(found.field[-1], flow(torch.from_numpy(found.noise))[0], atol=1e-2)


def test_flows_without_a_path_go_straight():
    flow, start = magnet(square(4), "convex")
    found = evolution(flow, samples=4)
    z = torch.from_numpy(found.noise)
    assert found.straight
    with torch.no_grad():
        np.testing.assert_allclose(found.field[0], through(start, z), atol=1e-5)
        np.testing.assert_allclose(found.field[-1], flow(z)[0], atol=1e-5)
    np.testing.assert_allclose(found.field[2], (found.field[0] + found.field[-1]) / 2, atol=1e-5)


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_the_figure_shows_noise_times_and_spins(lattice):
    flow, _ = magnet(lattice)
    found = evolution(flow, samples=8)
    figure = flow_in_time_figure(found, lattice, spins=True)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["noise z", "t = 0", "t = 0.25", "t = 0.5", "t = 0.75", "t = 1", "spins"]
    magnetisation = figure.axes[-1]
    assert magnetisation.get_ylabel() == "m = mean of tanh x"
    *lines, mean = (line.get_ydata() for line in magnetisation.lines)
    m = np.tanh(found.field.reshape(len(found.times), 8, -1)).mean(2)
    np.testing.assert_allclose(np.stack(lines, axis=1), m, rtol=1e-6)
    np.testing.assert_allclose(mean, np.sqrt(np.mean(m**2, axis=1)), rtol=1e-6)
    figure.draw_without_rendering()


def test_fields_of_any_shape_have_a_figure():
    for shape in ((1,), (6,), (2, 3, 4)):
        flow = Flow(shape, [])
        figure = flow_in_time_figure(evolution(flow, samples=20))
        assert figure.axes[0].get_title() == "noise z"
        figure.draw_without_rendering()
