"""Free energies of a bridge as an evaluation reports them: which estimate is the best, and when none can be trusted."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import isingflow
from isingflow.errors import InvalidInput
from isingflow.evaluation.bridging import CHAINS, ISLANDS, Resampled, allowed_r_hat, anneal
from isingflow.evaluation.budget import Budget, Meter
from isingflow.flows import Flow
from isingflow.lattice import square
from isingflow.runtime.parallel import Workers
from isingflow.sampling.bridge import Bridge, Plan
from isingflow.statistics.chains import diagnostics
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.targets.phi4 import Phi4


class Stuck(HubbardStratonovich):
    """Half of its chains stay where they begin, at random spins."""

    def reference(self, samples, *, chains, seed):
        states = super().reference(samples, chains=chains, seed=seed)
        states[::2] = torch.randint(2, states[::2, :1].shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        return states


def annealed(target, *, steps=2, paths=64, seconds=None, seed=0, resample=False):
    """A bridge from the Gaussian that flows start from."""
    flow = Flow(target.shape, [*target.start().latent, *target.start().field])
    return anneal(
        flow,
        target,
        steps=steps,
        paths=paths,
        generator=torch.Generator().manual_seed(seed),
        seed=seed,
        pool=Workers(1),
        budget=Budget(seconds),
        meter=Meter(None, 2 * paths),
        resample=resample,
    )


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """Of a flow and, better than it, a bridge."""
    magnet = HubbardStratonovich(square(4), 0.3)
    folder, small = tmp_path_factory.mktemp("run") / "run", {"flow.hidden": 2, "training.batch": 8}
    run = isingflow.train(magnet, output=folder, iterations=3, progress=False, settings=small, device="cpu")
    return isingflow.evaluate(run, samples=1024, anneal=4, paths=256)


@pytest.fixture
def told(evaluation):
    """The evaluation with another bridge or other samples, whose estimate is the best one's."""

    def changed(bridge, **samples):
        both = samples.pop("overlap", evaluation.both_sides.overlap)
        found = dataclasses.replace(
            evaluation,
            annealed=dataclasses.replace(evaluation.annealed, **bridge),
            both_sides=dataclasses.replace(evaluation.both_sides, overlap=both),
            **samples,
        )
        table = str(found)
        assert str(found.best[0]) in next(line for line in table.splitlines() if "annealed estimate" in line)
        assert table.splitlines()[-1] == f"  verdict: {found.verdict}"
        return found

    return changed


def test_the_estimate_of_a_good_bridge_is_trusted_however_bad_the_flow(told, evaluation):
    found = told({}, overlap=0.5, pareto_k=1.5, effective_sample_size=1e-3)
    assert found.best == (evaluation.annealed.acceptance_ratio, "annealing both ways")
    assert found.verdict.startswith("-ln Z by annealing both ways can be trusted to 0.0")


def test_that_of_paths_that_do_not_overlap_is_not_however_good_the_flow(told, evaluation):
    assert evaluation.both_sides.overlap > 100
    found = told({"overlap": 2.0})
    assert "the bounds can be trusted, the estimates cannot: 2 paths of both directions overlap" in found.verdict
    assert "--anneal" in found.verdict


def test_chains_that_disagree_leave_what_is_made_of_forward_paths(told, evaluation):
    found = told({"r_hat": 1.2})
    assert found.best == (evaluation.annealed.reweighted, "annealing")
    assert found.verdict.startswith("the bounds from above can be trusted, those from below and the estimates cannot")
    assert "R-hat 1.200" in found.verdict and "R-hat 1.200" in found.warnings[-1]


@pytest.mark.parametrize(
    ("weights", "why"),
    [({"pareto_k": 0.9}, "heavy tails (Pareto k 0.90)"), ({"effective_sample_size": 0.05}, "13 paths count"), ({}, "")],
)
def test_without_samples_of_the_target(evaluation, weights, why):
    alone = {"acceptance_ratio": None, "lower_bound": None, "overlap": None, "r_hat": math.nan, "reference_paths": 0}
    bridge = dataclasses.replace(evaluation.annealed, **{"pareto_k": 0.2} | alone | weights)
    found = dataclasses.replace(evaluation, both_sides=None, annealed=bridge)
    assert found.best == (bridge.reweighted, "annealing")
    if why:
        assert found.verdict.startswith("the bounds can be trusted, the estimates cannot: ") and why in found.verdict
    else:
        assert found.verdict.startswith("-ln Z by annealing can be trusted")
    assert "annealed lower bound" not in str(found)


def test_an_annealed_estimate_far_from_the_exact_answer_is_wrong(told, evaluation):
    assert "nats from the exact answer" in told({}, exact=evaluation.exact + 1.0).verdict


@pytest.mark.parametrize("paths", [2, 16, 200])
def test_chains_are_compared_however_few_the_paths(paths):
    assert annealed(HubbardStratonovich(square(4), 0.4), paths=paths).chains_agree
    stuck = annealed(Stuck(square(4), 0.4), paths=paths)
    assert math.isfinite(stuck.r_hat) and not stuck.chains_agree
    assert "the chains from which paths go back disagree" in stuck.warnings[0]


