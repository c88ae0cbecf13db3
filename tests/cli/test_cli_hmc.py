"""`isingflow hmc`: every sampler from the command line, resuming, signals, and what is refused."""

import json
import os
import signal
from itertools import count

import numpy as np
import pytest
from click.testing import CliRunner

from isingflow import cli
from isingflow.architectures.build import build_flow
from isingflow.evaluation.chains import chains_report
from isingflow.lattice import square
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runtime.files import ArrayWriter, read_arrays
from isingflow.sampling import BlockGibbs, Chains, sample_chains
from isingflow.sampling.physical import PhysicalHamiltonianMonteCarlo
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

KEYS = {"acceptance", "step_size", "r_hat", "seconds", "energy_per_site", "magnetisation_squared", "space", "chains"}
KEYS |= {"samples", "evaluations", "divergences", "diagnostics", "warnings", "certified", "output"}


def invoke(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def failure(*words):
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.strip().splitlines()
    return line.removeprefix("isingflow: error: ")


def make_run(path, steps=3):
    """The folder of a run whose training ended before it began."""
    config = RunConfig.from_preset("quick", square(4), 0.44, iterations=steps)
    folder = RunFolder.create(path, config)
    flow = build_flow(HubbardStratonovich(square(4), 0.44), config.flow, seed=steps)
    state = {"iteration": 0, "seconds": 0.0, "steps": 2, "finished": True, "integration_error_nats": 0.0}
    folder.save_checkpoint({f"flow.{name}": tensor for name, tensor in flow.state_dict().items()}, state)
    return str(path)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_run("run")


def hmc(run, space, samples, *words, chains=8):
    counts = ["--chains", chains, "--samples", samples]
    return ["hmc", run, "--space", space, *counts, "--output", "chains.npz", "--device", "cpu", *words]


@pytest.mark.parametrize("space", ["latent", "physical"])
def test_command(run, space):
    result = invoke(*hmc(run, space, 20, "--json", "--warm-up", 20))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.keys() >= KEYS
    for name in ("energy_per_site", "magnetisation_squared"):
        assert found[name].keys() == {"value", "stderr", "tau", "ess"}
        assert found[name]["ess"] == pytest.approx(8 * 20 / (2 * found[name]["tau"]))
        assert found["diagnostics"][name].keys() == {"r_hat", "ess_bulk", "ess_tail"}
    assert (found["space"], found["chains"], found["samples"]) == (space, 8, 20)
    arrays = read_arrays("chains.npz", ("field", "spins", "beta", "size", "lattice", "certified"))
    assert arrays["field"].shape == arrays["spins"].shape == (8, 20, 4, 4)
    assert (os.path.getsize(f"run/figures/hmc-{space}.png")) > 1000
    observables = invoke("observables", "chains.npz", "--json")
    assert observables.exit_code == 0, observables.output
    again = json.loads(observables.stdout)["energy_per_site"]["value"]
    assert again == pytest.approx(found["energy_per_site"]["value"], rel=1e-12)


def test_command_continues_bit_for_bit(run):
    assert invoke(*hmc(run, "latent", 12, "--warm-up", 4, "--every", 2)).exit_code == 0
    whole = read_arrays("chains.npz", ())
    os.remove("chains.npz")
    assert invoke(*hmc(run, "latent", 5, "--warm-up", 4, "--every", 2)).exit_code == 0
    result = invoke(*hmc(run, "latent", 12, "--warm-up", 4, "--every", 2, "--resume"))
    assert result.exit_code == 0 and "-1." in result.stdout and "exact" in result.stdout, result.output
    resumed = read_arrays("chains.npz", ())
    assert resumed.keys() == whole.keys()
    for name in whole.keys() - {"seconds"}:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)


