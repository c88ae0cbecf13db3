"""`isingflow sweep` from the command line: points as their own commands make them, going on, following, errors."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner
from test_cli import document, failure, invoke

from isingflow import cli
from isingflow.cli.sweep import CHAINED

EXACT = ["exact", "--size", "4,6", "--beta", "0.3:0.5:3"]

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_points_are_what_their_commands_say(empty_folder):
    found = document("sweep", *EXACT, "--boundary", "open", "--output", "study", "--jobs", 2)
    assert [(row["size"], row["beta"]) for row in found["points"]] == [
        (a, b) for a in "46" for b in ("0.3", "0.4", "0.5")
    ]
    for row in found["points"]:
        alone = document("exact", "--size", row["size"], "--beta", row["beta"], "--boundary", "open")
        assert row["log_z"] == alone["log_z"] and row["status"] == "finished"
    again = invoke("sweep", *EXACT, "--boundary", "open", "--output", "study").stdout.splitlines()
    assert len(again) == 7 and again[0].split()[:2] == ["status", "seconds"]
    told = failure("sweep", *EXACT, "--boundary", "periodic", "--output", "study")
    assert told == "study is the folder of another study: options.boundary: periodic here, open there"


@pytest.mark.slow
def test_trainings_are_run_folders(empty_folder):
    words = ["train", "--size", 4, "--beta", "0.3,0.31", "--steps", 2, "--device", "cpu", "--chain", "beta"]
    found = document("sweep", *words, "--chain-steps", 1, "--output", "study")
    assert [row["point"] for row in found["points"]] == ["size4-beta0.3", "size4-beta0.31"]
    told = document("evaluate", "study/points/size4-beta0.31", "--samples", 64)
    assert told["beta"] == 0.31 and found["points"][1]["exact_free_energy"] == told["exact_free_energy"]
    for kind, words in {
        "anneal": ["--paths", 4, "--sweeps", 10],
        "monte-carlo": ["--samples", 16],
    }.items():
        rows = document("sweep", kind, "--size", 4, "--beta", "0.3,0.4", *words, "--output", kind)["points"]
        assert [row["status"] for row in rows] == 2 * ["finished"]
        assert invoke("sweep", "--output", kind).exit_code == 0
    assert invoke("observables", "monte-carlo/points/size4-beta0.3.npz").exit_code == 0


def test_failures_are_listed_and_the_exit_code_tells():
    words = ["exact", "--size", "4,300", "--beta", 0.3, "--boundary", "open", "--output", "study"]
    result = CliRunner().invoke(cli.main, ["sweep", *map(str, words)])
    assert result.exit_code == 2
    assert [line.split()[1] for line in result.stdout.splitlines()[1:]] == ["finished", "failed"]
    last = result.stderr.splitlines()[-1]
    assert last.startswith("isingflow: error: 1 of 2 points are not finished: size300-beta0.3: ")
    assert "300x300" in last and last.endswith("the same command tries them again")


def test_the_study_goes_on_without_its_options_and_is_followed():
    invoke("sweep", *EXACT, "--output", "study")
    assert len(document("sweep", "--output", "study")["points"]) == 6
    lines = invoke("sweep", "--output", "study", "--follow").stdout.splitlines()
    assert [line.split()[1] for line in lines[1:]] == 6 * ["finished"]
    rows = [json.loads(line) for line in invoke("sweep", "--output", "study", "--follow", "--json").stdout.splitlines()]
    assert rows == document("sweep", "--output", "study")["points"]


class TestDryRun:
    def test_nothing_is_written_and_the_lines_are_whole(self, empty_folder):
        lines = invoke("sweep", *EXACT, "--output", "study", "--dry-run").stdout.splitlines()
        assert len(lines) == 6 and not list(empty_folder.iterdir())
        bin_folder = empty_folder / "bin"
        bin_folder.mkdir()
        program = bin_folder / "isingflow"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m isingflow.cli "$@"\n')
        program.chmod(0o755)
        path = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
        assert subprocess.run(["sh", "-c", lines[2]], env=path).returncode == 0
        result = invoke("sweep", *EXACT, "--output", "study", "--dry-run")
        assert result.stdout.splitlines() == lines[:2] + lines[3:]
        assert result.stderr == "1 of 6 points are finished\n"

    def test_the_array_has_a_task_for_every_chain(self):
        words = ["train", "--size", 8, "--beta", "0.3,0.4", "--seed", "0:4:5", "--chain", "beta", "--output", "study"]
        script = invoke(
            "sweep", *words, "--dry-run", "--launcher", "slurm", "--jobs", 3, "--slurm", "timeout_min=30"
        ).stdout
        assert "#SBATCH --array=0-4%3" in script and "#SBATCH --time=30" in script
        assert script.count("isingflow train") == 10 and script.count("--from study/points/") == 5
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_what_chained_points_train(empty_folder):
    words = ["train", "--size", 4, "--beta", "0.3,0.4", "--chain", "beta", "--output", "study", "--dry-run"]
    second = invoke("sweep", *words, "--steps", 40 * CHAINED).stdout.splitlines()[1]
    assert "--steps 40 --from study/points/size4-beta0.3 --rate 0.006 " in second
    second = invoke("sweep", *words, "--chain-steps", 9, "--chain-rate", 0.5).stdout.splitlines()[1]
    assert "--steps 9 --from study/points/size4-beta0.3 --rate 0.5 " in second


def test_a_large_sweep_says_what_it_costs():
    words = ["sweep", "exact", "--beta", "0:1:1000", "--field", "0:1:1000", "--output", "study"]
    assert (
        failure(*words) == "1000000 points take 5.79 days at the very least, one at a time: give --yes if that is meant"
    )
    assert len(invoke(*words[:3], "0:1:1001", *words[6:], "--yes", "--dry-run").stdout.splitlines()) == 1001


def test_settings_go_with_every_point():
    words = ["train", "--size", 4, "--seed", "0,1", "--set", "training.batch=8", "flow.hidden=4", "--output", "study"]
    for line in invoke("sweep", *words, "--dry-run").stdout.splitlines():
        assert "--set training.batch=8 --set flow.hidden=4" in line
