"""Figures of lattices."""

import networkx
import pytest

from isingflow.lattice import edwards_anderson, from_graph, square, triangular
from isingflow.plots.lattices import plot_lattice


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
