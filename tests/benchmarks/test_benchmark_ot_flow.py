"""The items of OT-Flow: the distance by which codes are judged, paths of a standard flow, runs that a file holds."""

import json
import sys
from pathlib import Path

import pytest
import torch
from scipy.linalg import sqrtm

from isingflow import datasets


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


def test_the_distance_of_features_is_its_formula():
    from figures.ot_codes import frechet

    generator = torch.Generator().manual_seed(0)
    mixed = [torch.randn(n, 6, generator=generator) @ torch.randn(6, 6, generator=generator) for n in (500, 400)]
    first, second = (features.double() + shift for features, shift in zip(mixed, (0.0, 1.0), strict=True))
    a, b = (features.T.cov() for features in (first, second))
    expected = (first.mean(0) - second.mean(0)).square().sum() + (a + b).trace()
    expected -= 2 * sqrtm((a @ b).numpy()).real.trace()
    assert frechet(first, second) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet(first, first) == pytest.approx(0, abs=1e-6)


def test_paths_of_the_standard_flow_end_where_its_samples_do():
    from figures.ot_flow import _integrated
    from toys import StandardCNF

    cnf = StandardCNF(datasets.load("moons", seed=3), 3, batch=32, rate=1e-2)
    for _ in range(3):
        cnf.step()
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    path = _integrated(cnf.flow.transform().f, noise)
    assert path.shape == (33, 20, 2) and torch.equal(path[0], noise)
    with torch.no_grad():
        expected = cnf.flow().transform.inv(noise)
    assert (expected - noise).abs().max() > 0.05
    torch.testing.assert_close(path[-1], expected, atol=1e-4, rtol=0)


def test_runs_of_other_settings_are_not_taken_up(tmp_path):
    from toys import earlier

    settings = {"budget": 30.0, "rate": 0.01}
    assert earlier(tmp_path / "none.json", settings) == []
    file = tmp_path / "toys.json"
    file.write_text(json.dumps({**settings, "runs": [{"toy": "moons"}]}))
    assert earlier(file, settings) == [{"toy": "moons"}]
    assert earlier(file, settings | {"rate": 0.001}) == []
