"""Configurations: to JSON and back, presets, what is refused, and what two runs differ in."""

import copy
import json
import re

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, fields, replace

from isingflow.architectures.build import FLOWS, build_flow
from isingflow.errors import InvalidInput
from isingflow.flows import gradient_flows
from isingflow.flows.solvers.runge_kutta import TABLEAUX
from isingflow.lattice import CRITICAL_BETA, cubic, edwards_anderson, from_graph, square, triangular
from isingflow.potentials import DensePotential, LatticePotential, SampledAverage
from isingflow.runs.config import PRESETS, FlowConfig, RunConfig, TrainingConfig, config_from_dict
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

LATTICES = {
    "square": square(4),
    "rectangle": square(4, 6),
    "anisotropic": square(4, jy=0.5),
    "varying": square(3, jx=np.arange(9.0).reshape(3, 3)),
    "open": square(4, boundary="open"),
    "triangular": triangular(4),
    "glass": edwards_anderson(4, seed=3),
    "graph": from_graph(networkx.petersen_graph()),
}
every_preset = pytest.mark.parametrize("preset", PRESETS)
every_lattice = pytest.mark.parametrize("lattice", LATTICES.values(), ids=LATTICES)


@every_preset
@every_lattice
def test_configurations_survive_json(preset, lattice):
    config = RunConfig.from_preset(preset, lattice, -0.3, seed=5, iterations=7)
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert not config.differences(again)


def values_like(name, value):
    if name == "carried":  # goes with a smaller lattice only
        return st.just(value)
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(1, 100)
    if isinstance(value, float):
        return st.floats(0.001, 0.9)
    return st.just(value)


def configs(cls):
    return st.builds(cls, **{name: values_like(name, value) for name, value in asdict(cls()).items()})


@given(st.one_of(*map(configs, FLOWS.values())), configs(TrainingConfig), st.floats(-2, 2), st.integers(0, 2**31))
def test_any_settings_survive_json(flow, training, beta, seed):
    if flow.kind == "convex":
        training = replace(training, transport_cost=0.0, hjb=0.0)
    training = replace(training, noise=0.0, patience=0)
    config = RunConfig(square(4), beta, "quick", seed, flow, training)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_paper_s_preset_is_the_published_configuration():
    """Zhang, E and Wang (2018): dense ln cosh potential, h = 512, RK4 with 50 steps of 0.1, batch 64, Adam."""
    flow, training = PRESETS["paper"].flow, PRESETS["paper"].training
    assert (flow.potential, flow.hidden, flow.tableau, flow.training_steps) == ("dense", 512, "rk4", 50)
    assert flow.time / flow.training_steps == pytest.approx(0.1)
    assert flow.average == "sampled" and not flow.whitened
    assert (training.iterations, training.batch) == (2000, 64)
    assert (training.learning_rate, training.schedule, training.weight_decay) == (1e-3, "constant", 1e-3)
    assert (training.clip, training.jitter, training.transport_cost, training.force_matching) == (0, 0, 0, 0)
    assert training.beta2 == 0.999
    assert training.per_site, "the published decay stands beside a loss per site"
    assert not training.adapt_steps, "the published run keeps its 50 steps"


def test_the_paper_s_flow_is_the_published_one():
    """131,584 parameters on 16x16, within 1/sqrt of fan-in; group elements sampled; from a standard normal."""
    target = HubbardStratonovich(square(16), CRITICAL_BETA)
    flow = build_flow(target, PRESETS["paper"].flow, seed=0)
    potential = gradient_flows(flow)[0].potential
    assert flow.parameter_count == 131_584
    assert len(flow.transforms) == 1
    assert isinstance(potential, SampledAverage) and potential.symmetry == target.symmetry
    assert potential.elements.order == 2048
    for name, fan_in in (("weight", 256), ("amplitude", 512)):
        weights = getattr(potential.potential, name).detach()
        assert weights.abs().max() <= fan_in**-0.5 and float(weights.std()) == pytest.approx(
            (3 * fan_in) ** -0.5, rel=0.05
        )
    assert isinstance(potential.potential, DensePotential) and potential.potential.activation == "lncosh"
    grid = torch.tensor(gradient_flows(flow.train())[0].grid()) * gradient_flows(flow)[0].time
    torch.testing.assert_close(grid.diff(), torch.full((50,), 0.1))


