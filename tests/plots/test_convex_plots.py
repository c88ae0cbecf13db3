"""Figures of convex flows: what they show is the data they were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from isingflow.plots.convex import RESOLUTION, densities_figure, encoding_figure, transport_figure
from isingflow.plots.style import png

SAMPLES = np.random.default_rng(0).normal(size=(50, 2))


def offset_normal(points):
    """A standard normal about (2, -1)."""
    return -((points - np.array([2.0, -1.0])) ** 2).sum(1) / 2


def drawn(figure: Figure) -> None:
    assert png(figure).startswith(b"\x89PNG")


def test_densities_are_the_right_way_up():
    """Its peak is where it should be: x to the right, y upwards."""
    figure = densities_figure({"one": (SAMPLES, offset_normal), "two": (SAMPLES, offset_normal)}, reach=4)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["one", "two"]
    image = figure.axes[2].images[0]
    row, column = np.unravel_index(np.argmax(image.get_array()), (RESOLUTION, RESOLUTION))
    pixel = 8 / RESOLUTION
    assert image.origin == "lower" and tuple(image.get_extent()) == (-4, 4, -4, 4)
    assert (column + 0.5) * pixel - 4 == pytest.approx(2, abs=pixel)
    assert (row + 0.5) * pixel - 4 == pytest.approx(-1, abs=pixel)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), SAMPLES)
    drawn(figure)


def run(dimension, seed, closed_form):
    curve = [{"kl": 1.0, "cost": 0.1 * closed_form}, {"kl": -1e-4, "cost": closed_form}]
    return {"dimension": dimension, "seed": seed, "closed_form": closed_form, "curve": curve}


@pytest.mark.parametrize("dimensions", [[2], [2, 4, 8], [2, 4, 8, 16]])
def test_costs_are_shown_over_the_closed_form(dimensions):
    figure = transport_figure([run(d, seed, 0.5 * d) for d in dimensions for seed in (0, 1)])
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == [f"d = {d}" for d in dimensions]
    for ax in shown:
        line, *curves = ax.lines
        assert set(line.get_ydata()) == {1.0} and len(curves) == 2
        for curve in curves:
            np.testing.assert_allclose(curve.get_ydata(), [0.1, 1.0])
            assert (np.asarray(curve.get_xdata()) > 0).all()
    drawn(figure)


@pytest.mark.parametrize("labels", [None, np.arange(50) % 3])
def test_encodings_are_gradients(labels):
    turn = np.array([[2.0, 0.5], [0.5, 1.0]])
    figure = encoding_figure(SAMPLES, lambda x: ((x @ turn) * x).sum(1) / 2, lambda x: x @ turn, labels=labels)
    data, grid, encoding = figure.axes
    np.testing.assert_allclose(data.collections[-1].get_offsets(), SAMPLES)
    np.testing.assert_allclose(encoding.collections[0].get_offsets(), SAMPLES @ turn)
    corners = {tuple(np.round(point, 6)) for line in grid.lines for point in line.get_xydata()[[0, -1]]}
    assert {tuple(np.round(np.array(c) @ turn, 6)) for c in [(4, 4), (4, -4), (-4, 4), (-4, -4)]} <= corners
    drawn(figure)
