"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images, 3 x 32 x 32 levels, in six files of the binary version.

A file is 10,000 records of 3,073 bytes: the label, 0 to 9, then the red, the green and the blue plane, each row by row.
The planes stay one above the other, so an image is a grey one of 96 x 32 levels to whatever does not ask for channels.
The python version of the same images is refused: it holds pickles, and nothing is ever unpickled.

Levels become logits as those of MNIST do. The train files are split by a seed, the test file is for testing.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from isingflow.datasets.base import Dataset, Rows, random_split
from isingflow.datasets.mnist import ENVIRONMENT
from isingflow.datasets.spaces import Pixels
from isingflow.errors import DatasetError
from isingflow.runtime.files import check_regular, reason

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
FOLDERS = ("", "cifar10", "cifar-10-batches-bin")
"""Where the files are, below the folder of the data."""
RECORDS = 10_000
"""Images in a file."""
CHANNELS, WIDTH = 3, 32
ENTRIES = CHANNELS * WIDTH * WIDTH
LABELS = 10
VALIDATION = 5_000


def load(root: Path | str | None = None, seed: int = 0) -> Dataset:
    """CIFAR-10 in logit space.

    Args:
        root: folder of the six files, or one above `cifar10` or `cifar-10-batches-bin`; if not given, the folder named
            by the environment variable ISINGFLOW_DATA.
        seed: of the split of the train files.

    Raises:
        DatasetError: the files are missing, truncated, or not what they should be.
    """
    arrays = read(root)
    train_images, test_images = (arrays[key].reshape(-1, ENTRIES) for key in ("train_images", "test_images"))
    space = Pixels(256)
    train, validation, _ = random_split(len(train_images), validation=VALIDATION, test=0, seed=seed)
    return Dataset(
        name="cifar10",
        dimension=ENTRIES,
        train=Rows(train_images, train, space),
        validation=Rows(train_images, validation, space),
        test=Rows(test_images, np.arange(len(test_images)), space),
        space=space,
        image_shape=(CHANNELS * WIDTH, WIDTH),
        channels=CHANNELS,
    )


def read(root: Path | str | None = None) -> dict[str, np.ndarray]:
    """Images, uint8, shape (n, 3, 32, 32), and labels, uint8, shape (n,): train_images, train_labels, test_images, ...

    Raises:
        DatasetError: as in `load`.
    """
    folder = root or os.environ.get(ENVIRONMENT)
    if folder is None:
        raise DatasetError(f"cifar10: where are its files? {_where()}")
    parts = {"train": TRAIN_FILES, "test": (TEST_FILE,)}
    arrays = {}
    for part, names in parts.items():
        pairs = [read_batch(_found(Path(folder), name)) for name in names]
        arrays[f"{part}_images"] = np.concatenate([images for images, _ in pairs])
        arrays[f"{part}_labels"] = np.concatenate([labels for _, labels in pairs])
    return arrays


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8, shape (10000, 3, 32, 32), and labels, uint8, shape (10000,), of one file.

    Raises:
        DatasetError: the file is missing, of another length, or holds labels above 9.
    """
    check_regular(path, DatasetError)
    length = RECORDS * (1 + ENTRIES)
    try:
        size = path.stat().st_size
        if size != length:
            fault = "truncated" if size < length else "something is appended to it"
            words = f"{RECORDS} records of {1 + ENTRIES} bytes take {length}"
            raise DatasetError(f"{path}: {size} bytes where {words}: {fault}, or another file")
        records = np.fromfile(path, np.uint8).reshape(RECORDS, 1 + ENTRIES)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({reason(error)})") from None
    labels = records[:, 0]
    wrong = np.flatnonzero(labels >= LABELS)
    if len(wrong):
        raise DatasetError(
            f"{path}: the label of record {wrong[0] + 1} is {labels[wrong[0]]}, expected 0 to {LABELS - 1}: damaged, "
            "or not CIFAR-10 (CIFAR-100 has two labels a record)"
        )
    return records[:, 1:].reshape(-1, CHANNELS, WIDTH, WIDTH), labels.copy()


def _found(root: Path, name: str) -> Path:
    """The file in a folder or in one of its subfolders."""
    places = [root / folder / name for folder in FOLDERS]
    for place in places:
        if place.is_file():
            return place
    pickles = [root / folder / name.removesuffix(".bin") for folder in (*FOLDERS, "cifar-10-batches-py")]
    if any(place.is_file() for place in pickles):
        raise DatasetError(
            f"{root}: the python version of CIFAR-10 holds pickles, which may run code and are never opened; {_where()}"
        )
    raise DatasetError(f"{root}: no file {name}; {_where()}")


def _where() -> str:
    return (
        f"put {TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {TEST_FILE} of the binary version into one folder and name it "
        f"with --data or {ENVIRONMENT}"
    )
