"""Lattices: couplings and spectra against brute force, the symmetry they really have, round trips, bad input."""

import json
import math
from itertools import product

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isingflow import lattice
from isingflow.errors import InvalidInput
from isingflow.lattice import CRITICAL_BETA, Lattice, edwards_anderson, from_graph, square, triangular
from isingflow.lattice.kinds import from_dict
from isingflow.lattice.symmetry import square_torus_group, triangular_torus_group

boundaries = st.sampled_from(["periodic", "open"])
lengths = st.integers(2, 5)
strengths = st.floats(-10, 10)


@st.composite
def lattices(draw) -> Lattice:
    lx, ly, boundary = draw(lengths), draw(lengths), draw(boundaries)
    kind = draw(st.sampled_from(["square", "bonds", "triangular", "glass", "graph"]))
    if kind == "square":
        return square(lx, ly, jx=draw(strengths), jy=draw(strengths), boundary=boundary)
    if kind == "bonds":
        jx, jy = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(2, lx, ly))
        return square(lx, ly, jx=jx, jy=jy, boundary=boundary)
    if kind == "triangular":
        return triangular(lx, ly, boundary=boundary)
    if kind == "glass":
        return edwards_anderson(lx, ly, seed=draw(st.integers(0, 99)), boundary=boundary)
    graph = networkx.gnm_random_graph(lx + 2, ly + 1, seed=draw(st.integers(0, 99)))
    for _, _, attributes in graph.edges(data=True):
        attributes["coupling"] = draw(strengths)
    return from_graph(graph)


def ising_energy(of: Lattice, spins: np.ndarray) -> float:
    return -sum(j * spins[a] * spins[b] for (a, b), j in zip(of.bonds, of.strengths, strict=True))


def test_labels_that_are_the_same_as_text_are_refused():
    class Nameless:
        def __repr__(self):
            return "node"

    with pytest.raises(InvalidInput, match="label 'node' is that of 2 sites: as text, every one needs a label"):
        from_graph(networkx.Graph([(Nameless(), Nameless())]))
    assert from_graph(networkx.Graph([(1, "1")])).labels == ("1", "'1'")


def test_critical_beta():
    assert abs(CRITICAL_BETA - 0.44068679350977) < 1e-14
    assert math.sinh(2 * CRITICAL_BETA) == pytest.approx(1, abs=1e-15)


def test_couplings_of_a_periodic_square_lattice_bond_by_bond():
    lx, ly, beta = 3, 4, 0.7
    jx, jy = np.random.default_rng(0).normal(size=(2, lx, ly))
    expected = np.zeros((lx * ly, lx * ly))
    for x, y in product(range(lx), range(ly)):
        for there, j in (((x + 1) % lx * ly + y, jx[x, y]), (x * ly + (y + 1) % ly, jy[x, y])):
            expected[x * ly + y, there] += beta * j
            expected[there, x * ly + y] += beta * j
    couplings = square(lx, ly, jx=jx, jy=jy).couplings(beta)
    assert couplings.dtype == np.float64
    np.testing.assert_allclose(couplings, expected, rtol=1e-15)


def test_open_lattices_do_not_use_the_last_bonds():
    jx, jy = np.random.default_rng(0).normal(size=(2, 3, 4))
    reference = square(3, 4, jx=jx, jy=jy, boundary="open")
    jx[-1], jy[:, -1] = 7, 8
    other = square(3, 4, jx=jx, jy=jy, boundary="open")
    assert reference == other
    assert len(other.bonds) == 2 * 4 + 3 * 3
    assert not other.jx[-1].any() and not other.jy[:, -1].any()


@pytest.mark.parametrize(
    ("of", "bonds"),
    [
        (square(4, 5), 40),
        (square(4, 5, boundary="open"), 31),
        (triangular(4, 5), 60),
        (triangular(4, 5, boundary="open"), 43),
    ],
)
def test_bond_counts(of, bonds):
    assert of.bonds.shape == (bonds, 2) and of.bonds.dtype == np.int64
    assert of.strengths.shape == (bonds,) and of.strengths.dtype == np.float64
    assert of.graph.number_of_edges() == bonds


