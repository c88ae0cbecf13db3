"""Data sets: laws that all of them keep, densities that are known, and files that are not what they should be."""

import gzip
import hashlib
import math
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from isingflow import datasets
from isingflow.architectures.start import blank_start, fitted_start
from isingflow.datasets import base, mnist, tabular, toy, uci
from isingflow.datasets.spaces import Pixels, Standardised
from isingflow.errors import DatasetError, InvalidInput
from isingflow.flows import Flow, GaussianWhitening, HistogramMarginals

ROOT = Path(__file__).parents[2]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def passed_through(split, size=997, seed=0) -> torch.Tensor:
    return torch.cat(list(split.batches(size, generator(seed))))


def close(ours: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.fixture
def files(tmp_path):
    """A table of 40 x 3 numbers in every kind of file."""
    import h5py

    table = np.random.default_rng(0).normal(5, 2, (40, 3))
    np.save(tmp_path / "table.npy", table)
    np.savez(tmp_path / "table.npz", rows=table)
    np.savetxt(tmp_path / "table.csv", table, delimiter=",", header="a,b,c", comments="")
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["rows"] = table
    return tmp_path, table


# --- laws


LOADERS = {name: lambda name=name, seed=0: datasets.load(name, seed=seed) for name in toy.TOYS} | {
    name: lambda name=name, seed=0: datasets.load("tabular", path=name, seed=seed) for name in tabular.BUNDLED
}
every_dataset = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


@every_dataset
def test_splits_give_finite_float32_rows(load):
    dataset = load()
    for split in (dataset.train, dataset.validation, dataset.test):
        rows = passed_through(split)
        assert rows.shape == (len(split), dataset.dimension) and rows.dtype == torch.float32
        assert rows.isfinite().all()
        drawn = split.draw(7, generator())
        assert drawn.shape == (7, dataset.dimension) and drawn.dtype == torch.float32


@every_dataset
def test_generator_and_seed_decide_everything(load):
    first, again, other = load(), load(), load(seed=1)
    assert torch.equal(first.train.draw(9, generator(3)), again.train.draw(9, generator(3)))
    assert not torch.equal(first.train.draw(9, generator(3)), first.train.draw(9, generator(4)))
    assert torch.equal(passed_through(first.test), passed_through(again.test))
    assert not torch.equal(passed_through(first.test), passed_through(other.test))


@every_dataset
def test_the_way_back_to_data_has_the_slope_that_is_claimed(load):
    dataset = load()
    x = dataset.test.draw(3, generator()).double()
    jacobian = torch.autograd.functional.jacobian(dataset.to_data, x)
    exact = torch.stack([torch.linalg.slogdet(jacobian[i, :, i]).logabsdet for i in range(3)])
    claimed = -dataset.data_log_prob(torch.zeros(3), x)
    torch.testing.assert_close(claimed, exact, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", tabular.BUNDLED)
def test_splits_are_a_partition(name):
    dataset = datasets.load("tabular", path=name)
    parts = [split.index for split in (dataset.train, dataset.validation, dataset.test)]
    assert sorted(np.concatenate(parts)) == list(range(sum(map(len, parts))))


# --- spaces


def test_pixels_are_the_levels_jittered_anew():
    levels = torch.randint(17, (50, 6), generator=generator())
    space = Pixels(17)
    first, second = (space.to_model(levels, generator(seed)) for seed in (1, 2))
    assert not torch.equal(first, second)
    for x in (first, second):
        assert torch.equal(space.to_data(x).floor().int(), levels.int())


def test_uniform_levels_cost_their_logarithm_in_bits():
    """A density that is flat in the unit cube has log2(levels) bits per dimension, wherever the point is."""
    space = Pixels(64)
    rows = np.random.default_rng(0).integers(64, size=(30, 5)).astype(np.uint8)
    split = base.Rows(rows, np.arange(30), space)
    dataset = base.Dataset("levels", 5, split, split, split, space)
    x = split.draw(8, generator())
    flat = space.logit.inverse(x)[1]
    torch.testing.assert_close(dataset.bits_per_dimension(flat, x), torch.full((8,), 6.0, dtype=torch.float64))


def test_bits_need_levels():
    dataset = datasets.load("moons")
    with pytest.raises(InvalidInput, match="moons: bits per dimension need discrete data"):
        dataset.bits_per_dimension(torch.zeros(1), torch.zeros(1, 2))


def test_standardising_keeps_the_digits_of_a_large_mean():
    space = Standardised(torch.tensor([1e9], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    rows = torch.tensor([[1e9 + 0.25]], dtype=torch.float64)
    x = space.to_model(rows, generator())
    assert x.item() == pytest.approx(0.5)
    torch.testing.assert_close(space.to_data(x), rows, rtol=0, atol=1e-6)


# --- toys


@pytest.mark.parametrize("name", [name for name, known in toy.TOYS.items() if known.log_prob])
def test_known_densities_are_those_of_the_samples(name):
    """Cell by cell on a grid: the mean of the density, by the midpoint rule, against the fraction of the samples."""
    known = toy.TOYS[name]
    samples = known.sample(200_000, generator())
    count, cells, reach, points = len(samples), 16, 4.0, 12
    axis = (torch.arange(cells * points, dtype=torch.float64) + 0.5) * 2 * reach / (cells * points) - reach
    grid = torch.cartesian_prod(*[axis] * known.dimension).view(-1, known.dimension)
    volume = (2 * reach / (cells * points)) ** known.dimension
    edges = [np.linspace(-reach, reach, cells + 1)] * known.dimension
    expected, _ = np.histogramdd(grid.numpy(), edges, weights=known.log_prob(grid).exp().numpy() * volume)
    found, _ = np.histogramdd(samples.numpy(), edges)
    assert expected.sum() == pytest.approx(found.sum() / count, abs=3e-3)
    spread = np.sqrt(expected * (1 - expected) / count) + 1e-4
    assert (np.abs(found / count - expected) < 5 * spread).all()


def test_the_density_of_the_checkerboard_is_one_or_nothing():
    known = toy.TOYS["checkerboard"]
    assert (known.log_prob(known.sample(5000, generator())) == -math.log(32)).all()
    outside = torch.tensor([[0.5, -0.5], [-0.5, 0.5], [5.0, 0.5], [0.5, 4.5]])
    assert (known.log_prob(outside) == -math.inf).all()


@pytest.mark.parametrize(
    ("name", "statistic", "values", "spread"),
    [
        ("rings", lambda x: x.norm(dim=1), [0.75, 1.5, 2.25, 3.0], 0.08),
        ("circles", lambda x: x.norm(dim=1), [1.5, 3.0], 3 * 0.08),
        ("eight-gaussians", lambda x: x.norm(dim=1), [4 / 1.414], 0.5 / 1.414),
        ("moons", lambda x: (x + torch.tensor([1.0, 0.2])).div(2), None, None),
    ],
)
def test_toys_lie_where_they_should(name, statistic, values, spread):
    read = statistic(toy.TOYS[name].sample(4000, generator()))
    if values is None:
        upper, lower = read.norm(dim=1), (read - torch.tensor([1.0, 0.5])).norm(dim=1)
        read, values, spread = torch.minimum((upper - 1).abs(), (lower - 1).abs()), [0.0], 0.1
    distance = (read[:, None] - torch.tensor(values)).abs().min(1).values
    assert (distance < 5 * spread).all() and distance.mean() < spread


def test_arms_and_blades_are_equally_common():
    """Symmetric by construction: two arms about the origin, five blades by a fifth of a turn."""
    spirals = toy.TOYS["two-spirals"].sample(40_000, generator())
    assert spirals.mean(0).abs().max() < 0.05
    pinwheel = torch.view_as_complex(toy.TOYS["pinwheel"].sample(40_000, generator()))
    for order in range(1, 5):
        assert (pinwheel / pinwheel.abs()).pow(order).mean().abs() < 0.03
    assert (pinwheel / pinwheel.abs()).pow(5).mean().abs() > 0.1


@pytest.mark.parametrize("alias", toy.ALIASES)
def test_aliases_give_the_same_data(alias):
    name = toy.ALIASES[alias]
    ours, theirs = datasets.load(name, seed=3), datasets.load(alias, seed=3)
    assert theirs.name == name == datasets.canonical(alias) and alias not in datasets.NAMES
    assert torch.equal(passed_through(ours.test), passed_through(theirs.test))
    assert torch.equal(ours.train.draw(9, generator()), theirs.train.draw(9, generator()))


def test_circles_are_those_of_scikit_learn():
    """Its radii, with its noise, three times as large."""
    from sklearn.datasets import make_circles

    ours = toy.TOYS["circles"].sample(50_000, generator())
    theirs = 3 * make_circles(50_000, factor=0.5, noise=0.08, random_state=0)[0]
    edges = np.linspace(0, 4.5, 31)
    counts = [np.histogram(np.linalg.norm(points, axis=1), edges)[0] for points in (ours.numpy(), theirs)]
    assert (np.abs(counts[0] - counts[1]) < 5 * np.sqrt(counts[0] + counts[1] + 1)).all()


def test_training_samples_are_fresh():
    train = datasets.load("rings").train
    source = generator()
    assert not torch.equal(train.draw(5, source), train.draw(5, source))
    assert len(passed_through(train)) == len(train)


# --- tables


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".h5"])
def test_every_kind_of_file_gives_the_same_rows(files, suffix):
    folder, table = files
    dataset = datasets.load("tabular", path=folder / f"table{suffix}", seed=3)
    splits = dataset.train, dataset.validation, dataset.test
    assert [len(split) for split in splits] == [33, 3, 4]
    for split in splits:
        close(dataset.to_data(passed_through(split)), table[split.index])
    train = passed_through(dataset.train).double()
    torch.testing.assert_close(train.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_files_are_not_read_whole(files, monkeypatch):
    """Rows come in blocks from a file that stays where it is."""
    folder, _ = files
    dataset = datasets.load("tabular", path=folder / "table.npy")
    assert isinstance(dataset.train.table, np.memmap)
    monkeypatch.setattr(tabular, "CHUNK", 7)
    monkeypatch.setattr("isingflow.datasets.text.CHUNK", 7)
    for suffix in (".npy", ".csv", ".h5"):
        small = datasets.load("tabular", path=folder / f"table{suffix}")
        torch.testing.assert_close(passed_through(small.test, 2), passed_through(dataset.test), rtol=1e-4, atol=1e-4)


TABLES = {
    "NaN": (np.where(np.eye(20, 3, -4) == 1, np.nan, np.random.default_rng(0).normal(size=(20, 3))), r"nan in row 4"),
    "infinite": (np.diag(np.full(20, np.inf)), "inf in row 0, column 0; expected finite numbers"),
    "one column": (np.arange(20.0)[:, None], "1 column; expected a table of at least two"),
    "no rows": (np.empty((0, 3)), "0 rows; expected at least 10"),
    "few rows": (np.eye(4), "4 rows; expected at least 10"),
    "constant column": (np.stack([np.arange(30.0), np.full(30, 0.1)], 1), "constant column 1 of 2"),
    "strings": (np.full((20, 2), "a"), "expected numbers"),
    "objects": (np.full((20, 2), None), "not a readable .npy file"),
    "three axes": (np.zeros((20, 2, 2)), "an array of 3 axes, expected a table of rows and columns"),
    "complex": (np.zeros((20, 2), complex), "holds complex128, expected numbers"),
}


@pytest.mark.parametrize(("table", "message"), TABLES.values(), ids=TABLES)
def test_bad_tables_are_refused(tmp_path, table, message):
    np.save(tmp_path / "bad.npy", table)
    with pytest.raises(DatasetError, match=message) as error:
        datasets.load("tabular", path=tmp_path / "bad.npy")
    assert "\n" not in str(error.value) and "bad.npy" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n" + "1,2\n" * 20 + "3,x\n", "line 22 holds 'x' in column 'b', expected a number"),
        ("1,2\n" * 20 + "3\n", "line 21 has 1 columns, expected 2"),
        ("1,2\n" * 20 + "3,\n", r"line 21 has no value in column 1 \(''\), expected a number"),
        ("1,2\n" * 20 + "3,nan\n", r"line 21 has no value in column 1 \('nan'\)"),
        ("a,b\n", "0 rows"),
        ("", "0 rows"),
    ],
)
def test_bad_csv_files_are_refused(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        datasets.load("tabular", path=tmp_path / "bad.csv")


def test_damaged_and_foreign_files_are_refused(tmp_path, files):
    folder, _ = files
    for suffix in (".npy", ".npz", ".h5"):
        damaged = tmp_path / f"damaged{suffix}"
        damaged.write_bytes((folder / f"table{suffix}").read_bytes()[:60])
        with pytest.raises(DatasetError, match=f"not a readable {suffix} file"):
            datasets.load("tabular", path=damaged)
    np.savez(tmp_path / "two.npz", a=np.eye(20), b=np.eye(20))
    with pytest.raises(DatasetError, match=r"holds a, b; expected a single array, or one called data or x or X"):
        datasets.load("tabular", path=tmp_path / "two.npz")
    (tmp_path / "table.pickle").write_bytes(pickle.dumps([[1.0]]))
    with pytest.raises(DatasetError, match=r"expected a file that ends in \.npy, \.npz, \.csv"):
        datasets.load("tabular", path=tmp_path / "table.pickle")
    with pytest.raises(DatasetError, match="there is no such file"):
        datasets.load("tabular", path=tmp_path / "missing.npy")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        DatasetError, match=r"unknown data set 'mnsit': expected one of mnist, cifar10, eight-gaussians, .*, tab"
    ):
        datasets.load("mnsit")
    with pytest.raises(
        DatasetError, match=r"unknown table 'digit': expected a file, or one of digits, breast-cancer, wine, "
    ):
        datasets.load("tabular", path="digit")
    with pytest.raises(DatasetError, match=r"tabular: expected a file, or one of digits"):
        datasets.load("tabular")
    with pytest.raises(DatasetError, match="moons: takes no file"):
        datasets.load("moons", path="a.npy")


@pytest.mark.parametrize(
    ("name", "module"), [("digits", "sklearn"), ("breast-cancer", "sklearn"), ("wine", "sklearn"), ("table.h5", "h5py")]
)
def test_a_package_that_is_missing_is_named(files, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    path = files[0] / name if name.endswith(".h5") else name
    with pytest.raises(DatasetError, match="which is not installed"):
        datasets.load("tabular", path=path)


# --- where flows start


@pytest.mark.parametrize(
    ("name", "start"), [("digits", "copula"), ("digits", "gaussian"), ("breast-cancer", "gaussian")]
)
def test_fitted_starts_beat_blank_ones_and_load_into_them(name, start):
    dataset = datasets.load("tabular", path=name)
    shape = (dataset.dimension,)
    flow = Flow(shape, fitted_start(dataset, start, generator()))
    blank = Flow(shape, blank_start(start, dataset.dimension, getattr(dataset.space, "levels", 0)))
    x = passed_through(dataset.test)
    assert flow.log_prob(x).mean() > blank.log_prob(x).mean() + 1
    blank.load_state_dict(flow.state_dict())
    assert torch.equal(blank.log_prob(x), flow.log_prob(x))


def test_the_copula_of_digits_beats_their_gaussian():
    dataset = datasets.load("tabular", path="digits")
    x = passed_through(dataset.validation)
    nats = {
        start: -Flow((64,), fitted_start(dataset, start, generator())).log_prob(x).mean()
        for start in ("copula", "gaussian")
    }
    assert nats["copula"] < nats["gaussian"]


def test_starts_refuse():
    moons = datasets.load("moons")
    with pytest.raises(InvalidInput, match="'uniform': expected one of copula, gaussian, tails, normal"):
        fitted_start(moons, "uniform", generator())
    with pytest.raises(InvalidInput, match="moons: a copula of marginal histograms needs grey levels"):
        fitted_start(moons, "copula", generator())
    with pytest.raises(InvalidInput, match="a copula needs at least 2"):
        blank_start("copula", 3)
    assert fitted_start(moons, "normal", generator()) == blank_start("normal", 2) == []


# --- names of columns


def test_names_of_columns_come_from_every_kind_of_file(tmp_path):
    import h5py

    rows, names = np.random.default_rng(0).normal(size=(40, 3)), ["mass", "length", "age"]
    for called in ("columns", "feature_names"):
        np.savez(tmp_path / f"{called}.npz", data=rows, **{called: np.array(names)})
        with h5py.File(tmp_path / f"{called}.h5", "w") as file:
            file["data"] = rows
            file[called] = names
    np.savez(tmp_path / "bytes.npz", rows=rows, names=np.array(names, dtype="S"))
    with h5py.File(tmp_path / "attribute.hdf5", "w") as file:
        file["rows"] = rows
        file["rows"].attrs["columns"] = names
    np.savetxt(tmp_path / "text.csv", rows, delimiter=",", header=",".join(names), comments="")
    for file in tmp_path.iterdir():
        dataset = datasets.load("tabular", path=file)
        assert dataset.columns == tuple(names), file
        close(dataset.to_data(passed_through(dataset.test)), rows[dataset.test.index])
    assert datasets.load("tabular", path="wine").columns[:2] == ("alcohol", "malic_acid")


@pytest.mark.parametrize(
    "names",
    [np.array(["a", "b"]), np.arange(3), np.array([["a"], ["b"], ["c"]]), np.array("abc"), np.array(["a", None, "c"])],
    ids=["too few", "numbers", "a table", "one text", "objects"],
)
def test_what_does_not_name_the_columns_is_not_used(tmp_path, names):
    np.savez(tmp_path / "table.npz", data=np.random.default_rng(0).normal(size=(40, 3)), columns=names)
    assert datasets.load("tabular", path=tmp_path / "table.npz").columns == ()


# --- UCI


def published(rows):
    """Train, validation and test rows as Papamakarios's loaders cut them, standardised by the first two."""
    known, test = rows[: -int(0.1 * len(rows))], rows[-int(0.1 * len(rows)) :]
    train, validation = known[: -int(0.1 * len(known))], known[-int(0.1 * len(known)) :]
    return [(part - known.mean(0)) / known.std(0) for part in (train, validation, test)]


def check_parts(dataset, parts):
    for split, part in zip((dataset.train, dataset.validation, dataset.test), parts, strict=True):
        close(passed_through(split), part)


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("rows", [30, 237])
def test_power_is_cut_and_made_continuous_as_published(tmp_path, rows, seed):
    """The published loader, step by step: shuffle, leave out two columns, add noise, cut."""
    table = np.random.default_rng(0).integers(0, 9, (rows, 8)).astype(float)
    np.save(tmp_path / "data.npy", table)
    random, data = np.random.RandomState(42), table.copy()
    random.shuffle(data)
    data = np.delete(np.delete(data, 3, axis=1), 1, axis=1)
    voltage = 0.01 * random.rand(rows, 1)
    power = 0.001 * random.rand(rows, 1)
    meters = random.rand(rows, 3)
    expected = published(data + np.hstack([power, voltage, meters, np.zeros((rows, 1))]))
    dataset = datasets.load("tabular", path="power", root=tmp_path, seed=seed)
    assert dataset.dimension == 6
    check_parts(dataset, expected)
    assert torch.equal(passed_through(dataset.test, seed=1), passed_through(dataset.test, seed=2))


@pytest.mark.parametrize("seed", [0, 5])
def test_miniboone_is_cut_as_published(tmp_path, seed):
    rows = np.random.default_rng(0).normal(3, 2, (237, 43))
    np.save(tmp_path / "data.npy", rows)
    check_parts(datasets.load("tabular", path="miniboone", root=tmp_path, seed=seed), published(rows))


def test_gas_is_cut_as_published(tmp_path):
    """In order of time, standardised by all rows."""
    rows = np.random.default_rng(0).normal(3, 2, (237, 8))
    np.save(tmp_path / "data.npy", rows)
    scaled = (rows - rows.mean(0)) / rows.std(0)
    check_parts(datasets.load("tabular", path="gas", root=tmp_path), (scaled[:193], scaled[193:214], scaled[214:]))


def test_hepmass_keeps_signal_and_columns_that_do_not_repeat(tmp_path):
    random = np.random.default_rng(0)
    for part, extra in (("train", 0), ("test", 1)):
        table = np.column_stack([random.integers(2, size=120), random.normal(size=(120, 27 + extra))])
        table[:, 3:9] = table[:, 3:9] > 0
        np.savetxt(tmp_path / f"1000_{part}.csv", table, delimiter=",", header="label,x", comments="# ")
        signal = table[table[:, 0] == 1]
    dataset = datasets.load("tabular", path="hepmass", root=tmp_path)
    assert dataset.dimension == 21 and len(dataset.test) == len(signal)
    kept = [1, 2, *range(9, 28)]
    close(dataset.to_data(passed_through(dataset.test)), signal[:, kept])
    known = np.concatenate([passed_through(split).numpy() for split in (dataset.train, dataset.validation)])
    assert len(dataset.validation) == len(known) // 10
    np.testing.assert_allclose([known.mean(0), known.std(0)], [np.zeros(21), np.ones(21)], atol=1e-5)


def test_bsds300_is_used_as_it_is(tmp_path):
    import h5py

    tables = {name: np.random.default_rng(i).normal(size=(30, 63)) for i, name in enumerate(("train", "validation"))}
    tables["test"] = np.random.default_rng(2).normal(size=(20, 63))
    (tmp_path / "bsds300").mkdir()
    with h5py.File(tmp_path / "bsds300" / "BSDS300.hdf5", "w") as file:
        file.update(tables)
    dataset = datasets.load("tabular", path="bsds300", root=tmp_path)
    close(passed_through(dataset.validation, 7), tables["validation"])
    assert len(dataset.test) == 20


@pytest.mark.parametrize(("name", "columns"), [("gas", 8), ("miniboone", 43)])
def test_whole_tables_must_have_their_columns(tmp_path, name, columns):
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(50, columns)))
    assert datasets.load("tabular", path=name, root=tmp_path).dimension == columns
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(50, columns + 1)))
    with pytest.raises(DatasetError, match=f"{columns + 1} columns; expected the {columns} of {name}"):
        datasets.load("tabular", path=name, root=tmp_path)


