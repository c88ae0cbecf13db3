"""Bad command lines, made from the commands themselves: one line on standard error, exit code 2, nothing left behind.

Every option of every command is given what it does not take, twice, or without a value; files are of all wrong kinds.
One of 300 is about to train, sample or simulate if it is not refused.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from copy import copy

import click
import numpy as np
import pytest
from click.testing import CliRunner

from isingflow import cli
from isingflow.cli.axes import Axis
from isingflow.cli.options import Number, OneOf, Size, Value, Whole
from isingflow.observables.series_files import write_series

COMMANDS = cli.main.commands
RUN, OUT = "{run}", "{here}/out"
BASE = {
    "exact": ["--size", "4"],
    "train": ["--size", "4", "--steps", "1", "--device", "cpu", "--output", OUT],
    "evaluate": [RUN, "--samples", "4", "--device", "cpu"],
    "sample": [RUN, "--samples", "4", "--output", f"{OUT}.npz", "--device", "cpu"],
    "hmc": [RUN, "--space", "physical", "--chains", "2", "--samples", "2", "--warm-up", "1", "--output", f"{OUT}.npz"],
    "monte-carlo": ["--size", "4", "--samples", "8", "--output", f"{OUT}.npz"],
    "anneal": ["--size", "4", "--beta", "0.3", "--paths", "4", "--sweeps", "10"],
    "crossing": ["{study}", "--resamples", "10"],
    "observables": ["{chains.npz}"],
    "density": ["moons", "--steps", "1", "--device", "cpu", "--output", OUT],
    "plot": [RUN, "--samples", "4", "--device", "cpu"],
    "sweep": ["exact", "--size", "4", "--beta", "0.3,0.4", "--output", OUT],
}
"""By command, words with which it would succeed, and soon."""

TEXTS = ["", "1_0", " ", "x", "?", "ü", "--", "١٦", "\x1b[31m", "0x10", "1,5", "4 4", "None", "true", "\n", "%s", "{}"]
FILES = ["missing", "folder", "empty", "text", "zip", "long", "under", "pipe", "latin"]
"""What is there instead of a file: see `materials`."""
LATTICES = [
    *["hexagonal", "Square", "square ", "", "cubical", "a.txt", "{missing}.gml", "{missing}.graphml", "{folder}.json"],
    *[f"{{{kind}}}.{suffix}" for kind in ("text", "empty", "zip", "loop") for suffix in ("json", "gml", "graphml")],
    *["{text}.edgelist", "{empty}.edgelist", "{loop}.edgelist", "{pipe}.json", "{pipe}.edgelist", "{long}.gml"],
]


def bad_values(option):
    """What an option or argument of this type must refuse."""
    kind = option.type
    if isinstance(kind, Axis):
        single = copy(option)
        single.type = kind.kind
        ranges = ["0.6:0.2", "0.2:0.6:1", "a:b", "0.2:0.6:x", "1:2:3:4", "2:2:3", ",", "4,", "4,4", f"1:2:{'9' * 4000}"]
        return [value for value in bad_values(single) if value != "1,5"] + ranges
    if isinstance(kind, Size):
        return [*TEXTS, "1", "0", "-4", "4x", "x4", "4x4x4", "1e99", "nan", "inf", "4.0", "9" * 4000, "2x1"]
    if isinstance(kind, Whole):
        return [
            *TEXTS,
            "1.5",
            "nan",
            "inf",
            "-inf",
            "1e99",
            str(kind.most + 1),
            str(kind.least - 1),
            "9" * 4000,
            "1e-3",
        ]
    if isinstance(kind, Number):
        beyond = ["0", "-1", "-0.0", "1e-400"] if kind.positive else ["1e308", "-1e7"]
        return [*TEXTS, "nan", "-nan", "inf", "-inf", "1e309", "1e999999", *beyond]
    if isinstance(kind, OneOf):
        return [*TEXTS, kind.words[0].upper(), kind.words[0] + " ", "/".join(kind.words), "nan"]
    if option.name == "output" and option.metavar == "STUDY":
        return ["", "{empty}", "{text}/run", "{long}", "{pipe}", "{under}", "{run}", "{materials}"]
    return {
        "lattice": LATTICES,
        "boundary": [*TEXTS, "Periodic", "open ", "open,open,open", "periodic;open", "open,", "nan"],
        "figure": ["", "q.txt", "q", "{text}/q.png", "{missing}/q.png", "{long}.png"],
        "device": [*TEXTS, "gpu", "cuda:99", "cuda:-1", "cuda:", "CPU", "cuda:0:0", "tpu", "mps"],
        "flow": [*TEXTS, "monge", "OT", "ot ", "real-nvp", "monge_ampere"],
        "preset": [*TEXTS, "fast", "Quick", "quick,paper"],
        "settings": [
            *TEXTS,
            *("flow.hidden", "flow.hidden=", "=3", "=", "flow=3", "flow.=3", "flow.hiden=3", "training.coarse=3"),
            *(
                f"flow.hidden={value}"
                for value in ("0", "-1", "1.5", "nan", "1e99", "9" * 4000, "true", "null", "many")
            ),
        ],
        "slurm": [*TEXTS, "time", "time=", "=3", "time=60"],
        "sampler": [*TEXTS, "gibbs", "Wolff", "wolff,metropolis"],
        "name": [*TEXTS, "Moons", "tabular", "cifar10", "eight gaussians"],
        "path": ["tabular", "extra.csv", "", "{missing}.csv"],
        "run": ["", *(f"{{{kind}}}" for kind in FILES), "{folder}/config.json", "{broken}", "{future}", "{half}"],
        "file": ["", *(f"{{{kind}}}" for kind in FILES), "{zip}.npz", "{arrays.npz}", "{pickle.npy}"],
        "source": ["", *(f"{{{kind}}}" for kind in FILES), "{broken}"],
        "study": ["", *(f"{{{kind}}}" for kind in FILES), "{zip}.npz", "{arrays.npz}", "{study}/4.npz", "{chains.npz}"],
        "root": [],
        "output": {
            False: ["", "{empty}", "{text}/run", "{long}", "{pipe}", "{under}"],
            True: [
                "",
                "a.txt",
                "out",
                "{text}/a.npz",
                "{missing}/a.npz",
                "{long}.npz",
                "{zip}.npz",
                "{pipe}.npz",
                ".npz/",
            ],
        }[option.required],
    }[option.name]


CONTRADICTIONS = [
    "exact --critical --beta 0.4",
    "exact --beta 0.4 --temperature 2",
    "exact --critical --temperature 2",
    "exact --temperature 1e-320",
    "exact --lattice triangular --jx 2",
    "exact --lattice square --lattice-seed 3",
    "exact --lattice {graph} --size 4",
    "exact --lattice {graph} --boundary open",
    "exact --lattice {large}",
    "exact --lattice triangular --size 5000 --beta 0.3",
    "exact --lattice cubic --size 6 --beta 0.2",
    "exact --lattice cubic --size 4x4",
    "exact --lattice hypercubic",
    "exact --size 4x4x4",
    "exact --lattice edwards-anderson --size 6",
    "exact --field-seed 3",
    "observables {spins} --figure q.png",
    "exact --size 300 --boundary open",
    "exact --size 300 --lattice edwards-anderson",
    "exact --lattice edwards-anderson --size 30 --beta 1000",
    "monte-carlo --samples 8 --output {here}/out.npz --lattice edwards-anderson --sampler wolff --size 6",
    "monte-carlo --samples 1e12 --output {here}/out.npz --size 1000",
    "monte-carlo --output {here}/out.npz",
    "monte-carlo --samples 8",
    "monte-carlo --samples 8 --output {here}/out.npz --beta 1e6 --jx 1e6 --size 8 --lattice triangular",
    *(f"monte-carlo --samples 8 --beta {text}" for text in ("0.6:0.2", "0.2:0.6:1", "a:b", "a:b:3", "0.2:0.6:2.5")),
    "monte-carlo --samples 8 --beta 0.2:0.6:3 --output {here}/out.npz",
    "monte-carlo --samples 8 --beta 0.2:0.6:3 --output {missing}/out.csv",
    "monte-carlo --samples 1e12 --beta 0.2:0.6:3",
    "monte-carlo --samples 8 --beta 0.2:0.6:3 --lattice edwards-anderson --sampler wolff",
    "crossing",
    "crossing {study}/4.npz {study}/4.npz",
    "crossing {study} {one}",
    "crossing {study} {other}",
    "crossing {study} {twice}",
    "crossing {warm}",
    "crossing {study} --output {here}/a.npz",
    "crossing {study} --output {missing}/a.csv",
    "train --resume",
    "train --resume --output {missing}",
    "train --resume --output {folder}",
    "train --resume --output {run} --beta 0.1",
    "train --resume --output {run} --size 8",
    "train --resume --output {run} --from-beta 0.1",
    "train --output {here}/out --size 4 --beta 0.4 --from-beta 0.5",
    "train --output {here}/out --size 4 --beta 0.4 --from-beta -0.3",
    "train --output {here}/out --size 4 --beta 0.4 --from-beta 0",
    "train --output {here}/out --size 4 --beta 0.6:0.2",
    "train --output {here}/out --size 4 --beta 0.2:0.2",
    "train --output {here}/out --size 4 --beta 0.2:0.6:3",
    "train --output {here}/out --size 4 --beta a:b",
    "train --output {here}/out --size 4 --beta 0.2:",
    "train --output {here}/out --size 4 --beta 0.2:0.4 --critical",
    "train --output {here}/out --size 4 --beta 0.2:0.4 --temperature 2",
    "train --output {here}/out --size 4 --beta 0.2:0.4 --from-beta 0.1",
    "train --output {here}/out --size 4 --beta 0.2:0.4 --bounds both",
    "train --output {here}/out --size 4 --beta 0.2:0.4 --set family.terms=0",
    "train --output {here}/out --size 4 --beta 0.2:0.4 --set family.terms=3 training.batch=1",
    *(
        f"train --output {{here}}/out --size 4 --beta 0.3 --field {words}"
        for words in (
            *("0.2:0", "0:0", "a:b", "0:", "0:0.2:3", ":", "nan:1", "0:1e400", "0:1e7"),
            *("0:0.2 --field-seed 1", "0:0.2 --bounds both", "0:0.2 --from-beta 0.1", "0:0.2 --critical"),
            *("0:0.2 --set family.field_terms=0", "0:0.2 --set flow.products=2", "0:0.2 --temperature 2"),
        )
    ),
    "train --output {here}/out --size 4 --beta 0.2:0.4 --field 0.2:0",
    "train --output {here}/out --beta 0.2:0.4 --from {run}",
    "train --output {here}/out --field 0:0.4 --from {run}",
    "train --resume --output {run} --field 0:0.2",
    "evaluate {run} --field 0.1",
    "evaluate {run} --field 0:0.2:3",
    "train --resume --output {run} --beta 0.2:0.4",
    "evaluate {run} --beta 0.3",
    "evaluate {run} --beta 0.2:0.4:3",
    "train --output {here}/out --from {run} --from-beta 2",
    "train --resume --output {run} --rate 0.1",
    "train --resume --output {run} --from {run}",
    "train --output {run}",
    "train --output {here}/out --from {run} --preset quick",
    "train --output {here}/out --from {run} --flow ot",
    "train --output {here}/out --from {run} --size 6",
    "train --output {here}/out --from {run} --lattice triangular",
    "train --output {here}/out --preset paper --flow ot",
    "train --output {here}/out --size 200x100 --boundary open",
    "train --output {here}/out --beta 1e6 --jx 1e6 --jy 0.1 --size 8",
    "density",
    "density moons extra",
    "density tabular",
    "density digits",
    "density --resume",
    "density --resume --output {run}",
    "density --resume --output {missing} moons",
    "density moons --flow convex --preset paper --output {here}/out",
    "density moons --flow all --set flow.width=3 --output {here}/out",
    "density moons --flow all --preset paper --output {here}/out",
    "density moons --flow all --output {text}/x",
    "density moons --resume --flow all --output {folder}",
    "train --output {here}/out --from {run} --set flow.hidden=3",
    "train --resume --output {run} --set training.batch=3",
    "density mnist --data {folder} --output {here}/out",
    "density mnist --data {text} --output {here}/out",
    "density power --data {missing} --output {here}/out",
    *(
        f"density tabular {{{kind}}}{suffix} --output {{here}}/out"
        for kind in FILES
        for suffix in (".csv", ".npy", ".npz")
    ),
    "density tabular {zip}.h5 --output {here}/out",
    "density tabular {text}.xlsx --output {here}/out",
    "sample {run} --samples 1e12 --output {here}/out.npz",
    "sample {run} --output {here}/out.npz",
    "sample --samples 4 --output {here}/out.npz",
    "hmc {run} --chains 2 --samples 2 --output {here}/out.npz",
    "hmc {run} --sampler gibbs --space latent --chains 2 --samples 2 --output {here}/out.npz",
    "hmc {run} --sampler metropolis --space physical --chains 2 --samples 2 --output {here}/out.npz",
    "hmc {run} --space latent --chains 2 --samples 2 --output {here}/out.npz --resume",
    "hmc {run} --space physical --chains 1e5 --samples 1e7 --output {here}/out.npz",
    "hmc {run} --space physical --chains 2 --samples 2 --output {pipe}.npz --resume",
    "hmc {run} --space physical --chains 2 --samples 2 --output {zip}.npz --resume",
    "hmc {run} --space physical --chains 2 --samples 2 --output {chains.npz} --resume --seed 5",
    "observables {chains.npz} --size 8",
    "observables {chains.npz} --beta 0.1",
    "evaluate {run} {run}",
    "evaluate {run} --resample",
    "evaluate {run} --anneal 2 --paths 15 --resample",
    "evaluate {run} --anneal 2 --paths 1000000000000",
    "sweep --output {here}/out",
    "sweep --output {missing} --follow",
    "sweep --output {here}/out --beta 0.3,0.4",
    "sweep exact --beta 0.3,0.4",
    "sweep exact --output {here}/out",
    "sweep evaluate --beta 0.3,0.4 --output {here}/out",
    "sweep density --seed 0,1 --output {here}/out",
    "sweep exact --seed 0,1 --beta 0.3 --output {here}/out",
    "sweep anneal --preset quick --output {here}/out",
    "sweep exact --beta 0:1:1000 --field 0:1:1000 --output {here}/out",
    "sweep exact --beta 0:1:1000 --field 0:1:1001 --output {here}/out --yes",
    "sweep exact --beta 0:1:1000 --field 0:1:10 --output {here}/out",
    "sweep exact --beta 0.3,0.4 --critical --output {here}/out",
    "sweep exact --beta 0.3,0.4 --temperature 2 --output {here}/out",
    "sweep exact --beta 0.3,0.4 --stepz 5 --output {here}/out",
    "sweep exact --beta 0.3,0.4 --jx 2 --jx 3 --output {here}/out",
    "sweep exact --beta 0.3,0.4 --samples 5 --output {here}/out",
    "sweep exact --beta 0.3,0.4 extra --output {here}/out",
    "sweep exact --beta 0.3,0.4 --boundary closed --output {here}/out",
    "sweep exact --beta 0.3,0.4 --ground-state --output {here}/out",
    "sweep exact --beta 0.3,0.4 --chain beta --output {here}/out",
    "sweep exact --beta 0.3,0.4 --lattice cubic --size 4,4x4 --output {here}/out",
    "sweep exact --beta 0.3,0.4 --slurm time=60 --output {here}/out",
    "sweep exact --beta 0.3,0.4 --launcher slurm --slurm colour=red --output {here}/out",
    "sweep monte-carlo --beta 0.3,0.4 --output {here}/out",
    "sweep train --beta 0.3,0.4 --resume --output {here}/out",
    "sweep train --beta 0.3,0.4 --preset quick,fast --output {here}/out",
    "sweep train --beta 0.3,0.4 --flow ot,real-nvp --output {here}/out",
    "sweep train --beta 0.3,0.4 --device gpu --output {here}/out",
    "sweep train --beta 0.3,0.4 --steps 0 --output {here}/out",
    "sweep train --beta 0.3,0.4 --set flow.hiden=3 --output {here}/out",
    "sweep train --beta 0.3,0.4 --chain size --output {here}/out",
    "sweep train --beta 0.3,0.4 --chain-steps 5 --output {here}/out",
    "sweep train --beta 0.3,0.4 --chain-rate 0.1 --output {here}/out",
    "sweep train --size 8,12 --chain size --output {here}/out",
    "sweep train --size 8 --beta 0.3 --chain beta --output {here}/out",
    "plot",
    "exat --size 4",
    "--size 4 exact",
    "Exact",
    "exact exact",
    "--bogus",
]


def campaign():
    """All bad command lines: command, what is wrong, words."""
    for name, command in COMMANDS.items():
        for param in command.params:
            if not isinstance(param, click.Option):
                for value in bad_values(param):
                    words = [
                        value if word in (RUN, "{chains.npz}", "{study}", "moons", "exact") else word
                        for word in BASE[name]
                    ]
                    yield [name, *(words if param.name != "path" else ["moons", value, *words[1:]])]
                continue
            option = param.opts[0]
            yield [name, *BASE[name], f"{option}x"]
            if param.is_flag:
                yield [name, *BASE[name], f"{option}=yes"]
                continue
            yield [name, *without(BASE[name], option), option]
            for value in bad_values(param):
                yield [
                    name,
                    *without(BASE[name], option),
                    *((option, value) if len(value) % 2 else (f"{option}={value}",)),
                ]
            for value in [BASE[name][BASE[name].index(option) + 1]] if option in BASE[name] else ["1", "cpu", "2.0"]:
                yield [name, *without(BASE[name], option), option, value, option, value]
    for line in CONTRADICTIONS:
        yield line.split()


def without(words, option):
    if option not in words:
        return words
    place = words.index(option)
    return words[:place] + words[place + 2 :]


EVERY = list(campaign())
CHOSEN = random.Random(2026).sample(EVERY, 300)
OTHERS = [words for words in EVERY if words not in CHOSEN]


@pytest.fixture(scope="module")
def materials(training, tmp_path_factory):
    """Names of good and bad files: each with any suffix."""
    folder = tmp_path_factory.mktemp("materials")
    suffixes = ["", ".json", ".gml", ".graphml", ".edgelist", ".csv", ".npy", ".npz", ".h5", ".xlsx"]
    for suffix in suffixes:
        (folder / f"folder{suffix}").mkdir()
        (folder / f"empty{suffix}").touch()
        (folder / f"text{suffix}").write_text("this is, not\nwhat it; should be {\n")
        (folder / f"latin{suffix}").write_bytes(b"\xff\xfe\xe9,1\n2,3\n")
        (folder / f"zip{suffix}").write_bytes(b"PK\x03\x04" + bytes(60))
        os.mkfifo(folder / f"pipe{suffix}")
    (folder / "loop.json").write_text(json.dumps({"nodes": [{"id": 0}], "links": [{"source": 0, "target": 0}]}))
    (folder / "loop.gml").write_text("graph [ node [ id 0 label 0 ] edge [ source 0 target 0 ] ]")
    (folder / "loop.graphml").write_text('<graphml><graph edgedefault="directed"><node id="a"/></graph></graphml>')
    (folder / "loop.edgelist").write_text("0 0\n")
    (folder / "graph.edgelist").write_text("0 1 {'coupling': 1.0}\n1 2 {'coupling': 1.0}\n")
    (folder / "large.edgelist").write_text("".join(f"{i} {i + 1} {{'coupling': 1.0}}\n" for i in range(40)))
    for name, text in {"broken": "{", "future": '{"format": 99, "kind": "magnet"}', "half": '{"format": 2}'}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(text)
    np.savez(folder / "arrays.npz", x=np.zeros(3))
    np.save(folder / "pickle.npy", np.array([{}], dtype=object))
    run = str(shutil.copytree(training[0], folder / "run"))
    words = [run, "--space", "physical", "--chains", "2", "--samples", "2", "--warm-up", "1"]
    made = CliRunner().invoke(cli.main, ["hmc", *words, "--device", "cpu", "--output", str(folder / "chains.npz")])
    assert made.exit_code == 0, made.output
    names = {name: str(folder / name) for name in (*FILES, "loop", "broken", "future", "half")}
    names |= {"long": "n" * 300, "under": str(folder / "text" / "below"), "run": run}
    names |= {name: str(folder / f"{name}.edgelist") for name in ("graph", "large")}
    names |= studies(folder)
    names["materials"] = str(folder)
    return names | {
        "arrays": f"{folder}/arrays.npz",
        "pickle": f"{folder}/pickle.npy",
        "chains": f"{folder}/chains.npz",
    }


def studies(folder):
    """Series at two sizes, and others that do not go with them."""
    from isingflow.evaluation.temperatures import scan
    from isingflow.lattice import square, triangular

    def write(name, lattice, betas, samples=400):
        report = scan(lattice, betas, samples=samples)
        (folder / name).parent.mkdir(exist_ok=True)
        write_series(folder / f"{name}.npz", report.series, report.samplers)

    for size in (4, 8):
        write(f"study/{size}", square(size), [0.38, 0.44, 0.5])
        write(f"warm/{size}", square(size), [0.1, 0.12])
    write("one/6", square(6), [0.44], 20)
    write("other/8", triangular(8), [0.26, 0.28], 20)
    shutil.copytree(folder / "study", folder / "twice")
    return {name: str(folder / name) for name in ("study", "warm", "one", "other", "twice")}


def filled(words, materials, here):
    """The words with the names of files."""
    found = []
    for word in words:
        for name, path in {**materials, "here": str(here)}.items():
            word = word.replace(f"{{{name}}}", path)
        found.append(word)
    return found


def check(code, stdout, stderr):
    assert (code, stdout) == (2, ""), (code, stdout, stderr)
    (line,) = stderr.splitlines()
    assert line.startswith("isingflow: error: ") and len(line) > 25
    assert "Traceback" not in line and "Errno" not in line and "<class" not in line


def refused(words, materials, here, monkeypatch):
    monkeypatch.chdir(here)
    before = {path: path.stat().st_mtime_ns for path in sorted(here.parent.glob("*"))}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # as Python does outside of tests
        result = CliRunner().invoke(cli.main, filled(words, materials, here))
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    check(result.exit_code, result.stdout, result.stderr)
    assert not seen, [str(warning.message) for warning in seen]
    assert list(here.iterdir()) == [] and before.keys() == {*here.parent.glob("*")}


def named(words):
    return " ".join(words)[:120]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("words", CHOSEN, ids=named)
def test_bad_command_lines(words, materials, tmp_path, monkeypatch):
    refused(words, materials, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("words", OTHERS, ids=named)
def test_more_bad_command_lines(words, materials, tmp_path, monkeypatch):
    refused(words, materials, tmp_path, monkeypatch)


def test_the_campaign_is_about_every_option():
    for name, command in COMMANDS.items():
        for param in command.params:
            lines = [words for words in EVERY if words[0] == name and any(w.startswith(param.opts[0]) for w in words)]
            assert len(lines) >= 2 or not isinstance(param, click.Option), (name, param.name)
            assert param.name == "lattice" or isinstance(param.type, Value | click.types.BoolParamType), param.name


@pytest.mark.parametrize("words", [words for words in CHOSEN if words[0] in ("exact", "monte-carlo")][:3], ids=named)
def test_bad_command_lines_in_processes_of_their_own(words, materials, tmp_path):
    command = [sys.executable, "-m", "isingflow.cli", *filled(words, materials, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    check(done.returncode, done.stdout, done.stderr)
    assert list(tmp_path.iterdir()) == []
