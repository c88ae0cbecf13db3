"""What a flow can be trained on: a target, whose density is known up to its norm, or data, which are samples.

    target    minimise E_z[ln p(x) + E(x)], x = flow(z):    the variational free energy, at least -ln Z
              or its distance from the lower bound:         needs samples of the target, from Monte Carlo
    data      minimise -E_x[ln p(x)], x from the data:      the negative log-likelihood, at least their entropy

All are means of values per sample, in nats. A problem is handed into the training loop, which knows no more of it than
what is here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.flows.certificate import integration_error, likelihood_error
from isingflow.flows.checks import check_maps
from isingflow.flows.products import fitted_map
from isingflow.lattice.symmetry import require
from isingflow.potentials import Potential, SampledAverage
from isingflow.runs.config import AnyRunConfig, DensityConfig, FamilyConfig, RunConfig, TargetConfig
from isingflow.runs.making import COARSE
from isingflow.runtime.parallel import Backend
from isingflow.statistics.weights import effective_sample_size
from isingflow.targets.base import ExactlySolved, Magnetic, Referenced, SolvedOnce, Target
from isingflow.targets.checks import check_target
from isingflow.training import objectives
from isingflow.training.base import SNAPSHOT_SAMPLES, Problem, Samples, Stage
from isingflow.training.families import FamilyProblem
from isingflow.training.inherit import inherit
from isingflow.training.likelihood import Likelihood
from isingflow.training.objectives import Objective
from isingflow.training.products import Fitted, fit_products, take_products
from isingflow.training.schedules import FINAL_MARGIN
from isingflow.training.stages import coarse_share

if TYPE_CHECKING:
    from isingflow.datasets import Dataset

__all__ = ["Likelihood", "Pair", "Problem", "Samples", "Stage", "Variational", "problem_of"]

logger = logging.getLogger(__name__)

FEW_SECONDS = 5.0
"""That an exact answer may take before a training begins."""
FITTED_SITES = 4096
"""Largest number of sites on which products are fitted."""
REFERENCE_CHAINS = 64
REFERENCE_SAMPLES = 256
"""Monte Carlo states per chain that a training draws from, on lattices for which they have room."""
REFERENCE_SPINS = 2**26
"""Room for their spins, of a byte each."""
REFERENCE_STREAM = 2**40
"""Added to a run's seed: evaluations are to be made with other Monte Carlo states than trainings."""


@dataclass(frozen=True)
class Pair:
    """Noise, and fields of the target beside it.

    Attributes:
        latent: z, shape (n, *shape).
        field: x, samples of the target, shape (n, *shape).
    """

    latent: Tensor
    field: Tensor

    def __len__(self) -> int:
        return len(self.latent)

    def chunk(self, chunks: int) -> list[Pair]:
        """Parts of about equal length."""
        return [Pair(*part) for part in zip(self.latent.chunk(chunks), self.field.chunk(chunks), strict=True)]


