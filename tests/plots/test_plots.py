"""Figures: drawn for every kind of run, written as PNG files, from the right numbers."""

import math
import shutil
from types import SimpleNamespace

import matplotlib.pyplot
import numpy as np
import pytest

from isingflow.lattice import square
from isingflow.plots.configurations import GRID, resample, tile, tiles_figure
from isingflow.plots.magnets import log_weight_figure, plot_run
from isingflow.plots.style import png, running_mean
from isingflow.plots.training import gap_figure, training_figure
from isingflow.runs.config import RunConfig, TrainingConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import new_flow

SITES, EXACT = 16, -37.3767


def metrics(count, exact=EXACT, measured=2):
    rng = np.random.default_rng(0)
    records = []
    for iteration in range(1, count + 1):
        bound = EXACT + 2 * math.exp(-iteration / 20) + 0.1 * rng.normal() + 0.2
        record = {
            "iteration": iteration,
            "seconds": 3 + 0.1 * iteration,
            "variational_free_energy": bound,
            "gap_nats": None if exact is None else bound - exact,
            "effective_sample_size": 0.3,
            "learning_rate": 1e-2,
            "steps": 8,
        }
        if iteration % measured == 0:
            record["integration_error_nats"] = 1e-3
        records.append(record)
    return records


def spins(count, shape=(4, 4)):
    return np.random.default_rng(1).choice([-1, 1], (count, *shape)).astype(np.int8)


def is_png(content):
    return content.startswith(b"\x89PNG\r\n") and len(content) > 1000


@pytest.mark.parametrize("count", [0, 1, 2, 5, 200])
@pytest.mark.parametrize("exact", [EXACT, None])
def test_any_number_of_records(count, exact):
    records = metrics(count, exact)
    assert is_png(png(training_figure(records, SITES, exact, {0: spins(25), count: spins(25)})))
    assert is_png(png(training_figure(records, SITES)))
    assert is_png(png(gap_figure(records)))


def test_what_was_evaluated_is_marked_at_the_end_with_its_error():
    gap, bound = {"value": 0.02, "stderr": 0.005}, {"value": EXACT + 0.02, "stderr": 0.005}
    for figure, unit, offset in (
        (gap_figure(metrics(30), gap), 1, 0.0),
        (training_figure(metrics(30), SITES, EXACT, evaluated=bound), SITES, EXACT),
    ):
        (marker,) = (bar for bar in figure.axes[0].containers if "evaluated" in bar.get_label())
        (x,), (y,) = marker.lines[0].get_data()
        assert (x, y) == (30, pytest.approx((0.02 + offset) / unit))
        ((_, low), (_, high)) = marker.lines[2][0].get_segments()[0]
        assert (low, high) == pytest.approx(((0.015 + offset) / unit, (0.025 + offset) / unit))
        assert figure.axes[0].get_ylim()[0] < low
        figure.draw_without_rendering()


@pytest.mark.parametrize("value", [0.0, -0.01, 1e-9])
def test_an_evaluated_gap_that_no_logarithm_can_show_is_at_the_foot_with_its_number(value):
    plain = gap_figure(metrics(30)).axes[0].get_ylim()
    axes = gap_figure(metrics(30), {"value": value, "stderr": 0.01}).axes[0]
    (mark,) = (line for line in axes.lines if line.get_label() == f"evaluated: {value:.2g}")
    assert mark.get_marker() == "v" and list(mark.get_xdata()) == [30]
    assert axes.get_ylim() == plain