def test_length_two_has_doubled_bonds():
    beta = 0.3
    expected = 2 * beta * np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]])
    np.testing.assert_allclose(square(2).couplings(beta), expected)
    assert len(square(2).bonds) == 8
    assert square(2).graph.edges[0, 1]["coupling"] == 2
    np.testing.assert_allclose(square(2, boundary="open").couplings(beta), expected / 2)


def test_triangular_sites_have_six_neighbours_at_distance_one():
    of = triangular(5)
    assert set(dict(of.graph.degree()).values()) == {6}
    inner = triangular(5, boundary="open")
    ends = inner.coordinates()[inner.bonds]
    np.testing.assert_allclose(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1), 1)


@given(lattices(), st.floats(-2, 2))
def test_couplings_are_symmetric_with_zero_diagonal_and_give_the_energy(of, beta):
    couplings = of.couplings(beta)
    assert couplings.shape == (of.sites, of.sites)
    np.testing.assert_array_equal(couplings, couplings.T)
    assert not np.diag(couplings).any()
    spins = np.random.default_rng(0).choice([-1, 1], of.sites)
    assert spins @ couplings @ spins / 2 == pytest.approx(-beta * ising_energy(of, spins), abs=1e-9)


@given(lattices())
def test_spectrum_is_that_of_the_dense_matrix(of):
    expected = np.linalg.eigvalsh(of.couplings(1.0))
    np.testing.assert_allclose(np.sort(of.spectrum(), axis=None), expected, atol=1e-12 * (1 + abs(expected).max()))
    assert of.spectrum().shape == (of.shape if of.translation_invariant else (of.sites,))


def test_spectrum_is_indexed_by_momentum():
    of = square(4, 6, jx=0.5, jy=2.0)
    kx, ky = np.meshgrid(2 * np.pi * np.arange(4) / 4, 2 * np.pi * np.arange(6) / 6, indexing="ij")
    np.testing.assert_allclose(of.spectrum(), np.cos(kx) + 4 * np.cos(ky), atol=1e-14)


def test_coupling_kernel():
    of = triangular(4, 5)
    sites = np.arange(20).reshape(4, 5)
    couplings = of.couplings(1.0)
    for x, y in ((0, 0), (3, 2)):
        shifted = np.roll(of.coupling_kernel, (x, y), (0, 1)).ravel()
        np.testing.assert_array_equal(couplings[sites[x, y]], shifted)
    with pytest.raises(InvalidInput, match="translation-invariant"):
        _ = square(4, boundary="open").coupling_kernel


@given(lattices())
def test_translation_invariance_is_what_the_matrix_shows(of):
    couplings = of.couplings(1.0)
    if len(of.shape) == 1:
        expected = False
    else:
        index = np.arange(of.sites).reshape(of.shape)
        shifts = [np.roll(index, 1, axis).ravel() for axis in (0, 1)]
        # On a 2 x 2 lattice an open boundary is a torus with single bonds; it counts as open all the same.
        expected = of.boundary == "periodic" and all(np.array_equal(couplings[np.ix_(p, p)], couplings) for p in shifts)
    assert of.translation_invariant == expected


@given(lattices())
def test_the_claimed_symmetries_leave_the_couplings_unchanged(of):
    couplings = of.couplings(1.0)
    for element in of.symmetry.sample(np.random.default_rng(0), 20):
        p = element.permutation
        np.testing.assert_array_equal(couplings[np.ix_(p, p)], couplings)


