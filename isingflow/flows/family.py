"""A flow for all values of physical parameters, such as beta or an external field: all that is learnt is a series.

    w(beta, H) = sum_bc W_bc a^(b + c) T_b(s) T_c(r),    s, r from -1 to 1 as beta and H go through their ranges,

with Chebyshev polynomials T, for every parameter w of an ordinary flow. What is learnt is W: an optimiser such as Adam
moves all of it equally, and the powers of a < 1 keep w smooth. What is fitted after a training is a series without
them, see `training.products`. What a flow starts from in closed form, such as the best Gaussian of a magnet, is that of
each beta and H. A member of the family is an ordinary flow.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.flows.base import Flow, approximations
from isingflow.flows.products import fitted_map
from isingflow.runtime.checks import count, function, instance, number, shown

MEMBERS = 128
"""Untrained members that are kept."""
FITTED_TERMS = 5
"""Of the series of what is fitted, at most."""
DAMPING = 0.4
"""What a coefficient that is learnt counts, in units of that of the polynomial before."""

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Range:
    """The values of one parameter, and its polynomials.

    Args:
        name: of the parameter, as members are asked for.
        low, high: least and greatest value; equal for a parameter that is fixed, with one term.
        terms: polynomials, at least 1.

    Raises:
        InvalidInput: a range that is none, or no terms.

    Example:
        >>> Range("field", 0.0, 0.2, 3).basis(0.2)
        tensor([1., 1., 1.], dtype=torch.float64)
    """

    name: str
    low: float
    high: float
    terms: int

    def __post_init__(self) -> None:
        instance("name", self.name, str, "the name of a parameter")
        low, high, terms = number("low", self.low), number("high", self.high), count("terms", self.terms)
        for name, value in (("low", low), ("high", high)):
            object.__setattr__(self, name, value)
        if low > high or (low == high and terms > 1):
            raise InvalidInput(f"a family from {low:g} to {high:g}: expected a range from a smaller to a larger value")

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" if self.low < self.high else f"{self.low:g}"

    @property
    def middle(self) -> float:
        """Of the range."""
        return (self.low + self.high) / 2

    def check(self, value: float, what: str = "the family was made for") -> float:
        """The value, as a number.

        Raises:
            InvalidInput: it is outside of the range, or no number.
        """
        if not self.low <= number(self.name, value) <= self.high:
            raise InvalidInput(f"{self.name} {value:g} is outside of what {what}: expected {self}")
        return float(value)

    def basis(self, value: float) -> Tensor:
        """T_b at a value, float64, shape (terms,).

        Raises:
            InvalidInput: it is outside of the range.
        """
        self.check(value)
        if self.low == self.high:
            return torch.ones(1, dtype=torch.float64)
        scaled = torch.tensor((2 * value - self.low - self.high) / (self.high - self.low), dtype=torch.float64)
        return torch.cos(torch.arange(self.terms) * torch.arccos(scaled.clamp(-1, 1)))

    @property
    def scales(self) -> Tensor:
        """What the coefficients of a new family count, float64, shape (terms,).

        Example:
            >>> Range("field", 0.0, 0.2, 3).scales
            tensor([1.0000, 0.4000, 0.1600], dtype=torch.float64)
        """
        return DAMPING ** torch.arange(self.terms, dtype=torch.float64)

    def end_weights(self, value: float) -> Tensor:
        """Weights of both ends, for what is linear between them, float64, shape (2,); of a single value (1,).

        Raises:
            InvalidInput: it is outside of the range.

        Example:
            >>> Range("field", 0.0, 0.2, 3).end_weights(0.05)
            tensor([0.7500, 0.2500], dtype=torch.float64)
        """
        self.check(value)
        if self.low == self.high:
            return torch.ones(1, dtype=torch.float64)
        upper = (value - self.low) / (self.high - self.low)
        return torch.tensor([1 - upper, upper], dtype=torch.float64)


class Family(Flow):
    """Flows for all values of some parameters, each from its least to its greatest.

    Its parameters are those of a member, each with an axis in front for the terms of its series: products of the
    polynomials of all ranges, those of the last one next to each other. It takes no fields itself: `at` gives the
    member that does.

    Args:
        build: the untrained member at values given by name, in float32 on the CPU; all are of one make.
        ranges: of the parameters, at least one.

    Attributes:
        scales: what each coefficient of a parameter's series counts, shape (terms,), in the order of `basis`.
        fitted: coefficients of products of nearby sites, see `potentials.ProductPotential`, shape (terms of their
            series, terms); zero, as they are until they are fitted, or without a column where members have none.
        pace: integration steps of the members at the ends of all ranges, in units of the family's own, above 0 and at
            most 1, shape (ends,), in the order of `basis`; between them their logarithm is linear.

    Raises:
        InvalidInput: no ranges, or two of one name.

    Example:
        >>> from isingflow.flows import GradientFlow
        >>> from isingflow.potentials import DensePotential
        >>> def build(beta):
        ...     generator = torch.Generator().manual_seed(0)
        ...     return Flow((4,), [GradientFlow(DensePotential((4,), hidden=8, generator=generator), steps=2)])
        >>> family = Family(build, [Range("beta", 0.2, 0.6, terms=3)])
        >>> family.at(0.3).sample(5)[0].shape, family.parameter_count == 3 * build(0.3).parameter_count
        (torch.Size([5, 4]), True)
        >>> family.at(beta=0.7)
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: beta 0.7 is outside of what the family was made for: expected 0.2 to 0.6
    """

    scales: Tensor
    fitted: Tensor
    pace: Tensor

    def __init__(self, build: Callable[..., Flow], ranges: Sequence[Range]) -> None:
        self.ranges = tuple(instance("a range", one, Range, "a Range") for one in ranges)
        if not self.ranges or len({one.name for one in self.ranges}) < len(self.ranges):
            raise InvalidInput("a family: expected one range or more, each of a parameter of its own")
        self.terms = math.prod(one.terms for one in self.ranges)
        function("build", build, optional=False)
        template = build(**self._middle)
        super().__init__(template.shape, list(template.transforms))
        self._untrained = lru_cache(MEMBERS)(build)
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                later = parameter.new_zeros(self.terms - 1, *parameter.shape)
                setattr(module, name, nn.Parameter(torch.cat([parameter.detach()[None], later])))
        scales = reduce(torch.kron, [one.scales for one in self.ranges])
        self.register_buffer("scales", scales.to(self.dtype))
        found = fitted_map(self)
        width = 0 if found is None else found.potential.terms
        self.register_buffer("fitted", torch.zeros(min(self.terms, FITTED_TERMS), width, dtype=self.dtype))
        self.register_buffer("pace", torch.ones(len(self.end_weights(**self._middle)), dtype=self.dtype))

    @property
    def _middle(self) -> dict[str, float]:
        return {one.name: one.middle for one in self.ranges}

    def basis(self, *values: float, **named: float) -> Tensor:
        """Products of the polynomials at some values, float64, shape (terms,); values as of `at`.

        Raises:
            InvalidInput: as of `at`.
        """
        point = self._point(values, named)
        return reduce(torch.kron, [one.basis(point[one.name]) for one in self.ranges])

    def end_weights(self, *values: float, **named: float) -> Tensor:
        """Weights of the ends of all ranges, for what is linear between, float64, shape (ends,); values as of `at`.

        Raises:
            InvalidInput: as of `at`.
        """
        point = self._point(values, named)
        return reduce(torch.kron, [one.end_weights(point[one.name]) for one in self.ranges])

    @torch.no_grad()
    def at(self, *values: float, **named: float) -> Flow:
        """The member at some values: an ordinary flow in evaluation mode, with parameters of its own.

        Args:
            values, named: of the parameters, by name, such as `at(beta=0.3, field=0.1)`, or in the order of those that
                have a range, such as `at(0.3)`; a parameter that is fixed need not be given.

        Raises:
            InvalidInput: a value is missing, given twice, or outside of its range.
        """
        point = self._point(values, named)
        bound = self.bound(**point)
        member = copy.deepcopy(self._member(point)).to(self.device)
        for own, learnt in zip(member.parameters(), bound.parameters(), strict=True):
            own.copy_(learnt)
        self._give_steps(member, point)
        self._give_products(member, point)
        return member.eval().requires_grad_(False)

    def bound(self, *values: float, **named: float) -> Flow:
        """The member at some values as it is trained: its parameters are functions of the family's, with their graph.

        All that is drawn is the family's own. Values are given as in `at`.

        Raises:
            InvalidInput: as of `at`.
        """
        point = self._point(values, named)
        basis, start = self.basis(**point).to(self._like) * self.scales, self._member(point)
        transforms = [
            _bound(ours, theirs, basis) if any(True for _ in ours.parameters()) else theirs
            for ours, theirs in zip(self.transforms, start.transforms, strict=True)
        ]
        bound = Flow(self.shape, transforms)
        self._give_steps(bound, point)
        self._give_products(bound, point)
        return bound.train(self.training)

    def _point(self, values: tuple[float, ...], named: dict[str, float]) -> dict[str, float]:
        """The values of all parameters by name, in the order of the ranges."""
        free = [one.name for one in self.ranges if one.low < one.high]
        if len(values) > len(free):
            raise InvalidInput(f"a family of flows for all values of {' and '.join(free)}: {len(values)} are given")
        given = dict(zip(free, values, strict=False))
        unknown = [name for name in named if name in given or name not in self._middle]
        if unknown:
            raise InvalidInput(
                f"{unknown[0]}: expected {' and '.join(self._middle)} of a member of the family, each once"
            )
        given |= named
        if missing := [name for name in free if name not in given]:
            raise InvalidInput(f"{missing[0]} is missing: {self._choose}")
        return {one.name: one.check(given.get(one.name, one.low)) for one in self.ranges}

    @property
    def _choose(self) -> str:
        """Which members there are, and how to get one."""
        free = [one for one in self.ranges if one.low < one.high]
        ranges = " and ".join(str(one) if len(free) == 1 else f"{one.name} from {one}" for one in free)
        return (
            f"a family of flows, {'from ' if len(free) == 1 else ''}{ranges}: choose a member of it by "
            f".at({', '.join(f'{one.name}=...' for one in free)})"
        )

    @torch.no_grad()
    def term(self, index: int) -> Flow:
        """An ordinary flow whose parameters are one term of the series: what is linear in them goes term by term."""
        member = copy.deepcopy(self._member(self._middle)).to(self.device)
        for own, series in zip(member.parameters(), self.parameters(), strict=True):
            own.copy_(series[index])
        for part, like in zip(approximations(member), approximations(self), strict=True):
            part.steps = like.steps
        return member

    @torch.no_grad()
    def set_term(self, index: int, flow: Flow, factor: Tensor | float = 1.0) -> None:
        """Take one term of the series from the parameters of an ordinary flow, times a factor, and its steps."""
        for own, series in zip(flow.parameters(), self.parameters(), strict=True):
            series[index] = factor * own
        for part, like in zip(approximations(self), approximations(flow), strict=True):
            part.steps = like.steps

    def keep_products(self, like: Flow, series: Tensor) -> None:
        """Take what was fitted: coefficients, of the shape of `fitted`, and scales and steps of a fitted member."""
        own, given = fitted_map(self), fitted_map(like)
        if own is None or given is None:
            raise InvalidInput("a family without products of nearby sites can keep none")
        self.fitted.copy_(series)
        own.potential.scales.copy_(given.potential.scales)
        own.gradient.steps = given.gradient.steps

    @property
    def steps_at_ends(self) -> list[int]:
        """Integration steps of the members at the ends of all ranges, in the order of `pace`; of the finest map.

        Set them for all maps: the others keep their ratio to it. A family that integrates nothing has none to set.
        """
        most = max((part.steps for part in approximations(self)), default=0)
        return [_paced(most, share) for share in self.pace.tolist()] if most else []

    @steps_at_ends.setter
    def steps_at_ends(self, steps: Sequence[int]) -> None:
        before, after = max(part.steps for part in approximations(self)), max(steps)
        for part in approximations(self):
            part.steps = max(round(part.steps * after / before), 1)
        self.pace.copy_(torch.tensor(steps) / after)

    def _give_steps(self, member: Flow, point: dict[str, float]) -> None:
        """Give a member as many integration steps as its place in the ranges needs."""
        share = math.exp(float(self.end_weights(**point) @ self.pace.cpu().double().log()))
        for part, like in zip(approximations(member), approximations(self), strict=True):
            part.steps = _paced(like.steps, share)

    @torch.no_grad()
    def _give_products(self, member: Flow, point: dict[str, float]) -> None:
        """Give a member what was fitted, in a map of its own."""
        own = fitted_map(self)
        if own is None or not bool(self.fitted.any()):
            return
        place = len(own.inner.transforms)
        member.transforms[place] = copy.deepcopy(member.transforms[place])
        given = fitted_map(member)
        assert given is not None
        given.potential.scales.copy_(own.potential.scales)
        given.potential.choose(self.basis(**point)[: len(self.fitted)].to(self.fitted) @ self.fitted)
        given.gradient.steps = own.gradient.steps

    def _member(self, point: dict[str, float]) -> Flow:
        return self._untrained(**point).to(self._like)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Earlier checkpoints: coefficients as they are, no products or shorter series, the same steps everywhere."""
        state_dict.setdefault(f"{prefix}scales", torch.ones_like(self.scales))
        if not self.fitted.numel():
            state_dict.setdefault(f"{prefix}fitted", self.fitted)
        series = state_dict.get(f"{prefix}fitted")
        if series is not None and series.ndim == 2 and len(series) < len(self.fitted):
            more = series.new_zeros(len(self.fitted) - len(series), series.shape[1])
            state_dict[f"{prefix}fitted"] = torch.cat([series, more])
        pace = state_dict.setdefault(f"{prefix}pace", torch.ones_like(self.pace))
        if not bool(((pace > 0) & (pace <= 1)).all()):
            *_, errors = rest
            errors.append(f"{prefix}pace is {shown(pace.tolist())}, expected shares of steps, above 0 and at most 1")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def taken(self, name: str, x: Tensor) -> NoReturn:
        """A family takes no fields."""
        raise InvalidInput(self._choose)


def _paced(steps: int, share: float) -> int:
    """A part of some steps, rounded up, but not for an error of rounding.

    Example:
        >>> _paced(10, 0.5), _paced(10, 0.51), _paced(3, 0.01)
        (5, 6, 1)
    """
    return max(math.ceil(steps * share - 1e-3), 1)


def _bound(ours: Module, theirs: nn.Module, basis: Tensor) -> Module:
    """Our module with contracted parameters, and the buffers of theirs."""
    bound = copy.copy(ours)
    bound._parameters = {
        name: None if series is None else torch.tensordot(basis, series, 1) for name, series in ours._parameters.items()
    }
    bound._buffers = dict(theirs._buffers)
    bound._modules = {
        name: None if part is None else _bound(part, theirs._modules[name], basis)  # type: ignore[arg-type]
        for name, part in ours._modules.items()
    }
    return bound
