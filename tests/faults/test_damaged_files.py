"""Damaged and edited files of runs and chains: what reads them gives the right answer, or says in a line what is wrong.

A case is a number: it picks a run, a file, a damage and what is done with the run then. So every failure repeats.
"""

import copy
import json
import os
import random
import shutil
import signal
import socket
import warnings
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
import safetensors.torch
import torch

import isingflow
from isingflow.datasets import load as load_data
from isingflow.errors import IsingflowError
from isingflow.evaluation.files import write_samples
from isingflow.lattice import square
from isingflow.observables.samples import Samples
from isingflow.plots import style
from isingflow.runs import checkpoint
from isingflow.runs.config import DensityConfig, RunConfig, TargetConfig
from isingflow.runs.folder import RunFolder
from isingflow.sampling.sample import sample_chains
from isingflow.targets.base import Target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training.train import train

SHOWN, QUICK, LONG = 40, 200, 3000
ITERATIONS, BEFORE = 6, 3
HANGS_AFTER = 120
SAMPLES = 32


class Quartic(Target):
    """A target of the user's own."""

    shape = (3,)
    strength = 0.25

    def energy(self, field):
        return self.strength * field.pow(4).sum(-1)


MAGNET, DATA, OWN = HubbardStratonovich(square(4), 0.4), load_data("moons"), Quartic()
GIVEN = {"magnet": {}, "data": {"data": DATA}, "target": {"target": OWN}}


def small(config):
    training = msgspec.structs.replace(
        config.training, batch=16, check_every=2, evaluation_samples=SAMPLES, tolerance=10.0
    )
    return msgspec.structs.replace(config, training=training)


CONFIGS = {
    "magnet": small(RunConfig.from_preset("quick", square(4), 0.4, iterations=ITERATIONS)),
    "data": small(DensityConfig.from_preset("quick", DATA, flow="ot", iterations=ITERATIONS)),
    "target": small(TargetConfig.from_preset("quick", OWN, iterations=ITERATIONS)),
}


@pytest.fixture(scope="module", autouse=True)
def coarse_figures():
    """Figures are drawn to their end, in few pixels."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "png", png)
        yield


def png(figure, *_, **options):
    figure.savefig(os.devnull, format="png", dpi=8)
    return b"png"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of every kind and one stopped half way, files of samples and of chains; and the right answers."""
    root = tmp_path_factory.mktemp("runs")
    for kind, config in CONFIGS.items():
        finished = RunFolder.create(root / kind, config)
        train(finished, **GIVEN[kind], device="cpu", progress=False)
        isingflow.evaluate(finished, **GIVEN[kind], device="cpu", samples=SAMPLES, **few(kind))
        half = RunFolder.create(root / f"half-{kind}", config)
        seen = []
        train(
            half,
            **GIVEN[kind],
            device="cpu",
            progress=False,
            callbacks=[seen.append],
            should_stop=lambda seen=seen: len(seen) >= BEFORE,
        )
    write_samples(root / "magnet", root / "spins.npz", samples=SAMPLES, device="cpu")
    sample_chains(root / "magnet", output=root / "chains.npz", **CHAINS, samples=4)
    copied = root.with_name(f"{root.name}-copied")
    shutil.copytree(root, copied)
    answers = {kind: {name: [action(copied, kind)] for name, action in ACTIONS.items()} for kind in CONFIGS}
    for kind, known in answers.items():
        # Where the last checkpoint is damaged, the one before it answers.
        (copied / kind / "checkpoint.safetensors").unlink()
        for name in BY_CHECKPOINT:
            known[name].append(ACTIONS[name](copied, kind))
    return root, answers


CHAINS = {"sampler": "metropolis", "chains": 4, "warm_up": 4, "device": "cpu"}


def few(kind):
    return {"reference_samples": 2} if kind == "magnet" else {}


def loaded(root, kind):
    flow = isingflow.load(root / kind, **GIVEN["target"] if kind == "target" else {})
    x = torch.linspace(-1, 1, 2 * flow.dimension).view(2, *flow.shape)
    return flow.log_prob(x)


def evaluated(root, kind):
    found = isingflow.evaluate(root / kind, **GIVEN[kind], device="cpu", samples=SAMPLES, **few(kind)).as_dict()
    return {name: value for name, value in found.items() if "seconds" not in name}


