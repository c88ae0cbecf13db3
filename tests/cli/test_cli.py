"""The command line: its answers, its JSON, and one line for every request that cannot be met."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import isingflow
from isingflow import cli
from isingflow.cli.lattices import lattice_from
from isingflow.errors import InvalidInput, IsingflowError
from isingflow.evaluation import targets
from isingflow.evaluation.reports import evaluate
from isingflow.runs.folder import RunFolder
from isingflow.runs.settings import BOUNDS
from isingflow.runtime.progress import progress_display
from isingflow.statistics.estimate import Estimate
from isingflow.training import objectives
from isingflow.training.progress import progress_text
from isingflow.training.trainer import Trainer


def invoke(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def failure(*words):
    """The message of a command that must fail with one line on standard error and nothing on standard output."""
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("isingflow: error: ")
    assert "Traceback" not in result.stderr and result.stderr.count("error:") == 1
    return lines[-1].removeprefix("isingflow: error: ")


def document(*words):
    result = invoke(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


pytestmark = pytest.mark.usefixtures("small_reports", "empty_folder")


@pytest.fixture
def trained(training):
    return training[0]


SIZES = {
    "16x": "--size 16x: expected L or LXxLY with L >= 2, for example 16, 16x32 or, in three dimensions, 4x4x8",
    "1": "--size 1: expected L or LXxLY",
    "-4": "--size -4: expected L or LXxLY",
    "0x8": "--size 0x8: expected L or LXxLY",
    "8x1": "--size 8x1: expected L or LXxLY",
    "": "--size '': expected L or LXxLY",
    "4x4x4": "--size 4x4x4: the dimension of the lattice square is 2; that of --lattice hypercubic",
    "2x2x2x2x2x2x2": "--size 2x2x2x2x2x2x2: expected L or LXxLY",
    "16.5": "--size 16.5: expected L or LXxLY",
    "nan": "--size nan: expected L or LXxLY",
    "١٦": "--size ١٦: expected L or LXxLY",
    "1e10": "--size 1e10: too large; ",
    "9" * 5000: "--size 999",
}
MAGNETS = {
    ("--beta", "nan"): "--beta nan: expected a finite number",
    ("--beta", "inf"): "--beta inf: expected a finite number",
    ("--beta", "abc"): "--beta abc: expected a finite number",
    ("--beta", "1e300"): "--beta 1e300: expected a number from -1e+06 to 1e+06",
    ("--temperature", "0"): "--temperature 0: expected a positive number",
    ("--temperature", "-1"): "--temperature -1: expected a positive number",
    ("--temperature", "nan"): "--temperature nan: expected a positive number",
    ("--temperature", "inf"): "--temperature inf: expected a positive number",
    ("--temperature", "1e-320"): "--temperature 9.99989e-321: expected at least 1e-06",
    ("--beta", "0.4", "--temperature", "2"): "--beta and --temperature exclude each other",
    ("--critical", "--beta", "0.4"): "--critical and --beta exclude each other",
    ("--critical", "--beta", "0", "--temperature", "2"): "--critical and --beta and --temperature exclude",
    ("--jx", "nan"): "--jx nan: expected a finite number",
    ("--jy", "J"): "--jy J: expected a finite number",
    ("--field", "nan"): "--field nan: expected a finite number",
    ("--field", "1j"): "--field 1j: expected a finite number",
    ("--field-seed", "3"): "--field-seed goes with --field H",
    ("--boundary", "round"): "--boundary round: expected periodic or open",
}


class TestBadInput:
    @pytest.mark.parametrize("command", [["exact"], ["train"], ["monte-carlo", "--samples", 8, "--output", "a.npz"]])
    @pytest.mark.parametrize("size", SIZES, ids=lambda size: size[:10])
    def test_size(self, command, size, empty_folder):
        assert failure(*command, "--size", size).startswith(SIZES[size])
        assert list(empty_folder.iterdir()) == []

    @pytest.mark.parametrize("command", [["exact"], ["train"], ["monte-carlo", "--samples", 8, "--output", "a.npz"]])
    @pytest.mark.parametrize("options", MAGNETS, ids=" ".join)
    def test_magnet(self, command, options, empty_folder):
        assert failure(*command, *options).startswith(MAGNETS[options])
        assert list(empty_folder.iterdir()) == []

    def test_too_large_says_what_is_possible(self):
        sides = "sides up to 1000000 are possible, 1000000000 of a chain"
        assert failure("exact", "--size", "1e10") == f"--size 1e10: too large; {sides}"
        assert failure("exact", "--size", "4x1000001") == f"--size 4x1000001: too large; {sides}"
        assert failure("exact", "--size", "1e9") == "length is 1000000000, expected at most 1000000"
        assert failure("train", "--size", "1e9") == "--size 1e9: too large; up to 262144 sites (512x512) are possible"
        assert "up to width 16" in failure("exact", "--size", 300, "--boundary", "open")

    @pytest.mark.parametrize(
        "words, message",
        [
            (["--preset", "slow"], "preset 'slow': expected one of quick, accurate, paper"),
            (["--device", "cuda:99"], "device cuda:99: this machine has"),
            (["--device", "abacus"], "device is 'abacus', expected auto, cpu, cuda"),
            (["--time-limit", "0"], "--time-limit 0: expected a positive number"),
            (["--time-limit", "inf"], "--time-limit inf: expected a positive number"),
            (["--steps", "0"], "--steps 0: expected an integer from 1"),
            (["--steps", "2.5"], "--steps 2.5: expected an integer from 1"),
            (["--bounds", "lower"], "--bounds lower: expected upper or both"),
            (["--seed", "-1"], "--seed -1: expected an integer from 0"),
            (["--resume"], "--resume: which run?"),
            (["--resume", "--output", "nothing"], "no run folder at nothing"),
            (["--output", "file/run"], "cannot create the run folder file/run: Not a directory"),
            (["--output", "file"], "file exists: continue that run with --resume, or choose another name"),
            (["--size", "200x100", "--boundary", "open"], "open 200x100: too large for a dense"),
            (["--size", "8", "--jy", "0.5", "--beta", "1e6", "--jx", "1e6"], "beta 1000000.0: the smallest eigenvalue"),
            (["--sise", "8"], "No such option '--sise'."),
            (["--size"], "Option '--size' requires an argument."),
            (["somewhere"], "Got unexpected extra argument"),
        ],
    )
    def test_train(self, words, message, empty_folder):
        (empty_folder / "file").touch()
        assert failure("train", *words).startswith(message)
        assert [path.name for path in empty_folder.iterdir()] == ["file"]

    @pytest.mark.parametrize("command", [["evaluate"], ["plot"], ["sample", "--samples", 2, "--output", "a.npz"]])
    def test_run_folders(self, command, empty_folder):
        (empty_folder / "folder").mkdir()
        (empty_folder / "broken").mkdir()
        (empty_folder / "broken" / "config.json").write_text("{")
        assert failure(*command).startswith("Missing argument 'RUN'")
        assert failure(*command, "nothing") == "no run folder at nothing"
        assert failure(*command, "n" * 300).endswith("File name too long")
        assert failure(*command, "folder") == "folder is not a run folder: it has no config.json"
        assert failure(*command, "broken").startswith("broken/config.json does not describe a run")
        assert not (empty_folder / "a.npz").exists()

    @pytest.mark.parametrize(
        "output, message",
        [
            ("spins.txt", "--output spins.txt: expected a file name that ends in .npz"),
            ("there.npz", "--output there.npz: exists already"),
            ("nowhere/spins.npz", "--output nowhere/spins.npz: there is no folder nowhere"),
            ("a" * 250 + ".npz", "--output " + "a" * 250 + ".npz: File name too long"),
        ],
    )
    def test_sample(self, output, message, empty_folder):
        (empty_folder / "there.npz").write_text("mine")
        assert failure("sample", "run", "--samples", 3, "--output", output).startswith(message)
        assert (empty_folder / "there.npz").read_text() == "mine"

    @pytest.mark.parametrize("samples", ["0", "1e13", "-3", "many"])
    def test_number_of_samples(self, samples):
        for words in (["evaluate", "run"], ["sample", "run", "--output", "a.npz"], ["plot", "run"]):
            assert failure(*words, "--samples", samples).startswith(f"--samples {samples}: expected an integer from")

    def test_unknown_command(self):
        assert failure("exakt").startswith("No such command 'exakt'.")

    @pytest.mark.parametrize(
        "error, code, message",
        [
            (IsingflowError("two\nlines"), 2, "isingflow: error: two lines\n"),
            (MemoryError(), 2, "isingflow: error: out of memory"),
            (RuntimeError("CUDA out of memory. Tried"), 2, "isingflow: error: out of memory"),
            (KeyboardInterrupt(), 130, "\nisingflow: interrupted\n"),
        ],
    )
    def test_what_commands_raise(self, monkeypatch, error, code, message):
        def fail(*args):
            raise error

        monkeypatch.setattr(cli.exact, "lattice_from", fail)
        result = invoke("exact")
        assert result.exit_code == code
        assert result.stderr.startswith(message)

    def test_bugs_are_not_hidden(self, monkeypatch):
        monkeypatch.setattr(cli.exact, "lattice_from", lambda *args: 1 / 0)
        assert isinstance(invoke("exact").exception, ZeroDivisionError)


class TestHelp:
    @pytest.mark.parametrize("command", [[], *[[name] for name in cli.main.commands]])
    def test_help(self, command):
        result = invoke(*command, "--help")
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: isingflow")

    def test_nothing_asked(self):
        result = invoke()
        assert result.exit_code == 0 and "Commands:" in result.stdout

    @pytest.mark.parametrize(
        ("words", "without"),
        [
            (["train", "--help"], ["numpy", "numba", "scipy", "torch"]),
            (["--version"], ["numpy", "numba", "scipy", "torch"]),
            (["exact", "--size", "16"], ["numba", "scipy", "networkx", "torch"]),
        ],
        ids=" ".join,
    )
    def test_what_is_not_needed_is_not_waited_for(self, words, without):
        code = (
            f"import sys\nfrom isingflow import cli\ntry: cli.main({words})\n"
            "except SystemExit as end: assert end.code == 0\n"
            f"sys.exit(str([name for name in {without} if name in sys.modules] or ''))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, "\n") and done.stdout

    def test_bounds_are_those_of_a_training(self):
        (option,) = [param for param in cli.main.commands["train"].params if param.name == "bounds"]
        assert option.type.words == BOUNDS

    def test_version(self):
        assert invoke("--version").stdout == f"isingflow {isingflow.__version__}\n"

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("load_run", "; did you mean load?"),
            ("trian", "; did you mean train?"),
            ("hubbard_stratonovich", "; did you mean HubbardStratonovich?"),
            ("sampling", "; it is imported by itself: import isingflow.sampling"),
            ("xyzzy", ""),
            ("_sampling", ""),
        ],
    )
    def test_misspelt_names(self, name, advice):
        with pytest.raises(AttributeError) as error:
            isingflow.__getattr__(name)
        assert str(error.value) == f"module 'isingflow' has no attribute {name!r}{advice}"


def brute_force(lx, ly, beta, jx, jy, periodic):
    """ln Z, energy and heat capacity per site, by summing over all configurations."""
    bonds = [(x, y, (x + 1) % lx, y, jx) for x in range(lx if periodic else lx - 1) for y in range(ly)]
    bonds += [(x, y, x, (y + 1) % ly, jy) for x in range(lx) for y in range(ly if periodic else ly - 1)]
    states = np.array(list(itertools.product([-1, 1], repeat=lx * ly))).reshape(-1, lx, ly)
    energy = -sum(j * states[:, a, b] * states[:, c, d] for a, b, c, d, j in bonds)
    log_z = np.logaddexp.reduce(-beta * energy)
    weights = np.exp(-beta * energy - log_z)
    mean = weights @ energy
    coupling = np.zeros((lx * ly, lx * ly))
    for a, b, c, d, j in bonds:
        coupling[a * ly + b, c * ly + d] += beta * j
        coupling[c * ly + d, a * ly + b] += beta * j
    eigenvalues = np.linalg.eigvalsh(coupling)
    offset = 0.1 - eigenvalues.min()
    sites = lx * ly
    free_energy = -log_z - np.log(eigenvalues + offset).sum() / 2 + sites / 2 * (math.log(2 / math.pi) - offset)
    return {
        "log_z": log_z,
        "log_z_per_site": log_z / sites,
        "energy_per_site": mean / sites,
        "heat_capacity_per_site": beta**2 * (weights @ energy**2 - mean**2) / sites,
        "offset": offset,
        "continuous_free_energy": free_energy,
        "continuous_free_energy_per_site": free_energy / sites,
    }


class TestExact:
    @pytest.mark.parametrize(
        "size, beta, jx, jy, boundary",
        [
            ("2", 0.44, 1.0, 1.0, "periodic"),
            ("2x2", 0.3, 1.0, 1.0, "open"),
            ("3x4", -0.5, 1.0, 0.5, "periodic"),
            ("4x3", 0.7, -0.3, 1.0, "open"),
        ],
    )
    def test_against_brute_force(self, size, beta, jx, jy, boundary):
        found = document("exact", "--size", size, "--beta", beta, "--jx", jx, "--jy", jy, "--boundary", boundary)
        lx, _, ly = size.partition("x")
        shape = int(lx), int(ly or lx)
        for key, value in brute_force(*shape, beta, jx, jy, boundary == "periodic").items():
            assert found[key] == pytest.approx(value, rel=1e-10, abs=1e-12), key
        echoed = {key: found[key] for key in ("size", "sites", "beta", "jx", "jy", "boundary")}
        assert echoed == {
            "size": list(shape),
            "sites": math.prod(shape),
            "beta": beta,
            "jx": jx,
            "jy": jy,
            "boundary": boundary,
        }

    def test_defaults(self):
        found = document("exact")
        assert found == document("exact", "--size", 16, "--critical")
        assert (found["method"], found["beta"]) == ("kaufman", math.log(1 + math.sqrt(2)) / 2)
        assert found["continuous_free_energy"] == pytest.approx(-592.87574, abs=1e-5)

    def test_temperature(self):
        assert document("exact", "--temperature", 2.5) == document("exact", "--beta", 0.4)

    def test_a_million_squared(self):
        found = document("exact", "--size", "1e6", "--beta", 0.4)
        assert found["sites"] == 10**12
        assert found["offset"] is found["continuous_free_energy"] is found["continuous_free_energy_per_site"] is None
        result = invoke("exact", "--size", "1000000")
        assert result.exit_code == 0 and "not computed for 1000000000000 sites" in result.stdout

    def test_long_chains(self):
        found = document("exact", "--lattice", "chain", "--size", 10**9, "--beta", 0.5, "--boundary", "open")
        assert found["log_z"] == pytest.approx(10**9 * math.log(2) + (10**9 - 1) * math.log(math.cosh(0.5)), rel=1e-14)
        assert (found["size"], found["method"], found["offset"]) == ([10**9], "chain", None)
        random = ["exact", "--lattice", "chain", "--size", 2**24 + 1, "--beta", 0.5, "--field", 0.1, "--field-seed", 1]
        assert failure(*random).endswith("a random field has at most 16777216 sites")

    def test_strengths_along_all_axes(self):
        for lattice, size, j in (("chain", 8, [1]), ("cubic", 2, [1, 1, 1]), ("edwards-anderson", 4, [None, None])):
            found = document("exact", "--lattice", lattice, "--size", size, "--beta", 0.3)
            assert found["j"] == j and found["jx"] is None
        found = document("exact", "--size", "4x6", "--jx", 0.5, "--beta", 0.3)
        assert found["j"] == [0.5, 1] == [found["jx"], found["jy"]]

    def test_table(self):
        result = invoke("exact", "--size", "4x8", "--jy", "0.5")
        assert result.exit_code == 0
        assert result.stdout.startswith("2D Ising, periodic 4x8, jx = 1, jy = 0.5, beta = 0.609378 (critical)")
        assert "free energy -T ln Z" in result.stdout

    def test_critical_of_lattices_that_have_it(self):
        assert document("exact", "--size", 4, "--lattice", "triangular")["beta"] == math.log(3) / 4
        glass = ["exact", "--size", 4, "--lattice", "edwards-anderson"]
        assert failure(*glass).startswith("no --beta or --temperature is given: no critical point for the lattice")
        assert failure(*glass, "--critical").startswith("--critical: no critical point for the lattice")
        assert "rings of 5 negative couplings along x" in failure("exact", "--size", "5x4", "--jx", -1)

    def test_ground_states(self):
        glass = ["exact", "--ground-state", "--size", 6, "--lattice", "edwards-anderson", "--lattice-seed", 1]
        found, seen = document(*glass, "--boundary", "open"), document(*glass)
        assert (found["method"], found["exact"], found["ground_state_energy"]) == ("matching", True, -46)
        assert (seen["method"], seen["exact"], seen["ground_state_energy"]) == ("tempering", False, -50)
        assert np.array(seen["spins"]).shape == (6, 6)
        assert "no proof that there is none lower (tempering)" in invoke(*glass).stdout
        assert "--beta does not go with --ground-state" in failure(*glass, "--beta", 1)


TINY = ["train", "--size", 4, "--steps", 5, "--device", "cpu"]


class TestFields:
    @pytest.mark.parametrize("seed", [None, 3], ids=["uniform", "random"])
    def test_exact_and_monte_carlo(self, seed, empty_folder):
        words = ["--size", "3", "--beta", "0.4", "--field", "0.2", *([] if seed is None else ["--field-seed", seed])]
        lattice = isingflow.lattice.square(3)
        lattice = lattice.with_field(0.2) if seed is None else isingflow.lattice.random_field(lattice, 0.2, seed=seed)
        exact = isingflow.exact.thermodynamics(lattice, 0.4)
        given = document("exact", *words)
        assert given["field"] == np.asarray(lattice.field).tolist()
        assert given["magnetisation_per_site"] == exact.magnetisation_per_site and given["log_z"] == exact.log_z
        drawn = document("monte-carlo", *words, "--samples", 8, "--output", "spins.npz")
        assert drawn["field"] == given["field"]
        assert drawn["exact_magnetisation"] == exact.magnetisation_per_site
        seen = document("observables", "spins.npz")
        assert seen["field"] == given["field"] and set(seen["magnetisation"]) == {"value", "stderr"}
        assert "magnetisation" in invoke("exact", *words).stdout
        assert {"field", "magnetisation_per_site"}.isdisjoint(document("exact", "--size", 3))

    def test_an_earlier_run_gives_what_is_not_asked_for(self):
        magnet = dict.fromkeys(("lattice", "lattice_seed", "jx", "jy", "boundary", "field", "field_seed"))
        uniform = isingflow.lattice.square(4).with_field(0.1)
        varying = isingflow.lattice.random_field(isingflow.lattice.square(4), 0.1, seed=1)
        for size, asked, base, expected in (
            (None, {}, uniform, uniform),
            ((6, 6), {}, uniform, isingflow.lattice.square(6).with_field(0.1)),
            (
                None,
                {"boundary": "open"},
                varying,
                isingflow.lattice.square(4, boundary="open").with_field(varying.field),
            ),
            (None, {"field": 0.0}, uniform, isingflow.lattice.square(4)),
            (None, {"field": 0.1, "field_seed": 1}, uniform, varying),
        ):
            assert lattice_from(size, magnet | asked, base) == expected
        with pytest.raises(InvalidInput, match="does not fit"):
            lattice_from((6, 6), magnet, varying)
        for kept in ((4, 4, 4), (4,), (2, 2, 2, 2)):
            weaker = [isingflow.lattice.hypercubic(lengths, j=0.5) for lengths in (kept, tuple(6 for _ in kept))]
            assert lattice_from((6,), magnet, weaker[0]) == weaker[1]

    @pytest.mark.slow  # three trainings, with their evaluations and figures
    def test_a_run(self, empty_folder):
        """It trains, remembers its field, is sampled, and starts another one in another field."""
        found = document("train", "--size", 3, "--beta", 0.4, "--field", 0.1, "--steps", 2, "--output", "run")
        assert found["field"] == 0.1 and set(found["magnetisation"]) == {"value", "stderr"}
        run = RunFolder.open("run")
        assert run.config.lattice == isingflow.lattice.square(3).with_field(0.1)
        assert "field 0.1" in invoke("evaluate", "run", "--samples", 8).stdout
        assert "--resume: not the run" in failure("train", "--output", "run", "--resume", "--field", 0.2)
        for space in ("latent", "physical"):
            words = ("--chains", 2, "--samples", 6, "--warm-up", 8, "--output", f"{space}.npz")
            assert "magnetisation" in document("hmc", "run", "--space", space, *words)
        later = document("train", "--from", "run", "--field", -0.3, "--steps", 1, "--output", "later")
        assert later["field"] == -0.3
        assert document("train", "--from", "run", "--steps", 1, "--output", "same")["field"] == 0.1


class TestTrain:
    def test_table_folder_and_figures(self, training):
        path, result = training
        assert "variational bound" in result.stdout and "exact (Kaufman)" in result.stdout
        assert f"run folder {path}" in result.stdout
        assert {file.name for file in path.iterdir()} >= {
            "config.json",
            "metrics.jsonl",
            "checkpoint.safetensors",
            "state.json",
            "report.json",
            "figures",
        }
        assert {file.name for file in (path / "figures").iterdir()} == {
            "training.png",
            "gap.png",
            "spins.png",
            "log_weights.png",
            "flow_in_time.png",
        }
        assert "5/5" in result.stderr

    def test_json(self):
        found = document(*TINY, "--seed", 2, "--beta", 0.3)
        assert (found["run"], found["outcome"], found["size"], found["beta"]) == ("runs/001", "finished", [4, 4], 0.3)
        assert found["gap_nats"]["value"] > -3 * found["gap_nats"]["stderr"]

    def test_both_bounds(self, empty_folder):
        result = invoke(*TINY, "--bounds", "both", "--output", "run")
        assert result.exit_code == 0 and "from below" in result.stderr
        result = invoke("train", "--resume", "--output", "run", "--bounds", "both", "--steps", 5)
        assert result.exit_code == 0 and "finished already" in result.stdout

    def test_quiet(self):
        result = invoke(*TINY, "--quiet", "--output", "run")
        assert result.exit_code == 0 and result.stderr == ""

    def test_an_existing_run_is_left_alone(self, trained):
        before = {file: file.stat().st_mtime_ns for file in trained.rglob("*")}
        assert "--resume, or choose another name" in failure(*TINY, "--output", trained)
        assert {file: file.stat().st_mtime_ns for file in trained.rglob("*")} == before

    def test_resuming_a_finished_run(self, trained):
        report = (trained / "report.json").read_bytes()
        for options in ([], ["--size", "4", "--preset", "quick", "--steps", 5, "--critical", "--seed", 0]):
            result = invoke("train", "--resume", "--output", trained, *options)
            assert result.exit_code == 0 and "finished already" in result.stdout
        found = document("train", "--resume", "--output", trained)
        assert found["outcome"] == "finished" and {**json.loads(report), **found} == found
        assert (trained / "report.json").read_bytes() == report

    @pytest.mark.parametrize(
        "options, difference",
        [
            (["--size", "8"], "lattice.shape: [8, 8] here, [4, 4] there"),
            (["--beta", "0.3"], "beta: 0.3 here, 0.44068"),
            (["--preset", "accurate"], "flow.oriented: 4 here, 3 there"),
            (["--steps", "6"], "training.iterations: 6 here, 5 there"),
            (["--seed", "1"], "seed: 1 here, 0 there"),
            (["--bounds", "both"], "training.bounds: both here, upper there"),
            (["--jx", "-1"], "lattice.jx: -1.0 here, 1.0 there"),
            (["--boundary", "open"], "lattice.boundary: open here, periodic there"),
        ],
    )
    def test_resuming_another_run(self, trained, options, difference):
        message = failure("train", "--resume", "--output", trained, *options)
        assert message.startswith(f"--resume: not the run in {trained}: ")
        assert difference in message

    def test_resuming_a_hostile_checkpoint(self, trained, empty_folder):
        (empty_folder / "run").mkdir()
        (empty_folder / "run" / "config.json").write_bytes((trained / "config.json").read_bytes())
        (empty_folder / "run" / "checkpoint.safetensors").write_bytes(b"\x80\x04junk")
        for words in (["evaluate", "run"], ["plot", "run"], ["train", "--resume", "--output", "run"]):
            assert "checkpoint.safetensors is not a usable checkpoint" in failure(*words)

    def test_a_signal_from_outside(self, empty_folder):
        """In a process of its own, wherever it is at the time."""
        words = ["train", "--size", "4", "--steps", "100000", "--device", "cpu", "--output"]
        command = [sys.executable, "-m", "isingflow.cli", *words, "my run"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        metrics, deadline = empty_folder / "my run" / "metrics.jsonl", time.monotonic() + 120
        while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=120)
        assert (process.returncode, stdout) == (128 + signal.SIGTERM, ""), stderr
        assert "isingflow train --resume --output 'my run' --device cpu" in stderr
        assert (empty_folder / "my run" / "checkpoint.safetensors").exists()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals(self, number, monkeypatch, empty_folder):
        """In the middle of a step: it is undone, the rest is saved, and the command that goes on is printed."""
        calls = []

        def interrupted(*given):
            calls.append(os.kill(os.getpid(), number) if len(calls) == 2 else None)
            return path_gradient(*given)

        path_gradient = objectives.path_gradient
        monkeypatch.setitem(objectives.OBJECTIVES, "path", interrupted)
        result = invoke("train", "--size", 4, "--steps", 100000, "--device", "cpu", "--output", "my run")
        assert (result.exit_code, result.stdout) == (128 + number, ""), result.output
        assert "isingflow train --resume --output 'my run' --device cpu" in result.stderr
        assert (empty_folder / "my run" / "checkpoint.safetensors").exists()
        assert len(RunFolder.open("my run").metrics()) == len(calls) - 1 == 2

    def test_a_signal_at_the_very_end_is_heard(self, monkeypatch, empty_folder):
        finish = Trainer.finish

        def interrupted(trainer, stopped, **options):
            finish(trainer, stopped, **options)
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Trainer, "finish", interrupted)
        words = ["train", "--size", 4, "--steps", 3, "--device", "cpu", "--output", "run"]
        result = invoke(*words)
        assert (result.exit_code, result.stdout) == (
            128 + signal.SIGTERM,
            "",
        ) and "interrupted and saved" in result.stderr
        monkeypatch.setattr(Trainer, "finish", finish)
        resumed = document("train", "--resume", "--output", "run", "--device", "cpu")
        assert resumed["outcome"] == "finished" and len(RunFolder.open("run").metrics()) == 3


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    readings = {"variational_free_energy": -1.234, "effective_sample_size": 0.5}
    state = SimpleNamespace(
        iteration=0, iterations=2, remaining=61.0, readings=readings, integration_error=None, lattice=None
    )
    with progress_display() as show:
        for state.iteration in (1, 2):
            if state.iteration == 2:
                state.readings, state.integration_error = readings | {"gap_nats": 0.5}, 0.001
            show(state.iteration, state.iterations, progress_text(state))
    lines = capsys.readouterr().err
    assert "2/2" in lines
    assert "bound -1.23  gap 0.50 nats  sample size 50 %  error 0.001  1:01 left" in lines


class TestTrainedRun:
    def test_a_certificate_is_for_both_directions(self, trained, monkeypatch):
        """The bound from below goes through the inverse: its integration error counts as well."""
        run, cpu = RunFolder.open(trained), torch.device("cpu")
        assert evaluate(run, samples=64, device=cpu).certified
        monkeypatch.setattr(targets, "likelihood_error", lambda *_: Estimate(0.5, 0.0))
        found = evaluate(run, samples=64, device=cpu)
        assert found.integration_error == 0.5 and not found.certified

    @pytest.mark.parametrize(("bounds", "advice"), [("upper", "--bounds both"), ("both", "longer training")])
    def test_advice_is_not_what_was_done_already(self, trained, bounds, advice):
        found = evaluate(RunFolder.open(trained), samples=64, device=torch.device("cpu"))
        missing = replace(
            found,
            bounds=bounds,
            effective_sample_size=0.9,
            both_sides=replace(found.both_sides, effective_sample_size=0.01),
        )
        (warning,) = [warning for warning in missing.warnings if "misses part" in warning]
        assert advice in warning and ("--bounds" in warning) == (bounds == "upper")

    def test_evaluate(self, trained):
        found = document("evaluate", trained, "--samples", 200)
        assert found["samples"] == 200
        assert set(found) >= {
            "size",
            "sites",
            "beta",
            "samples",
            "parameters",
            "training_seconds",
            "certified",
            "integration_error_nats",
            "mean_field_free_energy",
            "variational_free_energy",
            "exact_free_energy",
            "gap_nats",
            "acceptance_ratio_free_energy",
            "reweighted_free_energy",
            "lower_bound",
            "reference_samples",
            "internal_energy",
            "entropy",
            "effective_sample_size",
            "reverse_effective_sample_size",
            "pareto_k",
            "warnings",
        }
        assert json.loads((trained / "report.json").read_text()) == found
        assert found == document("evaluate", trained, "--samples", 200, "--seed", 0)
        result = invoke("evaluate", trained, "--samples", 200)
        assert result.exit_code == 0 and "variational bound" in result.stdout
        assert result.stderr.splitlines()[-1] == "250/250  samples  0:00 left"
        assert invoke("evaluate", trained, "--samples", 200, "--quiet").stderr == ""

    def test_evaluate_with_a_bridge(self, trained):
        found = document("evaluate", trained, "--samples", 200, "--anneal", 4, "--paths", 64)
        annealed = found["annealed"]
        names = ("steps", "upper_bound", "lower_bound", "acceptance_ratio", "effective_sample_size", "seconds")
        assert set(names) <= set(annealed)
        assert (annealed["steps"], annealed["paths"]) == (4, 64)
        assert found["log_z_ising"]["method"] == "annealing both ways"
        assert annealed["upper_bound"]["value"] < found["variational_free_energy"]["value"]
        assert annealed["lower_bound"]["value"] > found["lower_bound"]["value"]
        result = invoke("evaluate", trained, "--samples", 200, "--anneal", 4, "--paths", 64)
        assert result.stderr.splitlines()[-1] == "378/378  samples  0:00 left"
        assert "annealed bound, 4 steps" in result.stdout and "verdict: -ln Z by annealing" in result.stdout
        for number in (0, -1, "many"):
            assert failure("evaluate", trained, "--anneal", number).startswith(f"--anneal {number}: expected")
        assert "number of steps" in failure("evaluate", trained, "--paths", 64)
        assert "of memory" in failure("evaluate", trained, "--anneal", 2, "--paths", 10**12)

    def test_evaluate_with_a_bridge_that_is_resampled(self, trained):
        found = document("evaluate", trained, "--samples", 200, "--anneal", 4, "--paths", 64, "--resample")
        annealed = found["annealed"]
        assert annealed["resampled"]["islands"] == 16 and annealed["acceptance_ratio"] is None
        assert found["log_z_ising"]["method"] == "resampled annealing"
        again = document("evaluate", trained, "--samples", 200, "--anneal", 4, "--paths", 64, "--resample")["annealed"]
        assert annealed | {"seconds": 0} == again | {"seconds": 0}
        result = invoke("evaluate", trained, "--samples", 200, "--anneal", 4, "--paths", 64, "--resample")
        assert "from above, 16 x 4 paths" in result.stdout
        assert "number of steps" in failure("evaluate", trained, "--resample")
        few = failure("evaluate", trained, "--anneal", 2, "--paths", 15, "--resample")
        assert few.startswith("15 paths in 16 islands")

    def test_sample(self, trained, empty_folder):
        found = document("sample", trained, "--samples", 7, "--output", "spins.npz", "--seed", 5)
        assert found == {
            "output": "spins.npz",
            "samples": 7,
            "draws": 1,
            "size": [4, 4],
            "beta": found["beta"],
            "certified": True,
        }
        with np.load(empty_folder / "spins.npz", allow_pickle=False) as arrays:
            kinds = {name: (arrays[name].dtype.name, arrays[name].shape) for name in arrays if name != "lattice"}
            spins = arrays["spins"]
        assert kinds == {
            "spins": ("int8", (7, 4, 4)),
            "field": ("float32", (7, 4, 4)),
            "log_prob": ("float64", (7,)),
            "log_weight": ("float64", (7,)),
            "beta": ("float64", ()),
            "size": ("int64", (2,)),
            "certified": ("bool", ()),
        }
        assert set(np.unique(spins)) <= {-1, 1}
        assert [file.name for file in empty_folder.iterdir()] == ["spins.npz"]
        assert "exists already" in failure("sample", trained, "--samples", 7, "--output", "spins.npz")

    def test_plot(self, trained):
        found = document("plot", trained, "--samples", 100)
        assert len(found["figures"]) == 5
        assert all(os.path.getsize(file) > 1000 for file in found["figures"])
