"""Tables and files of samples as users have them: the same digits from every format, one line for every damage.

Formats times tables, formats times damages; every case is written by numpy, h5py or by hand, never by the package.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import socket
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from isingflow import datasets
from isingflow.cli import main
from isingflow.datasets import files, mnist, text
from isingflow.datasets.files import open_table
from isingflow.errors import DatasetError, FileError, InvalidInput
from isingflow.lattice import square
from isingflow.observables.samples import Samples
from isingflow.runtime.files import check_regular, read_arrays
from isingflow.sampling import Chains

LONGEST = 400
"""Characters of an error line, without the folder of the file."""


def rng(seed=0):
    return np.random.default_rng(seed)


# --- formats


def cells(table, separator, *, decimal=".", quote="", names=None, index=None, end="\n"):
    """A table as text, by repr, which keeps all digits."""
    lines = [] if names is None else [separator.join(names)]
    for i, row in enumerate(table):
        words = [f"{quote}{float(value)!r}{quote}".replace(".", decimal) for value in row]
        lines.append(separator.join(words if index is None else [index(i), *words]))
    return end.join([*lines, ""])


def heads(table, *before):
    return [*before, *(f"c{j}" for j in range(table.shape[1]))]


TEXTS = {
    "plain.csv": lambda t: cells(t, ","),
    "heading.csv": lambda t: cells(t, ",", names=heads(t)),
    "CAPITALS.CSV": lambda t: cells(t, ",", names=heads(t)),
    "spaced.csv": lambda t: cells(t, ", ", names=heads(t)),
    "quoted.csv": lambda t: cells(t, ",", names=[f'"c,{j}"' for j in range(t.shape[1])], quote='"'),
    "semicolons.csv": lambda t: cells(t, ";", names=heads(t)),
    "decimal commas.csv": lambda t: cells(t, ";", names=heads(t), decimal=","),
    "quoted commas.csv": lambda t: cells(t, ";", names=heads(t), decimal=",", quote='"'),
    "bars.dat": lambda t: cells(t, "|", names=heads(t)),
    "tabs.tsv": lambda t: cells(t, "\t", names=heads(t)),
    "spaces.txt": lambda t: cells(t, "   ", names=heads(t)),
    "savetxt.txt": lambda t: "# c0 c1 c2\n" + cells(t, " "),
    "comments.csv": lambda t: "% made by hand\n\n" + cells(t, ",", names=heads(t), end="\n\n# next\n"),
    "windows.csv": lambda t: "\ufeff" + cells(t, ",", names=heads(t), end="\r\n"),
    "old mac.csv": lambda t: cells(t, ",", end="\r"),
    "pandas.csv": lambda t: cells(t, ",", names=heads(t, ""), index=str),
    "pandas of an array.csv": lambda t: cells(t, ",", names=["", *map(str, range(t.shape[1]))], index=str),
    "pandas without index.csv": lambda t: cells(t, ",", names=map(str, range(t.shape[1]))),
    "pandas, filtered.csv": lambda t: cells(t, ",", names=heads(t, ""), index=lambda i: str(3 * i + 1)),
    "pandas, twice.csv": lambda t: cells(t, ",", names=heads(t, "", "Unnamed: 0"), index=lambda i: f"{i},{i}"),
    "pandas, unnamed.csv": lambda t: cells(t, ",", names=heads(t, "Unnamed: 0"), index=str),
    "R.txt": lambda t: cells(t, " ", names=heads(t), index=lambda i: f'"{i + 1}"'),
    "R names.csv": lambda t: cells(t, ",", names=heads(t, '""'), index=lambda i: f'"a_{i}.5"'),
}
COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".GZ": gzip.compress}


def save_hdf5(path, table):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=table, chunks=(7, table.shape[1]), compression="gzip")


ARRAYS = {
    "array.npy": np.save,
    "ARRAY.NPY": lambda path, table: path.write_bytes(npy(table)),
    "other bytes.npy": lambda path, table: np.save(path, table.astype(">f8")),
    "columns first.npy": lambda path, table: np.save(path, np.asfortranarray(table)),
    "long double.npy": lambda path, table: np.save(path, table.astype(np.longdouble)),
    "array.npy.gz": lambda path, table: path.write_bytes(gzip.compress(npy(table))),
    "archive.npz": lambda path, table: np.savez(path, table=table),
    "compressed.npz": lambda path, table: np.savez_compressed(path, other=np.eye(2), x=table),
    "dataset.h5": save_hdf5,
    "dataset.HDF5": save_hdf5,
}
WRITERS = (
    {name: lambda path, table, make=make: path.write_bytes(make(table).encode()) for name, make in TEXTS.items()}
    | {
        f"heading.csv{end}": lambda path, table, pack=pack: path.write_bytes(pack(TEXTS["heading.csv"](table).encode()))
        for end, pack in COMPRESSED.items()
    }
    | {"utf-16.csv": lambda path, table: path.write_bytes(TEXTS["tabs.tsv"](table).encode("utf-16"))}
    | {"latin.csv": lambda path, table: path.write_bytes(cells(table, ";", names=["é"] * 3).encode("latin-1"))}
    | ARRAYS
)


def npy(table):
    file = io.BytesIO()
    np.save(file, table)
    return file.getvalue()


def columns(*columns):
    return np.column_stack(columns)


TABLES = {
    "ordinary": rng(1).normal(3, 2, (90, 3)),
    "seconds since 1970": columns(1.7e9 + 30 * rng(2).normal(size=90), *rng(3).normal(size=(2, 90))),
    "a narrow column": columns(1.7e9 + rng(4).normal(size=90), *rng(5).normal(size=(2, 90))),
    "the last digits": columns(1e15 + rng(6).integers(-99, 99, 90), *rng(7).normal(size=(2, 90))),
    "whole numbers": rng(8).integers(-5, 5, (90, 3)).astype(float),
    "far apart": columns(1e-130 * rng(9).normal(size=90), 1e130 * rng(10).normal(size=90), rng(11).normal(size=90)),
    "below zero": -np.exp(rng(12).normal(size=(90, 3))) - 1e7,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_format_gives_the_same_digits(name, tmp_path):
    table = TABLES[name]
    exact = table.astype(np.longdouble)
    first = None
    for suffix, write in WRITERS.items():
        path = tmp_path / suffix
        if suffix == "pandas without index.csv" and name == "whole numbers":
            continue
        write(path, table)
        opened = open_table(path)
        assert np.array_equal(np.asarray(opened[: len(table)], np.float64), table), suffix
        dataset = datasets.load("tabular", path=path)
        train = exact[dataset.train.index]
        deviation = np.sqrt(((train - train.mean(0)) ** 2).mean(0)).astype(float)
        np.testing.assert_allclose(dataset.space.deviation, deviation, rtol=1e-12, err_msg=suffix)
        found = dataset.space.mean, dataset.space.deviation, next(dataset.test.batches(90, torch.Generator()))
        first = first or found
        assert all(map(torch.equal, found, first)), suffix


def test_names_of_columns_are_kept(tmp_path):
    table = TABLES["ordinary"]
    for suffix, write in WRITERS.items():
        write(tmp_path / suffix, table)
        names = datasets.load("tabular", path=tmp_path / suffix).columns
        if suffix in ARRAYS or suffix in ("plain.csv", "old mac.csv"):
            assert names == ()
        elif "array" in suffix or "without" in suffix:
            assert names == ("0", "1", "2")
        elif suffix not in ("quoted.csv", "latin.csv"):
            assert names == ("c0", "c1", "c2"), suffix


def test_an_index_that_is_left_out_is_told_of(tmp_path, caplog):
    path = tmp_path / "pandas.csv"
    path.write_text(TEXTS["pandas.csv"](TABLES["ordinary"]))
    with caplog.at_level("INFO", logger="isingflow"):
        open_table(path)
    assert "its first column has no name: taken for an index of the rows, and left out" in caplog.text


def test_points_of_narrow_columns_survive_files_and_densities(tmp_path):
    """Of 1.7e9 + 30 N(0, 1), through model space and back, in the type in which files hold it."""
    table = columns(1.7e9 + 30 * rng().normal(size=4000), rng(1).normal(size=4000))
    np.save(tmp_path / "table.npy", table)
    dataset = datasets.load("tabular", path=tmp_path / "table.npy")
    x = torch.cat(list(dataset.train.batches(1000, torch.Generator())))
    back = dataset.to_data(x).numpy().astype(dataset.space.dtype)
    np.testing.assert_allclose(back, table[dataset.train.index], rtol=0, atol=1e-4)
    assert len(np.unique(back[:, 0])) > 3000 and dataset.space.dtype == np.float64
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x.double()).sum(1)
    known = torch.distributions.Normal(dataset.space.mean, dataset.space.deviation)
    expected = known.log_prob(torch.from_numpy(table[dataset.train.index])).sum(1)
    torch.testing.assert_close(dataset.data_log_prob(normal, x), expected, rtol=0, atol=1e-5)
    np.save(tmp_path / "table.npy", TABLES["ordinary"])
    assert datasets.load("tabular", path=tmp_path / "table.npy").space.dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1e130, 1e130, allow_subnormal=False), min_size=20, max_size=20, unique=True),
    st.sampled_from(sorted(TEXTS)),
)
def test_any_number_is_read_to_its_last_digit(tmp_path_factory, numbers, name):
    table = np.reshape([value + 0.5 for value in numbers], (10, 2))
    path = tmp_path_factory.mktemp("table") / name
    path.write_bytes(TEXTS[name](table).encode())
    assert np.array_equal(open_table(path)[:10], table)


def test_rows_come_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "CHUNK", 7)
    monkeypatch.setattr(text, "SNIFFED", 3)
    for name in ("pandas.csv", "decimal commas.csv", "heading.csv.xz"):
        WRITERS[name](tmp_path / name, TABLES["ordinary"])
        assert np.array_equal(open_table(tmp_path / name)[:90], TABLES["ordinary"])


# --- what is no table


def refused(load, path, *, error=(DatasetError, FileError, InvalidInput), longest=LONGEST):
    """The one line with which a file is refused, without its folder."""
    with pytest.raises(error) as caught:
        load(path)
    line = str(caught.value)
    assert path.name in line, line
    line = line.replace(str(path.parent) + os.sep, "")
    assert len(line) < longest and "\n" not in line and line.isprintable(), line
    return line


def load(path):
    return datasets.load("tabular", path=path)


ROWS = "1,2\n3,5\n" * 20
NO_TABLES = {
    "a missing value": ("a,b\n1,2\n,3\n" + ROWS, "line 3 has no value in column 'a' (''), expected a number"),
    "NA": ("a,b\n1,NA\n" + ROWS, "line 2 has no value in column 'b' ('NA')"),
    "NaN": (ROWS + "nan,1\n", "line 41 has no value in column 0 ('nan')"),
    "infinite": (ROWS + "-inf,1\n", "line 41 holds '-inf' in column 0, expected a number"),
    "a trailing separator": ("a,b,c\n" + "1,2,\n" * 20, "line 2 has no value in column 'c'"),
    "text": ("a,species\n" + "1,setosa\n" * 20, "line 2 holds 'setosa' in column 'species', expected a number"),
    "several texts": (
        "a,b\n" + "x,y\n" * 20,
        "a column of classes is none of measurements: leave it out (2 of it",
    ),
    "a heading with numbers": ("a,1\n" + ROWS, "line 1 holds 'a' beside numbers, expected numbers or names alone"),
    "a heading that is too long": ("a,b,c,d\n" + ROWS, "its heading names 4 columns, the line below has 2"),
    "an unnamed column of data": (",a,b\n" + "0.5,1,2\n" * 20, "column 0 has no name in the heading, and is no index"),
    "an index that falls": (",a,b\n" + "".join(f"{-i},1,2\n" for i in range(20)), "column 0 has no name"),
    "a line that is too short": (ROWS + "3\n", "line 41 has 1 columns, expected 2"),
    "thousands": ('"1,234","2,345"\n' * 20, "line 2 holds '1,234' in column '1,234', expected a number; a comma"),
    "thousands below a heading": ('a,b\n"1,234","2,345"\n' * 20, "'1,234' in column 'a', expected a number; a comma"),
    "commas between tabs": ("a\tb\n" + "1,5\t2,5\n" * 20, "'1,5' in column 'a', expected a number; a comma"),
    "commas, then points": ("a;b\n1,5;2\n1.5;3\n", "line 3 holds '1.5' in column 'a', expected a number; a comma"),
    "points, then commas": ("a;b\n1.5;2\n1,5;3\n", "line 3 holds '1,5' in column 'a', expected a number; a comma"),
    "underscores": ("a,b\n" + "1_000,2\n" * 20, "line 2 holds '1_000' in column 'a', expected a number"),
    "quotes": ('a,b\n"1,2\n' + ROWS, "cannot be cut into cells"),
    "one column": ("a\n" + "1\n" * 20, "1 column; expected a table of at least two"),
    "few rows": ("1,2\n" * 9, "9 rows; expected at least 10"),
    "nothing": ("", "0 rows"),
    "a heading alone": ("a,b\n", "0 rows"),
    "zeros": ("\0" * 5000, "0 rows"),
    "a page": ("<html>\n<body>\n<p>not found</p>\n" * 10, "expected a number"),
    "JSON": ('{"a": [1, 2],\n "b": [3, 4]}\n' * 9, ""),
    "1e308": ("a,b\n" + "1e308,2\n-1e308,3\n" * 20, "1e+308 in row 0, column 0; expected numbers up to 1e+140 in size"),
    "1e309": ("a,b\n" + "1e309,2\n" * 20, "line 2 holds '1e309' in column 'a'"),
    "400 digits": ("a,b\n" + ("7" * 400 + ",2\n") * 20, "line 2 holds '777"),
    "a constant column": ("a,b\n" + "".join(f"{i},0.1\n" for i in range(30)), "constant column 'b' of 2"),
    "rounding alone": ("a,b\n" + "".join(f"{i},{1e17 + 16 * (i % 2)}\n" for i in range(30)), "constant column 'b'"),
    "a tiny column": ("a,b\n" + "".join(f"{i},{i}e-200\n" for i in range(30)), "almost constant column 'b'"),
    "long names": ("x" * 10**5 + ",b\n" + "y" * 10**5 + ",2\n", "line 2 holds 'yyyy"),
    "colours": ("a,b\n" + "\x1b[31m1,2\n" * 20, "line 2 holds '\\x1b[31m1' in column 'a'"),
}


@pytest.mark.parametrize(("content", "message"), NO_TABLES.values(), ids=NO_TABLES)
def test_texts_that_are_no_tables_are_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "table.csv").write_text(content)
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(content.encode()))
    line = refused(load, tmp_path / "table.csv")
    assert message in line
    assert refused(load, tmp_path / "table.csv.gz") == line.replace("table.csv", "table.csv.gz")


def spoilt(value):
    table = TABLES["ordinary"].copy()
    table[5, 1] = value
    return table


NO_ARRAYS = {
    "NaN": (spoilt(np.nan), "nan in row 5, column 1; expected finite numbers"),
    "infinite": (spoilt(-np.inf), "-inf in row 5, column 1; expected finite numbers"),
    "too large": (spoilt(1e300), "1e+300 in row 5, column 1; expected numbers up to 1e+140 in size"),
    "too long doubles": (spoilt(1).astype(np.longdouble) * np.longdouble("1e4000"), "in row"),
    "huge integers": (np.full((20, 2), 2**63, np.uint64), "constant column 0, 1 of 2"),
    "complex": (TABLES["ordinary"] + 0j, "holds complex128, expected numbers"),
    "texts": (TABLES["ordinary"].astype("U8"), "expected numbers"),
    "dates": (np.zeros((20, 2), "M8[s]"), "expected numbers"),
    "records": (np.zeros(20, [("a", float), ("b", float)]), "expected numbers"),
    "three axes": (np.zeros((20, 2, 2)), "an array of 3 axes"),
    "a number": (np.float64(3), "an array of 0 axes"),
    "no columns": (np.zeros((20, 0)), "0 column"),
    "one column": (np.zeros((20, 1)), "1 column"),
    "no rows": (np.zeros((0, 3)), "0 rows"),
    "constant": (np.zeros((20, 3)), "constant column 0, 1, 2 of 3"),
}


@pytest.mark.parametrize(("table", "message"), NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_arrays_that_are_no_tables_are_refused_in_one_line(table, message, tmp_path):
    np.save(tmp_path / "table.npy", table)
    np.savez_compressed(tmp_path / "table.npz", table=table)
    for name in ("table.npy", "table.npz"):
        assert message in refused(load, tmp_path / name)
    if table.dtype.kind in "fiu" and table.dtype != np.longdouble:
        with h5py.File(tmp_path / "table.h5", "w") as file:
            file["table"] = table
        assert message in refused(load, tmp_path / "table.h5")


def test_objects_are_never_unpickled(tmp_path):
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (marker,)

    hostile = np.array([Hostile()] * 2, object)
    np.save(tmp_path / "table.npy", hostile, allow_pickle=True)
    np.savez(tmp_path / "table.npz", beta=hostile, size=hostile, field=hostile, state_position=hostile)
    assert "Python objects" in refused(load, tmp_path / "table.npy")
    for read in (lambda path: read_arrays(path, ()), Samples.read, Chains.read):
        assert "'beta': it holds Python objects" in refused(read, tmp_path / "table.npz")
    assert not marker.exists()


def test_columns_that_follow_from_others_end_before_there_is_a_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = TABLES["ordinary"]
    Path("table.csv").write_text(cells(columns(table, table @ [1, -2, 0]), ",", names=["a", "b", "c", "d"]))
    result = CliRunner().invoke(main, ["density", "tabular", "table.csv", "--output", "run"])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "columns that follow from one another: 'a', 'b', 'd'; leave some of them out" in result.stderr
    assert os.listdir() == ["table.csv"]


# --- files that are damaged, and what only claims to be one


def make_samples(path):
    """A file of samples as numpy writes it."""
    spins = rng().choice(np.array([-1, 1], np.int8), (40, 4, 4))
    field = rng(1).normal(size=(40, 4, 4)).astype(np.float32)
    arrays = {"spins": spins, "field": field, "log_weight": rng(2).normal(size=40)}
    np.savez_compressed(path, beta=np.float64(0.4), size=np.array([4, 4]), **arrays)


def read_samples(path):
    Samples.read(path).observables()


def test_bytes_that_are_damaged_are_noticed_or_harmless(tmp_path):
    """Every format, at every place of a grid: flipped bits, zeros, and an early end."""
    makers = {name: (write, load) for name, write in WRITERS.items() if name in ARRAYS or ".csv." in name}
    makers["samples.npz"] = (lambda path, table: make_samples(path), read_samples)
    for name, (write, read) in makers.items():
        write(tmp_path / name, TABLES["ordinary"])
        content = (tmp_path / name).read_bytes()
        random = rng(len(name))
        for position in np.linspace(0, len(content) - 1, 24).astype(int):
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(random.integers(8))
            zeros = content[:position] + bytes(min(16, len(content) - position)) + content[position + 16 :]
            for changed in (bytes(damaged), zeros, content[:position]):
                (tmp_path / name).write_bytes(changed)
                try:
                    read(tmp_path / name)
                except (DatasetError, FileError, InvalidInput) as error:
                    line = str(error).replace(str(tmp_path), "")
                    assert name in line and len(line) < LONGEST and line.isprintable(), line


def claim(shape, dtype="<f8"):
    """An .npy file whose header claims a shape, with hardly anything behind it."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (118 - len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(160)


