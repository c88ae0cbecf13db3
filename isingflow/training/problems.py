"""What a flow can be trained on: a magnet, whose density is known up to its norm, or data, which are samples.

    magnet    minimise E_z[ln p(x) + E(x)], x = flow(z):    the variational free energy, at least -ln Z
              or its distance from the lower bound:         needs samples of the target, from Monte Carlo
    data      minimise -E_x[ln p(x)], x from the data:      the negative log-likelihood, at least their entropy

All are means of values per sample, in nats. The training loop knows no more of a problem than what is here.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isingflow.flows import ActNorm, Flow
from isingflow.flows.certificate import integration_error, likelihood_error
from isingflow.monte_carlo.simulate import simulate
from isingflow.runs.config import AnyRunConfig, DensityConfig, RunConfig
from isingflow.runtime.parallel import Workers
from isingflow.statistics.free_energy import effective_sample_size
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training.objectives import both_bounds, negative_log_likelihood, reverse_kl

if TYPE_CHECKING:
    from isingflow.datasets import Dataset

logger = logging.getLogger(__name__)

SNAPSHOT_SAMPLES = 25
CHECKED = 256
"""Validation data that a training looks at now and then."""
REFERENCE_CHAINS = 64
REFERENCE_SAMPLES = 256
"""Monte Carlo states per chain that a training draws from, on lattices for which they have room."""
REFERENCE_SPINS = 2**26
"""Room for their spins, of a byte each."""
REFERENCE_STREAM = 2**40
"""Added to a run's seed: evaluations are to be made with other Monte Carlo states than trainings."""


