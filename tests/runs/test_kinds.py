"""Runs of all kinds: on magnets, data and a user's own target; formats old and new, and where a run comes from."""

import getpass
import json
import platform
import re
import subprocess
from datetime import datetime

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import isingflow
from isingflow import cli
from isingflow.architectures.build import FLOWS
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.errors import CheckpointError, InvalidInput, RunFolderError
from isingflow.evaluation.data import evaluate_density
from isingflow.evaluation.targets import draw_samples
from isingflow.flows import ActNorm
from isingflow.lattice import CRITICAL_BETA, Group, square
from isingflow.lattice.symmetry import square_torus_group
from isingflow.runs.config import FORMAT, DensityConfig, RunConfig, TargetConfig, config_from_dict
from isingflow.runs.folder import RunFolder, open_density, open_magnet
from isingflow.runs.loading import new_flow
from isingflow.runs.provenance import command_line, commit
from isingflow.runs.settings import TrainingConfig
from isingflow.runs.target import StartMaps
from isingflow.targets.base import Start, Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

VERSION_0_1 = """{
  "lattice": {"kind": "square", "shape": [16, 16], "boundary": "periodic", "jx": 1.0, "jy": 1.0},
  "beta": 0.44068679350977147,
  "preset": "quick",
  "seed": 0,
  "flow": {
    "kind": "monge-ampere", "potential": "lattice", "hidden": 32, "radial": 6, "oriented": 3, "time_terms": 4,
    "average": "none", "steepness": 2.0, "whitened": true, "time": 1.0, "steps": 6, "tableau": "rk4"
  },
  "training": {
    "iterations": 340, "batch": 32, "learning_rate": 0.006, "schedule": "one-cycle", "weight_decay": 0.0, "beta2": 0.99,
    "clip": 10.0, "jitter": 0.3, "adapt_steps": true, "transport_cost": 0.0, "hjb": 0.0, "force_matching": 0.0,
    "bounds": "upper", "tolerance": 0.01, "check_every": 25, "evaluation_samples": 4096, "recompute": false,
    "coarse": null
  }
}"""
"""config.json as version 0.1 wrote it."""


class Phi4(Target):
    """A start that is known to us: the flow can be made without the target."""

    def __init__(self, coupling=0.5):
        super().__init__()
        self.coupling = coupling
        self.shape = (4, 4)
        self.symmetry = square_torus_group(4, 4)

    def energy(self, field):
        return (field.square() / 2 + self.coupling * field.pow(4)).flatten(1).sum(1)

    def start(self):
        return HubbardStratonovich(square(4), 0.3).start()


class Chain(Target):
    """No start and no symmetry."""

    shape = (5,)

    def energy(self, field):
        return field.pow(4).sum(1) + field[:, 0]


class Own(Chain):
    """A start that only the target knows."""

    def start(self):
        return Start(field=[ActNorm(self.shape)])


TARGETS = {"phi4": Phi4(), "chain": Chain(), "own": Own()}
every_flow = pytest.mark.parametrize("flow", FLOWS)


def config_of(target, flow="monge-ampere", **options):
    small = {"monge-ampere": {"hidden": 4}, "ot": {"width": 4}, "convex": {"width": 4, "blocks": 1}}
    return TargetConfig.from_preset("quick", target, flow=flow, flow_settings=small[flow], **options)


def trained_folder(path, config, target):
    """A run folder with the checkpoint of a flow with random parameters."""
    flow = config.new_flow(target)
    generator = torch.Generator().manual_seed(7)
    for parameter in flow.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    run = RunFolder.create(path, config)
    tensors = {f"flow.{name}": value for name, value in flow.state_dict().items()}
    steps = getattr(config.flow, "steps", 0)
    run.save_checkpoint(tensors, {"iteration": 0, "seconds": 0.0, "steps": steps, "finished": False})
    return run, flow.eval()


# --- targets of the user's own


