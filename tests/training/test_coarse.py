"""Training up from a smaller lattice: what is carried over exactly; runs that start so resume, keep limits, fail."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from isingflow.errors import InvalidInput, RunFolderError
from isingflow.lattice import edwards_anderson, square, triangular
from isingflow.potentials import LatticePotential
from isingflow.potentials.enlarge import enlarge, fold
from isingflow.runs.config import FlowConfig, RunConfig, TrainingConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import load
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training import train
from isingflow.training.inherit import inherit
from isingflow.training.problems import Variational
from isingflow.training.progress import Outcome
from isingflow.training.stages import coarse_share

CPU = torch.device("cpu")
TORI = [
    square(6),
    square(8),
    square(12, 16),
    square(8, jy=0.5),
    square(14, 6),
    triangular(6),
    triangular(8),
    triangular(12),
    triangular(6, 18),
    triangular(16, 8),
]
SMALL_FLOW = FlowConfig(hidden=4, radial=2, oriented=1, time_terms=2, steps=4)


def potentials(lattice, seed=0):
    """A random potential on half the lengths and the one that it enlarges to, in double precision."""
    make = {"radial": 2, "oriented": 2, "hidden": 3, "time_terms": 2}
    generator = torch.Generator().manual_seed(seed)
    small, large = (
        LatticePotential(symmetric.symmetry, **make, generator=generator).double()
        for symmetric in (lattice.halved(), lattice)
    )
    with torch.no_grad():
        for parameter in [*small.parameters(), *large.parameters()]:
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    enlarge(small, large)
    return small, large


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_on_repeated_fields(small, large):
    """Four times the value, and the same forces."""
    x = randn(3, *small.shape)
    repeated = x.repeat(1, 2, 2)
    for t in (0.0, 0.3, 1.0):
        torch.testing.assert_close(large.value(repeated, t), 4 * small.value(x, t), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            large.bind()(repeated, t)[0], small.bind()(x, t)[0].repeat(1, 2, 2), rtol=1e-11, atol=1e-11
        )


@pytest.mark.parametrize("lattice", TORI, ids=str)
def test_a_repeated_field_has_four_times_the_value_and_laplacian_terms_and_the_same_forces(lattice):
    """Exact for any kernels, those that wrap included: both spectra agree at the momenta of the small lattice."""
    small, large = potentials(lattice)
    check_on_repeated_fields(small, large)


@pytest.mark.parametrize("lattice", TORI, ids=str)
def test_the_enlarged_potential_has_the_symmetry_of_its_lattice(lattice):
    _, large = potentials(lattice)
    x = randn(1, *large.shape, seed=1)
    value = large.value(x, 0.4)
    for element in lattice.symmetry.sample(np.random.default_rng(0), 12):
        torch.testing.assert_close(large.value(element.apply(x), 0.4), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lattice", [square(16), square(12, 16), square(16, jy=0.5), triangular(16)], ids=str)
def test_short_kernels_see_no_difference_between_the_lattices(lattice):
    """A bump far from where the small torus closes: the same forces nearby, and the same Laplacian per site."""
    small, large = potentials(lattice)
    near = [n // 2 for n in lattice.halved().shape]

    def cut(potential):
        """Kernels without displacements beyond one site; q without any."""
        reach = [np.minimum(np.arange(n), n - np.arange(n)) for n in potential.shape]
        far = torch.from_numpy((reach[0][:, None] > 1) | (reach[1][None] > 1))
        with torch.no_grad():
            for values, labels in ((potential.radial, potential.radial_orbits),
                                   (potential.oriented, potential.oriented_orbits[0])):  # fmt: skip
                values[:, torch.unique(labels[far])] = 0.0
            potential.quadratic[:] = potential.quadratic[:, :1]

    cut(small)
    enlarge(small, large)
    bump = torch.zeros(1, *lattice.shape, dtype=torch.float64)
    bump[0, 1:3, 1:3] = randn(2, 2, seed=2)
    response, laplacian = large.bind()(bump, 0.7)
    small_response, small_laplacian = small.bind()(bump[:, : small.shape[0], : small.shape[1]], 0.7)
    background, empty = large.bind()(torch.zeros_like(bump), 0.7)
    small_empty = small.bind()(torch.zeros(1, *small.shape, dtype=torch.float64), 0.7)[1]
    window = (slice(None), slice(0, near[0]), slice(0, near[1]))
    torch.testing.assert_close(response[window], small_response[window], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(empty, 4 * small_empty, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(laplacian - empty, small_laplacian - small_empty, rtol=1e-10, atol=1e-10)
    assert background.abs().max() < 1e-12


def test_a_displacement_of_half_the_length_is_shared_between_its_two_images():
    """By hand, one axis at a time: w(3) of a torus of length 6 is the sum of W(3) and W(-3) of one of length 12."""
    small, large = potentials(square(12))
    kernel, enlarged = (p.radial.detach()[0, p.radial_orbits] for p in (small, large))
    for displacement, images in {(3, 0): 2, (0, 3): 2, (3, 1): 2, (3, 3): 4, (2, 1): 1, (0, 0): 1}.items():
        assert float(enlarged[displacement]) == pytest.approx(float(kernel[displacement]) / images, abs=1e-14)
    assert enlarged[4:9].abs().max() == 0
    assert enlarged[:, 4:9].abs().max() == 0


def test_on_triangular_tori_a_corner_of_the_hexagon_is_shared_by_three():
    """The displacement (2, 1) l / 3 of an l x l torus is as far from site 0 as from its two nearest copies."""
    small, large = potentials(triangular(12))
    kernel, enlarged = (p.radial.detach()[0, p.radial_orbits] for p in (small, large))
    for image in ((4, 2), (10, 2), (10, 8)):  # (4, 2), (4, 2) - (6, 0), (4, 2) - (6, 6), modulo 12
        assert float(enlarged[image]) == pytest.approx(float(kernel[4, 2]) / 3, abs=1e-14)
    assert enlarged[4, 8] == 0


@settings(deadline=None, max_examples=25)
@given(
    lx=st.integers(3, 9), ly=st.integers(3, 9), triangles=st.booleans(), seed=st.integers(0, 2**16), t=st.floats(0, 1)
)
def test_sums_over_images_give_back_the_small_kernels(lx, ly, triangles, seed, t):
    """On any torus the large kernels, folded onto the small one, are the small ones."""
    lattice = (triangular if triangles else square)(2 * lx, 2 * ly)
    small, large = potentials(lattice, seed)
    for kernels, orbits in (("radial", "radial_orbits"), ("oriented", "oriented_orbits")):
        w, W = (
            getattr(p, kernels)[:, getattr(p, orbits) if kernels == "radial" else getattr(p, orbits)[0]]
            for p in (small, large)
        )
        torch.testing.assert_close(W.unflatten(1, (2, lx)).unflatten(3, (2, ly)).sum((1, 3)), w, rtol=0, atol=1e-13)
    q, Q = (p._at(t, p.amplitude)[1] for p in (small, large))
    torch.testing.assert_close(Q[::2, ::2], q, rtol=0, atol=1e-12)


def scrambled(potential, seed):
    """The potential with other parameters, kernels of any length included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return potential


