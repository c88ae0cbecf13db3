"""From a warmer flow: weights against exact answers, bounds from both sides, what runs keep, and what is refused."""

import importlib
import json
import logging
import math
from dataclasses import replace as replaced

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from msgspec.structs import replace

import isingflow
from isingflow import cli, exact
from isingflow.errors import InvalidInput
from isingflow.evaluation import warmer
from isingflow.evaluation.budget import Budget
from isingflow.evaluation.free_energies import SampleSet
from isingflow.evaluation.targets import _draw
from isingflow.evaluation.warmer import FEWEST, Column, anneal_to
from isingflow.lattice import CRITICAL_BETA, edwards_anderson, square, triangular
from isingflow.monte_carlo.equilibrium import CHAINS, Equilibrium
from isingflow.monte_carlo.paths import moves_for, prepare, run
from isingflow.runs.config import RunConfig, config_from_dict, heading
from isingflow.runs.folder import RunFolder
from isingflow.runs.warmer import planned, warmer_beta
from isingflow.runtime.parallel import Workers
from isingflow.statistics.free_energy import mean, variational_free_energy
from isingflow.targets import HubbardStratonovich
from isingflow.training.train import configured

MAGNETS = {
    "torus": (square(4), 0.25, 0.44, "swendsen-wang"),
    "open": (square(3, 4, boundary="open"), 0.3, 0.45, "swendsen-wang"),
    "antiferromagnet": (square(4), -0.2, -0.4, "swendsen-wang"),
    "field": (square(4).with_field(0.2), 0.25, 0.4, "swendsen-wang"),
    "glass": (edwards_anderson((3, 4), seed=1), 0.25, 0.6, "heat-bath"),
    "glass in a field": (edwards_anderson((3, 4), seed=2).with_field(0.2), 0.25, 0.5, "heat-bath"),
}
CONTRACT = {
    *("beta", "sweeps", "paths", "lower_bound", "upper_bound", "log_z", "gap_nats", "effective_sample_size", "r_hat"),
    *("seconds", "exact_log_z", "alone"),
}
ALONE = {"sweeps", "paths", "lower_bound", "upper_bound", "log_z", "gap_nats", "effective_sample_size", "seconds"}
QUICK = {"device": "cpu", "progress": False}
WORDS = ["train", "--size", "4", "--device", "cpu", "--output", "run", "--steps", "3", "--beta", "0.4"]


def walked(lattice, start, goal, *, paths=64, sweeps=20, seed=0, budget=None):
    """Annealed from an untrained flow, and the flow's samples that it began with."""
    target = HubbardStratonovich(lattice, start)
    flow, generator = RunConfig.from_preset("quick", lattice, start).new_flow(target).eval(), torch.Generator()
    samples = SampleSet.join(_draw(flow, target, paths, generator.manual_seed(seed), Workers(1)))
    options = {"generator": generator, "pool": Workers(1), "budget": budget or Budget(None)}

    def first(n):
        return SampleSet(
            *(values[:n] for values in (samples.spins, samples.field, samples.log_prob, samples.log_weight))
        )

    found = anneal_to(goal, flow, target, draw=first, sweeps=sweeps, paths=paths, seed=seed, **options)
    return found, samples, target


@pytest.fixture
def untrained(monkeypatch):
    """Configurations of commands that train, which leave it at making the run."""
    made = []

    def leave(ctx, run, **options):
        made.append(run.config)
        return {}

    monkeypatch.setattr(importlib.import_module("isingflow.cli.train"), "train_and_report", leave)
    return made


