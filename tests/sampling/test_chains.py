"""Chains of fields: stopping, saving, resuming, and what is refused."""

import dataclasses
import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from sampling_cases import SAMPLERS, guided, magnet, same

from isingflow.architectures.build import build_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.errors import FileError, InvalidInput
from isingflow.flows import Flow, SpectralScaling
from isingflow.plots.magnets import chains_figure
from isingflow.plots.style import png
from isingflow.runtime.files import read_arrays
from isingflow.runtime.parallel import Workers
from isingflow.sampling import BlockGibbs, Chains, FlowMetropolis, latent, physical, run_chains
from isingflow.sampling import chains as chains_module
from isingflow.sampling.files import check_room
from isingflow.statistics.mixing import Mixing

# --- stopping, saving, resuming


def test_chains_grow_bit_for_bit(tmp_path):
    target = magnet(0.44)
    options = {"chains": 4, "warm_up": 8, "seed": 1}
    half = run_chains(physical(target), samples=10, **options)
    half.save(tmp_path / "chains.npz")
    longer = run_chains(physical(target), samples=20, earlier=Chains.read(tmp_path / "chains.npz"), **options)
    same(longer, run_chains(physical(target), samples=20, **options))
    again = run_chains(physical(target), samples=10, earlier=half, **options)
    same(again, half)
    with pytest.raises(InvalidInput, match="5 samples: the chains to continue have 10 of them already"):
        run_chains(physical(target), samples=5, earlier=half, **options)


def test_threads_share_the_chains():
    target = magnet(0.44)
    alone = run_chains(guided(target), samples=6, chains=7, warm_up=4)
    pool = Workers(2)
    shared = run_chains(guided(target, pool=pool), samples=6, chains=7, warm_up=4)
    pool.close()
    np.testing.assert_allclose(shared.field[:, 0], alone.field[:, 0], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": {"run": {"beta": 0.5, "seed": 1}}}, "run.beta: 0.5 here, 0.44 there"),
        ({"identity": {"run": {"beta": 0.44}}}, "run.seed: absent here, 1 there"),
        ({"seed": 7}, "seed: 7 here, 5 there"),
        ({"warm_up": 3}, "warm_up: 3 here, 2 there"),
        ({"every": 4}, "every: 4 here, 1 there"),
        ({"chains": 4}, "chains: 4 here, 3 there"),
    ],
)
def test_chains_of_another_run_are_refused(change, message):
    target = magnet(0.44)
    options = {"chains": 3, "warm_up": 2, "seed": 5, "identity": {"run": {"beta": 0.44, "seed": 1}}}
    earlier = run_chains(BlockGibbs(target), samples=3, **options)
    with pytest.raises(InvalidInput, match="belong to another run and cannot be continued: " + message):
        run_chains(BlockGibbs(target), samples=6, earlier=earlier, **options | change)
    with pytest.raises(InvalidInput, match="sampler: metropolis here, gibbs there"):
        run_chains(SAMPLERS["flow as proposal"](target), samples=6, earlier=earlier, **options)


@pytest.mark.parametrize("change", [{"samples": 0}, {"chains": 0}, {"every": 0}, {"warm_up": -1}, {"samples": -3}])
def test_counts_that_are_not_positive_are_refused(change):
    with pytest.raises(InvalidInput, match="expected an integer >= "):
        run_chains(BlockGibbs(magnet(0.44)), **{"samples": 2, "chains": 2} | change)


@pytest.mark.parametrize("options", [{"length": 0.0}, {"acceptance": 1.0}, {"chances": 0}, {"length": math.nan}])
def test_impossible_trajectories_are_refused(options):
    with pytest.raises(InvalidInput, match=r"expected (an integer >= 1|a finite number > 0)"):
        physical(magnet(0.44), **options)


