"""Ranges of temperatures and the studies that are made of them: reports, exact answers, and what is refused."""

import csv
import json
import math
import shutil

import networkx
import numpy as np
import pytest

import isingflow
from isingflow.errors import FileError, InvalidInput
from isingflow.evaluation import known
from isingflow.evaluation.crossings import crossings
from isingflow.evaluation.temperatures import scan
from isingflow.exact import thermodynamics
from isingflow.lattice import CRITICAL_BETA, cubic, edwards_anderson, from_graph, random_field, square, triangular
from isingflow.observables.series_files import read_series, write_series
from isingflow.runtime.stopping import Stopped, StopRequest
from isingflow.statistics.estimate import Estimate

BETAS = [0.38, 0.44, 0.5]


@pytest.fixture(scope="module")
def study():
    return {size: scan(square(size), BETAS, samples=500, seed=size) for size in (4, 8, 12)}


@pytest.mark.parametrize(
    "lattice",
    [
        square(4, 6),
        edwards_anderson(4, seed=1),
        square(4).with_field(0.3),
        random_field(square(4), 0.4, seed=2),
        from_graph(networkx.petersen_graph()),
        square(4, jx=-1.0, jy=-1.0, boundary="open"),
    ],
    ids=str,
)
def test_every_temperature_agrees_with_the_exact_answers(lattice):
    betas = [0.4, -0.3, 0.1]
    report = scan(lattice, betas, samples=800, seed=3)
    assert [row.beta for row in report.rows] == sorted(betas) == [one.beta for one in report.series]
    for row in report.rows:
        exact = thermodynamics(lattice, row.beta)
        for name in ("energy_per_site", "heat_capacity_per_site"):
            assert row.exact_value(name) == getattr(exact, name)
            estimate = row.observables[name]
            assert abs(estimate.value - row.exact_value(name)) < 4.5 * estimate.stderr
        if lattice.field is not None:
            assert row.exact_value("magnetisation") == exact.magnetisation_per_site
            estimate = row.observables["magnetisation"]
            assert abs(estimate.value - exact.magnetisation_per_site) < 4.5 * estimate.stderr
    assert (report.critical_beta is not None) == (lattice.kind == "square" and lattice.field is None)


def test_the_same_seed_is_the_same_table_on_any_number_of_threads():
    one, two = (scan(square(4), BETAS, samples=50, seed=5, threads=n).as_dict() for n in (1, 2))
    other = scan(square(4), BETAS, samples=50, seed=6).as_dict()
    assert one | {"seconds": 0} == two | {"seconds": 0} and one["rows"] != other["rows"]


def test_progress_is_of_all_temperatures():
    seen = []
    scan(square(4), BETAS, samples=20, thermalise=10, report_progress=lambda *counts: seen.append(counts))
    assert seen == sorted(seen) and seen[-1] == (90, 90) and {total for _, total in seen} == {90}


def test_answers_that_take_long_are_left_out_and_said(monkeypatch):
    monkeypatch.setattr(known, "EXACT_SECONDS", -1.0)
    report = scan(square(4), BETAS, samples=20)
    assert [row.exact is None for row in report.rows] == [True, True, False]
    assert "no exact answers from beta 0.44" in report.warnings[0] and "warning: no exact" in str(report)


