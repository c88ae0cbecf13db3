"""`isingflow train --field 0:0.2` and what other commands do with a family of flows in fields."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from isingflow import cli
from isingflow.lattice import CRITICAL_BETA


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def document(*arguments):
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def trained(path, *options):
    short = ["--steps", 3, "--set", "training.evaluation_samples=64", "--output", path, "--quiet"]
    result = invoke("train", "--size", 4, *options, *short)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    path = tmp_path_factory.mktemp("fields") / "family"
    printed = trained(path, "--beta", 0.3, "--field", "0:0.2")
    assert "field = 0 to 0.2, beta = 0.3" in printed and "at field = " in printed
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    path = tmp_path_factory.mktemp("fields") / "both"
    assert "at beta = " in trained(path, "--beta", "0.2:0.3", "--field", "-0.1:0.2")
    return path


def test_a_training_leaves_a_table_figures_and_members(family):
    report = json.loads((family / "report.json").read_text())
    assert len(report["rows"]) == 9 and report["fields"] == [0.0, 0.2] and report["low"] == report["high"] == 0.3
    assert {path.name for path in (family / "figures").iterdir()} == {"fields.png", "gap.png"}
    assert {path.name for path in (family / "members").iterdir()} >= {"field-0", "field-0.025", "field-0.2"}
    again = ["--beta", 0.3, "--field", "0:0.2", "--size", 4]
    assert invoke("train", "--resume", "--output", family, *again).stdout.startswith(f"{family} is finished already")


def test_fields_are_chosen_and_members_are_runs(family, tmp_path):
    found = document("evaluate", family, "--field", "0:0.1:3", "--samples", 64)
    assert [row["field"] for row in found["rows"]] == [0.0, 0.05, 0.1]
    for row in found["rows"]:
        assert row["magnetisation"]["stderr"] > 0 and 0 <= row["exact_magnetisation"] < 0.3
        assert document("evaluate", row["run"], "--samples", 64)["certified"] is True
    member = family / "members" / "field-0"
    assert document("sample", member, "--samples", 8, "--output", tmp_path / "spins.npz")["beta"] == 0.3
    hmc = ["--space", "latent", "--chains", 2, "--samples", 2, "--warm-up", 1, "--output", tmp_path / "chains.npz"]
    assert invoke("hmc", member, *hmc, "--quiet").exit_code == 0
    assert invoke("plot", family).exit_code == 0 and invoke("plot", member, "--samples", 32).exit_code == 0
    assert document("evaluate", family, "--field", 0.2, "--beta", 0.3, "--samples", 32)["rows"][0]["field"] == 0.2


def test_temperatures_and_fields_at_once(both):
    report = json.loads((both / "report.json").read_text())
    assert [row["beta"] for row in report["rows"]] == pytest.approx(np.repeat([0.2, 0.25, 0.3], 3))
    assert [row["field"] for row in report["rows"]] == pytest.approx(np.tile([-0.1, 0.05, 0.2], 3))
    assert {path.name for path in (both / "figures").iterdir()} == {"temperatures.png", "fields.png", "gap.png"}
    rows = document("evaluate", both, "--beta", 0.22, "--field", "0:0.1:2", "--samples", 32)["rows"]
    assert [(row["beta"], row["field"]) for row in rows] == [(0.22, 0.0), (0.22, 0.1)]


def test_a_family_starts_from_another_with_what_is_not_given_as_there(family, both, tmp_path):
    trained(tmp_path / "wider", "--from", family, "--field", "-0.1:0.3")
    config = json.loads((tmp_path / "wider" / "config.json").read_text())
    assert (config["low"], config["high"], config["fields"]) == (0.3, 0.3, [-0.1, 0.3])
    trained(tmp_path / "colder", "--from", both, "--beta", "0.25:0.35")
    config = json.loads((tmp_path / "colder" / "config.json").read_text())
    assert (config["low"], config["high"], config["fields"]) == (0.25, 0.35, [-0.1, 0.2])


@pytest.mark.parametrize(("option", "beta"), [(["--critical"], CRITICAL_BETA), (["--temperature", 4], 0.25)], ids=str)
def test_the_temperature_is_given_in_any_way(tmp_path, option, beta):
    trained(tmp_path / "run", "--field", "0.1:0.2", *option)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {row["beta"] for row in report["rows"]} == {beta}
    assert invoke("train", "--resume", "--output", tmp_path / "run", *option).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["evaluate", "{family}", "--field", 0.5], "field 0.5 is outside"),
        (["evaluate", "{family}", "--field", "0.1:-0.1:3"], "field -0.1 is outside"),
        (["evaluate", "{family}", "--beta", 0.2], "beta 0.2 is outside"),
        (
            ["sample", "{family}", "--samples", 4, "--output", "{family}/x.npz"],
            ".at(field), or in the run folders that isingflow evaluate FAMILY --field H writes",
        ),
        (["train", "--resume", "--output", "{family}", "--field", "0:0.3"], "its field differ"),
        (["train", "--resume", "--output", "{family}", "--field", 0.1], "its field differ"),
        (["train", "--resume", "--output", "{family}", "--beta", "0.2:0.3"], "its beta differ"),
        (["train", "--resume", "--output", "{family}", "--critical"], "its beta differ"),
        (["train", "--from", "{family}", "--beta", "0.2:0.3", "--output", "{family}/x"], "polynomials in beta"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(family, arguments, complaint):
    result = invoke(*(str(argument).format(family=family) for argument in arguments))
    assert result.exit_code == 2 and complaint in result.stderr and result.stderr.count("\n") == 1, result.stderr