def test_more_than_memory_or_disk_hold_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InvalidInput, match=r"10000000000 samples of 64 chains take .* of memory"):
        run_chains(BlockGibbs(magnet(0.44)), samples=10**10, chains=64)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**24 + 10**6))
    check_room((4, 4), samples=10, chains=64, spins=True, path=tmp_path / "a.npz")
    with pytest.raises(FileError, match=r"1000 samples of 64 chains need 0.0154 GB .* at most 65 samples fit"):
        check_room((4, 4), samples=1000, chains=64, spins=True, path=tmp_path / "a.npz")
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"cannot write .*: No such file or directory"):
        check_room((4, 4), samples=10, chains=64, spins=True, path=tmp_path / "nowhere" / "a.npz")


def test_a_flow_that_gives_no_numbers_cannot_start():
    flow = Flow((4, 4), [SpectralScaling(magnet(0.44).basis, torch.ones(4, 4))])
    flow.transforms[0].scale.fill_(math.nan)
    for sampler in (latent(flow, magnet(0.44)), FlowMetropolis(flow, magnet(0.44))):
        with pytest.raises(
            InvalidInput, match="cannot start: the flow or the target gives numbers that are not finite"
        ):
            run_chains(sampler, samples=2, chains=2)


def test_stochastic_densities_are_refused():
    """Probes depend on the point they are for: the same field has another density forward than backwards."""
    config = ConvexFlowConfig(blocks=1, width=4, logdet="lanczos")
    target = magnet(0.44)
    flow = build_flow(target, config, seed=0)
    for make in (latent, FlowMetropolis):
        with pytest.raises(InvalidInput, match="estimates by random probes"):
            make(flow, target)
    assert latent(build_flow(target, replace(config, logdet="exact"), seed=0), target).target is target


