"""Averages of any potential over a symmetry group: the exact sum, or one sampled element for each integration step.

    phi_G(x) = mean over g of phi(g x),    grad phi_G(x) = mean over g of g^-1 grad phi(g x)

The exact sum costs |G| evaluations and is exactly symmetric. Sampling one g for every step of the trajectory (Zhang, E
and Wang 2018) costs one, and is symmetric on average only. The draws belong to the flow: they stay as they are until
`redraw`, so that the inverse retraces the same path and log p is a function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import Element, Group
from isingflow.potentials.base import Field, Potential
from isingflow.runtime.checks import choice, count, instance
from isingflow.runtime.fields import usual_defaults

MAX_EXACT_ORDER = 4096


class SymmetricAverage(Potential):
    """The mean of phi(g x, t) over all elements g: exactly symmetric, |G| times the work.

    Raises:
        InvalidInput: the group has more than 4096 elements.
    """

    permutations: Tensor
    inverses: Tensor
    signs: Tensor

    @usual_defaults()
    def __init__(self, potential: Potential, group: Group) -> None:
        super().__init__()
        _check_shapes(potential, group)
        if group.order > MAX_EXACT_ORDER:
            raise InvalidInput(
                f"the exact average over {group} has {group.order} terms; at most {MAX_EXACT_ORDER} are possible: "
                'take mode="sampled" or a potential that is symmetric by construction'
            )
        self.potential = potential
        self.shape = potential.shape
        self.symmetry = group
        elements = list(_without_idle_flip(group, potential).elements())
        permutations, signs = _tabulate(elements)
        inverses, _ = _tabulate([g.inverse() for g in elements])
        self.register_buffer("permutations", permutations, persistent=False)
        self.register_buffer("inverses", inverses, persistent=False)
        self.register_buffer("signs", signs, persistent=False)

    def value(self, x: Tensor, t: float) -> Tensor:
        """Mean of phi(g x, t), shape (n,)."""
        return self.potential.value(self._images(x), t).view(-1, len(x)).mean(0)

    def bind(self, context: Tensor | None = None) -> Field:
        """Gradient and Laplacian of the mean, all group elements in one batch."""
        inner = self.potential.bind(context)

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            gradient, laplacian = inner(self._images(x), t)
            order, n = len(self.signs), len(x)
            back = self.inverses[:, None].expand(order, n, -1)
            aligned = gradient.reshape(order, n, -1).gather(2, back) * self.signs[:, None, None].to(x)
            return aligned.mean(0).view(x.shape), laplacian.view(order, n).mean(0)

        return field

    def _images(self, x: Tensor) -> Tensor:
        """g x for all g, shape (|G| n, *shape)."""
        images = x.flatten(1)[:, self.permutations].transpose(0, 1) * self.signs[:, None, None].to(x)
        return images.reshape(-1, *self.shape)


class SampledAverage(Potential):
    """phi(g x, t) with one group element g for each of `slots` equal intervals of time, the same for all samples.

    Claims Z2 at most: only the average over draws has more; a draw turns phi's own symmetries into conjugates.
    """

    permutations: Tensor
    inverses: Tensor
    signs: Tensor

    @usual_defaults()
    def __init__(self, potential: Potential, group: Group, *, slots: int, generator: torch.Generator) -> None:
        super().__init__()
        _check_shapes(potential, group)
        slots = count("slots", slots)
        self.potential = potential
        self.shape = potential.shape
        self.symmetry = Group(potential.shape, flip=potential.symmetry.flip)
        self.group = _without_idle_flip(group, potential)
        sites = group.sites
        self.register_buffer("permutations", torch.arange(sites).repeat(slots, 1))
        self.register_buffer("inverses", torch.arange(sites).repeat(slots, 1))
        self.register_buffer("signs", torch.ones(slots))
        self.redraw(generator)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw new group elements, uniformly and independently for each interval."""
        instance("generator", generator, torch.Generator, "a torch.Generator")
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        elements = self.group.sample(np.random.default_rng(seed), len(self.signs))
        permutations, signs = _tabulate(elements)
        inverses, _ = _tabulate([g.inverse() for g in elements])
        self.permutations.copy_(permutations)
        self.inverses.copy_(inverses)
        self.signs.copy_(signs)

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(g x, t) with the element g of the interval in which t lies, shape (n,)."""
        return self.potential.value(self._move(x, self._slot(t)), t)

    def bind(self, context: Tensor | None = None) -> Field:
        """Gradient and Laplacian with the element of the interval in which t lies."""
        inner = self.potential.bind(context)
        return lambda x, t: self._transformed(inner, self._slot(t))(x, t)

    def fields(self, midpoints: Sequence[float], context: Tensor | None = None) -> list[Field]:
        """One field for each step: the element of the interval in which the step's midpoint lies."""
        inner = self.potential.bind(context)
        return [self._transformed(inner, self._slot(t)) for t in midpoints]

    def _slot(self, t: float) -> int:
        return min(int(t * len(self.signs)), len(self.signs) - 1)

    def _transformed(self, inner: Field, slot: int) -> Field:
        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            gradient, laplacian = inner(self._move(x, slot), t)
            return self._move(gradient, slot, inverse=True), laplacian

        return field

    def _move(self, x: Tensor, slot: int, *, inverse: bool = False) -> Tensor:
        """g x or g^-1 x with the element g of a slot."""
        pair = self.permutations[slot], self.inverses[slot]
        image = _Permutation.apply(x.flatten(1), *(reversed(pair) if inverse else pair)).view(x.shape)
        return image * self.signs[slot] if self.group.flip else image


