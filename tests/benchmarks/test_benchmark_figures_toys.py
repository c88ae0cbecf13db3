"""The toys' table: entropies against closed forms, and a measurement that goes on where it was cut short."""

import json
import math

import pytest

pytest.importorskip("zuko")


@pytest.fixture(scope="module")
def toys():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend("benchmarks")
        from figures import toys
    return toys


def test_entropies(toys):
    """Of eight squares; of eight Gaussians apart, less what they overlap: ln 8 + ln(2 pi e s^2), s = 0.5 / 1.414."""
    assert toys.entropy("checkerboard") == pytest.approx(math.log(32), abs=1e-9)
    apart = math.log(8) + math.log(2 * math.pi * math.e * (0.5 / 1.414) ** 2)
    assert apart - 0.01 < toys.entropy("eight-gaussians") < apart
    assert toys.entropy("moons") is None


def test_a_measurement_goes_on_where_it_was_cut_short(toys, tmp_path, monkeypatch):
    asked = []

    def train(data, seed, quick):
        asked.append((data.name, seed))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return toys.Trained(lambda x: -x.square().sum(1), {"test": {"value": float(seed)}, "seconds": 1.0})

    monkeypatch.setitem(toys.TRAIN, "spline", train)
    monkeypatch.setattr(toys, "entropy", lambda name: None)
    options, names = toys.Options(False, (1, 2), tmp_path), ("moons", "rings")
    with pytest.raises(KeyboardInterrupt):
        toys.cells(options, "spline", names)
    found = toys.cells(options, "spline", names)["runs"]
    assert [(row["toy"], row["seed"]) for row in found] == [("moons", 1), ("rings", 1), ("moons", 2), ("rings", 2)]
    assert asked[3:] == [("rings", 2)] * 2 and not list(tmp_path.glob("*.partial.json"))
    json.dumps(found)

    asked.clear()
    toys.cells(toys.Options(False, (1,), tmp_path), "spline", names)
    assert asked == [("moons", 1), ("rings", 1)]  # what was finished is measured anew


def test_rows_of_other_settings_are_not_taken(toys, tmp_path, monkeypatch):
    def train(data, seed, quick):
        return toys.Trained(lambda x: -x.square().sum(1), {"test": {"value": toys.BUDGET}, "seconds": 1.0})

    monkeypatch.setitem(toys.TRAIN, "spline", train)
    options = toys.Options(False, (1,), tmp_path)
    rows = toys.cells(options, "spline", ("moons",))["runs"]
    assert rows[0]["test"]["value"] == 20.0
    (tmp_path / "toys-spline.partial.json").write_text(json.dumps(rows))
    monkeypatch.setattr(toys, "BUDGET", 30.0)
    assert toys.cells(options, "spline", ("moons",))["runs"][0]["test"]["value"] == 30.0
