"""The exact answer kept with a run: found once, believed only as it was written, and never that of another magnet."""

import errno
import json
import os
import shutil
import sys

import networkx
import pytest

import isingflow
from isingflow.errors import InvalidInput, NoExactSolution, WrongType
from isingflow.evaluation.chains import chains_report
from isingflow.exact import averages, thermodynamics
from isingflow.lattice import cubic, edwards_anderson, from_graph, random_field, square
from isingflow.plots import style
from isingflow.plots.training import exact_free_energy, with_gaps
from isingflow.runs import solution
from isingflow.runs.folder import RunFolder
from isingflow.sampling import sample_chains
from isingflow.targets import HubbardStratonovich, hubbard_stratonovich
from isingflow.training import problems
from isingflow.training.progress import Outcome

LATTICE, BETA = random_field(edwards_anderson(5, seed=1, boundary="open"), 0.3, seed=2), 0.6
SHORT = {"iterations": 3, "progress": False, "device": "cpu", "settings": {"flow.hidden": 2, "training.batch": 8}}


def trained(path, beta=BETA, **options):
    return isingflow.train(HubbardStratonovich(LATTICE, beta), output=path, **SHORT | options)


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch):
    """Figures are made, and not written in all their pixels."""
    monkeypatch.setattr(style, "png", lambda *arguments, **options: b"png")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    run = trained(tmp_path_factory.mktemp("solution") / "run")
    return run.path, isingflow.evaluate(run, samples=16)


@pytest.fixture
def run(evaluated, tmp_path):
    """A copy of the evaluated run, opened as another command would."""
    shutil.copytree(evaluated[0], tmp_path / "copy")
    return RunFolder.open(tmp_path / "copy")


@pytest.fixture
def asked(monkeypatch):
    """How often an exact solution is looked for."""
    count = []

    def counted(*arguments, **options):
        count.append(arguments)
        return thermodynamics(*arguments, **options)

    monkeypatch.setattr(hubbard_stratonovich, "thermodynamics", counted)
    monkeypatch.setattr(sys.modules["isingflow.exact.averages"], "thermodynamics", counted)
    return count


def test_what_is_kept_is_the_answer(run):
    exact = thermodynamics(LATTICE, BETA)
    assert solution.solution_in(run, run.config.lattice, run.config.beta) == exact
    assert json.loads((run.path / "exact.json").read_text())["method"] == exact.method == "transfer-matrix"


def test_every_command_finds_it_there(run, evaluated, asked):
    again = isingflow.evaluate(run.path, samples=16)
    assert again.exact == evaluated[1].exact and again.method == evaluated[1].method
    assert again.exact_spins == evaluated[1].exact_spins
    isingflow.plot(run.path, samples=16)
    longer = isingflow.train(run, **{name: SHORT[name] for name in ("progress", "device")})
    assert longer.problem.exact == again.exact
    chains = sample_chains(run, space="physical", chains=2, samples=2, warm_up=2)
    known = chains_report(chains, run=run).exact
    assert not asked
    assert chains_report(chains).exact == known and len(asked) == 1


def test_another_magnet_has_its_own(run, tmp_path, asked):
    warm = trained(tmp_path / "warm", beta=0.5, start=run, settings=None)
    assert asked
    report = isingflow.evaluate(warm, samples=16)
    exact = HubbardStratonovich(LATTICE, 0.5).exact_free_energy()[0]
    assert report.exact == exact != isingflow.evaluate(run, samples=16).exact
    (run.path / "exact.json").replace(warm.path / "exact.json")
    assert isingflow.evaluate(warm.path, samples=16).exact == exact


def first_digit(text):
    place = next(i for i, letter in enumerate(text) if letter.isdigit())
    return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        first_digit,
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("transfer-matrix", "pfaffian"),
        lambda text: text.replace('"log_z":', '"log_zz":'),
        lambda text: json.dumps(json.loads(text) | {"magnetisation_per_site": None}),
        lambda text: "\x00" + text,
        lambda text: '{"log_z": NaN}',
    ],
)
def test_what_was_changed_is_found_anew(run, damage, caplog):
    path, target = run.path / "exact.json", HubbardStratonovich(LATTICE, BETA)
    right = path.read_text()
    path.write_text(damage(right))
    solution.recall(run, target)
    assert target.known is None and "exact.json is not believed, and made anew" in caplog.text
    target.thermodynamics()
    solution.keep(run, target)
    assert path.read_text() == right