@pytest.mark.parametrize("preset", ["quick", "accurate"])
def test_our_presets_are_exactly_symmetric_and_certified(preset):
    flow, training = PRESETS[preset].flow, PRESETS[preset].training
    assert flow.potential == "lattice" and flow.whitened
    assert training.tolerance <= 0.01 and training.adapt_steps and training.jitter > 0
    built = build_flow(HubbardStratonovich(square(4), CRITICAL_BETA), flow, seed=0)
    assert isinstance(gradient_flows(built)[0].potential, LatticePotential)
    assert gradient_flows(built)[0].potential.symmetry == square(4).symmetry


@every_preset
def test_presets_hold_sensible_numbers(preset):
    flow, training = PRESETS[preset].flow, PRESETS[preset].training
    assert flow.tableau in TABLEAUX and flow.steps >= 1 and flow.time > 0
    assert training.iterations >= training.check_every >= 1
    assert training.schedule in ("one-cycle", "constant")
    assert 0 <= training.jitter < 1 and training.evaluation_samples >= 2


@every_preset
@every_lattice
def test_every_preset_makes_a_flow_on_every_lattice(preset, lattice):
    """Without translations the convolutional potential gives way to the local one."""
    config = RunConfig.from_preset(preset, lattice, 0.4)
    assert (config.preset, config.beta, config.lattice, config.seed) == (preset, 0.4, lattice, 0)
    own = PRESETS[preset].flow.potential
    expected = "local" if own == "lattice" and not lattice.translation_invariant else own
    assert config.flow.potential == expected
    flow = build_flow(HubbardStratonovich(lattice, 0.4), config.flow, seed=0)
    assert flow.shape == lattice.shape and flow.parameter_count > 0
    if lattice.translation_invariant:
        assert config.flow == PRESETS[preset].flow


def test_iterations_can_be_chosen_and_nothing_else_changes():
    plain = RunConfig.from_preset("quick", square(4), 0.4)
    short = RunConfig.from_preset("quick", square(4), 0.4, iterations=3)
    assert short.training == replace(plain.training, iterations=3)
    assert (short.flow, short.lattice, short.beta) == (plain.flow, plain.lattice, plain.beta)


@pytest.mark.parametrize("preset", ["", "Quick", "fast", "paper ", None, 3, ["quick"], {}])
def test_unknown_presets_are_refused(preset):
    with pytest.raises(InvalidInput, match=re.escape(f"preset {preset!r}: expected one of quick, accurate, paper")):
        RunConfig.from_preset(preset, square(4), 0.4)
    with pytest.raises(InvalidInput, match=re.escape(f"flow {preset!r}: expected one of monge-ampere, ot, convex")):
        RunConfig.from_preset("quick", square(4), 0.4, flow=preset)


@pytest.mark.parametrize("iterations", [0, -5, 1.5, True, "x", 2**80, np.nan])
def test_there_is_at_least_one_iteration(iterations):
    with pytest.raises(InvalidInput, match=r"iterations is .*expected"):
        RunConfig.from_preset("quick", square(4), 0.4, iterations=iterations)


# --- training up from smaller lattices


def sizes(config):
    """The lattices and iterations of a run, from its own down to the smallest that it starts from."""
    found = []
    while config is not None:
        found.append((config.lattice.shape, config.training.iterations))
        config = config.coarse
    return found