def test_nulls_and_repeated_times_are_drawn_around():
    records = metrics(30)
    records[3] |= {"variational_free_energy": None, "gap_nats": None}
    records[9]["seconds"] = records[8]["seconds"]
    assert is_png(png(training_figure(records, SITES, EXACT)))
    assert is_png(png(gap_figure(records)))


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 10.0])
def test_gaps_below_zero_are_marked_at_the_foot_and_counted(shift):
    records = metrics(30)
    for record in records:
        record["gap_nats"] -= shift
    figure = gap_figure(records)
    marked = {line.get_label(): line for line in figure.axes[0].lines if line.get_marker() == "v"}
    gaps = np.array([record["gap_nats"] for record in records])
    below = {"batches": gaps <= 0, "running means": running_mean(gaps)[0] <= 0}
    assert set(marked) == {f"{n.sum()} {what} below zero" for what, n in below.items() if n.any()}
    for what, n in below.items():
        if n.any():
            drawn = marked[f"{n.sum()} {what} below zero"]
            np.testing.assert_array_equal(drawn.get_xdata(), 1 + np.flatnonzero(n))
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= set(marked)
    assert is_png(png(figure))


def test_errors_far_below_the_gap_do_not_squeeze_it():
    records = metrics(30)
    for record in records[1::2]:
        record["integration_error_nats"] = 1e-9
    figure = gap_figure(records)
    ax = figure.axes[0]
    (line,) = (line for line in ax.lines if line.get_label() == "integration error (15 below the axis)")
    assert ax.get_ylim()[0] > 1e-6
    np.testing.assert_array_equal(line.get_ydata(), ax.get_ylim()[0])


def test_the_training_figure_shows_the_bounds_per_site():
    records = [record | {"lower_bound": 2 * EXACT - record["variational_free_energy"]} for record in metrics(100)]
    figure = training_figure(records, SITES, EXACT, {i: spins(25) for i in (0, 5, 25, 100)})
    ax = figure.axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    assert ax.get_ylabel() == "$-$ln Z of the field per site (nats)"
    bounds = [record["variational_free_energy"] for record in records]
    np.testing.assert_allclose(lines["upper bound, one batch"].get_ydata() * SITES, bounds)
    lower = lines["lower bound, running mean"].get_ydata()
    assert np.all(lower * SITES < EXACT + 0.2)
    assert ax.get_ylim()[0] < lower[-25:].min()
    assert lines["exact, −2.33604"].get_ydata()[0] * SITES == pytest.approx(EXACT)
    titles = [inset.get_title() for inset in ax.child_axes]
    assert titles == ["iteration 0", "iteration 25", "iteration 100"]


@pytest.mark.parametrize("depth", [0.1, 1.0, 2.0, 30.0, 1e4])
def test_limits_hold_what_is_drawn(depth):
    """All of the upper bound and of the exact line; of the lower bound what is near, and the rest in words."""
    records = metrics(100)
    for record in records:
        record["lower_bound"] = EXACT - depth * math.exp(-record["iteration"] / 20)
    figure = training_figure(records, SITES, EXACT, {0: spins(25)})
    ax = figure.axes[0]
    bottom, top = ax.get_ylim()
    lines = {line.get_label().partition(" (")[0]: line for line in ax.lines}
    lower = lines.pop("lower bound, running mean")
    for line in lines.values():
        values = np.asarray(line.get_ydata())
        assert bottom < values.min() and np.quantile(values, 0.97) < top
    assert bottom < lower.get_ydata()[-25:].min()
    unseen = lower.get_xdata()[lower.get_ydata() < bottom]
    note = f" (below the axis until {unseen[-1]:.0f})" if unseen.size else ""
    assert lower.get_label() == f"lower bound, running mean{note}"
    assert (unseen.size > 0) == (depth > 3)


def test_insets_do_not_cover_the_curve():
    figure = training_figure(metrics(100), SITES, EXACT, {i: spins(25) for i in (0, 50, 100)})
    png(figure)
    ax = figure.axes[0]
    highest = ax.transData.transform([(0, max(r["variational_free_energy"] for r in metrics(100)) / SITES)])[0, 1]
    assert all(inset.get_window_extent().y0 > highest for inset in ax.child_axes)


@pytest.mark.parametrize(
    "log_weights",
    [np.random.default_rng(0).normal(590, 1, 500), np.zeros(5), [3.0], [0.0, -math.inf, 1.0], [-1e4, 0.0, 1e4]],
    ids=["usual", "equal", "one", "infinite", "far apart"],
)
def test_log_weights(log_weights):
    assert is_png(png(log_weight_figure(np.array(log_weights))))


