"""`isingflow anneal` from the command line: one temperature, ranges with a table and a figure, resuming, errors."""

import csv

import pytest
from test_cli import document, failure, invoke

from isingflow.evaluation.annealing import anneal
from isingflow.lattice import square

TINY = ["--size", 4, "--paths", 16, "--sweeps", 20, "--quiet"]

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_the_same_as_in_python(empty_folder):
    found = document("anneal", *TINY, "--beta", 0.3, "--seed", 5)
    known = anneal(square(4), 0.3, paths=16, sweeps=20, seed=5).as_dict()
    assert {**found, "seconds": 0} == {**known, "seconds": 0}
    assert not list(empty_folder.iterdir())


def test_a_range_leaves_a_table_a_figure_and_the_paths(empty_folder):
    found = document("anneal", *TINY, "--beta", "0.2:0.6:5", "--output", "curve.csv")
    assert sorted(path.name for path in empty_folder.iterdir()) == ["curve.csv", "curve.npz", "curve.png"]
    with open("curve.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["beta"]) for row in table] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    for row, entry in zip(table, found["rows"], strict=True):
        assert float(row["beta"]) == entry["beta"]
        assert float(row["log_z"]) == entry["log_z"]["value"]
        assert float(row["upper_bound_stderr"]) == entry["upper_bound"]["stderr"]
    again = document("anneal", "--resume", "--output", "curve.csv")
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    assert "another run" in failure("anneal", "--resume", "--output", "curve.csv", "--seed", 9)
    assert "exists already" in failure("anneal", *TINY, "--output", "curve.csv")


def test_the_table_ends_with_a_verdict():
    assert invoke("anneal", *TINY, "--beta", 0.3).stdout.splitlines()[-1].startswith("  verdict: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--paths", 0], "--paths 0: expected an integer from 2"),
        (["--sweeps", 0], "--sweeps 0: expected an integer from 1"),
        (["--paths", -3], "--paths -3"),
        (["--beta", "0.2:0.6"], "--beta 0.2:0.6: expected B, or FIRST:LAST:COUNT"),
        (["--beta", "0.2:0.6:1"], "a count from 2"),
        (["--beta", "0.2:0.2:3"], "two different temperatures"),
        (["--beta", "0.2:x:3"], "expected a finite number"),
        (["--beta", "0.2:1e9:3"], "expected a number from -1e+06"),
        (["--beta", "-0.2:0.2:3"], "go one way"),
        (["--from-beta", 0.1, "--lattice", "cubic", "--size", 8, "--critical"], "--from-beta 0.1: ln Z is not known"),
        (["--moves", "wolff"], "--moves wolff: expected swendsen-wang or heat-bath"),
        (["--resume"], "--resume: which paths?"),
        (["--resume", "--output", "none.npz"], "there is no such file"),
        (["--output", "x.txt"], "ends in .npz or .csv"),
    ],
)
def test_bad_input(words, told, empty_folder):
    assert told in failure("anneal", *words)
    assert not [path for path in empty_folder.iterdir() if not path.name.startswith(".")]


def test_exact_answers_of_a_range():
    found = document("exact", "--size", 6, "--beta", "0.2:0.6:3", "--output", "exact.csv")
    assert found["beta"] == [0.2, 0.4, 0.6]
    for row in found["rows"]:
        alone = document("exact", "--size", 6, "--beta", row["beta"])
        assert {name: alone[name] for name in row} == row
    with open("exact.csv", newline="") as file:
        assert [float(row["log_z"]) for row in csv.DictReader(file)] == [row["log_z"] for row in found["rows"]]
    assert len(invoke("exact", "--size", 6, "--beta", "0.2:0.6:3").stdout.splitlines()) == 5
    assert "does not go with" in failure("exact", "--ground-state", "--output", "ground.csv")
