"""Every figure of every kind of run says what it is of, and nothing lies under the heading."""

from types import SimpleNamespace

import networkx
import numpy as np
import pytest
import torch
from PIL import Image

from isingflow import datasets
from isingflow.lattice import edwards_anderson, from_graph, square, triangular
from isingflow.plots import data as data_plots
from isingflow.plots import magnets, style
from isingflow.runs.config import DensityConfig, RunConfig, TargetConfig, heading
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import new_flow
from isingflow.targets import Phi4, Target
from isingflow.training import train

LATTICES = {
    "torus": square(4),
    "open": square(4, 3, boundary="open"),
    "triangular": triangular(4),
    "open triangular": triangular(3, 4, boundary="open"),
    "glass": edwards_anderson(3, seed=0),
    "graph": from_graph(networkx.petersen_graph()),
}


class Line(Target):
    shape = (5,)

    def energy(self, field):
        return field.square().sum(-1)


TARGETS = {"phi4": Phi4(4, mass_squared=1.0, coupling=0.5), "line": Line()}


def metrics(count: int) -> list[dict]:
    common = {"variational_free_energy": -20.0, "gap_nats": 0.5, "lower_bound": -21.0, "integration_error_nats": 1e-3}
    return [{"iteration": i + 1, "seconds": 1.0 + i, **common} for i in range(count)]


def drawn(config, tmp_path, monkeypatch, *, certified=True) -> dict[str, object]:
    """The figures of a run with an untrained flow, by the name of the file they become."""
    run = RunFolder.create(tmp_path / "run", config)
    for record in metrics(4):
        run.append_metrics(record)
    rng = np.random.default_rng(0)
    target = isinstance(config, TargetConfig)
    shape = config.shape if target else config.lattice.shape
    spins = rng.choice([-1, 1], (60, *shape)).astype(np.int8)
    field = rng.normal(size=spins.shape).astype(np.float32)
    run.save_snapshot(0, field[:25] if target else spins[:25])
    samples = SimpleNamespace(spins=None if target else spins, field=field, log_weight=rng.normal(size=60))
    figures: list[object] = []

    def png(figure, *args, **options) -> bytes:
        figures.append(style.entitled(figure, *args, **options))
        return b"not drawn"

    monkeypatch.setattr(style, "png", png)
    paths = magnets.plot_run(run, samples, flow=new_flow(config), certified=certified)
    return dict(zip(paths, figures, strict=True))


def check(figures, config) -> None:
    for path, figure in figures.items():
        text = figure.get_suptitle()
        assert text.replace("\n", "; ", 1) == heading(config) or text.replace("\n", " ") == heading(config)
        figure.draw_without_rendering()
        box = figure._suptitle.get_window_extent()
        whole = figure.bbox
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
        for ax in figure.axes:
            below = ax.get_tightbbox()
            assert below.y1 <= box.y0 + 1, f"{path.name}: {ax.get_title()!r} reaches into the heading"
            assert whole.x0 - 1 <= below.x0 and below.x1 <= whole.x1 + 1 and whole.y0 - 1 <= below.y0


@pytest.mark.parametrize("kind", LATTICES)
def test_of_magnets(kind, tmp_path, monkeypatch):
    config = RunConfig.from_preset("quick", LATTICES[kind], 0.4)
    figures = drawn(config, tmp_path, monkeypatch)
    assert {path.name for path in figures} == {
        "training.png",
        "gap.png",
        "spins.png",
        "log_weights.png",
        "flow_in_time.png",
    }
    check(figures, config)
    for word in ("beta = 0.400000", "T = 2.5", "Monge-Ampère flow", "preset quick", "seed 0", str(config.lattice)):
        assert word in heading(config)


@pytest.mark.parametrize("flow", ["ot", "convex"])
def test_of_other_flows(flow, tmp_path, monkeypatch):
    config = RunConfig.from_preset("quick", square(4), 0.4, flow=flow, seed=3)
    check(drawn(config, tmp_path, monkeypatch), config)
    assert f"{ {'ot': 'OT-Flow', 'convex': 'CP-Flow'}[flow] }, preset quick, seed 3" in heading(config)


@pytest.mark.parametrize("name", TARGETS)
def test_of_own_targets(name, tmp_path, monkeypatch):
    config = TargetConfig.from_preset("quick", TARGETS[name])
    figures = drawn(config, tmp_path, monkeypatch)
    assert "fields.png" in {path.name for path in figures}
    check(figures, config)


def test_of_data(tmp_path, monkeypatch):
    data = datasets.load("moons")
    config = DensityConfig.from_preset("quick", data, flow="ot", iterations=2)
    run = RunFolder.create(tmp_path / "run", config)
    train(run, device=torch.device("cpu"), data=data)
    written = data_plots.plot_run(run, np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32), data)
    assert len(written) == 4
    for path in written:
        assert Image.open(path).text["Title"] == heading(config)


def test_flows_that_are_not_certified_say_so_beside_the_heading(tmp_path, monkeypatch):
    config = RunConfig.from_preset("quick", edwards_anderson(4, seed=123456), 0.4)
    figures = drawn(config, tmp_path, monkeypatch, certified=False)
    check(figures, config)
    for figure in figures.values():
        (corner,) = (text for text in figure.texts if text.get_text() == "not checked")
        assert not corner.get_window_extent().overlaps(figure._suptitle.get_window_extent())


@pytest.mark.parametrize("text", ["", "short", "a very long heading; " * 8, "Ampère 16x16, " * 20])
@pytest.mark.parametrize("layout", ["constrained", "none"])
def test_a_figure_grows_for_its_heading(text, layout):
    figure = style.Figure(figsize=(4, 3), layout=layout)
    ax = figure.add_axes((0, 0, 1, 1)) if layout == "none" else figure.add_subplot()
    style.entitled(figure, text)
    figure.draw_without_rendering()
    assert (figure.get_figheight() > 3) == bool(text)
    if text:
        assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1
        assert ax.get_window_extent().y1 <= figure._suptitle.get_window_extent().y0 + 1