@pytest.mark.parametrize(("seconds", "planned_on", "paths"), [(None, 512, 200), (1e-6, 128, 64)])
def test_plan_and_paths_shrink_with_the_time(monkeypatch, seconds, planned_on, paths):
    """Chains, whose time is looked after elsewhere (test_time_limits), take none."""
    monkeypatch.setattr(Budget, "longest", lambda self, work, wanted, **options: work(wanted))
    monkeypatch.setattr("isingflow.evaluation.bridging.stopping.within", lambda seconds, work, *rest: work(*rest))
    made_of = []

    def plan(self, steps, flow, target, generator):
        made_of.append((len(flow.excess), len(target.excess)))
        return Plan.even(steps)

    monkeypatch.setattr(Bridge, "plan", plan)
    found = annealed(HubbardStratonovich(square(4), 0.4), paths=200, seconds=seconds)
    assert made_of == [(planned_on, planned_on)]
    assert (found.paths, found.reference_paths) == (paths, -(-paths // CHAINS) * CHAINS)
    assert math.isfinite(found.r_hat)


@pytest.mark.parametrize("length", [16, 40, 100])
def test_chains_that_agree_are_believed(length):
    rng = np.random.default_rng(length)
    found = [diagnostics(rng.normal(size=(CHAINS, length))).r_hat for _ in range(100)]
    assert np.mean(np.array(found) > allowed_r_hat(length)) < 0.05
    apart = rng.normal(size=(CHAINS, length)) + rng.normal(size=(CHAINS, 1))
    assert diagnostics(apart).r_hat > allowed_r_hat(length)


class TestResampling:
    def test_what_is_reported(self):
        found = annealed(HubbardStratonovich(square(4), 0.6), steps=3, paths=250, resample=True)
        document = found.as_dict()
        assert found.paths == 256 and document["paths"] == 256
        resampled = document["resampled"]
        assert set(resampled) == {"islands", "effective_islands", "times", "ancestors"}
        assert resampled["islands"] == ISLANDS and 1 <= resampled["effective_islands"] <= ISLANDS
        assert resampled["times"] > 0 and ISLANDS <= resampled["ancestors"] < 256
        assert found.acceptance_ratio is None and found.overlap is None
        assert found.lower_bound is not None
        assert found.best == (found.reweighted, "resampled annealing")
        assert found.reweighted.value < found.upper_bound.value

    def test_paths_in_reverse_are_those_without_it(self):
        # One step draws no random numbers on the way, whoever resamples.
        alone, islands = (annealed(HubbardStratonovich(square(4), 0.5), steps=1, resample=on) for on in (False, True))
        assert alone.lower_bound == islands.lower_bound and alone.reference_paths == islands.reference_paths

    @pytest.mark.parametrize("paths", [64, 512])
    def test_paths_that_need_none_have_the_same_weights(self, paths):
        target = HubbardStratonovich(square(4), 0.1)
        alone, islands = (annealed(target, paths=paths, resample=on) for on in (False, True))
        assert islands.resampled.times == 0 and islands.resampled.ancestors == paths
        for name in ("effective_sample_size", "pareto_k", "turned", "moved", "lower_bound", "plan"):
            assert getattr(alone, name) == getattr(islands, name), name
        assert alone.reweighted.value == islands.reweighted.value
        assert alone.as_dict()["resampled"] is None

    def test_errors_are_those_of_repetitions(self):
        target = HubbardStratonovich(square(4), 0.5)
        exact = target.exact_free_energy()[0]
        found = [annealed(target, paths=128, seed=seed, resample=True) for seed in range(24)]
        assert all(one.resampled.times for one in found)
        pulls = [(one.reweighted.value - exact) / one.reweighted.stderr for one in found]
        assert 0.5 < np.mean(np.square(pulls)) < 2
        bound = np.array([one.upper_bound.value for one in found])
        assert bound.mean() > exact + 3 * bound.std() / math.sqrt(24)

    def test_targets_without_samples_of_their_own_have_no_lower_bound(self):
        found = annealed(Phi4(4, mass_squared=-1.0, coupling=1.0), paths=64, resample=True)
        assert found.lower_bound is None and found.best[1] == "resampled annealing"

    def test_islands_that_disagree_are_not_believed(self, evaluation):
        islands = {"acceptance_ratio": None, "overlap": None}
        for effective, why in ((15.0, None), (3.0, "3 of 16 islands of resampled paths count")):
            bridge = dataclasses.replace(
                evaluation.annealed, resampled=Resampled(ISLANDS, effective, 20, 100), pareto_k=0.2, **islands
            )
            found = dataclasses.replace(evaluation, annealed=bridge)
            assert f"{ISLANDS} x {bridge.paths // ISLANDS} paths" in str(found)
            if why is None:
                assert found.verdict.startswith("-ln Z by resampled annealing can be trusted")
            else:
                assert why in found.verdict and "the estimates cannot" in found.verdict

    def test_paths_are_checked_before_they_are_taken(self, evaluation, tmp_path):
        magnet = HubbardStratonovich(square(4), 0.3)
        small = {"flow.hidden": 2, "training.batch": 8}
        run = isingflow.train(magnet, output=tmp_path / "run", iterations=1, progress=False, settings=small)
        for options, message in {
            (("resample", True),): "give its number of steps",
            (("resample", True), ("anneal", 2), ("paths", 15)): "15 paths in 16 islands",
            (
                ("anneal", 2),
                ("paths", 10**12),
            ): r"1000000000000 paths take \S+ TiB of memory, .* are free: at most \d+ paths",
            (("resample", True), ("anneal", 2), ("paths", 10**12)): "of memory",
        }.items():
            with pytest.raises(InvalidInput, match=message):
                isingflow.evaluate(run, samples=16, save=False, **dict(options))
