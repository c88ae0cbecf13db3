"""Settings by name in place of a preset's own: what is accepted, what a run remembers, and what is said of mistakes."""

import json
import math
from typing import Annotated, get_args, get_origin

import pytest

import isingflow
from isingflow import datasets
from isingflow.errors import InvalidInput
from isingflow.flows import ActNorm, Flow
from isingflow.lattice import Group, square
from isingflow.runs.config import DensityConfig, RunConfig, TargetConfig, config_from_dict, heading
from isingflow.runs.overrides import known, overridden
from isingflow.runtime.settings import accepted, types
from isingflow.training.train import configured


class Quartic(isingflow.Target):
    shape = (3,)
    symmetry = Group((3,))

    def energy(self, field):
        return field.pow(4).sum(-1)


CONFIGS = {
    f"{name}, {flow}": make(flow)
    for name, make in {
        "magnet": lambda flow: RunConfig.from_preset("quick", square(6), 0.4, flow=flow),
        "data": lambda flow: DensityConfig.from_preset("quick", datasets.load("moons"), flow=flow),
        "target": lambda flow: TargetConfig.from_preset("quick", Quartic(), flow=flow),
    }.items()
    for flow in ("monge-ampere", "ot", "convex")
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
KERNELS = {"flow.radial", "flow.oriented"}


def useful(config):
    """Names of settings that mean something to a run, by rules of our own."""
    names = set(known(config)) - (set() if config.kind == "magnet" else KERNELS)
    names -= set() if config.kind == "data" else {"training.patience"}
    return sorted(names - ({"flow.whitened", "training.evaluation_samples"} if config.kind == "data" else set()))


def outside(kind):
    """Values just outside a type's limits."""
    if get_origin(kind) is Annotated:
        plain, limits = get_args(kind)[:2]
        step = 1 if plain is int else 1e-9
        below = [limits.ge - step] if limits.ge is not None else [limits.gt] if limits.gt is not None else []
        above = [limits.le + max(step, 1e-9 * limits.le)] if limits.le is not None else []
        return [*below, *above, *([limits.lt] if limits.lt is not None else []), "many", None]
    return {bool: ["yes", 1]}.get(kind, ["nothing like it", 0.5])


@every_config
def test_every_setting_is_changed_alone_and_remembered(config):
    """All that means something can be set to what it is, and whole numbers to one more."""
    for name in useful(config):
        part, entry = name.split(".")[0], name.split(".")[-1]
        value = getattr(getattr(config, part), entry)
        if type(value) is int:
            value += 1
        elif type(value) is float and value and entry not in ("transport_cost", "hjb"):
            value *= 0.5
        made = overridden(config, {name: value})
        assert getattr(getattr(made, part), entry) == value and made.settings == {name: value}
        differences = [line for line in made.differences(config) if not line.startswith("settings.")]
        assert all(line.startswith(f"{name}:") for line in differences) and len(differences) <= 1
        assert config_from_dict(json.loads(json.dumps(made.to_dict()))) == made
        assert f"{name} = {value}" in heading(made)


@every_config
def test_values_out_of_range_are_told_the_range(config):
    for name in useful(config):
        part, entry = name.split(".")
        kind = types(type(getattr(config, part)))[entry]
        for value in outside(kind):
            with pytest.raises(InvalidInput) as error:
                overridden(config, {name: value})
            assert str(error.value).startswith(f"{name} is ") and accepted(kind) in str(error.value)
    with pytest.raises(InvalidInput, match=r"training.batch is 0, expected an integer from 1 to 1e\+09"):
        overridden(config, {"training.batch": 0})
    with pytest.raises(InvalidInput, match=r"training\.beta2 is 1\.0, expected a number >= 0 and < 1"):
        overridden(config, {"training.beta2": 1.0})
    with pytest.raises(InvalidInput):
        overridden(config, {"training.learning_rate": math.nan})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("flow.widht", "flow.width"),
        ("width", "flow.width"),
        ("training.learningrate", "training.learning_rate"),
        ("training.width", "flow.width"),
        ("flow.batch", "training.batch"),
    ],
)
def test_unknown_names_are_told_the_nearest(name, nearest):
    with pytest.raises(InvalidInput) as error:
        overridden(CONFIGS["data, ot"], {name: 3})
    first, _, listed = str(error.value).partition("; there are ")
    assert first == f"{name!r}: no such setting; the nearest is {nearest}"
    assert listed.split(", ") == [name for name in known(CONFIGS["data, ot"]) if name in useful(CONFIGS["data, ot"])]


@pytest.mark.parametrize("name", ["", "flow", "flow.", "flow.kind", "seed", "training.coarse.batch", 3, None, ("a",)])
def test_what_is_no_setting_is_refused(name):
    with pytest.raises(InvalidInput, match="no such setting"):
        overridden(CONFIGS["magnet, ot"], {name: 3})


def test_settings_that_would_be_ignored_are_refused():
    for name, words in {
        "flow.radial": "only flows on a uniform torus have convolutions",
        "flow.whitened": "what a flow of data starts from",
        "training.evaluation_samples": "all of its test data",
        "training.bounds": "a run on data has no use for it",
    }.items():
        with pytest.raises(InvalidInput, match=words):
            overridden(
                CONFIGS["data, ot"], {name: "both" if name == "training.bounds" else 0 if "radial" in name else 7}
            )
    with pytest.raises(InvalidInput, match="a convex flow has no paths"):
        overridden(CONFIGS["data, convex"], {"training.hjb": 0.5})


def test_smaller_lattices_have_settings_of_their_own():
    large = RunConfig.from_preset("accurate", square(32), 0.4)
    made = overridden(large, {"training.coarse.batch": 7, "training.batch": 8})
    assert (made.training.coarse.batch, made.training.batch) == (7, 8)
    assert overridden(large, {"training.coarse": None}).training.coarse is None


def test_training_takes_them(tmp_path):
    magnet = isingflow.HubbardStratonovich(square(4), beta=0.3)
    settings = {"flow.width": 7, "training.batch": 5, "training.iterations": 2}
    made = isingflow.train(magnet, flow="ot", output=tmp_path / "a", settings=settings, progress=False, device="cpu")
    assert (made.run.config.flow.width, made.run.config.training.batch) == (7, 5)
    assert made.run.config.settings == settings and len(made.run.metrics()) == 2
    fine = configured(magnet.at(beta=0.32), made.run, iterations=9, settings={"training.batch": 6})
    assert fine.settings == {"flow.width": 7, "training.batch": 6} and fine.training.iterations == 9
    refused = {
        "the run of a folder has its own": lambda: isingflow.train(made.run, settings={"training.batch": 6}),
        "only training": lambda: isingflow.train(magnet, start=made, settings={"flow.width": 6}),
        "given twice": lambda: isingflow.train(magnet, iterations=3, settings={"training.iterations": 4}),
        "settings by name": lambda: isingflow.train(magnet, settings=["training.batch"]),
    }
    for words, attempt in refused.items():
        with pytest.raises(isingflow.errors.IsingflowError, match=words):
            attempt()
    own = Flow((4, 4), [ActNorm((4, 4))])
    with pytest.raises(InvalidInput, match=r"'flow\.maps': no such setting"):
        configured(magnet, flow=own, settings={"flow.maps": ["x"]})
