"""Bad calls of lattices, exact solutions, statistics, observables and Monte Carlo: one line each, and nothing accepted.

Every public function of these rooms is in the table below, found by introspection, with good arguments and the kind of
each; for every kind there is a list of values that are none.
"""

import importlib
import inspect
import math
import pkgutil
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import networkx
import numpy as np
import pytest
import torch

from isingflow.errors import IsingflowError
from isingflow.exact.continuous import continuous_form
from isingflow.lattice import Group, Lattice, ring_group, square
from isingflow.lattice.permutations import SQUARE_POINT_MAPS
from isingflow.monte_carlo.couplings import Couplings
from isingflow.observables.reweighted import Reweighted
from isingflow.observables.thermal import ThermalSeries
from isingflow.statistics.estimate import Estimate, Estimates
from isingflow.statistics.mixing import Mixing
from isingflow.statistics.reweighting import Reweighting

ROOMS = ("exact", "lattice", "monte_carlo", "observables", "statistics")
LONGEST = 300
"""Characters of a message."""

# --- values that are none, by the kind of argument

NO_NUMBERS = ["x", None, [], [1.0, 2.0], {}, True, 1j, b"1", object(), np.ones(2), np.array("x"), (i for i in range(3))]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.inf), 10**400]
NO_ARRAYS = [
    None,
    "x",
    {},
    object(),
    np.array(["a", "b"]),
    np.array([1.0, None], dtype=object),
    np.array([10**30, 1]),
    [[1.0], [1.0, 2.0]],
    [1j, 2j],
    [True, False],
    (i for i in range(3)),
    torch.ones(2, dtype=torch.complex64),
    np.array(["2026-01-01"], dtype="datetime64[D]"),
]
EMPTY = [[], np.zeros((0, 3)), np.zeros((0, 0)), np.zeros((3, 0)), torch.zeros(0)]


def spoilt(good: np.ndarray, *values: float) -> list[Any]:
    """A good array with one entry exchanged, masked ones, and the same in too many and too few axes."""
    arrays = []
    for value in values:
        array = np.array(good, dtype=float)
        array.flat[-1] = value
        arrays.append(array)
    masked = np.ma.masked_array(good, mask=False)
    masked[(-1,) * np.ndim(good)] = np.ma.masked
    return [*arrays, masked, np.asarray(good)[None, None, None], np.asarray(good).flat[0]]


GRID = np.full((3, 4), 0.3)
MATRIX = np.array([[0.0, 0.5, 0.1], [0.5, 0.0, 0.2], [0.1, 0.2, 0.0]])
SAMPLES = np.array([0.1, 0.5, 0.2, 0.7, 0.3, 0.6, 0.25, 0.8, 0.9, 0.4])
SPINS = np.where(np.arange(64).reshape(4, 4, 4) % 3, 1, -1)
STATES = SPINS[:2]
POINTS = np.repeat([4.0, 8.0], 6)
TEMPERATURES = np.linspace(0.3, 0.5, 8)
ESTIMATES = [Estimate(1.0, 0.1)] * 8
LARGE = [1e300, -1e200]

