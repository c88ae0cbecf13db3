"""The comparison with a standard continuous flow: a fair clock, densities, levels that were really reached."""

import math
import sys
from pathlib import Path

import pytest
import torch

from isingflow import datasets
from isingflow.architectures.start import fitted_start
from isingflow.flows import Flow
from isingflow.runs.settings import LOOSENESS


@pytest.fixture(scope="module")
def toys():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import toys
    finally:
        sys.path.remove(folder)
    return toys


@pytest.fixture(scope="module")
def raced(toys):
    data = datasets.load("moons", seed=7)
    ot = toys.OTFlow(data, 7, iterations=10, batch=32, check_every=5)
    cnf = toys.StandardCNF(data, 7, batch=32, rate=1e-2)
    x = next(data.test.batches(200, torch.Generator()))
    return ot, cnf, x, toys.race(ot, cnf, x, budget=1.0, checks=5)


def test_both_have_their_whole_course(toys, raced):
    ot, cnf, x, curves = raced
    assert ot.done and ot.iteration == 10 and cnf.seconds >= 1.0
    assert len(curves["ot"]) == 5 and 1 <= len(curves["cnf"]) <= 5
    for contestant, curve in ((ot, curves["ot"]), (cnf, curves["cnf"])):
        seconds, values = zip(*curve, strict=True)
        assert list(seconds) == sorted(seconds) and seconds[-1] == contestant.seconds
        assert values[-1] == toys.loss(contestant, x)


def test_the_standard_flow_is_a_density(raced):
    """It integrates to one, on a grid that holds the moons with room to spare."""
    _, cnf, _, _ = raced
    grid = torch.linspace(-9, 9, 91)
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        total = cnf.log_prob(points).double().exp().sum() * (grid[1] - grid[0]).double() ** 2
    assert total.item() == pytest.approx(1, abs=1e-2)


def test_the_two_start_alike(toys):
    data = datasets.load("moons", seed=7)
    x = next(data.test.batches(200, torch.Generator()))
    ot, cnf = toys.OTFlow(data, 7), toys.StandardCNF(data, 7, batch=32, rate=1e-2)
    gaussian = Flow((2,), fitted_start(data, "gaussian", torch.Generator().manual_seed(7)))
    with torch.no_grad():
        expected = -gaussian.log_prob(x).mean().item()
    assert abs(toys.loss(ot, x) - expected) < 0.2
    assert abs(toys.loss(cnf, x) - expected) < 0.5


def test_steps_follow_the_error(toys):
    data = datasets.load("moons", seed=7)
    ot = toys.OTFlow(data, 7, iterations=4, batch=32, check_every=2, tolerance=1e-9 / LOOSENESS)
    (gradient,) = toys.gradient_flows(ot.flow)
    before = gradient.steps
    while not ot.done:
        ot.step()
    assert gradient.steps == 4 * before


def test_levels_are_reached_at_or_below(toys):
    curve = [(1.0, 3.0), (2.0, 2.5), (3.0, 2.0)]
    assert [toys.reached(curve, level) for level in (3.5, 2.5, 2.4, 1.9)] == [1.0, 2.0, 3.0, None]


def test_times_and_paths(toys, raced):
    ot, cnf, x, _ = raced
    times = toys.sampling_times(ot, cnf, repeats=1)
    assert set(times) == {"ot", "cnf", "cnf_with_log_prob"} and min(times.values()) > 0
    (gradient,) = toys.gradient_flows(ot.flow)
    before = gradient.steps
    quality = toys.path_quality(ot.flow, x, 7)
    assert gradient.steps == before == quality["steps_in_training"]
    gradient.steps = 8
    z = ot.flow.noise(toys.PATHS, torch.Generator().manual_seed(9))
    with torch.no_grad():
        back = ot.flow.inverse(ot.flow(z)[0])[0]
    gradient.steps = before
    error = ((back - z).norm(dim=1) / z.norm(dim=1)).mean().item()
    assert quality["inverse_error_8_steps"] == pytest.approx(error, rel=1e-2)
    assert quality["straightness"] >= 1 - 1e-6
    assert 1 <= quality["steps_for_0.05_nats"] <= quality["steps_for_0.01_nats"]


def test_medians_count_a_level_never_reached(toys):
    run = {"sampling_ratio": 2.0, "sampling_ratio_with_log_prob": 3.0, "paths": {"straightness": 1.0}}
    run |= {kind: {"negative_log_likelihood": 1.0} for kind in ("ot", "cnf")}
    found = toys.medians([run | {"training_ratio": ratio} for ratio in (None, None, 30.0)])
    assert found["training_ratio"] == 0.0 and math.isclose(found["sampling_ratio"], 2.0)
