"""Runs that go on: from before their first step, to what is missing at their end; never two at once."""

import json
import math

import pytest
import torch
from click.testing import CliRunner

import isingflow
from isingflow import cli
from isingflow.errors import RunFolderError, TrainingDiverged
from isingflow.evaluation import reports
from isingflow.lattice import square
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import is_certified, is_complete
from isingflow.training import Outcome, ending, train

QUICK = {"progress": False, "device": "cpu"}
TRAIN = ["train", "--size", "4", "--steps", "5", "--device", "cpu", "--quiet", "--output", "run"]
RESUME = ["train", "--resume", "--device", "cpu", "--quiet", "--output", "run"]

pytestmark = pytest.mark.usefixtures("small_reports", "empty_folder")


@pytest.fixture
def magnet():
    return isingflow.HubbardStratonovich(square(4), 0.4)


def invoke(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def failure(*words):
    result = invoke(*words)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert result.stderr.startswith("isingflow: error: ")
    return result.stderr


def losses(run):
    return [(line["iteration"], line["loss"]) for line in run.metrics()]


class TestFromTheStart:
    def test_a_run_can_be_resumed_before_its_first_step(self, magnet):
        seen = []

        def first(progress):
            state = RunFolder.open("run").load_checkpoint()[1]
            seen.append((state["iteration"], state["finished"]))
            raise KeyboardInterrupt  # not an Exception: nothing is saved

        with pytest.raises(KeyboardInterrupt):
            train(magnet, output="run", iterations=5, callbacks=[first], **QUICK)
        whole = train(magnet, output="whole", iterations=5, **QUICK)
        assert seen == [(0, False)] and len(RunFolder.open("run").metrics()) == 1
        assert losses(train(RunFolder.open("run"), **QUICK).run) == losses(whole.run)

    @pytest.mark.parametrize(
        "left", ['{"iteration": 1, "loss": 0.5}\n{"iteration": 2, "lo', "\x00\x00", '{"iteration": 1}']
    )
    def test_metrics_without_a_checkpoint_start_anew(self, left, magnet):
        whole = train(magnet, output="whole", iterations=4, **QUICK)
        run = RunFolder.create("run", whole.run.config)
        (run.path / "metrics.jsonl").write_text(left)
        assert losses(train(run, **QUICK).run) == losses(whole.run)

    def test_a_run_that_starts_from_another_begins_with_it_or_not_at_all(self, magnet, monkeypatch):
        source = train(magnet, output="source", iterations=4, **QUICK)

        def killed(run, *given):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(RunFolder, "save_checkpoint", killed)
            train(magnet, start=source, output="run", iterations=3, **QUICK)
        assert "began it again" in failure(*RESUME)
        again, whole = (train(magnet, start=source, output=name, iterations=3, **QUICK) for name in ("run", "whole"))
        assert losses(again.run) == losses(whole.run)


class TestOneAtATime:
    def test_a_run_in_training(self, magnet):
        refused = []

        def also(progress):
            with pytest.raises(RunFolderError, match="in use: another process trains it"):
                train(RunFolder.open("run"), **QUICK)
            refused.append(failure(*RESUME))
            assert isingflow.load("run").sample(2)[0].shape == (2, 4, 4)
            assert RunFolder.open("run").metrics()[-1]["iteration"] == progress.iteration

        done = train(magnet, output="run", iterations=3, callbacks=[also], **QUICK)
        assert len(refused) == 3 and [iteration for iteration, _ in losses(done.run)] == [1, 2, 3]

    @pytest.mark.parametrize("words", [["evaluate", "run", "--samples", 8], ["plot", "run", "--samples", 8]])
    def test_report_and_figures(self, words, magnet):
        run = train(magnet, output="run", iterations=2, **QUICK).run
        with run.results():
            assert "run is in use: another process makes its report or figures" in failure(*words)
        assert invoke(*words).exit_code == 0
        assert not list(run.path.glob(".*"))

    @pytest.mark.parametrize(
        "words",
        [
            ["sample", "run", "--samples", 8],
            ["hmc", "run", "--space", "latent", "--chains", 2, "--samples", 2, "--warm-up", 2],
            ["monte-carlo", "--size", 4, "--samples", 8],
        ],
        ids=lambda words: words[0],
    )
    def test_files(self, words, magnet, empty_folder):
        from isingflow.errors import FileError
        from isingflow.runtime.locks import locked

        train(magnet, output="run", iterations=2, **QUICK)
        with locked(empty_folder / ".a.npz.lock", FileError("")):
            assert "a.npz: in use: another process writes it" in failure(*words, "--output", "a.npz")
        assert invoke(*words, "--output", "a.npz").exit_code == 0
        assert {path.name for path in empty_folder.iterdir()} == {"run", "a.npz"}


class TestTheEnd:
    def test_a_finished_run_prints_what_it_printed_first(self):
        first, again = invoke(*TRAIN), invoke(*RESUME)
        table = first.stdout.splitlines()[:-1]
        assert len(table) > 5 and again.stdout.splitlines() == ["run is finished already; its report:", *table]
        assert json.loads(invoke(*RESUME, "--json").stdout).items() >= RunFolder.open("run").report().items()

    @pytest.mark.parametrize("where", ["evaluate", "draw_figures"])
    def test_what_was_cut_short_is_made_up_for(self, where, monkeypatch):
        def killed(*given, **options):
            raise RunFolderError("cut short")

        with monkeypatch.context() as patch:
            patch.setattr(reports, where, killed)
            assert "cut short" in invoke(*TRAIN).stderr
        run = RunFolder.open("run")
        assert run.load_checkpoint()[1]["finished"] and not is_complete(run)
        result = invoke(*RESUME)
        assert result.exit_code == 0 and "finished already" not in result.stdout
        assert is_complete(run) and (run.figures / "training.png").exists()

    def test_a_report_from_before_the_end_is_not_that_of_the_end(self, magnet):
        asked = iter(range(10))
        part = train(magnet, output="run", iterations=5, should_stop=lambda: next(asked) == 2, **QUICK)
        assert part.outcome is Outcome.INTERRUPTED
        isingflow.evaluate(part, samples=8, device="cpu")
        isingflow.plot(part, samples=8, device="cpu")
        before = part.run.report()
        train(part.run, **QUICK)
        assert not is_complete(part.run)
        assert invoke(*RESUME).exit_code == 0
        assert is_complete(part.run) and part.run.report()["samples"] > before["samples"]


class TestDivergence:
    @pytest.mark.parametrize(
        "rate", [pytest.param(1e4, marks=pytest.mark.slow), 1e6, pytest.param(1e9, marks=pytest.mark.slow)]
    )
    def test_a_flow_that_ends_far_out_is_not_certified(self, rate, magnet, caplog, recwarn, monkeypatch):
        """The first step goes too far, and it is the last: no loss tells."""
        monkeypatch.setattr(ending, "MAX_STEPS", 12)
        done = train(magnet, output="run", iterations=1, learning_rate=rate, **QUICK)
        state = done.run.load_checkpoint()[1]
        assert state["finished"] and state["integration_error_nats"] is None
        assert json.loads((done.path / "state.json").read_text())["integration_error_nats"] is None
        assert "diverged" in caplog.text and "nothing that it says can be trusted" in caplog.text
        assert not is_certified(done.run)
        for words in (["evaluate", "run", "--samples", 8], RESUME):
            message = failure(*words)
            assert "the flow cannot be evaluated: its training has diverged" in message
        assert not recwarn

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_an_error_that_is_no_number(self, value, magnet, monkeypatch):
        from isingflow.training.problems import Variational

        monkeypatch.setattr(Variational, "errors", lambda *given: [value])
        done = train(magnet, output="run", iterations=2, **QUICK)
        assert done.outcome is Outcome.FINISHED and not is_certified(done.run)
        assert done.run.load_checkpoint()[1]["integration_error_nats"] is None
        assert train(done.run, **QUICK).outcome is Outcome.FINISHED

    def test_a_loss_that_is_no_number_leaves_the_start(self, magnet):
        with pytest.raises(TrainingDiverged, match=r"the training has diverged: the loss became nan .* iteration 2"):
            train(magnet, output="run", iterations=3, learning_rate=1e9, **QUICK)
        field, log_prob = isingflow.load("run").sample(16)
        assert torch.isfinite(field).all() and torch.isfinite(log_prob).all()

    def test_parameters_that_are_no_numbers_are_never_saved(self, magnet, monkeypatch):
        monkeypatch.setattr(ending, "MAX_STEPS", 12)

        def spoil(parameters):
            parameters = list(parameters)

            class Spoiling(torch.optim.SGD):
                def step(self, closure=None):
                    with torch.no_grad():
                        parameters[0].fill_(math.nan)

            return Spoiling(parameters, lr=1e-3)

        with pytest.raises(TrainingDiverged, match="parameters of the flow"):
            train(magnet, output="run", iterations=1, optimiser=spoil, **QUICK)
        state = RunFolder.open("run").load_checkpoint()[1]
        assert (state["iteration"], state["finished"]) == (0, False)
        assert torch.isfinite(isingflow.load("run").sample(4)[0]).all()
