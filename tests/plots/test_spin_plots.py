"""Configurations are drawn as their lattice is."""

import matplotlib.colors
import networkx
import numpy as np
import pytest
from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection
from matplotlib.figure import Figure

from isingflow.lattice import edwards_anderson, from_graph, square, triangular
from isingflow.plots.configurations import FIELD_MAP, REACH, draw, tiles_figure
from isingflow.plots.style import EXACT, FLOW

SIGNS = np.random.default_rng(1).choice([-1.0, 1.0], (2, 3, 4))
GRAPHS = {
    "graph": from_graph(networkx.petersen_graph()),
    "glass": edwards_anderson(3, 4, seed=0),
    "open glass": edwards_anderson(4, seed=1, boundary="open"),
    "signs": square(3, 4, jx=SIGNS[0], jy=SIGNS[1]),
}


def spins(lattice, count=6):
    return np.random.default_rng(0).choice([-1, 1], (count, *lattice.shape)).astype(np.int8)


def shown(values, lattice, columns=3):
    ax = Figure().add_subplot()
    draw(ax, values, columns, lattice)
    return ax


def kind(ax, of):
    return [collection for collection in ax.collections if isinstance(collection, of)]


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_have_a_disc_for_every_spin_and_a_line_for_every_bond(name):
    lattice = GRAPHS[name]
    values = spins(lattice)
    ax = shown(values, lattice)
    (discs,) = kind(ax, EllipseCollection)
    np.testing.assert_array_equal(discs.get_facecolor()[:, 0], (values.ravel() > 0).astype(float))
    places = discs.get_offsets().reshape(len(values), lattice.sites, 2)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < places[..., 0].min() and places[..., 0].max() < right
    assert bottom < places[..., 1].min() and places[..., 1].max() < top
    drawn = {matplotlib.colors.to_hex(lines.get_color()[0]): lines for lines in kind(ax, LineCollection)}
    assert set(drawn) <= {FLOW, EXACT} and (EXACT in drawn) == bool((lattice.strengths < 0).any())
    for color, lines in drawn.items():
        # The ends of every bond inside a copy, unordered, are among the lines of its sign.
        found = {frozenset(map(tuple, np.round(segment, 6))) for segment in lines.get_segments()}
        of_sign = lattice.bonds[(lattice.strengths > 0) == (color == FLOW)]
        assert len(lines.get_segments()) >= len(values) * len(of_sign)
        for copy in np.round(places, 6):
            inside = [frozenset({tuple(copy[a]), tuple(copy[b])}) for a, b in of_sign]
            wraps = 0 if lattice.boundary != "periodic" else sum(ends not in found for ends in inside)
            assert sum(ends in found for ends in inside) == len(inside) - wraps
            assert wraps <= (0 if lattice.boundary != "periodic" else sum(lattice.shape))


@pytest.mark.parametrize("lattice", [triangular(4), triangular(3, 5), triangular(4, 3, boundary="open")])
def test_hexagons_tile_the_plane_and_bonded_sites_are_neighbours(lattice):
    values = spins(lattice, 1)
    ax = shown(values, lattice, 1)
    (hexagons,) = kind(ax, PolyCollection)
    np.testing.assert_array_equal(hexagons.get_facecolor()[:, 0], (values.ravel() > 0).astype(float))
    corners = np.stack([path.vertices[:6] for path in hexagons.get_paths()])
    centres = corners.mean(1)
    first, second = centres[lattice.bonds.T]
    steps = second - first
    if lattice.boundary == "periodic":
        (lx, ly), turns = lattice.shape, (-2, -1, 0, 1, 2)
        around = np.array([[i * lx - j * ly / 2, j * ly * np.sqrt(0.75)] for i in turns for j in turns])
        distances = np.linalg.norm(steps[:, None] + around, axis=2).min(1)
    else:
        distances = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(distances, 1, atol=1e-9)
    edge = np.roll(corners, 1, 1)
    area = (corners[..., 0] * edge[..., 1] - corners[..., 1] * edge[..., 0]).sum(1) / 2
    np.testing.assert_allclose(np.abs(area), np.sqrt(0.75))
    assert len(np.unique(np.round(centres, 6), axis=0)) == lattice.sites


def test_no_lattice_is_a_barcode():
    """Whatever the lattice, its sites spread over both directions of the plane."""
    for lattice in (*GRAPHS.values(), triangular(4)):
        ax = shown(spins(lattice, 1), lattice, 1)
        discs, hexagons = kind(ax, EllipseCollection), kind(ax, PolyCollection)
        places = discs[0].get_offsets() if discs else [path.vertices.mean(0) for path in hexagons[0].get_paths()]
        spread = np.std(places, axis=0)
        assert 0.3 < spread[0] / spread[1] < 3


def test_fields_have_a_scale_and_zero_is_white():
    field = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    figure = tiles_figure(field)
    scale = figure.axes[1]
    assert scale.get_ylabel() == "field x"
    assert scale.get_ylim()[1] == pytest.approx(REACH * np.sqrt(np.mean(field**2)), rel=1e-6)
    assert scale.get_ylim()[0] == -scale.get_ylim()[1]
    assert np.mean(matplotlib.colormaps[FIELD_MAP](0.5)[:3]) > 0.95


@pytest.mark.parametrize("values", [np.zeros((1, 3, 3)), np.zeros((4, 2)), np.ones((3, 1), np.float32)])
def test_fields_without_a_spread_are_drawn(values):
    assert tiles_figure(values).axes


def test_lines_of_sites_have_named_axes():
    ax = tiles_figure(np.random.default_rng(0).normal(size=(7, 5))).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("site", "sample")
    np.testing.assert_array_equal(ax.images[0].get_array().shape, (7, 5))
