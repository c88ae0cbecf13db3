"""`isingflow train --beta 0.2:0.4` and what other commands do with a family of flows."""

import json

import pytest
from click.testing import CliRunner

from isingflow import cli


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def document(*arguments):
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    path = tmp_path_factory.mktemp("families") / "family"
    options = ["--steps", 20, "--set", "training.evaluation_samples=128", "--output", path, "--quiet"]
    result = invoke("train", "--size", 4, "--beta", "0.2:0.4", *options)
    assert result.exit_code == 0, result.stderr
    assert "beta = 0.2 to 0.4" in result.stdout and "smallest effective sample size" in result.stdout
    return path


def test_a_training_leaves_a_table_figures_and_members(family):
    report = json.loads((family / "report.json").read_text())
    assert len(report["rows"]) == 9 and (report["low"], report["high"]) == (0.2, 0.4)
    assert {path.name for path in (family / "figures").iterdir()} == {"temperatures.png", "gap.png"}
    assert len(list((family / "members").iterdir())) == 9
    assert invoke("train", "--resume", "--output", family).stdout.startswith(f"{family} is finished already")


def test_temperatures_are_chosen_and_members_are_runs(family, tmp_path):
    found = document("evaluate", family, "--beta", "0.25:0.35:3", "--samples", 64)
    assert [row["beta"] for row in found["rows"]] == pytest.approx([0.25, 0.3, 0.35])
    member = family / "members" / "beta-0.25"
    assert found["rows"][0]["run"] == str(member)
    assert document("evaluate", member, "--samples", 64)["beta"] == 0.25
    spins = tmp_path / "spins.npz"
    assert document("sample", member, "--samples", 8, "--output", spins)["beta"] == 0.25
    hmc = ["--space", "latent", "--chains", 2, "--samples", 2, "--warm-up", 1, "--output", tmp_path / "chains.npz"]
    assert invoke("hmc", member, *hmc, "--quiet").exit_code == 0
    assert invoke("plot", family).exit_code == 0 and invoke("plot", member, "--samples", 32).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["evaluate", "{family}", "--beta", 0.5], "beta 0.5 is outside"),
        (["evaluate", "{family}", "--beta", "0.3:0.1:3"], "beta 0.1 is outside"),
        (["sample", "{family}", "--samples", 4, "--output", "{family}/x.npz"], "choose one"),
        (
            ["hmc", "{family}", "--space", "latent", "--chains", 2, "--samples", 4, "--output", "{family}/x.npz"],
            "not on a magnet",
        ),
        (["train", "--resume", "--output", "{family}", "--beta", "0.2:0.5"], "its beta differ"),
        (["train", "--resume", "--output", "{family}", "--beta", 0.3], "its beta differ"),
        (["train", "--resume", "--output", "{family}", "--size", 5], "its lattice differ"),
        (["train", "--resume", "--output", "{family}", "--seed", 4], "its seed differ"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(family, arguments, complaint):
    result = invoke(*(str(argument).format(family=family) for argument in arguments))
    assert result.exit_code == 2 and complaint in result.stderr and result.stderr.count("\n") == 1, result.stderr
