"""External fields of lattices: one form for equal fields, the symmetry that is left, the way through dictionaries."""

import itertools
import json
import math

import networkx
import numpy as np
import pytest

from isingflow.errors import InvalidInput, WrongType
from isingflow.lattice import edwards_anderson, from_dict, from_graph, heading, random_field, square, triangular

CENTRE = np.pad(np.ones((2, 2)), 1)
STRIPES = np.indices((4, 4))[0] % 2 * 0.3

LATTICES = {
    "uniform": square(4).with_field(0.05),
    "negative": triangular(3).with_field(-2),
    "stripes": square(4).with_field(STRIPES),
    "open": square(4, boundary="open").with_field(CENTRE),
    "random": random_field(square(3), 0.3, seed=1),
    "glass": edwards_anderson(3, seed=0).with_field(0.3),
    "graph": from_graph(networkx.petersen_graph()).with_field(np.arange(10.0)),
}


@pytest.mark.parametrize("name", LATTICES)
def test_dictionaries_hold_the_field(name):
    of = LATTICES[name]
    again = from_dict(json.loads(json.dumps(of.to_dict())))
    assert again == of and hash(again) == hash(of)
    assert of != of.with_field(None) and "field" not in of.with_field(None).to_dict()
    np.testing.assert_array_equal(again.field_by_site, of.field_by_site)
    if of.kind == "graph":
        assert from_graph(of.graph) == of
    else:
        np.testing.assert_array_equal(from_graph(of.graph).field_by_site, of.field_by_site.ravel())


def test_equal_fields_are_kept_alike():
    plain = square(4)
    for zero in (None, 0, -0.0, np.zeros((4, 4)), [[0] * 4] * 4):
        assert plain.with_field(0.3).with_field(zero) == plain
    for same in (0.5, np.float32(0.5), np.full((4, 4), 0.5), np.array(0.5)):
        assert plain.with_field(same).field == 0.5
    given = STRIPES.copy()
    kept = plain.with_field(given)
    given[:] = 7
    np.testing.assert_array_equal(kept.field, STRIPES)
    assert not kept.field.flags.writeable
    assert random_field(plain, 0.3, seed=1) == random_field(plain.with_field(2), 0.3, seed=1)
    assert random_field(plain, 0.3, seed=1) != random_field(plain, 0.3, seed=2)
    signs = random_field(square(100), -0.3, seed=5).field
    assert set(np.abs(signs).ravel()) == {0.3} and abs(np.sign(signs).mean()) < 0.04


def test_words():
    beta = math.log(1 + math.sqrt(2)) / 2
    assert heading(square(8), beta).endswith("(critical)")
    assert heading(square(8).with_field(0.05), beta) == "2D Ising, periodic 8x8, field 0.05, beta = 0.440687"
    assert str(LATTICES["random"]) == "periodic 3x3, field varies"


@pytest.mark.parametrize("name", LATTICES)
def test_symmetry_is_what_leaves_couplings_and_field(name):
    """Every element keeps J and H; on grids, no candidate that does so is left out."""
    of = LATTICES[name]
    group, couplings, field = of.symmetry, of.couplings(1.0), of.field_by_site.ravel()

    def kept(permutation):
        unchanged = np.array_equal(couplings[np.ix_(permutation, permutation)], couplings)
        return unchanged and np.array_equal(field[permutation], field)

    assert not group.flip
    assert all(kept(element.permutation) and element.sign == 1 for element in group.elements())
    if of.kind == "graph":
        return
    without = of.with_field(None).symmetry
    shifts = itertools.product(*map(range, of.shape)) if without.translations else ()
    assert group.translations == (without.translations and all(kept(without.element(s).permutation) for s in shifts))
    assert len(group.point) == sum(map(kept, without.point))
    assert of.translation_invariant == group.translations


def test_a_uniform_field_survives_halving_and_a_varying_one_does_not():
    assert square(8).with_field(0.1).halved() == square(4).with_field(0.1)
    assert random_field(square(8), 0.1, seed=0).halved() is None


@pytest.mark.parametrize("strange", ["0.5", True, 1j, {}, np.ones((4, 4)) * 1j, [["a"] * 4] * 4])
def test_what_is_no_field(strange):
    with pytest.raises(WrongType, match=r"^field is .*expected"):
        square(4).with_field(strange)


@pytest.mark.parametrize("bad", [math.nan, -math.inf, 1e80, np.ones((4, 3)), [1.0] * 4, np.full((4, 4), math.nan)])
def test_fields_that_cannot_be(bad):
    with pytest.raises(InvalidInput, match=r"^field"):
        square(4).with_field(bad)


def test_fields_of_nodes():
    graph = networkx.path_graph(3)
    networkx.set_node_attributes(graph, {0: 0.1, 1: 0, 2: np.float32(-0.5)}, "field")
    np.testing.assert_array_equal(from_graph(graph).field, [0.1, 0, -0.5])
    for strange in (math.nan, math.inf, "0.5", 1j, True, [1]):
        graph.nodes[1]["field"] = strange
        with pytest.raises(InvalidInput, match=r"the node 1 has the attribute field = .* expected a finite number"):
            from_graph(graph)
    del graph.nodes[1]["field"]
    with pytest.raises(InvalidInput, match="the node 1 has no attribute field, 2 of 3 nodes have one"):
        from_graph(graph)
