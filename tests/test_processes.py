"""Many processes that train one flow: that they do what one does, decide the same, and stop together."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks
import torch
from launching import SCRIPT, WORLD, ended, started, wait_for

import isingflow
from isingflow.errors import InvalidInput
from isingflow.runs.folder import RunFolder
from isingflow.runtime import launched
from isingflow.runtime.parallel import Workers
from isingflow.training.objectives import reverse_kl
from isingflow.training.problems import problem_of
from isingflow.training.trainer import Trainer

CPU = torch.device("cpu")


def command_line(folder, *more, iterations=10**6):
    settings = [f"{name}={value}" for name, value in ranks.SMALL.items()]
    command = ["train", "--size", 4, "--beta", 0.3, "--steps", iterations, "--output", folder]
    return ["-m", "isingflow.cli", *command, *(word for setting in settings for word in ("--set", setting)), *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes have done all that `ranks` knows, and this one what it says to be compared with."""
    folder = tmp_path_factory.mktemp("processes")
    torch.set_num_threads(1)
    ranks.trained(folder / "by-one", **ranks.stopped_at(5))
    settings = {"training.gradient": "total", "training.clip": 0.0}
    blank = ranks.trained(folder / "blank", settings=settings, **ranks.stopped_at(1))
    torch.save(torch.randn(7, 4, 4, generator=torch.Generator().manual_seed(3)), folder / "batch.pt")
    torch.save(blank.flow.state_dict(), folder / "flow.pt")
    names = ["backend", "gradient", "straight", "parted", "taken_up", "ended", "kinds"]
    codes, outputs, errors = ended(started([SCRIPT, folder, *names]))
    assert codes == [0, 0], errors
    assert outputs == ("", "")
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What every process has found, by name."""
    one, other = (torch.load(folder / f"{rank}.pt") for rank in range(WORLD))
    return {name: (one[name], other[name]) for name in one}


def test_sums_rows_and_words_of_all(found):
    (one, other) = found["backend"]
    for ours in (one, other):
        assert ours["sums"][0].tolist() == [3.0, 6.0] and ours["sums"][1].tolist() == [[2.0, 2.0]] * 2
        assert ours["gathered"].tolist() == [[0.0, 0.0]] * 4 + [[1.0, 1.0]] * 3
        assert ours["unequal"].tolist() == [0, 0, 1, 1, 1]
        assert ours["spread"].tolist() == [0.0]
        assert ours["error"] == ("IsingflowError", "no more") and ours["again"] == 4 and ours["long"] == "x" * 10**5
        assert ours["stopped"] == signal.SIGTERM
    assert one["sums"][0].dtype == torch.float32 and one["sums"][1].dtype == torch.float64
    assert torch.cat([one["part"], other["part"]]).tolist() == list(range(7))
    assert one["first"] == other["first"] and one["clock"] == other["clock"]
    assert not torch.equal(one["stream"], other["stream"])


def test_the_gradient_is_that_of_the_whole_batch(folder, found):
    (one, other), batch = found["gradient"], torch.load(folder / "batch.pt")
    problem = problem_of(RunFolder.open(folder / "blank").config, device=CPU)
    problem.flow.load_state_dict(torch.load(folder / "flow.pt"))
    trainer = Trainer(RunFolder.open(folder / "blank"), problem, None, Workers(1))
    problem.flow.redraw(trainer.draws)
    problem.flow.train()
    loss, excess = reverse_kl(problem.flow, problem.target, batch, problem.training)
    gradients = torch.autograd.grad(loss, list(problem.flow.parameters()))
    for ours in (one, other):
        assert ours["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
        torch.testing.assert_close(ours["values"], excess, rtol=0, atol=1e-4)
        for theirs, gradient in zip(ours["gradients"], gradients, strict=True):
            torch.testing.assert_close(theirs, gradient, rtol=1e-4, atol=1e-4)
    assert all(map(torch.equal, one["gradients"], other["gradients"]))


def test_all_have_the_same_flow_and_the_first_alone_speaks(folder, found):
    one, other = found["straight"]
    assert one["digest"] == other["digest"] and one["path"] == other["path"] == str(folder / "straight")
    assert one["told"] == list(range(1, 10)) and other["told"] == []
    run = RunFolder.open(folder / "straight")
    assert [line["iteration"] for line in run.metrics()] == list(range(1, 10))
    assert ranks.digest(isingflow.load(run)) == one["digest"]
    assert not list(folder.glob("**/.*.lock")) and not (Path.cwd() / "runs" / "001").exists()


def test_as_many_go_on_bit_for_bit(folder, found):
    straight, parted = found["straight"], found["parted"]
    assert {ours["outcome"] for ours in parted} == {"interrupted"} and parted[0]["begun"] == parted[1]["begun"]
    assert {ours["digest"] for ours in parted} == {straight[0]["digest"]} != {parted[0]["begun"]}
    one, other = (RunFolder.open(folder / name).load_checkpoint()[0] for name in ("straight", "parted"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["generator.noise"], one["generator.noise.1"])


def test_another_number_goes_on(folder, found):
    """Each way the same whenever it is tried, and not what the former number would have come to."""
    straight = found["straight"][0]["digest"]
    again = ranks.digest(ranks.resumed(folder / "for-one").flow)
    one, other = found["taken_up"]
    assert one["digest"] == other["digest"]
    assert len({straight, again, one["digest"]}) == 3
    for name, streams in {"for-one": 1, "by-one": 2}.items():
        tensors, state = RunFolder.open(folder / name).load_checkpoint()
        assert state["iteration"] == 9 and state["finished"]
        assert sum(name.startswith("generator.noise") for name in tensors) == streams


def test_they_end_and_fail_together(folder, found):
    one, other = found["ended"]
    assert one["outcome"] == other["outcome"] == "stopped by a callback"
    assert one["limit"] == other["limit"] == "time limit"
    for name, kind, words in (
        ("callback", "ZeroDivisionError", "a callback of mine"),
        ("exists", "RunFolderError", "exists"),
        ("small", "InvalidInput", "cannot be shared by 2 processes"),
        ("diverged", "TrainingDiverged", "iteration"),
    ):
        for ours in (one, other):
            assert ours[name][0] == kind and words in ours[name][1]
    assert RunFolder.open(folder / "failed").load_checkpoint()[1]["iteration"] == 1
    assert not (folder / "small").exists()
    assert one["report"] == other["report"] == 16 and (one["plot"] > 0, other["plot"]) == (True, 0)


def test_every_kind_of_training_has_one_flow(folder, found):
    (one, resting), (other, _) = found["kinds"]
    assert not resting
    assert one == other and len(set(one.values())) == len(one)
    assert RunFolder.open(folder / "coarse" / "coarse").load_checkpoint()[1]["iteration"] == 3


def test_one_process_that_is_told_to_stop_stops_all(tmp_path):
    run = tmp_path / "run"
    processes = started(command_line(run))
    wait_for(run, 3, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, outputs, errors = ended(processes)
    assert codes == [128 + signal.SIGTERM] * 2 and outputs == ("", "") and errors[1] == ""
    assert "interrupted and saved; to continue: torchrun --nproc-per-node 2 -m isingflow.cli train" in errors[0]
    state = RunFolder.open(run).load_checkpoint()[1]
    assert state["iteration"] == len(RunFolder.open(run).metrics()) >= 3


@pytest.mark.slow
def test_one_process_that_is_killed_ends_all(tmp_path):
    run = tmp_path / "run"
    processes = started(command_line(run))
    wait_for(run, 3, processes)
    processes[1].kill()
    begun = time.monotonic()
    codes, outputs, errors = ended(processes)
    assert time.monotonic() - begun < 60
    assert codes == [2, -signal.SIGKILL] and outputs == ("", "")
    last = errors[0].splitlines()[-1]
    assert last.startswith("isingflow: error: process 1 of 2") and "--resume" in last and "Traceback" not in errors[0]
    assert RunFolder.open(run).load_checkpoint()[1]["finished"] is False


@pytest.mark.slow
def test_one_process_that_hangs_is_noticed(tmp_path):
    processes = started([SCRIPT, tmp_path, "silent"])
    try:
        assert processes[0].wait(timeout=90) == 1
    finally:
        for process in processes:
            process.kill()
    kind, words = torch.load(tmp_path / "0.pt")["silent"]["error"]
    assert kind == "ProcessLost" and "nothing was heard of it" in words


@pytest.mark.slow
def test_torchrun(tmp_path):
    """A whole training, then one whose launcher is told to stop."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "capture_output": True, "text": True}
    command = [*launch, *command_line(tmp_path / "run", "--json", iterations=4)[:]]
    done = subprocess.run([str(word) for word in command], **options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(tmp_path / "run")
    assert (tmp_path / "run" / "report.json").exists() and list((tmp_path / "run" / "figures").glob("*.png"))
    exact = subprocess.run([*launch, "-m", "isingflow.cli", "exact", "--size", "4", "--json"], **options)
    assert json.loads(exact.stdout)["sites"] == 16
    process = subprocess.Popen(
        [*launch, *map(str, command_line(tmp_path / "long"))], env=options["env"], stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "long", 3, [process])
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and len(re.findall("interrupted and saved", errors)) == 1
    assert RunFolder.open(tmp_path / "long").load_checkpoint()[1]["iteration"] >= 3


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is '2'"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "MASTER_ADDR is not set"),
        ({"WORLD_SIZE": "2", "RANK": "-1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK is '-1'"),
    ],
)
def test_an_environment_that_is_none_of_torchrun(monkeypatch, environment, words):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=re.escape(words)):
        launched.place()
    assert not launched.follows()