@pytest.mark.parametrize("lattice", TORI, ids=str)
def test_a_folded_potential_sees_what_the_large_one_does_to_repeated_fields(lattice):
    """Of parameters that no small torus had: exact as well."""
    small, large = potentials(lattice)
    fold(scrambled(large, seed=1), small)
    check_on_repeated_fields(small, large)


@pytest.mark.parametrize("lattice", TORI, ids=str)
def test_what_was_enlarged_folds_to_what_it_was(lattice):
    small, large = potentials(lattice)
    before = [parameter.clone() for parameter in small.parameters()]
    fold(large, scrambled(small, seed=1))
    for was, now in zip(before, small.parameters(), strict=True):
        torch.testing.assert_close(now, was, rtol=0, atol=1e-13)


@pytest.mark.parametrize("lattice", TORI, ids=str)
def test_the_folded_potential_has_the_symmetry_of_its_lattice(lattice):
    small, large = potentials(lattice)
    fold(scrambled(large, seed=1), small)
    x = randn(1, *small.shape, seed=1)
    value = small.value(x, 0.4)
    for element in lattice.halved().symmetry.sample(np.random.default_rng(0), 12):
        torch.testing.assert_close(small.value(element.apply(x), 0.4), value, rtol=1e-12, atol=1e-12)


def test_potentials_that_do_not_fit_are_refused():
    make = {"radial": 2, "hidden": 3, "generator": torch.Generator().manual_seed(0)}
    small, large, wrong = (LatticePotential(square(n).symmetry, **make) for n in (4, 8, 6))
    wider = LatticePotential(square(8).symmetry, **make | {"hidden": 4})
    enlarge(small, large)
    fold(large, small)
    for first, second in ((wrong, large), (small, wider), (large, small)):
        with pytest.raises(InvalidInput, match="does not enlarge"):
            enlarge(first, second)
        with pytest.raises(InvalidInput, match="does not enlarge"):
            fold(second, first)


COARSE = TrainingConfig(iterations=8, batch=8, check_every=3, evaluation_samples=256)
FINE = replace(COARSE, iterations=6, coarse=COARSE)
TWICE = replace(FINE, iterations=4, coarse=FINE)


def config(lattice=None, training=FINE, flow=SMALL_FLOW, seed=0):
    return RunConfig(lattice or square(6), 0.4, "mine", seed, flow, training)


