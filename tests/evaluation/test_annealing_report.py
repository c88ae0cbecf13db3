"""`isingflow.anneal`: what it reports, files that are resumed bit for bit, ranges, starts, and what it refuses."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import isingflow
from isingflow import exact
from isingflow.errors import FileError, InvalidInput
from isingflow.evaluation import annealing, known
from isingflow.evaluation.annealing import anneal
from isingflow.lattice import CRITICAL_BETA, cubic, edwards_anderson, square
from isingflow.monte_carlo import paths as paths_module
from isingflow.monte_carlo.equilibrium import Equilibrium
from isingflow.monte_carlo.path_files import PathFile
from isingflow.runtime.stopping import Stopped, StopRequest

QUICK = {"paths": 32, "sweeps": 40}
CONTRACT = {
    *("size", "sites", "beta", "method", "log_z", "lower_bound", "upper_bound", "exact_log_z"),
    *("effective_sample_size", "paths", "sweeps", "seconds"),
}


def log_weights(report) -> tuple[np.ndarray, np.ndarray]:
    return report.paths.forward, report.paths.reverse


def same(one, other) -> bool:
    return all(map(np.array_equal, log_weights(one), log_weights(other)))


def test_the_report():
    report = isingflow.anneal(square(8), CRITICAL_BETA, paths=64, sweeps=400)
    document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert document.keys() >= CONTRACT
    answer = exact.thermodynamics(square(8), CRITICAL_BETA).log_z
    assert document["exact_log_z"] == answer
    assert abs(report.log_z.value - answer) < 4 * report.log_z.stderr < 0.4
    assert report.lower_bound.value < report.log_z.value < report.upper_bound.value
    assert report.verdict.endswith(
        f"the bounds are {report.upper_bound.value - report.lower_bound.value:.2g} nats apart"
    )
    assert document["lower_bound"] == {
        "value": pytest.approx(64 * math.log(2) + report.paths.forward.mean()),
        "stderr": pytest.approx(report.paths.forward.std(ddof=1) / 8),
    }
    capacity = exact.thermodynamics(square(8), CRITICAL_BETA).heat_capacity_per_site
    assert document["schedule"]["heat_capacity_per_site"][-1] == pytest.approx(capacity, rel=0.5)
    assert document["schedule"]["step"][0] == 0
    assert document["schedule"]["step"][-1] == 400
    assert str(report).splitlines()[-1].startswith("  verdict: ln Z by acceptance ratio can be trusted to 0.0")


@pytest.mark.parametrize("betas", [[0.2, 0.4, 0.6], [0.6, 0.2, 0.4], [-0.1, -0.5]])
def test_a_range(betas):
    report = anneal(square(4), betas, **QUICK)
    rows = report.as_dict()["rows"]
    assert [row["beta"] for row in rows] == sorted(betas)
    for row in rows:
        answer = exact.thermodynamics(square(4), row["beta"]).log_z
        assert row["exact_log_z"] == answer
        assert abs(row["log_z"]["value"] - answer) < 5 * row["log_z"]["stderr"]
        assert row["lower_bound"]["value"] - 4 * row["lower_bound"]["stderr"] < answer
        assert row["upper_bound"]["value"] + 4 * row["upper_bound"]["stderr"] > answer
    lines = [line.split()[0] for line in str(report).splitlines()]
    assert [line for line in lines if line in map(str, betas)] == [str(beta) for beta in sorted(betas)]


def test_exact_answers_that_take_long_are_left_out(monkeypatch):
    monkeypatch.setattr(known, "EXACT_SECONDS", -1.0)
    report = anneal(square(4), [0.2, 0.4], **QUICK)
    assert [row["exact_log_z"] is None for row in report.as_dict()["rows"]] == [True, False]
    assert "no exact answers from beta 0.2" in report.warnings[0]


def test_the_end_of_a_range_is_the_single_temperature():
    """The estimators of a range are the usual ones there: same formulas, other paths."""
    report = anneal(square(4), [0.3, 0.5], **QUICK)
    forward, reverse = report.paths.by_chains
    from isingflow.statistics.free_energy import acceptance_ratio_free_energy, lower_bound

    assert report.log_z.value == pytest.approx(
        16 * math.log(2) - acceptance_ratio_free_energy(forward[:, -1], reverse[..., -1]).value
    )
    assert report.upper_bound.value == pytest.approx(16 * math.log(2) - lower_bound(reverse[..., -1]).value)


def test_a_field_and_the_start():
    lattice = square(4).with_field(0.2)
    report = anneal(lattice, 0.5, from_beta=0.2, **QUICK)
    assert report.exact_log_z == exact.thermodynamics(lattice, 0.5).log_z
    assert abs(report.log_z.value - report.exact_log_z) < 5 * report.log_z.stderr
    assert report.as_dict()["field"] == 0.2
    none = anneal(square(4), 0.0, paths=4)
    assert (none.log_z.value, none.log_z.stderr) == (pytest.approx(16 * math.log(2)), 0)


def test_clusters_on_a_glass_are_not_used_and_it_is_said():
    report = anneal(edwards_anderson(4, seed=1), 0.5, moves="swendsen-wang", **QUICK)
    assert report.as_dict()["method"] == "heat-bath"
    assert "heat-bath is used instead" in report.warnings[0]
    assert "heat-bath is used instead" in str(report)


def stuck(lattice, beta, states, **options):
    return Equilibrium(np.ones((16, states // 16, lattice.sites), np.int8), 1.3, "tempering")


def test_chains_that_do_not_agree_mark_the_bound(monkeypatch):
    monkeypatch.setattr(paths_module, "equilibrium", stuck)
    report = anneal(square(4), 0.4, **QUICK)
    document = report.as_dict()
    assert not document["upper_bound_checked"]
    assert document["lower_bound_checked"]
    assert document["upper_bound"]["value"] is not None
    assert document["estimator"] == "reweighting"
    assert "R-hat 1.300" in document["warnings"][0]
    assert "CHAINS DO NOT AGREE" in str(report)
    assert "that from above cannot" in report.verdict
    started = anneal(square(4), 0.4, from_beta=0.2, **QUICK)
    assert not started.as_dict()["lower_bound_checked"]
    assert "none of these numbers" in started.verdict


def test_paths_that_do_not_overlap_are_told():
    report = anneal(square(12), 0.6, paths=16, sweeps=1)
    assert "hardly overlap" in report.warnings[0]
    assert "the bounds can be trusted, the estimate cannot" in report.verdict
    assert json.dumps(report.as_dict(), allow_nan=False)


def test_stopped_and_resumed_is_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(annealing, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(paths_module, "_BLOCK", 4)
    monkeypatch.setattr(paths_module, "_LOOK", 0.001)
    options = {"paths": 48, "sweeps": 100, "seed": 3}
    whole = anneal(square(6), [0.3, 0.5], **options)

    def stop(done, total):
        if total == 96 * 100 and done > total // 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with StopRequest().listening(), pytest.raises(Stopped):
        anneal(square(6), [0.3, 0.5], output=tmp_path / "a.npz", threads=1, report_progress=stop, **options)
    kept = PathFile.read(tmp_path / "a.npz")
    assert 0 < kept.paths.done < 96
    resumed = anneal(square(6), [0.3, 0.5], output=tmp_path / "a.npz", resume=True, threads=2, **options)
    assert same(whole, resumed)
    again = anneal(square(6), [0.3, 0.5], output=tmp_path / "a.npz", resume=True, **options)
    assert same(whole, again)
    assert {**again.as_dict(), "seconds": 0} == {**whole.as_dict(), "seconds": 0}
    with pytest.raises(FileError, match="paths of another run: seed: 4 here, 3 there"):
        anneal(square(6), [0.3, 0.5], output=tmp_path / "a.npz", resume=True, **options | {"seed": 4})
    with pytest.raises(InvalidInput, match="exists already"):
        anneal(square(6), [0.3, 0.5], output=tmp_path / "a.npz", **options)


SCRIPT = """
import sys
from isingflow.evaluation import annealing
annealing.SAVE_SECONDS = 0.0
from isingflow.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_and_resumed_is_uninterrupted(tmp_path):
    path = tmp_path / "a.npz"
    words = ["anneal", "--size", "16", "--critical", "--paths", "60", "--sweeps", "1500", "--quiet", "--output"]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *words, str(path)])
    while not (path.exists() and PathFile.read(path).paths.done > 10):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 10 < PathFile.read(path).paths.done < 120
    resume = [sys.executable, "-c", SCRIPT, "anneal", "--resume", "--output", str(path), "--json"]
    document = json.loads(subprocess.run(resume, check=True, capture_output=True).stdout)
    whole = anneal(square(16), CRITICAL_BETA, paths=60, sweeps=1500)
    assert {**document, "seconds": 0, "output": 0} == {**whole.as_dict(), "seconds": 0, "output": 0}


