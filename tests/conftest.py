"""What every test shares: few threads, no display, property tests that do not depend on the machine's speed; a run."""

import os
import signal
from contextlib import contextmanager
from dataclasses import replace

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of numpy, and of processes that tests start
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
import pytest
import torch
from click.testing import CliRunner
from hypothesis import settings

# What starts the tests in the background may have signals ignored, by them and by all processes that they start.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# The tests' tensors are small; more threads cost more than they give. Tests of threads set their own number.
torch.set_num_threads(1)

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items):
    """The longest tests, whole pages of documentation, first: begun last, they would leave all workers but one idle."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")


@contextmanager
def evaluated_on_few_samples():
    from isingflow.runs.config import PRESETS

    quick = PRESETS["quick"]
    PRESETS["quick"] = replace(quick, training=msgspec.structs.replace(quick.training, evaluation_samples=512))
    yield
    PRESETS["quick"] = quick


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """The working directory of a test that asks for it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def small_reports():
    """Quick trainings end with an evaluation on few samples."""
    with evaluated_on_few_samples():
        yield


@pytest.fixture(scope="session")
def training(tmp_path_factory):
    """A trained run of the 4x4 torus, of which only the report may change, and what its command printed."""
    from isingflow import cli

    path = tmp_path_factory.mktemp("training") / "run"
    words = ["train", "--size", "4", "--steps", "5", "--device", "cpu", "--output", str(path)]
    with evaluated_on_few_samples():
        result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 0, result.output
    return path, result
