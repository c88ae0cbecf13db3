"""What a target must keep, checked on random fields before anything is built on it.

E has one real, finite value per field, which depends on that field alone and can be differentiated;
E(g x) = E(x) for every element g of the symmetry that the target claims.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidTarget, SymmetryMismatch
from isingflow.lattice.symmetry import Group
from isingflow.runtime import devices
from isingflow.runtime.checks import LARGEST_SEED, count
from isingflow.targets.base import Target, as_target

FIELDS = 4
ELEMENTS = 16
"""Elements of the symmetry group that are tried."""
TOLERANCE = 1e-6
"""Largest relative change of an energy, in float64, that counts as rounding."""


def check_target(target: Target, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
    """Refuse a target that breaks a law, with the law and by how much.

    Raises:
        InvalidTarget: shape, dtype, finiteness, independence of samples or differentiability of the energy.
        SymmetryMismatch: the energy is not invariant under the symmetry claimed.

    Example:
        >>> class Tilted(Target):
        ...     shape, symmetry = (3,), Group((3,), flip=True)
        ...
        ...     def energy(self, field):
        ...         return (field**2 / 2 + field).sum(-1)
        >>> check_target(Tilted())
        Traceback (most recent call last):
        isingflow.errors.SymmetryMismatch: Tilted claims the symmetry Z2, but its energy changes by 3.83 nats under \
the spin flip x -> -x
    """
    target, device = as_target(target), devices.resolve(device)
    generator = torch.Generator().manual_seed(count("seed", seed, least=0, most=LARGEST_SEED))
    field = torch.randn(FIELDS, *target.shape, generator=generator, dtype=torch.float32, device="cpu")
    for transform in (*target.start().latent, *target.start().field):
        field = transform(field.to(device))[0]
    field = field.detach().to(device)
    for dtype in (torch.float32, torch.float64):
        _check_energy(target, field.to(dtype))
    _check_independence(target, field.double())
    check_symmetry(target, field.double(), seed=seed)


def _check_energy(target: Target, field: Tensor) -> None:
    """One finite real number per field, with a gradient by torch, whatever else the target knows of its force."""
    energy, force = Target.energy_and_force(target, field)
    if not bool(torch.isfinite(energy).all()):
        raise InvalidTarget(f"{target.name}.energy gave {energy[~torch.isfinite(energy)][0].item()} for a random field")
    if not bool(torch.isfinite(force).all()):
        raise InvalidTarget(f"the gradient of {target.name}.energy is not finite for a random field")


def _check_independence(target: Target, field: Tensor) -> None:
    """The energy of a field is the same in any batch."""
    together = target.energy(field)
    alone = torch.cat([target.energy(x[None]) for x in field])
    change = float((together - alone).detach().abs().max())
    if change > TOLERANCE * _scale(together):
        raise InvalidTarget(
            f"{target.name}.energy of a field depends on the other fields of its batch, by {change:.3g} nats: sum over "
            "the axes of a field only, not over the first one"
        )


def check_symmetry(target: Target, field: Tensor, *, seed: int = 0) -> None:
    """Refuse a claimed symmetry under which the energy changes.

    Args:
        target: E and the group claimed.
        field: some x, float64, shape (n, *shape).
        seed: of the elements tried.

    Raises:
        InvalidTarget: the symmetry is not a group on fields of this shape.
        SymmetryMismatch: E(g x) differs from E(x).
    """
    group = target.symmetry
    if not isinstance(group, Group) or tuple(group.shape) != tuple(target.shape):
        raise InvalidTarget(
            f"{target.name}.symmetry is {group!s}: expected a lattice.Group on fields of shape {tuple(target.shape)}"
        )
    energy = target.energy(field).detach()
    flip = group.element(sign=-1)
    elements = [flip] if group.flip else []
    elements += group.sample(np.random.default_rng(seed), ELEMENTS)
    for element in elements:
        change = float((target.energy(element.apply(field)).detach() - energy).abs().max())
        if not change <= TOLERANCE * _scale(energy):
            how = "the spin flip x -> -x" if element == flip else "one of its elements"
            raise SymmetryMismatch(
                f"{target.name} claims the symmetry {group}, but its energy changes by {change:.3g} nats under {how}"
            )


def _scale(energy: Tensor) -> float:
    """What a change of an energy is compared with: the energies' size, at least a nat per sample."""
    return max(1.0, float(energy.detach().abs().max()), math.sqrt(len(energy)))
