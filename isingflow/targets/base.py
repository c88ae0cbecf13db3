"""Unnormalised densities exp(-E(x)): all that a flow, an objective or a sampler may ask of what it is used on.

A target has a shape, a symmetry and an energy. Its force follows by automatic differentiation, and a flow starts from
standard normal noise, unless the target knows better. What else a target can do is a protocol of its own, asked for by
`isinstance` where it is needed: who cannot do it leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidTarget
from isingflow.flows.base import Transform
from isingflow.lattice.symmetry import Group
from isingflow.runtime.checks import lengths
from isingflow.runtime.fields import fields_of

if TYPE_CHECKING:
    from isingflow.exact.thermodynamics import Thermodynamics
    from isingflow.lattice import Lattice
    from isingflow.statistics.estimate import Estimate
    from isingflow.targets.gaussian import MeanField


class Start(NamedTuple):
    """Where a flow starts: closed-form maps from noise, in between which the trained maps are put.

    The whole flow is latent maps, trained maps, field maps, from noise to x.

    Attributes:
        latent: from standard normal noise to the coordinates in which the trained maps act.
        field: from these coordinates to x.
        variances: of these coordinates, by momentum, in the shape of a field: features are scaled by them. Ones if not
            given.
        metric: in which x moves as these coordinates do along a gradient, B B^T where they are B^-1 x; sparse, shape
            (N, N), where it is.
    """

    latent: Sequence[Transform] = ()
    field: Sequence[Transform] = ()
    variances: Tensor | None = None
    metric: Tensor | None = None


class TargetLike(Protocol):
    """What `as_target` takes: any object with a shape and an energy, and perhaps the rest of what a `Target` has."""

    @property
    def shape(self) -> Sequence[int]: ...

    def energy(self, field: Tensor, /) -> Tensor:
        """E(x), shape (n,), for fields of shape (n, *shape)."""


class Target(nn.Module):
    """The density exp(-E(x)) / Z of fields x; subclasses give `shape` and `energy`, and whatever else they know.

    Attributes:
        shape: of one field.
        symmetry: the group under which E is invariant, E(g x) = E(x); the identity alone if not given.

    Example:
        >>> class Quartic(Target):
        ...     shape = (3,)
        ...
        ...     def energy(self, field):
        ...         return field.pow(4).sum(-1)
        >>> Quartic().force(torch.ones(1, 3))
        tensor([[-4., -4., -4.]])
    """

    shape: tuple[int, ...]

    @cached_property
    def symmetry(self) -> Group:
        return Group(tuple(self.shape))

    @property
    def sites(self) -> int:
        """Number of entries of a field."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """What run folders call the target: the name of its class."""
        return type(self).__name__

    @property
    def parameters_by_name(self) -> dict[str, Any]:
        """What run folders record of the target: its public attributes that are numbers, words or truth values."""
        return public_numbers(self)

    def title(self) -> str:
        """The target in words, for headings: its name, its parameters, its shape."""
        size = "x".join(map(str, self.shape))
        return ", ".join([self.name, *(f"{name} = {value}" for name, value in self.parameters_by_name.items()), size])

    def energy(self, field: Tensor) -> Tensor:
        """E(x), shape (n,), for fields of shape (n, *shape), of the field's dtype; in units of k_B T."""
        raise NotImplementedError

    def force(self, field: Tensor) -> Tensor:
        """-grad E, shape (n, *shape)."""
        return self.energy_and_force(field)[1]

    def energy_and_force(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """Energy, shape (n,), and force, shape (n, *shape), together; without a graph.

        Raises:
            InvalidInput: fields of another shape; WrongType: no real numbers; InvalidTarget: the energy is not one
                number per field, by which torch can differentiate.
        """
        with torch.enable_grad():
            x = fields_of("field", field, tuple(self.shape), batch=True).detach().requires_grad_()
            energy = _one_for_each(self, self.energy(x), len(x))
            (gradient,) = torch.autograd.grad(energy.sum(), x, allow_unused=True)
        if gradient is None:
            raise InvalidTarget(f"{self.name}.energy cannot be differentiated: its result does not depend on the field")
        return energy.detach(), -gradient

    def start(self) -> Start:
        """Where a flow starts: standard normal noise, unless the target knows a better density in closed form."""
        return Start()


@runtime_checkable
class ExactlySolved(Protocol):
    """A target whose free energy is known for some parameters."""

    def exact_free_energy(self) -> tuple[float, str] | None:
        """-ln Z in nats, and the method behind it in a word; None where no method is known."""


@runtime_checkable
class SolvedOnce(Protocol):
    """A magnet whose exact solution may take long to find: it is found once, and can be kept and handed back."""

    lattice: Lattice
    beta: float

    @property
    def known(self) -> Thermodynamics | None:
        """The exact solution of the spins, if it was found or handed in."""

    def know(self, solution: Thermodynamics) -> None:
        """Take the exact solution of the spins from whoever has found it before."""

    def exact_free_energy(self, longest: float = ...) -> tuple[float, str] | None:
        """As of `ExactlySolved`; None too where it would take longer than so many seconds."""


@runtime_checkable
class Referenced(Protocol):
    """A target with samples of its own, by Markov chains that do not need a flow."""

    def energy(self, field: Tensor) -> Tensor:
        """E(x), as every target has it."""

    def reference(self, samples: int, *, chains: int, seed: int) -> Tensor:
        """States along chains, shape (chains, samples, *shape), as compact as they are known, for example spins."""

    def sample_field(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fields x of the target from such states, shape (..., *shape) both."""


@runtime_checkable
class Drawing(Protocol):
    """A target behind whose fields stand other variables, drawn from their exact conditional distribution."""

    def draw(self, field: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The variables by name, for example {"spins": ...}, for fields of shape (n, *shape)."""


@runtime_checkable
class GibbsSampled(Protocol):
    """A target with a move that leaves it invariant and needs no flow."""

    def sweep(self, field: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """New fields, shape (n, *shape), drawn from the move."""


@runtime_checkable
class Reversible(Protocol):
    """A target with a move of detailed balance, p(x) P(x -> x') = p(x') P(x' -> x), that needs no flow."""

    def reversible_sweep(self, field: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """New fields, shape (n, *shape), drawn from the move."""


@runtime_checkable
class Magnetic(Protocol):
    """The continuous form of an Ising magnet."""

    beta: float

    def mean_field(self) -> MeanField:
        """The best Gaussian, whose `free_energy` is the classical bound on -ln Z."""

    def log_z_ising(self, free_energy: Estimate) -> Estimate:
        """ln Z of the spins from -ln Z of the field."""

    def draw(self, field: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The spins behind fields of shape (n, *shape), as {"spins": ...}."""


def _one_for_each(target: Target, energy: Any, n: int) -> Tensor:
    """The energies of n fields, if there is a real number for each, with a graph."""
    if not isinstance(energy, Tensor) or energy.shape != (n,):
        what = f"shape {tuple(energy.shape)}" if isinstance(energy, Tensor) else f"a {type(energy).__name__}"
        raise InvalidTarget(
            f"{target.name}.energy gave {what} for {n} fields of shape {tuple(target.shape)}: expected a tensor of "
            f"shape ({n},), one energy per field"
        )
    if not energy.is_floating_point():
        raise InvalidTarget(f"{target.name}.energy gave {energy.dtype}: expected real floating-point numbers")
    if not energy.requires_grad:
        raise InvalidTarget(
            f"{target.name}.energy cannot be differentiated: its result does not depend on the field by torch"
        )
    return energy


OPTIONAL = (
    "force",
    "start",
    "title",
    "exact_free_energy",
    "reference",
    "sample_field",
    "draw",
    "sweep",
    "reversible_sweep",
)
"""Methods that a target may have besides its energy."""


class _Adapter(Target):
    """An object that is no `Target` but has its `shape` and `energy`, as one."""

    def __init__(self, wrapped: TargetLike) -> None:
        super().__init__()
        self._wrapped = wrapped
        self.shape = lengths(f"{type(wrapped).__name__}.shape", wrapped.shape)
        symmetry = getattr(wrapped, "symmetry", None)
        if symmetry is not None:
            self.symmetry = symmetry
        for method in OPTIONAL:
            if callable(getattr(wrapped, method, None)):
                setattr(self, method, getattr(wrapped, method))

    @property
    def name(self) -> str:
        return type(self._wrapped).__name__

    @property
    def parameters_by_name(self) -> dict[str, Any]:
        return public_numbers(self._wrapped)

    def energy(self, field: Tensor) -> Tensor:
        return self._wrapped.energy(field)


def as_target(target: TargetLike) -> Target:
    """A target as such: itself, or any object with a `shape` and an `energy`, and perhaps a `symmetry`.

    Raises:
        InvalidTarget: it has no shape or no energy; InvalidInput: its shape is none.
    """
    kind = type(target).__name__
    if isinstance(target, Target):
        if not isinstance(getattr(target, "shape", None), tuple | list):
            raise InvalidTarget(f"{kind} has no shape: set self.shape, for example (16,) or (8, 8)")
        lengths(f"{kind}.shape", target.shape)
        if type(target).energy is Target.energy and "energy" not in vars(target):
            raise InvalidTarget(f"{kind} has no energy: give it a method energy(field)")
        return target
    if isinstance(target, type) or not callable(getattr(target, "energy", None)) or not hasattr(target, "shape"):
        what = f"the class {target.__name__}" if isinstance(target, type) else f"a {kind}"
        raise InvalidTarget(f"{what} is not a target: expected an object with a shape and a method energy(field)")
    return _Adapter(target)


def public_numbers(owner: Any) -> dict[str, Any]:
    """The public attributes of an object that are numbers, words or truth values."""
    kinds = (bool, int, float, str)
    return {
        name: value
        for name, value in vars(owner).items()
        if not name.startswith("_") and name != "training" and isinstance(value, kinds)
    }
