"""Flows on data, end to end: what is fitted, trained, evaluated, drawn and asked for on the command line."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from msgspec.structs import replace

import isingflow
from isingflow import cli, datasets
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.start import fitted_part
from isingflow.datasets.toy import TOYS
from isingflow.errors import InvalidInput, RunFolderError
from isingflow.evaluation.data import evaluate_density
from isingflow.flows.diagnostics import inverse_error
from isingflow.lattice import square
from isingflow.plots import data as density_plots
from isingflow.runs.config import DensityConfig, RunConfig, config_from_dict
from isingflow.runs.data_presets import DATA_PRESETS
from isingflow.runs.folder import RunFolder, open_magnet
from isingflow.runs.settings import TrainingConfig
from isingflow.training import train
from isingflow.training.objectives import negative_log_likelihood
from isingflow.training.problems import problem_of
from isingflow.training.progress import Outcome

CPU = torch.device("cpu")
KINDS = list(DATA_PRESETS["toys"])
every_kind = pytest.mark.parametrize("kind", KINDS)


def config(data="bimodal", kind="monge-ampere", *, seed=0, **training):
    made = DensityConfig.from_preset("quick", datasets.load(data), flow=kind, seed=seed, iterations=12)
    settings = {"batch": 64, "check_every": 5} | training
    return replace(made, training=replace(made.training, **settings))


def trained_run(path, made):
    run = RunFolder.create(path, made)
    data = datasets.load(made.data, path=made.path, seed=made.seed)
    assert train(run, device=CPU, data=data).outcome is Outcome.FINISHED
    return run, data


@every_kind
@pytest.mark.parametrize("preset", ["quick", "accurate"])
def test_configurations_survive_json(kind, preset):
    digits = datasets.load("tabular", path="digits", seed=3)
    made = DensityConfig.from_preset(preset, digits, path="digits", flow=kind, seed=3)
    assert (made.data, made.levels, made.image_width, made.start) == ("tabular", 17, 8, "copula")
    again = config_from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made and not made.differences(again)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dimension", 0),
        ("dimension", 2.0),
        ("levels", -1),
        ("image_width", None),
        ("data", 3),
        ("path", 3),
        ("start", None),
        ("seed", "0"),
        ("flow", {}),
    ],
)
def test_what_is_no_run_on_data_is_refused(name, value):
    with pytest.raises(InvalidInput):
        config_from_dict(config().to_dict() | {name: value})


def test_unknown_starts_flows_and_presets_are_refused():
    with pytest.raises(InvalidInput, match="expected one of copula, gaussian, tails, normal"):
        replace(config(), start="uniform")
    with pytest.raises(InvalidInput, match="needs images"):
        replace(config(), flow=FlowConfig(potential="image")).new_flow()
    with pytest.raises(InvalidInput, match="expected one of monge-ampere, ot"):
        config(kind="coupling")
    with pytest.raises(InvalidInput, match="expected one of quick"):
        DensityConfig.from_preset("slow", datasets.load("moons"))


@pytest.mark.parametrize("kind", ["monge-ampere", "ot"])
def test_a_new_flow_is_what_was_fitted(kind):
    """Before training, the likelihood is that of the best Gaussian: its closed form from mean and covariance."""
    data = datasets.load("moons")
    flow = config("moons", kind).new_flow(data)
    x = data.train.draw(2000, torch.Generator().manual_seed(1)).double()
    rows = torch.cat(list(data.train.batches(5000, torch.Generator().manual_seed(0)))).double()
    gaussian = torch.distributions.MultivariateNormal(rows.mean(0), torch.cov(rows.T, correction=0))
    expected = gaussian.log_prob(x)
    torch.testing.assert_close(fitted_part(flow).log_prob(x), expected, rtol=1e-6, atol=1e-5)
    assert abs((flow.log_prob(x.float()) - expected).mean().item()) < 0.2


def test_the_objective_is_minus_ln_p():
    data = datasets.load("bimodal")
    problem = problem_of(config(transport_cost=0.0), device=CPU, data=data)
    x = problem.batch(50, torch.Generator().manual_seed(0))
    problem.flow.eval()
    loss, values = problem.objective(x)
    torch.testing.assert_close(values, -problem.flow.log_prob(x).detach())
    assert loss.item() == pytest.approx(values.mean().item(), rel=1e-12)


def test_penalties_are_added():
    data = datasets.load("moons")
    problem = problem_of(config("moons", "ot"), device=CPU, data=data)
    x = problem.batch(20, torch.Generator().manual_seed(0))
    problem.flow.eval()
    plain, _ = negative_log_likelihood(problem.flow, x, TrainingConfig())
    _, _, cost = problem.flow.inverse_with_cost(x, hjb=True)
    loss, values = negative_log_likelihood(problem.flow, x, TrainingConfig(transport_cost=0.5, hjb=2.0))
    expected = plain + 0.5 * cost.transport.mean() + 2.0 * cost.hjb.mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert values.mean().item() == pytest.approx(plain.item(), rel=1e-9)


@every_kind
def test_training_approaches_the_entropy(tmp_path, kind):
    """Of a mixture of known density; its entropy is the least that any -ln p can have on average."""
    made = config(kind=kind, batch=256)
    made = replace(made, training=made.training.scaled(150))
    run, data = trained_run(tmp_path / "run", made)
    result = evaluate_density(run, data, device=CPU, samples=4000)
    rows = next(data.test.batches(4000, torch.Generator()))
    entropy = -TOYS["bimodal"].log_prob(rows.double()).mean().item()
    assert entropy - 3 * result.test.stderr < result.test.value < result.start.value
    assert result.test.value - entropy < 0.5 * (result.start.value - entropy)
    assert result.certified and result.inverse_error < 0.01
    assert result.bits_per_dimension is None


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "returns"), [("monge-ampere", math.inf), ("ot", 1e-4)])
def test_quick_presets_find_the_eight_gaussians(tmp_path, kind, returns):
    """Of the few tenths of a nat that the best Gaussian misses, under a fifth is left.

    Eight steps integrate and invert OT-Flow; of the Monge-Ampere flow, whose penalty is weaker, that is not asked.
    """
    data = datasets.load("eight-gaussians", seed=5)
    run, _ = trained_run(tmp_path / "run", DensityConfig.from_preset("quick", data, flow=kind, seed=5))
    result = evaluate_density(run, data, device=CPU)
    rows = torch.cat(list(data.test.batches(5000, torch.Generator()))).double()
    entropy = -TOYS["eight-gaussians"].log_prob(rows).mean().item()
    assert entropy - 3 * result.test.stderr < result.test.value
    assert result.test.value - entropy < 0.2 * (result.start.value - entropy)
    assert result.certified and (result.integration_steps <= 8 or math.isinf(returns))
    flow = isingflow.load(run.path)
    flow.transforms[0].steps = 8
    assert inverse_error(flow, flow.noise(500, torch.Generator().manual_seed(0))).value < returns


@every_kind
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, kind):
    whole, data = trained_run(tmp_path / "whole", config(kind=kind))
    parts = RunFolder.create(tmp_path / "parts", config(kind=kind))
    asked = iter(range(100))
    assert train(parts, device=CPU, data=data, should_stop=lambda: next(asked) == 6).outcome is Outcome.INTERRUPTED
    assert train(RunFolder.open(parts.path), device=CPU, data=data).outcome is Outcome.FINISHED
    expected, found = whole.load_checkpoint()[0], parts.load_checkpoint()[0]
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@every_kind
def test_a_loaded_flow_is_the_trained_one(tmp_path, kind):
    run, data = trained_run(tmp_path / "run", config("moons", kind))
    flow = isingflow.load(run.path)
    x, log_prob = flow.sample(20, generator=torch.Generator().manual_seed(0))
    assert x.shape == (20, 2) and log_prob.dtype == torch.float64
    torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=0, atol=0.05)
    result = evaluate_density(run, data, device=CPU, samples=300)
    rows = next(data.test.batches(250, torch.Generator().manual_seed(0)))
    assert abs(result.test.value + flow.log_prob(rows).mean().item()) < 0.5
    assert run.snapshots()[12].shape == (25, 2)


def test_metrics_hold_likelihoods(tmp_path):
    run, _ = trained_run(tmp_path / "run", config(transport_cost=0.0))
    line = run.metrics()[4]
    assert {"negative_log_likelihood", "validation_negative_log_likelihood", "integration_error_nats"} <= line.keys()
    assert line["negative_log_likelihood"] == pytest.approx(line["loss"])
    assert "validation_negative_log_likelihood" not in run.metrics()[0]


def test_stages_lead_from_data_to_noise(tmp_path):
    run, data = trained_run(tmp_path / "run", config("moons"))
    flow = isingflow.load(run.path)
    x = next(data.test.batches(30, torch.Generator()))
    stages = density_plots.gaussianised(flow, x, times=flow.transforms[0].steps)
    torch.testing.assert_close(stages[0], fitted_part(flow).inverse(x)[0])
    torch.testing.assert_close(stages[-1], flow.inverse(x)[0], rtol=1e-4, atol=1e-4)


# --- the command line


def invoke(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@every_kind
def test_density_command(folder, kind):
    result = invoke("density", "moons", "--flow", kind, "--steps", 4, "--output", "run", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["data"] == "moons" and document["dimension"] == 2 and document["outcome"] == "finished"
    assert set(document["negative_log_likelihood"]) == {"value", "stderr"}
    assert math.isfinite(document["negative_log_likelihood"]["value"])
    figures = {path.name for path in (folder / "run" / "figures").iterdir()}
    assert {"training.png", "samples.png"} <= figures
    again = invoke("density", "--resume", "--output", "run")
    assert again.exit_code == 0 and "finished already" in again.stdout
    evaluated = invoke("evaluate", "run", "--samples", 300, "--json")
    assert json.loads(evaluated.stdout)["samples"] == 300
    assert invoke("plot", "run", "--json").exit_code == 0
    sampled = invoke("sample", "run", "--samples", 40, "--output", "points.npz", "--json")
    assert sampled.exit_code == 0, sampled.output
    arrays = np.load(folder / "points.npz")
    assert arrays["samples"].shape == (40, 2) and arrays["log_prob"].shape == (40,)


def test_dependent_columns_leave_nothing_behind(folder):
    rows = np.random.default_rng(0).normal(size=(400, 2))
    np.save(folder / "table.npy", np.concatenate([rows, rows.sum(1, keepdims=True)], 1))
    result = invoke("density", "tabular", "table.npy", "--output", "run")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "table.npy: no Gaussian fits columns that follow from one another: 0, 1, 2; leave" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["table.npy"]


def test_a_standard_normal_start_has_nothing_fitted():
    flow = replace(config(), start="normal").new_flow(datasets.load("bimodal"))
    x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        fitted_part(flow).log_prob(x), torch.distributions.Normal(0, 1).log_prob(x.double())[:, 0]
    )


def test_large_hessians_have_stochastic_determinants():
    assert RunConfig.from_preset("quick", square(16), 0.4, flow="convex").flow.logdet == "exact"
    assert RunConfig.from_preset("quick", square(18), 0.4, flow="convex").flow.logdet == "lanczos"


def test_threads_share_a_batch_only_when_normalisations_have_started(tmp_path):
    """Each map of a new convex flow standardises its first batch, whichever thread would come first."""
    run = RunFolder.create(tmp_path / "run", config("moons", "convex"))
    data = datasets.load("moons")
    torch.set_num_threads(2)
    try:
        train(run, device=CPU, data=data)
    finally:
        torch.set_num_threads(1)
    again, _ = trained_run(tmp_path / "again", config("moons", "convex"))
    norms = [{k: v for k, v in r.load_checkpoint()[0].items() if "initialised" in k} for r in (run, again)]
    assert norms[0] and all(bool(v) for v in norms[0].values()) and norms[0].keys() == norms[1].keys()
    first = [r.metrics()[0]["loss"] for r in (run, again)]
    assert first[0] == pytest.approx(first[1], rel=1e-5)


def test_tables_on_the_command_line(folder):
    rows = np.random.default_rng(0).normal(size=(400, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0], [0.2, 0, 2.0]])
    np.save(folder / "table.npy", rows)
    result = invoke("density", "tabular", "table.npy", "--steps", 3, "--output", "run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["dimension"] == 3
    assert RunFolder.open("run").config.path == str(folder / "table.npy")
    assert invoke("density", "tabular", "table.npy", "--resume", "--output", "run").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["density"], "which data?"),
        (["density", "moon"], "unknown data set 'moon': expected one of mnist"),
        (["density", "moons", "--flow", "coupling"], "flow 'coupling': expected one of"),
        (["density", "moons", "--preset", "slow"], "preset 'slow': expected one of"),
        (["density", "moons", "--start", "copula"], "a copula of marginal histograms needs grey levels"),
        (["density", "moons", "--start", "uniform"], "--start uniform: expected gaussian or tails or copula or normal"),
        (["density", "tabular", "missing.npy"], "missing.npy"),
        (["density", "mnist", "--data", "nowhere"], "nowhere"),
        (["density", "--resume"], "--resume: which run?"),
        (["density", "moons", "--steps", "0"], "--steps 0"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(folder, words, message):
    result = invoke(*words)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not any(folder.iterdir())


def test_runs_of_the_other_kind_are_refused(folder):
    assert invoke("density", "bimodal", "--steps", 2, "--output", "run", "--json").exit_code == 0
    for words in (
        ["train", "--resume", "--output", "run"],
        ["hmc", "run", "--space", "latent", "--chains", "4", "--samples", "8", "--output", "x.npz"],
    ):
        result = invoke(*words)
        assert result.exit_code == 2 and "is a run on data" in result.stderr
    with pytest.raises(RunFolderError, match="is a run on data"):
        open_magnet("run")
    changed = invoke("density", "moons", "--resume", "--output", "run", "--seed", 4)
    assert changed.exit_code == 2 and "data: moons here, bimodal there; seed: 4 here, 0 there" in changed.stderr
