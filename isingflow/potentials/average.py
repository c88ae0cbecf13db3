"""Averages of any potential over a symmetry group: the exact sum, or in training a sampled one.

    phi_G(x) = mean over g of phi(g x),    grad phi_G(x) = mean over g of g^-1 grad phi(g x)

The exact sum is exactly symmetric and costs |G| evaluations; over all translations of a dense potential it is a
circular convolution. Zhang, E and Wang (2018) trained with one g instead, drawn anew for every sample at every stage of
the integrator: that costs one evaluation and is phi_G on average. But stages of different fields are no Runge-Kutta
method, the sum of their Laplacians is no log-determinant of any map, and so what is trained is no bound.
`SampledAverage` does this in training alone; everywhere else it is the exact average of the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, Potential
from isingflow.potentials.dense import DensePotential
from isingflow.runtime.checks import choice, instance
from isingflow.runtime.fields import usual_defaults
from isingflow.runtime.hashing import keys

MAX_EXACT_ORDER = 4096
"""Terms up to which a sum is taken one by one."""
_UNDRAWN = -1
_TABLE = 2**20
"""Sites of all permutations of a group up to which they are kept."""
_AT_ONCE = 2**22
"""Numbers of the images of a batch that are held at a time."""


class SymmetricAverage(Potential):
    """The mean of phi(g x, t) over all elements g: exactly symmetric, |G| times the work.

    Over groups with all translations a `DensePotential` is averaged by convolutions, N / ln N times faster.

    Raises:
        InvalidInput: the group has more than 4096 elements, and is not summed by convolutions.
    """

    @usual_defaults()
    def __init__(self, potential: Potential, group: Group) -> None:
        super().__init__()
        _check_shapes(potential, group)
        self.potential = potential
        self.shape = potential.shape
        self.symmetry = group
        if self._convolved() is None and group.order > MAX_EXACT_ORDER:
            raise InvalidInput(
                f"the exact average over {group} has {group.order} terms; at most {MAX_EXACT_ORDER} are possible: "
                "take a potential that is symmetric by construction"
            )
        self.elements = _Elements(replace(group, flip=group.flip and not potential.symmetry.flip))

    def value(self, x: Tensor, t: float) -> Tensor:
        """Mean of phi(g x, t), shape (n,)."""
        total = torch.zeros_like(x.flatten(1)[:, 0])
        for moved in self._parts(len(x)):
            total = total + self.potential.value(moved.images(x), t).view(-1, len(x)).sum(0)
        return total / self.elements.order

    def bind(self, context: Tensor | None = None) -> Field:
        """Gradient and Laplacian of the mean."""
        convolved = self._convolved()
        if convolved is not None and context is None:
            return convolved.bind_average(self.elements.points, self.elements.flip)
        inner = self.potential.bind() if context is None else self.potential.bind(context)

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            total, trace = torch.zeros_like(x), torch.zeros_like(x.flatten(1)[:, 0])
            for moved in self._parts(len(x)):
                gradient, laplacian = inner(moved.images(x), t)
                total = total + moved.back(gradient).view(-1, *x.shape).sum(0)
                trace = trace + laplacian.view(-1, len(x)).sum(0)
            return total / self.elements.order, trace / self.elements.order

        return field

    def _convolved(self) -> DensePotential | None:
        return self.potential if isinstance(self.potential, DensePotential) and self.symmetry.translations else None

    def _parts(self, n: int) -> Iterator[_Moves]:
        """All elements, as many at a time as there is room for with n samples; each for every sample."""
        order, at_once = self.elements.order, max(_AT_ONCE // (n * math.prod(self.shape) or 1), 1)
        for start in range(0, order, at_once):
            numbers = torch.arange(start, min(start + at_once, order), device=self.elements.points.device)
            yield self.elements.moves(numbers.repeat_interleave(n))


class SampledAverage(SymmetricAverage):
    """The exact average; in training mode, phi(g x, t) with a g of its own for every sample at every evaluation.

    Elements are drawn, uniformly, by a hash of the sample as it is at that stage and of a seed that `redraw` sets: they
    do not depend on how a batch is shared. Before the first `redraw` training mode is the exact average too.

    Raises:
        InvalidInput: as for the exact average.
    """

    seed: Tensor

    def __init__(self, potential: Potential, group: Group) -> None:
        super().__init__(potential, group)
        self.register_buffer("seed", torch.tensor(_UNDRAWN, device="cpu"))

    def redraw(self, generator: torch.Generator) -> None:
        """Draw new elements for training."""
        instance("generator", generator, torch.Generator, "a torch.Generator")
        self.seed.copy_(torch.randint(2**62, (), generator=generator, device=generator.device))
        self.potential.redraw(generator)

    def bind(self, context: Tensor | None = None) -> Field:
        """Gradient and Laplacian of the mean or, in training mode, of one term of it for each sample."""
        if not self.training or self.seed == _UNDRAWN:
            return super().bind(context)
        inner, seed = self.potential.bind() if context is None else self.potential.bind(context), self.seed.clone()

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            moved = self.elements.moves(keys(x, seed) % self.elements.order)
            gradient, laplacian = inner(moved.images(x), t)
            return moved.back(gradient), laplacian

        return field

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Checkpoints from before draws belonged to samples hold one for each interval of time: they are left out."""
        for name in ("permutations", "inverses", "signs"):
            state_dict.pop(prefix + name, None)
        state_dict.setdefault(prefix + "seed", self.seed)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def group_average(potential: Potential, group: Group, mode: str = "exact") -> SymmetricAverage:
    """The average of a potential over a group.

    Args:
        potential: any potential.
        group: symmetry operations of the potential's fields.
        mode: "exact", the sum over all elements; or "sampled", in training one element for each sample and stage.

    Raises:
        InvalidInput: unknown mode, fields of another shape, or too large a group.

    Example:
        >>> from isingflow.potentials import DensePotential
        >>> from isingflow.lattice.symmetry import square_torus_group
        >>> dense = DensePotential((4, 4), hidden=8, generator=torch.Generator().manual_seed(0))
        >>> str(group_average(dense, square_torus_group(4, 4)).symmetry)
        'translations x D4 x Z2'
    """
    return {"exact": SymmetricAverage, "sampled": SampledAverage}[choice("mode", mode, ("exact", "sampled"))](
        potential, group
    )