def state(run):
    """All tensors of a run's checkpoint, and what of its metrics does not depend on the clock."""
    metrics = [{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics()]
    return run.load_checkpoint()[0], metrics


def assert_same(run, other):
    (tensors, metrics), (other_tensors, other_metrics) = state(run), state(other)
    assert metrics == other_metrics
    assert tensors.keys() == other_tensors.keys()
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)


def stop_after(calls):
    asked = iter(range(1, 10**6))
    return lambda: next(asked) == calls


def test_the_smaller_run_is_a_complete_run_and_the_larger_starts_where_it_ended(tmp_path):
    run = RunFolder.create(tmp_path / "run", config())
    assert train(run, device=CPU, should_stop=stop_after(8)).outcome is Outcome.INTERRUPTED
    assert not run.has_checkpoint
    coarse = RunFolder.open(tmp_path / "run" / "coarse")
    assert coarse.config == config(square(3), COARSE)
    alone = RunFolder.create(tmp_path / "alone", config(square(3), COARSE))
    train(alone, device=CPU)
    assert train(run, device=CPU, should_stop=stop_after(1)).outcome is Outcome.INTERRUPTED
    assert_same(coarse, alone)
    assert [line["iteration"] for line in run.metrics()] == [1]
    assert run.metrics()[0]["seconds"] > coarse.load_checkpoint()[1]["seconds"] > 0
    assert len(coarse.snapshots()) > 1
    assert 0 in run.snapshots()


@pytest.mark.parametrize("calls", [[3], [8], [9], [11], [2, 4, 3]], ids=str)
def test_resumed_is_uninterrupted_bit_for_bit_on_both_lattices(tmp_path, calls):
    whole, parts = (RunFolder.create(tmp_path / name, config()) for name in ("whole", "parts"))
    assert train(whole, device=CPU).outcome is Outcome.FINISHED
    for count in calls:
        assert (
            train(RunFolder.open(parts.path), device=CPU, should_stop=stop_after(count)).outcome is Outcome.INTERRUPTED
        )
    assert train(RunFolder.open(parts.path), device=CPU).outcome is Outcome.FINISHED
    assert_same(whole, parts)
    assert_same(RunFolder.open(whole.path / "coarse"), RunFolder.open(parts.path / "coarse"))
    assert train(RunFolder.open(parts.path), device=CPU).outcome is Outcome.FINISHED
    assert_same(whole, parts)


def test_three_sizes_nest_and_report_where_they_are(tmp_path):
    run = RunFolder.create(tmp_path / "run", config(square(12), TWICE))
    seen = []
    assert train(run, device=CPU, callbacks=[seen.append]).outcome is Outcome.FINISHED
    assert [len(RunFolder.open(run.path / inner).metrics()) for inner in (".", "coarse", "coarse/coarse")] == [4, 6, 8]
    assert [p.lattice for p in seen] == ["periodic 3x3"] * 8 + ["periodic 6x6"] * 6 + [None] * 4
    assert [p.iteration for p in seen] == [*range(1, 9), *range(1, 7), *range(1, 5)]
    assert all(math.isfinite(p.remaining) and p.remaining >= 0 for p in seen)
    assert all(p.remaining > 0 for p in seen[:-1])
    seconds = [p.seconds for p in seen]
    assert seconds == sorted(seconds)
    # The time passed over the part of the work that is done; the clock runs on while the time left is worked out.
    done = coarse_share(run.config) * coarse_share(run.config.coarse) / 8
    assert seen[0].remaining == pytest.approx(seen[0].seconds * (1 / done - 1), rel=0.01)


def test_a_carried_flow_is_the_enlarged_one_and_resumes(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="isingflow")
    carried = config(training=replace(FINE, iterations=50, carried=True))
    whole, parts = (RunFolder.create(tmp_path / name, carried) for name in ("whole", "parts"))
    seen = []
    assert train(whole, device=CPU, callbacks=[seen.append]).outcome is Outcome.FINISHED
    assert len(whole.metrics()) == seen[-1].iterations == 1
    assert sum("carried over" in line for line in caplog.messages) == 1
    small, large = (load(run.path) for run in (RunFolder.open(whole.path / "coarse"), whole))
    enlarged = carried.new_flow()
    inherit(small, enlarged)
    # One step of Adam, at a tenth of the rate.
    for now, before in zip(large.parameters(), enlarged.parameters(), strict=True):
        assert (now - before).abs().max() <= 0.11 * carried.training.learning_rate
    assert train(parts, device=CPU, should_stop=stop_after(3)).outcome is Outcome.INTERRUPTED
    assert train(RunFolder.open(parts.path), device=CPU).outcome is Outcome.FINISHED
    assert_same(whole, parts)