def test_files_of_a_range(study, tmp_path):
    report = study[4]
    report.write(tmp_path / "a.csv", tmp_path / "a.npz", tmp_path / "a.png")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["beta"]) for row in rows] == BETAS
    for row, entry in zip(rows, report.as_dict()["rows"], strict=True):
        assert float(row["binder"]) == entry["binder"]["value"]
        assert float(row["exact_energy_per_site"]) == entry["exact_energy_per_site"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert len(read_series(tmp_path / "a.npz")) == 3
    json.dumps(report.as_dict(), allow_nan=False)


def test_the_figure_shows_chains_curves_and_the_transition(study):
    axes = study[4].figure().axes
    assert len(axes) == 6
    labels = axes[0].get_legend_handles_labels()[1]
    assert set(labels) == {"Monte Carlo", "reweighted", "exact", r"$\beta_c$, infinite lattice"}
    exact = next(line for line in axes[0].lines if line.get_label() == "exact")
    for beta, energy in list(zip(*exact.get_data(), strict=True))[::50]:
        assert energy == pytest.approx(thermodynamics(square(4), beta).energy_per_site)


@pytest.mark.parametrize(
    "bad",
    [
        {"betas": []},
        {"betas": [0.3, 0.3]},
        {"betas": [0.3, math.nan]},
        {"betas": 0.3},
        {"betas": [0.3, 1e300]},
        {"betas": ["x"]},
        {"betas": np.linspace(0, 1, 10001)},
        {"lattice": 4},
        {"samples": 1},
        {"samples": 2.5},
        {"samples": 10**12},
        {"chains": 0},
        {"sampler": "gibbs"},
        {"every": 0},
        {"thermalise": 0},
        {"seed": -1},
        {"threads": 0},
        {"report_progress": 3},
    ],
)
def test_bad_ranges_are_refused(bad):
    with pytest.raises(InvalidInput) as caught:
        scan(**({"lattice": square(4), "betas": BETAS, "samples": 4} | bad))
    assert "\n" not in str(caught.value)


def test_a_stop_is_heard_between_temperatures():
    def stop(done, total):
        request._receive(15, None)

    request = StopRequest()
    with request.listening(), pytest.raises(Stopped):
        scan(square(4), BETAS, samples=20, report_progress=stop)


def test_the_critical_point_of_small_lattices(study):
    """Statistics alone here; the bias of such sizes is what the correction is for: benchmarks/crossings.py."""
    series = [one for report in study.values() for one in report.series]
    report = crossings(series, seed=1)
    assert {one.sizes for one in report.crossings} == {(4, 8), (8, 12)}
    assert report.critical_beta == CRITICAL_BETA
    for one in report.crossings:
        assert abs(one.beta.value / CRITICAL_BETA - 1) < 0.03
    document = report.as_dict()
    json.dumps(document, allow_nan=False)
    assert document["sizes"] == [4, 8, 12] and document["exact_temperature"] == pytest.approx(2.269185)
    assert {row["method"] for row in document["fits"]} <= {"fit"} and document["temperatures"]["4"] == BETAS
    assert "exact, infinite lattice" in str(report)


def test_two_sizes_say_that_corrections_are_left_out(study):
    report = crossings([one for size in (4, 8) for one in study[size].series])
    assert all(one.fit.omega is None for one in report.fits)
    assert any("corrections of small sizes" in warning for warning in report.warnings) or report.best is None


def test_a_study_is_a_folder_or_files(study, tmp_path):
    for size, report in study.items():
        (tmp_path / "points" / str(size)).mkdir(parents=True)
        write_series(tmp_path / "points" / str(size) / "series.npz", report.series, report.samplers)
    np.savez(tmp_path / "other.npz", beta=np.ones(2), size=np.ones(2))
    (tmp_path / "text.npz").write_text("no arrays")
    whole = crossings(tmp_path)
    files = crossings(sorted(str(path) for path in tmp_path.glob("points/*/*.npz")))
    direct = crossings([one for report in study.values() for one in report.series])
    assert whole.as_dict() == files.as_dict() == direct.as_dict()
    assert crossings([tmp_path, tmp_path / "points"]).as_dict() == whole.as_dict()
    with pytest.raises(FileError, match=r"text\.npz"):
        crossings([tmp_path / "points", tmp_path / "text.npz"])
    shutil.copy(tmp_path / "points" / "4" / "series.npz", tmp_path / "copy.npz")
    with pytest.raises(InvalidInput, match="hold the same samples"):
        crossings(tmp_path)


def test_samples_of_single_temperatures_are_a_study_too(study, tmp_path):
    from isingflow.evaluation.spins import write_spins

    for size in (4, 8):
        for beta in BETAS:
            write_spins(tmp_path / f"{size} {beta}.npz", square(size), beta, samples=4000, seed=size)
    report = crossings(tmp_path)
    assert report.crossings[0].sizes == (4, 8)
    reference = crossings([one for size in (4, 8) for one in study[size].series])
    far = report.crossings[0].beta - reference.crossings[0].beta
    assert abs(far.value) < 4.5 * far.stderr


def few(lattice, betas=(0.3, 0.4), samples=20):
    return scan(lattice, betas, samples=samples).series


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (lambda: [], "one size, periodic 4x4"),
        (lambda: few(square(8), [0.4]), "one temperature, beta 0.4, of size L = 8"),
        (lambda: few(triangular(8)), "several kinds: periodic 4x4 in series 0, "),
        (lambda: few(square(8, boundary="open")), "several kinds"),
        (lambda: few(square(8, 16)), "several kinds"),
        (lambda: few(square(8, jx=0.5)), "several kinds"),
        (lambda: few(cubic(3)), "several kinds"),
        (lambda: few(edwards_anderson(6, seed=1)), "couplings that do not vary, without a field"),
        (lambda: few(square(8).with_field(0.1)), "couplings that do not vary, without a field"),
        (lambda: few(from_graph(networkx.petersen_graph())), "couplings that do not vary"),
        (lambda: few(square(8), [0.1, 0.12], 200), "temperatures do not overlap, beta 0.3 to 0.4 and 0.1 to 0.12"),
    ],
)
def test_studies_that_are_none(others, told):
    with pytest.raises(InvalidInput) as caught:
        crossings([*few(square(4)), *others()])
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"study": 3}, {"study": []}, {"study": [3]}, {"resamples": 1}, {"seed": 1.5}])
def test_bad_studies_are_refused(bad, study):
    with pytest.raises(InvalidInput):
        crossings(**({"study": [one for size in (4, 8) for one in study[size].series]} | bad))


def test_public_names():
    assert isingflow.scan is scan and isingflow.crossings is crossings
    assert isinstance(scan(square(4), [0.3], samples=8).rows[0].observables["binder"], Estimate)