@pytest.mark.parametrize(
    ("of", "symmetry"),
    [
        (square(6), "translations x D4 x Z2"),
        (square(6, jx=-1, jy=-1), "translations x D4 x Z2"),
        (square(6, 4), "translations x D2 x Z2"),
        (square(6, jx=0.5), "translations x D2 x Z2"),
        (square(6, jx=np.ones((6, 6))), "translations x D4 x Z2"),
        (square(5, boundary="open"), "D4 x Z2"),
        (square(5, 4, boundary="open"), "D2 x Z2"),
        (square(5, boundary="open", jy=2), "D2 x Z2"),
        (square(2), "translations x C2 x Z2"),
        (square(2, 4), "translations x C2 x Z2"),
        (square(4, jx=0), "translations x D2 x Z2"),
        (triangular(6), "translations x D6 x Z2"),
        (triangular(8, 4), "translations x D2 x Z2"),
        (triangular(6, 4), "translations x C2 x Z2"),
        (triangular(2), "translations x D3 x Z2"),
        (triangular(6, boundary="open"), "D2 x Z2"),
        (edwards_anderson(6, seed=0), "Z2"),
        (edwards_anderson(6, seed=0, boundary="open"), "Z2"),
        (from_graph(networkx.cycle_graph(5)), "Z2"),
    ],
)
def test_symmetry_is_what_the_lattice_really_has(of, symmetry):
    assert str(of.symmetry) == symmetry


def test_disorder_with_mirrors_keeps_them():
    jx = np.ones((4, 4))
    jx[1] = 3  # strong bonds across the middle of an open lattice: both mirrors, no quarter turn
    assert str(square(4, jx=jx, boundary="open").symmetry) == "D2 x Z2"
    jx[1, 0] = 5
    assert str(square(4, jx=jx, boundary="open").symmetry) == "C2 x Z2"
    jx[0, 0] = 7
    assert str(square(4, jx=jx, boundary="open").symmetry) == "Z2"


def test_named_groups_are_the_lattices_own():
    assert square(5).symmetry == square_torus_group(5, 5)
    assert square(4, 6).symmetry == square_torus_group(4, 6)
    assert square(5, jy=2).symmetry == square_torus_group(5, 5, axes_equal=False)
    assert triangular(5).symmetry == triangular_torus_group(5, 5)


def test_equal_bonds_given_one_by_one_are_a_uniform_lattice():
    assert square(4, jx=np.full((4, 4), 0.5)) == square(4, jx=0.5)


def test_bonds_that_differ_but_add_up_alike_are_translation_invariant():
    jx = np.array([[1.0] * 3, [3.0] * 3])  # both join the two rows
    of = square(2, 3, jx=jx)
    assert of.translation_invariant
    np.testing.assert_array_equal(of.couplings(1.0), square(2, 3, jx=2.0).couplings(1.0))


def test_edwards_anderson():
    of = edwards_anderson(16, seed=5)
    assert set(of.strengths) == {-1.0, 1.0}
    assert abs(of.strengths.mean()) < 4 / math.sqrt(512)
    assert of == edwards_anderson(16, seed=5) and of != edwards_anderson(16, seed=6)
    np.testing.assert_array_equal(of.couplings(1.0), square(16, jx=of.jx, jy=of.jy).couplings(1.0))


def test_graph_with_named_nodes_keeps_their_order():
    graph = networkx.Graph()
    graph.add_nodes_from("cab")
    graph.add_edge("a", "b", coupling=-2)
    graph.add_edge("c", "a")
    expected = [[0, 1, 0], [1, 0, -2], [0, -2, 0]]
    of = from_graph(graph)
    np.testing.assert_array_equal(of.couplings(1.0), expected)
    np.testing.assert_array_equal(networkx.to_numpy_array(of.graph, weight="coupling"), expected)


def test_parallel_edges_add_up():
    graph = networkx.MultiGraph([(0, 1, {"coupling": 0.5}), (0, 1), (1, 2)])
    assert from_graph(graph).couplings(2.0)[0, 1] == 3.0


def test_disconnected_graphs_are_fine():
    of = from_graph(networkx.Graph([(0, 1), (2, 3)]))
    np.testing.assert_allclose(of.spectrum(), [-1, -1, 1, 1])