@pytest.mark.parametrize(("carried", "samples"), [(True, 60), (False, 48)])
def test_products_of_a_carried_flow_are_fitted_as_if_it_had_been_trained(tmp_path, monkeypatch, carried, samples):
    """Twice as many samples as iterations have seen, here or where the flow was learnt."""
    seen = []
    monkeypatch.setattr(Variational, "correct", lambda self, samples, *args: seen.append(samples))
    training = replace(FINE, iterations=50 if carried else 3, carried=carried, fitting_samples=60)
    train(RunFolder.create(tmp_path / "run", config(training=training)), device=CPU)
    assert seen == [samples]


def test_shares_add_up_over_nested_runs():
    whole = config(square(12), TWICE)
    assert coarse_share(whole) == (36 * 6 + 9 * 8) / (144 * 4 + 36 * 6 + 9 * 8)
    assert coarse_share(whole.coarse.coarse) == 0.0
    carried = config(square(12), replace(TWICE, carried=True, fitting_samples=40))
    assert coarse_share(carried) == (36 * 6 + 9 * 8) / (144 * (8 + 40 / 4) / 8 + 36 * 6 + 9 * 8)


class Clock:
    """A clock on which each look takes a tick, however long the machine needs for what it does."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def perf_counter(self):
        self.now += self.tick
        return self.now


def test_a_time_limit_is_split_and_both_rates_are_annealed_within_it(tmp_path, monkeypatch):
    monkeypatch.setattr("isingflow.runtime.parallel.time", Clock(0.01))
    endless = replace(COARSE, iterations=10**6)
    run = RunFolder.create(tmp_path / "run", config(training=replace(endless, iterations=10**6 // 4, coarse=endless)))
    assert coarse_share(run.config) == 0.5
    assert train(run, device=CPU, time_limit=3.0).outcome is Outcome.TIME_LIMIT
    coarse = RunFolder.open(run.path / "coarse")
    for stage in (coarse, run):
        rates = [line["learning_rate"] for line in stage.metrics()]
        assert len(rates) > 3
        assert rates[0] < 0.8 * max(rates)
        assert rates[-1] < 0.2 * max(rates)
    assert coarse.metrics()[-1]["seconds"] == pytest.approx(1.5, abs=0.5)
    assert run.metrics()[-1]["seconds"] == pytest.approx(3.0, abs=0.5)
    # More time on resuming goes to the larger lattice: the smaller one's part is done.
    known = len(coarse.metrics()), len(run.metrics())
    assert train(RunFolder.open(run.path), device=CPU, time_limit=4.0).outcome is Outcome.TIME_LIMIT
    assert len(coarse.metrics()) == known[0]
    assert len(run.metrics()) > known[1]


def test_a_time_limit_used_up_on_the_smaller_lattice_still_leaves_a_flow(tmp_path):
    run = RunFolder.create(tmp_path / "run", config())
    train(run, device=CPU, should_stop=stop_after(8))
    assert train(run, device=CPU, time_limit=1e-6).outcome is Outcome.TIME_LIMIT
    assert run.metrics() == []
    assert run.load_checkpoint()[1]["iteration"] == 0


@pytest.mark.parametrize(
    ("lattice", "flow"),
    [
        (square(7), SMALL_FLOW),
        (square(4), SMALL_FLOW),
        (square(6, boundary="open"), replace(SMALL_FLOW, potential="dense")),
        (edwards_anderson(6, seed=1), replace(SMALL_FLOW, potential="dense")),
        (square(6), replace(SMALL_FLOW, potential="dense")),
    ],
    ids=str,
)
def test_runs_that_cannot_start_small_are_refused(lattice, flow):
    with pytest.raises(InvalidInput, match="half the size"):
        config(lattice, flow=flow)


def test_another_run_in_the_folder_of_the_smaller_one_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "run", config())
    RunFolder.create(run.path / "coarse", config(square(3), COARSE, seed=5))
    with pytest.raises(RunFolderError, match="seed: 5 here, 0 there"):
        train(run, device=CPU)


def test_a_flow_trained_small_starts_far_below_mean_field(tmp_path):
    """The first losses of the larger lattice, against those of a flow that starts as the mean field."""
    training = replace(FINE, iterations=3, batch=64, learning_rate=1e-5)
    training = replace(training, coarse=replace(COARSE, iterations=50, batch=16, learning_rate=2e-2))
    warm = RunFolder.create(tmp_path / "warm", config(square(8), training))
    cold = RunFolder.create(tmp_path / "cold", config(square(8), replace(training, coarse=None)))
    train(warm, device=CPU)
    train(cold, device=CPU)
    target = HubbardStratonovich(square(8), 0.4)
    warm_gap, cold_gap = (np.mean([line["gap_nats"] for line in run.metrics()]) for run in (warm, cold))
    assert cold_gap == pytest.approx(target.mean_field().free_energy - target.exact_free_energy()[0], rel=0.2)
    assert warm_gap < 0.3 * cold_gap
