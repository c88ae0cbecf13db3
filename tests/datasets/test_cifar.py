"""CIFAR-10 from its binary files: generated ones that are small, and files that are not what they should be."""

import pickle

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from isingflow import datasets
from isingflow.architectures.start import blank_start, fitted_start
from isingflow.cli import main
from isingflow.datasets import cifar
from isingflow.errors import DatasetError
from isingflow.flows import Flow

RECORDS = 40


def batch(seed: int) -> np.ndarray:
    """Records of a file, shape (RECORDS, 3073)."""
    random = np.random.default_rng(seed)
    records = random.integers(256, size=(RECORDS, 1 + cifar.ENTRIES), dtype=np.uint8)
    records[:, 0] = random.integers(cifar.LABELS, size=RECORDS)
    return records


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The six files, of 40 records each."""
    monkeypatch.setattr(cifar, "RECORDS", RECORDS)
    monkeypatch.setattr(cifar, "VALIDATION", 30)
    monkeypatch.delenv(cifar.ENVIRONMENT, raising=False)
    for seed, name in enumerate([*cifar.TRAIN_FILES, cifar.TEST_FILE]):
        batch(seed).tofile(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("where", cifar.FOLDERS)
def test_images_and_labels_are_read_in_order(folder, where, monkeypatch):
    if where:
        (folder / where).mkdir()
        for name in [*cifar.TRAIN_FILES, cifar.TEST_FILE]:
            (folder / name).rename(folder / where / name)
    monkeypatch.setenv(cifar.ENVIRONMENT, str(folder))
    arrays = cifar.read()
    assert arrays["train_images"].shape == (5 * RECORDS, 3, 32, 32) and arrays["test_labels"].shape == (RECORDS,)
    third = batch(2)
    assert arrays["train_labels"][2 * RECORDS + 7] == third[7, 0]
    # One byte after the label: red, first row, first pixel; green after 1024, blue after 2048
    image = arrays["train_images"][2 * RECORDS + 7]
    for plane in range(3):
        assert np.array_equal(image[plane, 1], third[7, 1 + 1024 * plane + 32 : 1 + 1024 * plane + 64])


def test_the_data_set_gives_back_its_levels(folder):
    data = datasets.load("cifar10", root=folder)
    assert (data.dimension, data.image_shape, data.channels) == (3072, (96, 32), 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (170, 30, 40)
    x = next(data.test.batches(40, torch.Generator().manual_seed(0)))
    assert np.array_equal(data.to_data(x).floor().numpy().astype(np.uint8), batch(5)[:, 1:])
    rows = np.sort(np.concatenate([data.train.index, data.validation.index]))
    assert np.array_equal(rows, np.arange(200))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "122919 bytes .* take 122920: truncated"),
        (lambda file: file.write_bytes(b""), "0 bytes .*: truncated"),
        (lambda file: file.write_bytes(file.read_bytes() + b"x"), "122921 bytes .* appended"),
        (lambda file: file.write_bytes(b"\x0a" + file.read_bytes()[1:]), "label of record 1 is 10, expected 0 to 9"),
        (lambda file: file.unlink(), "no file data_batch_3.bin; put data_batch_1.bin to"),
    ],
    ids=["truncated", "empty", "appended", "label", "missing"],
)
def test_damaged_files_are_refused(folder, damage, message):
    damage(folder / "data_batch_3.bin")
    with pytest.raises(DatasetError, match=message):
        datasets.load("cifar10", root=folder)


def test_a_label_out_of_range_is_found_in_any_record(folder):
    records = batch(1)
    records[37, 0] = 255
    records.tofile(folder / "data_batch_2.bin")
    with pytest.raises(DatasetError, match=r"data_batch_2\.bin: the label of record 38 is 255"):
        cifar.read(folder)


def test_pickles_are_never_opened(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'exploded')!r}, 'w')",)

    (folder / "data_batch_1.bin").unlink()
    (folder / "data_batch_1").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DatasetError, match="python version of CIFAR-10 holds pickles"):
        cifar.read(folder)
    assert not (tmp_path / "exploded").exists()


def test_the_folder_must_be_named(folder):
    with pytest.raises(DatasetError, match="where are its files"):
        cifar.read()


def test_the_command_refuses_a_truncated_file_in_one_line(folder):
    file = folder / cifar.TEST_FILE
    file.write_bytes(file.read_bytes()[:5000])
    output = folder / "run"
    result = CliRunner().invoke(main, ["density", "cifar10", "--data", str(folder), "--output", str(output)])
    assert result.exit_code == 2
    errors = result.stderr.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("isingflow: error: ") and "truncated" in errors[0]
    assert not output.exists()


def test_a_normal_start_needs_nothing_fitted(folder):
    data = datasets.load("cifar10", root=folder)
    assert fitted_start(data, "normal", torch.Generator()) == blank_start("normal", data.dimension) == []
    flow = Flow((data.dimension,), [])
    x = data.test.draw(2, torch.Generator().manual_seed(0))
    assert data.bits_per_dimension(flow.log_prob(x), x).isfinite().all()