@every_flow
@pytest.mark.parametrize("name", ["phi4", "chain"])
def test_a_run_on_a_target_loads_without_the_target(tmp_path, name, flow):
    """Its start is in the checkpoint, whatever the class of the target."""
    run, expected = trained_folder(tmp_path / "run", config_of(TARGETS[name], flow), TARGETS[name])
    x, log_prob = expected.sample(5, generator=torch.Generator().manual_seed(0))
    found = isingflow.load(run.path)
    again, found_log_prob = found.sample(5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(x, again) and torch.equal(log_prob, found_log_prob)
    with_target = isingflow.load(run.path, target=TARGETS[name])
    assert torch.equal(with_target.log_prob(x), found.log_prob(x))


def test_a_start_that_only_the_target_knows_asks_for_it(tmp_path):
    run, expected = trained_folder(tmp_path / "run", config_of(Own()), Own())
    with pytest.raises(InvalidInput, match="starts with a ActNorm, which only its target knows"):
        isingflow.load(run.path)
    x = torch.randn(3, 5)
    assert torch.equal(isingflow.load(run.path, target=Own()).log_prob(x), expected.log_prob(x))


def test_another_target_is_refused(tmp_path):
    run, _ = trained_folder(tmp_path / "run", config_of(Phi4()), Phi4())
    with pytest.raises(InvalidInput, match=r"parameters.coupling: 0.6 here, 0.5 there"):
        isingflow.load(run.path, target=Phi4(0.6))
    with pytest.raises(InvalidInput, match="name: Chain here, Phi4 there"):
        isingflow.load(run.path, target=Chain())
    less = Phi4()
    less.symmetry = Group((4, 4), flip=True)
    with pytest.raises(InvalidInput, match="symmetry: Z2 here, translations x D4 x Z2 there"):
        isingflow.load(run.path, target=less)


def test_the_same_target_in_other_last_digits_is_the_same(tmp_path):
    """For example of a number that it computed by another library."""
    run, expected = trained_folder(tmp_path / "run", config_of(Phi4()), Phi4())
    x = torch.randn(3, 4, 4)
    again = isingflow.load(run.path, target=Phi4(0.5 * (1 + 1e-14)))
    assert torch.equal(again.log_prob(x), expected.log_prob(x))


def test_targets_of_other_runs():
    magnet = RunConfig.from_preset("quick", square(4), 0.4)
    same = HubbardStratonovich(square(4), 0.4)
    expected, found = new_flow(magnet).state_dict(), new_flow(magnet, same).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    with pytest.raises(InvalidInput, match=r"beta = 0\.5.* is not the target of a run on .*beta = 0\.4"):
        new_flow(magnet, HubbardStratonovich(square(4), 0.5))
    moons = isingflow_data("moons")
    with pytest.raises(InvalidInput, match=r"a run on data .* has no target"):
        new_flow(DensityConfig.from_preset("quick", moons), Chain())


def test_evaluations_of_another_kind_of_run_are_refused(tmp_path):
    data = RunFolder.create(tmp_path / "data", DensityConfig.from_preset("quick", isingflow_data("moons")))
    target, _ = trained_folder(tmp_path / "target", config_of(Chain()), Chain())
    device = torch.device("cpu")
    with pytest.raises(InvalidInput, match=r"a run on data \(moons in 2 dimensions\) has no target"):
        draw_samples(data, samples=2, device=device)
    with pytest.raises(RunFolderError, match=r"a run on a target of the user's own \(Chain, 5\), not on data"):
        evaluate_density(target, isingflow_data("moons"), device=device)
    words = ["sample", str(target.path), "--samples", "2", "--output", str(tmp_path / "x.npz")]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 2 and "is on Chain, 5, a target of your own" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "x.npz").exists()


def isingflow_data(name):
    from isingflow import datasets

    return datasets.load(name)


def test_checkpoints_of_magnets_hold_what_they_held():
    """A magnet's start follows from its configuration, so runs of version 0.1 load; a target's start is in the file."""
    magnet = RunConfig.from_preset("quick", square(4), 0.4)
    assert not [name for name in magnet.new_flow().state_dict() if name.endswith(".scale")]
    target = config_of(Phi4())
    assert [name for name in target.new_flow(Phi4()).state_dict() if name.endswith(".scale")] == [
        "transforms.0.scale",
        "transforms.3.scale",
    ]


def test_a_start_that_is_not_finite_is_refused(tmp_path):
    run, _ = trained_folder(tmp_path / "run", config_of(Phi4()), Phi4())
    tensors, state = run.load_checkpoint()
    tensors["flow.transforms.0.scale"][0, 0] = torch.nan
    run.save_checkpoint(tensors, state)
    with pytest.raises(CheckpointError, match="not finite"):
        isingflow.load(run.path)


