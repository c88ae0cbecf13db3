"""Studies on a cluster: submitit's local executor, a SLURM whose programs are scripts of ours, and texts for others."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from isingflow.errors import InvalidInput
from isingflow.runtime.stopping import Stopped
from isingflow.studies import cluster as clusters
from isingflow.studies.launch import sweep
from isingflow.studies.plan import Study
from isingflow.studies.points import Files, Status
from isingflow.studies.script import array_script, shell_line

STUDY = Study("exact", size=("4",), beta=(0.3, 0.4))
PRETENDED = [sys.executable, str(Path(__file__).with_name("pretended.py"))]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(clusters, "POLL_SECONDS", 0.1)


class TestLocalExecutor:
    """All but SLURM itself: pickled jobs, processes of their own, results in files."""

    submitit = pytest.importorskip("submitit")

    def test_points_run_as_jobs(self, tmp_path, quick):
        table = sweep(STUDY, tmp_path / "study", launcher=clusters.Cluster(2, {"timeout_min": 10}, "local"))
        assert [row["status"] for row in table.rows.values()] == 2 * ["finished"]
        assert sorted(len(names) for names in known(tmp_path / "study").values()) == [1, 1]

    def test_a_chain_is_one_job(self, tmp_path, quick):
        study = Study(
            "train",
            size=("4",),
            beta=(0.3, 0.31),
            options={"steps": "2", "device": "cpu"},
            chain="beta",
            chained_steps=1,
        )
        table = sweep(study, tmp_path / "study", launcher=clusters.Cluster(2, {"timeout_min": 10}, "local"))
        assert [row["status"] for row in table.rows.values()] == 2 * ["finished"]
        assert list(known(tmp_path / "study").values()) == [["size4-beta0.3", "size4-beta0.31"]]
        second = tmp_path / "study" / "points" / "size4-beta0.31"
        assert len((second / "metrics.jsonl").read_text().splitlines()) == 1

    def test_what_fails_is_told(self, tmp_path, quick):
        study = Study("exact", size=("300",), beta=(0.3,), options={"boundary": "open"})
        table = sweep(study, tmp_path / "study", launcher=clusters.Cluster(1, kind="local"))
        (row,) = table.rows.values()
        assert row["status"] == "failed" and "300x300" in row["error"]


def known(folder):
    return json.loads((folder / "slurm" / "jobs.json").read_text())


class TestSlurm:
    """With programs of SLURM's names: what they are asked, and how their answers are understood."""

    submitit = pytest.importorskip("submitit")

    @pytest.fixture
    def slurm(self, tmp_path, monkeypatch):
        """sbatch keeps the scripts that it is given; sacct says what the file `state` says of all jobs."""
        programs = tmp_path / "programs"
        programs.mkdir()
        script = f'cp "$1" {tmp_path}/script.$(ls {tmp_path} | grep -c script)\necho Submitted batch job 77'
        states = f'echo "JobID|State"; for i in 0 1; do echo "77_$i|$(cat {tmp_path}/state)"; done'
        for name, text in {"sbatch": script, "srun": "exit 1", "sacct": states}.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        (tmp_path / "state").write_text("COMPLETED")
        self.submitit.SlurmJob.watcher.clear()
        return tmp_path

    def test_the_script_that_sbatch_gets(self, slurm, quick):
        asked = {"partition": "gpu", "timeout_min": 90, "mem_gb": 4, "cpus_per_task": 3}
        table = sweep(STUDY, slurm / "study", launcher=clusters.Cluster(5, asked))
        assert [row["status"] for row in table.rows.values()] == 2 * ["waiting"]  # these jobs have done nothing
        lines = (slurm / "script.0").read_text().splitlines()
        for wanted in ("--array=0-1%2", "--partition=gpu", "--time=90", "--mem=4GB", "--cpus-per-task=3"):
            assert f"#SBATCH {wanted}" in lines
        assert known(slurm / "study") == {"77_0": ["size4-beta0.3"], "77_1": ["size4-beta0.4"]}

    def test_jobs_that_are_queued_are_not_submitted_again(self, slurm, quick, monkeypatch):
        (slurm / "state").write_text("PENDING")

        def interrupt():
            raise Stopped(2)

        monkeypatch.setattr(clusters.stopping, "check", interrupt)
        for _ in range(2):
            with pytest.raises(Stopped):
                sweep(STUDY, slurm / "study", launcher=clusters.Cluster(2))
        assert len(list(slurm.glob("script.*"))) == 1
        monkeypatch.undo()

    def test_unknown_parameters(self, slurm):
        with pytest.raises(InvalidInput, match=r"parameters of the jobs: .*'colour'"):
            clusters.Cluster(2, {"colour": "red"})
        with pytest.raises(InvalidInput, match="cpus_per_task"):
            clusters.Cluster(2, {"cpus_per_task": "many"})


def test_without_slurm(monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidInput, match=r"no SLURM on this machine .*--dry-run"):
        clusters.Cluster(1)


def test_without_submitit(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InvalidInput, match=r"pip install 'isingflow\[cluster\]'"):
        clusters.Cluster(1)


class TestTexts:
    """Run by a shell in which `isingflow` is the pretended program."""

    @pytest.fixture
    def shell(self, tmp_path, monkeypatch):
        program = tmp_path / "bin" / "isingflow"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.join(PRETENDED)} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("PRETENDED_JOURNAL", str(tmp_path / "journal"))
        return lambda text, **variables: (
            subprocess.run(["bash", "-c", text], env={**os.environ, **variables}).returncode
        )

    def test_a_line_leaves_what_a_sweep_looks_for(self, shell, tmp_path):
        folder = tmp_path / "with 'quotes' and $signs"
        for point in STUDY.points():
            assert shell(shell_line(STUDY, folder, point)) == 0
            assert Files.of(STUDY, folder, point).state().status is Status.FINISHED
        table = sweep(STUDY, folder)
        assert [row["log_z"] for row in table.rows.values()] == [1.5, 1.5]

    def test_a_line_that_fails_is_not_finished(self, shell, tmp_path):
        (tmp_path / "fails-4").touch()
        point = STUDY.first()
        assert shell(shell_line(STUDY, tmp_path / "study", point)) == 2
        assert Files.of(STUDY, tmp_path / "study", point).state().status is Status.WAITING

    def test_a_task_of_the_array_runs_one_chain(self, shell, tmp_path):
        study = Study("train", size=("4", "8"), seed=(0, 1), chain="size", chained_steps=1)
        script = array_script(study, tmp_path / "study", list(study.chains()), jobs=1, parameters={"account": "a b"})
        options = [line for line in script.splitlines() if line.startswith("#SBATCH")]
        assert "#SBATCH --array=0-1%1" in options and "#SBATCH --account='a b'" in options
        assert shell(script, SLURM_ARRAY_TASK_ID="1", SLURM_CPUS_PER_TASK="3") == 0
        names = {path.name for path in (tmp_path / "study" / "points").glob("*.json")}
        assert names == {"size4-seed1.json", "size8-seed1.json"}
        documents = [json.loads((tmp_path / "study" / "points" / name).read_text()) for name in names]
        assert [document["threads"] for document in documents] == ["3", "3"]

    def test_parameters_on_one_line(self, tmp_path):
        with pytest.raises(InvalidInput):
            array_script(STUDY, tmp_path, list(STUDY.chains()), jobs=1, parameters={"account": "a\nrm"})
