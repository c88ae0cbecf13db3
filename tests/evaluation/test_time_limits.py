"""A limit of time covers all of an evaluation, which says what is shorter or left out. By a clock of its own."""

import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import isingflow
from isingflow import cli
from isingflow.evaluation import bridging, reference, targets, warmer
from isingflow.evaluation.budget import LONGER, Budget, Meter
from isingflow.flows import Flow
from isingflow.lattice import cubic, square
from isingflow.monte_carlo import equilibrium as chains_at
from isingflow.monte_carlo.equilibrium import CHAINS, equilibrium
from isingflow.runtime import stopping
from isingflow.runtime.parallel import Workers
from isingflow.statistics.chains import MOST_R_HAT
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

QUICK = {"device": "cpu", "progress": False}


class Clock:
    """A clock that stands still but for what it is told."""

    def __init__(self):
        self.now = 0.0

    def __getattr__(self, name):
        return getattr(time, name)

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of all that keeps a limit."""
    found = Clock()
    for module in (stopping, bridging, warmer, chains_at):
        monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def slow(monkeypatch, clock):
    """Chains of a magnet that take seconds for their beginning, and for each of their states."""
    asked, cost = [], {"begin": 0.0, "state": 0.0}
    usual = HubbardStratonovich.reference

    def chains(self, samples, *, chains, seed):
        asked.append(samples)
        for seconds in (cost["begin"], *[cost["state"]] * samples):
            clock.now += seconds
            stopping.check()
        return usual(self, samples, chains=chains, seed=seed)

    monkeypatch.setattr(HubbardStratonovich, "reference", chains)
    return asked, cost


def bridge(seconds, *, paths=64):
    """From the Gaussian that flows start from."""
    target = HubbardStratonovich(square(4), 0.4)
    flow = Flow(target.shape, [*target.start().latent, *target.start().field])
    return bridging.anneal(
        flow,
        target,
        steps=2,
        paths=paths,
        generator=torch.Generator().manual_seed(0),
        seed=0,
        pool=Workers(1),
        budget=Budget(seconds),
        meter=Meter(None, 2 * paths),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    magnet = HubbardStratonovich(square(4), 0.4)
    options = {"iterations": 2, "settings": {"flow.hidden": 2, "training.batch": 8}}
    return isingflow.train(magnet, output=tmp_path_factory.mktemp("a") / "run", **options, **QUICK)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    magnet = HubbardStratonovich(square(4), 0.4)
    options = {"iterations": 2, "from_beta": 0.3, "settings": {"flow.hidden": 2, "training.batch": 8}}
    return isingflow.train(magnet, output=tmp_path_factory.mktemp("b") / "run", **options, **QUICK)


class TestWithin:
    def test_what_ends_in_time_is_handed_on_and_what_does_not_is_left_where_it_looks(self, clock):
        def work(steps):
            for _ in range(steps):
                clock.now += 1.0
                stopping.check()
            return steps

        assert [stopping.within(3.5, work, steps) for steps in (3, 4)] == [3, None]
        assert clock.now == 3 + 4
        assert not stopping.late()
        stopping.check()

    def test_an_outer_limit_is_the_outer_one_s(self, clock):
        def work():
            clock.now += 2.0
            stopping.check()

        def inner():
            return stopping.within(5.0, work) or "went on"

        assert stopping.within(1.0, inner) is None
        assert stopping.within(9.0, lambda: stopping.within(1.0, work) or "went on") == "went on"

    def test_an_error_takes_the_limit_away(self, clock):
        with pytest.raises(ZeroDivisionError):
            stopping.within(1.0, divmod, 1, 0)
        clock.now += 2.0
        stopping.check()

    def test_it_holds_where_stops_are_deferred(self, clock):
        def work():
            clock.now += 2.0
            with stopping.deferred():
                stopping.check()

        assert stopping.within(1.0, work) is None


class TestTheLongest:
    @pytest.mark.parametrize(
        ("seconds", "share", "length"),
        [(1.5, 1.0, None), (2.5, 1.0, 2), (12.0, 1.0, 8), (99.0, 0.1, 2), (1e3, 1.0, 50)],
    )
    def test_work_grows_until_the_next_would_not_end(self, clock, seconds, share, length):
        """A second for each unit of length."""
        limit = Budget(seconds)

        def work(length):
            for _ in range(length):
                clock.now += 1.0
                stopping.check()
            return length

        assert limit.longest(work, 50, least=2, share=share) == length
        assert limit.seconds == seconds - clock.now
        assert clock.now <= share * seconds + 1.0

    def test_without_a_limit_it_is_done_once(self):
        done = []
        Budget(None).longest(done.append, 50, least=2)
        assert done == [50]


class TestEquilibrium:
    def slowed(self, monkeypatch, clock, seconds):
        """Chains that take so many seconds for a sweep of all of them."""
        sweeps, usual = [], chains_at.stream

        def stream(*magnet, samples, thermalise, **options):
            sweeps.append(samples + thermalise)
            blocks = usual(*magnet, samples=samples, thermalise=thermalise, **options)

            def slow():
                clock.now += seconds * (samples + thermalise)
                stopping.check()
                yield from blocks

            return slow()

        monkeypatch.setattr(chains_at, "stream", stream)
        return sweeps

    def test_chains_that_do_not_fit_are_shortened_and_say_so(self, monkeypatch, clock):
        sweeps = self.slowed(monkeypatch, clock, 1e-3)
        found = equilibrium(square(4), 0.4, 64, seed=0, seconds=1.0)
        assert found.states.shape == (CHAINS, 4, 16) and found.shortened
        assert sweeps[0] < sweeps[1] < 1000 < sweeps[2] and sweeps[2] == 2000
        assert clock.now == pytest.approx(sum(sweeps) * 1e-3)

    def test_those_that_fit_are_the_usual_ones(self, monkeypatch, clock):
        self.slowed(monkeypatch, clock, 1e-3)
        found, usual = (equilibrium(square(4), 0.4, 64, seed=0, seconds=s) for s in (1e3, float("inf")))
        assert np.array_equal(found.states, usual.states)
        assert (found.r_hat, found.shortened) == (usual.r_hat, False)

    def test_none_that_fit_are_none(self, monkeypatch, clock):
        self.slowed(monkeypatch, clock, 1.0)
        assert stopping.within(1e9, lambda: equilibrium(square(4), 0.4, 64, seed=0, seconds=9.0)) is None

    def test_short_chains_that_disagree_stay_marked(self, monkeypatch, clock):
        """Heat-bath chains deep in the ordered phase, some with domain walls; longer ones have no time."""
        usual = chains_at.stream
        monkeypatch.setattr(
            chains_at, "stream", lambda *magnet, **options: usual(*magnet, sampler="heat-bath", **options)
        )
        self.slowed(monkeypatch, clock, 1e-3)
        found = equilibrium(square(16), 0.9, 16, seed=1, seconds=1.0)
        assert found.shortened and found.r_hat > MOST_R_HAT


class TestBridges:
    def test_chains_are_shortened(self, slow):
        asked, cost = slow
        cost |= {"begin": 1.0, "state": 1.0}
        found = bridge(300.0, paths=512)  # 64 states of each of 16 chains are wanted, for 0.3 of the time
        assert asked == [12, 48]
        assert (found.paths, found.reference_paths) == (512, 16 * (48 - 32))
        assert found.warnings[0] == "only 256 of 512 annealed paths from the target: the time limit left no room"

    def test_without_any_chains_paths_go_one_way(self, slow):
        asked, cost = slow
        cost["begin"] = 100.0
        found = bridge(60.0)
        assert asked == [12]
        assert (found.paths, found.reference_paths, found.acceptance_ratio) == (64, 0, None)
        assert found.best == (found.reweighted, "annealing")
        assert found.warnings == [
            "no annealed paths from the target, for the chains that they begin with: the time limit left no room"
        ]

    def test_a_way_back_that_takes_too_long_is_left_out(self, clock, monkeypatch):
        usual = bridging.Bridge.backward

        def backward(self, *parts):
            clock.now += 100.0
            stopping.check()
            return usual(self, *parts)

        monkeypatch.setattr(bridging.Bridge, "backward", backward)
        found = bridge(60.0)
        assert found.lower_bound is None
        assert "their way back through the bridge: the time limit left no room" in found.warnings[0]

    def test_without_a_limit_nothing_is_said(self, slow):
        slow[1]["begin"] = 1e6
        assert bridge(None).warnings == []


class TestEvaluations:
    def test_chains_of_the_target_are_shortened(self, run, slow):
        slow[1]["state"] = 1.0
        found = isingflow.evaluate(run, samples=4096, time_limit=20.0, save=False, device="cpu")
        assert slow[0] == [1, LONGER, LONGER**2]
        assert found.both_sides.samples == 64 * LONGER
        document = found.as_dict()
        told = "only 256 of 1024 samples of the target: the time limit left no room"
        assert document["shortened"] and told in document["warnings"] and told in str(found)

    def test_or_left_out(self, run, slow, clock):
        slow[1]["begin"] = 30.0
        found = isingflow.evaluate(run, samples=512, time_limit=20.0, save=False, device="cpu")
        assert found.both_sides is None and found.best == (found.reweighted, "reweighting")
        assert "no samples of the target, and so no lower bound: the time limit left no room" in found.warnings
        assert "no samples of the target were taken" in str(found)
        assert found.as_dict()["shortened"]

    def test_a_bridge_too(self, run, clock, monkeypatch):
        def endless(*parts, **options):
            while True:
                clock.now += 1.0
                stopping.check()

        monkeypatch.setattr(targets, "annealed_free_energies", endless)
        found = isingflow.evaluate(run, samples=256, anneal=4, time_limit=20.0, save=False, device="cpu")
        assert found.annealed is None and found.both_sides is not None
        assert found.warnings[0] == "no bridge: the time limit left no room"
        assert clock.now <= 21.0

    def test_an_exact_answer_takes_no_more_than_its_share(self, monkeypatch, tmp_path, clock):
        """That of the periodic cube of length 4 takes most of a minute."""
        cube = HubbardStratonovich(cubic(4), 0.2)
        options = {"iterations": 1, "settings": {"flow.hidden": 2, "training.batch": 8}}
        trained = isingflow.train(cube, output=tmp_path / "run", **options, **QUICK)
        found = isingflow.evaluate(trained, samples=64, time_limit=8.0, save=False, device="cpu")
        assert found.exact is None
        assert "no method known that takes less than 2 seconds" in str(found)

    def test_with_time_for_all_numbers_are_those_without_a_limit(self, run):
        found, usual = (
            isingflow.evaluate(
                run, samples=256, anneal=2, paths=64, time_limit=limit, save=False, device="cpu"
            ).as_dict()
            for limit in (1e6, None)
        )
        assert found.keys() == usual.keys() and not found["shortened"]
        for name in ("variational_free_energy", "lower_bound", "samples", "reference_samples", "warnings"):
            assert found[name] == usual[name]


class TestPathsToAGoal:
    def evaluated(self, warm, limit=100.0):
        options = {"samples": 64, "anneal": 5, "paths": 32, "save": False, "device": "cpu"}
        return isingflow.evaluate(warm, time_limit=limit, **options)

    def slow(self, monkeypatch, clock, seconds):
        """Chains that take these seconds, one after the other, and then none."""
        usual, left = chains_at._thinned, iter(seconds)

        def thinned(*parts):
            clock.now += next(left, 0.0)
            stopping.check()
            return usual(*parts)

        monkeypatch.setattr(chains_at, "_thinned", thinned)

    def test_chains_cut_short_are_marked(self, warm, clock, monkeypatch):
        self.slow(monkeypatch, clock, [1.0, 30.0])
        found = self.evaluated(warm)
        assert found.annealed_to.flow.report.paths.at_end.shortened
        assert "begins with are cut short by the time limit" in found.annealed_to.warnings[0]

    def test_no_chains_no_paths(self, warm, clock, monkeypatch):
        self.slow(monkeypatch, clock, [1e3])
        found = self.evaluated(warm)
        assert found.annealed_to is None
        assert "no paths to beta 0.4: the time limit left no room" in found.warnings
        assert found.as_dict()["shortened"]

    def test_annealing_alone_is_left_out_first(self, warm, clock, monkeypatch):
        self.slow(monkeypatch, clock, [0.0, 0.0, 0.0, 1e3])
        found = self.evaluated(warm)
        assert found.annealed_to.alone is None and found.as_dict()["annealed_to"]["alone"] is None
        assert "annealing alone" not in str(found).split("warning")[0]
        assert "no annealing alone beside it: the time limit left no room" in str(found)


def test_the_command_says_it_in_one_line(run, slow):
    slow[1]["begin"] = 1e3
    result = CliRunner().invoke(cli.main, ["evaluate", str(run.run.path), "--time-limit", "20", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if "no lower bound" in line)
    assert line == "  warning: no samples of the target, and so no lower bound: the time limit left no room"


def test_the_shares_leave_something_for_all():
    assert bridging.OF_CHAINS < 1 and reference.OF_CHAINS < 1 and warmer.DRAWING + warmer.CHAINS < 1
