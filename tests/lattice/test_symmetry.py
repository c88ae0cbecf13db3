"""Symmetry groups: group axioms, orbits, subgroups, and what a potential may not claim."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isingflow import lattice
from isingflow.errors import InvalidInput, SymmetryMismatch
from isingflow.lattice.symmetry import (
    Element,
    Group,
    group_from_dict,
    require,
    square_torus_group,
    triangular_torus_group,
    trivial_group,
)

GROUPS = {
    "square": square_torus_group(4, 4),
    "rectangle": square_torus_group(3, 4),
    "anisotropic": square_torus_group(3, 3, axes_equal=False),
    "shortest": square_torus_group(2, 2),
    "triangular": triangular_torus_group(3, 3),
    "triangular rectangle": triangular_torus_group(4, 2),
    "open": lattice.square(4, boundary="open").symmetry,
    "open triangular": lattice.triangular(3, boundary="open").symmetry,
    "trivial": trivial_group((3, 2)),
    "flip": Group((5,), flip=True),
    "ring": Group((6,), translations=True, point=(np.arange(6), -np.arange(6) % 6), flip=True),
}


def elements_of(group: Group) -> st.SearchStrategy[Element]:
    return st.integers(0, 2**32 - 1).map(lambda seed: group.sample(np.random.default_rng(seed), 1)[0])


groups = st.sampled_from(list(GROUPS.values()))
pairs = groups.flatmap(lambda group: st.tuples(st.just(group), *[elements_of(group)] * 3))


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_elements_are_distinct_and_as_many_as_the_order(group):
    elements = list(group.elements())
    assert len(elements) == len(set(elements)) == group.order
    assert elements[0] == group.identity
    assert all(element in group for element in elements)


@given(pairs)
def test_group_axioms(case):
    group, g, h, k = case
    assert g.compose(h) in group
    assert g.inverse() in group
    assert g.compose(g.inverse()) == g.inverse().compose(g) == group.identity
    assert g.compose(h).compose(k) == g.compose(h.compose(k))
    assert g.compose(group.identity) == group.identity.compose(g) == g


@given(pairs)
def test_composition_is_composition_of_actions(case):
    group, g, h, _ = case
    field = np.random.default_rng(0).normal(size=(2, 3, *group.shape))
    np.testing.assert_array_equal(g.compose(h).apply(field), g.apply(h.apply(field)))
    np.testing.assert_array_equal(g.inverse().apply(g.apply(field)), field)


def test_action_on_numpy_and_torch_agree():
    group = GROUPS["square"]
    field = np.random.default_rng(0).normal(size=(5, 4, 4)).astype(np.float32)
    for g in group.sample(np.random.default_rng(1), 20):
        moved = g.apply(torch.from_numpy(field))
        assert moved.dtype == torch.float32
        np.testing.assert_array_equal(moved.numpy(), g.apply(field))


def test_translation_by_hand():
    field = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(
        square_torus_group(3, 4).element((1, 2), sign=-1).apply(field), -np.roll(field, (-1, -2), (0, 1))
    )


def test_quarter_turns_and_mirrors_of_an_open_square():
    field = np.random.default_rng(0).normal(size=(4, 4))
    expected = {np.rot90(f, k).tobytes() for f in (field, field.T) for k in range(4)}
    moved = {g.apply(field).tobytes() for g in GROUPS["open"].elements() if g.sign == 1}
    assert moved == expected


def test_samples_cover_the_group_evenly():
    group = square_torus_group(2, 3)
    counts = dict.fromkeys(group.elements(), 0)
    n = 400 * group.order
    for element in group.sample(np.random.default_rng(0), n):
        counts[element] += 1
    chi_squared = sum((count - 400) ** 2 / 400 for count in counts.values())
    assert chi_squared < group.order + 5 * np.sqrt(2 * group.order)


def test_samples_repeat_with_the_seed():
    group = GROUPS["square"]
    assert group.sample(np.random.default_rng(3), 9) == group.sample(np.random.default_rng(3), 9)


@pytest.mark.parametrize(
    ("name", "text", "order"),
    [
        ("square", "translations x D4 x Z2", 256),
        ("rectangle", "translations x D2 x Z2", 96),
        ("anisotropic", "translations x D2 x Z2", 72),
        ("triangular", "translations x D6 x Z2", 216),
        ("open", "D4 x Z2", 16),
        ("open triangular", "D2 x Z2", 8),
        ("trivial", "identity", 1),
        ("flip", "Z2", 2),
        ("ring", "translations x C2 x Z2", 24),
    ],
)
def test_names_and_orders(name, text, order):
    assert (str(GROUPS[name]), GROUPS[name].order) == (text, order)


def test_large_groups_stay_lazy():
    group = square_torus_group(64, 64)
    assert group.order == 4096 * 8 * 2
    assert sum(p.nbytes for p in group.point) == 8 * 4096 * 8
    assert group.sample(np.random.default_rng(0), 1)[0] in group


@pytest.mark.parametrize("name", ["square", "rectangle", "shortest", "triangular", "triangular rectangle", "ring"])
def test_displacement_orbits_are_those_of_brute_force(name):
    group = GROUPS[name]
    labels = group.displacement_orbits().ravel()
    assert labels[0] == 0 and set(labels) == set(range(labels.max() + 1))
    for site in range(group.sites):
        orbit = {int(p[site]) for p in group.point}
        assert orbit == set(np.flatnonzero(labels == labels[site]))


@pytest.mark.parametrize("name", ["square", "rectangle", "triangular", "triangular rectangle"])
def test_convolutions_with_one_value_per_orbit_commute_with_the_group(name):
    group = GROUPS[name]
    rng = np.random.default_rng(0)
    field = rng.normal(size=group.shape)
    displacement = group.displacement_orbits()
    momentum = group.momentum_orbits()
    kernel_spectrum = np.fft.fft2(rng.normal(size=displacement.max() + 1)[displacement])
    for spectrum in (kernel_spectrum, rng.normal(size=momentum.max() + 1)[momentum]):

        def convolve(x, spectrum=spectrum):
            return np.fft.ifft2(np.fft.fft2(x) * spectrum).real

        for g in group.sample(rng, 30):
            np.testing.assert_allclose(convolve(g.apply(field)), g.apply(convolve(field)), atol=1e-12)


def test_momenta_turn_like_displacements_on_square_lattices_only():
    square, triangular = square_torus_group(6, 6), triangular_torus_group(6, 6)
    np.testing.assert_array_equal(square.momentum_orbits(), square.displacement_orbits())
    assert not np.array_equal(triangular.momentum_orbits(), triangular.displacement_orbits())
    assert triangular.momentum_orbits().max() == triangular.displacement_orbits().max()


def test_site_orbits():
    assert not square_torus_group(3, 4).orbits().any()
    np.testing.assert_array_equal(
        lattice.square(4, boundary="open").symmetry.orbits(),
        [[0, 1, 1, 0], [1, 2, 2, 1], [1, 2, 2, 1], [0, 1, 1, 0]],
    )
    assert trivial_group((3, 2)).orbits().max() == 5


@pytest.mark.parametrize("orbits", [Group.displacement_orbits, Group.momentum_orbits])
def test_orbits_of_displacements_need_translations(orbits):
    with pytest.raises(InvalidInput, match="need a group with translations"):
        orbits(GROUPS["open"])


@given(groups, groups)
def test_containment_is_that_of_sets(larger, smaller):
    if larger.shape == smaller.shape:
        assert larger.contains(smaller) == set(smaller.elements()).issubset(larger.elements())
        assert (larger == smaller) == (larger.contains(smaller) and smaller.contains(larger))
    else:
        assert not larger.contains(smaller)


def test_a_torus_contains_the_symmetries_of_the_open_lattice():
    torus = square_torus_group(4, 4)
    assert torus.contains(lattice.square(4, boundary="open").symmetry)
    assert not lattice.square(4, boundary="open").symmetry.contains(torus)


def test_equal_groups_have_equal_hashes():
    full = square_torus_group(3, 3)
    again = Group((3, 3), True, full.point[::-1], True)
    assert full == again and hash(full) == hash(again)
    assert full != square_torus_group(3, 3, axes_equal=False)


@pytest.mark.parametrize(
    ("claimed", "message"),
    [
        (square_torus_group(4, 4), "4 of the 8 operations of D4$"),
        (Group((4, 4), translations=True, flip=True), None),
        (trivial_group((4, 4)), None),
        (square_torus_group(4, 5), r"fields of shape \(4, 5\) instead of \(4, 4\)$"),
    ],
)
def test_a_potential_may_not_claim_more_than_its_target_has(claimed, message):
    target = lattice.square(4, jy=0.5).symmetry
    if message is None:
        require(claimed, target)
    else:
        with pytest.raises(SymmetryMismatch, match=message):
            require(claimed, target)


def test_the_refusal_names_everything_in_excess():
    with pytest.raises(SymmetryMismatch) as error:
        require(square_torus_group(4, 4), trivial_group((4, 4)))
    assert str(error.value) == (
        "the potential has symmetry translations x D4 x Z2, the target only identity: "
        "too much by translations, 7 of the 8 operations of D4, the spin flip Z2"
    )


@pytest.mark.parametrize(
    ("point", "translations", "message"),
    [
        ((np.array([0, 0, 1, 2]),), False, "permutation of the sites"),
        ((np.arange(3),), False, "permutation of the sites"),
        ((np.array([1, 2, 3, 0]),), False, "closed under composition"),
        ((np.arange(4), np.array([1, 2, 3, 0])), False, "closed under composition"),
        ((np.arange(4), np.array([3, 2, 1, 0])), True, "fix site 0"),
        ((np.arange(4), np.array([0, 2, 1, 3])), True, "linear maps"),
    ],
)
def test_factors_that_make_no_group_are_refused(point, translations, message):
    with pytest.raises(InvalidInput, match=message):
        Group((4,), translations, point)


@pytest.mark.parametrize(
    "group",
    [
        Group((3,)),
        Group((2, 3), flip=True),
        square_torus_group(4, 4),
        square_torus_group(4, 6, axes_equal=False),
        Group((3, 3), point=(np.arange(9), np.arange(9).reshape(3, 3).T.ravel())),
    ],
    ids=str,
)
def test_groups_survive_json(group):
    again = group_from_dict(json.loads(json.dumps(group.to_dict())))
    assert again == group and again.to_dict() == group.to_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": []},
        {"shape": [0, 4]},
        {"shape": [10**9, 10**9]},
        {"shape": 4},
        {"shape": [4.0, 4]},
        {"translations": 1},
        {"flip": None},
        {"point": []},
        {"point": None},
        {"point": [[0, 1]]},
        {"point": [[0.0] * 16]},
        {"point": [[0] * 16]},
        {"point": [[10**30, *range(1, 16)]]},
        {"extra": 1},
    ],
    ids=str,
)
def test_what_describes_no_group_is_refused(changes):
    with pytest.raises(InvalidInput, match=r"group|point operation|permutation"):
        group_from_dict(square_torus_group(4, 4).to_dict() | changes)
    for nothing in (None, 3, [], {}):
        with pytest.raises(InvalidInput, match="not a symmetry group"):
            group_from_dict(nothing)