def group_average(
    potential: Potential,
    group: Group,
    mode: str = "exact",
    *,
    slots: int = 1,
    generator: torch.Generator | None = None,
) -> Potential:
    """The average of a potential over a group.

    Args:
        potential: any potential.
        group: symmetry operations of the potential's fields.
        mode: "exact", the sum over all elements; or "sampled", one element per interval of time, frozen until `redraw`.
        slots: sampled mode only: number of intervals.
        generator: sampled mode only: source of the draws.

    Raises:
        InvalidInput: unknown mode, fields of another shape, too large a group, or no generator to sample with.

    Example:
        >>> from isingflow.potentials import DensePotential
        >>> from isingflow.lattice.symmetry import square_torus_group
        >>> dense = DensePotential((4, 4), hidden=8, generator=torch.Generator().manual_seed(0))
        >>> str(group_average(dense, square_torus_group(4, 4)).symmetry)
        'translations x D4 x Z2'
    """
    if choice("mode", mode, ("exact", "sampled")) == "exact":
        return SymmetricAverage(potential, group)
    if generator is None:
        raise InvalidInput("a sampled average needs a generator")
    return SampledAverage(potential, group, slots=slots, generator=generator)


class _Permutation(torch.autograd.Function):
    """x[:, permutation], whose adjoint is the inverse permutation: a gather both ways, where autograd would scatter."""

    @staticmethod
    def forward(ctx, x, permutation, inverse):
        ctx.save_for_backward(inverse, permutation)
        return x.index_select(1, permutation)

    @staticmethod
    def backward(ctx, cotangent):
        return _Permutation.apply(cotangent, *ctx.saved_tensors), None, None


def _without_idle_flip(group: Group, potential: Potential) -> Group:
    """The elements to go through: an even potential is the same for g and -g."""
    return replace(group, flip=group.flip and not potential.symmetry.flip)


def _check_shapes(potential: Potential, group: Group) -> None:
    instance("potential", potential, Potential, "a Potential")
    instance("group", group, Group, "a lattice.Group")
    if potential.shape != group.shape:
        raise InvalidInput(f"the potential takes fields of shape {potential.shape}, the group acts on {group.shape}")


def _tabulate(elements: Sequence[Element]) -> tuple[Tensor, Tensor]:
    """Permutations, int64 (count, N), and signs, (count,)."""
    permutations = torch.from_numpy(np.stack([g.permutation for g in elements]).astype(np.int64))
    return permutations, torch.tensor([float(g.sign) for g in elements], dtype=torch.float32, device="cpu")