class Variational(Problem[Tensor | Pair]):
    """A target whose density is known up to its norm: an Ising magnet in its continuous form, or a user's own.

    Attributes:
        config: of the run.
        target: E(x).
        states: of the target by Monte Carlo, shape (n, *shape); None where training narrows the upper bound alone.

    Args:
        target: E(x).
        config: of the run.
        device: where to train.
        flow: to be trained; that of the configuration if not given.
        objective: what is minimised, instead of what the training says.

    Raises:
        InvalidInput: both bounds are asked for, of a target that has no samples of its own; or the flow given cannot
            be trained, see `flows.checks.check_maps`.
        SymmetryMismatch: a potential of the flow claims more symmetry than the target has.
    """

    config: RunConfig | TargetConfig

    def __init__(
        self,
        target: Target,
        config: RunConfig | TargetConfig,
        *,
        device: torch.device,
        flow: Flow | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.config = config
        self.source = device
        if flow is None:
            flow = config.new_flow(target)
        else:
            check_maps(flow, tuple(target.shape), seed=config.seed)
        for transform in flow.transforms:
            for potential in (module for module in transform.modules() if isinstance(module, Potential)):
                if tuple(potential.shape) == tuple(target.shape):
                    require(potential.symmetry, target.symmetry)
        self.flow = flow.to(device)
        self.target = target.to(device)
        self._objective = objectives.OBJECTIVES[self.training.gradient] if objective is None else objective
        self.states = None if config.training.bounds == "upper" else self._reference()

    @cached_property
    def exact(self) -> float | None:
        """-ln Z, if it is known, or of a magnet in a few seconds: no training waits longer for it."""
        if isinstance(self.target, SolvedOnce):
            known = self.target.exact_free_energy(longest=FEW_SECONDS)
        else:
            known = self.target.exact_free_energy() if isinstance(self.target, ExactlySolved) else None
        return None if known is None else known[0]

    def solve(self) -> bool:
        """Find `exact` now, not at the first readings, where it would be a part of the training's time.

        Returns:
            Whether it is known.
        """
        return self.exact is not None

    def batch(self, n: int, generator: torch.Generator) -> Tensor | Pair:
        """Standard normal z, shape (n, *shape), beside fields of the target where both bounds are trained for."""
        latent = self.flow.noise(n, generator)
        if self.states is None:
            return latent
        chosen = torch.randint(len(self.states), (n,), generator=generator, device=self.source)
        states = self.states[chosen].to(latent.dtype)
        return Pair(latent, _referenced(self.target).sample_field(states, generator))

    def objective(self, batch: Tensor | Pair) -> tuple[Tensor, Tensor]:
        """Upper bound, or the distance of both, and penalties; ln p + E of every sample, shape (n,) or (n, 2)."""
        if isinstance(batch, Pair):
            return objectives.both_bounds(self.flow, self.target, batch.latent, batch.field, self.training)
        return self._objective(self.flow, self.target, batch, self.training)

    def readings(self, values: Tensor) -> dict[str, float | None]:
        """The bounds, the gap of the upper one, and the effective sample size of the batch.

        Of a flow with a sampled average `sampled_loss` alone: what is trained there is no bound.
        """
        excess = values.view(len(values), -1)
        if any(isinstance(module, SampledAverage) for module in self.flow.modules()):
            return {"sampled_loss": float(excess[:, 0].mean())}
        bounds = dict(zip(("variational_free_energy", "lower_bound"), excess.mean(0).tolist(), strict=False))
        return bounds | {
            "gap_nats": None if self.exact is None else bounds["variational_free_energy"] - self.exact,
            "effective_sample_size": effective_sample_size(-excess[:, 0]),
        }

    def forget(self) -> None:
        """Products of nearby sites are of the weights that they were fitted for."""
        found = fitted_map(self.flow)
        if found is not None:
            found.potential.rest()

    def correct(self, samples: int, generator: torch.Generator, pool: Backend) -> Fitted | None:
        """Products of nearby sites, where nobody minimises something else than the free energy.

        They are local: those of a large torus are fitted on half the lengths, to samples of the same flow folded onto
        it, and taken over where they serve here too.
        """
        if self._objective not in objectives.OBJECTIVES.values():
            return None
        tolerance = self.training.tolerance
        config = self._fitted_on()
        if config is None:
            return fit_products(self.flow, self.target, samples, generator, pool, tolerance=tolerance)
        smaller = Variational(config.target(), config, device=self.source)
        inherit(self.flow, smaller.flow, looseness=FINAL_MARGIN)
        fitted = smaller.correct(samples, generator, pool)
        if fitted is None:
            return None
        return take_products(self.flow, self.target, smaller.flow, fitted, generator, pool, tolerance=tolerance)

    @property
    def fitting_cost(self) -> float:
        config = self._fitted_on()
        return 1.0 if config is None else math.prod(config.sample[1]) / self.flow.dimension

    def _fitted_on(self) -> RunConfig | TargetConfig | None:
        """The run on half the lengths where products are fitted; None: here."""
        small = self.flow.dimension <= FITTED_SITES
        return None if small or fitted_map(self.flow) is None else self.config.halved()

    def errors(self, n: int, generator: torch.Generator, pool: Backend) -> list[float]:
        """Change of ln p + E at half the step; the larger of both directions where both are trained."""
        batch = self.batch(n, generator)
        latent = batch.latent if isinstance(batch, Pair) else batch
        error = integration_error(self.flow, self.target.energy, latent, pool).value
        if isinstance(batch, Pair):
            error = max(error, likelihood_error(self.flow, batch.field, pool).value)
        return [error]

    def snapshot(self) -> np.ndarray | None:
        """Spins, int8, of a magnet; fields, float32, of other targets."""
        generator = torch.Generator(self.flow.device).manual_seed(0)
        field, _ = self.flow.sample(SNAPSHOT_SAMPLES, generator=generator)
        if not field.isfinite().all():
            return None
        shown = self.target.draw(field, generator)["spins"] if isinstance(self.target, Magnetic) else field
        return shown.cpu().numpy()

    def stages(self) -> Sequence[Stage]:
        """The magnet on the lattice of half the lengths, where the training says so."""
        coarse = self.config.coarse
        if coarse is None:
            return ()
        smaller = Variational(coarse.target(), coarse, device=self.source)
        return [Stage(COARSE, smaller, coarse_share(self.config))]

    def _reference(self) -> Tensor:
        """States of the target, shape (n, *shape)."""
        target = _referenced(self.target)
        samples = max(min(REFERENCE_SAMPLES, REFERENCE_SPINS // (REFERENCE_CHAINS * self.target.sites)), 1)
        logger.info("Monte Carlo of the magnet, for the lower bound: %d states", samples * REFERENCE_CHAINS)
        seed = self.config.seed + REFERENCE_STREAM
        return target.reference(samples, chains=REFERENCE_CHAINS, seed=seed).flatten(0, 1).to(self.source)


def _referenced(target: Target) -> Referenced:
    """The target as what has samples of its own."""
    if not isinstance(target, Referenced):
        raise InvalidInput(
            f"{target.name} has no samples of its own (methods reference and sample_field), which training "
            "for both bounds needs: take bounds='upper'"
        )
    return target


def problem_of(
    config: AnyRunConfig,
    *,
    device: torch.device,
    target: Target | None = None,
    data: Dataset | None = None,
    flow: Flow | None = None,
    objective: Objective | None = None,
) -> Problem[Any]:
    """The problem of a run.

    Args:
        config: of the run.
        device: where to train.
        target: of a run on a user's own target.
        data: of a run on data.
        flow, objective: of the user's own, see `Variational`.

    Raises:
        InvalidInput: what the run is on was not handed, or breaks a law.
    """
    return _PROBLEMS[type(config)](config, device, target=target, data=data, flow=flow, objective=objective)


def _variational(
    config: RunConfig | TargetConfig,
    device: torch.device,
    *,
    target: Target | None,
    data: Dataset | None,
    flow: Flow | None,
    objective: Objective | None,
) -> Variational:
    found = config.target(target)
    if target is not None:
        check_target(found.to(device), seed=config.seed, device=device)
    return Variational(found, config, device=device, flow=flow, objective=objective)


def _likelihood(
    config: DensityConfig,
    device: torch.device,
    *,
    target: Target | None,
    data: Dataset | None,
    flow: Flow | None,
    objective: Objective | None,
) -> Likelihood:
    if data is None:
        raise InvalidInput(f"the run is on data, {config}: hand it the data set")
    return Likelihood(data, config, device=device)


def _family(
    config: FamilyConfig,
    device: torch.device,
    *,
    target: Target | None,
    data: Dataset | None,
    flow: Flow | None,
    objective: Objective | None,
) -> FamilyProblem:
    if flow is not None or objective is not None:
        raise InvalidInput(
            "a family has the flow of its configuration, and its own objective: leave flow and objective out"
        )
    return FamilyProblem(config, device=device)


_PROBLEMS: dict[type, Callable[..., Problem[Any]]] = {
    RunConfig: _variational,
    FamilyConfig: _family,
    TargetConfig: _variational,
    DensityConfig: _likelihood,
}
"""What makes a problem, by kind of run."""
