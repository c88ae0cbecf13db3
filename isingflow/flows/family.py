"""A flow for every value of a physical parameter, such as beta: all that is learnt is a series in it.

    w(beta) = sum_b W_b T_b(s),    s from -1 to 1 as beta goes from the least to the greatest value of the range,

with Chebyshev polynomials T_b, for every parameter w of an ordinary flow, and for what is fitted after a training, see
`training.products`. What a flow starts from in closed form, such as the best Gaussian of a magnet, is that of each
beta. A member of the family is an ordinary flow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.flows.base import Flow, approximations
from isingflow.flows.products import fitted_map
from isingflow.runtime.checks import count, function, number

MEMBERS = 128
"""Untrained members that are kept."""
FITTED_TERMS = 4
"""Of the series of what is fitted, at most."""

Module = TypeVar("Module", bound=nn.Module)


class Family(Flow):
    """Flows for all values from `low` to `high`.

    Its parameters are those of a member, each with an axis in front for the terms of its series. It takes no fields
    itself: `at` gives the member that does.

    Args:
        build: the untrained member at a value, in float32 on the CPU; all are of one make.
        low, high: the range.
        terms: of the series, at least 1.

    Attributes:
        fitted: coefficients of products of nearby sites, see `potentials.ProductPotential`, shape (terms of their
            series, terms); zero, as they are until they are fitted, or without a column where members have none.

    Raises:
        InvalidInput: a range that is none, or no terms.

    Example:
        >>> from isingflow.flows import GradientFlow
        >>> from isingflow.potentials import DensePotential
        >>> def build(beta):
        ...     generator = torch.Generator().manual_seed(0)
        ...     return Flow((4,), [GradientFlow(DensePotential((4,), hidden=8, generator=generator), steps=2)])
        >>> family = Family(build, 0.2, 0.6, terms=3)
        >>> family.at(0.3).sample(5)[0].shape, family.parameter_count == 3 * build(0.3).parameter_count
        (torch.Size([5, 4]), True)
        >>> family.at(0.7)
        Traceback (most recent call last):
        isingflow.errors.InvalidInput: beta 0.7 is outside of what the family was made for: expected 0.2 to 0.6
    """

    fitted: Tensor

    def __init__(self, build: Callable[[float], Flow], low: float, high: float, terms: int) -> None:
        low, high = number("low", low), number("high", high)
        if not low < high:
            raise InvalidInput(f"a family from {low:g} to {high:g}: expected a range from a smaller to a larger value")
        self.low, self.high, self.terms = low, high, count("terms", terms)
        function("build", build, optional=False)
        template = build((low + high) / 2)
        super().__init__(template.shape, list(template.transforms))
        self._untrained = lru_cache(MEMBERS)(build)
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                later = parameter.new_zeros(self.terms - 1, *parameter.shape)
                setattr(module, name, nn.Parameter(torch.cat([parameter.detach()[None], later])))
        found = fitted_map(self)
        width = 0 if found is None else found.potential.terms
        self.register_buffer("fitted", torch.zeros(min(self.terms, FITTED_TERMS), width, dtype=self.dtype))

    def basis(self, value: float) -> Tensor:
        """T_b at a value, float64, shape (terms,).

        Raises:
            InvalidInput: it is outside of the range.
        """
        if not self.low <= number("beta", value) <= self.high:
            raise InvalidInput(
                f"beta {value:g} is outside of what the family was made for: expected {self.low:g} to {self.high:g}"
            )
        scaled = torch.tensor((2 * value - self.low - self.high) / (self.high - self.low), dtype=torch.float64)
        return torch.cos(torch.arange(self.terms) * torch.arccos(scaled.clamp(-1, 1)))

    @torch.no_grad()
    def at(self, beta: float) -> Flow:
        """The member at a temperature: an ordinary flow in evaluation mode, with parameters of its own.

        Raises:
            InvalidInput: beta is outside of the range.
        """
        bound = self.bound(beta)
        member = copy.deepcopy(self._member(beta)).to(self.device)
        for own, learnt in zip(member.parameters(), bound.parameters(), strict=True):
            own.copy_(learnt)
        for part, like in zip(approximations(member), approximations(self), strict=True):
            part.steps = like.steps
        self._give_products(member, beta)
        return member.eval().requires_grad_(False)

    def bound(self, value: float) -> Flow:
        """The member at a value as it is trained: its parameters are functions of the family's, with their graph.

        Steps of integrations and all that is drawn are the family's own.

        Raises:
            InvalidInput: the value is outside of the range.
        """
        basis, start = self.basis(value), self._member(value)
        transforms = [
            _bound(ours, theirs, basis.to(self._like)) if any(True for _ in ours.parameters()) else theirs
            for ours, theirs in zip(self.transforms, start.transforms, strict=True)
        ]
        bound = Flow(self.shape, transforms)
        self._give_products(bound, value)
        return bound.train(self.training)

    @torch.no_grad()
    def term(self, index: int) -> Flow:
        """An ordinary flow whose parameters are one term of the series: what is linear in them goes term by term."""
        member = copy.deepcopy(self._member((self.low + self.high) / 2)).to(self.device)
        for own, series in zip(member.parameters(), self.parameters(), strict=True):
            own.copy_(series[index])
        for part, like in zip(approximations(member), approximations(self), strict=True):
            part.steps = like.steps
        return member

    @torch.no_grad()
    def set_term(self, index: int, flow: Flow) -> None:
        """Take one term of the series from the parameters of an ordinary flow, and its steps."""
        for own, series in zip(flow.parameters(), self.parameters(), strict=True):
            series[index] = own
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

    @torch.no_grad()
    def _give_products(self, member: Flow, value: float) -> None:
        """Give a member what was fitted, in a map of its own."""
        own = fitted_map(self)
        if own is None or not bool(self.fitted.any()):
            return
        place = len(own.inner.transforms)
        member.transforms[place] = copy.deepcopy(member.transforms[place])
        given = fitted_map(member)
        assert given is not None
        given.potential.scales.copy_(own.potential.scales)
        given.potential.choose(self.basis(value)[: len(self.fitted)].to(self.fitted) @ self.fitted)
        given.gradient.steps = own.gradient.steps

    def _member(self, value: float) -> Flow:
        return self._untrained(float(value)).to(self._like)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Checkpoints from before products were fitted know of none."""
        if not self.fitted.numel():
            state_dict.setdefault(f"{prefix}fitted", self.fitted)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def taken(self, name: str, x: Tensor) -> NoReturn:
        """A family takes no fields."""
        raise InvalidInput(
            f"a family of flows, from {self.low:g} to {self.high:g}: choose a member of it by .at(beta=...)"
        )


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