@pytest.mark.parametrize("shape", [(10**15, 2), (2, 10**15), (10**300, 2), (-20, 2), (11, 2), (2**62, 2**62)])
def test_headers_that_claim_too_much_are_refused_before_room_is_made(shape, tmp_path):
    (tmp_path / "table.npy").write_bytes(claim(shape))
    assert "its header says" in refused(load, tmp_path / "table.npy")
    with zipfile.ZipFile(tmp_path / "table.npz", "w") as archive:
        for name in ("spins", "beta", "size"):
            archive.writestr(f"{name}.npy", claim(shape))
    assert "holds spins, beta, size; expected a single array" in refused(load, tmp_path / "table.npz")
    assert "'spins': its header says" in refused(Samples.read, tmp_path / "table.npz")


@pytest.mark.parametrize("shape", [(10**15, 2), (10**12, 3)])
def test_datasets_that_were_never_written_are_refused(shape, tmp_path):
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file.create_dataset("table", shape, chunks=(1000, shape[1]), dtype="f8")
    assert "its numbers were never written" in refused(load, tmp_path / "table.h5")
    with h5py.File(tmp_path / "table.h5", "r+") as file:
        file["table"][0] = 1
    assert f"the order of {shape[0]} rows needs" in refused(load, tmp_path / "table.h5")


