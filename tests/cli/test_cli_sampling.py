"""Sampling from the command line: files of samples, their observables, and every kind of lattice from end to end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import networkx
import numpy as np
import pytest
import torch
from test_cli import document, failure, invoke

from isingflow import exact
from isingflow.evaluation import targets as evaluation
from isingflow.evaluation.targets import draw_samples
from isingflow.flows import gradient_flows
from isingflow.lattice import edwards_anderson, from_graph, square, triangular
from isingflow.lattice.kinds import from_dict
from isingflow.monte_carlo import simulate
from isingflow.observables import measure
from isingflow.observables.samples import Samples
from isingflow.runs.folder import RunFolder
from isingflow.runtime import files
from isingflow.sampling import BlockGibbs, run_chains
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

TINY = ["--steps", 5, "--device", "cpu", "--quiet"]

GLASSY = networkx.petersen_graph()
networkx.set_edge_attributes(GLASSY, {edge: (-1.0) ** i / (1 + i) for i, edge in enumerate(GLASSY.edges)}, "coupling")

UNSOLVED = networkx.complete_graph(28)
GRAPHS = {"g.json": GLASSY, "unsolved.json": UNSOLVED}

LATTICES = {
    "square": (["--size", 4], square(4)),
    "rectangle": (["--size", "4x6"], square(4, 6)),
    "anisotropic": (["--size", 4, "--jy", 0.5, "--beta", 0.44], square(4, jy=0.5)),
    "antiferromagnet": (["--size", 4, "--jx", -1, "--jy", -1], square(4, jx=-1.0, jy=-1.0)),
    "open": (["--size", 4, "--boundary", "open"], square(4, boundary="open")),
    "triangular": (["--size", 4, "--lattice", "triangular", "--beta", 0.2], triangular(4)),
    "open triangular": (["--size", "3x4", "--lattice", "triangular", "--boundary", "open"], None),
    "glass": (
        ["--size", 4, "--lattice", "edwards-anderson", "--lattice-seed", 3, "--beta", 0.44],
        edwards_anderson(4, seed=3),
    ),
    "graph": (["--lattice", "g.json", "--beta", 0.44], from_graph(GLASSY)),
    "unsolved": (["--lattice", "unsolved.json", "--beta", -0.3], from_graph(UNSOLVED)),
}
SHOWN = ("square", "unsolved")
"""Those that are always tried; all are by the slow tests."""


pytestmark = pytest.mark.usefixtures("small_reports", "empty_folder")


@pytest.fixture
def trained(training):
    return training[0]


def write_graphs(folder):
    for name, graph in GRAPHS.items():
        (folder / name).write_text(json.dumps(networkx.node_link_data(graph)))


@pytest.fixture
def graph_file(empty_folder):
    write_graphs(empty_folder)


@pytest.fixture(scope="module")
def run_on(tmp_path_factory):
    """Trained runs by the name of their lattice, each trained when first asked for, and what their command printed."""
    folder = tmp_path_factory.mktemp("lattices")
    write_graphs(folder)

    @cache
    def run(name):
        options = [folder / word if word in GRAPHS else word for word in LATTICES[name][0]]
        return folder / name, document("train", *options, *TINY, "--output", folder / name)

    return run


@pytest.fixture
def uncertified(trained, empty_folder):
    """A copy of the trained run that an evaluation found wanting."""
    shutil.copytree(trained, empty_folder / "coarse")
    report = json.loads((trained / "report.json").read_text())
    (empty_folder / "coarse" / "report.json").write_text(json.dumps(report | {"certified": False}))
    return "coarse"


def near(estimate, value, sigmas=4.0):
    return abs(estimate["value"] - value) <= sigmas * estimate["stderr"] + 1e-9


class TestEveryLattice:
    @pytest.mark.parametrize(
        "name", [name if name in SHOWN else pytest.param(name, marks=pytest.mark.slow) for name in LATTICES]
    )
    def test_from_training_to_observables(self, name, run_on, graph_file):
        options, lattice = LATTICES[name]
        path, found = run_on(name)
        config = RunFolder.open(path).config
        assert lattice is None or config.lattice == lattice
        lattice = config.lattice
        assert found["size"] == list(lattice.size) and found["certified"]
        assert found["lower_bound"]["value"] < found["variational_free_energy"]["value"]
        if name == "unsolved":
            assert found["exact_free_energy"] is found["gap_nats"] is None
            assert "no method known" in invoke("evaluate", path, "--samples", 50).stdout
        else:
            answer = exact.thermodynamics(lattice, config.beta)
            assert near(found["acceptance_ratio_free_energy"], found["exact_free_energy"])
        assert len(os.listdir(path / "figures")) == (4 if name == "unsolved" else 5)

        document("sample", path, "--samples", 400, "--draws", 2, "--output", "flow.npz", "--device", "cpu")
        chains = document("monte-carlo", *options, "--samples", 800, "--output", "chains.npz")
        assert chains["size"] == list(lattice.size)
        for file in ("flow.npz", "chains.npz"):
            assert Samples.read(file).lattice == lattice
            averages = document("observables", file)
            if name == "unsolved":
                assert averages["exact"].get("energy_per_site") is None
            else:
                assert averages["exact"]["energy_per_site"] == pytest.approx(answer.energy_per_site, rel=1e-12)
                assert near(averages["energy_per_site"], answer.energy_per_site), file

    @pytest.mark.parametrize("name", ["open", "open triangular", "glass", "graph"])
    def test_symmetry_of_flows_without_translations(self, name, run_on):
        """The whole point group where there is one."""
        config = RunFolder.open(run_on(name)[0]).config
        assert config.flow.potential == "local" and config.flow.average == "none"
        group = config.lattice.symmetry
        assert gradient_flows(config.new_flow())[0].potential.symmetry == group
        assert (len(group.point) > 1) == name.startswith("open")

    @pytest.mark.parametrize("name", LATTICES)
    def test_exact(self, name, graph_file):
        options, lattice = LATTICES[name]
        if name == "unsolved":
            assert "no exact method for 28 connected spins" in failure("exact", *options)
            return
        found = document("exact", *options)
        assert lattice is None or found["size"] == list(lattice.size)
        assert found["lattice"] == ("square" if lattice is None else lattice.kind) or name == "open triangular"
        result = invoke("exact", *options)
        assert result.exit_code == 0 and "-ln Z continuous (offset" in result.stdout

    def test_resuming_compares_lattices(self, run_on):
        path, _ = run_on("glass")
        glass = ["--lattice", "edwards-anderson", "--size", 4]
        for same in ([], glass, ["--lattice", "edwards-anderson"], ["--lattice-seed", 3], ["--boundary", "periodic"]):
            assert invoke("train", "--resume", "--output", path, *same).exit_code == 0
        for other, difference in {
            ("--lattice", "square"): "lattice.kind: square here, edwards-anderson there",
            ("--lattice-seed", 1): "lattice.seed: 1 here, 3 there",
            ("--size", 6): "lattice.shape: [6, 6] here, [4, 4] there",
        }.items():
            message = failure("train", "--resume", "--output", path, *other)
            assert message.startswith(f"--resume: not the run in {path}: ") and difference in message
        assert failure("train", "--resume", "--output", path, "--jx", 2).startswith("--jx does not go with")

    def test_resuming_compares_graphs(self, run_on, graph_file):
        path, _ = run_on("graph")
        assert invoke("train", "--resume", "--output", path, "--lattice", "g.json").exit_code == 0
        networkx.write_gml(networkx.complete_graph(30), "other.gml")
        message = failure("train", "--resume", "--output", path, "--lattice", "other.gml")
        assert "lattice.shape: [30] here, [10] there" in message and "lattice.bonds" in message
        assert len(message) < 1500
        assert "--size does not go with the lattice graph" in failure(
            "train", "--resume", "--output", path, "--size", 4
        )


class TestGraphFiles:
    @pytest.mark.parametrize("suffix", ["graphml", "gml", "json", "edgelist"])
    def test_formats(self, suffix, graph_file):
        write = {"graphml": networkx.write_graphml, "gml": networkx.write_gml, "edgelist": networkx.write_edgelist}
        if suffix != "json":
            write[suffix](GLASSY, f"g.{suffix}")
        expected = document("exact", "--lattice", "g.json", "--beta", 0.7)
        found = document("exact", "--lattice", f"g.{suffix}", "--beta", 0.7)
        assert found["log_z"] == pytest.approx(exact.thermodynamics(from_graph(GLASSY), 0.7).log_z, rel=1e-12)
        assert {key: value for key, value in found.items() if isinstance(value, str | int | None)} == {
            key: value for key, value in expected.items() if isinstance(value, str | int | None)
        }
        assert (found["size"], found["jx"], found["boundary"]) == ([10], None, None)

    def test_links_as_edges(self, empty_folder):
        data = {"nodes": [{"id": "a"}, {"id": "b"}], "links": [{"source": "a", "target": "b", "coupling": 2}]}
        (empty_folder / "g.json").write_text(json.dumps(data))
        assert document("exact", "--lattice", "g.json", "--beta", 0.5)["log_z"] == pytest.approx(np.log(4 * np.cosh(1)))

    def test_without_couplings(self, empty_folder):
        networkx.write_gml(networkx.cycle_graph(4), "g.gml")
        result = invoke("exact", "--lattice", "g.gml", "--beta", 0.4)
        assert result.exit_code == 0
        note = "g.gml: no edge has a coupling or a weight; all bonds have strength 1"
        assert result.stderr == f"isingflow: warning: {note}\n"

    @pytest.mark.parametrize(
        "name, content, message",
        [
            ("g.json", None, "--lattice g.json: there is no such file"),
            (
                "g.txt",
                "",
                "--lattice g.txt: expected square, triangular, cubic, chain, hypercubic, edwards-anderson, or a file",
            ),
            ("kagome", None, "--lattice kagome: expected square, triangular, cubic, chain, hypercubic, edwards-"),
            ("g.json", "{", "--lattice g.json: not a graph in json format: "),
            ("g.json", "[]", "--lattice g.json: not a graph in json format: "),
            ("g.json", "{}", "--lattice g.json: not a graph in json format: 'nodes' is missing"),
            ("g.json", '{"nodes": [{"id": 0}], "edges": []}', "--lattice g.json: the graph has no edges"),
            ("g.json", '{"directed": true, "nodes": [], "edges": []}', "--lattice g.json: the graph is directed"),
            ("g.json", "[" * 100_000, "--lattice g.json: not a graph in json format: "),
            ("g.gml", "graph [", "--lattice g.gml: not a graph in gml format: "),
            ("g.graphml", "<graphml", "--lattice g.graphml: not a graph in graphml format: "),
            ("g.graphml", "", "--lattice g.graphml: not a graph in graphml format: "),
            ("g.edgelist", "", "--lattice g.edgelist: the graph has no edges"),
            ("g.edgelist", "0 1 strong", "--lattice g.edgelist: line 1: 'strong': expected a number, or attributes as"),
            ("g.edgelist", "0 0 {}\n0 1 {}", "--lattice g.edgelist: the graph has a self-loop at site 0"),
            ("g.edgelist", "0 1 {'coupling': 'x'}", "--lattice g.edgelist: coupling 'x' of the bond 0-1: expected a"),
            ("g.edgelist", "0 1 {'coupling': 1e999}", "--lattice g.edgelist: coupling inf of the bond 0-1: expected a"),
            ("g.edgelist", "0 1 {'coupling': 1" + "0" * 400 + "}", "--lattice g.edgelist: "),
        ],
    )
    def test_what_is_no_graph(self, name, content, message, empty_folder):
        if content is not None:
            (empty_folder / name).write_text(content)
        for command in (["exact"], ["train"], ["monte-carlo", "--samples", 10, "--output", "a.npz"]):
            assert failure(*command, "--lattice", name).startswith(message)
        assert [file.name for file in empty_folder.iterdir()] == ([] if content is None else [name])

    @pytest.mark.parametrize(
        "options",
        [
            ["--lattice", "triangular", "--jx", 2],
            ["--lattice", "triangular", "--lattice-seed", 2],
            ["--lattice", "edwards-anderson", "--jy", 2],
            ["--lattice-seed", 2],
            ["--lattice", "g.json", "--size", 4],
            ["--lattice", "g.json", "--boundary", "open"],
        ],
    )
    def test_options_of_other_lattices(self, options, empty_folder):
        name = options[1] if options[0] == "--lattice" else "square"
        for command in (["exact"], ["train"], ["monte-carlo", "--samples", 10, "--output", "a.npz"]):
            assert f"{options[-2]} does not go with the lattice {name}: leave it out" == failure(*command, *options)


class TestSample:
    def test_draws(self, trained):
        document("sample", trained, "--samples", 6, "--draws", 3, "--output", "a.npz", "--device", "cpu")
        with np.load("a.npz", allow_pickle=False) as arrays:
            assert arrays["spins"].shape == (6, 3, 4, 4) and arrays["spins"].dtype == np.int8
            assert arrays["field"].shape == (6, 4, 4)
            assert from_dict(json.loads(str(arrays["lattice"]))) == square(4)
            assert arrays["certified"].dtype == bool and arrays["certified"]

    def test_blocks_are_the_samples_of_memory(self, trained):
        document("sample", trained, "--samples", 600, "--output", "a.npz", "--seed", 3, "--device", "cpu")
        drawn = draw_samples(RunFolder.open(trained), samples=600, device=torch.device("cpu"), seed=3)
        with np.load("a.npz", allow_pickle=False) as arrays:
            for name, array in vars(drawn).items():
                np.testing.assert_array_equal(arrays[name], array)
        target = HubbardStratonovich(square(4), RunFolder.open(trained).config.beta)
        energy = target.energy(torch.from_numpy(drawn.field).double()).numpy()
        np.testing.assert_allclose(drawn.log_weight, -energy - drawn.log_prob, atol=1e-3)

    def test_uncertified_flows_are_marked(self, uncertified):
        result = invoke("sample", uncertified, "--samples", 300, "--output", "a.npz", "--json", "--quiet")
        assert result.exit_code == 0 and json.loads(result.stdout)["certified"] is False
        assert result.stderr.startswith("isingflow: warning: coarse: integration not checked")
        result = invoke("observables", "a.npz", "--json")
        found = json.loads(result.stdout)
        assert found["certified"] is False and found["warnings"][0].startswith("integration check failed")
        assert "isingflow: warning: integration check failed" in result.stderr
        result = invoke("plot", uncertified, "--samples", 50, "--json")
        assert json.loads(result.stdout)["certified"] is False and "warning" in result.stderr

    def test_quiet(self, trained):
        for quiet in ("--quiet", "--json"):
            assert invoke("sample", trained, "--samples", 5, "--output", f"{quiet}.npz", quiet).stderr == ""
        assert "5/5  samples  0:00 left" in invoke("sample", trained, "--samples", 5, "--output", "a.npz").stderr

    def test_many_draws_are_streamed(self, trained, monkeypatch):
        """However many draws, a block of samples holds no more spins than fit."""
        monkeypatch.setattr(evaluation, "MOST_SPINS", 500)
        blocks = list(
            evaluation.stream_samples(RunFolder.open(trained), samples=9, device=torch.device("cpu"), draws=10)
        )
        assert [block.spins.shape for block in blocks] == [(3, 10, 4, 4)] * 3

    @pytest.mark.parametrize("draws", ["0", "-1", "x", "1e9"])
    def test_number_of_draws(self, draws):
        words = ["sample", "run", "--samples", 5, "--draws", draws, "--output", "a.npz"]
        assert failure(*words).startswith(f"--draws {draws}: expected an integer from 1 to")

    def test_more_than_the_disk_holds(self, trained, empty_folder):
        message = failure("sample", trained, "--samples", "1e12", "--output", "a.npz")
        assert message.startswith("a.npz: 1000000000000 rows need ") and "rows fit" in message
        message = failure("monte-carlo", "--size", 4, "--samples", "1e12", "--output", "a.npz")
        assert message.startswith("a.npz: 1000000000000 rows need ")
        assert list(empty_folder.iterdir()) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_a_kill_in_the_middle(self, number, trained, empty_folder):
        words = ["sample", str(trained), "--samples", "300000", "--output", "a.npz", "--device", "cpu"]
        process = subprocess.Popen([sys.executable, "-m", "isingflow.cli", *words], stderr=subprocess.PIPE, text=True)
        # Rows are written, so kernels are loaded: what a handler raises while LLVM calls Python back is ignored.
        assert re.match(r"\d+/300000", process.stderr.readline())
        assert process.poll() is None and list(empty_folder.glob(".a.npz.*/spins.npy"))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        left = [file.name for file in empty_folder.iterdir()]
        if number == signal.SIGKILL:
            assert process.returncode == -number
            assert {name[:7] for name in left} == {".a.npz."}
            assert invoke("sample", trained, "--samples", 8, "--output", "a.npz").exit_code == 0
        else:
            assert (process.returncode, left) == (128 + number, [])
            assert "Traceback" not in stderr


class TestMonteCarlo:
    def test_the_file(self):
        found = document(
            "monte-carlo", "--size", "4x6", "--samples", 11, "--chains", 3, "--output", "a.npz", "--seed", 7
        )
        beta = found["beta"]
        assert (found["samples"], found["chains"], found["sampler"]) == (12, 3, "wolff")
        assert set(found) == {
            "output",
            "samples",
            "chains",
            "sampler",
            "size",
            "beta",
            "energy_per_site",
            "exact_energy_per_site",
            "exact_log_z_ising",
            "exact_free_energy_ising_per_site",
            "magnetisation_squared",
            "seconds",
        }
        arrays = files.read_arrays("a.npz", [])
        assert {name: (array.dtype.kind, array.shape) for name, array in arrays.items() if name != "lattice"} == {
            "spins": ("i", (12, 4, 6)),
            "field": ("f", (12, 4, 6)),
            "log_prob": ("f", (12,)),
            "log_weight": ("f", (12,)),
            "energy": ("f", (12,)),
            "magnetisation": ("f", (12,)),
            "chain": ("i", (12,)),
            "beta": ("f", ()),
            "size": ("i", (2,)),
            "sampler": ("U", ()),
        }
        assert (arrays["spins"].dtype, arrays["field"].dtype, arrays["chain"].dtype) == (np.int8, np.float32, np.int32)
        direct = simulate(square(4, 6), beta, samples=4, chains=3, seed=7)
        for chain in range(3):
            rows = arrays["chain"] == chain
            np.testing.assert_array_equal(arrays["spins"][rows], direct.spins[chain])
            np.testing.assert_array_equal(arrays["energy"][rows], direct.energy[chain])
            np.testing.assert_array_equal(arrays["magnetisation"][rows], direct.magnetisation[chain])
        target = HubbardStratonovich(square(4, 6), beta)
        free_energy = target.free_energy(exact.thermodynamics(square(4, 6), beta).log_z)
        energy = target.energy(torch.from_numpy(arrays["field"]).double()).numpy()
        np.testing.assert_allclose(arrays["log_prob"], free_energy - energy, rtol=1e-12)
        assert not arrays["log_weight"].any()

    def test_against_exact_answers(self):
        found = document(
            "monte-carlo", "--size", 4, "--beta", 0.3, "--samples", 4000, "--output", "a.npz", "--every", 2
        )
        assert near(found["energy_per_site"], found["exact_energy_per_site"])
        averages = document("observables", "a.npz")
        along = averages["exact"].pop("correlation_function")
        assert len(along) == len(averages["correlation_function"]) and along[0] == pytest.approx(1)
        for found, value in list(zip(averages["correlation_function"], along, strict=True))[1:]:
            assert near(found, value)
        for name, value in averages["exact"].items():
            assert near(averages[name], value), name
        assert set(averages["autocorrelation_times"]) == {"energy_per_site", "magnetisation_squared"}
        text = invoke("monte-carlo", "--size", 4, "--beta", 0.3, "--samples", 40, "--output", "b.npz").stdout
        assert "exact -0.844" in text and "40 samples of 8 chains (wolff) in b.npz" in text

    def test_what_is_not_known_is_left_out(self, graph_file):
        document("monte-carlo", *LATTICES["unsolved"][0], "--samples", 8, "--output", "a.npz")
        assert "log_prob" not in files.read_arrays("a.npz", ["field"])
        document("monte-carlo", "--size", 46, "--boundary", "open", "--samples", 8, "--output", "b.npz")
        assert not {"field", "log_prob"} & set(files.read_arrays("b.npz", ["spins"]))
        assert document("observables", "b.npz")["magnetisation_abs"]["value"] > 0

    @pytest.mark.parametrize("sampler", ["swendsen-wang", "metropolis", "heat-bath", "tempering"])
    def test_samplers(self, sampler):
        words = ["--size", 4, "--samples", 8, "--sampler", sampler, "--thermalise", 5, "--output", "a.npz"]
        assert document("monte-carlo", *words)["sampler"] == sampler

    @pytest.mark.parametrize(
        "options, message",
        [
            (["--samples", 0], "--samples 0: expected an integer from 2"),
            (["--samples", -5], "--samples -5: expected an integer from 2"),
            (["--samples", 9, "--chains", 0], "--chains 0: expected an integer from 1"),
            (["--samples", 9, "--every", 0], "--every 0: expected an integer from 1"),
            (["--samples", 9, "--thermalise", 0], "--thermalise 0: expected an integer from 1"),
            (["--samples", 9, "--sampler", "fast"], "sampler is 'fast', expected wolff, swendsen-wang"),
            (
                ["--samples", 9, "--size", "5", "--lattice", "triangular", "--beta", -1, "--sampler", "wolff"],
                "sampler wol",
            ),
            (["--samples", 9, "--size", "1e9"], "--size 1e9: too large"),
            (["--samples", 9, "--output", "b.npz"], "--output is given 2 times: give it once"),
            ([], "Missing option '--samples'"),
        ],
    )
    def test_bad_input(self, options, message, empty_folder):
        assert failure("monte-carlo", "--output", "a.npz", *options).startswith(message)
        assert list(empty_folder.iterdir()) == []

    def test_another_suffix(self, empty_folder):
        message = "--output a.txt: expected a file name that ends in .npz or .csv"
        assert failure("monte-carlo", "--samples", 9, "--output", "a.txt") == message
        assert list(empty_folder.iterdir()) == []

    def test_disk(self, monkeypatch, empty_folder):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=files.SPARE_BYTES + 10_000))
        monkeypatch.setattr(exact, "thermodynamics", lambda *_: pytest.fail("the disk comes first"))
        assert "rows fit" in failure("monte-carlo", "--size", 4, "--samples", 1000, "--output", "a.npz")
        assert list(empty_folder.iterdir()) == []


def save(path="a.npz", **changes):
    """A small file of samples; an array given as None is left out."""
    rng = np.random.default_rng(0)
    arrays = {
        "spins": rng.choice([-1, 1], size=(50, 4, 4)).astype(np.int8),
        "field": rng.normal(size=(50, 4, 4)).astype(np.float32),
        "log_prob": np.zeros(50),
        "log_weight": rng.normal(size=50),
        "beta": np.float64(0.4),
        "size": np.array([4, 4]),
        "lattice": np.array(json.dumps(square(4).to_dict())),
    }
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return arrays


SCALARS = [
    "energy_per_site",
    "heat_capacity_per_site",
    "magnetisation_abs",
    "magnetisation_squared",
    "magnetisation_fourth",
    "binder",
    "susceptibility",
    "correlation_length",
]
KEYS = {
    "lattice",
    "size",
    "beta",
    "samples",
    "effective_sample_size",
    "certified",
    *SCALARS,
    "correlation_function",
    "structure_factor",
    "autocorrelation_times",
    "exact",
    "warnings",
}


class TestObservables:
    def test_keys(self):
        arrays = save()
        found = document("observables", "a.npz", "--size", 4, "--beta", 0.4)
        assert set(found) == KEYS
        names = ("spins", "field", "log_weight")
        direct = measure(square(4), 0.4, **{name: arrays[name] for name in names}).as_dict()
        assert {key: found[key] for key in direct} == direct
        assert found["certified"] is None and found["samples"] == 50
        assert 0 < found["effective_sample_size"] < 1
        assert found["exact"].keys() == {*SCALARS, "correlation_function"} - {"correlation_length"}
        text = invoke("observables", "a.npz").stdout
        assert f"exact {exact.thermodynamics(square(4), 0.4).energy_per_site:.8g}" in text

    def test_without_lattice(self):
        save(lattice=None)
        assert document("observables", "a.npz")["lattice"] == "square"

    @pytest.mark.parametrize("repeats", [2, 5])
    def test_draws_are_not_samples(self, repeats):
        """The same spins drawn again and again say no more than once."""
        arrays = save()
        once = document("observables", "a.npz")
        save(spins=np.repeat(arrays["spins"][:, None], repeats, axis=1))
        again = document("observables", "a.npz")
        for key in KEYS:
            assert json.dumps(again[key]) == json.dumps(once[key]) or key == "magnetisation_abs"
        for part in ("value", "stderr"):
            assert again["magnetisation_abs"][part] == pytest.approx(once["magnetisation_abs"][part], rel=1e-12)

    def test_rows_of_chains(self):
        arrays = save()
        chain = np.tile(np.arange(5), 10)
        save("b.npz", chain=chain, log_weight=None)
        found = Samples.read("b.npz")
        for name in ("spins", "field"):
            stored = getattr(found, name)
            assert stored.shape == (5, 10, 4, 4)
            for index in range(5):
                np.testing.assert_array_equal(stored[index], arrays[name][chain == index])

    @pytest.mark.parametrize("lattice", [square(4), edwards_anderson(4, seed=1)])
    def test_files_of_chains(self, lattice, empty_folder):
        """Of Hamiltonian Monte Carlo, with or without the lattice."""
        chains = run_chains(BlockGibbs(HubbardStratonovich(lattice, 0.3)), samples=40, chains=4, warm_up=20)
        chains.save(empty_folder / "plain.npz")
        arrays = files.read_arrays("plain.npz", []) | {"lattice": np.array(json.dumps(lattice.to_dict()))}
        np.savez("a.npz", **arrays)
        found = document("observables", "a.npz")
        direct = measure(lattice, 0.3, spins=chains.spins, field=chains.field)
        assert found["energy_per_site"] == direct.energy_per_site.as_dict()
        assert found["autocorrelation_times"].keys() == direct.autocorrelation_times.keys()
        assert found["samples"] == 160

    @pytest.mark.parametrize(
        "options, message",
        [
            (["--size", 8], "a.npz: a file of another size or beta: size 4x4 there, 8x8 asked for"),
            (["--size", "4x8"], "a.npz: a file of another size or beta: size 4x4 there, 4x8 asked for"),
            (["--beta", 0.44], "a.npz: a file of another size or beta: beta 0.4 there, 0.44 asked for"),
        ],
    )
    def test_another_size_or_beta(self, options, message):
        save()
        assert failure("observables", "a.npz", *options) == message

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"beta": None}, "the array beta is missing; found: spins"),
            ({"size": None}, "the array size is missing"),
            ({"spins": None, "field": None}, "not a file of samples: it holds neither spins nor field"),
            ({"log_weight": np.full(50, np.nan)}, "50 of 50 log-weights are NaN or infinite"),
            ({"log_weight": np.full(50, -np.inf)}, "all weights are zero"),
            ({"log_weight": np.zeros(7)}, "log-weights of shape (7,): expected (50,)"),
            ({"spins": np.zeros((50, 4, 4))}, "spins must be +1 or -1"),
            ({"spins": np.zeros((50, 2, 4, 4))}, "spins must be +1 or -1"),
            (
                {"spins": np.ones((50, 4, 4), bool)},
                "spins: bool of shape",
            ),
            ({"spins": np.ones((9, 4, 4))}, "spins and field have different numbers of samples"),
            ({"spins": np.ones((9, 2, 4, 4))}, "not a file of samples: the shapes of spins and field"),
            ({"spins": np.ones((50, 4, 4, 1))}, "not a file of samples: the shapes of spins and field"),
            (
                {"log_weight": np.full(50, "0")},
                "log-weights is an array of shape (50,) and type <U1, expected an array of real numbers",
            ),
            ({"spins": np.ones((50, 5, 5))}, "spins: float64 of shape (50, 5, 5)"),
            ({"field": np.full((50, 4, 4), np.nan)}, "the field holds values that are not finite"),
            ({"field": np.float64(3)}, "field: float64 of shape ()"),
            ({"size": np.array([8, 8])}, "not a file of samples: its size is [8, 8], that of its lattice [4, 4]"),
            ({"size": np.array("4")}, "not a file of samples: size is '4', expected an array of integers"),
            ({"beta": np.float64(np.nan)}, "not a file of samples: beta is nan, expected a finite number"),
            (
                {"beta": np.float64(-1e300)},
                "not a file of samples: beta is -1e+300, expected a finite number >= -1e+06",
            ),
            ({"beta": np.zeros(3)}, "not a file of samples: beta is an array of shape (3,)"),
            ({"lattice": np.array("{")}, "not a file of samples: its lattice is not JSON"),
            ({"lattice": np.array('{"kind": "cubic"}')}, "not a file of samples: not a lattice"),
            ({"lattice": None, "size": np.array([16])}, "not a file of samples: it does not say of which lattice"),
            ({"chain": np.zeros(3, int)}, "not a file of samples: chain: int64 of shape (3,)"),
            ({"chain": np.full(50, -1)}, "not a file of samples: chain: expected numbers from 0 to 49"),
            ({"chain": np.arange(50) // 20}, "not a file of samples: its chains have different numbers"),
            ({"spins": np.ones((1, 4, 4)), "field": None, "log_weight": None}, "1 samples: an error bar needs at"),
            ({"spins": np.ones((0, 4, 4)), "field": None, "log_weight": None}, "0 samples: an error bar needs at"),
        ],
    )
    def test_what_is_no_file_of_samples(self, changes, message):
        save(**changes)
        assert failure("observables", "a.npz").startswith(f"a.npz: {message}")

    def test_files_of_other_kinds(self, empty_folder):
        save()
        content = (empty_folder / "a.npz").read_bytes()
        (empty_folder / "short.npz").write_bytes(content[: len(content) // 2])
        (empty_folder / "text.npz").write_text("spins")
        assert failure("observables", "short.npz").startswith("short.npz: not a readable .npz file")
        assert failure("observables", "text.npz").startswith("text.npz: not a readable .npz file")
        assert failure("observables", "nothing.npz") == "nothing.npz: there is no such file"
        assert failure("observables").startswith("Missing argument 'FILE'")

    def test_heavy_tails(self):
        save(log_weight=np.random.default_rng(1).exponential(2.0, size=50))
        result = invoke("observables", "a.npz")
        assert result.exit_code == 0 and "warning: heavy-tailed weights (Pareto k = " in result.stderr


class TestEvaluate:
    def test_reference_samples(self, trained):
        found = document("evaluate", trained, "--samples", 100, "--reference-samples", 640, "--device", "cpu")
        assert (found["samples"], found["reference_samples"]) == (100, 640)
        assert failure("evaluate", trained, "--reference-samples", 0).startswith("--reference-samples 0: expected an")
