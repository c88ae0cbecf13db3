"""Resampling of paths: the laws of systematic draws, bridges whose paths are resampled, and what does not change."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sampling_cases import Wells, generator, magnet, random_flow, wrong_gaussian
from test_bridge import every_bridge, fields

from isingflow.errors import InvalidInput
from isingflow.exact import enumeration
from isingflow.flows import Flow
from isingflow.lattice import square
from isingflow.runtime.parallel import Workers
from isingflow.sampling.bridge import Bridge, Plan
from isingflow.sampling.resampling import Lineage, resampled, systematic
from isingflow.statistics.free_energy import variational_free_energy
from isingflow.statistics.islands import log_means

relative = st.lists(st.sampled_from([0.0, 1e-9, 0.3, 1.0]) | st.floats(0, 1), min_size=1, max_size=12).filter(any)


@settings(deadline=None)
@given(weights=relative, uniform=st.floats(0, 1, exclude_max=True))
@example(weights=[1.0, 0.0], uniform=math.nextafter(1.0, 0.0))
def test_copies_are_the_expected_counts_rounded_up_or_down(weights, uniform):
    table = torch.tensor([weights], dtype=torch.float64)
    rows = systematic(table, torch.tensor([uniform], dtype=torch.float64))[0]
    counts = torch.bincount(rows, minlength=len(weights)).numpy()
    expected = len(weights) * table[0].numpy() / table.sum().item()
    assert counts.sum() == len(weights) and (rows.diff() >= 0).all()
    assert (np.abs(counts - expected) < 1 + 1e-9).all()
    assert not counts[table[0].numpy() == 0].any()


@settings(deadline=None, max_examples=50)
@given(weights=relative)
def test_copies_are_the_expected_counts_on_average(weights):
    # Over a grid of K numbers u the places are a grid of K m points: off by less than one of them at either end.
    grid = 512
    uniform = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    rows = systematic(torch.tensor([weights], dtype=torch.float64).expand(grid, -1), uniform)
    average = torch.bincount(rows.flatten(), minlength=len(weights)).numpy() / grid
    assert np.abs(average - len(weights) * np.array(weights) / sum(weights)).max() < 2 / grid


@settings(deadline=None)
@given(
    logs=st.lists(st.floats(-30, 30) | st.just(-math.inf), min_size=12, max_size=12),
    islands=st.sampled_from([1, 2, 3, 4, 6, 12]),
)
def test_mean_weights_and_islands_are_kept(logs, islands):
    before = torch.tensor(logs, dtype=torch.float64)
    after, rows, lineage = resampled(before, Lineage.of(12, islands, before.device), generator())
    size = 12 // islands
    kept = [table.view(islands, size).logsumexp(1).numpy() for table in (before, after)]
    np.testing.assert_allclose(kept[1], kept[0], atol=1e-12)
    assert torch.equal(rows // size, torch.arange(12) // size)
    for island in range(islands):
        weights = (before.view(islands, size)[island] - kept[0][island]).exp()
        effective = float(weights.sum() ** 2 / weights.square().sum())
        if effective == pytest.approx(size / 2):
            continue  # rounding decides
        light = effective < size / 2
        assert int(lineage.times[island]) == light
        if not light:
            part = slice(island * size, (island + 1) * size)
            assert torch.equal(after[part], before[part]) and torch.equal(rows[part], torch.arange(12)[part])


def islands_of(flow, target, steps, *, islands, paths, seed=5):
    """Resampled paths, and independent ones of the same seed."""
    bridge, source = Bridge(flow, target), generator(seed)
    pulled = bridge.of_fields(fields(target, 520, 4))
    plan = bridge.plan(steps, bridge.at(flow.noise(520, source)), pulled, source)
    state, found = source.get_state(), []
    for number in (islands, None):
        source.set_state(state)
        found.append(bridge.forward(bridge.at(flow.noise(paths, source)), plan, source, islands=number))
    return found


def enumerated(target):
    """-ln Z of the field of a 4x4 torus, by the sum over all states of its spins."""
    couplings = target.lattice.couplings(target.beta)
    return target.free_energy(enumeration.solve(couplings, np.zeros(len(couplings)))[0])


def test_islands_estimate_z_without_bias_and_bound_it_more_closely():
    target = magnet(0.4)
    path, alone = islands_of(wrong_gaussian(target), target, 6, islands=100, paths=2000)
    exact = enumerated(target)
    means = log_means(path.log_weight.view(100, -1).numpy())
    ratio = np.exp(means + exact)
    assert int(path.lineage.times.sum()) > 50
    assert path.lineage.survivors < 0.9 * 2000
    assert abs(ratio.mean() - 1) < 3 * ratio.std(ddof=1) / 10
    bound, plain = variational_free_energy(means), variational_free_energy(alone.log_weight.numpy())
    assert exact < bound.value + 3 * bound.stderr
    assert bound.value + 3 * bound.stderr < plain.value - 3 * plain.stderr


@every_bridge
def test_every_bridge_can_be_resampled(make):
    flow, target = make()
    path, _ = islands_of(flow, target, 3, islands=40, paths=800)
    exact = (target if hasattr(target, "exact_free_energy") else magnet(0.4)).exact_free_energy()[0]
    ratio = np.exp(log_means(path.log_weight.view(40, -1).numpy()) + exact)
    assert abs(ratio.mean() - 1) < 4 * ratio.std(ddof=1) / math.sqrt(40)
    assert (path.lineage.ancestors // 20 == torch.arange(800) // 20).all()


def test_weights_that_are_equal_are_left_alone():
    # A Gaussian target and the flow that is it: every W is Z, up to rounding.
    class Gaussian(Wells):
        def energy(self, field):
            return field.square().sum(-1) / 2

    target = Gaussian()
    flow, paths = Flow(target.shape, []), []
    for islands in (None, 4):
        source = generator(1)
        bridge = Bridge(flow, target)
        start = bridge.at(flow.noise(64, source))
        paths.append((bridge.forward(start, Plan.even(5), source, islands=islands), source.get_state()))
    (alone, before), (path, after) = paths
    assert int(path.lineage.times.sum()) == 0 and path.lineage.survivors == 64
    assert torch.equal(before, after)
    assert torch.equal(alone.log_weight, path.log_weight)
    assert torch.equal(alone.end.field, path.end.field)
    assert np.array_equal(alone.turned, path.turned)


def test_one_step_is_never_resampled():
    target = magnet(0.4)
    path, alone = islands_of(wrong_gaussian(target), target, 1, islands=4, paths=40)
    assert torch.equal(path.log_weight, alone.log_weight) and not path.lineage.times.any()


def test_numbers_do_not_depend_on_who_shares_the_work():
    target, found = magnet(0.4), []
    flow = random_flow(target)
    for threads in (1, 2):
        pool, source = Workers(threads), generator(3)
        bridge = Bridge(flow, target, pool)
        path = bridge.forward(bridge.at(flow.noise(64, source)), Plan.even(4), source, islands=4)
        pool.close()
        found.append(path)
    assert found[0].lineage.times.any()
    assert torch.equal(found[0].lineage.ancestors, found[1].lineage.ancestors)
    torch.testing.assert_close(found[0].log_weight, found[1].log_weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("islands", [0, -1, 1.5, "x", True, 3])
def test_islands_that_do_not_fit_are_refused(islands):
    target = magnet(0.4, square(4))
    flow = wrong_gaussian(target)
    bridge = Bridge(flow, target)
    with pytest.raises(InvalidInput, match="islands"):
        bridge.forward(bridge.at(flow.noise(8, generator())), Plan.even(2), generator(), islands=islands)