def test_links_to_other_files_are_not_followed(tmp_path):
    rows = TABLES["ordinary"]
    rows.tofile(tmp_path / "raw")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["table"] = rows
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["table"] = h5py.ExternalLink(tmp_path / "other.h5", "table")
    assert "holds none" in refused(load, tmp_path / "table.h5")
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file.create_dataset("table", rows.shape, "f8", external=[(str(tmp_path / "raw"), 0, rows.nbytes)])
    assert "in other files" in refused(load, tmp_path / "table.h5")
    with h5py.File(tmp_path / "table.h5", "w") as file:
        layout = h5py.VirtualLayout(rows.shape, "f8")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "table", rows.shape)
        file.create_virtual_dataset("table", layout)
    assert "in other files" in refused(load, tmp_path / "table.h5")


def test_what_swells_is_stopped_while_there_is_room(tmp_path, monkeypatch):
    """Zeros compress a thousandfold: what they would take is compared with what there is."""
    zeros = gzip.compress(bytes(2**22), 1)
    for name in ("line.csv.gz", "array.npy.gz"):
        (tmp_path / name).write_bytes(zeros)
    with monkeypatch.context() as patch:
        patch.setattr(text, "LONGEST_LINE", 2**20)
        assert "line 1 has 1048576 characters or more" in refused(load, tmp_path / "line.csv.gz")
    np.savez_compressed(tmp_path / "samples.npz", beta=np.zeros(2**20), size=np.zeros(2**20))
    with monkeypatch.context() as patch:
        patch.setattr("isingflow.runtime.files.free_memory", lambda: 10**6)
        assert "its arrays take 16 MiB of memory, 977 KiB are free" in refused(Samples.read, tmp_path / "samples.npz")
    free = files.shutil.disk_usage(tmp_path)._replace(free=files.SPARE_BYTES + 2**16)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: free)
    np.savez_compressed(tmp_path / "table.npz", table=np.zeros((2**20, 2)))
    (tmp_path / "rows.csv").write_text("1,2\n" * 10**5)
    for name in ("array.npy.gz", "table.npz", "rows.csv"):
        assert "does not fit into the temporary folder" in refused(load, tmp_path / name)


