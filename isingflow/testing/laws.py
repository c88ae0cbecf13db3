"""What all laws share: how a broken one is told, what counts as rounding, and how objects are moved and rebuilt.

A law compares two numbers that are equal in exact arithmetic. It is broken if they differ by more than

    OPERATIONS * eps * scale,

eps being the rounding of the numbers' type and scale the largest number that is compared, at least one: rounding of
that many operations in a row, all in one direction. Where something besides rounding enters (steps of an integration,
differences instead of derivatives, samples instead of integrals) its own size is measured and added.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import Element, Group
from isingflow.runtime.checks import instance

OPERATIONS = 2**12
"""Roundings that may add up in one direction before a difference counts as more than rounding."""
ELEMENTS = 512
"""Elements of a symmetry group that are tried; all of them in groups that have no more."""
DEVIATIONS = 5.0
"""Standard errors that a mean over samples may be off: one in two million does so by chance."""

Law = Callable[..., None]
Module = TypeVar("Module", bound=nn.Module)


class LawBroken(AssertionError):
    """A law that does not hold, and by how much.

    Attributes:
        subject: whose law it is, by the name of its class.
        law: its name.
        compared: the two things that should be equal, in words.
        size: by how much they differ; None where there is no number for it.
        tolerance: by how much they may.

    Example:
        >>> print(LawBroken("Mine", "Laplacian", "the Laplacian and the trace of the Hessian differ", 0.25, 1e-12))
        Mine breaks the law "Laplacian": the Laplacian and the trace of the Hessian differ by 0.25 (allowed: 1e-12)
    """

    def __init__(
        self, subject: str, law: str, compared: str, size: float | None = None, tolerance: float | None = None
    ) -> None:
        self.subject, self.law, self.compared, self.size, self.tolerance = subject, law, compared, size, tolerance
        by = "" if size is None else f" by {size:.3g}"
        allowed = "" if tolerance is None else f" (allowed: {tolerance:.3g})"
        super().__init__(f'{subject} breaks the law "{law}": {compared}{by}{allowed}')


class Judge:
    """Compares for one law of one object.

    Args:
        subject: whose law it is.
        law: its name.
    """

    def __init__(self, subject: str, law: str) -> None:
        self.subject, self.law = subject, law

    def demand(self, kept: bool, broken: str, size: float | None = None, tolerance: float | None = None) -> None:
        """Refuse with these words unless the law is kept."""
        if not kept:
            raise LawBroken(self.subject, self.law, broken, size, tolerance)

    def like(self, what: str, ours: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
        """Refuse what has another shape or type."""
        given = f"shape {tuple(ours.shape)} and {ours.dtype}" if isinstance(ours, Tensor) else type(ours).__name__
        kept = isinstance(ours, Tensor) and tuple(ours.shape) == tuple(shape) and ours.dtype == dtype
        self.demand(kept, f"{what} has {given}: expected shape {tuple(shape)} and {dtype}")

    def finite(self, what: str, ours: Tensor) -> None:
        """Refuse what is not a number, or infinite."""
        bad = int((~torch.isfinite(ours)).sum())
        self.demand(not bad, f"{what} is not finite in {bad} of {ours.numel()} entries")

    def close(
        self,
        what: str,
        ours: Tensor,
        expected: Tensor,
        *,
        besides: float | Tensor = 0.0,
        eps: float | None = None,
        scale: float = 1.0,
    ) -> None:
        """Refuse two tensors that differ by more than rounding.

        Args:
            what: the two, in words, for "... differ".
            ours: what is judged.
            expected: what it is judged by.
            besides: what may be added to rounding, entry by entry.
            eps: relative rounding error of the numbers; that of the coarser type if not given.
            scale: what rounding is compared with, if the numbers themselves are smaller.
        """
        self.demand(
            ours.shape == expected.shape, f"{what} differ in shape: {tuple(ours.shape)}, {tuple(expected.shape)}"
        )
        if not ours.numel():
            return
        if eps is None:
            eps = max(torch.finfo(tensor.dtype).eps for tensor in (ours, expected))
        self.finite(what, ours)
        ours, expected = ours.detach().double(), expected.detach().double()
        largest = max(scale, float(expected.abs().max()))
        allowed = OPERATIONS * eps * largest + torch.as_tensor(besides, dtype=torch.float64)
        excess = (ours - expected).abs() - allowed
        worst = int(excess.argmax())
        size = float((ours - expected).abs().flatten()[worst])
        tolerance = float(allowed.expand(ours.shape).flatten()[worst])
        self.demand(size <= tolerance, f"{what} differ", size, tolerance)

    def equal(self, what: str, ours: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
        """Refuse tensors that differ in any bit."""
        for one, other in zip(ours, expected, strict=True):
            if one.shape != other.shape or one.dtype != other.dtype:
                self.like(what, one, other.shape, other.dtype)
            one, other = one.detach().double(), other.detach().double()
            same = torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
            self.demand(same, f"{what} differ", float((one - other).abs().max()) if one.numel() else None, 0.0)

    def mean(self, what: str, values: Tensor, expected: float = 0.0) -> None:
        """Refuse independent values, shape (n,), whose mean is further from the expected one than chance allows."""
        values = values.detach().double()
        self.finite(what, values)
        stderr = float(values.std()) / len(values) ** 0.5
        rounding = OPERATIONS * torch.finfo(torch.float32).eps * max(1.0, abs(expected))
        off = abs(float(values.mean()) - expected)
        allowed = DEVIATIONS * stderr + rounding
        self.demand(off <= allowed, f"{what}: the mean of {len(values)} samples is off", off, allowed)


def check(subject: object, table: Mapping[str, Law], on: object, laws: Sequence[str] | None = None) -> None:
    """Check laws one after the other.

    Args:
        subject: whose laws they are.
        table: laws by name.
        on: what each law is given, beside its judge.
        laws: names of those to check, in the table's order; all if not given.

    Raises:
        LawBroken: by the first that does not hold.
        InvalidInput: a name that is not in the table.
    """
    instance("laws", laws, list | tuple | None, "a list of names of laws")
    unknown = [law for law in laws or () if law not in table]
    if unknown:
        raise InvalidInput(f"no law {unknown[0]!r}: expected some of {', '.join(table)}")
    for name, law in table.items():
        if laws is None or name in laws:
            law(Judge(type(subject).__name__, name), on)


def generator(seed: int) -> torch.Generator:
    """A CPU generator of this seed."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def shaken(module: Module, strength: float = 0.3, seed: int = 0) -> Module:
    """A copy on the CPU in float64 with every parameter moved: amplitudes that start at zero would hide most faults."""
    module = copy.deepcopy(module).cpu().double()
    source = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, dtype=torch.float64, generator=source)
            parameter.add_(strength * noise)
    return module