def invoke(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def failure(*words):
    result = invoke(*words)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    return result.stderr.removeprefix("isingflow: error: ")


class TestTheWeights:
    @pytest.mark.parametrize("name", MAGNETS)
    def test_their_mean_is_z_whatever_the_flow_and_the_steps(self, name):
        lattice, start, goal, moves = MAGNETS[name]
        found, _, target = walked(lattice, start, goal, paths=1200, sweeps=5, seed=3)
        report = found.flow.report
        assert report.moves == moves
        answer = exact.thermodynamics(lattice, goal).log_z
        forward, reverse = (weights[..., 0] + target.log_z_ising(0.0) - answer for weights in report.paths.by_chains)
        there, back = mean(np.exp(forward)), mean(np.exp(-reverse))
        assert abs(there.value - 1) < 3 * there.stderr < 0.4
        assert abs(back.value - 1) < 4 * back.stderr < 0.6
        assert report.lower_bound.value - 3 * report.lower_bound.stderr < answer
        assert answer < report.upper_bound.value + 3 * report.upper_bound.stderr
        assert abs(report.log_z.value - answer) < 4 * report.log_z.stderr < 0.2

    def test_without_a_way_to_go_they_are_those_of_the_flow(self):
        lattice, start = square(3, 4, boundary="open"), 0.3
        found, samples, target = walked(lattice, start, math.nextafter(start, 1), paths=800, sweeps=3)
        report = found.flow.report
        assert report.paths.forward[:, 0] == pytest.approx(samples.log_weight, abs=1e-9)
        bound = target.log_z_ising(variational_free_energy(samples.log_weight))
        assert report.lower_bound.value == pytest.approx(bound.value)
        assert report.lower_bound.stderr == pytest.approx(bound.stderr)
        spins = exact.thermodynamics(lattice, start).log_z
        assert report.exact_log_z == pytest.approx(spins)
        assert target.exact_free_energy()[0] == pytest.approx(target.free_energy(spins))

    def test_more_sweeps_narrow_both_bounds(self):
        lattice, start, goal, _ = MAGNETS["torus"]
        few, many = (walked(lattice, start, goal, paths=400, sweeps=n, seed=1)[0].flow.report for n in (1, 60))
        assert many.bounds_apart + 0.3 < few.bounds_apart

    def test_the_same_seed_gives_the_same_numbers(self):
        lattice, start, goal, _ = MAGNETS["torus"]
        one, two, other = (walked(lattice, start, goal, seed=seed)[0].flow.report.paths for seed in (0, 0, 1))
        assert np.array_equal(one.forward, two.forward)
        assert np.array_equal(one.reverse, two.reverse)
        assert not np.intersect1d(one.forward, other.forward).size

    def test_annealing_alone_is_that_of_the_package(self):
        lattice, start, goal, _ = MAGNETS["torus"]
        alone = walked(lattice, start, goal, seed=5)[0].alone.report
        again = isingflow.anneal(lattice, goal, paths=64, sweeps=alone.paths.sweeps, seed=4)
        assert alone.rows == again.rows

    def test_annealing_alone_gets_the_processor_time_of_flow_and_paths(self, monkeypatch):
        """By a clock on which samples take 3 seconds, sweeps 2 and the way back through the flow 5."""
        seconds = iter([3.0, 2.0, 5.0, 9.0])
        monkeypatch.setattr(warmer, "_timed", lambda work, device=None: (work(), next(seconds)))
        found = walked(square(4), 0.25, 0.4, sweeps=20)[0]
        assert (found.flow.report.paths.sweeps, found.alone.report.paths.sweeps) == (20, 20 * (3 + 2 + 5) // 2)
        assert (found.flow.processor_seconds, found.alone.processor_seconds) == (10.0, 9.0)

    def test_fewer_paths_where_there_is_no_time(self, monkeypatch):
        """Chains, whose time is looked after elsewhere (test_time_limits), take none."""
        monkeypatch.setattr(warmer, "prepare", lambda *parts, seconds, **options: prepare(*parts, **options))
        monkeypatch.setattr(warmer.stopping, "within", lambda seconds, work, *rest: work(*rest))
        found = walked(square(4), 0.25, 0.4, paths=400, budget=Budget(1e-9))[0]
        assert found.paths == FEWEST
        assert found.flow.report.paths.reverse.shape == (CHAINS, 1)
        assert len(found.alone.report.paths.forward) == FEWEST


class TestPathsFromGivenStates:
    def found(self, given, paths=40):
        lattice = square(4).with_field(0.3)
        moves, _ = moves_for(lattice, 0.2, 0.4)
        options = {"start": 0.2, "paths": paths, "sweeps": 4, "moves": moves, "seed": 0, "threads": 1}
        return prepare(lattice, np.array([0.4]), given=given, **options)

    def test_they_begin_there(self):
        """The first step from aligned spins has their energy, -32 of the bonds and -16 x 0.3 of the field."""
        found = self.found(np.ones((40, 16), np.int8))
        run(replaced(found, betas=np.array([0.2, 0.4]), marks=np.array([1])), threads=1)
        assert found.forward[:, 0] == pytest.approx(0.2 * (32 + 4.8))

    def test_the_ends_are_kept(self):
        found = self.found(np.ones((40, 16), np.int8))
        run(found, threads=2)
        assert found.ends.shape == (48, 16)
        assert set(np.unique(found.ends)) == {-1, 1}
        assert len(np.unique(found.ends, axis=0)) > 30

    def test_the_first_of_them(self):
        found = self.found(np.ones((40, 16), np.int8)).first(20)
        run(found, threads=1)
        whole = self.found(np.ones((40, 16), np.int8))
        run(whole, threads=1)
        assert (len(found.forward), len(found.reverse)) == (20, 32)
        assert np.array_equal(found.forward, whole.forward[:20])
        assert np.isfinite(found.reverse).all()
        assert found.by_chains[1].shape == (16, 2, 1)


@pytest.mark.usefixtures("small_reports", "empty_folder")
class TestRuns:
    def test_train_and_evaluate(self):
        magnet = HubbardStratonovich(square(4), 0.44)
        trained = isingflow.train(magnet, from_beta=0.3, iterations=10, output="run", **QUICK)
        assert (trained.target.beta, trained.run.config.beta, trained.run.config.goal) == (0.3, 0.3, 0.44)
        found = isingflow.evaluate("run", samples=256, anneal=20, paths=96, device="cpu")
        document = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        there = document["annealed_to"]
        assert there.keys() >= CONTRACT
        assert there["alone"].keys() >= ALONE
        assert (there["beta"], there["sweeps"], there["paths"]) == (0.44, 20, 96)
        answer = exact.thermodynamics(square(4), 0.44).log_z
        assert there["exact_log_z"] == pytest.approx(answer)
        for column in (there, there["alone"]):
            assert column["gap_nats"]["value"] == pytest.approx(answer - column["lower_bound"]["value"])
            assert abs(column["log_z"]["value"] - answer) < 4 * column["log_z"]["stderr"]
        assert document["beta"] == 0.3
        assert found.exact == pytest.approx(magnet.at(beta=0.3).exact_free_energy()[0])
        assert "annealed" not in document
        assert document["verdict"].startswith("at beta 0.44: ln Z by acceptance ratio can be trusted to 0.")
        assert ". At beta 0.3, of the flow: " in document["verdict"]
        again = isingflow.evaluate("run", samples=256, anneal=20, paths=96, device="cpu").as_dict()["annealed_to"]
        varying = {"alone", "seconds", "processor_seconds"}
        assert [there[name] for name in there if name not in varying] == [
            again[name] for name in there if name not in varying
        ]

    def test_the_table_has_three_columns(self):
        assert invoke(*WORDS, "--from-beta", 0.3).exit_code == 0
        result = invoke("evaluate", "run", "--samples", 64, "--device", "cpu")
        lines = result.stdout.splitlines()
        assert "trained at beta = 0.300000, T = 3.33333, for beta = 0.400000" in lines[0]
        (place,) = (i for i, line in enumerate(lines) if line.startswith("  Ising spins at beta = 0.4"))
        assert "flow alone, 0.3" in lines[place] and "flow + annealing" in lines[place]
        assert lines[place].endswith("annealing alone")
        names = ["lower bound", "ln Z", "upper bound", "gap of the bound", "effective sample size", "paths x sweeps"]
        names += ["processor seconds", "training, seconds", "exact (Kaufman)"]
        assert [line.strip()[: len(name)] for line, name in zip(lines[place + 1 :], names, strict=False)] == names
        assert lines[-1].startswith("  verdict: at beta 0.4: ")

    def test_the_folder_keeps_the_goal_and_old_ones_have_none(self):
        config = RunConfig.from_preset("quick", square(4), 0.3, goal=0.44)
        RunFolder.create("run", config)
        assert RunFolder.open("run").config == config
        assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config
        old = replace(config, goal=None).to_dict()
        assert old.pop("goal") is None
        assert config_from_dict(old) == replace(config, goal=None)
        assert heading(replace(config, goal=None)).startswith("2D Ising, periodic 4x4, beta = 0.300000, T = 3.33333; ")

    def test_a_training_goes_on_as_if_it_had_not_been_cut_short(self):
        magnet, seen = HubbardStratonovich(square(4), 0.44), []
        options = {"from_beta": 0.3, "iterations": 6, **QUICK}
        isingflow.train(magnet, output="run", should_stop=lambda: len(seen) == 3 or seen.append(1), **options)
        resumed = isingflow.train(RunFolder.open("run"), **QUICK)
        whole = isingflow.train(magnet, output="whole", **options)
        losses = [[line["loss"] for line in one.run.metrics()] for one in (resumed, whole)]
        assert losses[0] == losses[1] and len(losses[0]) == 6
        assert resumed.run.config == whole.run.config

    def test_commands_that_resume_and_start_know_the_goal(self, untrained):
        assert invoke(*WORDS, "--from-beta", 0.3).exit_code == 0
        resume = ["train", "--resume", "--output", "run"]
        for words in ([], ["--beta", 0.4], ["--from-beta", 0.3], ["--beta", 0.4, "--preset", "quick", "--steps", 3]):
            assert invoke(*resume, *words).exit_code == 0
        assert "beta: 0.2 here, 0.3 there" in failure(*resume, "--from-beta", 0.2)
        assert "goal: 0.5 here, 0.4 there" in failure(*resume, "--beta", 0.5)
        start = ["train", "--from", "run", "--steps", "1", "--device", "cpu", "--quiet"]
        for name, words, expected in (
            ("same", [], (0.3, 0.4)),
            ("other", ["--beta", 0.35], (0.35, None)),
            ("both", ["--beta", 0.5, "--from-beta", 0.35], (0.35, 0.5)),
            ("off", ["--from-beta", 0.4], (0.4, None)),
        ):
            assert invoke(*start, *words, "--output", name).exit_code == 0
            assert (untrained[-1].beta, untrained[-1].goal) == expected

    def test_a_start_at_the_goal_is_none(self, untrained):
        assert invoke(*WORDS, "--from-beta", 0.4).exit_code == 0
        assert (untrained[-1].beta, untrained[-1].goal) == (0.4, None)

    @pytest.mark.parametrize("start", [0.5, -0.3, 0.0])
    def test_a_start_that_is_not_on_the_way(self, start, empty_folder):
        told = (
            f"a flow trained at beta {start:g} to be annealed to the goal 0.4: expected to train at a beta of the same"
        )
        assert failure(*WORDS, "--from-beta", start).startswith(told)
        with pytest.raises(InvalidInput, match="nearer to 0"):
            RunConfig.from_preset("quick", square(4), start, goal=0.4)
        assert list(empty_folder.iterdir()) == []

    def test_what_has_no_goal(self):
        with pytest.raises(InvalidInput, match="from_beta is of magnets"):
            isingflow.train(isingflow.datasets.load("moons"), from_beta=0.3, **QUICK)
        with pytest.raises(InvalidInput, match="from_beta is nan, expected"):
            isingflow.train(HubbardStratonovich(square(4), 0.4), from_beta=math.nan, **QUICK)
        folder = RunFolder.create("run", RunConfig.from_preset("quick", square(4), 0.3))
        with pytest.raises(InvalidInput, match="from_beta is for a new run"):
            isingflow.train(folder, from_beta=0.3, **QUICK)


class TestPlans:
    def test_large_critical_tori_are_planned_so(self, caplog):
        caplog.set_level(logging.INFO, "isingflow")
        magnet = HubbardStratonovich(square(128), CRITICAL_BETA)
        config = configured(magnet, preset="accurate")
        assert (config.beta, config.goal) == (0.4, CRITICAL_BETA)
        assert config.coarse.goal == CRITICAL_BETA
        (line,) = caplog.messages
        assert line.startswith(
            "periodic 128x128: trained at beta = 0.4, from where evaluations anneal spins to 0.440687"
        )
        off = configured(magnet, preset="accurate", from_beta=CRITICAL_BETA)
        assert (off.beta, off.goal) == (CRITICAL_BETA, None)
        assert configured(magnet, preset="accurate", from_beta=0.38).beta == 0.38

    @pytest.mark.parametrize(
        ("lattice", "beta", "preset"),
        [
            (square(64, 128), 0.44, "accurate"),
            (square(128), 0.44, "quick"),
            (square(128), 0.4, "accurate"),
            (square(128), -0.44, "accurate"),
            (square(128, jx=-1.0, jy=-1.0), 0.44, "accurate"),
            (square(128, boundary="open"), 0.44, "accurate"),
            (square(128).with_field(0.1), 0.44, "accurate"),
            (edwards_anderson(128, seed=0), 1.0, "accurate"),
        ],
    )
    def test_others_are_not(self, lattice, beta, preset):
        assert planned(lattice, beta, preset) is None

    def test_where_it_begins(self):
        assert warmer_beta(square(8, jy=0.5)) == pytest.approx(0.9077 * 0.609378, abs=1e-4)
        assert planned(triangular(128), 0.2747, "accurate") == warmer_beta(triangular(6)) == 0.2493


class TestWhatCannotBeTrusted:
    def test_chains_that_disagree(self):
        found = walked(square(4), 0.25, 0.4)[0]
        report = found.flow.report
        chains = Equilibrium(report.paths.at_end.states, 1.3, "wolff")
        bad = replaced(found, flow=Column(replaced(report, paths=replaced(report.paths, at_end=chains)), 1.0))
        assert bad.verdict(0.0).startswith("the lower bound can be trusted, the upper one cannot")
        assert "at beta 0.4: the chains (wolff) that the bound from above begins with" in bad.warnings[0]

    def test_directions_that_do_not_overlap_or_estimates_that_are_off(self):
        found = walked(square(4), 0.25, 0.4)[0]
        report = found.flow.report
        for change, told in (
            ({"overlap": 3.0}, "3 paths of both directions overlap"),
            ({"log_z": report.log_z + 5.0}, "nats from the exact answer"),
        ):
            rows = (replaced(report.end, **change),)
            bad = replaced(found, flow=Column(replaced(report, rows=rows), 1.0))
            assert told in bad.verdict(0.0)
        assert found.verdict(0.5).startswith("ln Z by acceptance ratio can be trusted to 0.5 nats")