KINDS: dict[str, list[Any]] = {
    "number": NO_NUMBERS + NOT_FINITE,
    "coupling": [*NO_NUMBERS, *NOT_FINITE, *LARGE],
    "beta": [*NO_NUMBERS, *NOT_FINITE, *LARGE],
    "positive": [*NO_NUMBERS, *NOT_FINITE, 0, -1.0, 1e300],
    "value": [*NO_NUMBERS, 10**400],
    "error": [*NO_NUMBERS, 10**400, -1.0, -math.inf],
    "divisor": [*NO_NUMBERS, *NOT_FINITE, 0],
    "log Z": [*NO_NUMBERS, *NOT_FINITE],
    "count": [*NO_NUMBERS, *NOT_FINITE, 0, -1, 1.5, 2.0, 10**30],
    "count or none": [value for value in (*NO_NUMBERS, *NOT_FINITE, 0, -1, 1.5, 2.0, 10**30) if value is not None],
    "length": [*NO_NUMBERS, *NOT_FINITE, 0, 1, -3, 4.5, 4.0, 10**30, 10**7],
    "chain length": [*NO_NUMBERS, *NOT_FINITE, 0, 1, -3, 4.5, 4.0, 10**30, 10**9 + 1],
    "couplings of a chain": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES[:3], math.nan, -math.inf, 1e300), SAMPLES[:1]],
    "length or none": [v for v in (*NO_NUMBERS, *NOT_FINITE, 0, 1, -3, 4.5, 10**30) if v is not None],
    "seed": [*NO_NUMBERS, *NOT_FINITE, -1, 1.5, 10**30],
    "flag": [None, 0, 1, "yes", [], math.nan, np.ones(2)],
    "boundary": [None, 0, "", "closed", "Open", ["open"], b"open"],
    "states to begin with": [
        *(v for v in NO_ARRAYS if v is not None), *EMPTY, *spoilt(STATES, math.nan, math.inf, 0, 2), STATES[0],
    ],
    "size of a lattice": [*NO_ARRAYS, *EMPTY, *spoilt(POINTS, math.nan, math.inf, 0, -1.0)],
    "point": [*NO_ARRAYS, *EMPTY, *spoilt(POINTS, math.nan, -math.inf), POINTS[:3]],
    "error of a point": [*NO_ARRAYS, *EMPTY, *spoilt(POINTS, math.nan, math.inf, 0, -1.0), POINTS[:3]],
    "curve": [None, 3, "binder", SAMPLES, {}],
    "quantity": [*NO_NUMBERS, "Binder", "energy_per_site", ""],
    "series of energies": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES[None], math.nan, math.inf), SAMPLES, SAMPLES[None, :3]],
    "series of m": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES[None], math.nan, 1.5), SAMPLES, SAMPLES[None, :3]],
    "several series": [
        None, 3, [], [SAMPLES], ["x", "y"], [SAMPLES[None]], [SAMPLES[None], np.full((1, 10), math.nan)]
    ],
    "several columns": [
        None, 3, [], [SAMPLES], ["x", "y"], [SAMPLES[None]] * 2, [SAMPLES[None, :, None], SAMPLES[None, :3, None]]
    ],
    "sampler": [0, "", "gibbs", "Wolff", ["wolff"], True],
    "lattice": [None, 4, "square", (4, 4), np.ones((4, 4)), networkx.path_graph(3)],
    "grid": [*NO_ARRAYS, *EMPTY, *spoilt(GRID, math.nan, math.inf, 1e300), GRID[0], GRID[:2], GRID.T],
    "grid or none": [v for v in (*NO_ARRAYS, *EMPTY, *spoilt(GRID, math.nan, math.inf, 1e300)) if v is not None],
    "external": ["x", True, 1j, {}, ["a"], *NOT_FINITE, *LARGE, [0.1, 0.2], np.ones((4, 5)), np.ones((4, 4)) * 1j,
                 *spoilt(np.ones((4, 4)), math.nan, math.inf, 1e300)[:-1]],
    "matrix": [*NO_ARRAYS, *EMPTY, *spoilt(MATRIX, math.nan, math.inf, 1e300), MATRIX[:2], MATRIX[0], np.triu(MATRIX)],
    "vector": [v for v in (*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES[:3], math.nan, -math.inf, 1e300)) if v is not None],
    "plane": [*NO_ARRAYS, *EMPTY, SAMPLES, 1.0],
    "strengths": [*NO_ARRAYS, *EMPTY, *spoilt(np.ones((4, 4)), math.nan, math.inf, 1e300)[:-1], np.ones((4, 5))],
    "chains": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, math.inf, -1e300), SAMPLES[:1]],
    "values": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, 1e300), SAMPLES[:1], np.array([1, math.inf, -math.inf])],
    "energies": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, math.inf, 1e300), SAMPLES[:1]],
    "forward": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, math.inf, 1e300), SAMPLES[:1]],
    "reverse": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, -math.inf, 1e300), SAMPLES[:1]],
    "log-weights": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, math.inf, 1e300)[:-2], np.full(10, -math.inf)],
    "log-weights or none": [
        v for v in (*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, math.inf), SAMPLES[:3]) if v is not None
    ],
    "weights": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, math.inf, -1.0)[:-2], np.zeros(10)],
    "islands": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES.reshape(2, 5), math.nan, math.inf, 1e300), SAMPLES,
                SAMPLES.reshape(1, 10)],
    "columns": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES[:, None], math.nan, math.inf, 1e300), SAMPLES],
    "blocks": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES, math.nan, math.inf)],
    "starts": [*NO_ARRAYS, *EMPTY, [0, 10], [1, 2], [0, 5, 5], [0, -1], [0.5], [math.nan], [[0, 5]], [0, 10**30]],
    "rows": [None, 3, torch.tensor(1.0), SAMPLES, [SAMPLES[:, None]], [torch.ones(3)], [],
             [torch.full((3, 2), math.nan)], [torch.ones(2, 3), torch.ones(2, 4)],
             [torch.ones(2, 2, dtype=torch.complex64)], ["x"]],
    "series": [*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES[None], math.nan, math.inf, 1e300), SAMPLES],
    "function": [None, 3, "mean", SAMPLES, lambda means: None, lambda means: "x", lambda means: np.zeros(7)],
    "spins": [*NO_ARRAYS, *EMPTY, *spoilt(SPINS, math.nan, math.inf, 0, 2), SPINS[0], SPINS[:1], SPINS[:, :3]],
    "fields": [*NO_ARRAYS, *EMPTY, *spoilt(SPINS, math.nan, math.inf), SPINS[0], SPINS[:, :3]],
    "spin weights": [v for v in (*NO_ARRAYS, *EMPTY, *spoilt(SAMPLES[:4], math.nan, math.inf), np.full(4, -math.inf))
                     if v is not None],
    "states": [*NO_ARRAYS, *EMPTY, SPINS.reshape(4, 16), np.ones((4, 15), np.int8), np.ones(16, np.int8)],
    "several": [*NO_ARRAYS, *EMPTY, 1.0],
    "temperatures": [*NO_ARRAYS, *EMPTY, *spoilt(TEMPERATURES, math.nan, math.inf, 0.3), TEMPERATURES[:-1]],
    "estimates": [None, 3, "x", {}, SAMPLES, ESTIMATES[:-1], [*ESTIMATES[:-1], 1.0], [SAMPLES] * 8],
    "several errors": [*NO_ARRAYS, *EMPTY, -SAMPLES, SAMPLES[:3], 1.0],
    "pair of strengths": [None, "x", 1.0, (1.0,), (1.0, 1.0, 1.0), (1.0, "x"), (1.0, math.nan), (1.0, np.ones((4, 5)))],
    "strengths of all": [None, "x", (1.0,), (1.0, 1.0, 1.0), (1.0, "x"), (1.0, math.nan), (1.0, np.ones((4, 5)))],
    "lengths": [None, 4, "44", (), (4, 1), (4, -2), (4, 1.5), (4, math.nan), (4, True), (2,) * 7, (4, 10**30)],
    "boundaries": [None, 0, "", "closed", [], ["open", "closed"], ("open",) * 7, b"open"],
    "sites": [*NO_NUMBERS, *NOT_FINITE, 0, 1, 2, -3, 4.5, 4.0, 10**30, 10**8],
    "bonds": [*NO_ARRAYS, *EMPTY, [[0, 3], [1, 2]], [[0, -1], [1, 2]], [[0, 0], [1, 2]], [[0, 1]], [0, 1],
              [[0.5, 1], [1, 2]]],
    "planar bonds": [*NO_ARRAYS, [[0, 3], [1, 2]], [[0, -1], [1, 2]], [[0, 0], [1, 2]], [[0, 1]], [0, 1],
                     [[0.5, 1], [1, 2]]],
    "planar couplings": [*NO_ARRAYS, [1.0], [1.0, math.nan], [1.0, math.inf], [1.0, 1e300]],
    "bond strengths": [None, "x", 3, {}, [], [[1.0], [1.0, 2.0]], [1j, 2j], [True, False], torch.ones(2), [1.0],
                       [1.0, math.nan], [1.0, math.inf], [1.0, 1e300], ["x", 1.0], [None, 1.0], [1.0, [2.0]]],
    "graph": [None, "x", 3, [(0, 1)], networkx.Graph(), networkx.DiGraph([(0, 1)]), networkx.Graph([(0, 0)])],
    "description": [None, [], "square", {}, {"kind": "cube"}, {**square(4).to_dict(), "shape": [4, math.nan]},
                    {**square(4).to_dict(), "jx": math.nan}, {**square(4).to_dict(), "more": 1},
                    {**square(4).to_dict(), "boundary": 1}, {**square(4).to_dict(), "shape": None}],
    "group description": [None, [], {}, {**ring_group(3).to_dict(), "point": [[0, 1]]},
                          {**ring_group(3).to_dict(), "shape": [-3]}, {**ring_group(3).to_dict(), "flip": 1},
                          {**ring_group(3).to_dict(), "shape": [3.0]}, {**ring_group(3).to_dict(), "point": 7}],
    "group": [None, 3, "translations", square(4)],
    "shape": [None, 4, "4", (0,), (-1,), (1.5,), (math.nan,), ("x",), (True,), (10**30,)],
    "weight shape": [4, "4", (-1,), (1.5,), (math.nan,), ("x",), (10**30,), (3,)],
    "maps": [None, 3, "x", ((1, 0),), (((1.5, 0), (0, 1)),), (((1, 0), (0, "x")),)],
    "permutations": [None, 3, "x", (3,), ([0, 1],), ([0, 1, 1],), ([0, 1, 7],), ([0.5, 1, 2],), (["a", "b", "c"],)],
    "generator": [None, 0, "x", random.Random(0), np.random.RandomState(0)],
    "negative": [*NO_NUMBERS, *NOT_FINITE, -1, 1.5, 10**30],
    "field": [None, 3, "x", [1.0] * 4, np.ones(3), np.ones((4, 1)), torch.ones(2, 3), np.float64(1.0)],
    "callback": [3, "x", []],
}  # fmt: skip

