"""What a flow asks of a potential phi(x, t): its gradient, its Laplacian and its symmetry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.lattice.symmetry import Group
from isingflow.potentials.layers import wanted

Field = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""(x, t) -> grad phi, of x's shape, and laplacian phi, shape (n,); x has shape (n, *shape)."""

TimedField = Callable[[Tensor, float], tuple[Tensor, Tensor, Tensor]]
"""(x, t) -> grad phi, laplacian phi and d phi/dt, shape (n,)."""

ScoredField = Callable[[Tensor, float, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(x, t, s) -> grad phi and laplacian phi, and the derivative by x of s.grad phi + laplacian phi, without a graph."""


class Tables(NamedTuple):
    """A potential that is one hidden layer and a quadratic form, at the times of stages s.

        grad phi = sum_m a_sm tanh(v_m.x + b_sm) v_m + Q x + q_s
        laplacian phi = sum_m a_sm |v_m|^2 [1 - tanh^2(v_m.x + b_sm)] + tr Q
        d phi/dt = sum_m r_sm tanh(v_m.x + b_sm) + k_s.x + k0_s

    Attributes:
        v, b, a, norms: shapes (units, d), (stages, units), (stages, units), and |v_m|^2, (units,).
        quadratic, linear: Q, symmetric, shape (d, d), and q, (stages, d).
        clock, drift, shift: r, k and k0, shapes (stages, units), (stages, d) and (stages,); None, where they are not
            known.
    """

    v: Tensor
    b: Tensor
    a: Tensor
    norms: Tensor
    quadratic: Tensor
    linear: Tensor
    clock: Tensor | None = None
    drift: Tensor | None = None
    shift: Tensor | None = None


class Potential(nn.Module):
    """A scalar function phi(x, t) of fields, with gradient and Laplacian in closed form.

    A subclass has `value` and `_bind`, and `_bind_timed` if it knows d phi/dt. One that depends on physical parameters
    too, such as beta, overrides `bind` (and `bind_timed`), whose context they are; all others refuse a context.

    Attributes:
        shape: shape of one field.
        symmetry: group under which phi is exactly invariant, phi(g x, t) = phi(x, t).
        compiled: whether elementwise work is fused by torch.compile.
        resting: whether phi is zero, so that a flow along it is the identity.
        fitted: how many numbers in it were fitted in closed form; they are no parameters of a training.
        opening_parameters: names of the directions and biases of its opening layer, which may learn at another rate.
    """

    shape: tuple[int, ...]
    symmetry: Group
    compiled = False
    resting = False
    fitted = 0
    opening_parameters: tuple[str, ...] = ()

    @property
    def metric(self) -> Tensor | None:
        """G, shape (N, N), symmetric and positive, if gradient and Laplacian are G dphi/dx and tr(G d^2 phi/dx^2)."""
        return None

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,), for x of shape (n, *shape)."""
        raise NotImplementedError

    def bind(self, context: Tensor | None = None) -> Field:
        """Gradient and Laplacian as a function of (x, t), with all that depends on the parameters alone done once.

        Args:
            context: physical parameters that phi depends on, shape (parameters,).

        Raises:
            InvalidInput: a context for a potential that depends on none.
        """
        self._refuse(context)
        return self._bind()

    def bind_timed(self, context: Tensor | None = None) -> TimedField:
        """As `bind`, with d phi/dt, for t in units of the whole time.

        Raises:
            InvalidInput: the potential does not know it in closed form, or depends on no context but is given one.
        """
        self._refuse(context)
        return self._bind_timed()

    def fields(self, midpoints: Sequence[float], context: Tensor | None = None) -> list[Field]:
        """One bound field for each integration step, given the steps' midpoints in units of the whole time."""
        # A potential that knows of no context may have a `bind` that takes none.
        return [self.bind() if context is None else self.bind(context)] * len(midpoints)

    def scored_fields(self, midpoints: Sequence[float], context: Tensor | None = None) -> list[ScoredField]:
        """What `fields` gives, for flows that carry the score along."""
        return [scored(field) for field in self.fields(midpoints, context)]

    def tabulated(self, times: Sequence[float]) -> Tables | None:
        """The potential at these times, if it is of the form of `Tables`; flows then take whole paths at once."""
        return None

    def _bind(self) -> Field:
        """What `bind` gives without a context."""
        raise NotImplementedError

    def _bind_timed(self) -> TimedField:
        """What `bind_timed` gives without a context."""
        raise InvalidInput(f"{type(self).__name__} has no derivative by time in closed form")

    def _refuse(self, context: Tensor | None) -> None:
        if context is not None:
            raise InvalidInput(
                f"{type(self).__name__} depends on no physical parameters; a context of shape {tuple(context.shape)} "
                "was given"
            )

    def redraw(self, generator: torch.Generator) -> None:
        """Draw anew whatever is random in the potential; nothing is, unless it is a sampled average."""


def untimed(field: TimedField) -> Field:
    """The same field without d phi/dt."""

    def first_two(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        gradient, laplacian, _ = field(x, t)
        return gradient, laplacian

    return first_two


def scored(field: Field) -> ScoredField:
    """The same field with the derivative of what moves a score, by a backward pass by x alone."""

    def with_score(x: Tensor, t: float, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad(), wanted.of_fields_alone():
            x = x if x.requires_grad else x.detach().requires_grad_()
            gradient, laplacian = field(x, t)
            pulled = pulled_back((gradient, laplacian), (score, torch.ones_like(laplacian)), x, again=True)
        return gradient, laplacian, pulled

    return with_score


def pulled_back(outputs: Sequence[Tensor], cotangents: Sequence[Tensor], x: Tensor, *, again: bool = False) -> Tensor:
    """The derivative by x of outputs times cotangents; constant outputs have none. Kept for another pass if `again`."""
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    if not pairs:
        return torch.zeros_like(x)
    varying, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(varying, x, weights, retain_graph=again, materialize_grads=True)[0]


def chebyshev(t: float, count: int, like: Tensor) -> Tensor:
    """Chebyshev polynomials T_0 .. T_{count-1} of 2 t - 1, shape (count,): a basis for time dependence on [0, 1].

    Example:
        >>> chebyshev(1.0, 3, torch.zeros(1))
        tensor([1., 1., 1.])
    """
    s = 2.0 * t - 1.0
    values = [1.0, s]
    while len(values) < count:
        values.append(2 * s * values[-1] - values[-2])
    return torch.tensor(values[:count], dtype=like.dtype, device=like.device)


def chebyshev_table(times: Sequence[float], count: int, like: Tensor) -> Tensor:
    """`chebyshev` at many times, a row for each, shape (times, count).

    Example:
        >>> chebyshev_table([0.0, 1.0], 2, torch.zeros(1))
        tensor([[ 1., -1.],
                [ 1.,  1.]])
    """
    return torch.stack([chebyshev(t, count, like) for t in times])


def chebyshev_slopes(t: float, count: int, like: Tensor) -> Tensor:
    """Their derivatives by t, shape (count,).

    Example:
        >>> chebyshev_slopes(1.0, 3, torch.zeros(1))
        tensor([0., 2., 8.])
    """
    s = 2.0 * t - 1.0
    values, slopes = [1.0, s], [0.0, 2.0]
    while len(slopes) < count:
        slopes.append(4 * values[-1] + 2 * s * slopes[-1] - slopes[-2])
        values.append(2 * s * values[-1] - values[-2])
    return torch.tensor(slopes[:count], dtype=like.dtype, device=like.device)