def single(module: Module) -> Module:
    """A copy in float32."""
    return copy.deepcopy(module).float()


def rebuilt(module: Module, other: Module | None, seed: int) -> Module:
    """Another module with the state of this one, by way of the bytes of a safetensors file.

    Args:
        module: whose state is saved.
        other: one built like it with other random numbers; a copy of it if not given.
        seed: of the draws and parameters that the other one has before the state is loaded.
    """
    other = shaken(module if other is None else other, 1.0, seed)
    redraw = getattr(other, "redraw", None)
    if redraw is not None:
        redraw(generator(seed))
    saved = safetensors.torch.save({name: tensor.clone() for name, tensor in module.state_dict().items()})
    other.load_state_dict(safetensors.torch.load(saved))
    return other.train(module.training)


def tried(group: Group, seed: int) -> list[Element]:
    """All elements of a group, or a sample of it with the spin flip where it has too many; the identity first."""
    if group.order <= ELEMENTS:
        return list(group.elements())
    flip = [group.element(sign=-1)] if group.flip else []
    return [group.identity, *flip, *group.sample(np.random.default_rng(seed), ELEMENTS)]


def in_words(element: Element) -> str:
    """An element of a symmetry group, for messages."""
    moved = int((element.permutation != np.arange(element.permutation.size)).sum())
    flip = "the spin flip x -> -x" if element.sign == -1 else ""
    permutation = f"a permutation that moves {moved} of {element.permutation.size} sites" if moved else ""
    return " with ".join(filter(None, (permutation, flip))) or "the identity"


def slope(scalar: Callable[[float], Tensor], step: float) -> tuple[Tensor, Tensor]:
    """The derivative of a scalar (or of each entry of a tensor) at zero by differences, and how far it may be off.

    Two differences of fourth order, of step and half a step: they differ by 15 times the error of the finer one, and
    rounding adds eps |f| / step.
    """

    def difference(h: float) -> tuple[Tensor, Tensor]:
        near, far = [(scalar(n * h), scalar(-n * h)) for n in (1, 2)]
        rounding = torch.finfo(near[0].dtype).eps * torch.stack([*near, *far]).abs().amax(0) / h
        return (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * h), rounding

    (coarse, _), (fine, rounding) = difference(step), difference(step / 2)
    return fine, (coarse - fine).abs() + OPERATIONS**0.5 * rounding
