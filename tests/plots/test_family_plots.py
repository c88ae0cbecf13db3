"""Figures of families: what is drawn against temperature and against the field, and for which members."""

import numpy as np
import pytest

from isingflow.exact import thermodynamics
from isingflow.lattice import chain, hypercubic, square
from isingflow.plots.families import FINE, between, members_figure
from isingflow.runs.config import FamilyConfig

KNOWN = ("exact_free_energy_ising_per_site", "exact_energy_per_site", "exact_heat_capacity_per_site")
BETAS, FIELDS = (0.5, 0.3, 0.4), (0.2, 0.0)


def row_of(beta, field):
    estimate = {"value": beta + 10 * field, "stderr": 0.1}
    named = ("free_energy_ising_per_site", "energy_per_site", "heat_capacity_per_site", "magnetisation", "gap_nats")
    row = dict.fromkeys(named, estimate) | dict.fromkeys((*KNOWN, "exact_magnetisation"), beta + 10 * field)
    return row | {"beta": beta, "field": field, "effective_sample_size": 0.5}


ROWS = [row_of(beta, field) for beta in BETAS for field in FIELDS]


def exact_curves(ax):
    """Lines that are no errors, markers or limits."""
    return [line.get_xydata() for line in ax.get_lines() if line.get_marker() == "None" and line.get_linestyle() == "-"]


@pytest.mark.parametrize(("across", "others"), [("beta", sorted(FIELDS)), ("field", sorted(BETAS))])
def test_there_is_a_curve_for_every_value_of_the_other_parameter(across, others):
    axes = members_figure(ROWS, across, square(4)).axes
    labels = [ax.get_ylabel() for ax in axes[:3]]
    assert labels == ["F per site", "E per site", "C per site" if across == "beta" else "m per site"]
    values = sorted(BETAS if across == "beta" else FIELDS)
    for ax in axes[:3]:
        curves = exact_curves(ax)
        assert len(curves) == len(others)
        for curve, other in zip(curves, others, strict=True):
            wanted = [v + 10 * other if across == "beta" else other + 10 * v for v in values]
            np.testing.assert_allclose(curve, np.stack([values, wanted], 1))
    assert any("beta_c" in str(line.get_label()) for line in axes[0].get_lines()) is (across == "beta")


def test_families_of_one_range_have_one_curve_and_need_no_field():
    rows = [{name: value for name, value in row_of(beta, 0.0).items() if name != "field"} for beta in BETAS]
    axes = members_figure(rows).axes
    (curve,) = exact_curves(axes[1])
    np.testing.assert_allclose(curve[:, 0], sorted(BETAS))
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["exact", "family, reweighted"]
    unknown = [row | {"exact_energy_per_site": None, "gap_nats": None} for row in rows]
    assert exact_curves(members_figure(unknown).axes[1]) == []


def test_exact_curves_are_smooth_between_the_members():
    """Not straight lines from one to the next: the maximum of C lies between two of them."""
    config = FamilyConfig.from_preset("quick", square(8), 0.3, 0.5)
    rows = [{name: value for name, value in row_of(beta, 0.0).items() if name != "field"} for beta in (0.3, 0.5)]
    known = between(config, rows, "beta")
    for ax, name in zip(members_figure(rows, "beta", square(8), known).axes, KNOWN, strict=False):
        (curve,) = exact_curves(ax)
        assert len(curve) == FINE
        for beta, value in curve[:: FINE // 4]:
            exact = thermodynamics(square(8), beta)
            answers = -exact.log_z / (64 * beta), exact.energy_per_site, exact.heat_capacity_per_site
            assert value == pytest.approx(answers[KNOWN.index(name)], abs=1e-12)
    assert max(curve[:, 1]) > 1.5 * curve[[0, -1], 1].max()


def test_exact_curves_in_fields_are_those_of_every_temperature():
    config = FamilyConfig.from_preset("quick", chain(8), 0.2, 0.4, fields=(0.0, 0.3))
    rows = [row_of(beta, field) for beta in (0.2, 0.4) for field in (0.0, 0.3)]
    known = between(config, rows, "field")
    curves = exact_curves(members_figure(rows, "field", chain(8), known).axes[2])
    assert len(curves) == 2
    for curve, beta in zip(curves, (0.2, 0.4), strict=True):
        assert curve[0, 1] == pytest.approx(0, abs=1e-12)
        assert curve[-1, 1] == pytest.approx(thermodynamics(chain(8), beta, 0.3).magnetisation_per_site, abs=1e-12)


def test_where_exact_answers_take_long_there_are_none_between():
    config = FamilyConfig.from_preset("quick", hypercubic((8, 8, 8)), 0.1, 0.2)
    rows = [{name: value for name, value in row_of(beta, 0.0).items() if name != "field"} for beta in (0.1, 0.2)]
    assert between(config, rows, "beta") == []
