"""One flow for all temperatures or fields of a range: what a training of it minimises.

    the mean over beta and H of E_z[ln p(x) + E(x)],    x = flow of beta and H (z)

Every batch has samples of several points of a fixed grid, one from each of as many parts of equal weight. Half of the
weight is equal for all of the grid, whose values are closer together near both ends, where polynomials are least held;
the other half goes with the heat capacity and with the susceptibility, where they are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.exact.thermodynamics import Thermodynamics
from isingflow.exact.transfer_matrix import LONGEST
from isingflow.flows import Family, Flow
from isingflow.flows.base import approximations
from isingflow.flows.certificate import integration_error
from isingflow.runs.family import FamilyConfig, grid
from isingflow.runs.making import COARSE
from isingflow.runtime.parallel import Backend
from isingflow.statistics.weights import effective_sample_size
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training.base import SNAPSHOT_SAMPLES, Problem, Stage
from isingflow.training.inherit import inherit
from isingflow.training.objectives import OBJECTIVES
from isingflow.training.products import Fitted, fit_series
from isingflow.training.schedules import controlled_steps
from isingflow.training.stages import coarse_share

GRID, GRID_OF_TWO = 33, 9
"""Temperatures or fields that a training sees; of each where both have a range."""
CHECKED_AT, CHECKED_AT_OF_TWO = 5, 3
"""Temperatures or fields at which the integration error is measured; of each where both have a range."""
FEWEST_CHECKED = 16
"""Samples of each: of fewer a single stiff one tells too much."""
FITTED_AT = 8
"""Temperatures that products of nearby sites are fitted at."""
SHOWN = 5
"""Points of which snapshots have samples."""
PATIENCE = 1.0
"""Seconds that an exact answer may take where there is a range of fields, as of others the first one."""


@dataclass(frozen=True)
class Mixed:
    """Noise for several temperatures or fields.

    Attributes:
        parts: pairs of a place in the grid and z for it, shape (n, *shape).
    """

    parts: tuple[tuple[int, Tensor], ...]

    def __len__(self) -> int:
        return sum(len(latent) for _, latent in self.parts)

    def chunk(self, chunks: int) -> list[Mixed]:
        """Parts of about equal length, each with samples of all points."""
        shares = [[(place, share) for share in latent.chunk(chunks)] for place, latent in self.parts]
        longest = max(map(len, shares))
        return [Mixed(tuple(part[i] for part in shares if i < len(part))) for i in range(longest)]


class FamilyProblem(Problem[Mixed]):
    """A family of flows on a magnet at all temperatures or fields of a range.

    Args:
        config: of the run.
        device: where to train.

    Attributes:
        points: values of beta and field by name, those that a training sees.
        targets: the magnet at each of them.
        exact: its -ln Z, None where it is not known.
    """

    config: FamilyConfig
    flow: Family

    def __init__(self, config: FamilyConfig, *, device: torch.device) -> None:
        self.config, self.source = config, device
        self.flow = config.new_flow().to(device)
        seen, checked = (GRID, CHECKED_AT) if len(config.varied) == 1 else (GRID_OF_TWO, CHECKED_AT_OF_TWO)
        self.points = grid(config.ranges, seen)
        self.targets = [self._target(point) for point in self.points]
        self._checked = [(point, self._target(point)) for point in grid(config.ranges, checked)]
        patience = LONGEST if config.fields is None else PATIENCE
        solutions: list[Thermodynamics | None] = [None] * len(self.points)
        hardest = max(range(len(self.points)), key=lambda place: abs(self.points[place].get("field", 0.0)))
        if self.targets[hardest].thermodynamics(longest=PATIENCE) is not None:
            solutions = [target.thermodynamics(longest=patience) for target in self.targets]
        self.exact = [
            None if solved is None else target.free_energy(solved.log_z)
            for target, solved in zip(self.targets, solutions, strict=True)
        ]
        self._cumulative = _cumulative(self.points, solutions)

    def _target(self, point: dict[str, float]) -> HubbardStratonovich:
        run = self.config.at(**point)
        return HubbardStratonovich(run.lattice, run.beta).to(self.source)

    def batch(self, n: int, generator: torch.Generator) -> Mixed:
        """Noise for one point of every part of the grid."""
        parts = min(self.config.family.temperatures, n)
        drawn = torch.rand(parts, generator=generator, device=self.source, dtype=torch.float64).cpu().numpy()
        places = np.searchsorted(self._cumulative, (np.arange(parts) + drawn) / parts)
        latents = self.flow.noise(n, generator).tensor_split(parts)
        return Mixed(tuple((int(place), latent) for place, latent in zip(places, latents, strict=True)))

    def objective(self, batch: Mixed) -> tuple[Tensor, Tensor]:
        """The mean of the bounds; ln p + E of every sample, with the place of its point, shape (n, 2)."""
        objective = OBJECTIVES[self.training.gradient]
        total: Tensor | float = 0.0
        found = []
        for place, latent in batch.parts:
            loss, excess = objective(self.flow.bound(**self.points[place]), self.targets[place], latent, self.training)
            total = total + loss * (len(latent) / len(batch))
            found.append(torch.stack([excess, torch.full_like(excess, place)], 1))
        assert isinstance(total, Tensor)
        return total, torch.cat(found)

    def readings(self, values: Tensor) -> dict[str, float | None]:
        """Means over the points of a batch: of the bound, of its gap, of the effective sample size."""
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

    def errors(self, n: int, generator: torch.Generator, pool: Backend) -> list[float]:
        """For every end of all ranges, the largest of the errors at points that are nearest to it."""
        samples = max(n // len(self._checked), FEWEST_CHECKED)
        found = torch.zeros(len(self.flow.pace), dtype=torch.float64)
        for point, target in self._checked:
            latent = self.flow.noise(samples, generator)
            error = integration_error(self.flow.bound(**point), target.energy, latent, pool).value
            near = self.flow.end_weights(**point).argmax()
            found[near] = found[near].maximum(torch.tensor(error, dtype=torch.float64))
        return found.tolist()

    def adapt_steps(self, errors: Tensor, allowed: float) -> None:
        """Those at every end of all ranges by themselves."""
        steps = self.flow.steps_at_ends
        if steps:
            order = min(part.order for part in approximations(self.flow))
            pairs = zip(steps, errors.expand(len(steps)).tolist(), strict=True)
            self.flow.steps_at_ends = [controlled_steps(each, error, allowed, order) for each, error in pairs]

    def forget(self) -> None:
        """Products of nearby sites are of the weights that they were fitted for."""
        self.flow.fitted.zero_()

    def correct(self, samples: int, generator: torch.Generator, pool: Backend) -> Fitted | None:
        """Products of nearby sites, as a series in beta, at some temperatures; in fields there are none."""
        self.forget()
        if not self.flow.fitted.numel():
            return None
        points = grid(self.config.ranges, FITTED_AT)
        members = [self.flow.at(**point) for point in points]
        basis = torch.stack([self.flow.basis(**point)[: len(self.flow.fitted)] for point in points])
        return fit_series(
            members,
            [self._target(point) for point in points],
            basis,
            lambda series: self.flow.keep_products(members[0], series),
            samples,
            generator,
            pool,
            tolerance=self.training.tolerance,
        )

    def snapshot(self) -> np.ndarray | None:
        """Spins, int8, of some points, from the hottest to the coldest, from the least field to the greatest."""
        generator = torch.Generator(self.flow.device).manual_seed(0)
        shown = []
        for place in np.linspace(0, len(self.points) - 1, SHOWN).round().astype(int):
            field, _ = self._member(place).sample(SNAPSHOT_SAMPLES // SHOWN, generator=generator)
            if not field.isfinite().all():
                return None
            shown.append(self.targets[place].draw(field, generator)["spins"].cpu().numpy())
        return np.concatenate(shown)

    def _member(self, place: int) -> Flow:
        return self.flow.at(**self.points[place])

    def stages(self) -> Sequence[Stage]:
        """The family on the lattice of half the lengths, where the training says so."""
        coarse = self.config.coarse
        if coarse is None:
            return ()
        return [Stage(COARSE, FamilyProblem(coarse, device=self.source), coarse_share(self.config))]

    def begin(self, earlier: Flow) -> None:
        """Take over what another family has learnt, term by term: enlarging is linear in the parameters."""
        if not isinstance(earlier, Family) or _terms(earlier) != _terms(self.flow):
            series = " times ".join(f"{terms} polynomials in {name}" for name, terms in _terms(self.flow).items())
            raise InvalidInput(
                f"a family of {series} starts from another one of as many, on the same lattice or on the torus of half "
                "the lengths"
            )
        counts = earlier.scales.to(self.flow.scales) / self.flow.scales
        for index, count in enumerate(counts):
            larger = self.flow.term(index)
            inherit(
                earlier.term(index),
                larger,
                adapt_steps=self.training.adapt_steps,
                looseness=self.training.looseness,
            )
            self.flow.set_term(index, larger, count)
        self.flow.pace.copy_(earlier.pace)


def _terms(family: Family) -> dict[str, int]:
    """Polynomials in every parameter."""
    return {one.name: one.terms for one in family.ranges}


def _cumulative(points: Sequence[dict[str, float]], solutions: Sequence[Thermodynamics | None]) -> np.ndarray:
    """Weights of the points, summed up to each of them, shape (n,)."""
    weight = np.full(len(points), 1 / len(points))
    axes = [np.unique([point[name] for point in points]) for name in points[0]]
    widths = [np.gradient(axis) if len(axis) > 1 else np.ones(1) for axis in axes]
    cells, change = reduce(np.multiply, np.ix_(*widths)), []
    if len(axes[0]) > 1:
        capacities = [0.0 if solved is None else solved.heat_capacity_per_site for solved in solutions]
        change.append(cells * np.reshape(capacities, cells.shape))
    if len(axes) > 1 and None not in solutions:
        spins = [solved.magnetisation_per_site or 0.0 for solved in solutions if solved is not None]
        change.append(cells * np.abs(np.gradient(np.reshape(spins, cells.shape), axes[1], axis=1)))
    shares = [part / part.sum() for part in change if part.sum() > 0]
    if shares:
        weight = (weight + np.ravel(sum(shares)) / len(shares)) / 2
    total = np.cumsum(weight)
    total[-1] = math.inf  # whatever was lost by rounding
    return total
