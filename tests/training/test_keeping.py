"""Weights that are best on data held back, trainings that end early, and limits of time that hold."""

import os
import signal
from dataclasses import replace as changed

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from isingflow import datasets
from isingflow.architectures.start import best_start, check_start, fitted_part
from isingflow.errors import DatasetError, InvalidInput
from isingflow.evaluation.reports import evaluate
from isingflow.flows.mass import Defect
from isingflow.lattice import square
from isingflow.runs.config import DensityConfig, RunConfig
from isingflow.runs.data_presets import DATA_PRESETS, FEW_ROWS, suited
from isingflow.runs.folder import RunFolder
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.stopping import StopRequest
from isingflow.training import Outcome, foresight, train
from isingflow.training.foresight import foresee
from isingflow.training.keeping import Kept, rest
from isingflow.training.likelihood import Likelihood
from isingflow.training.problems import problem_of

QUICK = {"device": "cpu", "progress": False}
CPU = torch.device("cpu")
KINDS = list(DATA_PRESETS["tables"])


@pytest.fixture(scope="module")
def wine():
    return datasets.load("tabular", path="wine", seed=3)


def config(data, kind="monge-ampere", *, iterations=6, **training):
    made = DensityConfig.from_preset("quick", data, path="wine", flow=kind, seed=3, iterations=iterations)
    return replace(made, training=replace(made.training, **{"batch": 32, "check_every": 2} | training))


def state_of(run):
    return run.load_checkpoint()[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["moons", "wine", "digits"])