@pytest.mark.parametrize(
    "damage",
    [
        {"field": None},
        {"generator": None},
        {"identity": np.array("{")},
        {"identity": np.array("3")},
        {"lattice": np.array('{"kind": "round"}')},
        {"lattice": None},
        {"title": None},
        {"facts": np.array("[1]")},
        {"shape": np.array([4, 5])},
        {"beta": np.array(math.nan)},
        {"spins": np.zeros((3, 2, 4, 4), np.int8)},
        {"state_position": np.zeros((2, 4, 4))},
        {"steps": np.array([1, 2])},
        {"steps": np.array(10**6)},
        {"steps": np.array(0)},
        {"identity": np.array('{"warm_up": 0, "every": 0}')},
        {"identity": np.array("{}")},
        {"acceptance": np.array(["a", "b", "c"])},
        {"acceptance": np.array([[1.0], [1.0], [1.0]])},
        {"acceptance": np.array([1.0, math.nan, 1.0])},
        {"spins": np.zeros((3, 3, 4, 4), np.int8)},
        {"field": np.full((3, 3, 4, 4), math.inf, np.float32)},
        {"field": np.full((3, 3, 4, 4), "x")},
        {"field": np.zeros((3, 3, 4, 4), np.complex64)},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "chains.npz"
    run_chains(BlockGibbs(magnet(0.44)), samples=3, chains=3).save(path)
    arrays = read_arrays(path, ()) | damage | {"digest": None}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(FileError, match=r"chains\.npz"):
        Chains.read(path)


@pytest.mark.parametrize(
    "damage",
    [
        {"generator": np.zeros(8, np.uint8)},
        {"generator": np.zeros(5056)},
        {"state_guided": None},
        {"state_guided": np.zeros(2, bool)},
        {"state_averaging": np.ones(2)},
        {"state_step_size": np.array(math.nan)},
        {"state_chances": np.array(1.0)},
        {"state_variances": np.ones((4, 3))},
        {"state_energy": None},
        {"state_foo": np.zeros(3)},
        {"state_position": np.zeros((3, 2, 8))},
        {"state_field": np.zeros((3, 4, 5), np.float32)},
        {"beta": np.array(0.3)},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_damaged_states_are_not_continued(damage, tmp_path):
    path, options = tmp_path / "chains.npz", {"chains": 3, "warm_up": 2}
    run_chains(physical(magnet(0.44)), samples=3, **options).save(path)
    arrays = read_arrays(path, ()) | damage | {"digest": None}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InvalidInput, match="cannot be continued"):
        run_chains(physical(magnet(0.44)), samples=6, earlier=Chains.read(path), **options)


@pytest.mark.parametrize(
    "edit", [{"state_step_size": np.array(0.0)}, {"state_length": np.array(1e30)}, {"steps": None}]
)
def test_what_is_edited_is_noticed(edit, tmp_path):
    path = tmp_path / "chains.npz"
    run_chains(physical(magnet(0.44)), samples=3, chains=3).save(path)
    arrays = read_arrays(path, ()) | edit
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(FileError, match="what it says of its chains is not what was written"):
        Chains.read(path)


def test_chains_of_earlier_versions_are_refused_in_one_line(tmp_path):
    """What adapted was beside the state then."""
    path = tmp_path / "chains.npz"
    run_chains(physical(magnet(0.44)), samples=3, chains=3).save(path)
    arrays = read_arrays(path, ())
    del arrays["facts"], arrays["digest"]
    np.savez(path, setting_step_size=np.float64(0.1), **arrays)
    with pytest.raises(FileError, match="chains of an earlier version of isingflow cannot be continued"):
        Chains.read(path)


def test_other_settings_are_another_run():
    earlier = run_chains(physical(magnet(0.44), length=1.0), samples=3, chains=3)
    with pytest.raises(InvalidInput, match=r"settings.length: 2.0 here, 1.0 there"):
        run_chains(physical(magnet(0.44)), samples=6, chains=3, earlier=earlier)


def test_chains_are_kept_while_they_run(tmp_path, monkeypatch):
    """Killed at any step, they continue from the last save as if nothing had happened."""
    monkeypatch.setattr(chains_module, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(chains_module, "SAVING", math.inf)
    target, path = magnet(0.44), tmp_path / "chains.npz"
    options = {"samples": 10, "chains": 3, "warm_up": 4, "every": 2}
    for killed in (2, 9):

        def kill(done, total, killed=killed):
            if done == killed:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            earlier = Chains.read(path) if path.exists() else None
            save = lambda chains: chains.save(path)  # noqa: E731
            run_chains(physical(target), earlier=earlier, report_progress=kill, keep=save, **options)
        assert Chains.read(path).steps == killed - 1
    same(run_chains(physical(target), earlier=Chains.read(path), **options), run_chains(physical(target), **options))


def test_certificates_of_continued_chains_are_those_of_all_their_parts():
    """A flow may be evaluated between two parts: that is no other run."""
    options = {"chains": 2, "seed": 1}
    for before, now in ((True, False), (False, True)):
        earlier = run_chains(BlockGibbs(magnet(0.44)), samples=2, certified=before, **options)
        assert not run_chains(BlockGibbs(magnet(0.44)), samples=4, certified=now, earlier=earlier, **options).certified


def test_a_failing_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "chains.npz"
    chains = run_chains(BlockGibbs(magnet(0.44)), samples=3, chains=3)
    chains.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FileError, match="No space left on device"):
        dataclasses.replace(chains, seconds=1e9).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 1), (3, 7), (1, 8)], ids=str)
def test_short_chains_say_what_is_not_known(shape):
    mixing = Mixing.of(np.random.default_rng(0).normal(size=shape))
    found = mixing.as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["stderr"] is None) == (shape == (1, 1))
    assert (found["tau"] is None) == (found["ess"] is None) == (shape[1] < 4)
    assert math.isnan(mixing.r_hat) == (shape[1] < 8)


@pytest.mark.parametrize("shape", [(1, 2), (8, 100), (3, 2000)], ids=str)
def test_figures_of_chains(shape):
    values = np.random.default_rng(0).normal(size=shape)
    figure = chains_figure({"noise": values, "constant": np.zeros(shape)}, {"noise": 0.0})
    assert png(figure).startswith(b"\x89PNG")
    trace, decay = figure.axes[:2]
    np.testing.assert_array_equal(trace.lines[0].get_ydata(), values[0, -600:])
    assert decay.lines[1].get_ydata()[0] == 1
