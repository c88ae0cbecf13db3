"""Files of arrays: what goes in comes out, nothing is half written, and damage is a clear error."""

import os
import shutil
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from isingflow.errors import FileError
from isingflow.runtime import files
from isingflow.runtime.files import ArrayWriter, read_arrays

COLUMNS = {"spins": (np.dtype(np.int8), (2, 3)), "weight": (np.dtype(np.float64), ())}
ROWS = 5
ARRAYS = {"spins": np.arange(6 * ROWS, dtype=np.int8).reshape(ROWS, 2, 3), "weight": np.linspace(0, 1, ROWS)}


def write(path, cuts=(0, 2, 3, ROWS)):
    with ArrayWriter(path, ROWS, COLUMNS, beta=np.float64(0.4)) as writer:
        for start, stop in pairwise(cuts):
            writer.append(**{name: array[start:stop] for name, array in ARRAYS.items()})
        writer.constants["sampler"] = np.array("wolff")
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.npz"


class TestArrayWriter:
    @pytest.mark.parametrize("cuts", [(0, ROWS), (0, 2, 3, ROWS), (0, 0, 1, ROWS, ROWS)])
    def test_blocks_add_up(self, path, cuts):
        found = read_arrays(write(path, cuts), ["spins", "weight", "beta", "sampler"])
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
        assert (found["beta"], str(found["sampler"])) == (0.4, "wolff")
        assert [file.name for file in path.parent.iterdir()] == ["a.npz"]

    def test_numpy_reads_it(self, path):
        with np.load(write(path), allow_pickle=False) as found:
            assert set(found) == {"spins", "weight", "beta", "sampler"}

    def test_it_is_a_file_like_others(self, path):
        """A new file has the permissions that any other gets, not those of the hidden folder."""
        (path.parent / "other").touch()
        assert write(path).stat().st_mode == (path.parent / "other").stat().st_mode

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_nothing_is_left_of_a_failure(self, path, error):
        with pytest.raises(error), ArrayWriter(path, ROWS, COLUMNS) as writer:
            writer.append(**ARRAYS)
            raise error
        assert list(path.parent.iterdir()) == []

    @pytest.mark.parametrize("cuts", [(0, 3), (0, 3, 3)])
    def test_the_number_of_rows_must_be_right(self, path, cuts):
        with pytest.raises(ValueError, match=f"3 of {ROWS} rows were written"):
            write(path, cuts)
        assert list(path.parent.iterdir()) == []

    def test_rows_have_their_shape(self, path):
        with pytest.raises(ValueError, match="rows of spins have shape"), ArrayWriter(path, ROWS, COLUMNS) as writer:
            writer.append(spins=np.zeros((ROWS, 3, 2)), weight=np.zeros(ROWS))

    def test_the_disk_is_checked_first(self, path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=files.SPARE_BYTES + 2 * 14 * 3))
        with pytest.raises(FileError, match=r"5 rows need 1.4e-07 GB while .* at most 3 rows fit"):
            write(path)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        with pytest.raises(FileError, match="at most 0 rows fit"):
            write(path)
        assert list(path.parent.iterdir()) == []

    def test_a_full_disk(self, path, monkeypatch):
        def fail(*names):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(FileError, match=f"cannot write {path}: No space left on device"):
            write(path)
        assert list(path.parent.iterdir()) == []

    def test_a_disk_that_is_full_from_the_start(self, path, monkeypatch):
        def fail(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np.lib.format, "write_array_header_1_0", fail)
        with pytest.raises(FileError, match="No space left on device"):
            write(path)
        assert list(path.parent.iterdir()) == []

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(FileError, match=r"cannot write .*: No such file or directory"):
            write(tmp_path / "nowhere" / "a.npz")


class TestReadArrays:
    def test_missing_arrays_are_named(self, path):
        with pytest.raises(FileError, match="the array field is missing; found: spins, weight, beta, sampler"):
            read_arrays(write(path), ["spins", "field"])

    def test_no_file(self, path):
        with pytest.raises(FileError, match="there is no such file"):
            read_arrays(path, [])

    def test_a_folder(self, tmp_path):
        with pytest.raises(FileError, match="a folder, expected a regular file"):
            read_arrays(tmp_path, [])

    @pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
    def test_other_files(self, path, content):
        path.write_bytes(content)
        with pytest.raises(FileError, match=str(path)):
            read_arrays(path, ["spins"])

    def test_a_single_array(self, path):
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
        with pytest.raises(FileError, match="not a readable"):
            read_arrays(path, ["spins"])

    def test_nothing_is_unpickled(self, path):
        np.savez(path, spins=np.array([print], dtype=object))
        with pytest.raises(FileError, match="not a readable"):
            read_arrays(path, ["spins"])

    def test_truncated_anywhere(self, path):
        content = write(path).read_bytes()
        for length in range(0, len(content), 7):
            path.write_bytes(content[:length])
            with pytest.raises(FileError):
                read_arrays(path, ["spins"])

    def test_damaged_anywhere(self, path):
        """A wrong byte is an error of ours, or does no harm to what is read."""
        content = write(path).read_bytes()
        rng = np.random.default_rng(0)
        for position in range(0, len(content), 2):
            damaged = bytearray(content)
            damaged[position] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            try:
                found = read_arrays(path, ["spins"])
            except FileError as error:
                assert "\n" not in str(error)
            else:
                np.testing.assert_array_equal(found["spins"], ARRAYS["spins"])

    def test_more_than_memory(self, path, monkeypatch):
        write(path)

        def fail(*arguments, **options):
            raise MemoryError

        monkeypatch.setattr(files, "read_array", fail)
        with pytest.raises(FileError, match="its arrays do not fit in memory"):
            read_arrays(path, [])