def test_what_memory_cannot_order_or_correlate_is_refused(tmp_path, monkeypatch):
    np.save(tmp_path / "table.npy", rng().normal(size=(100, 30)))
    for free, message in ((1000, "the order of 100 rows needs 1.56 KiB"), (10**4, "a table of 30 columns needs")):
        monkeypatch.setattr("isingflow.runtime.resources.free_memory", lambda free=free: free)
        assert message in refused(load, tmp_path / "table.npy")


# --- what is not a regular file


def irregular(folder, suffix):
    """Everything that a path may lead to and that is no file to read."""
    places = {
        kind: folder / f"{kind}{suffix}" for kind in ("pipe", "folder", "socket", "device", "link", "none", "loop")
    }
    os.mkfifo(places["pipe"])
    places["folder"].mkdir()
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(places["socket"]))
    places["device"].symlink_to("/dev/zero")
    places["link"].symlink_to(places["pipe"])
    places["loop"].symlink_to(places["loop"])
    return places | {"within": places["device"] / f"file{suffix}", "-": Path(f"-{suffix}")}


READERS = {".csv": load, ".tsv.gz": load, ".npy": load, ".h5": load, ".npz": load}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", READERS)
def test_what_is_no_regular_file_is_refused_at_once(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readers = [READERS[suffix], check_regular, Samples.read, Chains.read, lambda path: read_arrays(path, ())]
    for place in irregular(Path("."), suffix).values():
        for read in readers:
            refused(read, place)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("words", [["observables"], ["density", "tabular"]])
def test_commands_refuse_what_is_no_regular_file(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = [*irregular(Path("."), ".csv").values(), *irregular(Path("."), ".npz").values(), "-", "/dev/stdin"]
    for place in places:
        result = CliRunner().invoke(main, [*words, str(place)])
        assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
        assert result.stderr.startswith("isingflow: error: ") and result.stdout == ""
    assert not Path("runs").exists()


def test_a_folder_of_mnist_may_hold_anything(tmp_path):
    for source in mnist.SOURCES.values():
        os.mkfifo(tmp_path / source.name)
    with pytest.raises(DatasetError, match="no file train-images"):
        datasets.load("mnist", root=tmp_path)
    first = tmp_path / next(iter(mnist.SOURCES.values())).name
    first.unlink()
    first.write_bytes(gzip.compress(struct.pack(">4i", 0x803, 60000, 28, 28) + bytes(2**26)))
    with pytest.raises(DatasetError, match="something is appended"):
        mnist.read_idx(first, mnist.SOURCES["train_images"])


# --- files of samples, entry by entry


def entries():
    """Arrays of a file of samples that each have one thing wrong."""
    rows, spins = 40, rng().choice(np.array([-1, 1], np.int8), (40, 4, 4))
    field, weight = rng(1).normal(size=(rows, 4, 4)).astype(np.float32), rng(2).normal(size=rows)
    changes = {
        "spins": [spins * 0, spins * 2, spins[:-1], spins.astype("U2"), spins + 0j, spins[:0], spins[:, :3], spins > 0],
        "field": [field * np.nan, field * np.inf, field[:-1], field.astype("U5"), field + 0j, field[:, :, :3]],
        "log_weight": [
            weight * np.nan,
            weight + np.inf,
            weight[:-1],
            weight.astype("U5"),
            weight + 0j,
            weight[:, None],
        ],
        "beta": [np.nan, np.inf, 1e300, "0.4", 0.4j, [0.4, 0.4], np.float16(np.nan)],
        "size": [
            [4, 5],
            [4],
            [4, 4, 4],
            4,
            [4.5, 4],
            [0, 0],
            [-4, -4],
            ["4", "4"],
            [2**40, 2**40],
            np.zeros(10**6, int),
        ],
        "lattice": [
            "{",
            "[]",
            "3",
            "null",
            "{}",
            "[" * 10**5,
            '{"kind": "' + "y" * 10**5 + '"}',
            3,
            np.zeros((20, 20)),
        ],
        "certified": ["yes", [True, False], 3, np.nan],
        "chain": [np.zeros(3, int), np.full(rows, -1), np.full(rows, 10**18), np.zeros(rows), np.arange(rows) // 7],
    }
    good = {"spins": spins, "field": field, "log_weight": weight, "beta": 0.4, "size": [4, 4]}
    good |= {"lattice": json.dumps(square(4).to_dict()), "certified": True, "chain": np.arange(rows) // 20}
    for name, values in changes.items():
        for value in values:
            yield name, good | {name: value}


@pytest.mark.parametrize("name", sorted({name for name, _ in entries()}))
def test_samples_with_one_wrong_entry_are_refused_in_one_line(name, tmp_path):
    path = tmp_path / "samples.npz"
    for changed, arrays in entries():
        if changed == name:
            np.savez(path, **{key: np.asarray(value) for key, value in arrays.items()})
            refused(read_samples, path)


def test_entries_that_are_not_arrays_do_no_harm(tmp_path):
    path = tmp_path / "samples.npz"
    make_samples(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "made by hand")
    read_samples(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x\n" * 10**4 + ".npy", "made by hand")
    assert "not a readable .npz file" in refused(Samples.read, path)
    with pytest.raises(
        FileError, match="the array z is missing; found: beta, size, spins, field, log_weight, x x"
    ) as caught:
        read_arrays(path, ("z",))
    assert len(str(caught.value)) < LONGEST + len(str(path))
