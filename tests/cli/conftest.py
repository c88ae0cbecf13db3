"""What the tests of the command line share: an empty folder for each, cheap reports, and one run."""

from dataclasses import replace

import msgspec
import pytest
from click.testing import CliRunner

from isingflow import cli
from isingflow.runs.config import PRESETS


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True, scope="package")
def small_reports():
    """Trainings that end with an evaluation on few samples."""
    quick = PRESETS["quick"]
    PRESETS["quick"] = replace(quick, training=msgspec.structs.replace(quick.training, evaluation_samples=512))
    yield
    PRESETS["quick"] = quick


@pytest.fixture(scope="package")
def training(tmp_path_factory, small_reports):
    """A trained run of the 4x4 torus, of which only the report may change, and what its command printed."""
    path = tmp_path_factory.mktemp("cli") / "run"
    words = ["train", "--size", "4", "--steps", "5", "--device", "cpu", "--output", str(path)]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 0, result.output
    return path, result


@pytest.fixture
def trained(training):
    return training[0]
