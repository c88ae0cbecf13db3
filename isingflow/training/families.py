"""One flow for all temperatures of a range: what a training of it minimises.

    the mean over beta of E_z[ln p(x) + E(x)],    x = flow of beta (z)

Every batch has samples of several temperatures of a fixed grid, one from each of as many parts of equal weight. Half of
the weight is equal for all of the grid, whose temperatures are closer together near both ends, where polynomials are
least held; the other half goes with the heat capacity, where it is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows import Family, Flow
from isingflow.flows.certificate import integration_error
from isingflow.runs.family import FamilyConfig, spread
from isingflow.runtime.parallel import Backend
from isingflow.statistics.weights import effective_sample_size
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training.base import SNAPSHOT_SAMPLES, Problem, Stage
from isingflow.training.inherit import inherit
from isingflow.training.objectives import OBJECTIVES
from isingflow.training.products import Fitted, fit_series
from isingflow.training.stages import coarse_share

GRID = 33
"""Temperatures that a training sees."""
FITTED_AT = 8
"""Temperatures that products of nearby sites are fitted at."""
SHOWN = 5
"""Temperatures of which snapshots have samples."""


@dataclass(frozen=True)
class Mixed:
    """Noise for several temperatures.

    Attributes:
        parts: pairs of a place in the grid of temperatures and z for it, shape (n, *shape).
    """

    parts: tuple[tuple[int, Tensor], ...]

    def __len__(self) -> int:
        return sum(len(latent) for _, latent in self.parts)

    def chunk(self, chunks: int) -> list[Mixed]:
        """Parts of about equal length, each with samples of all temperatures."""
        shares = [[(place, share) for share in latent.chunk(chunks)] for place, latent in self.parts]
        longest = max(map(len, shares))
        return [Mixed(tuple(part[i] for part in shares if i < len(part))) for i in range(longest)]


class FamilyProblem(Problem[Mixed]):
    """A family of flows on a magnet at all temperatures of a range.

    Args:
        config: of the run.
        device: where to train.
    """

    config: FamilyConfig
    flow: Family

    def __init__(self, config: FamilyConfig, *, device: torch.device) -> None:
        self.config, self.source = config, device
        self.flow = config.new_flow().to(device)
        self.betas = spread(config.low, config.high, GRID)
        self.targets = [HubbardStratonovich(config.lattice, beta).to(device) for beta in self.betas]
        solutions = [target.thermodynamics(longest=1.0) for target in self.targets[:1]]
        if solutions[0] is not None:
            solutions += [target.thermodynamics() for target in self.targets[1:]]
        self.exact = [
            None if solved is None else target.free_energy(solved.log_z)
            for target, solved in zip(self.targets, solutions + [None] * GRID, strict=False)
        ]
        capacities = [0.0 if solved is None else solved.heat_capacity_per_site for solved in solutions]
        self._cumulative = _cumulative(self.betas, capacities)

    def batch(self, n: int, generator: torch.Generator) -> Mixed:
        """Noise for one temperature of every part of the range."""
        parts = min(self.config.family.temperatures, n)
        drawn = torch.rand(parts, generator=generator, device=self.source, dtype=torch.float64).cpu().numpy()
        places = np.searchsorted(self._cumulative, (np.arange(parts) + drawn) / parts)
        latents = self.flow.noise(n, generator).tensor_split(parts)
        return Mixed(tuple((int(place), latent) for place, latent in zip(places, latents, strict=True)))

    def objective(self, batch: Mixed) -> tuple[Tensor, Tensor]:
        """The mean of the bounds; ln p + E of every sample, with the place of its temperature, shape (n, 2)."""
        objective = OBJECTIVES[self.training.gradient]
        total: Tensor | float = 0.0
        found = []
        for place, latent in batch.parts:
            loss, excess = objective(self.flow.bound(self.betas[place]), self.targets[place], latent, self.training)
            total = total + loss * (len(latent) / len(batch))
            found.append(torch.stack([excess, torch.full_like(excess, place)], 1))
        assert isinstance(total, Tensor)
        return total, torch.cat(found)

    def readings(self, values: Tensor) -> dict[str, float | None]:
        """Means over the temperatures of a batch: of the bound, of its gap, of the effective sample size."""
        excess, places = values[:, 0], values[:, 1].long()
        by_place = {int(place): excess[places == place] for place in places.unique()}
        gaps = [float(part.mean()) - self.exact[place] for place, part in by_place.items()] if self._known else None  # type: ignore[operator]
        return {
            "variational_free_energy": float(np.mean([float(part.mean()) for part in by_place.values()])),
            "gap_nats": None if gaps is None else float(np.mean(gaps)),
            "effective_sample_size": float(np.mean([effective_sample_size(-part) for part in by_place.values()])),
        }

    @property
    def _known(self) -> bool:
        return all(value is not None for value in self.exact)

    def error(self, n: int, generator: torch.Generator, pool: Backend) -> float:
        """The largest of the errors at the temperatures of a batch, and at both ends of the range."""
        places = {place for place, _ in self.batch(n, generator).parts} | {0, GRID - 1}
        samples = max(n // len(places), 2)
        errors = []
        for place in sorted(places):
            latent = self.flow.noise(samples, generator)
            member = self.flow.bound(self.betas[place])
            errors.append(integration_error(member, self.targets[place].energy, latent, pool).value)
        return max(errors) if not any(map(math.isnan, errors)) else math.nan

    def forget(self) -> None:
        """Products of nearby sites are of the weights that they were fitted for."""
        self.flow.fitted.zero_()

    def correct(self, samples: int, generator: torch.Generator, pool: Backend) -> Fitted | None:
        """Products of nearby sites, as a series in beta, at some temperatures of the range."""
        self.forget()
        betas = spread(self.config.low, self.config.high, FITTED_AT)
        members = [self.flow.at(beta) for beta in betas]
        basis = torch.stack([self.flow.basis(beta)[: len(self.flow.fitted)] for beta in betas])
        return fit_series(
            members,
            [HubbardStratonovich(self.config.lattice, beta).to(self.flow.device) for beta in betas],
            basis,
            lambda series: self.flow.keep_products(members[0], series),
            samples,
            generator,
            pool,
            tolerance=self.training.tolerance,
        )

    def snapshot(self) -> np.ndarray | None:
        """Spins, int8, of some temperatures, from the hottest to the coldest."""
        generator = torch.Generator(self.flow.device).manual_seed(0)
        shown = []
        for place in np.linspace(0, GRID - 1, SHOWN).round().astype(int):
            field, _ = self._member(place).sample(SNAPSHOT_SAMPLES // SHOWN, generator=generator)
            if not field.isfinite().all():
                return None
            shown.append(self.targets[place].draw(field, generator)["spins"].cpu().numpy())
        return np.concatenate(shown)

    def _member(self, place: int) -> Flow:
        return self.flow.at(self.betas[place])

    def stages(self) -> Sequence[Stage]:
        """The family on the lattice of half the lengths, where the training says so."""
        coarse = self.config.coarse
        if coarse is None:
            return ()
        return [Stage("coarse", FamilyProblem(coarse, device=self.source), coarse_share(self.config))]

    def begin(self, earlier: Flow) -> None:
        """Take over what another family has learnt, term by term: enlarging is linear in the parameters."""
        if not isinstance(earlier, Family) or earlier.terms != self.flow.terms:
            raise InvalidInput(
                f"a family of {self.flow.terms} polynomials in beta starts from another one of as many, on the same "
                "lattice or on the torus of half the lengths"
            )
        for index in range(self.flow.terms):
            larger = self.flow.term(index)
            inherit(
                earlier.term(index),
                larger,
                adapt_steps=self.training.adapt_steps,
                looseness=self.training.looseness,
            )
            self.flow.set_term(index, larger)


def _cumulative(betas: Sequence[float], capacities: Sequence[float]) -> np.ndarray:
    """Weights of the temperatures, summed up to each of them, shape (n,)."""
    weight = np.full(len(betas), 1 / len(betas))
    if len(capacities) == len(betas) and sum(capacities) > 0:
        critical = np.gradient(np.array(betas)) * capacities
        weight = (weight + critical / critical.sum()) / 2
    total = np.cumsum(weight)
    total[-1] = math.inf  # whatever was lost by rounding
    return total
