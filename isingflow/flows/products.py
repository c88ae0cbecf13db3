"""The map of a flow that is fitted after its training, along products of functions of nearby sites."""

from __future__ import annotations

from dataclasses import dataclass

from isingflow.flows.base import Flow
from isingflow.flows.gradient import GradientFlow, gradient_flows
from isingflow.potentials import ProductPotential


@dataclass(frozen=True, eq=False)
class FittedMap:
    """The map along the products of a flow.

    Attributes:
        inner, outer: the flow before the map, and after it.
        gradient: the map.
        potential: its potential.
    """

    inner: Flow
    outer: Flow
    gradient: GradientFlow
    potential: ProductPotential


def fitted_map(flow: Flow) -> FittedMap | None:
    """The map along the products of a flow; None where it has none.

    Example:
        >>> fitted_map(Flow((2,), [])) is None
        True
    """
    for place, transform in enumerate(flow.transforms):
        for part in gradient_flows(transform):
            if isinstance(part.potential, ProductPotential):
                before, after = flow.transforms[:place], flow.transforms[place + 1 :]
                return FittedMap(Flow(flow.shape, list(before)), Flow(flow.shape, list(after)), part, part.potential)
    return None
