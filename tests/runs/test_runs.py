"""Run folders: what is written is read back, nothing is overwritten, nothing is executed, nothing good is lost."""

import errno
import json
import math
import os
import pickle

import numpy as np
import pytest
import torch

from isingflow.errors import CheckpointError, RunFolderError
from isingflow.lattice import edwards_anderson, square
from isingflow.runs import folder as runs
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runtime.files import write_atomically

CONFIG = RunConfig.from_preset("quick", square(4, 6, jy=0.5), 0.4, seed=3)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", CONFIG)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


class TestFolder:
    @pytest.mark.parametrize("lattice", [square(4, 6, jy=0.5), edwards_anderson(4, seed=1, boundary="open")])
    def test_configuration_survives(self, tmp_path, lattice):
        config = RunConfig.from_preset("quick", lattice, 0.3, seed=7)
        run = RunFolder.create(tmp_path / "a" / "b", config)
        assert RunFolder.open(run.path) == run
        assert RunFolder.open(str(run.path)).config == config

    def test_numbers_count_up(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert [str(RunFolder.create(None, CONFIG).path) for _ in range(2)] == ["runs/001", "runs/002"]
        (tmp_path / "runs" / "041").mkdir()
        (tmp_path / "runs" / "mine").mkdir()
        assert RunFolder.create(None, CONFIG).path.name == "042"

    def test_a_number_taken_meanwhile_is_skipped(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "runs" / "001").mkdir(parents=True)
        monkeypatch.setattr(runs.Path, "iterdir", lambda self: iter(()))
        assert RunFolder.create(None, CONFIG).path.name == "002"

    def test_an_empty_folder_is_used(self, tmp_path):
        assert RunFolder.open(RunFolder.create(tmp_path, CONFIG).path).config == CONFIG

    @pytest.mark.parametrize("what", ["run", "folder", "file", "dangling link"])
    def test_nothing_is_overwritten(self, tmp_path, what):
        path = tmp_path / "there"
        if what == "run":
            RunFolder.create(path, CONFIG)
        elif what == "folder":
            path.mkdir()
            (path / "thesis.tex").write_text("years of work")
        elif what == "file":
            path.write_text("years of work")
        else:
            path.symlink_to(tmp_path / "nowhere")
        before = contents(path) if path.is_dir() else path.is_symlink() or path.read_text()
        with pytest.raises(RunFolderError, match=r"there exists: .*--resume, or choose another name"):
            RunFolder.create(path, CONFIG)
        assert (contents(path) if path.is_dir() else path.is_symlink() or path.read_text()) == before

    @pytest.mark.parametrize(
        "left",
        [[], [".config.json.tmp"], [".training.lock"], [".config.json.tmp", ".training.lock", ".state.json.tmp"]],
    )
    def test_a_making_that_was_cut_short_begins_anew(self, tmp_path, left):
        for name in left:
            (tmp_path / name).write_text("{")
        with pytest.raises(RunFolderError, match=r"config\.json") as error:
            RunFolder.open(tmp_path)
        assert ("began it again" in str(error.value)) == (".config.json.tmp" in left)
        assert RunFolder.create(tmp_path, CONFIG) == RunFolder.open(tmp_path)
        assert set(contents(tmp_path)) == {"config.json"}

    @pytest.mark.parametrize("other", ["thesis.tex", "metrics.jsonl", "checkpoint.previous.safetensors"])
    def test_what_else_is_there_is_left_alone(self, tmp_path, other):
        (tmp_path / ".config.json.tmp").write_text("{")
        (tmp_path / other).write_text("years of work")
        before = contents(tmp_path)
        with pytest.raises(RunFolderError, match="exists"):
            RunFolder.create(tmp_path, CONFIG)
        assert contents(tmp_path) == before

    def test_what_needs_more_than_its_configuration_is_no_run_before_it_has_it(self, tmp_path):
        run = RunFolder.create(tmp_path / "run", CONFIG, begun=False)
        checkpoint(run, 0)
        with pytest.raises(RunFolderError, match="began it again"):
            RunFolder.open(run.path)
        again = RunFolder.create(run.path, CONFIG, begun=False)
        assert not again.has_checkpoint
        checkpoint(again, 0)
        again.begin()
        assert RunFolder.open(run.path).has_checkpoint

    @pytest.mark.parametrize("name", [None, "run"])
    def test_a_full_disk_leaves_no_empty_folder(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
        with pytest.raises(RunFolderError, match=r"cannot write .*config\.json: No space left"):
            RunFolder.create(name, CONFIG)
        assert not list(tmp_path.glob("runs/*")) and not (tmp_path / "run").exists()

    @pytest.mark.parametrize("what", ["training", "results"])
    def test_one_at_a_time(self, run, what):
        before = set(contents(run.path))
        with getattr(run, what)():
            with pytest.raises(RunFolderError, match="run is in use: another process"), getattr(run, what)():
                pass
            with pytest.raises(RunFolderError, match="exists"):
                RunFolder.create(run.path, CONFIG)
            assert RunFolder.open(run.path) == run
        with getattr(run, what)():
            pass
        assert set(contents(run.path)) == before

    @pytest.mark.parametrize("path", ["run", None])
    def test_unwritable(self, tmp_path, monkeypatch, path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(runs.Path, "mkdir", fail_with(errno.EACCES))
        with pytest.raises(RunFolderError, match=r"cannot create the run folder runs?: Permission denied"):
            RunFolder.create(path, CONFIG)

    def test_below_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(RunFolderError, match="cannot create"):
            RunFolder.create(tmp_path / "file" / "run", CONFIG)

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "null", "{}", '{"lattice": 1}', "\udcff", "[" * 100_000, pytest.param(None, id="missing")],
    )
    def test_foreign_configuration(self, run, text):
        path = run.path / "config.json"
        path.unlink() if text is None else path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(RunFolderError, match=r"config\.json") as error:
            RunFolder.open(run.path)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("entry, value", [("beta", "hot"), ("beta", 10**400), ("seed", 1.5), ("lattice", {})])
    def test_wrong_entry(self, run, entry, value):
        config = json.loads((run.path / "config.json").read_text()) | {entry: value}
        (run.path / "config.json").write_text(json.dumps(config))
        with pytest.raises(RunFolderError, match="does not describe a run"):
            RunFolder.open(run.path)

    def test_no_folder(self, tmp_path):
        with pytest.raises(RunFolderError, match="no run folder at"):
            RunFolder.open(tmp_path / "nothing")


class TestMetrics:
    def test_round_trip(self, run):
        assert run.metrics() == []
        for iteration in (1, 2):
            run.append_metrics({"iteration": iteration, "loss": 0.1 * iteration})
        assert run.metrics() == [{"iteration": 1, "loss": 0.1}, {"iteration": 2, "loss": 0.2}]

    def test_what_is_not_finite_is_null(self, run):
        run.append_metrics({"iteration": 1, "loss": math.nan, "gap_nats": -math.inf, "steps": [1, math.inf]})
        text = (run.path / "metrics.jsonl").read_text()
        assert "NaN" not in text and "Infinity" not in text
        assert run.metrics() == [{"iteration": 1, "loss": None, "gap_nats": None, "steps": [1, None]}]

    @pytest.mark.parametrize("torn", [b'{"iteration": 3, "lo', b"{", b"3", b"\x00\x00\x00", b"\xff\xfe"])
    def test_a_torn_last_line_is_left_out(self, run, torn):
        for iteration in (1, 2):
            run.append_metrics({"iteration": iteration})
        with open(run.path / "metrics.jsonl", "ab") as file:
            file.write(torn)
        assert [record["iteration"] for record in run.metrics()] == [1, 2]
        run.truncate_metrics(2)
        run.append_metrics({"iteration": 3})
        assert [record["iteration"] for record in run.metrics()] == [1, 2, 3]

    def test_damage_elsewhere_is_an_error(self, run):
        (run.path / "metrics.jsonl").write_text('{"iteration": 1}\n{"it\n{"iteration": 3}\n')
        with pytest.raises(RunFolderError, match="line 2"):
            run.metrics()

    def test_truncation(self, run):
        for iteration in range(1, 6):
            run.append_metrics({"iteration": iteration, "loss": 1 / 3})
        before = (run.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        run.truncate_metrics(3)
        assert (run.path / "metrics.jsonl").read_bytes().splitlines(keepends=True) == before[:3]
        run.truncate_metrics(0)
        assert run.metrics() == []

    def test_of_what_two_processes_wrote_the_last_record_stays(self, run):
        for iteration, loss in [(1, 0.0), (2, 0.0), (1, 1.0), (3, 1.0), (2, 1.0)]:
            run.append_metrics({"iteration": iteration, "loss": loss})
        run.truncate_metrics(2)
        assert run.metrics() == [{"iteration": 1, "loss": 1.0}, {"iteration": 2, "loss": 1.0}]

    def test_full_disk(self, run, monkeypatch):
        monkeypatch.setattr("builtins.open", fail_with(errno.ENOSPC))
        with pytest.raises(RunFolderError, match="No space left"):
            run.append_metrics({"iteration": 1})


TENSORS = {
    "weight": torch.linspace(0, 1, 12).reshape(3, 4),
    "transposed": torch.arange(12.0, dtype=torch.float64).reshape(3, 4).T,
    "step": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "state": torch.arange(5, dtype=torch.uint8),
}


STATE = {"iteration": 3, "seconds": 1 / 3, "steps": 4, "finished": False}


def checkpoint(run, iteration):
    run.save_checkpoint({**TENSORS, "step": torch.tensor(iteration)}, STATE | {"iteration": iteration})


class TestCheckpoint:
    def test_round_trip(self, run):
        assert not run.has_checkpoint
        view = TENSORS["weight"][1]
        run.save_checkpoint({**TENSORS, "shared": view}, STATE | {"names": ["a"]})
        assert run.has_checkpoint
        tensors, state = run.load_checkpoint()
        assert state == STATE | {"names": ["a"]}
        assert json.loads((run.path / "state.json").read_text()) == state
        for name, tensor in {**TENSORS, "shared": view}.items():
            assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
            tensors[name].zero_()

    def test_parameters_with_gradients(self, run):
        run.save_checkpoint({"p": torch.nn.Parameter(torch.ones(2))}, STATE)
        assert not run.load_checkpoint()[0]["p"].requires_grad

    def test_the_previous_one_is_kept(self, run):
        for iteration in range(4):
            checkpoint(run, iteration)
        assert set(contents(run.path)) == {
            "config.json",
            "checkpoint.safetensors",
            "checkpoint.previous.safetensors",
            "state.json",
            "state.previous.json",
        }
        assert run.load_checkpoint()[1]["iteration"] == 3
        assert json.loads((run.path / "state.previous.json").read_text())["iteration"] == 2
        (run.path / "checkpoint.safetensors").unlink()
        assert run.load_checkpoint()[1]["iteration"] == 2

    def test_without_hard_links(self, run, monkeypatch):
        monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
        for iteration in range(3):
            checkpoint(run, iteration)
        assert run.load_checkpoint()[1]["iteration"] == 2
        (run.path / "checkpoint.safetensors").write_bytes(b"")
        assert run.load_checkpoint()[1]["iteration"] == 1

    def test_a_state_that_is_not_json_is_refused(self, run):
        checkpoint(run, 1)
        before = contents(run.path)
        with pytest.raises(TypeError):
            run.save_checkpoint(TENSORS, {"value": object()})
        assert contents(run.path) == before

    def test_what_is_not_finite_is_null(self, run):
        run.save_checkpoint(TENSORS, STATE | {"error": math.nan, "recent": [{"loss": math.inf}]})
        assert run.load_checkpoint()[1] == STATE | {"error": None, "recent": [{"loss": None}]}

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_full_disk_loses_nothing(self, run, monkeypatch, call):
        checkpoint(run, 1)
        checkpoint(run, 2)
        names = set(contents(run.path))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail_with(errno.ENOSPC))
            with pytest.raises(RunFolderError, match=r"cannot write .*: No space left on device; .* intact"):
                checkpoint(run, 3)
        assert set(contents(run.path)) == names
        tensors, state = run.load_checkpoint()
        assert state["iteration"] == 2 == int(tensors["step"])

    @pytest.mark.parametrize("call", ["fsync", "link", "replace"])
    def test_a_kill_loses_nothing(self, run, monkeypatch, call):
        checkpoint(run, 1)

        def kill(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, call, kill)
            with pytest.raises(KeyboardInterrupt):
                checkpoint(run, 2)
        assert run.load_checkpoint()[1]["iteration"] == 1

    def test_missing(self, run):
        with pytest.raises(CheckpointError, match="has no checkpoint"):
            run.load_checkpoint()


def rewritten(path, change):
    """The content of a checkpoint with another header."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


class TestDigest:
    def test_any_flipped_bit_is_noticed(self, run):
        checkpoint(run, 1)
        path = run.path / "checkpoint.safetensors"
        good = path.read_bytes()
        for bit in np.random.default_rng(0).integers(0, 8 * len(good), 500).tolist():
            damaged = bytearray(good)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match="not a usable checkpoint") as error:
                run.load_checkpoint()
            assert len(str(error.value)) < 1000, bit
        path.write_bytes(good)
        assert run.load_checkpoint()[1]["iteration"] == 1

    @pytest.mark.parametrize(
        "change",
        [
            lambda header: header["weight"].update(dtype="I32"),
            lambda header: header["weight"].update(shape=[4, 3]),
            lambda header: header.update(wait=header.pop("weight")),
            lambda header: header["__metadata__"].update(state='{"iteration": 2}'),
            lambda header: header["__metadata__"].pop("digest"),
        ],
        ids=["dtype", "shape", "name", "state", "no digest"],
    )
    def test_a_changed_header_is_noticed(self, run, change):
        checkpoint(run, 1)
        path = run.path / "checkpoint.safetensors"
        path.write_bytes(rewritten(path, change))
        with pytest.raises(CheckpointError, match="damaged or changed since"):
            run.load_checkpoint()

    @pytest.mark.parametrize("kept", [["state"], ["state", "configuration", "digest"]], ids=["version 0.1", "now"])
    def test_checkpoints_without_a_digest_are_read(self, run, kept):
        checkpoint(run, 1)
        path = run.path / "checkpoint.safetensors"
        path.write_bytes(
            rewritten(path, lambda header: [header["__metadata__"].pop(n) for n in {*header["__metadata__"]} - {*kept}])
        )
        tensors, state = run.load_checkpoint()
        assert state["iteration"] == 1 and torch.equal(tensors["weight"], TENSORS["weight"])

    @pytest.mark.parametrize(
        ("place", "value", "told"),
        [
            (["beta"], 0.41, "beta: 0.41 here, 0.4 there"),
            (["seed"], 4, "seed: 4 here, 3 there"),
            (["lattice", "jx"], 2.0, "lattice.jx: 2.0 here, 1.0 there"),
            (["flow", "steps"], 31, "flow.steps: 31 here"),
            (["flow", "time"], 0.7, "flow.time: 0.7 here"),
            (["training", "tolerance"], 0.5, "training.tolerance: 0.5 here, 0.01 there"),
            (["training", "iterations"], 7, "training.iterations: 7 here"),
            (["training", "evaluation_samples"], 99, None),
            (["training", "recompute"], True, None),
            (["preset"], "mine", None),
        ],
        ids=str,
    )
    def test_an_edited_configuration_is_told(self, run, place, value, told):
        checkpoint(run, 1)
        entries = json.loads((run.path / "config.json").read_text())
        inner = entries
        for name in place[:-1]:
            inner = inner[name]
        assert place[-1] in inner
        inner[place[-1]] = value
        (run.path / "config.json").write_text(json.dumps(entries))
        edited = RunFolder.open(run.path)
        if told is None:
            assert edited.load_checkpoint()[1]["iteration"] == 1
        else:
            with pytest.raises(CheckpointError, match="does not fit the run's configuration") as error:
                edited.load_checkpoint()
            assert told in str(error.value)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    bare = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    deep = json.dumps({"__metadata__": {"state": "[" * 10**5}}).encode()
    lists = json.dumps({"__metadata__": {"state": "[1]"}}).encode()
    torch.save({"a": Bomb(tmp_path / "exploded")}, tmp_path / "torch.pt")
    return {
        "empty": b"",
        "pickle": pickle.dumps(Bomb(tmp_path / "exploded")),
        "torch.save": (tmp_path / "torch.pt").read_bytes(),
        "random": np.random.default_rng(0).bytes(4096),
        "huge header": (2**63 - 1).to_bytes(8, "little") + b"{}",
        "huge tensor": len(header).to_bytes(8, "little") + header,
        "no state": len(bare).to_bytes(8, "little") + bare + bytes(4),
        "deep state": len(deep).to_bytes(8, "little") + deep,
        "state is a list": len(lists).to_bytes(8, "little") + lists,
        "text": b'{"iteration": 3}',
    }


KINDS = [
    "empty",
    "pickle",
    "torch.save",
    "random",
    "huge header",
    "huge tensor",
    "no state",
    "deep state",
    "state is a list",
    "text",
    "truncated",
    "flipped header",
]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_checkpoints(run, tmp_path, kind, caplog):
    checkpoint(run, 1)
    checkpoint(run, 2)
    current = run.path / "checkpoint.safetensors"
    good = current.read_bytes()
    made = {"truncated": good[:-7], "flipped header": good[:8] + b"\x00" + good[9:]}
    content = {**hostile(tmp_path), **made}[kind]
    current.write_bytes(content)
    assert run.load_checkpoint()[1]["iteration"] == 1
    assert "using the previous checkpoint" in caplog.text

    (run.path / "checkpoint.previous.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a usable checkpoint") as error:
        run.load_checkpoint()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "exploded").exists()


def test_the_bomb_is_live(tmp_path):
    """The pickle of the test above does act when unpickled: its silence there means that it was not."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


class TestReportAndSnapshots:
    def test_report(self, run):
        assert run.report() is None
        run.save_report({"gap_nats": {"value": 1.0, "stderr": math.inf}, "exact_free_energy": None})
        assert run.report() == {"gap_nats": {"value": 1.0, "stderr": None}, "exact_free_energy": None}

    @pytest.mark.parametrize("text", ["", "[]", "{"])
    def test_foreign_report(self, run, text):
        (run.path / "report.json").write_text(text)
        with pytest.raises(RunFolderError, match=r"report\.json is not a report: "):
            run.report()

    def test_snapshots(self, run):
        assert run.snapshots() == {}
        spins = {i: np.random.default_rng(i).choice([-1, 1], (25, 4, 6)).astype(np.int8) for i in (100, 0, 123456)}
        for iteration, configuration in spins.items():
            run.save_snapshot(iteration, configuration)
        found = run.snapshots()
        assert list(found) == [0, 100, 123456]
        assert all(found[i].dtype == np.int8 and np.array_equal(found[i], spins[i]) for i in spins)
        assert (run.path / "snapshots" / "00100.npy").exists()

    def test_hostile_snapshots(self, run, tmp_path):
        run.save_snapshot(1, np.ones((25, 4, 6)))
        path = run.path / "snapshots" / "00001.npy"
        np.save(tmp_path / "object.npy", np.array([Bomb(tmp_path / "exploded")]), allow_pickle=True)
        np.save(tmp_path / "float.npy", np.ones((25, 4, 6)))
        np.save(tmp_path / "shape.npy", np.ones((25, 6, 4), np.int8))
        huge = path.read_bytes().replace(b"(25, 4, 6), }" + b" " * 11, b"(9999999999999, 4, 6), }")
        assert len(huge) == len(path.read_bytes()) and b"9999" in huge
        files = [(tmp_path / f"{name}.npy").read_bytes() for name in ("object", "float", "shape")]
        for content in (b"", b"junk", huge, path.read_bytes()[:-1], pickle.dumps(Bomb(tmp_path / "exploded")), *files):
            path.write_bytes(content)
            with pytest.raises(RunFolderError, match="is not a snapshot"):
                run.snapshots()
        assert not (tmp_path / "exploded").exists()

    def test_figures_that_were_cut_short(self, run):
        assert not run.has_figures
        with pytest.raises(KeyboardInterrupt), run.drawing():
            run.save_figure("a.png", b"png")
            raise KeyboardInterrupt
        assert not run.has_figures
        with run.drawing():
            run.save_figure("b.png", b"png")
        assert run.has_figures and {file.name for file in run.figures.iterdir()} == {"a.png", "b.png"}

    def test_the_table_goes_with_its_report(self, run):
        assert run.table == ""
        run.save_report({"beta": 0.4}, "beta  0.4 ± 0.1\n  warning")
        assert run.table == "beta  0.4 ± 0.1\n  warning"
        run.save_report({"beta": 0.4})
        assert run.table == ""

    def test_figures(self, run):
        assert run.save_figure("a.png", b"png").read_bytes() == b"png"
        assert run.figures == run.path / "figures"


def test_writing_atomically(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert contents(tmp_path) == {"file": b"old"}
