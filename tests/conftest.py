"""What every test shares: few threads, no display, and property tests that do not depend on the machine's speed."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import torch
from hypothesis import settings

# The tests' tensors are small; more threads cost more than they give. Tests of threads set their own number.
torch.set_num_threads(1)

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items):
    """The longest tests, whole pages of documentation, first: begun last, they would leave all workers but one idle."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")
