"""Monge-Ampere flow (Zhang, E and Wang 2018): samples move along the gradient of a potential.

    dx/dt = grad phi(x, t),    d ln p/dt = -laplacian phi(x, t),    0 <= t <= time

Integrated by an explicit Runge-Kutta method, whose log-density is not the exact log-determinant of the discrete map:
the error is part of the answer and is measured, by integrating the same samples once more at half the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isingflow.flows.base import PathCost, Transform
from isingflow.flows.solvers.paths import MOST_DIMENSIONS, stage_times, transported
from isingflow.flows.solvers.reversible import Reversible
from isingflow.flows.solvers.runge_kutta import TABLEAUX, Derivative, State, step
from isingflow.potentials.base import Field, Potential, ScoredField, Tables, TimedField
from isingflow.runtime import stopping
from isingflow.runtime.checks import choice, count, flag, instance, number, shown
from isingflow.runtime.settings import MOST_STEPS


class GradientFlow(Transform):
    """The map from x(0) to x(time) under dx/dt = grad phi(x, t), with its log-determinant int laplacian phi dt.

    Args:
        potential: phi; it is given t / time, which runs from 0 to 1.
        time: length of the trajectory.
        steps: number of equal integration steps.
        training_steps: how many they are in training mode, if not as many: a potential that is another one there (see
            `potentials.SampledAverage`) needs another number.
        tableau: "euler", "midpoint", "rk4" or "dopri5".
        jitter: relative half-width, below 1, of the step lengths' uniform distribution in training mode. Steps redrawn
            for every trajectory leave an optimiser no fixed grid whose error it could learn to exploit.
        context: physical parameters that the potential depends on, such as beta; shape (parameters,). Also an attribute
            to set between calls; it is not learnt, and not part of a checkpoint.
        recompute: in backpropagation, keep only the state at every step and recompute the stages between: memory then
            does not grow with the number of stages, for one more evaluation of each.

    Raises:
        InvalidInput: unknown tableau, or a number out of range; WrongType: something else than these.

    Example:
        >>> from isingflow.potentials import DensePotential
        >>> generator = torch.Generator().manual_seed(0)
        >>> flow = GradientFlow(DensePotential((4,), hidden=8, generator=generator), steps=8)
        >>> z = torch.randn(3, 4, generator=generator)
        >>> x, logdet = flow(z)
        >>> back, inverse_logdet = flow.inverse(x)
        >>> torch.allclose(back, z, atol=1e-5), torch.allclose(logdet, -inverse_logdet, atol=1e-5)
        (True, True)
    """

    context: Tensor | None
    step_count: Tensor

    def __init__(
        self,
        potential: Potential,
        *,
        time: float = 1.0,
        steps: int,
        training_steps: int | None = None,
        tableau: str = "rk4",
        jitter: float = 0.0,
        context: Tensor | None = None,
        recompute: bool = False,
        reversible: bool = False,
    ) -> None:
        super().__init__()
        self.potential = instance("potential", potential, Potential, "a Potential")
        self.time = number("time", time, above=0)
        if context is not None:
            instance("context", context, Tensor, "a tensor of physical parameters")
        self.register_buffer("context", context, persistent=False)
        self.register_buffer("step_count", torch.zeros((), dtype=torch.int64, device="cpu"))
        self.steps = steps
        self.training_steps = None if training_steps is None else count("training_steps", training_steps)
        self.tableau = choice("tableau", tableau, TABLEAUX)
        self.jitter = number("jitter", jitter, least=0, below=1)
        self.recompute = flag("recompute", recompute)
        self.reversible = flag("reversible", reversible)
        self._stretch: list[float] = []

    @property
    def steps(self) -> int:
        """Number of equal integration steps; set it to refine or coarsen. Part of checkpoints, as `step_count`."""
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        # An integer beside the buffer: reading that would wait for a GPU at every step.
        self._steps = count("steps", steps)
        self.step_count.fill_(self._steps)

    @contextmanager
    def refined(self, factor: int) -> Iterator[None]:
        """With a multiple of the steps."""
        usual = self.steps
        self.steps = factor * usual
        try:
            yield
        finally:
            self.steps = usual

    @property
    def resting(self) -> bool:
        """Whether the flow is the identity, and nothing is integrated."""
        return self.potential.resting

    @property
    def order(self) -> int:
        """Order of the integrator: the error falls as steps^-order."""
        return TABLEAUX[self.tableau].order

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x(time) and the log-determinant, float64, shape (n,), for x(0) = z."""
        x, logdet = self.integrate(z, self.grid())
        return x, logdet

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x(0) and the log-determinant of the inverse map for x(time) = x."""
        z, logdet = self.integrate(x, self.grid()[::-1])
        return z, logdet

    def redraw(self, generator: torch.Generator) -> None:
        """Draw new step lengths for training, and whatever is random in the potential."""
        if self.jitter:
            noise = torch.rand(
                self.training_steps or self.steps, generator=generator, dtype=torch.float64, device=generator.device
            )
            self._stretch = (1 + self.jitter * (2 * noise - 1)).tolist()
        self.potential.redraw(generator)

    def path(self, z: Tensor, refinement: int) -> Tensor | None:
        """Positions at points of an equal grid, `refinement` of them per step, shape (points + 1, n, *shape)."""
        if self.resting:
            return None
        points = self.steps * refinement
        positions = [z]
        for start, end in pairwise(range(points + 1)):
            positions.append(self.integrate(positions[-1], [start / points, end / points])[0])
        return torch.stack(positions)

    def grid(self) -> list[float]:
        """Times of the step boundaries, from 0 to 1: equal steps; in training mode, those last drawn."""
        steps = self.training_steps if self.training and self.training_steps else self.steps
        lengths = [1.0] * steps
        if self.training and len(self._stretch) >= steps:
            lengths = self._stretch[:steps]
        edges = list(accumulate(lengths, initial=0.0))
        return [edge / edges[-1] for edge in edges]

    def forward_with_score(self, z: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As forward, with the score carried along: d(grad ln p)/dt = -(hess phi) grad ln p - grad laplacian phi.

        So it costs a backward pass by x alone beside every evaluation (Vaitl et al. 2022), and not a second path.
        """
        grid = self.grid()
        intervals = list(pairwise(grid))
        if self.resting:
            return z, torch.zeros(len(z), dtype=torch.float64, device=z.device), score
        if self.reversible or self.recompute or self._tables(z, intervals, 0) is not None:
            return super().forward_with_score(z, score)

        def derivative_of(field: ScoredField) -> Derivative:
            def derivative(state: State, t: float) -> State:
                gradient, laplacian, pulled = field(state[0], t, state[2])
                rates: State = (gradient, laplacian.double(), -pulled)
                return rates if self.time == 1.0 else tuple(self.time * rate for rate in rates)

            return derivative

        state: State = (z, torch.zeros(len(z), dtype=torch.float64, device=z.device), score)
        given = () if self.context is None else (self.context,)
        fields = self.potential.scored_fields([sum(interval) / 2 for interval in intervals], *given)
        for field, (start, end) in zip(fields, intervals, strict=True):
            stopping.check()
            state = step(TABLEAUX[self.tableau], derivative_of(field), state, start, end - start)
            stopping.check_backward(state[0])
        x, logdet, score = state
        return x, logdet, score

    def forward_with_cost(self, z: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As forward, with the cost of every sample's path, summed up in the same integration."""
        return self._with_cost(z, self.grid(), hjb)

    def inverse_with_cost(self, x: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As inverse, with the cost of every sample's path."""
        return self._with_cost(x, self.grid()[::-1], hjb)

    def _with_cost(self, x: Tensor, grid: Sequence[float], hjb: bool) -> tuple[Tensor, Tensor, PathCost]:
        x, logdet, *costs = self.integrate(x, grid, costs=2 if hjb else 1)
        # Backwards in time the integrals come out negative.
        costs = [cost if grid[-1] > grid[0] else -cost for cost in costs]
        return x, logdet, PathCost(costs[0], costs[1] if hjb else torch.zeros_like(logdet))

    def integrate(self, x: Tensor, grid: Sequence[float], *, costs: int = 0) -> State:
        """Transport x along a grid of times (in units of `time`; descending for the inverse).

        Args:
            x: shape (n, *shape).
            grid: from where to where, and the step boundaries between.
            costs: how many entries of `PathCost` to integrate too.

        Returns:
            The transported x, of x's shape, and the log-determinant and the costs, float64, shape (n,) each.
        """
        state: State = (x, *[torch.zeros(len(x), dtype=torch.float64, device=x.device)] * (1 + costs))
        intervals = list(pairwise(grid))
        if self.resting:
            return state
        if self.reversible:
            learnt = [tensor for tensor in (*self.potential.parameters(), self.context) if tensor is not None]
            return self._reversible(intervals, costs == 2).integrate(state, [t for t in learnt if t.requires_grad])
        recompute = self.recompute and torch.is_grad_enabled()
        stopping.check()
        whole = None if recompute else self._whole_paths(x, intervals, costs)
        if whole is not None:
            return whole
        if recompute:
            for interval in intervals:
                arguments = [interval], state, self.context
                state = checkpoint(self._advance, *arguments, use_reentrant=False, preserve_rng_state=False)
            return state
        return self._advance(intervals, state, self.context)

    def _reversible(self, intervals: Sequence[tuple[float, float]], hjb: bool = False) -> Reversible:
        """The reversible trajectory; the context of this pass is kept for its derivative."""
        given = () if self.context is None else (self.context,)

        def derivative(interval: tuple[float, float]) -> Derivative:
            stopping.check()
            if hjb:
                return self._derivative(self.potential.bind_timed(*given))
            return self._derivative(self.potential.fields([sum(interval) / 2], *given)[0])

        return Reversible(TABLEAUX[self.tableau], derivative, intervals)

    def _whole_paths(self, x: Tensor, intervals: Sequence[tuple[float, float]], costs: int) -> State | None:
        """All steps in one operation, in few dimensions and where the potential and the device allow it."""
        tables = self._tables(x, intervals, costs)
        if tables is None:
            return None
        if tables.clock is not None and self.time != 1.0:
            by_time = {name: getattr(tables, name) / self.time for name in ("clock", "drift", "shift")}
            tables = tables._replace(**by_time)
        lengths = [self.time * (end - start) for start, end in intervals]
        end, *integrals = transported(x.flatten(1), tables, self.tableau, lengths, costs)
        return end.reshape(x.shape), *integrals

    def _tables(self, x: Tensor, intervals: Sequence[tuple[float, float]], costs: int) -> Tables | None:
        """Of the potential at all stages, where whole paths are taken at once."""
        few = math.prod(x.shape[1:]) <= MOST_DIMENSIONS
        if not few or x.dtype != torch.float32 or x.device.type != "cpu" or self.context is not None:
            return None
        tables = self.potential.tabulated(stage_times(self.tableau, intervals))
        if tables is None or tables.v.dtype != x.dtype or (costs == 2 and tables.clock is None):
            return None
        return tables

    def _advance(self, intervals: Sequence[tuple[float, float]], state: State, context: Tensor | None) -> State:
        """The state after some steps. The context is an argument: recomputed stages need the one of their own pass."""
        hjb = len(state) == 4
        midpoints = [(start + end) / 2 for start, end in intervals]
        given = () if context is None else (context,)
        fields: Sequence[Field | TimedField]
        if hjb:
            fields = [self.potential.bind_timed(*given)] * len(intervals)
        else:
            fields = self.potential.fields(midpoints, *given)
        for field, (start, end) in zip(fields, intervals, strict=True):
            stopping.check()
            state = step(TABLEAUX[self.tableau], self._derivative(field), state, start, end - start)
            stopping.check_backward(state[0])
        return state

    def _derivative(self, field: Field | TimedField) -> Derivative:
        """Of a state with any number of costs, by t in units of `time`."""

        def derivative(state: State, t: float) -> State:
            gradient, laplacian, *by_time = field(state[0], t)
            rates: State = (gradient, laplacian.double())
            if len(state) > 2:
                kinetic = gradient.double().square().flatten(1).sum(1) / 2
                rates += (kinetic, *((rate.double() / self.time + kinetic).abs() for rate in by_time))
            return rates if self.time == 1.0 else tuple(self.time * rate for rate in rates)

        return derivative

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Checkpoints from before the number of steps was part of them leave it as it is."""
        name = f"{prefix}step_count"
        *_, errors = rest
        given = state_dict.setdefault(name, self.step_count)
        if given.numel() != 1 or given.dtype != torch.int64 or not 1 <= given.item() <= MOST_STEPS:
            errors.append(f"{name} is {shown(given.tolist())}, expected a number of steps from 1 to {MOST_STEPS}")
            return
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.steps = int(self.step_count)


def gradient_flows(module: nn.Module) -> list[GradientFlow]:
    """All gradient flows inside a flow, from the base on."""
    return [part for part in module.modules() if isinstance(part, GradientFlow)]
