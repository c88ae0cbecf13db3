"""The optimiser of the settings: Adam, with rates of its own for the opening layers of potentials.

A unit that bends along a plane at a distance sees its inputs times its length, and acts with that length squared: what
is a small step of its output weight is a large one for the flow, and the other way round with its direction. With one
rate for both, output weights overshoot before directions have moved.

Decay halves weights that the loss does not want until they are below the smallest normal number, where a processor
takes ten times as long for a product. They are zero long before.
"""

from __future__ import annotations

import torch

from isingflow.flows import Flow
from isingflow.potentials import Potential
from isingflow.runs.settings import TrainingConfig

NEGLIGIBLE = 1e-25
"""Weights and momenta below are zero under decay; above, products with fields and cotangents are normal numbers."""


def adam(flow: Flow, training: TrainingConfig) -> torch.optim.Adam:
    """Adam in its L2 form, of all parameters of a flow.

    Example:
        >>> from isingflow.flows import Flow, GradientFlow
        >>> from isingflow.potentials import ResidualPotential
        >>> generator = torch.Generator().manual_seed(0)
        >>> flow = Flow((2,), [GradientFlow(ResidualPotential((2,), layers=1, generator=generator), steps=2)])
        >>> optimiser = adam(flow, TrainingConfig(learning_rate=0.01, balance=5.0))
        >>> [(len(group["params"]), group["lr"]) for group in optimiser.param_groups]
        [(5, 0.002), (2, 0.05)]
    """
    opening = _opening(flow)
    others = [parameter for parameter in flow.parameters() if id(parameter) not in {id(found) for found in opening}]
    rate, balance = training.learning_rate, training.balance
    if opening and balance != 1.0:
        groups = [{"params": others, "lr": rate / balance}, {"params": opening, "lr": rate * balance}]
    else:
        groups = [{"params": list(flow.parameters())}]
    betas, decay = (0.9, training.beta2), training.weight_decay
    optimiser = torch.optim.Adam(groups, lr=rate, betas=betas, weight_decay=decay)
    if decay:
        optimiser.register_step_post_hook(lambda stepped, *_: _drop_negligible(stepped))
    return optimiser


@torch.no_grad()
def _drop_negligible(optimiser: torch.optim.Optimizer) -> None:
    """Zeros in place of what decay has left of parameters and their momenta."""
    for parameter, state in optimiser.state.items():
        for tensor in (parameter, state["exp_avg"]):
            tensor[tensor.abs() < NEGLIGIBLE] = 0


def _opening(flow: Flow) -> list[torch.nn.Parameter]:
    """Directions and biases of the opening layers of all potentials of a flow."""
    potentials = (module for module in flow.modules() if isinstance(module, Potential))
    return [
        parameter
        for potential in potentials
        for name, parameter in potential.named_parameters(recurse=False)
        if name in potential.opening_parameters
    ]
