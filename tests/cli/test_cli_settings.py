"""`--set`, and flows of all kinds by one command: what is trained, written, resumed and refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import isingflow
from isingflow import cli
from isingflow.architectures.build import FLOWS
from isingflow.cli.options import repeated
from isingflow.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("small_reports")


def invoke(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def failure(*words):
    """The message of a command that must fail with one line."""
    result = invoke(*words)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    return result.stderr.removeprefix("isingflow: error: ")


def config(path):
    return RunFolder.open(path).config


@pytest.mark.parametrize(
    "words",
    [
        ["moons", "--set", "flow.width=8", "training.batch=64", "--seed", "1"],
        ["--set", "flow.width=8", "training.batch=64", "moons", "--seed", "1"],
        ["--set=flow.width=8", "training.batch=64", "moons", "--seed=1"],
        ["moons", "--seed", "1", "--set", "flow.width=8", "--set", "training.batch=64"],
    ],
)
def test_several_settings_follow_one_option(words):
    given = repeated("--set", words)
    values = [
        word.removeprefix("--set=")
        for before, word in zip(["", *given[:-1]], given, strict=True)
        if before == "--set" or "--set=" in word
    ]
    assert values == ["flow.width=8", "training.batch=64"] and "moons" in given


def test_a_run_has_what_was_set_and_is_resumed_with_it(empty_folder):
    words = ["--set", "flow.width=8", "training.batch=1e2", "training.schedule=constant", "training.adapt_steps=false"]
    result = invoke("density", "2spirals", "--flow", "ot", "--steps", 2, *words, "--output", "run", "--json")
    assert result.exit_code == 0, result.output
    made = config("run")
    assert (made.data, made.flow.width, made.training.batch, made.training.schedule) == (
        "two-spirals",
        8,
        100,
        "constant",
    )
    assert made.settings == {
        "flow.width": 8,
        "training.batch": 100,
        "training.schedule": "constant",
        "training.adapt_steps": False,
    }
    assert "flow.width = 8" in Image.open("run/figures/density.png").text["Title"]
    again = invoke("density", "2spirals", "--resume", "--output", "run", *words[:2])
    assert again.exit_code == 0 and "finished already" in again.stdout
    changed = failure("density", "--resume", "--output", "run", "--set", "flow.width=9", "training.batch=100")
    assert changed == "--resume: not the run in run: flow.width: 9 here, 8 there\n"


def test_magnets_take_settings_too(empty_folder):
    words = ["--size", 4, "--flow", "ot", "--steps", 2]
    assert invoke("train", *words, "--set", "flow.width=5", "training.batch=9", "--output", "run").exit_code == 0
    assert config("run").settings == {"flow.width": 5, "training.batch": 9}
    again = invoke("train", "--preset", "quick", "--flow", "ot", "--resume", "--output", "run")
    assert again.exit_code == 0 and "finished already" in again.stdout
    assert "flow.width: 6 here, 5 there" in failure("train", "--resume", "--output", "run", "--set", "flow.width=6")
    assert "only training.* can be set" in failure("train", "--from", "run", "--set", "flow.width=6")
    assert "given twice" in failure("train", "--rate", 1e-3, "--set", "training.learning_rate=0.1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--set", "flow.hiden=3"],
            "'flow.hiden': no such setting; the nearest is flow.hidden; there are flow.potential, ",
        ),
        (["--set", "flow.hidden=0"], "flow.hidden is 0, expected an integer from 1 to 65536"),
        (["--set", "flow.hidden=many"], "flow.hidden is 'many', expected an integer"),
        (["--set", "training.learning_rate=nan"], "training.learning_rate is 'nan', expected a number"),
        (["--set", "flow.hidden"], "--set flow.hidden: expected NAME=VALUE, for example flow.width=128"),
        (["--set", "=3"], "--set =3: expected NAME=VALUE"),
        (["--set", "flow.hidden=3", "flow.hidden=4"], "--set flow.hidden is given 2 times: give it once"),
        (["--set", "training.iterations=3", "--steps", "4"], "training.iterations is given twice"),
        (["--set", "flow.potential=image"], "needs images"),
        (["--flow", "all", "--set", "flow.width=3"], "--flow all, monge-ampere: 'flow.width': no such setting"),
        (["--flow", "all", "--set", "training.hjb=3"], "--flow all, convex: training.hjb is 3.0, but a convex flow"),
        (["--flow", "all", "--preset", "paper"], "--flow all, monge-ampere: preset 'paper': expected one of"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(empty_folder, words, message):
    assert message in failure("density", "moons", *words)
    assert not any(empty_folder.iterdir())


@pytest.mark.slow
def test_all_kinds_of_flow(empty_folder):
    """Trained one after the other, resumed where the making or a training was cut short, and one table of them."""
    np.save("table.npy", np.random.default_rng(0).normal(size=(60, 3)))
    words = ["density", "tabular", "table.npy", "--flow", "all", "--steps", 2, "--set", "training.batch=20"]
    words += ["--output", "all"]
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-6].endswith("table.npy in 3 dimensions: -ln p (nats)") and lines[-5].split()[:2] == ["flow", "start"]
    assert [line.split()[0] for line in lines[-4:-1]] == list(FLOWS)
    assert {path.name for path in (empty_folder / "all").iterdir()} == {*FLOWS, "figures", "report.json", "report.txt"}
    title = Image.open("all/figures/flows.png").text["Title"]
    assert "table.npy in 3 dimensions" in title and title.endswith("preset quick, training.batch = 20, seed 0")
    table = (empty_folder / "all" / "report.txt").read_text()

    shutil.rmtree("all/convex")
    for path in ("all/ot/figures/training.png", "all/ot/report.json", "all/report.json"):
        (empty_folder / path).unlink()
    assert "all: no run of convex yet" in failure("density", "--resume", "--output", "all")
    assert "flow: ot here, monge-ampere there" in failure(
        "density", "--resume", "--flow", "ot", "--output", "all/monge-ampere"
    )
    assert "training.batch: 30 here, 20 there" in failure(
        *words[:7], "--set", "training.batch=30", "--resume", *words[-2:]
    )
    before = (empty_folder / "all" / "monge-ampere" / "report.json").stat().st_mtime_ns
    again = invoke(*words, "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert (empty_folder / "all" / "monge-ampere" / "report.json").stat().st_mtime_ns == before
    documents = json.loads(again.stdout)
    assert [document["flow"] for document in documents] == list(FLOWS)
    assert json.loads((empty_folder / "all" / "report.json").read_text()) == documents
    assert all(config(f"all/{kind}").settings == {"training.batch": 20} for kind in FLOWS)
    for document, line in zip(documents, table.splitlines()[2:], strict=True):
        size, _, certified = line.split()[-3:]
        assert line.split()[0] == document["flow"] and size == f"{document['parameters']:,}"
        assert certified == ("yes" if document["certified"] else "NO")
    third = invoke("density", "--resume", "--output", "all")
    assert third.exit_code == 0 and (empty_folder / "all" / "report.txt").read_text() in third.stdout + "\n"
    assert "exists" in failure(*words)


def test_columns_keep_their_names(empty_folder):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    np.savez("table.npz", data=rows, columns=np.array(["mass", "length", "a\nb"]))
    assert invoke("density", "tabular", "table.npz", "--flow", "ot", "--steps", 1, "--output", "run").exit_code == 0
    assert config("run").columns == ("mass", "length", "a?b")
    assert invoke("sample", "run", "--samples", 5, "--output", "points.npz").exit_code == 0
    assert np.load("points.npz")["columns"].tolist() == ["mass", "length", "a?b"]
    assert invoke("density", "moons", "--flow", "ot", "--steps", 1, "--output", "toy").exit_code == 0
    assert invoke("sample", "toy", "--samples", 5, "--output", "toy.npz").exit_code == 0
    assert "columns" not in np.load("toy.npz") and config("toy").columns == ()


@pytest.mark.parametrize(
    ("kind", "magnet"),
    [
        ("ot", ["--boundary", "open"]),
        ("convex", ["--field", 0.1]),
        pytest.param("ot", ["--field", 0.1], marks=pytest.mark.slow),
        pytest.param("convex", ["--boundary", "open"], marks=pytest.mark.slow),
    ],
)
def test_other_flows_train_near_sites_where_there_are_no_even_convolutions(kind, magnet, empty_folder):
    words = ["--size", 3, "--beta", 0.4, *magnet, "--device", "cpu", "--set", "flow.features=2", "flow.radius=1"]
    result = invoke("train", "--flow", kind, *words, "--steps", 2, "--output", "run", "--json")
    assert result.exit_code == 0, result.output
    made = config("run")
    assert (made.flow.features, made.flow.last, made.training.gradient) == (2, True, "path")
    flow = isingflow.load("run")
    x, log_prob = flow.sample(3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=1e-3, atol=1e-3)
