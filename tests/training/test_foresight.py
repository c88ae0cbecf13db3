"""Memory and time before a training, not after: what cannot fit is refused with the estimate, and nothing is left."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from msgspec.structs import replace

import isingflow
from isingflow import cli
from isingflow.architectures.base import Domain
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.architectures.start import blank_start
from isingflow.datasets import load
from isingflow.errors import InvalidInput
from isingflow.lattice import Group, square
from isingflow.runs.config import DensityConfig, RunConfig, TrainingConfig
from isingflow.runtime import resources
from isingflow.runtime.parallel import Workers
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training import foresight
from isingflow.training.foresight import STATES, foresee, measured
from isingflow.training.problems import problem_of

CPU = torch.device("cpu")


def problem(preset="quick", size=16, flow="monge-ampere", **training):
    config = RunConfig.from_preset(preset, square(size), 0.44, flow=flow)
    return problem_of(replace(config, training=replace(config.training, coarse=None, **training)), device=CPU)


MEASURE = textwrap.dedent(
    """
    import sys
    import torch
    torch.set_num_threads(1)
    from test_foresight import problem
    from isingflow.runtime.parallel import Workers
    from isingflow.training.foresight import measured

    def status(name):
        return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

    flow, size, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    trained = problem(size=size, flow=flow, batch=batch)
    foreseen, before = measured(trained, Workers(1)).memory, status("VmRSS")
    samples = trained.batch(batch, torch.Generator().manual_seed(1))
    torch.autograd.grad(trained.objective(samples)[0], list(trained.flow.parameters()))
    print(foreseen, status("VmHWM") - before)
    """
)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")
@pytest.mark.parametrize(
    ("flow", "size", "batch"),
    [
        ("monge-ampere", 16, 96),
        pytest.param("monge-ampere", 24, 96, marks=pytest.mark.slow),
        ("ot", 8, 48),
        pytest.param("ot", 16, 48, marks=pytest.mark.slow),
    ],
)
def test_the_memory_is_that_which_a_gradient_takes(flow, size, batch):
    """Within a factor, in a process without a past, and at most what is taken: nothing that would fit is refused."""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, flow, str(size), str(batch)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    foreseen, taken = map(float, found.split())
    assert 0.3 * taken < foreseen < 1.2 * taken, found


@pytest.mark.parametrize("flow", ["monge-ampere", "ot"])
def test_memory_grows_with_the_batch_and_leaves_the_problem_as_it_was(flow):
    small, large = problem(flow=flow, batch=64), problem(flow=flow, batch=640)
    before = {name: value.clone() for name, value in small.flow.state_dict().items()}
    ratio = measured(large, Workers(1)).memory / measured(small, Workers(1)).memory
    assert 7 < ratio < 10.5
    assert all(torch.equal(value, before[name]) for name, value in small.flow.state_dict().items())
    assert small.flow.training and all(parameter.grad is None for parameter in small.flow.parameters())


def test_time_and_memory_are_those_of_two_samples_drawn_out(monkeypatch):
    monkeypatch.setattr(foresight, "_remembered", lambda problem, pool, samples: (50.0 + 50 * samples, 1.0 + samples))
    trained = problem(batch=9, iterations=10)
    needs = measured(trained, Workers(1))
    assert needs.memory == 100 + 8 * 50 + STATES * 4 * trained.flow.parameter_count
    assert needs.seconds == pytest.approx(10 * (2 + 8))
    staged = RunConfig.from_preset("accurate", square(64), 0.44)
    share = measured(problem_of(staged, device=CPU), Workers(1)).seconds / (
        staged.training.iterations * (2 + staged.training.batch - 1)
    )
    assert share > 1.2, "smaller lattices take time too"


def test_what_cannot_fit_is_refused_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(foresight, "free_memory", lambda: 2**20)
    target = HubbardStratonovich(square(16), 0.44)
    with pytest.raises(InvalidInput, match=r"batches of 64 on periodic 16x16 needs at least .* 1 MiB are free"):
        isingflow.train(target, flow="ot", output=tmp_path / "run", iterations=3, progress=False)
    assert not list(tmp_path.iterdir())
    command = ["train", "--size", "24", "--steps", "3", "--device", "cpu", "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(cli.main, command)
    assert result.exit_code == 2 and not list(tmp_path.iterdir())
    assert "isingflow: error: a training with batches of 21 on periodic 24x24 needs" in result.stderr


def test_a_batch_that_nobody_can_hold_is_refused(tmp_path):
    data = load("moons")
    config = DensityConfig.from_preset("quick", data, iterations=2)
    config = replace(config, training=replace(config.training, batch=10**9))
    with pytest.raises(InvalidInput, match="batches of 1000000000 on moons"):
        foresee(problem_of(config, device=CPU, data=data))


def test_a_long_training_says_how_long(monkeypatch, caplog):
    caplog.set_level("INFO", "isingflow")
    trained = problem(batch=64, iterations=10**9)
    foresee(trained)
    assert "takes about" in caplog.text and "on this machine" in caplog.text
    caplog.clear()
    foresee(trained, time_limit=60.0)
    foresee(problem(batch=64, iterations=2))
    assert foresee(problem(size=4, iterations=10**9)) is None
    assert not caplog.text


@pytest.mark.parametrize(
    ("settings", "free"),
    [
        (FlowConfig(potential="dense", hidden=2**16), 2**20),
        (OTFlowConfig(width=2**16, layers=1000), 2**40),
        (ConvexFlowConfig(width=2**16, layers=1000, blocks=1000), 2**45),
    ],
    ids=["dense", "ot", "convex"],
)
def test_networks_that_nobody_can_hold_are_refused_before_they_are_built(monkeypatch, settings, free):
    monkeypatch.setattr(resources, "free_memory", lambda: free)
    for domain in (Domain((4, 4), Group((4, 4), flip=True)), Domain.of_data(16)):
        with pytest.raises(InvalidInput, match=r"a flow of .* parameters needs"):
            settings.build(domain, torch.Generator())


def test_data_of_dimensions_that_nobody_can_hold_are_refused():
    with pytest.raises(InvalidInput, match="a Gaussian in 1000000000 dimensions needs"):
        blank_start("gaussian", 10**9)


def test_presets_are_small_enough_for_their_lattices():
    assert foresee(problem(size=16)) is None, "the default is not measured"
    assert TrainingConfig().batch * 16 * 16 <= foresight.SMALL