@every_flow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_configurations_of_targets_survive_json(target, flow):
    config = config_of(target, flow, seed=3, iterations=7)
    again = config_from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and not again.differences(config) and again.title() == config.title()
    assert (config.name, config.shape, config.symmetry) == (target.name, target.shape, target.symmetry)
    assert config.training.iterations == 7 and config.coarse is None


words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
numbers = st.one_of(
    st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), words
)


@given(st.dictionaries(words, numbers), st.integers(0, 2**31), words.filter(bool))
def test_any_parameters_survive_json(parameters, seed, name):
    config = TargetConfig(name, parameters, (2, 3), Group((2, 3), flip=True), "quick", seed=seed)
    again = config_from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert [type(value) for value in again.parameters.values()] == [type(value) for value in parameters.values()]


def test_parameters_of_numpy_are_numbers():
    target = Chain()
    target.strength, target.label = np.float64(0.25), "weak"
    config = config_of(target)
    assert config.parameters == {"strength": 0.25, "label": "weak"}
    assert str(config) == "Chain, strength = 0.25, label = weak, 5"


@pytest.mark.parametrize(
    ("entry", "value", "complaint"),
    [
        ("name", "", "name is ''"),
        ("parameters", {"a": [1]}, "parameters is"),
        ("parameters", {"a": float("nan")}, "parameters is|parameters.* expected"),
        ("shape", [0], "shape.0 is 0, expected an integer >= 1"),
        ("shape", [5, 1], "shape"),
        ("symmetry", {}, "not a symmetry group"),
        ("symmetry", None, "not a symmetry group"),
        ("start", {"latent": "eigen"}, "start.latent is 'eigen'"),
        ("kind", "crystal", "kind is 'crystal', expected one of magnet, family, data, target"),
        (
            "flow",
            {"kind": "coupling"},
            "flow.kind is 'coupling', expected one of monge-ampere, ot, convex, convex-image, own",
        ),
        (
            "flow",
            {"kind": "ot", "tableau": "rk5"},
            "flow.tableau is 'rk5', expected one of euler, midpoint, rk4, dopri5",
        ),
        ("flow", {"kind": "ot", "tableau": 5}, "flow.tableau is 5, expected a text"),
        ("training", {"coarse": {"bounds": "lower"}}, "training.coarse.bounds is 'lower', expected one of upper, both"),
    ],
)
def test_what_is_no_run_on_a_target_is_refused(entry, value, complaint):
    with pytest.raises(InvalidInput, match=complaint) as error:
        config_from_dict(config_of(Chain()).to_dict() | {entry: value})
    assert "\n" not in str(error.value)


def test_settings_of_the_flow_can_be_given_by_name():
    config = TargetConfig.from_preset("accurate", Phi4(), flow_settings={"hidden": 5, "steps": 3})
    assert (config.flow.hidden, config.flow.steps, config.preset) == (5, 3, "accurate")
    with pytest.raises(InvalidInput, match="flow settings wings: expected some of potential, hidden"):
        TargetConfig.from_preset("quick", Phi4(), flow_settings={"wings": 2})
    with pytest.raises(InvalidInput, match="hidden is -1, expected an integer >= 1"):
        TargetConfig.from_preset("quick", Phi4(), flow_settings={"hidden": -1})
    plain = TargetConfig.from_preset("quick", Phi4(), flow_settings={"whitened": False, "products": 0})
    assert plain.start == StartMaps() and len(plain.new_flow().transforms) == 1


# --- run folders of every kind


def test_folders_know_their_kind(tmp_path):
    magnet = RunFolder.create(tmp_path / "magnet", RunConfig.from_preset("quick", square(4), 0.4))
    data = RunFolder.create(tmp_path / "data", DensityConfig.from_preset("quick", isingflow_data("moons")))
    target = RunFolder.create(tmp_path / "target", config_of(Chain()))
    for run in (magnet, data, target):
        assert RunFolder.open(run.path) == run
    with pytest.raises(RunFolderError, match=r"is a run on data \(moons in 2 dimensions\), not on a magnet"):
        open_magnet(data.path)
    with pytest.raises(RunFolderError, match=r"is a run on a magnet \(periodic 4x4\), not on data"):
        open_density(magnet.path)
    with pytest.raises(RunFolderError, match=r"is a run on a target of the user's own \(Chain, 5\), not on a magnet"):
        open_magnet(target.path)
    samples = np.random.default_rng(0).normal(size=(3, 5))
    target.save_snapshot(4, samples)
    assert target.snapshots()[4].dtype == np.float32
    np.testing.assert_array_equal(target.snapshots()[4], samples.astype(np.float32))


