"""Wasserstein training, which Zhang, E and Wang (2018) propose in their discussion: no density is needed.

The squared distance between a flow's samples and data is that of their projections on random directions, each of which
is the difference of sorted numbers (Bonneel, Rabin, Peyre and Pfister 2015):

    SW^2 = mean over directions u and ranks i of (u.x_(i) - u.y_(i))^2,    x = flow(z), y data

It sees where the mass is, not how it thins out: a likelihood says more about the tails.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isingflow.flows import Flow
from isingflow.runs.config import TrainingConfig
from isingflow.runtime.hashing import keys
from isingflow.training.likelihood import Likelihood

DIRECTIONS = 64


class WassersteinDistance(Likelihood):
    """Data, to which a flow's samples are to be near; handed into `training.loop.fit`.

    The weights are those at the end: the best by the likelihood of validation data, which `Likelihood` keeps, are not
    what is looked for.
    """

    held_out = None

    def objective(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The squared distance of a batch from as many samples of the flow; -ln p of every datum."""
        return wasserstein(self.flow, batch, self.training)


def wasserstein(flow: Flow, samples: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """The loss of a batch of data, and -ln p of every sample; noise and directions are functions of the batch.

    Args:
        flow: in training mode.
        samples: y, shape (n, *shape).
        config: weight of the transport cost.

    Returns:
        SW^2 and the penalty, a scalar with its graph, and -ln p(y), float64, shape (n,), detached.
    """
    seed = int(keys(samples[:1], len(samples))[0]) & (2**62 - 1)
    generator = torch.Generator(samples.device).manual_seed(seed)
    moved, _, cost = flow.forward_with_cost(flow.noise(len(samples), generator))
    loss = sliced_wasserstein(moved, samples, generator) + config.transport_cost * cost.transport.mean()
    with torch.no_grad():
        return loss, -flow.log_prob(samples)


def sliced_wasserstein(x: Tensor, y: Tensor, generator: torch.Generator, directions: int = DIRECTIONS) -> Tensor:
    """SW^2 of two samples of the same size, a scalar.

    Args:
        x, y: shape (n, *shape).
        generator: of the directions.
        directions: how many.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> sliced_wasserstein(x, x.flip(0) + 3, torch.Generator().manual_seed(0))
        tensor(9.)
    """
    ways = torch.randn(x[0].numel(), directions, dtype=x.dtype, device=x.device, generator=generator)
    ways = ways / ways.norm(dim=0)
    ours, theirs = ((points.flatten(1) @ ways).sort(0).values for points in (x, y))
    return (ours - theirs).square().mean()
