"""Many processes that do the work of one: evaluations, samples, chains, paths, to the last digit; and signals."""

import json
import pickle
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import ranks
import torch
from launching import SCRIPT, WORLD, ended, started

import isingflow
from isingflow.monte_carlo.path_files import PathFile
from isingflow.monte_carlo.paths import run
from isingflow.monte_carlo.shared_paths import ROUND
from isingflow.runtime import stopping
from isingflow.runtime.files import read_arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where one process has trained, and two have done the rest."""
    folder = tmp_path_factory.mktemp("sharing")
    torch.set_num_threads(1)
    ranks.trained(folder / "run", iterations=3)
    ranks.trained(folder / "family", betas=(0.2, 0.3), iterations=2)
    ranks.trained(folder / "goal", from_beta=0.2, iterations=2)
    data = isingflow.datasets.load("moons", seed=0)
    isingflow.train(data, output=folder / "data", iterations=2, settings={"training.batch": 7}, progress=False)
    names = ["shared_map", "worth", "hurried", "paths", "failing"]
    codes, outputs, errors = ended(started([SCRIPT, folder, *names]))
    assert codes == [0, 0], errors
    assert outputs == ("", "")
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What every process has found, by name."""
    one, other = (torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD))
    return {name: (one[name], other[name]) for name in one}


@pytest.fixture(scope="module")
def alone(folder):
    """What one process finds, with as many threads as both have together."""
    torch.set_num_threads(WORLD)
    try:
        return ranks.worth(folder)
    finally:
        torch.set_num_threads(1)


def test_a_batch_is_divided_and_all_have_the_whole(found):
    one, other = found["shared_map"]
    batch = torch.arange(14.0).view(7, 2)
    for ours in (one, other):
        shares = [share for share, _ in ours["results"]]
        assert [len(share) for share in shares] == [4, 3] and torch.equal(torch.cat(shares), batch.double())
        for share, (sums, (doubled,)) in ours["results"]:
            assert torch.equal(sums, share.float().sum(1)) and torch.equal(doubled, 2 * share[:, 0].float())
        assert len(ours["one"]) == 1 and torch.equal(ours["one"][0][0], batch[:1].double())
        assert ours["total"] == (2.0, 3.0)
        assert ours["alone"] == 1 and ours["late"] is None and ours["error"][0] == "ZeroDivisionError"
        assert ours["stopped"] == (3, signal.SIGTERM)
    assert (one["told"], other["told"]) == ([4, 1], [3])
    assert torch.equal(one["noise"], other["noise"]) and one["clock"] == other["clock"]
    assert other["before"] is False


def test_a_stop_survives_its_way_to_other_processes():
    stopped = pickle.loads(pickle.dumps(stopping.Stopped(signal.SIGTERM)))
    assert stopped.signal == signal.SIGTERM and str(stopped) == "stopped by SIGTERM"


def same(one, other):
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def test_numbers_are_those_of_one_process(found, alone):
    one, other = found["worth"]
    assert alone["evaluation"]["annealed"]["lower_bound"] and alone["evaluation"]["samples"] == 300
    for name, expected in alone.items():
        assert same(one[name], expected), name
        assert same(other[name], expected), name
    assert not np.array_equal(alone["latent"], alone["metropolis"])
    assert np.array_equal(alone["longer"][:, :3], alone["latent"])


@pytest.mark.parametrize("name", ["samples", "data", "chains"])
def test_files_are_those_of_one_process(folder, found, alone, name):
    names = ["spins", "field", "log_prob", "log_weight"]
    names = {"samples": names, "data": ["samples", "log_prob"], "chains": ["spins", "field", "acceptance"]}[name]
    one, other = (read_arrays(folder / f"{threads}-{name}.npz", names) for threads in (1, WORLD))
    for array in names:
        assert np.array_equal(one[array], other[array]), array
    assert len(one[names[1]]) == {"samples": 300, "data": 300, "chains": 5}[name]


def test_a_limit_of_time_is_the_first_ones(found):
    one, other = found["hurried"]
    assert one == other
    evaluation, to_goal = one
    assert evaluation["shortened"] and evaluation["samples"] < 10**5
    assert 16 <= to_goal["paths"] < 10**5


