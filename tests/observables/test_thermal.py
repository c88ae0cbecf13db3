"""Short series along chains: the same as all spins say, exact answers between temperatures, crossings, files."""

import json
import math

import networkx
import numpy as np
import pytest
from scipy.optimize import brentq

from isingflow.errors import FileError, InvalidInput
from isingflow.exact import averages
from isingflow.lattice import chain, cubic, edwards_anderson, from_graph, random_field, square, triangular
from isingflow.monte_carlo import simulate, stream
from isingflow.observables import measure
from isingflow.observables.crossing import QUANTITIES, crossing
from isingflow.observables.reweighted import Reweighted
from isingflow.observables.series_files import read_series, write_series
from isingflow.observables.thermal import ThermalSeries
from isingflow.statistics.estimate import Estimate

LATTICES = {
    "torus": square(4, 6),
    "open": square(4, boundary="open"),
    "triangular": triangular(4),
    "cube": cubic(3),
    "ring": chain(9),
    "glass": edwards_anderson(4, seed=1),
    "graph": from_graph(networkx.petersen_graph()),
    "field": square(4).with_field(0.2),
    "open in a field": square(4, boundary="open").with_field(0.2),
    "random field": random_field(square(4), 0.5, seed=1),
}


def series_at(lattice, betas, samples, seed=0):
    return [
        ThermalSeries.of(lattice, beta, simulate(lattice, beta, samples=samples, seed=seed + k).spins)
        for k, beta in enumerate(betas)
    ]


@pytest.mark.parametrize("name", LATTICES)
def test_series_say_what_all_spins_say(name):
    lattice = LATTICES[name]
    chains = simulate(lattice, 0.35, samples=200, seed=1, every=2)
    found = ThermalSeries.of(lattice, 0.35, chains.spins).observables()
    known = measure(lattice, 0.35, spins=chains.spins)
    for key, estimate in found.items():
        if key == "correlation_length_over_size":
            continue
        there = getattr(known, key)
        if key == "correlation_length" and name in ("open in a field", "random field"):
            assert estimate is None
            continue
        assert (estimate is None) == (there is None), key
        if estimate is not None:
            assert estimate.value == pytest.approx(there.value, rel=1e-9, abs=1e-12), key
            assert estimate.stderr == pytest.approx(there.stderr, rel=0.3), key
    if found["correlation_length"] is not None:
        ratio = found["correlation_length"].value / found["correlation_length_over_size"].value
        assert ratio == pytest.approx(max(lattice.shape))


def test_blocks_are_the_same_as_all_at_once():
    lattice = square(8)
    options = {"samples": 40, "chains": 3, "seed": 2, "thermalise": 5}
    streamed = ThermalSeries.from_blocks(lattice, stream(lattice, 0.4, **options))
    whole = ThermalSeries.of(lattice, 0.4, simulate(lattice, 0.4, **options).spins)
    for name in ("energy", "magnetisation", "structure_factor"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(whole, name), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["torus", "glass", "field"])
def test_between_temperatures_the_exact_answers(name):
    lattice, betas = LATTICES[name], [0.25, 0.35, 0.45]
    found = Reweighted(series_at(lattice, betas, 1500), seed=1)
    for beta, row in zip((0.25, 0.3, 0.41), found.at([0.25, 0.3, 0.41]), strict=True):
        known = averages(lattice, beta)
        for key, estimate in row.items():
            if key in known:
                assert abs(estimate.value - known[key]) < 4.5 * estimate.stderr, (key, beta)
                assert estimate.stderr < 0.2 * abs(known[key]) + 0.02


def test_between_is_better_than_each_alone():
    """Three temperatures close together know more of the middle one than its own chains."""
    series = series_at(square(8), [0.42, 0.44, 0.46], 400)
    alone, together = series[1].observables(), Reweighted(series).at([0.44])[0]
    for key in ("energy_per_site", "magnetisation_squared"):
        assert together[key].stderr < 0.85 * alone[key].stderr
        assert abs(together[key].value - alone[key].value) < 4.5 * alone[key].stderr


def test_lattices_and_temperatures_that_cannot_be_taken_together():
    with pytest.raises(InvalidInput, match="one lattice"):
        Reweighted([*series_at(square(4), [0.3], 20), *series_at(square(6), [0.3], 20)])
    with pytest.raises(InvalidInput, match="do not overlap"):
        Reweighted(series_at(square(16), [0.05, 1.0], 50))


def exact_crossing(small, large):
    def difference(beta):
        return averages(large, beta)["binder"] - averages(small, beta)["binder"]

    return brentq(difference, 0.41, 0.47, xtol=1e-6)


