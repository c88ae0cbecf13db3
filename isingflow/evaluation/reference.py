"""Log-weights of a target's own samples: of Markov chains that have ended in time, pushed back through a flow."""

from __future__ import annotations

import torch
from torch import Tensor

from isingflow.evaluation.budget import Budget, Meter
from isingflow.flows import Flow
from isingflow.flows.certificate import log_weights
from isingflow.runs.loading import check_numbers
from isingflow.runtime import stopping
from isingflow.runtime.parallel import Workers
from isingflow.targets.base import Referenced
from isingflow.training.problems import REFERENCE_CHAINS

BATCH = 256
OF_CHAINS = 0.5
"""Of a limit of time, what is left of it when the flow is sampled, the part that chains may take."""


@torch.no_grad()
def reverse_log_weights(
    flow: Flow,
    target: Referenced,
    samples: int,
    seed: int,
    generator: torch.Generator,
    pool: Workers,
    meter: Meter,
    budget: Budget,
) -> tuple[Tensor, Tensor] | None:
    """Log-weights of samples of the target, shape (chains, samples per chain), and the first fields.

    Args:
        flow: in evaluation mode.
        target: with chains of its own.
        samples: about, in whole chains.
        seed: of the chains.
        generator: of the fields drawn from their states.
        pool: who shares the work.
        meter: told of samples.
        budget: of time, which may leave room for shorter chains, or for none: then None.
    """
    chains = min(REFERENCE_CHAINS, samples)
    states = budget.longest(
        lambda length: pool.first(lambda: target.reference(length, chains=chains, seed=seed)),
        -(-samples // chains),
        least=1,
        share=OF_CHAINS,
    )

    def pull(field: Tensor) -> Tensor:
        return log_weights(target.energy, field, flow.log_prob(field))

    def drawn(batch: Tensor) -> Tensor:
        return target.sample_field(batch.to(generator.device, torch.float32), generator)

    def pulled(states: Tensor) -> tuple[Tensor, Tensor]:
        batch, *others = states.flatten(0, 1).split(BATCH)
        first = drawn(batch)
        parts = pool.map(pull, first)
        meter.add(len(first))
        for batch in others:
            stopping.check()
            parts += pool.map(pull, drawn(batch))
            meter.add(len(batch))
        weights = torch.cat(parts).cpu()
        check_numbers(weights)
        return weights.view(chains, -1), first

    return None if states is None else stopping.within(budget.seconds, pulled, states)
