"""A flow that starts with what another has learnt: at another temperature, or on twice or half the lengths."""

from __future__ import annotations

import torch

from isingflow.errors import InvalidInput
from isingflow.flows import Flow, GradientFlow, Transform, gradient_flows
from isingflow.potentials import LatticePotential
from isingflow.potentials.enlarge import enlarge, fold
from isingflow.runs.settings import LOOSENESS
from isingflow.training.schedules import relaxed_steps


@torch.no_grad()
def inherit(earlier: Flow, flow: Flow, *, adapt_steps: bool = True, looseness: float = LOOSENESS) -> None:
    """Give a flow the trained maps of another: the same ones; or, from half or twice the lengths, enlarged or folded.

    What a flow starts from in closed form stays its own: it belongs to the target.

    Args:
        earlier: trained.
        flow: to start.
        adapt_steps: whether to take as many integration steps as the earlier one needs, as training may adapt them.
        looseness: integration error that training allows, in units of a final flow's.

    Raises:
        InvalidInput: the flows are of another make; the message says what fits.
    """
    own_steps = [gradient.steps for gradient in _trained(flow)]
    if earlier.shape == flow.shape:
        _copy(earlier, flow)
    elif tuple(2 * length for length in earlier.shape) == flow.shape:
        enlarge(*_lattice_potentials(earlier, flow))
    elif earlier.shape == tuple(2 * length for length in flow.shape):
        fold(*_lattice_potentials(earlier, flow))
    else:
        raise InvalidInput(
            f"a flow of fields of shape {earlier.shape} cannot start one of shape {flow.shape}: what fits is a run on "
            "the same lattice, or a lattice potential on the torus of half or of twice the lengths"
        )
    growth = flow.dimension / earlier.dimension
    for before, now, own in zip(_trained(earlier), _trained(flow), own_steps, strict=True):
        now.steps = relaxed_steps(before.steps, growth, now.order, looseness) if adapt_steps else own


def trained_maps(flow: Flow) -> list[Transform]:
    """The maps of a flow that have parameters."""
    return [transform for transform in flow.transforms if any(True for _ in transform.parameters())]


def _trained(flow: Flow) -> list[GradientFlow]:
    """The gradient flows that have parameters."""
    return [gradient for transform in trained_maps(flow) for gradient in gradient_flows(transform)]


def _copy(earlier: Flow, flow: Flow) -> None:
    before, now = trained_maps(earlier), trained_maps(flow)
    make = [[(name, tuple(p.shape)) for name, p in transform.named_parameters()] for transform in (*before, *now)]
    if len(before) != len(now) or make[: len(before)] != make[len(before) :]:
        raise InvalidInput(
            f"a flow of {earlier.parameter_count} parameters cannot start one of {flow.parameter_count}: what fits is "
            "a run with the same kind of flow and the same settings of it, on a lattice of the same symmetry"
        )
    for old, new in zip(before, now, strict=True):
        new.load_state_dict(old.state_dict(), strict=False)


def _lattice_potentials(*flows: Flow) -> tuple[LatticePotential, ...]:
    """That which every flow is made of."""
    potentials = [[gradient.potential for gradient in _trained(flow)] for flow in flows]
    match potentials:
        case [[LatticePotential() as earlier], [LatticePotential() as now]]:
            return earlier, now
    raise InvalidInput(
        "a flow starts one of another size only with the lattice potential, on a torus with translations"
    )
