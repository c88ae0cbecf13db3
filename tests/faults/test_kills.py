"""Trainings killed, or out of disk, at any of their file operations: nothing is lost, and resumed is uninterrupted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isingflow.runs.folder import RunFolder
from isingflow.runs.making import LOCKS

TRAIN = ["train", "--size", "4", "--steps", "6", "--device", "cpu", "--quiet"]
RESUME = ["train", "--device", "cpu", "--quiet", "--resume"]
pytestmark = pytest.mark.timeout(3600)  # dozens of commands, in one process

CLOCK = {"seconds", "stage_seconds", "training_seconds"}


def carry_out(folder, jobs):
    """What becomes of jobs, a name and some commands each, in one process; see `kills`."""
    asked = {
        "warm": [*TRAIN, "--output", str(folder / "warm")],
        "jobs": [
            {
                "root": str(folder / name),
                "commands": [
                    command | {"words": [*command["words"], "--output", str(folder / name)]} for command in commands
                ],
            }
            for name, commands in jobs.items()
        ],
    }
    script = Path(__file__).with_name("kills.py")
    result = subprocess.run([sys.executable, script], input=json.dumps(asked), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return dict(zip(jobs, json.loads(result.stdout), strict=True))


def timeless(entries):
    return {name: entry for name, entry in entries.items() if name not in CLOCK}


def state(path):
    """All that a run has come to, but for what the clock says."""
    run = RunFolder.open(path)
    tensors, told = run.load_checkpoint()
    return {
        "metrics": [timeless(line) for line in map(json.loads, (path / "metrics.jsonl").read_text().splitlines())],
        "tensors": {name: tensor.tolist() for name, tensor in tensors.items()},
        "state": timeless(told),
        "state.json": timeless(json.loads((path / "state.json").read_text())),
        "report": timeless(run.report()),
        "samples": {number: samples.tolist() for number, samples in run.snapshots().items()},
        # But for the copy for people of the state before, whose turn may have been missed, and for a lock that nobody
        # holds: the very last operation of a command is to remove it.
        "files": {str(file.relative_to(path)) for file in path.rglob("*")} - {"state.previous.json", *LOCKS},
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted trainings, with a checkpoint now and then, with one every iteration, and from another run."""
    folder = tmp_path_factory.mktemp("whole")
    source = ["train", "--from", str(folder / "warm"), "--steps", "4", "--device", "cpu", "--quiet"]
    ways = {"sparse": (TRAIN, False), "dense": (TRAIN, True), "from": (source, False)}
    jobs = {name: [{"words": words, "every_iteration": every}] for name, (words, every) in ways.items()}
    found = carry_out(folder, jobs)
    assert [done["code"] for commands in found.values() for done in commands] == [0, 0, 0], found
    return {name: (*ways[name], commands[0], state(folder / name)) for name, commands in found.items()}


def campaign(whole, folder, moments):
    """Interrupt trainings, go on, and compare with the uninterrupted ones.

    Args:
        moments: way of training, act, and the number of the operation at which it comes; where there is another
            number, what goes on is interrupted there, too.
    """
    jobs = {}
    for index, (way, act, first, *second) in enumerate(moments):
        words, every, *_ = whole[way]
        given = {"every_iteration": every, "act": act}
        commands = [given | {"words": words, "at": first}]
        for at in (*second, 0):
            # Which of these two goes on depends on how far the making of the folder came; the other one is refused.
            commands += [given | {"words": RESUME, "at": at}, given | {"words": words}]
        jobs[f"{index}-{way}-{act}"] = commands
    found = carry_out(folder, jobs)
    for (name, commands), (way, act, first, *_) in zip(found.items(), moments, strict=True):
        *_, uninterrupted, expected = whole[way]
        moment = f"{name} at {uninterrupted['operations'][first - 1]}"
        for command in commands:
            assert "Traceback" not in command["err"], (moment, command["err"])
            if command["code"] == 2:
                message = command["err"]
                assert message.startswith("isingflow: error: ") and message.count("\n") == 1, (moment, message)
            else:
                assert command["code"] in (0, -9), (moment, command)
        assert commands[0]["code"] == {"kill": -9, "full": 2}[act], (moment, commands[0])
        went_on = [command for command in commands[-2:] if command["code"] == 0]
        assert len(went_on) == 1, (moment, [command["err"] for command in commands])
        assert RunFolder.open(folder / name).table in went_on[0]["out"], moment
        assert state(folder / name) == expected, moment


def drawn(whole, rng, act, count):
    """So many moments, in turn of all ways, every third with a second one."""
    moments = []
    for index in range(count):
        way = list(whole)[index % len(whole)]
        operations = len(whole[way][2]["operations"])
        numbers = rng.integers(1, operations + 1, 2 if index % 3 == 2 else 1).tolist()
        moments.append((way, act, *numbers))
    return moments


def allocating(whole, moments):
    """Those at which a full disk can be noticed: something is written there or later."""
    last = {
        way: max(int(line.split()[0]) for line in found[2]["operations"] if "write" in line.split())
        for way, found in whole.items()
    }
    return [(way, act, min(first, last[way]), *others) for way, act, first, *others in moments]


@pytest.mark.slow
def test_kills_and_full_disks(whole, tmp_path):
    rng = np.random.default_rng(0)
    making = [("from", "kill", 7), ("sparse", "kill", 6)]
    campaign(whole, tmp_path, making + drawn(whole, rng, "kill", 3) + allocating(whole, drawn(whole, rng, "full", 3)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("act", ["kill", "full"])
def test_many(whole, tmp_path, act, seed):
    campaign(whole, tmp_path, allocating(whole, drawn(whole, np.random.default_rng(seed), act, 15)))