@given(lattices())
def test_description_survives_json_exactly(of):
    again = from_dict(json.loads(json.dumps(of.to_dict())))
    assert again == of and hash(again) == hash(of)
    np.testing.assert_array_equal(again.bonds, of.bonds)
    np.testing.assert_array_equal(again.strengths, of.strengths)
    assert again.symmetry == of.symmetry


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (square(16), "periodic 16x16"),
        (square(4, 6, jy=0.5, boundary="open"), "open 4x6, jx = 1, jy = 0.5"),
        (square(2, jx=[[1, 2], [3, 4]]), "periodic 2x2, jx varies, jy = 1"),
        (triangular(6), "periodic triangular 6x6"),
        (edwards_anderson(8, seed=3), "periodic Edwards-Anderson 8x8, seed 3"),
        (from_graph(networkx.petersen_graph()), "graph of 10 sites and 15 bonds"),
    ],
)
def test_descriptions(of, text):
    assert of.description == str(of) == text


def test_arrays_are_read_only():
    of = edwards_anderson(4, seed=0)
    for array in (of.bonds, of.strengths, of.jx, of.spectrum()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_lattice_too_large_to_list_is_still_a_lattice():
    of = square(10**6)
    assert of.translation_invariant and of.description == "periodic 1000000x1000000"
    with pytest.raises(InvalidInput, match="up to 16777216 are possible"):
        _ = of.bonds
    with pytest.raises(InvalidInput, match="up to 16777216 are possible"):
        _ = of.symmetry


def test_dense_matrices_have_a_limit():
    with pytest.raises(InvalidInput, match="up to 16384 sites"):
        square(256).couplings(1.0)
    with pytest.raises(InvalidInput, match="up to 16384 sites"):
        square(256, boundary="open").spectrum()
    assert square(256).spectrum().shape == (256, 256)


@pytest.mark.parametrize("length", [1, 0, -4, 2.5, 16.0, True, "16", None, 10**9, float("nan")])
@pytest.mark.parametrize("build", [square, triangular, lambda length: edwards_anderson(length, seed=0)])
def test_bad_lengths(build, length):
    with pytest.raises(InvalidInput, match=r"^length is .*, expected (an integer|at most)"):
        build(length)


def test_numpy_lengths_are_integers():
    assert square(np.int64(4)).shape == (4, 4)


@pytest.mark.parametrize(
    "build", [square, triangular, lambda length, boundary: edwards_anderson(length, seed=0, boundary=boundary)]
)
def test_bad_boundary(build):
    with pytest.raises(InvalidInput, match="expected periodic or open"):
        build(4, boundary="moebius")


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, "1", None, True, 1j, np.ones(4), np.ones((4, 5)), np.full((4, 4), math.nan), [[1, 2], [3]]],
)
def test_bad_strengths(value):
    with pytest.raises(
        InvalidInput,
        match=r"^jx is .*, expected a number or an array of them of shape \(4, 4\), at most 1e\+70 in size$",
    ):
        square(4, jx=value)


@pytest.mark.parametrize("seed", [-1, 1.5, None, "1", True])
def test_bad_seed(seed):
    with pytest.raises(InvalidInput, match=r"^seed is .*, expected an integer"):
        edwards_anderson(4, seed=seed)


def test_disorder_too_large():
    with pytest.raises(InvalidInput, match="at most 16777216 sites"):
        edwards_anderson(10**5, seed=0)