def test_at_rest_every_kind_of_flow_is_its_start(name, kind):
    path = None if name == "moons" else name
    data = datasets.load("moons" if path is None else "tabular", path=path)
    flow = DensityConfig.from_preset("quick", data, path=path, flow=kind).new_flow(data)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    x = data.train.draw(40, torch.Generator().manual_seed(0))
    start = fitted_part(flow).log_prob(x)
    assert (flow.eval().log_prob(x) - start).abs().max() > 1e-3
    rest(flow)
    torch.testing.assert_close(flow.log_prob(x), start, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", ["monge-ampere", pytest.param("ot", marks=pytest.mark.slow), "convex"])
def test_a_training_that_only_harms_ends_at_its_start(tmp_path, wine, kind):
    """At an absurd rate every step makes things worse."""
    made = config(wine, kind, learning_rate=0.3, schedule="constant", iterations=4)
    run = RunFolder.create(tmp_path / "run", made)
    found = evaluate(train(run, data=wine, **QUICK))
    assert state_of(run)["resting"] and found.kept_iteration == 0
    assert "the flow is its start" in found.table()
    for part in ("train", "validation", "test"):
        assert getattr(found, part).value == pytest.approx(found.starts[part].value, abs=1e-4)


def test_the_best_weights_are_kept_and_reported(tmp_path, wine):
    """They are those of the lowest validation loss in the metrics, whatever comes after."""
    made = config(wine, "ot", learning_rate=0.015, schedule="constant", iterations=60, check_every=4, noise=0.0)
    run = RunFolder.create(tmp_path / "run", made)
    trained = train(run, data=wine, **QUICK)
    scores = {
        line["iteration"]: line["validation_negative_log_likelihood"] + line["integration_error_nats"]
        for line in run.metrics()
        if "validation_negative_log_likelihood" in line
    }
    best = min(scores, key=lambda iteration: scores[iteration])
    found = evaluate(trained)
    assert best < max(scores), "the training does not overfit: the test shows nothing"
    assert found.kept_iteration == best == found.as_dict()["kept_iteration"]
    assert found.validation.value == pytest.approx(scores[best], abs=1e-2)
    assert found.validation.value <= found.starts["validation"].value


def test_a_resumed_training_keeps_the_same_weights_bit_for_bit(tmp_path, wine):
    made = config(wine, "ot", iterations=12, learning_rate=0.05)
    whole = train(RunFolder.create(tmp_path / "whole", made), data=wine, **QUICK)
    run = RunFolder.create(tmp_path / "parts", made)
    for stop in (3, 5, 8):
        train(run, data=wine, should_stop=lambda: len(run.metrics()) >= stop, **QUICK)  # noqa: B023
        assert not state_of(run)["finished"]
    train(run, data=wine, **QUICK)
    tensors, others = whole.run.load_checkpoint()[0], run.load_checkpoint()[0]
    assert tensors.keys() == others.keys() and any(name.startswith("best.") for name in tensors)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


def test_a_training_ends_when_its_patience_does(tmp_path, wine):
    made = config(wine, learning_rate=0.3, schedule="constant", iterations=400, patience=2)
    run = RunFolder.create(tmp_path / "run", made)
    assert train(run, data=wine, **QUICK).outcome is Outcome.PLATEAU
    state = state_of(run)
    assert state["finished"] and state["iteration"] == state["kept"]["iteration"] + 4
    assert train(run, data=wine, **QUICK).outcome is Outcome.PLATEAU and len(run.metrics()) == state["iteration"]


def test_only_better_weights_are_taken():
    kept = Kept()
    flow = torch.nn.Linear(1, 1)
    assert kept.offer(flow, 1, 2.0) and not kept.offer(flow, 2, 2.0) and not kept.offer(flow, 3, float("nan"))
    assert kept.iteration == 1 and Kept.unpacked(kept.packed(), kept.state).score == 2.0
    assert Kept().state is None and Kept.unpacked({}, None) == Kept()


def test_noise_keeps_mean_and_covariance_in_whitened_coordinates(wine):
    """And takes the place of what the rows say: of their values a part sqrt(1 - noise^2) is left."""
    problem = problem_of(config(wine, noise=0.6), device=CPU, data=wine)
    plain = problem_of(config(wine, noise=0.0), device=CPU, data=wine)
    x = plain.batch(20_000, torch.Generator().manual_seed(0))
    blurred = problem.batch(20_000, torch.Generator().manual_seed(0))
    z, other = problem.start.inverse(x)[0], problem.start.inverse(blurred)[0]
    torch.testing.assert_close(torch.cov(other.T), torch.cov(z.T), rtol=0.05, atol=0.05)
    slope = (z * other).mean(0) / z.square().mean(0)
    torch.testing.assert_close(slope, torch.full_like(slope, 0.8), rtol=0.05, atol=0)
    assert problem.errors(64, torch.Generator().manual_seed(1), _alone())[0] < 1


def _alone():
    from isingflow.runtime.parallel import Workers

    return Workers(1)


def test_settings_of_data_mean_nothing_to_magnets():
    with pytest.raises(InvalidInput, match=r"training.noise is 0.3, but a run on an? .* has no use for it"):
        RunConfig(square(4), 0.4, "mine", training=TrainingConfig(noise=0.3))
    few = DATA_PRESETS["tables"]["ot"]["quick"].training
    assert suited(few, FEW_ROWS - 1).noise > 0 and suited(few, FEW_ROWS).noise == suited(few, FEW_ROWS).patience == 0


def test_the_start_is_what_validation_data_like_better(wine):
    rng = np.random.default_rng(0)
    assert best_start(wine) == "tails" and best_start(datasets.load("moons")) == "gaussian"
    assert best_start(datasets.load("tabular", path="digits")) == "copula"
    assert best_start(_table(rng.normal(size=(2000, 3)))) in ("gaussian", "tails")
    skewed = _table(np.exp(rng.normal(size=(2000, 3))))
    assert best_start(skewed) == "tails"
    with pytest.raises(InvalidInput, match=r"20 training rows of 30 columns: .* needs more rows than columns"):
        check_start(_table(rng.normal(size=(24, 30))), "gaussian")


def _table(rows):
    from isingflow.datasets.tabular import _dataset
    from isingflow.datasets.uci import shuffled

    return _dataset("a table", shuffled(rows, "a table", 0), "a table")


def test_every_part_has_rows():
    from isingflow.datasets.tabular import _dataset

    rows = np.random.default_rng(0).normal(size=(40, 3))
    parts = [(rows, np.arange(30)), (rows, np.arange(0)), (rows, np.arange(30, 40))]
    with pytest.raises(DatasetError, match="here: 0 rows for validation; expected at least 2"):
        _dataset("rows", tuple(parts), "here")
    assert [len(part) for part in (_table(rows[:10]).train, _table(rows[:10]).validation)] == [6, 2]


def test_all_errors_are_in_the_verdict(tmp_path, wine):
    found = evaluate(train(RunFolder.create(tmp_path / "run", config(wine)), data=wine, **QUICK))
    assert found.certified and found.as_dict()["mass"] is None
    tolerance = found.tolerance
    for defect, what in (
        (Defect(1 + 2 * tolerance, 0.0, 0.0), "total mass"),
        (Defect(1 - 2 * tolerance, 0.0, 0.0), "total mass"),
        (Defect(1.0, 2 * tolerance / 13, 0.0), "inverse error"),
        (Defect(None, float("inf"), 0.0), "inverse error"),
    ):
        bad = changed(found, defect=defect)
        assert not bad.certified and f"CHECK FAILED: {what} above its tolerance" in bad.table()
        assert bad.as_dict()["certified"] is False
    assert changed(found, defect=Defect(1 + tolerance / 2, tolerance / 26, 0.0)).certified


def test_an_evaluation_without_time_takes_fewer_samples_and_says_so(tmp_path, wine):
    magnet = RunConfig.from_preset("quick", square(4), 0.4, iterations=2)
    magnet = replace(magnet, training=replace(magnet.training, evaluation_samples=512))
    for name, made, data, text in (
        ("magnet", magnet, None, "fewer samples than asked for"),
        ("data", config(wine, iterations=2), wine, "fewer samples than there are"),
    ):
        trained = train(RunFolder.create(tmp_path / name, made), data=data, **QUICK)
        short, usual = evaluate(trained, time_limit=1e-3, save=False), evaluate(trained, time_limit=1e4, save=False)
        assert short.as_dict()["shortened"] and text in short.table()
        assert short.as_dict()["samples"] < usual.as_dict()["samples"] and not usual.as_dict()["shortened"]


def test_an_iteration_that_cannot_fit_is_refused_with_its_cost(monkeypatch, tmp_path):
    made = RunConfig.from_preset("paper", square(16), 0.4)
    problem = problem_of(made, device=CPU)
    monkeypatch.setattr(foresight, "_remembered", lambda problem, pool, samples: (0, 1.0 + 2.0 * samples))
    with pytest.raises(InvalidInput, match=r"one iteration takes about .* minutes on this machine, and there are 60 "):
        foresee(problem, time_limit=60.0)
    assert foresee(problem, time_limit=1e4).iteration == pytest.approx(1.0 + 2.0 * made.training.batch)


@pytest.mark.parametrize("at", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_signal_is_heard_within_an_iteration_and_nothing_of_it_remains(tmp_path, wine, monkeypatch, at):
    """While the loss, its gradient or a check is computed; what goes on equals what was never interrupted."""
    made = config(wine, "ot", iterations=6)
    whole = train(RunFolder.create(tmp_path / "whole", made), data=wine, **QUICK)
    run = RunFolder.create(tmp_path / "run", made)
    calls = []

    original = Likelihood.objective

    def interrupting(self, batch):
        calls.append(len(calls))
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    with monkeypatch.context() as patched, StopRequest().listening():
        patched.setattr(Likelihood, "objective", interrupting)
        assert train(run, data=wine, **QUICK).outcome is Outcome.INTERRUPTED
    assert len(run.metrics()) == at - 1 == state_of(run)["iteration"]
    again = train(run, data=wine, **QUICK)
    assert again.outcome is Outcome.FINISHED
    for (name, tensor), other in zip(whole.flow.state_dict().items(), again.flow.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_a_signal_in_the_last_check_undoes_its_iteration(tmp_path, wine, monkeypatch):
    made = config(wine, "ot", iterations=4)
    whole = train(RunFolder.create(tmp_path / "whole", made), data=wine, **QUICK)
    run = RunFolder.create(tmp_path / "run", made)

    original = Likelihood.errors

    def interrupting(self, n, generator, pool):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, n, generator, pool)

    with monkeypatch.context() as patched, StopRequest().listening():
        patched.setattr(Likelihood, "errors", interrupting)
        assert train(run, data=wine, **QUICK).outcome is Outcome.INTERRUPTED
    assert len(run.metrics()) == 1 == state_of(run)["iteration"]
    again = train(run, data=wine, **QUICK)
    for (name, tensor), other in zip(whole.flow.state_dict().items(), again.flow.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
