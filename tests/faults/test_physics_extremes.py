"""Numbers at the edge of what is accepted: every result finite, or refused in the same words everywhere."""

import json
import math
import re
import shlex
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import networkx
import numpy as np
import pytest

from isingflow import exact
from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.evaluation.free_energies import BothSides, Evaluation, SampleSet
from isingflow.exact import enumeration, kaufman, onsager, transfer_matrix
from isingflow.exact.continuous import continuous_form
from isingflow.exact.moments import graph
from isingflow.lattice import Lattice, edwards_anderson, from_graph, square, triangular
from isingflow.lattice.critical import anisotropic
from isingflow.monte_carlo import SAMPLERS, simulate
from isingflow.observables import measure
from isingflow.runtime import resources
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import acceptance_ratio_free_energy, overlap, reweighted_free_energy
from isingflow.statistics.weights import effective_fraction, effective_sample_size

BETAS = [0.0, 5e-324, 1e-300, 1e-101, 1e-100, 1e-20, 1e-8, 0.44, 3.0, 40.0, 1e3, 1e8, 1e20, 1e50, 1e65]
COUPLINGS = [1.0, -1.0, 0.0, 1e-300, 1e-60, 1e60, 1e9]
LATTICES = {
    "even torus": square(4, 6),
    "odd torus, twisted twice": square(3, 5, jx=-1.0, jy=-0.5),
    "chains": square(3, 4, jx=0.0),
    "open": square(5, 6, boundary="open"),
    "glass": edwards_anderson(6, seed=1),
    "triangle": triangular(3),
    "graph": from_graph(networkx.petersen_graph()),
    "strong": square(4, jx=1e3, jy=1e-60),
}
every_lattice = pytest.mark.parametrize("lattice", LATTICES.values(), ids=LATTICES.keys())


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def signed(values: list[float]) -> list[float]:
    return values + [-value for value in values]


@every_lattice
def test_exact_answers_are_finite_at_every_temperature(lattice: Lattice):
    for beta in signed(BETAS):
        try:
            found = asdict(exact.thermodynamics(lattice, beta))
        except NoExactSolution as error:
            assert abs(beta) >= 40 and ("too cold" in str(error) or "too strong" in str(error))
            continue
        assert all(math.isfinite(value) for value in found.values() if isinstance(value, float)), (beta, found)
        assert found["heat_capacity_per_site"] > -1e-9
        known = exact.averages(lattice, beta)
        assert all(math.isfinite(value) for value in known.values() if isinstance(value, float))


@pytest.mark.parametrize(("lx", "ly"), [(2, 2), (3, 3), (2, 5), (7, 4), (30, 1001)])
def test_kaufman_and_onsager_are_finite_for_all_couplings(lx: int, ly: int):
    for jx in COUPLINGS:
        for jy in COUPLINGS:
            weak, strong = sorted((abs(jx), abs(jy)))
            critical = anisotropic(jx, jy)
            assert critical > 0 and (critical < math.inf) == (weak > 0 and weak / strong > 0)
            for beta in [*BETAS, *([critical] if critical < 1e30 else [])]:
                try:
                    found = kaufman.solve(lx, ly, jx, jy, beta)
                except InvalidInput as error:
                    assert "overflows" in str(error) and beta * strong > 1e69
                    continue
                assert all(map(math.isfinite, found)), (jx, jy, beta, found)
                log_z, energy, heat_capacity = onsager.solve(jx, jy, beta)
                assert math.isfinite(log_z) and math.isfinite(energy) and heat_capacity >= 0
                assert 0 <= onsager.spontaneous_magnetisation(jx, jy, beta) <= 1


@every_lattice
@pytest.mark.parametrize("beta", [1e300, -1e300, 1e160, 1e71])
def test_what_overflows_is_refused_in_the_same_words_everywhere(lattice: Lattice, beta: float):
    spins = np.ones((4, *lattice.shape))
    calls = [
        lambda: exact.thermodynamics(lattice, beta),
        lambda: exact.moments(lattice, beta),
        lambda: exact.averages(lattice, beta),
        lambda: continuous_form(lattice, beta),
        lambda: lattice.couplings(beta),
        lambda: simulate(lattice, beta, samples=1),
        lambda: measure(lattice, beta, spins=spins),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=r"beta .*: beta times the couplings overflows"):
            call()


@every_lattice
def test_observables_of_any_couplings_are_finite(lattice: Lattice):
    rng = np.random.default_rng(0)
    spins = rng.choice([-1, 1], size=(12, *lattice.shape))
    field = rng.normal(size=spins.shape) * np.array([1e-300, 1.0, 1e300]).repeat(4).reshape(-1, *[1] * (spins.ndim - 1))
    for beta in (0.0, 1e-300, 1.0, 1e8):
        for samples in ({"spins": spins}, {"field": field}):
            found = measure(lattice, beta, **samples).as_dict()
            for name, entry in found.items():
                if isinstance(entry, dict) and "binder" not in name:
                    assert None not in (entry["value"], entry["stderr"]), name


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("beta", [-1e60, 0.0, 1e-300, 1e60])
def test_every_sampler_works_at_every_temperature(sampler: str, beta: float):
    found = simulate(square(4), beta, samples=20, chains=2, sampler=sampler, thermalise=50, threads=1)
    assert np.all(np.abs(found.spins) == 1)
    assert np.all(np.abs(found.energy) <= 32)
    if abs(beta) == 1e60 and sampler not in ("metropolis", "heat-bath"):
        assert np.all(found.energy == -math.copysign(32, beta))


