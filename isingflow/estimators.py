"""Free energies from samples of a flow with known probabilities, each with its standard error.

With f_i = ln p(x_i) + E(x_i) for samples x_i of the flow p, and log-weights w_i = -f_i:

    mean f                         >= -ln Z    the variational bound; the difference is KL(p | target)
    -ln mean exp(w)                -> -ln Z    reweighted
    sum f exp(w) / sum exp(w)      <= -ln Z    its expectation over the target; the difference is KL(target | p)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.estimate import Estimate
from isingflow.flows import Flow, GradientFlow
from isingflow.parallel import Workers

Energy = Callable[[Tensor], Tensor]


def mean(values: Tensor) -> Estimate:
    """Mean of independent values, shape (n,), with its standard error.

    Example:
        >>> print(mean(torch.tensor([1.0, 2.0, 3.0])))
        2.00 ± 0.58
    """
    values = _checked(values)
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))))


def variational_free_energy(log_weights: Tensor) -> Estimate:
    """Upper bound on -ln Z in nats from log-weights w = -E(x) - ln p(x), float64, shape (n,)."""
    return mean(-log_weights)


def reweighted_free_energy(log_weights: Tensor) -> Estimate:
    """-ln mean exp(w), with its delta-method error; biased upward by half the squared error.

    Example:
        >>> print(reweighted_free_energy(torch.tensor([1.0, 1.0, 1.0])))
        -1.000000 ± 0.000000
    """
    log_weights = _checked(log_weights)
    n = len(log_weights)
    value = math.log(n) - float(torch.logsumexp(log_weights, 0))
    relative_variance = max(1 / effective_sample_size(log_weights) - 1, 0.0) / (n - 1)
    return Estimate(value, math.sqrt(relative_variance))


def lower_bound(log_weights: Tensor) -> Estimate:
    """Lower bound on -ln Z: the mean of ln p + E over the target, by self-normalised weights.

    A bound in the limit of many samples; where the flow misses a mode, so does this estimate of it.
    """
    log_weights = _checked(log_weights)
    weights = torch.softmax(log_weights, 0)
    excess = torch.where(weights > 0, -log_weights, 0.0)
    value = (weights * excess).sum()
    return Estimate(float(value), float((weights * (excess - value)).square().sum().sqrt()))


def effective_sample_size(log_weights: Tensor) -> float:
    """(sum exp w)^2 / (n sum exp 2w), between 1/n and 1.

    Example:
        >>> effective_sample_size(torch.tensor([0.0, 0.0, float("-inf"), float("-inf")]))
        0.5
    """
    log_weights = log_weights.double()
    ratio = 2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)
    return float(torch.exp(ratio)) / len(log_weights)


def integration_error(flow: Flow, energy: Energy, latent: Tensor, pool: Workers | None = None) -> Estimate:
    """Mean absolute change of ln p + E when the same samples are integrated at half the step, in nats.

    An upper limit, sample by sample, on the change of the bound itself. Zero for flows that integrate nothing.

    Args:
        flow: its gradient flows' steps are halved for the second pass and restored.
        energy: E(x), shape (n,).
        latent: z, shape (n, *shape).
        pool: threads to share the work.
    """
    pool = pool or Workers(1)
    gradients = [m for m in flow.modules() if isinstance(m, GradientFlow)]
    usual = [gradient.steps for gradient in gradients]

    @torch.no_grad()
    def excess() -> Tensor:
        return torch.cat(pool.map(lambda z: -log_weights(energy, *pushed(flow, z)), latent))

    training = flow.training
    flow.eval()
    try:
        coarse = excess()
        for gradient in gradients:
            gradient.steps *= 2
        fine = excess()
    finally:
        for gradient, steps in zip(gradients, usual, strict=True):
            gradient.steps = steps
        flow.train(training)
    return mean((coarse - fine).abs().nan_to_num(nan=math.inf))


def pushed(flow: Flow, latent: Tensor) -> tuple[Tensor, Tensor]:
    """Fields x = flow(z) and ln p(x), float64, shape (n,)."""
    field, logdet = flow(latent)
    return field, flow.base_log_prob(latent) - logdet


def log_weights(energy: Energy, field: Tensor, log_prob: Tensor) -> Tensor:
    """w = -E(x) - ln p(x), float64, shape (n,)."""
    return -energy(field.double()) - log_prob


def _checked(values: Tensor) -> Tensor:
    if len(values) < 2:
        raise InvalidInput(f"{len(values)} samples: an error bar needs at least 2")
    return values.double()