class _Elements(nn.Module):
    """The elements of a group by their numbers, 0 to order - 1; those of large groups are composed when asked for.

    Attributes:
        points, inverse_points: site permutations of the point group, and their inverses, shape (operations, N).
    """

    points: Tensor
    inverse_points: Tensor
    _table: Tensor | None

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.shape = group.shape
        self.order = group.order
        self.flip = group.flip
        self.translations = group.translations
        points = torch.from_numpy(np.stack(group.point).astype(np.int64))
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("inverse_points", points.argsort(1), persistent=False)
        count = group.order // (2 if group.flip else 1)
        table = torch.stack(self._composed(torch.arange(count))) if count * group.sites <= _TABLE else None
        self.register_buffer("_table", table, persistent=False)

    def moves(self, numbers: Tensor) -> _Moves:
        """One element for each field of a batch, shape (m,)."""
        signs = None
        if self.flip:
            signs, numbers = 1 - 2 * (numbers % 2), numbers // 2
        if self._table is not None:
            return _Moves(self._table[0, numbers], self._table[1, numbers], signs)
        return _Moves(*self._composed(numbers), signs)

    def _composed(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Site permutations and their inverses, shape (m, N)."""
        point = numbers % len(self.points)
        permutations, inverses = self.points[point], self.inverse_points[point]
        if self.translations:
            shift = numbers // len(self.points)
            permutations = self._shifted(shift, 1).gather(1, permutations)
            inverses = inverses.gather(1, self._shifted(shift, -1))
        return permutations, inverses

    def _shifted(self, shift: Tensor, sign: int) -> Tensor:
        """All sites moved by the displacement from site 0 to the site `shift`, or back, shape (m, N)."""
        sites, stride = torch.zeros(len(shift), 1, dtype=torch.int64, device=shift.device), 1
        for length in reversed(self.shape):
            along = torch.arange(length, device=shift.device) + sign * (shift // stride % length)[:, None]
            sites = (stride * (along % length)[:, :, None] + sites[:, None]).flatten(1)
            stride *= length
        return sites


class _Moves:
    """A group element for each field of a batch: site permutations and their inverses, shape (m, N), and signs."""

    def __init__(self, permutations: Tensor, inverses: Tensor, signs: Tensor | None) -> None:
        self.permutations = permutations
        self.inverses = inverses
        self.signs = signs

    def images(self, x: Tensor) -> Tensor:
        """g x, shape (m, *shape), of m fields or of n, of which n divides m, one after the other."""
        rows = x.flatten(1).repeat(len(self.permutations) // max(len(x), 1), 1)
        return self._moved(rows, self.permutations, self.inverses).view(-1, *x.shape[1:])

    def back(self, x: Tensor) -> Tensor:
        """g^-1 x."""
        return self._moved(x.flatten(1), self.inverses, self.permutations).view(x.shape)

    def _moved(self, rows: Tensor, permutations: Tensor, inverses: Tensor) -> Tensor:
        image = _Permutation.apply(rows, permutations, inverses)
        return image if self.signs is None else image * self.signs[:, None]


class _Permutation(torch.autograd.Function):
    """x[i, permutation[i]], whose adjoint is the inverse: a gather both ways, where autograd would scatter."""

    @staticmethod
    def forward(ctx, x, permutation, inverse):
        ctx.save_for_backward(inverse, permutation)
        return x.gather(1, permutation)

    @staticmethod
    def backward(ctx, cotangent):
        return _Permutation.apply(cotangent, *ctx.saved_tensors), None, None


def _check_shapes(potential: Potential, group: Group) -> None:
    instance("potential", potential, Potential, "a Potential")
    instance("group", group, Group, "a lattice.Group")
    if potential.shape != group.shape:
        raise InvalidInput(f"the potential takes fields of shape {potential.shape}, the group acts on {group.shape}")