def test_graphs_without_spins_and_of_one_spin():
    for solve in (enumeration.solve, enumeration.probabilities, graph):
        with pytest.raises(InvalidInput, match="without entries"):
            solve(np.zeros((0, 0)))
    log_z, mean, variance = enumeration.solve(np.zeros((1, 1)), np.array([0.5]))
    expected = math.log(2 * math.cosh(0.5)), 0.5 * math.tanh(0.5), 0.25 / math.cosh(0.5) ** 2
    assert (log_z, mean, variance) == pytest.approx(expected)


def test_weights_without_a_number_are_refused():
    for weights in ([-math.inf, -math.inf], [math.nan, 0.0], [math.inf, 0.0], [1j, 0.0]):
        for function in (reweighted_free_energy, effective_sample_size):
            with pytest.raises(InvalidInput):
                function(np.array(weights))
    with pytest.raises(InvalidInput):
        effective_sample_size(math.nan)
    assert effective_fraction(np.array([1e-200, 1e-200])) == 1.0


def test_strips_that_would_take_hours_say_how_many():
    along, around = np.ones((300, 16)), np.ones((300, 16))
    along[-1] = 0
    assert transfer_matrix.affordable(along, around)
    long = np.broadcast_to(np.float64(0.3), (200000, 10))
    assert not transfer_matrix.affordable(long, long)
    with pytest.raises(NoExactSolution, match=r"200000x10 would take the transfer matrix about 3.5 hours"):
        transfer_matrix.solve(long, long)


def test_memory_that_is_not_there_is_asked_for_in_vain(monkeypatch):
    monkeypatch.setattr(resources, "free_memory", lambda: 10 * 2**20)
    with pytest.raises(InvalidInput, match=r"spectrum of open 32x32 needs 32 MiB of memory, 10 MiB are free"):
        continuous_form(square(32, boundary="open"), 0.4)
    with pytest.raises(InvalidInput, match=r"dense matrix of periodic 64x64 needs 128 MiB of memory"):
        square(64).couplings(0.4)
    with pytest.raises(InvalidInput, match=r"the couplings of periodic 512x512 need"):
        simulate(square(512), 0.4, samples=1, chains=1)
    monkeypatch.setattr(resources, "free_memory", lambda: None)
    assert square(64).couplings(0.4).shape == (4096, 4096)


def test_free_memory_is_what_the_limit_of_the_address_space_leaves():
    free = resources.free_memory()
    assert free is None or 0 <= free < 2**60


# --- both sides apart


def evaluation(forward: np.ndarray, reverse: np.ndarray) -> Evaluation:
    ratio = acceptance_ratio_free_energy(forward, reverse)
    sides = BothSides(Estimate(-900.0, 1.0), ratio, overlap(forward, reverse, ratio.value), 0.5, len(reverse))
    some = Estimate(1.0, 0.1)
    samples = SampleSet(None, np.zeros((len(forward), 2)), np.zeros(len(forward)), forward)
    return Evaluation(
        title="apart",
        target="mine",
        parameters_by_name={},
        size=(2,),
        sites=2,
        beta=None,
        bounds="both",
        parameters=1,
        training_seconds=1.0,
        integration_steps=1,
        integration_error=0.0,
        tolerance=0.1,
        mean_field=None,
        variational=some,
        reweighted=some,
        internal_energy=some,
        entropy=some,
        effective_sample_size=0.5,
        pareto_k=0.1,
        both_sides=sides,
        exact=None,
        method=None,
        log_z_ising=None,
        energy_per_site=None,
        magnetisation_abs=None,
        exact_spins=None,
        samples=samples,
    )


def test_an_evaluation_whose_sides_do_not_overlap_says_so_in_words_and_in_json():
    noise = 5 * np.random.default_rng(0).normal(size=(2, 64))
    found = evaluation(noise[0] - 450, noise[1] + 450)
    assert found.both_sides is not None and found.both_sides.overlap == 0.0
    assert any("do not overlap" in warning for warning in found.warnings)
    assert "no overlap" in found.table() and "do not overlap" in found.table()
    document = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert document["overlap"] == 0.0
    assert document["acceptance_ratio_free_energy"]["stderr"] is None
    near = evaluation(noise[0] / 50, noise[1] / 50)
    assert not near.warnings and "no overlap" not in near.table()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        (["exact", "--size", "300"], 300_000),
        (["monte-carlo", "--size", "4", "--samples", "8", "--output"], 900_000),
        (["train", "--size", "4", "--steps", "5", "--output"], 1_200_000),
        (["density", "moons", "--steps", "5", "--output"], 600_000),
    ],
)
def test_a_small_address_space_is_refused_in_one_line(arguments: list[str], limit: int, tmp_path: Path):
    output = [str(tmp_path / "spins.npz")] if arguments[-1] == "--output" else []
    words = [sys.executable, "-m", "isingflow.cli", *arguments, *output]
    found = subprocess.run(
        ["bash", "-c", f"ulimit -v {limit}; exec {shlex.join(words)}"], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1
    assert re.search(r"error: .* needs .* of address space, [\d.]+ [MG]iB are left", found.stderr)
    assert not any(tmp_path.iterdir())
