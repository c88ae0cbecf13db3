"""Figures of transport: they draw what they are given."""

import numpy as np
import pytest

from isingflow.plots import transport as transport_plots
from isingflow.plots.style import png


def lines_of(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_trajectories_run_from_noise_to_samples():
    rng = np.random.default_rng(0)
    paths = {name: rng.normal(size=(9, 7, 2)).cumsum(0) for name in ("curved", "straight")}
    figure = transport_plots.trajectories_figure(paths)
    assert [ax.get_title() for ax in figure.axes] == ["curved", "straight"]
    for ax, positions in zip(figure.axes, paths.values(), strict=True):
        *drawn, start, end = (line.get_xydata() for line in ax.get_lines())
        np.testing.assert_array_equal(np.stack(drawn, axis=1), positions)
        np.testing.assert_array_equal(start, positions[0])
        np.testing.assert_array_equal(end, positions[-1])
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 3])
def test_exact_traces_are_lines_below_the_estimators(count):
    def time(milliseconds):
        return {"processor": milliseconds, "wall": 2 * milliseconds}

    results = [
        {
            "dimension": d,
            "exact_ms": time(4.0),
            "reference_ms": time(30.0),
            "hutchinson": [{"probes": n, "ms": time(3.0 * n), "error": 1 / n**0.5} for n in (1, 10, d)],
        }
        for d in (43, 63, 784)[:count]
    ]
    figure = transport_plots.trace_figure(results)
    *panels, errors = figure.axes
    for ax, result in zip(panels, results, strict=True):
        lines, d = lines_of(ax), result["dimension"]
        assert ax.get_title() == f"d = {d}"
        np.testing.assert_allclose(lines["Hutchinson"], [(1, 3), (10, 30), (d, 3 * d)])
        assert set(lines["exact, by the Gram matrix"][:, 1]) == {4.0}
        assert set(lines["exact, by Jacobians"][:, 1]) == {30.0}
        assert ax.get_ylim() == panels[0].get_ylim() and ax.get_ylim()[1] > 3 * d
        np.testing.assert_allclose(lines_of(errors)[f"d = {d}"][:, 1], [1, 10**-0.5, d**-0.5])
    assert png(figure).startswith(b"\x89PNG")
