"""Overlaps of replicas against counting states, and their files and figures."""

import json
from itertools import product

import numpy as np
import pytest

from isingflow.cli import main
from isingflow.errors import FileError, InvalidInput
from isingflow.lattice import edwards_anderson, square
from isingflow.monte_carlo import simulate
from isingflow.observables import overlap
from isingflow.observables.samples import Samples
from isingflow.plots.overlap import overlap_figure

GLASS = edwards_anderson(3, seed=1, boundary="open")
BETA = 1.2


def counted():
    """<q^2>, <q^4> and P(q) from all pairs of the 512 states."""
    states = np.array(list(product([-1, 1], repeat=9)))
    weights = np.exp(np.einsum("ni,ij,nj->n", states, GLASS.couplings(BETA), states) / 2)
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    q = (states @ states.T).ravel() / 9
    counts = [weights[np.isclose(q, value)].sum() for value in np.linspace(-1, 1, 10)]
    return weights @ q**2, weights @ q**4, np.array(counts)


@pytest.fixture(scope="module")
def spins():
    return simulate(GLASS, BETA, samples=1500, chains=9, sampler="tempering", seed=3, thermalise=100).spins


def test_averages_agree_with_counting(spins):
    second, fourth, counts = counted()
    found = overlap(GLASS, spins)
    assert (found.pairs, found.samples) == (4, 1500)
    for estimate, answer in (
        (found.overlap_squared, second),
        (found.overlap_fourth, fourth),
        (found.binder, 1 - fourth / (3 * second**2)),
    ):
        assert 0 < estimate.stderr < 0.1 and abs(estimate.value - answer) < 4 * estimate.stderr
    width = np.diff(found.edges)
    assert found.distribution.value @ width == pytest.approx(1.0)
    assert np.all(abs(found.distribution.value * width - counts) < 4.5 * found.distribution.stderr * width + 1e-3)


def test_bins_hold_several_values_of_large_lattices():
    states = np.random.default_rng(0).choice([-1, 1], size=(2, 50, 12, 12)).astype(np.int8)
    states[1, 0] = states[0, 0]
    found = overlap(square(12), states)
    assert len(found.edges) == 66 and np.diff(found.edges).min() > 0.02
    assert found.edges[0] < -1 and found.edges[-1] > 1
    assert found.distribution.value @ np.diff(found.edges) == pytest.approx(1.0)
    assert found.distribution.value[-1] > 0


@pytest.mark.parametrize(
    "bad", [np.ones((1, 5, 3, 3)), np.ones((2, 1, 3, 3)), np.ones((2, 5, 3)), np.zeros((2, 5, 3, 3)), 3]
)
def test_what_is_no_pair_of_chains_is_refused(bad):
    with pytest.raises(InvalidInput):
        overlap(GLASS, bad)


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def test_command(tmp_path, capsys):
    file, figure = tmp_path / "g.npz", tmp_path / "q.png"
    magnet = ["--size", 3, "--lattice", "edwards-anderson", "--boundary", "open", "--beta", 1.2]
    assert run("monte-carlo", *magnet, "--samples", 80, "--output", file, "--quiet") == 0
    capsys.readouterr()
    assert run("observables", file, "--overlap", "--figure", figure, "--json") == 0
    found = json.loads(capsys.readouterr().out)["overlap"]
    assert (
        found["pairs"] == 4 and found["overlap_squared"]["value"] == Samples.read(file).overlap().overlap_squared.value
    )
    assert figure.stat().st_size > 1000
    assert run("observables", file, "--overlap") == 0
    assert "overlap binder" in capsys.readouterr().out
    assert run("observables", file, "--figure", tmp_path / "r.png") == 2
    assert "give --overlap too" in capsys.readouterr().err


def test_files_of_independent_samples_have_no_replicas(tmp_path):
    np.savez(tmp_path / "a.npz", spins=np.ones((6, 3, 3), np.int8), beta=0.3, size=np.array([3, 3]))
    with pytest.raises(FileError, match="spins of independent chains"):
        Samples.read(tmp_path / "a.npz").overlap()


def test_figure(spins):
    (ax,) = overlap_figure(overlap(GLASS, spins)).axes
    assert ax.get_xlabel() == "overlap q" and ax.get_ylim()[0] == 0