def test_crossings_are_where_exact_curves_cross():
    """Of finite lattices, 4x4 and 6x6, whose Binder ratios are known: the transition itself is elsewhere."""
    small, large = square(4), square(6)
    there = exact_crossing(small, large)
    curves = [Reweighted(series_at(lattice, [0.40, 0.44, 0.48], 4000, seed=9), seed=1) for lattice in (small, large)]
    found = crossing(*curves, "binder")
    assert abs(found.beta.value - there) < 4.5 * found.beta.stderr and found.beta.stderr < 0.004
    assert abs(found.value.value - averages(small, there)["binder"]) < 4.5 * found.value.stderr
    slopes = [
        (averages(lattice, there + 1e-4)["binder"] - averages(lattice, there - 1e-4)["binder"]) / 2e-4
        for lattice in (small, large)
    ]
    nu = math.log(6 / 4) / math.log(slopes[1] / slopes[0])
    assert abs(found.nu.value - nu) < 4.5 * found.nu.stderr and found.nu.stderr < 0.2 * nu


def test_crossings_look_the_other_way_in_negative_beta():
    """s -> s on one sublattice: the ferromagnet at -beta with couplings of -1, the same chains with beta turned."""
    series = {size: series_at(square(size), [0.40, 0.44, 0.48], 1500, seed=9) for size in (4, 8)}
    found = crossing(*(Reweighted(series[size], seed=1) for size in (4, 8)), "binder")
    turned = {
        size: [
            ThermalSeries(
                square(size, jx=-1.0, jy=-1.0), -one.beta, -one.energy, one.magnetisation, one.structure_factor
            )
            for one in series[size]
        ]
        for size in (4, 8)
    }
    there = crossing(*(Reweighted(turned[size], seed=1) for size in (4, 8)), "binder")
    assert there.beta.value == pytest.approx(-found.beta.value, abs=1e-9)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_curves_that_do_not_cross_are_refused(quantity):
    curves = [Reweighted(series_at(square(size), [0.30, 0.32, 0.34], 300)) for size in (4, 8)]
    with pytest.raises(InvalidInput, match=r"do not cross between beta 0\.3 and 0\.34"):
        crossing(*curves, quantity)
    with pytest.raises(InvalidInput, match="quantity"):
        crossing(*curves, "energy")
    apart = Reweighted(series_at(square(8), [0.5, 0.52], 300))
    with pytest.raises(InvalidInput, match="temperatures do not overlap"):
        crossing(curves[0], apart, quantity)


@pytest.mark.parametrize("name", ["torus", "graph", "field"])
def test_files_hold_what_was_measured(name, tmp_path):
    lattice = LATTICES[name]
    series = series_at(lattice, [0.2, 0.3], 20)
    write_series(tmp_path / "a.npz", series, ["wolff", "wolff"])
    back = read_series(tmp_path / "a.npz")
    assert [one.beta for one in back] == [0.2, 0.3] and all(one.lattice == lattice for one in back)
    for one, two in zip(series, back, strict=True):
        for key in ("energy", "magnetisation", "structure_factor"):
            np.testing.assert_array_equal(getattr(one, key), getattr(two, key))


ARRAYS = {"beta": np.array([0.2, 0.3]), "size": np.array([4, 4]), "lattice": np.array(json.dumps(square(4).to_dict()))}
ARRAYS |= {name: np.zeros((2, 3, 5)) for name in ("energy", "magnetisation", "structure_factor")}


@pytest.mark.parametrize(
    "change",
    [
        {"beta": None},
        {"energy": None},
        {"structure_factor": None},
        {"beta": np.array([0.2])},
        {"beta": np.array([0.2, math.nan])},
        {"beta": np.array(0.2)},
        {"energy": np.zeros((2, 3, 4))},
        {"energy": np.zeros((2, 15))},
        {"energy": np.full((2, 3, 5), math.inf)},
        {"magnetisation": np.full((2, 3, 5), 2.0)},
        {"lattice": np.array("{")},
        {"size": np.array([4, 6])},
        {"energy": np.array(["x"])},
    ],
)
def test_damaged_files_are_one_line(change, tmp_path):
    np.savez(tmp_path / "good.npz", **ARRAYS)
    assert len(read_series(tmp_path / "good.npz")) == 2
    np.savez(tmp_path / "bad.npz", **{name: v for name, v in (ARRAYS | change).items() if v is not None})
    with pytest.raises(FileError) as caught:
        read_series(tmp_path / "bad.npz")
    assert "\n" not in str(caught.value) and "bad.npz" in str(caught.value)


def test_means_that_are_no_numbers_are_none():
    """Correlations that are not positive have no length."""
    up = np.ones((2, 10))
    series = ThermalSeries(square(4), 0.3, -up, 0.1 * up, 100 * up)
    found = series.observables()
    assert found["correlation_length"] is None and found["correlation_length_over_size"] is None
    assert isinstance(found["binder"], Estimate)
