"""Which weights a training keeps: where data are held back, those that are best on them, or those of the start.

A flow of finite data first learns their density and then their noise. So its weights are looked at now and then on rows
that it is not trained on, and the training ends with the best of them. Where not even those are as good as the maps
that were fitted in closed form, the trained maps become the identity, and the flow is its start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isingflow.flows import Flow
from isingflow.training.inherit import trained_maps

PREFIX = "best."
"""Of the kept weights in a checkpoint."""


@dataclass
class Kept:
    """The best weights so far.

    Attributes:
        score: of theirs, in nats, the lower the better: -ln p of the rows held back, and the error of it.
        iteration: they are of.
        tensors: the state of the flow.

    Example:
        >>> flow, kept = Flow((2,), []), Kept()
        >>> [kept.offer(flow, iteration, score) for iteration, score in enumerate([3.0, 2.0, 2.5])]
        [True, True, False]
        >>> kept.iteration
        1
    """

    score: float = math.inf
    iteration: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, flow: Flow, iteration: int, score: float) -> bool:
        """Keep the weights of a flow if they are better than those before; whether they are."""
        if not score < self.score:
            return False
        self.score, self.iteration = score, iteration
        self.tensors = {name: value.detach().clone() for name, value in flow.state_dict().items()}
        return True

    def packed(self) -> dict[str, Tensor]:
        """The tensors by their names in a checkpoint."""
        return {f"{PREFIX}{name}": value for name, value in self.tensors.items()}

    @property
    def state(self) -> dict[str, Any] | None:
        """What a checkpoint says of the kept weights; None where there are none yet."""
        return {"iteration": self.iteration, "score": self.score} if self.tensors else None

    @classmethod
    def unpacked(cls, tensors: dict[str, Tensor], state: dict[str, Any] | None) -> Kept:
        """What `packed` and `state` described."""
        if not state:
            return cls()
        kept = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        return cls(float(state["score"]), int(state["iteration"]), kept)


@torch.no_grad()
def rest(flow: Flow) -> None:
    """Make the trained maps the identity: so they are, of every architecture, where all parameters are zero.

    Example:
        >>> from isingflow.flows import ConvexFlow
        >>> from isingflow.potentials import ConvexPotential
        >>> flow = Flow((2,), [ConvexFlow(ConvexPotential((2,), width=4, generator=torch.Generator().manual_seed(0)))])
        >>> rest(flow)
        >>> flow.forward(torch.ones(1, 2))[0].detach()
        tensor([[1., 1.]])
    """
    for transform in trained_maps(flow):
        for parameter in transform.parameters():
            parameter.zero_()