@pytest.mark.parametrize("tamper", ["cut", "changed", "other"])
def test_files_that_are_not_trusted(tmp_path, tamper):
    path = tmp_path / "a.npz"
    anneal(square(4), 0.3, output=path, **QUICK)
    if tamper == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        arrays = dict(np.load(path))
        arrays["forward"] = arrays["forward"] + 1
        np.savez(path, **arrays if tamper == "changed" else {"spins": arrays["forward"]})
    with pytest.raises(FileError):
        anneal(square(4), 0.3, output=path, resume=True, **QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paths": 0}, "paths is 0, expected an integer >= 2"),
        ({"paths": -1}, "expected an integer >= 2"),
        ({"sweeps": 0}, "sweeps is 0, expected an integer >= 1"),
        ({"sweeps": 2.5}, "sweeps is 2.5"),
        ({"sweeps": 10**14}, "would take"),
        ({"paths": 10**12}, "fewer paths may fit"),
        ({"moves": "wolff"}, "expected swendsen-wang or heat-bath"),
        ({"from_beta": -0.1}, "reached from 0"),
        ({"from_beta": math.inf}, "beta is inf"),
        ({"from_beta": 0.1, "beta": [0.05, 0.2]}, "go one way"),
        ({"beta": [-0.1, 0.1]}, "go one way"),
        ({"beta": [0.2, 0.2]}, "given twice"),
        ({"beta": [0.1, math.nan]}, "NaN or infinite"),
        ({"beta": []}, "without entries"),
        ({"beta": "warm"}, "beta"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"resume": True}, "give the file"),
        ({"lattice": cubic(8), "from_beta": 0.1}, "from_beta 0.1: ln Z is not known there"),
        ({"lattice": 4}, "expected a Lattice"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(InvalidInput, match=words):
        anneal(**{"lattice": square(4), "beta": 0.3} | options)
