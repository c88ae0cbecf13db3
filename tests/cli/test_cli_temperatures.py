"""`isingflow monte-carlo` at a range of temperatures, and `isingflow crossing`, from the command line."""

import csv

import pytest
from test_cli import document, failure, invoke

from isingflow.evaluation.crossings import crossings
from isingflow.evaluation.temperatures import scan
from isingflow.lattice import square

TINY = ["--size", 4, "--samples", 160, "--quiet"]

pytestmark = pytest.mark.usefixtures("empty_folder")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_range_is_the_same_as_in_python(empty_folder):
    found = document("monte-carlo", *TINY, "--beta", "0.2:0.4:3", "--seed", 5)
    betas = [0.2, 0.2 + 0.2 / 2, 0.4]
    known = scan(square(4), betas, samples=20, seed=5).as_dict()
    assert {**found, "seconds": 0} == {**known, "seconds": 0}
    assert not names(empty_folder)


def test_a_range_leaves_a_table_a_figure_and_series(empty_folder):
    found = document("monte-carlo", *TINY, "--beta", "0.4:0.2:3", "--output", "t.csv")
    assert names(empty_folder) == ["t.csv", "t.npz", "t.png"] and found["output"] == "t.csv"
    with open("t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["beta"]) for row in rows] == found["beta"] == sorted(found["beta"])
    assert "exists already" in failure("monte-carlo", *TINY, "--beta", "0.2:0.4:3", "--output", "t.csv")
    text = invoke("monte-carlo", *TINY, "--beta", "0.2:0.4:3").stdout
    assert "critical beta of the infinite lattice 0.44068679" in text


def test_one_temperature_may_be_a_table_too(empty_folder):
    found = document("monte-carlo", *TINY, "--critical", "--output", "t.csv")
    assert len(found["rows"]) == 1 and names(empty_folder) == ["t.csv", "t.npz", "t.png"]


@pytest.mark.parametrize(
    "words", [["--lattice", "edwards-anderson"], ["--field", 0.2], ["--field", 0.2, "--field-seed", 1]]
)
def test_glasses_and_fields(words):
    found = document("monte-carlo", *TINY, *words, "--beta", "0.2:0.4:2", "--output", "t.csv")
    assert found["critical_beta"] is None and len(found["rows"]) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--beta", "0.6:0.2"], "--beta 0.6:0.2: expected B, or FIRST:LAST:COUNT"),
        (["--beta", "0.2:0.6:1"], "a count from 2"),
        (["--beta", "a:b"], "--beta a:b: expected B, or FIRST:LAST:COUNT"),
        (["--beta", "0.2:0.4:3", "--output", "a.npz"], "a range goes to FILE.csv"),
        (["--beta", 0.3], "--output is missing"),
        (["--beta", 0.3, "--output", "a.txt"], "ends in .npz or .csv"),
    ],
)
def test_bad_ranges(words, told, empty_folder):
    assert told in failure("monte-carlo", *TINY, *words)
    assert not names(empty_folder)


def test_a_study_from_the_shell(empty_folder):
    (empty_folder / "study").mkdir()
    for size in (4, 8):
        words = ["--size", size, "--samples", 4000, "--beta", "0.38:0.5:3", "--quiet"]
        document("monte-carlo", *words, "--output", f"study/{size}.csv")
    found = document("crossing", "study", "--output", "c.csv", "--resamples", 50, "--seed", 3)
    known = crossings("study", resamples=50, seed=3).as_dict()
    assert {name: value for name, value in found.items() if name != "output"} == known
    assert names(empty_folder) == ["c.csv", "c.png", "study"]
    with open("c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["quantity"] for row in rows[:2]] == ["binder", "correlation_length_over_size"]
    assert float(rows[0]["beta"]) == found["crossings"][0]["beta"]["value"]
    assert "exact, infinite lattice" in invoke("crossing", "study", "--resamples", 50).stdout
    assert "one size, periodic 4x4" in failure("crossing", "study/4.npz")
    assert "exists already" in failure("crossing", "study", "--output", "c.csv")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Missing argument"),
        (["none"], "none: there is no such file"),
        (["."], "no files of spins"),
        ([".", "--resamples", 2], "--resamples 2: expected an integer from 10"),
        ([".", "--output", "a.npz"], "ends in .csv"),
    ],
)
def test_bad_studies(words, told):
    assert told in failure("crossing", *words)