def resumed(root, kind):
    run = RunFolder.open(root / f"half-{kind}")
    train(run, **GIVEN[kind], device="cpu", progress=False)
    metrics = [{k: v for k, v in record.items() if k != "seconds"} for record in run.metrics()]
    return run.load_checkpoint()[0], metrics


def plotted(root, kind):
    return [path.name for path in isingflow.plot(root / kind, **GIVEN[kind], device="cpu", samples=SAMPLES)]


def drawn(root, kind):
    path = root / f"{kind}.npz"
    path.unlink(missing_ok=True)
    write_samples(root / kind, path, samples=SAMPLES, device="cpu", **GIVEN[kind])
    with np.load(path) as arrays:
        return dict(arrays)


def measured(root, kind):
    return [str(Samples.read(root / name).observables()) for name in ("spins.npz", "chains.npz")]


def continued(root, kind):
    """Chains of 4 samples, or of 6 that were stopped, go on to 6."""
    found = sample_chains(root / "magnet", output=root / "chains.npz", resume=True, **CHAINS, samples=6)
    return found.field, found.spins


ACTIONS = {
    "load": loaded,
    "evaluate": evaluated,
    "resume": resumed,
    "plot": plotted,
    "sample": drawn,
    "observables": measured,
    "hmc": continued,
}
"""What is done with a run."""
BY_CHECKPOINT = ("load", "evaluate", "sample")
READ_BY = {
    "config.json": ["load", "evaluate", "resume", "plot", "sample", "hmc"],
    "checkpoint.safetensors": ["load", "evaluate", "resume", "resume", "sample", "plot"],
    "metrics.jsonl": ["resume", "plot", "evaluate"],
    "report.json": ["plot", "evaluate", "load"],
    "snapshots": ["plot", "resume"],
    "exact.json": ["evaluate", "hmc"],
    "spins.npz": ["observables"],
    "chains.npz": ["observables", "hmc"],
}
WEIGHTS = [5, 5, 4, 2, 2, 1, 2, 4]
"""How often a file is damaged."""


