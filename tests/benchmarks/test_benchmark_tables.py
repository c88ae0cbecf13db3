"""OT-Flow's table: generated densities that are what they say, and the discrepancy of its code."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from isingflow.datasets.uci import UCIS
from isingflow.runs.data_presets import UCI_PRESETS, data_presets


@pytest.fixture(scope="module")
def tables():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        from figures import tables
    finally:
        sys.path.remove(folder)
    return tables


def test_generated_densities_are_those_of_their_rows(tables):
    """In the plane: they integrate to one, and boxes hold as many rows as they should."""
    rows, log_prob = tables.generated(2, 100_000)
    low, high = rows.min(0) - 2, rows.max(0) + 2
    axes = [np.linspace(low[j], high[j], 401) for j in range(2)]
    centres = np.stack(np.meshgrid(*[(axis[1:] + axis[:-1]) / 2 for axis in axes], indexing="ij"), -1)
    density = log_prob(torch.from_numpy(centres.reshape(-1, 2))).exp().numpy()
    parts = density * np.prod((high - low) / 400)
    assert parts.sum() == pytest.approx(1, abs=2e-3)
    expected = parts.reshape(20, 20, 20, 20).sum((1, 3))
    found = np.histogram2d(*rows.T, [axis[::20] for axis in axes])[0] / len(rows)
    assert (np.abs(found - expected) < 5 * np.sqrt(expected / len(rows)) + 2e-4).all()


@pytest.mark.parametrize("dimension", [6, 21])
def test_generated_densities_are_repeated_by_their_seed(tables, dimension):
    """Their logarithms are finite and smooth at all rows, and the same for the same seed."""
    rows, log_prob = tables.generated(dimension, 1000)
    x = torch.from_numpy(rows)
    gradient = torch.autograd.functional.jacobian(lambda y: log_prob(y[None])[0], x[0])
    step = 1e-6 * torch.ones(dimension, dtype=torch.float64)
    difference = (log_prob((x[0] + step)[None]) - log_prob((x[0] - step)[None]))[0] / 2
    assert log_prob(x).isfinite().all() and (gradient @ step).item() == pytest.approx(difference.item(), rel=1e-3)
    assert np.array_equal(rows, tables.generated(dimension, 1000)[0])
    assert not np.array_equal(rows, tables.generated(dimension, 1000, seed=1)[0])


def test_the_discrepancy_is_that_of_all_pairs(tables):
    x, y = (torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).double() for n in (7, 9))
    y = 2 * y + 0.5

    def pairs(a, b, own):
        kernel = [[np.exp(-0.7 * ((p - q) ** 2).sum().item()) for q in b] for p in a]
        values = [kernel[i][j] for i in range(len(a)) for j in range(len(b)) if not (own and i == j)]
        return sum(values) / len(values)

    expected = pairs(x, x, True) + pairs(y, y, True) - 2 * pairs(x, y, False)
    assert tables.discrepancy(x, y, 0.7) == pytest.approx(expected, rel=1e-10)
    assert tables.discrepancy(x, x + 1e-12, 0.7) < 0 < tables.discrepancy(x, y + 9, 0.7)


def test_published_settings_are_presets_of_their_sets_alone():
    assert set(UCI_PRESETS) == set(UCIS)
    for name, description in UCIS.items():
        assert "paper" in data_presets(name, description.columns, False)["ot"]
    assert "paper" not in data_presets("measurements.csv", 6, False)["ot"]
    power = UCI_PRESETS["power"]
    assert (power.flow.width, power.flow.steps, power.training.batch) == (128, 10, 10_000)
    assert (power.training.transport_cost, power.training.hjb) == (1 / 500, 5 / 500)
