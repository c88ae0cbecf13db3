"""Studies run here: what is skipped, tried again and stopped; kills at any moment; the share of threads and cores."""

import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isingflow.errors import StudyError
from isingflow.exact import thermodynamics
from isingflow.lattice import square
from isingflow.runtime.stopping import Stopped, StopRequest
from isingflow.studies import leash, runner
from isingflow.studies.launch import opened, sweep
from isingflow.studies.plan import Study
from isingflow.studies.points import Files, Status

PRETENDED = (sys.executable, str(Path(__file__).with_name("pretended.py")))
STUDY = Study("exact", size=("4", "6"), beta=(0.3, 0.4))


class Journal:
    """What the pretended program was asked."""

    def __init__(self, path):
        self.path = path

    @property
    def lines(self):
        return self.path.read_text().splitlines() if self.path.exists() else []

    def count(self, word):
        return sum(line.startswith(word) for line in self.lines)

    def most_at_a_time(self):
        now, most = 0, 0
        for line in self.lines:
            now += 1 if line.startswith("begin") else -1
            most = max(now, most)
        return most


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "PROGRAM", PRETENDED)
    monkeypatch.setenv("PRETENDED_JOURNAL", str(tmp_path / "journal"))
    return Journal(tmp_path / "journal")


def statuses(table):
    return [row["status"] for row in table.rows.values()]


def test_real_points_have_the_exact_answers(tmp_path):
    table = sweep(STUDY, tmp_path / "study", jobs=2)
    for row in table.rows.values():
        known = thermodynamics(square(int(row["size"])), float(row["beta"]))
        assert row["log_z"] == known.log_z and row["energy_per_site"] == known.energy_per_site
    with open(tmp_path / "study" / "table.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [(row["size"], row["beta"], float(row["log_z"])) for row in written] == [
        (row["size"], row["beta"], row["log_z"]) for row in table.rows.values()
    ]
    kept = json.loads((tmp_path / "study" / "table.json").read_text())
    assert kept["points"] == list(table.rows.values())
    assert (tmp_path / "study" / "figure.png").read_bytes().startswith(b"\x89PNG")


class TestGoingOn:
    def test_finished_points_are_not_run_again(self, journal, tmp_path):
        sweep(STUDY, tmp_path / "study")
        assert statuses(sweep(STUDY, tmp_path / "study")) == 4 * ["finished"]
        assert journal.count("begin") == 4

    def test_one_that_fails_stops_no_other_and_is_tried_again(self, journal, tmp_path):
        (tmp_path / "fails-4").touch()
        table = sweep(STUDY, tmp_path / "study")
        assert statuses(table) == ["failed", "failed", "finished", "finished"]
        assert [row["error"] for row in table.having(Status.FAILED)] == 2 * ["out of luck"]
        assert journal.count("begin") == 4
        (tmp_path / "fails-4").unlink()
        table = sweep(STUDY, tmp_path / "study")
        assert statuses(table) == 4 * ["finished"] and journal.count("begin") == 6
        assert not any(row["error"] for row in table.rows.values())
        assert not list((tmp_path / "study" / "points").glob("*.failed.json"))

    @pytest.mark.parametrize("torn", ["", '{"log_z": 1', "[]", "\0"])
    def test_a_document_that_was_cut_short_is_none(self, journal, tmp_path, torn):
        sweep(STUDY, tmp_path / "study")
        (tmp_path / "study" / "points" / "size4-beta0.3.json").write_text(torn)
        assert statuses(sweep(STUDY, tmp_path / "study")) == 4 * ["finished"]
        assert journal.count("begin") == 5

    def test_after_a_failure_a_chain_waits(self, journal, tmp_path):
        study = Study("train", size=("4", "8", "16"), seed=(0, 1), chain="size", chained_steps=1)
        (tmp_path / "fails-8").touch()
        assert statuses(sweep(study, tmp_path / "study", jobs=2)) == 2 * ["finished", "failed", "waiting"]
        (tmp_path / "fails-8").unlink()
        assert statuses(sweep(study, tmp_path / "study", jobs=2)) == 6 * ["finished"]
        for seed in "01":
            asked = [line for line in journal.lines if line.startswith("end") and f"--seed {seed}" in line]
            assert [line.split()[3] for line in asked] == ["4", "8", "16"]

    def test_the_table_grows(self, journal, tmp_path):
        seen = []

        def report(table, row):
            seen.append((row["status"], len(table.ended)))

        sweep(STUDY, tmp_path / "study", report=report)
        assert seen == [("finished", count) for count in (1, 2, 3, 4)]


def test_two_sweeps_at_once(journal, tmp_path):
    with opened(STUDY, tmp_path / "study"), pytest.raises(StudyError, match="in use: another sweep runs it"):
        sweep(STUDY, tmp_path / "study")
    assert statuses(sweep(STUDY, tmp_path / "study")) == 4 * ["finished"]