def test_the_effective_sample_size_is_in_the_title():
    title = log_weight_figure(np.log([1.0, 1.0, 1e-300, 1e-300])).axes[0].get_title()
    assert title == "effective sample size 50 %"


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (7,)])
@pytest.mark.parametrize("count", [1, 7, 25])
def test_tiles(shape, count):
    assert is_png(png(tiles_figure(spins(count, shape))))


def test_a_tile_is_white_where_spins_are_up():
    configuration = np.array([[[1, -1], [-1, -1]], [[-1, -1], [-1, 1]]])
    image = tile(configuration, 2)
    assert image.shape == (4, 7)
    np.testing.assert_array_equal(image[1:3, 1:3], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(image[1:3, 4:6], [[0, 0], [0, 1]])
    assert set(image[0]) == {GRID}


def test_resampling_follows_the_weights():
    configurations = np.arange(4).reshape(4, 1, 1)
    drawn = resample(configurations, np.array([math.log(3), 0.0, -math.inf, math.nan]) + 1e3, 8000)
    counts = np.bincount(drawn.ravel(), minlength=4)
    assert counts[2] == counts[3] == 0
    assert abs(counts[0] - 6000) < 5 * math.sqrt(8000 * 3 / 16)


def test_running_mean():
    values = np.arange(20.0)
    smooth, window = running_mean(values)
    assert window == 5
    np.testing.assert_allclose(smooth[:18], values[:18])
    np.testing.assert_allclose(smooth[-1], np.mean(values[-3:]))
    values[7] = np.nan
    assert np.isfinite(running_mean(values)[0]).all()
    assert running_mean(np.array([]))[0].size == 0


@pytest.mark.parametrize("exact", [EXACT, None])
@pytest.mark.parametrize("count", [0, 3, 50])
def test_the_figures_of_a_run(tmp_path, exact, count):
    run = RunFolder.create(tmp_path / "run", RunConfig.from_preset("quick", square(4), 0.44))
    for record in metrics(count, exact):
        run.append_metrics(record)
    run.save_snapshot(0, spins(25))
    drawn = spins(64)
    log_weight = np.random.default_rng(2).normal(size=64)
    samples = SimpleNamespace(spins=drawn, field=drawn.astype(np.float32), log_weight=log_weight)
    written = plot_run(run, samples, flow=new_flow(run.config))
    expected = {"spins.png", "log_weights.png", "flow_in_time.png"}
    expected |= {"training.png"} if count else set()
    expected |= {"gap.png"} if count and exact is not None else set()
    assert {path.name for path in written} == expected
    assert all(path.parent == run.figures and is_png(path.read_bytes()) for path in written)


def test_of_a_flow_that_was_carried_over_the_training_is_shown_where_it_was(tmp_path):
    training = TrainingConfig(carried=True, coarse=TrainingConfig(carried=True, coarse=TrainingConfig()))
    run = RunFolder.create(tmp_path / "run", RunConfig(square(16), 0.4, "mine", training=training))
    smaller = run.part("coarse", run.config.coarse)
    smallest = smaller.part("coarse", smaller.config.coarse)
    for part, count in ((run, 1), (smaller, 1), (smallest, 50)):
        for record in metrics(count, EXACT):
            part.append_metrics(record)

    def figures(part):
        drawn = spins(64, part.config.lattice.shape)
        samples = SimpleNamespace(spins=drawn, field=drawn.astype(np.float32), log_weight=np.zeros(64))
        return {path.name: path.read_bytes() for path in plot_run(part, samples, flow=new_flow(part.config))}

    written, there = figures(run), figures(smallest)
    for name in ("training.png", "gap.png"):
        assert written[name] == there[name]
    assert written["spins.png"] != there["spins.png"]
    shutil.rmtree(smaller.path)
    assert figures(run)["training.png"] != there["training.png"]


def test_no_global_state():
    before = dict(matplotlib.rcParams)
    gap_figure(metrics(5))
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.pyplot.get_fignums() == []
