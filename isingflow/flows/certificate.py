"""How far the log-determinants of a flow may be off: what bounds and likelihoods are certified by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isingflow.flows.base import Flow, refined
from isingflow.runtime.parallel import Backend, Workers
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import mean

Energy = Callable[[Tensor], Tensor]


def integration_error(flow: Flow, energy: Energy, latent: Tensor, pool: Backend | None = None) -> Estimate:
    """How far ln p + E of samples of the flow may be off, in nats: what a bound is certified by.

    For transforms that are computed in steps (gradient flows) the mean absolute change of the same samples at twice as
    many: an upper limit, sample by sample, on the change of the bound itself. For stochastic log-determinants (convex
    flows with Lanczos' quadrature) the limit on the quadrature's error and the standard error of the probes. Zero for
    flows that approximate nothing.

    Args:
        flow: its steps are doubled for the second pass and restored.
        energy: E(x), shape (n,).
        latent: z, shape (n, *shape).
        pool: threads to share the work.
    """
    change = refinement_error(flow, lambda z: -log_weights(energy, *pushed(flow, z)), latent, pool)
    return change + _logdet_error(flow, latent)


def likelihood_error(flow: Flow, samples: Tensor, pool: Backend | None = None) -> Estimate:
    """How far ln p of data may be off, in nats; see `integration_error`.

    Args:
        flow: its steps are doubled for the second pass and restored.
        samples: x, shape (n, *shape).
        pool: threads to share the work.
    """
    change = refinement_error(flow, flow.log_prob, samples, pool)
    with torch.no_grad():
        return change + (_logdet_error(flow, flow.inverse(samples)[0]) if is_stochastic(flow) else 0.0)


def refinement_error(
    flow: Flow, value: Callable[[Tensor], Tensor], batch: Tensor, pool: Backend | None = None
) -> Estimate:
    """Mean absolute change of a value per sample when the flow is computed in twice as many steps.

    Args:
        flow: its steps are doubled for the second pass and restored.
        value: what depends on the flow, shape (n, *shape) to (n,).
        batch: noise or data, shape (n, *shape).
        pool: threads to share the work.
    """
    pool = pool or Workers(1)

    @torch.no_grad()
    def values() -> Tensor:
        return torch.cat(pool.map(value, batch))

    training = flow.training
    flow.eval()
    try:
        coarse = values()
        with refined(flow, 2):
            fine = values()
    finally:
        flow.train(training)
    return mean((coarse - fine).abs().nan_to_num(nan=math.inf))


def _logdet_error(flow: Flow, latent: Tensor) -> float:
    error = logdet_error(flow, latent)
    return error.truncation + error.stderr


def pushed(flow: Flow, latent: Tensor) -> tuple[Tensor, Tensor]:
    """Fields x = flow(z) and ln p(x), float64, shape (n,)."""
    field, logdet = flow(latent)
    return field, flow.base_log_prob(latent) - logdet


def log_weights(energy: Energy, field: Tensor, log_prob: Tensor) -> Tensor:
    """w = -E(x) - ln p(x), float64, shape (n,)."""
    return -energy(field.double()) - log_prob


def is_stochastic(flow: Flow) -> bool:
    """Whether log-determinants of a flow are estimates by random probes.

    Example:
        >>> is_stochastic(Flow((2,), []))
        False
    """
    return any(transform.stochastic for transform in flow.transforms)


@dataclass(frozen=True)
class LogdetError:
    """What stochastic log-determinants add to the error of a mean of ln p over samples, in nats.

    Attributes:
        value: mean of ln det over the samples, of the stochastic maps together.
        stderr: its standard error from the probes.
        truncation: upper limit on the error of Lanczos' quadrature, which overestimates ln det of a Hessian: by so much
            may ln p be too small, or too large for an inverted map.
    """

    value: float
    stderr: float
    truncation: float


@torch.no_grad()
def logdet_error(flow: Flow, latent: Tensor, *, batch: int = 256) -> LogdetError:
    """The error of the mean log-determinant of a flow's stochastic maps; zero where all are exact.

    Args:
        flow: with any maps; those whose log-determinants take no random probes add nothing.
        latent: noise z, shape (n, *shape).
        batch: samples in flight at a time.

    Example:
        >>> print(logdet_error(Flow((2,), []), torch.zeros(3, 2)))
        LogdetError(value=0.0, stderr=0.0, truncation=0.0)
    """
    total, variance, truncation = 0.0, 0.0, 0.0
    if not is_stochastic(flow):
        return LogdetError(total, variance, truncation)
    for z in latent.split(batch):
        for transform in flow.transforms:
            x, _ = transform(z)
            estimate = transform.logdet_error(z, x)
            if estimate is not None:
                total += float(estimate.value.sum())
                variance += float(estimate.stderr.square().sum())
                truncation += float(estimate.truncation.sum())
            z = x
    count = len(latent)
    return LogdetError(total / count, math.sqrt(variance) / count, truncation / count)