def test_command_refuses(run):
    assert failure(*hmc(run, "latent", 0)).startswith("--samples 0: expected an integer from 1 to")
    assert failure(*hmc(run, "latent", 5, chains=-2)).startswith("--chains -2: expected an integer from 1 to")
    assert failure(*hmc(run, "outer", 5)) == "--space outer: expected latent or physical"
    assert failure(*hmc("nowhere", "latent", 5)) == "no run folder at nowhere"
    assert failure(*hmc(run, "latent", 5, "--resume")) == "chains.npz: there is no such file"
    assert "GB" in failure(*hmc(run, "latent", 10**7, chains=10**5))
    assert not os.path.exists("chains.npz")
    assert invoke(*hmc(run, "physical", 5, "--warm-up", 2)).exit_code == 0
    before = read_arrays("chains.npz", ())
    assert failure(*hmc(run, "latent", 9)).startswith("--output chains.npz: exists already")
    message = failure(*hmc(run, "latent", 9, "--resume", "--seed", 1, "--warm-up", 2))
    assert "belong to another run" in message
    assert "space: latent here, physical there" in message and "seed: 1 here, 0 there" in message
    message = failure(*hmc(make_run("other", steps=2), "physical", 9, "--resume", "--warm-up", 2))
    assert "run.training.iterations: 2 here, 3 there" in message and "flow: " in message
    assert all(np.array_equal(before[name], array) for name, array in read_arrays("chains.npz", ()).items())
    with open("chains.npz", "r+b") as file:
        file.truncate(1000)
    assert "not a readable .npz file" in failure(*hmc(run, "physical", 9, "--resume", "--warm-up", 2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_last_save_loses_nothing(run, number, monkeypatch):
    assemble = ArrayWriter._assemble

    def interrupted(writer):
        os.kill(os.getpid(), number)
        assemble(writer)

    monkeypatch.setattr(ArrayWriter, "_assemble", interrupted)
    result = invoke(*hmc(run, "physical", 9, "--warm-up", 2))
    assert result.exit_code == 128 + number and "saved; to continue: isingflow hmc run" in result.stderr, result.output
    assert Chains.read("chains.npz").samples == 9
    monkeypatch.setattr(ArrayWriter, "_assemble", assemble)
    assert invoke(*hmc(run, "physical", 9, "--warm-up", 2, "--resume")).exit_code == 0


def test_a_figure_that_cannot_be_written_loses_nothing(run):
    with open("run/figures", "w"):
        pass
    result = invoke(*hmc(run, "physical", 9, "--warm-up", 2, "--json"))
    assert result.exit_code == 0 and json.loads(result.stdout)["samples"] == 9
    assert "warning: no figure: cannot create" in result.stderr


def test_command_says_what_is_intact_when_the_disk_fills(run, monkeypatch):
    assert invoke(*hmc(run, "physical", 3, "--warm-up", 2)).exit_code == 0
    monkeypatch.setattr(ArrayWriter, "_assemble", lambda self: (_ for _ in ()).throw(OSError(28, "No space left")))
    message = failure(*hmc(run, "physical", 9, "--warm-up", 2, "--resume", "--quiet"))
    assert "No space left; what was saved before is intact, resuming goes on from there" in message
    assert Chains.read("chains.npz").samples == 3


def test_command_marks_what_is_not_certified(run):
    RunFolder.open(run).save_report({"certified": False})
    result = invoke(*hmc(run, "latent", 9, "--warm-up", 2))
    assert result.exit_code == 0
    assert all("integration not checked" in text for text in (result.stdout, result.stderr))
    assert not read_arrays("chains.npz", ())["certified"]


def test_command_saves_when_it_is_told_to_stop(run, monkeypatch):
    """In the fifth trajectory after the warm-up: what there is is saved, and going on changes nothing of it."""
    step, steps = PhysicalHamiltonianMonteCarlo.step, count(1)

    def interrupted(sampler, state, source):
        if next(steps) == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(sampler, state, source)

    monkeypatch.setattr(PhysicalHamiltonianMonteCarlo, "step", interrupted)
    result = invoke(*hmc(run, "physical", 10**5, "--warm-up", 10, chains=2))
    assert (result.exit_code, result.stdout) == (128 + signal.SIGTERM, ""), result.output
    counts = "--chains 2 --samples 100000 --output chains.npz --warm-up 10 --every 1"
    assert f"isingflow hmc run --sampler hmc --space physical {counts}" in result.stderr
    assert "--resume" in result.stderr
    chains = Chains.read("chains.npz")
    assert (chains.samples, chains.steps) == (5, 15)
    result = invoke(*hmc(run, "physical", 8, "--warm-up", 10, "--resume", chains=2))
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(Chains.read("chains.npz").field[:, :5], chains.field)


@pytest.mark.parametrize(("reverse", "warned"), [(0.01, True), (0.3, False), ("x", False)])
def test_chains_of_a_flow_that_misses_a_part_come_with_a_warning(run, reverse, warned):
    """As the last evaluation of the run has it: the chains themselves cannot know."""
    RunFolder.open(run).save_report({"effective_sample_size": 0.4, "reverse_effective_sample_size": reverse})
    result = invoke(*hmc(run, "latent", 4, "--json", "--warm-up", 4))
    assert result.exit_code == 0, result.output
    warnings = json.loads(result.stdout)["warnings"]
    assert [f"isingflow: warning: run: {warning}" for warning in warnings] == result.stderr.splitlines()
    assert any("the flow misses part of the target" in warning for warning in warnings) == warned


# --- other samplers


def chains_by(run, sampler, samples, *words):
    counts = ["--chains", 8, "--samples", samples, "--output", "chains.npz", "--device", "cpu"]
    return ["hmc", run, "--sampler", sampler, *counts, *words]


@pytest.mark.parametrize("sampler", ["metropolis", "gibbs"])
def test_other_samplers(run, sampler):
    result = invoke(*chains_by(run, sampler, 20, "--json", "--warm-up", 3))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.keys() >= KEYS
    assert (found["sampler"], found["space"], found["chains"], found["samples"]) == (sampler, None, 8, 20)
    assert found["step_size"] is found["guided"] is found["divergences"] is None
    assert (found["acceptance"] == 1) == (sampler == "gibbs")
    assert os.path.getsize(f"run/figures/hmc-{sampler}.png") > 1000
    again = json.loads(invoke("observables", "chains.npz", "--json").stdout)["energy_per_site"]["value"]
    assert again == pytest.approx(found["energy_per_site"]["value"], rel=1e-12)
    text = invoke(*chains_by(run, sampler, 20, "--warm-up", 3, "--resume")).stdout
    assert f"\n  {sampler}, acceptance" in text and "energy per site" in text


@pytest.mark.parametrize("sampler", ["metropolis", "gibbs"])
def test_other_samplers_continue_bit_for_bit(run, sampler):
    assert invoke(*chains_by(run, sampler, 12, "--warm-up", 4, "--every", 2)).exit_code == 0
    whole = read_arrays("chains.npz", ())
    os.remove("chains.npz")
    assert invoke(*chains_by(run, sampler, 5, "--warm-up", 4, "--every", 2)).exit_code == 0
    result = invoke(*chains_by(run, sampler, 12, "--warm-up", 4, "--every", 2, "--resume"))
    assert result.exit_code == 0, result.output
    resumed = read_arrays("chains.npz", ())
    assert resumed.keys() == whole.keys()
    for name in whole.keys() - {"seconds"}:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)
    other = {"metropolis": "gibbs", "gibbs": "metropolis"}[sampler]
    message = failure(*chains_by(run, other, 20, "--warm-up", 4, "--every", 2, "--resume"))
    assert f"sampler: {other} here, {sampler} there" in message


def test_other_samplers_stop_when_told_to(run, monkeypatch):
    """A signal in the middle: what there is is saved, and the command that goes on is printed."""
    step = BlockGibbs.step

    def interrupted(sampler, state, source):
        os.kill(os.getpid(), signal.SIGINT)
        return step(sampler, state, source)

    monkeypatch.setattr(BlockGibbs, "step", interrupted)
    result = invoke(*chains_by(run, "gibbs", 9, "--warm-up", 0))
    assert result.exit_code == 128 + signal.SIGINT, result.output
    assert "isingflow hmc run --sampler gibbs --chains 8 --samples 9 --output chains.npz" in result.stderr
    assert Chains.read("chains.npz").samples == 1


def test_spaces_go_with_trajectories_only(run):
    for sampler in ("gibbs", "metropolis"):
        message = failure(*chains_by(run, sampler, 5, "--space", "latent"))
        assert message == f"--space latent: does not go with the sampler {sampler}: leave it out"
    assert failure(*chains_by(run, "hmc", 5)) == "--space: expected latent or physical for the sampler hmc"
    assert failure(*chains_by(run, "nuts", 5)) == "--sampler nuts: expected hmc or metropolis or gibbs"
    assert not os.path.exists("chains.npz")


def test_a_notebook_can_do_all_of_it(run):
    """The same chains, numbers and figure as from the command line."""
    found = json.loads(invoke(*hmc(run, "latent", 9, "--warm-up", 4, "--json")).stdout)
    chains = sample_chains(run, space="latent", chains=8, samples=9, warm_up=4, device="cpu")
    np.testing.assert_array_equal(chains.field, Chains.read("chains.npz").field)
    report = chains_report(chains, run=RunFolder.open(run))
    same = {name: value for name, value in report.as_dict().items() if name != "seconds"}
    assert json.loads(json.dumps(same)) == {name: found[name] for name in same}
    assert report.draw(RunFolder.open(run)).name == "hmc-latent.png"