@pytest.mark.parametrize(
    ("lattice", "shapes"),
    [
        (square(14), [(14, 14)]),
        (square(16), [(16, 16), (8, 8)]),
        (square(30), [(30, 30), (15, 15)]),
        (square(33), [(33, 33)]),
        (square(8, 64), [(8, 64), (4, 32)]),
        (cubic(6), [(6, 6, 6)]),
        (cubic(8), [(8, 8, 8), (4, 4, 4)]),
        (square(32, 64, jy=0.5), [(32, 64), (16, 32), (8, 16)]),
        (triangular(34), [(34, 34), (17, 17)]),
        (cubic(16), [(16, 16, 16), (8, 8, 8), (4, 4, 4)]),
        (square(128), [(128, 128), (64, 64), (32, 32), (16, 16), (8, 8)]),
        (square(32, boundary="open"), [(32, 32)]),
        (edwards_anderson(32, seed=0), [(32, 32)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("preset", ["quick", "accurate"])
def test_presets_train_large_uniform_tori_up_from_small_ones(lattice, shapes, preset):
    config = RunConfig.from_preset(preset, lattice, 0.4, seed=3)
    assert [shape for shape, _ in sizes(config)] == shapes
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    smallest = config
    while smallest.coarse is not None:
        assert (smallest.coarse.beta, smallest.coarse.seed, smallest.coarse.flow) == (0.4, 3, config.flow)
        smallest = smallest.coarse
    assert RunConfig.from_preset("paper", lattice, 0.4).coarse is None


@pytest.mark.parametrize("preset", ["quick", "accurate"])
def test_twice_the_length_takes_half_the_iterations_and_the_batch_at_a_quarter_of_the_rate(preset):
    config = RunConfig.from_preset(preset, square(128), 0.4)
    *larger, sixteen, _ = [n for _, n in sizes(config)]
    assert larger == [sixteen // times for times in (8, 4, 2)]
    batches, rates = [], []
    while config.coarse is not None:
        batches.append(config.training.batch)
        rates.append(config.training.learning_rate)
        config = config.coarse
    assert batches == [8, 8, 16, 32]
    assert rates == pytest.approx([rates[-1] / times for times in (64, 16, 4, 1)])


def test_fewer_iterations_are_fewer_on_every_lattice_and_one_at_least():
    whole = RunConfig.from_preset("accurate", square(64), 0.4)
    some = RunConfig.from_preset("accurate", square(64), 0.4, iterations=whole.training.iterations // 10)
    assert [n for _, n in sizes(some)] == pytest.approx([n / 10 for _, n in sizes(whole)], abs=1)
    one = [n for _, n in sizes(RunConfig.from_preset("accurate", square(64), 0.4, iterations=1))]
    assert one[0] == 1
    assert min(one) >= 1
    assert RunConfig.from_preset("accurate", square(64), 0.4, iterations=whole.training.iterations) == whole


@pytest.mark.parametrize(
    ("lattice", "preset", "beta", "carried"),
    [
        (square(128), "accurate", 0.4, [True, True, False, False, False]),
        (square(128), "accurate", 0.3, [True, True, False, False, False]),
        (square(128), "accurate", 0.41, [False] * 5),
        (square(128), "accurate", -0.3, [False] * 5),
        (square(128), "quick", 0.4, [False] * 5),
        (square(32, 128), "accurate", 0.4, [False] * 4),
        (square(64, 128), "accurate", 0.4, [True, False, False, False]),
        (square(48), "accurate", 0.4, [False, False, False]),
        (square(64, jy=0.5), "accurate", 0.55, [True, False, False, False]),
        (triangular(64), "accurate", 0.2493, [True, False, False, False]),
        (triangular(64), "accurate", 0.25, [False] * 4),
        (cubic(64), "accurate", 0.1, [False] * 5),
    ],
    ids=str,
)
@pytest.mark.parametrize("iterations", [None, 20])
def test_where_the_correlation_length_is_short_large_tori_are_not_trained_on(
    lattice, preset, beta, carried, iterations
):
    config = RunConfig.from_preset(preset, lattice, beta, iterations=iterations)
    assert iterations is None or config.training.iterations == iterations
    found = []
    while config is not None:
        training = config.training
        found.append(training.carried)
        assert training.updates == (1 if training.carried else training.iterations)
        config = config.coarse
    assert found == carried


def test_nothing_is_carried_over_from_nowhere():
    with pytest.raises(InvalidInput, match=r"carried is true, but training\.coarse null"):
        RunConfig(square(8), 0.4, "mine", training=TrainingConfig(carried=True))
    training = TrainingConfig(coarse=TrainingConfig(), carried=True)
    assert training.alone() == TrainingConfig()
    assert training.scaled(10).carried


def test_larger_lattices_are_evaluated_on_fewer_samples_of_more_sites():
    samples = {
        n: RunConfig.from_preset("accurate", square(n), 0.4).training.evaluation_samples
        for n in (4, 16, 32, 64, 128, 200)
    }
    assert samples == {4: 16384, 16: 16384, 32: 4096, 64: 1024, 128: 256, 200: 256}


def test_what_the_smaller_lattice_differs_in_is_named_and_checked():
    config = RunConfig.from_preset("accurate", square(32), 0.4)
    other = replace(config, training=replace(config.training, coarse=replace(config.training.coarse, batch=3)))
    assert other.differences(config) == [f"training.coarse.batch: 3 here, {config.training.coarse.batch} there"]
    for entry, value, complaint in (("coarse", 3, "coarse is 3"), ("batch", "many", "coarse.batch is 'many'")):
        data = config.to_dict()
        place = data["training"] if entry == "coarse" else data["training"]["coarse"]
        place[entry] = value
        with pytest.raises(InvalidInput, match=complaint):
            RunConfig.from_dict(data)


# --- what is no configuration


@pytest.mark.parametrize("garbage", [None, 3, "run", [], {}, [1, 2], {"lattice": 1}, {1: 2}])
def test_garbage_is_refused(garbage):
    with pytest.raises(InvalidInput, match="not a run: "):
        RunConfig.from_dict(garbage)


VALID = RunConfig.from_preset("quick", square(4), 0.4).to_dict()


def changed(path, value):
    data = copy.deepcopy(VALID)
    *folders, name = path.split(".")
    place = data
    for folder in folders:
        place = place[folder]
    if value is None:
        del place[name]
    else:
        place[name] = value
    return data


@pytest.mark.parametrize("path", ["kind", "lattice", "beta", "preset", "flow.kind"])
def test_missing_entries_are_refused(path):
    with pytest.raises(InvalidInput, match=f"the entry {path.split('.')[-1]} is missing"):
        config_from_dict(changed(path, None))


@pytest.mark.parametrize("path", [f"{part}.{name}" for part in ("flow", "training") for name in VALID[part]])
def test_settings_that_were_not_there_yet_have_their_defaults(path):
    """So that a run folder can be read after a setting has been added."""
    part, name = path.split(".")
    if name == "kind":
        return
    kind = FlowConfig if part == "flow" else TrainingConfig
    found = getattr(RunConfig.from_dict(changed(path, None)), part)
    assert getattr(found, name) == getattr(kind(), name)


@pytest.mark.parametrize("name", ["\x1e", "two\nlines"])
def test_names_of_foreign_entries_are_told_on_a_line(name):
    with pytest.raises(InvalidInput) as found:
        RunConfig.from_dict(RunConfig.from_preset("quick", square(4), 0.4).to_dict() | {name: 1})
    assert str(found.value).isprintable() and f"the entry {name!r} is unknown" in str(found.value)


@pytest.mark.parametrize("path", ["extra", "flow.extra", "training.extra"])
def test_foreign_entries_are_refused(path):
    with pytest.raises(InvalidInput, match="the entry extra is unknown"):
        RunConfig.from_dict(changed(path, 1))


@pytest.mark.parametrize(
    "path", [f"{part}.{name}" for part in ("flow", "training") for name in VALID[part] if name != "kind"]
)
@pytest.mark.parametrize("value", [[], {}, "text", 1.5, 3, True], ids=repr)
def test_entries_of_the_wrong_type_are_refused(path, value):
    """Integers where numbers are expected are fine; nothing else is mistaken for another type."""
    part, name = path.split(".")
    cls = FlowConfig if part == "flow" else TrainingConfig
    default = next(field.default for field in fields(cls) if field.name == name)
    fits = type(value) is type(default) or (type(value), type(default)) == (int, float)
    if fits or (name, value) == ("coarse", {}):
        return
    with pytest.raises(InvalidInput, match=name):
        RunConfig.from_dict(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("beta", "0.4"),
        ("beta", [0.4]),
        ("beta", True),
        ("beta", float("nan")),
        ("beta", float("inf")),
        ("seed", "1"),
        ("seed", 1.0),
        ("seed", True),
        ("preset", ["quick"]),
        ("preset", 3),
        ("lattice", 3),
        ("lattice", {}),
        ("lattice", {"kind": "cubic"}),
        ("lattice", {"kind": ["square"]}),
        ("lattice", {**VALID["lattice"], "shape": [4]}),
        ("lattice", {**VALID["lattice"], "shape": [4, -4]}),
        ("lattice", {**VALID["lattice"], "jx": "strong"}),
        ("flow", []),
        ("flow", None),
        ("training", "long"),
    ],
)
def test_wrong_physics_is_refused(path, value):
    with pytest.raises(InvalidInput):
        RunConfig.from_dict(changed(path, value) if value is not None else {**VALID, path: None})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("flow.steps", 0),
        ("flow.hidden", -3),
        ("flow.time", float("nan")),
        ("flow.time", -1.0),
        ("flow.tableau", "rk5"),
        ("flow.kind", "coupling"),
        ("flow.kind", ["ot"]),
        ("flow.kind", "ot"),
        ("flow.potential", "cubic"),
        ("flow.potential", 1.0),
    ],
)
def test_impossible_flows_are_refused_before_they_run(path, value):
    """By from_dict or, at the latest, when the flow is built; always as an error of ours."""
    with pytest.raises(InvalidInput):
        config = RunConfig.from_dict(changed(path, value))
        build_flow(HubbardStratonovich(config.lattice, config.beta), config.flow, seed=0)


# --- what differs


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("beta", 0.5, "beta: 0.4 here, 0.5 there"),
        ("seed", 9, "seed: 0 here, 9 there"),
        ("flow.hidden", 48, "flow.hidden: 32 here, 48 there"),
        ("training.schedule", "constant", "training.schedule: one-cycle here, constant there"),
        ("lattice.jy", 0.5, "lattice.jy: 1.0 here, 0.5 there"),
    ],
)
def test_differences_are_named(path, value, line):
    here, there = RunConfig.from_dict(VALID), RunConfig.from_dict(changed(path, value))
    assert here.differences(there) == [line]
    assert not here.differences(here)


def test_all_differences_are_named():
    here = RunConfig.from_preset("quick", square(4), 0.4)
    there = RunConfig.from_preset("paper", square(4), 0.4, seed=2)
    named = {line.partition(":")[0] for line in here.differences(there)}
    assert {"preset", "seed", "flow.potential", "flow.hidden", "training.batch"} <= named
    ours, theirs = asdict(here.flow), asdict(there.flow)
    assert {f"flow.{name}" for name in ours if ours[name] != theirs[name]} == {
        n for n in named if n.startswith("flow.")
    }


@every_lattice
def test_lattices_of_any_kind_can_be_compared(lattice):
    """Also where one has entries that the other has not: in both directions, and every difference on one line."""
    for other in LATTICES.values():
        here, there = (RunConfig(each, 0.4, "quick") for each in (lattice, other))
        lines = here.differences(there)
        assert bool(lines) == (lattice != other)
        assert all("\n" not in line and " here, " in line and line.endswith(" there") for line in lines)
        ours, theirs = lattice.to_dict(), other.to_dict()
        expected = {f"lattice.{entry}" for entry in ours.keys() | theirs if ours.get(entry) != theirs.get(entry)}
        assert {line.partition(":")[0] for line in lines} == expected
