"""MNIST (LeCun, Cortes and Burges): 60,000 + 10,000 images of digits, 28 x 28 grey levels, in four IDX files.

The pipeline of Zhang, E and Wang (2018): levels with uniform jitter over 256, logit with lambda = 1e-6, the train file
split into 50,000 and 10,000 images by a seed, the test file for testing. Images stay bytes until they are drawn.

An IDX file is big-endian: a magic number (0x08 for bytes, then the number of axes), the axes' lengths, and the bytes.
Whether gzipped or not, its content is checked by length and by checksum.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isingflow.datasets.base import Dataset, Rows, random_split
from isingflow.datasets.spaces import Pixels
from isingflow.datasets.text import decompressed
from isingflow.errors import DatasetError
from isingflow.runtime.files import check_regular, reason

ENVIRONMENT = "ISINGFLOW_DATA"
URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
VALIDATION = 10_000
LABELS_MAGIC, IMAGES_MAGIC = 0x0801, 0x0803
KINDS = {LABELS_MAGIC: "labels", IMAGES_MAGIC: "images"}


@dataclass(frozen=True)
class Source:
    """One of the four files.

    Attributes:
        name: file name without .gz.
        shape: of its array.
        md5: checksum of its content, not compressed.
        archive_md5: checksum of the .gz file that is downloaded.
    """

    name: str
    shape: tuple[int, ...]
    md5: str
    archive_md5: str


SOURCES = {
    "train_images": Source(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "6bbc9ace898e44ae57da46a324031adb",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ),
    "train_labels": Source(
        "train-labels-idx1-ubyte",
        (60_000,),
        "a25bea736e30d166cdddb491f175f624",
        "d53e105ee54ea40749a09fcbcd1e9432",
    ),
    "test_images": Source(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "2646ac647ad5339dbf082846283269ea",
        "9fb629c4189551a2d022fa330f9573f3",
    ),
    "test_labels": Source(
        "t10k-labels-idx1-ubyte",
        (10_000,),
        "27ae3e4e09519cfbb04c329615203637",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
}


def load(root: Path | str | None = None, seed: int = 0) -> Dataset:
    """MNIST in logit space.

    Args:
        root: folder of the four files, gzipped or not. If not given: the folder named by the environment variable
            ISINGFLOW_DATA; without that, they are downloaded once.
        seed: of the split of the train file.

    Raises:
        DatasetError: the files are missing, damaged or swapped, or there is no network to download them.
    """
    arrays = read(root)
    train_images, test_images = (arrays[key].reshape(len(arrays[key]), -1) for key in ("train_images", "test_images"))
    space = Pixels(256)
    train, validation, _ = random_split(len(train_images), validation=VALIDATION, test=0, seed=seed)
    return Dataset(
        name="mnist",
        dimension=train_images.shape[1],
        train=Rows(train_images, train, space),
        validation=Rows(train_images, validation, space),
        test=Rows(test_images, np.arange(len(test_images)), space),
        space=space,
        image_shape=(28, 28),
    )


def read(root: Path | str | None = None) -> dict[str, np.ndarray]:
    """The four arrays, uint8: train_images, train_labels, test_images and test_labels; read-only.

    Raises:
        DatasetError: as in `load`.
    """
    folder = root or os.environ.get(ENVIRONMENT)
    if folder is None:
        return {key: read_idx(_downloaded(source), source) for key, source in SOURCES.items()}
    return {key: read_idx(_found(Path(folder), source.name), source) for key, source in SOURCES.items()}


def read_idx(path: Path, source: Source) -> np.ndarray:
    """The array of an IDX file, gzipped or not, uint8, of the shape and checksum of the source.

    Raises:
        DatasetError: the file is missing, damaged, or another one.
    """
    longest = 4 + 4 * len(source.shape) + math.prod(source.shape)
    content = _content(path, longest + 1)
    magic = int.from_bytes(content[:4], "big")
    kind = KINDS.get(magic)
    expected = f"{KINDS[0x0800 + len(source.shape)]} {' x '.join(map(str, source.shape))}"
    if len(content) < 4 or kind is None:
        raise DatasetError(f"{path}: not an IDX file of bytes (magic number {content[:4].hex()}); expected {expected}")
    header = 4 + 4 * (magic & 0xFF)
    shape = tuple(np.frombuffer(content[4:header], ">u4").tolist()) if len(content) >= header else ()
    found = f"{kind} {' x '.join(map(str, shape))}"
    if shape and (len(shape) != len(source.shape) or shape != source.shape):
        raise DatasetError(f"{path}: holds {found}, expected {expected}; {_advice(shape, source)}")
    if len(content) < longest:
        raise DatasetError(f"{path}: {len(content)} bytes where {expected} take {longest}: truncated")
    if len(content) > longest:
        raise DatasetError(f"{path}: more than the {longest} bytes of {expected}: something is appended to it")
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != source.md5:
        raise DatasetError(f"{path}: not the file of MNIST that it should be, or damaged: its checksum is another one")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _advice(shape: tuple[int, ...], source: Source) -> str:
    """What probably went wrong, from the shape that was found where that of the source was expected."""
    if len(shape) != len(source.shape):
        return "are images and labels swapped?"
    if shape in {other.shape for other in SOURCES.values()}:
        return "are train and test files swapped?"
    return "only the images of MNIST are read"


def _content(path: Path, longest: int) -> bytes:
    """The first bytes of what is in a file, no more than so many."""
    check_regular(path, DatasetError)
    try:
        with path.open("rb") as file:
            return decompressed(file).read(longest)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{path}: damaged gzip file ({reason(error)})") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({reason(error)})") from None


def _found(root: Path, name: str) -> Path:
    """The file in a folder or in its subfolder mnist, gzipped or not."""
    places = [folder / f"{name}{suffix}" for folder in (root, root / "mnist") for suffix in ("", ".gz")]
    for place in places:
        if place.is_file():
            return place
    raise DatasetError(f"{root}: no file {name} or {name}.gz; {_where()}")


def _downloaded(source: Source) -> Path:
    try:
        import pooch
    except ImportError:
        raise DatasetError(f"MNIST is not here, and pooch, which downloads it, is not installed; {_where()}") from None
    try:
        name = f"{source.name}.gz"
        folder = pooch.os_cache("isingflow") / "mnist"
        return Path(pooch.retrieve(URL + name, f"md5:{source.archive_md5}", fname=name, path=folder))
    except (OSError, ValueError) as error:
        raise DatasetError(f"MNIST cannot be downloaded ({reason(error)}); {_where()}") from None


def _where() -> str:
    names = ", ".join(source.name for source in SOURCES.values())
    return f"put {names} (or .gz) into one folder and name it with --data or {ENVIRONMENT}"
