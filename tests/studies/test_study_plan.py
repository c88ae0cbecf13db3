"""Studies as data: their points, names and commands, and what cannot be one."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isingflow import cli
from isingflow.cli.axes import Axis
from isingflow.cli.options import Number, Size, Whole, Word
from isingflow.errors import InvalidInput, StudyError
from isingflow.studies.plan import Study, check_same, read_study, write

FOLDER = Path("study")
betas = st.lists(st.floats(-5, 5), min_size=1, max_size=4, unique=True).map(tuple)
sizes = st.lists(st.sampled_from(["4", "6", "8x16", "2x2x2"]), min_size=1, max_size=3, unique=True).map(tuple)
seeds = st.lists(st.integers(0, 2**62), max_size=3, unique=True).map(tuple)
studies = st.builds(Study, st.sampled_from(["train", "anneal", "monte-carlo"]), size=sizes, beta=betas, seed=seeds)


def parsed(study, point, **options):
    """What the command of a point makes of its words."""
    words = study.words(point, FOLDER, **options)
    with cli.main.commands[words[0]].make_context(words[0], words[1:]) as context:
        return context.params


@given(studies)
def test_a_point_for_every_combination_each_with_a_name_of_its_own(study):
    points = list(study.points())
    assert len(points) == study.count == math.prod(len(values) for values in study.axes.values())
    assert len({point.name for point in points}) == study.count
    assert len({tuple(point.values.items()) for point in points}) == study.count
    assert all(re.fullmatch(r"[\w.+-]+", point.name, re.ASCII) for point in points)


@given(studies.filter(lambda study: study.command == "train"))
def test_the_command_reads_what_the_study_says_to_the_last_bit(study):
    found = {(params["size"], params["beta"], params["seed"]) for params in (parsed(study, p) for p in study.points())}
    lengths = [tuple(map(int, size.split("x"))) for size in study.size]
    assert found == {(a, b, c) for a in lengths for b in study.beta for c in study.seed or (None,)}


@given(studies)
def test_a_study_is_read_as_it_was_written(study):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert not check_same(study, Path(folder))
        write(study, Path(folder))
        assert read_study(Path(folder)) == study
        assert check_same(study, Path(folder))


class TestChains:
    study = Study(
        "train", size=("8", "16"), beta=(0.3, 0.4, 0.5), seed=(0, 1), preset=("accurate",), chain="beta",
        options={"device": "cpu", "steps": "100"}, settings={"training.batch": 8, "flow.hidden": 4},
        chained_steps=7, chained_rate=2e-3,
    )  # fmt: skip

    def test_each_point_starts_from_the_one_before(self):
        chains = list(self.study.chains())
        assert len(chains) == 4
        for chain in chains:
            assert [float(point.values["beta"]) for point in chain] == [0.3, 0.4, 0.5]
            assert [point.before for point in chain] == [None, *(point.name for point in chain[:-1])]
            assert len({(point.values["size"], point.values["seed"]) for point in chain}) == 1
        assert [point for chain in chains for point in chain] == list(self.study.points())

    def test_the_first_has_the_preset_and_the_others_what_they_inherit(self):
        first, second, _ = next(self.study.chains())
        given = parsed(self.study, first)
        assert (given["preset"], given["steps"], given["source"], given["rate"]) == ("accurate", 100, None, None)
        assert dict(given["settings"]) == {"training.batch": 8, "flow.hidden": 4}
        given = parsed(self.study, second)
        assert (given["preset"], given["steps"], given["rate"]) == (None, 7, 2e-3)
        assert given["source"] == FOLDER / "points" / first.name
        assert dict(given["settings"]) == {"training.batch": 8} and given["device"] == "cpu"

    def test_what_was_begun_goes_on_as_it_is(self):
        _, second, _ = next(self.study.chains())
        given = parsed(self.study, second, resume=True)
        assert given["resume"] and given["output"] == FOLDER / "points" / second.name and given["device"] == "cpu"
        assert all(given[name] is None for name in ("size", "beta", "source", "steps", "rate", "seed"))

    def test_lengths_double_along_a_chain_of_sizes(self):
        study = Study("train", size=("4", "8", "16"), chain="size", chained_steps=1)
        assert [point.before for point in study.points()] == [None, "size4", "size8"]
        with pytest.raises(InvalidInput, match="doubles the lengths"):
            Study("train", size=("4", "12"), chain="size", chained_steps=1)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"command": "evaluate", "beta": (0.3,)}, "command is 'evaluate', expected one of"),
        ({"command": "exact"}, "a study needs an axis: size, beta, field"),
        ({"command": "exact", "seed": (0,)}, "seed is none of exact"),
        ({"command": "exact", "beta": (0.3, 0.3)}, "beta: 0.3 is given 2 times"),
        ({"command": "exact", "beta": (math.nan,)}, "expected a finite number"),
        ({"command": "exact", "size": ("4x",)}, "expected L or LXxLY"),
        ({"command": "train", "preset": ("../up",)}, "cannot be part of a file's name"),
        ({"command": "exact", "beta": (0.3,), "options": {"output": "x"}}, "none that all points share"),
        ({"command": "exact", "beta": (0.3,), "options": {"size": "4"}}, "none that all points share"),
        ({"command": "exact", "beta": (0.3, 0.4), "chain": "beta"}, "a chain is of trainings"),
        ({"command": "train", "beta": (0.3,), "chain": "beta", "chained_steps": 1}, "two values of it"),
        ({"command": "train", "beta": (0.3, 0.4), "chain": "beta"}, "chained_steps"),
        ({"command": "exact", "beta": tuple(map(float, range(1001))), "field": tuple(map(float, range(1000)))}, "most"),
    ],
)  # fmt: skip
def test_what_is_no_study(entries, told):
    with pytest.raises(InvalidInput, match=re.escape(told)):
        Study(**entries)


def test_the_folder_of_another_study_says_what_differs(tmp_path):
    write(Study("exact", size=("4",), beta=(0.3, 0.4)), tmp_path)
    with pytest.raises(StudyError, match=r"another study: beta: \(0.3, 0.5\) here, \(0.3, 0.4\) there"):
        check_same(Study("exact", size=("4",), beta=(0.3, 0.5)), tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "command": "x"}', "\0"]
)
def test_damaged_studies(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(StudyError, match="does not describe a study"):
        read_study(tmp_path)


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StudyError, match=r"holds thesis\.tex"):
        check_same(Study("exact", beta=(0.3,)), tmp_path)


class TestAxes:
    @given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.integers(2, 50))
    def test_ranges_are_linear_with_both_ends(self, first, last, count):
        if first == last:
            return
        found = Axis(Number()).read(f"{first / 1000}:{last / 1000}:{count}")
        assert found[0] == first / 1000 and found[-1] == last / 1000
        np.testing.assert_allclose(found, np.linspace(first / 1000, last / 1000, count), rtol=1e-11, atol=1e-11)

    def test_values_are_as_short_as_they_were_typed(self):
        assert Axis(Number()).read("0.3:0.6:13")[:3] == (0.3, 0.325, 0.35)

    def test_integers_and_lengths(self):
        assert Axis(Whole(0, 2**62)).read(f"0,5:{2**62}:2") == (0, 5, 2**62)
        assert Axis(Size()).read("4:16:4,8x12") == ("4", "8", "12", "16", "8x12")
        assert Axis(Word()).read("quick,paper") == ("quick", "paper")

    @pytest.mark.parametrize(
        "text",
        ["0.6:0.2", "0.2:0.6:1", "a:b", "a:b:3", "0.2:0.6:3:4", ":", "0.2:0.2:3", "0.2:0.6:1e9", "0.2:0.6:2.5", "0.3,",
         ",", "0.3,0.3", "0.3:0.5:3,0.4", "0.2:inf:3", "nan", "1e9", f"0.2:0.6:{'9' * 5000}"],
    )  # fmt: skip
    def test_bad_temperatures(self, text):
        with pytest.raises(InvalidInput):
            Axis(Number(most=1e6)).read(text)

    @pytest.mark.parametrize("text", ["0:10:4", "0:1.5:2", "-1:3:5", "0:4:0", "1,2,1"])
    def test_bad_seeds(self, text):
        with pytest.raises(InvalidInput):
            Axis(Whole(0, 2**62)).read(text)

    @pytest.mark.parametrize("text", ["4x4:8x8:2", "1:4:4", "4,4", "8:4x4:3"])
    def test_bad_sizes(self, text):
        with pytest.raises(InvalidInput):
            Axis(Size()).read(text)