class TestShares:
    def test_as_many_at_a_time_as_jobs(self, journal, tmp_path, monkeypatch):
        monkeypatch.setenv("PRETENDED_SECONDS", "0.5")
        study = Study("exact", size=("4", "6", "8"), beta=(0.3, 0.4))
        sweep(study, tmp_path / "study", jobs=3)
        assert journal.most_at_a_time() == 3

    @pytest.mark.parametrize(("cores", "jobs", "threads"), [(2, 1, 2), (2, 2, 1), (16, 3, 5), (2, 64, 1), (16, 64, 4)])
    def test_cores_are_shared_out(self, journal, tmp_path, monkeypatch, cores, jobs, threads):
        import joblib

        monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
        for name in runner.THREADS:
            monkeypatch.delenv(name, raising=False)
        sweep(STUDY, tmp_path / "study", jobs=jobs)
        documents = [json.loads(path.read_text()) for path in (tmp_path / "study" / "points").glob("*.json")]
        assert [document["threads"] for document in documents] == 4 * [str(threads)]

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [({}, ["8", "8"]), ({0: "2"}, ["2", "2"]), ({1: "2"}, ["8", "2"]), ({0: "many", 1: "0"}, ["8", "8"])],
    )
    def test_fewer_threads_stay_fewer(self, monkeypatch, given, wanted):
        for number, name in enumerate(runner.THREADS):
            monkeypatch.delenv(name, raising=False)
            if number in given:
                monkeypatch.setenv(name, given[number])
        assert [runner.environment(8)[name] for name in runner.THREADS] == wanted


def test_a_signal_reaches_what_runs(journal, tmp_path, monkeypatch):
    monkeypatch.setenv("PRETENDED_SECONDS", "60")
    with StopRequest().listening(), pytest.raises(Stopped):
        subprocess.Popen(
            ["sh", "-c", f"until grep -q begin {journal.path}; do sleep 0.05; done; kill -TERM {os.getpid()}"]
        )
        sweep(STUDY, tmp_path / "study")
    assert [line.split()[0] for line in journal.lines] == ["begin", "stopped"]
    monkeypatch.setenv("PRETENDED_SECONDS", "0")
    assert statuses(sweep(STUDY, tmp_path / "study")) == 4 * ["finished"]


DRIVER = """
import sys
from isingflow.studies import runner
runner.PROGRAM = {program}
from isingflow.studies.launch import sweep
from isingflow.studies.plan import Study
sweep(Study("exact", size=("4", "6"), beta=(0.3, 0.4, 0.5)), sys.argv[1], jobs=2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel ends what a killed process has started")
class TestKills:
    def test_what_it_has_started_ends_with_it(self, tmp_path):
        """The leash: a shell that starts a sleeping program and is killed."""
        words = [sys.executable, leash.__file__, "$$", "/bin/sleep", "600"]
        shell = subprocess.Popen(["sh", "-c", f"{' '.join(words)} & echo $!; wait"], stdout=subprocess.PIPE, text=True)
        child = int(shell.stdout.readline())
        while b"sleep" not in Path(f"/proc/{child}/cmdline").read_bytes()[:20]:
            time.sleep(0.02)
        shell.kill()
        shell.wait()
        deadline = time.monotonic() + 30
        while Path(f"/proc/{child}/stat").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_a_sweep_killed_again_and_again_loses_nothing_and_does_nothing_twice(self, tmp_path):
        journal, draw = Journal(tmp_path / "journal"), random.Random(4)
        environment = {**os.environ, "PRETENDED_JOURNAL": str(journal.path), "PRETENDED_SECONDS": "0.4"}
        words = [sys.executable, "-c", DRIVER.format(program=PRETENDED), str(tmp_path / "study")]
        for _ in range(4):
            before = journal.count("begin")
            process = subprocess.Popen(words, env=environment)
            while journal.count("begin") == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.8))
            process.kill()
            process.wait()
        assert subprocess.run(words, env=environment, timeout=300).returncode == 0
        done = [line for line in journal.lines if line.startswith("end")]
        assert len(done) == len(set(done))
        documents = list((tmp_path / "study" / "points").glob("*.json"))
        assert (
            journal.count("begin") > 6
            and len(documents) == 6
            and all(json.loads(path.read_text())["log_z"] == 1.5 for path in documents)
        )

    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    def test_trainings_killed_in_the_middle_are_those_that_were_not(self, tmp_path):
        """Of four trainings: every iteration once, and the same reports as without a kill."""
        axes = ["--size", "4", "--beta", "0.3,0.4", "--seed", "0,1"]
        words = ["sweep", "train", *axes, "--steps", "150", "--device", "cpu", "--jobs", "2", "--quiet", "--output"]
        command = [sys.executable, "-m", "isingflow.cli", *words]
        assert subprocess.run([*command, tmp_path / "whole"], capture_output=True).returncode == 0
        draw, stopped = random.Random(7), 0
        for _ in range(5):
            process = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.DEVNULL)
            time.sleep(draw.uniform(5, 60))
            stopped += process.poll() is None
            process.kill()
            process.wait()
        assert stopped
        assert subprocess.run([*command, tmp_path / "killed"], capture_output=True).returncode == 0
        study = Study("train", size=("4",), beta=(0.3, 0.4), seed=(0, 1))
        for point in study.points():
            there = [Files.of(study, tmp_path / name, point) for name in ("whole", "killed")]
            metrics = [(files.output / "metrics.jsonl").read_text().splitlines() for files in there]
            assert [json.loads(line)["iteration"] for line in metrics[1]] == list(range(1, 151))
            losses = [[json.loads(line)["loss"] for line in lines] for lines in metrics]
            assert losses[0] == losses[1]
            reports = [files.state().document["variational_free_energy"] for files in there]
            assert reports[0] == reports[1]
