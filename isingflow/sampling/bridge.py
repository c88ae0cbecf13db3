"""A bridge between a flow and its target: free energies by annealing, both ways (Jarzynski 1997, Neal 2001).

In latent space the target is exp(-U), U(z) = -ln N(z) + d(z), with d = ln p(x) + E(x), x = f(z), what the flow gets
wrong: of a flow without error d is constant. Between the flow, b = 0, and the target, b = 1, lie the densities

    pi_b(z) ~ N(z) exp(-b d(z)),        0 = b_0 < b_1 < ... < b_n = 1.

A path starts with a sample of the flow and takes, between two of them, a kernel that leaves pi_b invariant:

    ln W = -sum_k (b_k+1 - b_k) d(z_k),     E[W] = Z,     E[-ln W] >= -ln Z,

and one that starts with a sample of the target and goes back the same way has E[1 / W] = 1 / Z and E[-ln W] <= -ln Z.
n = 1 is what there is without a bridge; both bounds close as 1 / n. Two kernels, both reversible, take turns:

- a turn, z' = z cos a + xi sin a with xi standard normal, accepted with probability min(1, exp(-b (d' - d)));
- the target's own move of x, z' = f^-1(x'), accepted with min(1, exp((1 - b) (d' - d))). Of a magnet: s from p(s|x),
  clusters at beta, x' from p(x|s). It knows nothing of the flow, and leads to what that misses.

On the way back they come in the opposite order. After an inverse d is computed anew: Runge-Kutta's inverse is not
exact, and d is that of the map f. Where b_k lie, and how far to turn, is planned on samples of their own.

Forward paths may be resampled between steps (`sampling.resampling`): ln W is then such that the mean of W over an
island still estimates Z without bias, and -ln of it bounds -ln Z from above. Paths in reverse never are, and bound it
from below as they did: to resample there would ask for islands of which one path alone begins with the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.flows.certificate import log_weights, pushed
from isingflow.runtime import stopping
from isingflow.runtime.checks import count
from isingflow.runtime.parallel import Backend, Workers
from isingflow.sampling.hmc import BATCH_SITES
from isingflow.sampling.resampling import Lineage, resampled
from isingflow.sampling.sampler import check_density
from isingflow.statistics.free_energy import acceptance_ratio_free_energy
from isingflow.targets.base import Reversible, Target, as_target

GRID = 64
"""Parts of [0, 1] on which the fluctuation of d is found."""
ANGLES = tuple(math.pi * part for part in (0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.05, 0.03))
PLACES = (0.1, 0.4, 0.7, 1.0)
"""Where angles are chosen."""
TRIED, PART = 128, 4
"""Samples on which they are, at most, and at most one in so many that the plan is made of."""
TURNS = len(PLACES) * len(ANGLES) / PART
"""Turns for every sample of the flow that a plan is made of, at most."""


@dataclass(frozen=True, eq=False)
class Points:
    """Where paths are: z and x, shape (n, *shape), and d, float64, shape (n,)."""

    latent: Tensor
    field: Tensor
    excess: Tensor

    def where(self, chosen: Tensor, others: Points) -> Points:
        """The others where chosen, bool, shape (n,); else these."""
        rows = chosen.view(-1, *[1] * (self.latent.ndim - 1))
        return Points(
            torch.where(rows, others.latent, self.latent),
            torch.where(rows, others.field, self.field),
            torch.where(chosen, others.excess, self.excess),
        )

    def take(self, rows: Tensor) -> Points:
        """The points of these indices."""
        return Points(self.latent[rows], self.field[rows], self.excess[rows])


@dataclass(frozen=True)
class Plan:
    """Of a bridge of n steps.

    Attributes:
        strengths: b_0 .. b_n, from 0 to 1.
        angles: of the turns at b_1 .. b_(n - 1).
    """

    strengths: tuple[float, ...]
    angles: tuple[float, ...]

    @property
    def steps(self) -> int:
        """n."""
        return len(self.strengths) - 1

    @classmethod
    def even(cls, steps: int, angle: float = math.pi / 4) -> Plan:
        """Equal steps."""
        steps = count("steps", steps)
        return cls(tuple(np.linspace(0, 1, steps + 1).tolist()), (angle,) * (steps - 1))


@dataclass(frozen=True, eq=False)
class Path:
    """What annealing has done to a batch.

    Attributes:
        log_weight: ln W, float64, shape (n,); of paths that were resampled, since then, with ln of the mean W of then.
        end: where the paths have arrived, on the last stage but the end.
        turned, moved: shares of turns and moves that were accepted, shape (n - 1,); moved is NaN without moves.
        lineage: of paths in islands; else None.
    """

    log_weight: Tensor
    end: Points
    turned: np.ndarray
    moved: np.ndarray
    lineage: Lineage | None = None


class Bridge:
    """Annealing between a flow and a target.

    Args:
        flow: in evaluation mode, with log-determinants that are exact.
        target: of fields of the flow's shape. Where it has a reversible move of its own (`targets.base.Reversible`),
            the bridge makes use of it.
        pool: who shares the work.

    Raises:
        InvalidInput: the flow's log-determinants are stochastic, or its fields are not of the target's shape;
            WrongType: it is no flow.

    Example:
        >>> from isingflow.lattice import square
        >>> from isingflow.targets import HubbardStratonovich
        >>> target = HubbardStratonovich(square(4), beta=0.2)
        >>> flow, generator = Flow((4, 4), target.start().latent + target.start().field), torch.Generator()
        >>> bridge = Bridge(flow, target)
        >>> path = bridge.forward(bridge.at(flow.noise(8, generator)), Plan.even(4), generator)
        >>> path.log_weight.shape
        torch.Size([8])
    """

    def __init__(self, flow: Flow, target: Target, pool: Backend | None = None) -> None:
        self.flow, self.target, self.pool = flow, as_target(target), pool or Workers(1)
        check_density(flow, self.target)

    @torch.no_grad()
    def at(self, latent: Tensor) -> Points:
        """The points of given z, shape (n, *shape)."""

        def push(share: Tensor) -> tuple[Tensor, Tensor]:
            field, log_prob = pushed(self.flow, share)
            excess = -log_weights(self.target.energy, field, log_prob)
            return field, excess.nan_to_num(nan=math.inf)

        shares = [share for batch in self._batches(latent) for share in self.pool.map(push, batch)]
        return Points(latent, *map(torch.cat, zip(*shares, strict=True)))

    @torch.no_grad()
    def of_fields(self, field: Tensor) -> Points:
        """The points of given x, shape (n, *shape), as far as the flow's inverse finds them."""
        batches = self._batches(field.to(self.flow.dtype))
        shares = [share for batch in batches for share in self.pool.map(lambda x: self.flow.inverse(x)[0], batch)]
        return self.at(torch.cat(shares))

    def forward(self, start: Points, plan: Plan, generator: torch.Generator, *, islands: int | None = None) -> Path:
        """Anneal samples of the flow towards the target.

        Args:
            start: n samples of the flow.
            plan: of the steps.
            generator: of what is random.
            islands: as many sets of paths, of equal size and in order, are resampled, each by itself; none by default.

        Raises:
            InvalidInput: islands of equal size do not add up to n.
        """
        if islands is None:
            return self._along(start, plan, generator, backwards=False)
        paths = len(start.excess)
        if paths % count("islands", islands):
            raise InvalidInput(f"{paths} paths in {islands} islands: expected as many paths in each")
        lineage = Lineage.of(paths, islands, start.excess.device)
        return self._along(start, plan, generator, backwards=False, lineage=lineage)

    def backward(self, start: Points, plan: Plan, generator: torch.Generator) -> Path:
        """Anneal samples of the target towards the flow."""
        return self._along(start, plan, generator, backwards=True)

    def plan(self, steps: int, flow: Points, target: Points | None, generator: torch.Generator) -> Plan:
        """Steps of equal thermodynamic length, and the angles that move d most.

        The fluctuation of d at every b follows from both sets of samples with their weights in a mixture. Steps are
        even in the length int sd_b(d) db, and angles are those of the largest accepted square of a change of d.

        Args:
            steps: n.
            flow, target: samples of both; None where the target has none.
            generator: of the turns that are tried.
        """
        steps = count("steps", steps)
        pooled = flow if target is None else _joined(flow, target)
        weights = _mixture(flow.excess, None if target is None else target.excess)
        excess = pooled.excess.cpu().numpy()
        grid = np.linspace(0, 1, GRID + 1)
        speed = np.array([_deviation(excess, weights(b)) for b in grid]) + 1e-9
        length = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
        strengths = np.interp(np.linspace(0, length[-1], steps + 1), length, grid)
        strengths[0], strengths[-1] = 0.0, 1.0
        plan = Plan(tuple(strengths.tolist()), ())
        if steps == 1:
            return plan
        found, tried = [], max(1, min(TRIED, len(flow.excess) // PART))
        for place in PLACES:
            chances = torch.from_numpy(weights(place)).clamp_min(0)
            rows = torch.multinomial(chances, tried, replacement=True, generator=_on_cpu(generator))
            found.append(self._best_angle(pooled.take(rows.to(pooled.excess.device)), place, generator))
        angles = np.exp(np.interp(strengths[1:-1], PLACES, np.log(found)))
        return replace(plan, angles=tuple(angles.tolist()))

    def _batches(self, field: Tensor) -> Sequence[Tensor]:
        """As many fields at a time as memory is used to."""
        stopping.check()
        return field.split(max(1, BATCH_SITES // self.target.sites))

    def _best_angle(self, points: Points, strength: float, generator: torch.Generator) -> float:
        stopping.check()
        gains = []
        for angle in ANGLES:
            turned, chance = self._turned(points, angle, strength, generator)
            change = (turned.excess - points.excess).nan_to_num(posinf=0.0)
            gains.append(float((chance * change.square()).mean()))
        return ANGLES[int(np.argmax(gains))]

    def _along(
        self,
        points: Points,
        plan: Plan,
        generator: torch.Generator,
        *,
        backwards: bool,
        lineage: Lineage | None = None,
    ) -> Path:
        total = torch.zeros_like(points.excess)
        b = plan.strengths
        turned, moved = np.full((2, max(plan.steps - 1, 0)), math.nan)
        for stage in reversed(range(plan.steps)) if backwards else range(plan.steps):
            stopping.check()
            total = total - (b[stage + 1] - b[stage]) * points.excess
            at = stage if backwards else stage + 1
            if not 0 < at < plan.steps:
                continue
            if lineage is not None:
                total, rows, lineage = resampled(total, lineage, generator)
                points = points.take(rows)
            kernels = [self._turn, self._move] if isinstance(self.target, Reversible) else [self._turn]
            for kernel in reversed(kernels) if backwards else kernels:
                points, share = kernel(points, b[at], plan.angles[at - 1], generator)
                (turned if kernel == self._turn else moved)[at - 1] = share
        return Path(total, points, turned, moved, lineage)

    def _turn(self, points: Points, strength: float, angle: float, generator: torch.Generator) -> tuple[Points, float]:
        return _accepted(points, *self._turned(points, angle, strength, generator), generator)

    def _turned(
        self, points: Points, angle: float, strength: float, generator: torch.Generator
    ) -> tuple[Points, Tensor]:
        """Turned points, and the probability to accept each."""
        noise = self.flow.noise(len(points.latent), generator)
        turned = self.at(points.latent * math.cos(angle) + noise * math.sin(angle))
        return turned, _chance(-strength * (turned.excess - points.excess))

    def _move(self, points: Points, strength: float, angle: float, generator: torch.Generator) -> tuple[Points, float]:
        assert isinstance(self.target, Reversible)
        moved = self.of_fields(self.target.reversible_sweep(points.field, generator))
        return _accepted(points, moved, _chance((1 - strength) * (moved.excess - points.excess)), generator)


def _accepted(points: Points, proposed: Points, chance: Tensor, generator: torch.Generator) -> tuple[Points, float]:
    """The proposed points, each with its chance, and the share of them."""
    uniform = torch.rand(chance.shape, dtype=chance.dtype, device=chance.device, generator=generator)
    chosen = uniform < chance
    return points.where(chosen, proposed), float(chosen.double().mean())


def _chance(log_ratio: Tensor) -> Tensor:
    """min(1, exp(r)); 0 where r is no number."""
    return log_ratio.nan_to_num(nan=-math.inf).clamp_max(0).exp()


def _joined(first: Points, second: Points) -> Points:
    return Points(*(torch.cat([getattr(first, name), getattr(second, name)]) for name in ("latent", "field", "excess")))


def _mixture(flow: Tensor, target: Tensor | None) -> Callable[[float], np.ndarray]:
    """Weights by b that turn samples of flow and target together into those of pi_b; sum 1, shape (n,)."""
    forward = flow.cpu().numpy()
    if target is None:
        pooled, log_density = forward, np.zeros(len(forward))
    else:
        reverse = target.cpu().numpy()
        free = acceptance_ratio_free_energy(-forward, -reverse).value
        pooled = np.concatenate([forward, reverse])
        log_density = np.logaddexp(math.log(len(forward)), math.log(len(reverse)) - pooled + free)

    def weights(strength: float) -> np.ndarray:
        logs = np.where(np.isfinite(pooled), -strength * pooled, -math.inf) - log_density
        relative = np.exp(logs - logs.max())
        return relative / relative.sum()

    return weights


def _deviation(values: np.ndarray, weights: np.ndarray) -> float:
    kept = weights > 0
    values, weights = values[kept], weights[kept]
    mean = float(weights @ values)
    return math.sqrt(float(weights @ (values - mean) ** 2))


def _on_cpu(generator: torch.Generator) -> torch.Generator:
    """The generator, or on a device one of the CPU seeded by it."""
    if generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**62, (), device=generator.device, generator=generator)
    return torch.Generator().manual_seed(int(seed))
