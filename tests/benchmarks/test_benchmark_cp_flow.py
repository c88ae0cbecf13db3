"""The items of CP-Flow: the maps that they compare, and the memory that they count."""

import sys
from pathlib import Path

import pytest
import torch

from isingflow.testing import check_transform


@pytest.fixture(scope="module")
def cp_flow():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        from figures import cp_flow
    finally:
        sys.path.remove(folder)
    return cp_flow


def test_the_autoregressive_map_is_a_transform(cp_flow):
    convex = sys.modules["convex"]
    check_transform(convex.Triangular(3), (3,), other=convex.Triangular(3))


def test_memory_counts_each_storage_once(cp_flow):
    """y = x x keeps x alone; of exp it keeps the result."""
    x = torch.ones(1000, requires_grad=True)
    assert cp_flow.kept(lambda: x * x) == 4000
    assert cp_flow.kept(lambda: (x.exp() * x).sum()) == 8000