@pytest.mark.parametrize("name", uci.UCIS)
def test_uci_files_that_are_missing_are_named(tmp_path, monkeypatch, name):
    with pytest.raises(DatasetError, match="there is no such file"):
        datasets.load("tabular", path=name, root=tmp_path)
    monkeypatch.delenv(mnist.ENVIRONMENT, raising=False)
    with pytest.raises(DatasetError, match="name the folder that holds its files"):
        datasets.load("tabular", path=name)


# --- MNIST, in files of our own


SMALL = {
    "train_images": np.arange(24, dtype=np.uint8).reshape(6, 2, 2),
    "train_labels": np.arange(6, dtype=np.uint8),
    "test_images": np.arange(16, dtype=np.uint8).reshape(4, 2, 2) + 100,
    "test_labels": np.arange(4, dtype=np.uint8),
}


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    header = [0x0800 + array.ndim if magic is None else magic, *array.shape]
    return np.array(header, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder of four small files, which MNIST is taken to consist of: (folder, path of every file)."""
    sources = {}
    for key, array in SMALL.items():
        checksum = hashlib.md5(idx(array)).hexdigest()
        sources[key] = replace(mnist.SOURCES[key], shape=array.shape, md5=checksum)
        (tmp_path / sources[key].name).write_bytes(idx(array))
    monkeypatch.setattr(mnist, "SOURCES", sources)
    monkeypatch.setattr(mnist, "VALIDATION", 2)
    return tmp_path, {key: tmp_path / source.name for key, source in sources.items()}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("where", ["root", "environment", "subfolder"])
def test_mnist_is_found_and_read(small, monkeypatch, zipped, where):
    folder, paths = small
    if where == "subfolder":
        (folder / "mnist").mkdir()
    for path in paths.values():
        target = folder / "mnist" / path.name if where == "subfolder" else path
        content = path.read_bytes()
        path.unlink()
        target.with_name(path.name + ".gz" * zipped).write_bytes(gzip.compress(content) if zipped else content)
    if where == "environment":
        monkeypatch.setenv(mnist.ENVIRONMENT, str(folder))
    arrays = mnist.read(None if where == "environment" else folder)
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, SMALL[key])
    dataset = datasets.load("mnist", root=None if where == "environment" else folder)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [4, 2, 4]
    levels = dataset.to_data(passed_through(dataset.test)).floor()
    np.testing.assert_array_equal(levels.numpy(), SMALL["test_images"].reshape(4, 4))


def test_the_split_of_the_train_file_is_a_partition_by_seed(small):
    folder, _ = small
    first, other = (datasets.load("mnist", root=folder, seed=seed) for seed in (0, 5))
    assert sorted([*first.train.index, *first.validation.index]) == list(range(6))
    assert not np.array_equal(first.train.index, other.train.index)
    assert not np.array_equal(passed_through(first.train), passed_through(first.train, seed=1))


def swap(first, second):
    def change(paths):
        contents = paths[first].read_bytes(), paths[second].read_bytes()
        paths[second].write_bytes(contents[0])
        paths[first].write_bytes(contents[1])

    return change


def write(make):
    """Replace the train images by what is made of their content."""

    def change(paths):
        path = paths["train_images"]
        path.write_bytes(make(path.read_bytes()))

    return change


DAMAGE = {
    "missing": (lambda paths: paths["test_labels"].unlink(), r"no file t10k-labels-idx1-ubyte or .*\.gz; put train-"),
    "truncated": (write(lambda content: content[:-3]), "37 bytes where images 6 x 2 x 2 take 40: truncated"),
    "too long": (write(lambda content: content + b"x"), "something is appended"),
    "cut in its header": (write(lambda content: content[:9]), "9 bytes where .*: truncated"),
    "empty": (write(lambda content: b""), "not an IDX file"),
    "text": (write(lambda content: b"<html>not found</html>"), r"not an IDX file of bytes \(magic number 3c68746d\)"),
    "floats": (write(lambda content: b"\0\0\x0d\x03" + content[4:]), "not an IDX file of bytes"),
    "truncated gzip": (write(lambda content: gzip.compress(content)[:-12]), "damaged gzip file"),
    "corrupt gzip": (
        write(lambda content: gzip.compress(content)[:-8] + b"\0" * 8),
        "damaged gzip file",
    ),
    "images and labels swapped": (
        swap("train_images", "train_labels"),
        "holds labels 6, expected images 6 x 2 x 2; are images and labels swapped",
    ),
    "train and test swapped": (
        swap("train_images", "test_images"),
        "holds images 4 x 2 x 2, expected images 6 x 2 x 2; are train and test files swapped",
    ),
    "another size": (
        write(lambda content: idx(np.zeros((6, 3, 3), np.uint8))),
        "holds images 6 x 3 x 3, expected images 6 x 2 x 2; only the images of MNIST are read",
    ),
    "another picture": (write(lambda content: content[:-1] + b"\xff"), "its checksum is another one"),
    "a folder": (lambda paths: (paths["train_images"].unlink(), paths["train_images"].mkdir()), "no file train-images"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_mnist_files_are_refused(small, damage, message):
    folder, paths = small
    damage(paths)
    with pytest.raises(DatasetError, match=message) as error:
        datasets.load("mnist", root=folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["no network", "no pooch"])
def test_without_network_or_pooch_an_error_says_where_files_go(monkeypatch, how):
    import pooch

    def retrieve(*args, **kwargs):
        raise OSError("Failed to resolve host\n(nothing there)")

    monkeypatch.delenv(mnist.ENVIRONMENT, raising=False)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    if how == "no pooch":
        monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DatasetError, match="into one folder and name it with --data or ISINGFLOW_DATA") as error:
        datasets.load("mnist")
    assert "\n" not in str(error.value)


def test_downloads_are_checked_and_read(small, monkeypatch):
    import pooch

    folder, paths = small
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append((url, known_hash))
        return str(folder / fname.removesuffix(".gz"))

    monkeypatch.delenv(mnist.ENVIRONMENT, raising=False)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert len(mnist.read()) == 4
    assert [url.rpartition("/")[2] for url, _ in asked] == [f"{path.name}.gz" for path in paths.values()]
    assert all(known.startswith("md5:") for _, known in asked)


# --- MNIST itself


@pytest.fixture(scope="module")
def digits():
    """The real data, where they are."""
    places = [Path(os.environ[mnist.ENVIRONMENT])] if mnist.ENVIRONMENT in os.environ else []
    for place in [*places, ROOT.parent / "shared" / "data" / "mnist"]:
        if any(place.glob("**/train-images-idx3-ubyte*")):
            return datasets.load("mnist", root=place)
    pytest.skip(f"the files of MNIST are neither in {mnist.ENVIRONMENT} nor in ../shared/data/mnist")


def test_mnist_has_its_sizes_and_its_bits(digits):
    assert [len(split) for split in (digits.train, digits.validation, digits.test)] == [50_000, 10_000, 10_000]
    assert digits.dimension == 784 and digits.image_shape == (28, 28)
    x = next(digits.test.batches(500, generator()))
    zeros = (digits.to_data(x).floor() == 0).float().mean()
    assert 0.7 < zeros < 0.9
    logits = digits.space.logit
    torch.testing.assert_close(
        digits.bits_per_dimension(logits.inverse(x)[1], x), torch.full((500,), 8.0, dtype=torch.float64)
    )


def negative_log_likelihood(flow: Flow, split, seed: int = 1) -> float:
    return -float(torch.cat([flow.log_prob(x) for x in split.batches(2500, generator(seed))]).mean())


def test_the_best_gaussian_of_mnist_has_its_known_likelihood(digits):
    """1366.6 nats on the test images, from an independent sketch of the design: no training."""
    flow = Flow((784,), [GaussianWhitening.fit(digits.train.batches(5000, generator()))])
    assert negative_log_likelihood(flow, digits.test) == pytest.approx(1366.6, abs=1.0)


@pytest.mark.slow
def test_exact_marginals_of_mnist_and_their_copula(digits):
    """Independent histograms of bytes cost the sum of their cross-entropies, which numpy counts from the bytes."""
    logit = digits.space.logit
    marginals = HistogramMarginals.fit(logit.inverse(x)[0] for x in digits.train.batches(5000, generator()))
    nats = negative_log_likelihood(Flow((784,), [marginals, logit]), digits.test)
    train, test = (split.table[split.index] for split in (digits.train, digits.test))
    counts = np.stack([np.bincount(column, minlength=256) for column in train.T]) + 1 / 256
    heights = np.log(256 * counts / counts.sum(1, keepdims=True))
    in_cube = heights[np.arange(784), test].sum(1).mean()
    slopes = np.mean([float(logit.inverse(x)[1].mean()) for x in digits.test.batches(2500, generator(1))])
    assert nats == pytest.approx(-in_cube - slopes, abs=0.1)
    scores = (marginals.inverse(logit.inverse(x)[0])[0] for x in digits.train.batches(5000, generator()))
    copula = Flow((784,), [GaussianWhitening.fit(scores), marginals, logit])
    assert negative_log_likelihood(copula, digits.test) < nats - 100
