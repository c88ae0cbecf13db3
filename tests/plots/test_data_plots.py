"""Figures of samples of data: they show every point or say how many they do not, in the units and words of the data."""

import numpy as np
import pytest

from isingflow.plots.points import samples_figure


def rows(count, dimension, seed):
    return np.random.default_rng(seed).normal(size=(count, dimension))


def shown(figure, points, panel):
    """How many of the points lie within the axes of a panel."""
    ax = figure.axes[panel]
    limits = np.array([ax.get_xlim(), ax.get_ylim()][: points.shape[1]])
    return int(((points >= limits[:, 0]) & (points <= limits[:, 1])).all(1).sum())


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("mean", [0.0, 1.7e9])
def test_all_points_are_shown(scale, mean):
    data, generated = mean + scale * rows(500, 2, 0), mean + 1.5 * scale * rows(700, 2, 1)
    figure = samples_figure(data, generated, ["time", "height", "mass"])
    assert [ax.get_title() for ax in figure.axes] == ["data", "flow"]
    assert (shown(figure, data, 0), shown(figure, generated, 1)) == (500, 700)
    assert {ax.get_xlabel() for ax in figure.axes} == {"time"} and figure.axes[0].get_ylabel() == "height"


@pytest.mark.parametrize("stray", [1e3, -1e6, np.nan, np.inf])
def test_what_is_far_out_is_counted(stray):
    data, generated = rows(2000, 2, 0), rows(2000, 2, 1)
    generated[:3] = stray
    figure = samples_figure(data, generated)
    assert figure.axes[1].get_title() == "flow (3 of 2000 outside)" and shown(figure, generated, 1) == 1997
    assert figure.axes[0].get_title() == "data" and shown(figure, data, 0) == 2000
    assert figure.axes[0].get_xlabel() == "x1" and figure.axes[0].get_ylabel() == "x2"


def test_histograms_say_it_too():
    data, generated = rows(2000, 1, 0), rows(2000, 1, 1)
    generated[:2] = 1e5
    figure = samples_figure(data, generated, ["height"])
    assert figure.axes[0].get_xlabel() == "height"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["data", "flow (2 of 2000 outside)"]
    hidden = samples_figure(data, np.full((5, 1), np.nan)).legends[0].get_texts()
    assert hidden[1].get_text() == "flow (5 of 5 outside)"


def test_long_names_and_formulas_stay_words():
    label = samples_figure(rows(9, 2, 0), rows(9, 2, 1), ["$" + 50 * "x", "b"]).axes[0].get_xlabel()
    assert label.startswith(r"\$xx") and label.endswith("...") and len(label) < 30