@pytest.mark.parametrize("beta", [math.nan, math.inf, -math.inf, "abc", None, True, 1j])
def test_bad_beta(beta):
    with pytest.raises(InvalidInput, match=r"^beta is .*, expected a finite number$"):
        square(4).couplings(beta)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (networkx.Graph(), "no edges"),
        (networkx.empty_graph(4), "no edges"),
        (networkx.Graph([(0, 1), (1, 1)]), "self-loop at site 1"),
        (networkx.DiGraph([(0, 1)]), "directed"),
        (networkx.MultiDiGraph([(0, 1)]), "directed"),
        (networkx.Graph([(0, 1, {"coupling": "strong"})]), "coupling 'strong' of the bond 0-1"),
        (networkx.Graph([(0, 1, {"coupling": math.nan})]), "coupling nan"),
        (networkx.Graph([(0, 1, {"coupling": math.inf})]), "coupling inf"),
        (networkx.Graph([(0, 1, {"coupling": None})]), "coupling None"),
        (networkx.Graph([(0, 1, {"coupling": 1j})]), "coupling 1j"),
        (networkx.Graph([(0, 1, {"coupling": True})]), "coupling True"),
        ([(0, 1)], "expected a networkx graph, not list"),
    ],
)
def test_bad_graphs(graph, message):
    with pytest.raises(InvalidInput, match=message):
        from_graph(graph)


GRAPH = from_graph(networkx.path_graph(3)).to_dict()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "square",
        {},
        {"kind": "cubic"},
        {"kind": ["square"]},
        {"kind": "square"},
        square(4).to_dict() | {"colour": "red"},
        square(4).to_dict() | {"shape": 4},
        square(4).to_dict() | {"shape": [4]},
        square(4).to_dict() | {"shape": [4, None, 4]},
        square(4).to_dict() | {"shape": [4, "4"]},
        square(4).to_dict() | {"jx": "1"},
        square(4).to_dict() | {"boundary": None},
        edwards_anderson(4, seed=1).to_dict() | {"seed": -1},
        GRAPH | {"shape": [1]},
        GRAPH | {"shape": [2]},
        GRAPH | {"shape": ["3"]},
        GRAPH | {"bonds": 7},
        GRAPH | {"bonds": []},
        GRAPH | {"bonds": [[0, 1], [1]]},
        GRAPH | {"bonds": [[0, 1], [1, 2.5]]},
        GRAPH | {"bonds": [[0, 1], [1, -2]]},
        GRAPH | {"bonds": [[0, 1], [1, 1]]},
        GRAPH | {"strengths": [1.0]},
        GRAPH | {"strengths": [1.0, math.nan]},
        GRAPH | {"strengths": None},
    ],
)
def test_descriptions_of_nothing_are_refused(data):
    with pytest.raises(InvalidInput) as error:
        from_dict(data)
    assert "\n" not in str(error.value)


def test_every_name_in_the_contract_exists():
    assert {"square", "triangular", "from_graph", "edwards_anderson", "CRITICAL_BETA"} <= set(dir(lattice))


@given(
    half=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    jy=strengths,
    triangles=st.booleans(),
)
def test_half_a_torus_couples_every_site_to_the_same_neighbours(half, jy, triangles):
    """The large coupling kernel, folded onto half the lengths, is the small one; so are the bonds at every site."""
    lx, ly = half
    large = triangular(2 * lx, 2 * ly) if triangles else square(2 * lx, 2 * ly, jy=jy)
    small = large.halved()
    assert (small.kind, small.shape, small.boundary, small.jx, small.jy) == (
        large.kind, half, "periodic", large.jx, large.jy
    )  # fmt: skip
    folded = large.coupling_kernel.reshape(2, lx, 2, ly).sum(axis=(0, 2))
    assert np.array_equal(folded, small.coupling_kernel)
    assert np.array_equal(np.sort(large.coupling_kernel, None)[-6:], np.sort(small.coupling_kernel, None)[-6:])
    assert large.symmetry.point_name == small.symmetry.point_name
    assert from_dict(small.to_dict()) == small


@pytest.mark.parametrize(
    "whole",
    [
        square(4),
        square(7),
        square(8, 9),
        square(4, 16),
        square(8, boundary="open"),
        square(8, jx=np.arange(64.0).reshape(8, 8)),
        edwards_anderson(8, seed=0),
        from_graph(networkx.petersen_graph()),
        triangular(8, boundary="open"),
    ],
    ids=str,
)
def test_other_lattices_have_no_half(whole):
    assert whole.halved() is None
