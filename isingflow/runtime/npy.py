"""Single arrays in numpy's format, read without trust: what a header claims is compared with what is there."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from typing import IO, Literal

import numpy as np

DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    SyntaxError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What numpy, zipfile and h5py raise when they read a damaged file, or one of another kind."""

BLOCK_BYTES = 2**20
"""That are read at a time."""


def read_array(file: IO[bytes], size: int) -> np.ndarray:
    """The array of an open .npy file of so many bytes, in memory.

    Raises:
        ValueError: as for `read_header`; and all of `DAMAGED`.
    """
    shape, order, dtype = read_header(file, size)
    content = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    for start in range(0, len(content), BLOCK_BYTES):
        block = content[start : start + BLOCK_BYTES]
        found = file.read(len(block))
        if len(found) != len(block):
            raise EOFError("it ends before its arrays do")
        block[:] = np.frombuffer(found, np.uint8)
    # Only at the end of its bytes does a zip file compare their checksum.
    file.read(1)
    return np.ndarray(shape, dtype, content, order=order)


def map_array(file: IO[bytes], size: int) -> np.memmap:
    """The array of an open .npy file of so many bytes, left on the disk; the file may be closed and removed.

    Raises:
        ValueError: as for `read_header`; and all of `DAMAGED`.
    """
    shape, order, dtype = read_header(file, size)
    return np.memmap(file, dtype, "r", file.tell(), shape, order)


def read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Shape, order and type of the array of an open .npy file of so many bytes, which is left at its first entry.

    Raises:
        ValueError: it is none that numpy wrote, one of Python objects, or of another size than its header says; and all
            of `DAMAGED`.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        # Of headers that Python 2 wrote, or that damage makes look so.
        warnings.simplefilter("ignore")
        shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != there or any(length < 0 for length in shape):
        raise ValueError(f"its header says {claimed} bytes, {dtype} of shape {shape}, there are {there}")
    return shape, "F" if fortran else "C", dtype