class Problem(ABC):
    """A flow, and what is asked of it.

    Attributes:
        flow: to be trained.
        source: where the generators of batches live.
    """

    flow: Flow
    source: torch.device

    @abstractmethod
    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """What the objective is averaged over: noise or data, shape (n, *shape)."""

    def prepare(self, n: int, seed: int) -> None:
        """Show a batch to maps that start from one, before threads share batches."""
        if any(isinstance(module, ActNorm) for module in self.flow.modules()):
            self.flow.train()
            with torch.no_grad():
                self.objective(self.batch(n, torch.Generator(self.source).manual_seed(seed)))

    @abstractmethod
    def objective(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, a scalar with its graph, and the values of every sample, float64, shape (n, ...), detached."""

    @abstractmethod
    def readings(self, values: Tensor) -> dict[str, float | None]:
        """What the metrics say of a batch, from its values; None where it is unknown."""

    @abstractmethod
    def error(self, n: int, generator: torch.Generator, pool: Workers) -> float:
        """The integration error of n fresh samples, in nats."""

    def check(self, pool: Workers) -> dict[str, float]:
        """What the metrics say now and then, from other samples than those of the training."""
        return {}

    @abstractmethod
    def snapshot(self) -> np.ndarray:
        """A few samples of the flow, always from the same noise."""


class Magnet(Problem):
    """The continuous form of an Ising model.

    Attributes:
        target: E(x).
        exact: -ln Z, if it is known.
        reference: spins of the target, int8, shape (n, *shape); None where training narrows the upper bound alone.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.training = config.training
        self.source = device
        self.target = HubbardStratonovich(config.lattice, config.beta).to(device)
        self.exact, _ = self.target.exact_free_energy() or (None, None)
        self.flow = config.new_flow(self.target).to(device)
        self.reference = None if config.training.bounds == "upper" else _reference(config).to(device)

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Standard normal z, shape (n, 1, *shape); with fields of the target beside them (n, 2, *shape)."""
        latent = self.flow.noise(n, generator)
        if self.reference is None:
            return latent[:, None]
        chosen = torch.randint(len(self.reference), (n,), generator=generator, device=self.source)
        field = self.target.sample_field(self.reference[chosen].to(latent.dtype), generator)
        return torch.stack([latent, field], 1)

    def objective(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Upper bound, or the distance of both, and penalties; ln p + E of every sample, shape (n,) or (n, 2)."""
        if self.reference is None:
            return reverse_kl(self.flow, self.target, batch[:, 0], self.training)
        return both_bounds(self.flow, self.target, batch[:, 0], batch[:, 1], self.training)

    def readings(self, values: Tensor) -> dict[str, float | None]:
        """The bounds, the gap of the upper one, and the effective sample size of the batch."""
        excess = values.view(len(values), -1)
        bounds = dict(zip(("variational_free_energy", "lower_bound"), excess.mean(0).tolist(), strict=False))
        return bounds | {
            "gap_nats": None if self.exact is None else bounds["variational_free_energy"] - self.exact,
            "effective_sample_size": effective_sample_size(-excess[:, 0]),
        }

    def error(self, n: int, generator: torch.Generator, pool: Workers) -> float:
        """Change of ln p + E at half the step; the larger of both directions where both are trained."""
        batch = self.batch(n, generator)
        error = integration_error(self.flow, self.target.energy, batch[:, 0], pool).value
        if self.reference is None:
            return error
        return max(error, likelihood_error(self.flow, batch[:, 1], pool).value)

    def snapshot(self) -> np.ndarray:
        """Spins, int8."""
        generator = torch.Generator(self.flow.device).manual_seed(0)
        field, _ = self.flow.sample(SNAPSHOT_SAMPLES, generator=generator)
        return self.target.sample_spins(field, generator).cpu().numpy()


class Density(Problem):
    """A data set; the flow starts from the best Gaussian of its training part."""

    def __init__(self, config: DensityConfig, device: torch.device, data: Dataset) -> None:
        self.training = config.training
        self.source = torch.device("cpu")
        self.data = data
        self.flow = config.new_flow(data).to(device)
        self.validation = next(data.validation.batches(CHECKED, torch.Generator().manual_seed(config.seed))).to(device)

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Training data."""
        return self.data.train.draw(n, generator).to(self.flow.device)

    def objective(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and penalties; -ln p of every sample."""
        return negative_log_likelihood(self.flow, batch, self.training)

    def readings(self, values: Tensor) -> dict[str, float | None]:
        """The negative log-likelihood of the batch."""
        return {"negative_log_likelihood": float(values.mean())}

    def error(self, n: int, generator: torch.Generator, pool: Workers) -> float:
        """Change of ln p at half the step."""
        return likelihood_error(self.flow, self.batch(n, generator), pool).value

    @torch.no_grad()
    def check(self, pool: Workers) -> dict[str, float]:
        """The negative log-likelihood of some validation data, the same ones every time."""
        self.flow.eval()
        log_prob = torch.cat(pool.map(self.flow.log_prob, self.validation))
        return {"validation_negative_log_likelihood": float(-log_prob.mean())}

    def snapshot(self) -> np.ndarray:
        """Samples, float32."""
        generator = torch.Generator(self.flow.device).manual_seed(0)
        return self.flow.sample(SNAPSHOT_SAMPLES, generator=generator)[0].cpu().numpy()


def _reference(config: RunConfig) -> Tensor:
    """Spins of the target by Monte Carlo, int8, shape (n, *shape)."""
    samples = max(min(REFERENCE_SAMPLES, REFERENCE_SPINS // (REFERENCE_CHAINS * config.lattice.sites)), 1)
    seed = config.seed + REFERENCE_STREAM
    logger.info("Monte Carlo of the magnet, for the lower bound: %d states", samples * REFERENCE_CHAINS)
    chains = simulate(config.lattice, config.beta, samples=samples, chains=REFERENCE_CHAINS, seed=seed)
    return torch.from_numpy(chains.spins).flatten(0, 1)


def problem_of(config: AnyRunConfig, device: torch.device, data: Dataset | None = None) -> Problem:
    """The problem of a run.

    Args:
        config: of the run.
        device: where to train.
        data: what a density is trained on.
    """
    return Magnet(config, device) if isinstance(config, RunConfig) else Density(config, device, data)