def test_a_folder_that_is_no_file_or_cannot_be_written(run, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (run.path / "exact.json").unlink()
    monkeypatch.setattr(solution, "write_atomically", full)
    assert isingflow.evaluate(run, samples=16).exact is not None
    assert not (run.path / "exact.json").exists()
    (run.path / "exact.json").mkdir()
    solution.recall(run, HubbardStratonovich(LATTICE, BETA))
    assert "is not believed" in caplog.text


def test_training_does_not_wait_for_what_takes_long(tmp_path, monkeypatch, asked):
    """Then nobody knows the gap before the evaluation; the figures have it, and a run that goes on."""
    monkeypatch.setattr(problems, "FEW_SECONDS", 1e-9)
    run = trained(tmp_path / "run")
    assert all(record["gap_nats"] is None for record in run.run.metrics()) and run.problem.exact is None
    assert exact_free_energy(run.run.metrics(), run.run.report()) is None
    asked.clear()
    report = isingflow.evaluate(run, samples=16)
    assert report.exact == HubbardStratonovich(LATTICE, BETA).exact_free_energy()[0]
    metrics = run.run.metrics()
    exact = exact_free_energy(metrics, run.run.report())
    assert exact == report.exact
    for before, record in zip(metrics, with_gaps(metrics, exact), strict=True):
        assert record == before | {"gap_nats": before["variational_free_energy"] - exact}
    assert {path.name for path in isingflow.plot(run, samples=16)} >= {"gap.png", "training.png"}
    asked.clear()
    again = isingflow.train(RunFolder.open(run.path), progress=False, device="cpu")
    assert again.problem.exact == report.exact and not asked


def test_it_is_looked_for_before_the_training_begins(tmp_path, monkeypatch, asked):
    begun = []

    def fit(run, problem, **options):
        begun.append((len(asked), problem.solve()))
        return Outcome.FINISHED

    monkeypatch.setattr(sys.modules["isingflow.training.train"], "fit", fit)
    trained(tmp_path / "run")
    assert begun == [(1, True)] and len(asked) == 1


def test_gaps_that_were_seen_stay(evaluated):
    metrics = RunFolder.open(evaluated[0]).metrics()
    assert all(record["gap_nats"] is not None for record in metrics)
    exact = exact_free_energy(metrics, {"exact_free_energy": 7.0})
    assert exact == pytest.approx(evaluated[1].exact, rel=1e-12)
    assert list(with_gaps(metrics, exact)) == metrics
    assert exact_free_energy([{"sampled_loss": 1.0}], {"exact_free_energy": 7.0}) is None
    assert with_gaps([{"sampled_loss": 1.0}], 7.0) == [{"sampled_loss": 1.0}]


@pytest.mark.parametrize(
    "of",
    [
        cubic(4),
        cubic(3),
        square(40, boundary="open"),
        edwards_anderson(9, 12, seed=3).with_field(0.1),
        edwards_anderson(9, 12, seed=3),
    ],
    ids=str,
)
def test_what_takes_longer_than_is_allowed_is_refused_at_once(of):
    with pytest.raises(NoExactSolution, match="possible are"):
        thermodynamics(of, 0.3, longest=1e-6)
    found = HubbardStratonovich(of, 0.3)
    assert found.exact_free_energy(longest=1e-6) is None and found.known is None


def test_a_limit_does_not_change_the_answer():
    for of in (square(5, boundary="open"), edwards_anderson(6, seed=1), cubic(3)):
        assert thermodynamics(of, 0.4, longest=60) == thermodynamics(of, 0.4)
    for longest in (0, -1, float("nan"), 1e9, "x"):
        with pytest.raises(InvalidInput):
            thermodynamics(square(5), 0.4, longest=longest)
    with pytest.raises(WrongType):
        HubbardStratonovich(square(4), 0.4).know(3.0)
    assert averages(cubic(2), 0.3, thermodynamics(cubic(2), 0.3)) == averages(cubic(2), 0.3)


def test_labels_and_fields_of_graphs_come_back(tmp_path):
    graph = networkx.path_graph(["a", "b", "c"])
    networkx.set_node_attributes(graph, {"a": 0.1, "b": -0.4, "c": 0.3}, "field")
    run = isingflow.train(HubbardStratonovich(from_graph(graph), 0.7), output=tmp_path / "run", **SHORT)
    isingflow.evaluate(run, samples=16)
    again = RunFolder.open(run.path)
    assert solution.solution_in(again, again.config.lattice, 0.7) == thermodynamics(from_graph(graph), 0.7)
    assert solution.solution_in(again, again.config.lattice, 0.7000000001) is None
