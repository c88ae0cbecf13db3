"""Whole paths along the gradient of one hidden layer, in one differentiable operation on a CPU.

What `runge_kutta.step` does with a potential's field stage by stage, for a potential that gives `Tables`: the same
stages in the same order, so that positions, integrals and their gradients are the same to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from isingflow.flows.solvers import path_kernels
from isingflow.flows.solvers.runge_kutta import TABLEAUX, State
from isingflow.potentials.base import Tables

MOST_DIMENSIONS = 16
"""Where a stage is few products per unit; in more dimensions those of a matrix library are faster."""
COLUMNS = 4096
"""Samples that are transported at a time where nothing is kept for a backward pass."""


@lru_cache
def coefficients(tableau: str) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Of the stages that are used, a square of them, their weights and their times."""
    method = TABLEAUX[tableau]
    used = max(i for i, weight in enumerate(method.b) if weight) + 1
    square = np.zeros((used, used), np.float32)
    for i, row in enumerate(method.a[: used - 1], start=1):
        square[i, : len(row)] = row
    return square, np.array(method.b[:used], np.float32), method.c[:used]


def stage_times(tableau: str, intervals: Sequence[tuple[float, float]]) -> list[float]:
    """Times of the stages of all steps."""
    times = coefficients(tableau)[2]
    return [start + fraction * (end - start) for start, end in intervals for fraction in times]


def transported(x: Tensor, tables: Tables, tableau: str, lengths: Sequence[float], costs: int) -> State:
    """Positions at the end, and the integrals of Laplacian, kinetic energy and Hamilton-Jacobi-Bellman residual.

    Args:
        x: float32, on the CPU, shape (n, d).
        tables: of the potential at `stage_times`.
        tableau: name of the method.
        lengths: of the steps.
        costs: how many integrals there are besides that of the Laplacian; at most one without `Tables.clock`.

    Returns:
        x, shape (n, d), and the integrals, float64, shape (n,) each. Differentiable once.
    """
    steps = np.array(lengths, np.float32)
    given = [tensor for tensor in tables if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *given)):
        end, integrals = _Paths.apply(tableau, steps, costs, x, *tables)
    else:
        parts = [_forward(tableau, steps, costs, part, tables)[:2] for part in x.split(COLUMNS)]
        end, integrals = (torch.cat(found, axis) for found, axis in zip(zip(*parts, strict=True), (0, 1), strict=True))
    laplacian = integrals[0] + float(steps.sum(dtype=np.float64)) * tables.quadratic.trace().double()
    return end, laplacian, *integrals[1:]


def _forward(
    tableau: str, steps: np.ndarray, costs: int, x: Tensor, tables: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor, np.ndarray]:
    """The end, the integrals as rows, and what the backward pass needs of the stages."""
    square, weights, _ = coefficients(tableau)
    rows = x.detach().T.contiguous().numpy().copy()
    integrals = np.zeros((1 + costs, len(x)))
    kept = np.empty((len(steps) * len(weights), 2 * len(rows) + 1, len(x)), np.float32)
    given = [*_arrays(tables), square, weights, steps, costs]
    path_kernels.forward(*[rows, *given, integrals, kept])
    return torch.from_numpy(rows).T, torch.from_numpy(integrals), kept


class _Paths(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tableau, steps, costs, x, *tables):
        end, integrals, kept = _forward(tableau, steps, costs, x, tables)
        ctx.how = tableau, steps, costs
        ctx.save_for_backward(torch.from_numpy(kept), *tables)
        return end, integrals

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_end, by_integrals):
        tableau, steps, costs = ctx.how
        square, weights, _ = coefficients(tableau)
        kept, *saved = ctx.saved_tensors
        v, b, a, norms, quadratic, _, clock, drift, _ = tables = _arrays(saved)
        by_start = by_end.T.contiguous().numpy().copy()
        totals = [np.zeros_like(table) for table in tables]
        given = v, b, a, norms, quadratic, clock, drift, square, weights, steps, costs, kept.numpy()
        path_kernels.backward(*[by_start, by_integrals.float().numpy(), *given, *totals])
        wanted = [
            None if table is None else torch.from_numpy(total) for table, total in zip(saved, totals, strict=True)
        ]
        return None, None, None, torch.from_numpy(by_start).T, *wanted


def _arrays(tables: Sequence[Tensor | None]) -> list[np.ndarray]:
    """The tables as the kernels read them; what is not known by time is empty, and not read."""
    known = [table.detach().contiguous().numpy() for table in tables if table is not None]
    if len(known) == len(tables):
        return known
    _, b, _, _, quadratic, _ = known
    shapes = b.shape, (len(b), len(quadratic)), (len(b),)
    return [*known, *(np.zeros(shape, np.float32) for shape in shapes)]
