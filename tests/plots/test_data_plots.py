"""Figures of data: they show every point or say how many they do not, and densities that integrate to one."""

import numpy as np
import pytest
import torch

from isingflow import datasets
from isingflow.flows import Flow, GaussianWhitening
from isingflow.plots import comparison
from isingflow.plots.densities import density_figure, density_of, grid_of
from isingflow.plots.points import CORNER_COLUMNS, corner_figure, samples_figure


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


# --- corner plots


@pytest.mark.parametrize("width", [3, CORNER_COLUMNS, CORNER_COLUMNS + 3])
def test_corners_show_every_pair_of_columns(width):
    """Data below the diagonal and the flow above it, each against its own columns; of many columns the first ones."""
    data, generated = rows(50, width, 0), rows(70, width, 1)
    names = [f"name {j}" for j in range(width)]
    figure, count = corner_figure(data, generated, names), min(width, CORNER_COLUMNS)
    panels = np.array(figure.axes, dtype=object).reshape(count, count)
    for row, column in np.ndindex(count, count):
        if row != column:
            points = data if row > column else generated
            np.testing.assert_array_equal(panels[row, column].lines[0].get_xydata(), points[:, [column, row]])
    assert [ax.get_xlabel() for ax in panels[-1]] == names[:count]
    assert [ax.get_ylabel() for ax in panels[:, 0]] == ["density", *names[1:count]]
    said = figure.legends[0].get_title().get_text()
    assert said.startswith(f"columns 1 to {count} of {width}: ") == (width > count)
    assert corner_figure(data, generated).axes[-1].get_xlabel() == f"x{count}"


def test_corners_count_what_is_far_out():
    data, generated = rows(2000, 3, 0), rows(500, 3, 1)
    generated[:4, 1] = [np.nan, np.inf, 1e9, -1e9]
    said = corner_figure(data, generated).legends[0].get_title().get_text()
    assert said == "below the diagonal data, above it flow (4 of 500 outside)"


# --- densities


def gaussian(*deviations):
    return Flow(
        (len(deviations),), [GaussianWhitening(torch.zeros(len(deviations)), torch.diag(torch.tensor(deviations)))]
    )


def mass(density, grid):
    volume = np.diff(grid.edges[0])
    return (density * (volume if len(grid.edges) == 1 else np.outer(volume, np.diff(grid.edges[1])))).sum()


@pytest.mark.parametrize("name", ["claw", "eight-gaussians", "moons"])
def test_densities_of_toys_integrate_to_one(name):
    data = datasets.load(name)
    grid = grid_of(data, torch.Generator().manual_seed(0))
    assert mass(grid.density, grid) == pytest.approx(1, abs=2e-3)
    assert grid.known == (name != "moons") and ("closed form" in grid.words) == grid.known
    flow = gaussian(*[1.0] * data.dimension)
    expected = torch.distributions.Normal(0, 1).log_prob(grid.points).sum(1).exp().numpy().reshape(grid.density.shape)
    np.testing.assert_allclose(density_of(flow, data, grid), expected, rtol=1e-5)


def test_histograms_and_closed_forms_agree():
    """The histogram of a density that is known, as of one that is not."""
    from dataclasses import replace

    data = datasets.load("eight-gaussians")
    known, counted = (grid_of(d, torch.Generator().manual_seed(0)) for d in (data, replace(data, log_prob=None)))
    assert counted.rows == 1_000_000 and not counted.known
    noise = np.sqrt(known.density / (counted.rows * np.diff(known.edges[0])[0] * np.diff(known.edges[1])[0]))
    curved = 0.02 * known.density.max()
    assert (np.abs(counted.density - known.density) < 6 * noise + curved).all()


def test_tables_have_densities_in_their_own_units(tmp_path):
    table = np.random.default_rng(0).normal([1000, -2], [50, 0.1], (4000, 2))
    np.savez(tmp_path / "table.npz", data=table, columns=np.array(["mass", "length"]))
    data = datasets.load("tabular", path=tmp_path / "table.npz")
    grid = grid_of(data, torch.Generator().manual_seed(0))
    density = density_of(gaussian(1.0, 1.0), data, grid)
    assert grid.rows == len(data.train) and grid.density.shape == density.shape
    assert mass(grid.density, grid) == pytest.approx(1, abs=1e-3)
    assert mass(density, grid) == pytest.approx(1, abs=0.03)
    assert density.max() == pytest.approx(1 / (2 * np.pi * 50 * 0.1), rel=0.1)
    figure = density_figure(grid, {"flow": density}, data.columns)
    assert [figure.axes[0].get_xlabel(), figure.axes[1].get_ylabel()] == ["mass", "length"]
    assert figure.axes[0].get_title() == f"data: {len(data.train):,} samples"


def test_flows_are_compared_in_one_figure():
    metrics = {
        kind: [{"seconds": float(i), "negative_log_likelihood": 3.0 - i} for i in range(1, 6)]
        for kind in ("ot", "convex")
    }
    one = comparison.likelihoods(metrics, 3.5)
    labels = [text.get_text() for text in one.axes[0].get_legend().get_texts()]
    assert labels == ["ot", "convex", "fitted in closed form"]
    for name, panels in (("claw", 1), ("moons", 4)):
        grid = grid_of(datasets.load(name), torch.Generator().manual_seed(0))
        figure = comparison.with_densities(metrics, 3.5, grid, dict.fromkeys(metrics, grid.density))
        assert len(figure.axes) == 1 + panels
        assert all(ax.get_xlabel() or ax.get_ylabel() for ax in figure.axes)
    images = {name: np.zeros((3, 4, 4)) for name in ("data", *metrics)}
    rows_of_images = comparison.with_images(metrics, 3.5, images).axes[1:]
    assert [ax.get_ylabel() for ax in rows_of_images] == ["data", "ot", "convex"]
