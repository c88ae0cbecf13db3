"""Fields and random streams that callers hand in, checked once where they enter a flow or a target.

What can only mean one thing is converted: numpy arrays, integers, other precisions. Where it is ambiguous or means
nothing, one line says what is accepted. Of a tensor that is as it should be nothing is read but its description, so the
check waits for no device; NaN are let through, and what comes out for them is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput, WrongType
from isingflow.runtime.checks import LARGEST_SEED, array, as_numpy, shown

FLOATS = (torch.float32, torch.float64)
"""The types that all computations work in."""
CPU = torch.device("cpu")


def fields(name: str, value: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A batch of fields, as a tensor of the type of another one and where that is; its graph is kept.

    Args:
        name: what the caller knows it by.
        value: a tensor or an array of real numbers, shape (n, *shape), n may be 0.
        shape: of one field.
        like: of the type to convert to, on the device where fields must be. Arrays are moved there, tensors are not.

    Raises:
        InvalidInput: another shape or device; WrongType: no real numbers.

    Example:
        >>> fields("x", np.ones((3, 2), np.int8), (2,), torch.zeros(()))[0]
        tensor([1., 1.])
        >>> fields("x", torch.zeros(2), (2,), torch.zeros(()))
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: x has shape (2,), expected (n, 2): a single field needs an axis in front, x[None]
    """
    usual = isinstance(value, Tensor) and value.dtype == like.dtype and value.layout is torch.strided
    if usual and value.shape[1:] == shape and value.ndim and value.device == like.device:
        return value
    tensor = _real(name, value, f"of shape {_words('n', shape)}")
    if tensor.ndim == 0 or tuple(tensor.shape[1:]) != shape:
        alone = f": a single field needs an axis in front, {name}[None]" if tuple(tensor.shape) == shape else ""
        raise InvalidInput(f"{name} has shape {tuple(tensor.shape)}, expected {_words('n', shape)}{alone}")
    if isinstance(value, Tensor) and tensor.device != like.device:
        raise InvalidInput(f"{name} is on {tensor.device}, expected it on {like.device}, where the flow is")
    return tensor.to(like)


def fields_of(name: str, value: Any, shape: tuple[int, ...], *, batch: bool = False) -> Tensor:
    """Fields wherever they are: float32 and float64 stay, all else becomes torch's default type.

    Args:
        name: what the caller knows it by.
        value: a tensor or an array of real numbers, shape (..., *shape).
        shape: of one field.
        batch: whether there must be one leading axis, neither more nor fewer.

    Raises:
        InvalidInput: another shape; WrongType: no real numbers.

    Example:
        >>> fields_of("x", torch.ones(2, dtype=torch.int8), (2,))
        tensor([1., 1.])
    """
    given = value
    if not (isinstance(value, Tensor) and value.dtype in FLOATS and value.layout is torch.strided):
        given = _real(name, value, f"of shape {_words('n' if batch else '...', shape)}")
        if given.dtype not in FLOATS:
            usual = torch.get_default_dtype()
            given = given.to(usual if usual in FLOATS else torch.float32)
    leading = given.ndim - len(shape)
    if leading < 0 or tuple(given.shape[leading:]) != shape or (batch and leading != 1):
        wanted = _words("n" if batch else "...", shape)
        raise InvalidInput(f"{name} has shape {tuple(given.shape)}, expected {wanted}")
    return given


def source(generator: Any, device: torch.device = CPU) -> torch.Generator:
    """A source of random numbers on a device.

    Raises:
        InvalidInput: it is on another device; WrongType: it is none.

    Example:
        >>> source(3)
        Traceback (most recent call last):
        isingflow.errors.WrongType: generator is 3, expected a torch.Generator: torch.Generator().manual_seed(3)
    """
    if not isinstance(generator, torch.Generator):
        seed = generator if isinstance(generator, int) and 0 <= generator <= LARGEST_SEED else 0
        raise WrongType(
            f"generator is {shown(generator)}, expected a torch.Generator: torch.Generator().manual_seed({seed:d})"
        )
    if generator.device.type != device.type:
        raise InvalidInput(f"generator is on {generator.device}, expected it on {device}")
    return generator


def stream(generator: Any, device: torch.device) -> torch.Generator | None:
    """As `source`, or None for torch's global one."""
    return None if generator is None else source(generator, device)


def numbers(name: str, value: Any, shape: Sequence[int | None]) -> Tensor:
    """Finite real numbers that something is made from, float64, on the CPU, without a graph.

    Args:
        name, value, shape: as in `checks.array`.

    Raises:
        InvalidInput: another shape, or not finite; WrongType: no real numbers.

    Example:
        >>> numbers("variances", [1, 2], (2,))
        tensor([1., 2.], dtype=torch.float64)
    """
    return torch.from_numpy(array(name, value, shape))


@contextmanager
def usual_defaults() -> Iterator[None]:
    """New tensors are float32 on the CPU for a while, whatever `torch.set_default_dtype` and `set_default_device` say.

    Flows are built so, and moved afterwards: the same seed then makes the same flow everywhere.

    Example:
        >>> with usual_defaults():
        ...     torch.zeros(1).dtype
        torch.float32
    """
    before = torch.get_default_dtype()
    elsewhere = torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        if elsewhere:
            with torch.device("cpu"):
                yield
        else:
            yield
    finally:
        torch.set_default_dtype(before)


def _real(name: str, value: Any, wanted: str) -> Tensor:
    """Real numbers as a tensor; numbers of other libraries on the CPU."""
    if isinstance(value, Tensor):
        dense = value.layout is torch.strided and not value.is_quantized and not value.is_nested
        if not dense or value.is_complex() or value.dtype == torch.bool:
            layout = "" if dense else f", laid out as {str(value.layout).removeprefix('torch.')}"
            raise WrongType(f"{name} is {shown(value)}{layout}, expected real numbers {wanted}")
        return value
    entries = as_numpy(value)
    if entries is None or entries.dtype.kind not in "iuf":
        raise WrongType(f"{name} is {shown(value)}, expected real numbers {wanted}")
    if entries.dtype.kind == "f":
        kind: type = np.float32 if entries.dtype.itemsize <= 4 else np.float64
    else:
        kind = np.float64 if entries.dtype == np.uint64 else np.int64
    return torch.from_numpy(np.array(entries, kind, order="C"))


def _words(leading: str, shape: Sequence[int]) -> str:
    return f"({leading},)" if not shape else f"({leading}, {', '.join(map(str, shape))})"
