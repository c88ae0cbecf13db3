"""Figures of lattices."""

import networkx
import pytest

from isingflow.lattice import edwards_anderson, from_graph, square, triangular
from isingflow.plots.lattices import plot_lattice


def test_sites_with_names_are_labelled():
    from matplotlib import pyplot

    named = from_graph(networkx.relabel_nodes(networkx.path_graph(3), {0: "Ab", 1: "a $ign", 2: "a very long name"}))
    ax = plot_lattice(named)
    assert [text.get_text() for text in ax.texts] == ["Ab", r"a \$ign", "a very long ..."]
    assert not plot_lattice(from_graph(networkx.path_graph(3))).texts
    ax.figure.canvas.draw()
    pyplot.close("all")


@pytest.mark.parametrize(
    "of",
    [
        square(4),
        square(2),
        triangular(4),
        edwards_anderson(4, 3, seed=0, boundary="open"),
        from_graph(networkx.petersen_graph()),
    ],
)
def test_plot_draws_every_bond_and_site(of):
    from matplotlib import pyplot

    ax = plot_lattice(of)
    *lines, sites = ax.collections
    assert len(sites.get_offsets()) == of.sites
    assert sum(len(bonds.get_segments()) for bonds in lines) >= len(of.bonds)
    signs = {of.strengths[0] > 0, *(of.strengths > 0)}
    assert len(lines) == len(signs) and (ax.get_legend() is not None) == (len(signs) == 2)
    assert ax.get_title() == of.description
    assert plot_lattice(of, ax) is ax
    pyplot.close(ax.figure)