def test_paths_are_those_of_one_process(folder, found):
    one, other = found["paths"]
    first, resumed = ranks.paths(folder)
    assert one == other == (first, resumed) and first == resumed
    ours, theirs = (PathFile.read(folder / f"paths-{world}.npz").paths for world in (1, WORLD))
    assert np.array_equal(ours.forward, theirs.forward) and np.array_equal(ours.reverse, theirs.reverse)
    assert len(ours.forward) == 21 and ours.done == 21 + 32


def test_they_fail_together(folder, found):
    one, other = found["failing"]
    for ours in (one, other):
        assert ours["there"][0] == "RunFolderError"
        for name in ("exists", "chains"):
            assert ours[name][0] == "InvalidInput" and "exists already" in ours[name][1]
    assert (one["alone"], other["alone"]) == (True, False)
    assert not list(folder.glob("**/.*.lock")) and not (folder / "new.npz").exists()


def test_a_signal_to_one_ends_the_evaluation_of_all(folder):
    before = (folder / "run" / "report.json").read_bytes()
    command = ["-m", "isingflow.cli", "evaluate", folder / "run", "--samples", 10**7, "--reference-samples", 16]
    processes = started(command)
    assert "samples" in processes[0].stderr.readline()
    processes[1].send_signal(signal.SIGTERM)
    codes, outputs, errors = ended(processes)
    assert codes == [128 + signal.SIGTERM] * 2, errors
    assert "fewer samples than asked for" in outputs[0] and "isingflow: terminated" in errors[0]
    assert (outputs[1], errors[1]) == ("", "")
    assert (folder / "run" / "report.json").read_bytes() == before


def test_paths_are_saved_where_one_is_told_to_stop(tmp_path):
    """Those that are done are what one process finds."""
    kept = tmp_path / "paths.npz"
    asked = ["--size", 16, "--critical", "--paths", 4000, "--sweeps", 3000]
    processes = started(["-m", "isingflow.cli", "anneal", *asked, "--output", kept])
    until = time.monotonic() + 120
    while not kept.exists():
        assert time.monotonic() < until and all(process.poll() is None for process in processes)
        time.sleep(0.05)
    time.sleep(2.0)
    processes[1].send_signal(signal.SIGTERM)
    begun = time.monotonic()
    codes, outputs, errors = ended(processes)
    assert codes == [128 + signal.SIGTERM] * 2 and outputs == ("", "") and errors[1] == ""
    assert time.monotonic() - begun < ROUND
    assert "to continue: torchrun --nproc-per-node 2 -m isingflow.cli anneal --resume" in errors[0]
    stopped = PathFile.read(kept).paths
    done = np.flatnonzero(~np.isnan(stopped.forward[:, 0]))
    assert 4 <= len(done) < 4000 and set(done[:4] % 2) == {0, 1}
    forward = np.zeros_like(stopped.forward)
    forward[done[:4]] = np.nan
    again = replace(stopped, forward=forward, reverse=np.zeros_like(stopped.reverse))
    run(again, threads=1)
    assert np.array_equal(again.forward[done[:4]], stopped.forward[done[:4]])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "anneal"])
def test_one_that_is_killed_ends_all(folder, tmp_path, command):
    more = {
        "evaluate": [folder / "run", "--samples", 10**7, "--json"],
        "anneal": ["--size", 16, "--critical", "--sweeps", 10**5, "--output", tmp_path / "paths.npz"],
    }
    processes = started(["-m", "isingflow.cli", command, *more[command]])
    time.sleep(15.0)
    processes[1].kill()
    begun = time.monotonic()
    codes, outputs, errors = ended(processes)
    assert time.monotonic() - begun < 60
    assert codes == [2, -signal.SIGKILL] and outputs == ("", "")
    last = errors[0].splitlines()[-1]
    assert last.startswith("isingflow: error: process 1 of 2") and "Traceback" not in errors[0]
    assert ("--resume" in last) == (command == "anneal")


@pytest.mark.slow
def test_a_command_under_torchrun(folder):
    """One report, on the standard output of one of them."""
    command = ["-m", "isingflow.cli", "evaluate", folder / "run", "--samples", 50, "--json"]
    codes, outputs, errors = ended(started(command))
    assert codes == [0, 0] and outputs[1] == "" and errors == ("", "")
    assert json.loads(outputs[0])["samples"] == 50
    assert json.loads((folder / "run" / "report.json").read_text())["samples"] == 50