def same(one, other):
    """Whether two answers are equal to the last digit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor | np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=np.asarray(one).dtype.kind == "f")
    return one == other or (one != one and other != other)


# --- damages


def flip(path, draw):
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 1, 2, 10])):
        bit = draw.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def cut(path, draw):
    content = path.read_bytes()
    path.write_bytes(content[: draw.choice([0, 1, len(content) - 1, draw.randrange(len(content))])])


def pad(path, draw):
    path.write_bytes(path.read_bytes() + draw.choice([b"\0", b"\n", b"{}\n", draw.randbytes(100)]))


def scatter(path, draw):
    content = path.read_bytes()
    at = draw.randrange(len(content))
    path.write_bytes(content[:at] + draw.randbytes(draw.choice([1, 20])) + content[at + draw.choice([0, 1, 20]) :])


def replace_by_noise(path, draw):
    path.write_bytes(draw.randbytes(draw.choice([1, 7, 100, 10_000])))


def replace_by_text(path, draw):
    deep = 100_000
    texts = [
        "",
        "{}",
        "[]",
        "null",
        "x",
        "[" * deep,
        '{"a":' * deep,
        "9" * 10_000,
        "\ufeff{}",
        "NaN",
        '{"a": 1, "a": 1}',
    ]
    path.write_text(draw.choice(texts))


def replace_by_folder(path, draw):
    path.unlink()
    path.mkdir()


def replace_by_pipe(path, draw):
    path.unlink()
    os.mkfifo(path)


def replace_by_socket(path, draw):
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def replace_by_link(path, draw):
    path.unlink()
    path.symlink_to(draw.choice([path.name, "nowhere", "/dev/zero", "/dev/null", "/"]))


def make_unreadable(path, draw):
    path.chmod(0)


def make_endless(path, draw):
    os.truncate(path, 2**43)


def remove(path, draw):
    path.unlink()


ANY = [flip] * 8 + [cut] * 4 + [pad, scatter, scatter, replace_by_noise, replace_by_text, replace_by_text]
ANY += [replace_by_folder, replace_by_pipe, replace_by_socket, replace_by_link, make_unreadable, make_endless, remove]

WRONG = [
    *(None, True, False, "", "x", "quick", "\ud800", "9" * 400, [], [1], {}, {"a": 1}, {"kind": "square"}),
    *(float("nan"), float("inf"), -float("inf"), 0, -1, 0.5, 1.5, 3, 1e30, 1e300, -1e300, 10**9, 2**63, 2**80, 10**400),
]


def places(entries, path=()):
    """The ways to all entries of nested dictionaries and lists."""
    found = [path] if path else []
    pairs = entries.items() if isinstance(entries, dict) else enumerate(entries) if isinstance(entries, list) else ()
    for name, entry in pairs:
        found += places(entry, (*path, name))
    return found


def edited(entries, draw):
    """Entries of which one is wrong, missing, or one too many."""
    entries = copy.deepcopy(entries)
    *path, last = draw.choice(places(entries))
    parent = entries
    for name in path:
        parent = parent[name]
    how = draw.choice(["wrong"] * 6 + ["missing", "more", "deep"])
    if how == "missing":
        del parent[last]
    elif how == "more" and isinstance(parent, dict):
        parent[draw.choice(["x", "", "seed"])] = draw.choice(WRONG)
    elif how == "deep":
        for _ in range(300):
            parent[last] = [parent[last]]
    else:
        parent[last] = draw.choice(WRONG)
    return entries


def edit_json(path, draw):
    path.write_text(json.dumps(edited(json.loads(path.read_text()), draw), indent=2))


def edit_line(path, draw):
    lines = path.read_text().splitlines()
    at = draw.randrange(len(lines))
    lines[at] = draw.choice([json.dumps(edited(json.loads(lines[at]), draw)), "", "x", lines[at][:-3], lines[at] * 2])
    path.write_text("\n".join(lines) + "\n")


def edit_state(path, draw):
    """A wrong state: where nothing checks it, as before there was a digest; or with the right digest; or without."""
    found = checkpoint.read(path)
    state = edited(found.state, draw)
    how = draw.choice(["old", "old", "right", "stale"])
    if how == "right":
        path.write_bytes(checkpoint.pack(found.tensors, state, found.configuration))
        return
    texts = {"state": json.dumps(state)}
    if how == "stale":
        texts |= {"configuration": json.dumps(found.configuration), "digest": 64 * "0"}
    path.write_bytes(safetensors.torch.save(found.tensors, texts))


def edit_tensors(path, draw):
    """Tensors of another type or shape, with wrong numbers, missing, or one too many."""
    tensors, state, configuration = checkpoint.read(path)
    name = draw.choice(sorted(tensors))
    tensor = tensors[name]
    changed = [
        lambda: tensor.double() if tensor.is_floating_point() else tensor.float(),
        lambda: tensor.to(torch.float16),
        lambda: tensor.flatten()[:0],
        lambda: tensor[None],
        lambda: torch.full_like(tensor, -1 if tensor.dtype != torch.bool else 1),
        lambda: torch.full_like(tensor, 10**9) if tensor.dtype == torch.int64 else tensor * 0,
        lambda: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor.flatten()[:1],
        lambda: torch.full_like(tensor, float("inf")) if tensor.is_floating_point() else tensor.flatten()[:1],
        None,
    ]
    how = draw.choice(changed)
    if how is None:
        del tensors[name]
    else:
        tensors[draw.choice([name, name, name, f"{name}.more"])] = how().clone().contiguous()
    if draw.random() < 0.5:
        path.write_bytes(checkpoint.pack(tensors, state, configuration))
    else:
        path.write_bytes(safetensors.torch.save(tensors, {"state": json.dumps(state)}))


def edit_arrays(path, draw):
    """Arrays of another type or shape, with wrong numbers, missing, or one too many."""
    with np.load(path) as file:
        arrays = dict(file)
    name = draw.choice(sorted(arrays))
    array = arrays[name]
    if array.dtype.kind == "U":
        text = str(array)
        found = json.loads(text) if text[:1] == "{" else text
        text = (
            json.dumps(edited(found, draw)) if isinstance(found, dict) and found else draw.choice(["", "x", "{", "[]"])
        )
        arrays[name] = np.array(text)
    else:
        changed = [
            lambda: array.astype(np.complex128),
            lambda: array.astype("U"),
            lambda: array.astype("M8[s]") if array.dtype.kind in "iu" else array.astype(np.float16),
            lambda: array.reshape(-1)[:0],
            lambda: array[None],
            lambda: np.full(array.shape, np.nan),
            lambda: np.full(array.shape, np.inf),
            lambda: np.full(array.shape, -1),
            lambda: np.full(array.shape, 2**62),
            lambda: np.full(array.shape, 1e300),
            None,
        ]
        how = draw.choice(changed)
        if how is None:
            del arrays[name]
        else:
            arrays[draw.choice([name, name, name, f"{name}_more"])] = how()
    np.savez(path, **arrays)


OF_ITS_KIND = {
    "config.json": edit_json,
    "checkpoint.safetensors": edit_state,
    "metrics.jsonl": edit_line,
    "report.json": edit_json,
    "spins.npz": edit_arrays,
    "chains.npz": edit_arrays,
}


def damage(root, kind, file, draw):
    """Damage one file of a run; whether the right answers may then be others."""
    folder = root if file.endswith(".npz") else root / kind
    path = folder / file
    if file == "snapshots":
        path = draw.choice(sorted(path.glob("*.npy")))
    choices = list(ANY)
    if file in OF_ITS_KIND:
        choices += [OF_ITS_KIND[file]] * len(ANY)
    if file == "checkpoint.safetensors":
        choices += [edit_tensors] * len(ANY)
    how = draw.choice(choices)
    how(path, draw)
    return how


# --- what must hold


@contextmanager
def no_hang(what):
    """What waits for ever, for the other end of a pipe or the end of a device, is told by name."""

    def alarm(*_):
        raise AssertionError(f"{what} hangs")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, alarm)
    signal.alarm(HANGS_AFTER)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


VISIBLE = {".training.lock", ".results.lock", ".unfinished"}
"""Hidden files that mean something after a failure."""


def leftovers(root):
    return {str(path) for path in root.rglob(".*") if path.name not in VISIBLE}


def check_answer(name, answer, right, file, how, case):
    """Where bytes are damaged, an answer is the right one; edited numbers of which there is no digest are believed."""
    if how in (edit_json, edit_state, edit_arrays, edit_line, edit_tensors) or file in ("metrics.jsonl", "snapshots"):
        return
    if name == "resume":
        answer, right = answer[0], [right[0][0]]
    assert any(same(answer, known) for known in right), f"{case}: another answer"


def check_case(runs, tmp_path, seed):
    draw = random.Random(seed)
    original, answers = runs
    root = tmp_path / "runs"
    kind = draw.choice(list(CONFIGS))
    file = draw.choices(list(READ_BY), WEIGHTS)[0]
    kind = "magnet" if file.endswith(".npz") or file == "exact.json" else kind
    actions = draw.sample(READ_BY[file], min(2, len(READ_BY[file])))
    actions.sort(key=list(ACTIONS).index)  # chains are measured before they go on
    half = "resume" in actions and file in ("config.json", "checkpoint.safetensors", "metrics.jsonl", "snapshots")
    root.mkdir(parents=True)
    for name in (kind, f"half-{kind}", "spins.npz", "chains.npz"):
        copied = shutil.copytree if (original / name).is_dir() else shutil.copy
        copied(original / name, root / name)
    state = draw.getstate()
    for folder in (kind, f"half-{kind}") if half else (kind,):
        draw.setstate(state)
        how = damage(root, folder, file, draw)
    for name in dict.fromkeys(actions):
        before = leftovers(root)
        case = f"seed {seed}: {name} of {kind} with {file} by {how.__name__}"
        with no_hang(case), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                answer = ACTIONS[name](root, kind)
            except IsingflowError as error:
                text = str(error)
                assert len(text.splitlines()) == 1 and len(text.replace(str(root), "")) < 400, f"{case}: {text}"
                assert text.isprintable() and text.encode(), f"{case}: {text!r}"
                outputs = {"sample": root / f"{kind}.npz"}
                assert name not in outputs or not outputs[name].exists(), case
            except Exception as error:
                raise AssertionError(f"{case}: {error!r}") from error
            else:
                check_answer(name, answer, answers[kind][name], file, how, case)
        assert leftovers(root) <= before, f"{case}: {leftovers(root) - before}"


@pytest.mark.parametrize(
    "first", [first if first < SHOWN else pytest.param(first, marks=pytest.mark.slow) for first in range(0, QUICK, 20)]
)
def test_damaged_files_give_the_right_answer_or_one_line(runs, tmp_path, first):
    for seed in range(first, first + 20):
        check_case(runs, tmp_path / str(seed), seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(QUICK, LONG, 100))
def test_many_damaged_files_give_the_right_answer_or_one_line(runs, tmp_path, first):
    for seed in range(first, first + 100):
        check_case(runs, tmp_path / str(seed), seed)
