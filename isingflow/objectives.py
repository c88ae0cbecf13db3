"""What training minimises.

    reverse KL:      E_z[ln p(x) + E(x)],  x = flow(z): the variational free energy, minus ln Z a Kullback-Leibler divergence
    transport cost:  E_z[int |dx/dt|^2 / 2 dt], which keeps trajectories short and straight (OT-Flow's first penalty)
    force matching:  E_x[|grad ln p(x) + grad E(x)|^2] / N, zero if and only if p is the target
"""

from __future__ import annotations

from torch import Tensor

from isingflow.config import TrainingConfig
from isingflow.flows import Flow
from isingflow.hubbard_stratonovich import HubbardStratonovich


def objective(
    flow: Flow, target: HubbardStratonovich, latent: Tensor, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    """The loss of a batch of noise, and ln p + E of every sample.

    Args:
        flow: in training mode.
        target: gives E(x).
        latent: z, shape (n, *shape).
        config: weights of the penalties.

    Returns:
        The loss, a scalar with its graph, and ln p(x) + E(x), float64, shape (n,), detached.
    """
    field, logdet = flow(latent)
    excess = flow.base_log_prob(latent) - logdet + target.energy(field)
    return excess.mean(), excess.detach()
