"""Explicit Runge-Kutta methods: tableaux as data, and one stepper for all of them.

k_i = f(y + h sum_j a_ij k_j, t + c_i h),    y(t + h) = y + h sum_i b_i k_i
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

State = tuple[Tensor, ...]
Derivative = Callable[[State, float], State]


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau of an explicit Runge-Kutta method.

    Attributes:
        order: order of the global error.
        a: rows of the lower triangle, without the empty first one.
        b: weights of the stages.
        c: times of the stages.
    """

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]


TableauName = Literal["euler", "midpoint", "rk4", "dopri5"]

TABLEAUX: dict[str, Tableau] = {
    "euler": Tableau(1, (), (1.0,), (0.0,)),
    "midpoint": Tableau(2, ((1 / 2,),), (0.0, 1.0), (0.0, 1 / 2)),
    "rk4": Tableau(
        4,
        ((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
        (0.0, 1 / 2, 1 / 2, 1.0),
    ),
    "dopri5": Tableau(
        5,
        (
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    ),
}
"""By name, all of `TableauName`."""


def stages(tableau: Tableau, derivative: Derivative, state: State, t: float, h: float, count: int) -> list[State]:
    """The first `count` stage derivatives k_i."""
    slopes: list[State] = []
    for i in range(count):
        shifted = _advance(state, slopes, tableau.a[i - 1], h) if i else state
        slopes.append(derivative(shifted, t + tableau.c[i] * h))
    return slopes


def step(tableau: Tableau, derivative: Derivative, state: State, t: float, h: float) -> State:
    """The state at t + h (h may be negative)."""
    return _advance(state, _used(tableau, derivative, state, t, h), tableau.b, h)


def increment(tableau: Tableau, derivative: Derivative, state: State, t: float, h: float) -> State:
    """What a step adds to the state."""
    return _advance(tuple(map(torch.zeros_like, state)), _used(tableau, derivative, state, t, h), tableau.b, h)


def _used(tableau: Tableau, derivative: Derivative, state: State, t: float, h: float) -> list[State]:
    """The stage derivatives that have a weight, and those before them."""
    return stages(tableau, derivative, state, t, h, max(i for i, weight in enumerate(tableau.b) if weight) + 1)


def _advance(state: State, slopes: Sequence[State], weights: Sequence[float], h: float) -> State:
    advanced = state
    for weight, slope in zip(weights, slopes, strict=False):
        if weight:
            advanced = tuple(torch.add(y, k, alpha=h * weight) for y, k in zip(advanced, slope, strict=True))
    return advanced
