"""The table of an evaluation says what a physicist asks for, beside answers found by counting all states."""

import dataclasses
import math
import re
from itertools import product

import numpy as np
import pytest

import isingflow
from isingflow.lattice import square
from isingflow.statistics.estimate import Estimate

BETA = 1 / 2.4
NUMBER = r"(-?\d+\.\d+)"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    magnet = isingflow.HubbardStratonovich(square(3), BETA)
    run = isingflow.train(magnet, output=tmp_path_factory.mktemp("run") / "run", iterations=30, progress=False)
    return isingflow.evaluate(run, samples=2048)


def counted():
    """ln Z, energy and |m| per site of the 3x3 torus from its 512 states."""
    states = np.array(list(product([-1, 1], repeat=9))).reshape(-1, 3, 3)
    energies = -(states * np.roll(states, 1, 1) + states * np.roll(states, 1, 2)).sum((1, 2))
    weights = np.exp(-BETA * energies)
    magnetisation = np.abs(states.mean((1, 2)))
    z = weights.sum()
    return math.log(z), (weights @ energies) / z / 9, (weights @ magnetisation) / z


def line(table, name):
    (found,) = (text for text in table.splitlines() if text.strip().startswith(name))
    return found


def test_the_heading_names_size_temperature_flow_and_preset(evaluation):
    first, second, *_ = str(evaluation).splitlines()
    assert first == "2D Ising, periodic 3x3, beta = 0.416667, T = 2.4"
    assert second.startswith("Monge-Ampère flow, preset quick, seed 0; ")
    assert re.search(r"\d+ parameters, trained for [\d.]+ s$", second)


def test_quantities_of_the_spins_are_near_their_exact_values(evaluation):
    log_z, energy, magnetisation = counted()
    answers = {
        "free energy per site": -2.4 * log_z / 9,
        "ln Z": log_z,
        "energy per site": energy,
        "magnetisation |m| per site": magnetisation,
    }
    for name, answer in answers.items():
        numbers = re.findall(NUMBER, line(str(evaluation), name).removeprefix(f"    {name}"))
        value, stderr, *beside = map(float, numbers)
        assert 0 < stderr < 0.2 and abs(value - answer) < 5 * stderr
        assert not beside or beside[0] == pytest.approx(answer, abs=0.06 * stderr)
        assert bool(beside) == (name != "magnetisation |m| per site")
    assert "exact (Kaufman)" in line(str(evaluation), "Ising spins")
    assert "-T ln Z / N, acceptance ratio" in line(str(evaluation), "free energy per site")


def test_errors_have_two_significant_digits(evaluation):
    for text in str(evaluation).splitlines():
        for error in re.findall(r"± (\d+\.\d+)", text):
            assert len(error.replace(".", "").lstrip("0")) == 2, text


def test_the_table_agrees_with_the_json(evaluation):
    found = evaluation.as_dict()["free_energy_ising_per_site"]
    value, stderr = map(float, re.findall(NUMBER, line(str(evaluation), "free energy per site"))[:2])
    assert value == pytest.approx(found["value"], abs=0.06 * found["stderr"])
    assert stderr == pytest.approx(found["stderr"], rel=0.06)


def test_targets_without_spins_have_no_such_lines(tmp_path):
    target = isingflow.targets.Phi4(3, mass_squared=1.0, coupling=0.5)
    run = isingflow.train(target, output=tmp_path / "run", iterations=2, progress=False)
    table = str(isingflow.evaluate(run, samples=64))
    assert "Ising" not in table and "ln Z of" not in table
    assert "-ln Z in nats" in table and "no method known" in table


class TestVerdict:
    """The last line: what can be trusted, and what to do where little can."""

    @pytest.fixture
    def told(self, evaluation):
        def verdict(**changes):
            sides = {name: changes.pop(name) for name in ("overlap", "reverse") if name in changes}
            if "reverse" in sides:
                sides["effective_sample_size"] = sides.pop("reverse")
            found = dataclasses.replace(
                evaluation, both_sides=dataclasses.replace(evaluation.both_sides, **sides), **changes
            )
            last = str(found).splitlines()[-1].strip()
            assert last == f"verdict: {found.verdict}" and found.as_dict()["verdict"] == found.verdict
            assert "certified" not in str(found).lower()
            return found.verdict

        return verdict

    def test_of_a_good_flow(self, told, evaluation):
        assert f"can be trusted to {evaluation.best[0].stderr:.2g} nats, and so can averages" in told(pareto_k=0.1)
        assert "integration checked" in str(evaluation)

    def test_of_errors_of_the_integration(self, told, evaluation):
        assert told(integration_error=1.0, tolerance=0.05).startswith("none of these numbers can be trusted")
        assert "can be trusted to 0.04 nats" in told(integration_error=0.04, tolerance=0.05)

    @pytest.mark.parametrize("few", [{"effective_sample_size": 2e-4}, {"pareto_k": 1.2}, {"reverse": 1e-3}])
    def test_of_few_samples_that_count(self, told, few):
        found = told(**few)
        assert "averages over the flow's samples cannot" in found and "--preset accurate" in found

    def test_of_estimates_that_are_wrong(self, told, evaluation):
        assert "the bounds can be trusted, the estimates cannot: 2 samples of flow" in told(overlap=2.0)
        assert "nats from the exact answer" in told(exact=evaluation.exact + 1.0)

    def test_without_samples_of_the_target(self, evaluation):
        alone = dataclasses.replace(evaluation, both_sides=None, pareto_k=0.9)
        assert alone.verdict.startswith("the bound can be trusted, the estimates cannot: the weights have heavy tails")


def test_words_and_numbers_never_touch(evaluation, monkeypatch):
    known = dataclasses.replace(evaluation, log_z_ising=Estimate(7.25, 5e-5))
    monkeypatch.setattr(type(known), "best", (known.log_z_ising, "annealing both ways"))
    text = line(known.table(), "free energy per site")
    assert re.search(rf"annealing both ways +{NUMBER} ± 0\.0000", text), text
