"""Chains in arviz: the same numbers there as here, in memory and through netCDF."""

import json
import os
import sys
import warnings
from itertools import count

import networkx
import numpy as np
import pytest
import torch
import xarray
from click.testing import CliRunner

from isingflow import cli
from isingflow.architectures.build import build_flow
from isingflow.errors import FileError, InvalidInput
from isingflow.evaluation.chains import chains_report
from isingflow.exact import thermodynamics
from isingflow.lattice import from_graph, square
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runtime import stopping
from isingflow.sampling import Chains, sample_chains
from isingflow.sampling.inference_data import require_arviz, write_netcdf
from isingflow.targets import HubbardStratonovich, Target

arviz = require_arviz()


class Wells(Target):
    shape = (2, 3, 2)

    def energy(self, field):
        return (field**2 - 1).square().sum((-3, -2, -1))


def named():
    graph = networkx.relabel_nodes(networkx.cycle_graph(5), dict(enumerate("edcba")))
    return from_graph(graph)


CASES = {
    "torus": (HubbardStratonovich(square(4, 3), 0.3), {"sampler": "gibbs"}, ("x", "y")),
    "trajectories": (HubbardStratonovich(square(4), 0.3), {"space": "physical", "every": 2}, ("x", "y")),
    "graph": (HubbardStratonovich(named(), 0.4), {"sampler": "gibbs"}, ("site",)),
    "any": (Wells(), {"space": "physical"}, ("axis_0", "axis_1", "axis_2")),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """Chains, what they follow, and the names of their sites' dimensions."""
    target, options, names = CASES[request.param]
    return sample_chains(None, target, chains=4, samples=60, warm_up=20, seed=3, **options), target, names


@pytest.mark.parametrize("way", ["memory", "netCDF"])
def test_arviz_finds_what_we_find(case, way, tmp_path):
    chains, target, names = case
    data = chains.to_arviz(target)
    if way == "netCDF":
        write_netcdf(chains, tmp_path / "chains.nc", target)
        data = arviz.from_netcdf(tmp_path / "chains.nc")
        assert os.listdir(tmp_path) == ["chains.nc"]
    posterior, stats = data.posterior, data.sample_stats
    np.testing.assert_array_equal(posterior["field"], chains.field)
    assert posterior["field"].dims == ("chain", "draw", *names)
    if chains.spins is not None:
        np.testing.assert_array_equal(posterior["spins"], chains.spins)
    report = chains_report(chains, target=target)
    summary = arviz.summary(data, var_names=list(report.mixing), round_to="none")
    for name, mixing in report.mixing.items():
        np.testing.assert_array_equal(posterior[name], report.series[name])
        assert summary.loc[name, "mean"] == pytest.approx(mixing.mean.value, rel=1e-12)
        assert summary.loc[name, "r_hat"] == pytest.approx(mixing.r_hat, rel=1e-9)
        assert summary.loc[name, "ess_bulk"] == pytest.approx(mixing.ess_bulk, rel=1e-9)
        assert summary.loc[name, "ess_tail"] == pytest.approx(mixing.ess_tail, rel=1e-9)
    assert float(stats["acceptance_rate"].mean()) == pytest.approx(chains.acceptance.mean())
    assert stats["acceptance_rate"].shape == (4, 60)
    np.testing.assert_allclose(stats["lp"], -target.energy(torch.from_numpy(chains.field).double()), rtol=1e-12)
    assert ("step_size" in stats) == ("step_size" in chains.facts)
    for group in (posterior, stats):
        assert group.attrs["inference_library"] == "isingflow"
        assert (group.attrs["seed"], group.attrs["tuning_steps"]) == (3, 20)
        assert group.attrs.get("beta") == chains.beta
    assert np.isfinite(arviz.rhat(data)["magnetisation"])
    assert len(arviz.summary(data, group="sample_stats", kind="stats")) >= 2


def test_magnetisation_is_that_of_the_mean_spins(case):
    chains, _, _ = case
    field = chains.field.astype(float)
    mean = (np.tanh(field) if chains.spins is not None else field).reshape(4, 60, -1).mean(-1)
    np.testing.assert_allclose(chains.to_arviz().posterior["magnetisation"], mean, atol=1e-12)


def test_energies_are_those_of_the_exact_answer():
    target = HubbardStratonovich(named(), 0.4)
    data = sample_chains(None, target, sampler="gibbs", chains=16, samples=400, warm_up=50).to_arviz()
    values = data.posterior["energy_per_site"]
    error = float(arviz.mcse(data)["energy_per_site"])
    assert abs(float(values.mean()) - thermodynamics(target.lattice, 0.4).energy_per_site) < 5 * error


def test_sites_of_a_graph_have_their_names(tmp_path):
    target = HubbardStratonovich(named(), 0.4)
    chains = sample_chains(None, target, sampler="gibbs", chains=2, samples=8, warm_up=2)
    write_netcdf(chains, tmp_path / "chains.nc")
    data = arviz.from_netcdf(tmp_path / "chains.nc")
    assert data.posterior["site"].values.tolist() == list("edcba")
    np.testing.assert_array_equal(data.posterior["spins"].sel(site="d"), chains.spins[:, :, 1])


def test_of_another_kind_of_target_only_what_it_is_given_for():
    chains = sample_chains(None, Wells(), space="physical", chains=2, samples=8, warm_up=2)
    data = chains.to_arviz()
    assert "energy" not in data.posterior
    assert "lp" not in data.sample_stats
    for other in (HubbardStratonovich(square(2, 3), 0.3), HubbardStratonovich(named(), 0.4)):
        with pytest.raises(InvalidInput, match="the chains follow another target than"):
            chains.to_arviz(other)
    magnet = HubbardStratonovich(square(3), 0.3)
    with pytest.raises(InvalidInput, match=r"beta = 0\.4"):
        sample_chains(None, magnet, sampler="gibbs", chains=2, samples=8).to_arviz(HubbardStratonovich(square(3), 0.4))


def test_without_samples_there_is_nothing():
    magnet = HubbardStratonovich(square(3), 0.3)
    chains = sample_chains(None, magnet, sampler="gibbs", chains=2, samples=8, should_stop=lambda: True)
    with pytest.raises(InvalidInput, match="before their first sample"):
        chains.to_arviz()


@pytest.mark.parametrize("package", ["arviz", "h5netcdf", "h5py"])
def test_without_the_extra_one_line_says_so(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    magnet = HubbardStratonovich(square(3), 0.3)
    with pytest.raises(
        InvalidInput, match=r"need the extra arviz: python -m pip install 'isingflow\[arviz\]'"
    ) as error:
        sample_chains(None, magnet, sampler="gibbs", chains=2, samples=8, output=tmp_path / "chains.nc")
    assert "\n" not in str(error.value)
    assert not os.listdir(tmp_path)


def test_arviz_1_gets_a_tree(monkeypatch, tmp_path):
    """Its InferenceData is xarray's tree of groups."""
    chains = sample_chains(None, HubbardStratonovich(square(3), 0.3), sampler="gibbs", chains=2, samples=8)
    monkeypatch.delattr(arviz, "InferenceData")
    tree = chains.to_arviz()
    assert isinstance(tree, xarray.DataTree)
    assert list(tree.children) == ["posterior", "sample_stats"]
    write_netcdf(chains, tmp_path / "chains.nc")
    again = xarray.open_datatree(tmp_path / "chains.nc", engine="h5netcdf")
    np.testing.assert_array_equal(again["posterior/field"], chains.field)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    chains = sample_chains(None, HubbardStratonovich(square(3), 0.3), sampler="gibbs", chains=2, samples=8)
    path = tmp_path / "chains.nc"
    path.write_bytes(b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"cannot write .*: No space left on device"):
        write_netcdf(chains, path)
    assert os.listdir(tmp_path) == ["chains.nc"]
    assert path.read_bytes() == b"old"


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        """The folder of a run whose training ended before it began."""
        monkeypatch.chdir(tmp_path)
        config = RunConfig.from_preset("quick", square(4), 0.44, iterations=3)
        folder = RunFolder.create("run", config)
        flow = build_flow(HubbardStratonovich(square(4), 0.44), config.flow, seed=1)
        state = {"iteration": 0, "seconds": 0.0, "steps": 2, "finished": True, "integration_error_nats": 0.0}
        folder.save_checkpoint({f"flow.{name}": tensor for name, tensor in flow.state_dict().items()}, state)
        return "run"

    def hmc(self, run, *words, output="chains.nc"):
        words = ["hmc", run, "--sampler", "gibbs", "--chains", "4", "--samples", "12", "--warm-up", "3", *words]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return CliRunner().invoke(cli.main, [*words, "--output", output, "--device", "cpu"])

    def test_writes_what_python_makes_of_the_same_chains(self, run):
        result = self.hmc(run, "--json")
        assert result.exit_code == 0, result.output
        assert self.hmc(run, output="chains.npz").exit_code == 0
        data, chains = arviz.from_netcdf("chains.nc"), Chains.read("chains.npz")
        expected = chains.to_arviz(HubbardStratonovich(square(4), 0.44))
        for group in ("posterior", "sample_stats"):
            xarray.testing.assert_equal(data[group], expected[group])
        mean = json.loads(result.stdout)["energy_per_site"]["value"]
        assert float(data.posterior["energy_per_site"].mean()) == pytest.approx(mean, rel=1e-9)

    @pytest.mark.parametrize(
        "words, message",
        [
            (
                ["hmc", "run", "--resume"],
                "chains.nc: holds no state to resume chains from; give the .npz file that does",
            ),
            (["hmc", "run"], "--output chains.nc: exists already; choose another name"),
            (["observables", "chains.nc"], "chains.nc: netCDF is read by arviz; expected an .npz file"),
        ],
    )
    def test_what_a_netcdf_file_cannot_do_is_said(self, words, message, run):
        assert self.hmc(run).exit_code == 0
        if words[0] == "hmc":
            result = self.hmc(*words[1:])
        else:
            result = CliRunner().invoke(cli.main, words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"isingflow: error: {message}\n"

    @pytest.mark.parametrize("steps, kept", [(9, 6), (2, 0)])
    def test_stopped_early_it_holds_what_there_is(self, steps, kept, run, monkeypatch):
        asked = count()
        monkeypatch.setattr(stopping, "requested", lambda: next(asked) >= steps)
        result = self.hmc(run)
        said = f"{kept} samples of each chain are saved" if kept else "nothing is saved"
        assert f"isingflow: warning: chains.nc: {said}; netCDF cannot be resumed\n" in result.stderr
        assert os.path.exists("chains.nc") == bool(kept)
        if kept:
            assert arviz.from_netcdf("chains.nc").posterior["field"].shape == (4, kept, 4, 4)

    def test_names_of_other_files_are_refused(self, run):
        result = self.hmc(run, output="chains.h5")
        assert result.stderr == "isingflow: error: --output chains.h5: expected a file name that ends in .npz or .nc\n"
