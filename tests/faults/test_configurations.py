"""Settings that nobody can want: every entry of every class of settings, with values of every wrong kind."""

import json
import math
import sys
import unicodedata
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from msgspec.structs import asdict, fields, replace

from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.cp_image import ConvexImageFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.architectures.own import OwnFlow
from isingflow.errors import InvalidInput
from isingflow.lattice import Group, edwards_anderson, square, triangular
from isingflow.runs.base import Run
from isingflow.runs.config import DensityConfig, FamilyConfig, RunConfig, TargetConfig, TrainingConfig, config_from_dict
from isingflow.runs.entries import KeptState, State
from isingflow.runs.family import SeriesConfig
from isingflow.runs.solution import Solution
from isingflow.runs.target import StartMaps
from isingflow.runtime.settings import Settings, read, types
from isingflow.studies.plan import Study

MADE = [
    FlowConfig(),
    OTFlowConfig(),
    ConvexFlowConfig(),
    ConvexImageFlowConfig(),
    OwnFlow(("Mine",)),
    TrainingConfig(),
    State(3, 0.5, 4, False),
    KeptState(2, -1.5),
    Solution(1.0, -1.0, 0.5, "kaufman", 0.1, None, "digest"),
    StartMaps(({"map": "Mine"},), ()),
    SeriesConfig(),
    Study("train", beta=(0.3, 0.4)),
    FamilyConfig(square(4), 0.2, 0.4, "quick", fields=(0.0, 0.2)),
    RunConfig(square(4), 0.4, "quick"),
    DensityConfig("moons", None, 2, "gaussian", 0, 0, "quick"),
    TargetConfig("Mine", {"strength": 0.5}, (2, 3), Group((2, 3)), "quick"),
]
"""One of every class of settings."""
ENTRIES = [(made, name) for made in MADE for name in types(type(made))]
every_entry = pytest.mark.parametrize(
    ("made", "name"), ENTRIES, ids=[f"{type(made).__name__}.{name}" for made, name in ENTRIES]
)


def subclasses(kind):
    for cls in kind.__subclasses__():
        yield cls
        yield from subclasses(cls)


def test_every_class_of_settings_of_the_package_is_here():
    ours = {cls for cls in subclasses(Settings) if cls.__module__.startswith("isingflow.")} - {Run}
    ours = {cls for cls in ours if hasattr(sys.modules[cls.__module__], cls.__name__)}  # not those of examples
    assert ours == {type(made) for made in MADE}


class Strange:
    """Of no type that settings have."""

    def __repr__(self):
        return "strange\n" * 1000


DEEP: Any = None
for _ in range(100_000):
    DEEP = {"coarse": DEEP}

WRONG = [
    *("", "x", "x\ny", "\ud800", "9" * 10_000, b"x", None, True, Strange(), Strange, DEEP),
    *(math.nan, math.inf, -math.inf, 1.5, -1, 0, -0.0, 1e30, 1e300, -1e300, sys.float_info.max, 5e-324),
    *(10**9 + 1, 2**63, 2**80, -(2**80), 10**400, 10**5000),
    *([], [1], ["x"], (), (0,), {}, {"x": 1}, {"kind": "x"}, {1: 2}, {"kind": "square"}, [[]]),
    *(np.float64(0.5), np.array([1.0, 2.0]), np.nan),
]


def allowed(value, kind):
    """Whether a value is within a type and its limits, by rules of our own rather than msgspec's."""
    if get_origin(kind) is Annotated:
        plain, *limits = get_args(kind)
        return allowed(value, plain) and all(within(value, limit) for limit in limits)
    if kind is float:
        try:
            return type(value) in (int, float) and math.isfinite(float(value))
        except OverflowError:
            return False
    if kind in (int, bool, str, type(None)):
        return type(value) is kind
    if isinstance(kind, type) and issubclass(kind, Settings):
        return isinstance(value, kind | dict)
    options = get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(allowed(entry, options[0]) for entry in value)
    if get_origin(kind) is dict:
        pairs = value.items() if isinstance(value, dict) else [(None, None)]
        return all(allowed(key, options[0]) and allowed(entry, options[1]) for key, entry in pairs)
    if all(isinstance(option, str) for option in options):
        return isinstance(value, str) and value in options
    return any(allowed(value, option) for option in options)


UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Control characters, surrogates and what ends a line, as categories of Unicode."""


def within(value, limit: Meta):
    return (
        (limit.ge is None or value >= limit.ge)
        and (limit.gt is None or value > limit.gt)
        and (limit.le is None or value <= limit.le)
        and (limit.lt is None or value < limit.lt)
        and (limit.min_length is None or len(value) >= limit.min_length)
        and (limit.max_length is None or len(value) <= limit.max_length)
        and (limit.pattern is None or not {unicodedata.category(letter) for letter in value} & UNPRINTABLE)
    )


def refused(attempt, *words):
    """Whether an attempt is refused, in one line that can be printed and holds one of these words."""
    try:
        attempt()
    except InvalidInput as error:
        text = str(error)
        assert len(text.splitlines()) == 1 and len(text) < 400, text
        assert not words or any(word in text for word in words), text
        text.encode()
        return True
    return False


def check_entry(made, name, value):
    """An entry outside its limits is refused in every way that it can come in; one within survives JSON."""
    kind = types(type(made))[name]
    plain = value.item() if isinstance(value, np.generic) else value
    entries = {entry: getattr(made, entry) for entry in types(type(made))}
    attempts = [
        lambda: type(made)(**entries | {name: value}),
        lambda: replace(made, **{name: value}),
        lambda: read_any(made, made.to_dict() | {name: plain}),
    ]
    named = () if kind is Any else (name, "an entry is", "an entry holds")
    found = [refused(attempt, *named) for attempt in attempts]
    if kind is not Any and not allowed(plain, kind):
        assert all(found), f"{name} = {value!r} is accepted"
    assert found[0] == found[1]
    if not found[0]:
        changed = attempts[0]()
        assert read_any(made, json.loads(json.dumps(changed.to_dict()))) == changed


def read_any(made, data):
    """Settings of a class, from their description."""
    return config_from_dict(data) if isinstance(made, Run) else read(data, type(made), "settings")


@every_entry
def test_no_entry_takes_what_nobody_can_want(made, name):
    for value in WRONG:
        check_entry(made, name, value)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**400), 10**400),
        st.floats(),
        st.text(st.characters(), max_size=20),
        st.sampled_from(["lattice", "quick", "exact", "both", "rk4", "ot", "convex", "square", "copula"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.sampled_from(ENTRIES), json_values)
def test_no_entry_takes_what_nobody_has_thought_of(entry, value):
    check_entry(*entry, value)


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
def test_entries_that_are_missing_or_unknown_are_refused_by_name(made):
    described = made.to_dict()
    if not isinstance(made, State | KeptState):  # which later versions may add to
        assert refused(lambda: read_any(made, described | {"colour": 1}), "colour")
    for field in fields(type(made)):
        if field.required:
            without = {name: value for name, value in described.items() if name != field.name}
            assert refused(lambda without=without: read_any(made, without), field.name)
    for other in (None, [], 3, "x", {}, {"kind": []}, {"kind": "x"}, DEEP):
        if other != {} or any(field.required for field in fields(type(made))):
            assert refused(lambda other=other: read_any(made, other))


MAGNET, DATA, OWN = MADE[-3:]
CONTRADICTIONS = {
    "force matching on data": (DATA, {"training": TrainingConfig(force_matching=0.1)}, "force_matching"),
    "bounds on data": (DATA, {"training": TrainingConfig(bounds="both")}, "bounds"),
    "smaller data": (DATA, {"training": TrainingConfig(coarse=TrainingConfig())}, "coarse"),
    "a copula without grey levels": (DATA, {"start": "copula"}, "levels"),
    "a table without a path": (DATA, {"data": "tabular"}, "path"),
    "a path of a toy": (DATA, {"path": "table.csv"}, "path"),
    "rows that do not fill an image": (DATA, {"dimension": 10, "image_width": 3}, "rows of 3"),
    "a smaller target of one's own": (OWN, {"training": TrainingConfig(coarse=TrainingConfig())}, "coarse"),
    "fields of another shape than their symmetry": (OWN, {"shape": (3, 2)}, "shape"),
    "paths of convex flows": (MAGNET, {"flow": ConvexFlowConfig(), "training": TrainingConfig(hjb=0.1)}, "hjb"),
    "transport by convex flows": (
        DATA,
        {"flow": ConvexFlowConfig(), "training": TrainingConfig(transport_cost=0.1)},
        "transport_cost",
    ),
    "couplings that overflow": (MAGNET, {"beta": 1e300}, "1e+300"),
    "a goal nearer to 0": (MAGNET, {"goal": 0.3}, "goal 0.3"),
    "a goal of the other sign": (MAGNET, {"goal": -0.5}, "goal -0.5"),
    "a goal from infinite temperature": (MAGNET, {"beta": 0.0, "goal": 0.5}, "goal 0.5"),
    "a goal that overflows": (MAGNET, {"goal": 1e300}, "goal 1e+300"),
    "weak couplings of strong bonds": (MAGNET, {"lattice": square(4, jx=1e60), "beta": 1e-50}, "beta J"),
    "a lattice that cannot be halved": (MAGNET, {"training": TrainingConfig(coarse=TrainingConfig())}, "half the size"),
    "half of an open lattice": (
        MAGNET,
        {"lattice": square(8, boundary="open"), "training": TrainingConfig(coarse=TrainingConfig())},
        "half the size",
    ),
    "half of a glass": (
        MAGNET,
        {"lattice": edwards_anderson(8, seed=1), "training": TrainingConfig(coarse=TrainingConfig())},
        "half the size",
    ),
    "a quarter of a lattice of which there is a half": (
        MAGNET,
        {"lattice": triangular(8), "training": TrainingConfig(coarse=TrainingConfig(coarse=TrainingConfig()))},
        "half the size",
    ),
    "half of what is not local": (
        MAGNET,
        {"lattice": square(8), "flow": OTFlowConfig(), "training": TrainingConfig(coarse=TrainingConfig())},
        "half the size",
    ),
}


@pytest.mark.parametrize(("made", "changes", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(made, changes, words):
    assert refused(lambda: replace(made, **changes), words)
    described = made.to_dict()
    for name, value in changes.items():
        described[name] = value.to_dict() if hasattr(value, "to_dict") else value
    assert refused(lambda: config_from_dict(described), words)


def test_settings_that_go_together_are_accepted():
    """The same as above, where they have a meaning."""
    replace(MAGNET, lattice=square(16), training=TrainingConfig(coarse=TrainingConfig(coarse=None)))
    replace(MAGNET, goal=0.5)
    replace(MAGNET, beta=-0.3, goal=-0.5)
    replace(MAGNET, training=TrainingConfig(force_matching=0.1, bounds="both", hjb=0.1))
    replace(OWN, training=TrainingConfig(force_matching=0.1, bounds="both", transport_cost=0.1))
    replace(DATA, start="copula", levels=256, dimension=12, image_width=3)
    replace(DATA, data="tabular", path="table.csv")
    assert asdict(replace(MAGNET, beta=5))["beta"] == 5.0