# --- what is called: good arguments, and the kind of each that is spoilt

LATTICE = square(4)
FORM = continuous_form(LATTICE, 0.3)
MODEL = Couplings.of(LATTICE, 0.3)
ROWS = [torch.ones(3, 2), torch.zeros(2, 2)]
Case = tuple[dict[str, Any], dict[str, str]]


def curve_of(size: int, *order: float) -> Reweighted:
    """Invented chains at two temperatures, with so much order at each."""
    rng, series = np.random.default_rng(size), []
    for beta, share in zip((0.4, 0.5), order, strict=True):
        m = share * rng.choice([-0.5, 0.5], (4, 200)) + (1 - share) * rng.uniform(-0.5, 0.5, (4, 200)) / 2
        series.append(ThermalSeries(square(size), beta, rng.normal(-400 * beta, 20, (4, 200)), m, np.ones((4, 200))))
    return Reweighted(series, resamples=10)


def first(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


CASES: dict[str, Case] = {
    "lattice.critical.critical_beta": ({"lattice": LATTICE}, {"lattice": "lattice"}),
    "lattice.critical.is_critical": ({"lattice": LATTICE, "beta": 0.3}, {"lattice": "lattice"}),
    "lattice.critical.anisotropic": ({"jx": 1.0, "jy": 1.0}, {"jx": "coupling", "jy": "coupling"}),
    "exact.averages.averages": ({"lattice": LATTICE, "beta": 0.3}, {"lattice": "lattice", "beta": "beta"}),
    "exact.continuous.continuous_form": (
        {"lattice": LATTICE, "beta": 0.3, "min_eigenvalue": 0.1},
        {"lattice": "lattice", "beta": "beta", "min_eigenvalue": "positive"},
    ),
    "exact.enumeration.solve": (
        {"couplings": MATRIX, "fields": SAMPLES[:3]},
        {"couplings": "matrix", "fields": "vector"},
    ),
    "exact.enumeration.polarised": (
        {"couplings": MATRIX, "fields": SAMPLES[:3]},
        {"couplings": "matrix", "fields": "vector"},
    ),
    "exact.enumeration.probabilities": (
        {"couplings": MATRIX, "fields": SAMPLES[:3]},
        {"couplings": "matrix", "fields": "vector"},
    ),
    "exact.ground_state.ground_state": ({"lattice": LATTICE}, {"lattice": "lattice"}),
    "monte_carlo.ground_state.lowest_energy": (
        {"lattice": LATTICE, "samples": 4, "chains": 2, "seed": 0},
        {"lattice": "lattice", "samples": "count", "chains": "count", "seed": "negative"},
    ),
    "observables.overlap.overlap": ({"lattice": LATTICE, "spins": SPINS[None].repeat(2, 0)}, {"lattice": "lattice"}),
    "observables.overlap.overlaps": ({"lattice": LATTICE, "spins": SPINS[None].repeat(2, 0)}, {"lattice": "lattice"}),
    "exact.kaufman.log_z": (
        {"lx": 4, "ly": 4, "kx": 0.3, "ky": 0.2},
        {"lx": "length", "ly": "length", "kx": "coupling", "ky": "coupling"},
    ),
    "exact.kaufman.solve": (
        {"lx": 4, "ly": 4, "jx": 1.0, "jy": 1.0, "beta": 0.3},
        {"lx": "length", "ly": "length", "jx": "coupling", "jy": "coupling", "beta": "beta"},
    ),
    "exact.kaufman.partition_function": (
        {"lx": 4, "ly": 4, "kx": 0.3, "ky": 0.2},
        {"lx": "length", "ly": "length", "kx": "coupling", "ky": "coupling"},
    ),
    "exact.moments.moments": ({"lattice": LATTICE, "beta": 0.3}, {"lattice": "lattice", "beta": "beta"}),
    "exact.moments.along_axes": ({"correlations": GRID}, {"correlations": "plane"}),
    "exact.moments.graph": (
        {"couplings": MATRIX, "fields": SAMPLES[:3]},
        {"couplings": "matrix", "fields": "vector"},
    ),
    "exact.moments.torus": (
        {"lx": 4, "ly": 3, "kx": 0.3, "ky": 0.2},
        {"lx": "length", "ly": "length", "kx": "coupling", "ky": "coupling"},
    ),
    "exact.onsager.solve": (
        {"jx": 1.0, "jy": 1.0, "beta": 0.3},
        {"jx": "coupling", "jy": "coupling", "beta": "beta"},
    ),
    "exact.onsager.spontaneous_magnetisation": (
        {"jx": 1.0, "jy": 1.0, "beta": 0.5},
        {"jx": "coupling", "jy": "coupling", "beta": "beta"},
    ),
    "exact.onsager.triangular": ({"beta": 0.3, "coupling": 1.0}, {"beta": "beta", "coupling": "coupling"}),
    "exact.chain.uniform": (
        {"sites": 4, "coupling": 0.3, "field": 0.1, "closed": False},
        {"sites": "chain length", "coupling": "coupling", "field": "coupling", "closed": "flag"},
    ),
    "exact.chain.solve": (
        {"couplings": SAMPLES[:3], "fields": SAMPLES[:3]},
        {"couplings": "couplings of a chain", "fields": "vector"},
    ),
    "exact.planar.solve": (
        {"sites": 3, "bonds": np.array([[0, 1], [1, 2]]), "couplings": np.array([0.3, -0.4])},
        {"sites": "count", "bonds": "planar bonds", "couplings": "planar couplings"},
    ),
    "exact.planar.merged": (
        {"sites": 3, "bonds": np.array([[0, 1], [1, 2]]), "couplings": np.array([0.3, -0.4])},
        {"sites": "count", "bonds": "planar bonds", "couplings": "planar couplings"},
    ),
    "exact.pfaffian.solve": (
        {"kx": GRID, "ky": GRID, "longest": 10.0},
        {"kx": "grid", "ky": "grid", "longest": "positive"},
    ),
    "exact.triangular.solve": (
        {"lx": 3, "ly": 4, "coupling": 0.3},
        {"lx": "length", "ly": "length", "coupling": "coupling"},
    ),
    "exact.thermodynamics.thermodynamics": (
        {"lattice": LATTICE, "beta": 0.3, "field": 0.1, "longest": 10.0},
        {"lattice": "lattice", "beta": "beta", "field": "external", "longest": "positive"},
    ),
    "exact.fermions.work_limit": ({"longest": 10.0}, {"longest": "positive"}),
    "exact.transfer_matrix.polarised": (
        {"kx": GRID, "ky": GRID, "fields": GRID},
        {"kx": "grid", "ky": "grid", "fields": "grid or none"},
    ),
    "exact.transfer_matrix.solve": ({"kx": GRID, "ky": GRID}, {"kx": "grid", "ky": "grid"}),
    "exact.transfer_matrix.affordable": (
        {"kx": GRID, "ky": GRID, "longest": 10.0},
        {"kx": "grid", "ky": "grid", "longest": "positive"},
    ),
    "exact.transfer_matrix.grid_couplings": ({"kx": GRID, "ky": GRID}, {"kx": "grid", "ky": "grid"}),
    "lattice.checks.check_beta": ({"beta": 0.3}, {"beta": "number"}),
    "lattice.checks.check_boundary": ({"boundary": "open"}, {"boundary": "boundary"}),
    "lattice.checks.check_shape": ({"lx": 4, "ly": None}, {"lx": "length", "ly": "length or none"}),
    "lattice.checks.check_strength": ({"name": "jx", "value": 1.0}, {"value": "coupling"}),
    "lattice.disorder.random_field": (
        {"lattice": LATTICE, "strength": 0.3, "seed": 1},
        {"lattice": "lattice", "strength": "coupling", "seed": "seed"},
    ),
    "lattice.graph.check_magnet": ({"lattice": LATTICE, "beta": 0.3}, {"lattice": "lattice", "beta": "beta"}),
    "lattice.kinds.square": (
        {"lx": 4, "ly": None, "jx": 1.0, "jy": 1.0, "boundary": "periodic"},
        {"lx": "length", "ly": "length or none", "jx": "strengths", "jy": "strengths", "boundary": "boundary"},
    ),
    "lattice.kinds.triangular": (
        {"lx": 4, "ly": None, "boundary": "periodic"},
        {"lx": "length", "ly": "length or none", "boundary": "boundary"},
    ),
    "lattice.kinds.edwards_anderson": (
        {"lx": 4, "ly": None, "seed": 0, "boundary": "periodic"},
        {"lx": "length", "ly": "length or none", "seed": "seed", "boundary": "boundary"},
    ),
    "lattice.networks.from_graph": ({"graph": networkx.path_graph(3)}, {"graph": "graph"}),
    "lattice.kinds.from_dict": ({"data": LATTICE.to_dict()}, {"data": "description"}),
    "lattice.kinds.from_bonds": (
        {"sites": 3, "bonds": [[0, 1], [1, 2]], "strengths": [1.0, 0.5]},
        {"sites": "sites", "bonds": "bonds", "strengths": "bond strengths"},
    ),
    "lattice.kinds.heading": ({"lattice": LATTICE, "beta": 0.3}, {"lattice": "lattice", "beta": "beta"}),
    "lattice.symmetry.ring_group": ({"sites": 4}, {"sites": "count"}),
    "lattice.symmetry.trivial_group": ({"shape": (4,)}, {"shape": "shape"}),
    "lattice.symmetry.group_from_dict": ({"data": ring_group(3).to_dict()}, {"data": "group description"}),
    "lattice.symmetry.square_torus_group": (
        {"lx": 4, "ly": 4, "axes_equal": True},
        {"lx": "count", "ly": "count", "axes_equal": "flag"},
    ),
    "lattice.symmetry.triangular_torus_group": ({"lx": 4, "ly": 4}, {"lx": "count", "ly": "count"}),
    "lattice.symmetry.hypercubic_torus_group": ({"shape": (3, 3)}, {"shape": "shape"}),
    "lattice.kinds.chain": (
        {"length": 4, "j": 1.0, "boundary": "open"},
        {"length": "chain length", "j": "number", "boundary": "boundaries"},
    ),
    "lattice.kinds.cubic": ({"length": 3, "boundary": "open"}, {"length": "length", "boundary": "boundaries"}),
    "lattice.kinds.hypercubic": (
        {"lengths": (4, 4), "j": 1.0, "boundary": "open"},
        {"lengths": "lengths", "j": "strengths of all", "boundary": "boundaries"},
    ),
    "exact.frontier.solve": (
        {"sites": 3, "bonds": np.array([[0, 1], [1, 2]]), "couplings": np.array([0.3, -0.4]), "fields": SAMPLES[:3]},
        {"sites": "count", "bonds": "planar bonds", "couplings": "planar couplings", "fields": "vector"},
    ),
    "lattice.permutations.point_permutations": (
        {"shape": (4, 4), "maps": SQUARE_POINT_MAPS, "about_centre": False},
        {"shape": "shape", "maps": "maps", "about_centre": "flag"},
    ),
    "lattice.symmetry.require": (
        {"potential_group": ring_group(3), "target_group": ring_group(3)},
        {"potential_group": "group", "target_group": "group"},
    ),
    "monte_carlo.simulate.simulate": (
        {"lattice": LATTICE, "beta": 0.3, "samples": 2, "chains": 2, "sampler": "wolff", "every": 1, "thermalise": 1}
        | {"start": STATES, "seed": 0, "threads": 1, "report_progress": None},
        {"lattice": "lattice", "beta": "beta", "samples": "count", "chains": "count", "sampler": "sampler"}
        | {
            "start": "states to begin with",
            "every": "count",
            "thermalise": "count or none",
            "seed": "seed",
            "threads": "count or none",
        }
        | {"report_progress": "callback"},
    ),
    "monte_carlo.tempering.random_spins": (
        {"rng": np.random.default_rng(0), "shape": (4,)},
        {"rng": "generator", "shape": "shape"},
    ),
    "observables.crossing.crossing": (
        {"small": curve_of(4, 0.5, 0.5), "large": curve_of(8, 0.0, 1.0), "quantity": "binder"},
        {"small": "curve", "large": "curve", "quantity": "quantity"},
    ),
    "observables.measure.measure": (
        {"lattice": LATTICE, "beta": 0.3, "spins": SPINS, "log_weight": SAMPLES[:4]},
        {"lattice": "lattice", "beta": "beta", "spins": "spins", "log_weight": "spin weights"},
    ),
    "observables.series.per_sample": (
        {"lattice": LATTICE.with_field(0.1), "field": SPINS, "beta": 0.3},
        {"lattice": "lattice", "field": "fields", "beta": "beta"},
    ),
    "statistics.chains.autocorrelation": ({"chains": SAMPLES}, {"chains": "chains"}),
    "statistics.chains.autocorrelation_time": ({"chains": SAMPLES}, {"chains": "chains"}),
    "statistics.chains.diagnostics": ({"chains": SAMPLES}, {"chains": "chains"}),
    "statistics.chains.effective_samples": ({"chains": SAMPLES}, {"chains": "chains"}),
    "statistics.checks.check_samples": (
        {"name": "x", "values": SAMPLES},
        {"values": "energies"},
    ),
    "statistics.estimate.estimate_of": (
        {"value": SAMPLES, "stderr": SAMPLES},
        {"value": "several", "stderr": "several errors"},
    ),
    "statistics.free_energy.mean": ({"values": SAMPLES}, {"values": "values"}),
    "statistics.free_energy.variational_free_energy": ({"log_weights": SAMPLES}, {"log_weights": "forward"}),
    "statistics.free_energy.lower_bound": ({"log_weights": SAMPLES}, {"log_weights": "reverse"}),
    "statistics.free_energy.reweighted_free_energy": (
        {"log_weights": SAMPLES, "corrected": False},
        {"log_weights": "forward", "corrected": "flag"},
    ),
    "statistics.free_energy.acceptance_ratio_free_energy": (
        {"forward": SAMPLES, "reverse": SAMPLES},
        {"forward": "forward", "reverse": "reverse"},
    ),
    "statistics.free_energy.overlap": (
        {"forward": SAMPLES, "reverse": SAMPLES, "free_energy": 0.0},
        {"forward": "forward", "reverse": "reverse", "free_energy": "log Z"},
    ),
    "statistics.free_energy.internal_energy": (
        {"energies": SAMPLES, "log_weights": SAMPLES},
        {"energies": "energies"},
    ),
    "statistics.free_energy.entropy": (
        {"energies": SAMPLES, "log_weights": SAMPLES},
        {"energies": "energies", "log_weights": "log-weights"},
    ),
    "statistics.free_energy.reverse_effective_sample_size": (
        {"log_weights": SAMPLES, "free_energy": 0.0},
        {"log_weights": "reverse", "free_energy": "log Z"},
    ),
    "statistics.islands.log_means": ({"log_weights": SAMPLES.reshape(2, 5)}, {"log_weights": "islands"}),
    "statistics.islands.islands_free_energy": ({"log_weights": SAMPLES.reshape(2, 5)}, {"log_weights": "islands"}),
    "statistics.peaks.heat_capacity_peak": (
        {"betas": TEMPERATURES, "log_z": ESTIMATES, "energy": ESTIMATES, "heat_capacity": ESTIMATES, "seed": 1},
        {"betas": "temperatures", **dict.fromkeys(("log_z", "energy", "heat_capacity"), "estimates"), "seed": "seed"},
    ),
    "statistics.jackknife.jackknife": (
        {"function": first, "columns": SAMPLES[:, None], "log_weights": SAMPLES},
        {"function": "function", "columns": "columns"},
    ),
    "statistics.jackknife.jackknife_mean": ({"values": SAMPLES}, {"values": "energies"}),
    "statistics.jackknife.block_starts": (
        {"columns": SAMPLES[:, None], "weights": SAMPLES, "most": 8},
        {"columns": "columns", "weights": "weights", "most": "count"},
    ),
    "statistics.jackknife.block_sums": (
        {"columns": SAMPLES[:, None], "weights": SAMPLES, "starts": np.array([0, 5])},
        {"columns": "columns", "weights": "weights", "starts": "starts"},
    ),
    "statistics.jackknife.jackknife_sums": (
        {"function": lambda means: means, "sums": SAMPLES, "weights": SAMPLES},
        {"function": "function", "sums": "blocks", "weights": "weights"},
    ),
    "statistics.moments.moments": ({"batches": ROWS}, {"batches": "rows"}),
    "statistics.scaling.fit": (
        {"sizes": POINTS, "betas": np.tile(np.linspace(0.42, 0.46, 6), 2), "values": POINTS, "errors": POINTS}
        | {"beta": 0.44, "nu": 1.0},
        {"sizes": "size of a lattice", "betas": "point", "values": "point", "errors": "error of a point"}
        | {"beta": "number", "nu": "positive"},
    ),
    "statistics.weights.pareto_k": ({"log_weights": SAMPLES}, {"log_weights": "log-weights"}),
    "statistics.weights.effective_fraction": ({"weights": SAMPLES}, {"weights": "weights"}),
    "statistics.weights.effective_sample_size": ({"log_weights": SAMPLES}, {"log_weights": "log-weights"}),
    "statistics.weights.relative_weights": (
        {"log_weights": SAMPLES, "shape": (10,)},
        {"log_weights": "log-weights or none", "shape": "weight shape"},
    ),
}
CASES["monte_carlo.simulate.stream"] = CASES["monte_carlo.simulate.simulate"]

ENERGIES = {"energies": [SAMPLES[None], SAMPLES[None]], "columns": [SAMPLES[None, :, None]] * 2}

METHODS: dict[str, tuple[Callable, dict[str, Any], dict[str, str]]] = {
    "Lattice.with_field": (LATTICE.with_field, {"field": 0.1}, {"field": "external"}),
    "Lattice.couplings": (LATTICE.couplings, {"beta": 0.3}, {"beta": "beta"}),
    "ContinuousForm.free_energy": (FORM.free_energy, {"log_z_ising": 1.0}, {"log_z_ising": "log Z"}),
    "ContinuousForm.log_z_ising": (FORM.log_z_ising, {"free_energy": 1.0}, {"free_energy": "log Z"}),
    "Couplings.of": (Couplings.of, {"lattice": LATTICE, "beta": 0.3}, {"lattice": "lattice", "beta": "beta"}),
    "Couplings.measure": (MODEL.measure, {"spins": np.ones((2, 16), np.int8)}, {"spins": "states"}),
    "Estimate": (Estimate, {"value": 1.0, "stderr": 0.1}, {"value": "value", "stderr": "error"}),
    "Estimate +": (Estimate(1.0, 0.1).__add__, {"other": 1.0}, {"other": "value"}),
    "Estimate -": (Estimate(1.0, 0.1).__sub__, {"other": 1.0}, {"other": "value"}),
    "Estimate *": (Estimate(1.0, 0.1).__mul__, {"factor": 1.0}, {"factor": "number"}),
    "Estimate /": (Estimate(1.0, 0.1).__truediv__, {"divisor": 1.0}, {"divisor": "divisor"}),
    "Estimates": (Estimates, {"value": SAMPLES, "stderr": SAMPLES}, {"value": "several", "stderr": "several errors"}),
    "Group.sample": (
        ring_group(3).sample,
        {"rng": np.random.default_rng(0), "n": 2},
        {"rng": "generator", "n": "negative"},
    ),
    "Group.contains": (ring_group(3).contains, {"other": ring_group(3)}, {"other": "group"}),
    "Element.apply": (ring_group(4).identity.apply, {"field": SAMPLES[:4]}, {"field": "field"}),
    "Lattice": (
        Lattice,
        {"kind": "square", "shape": (4, 4), "boundary": "open", "j": (1.0, 1.0)},
        {"kind": "sampler", "shape": "shape", "boundary": "boundary", "j": "pair of strengths"},
    ),
    "Group": (
        Group,
        {"shape": (3,), "translations": False, "point": (np.arange(3),), "flip": True},
        {"shape": "shape", "translations": "flag", "point": "permutations", "flip": "flag"},
    ),
    "Reweighting": (
        Reweighting,
        {"betas": [0.1, 0.2], **ENERGIES, "resamples": 10, "seed": 0},
        {"betas": "vector", "energies": "several series", "columns": "several columns", "resamples": "count"}
        | {"seed": "seed"},
    ),
    "Reweighting.means": (Reweighting([0.1, 0.2], **ENERGIES).means, {"betas": [0.15]}, {"betas": "vector"}),
    "ThermalSeries": (
        ThermalSeries,
        {"lattice": LATTICE, "beta": 0.3, "energy": SAMPLES[None], "magnetisation": SAMPLES[None]}
        | {"structure_factor": SAMPLES[None]},
        {"lattice": "lattice", "beta": "beta", "energy": "series of energies", "magnetisation": "series of m"}
        | {"structure_factor": "series of energies"},
    ),
    "ThermalSeries.of": (
        ThermalSeries.of,
        {"lattice": LATTICE, "beta": 0.3, "spins": SPINS[None]},
        {"lattice": "lattice", "beta": "beta", "spins": "spins"},
    ),
    "Mixing.of": (Mixing.of, {"values": SAMPLES[None]}, {"values": "series"}),
}

TRUSTED = {
    **dict.fromkeys(
        (
            *(f"monte_carlo.equilibrium.{name}" for name in ("chains_of", "equilibrium")),
            *(f"monte_carlo.paths.{name}" for name in ("moves_for", "prepare", "run")),
            *(f"monte_carlo.schedule.{name}" for name in ("pilot", "schedule", "usual_sweeps")),
            *(f"monte_carlo.source.{name}" for name in ("random_stream", "uniform", "words_of")),
            "monte_carlo.shared_paths.run_together",
            "monte_carlo.simulate.portions",
            *(f"statistics.free_energy.{name}" for name in ("path_free_energies", "path_lower_bounds")),
        ),
        "are handed what `evaluation.annealing` checked",
    ),
    "exact.frontier.sweep_of": "is handed what `solve` checked",
    **dict.fromkeys(
        (
            *(
                f"lattice.grid.{name}"
                for name in ("bonds", "check_boundaries", "check_j", "check_lengths", "diagonals")
            ),
            *(f"lattice.grid.{name}" for name in ("listed", "open_axes", "size_in_words", "strengths_in_words")),
            *(f"lattice.grid.{name}" for name in ("total_strength", "units")),
            *(f"lattice.networks.{name}" for name in ("layout", "to_graph")),
        ),
        "is Lattice, from which all its values come",
    ),
    "lattice.distances.squared_lengths": "is handed the group of a potential",
    "lattice.permutations.hyperoctahedral": "is handed a number of dimensions that was checked",
    "exact.ground_state.energy_of": "is handed a state of a lattice that was checked",
    "exact.ground_state.field_of": "is handed a lattice that was checked",
    "exact.fermions.agree": "compares what was computed",
    "exact.fermions.exact": "takes what compiled kernels computed",
    "exact.fermions.logarithm": "takes what compiled kernels computed",
    "exact.fermions.penalties_of": "is handed couplings that were checked",
    "exact.planar.embedding_of": "is handed what `merged` checked",
    "exact.triangular.polynomial": "is handed numbers that were checked",
    "lattice.permutations.check_group_shape": "is Group, from which all its values come",
    "lattice.permutations.permutation_key": "is Group, from which all its values come",
    "lattice.permutations.permutation_order": "is Group, from which all its values come",
    "lattice.checks.check_product": "is handed numbers that were checked",
    "lattice.checks.check_strengths": "is `square`, from which all its values come",
    "lattice.checks.frozen": "makes an array read-only",
    "lattice.checks.check_labels": "is Lattice, from which all its values come",
    **dict.fromkeys(
        (f"lattice.external.{name}" for name in ("by_site", "check", "entry", "kept_by", "total", "words")),
        "is Lattice, from which all its values come",
    ),
    "lattice.edge_lists.adjacency_list": "is read_graph, which hands it lines of a file",
    "lattice.edge_lists.edge_list": "is read_graph, which hands it lines of a file",
    "lattice.edge_lists.edge_table": "is read_graph, which hands it lines of a file",
    "lattice.files.format_of": "is about files, which have a campaign of their own",
    "lattice.files.read_graph": "is about files, which have a campaign of their own",
    "lattice.networks.read_network": "is about files, which have a campaign of their own",
    "monte_carlo.tempering.ladder": "takes the arrays of Couplings.of, as the compiled kernels do",
    "observables.files.magnet_arrays": "writes what a checked lattice says",
    "observables.files.rows_in_time": "writes what simulate gave",
    **dict.fromkeys(
        (f"observables.measure.{name}" for name in ("length_of", "row_spacing")), "are handed a checked lattice"
    ),
    "observables.reweighted.length_over_size": "is handed what `Reweighted` gave",
    "observables.samples.lattice_of": "is about files, which have a campaign of their own",
    "observables.series_files.read_series": "is about files, with tests of damaged ones in test_thermal",
    "observables.series_files.write_series": "writes what `ThermalSeries` checked",
    **dict.fromkeys(
        (f"observables.thermal.{name}" for name in ("averages_from", "named")),
        "are handed what `ThermalSeries` checked",
    ),
    "observables.files.sample_writer": "writes what simulate gave",
}
"""Functions that are not called with bad values, and why."""


def public_functions() -> dict[str, Callable]:
    """All functions of the rooms' modules, but not compiled kernels, which take what the functions checked."""
    found = {}
    for room in ROOMS:
        package = importlib.import_module(f"isingflow.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"isingflow.{room}."):
            here = importlib.import_module(module.name)
            for name, value in vars(here).items():
                if inspect.isfunction(value) and value.__module__ == module.name and not name.startswith("_"):
                    found[f"{module.name.removeprefix('isingflow.')}.{name}"] = value
    return found


FUNCTIONS = public_functions()


def all_cases() -> Iterator[tuple[str, Callable, dict[str, Any], dict[str, str]]]:
    for name, (good, kinds) in CASES.items():
        yield name, FUNCTIONS[name], good, kinds
    for name, (call, good, kinds) in METHODS.items():
        yield name, call, good, kinds


def test_every_public_function_is_called_badly():
    assert set(FUNCTIONS) == set(CASES) | set(TRUSTED)
    exported = {value for room in ROOMS for value in exports(room) if inspect.isfunction(value)}
    assert exported <= {FUNCTIONS[name] for name in set(CASES)}


def exports(room: str) -> list[Any]:
    package = importlib.import_module(f"isingflow.{room}")
    return [getattr(package, name) for name in package.__all__]


def test_the_good_calls_are_good():
    for _, call, good, kinds in all_cases():
        assert set(kinds) <= set(good)
        call(**good)


@pytest.mark.parametrize(("name", "call", "good", "kinds"), [pytest.param(*case, id=case[0]) for case in all_cases()])
def test_bad_values_are_refused_in_one_line(name, call, good, kinds):
    failures = []
    for argument, kind in kinds.items():
        for bad in KINDS[kind]:
            complaint = complaint_about(call, good | {argument: bad})
            if complaint:
                failures.append(f"{name}({argument}={described(bad)}): {complaint}")
    assert not failures, "\n".join(failures)


def complaint_about(call: Callable, arguments: dict[str, Any]) -> str | None:
    """What is wrong with how this call fails; None if nothing is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call(**arguments)
        except IsingflowError as error:
            text = str(error)
            if not isinstance(error, ValueError | TypeError):
                return f"{type(error).__name__} is neither a ValueError nor a TypeError"
            if "\n" in text or not 10 < len(text) < LONGEST:
                return f"a message of {len(text)} characters: {text[:LONGEST]}"
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        else:
            return f"accepted: {described(result)}"
    return f"warned: {caught[0].message}" if caught else None


def described(value: Any) -> str:
    return " ".join(repr(value).split())[:80]


def test_the_campaign_is_large():
    calls = sum(len(KINDS[kind]) for _, _, _, kinds in all_cases() for kind in kinds.values())
    assert calls > 1000