def test_titles():
    assert RunConfig.from_preset("quick", square(8), CRITICAL_BETA).title() == (
        "2D Ising, periodic 8x8, beta = 0.440687 (critical), T = 2.26919"
    )
    assert DensityConfig.from_preset("quick", isingflow_data("moons")).title() == "moons in 2 dimensions"
    assert config_of(Phi4()).title() == Phi4().title() == "Phi4, coupling = 0.5, 4x4"


# --- formats


def test_runs_of_version_0_1_are_read(tmp_path):
    """They keep the settings that preset `quick` had then."""
    config = config_from_dict(json.loads(VERSION_0_1))
    assert config == RunConfig(
        square(16),
        CRITICAL_BETA,
        "quick",
        flow=FlowConfig(steps=6),
        training=TrainingConfig(iterations=340, learning_rate=6e-3, evaluation_samples=4096),
    )
    (tmp_path / "config.json").write_text(VERSION_0_1)
    run = RunFolder.open(tmp_path)
    assert run.config == config and run.provenance == {}


def test_data_runs_of_version_0_1_are_read():
    config = DensityConfig.from_preset("quick", isingflow_data("moons"), flow="ot")
    old = {name: entry for name, entry in config.to_dict().items() if name not in ("format", "kind")}
    assert config_from_dict(json.loads(json.dumps(old))) == config


def test_what_is_written_says_its_format_and_kind(tmp_path):
    run = RunFolder.create(tmp_path / "run", config_of(Chain()))
    written = json.loads((run.path / "config.json").read_text())
    assert (written["format"], written["kind"], FORMAT) == (2, "target", 2)


@pytest.mark.parametrize("number", [3, 2.0, "2", None, -1, True, 10**30])
def test_formats_of_the_future_are_refused_in_one_line(tmp_path, number):
    config = RunConfig.from_preset("quick", square(4), 0.4)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict() | {"format": number, "colour": "blue"}))
    with pytest.raises(RunFolderError, match=f"of format {number!r}.*reads formats up to 2") as error:
        RunFolder.open(tmp_path)
    assert "\n" not in str(error.value)


# --- provenance


def test_a_folder_says_where_it_comes_from(tmp_path):
    config = RunConfig.from_preset("quick", square(4), 0.4)
    run = RunFolder.create(tmp_path / "run", config)
    told = run.provenance
    assert set(told) == {"isingflow", "torch", "numpy", "commit", "started", "host_kind", "command_line"}
    assert (told["isingflow"], told["torch"]) == (isingflow.__version__, torch.__version__)
    assert datetime.fromisoformat(told["started"]).tzinfo is not None
    assert re.fullmatch(r"\S+ \S+, \d+ cores?, .+", told["host_kind"])
    assert told["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", told["commit"])
    assert RunFolder.open(run.path).provenance == told
    assert RunFolder.open(run.path).config == config and not config.differences(RunFolder.open(run.path).config)


def test_nobody_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/someone/bin/isingflow", "train", "--size", "8"])
    run = RunFolder.create(tmp_path / "run", RunConfig.from_preset("quick", square(4), 0.4))
    text = (run.path / "config.json").read_text()
    assert run.provenance["command_line"] == "isingflow train --size 8"
    for private in (str(tmp_path), "/home", platform.node(), f"/{getpass.getuser()}"):
        assert not private or private not in text


def test_command_lines():
    assert command_line(["/a/isingflow/__main__.py", "train", "my run"]) == "python -m isingflow train 'my run'"
    assert command_line(["-c"]) == "-c"


def test_commits_are_those_of_the_folder_itself(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert commit(tmp_path) is None
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    found = commit(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{40}", found)
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{found}-dirty"
    (tmp_path / "installed").mkdir()
    assert commit(tmp_path / "installed") is None


def test_equal_runs_have_equal_flows_whenever_they_are_made():
    config = replace(config_of(Phi4()), seed=11)
    one, two = config.new_flow(Phi4()).state_dict(), config.new_flow(Phi4()).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
