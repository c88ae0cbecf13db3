"""Where lattices are critical: known answers, beside the heat capacity that diverges there, and what is not known."""

import math

import networkx
import numpy as np
import pytest

from isingflow.errors import InvalidInput
from isingflow.exact import onsager
from isingflow.lattice import (
    CRITICAL_BETA,
    chain,
    critical_beta,
    cubic,
    edwards_anderson,
    from_graph,
    heading,
    square,
    triangular,
)


@pytest.mark.parametrize("jx, jy", [(1.0, 1.0), (1.0, 0.5), (-3.0, 0.02), (2.0, 2.0), (0.1, -1.0)])
def test_square_lattices(jx, jy):
    value, source = critical_beta(square(6, jx=jx, jy=jy))
    assert math.sinh(2 * value * abs(jx)) * math.sinh(2 * value * abs(jy)) == pytest.approx(1, abs=1e-14)
    assert onsager.spontaneous_magnetisation(jx, jy, 0.999 * value) == 0
    assert onsager.spontaneous_magnetisation(jx, jy, 1.001 * value) > 0
    assert "Onsager" in source and "infinite" not in source


def test_triangular_lattices():
    value, source = critical_beta(triangular(6))
    assert math.exp(4 * value) == pytest.approx(3, rel=1e-15) and "Houtappel" in source
    assert onsager.triangular(value)[2] > 3 * onsager.triangular(1.01 * value)[2]


def test_boundaries_do_not_matter_and_are_told():
    value, source = critical_beta(square(7, jx=-1.0, boundary="open"))
    assert value == CRITICAL_BETA and source.endswith("of the infinite lattice")


@pytest.mark.parametrize(
    "lattice, why",
    [
        (square(7, jx=-1.0), "rings of 7 negative couplings along x"),
        (square(4, jy=0.0), "chains"),
        (square(4, jx=np.arange(16.0).reshape(4, 4)), "no critical temperature is known"),
        (edwards_anderson(4, seed=0), "no critical temperature is known"),
        (from_graph(networkx.petersen_graph()), "no critical temperature is known"),
    ],
    ids=["frustrated", "chains", "varies", "glass", "graph"],
)
def test_what_is_not_known_is_refused(lattice, why):
    with pytest.raises(InvalidInput, match=f"{why}.*known are square.*give beta or a temperature"):
        critical_beta(lattice)


def test_cubic_lattices_chains_and_fields():
    value, source = critical_beta(cubic(4))
    assert value == 0.22165463 and "Ferrenberg" in source
    with pytest.raises(InvalidInput, match="chains have no transition"):
        critical_beta(chain(8))
    value, source = critical_beta(square(8).with_field(0.05))
    assert value == CRITICAL_BETA and source.endswith("without the field")
    assert not heading(square(8).with_field(0.05), value).endswith("(critical)")
    assert critical_beta(square(7, 4, jx=-1.0, boundary=("open", "periodic"))).value == CRITICAL_BETA


def test_headings_say_so():
    for lattice in (square(4), triangular(4), square(4, jy=0.3, boundary="open")):
        assert heading(lattice, critical_beta(lattice).value).endswith("(critical)")
        assert not heading(lattice, 0.5).endswith("(critical)")
    assert not heading(edwards_anderson(4, seed=0), CRITICAL_BETA).endswith("(critical)")
