"""What training minimises: one of the first four, and penalties.

- reverse KL: E_z[ln p(x) + E(x)] with x = flow(z), the variational free energy: -ln Z plus KL(p | target), an upper
  bound. It hardly feels what the flow leaves out: where p is small there are no samples;
- the same by its path gradient: the same minimum, with less noise on the way;
- both bounds: that minus E_x[ln p(x) + E(x)] over the target, the lower bound: KL(p | target) + KL(target | p), the
  symmetric divergence of Jeffreys (1946). What the flow leaves out costs most;
- negative log-likelihood: E_x[-ln p(x)] over data, the entropy of the data plus KL(data | p);
- transport cost: E_z[int |dx/dt|^2 / 2 dt], which keeps trajectories short and straight (OT-Flow's first penalty);
- Hamilton-Jacobi-Bellman residual: E_z[int |d phi/dt + |grad phi|^2 / 2| dt], zero along straight paths at constant
  speed (OT-Flow's second);
- force matching: E_x[|grad ln p(x) + grad E(x)|^2] / N, zero if and only if p is the target.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isingflow.flows import Flow, PathCost
from isingflow.potentials.layers import wanted
from isingflow.runs.config import TrainingConfig
from isingflow.targets.base import Target

Objective = Callable[[Flow, Target, Tensor, TrainingConfig], tuple[Tensor, Tensor]]
"""(flow, target, z, settings) -> the loss, a scalar with its graph, and ln p + E of every sample, float64, detached:
what `reverse_kl` is, and what a user may put in its place."""

FAR = 0.1
"""Variance of ln p + E per site above which a flow is far from its target."""
PROBE = 1e-2
"""Root mean square displacement per site in the directional derivative of ln p."""


def reverse_kl(flow: Flow, target: Target, latent: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """The loss of a batch of noise, and ln p + E of every sample.

    Args:
        flow: in training mode.
        target: gives E(x).
        latent: z, shape (n, *shape).
        config: weights of the penalties.

    Returns:
        The loss, a scalar with its graph, and ln p(x) + E(x), float64, shape (n,), detached.
    """
    field, logdet, penalty = _penalised(flow.forward, flow.forward_with_cost, latent, config)
    excess = flow.base_log_prob(latent) - logdet + target.energy(field)
    loss = excess.mean() + penalty
    if config.force_matching:
        loss = loss + config.force_matching * force_mismatch(flow, target, field.detach()).mean()
    return loss, excess.detach()


def path_gradient(flow: Flow, target: Target, latent: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """The same value, with a gradient whose noise vanishes where the flow is exact; arguments as in `reverse_kl`.

    The gradient of E_z[ln p(x) + E(x)] has two parts: what moves x, and what changes ln p where it stands. The second
    is zero on average, E_x[d ln p(x)] = 0, and noise; here it is left out (Roeder et al. 2017):

        gradient = E_z[(dx/dparameters)^T v],    v = grad ln p(x) + grad E(x), held fixed

    It costs a pass by x alone more, see `flows.Transform.forward_with_score`. Far from the target, where ln p + E
    scatters much, v is large and its scatter is what does harm: such batches keep the second part.
    """
    field, logdet, score = flow.forward_with_score(latent)
    energy, force = target.energy_and_force(field.detach())
    excess = flow.base_log_prob(latent) - logdet.detach() + energy
    if excess.var(correction=0) <= FAR * flow.dimension:
        moved = (field * (score - force).to(field)).flatten(1).sum(1).mean()
    else:
        moved = -(field * force.to(field)).flatten(1).sum(1).mean() - logdet.mean()
    loss = excess.mean() + (moved - moved.detach())
    if config.transport_cost or config.hjb:
        loss = loss + _penalised(flow.forward, flow.forward_with_cost, latent, config)[2]
    if config.force_matching:
        loss = loss + config.force_matching * force_mismatch(flow, target, field.detach()).mean()
    return loss, excess


OBJECTIVES: dict[str, Objective] = {"total": reverse_kl, "path": path_gradient}
"""Those of the variational free energy, by the name of their gradient, see `TrainingConfig.gradient`."""


def both_bounds(
    flow: Flow, target: Target, latent: Tensor, reference: Tensor, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    """The distance of the bounds on a batch of noise and one of samples of the target, and what they are means of.

    Args:
        flow: in training mode.
        target: gives E(x).
        latent: z, shape (n, *shape).
        reference: x, samples of the target, shape (n, *shape).
        config: weights of the penalties.

    Returns:
        The loss, a scalar with its graph, and ln p(x) + E(x) of the flow's samples and of the target's, float64, shape
        (n, 2), detached.
    """
    loss, upper = OBJECTIVES[config.gradient](flow, target, latent, config)
    lower = flow.log_prob(reference) + target.energy(reference.double())
    return loss - lower.mean(), torch.stack([upper, lower.detach()], 1)


def negative_log_likelihood(flow: Flow, samples: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """The loss of a batch of data, and -ln p of every sample.

    Args:
        flow: in training mode.
        samples: x, shape (n, *shape).
        config: weights of the penalties.

    Returns:
        The loss, a scalar with its graph, and -ln p(x), float64, shape (n,), detached.
    """
    latent, logdet, penalty = _penalised(flow.inverse, flow.inverse_with_cost, samples, config)
    values = -flow.base_log_prob(latent) - logdet
    return values.mean() + penalty, values.detach()


def _penalised(
    plain: Callable[[Tensor], tuple[Tensor, Tensor]],
    with_cost: Callable[..., tuple[Tensor, Tensor, PathCost]],
    x: Tensor,
    config: TrainingConfig,
) -> tuple[Tensor, Tensor, Tensor | float]:
    """The image of x in one direction of a flow, its log-determinant, and the penalty on paths, a scalar."""
    if not (config.transport_cost or config.hjb):
        return *plain(x), 0.0
    image, logdet, cost = with_cost(x, hjb=config.hjb > 0)
    return image, logdet, config.transport_cost * cost.transport.mean() + config.hjb * cost.hjb.mean()


def force_mismatch(flow: Flow, target: Target, field: Tensor) -> Tensor:
    """|grad ln p + grad E|^2 / N at given fields, with its gradient by the flow's parameters.

    Second derivatives are not needed: with v = grad ln p + grad E held fixed, d|v|^2 = 2 v.grad(d ln p), and v.grad is
    a directional derivative, taken as a central difference over a short step along v.

    Args:
        flow: p.
        target: E.
        field: x, shape (n, *shape), held fixed.

    Returns:
        Shape (n,), float64; its value is the mismatch, its graph that of the surrogate.
    """
    x = field.detach().requires_grad_()
    with wanted.of_fields_alone():
        score = torch.autograd.grad(flow.log_prob(x).sum(), x)[0]
    mismatch = (score - target.force(field)).flatten(1).double()
    value = mismatch.square().mean(1)
    reach = (PROBE / value.sqrt().clamp_min(1e-12))[:, None]
    displacement = (reach * mismatch).view(field.shape).to(field)
    change = flow.log_prob(field + displacement) - flow.log_prob(field - displacement)
    surrogate = change / reach[:, 0] / flow.dimension
    return value + surrogate - surrogate.detach()
