"""Schedules of annealing: inverse temperatures at equal distances in thermodynamic length, measured by a pilot.

The work that n small steps lose, and with it the gap of the bound, is about

    sum over steps of (beta_{k+1} - beta_k)^2 zeta(beta_k) / 2,      zeta = 2 tau Var E,

with tau the autocorrelation time of the energy in sweeps, 1/2 where a sweep forgets all (Sivak and Crooks 2012).
It is least where all steps have the same thermodynamic length, the integral of sqrt(zeta). The energy's variance is the
heat capacity over beta^2; both are measured on a few states that are annealed from one end to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.monte_carlo.annealing import Moves
from isingflow.monte_carlo.source import random_stream, words_of
from isingflow.runtime import stopping

_STATES, _SETTLING, _MEASURED = 8, 8, 16
"""States of the pilot, and their sweeps at each temperature: before, and while the energy is measured."""
_GROWTH = 0.02
"""Least step of the pilot, in units of the distance from the start: cold lattices have next to no variance to go by."""
_FLAT = 1e-6
"""Part of the length that goes by beta alone."""
_FEWEST, _SWEEPS_BY_ROOT = 100, 650
PILOT = 0
"""First part of the keys of its random streams."""


@dataclass(frozen=True, eq=False)
class Pilot:
    """What was measured along beta.

    Attributes:
        betas: inverse temperatures from the start to the end, shape (m,).
        variance: of the energy at each, shape (m,).
        friction: zeta = 2 tau Var E at each, shape (m,).
    """

    betas: np.ndarray
    variance: np.ndarray
    friction: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Thermodynamic length from the start to each of the temperatures, shape (m,)."""
        root = np.sqrt(self.friction)
        return np.concatenate([[0.0], np.cumsum(np.abs(np.diff(self.betas)) * (root[1:] + root[:-1]) / 2)])


def pilot(moves: Moves, states: np.ndarray, start: float, end: float, *, seed: int) -> Pilot:
    """Anneal a few states slowly and measure the energy's fluctuations on the way.

    Args:
        moves: what moves the spins.
        states: of exp(-start E), int8 +-1, shape (states, N); not changed.
        start, end: inverse temperatures.
        seed: of its random streams.
    """
    states = states.copy()
    words = [words_of(random_stream(seed, PILOT, state)) for state in range(len(states))]
    betas, variance, friction = [start], [], []
    while True:
        stopping.check()
        at = betas[-1]
        energies = np.array(
            [moves.sweep(s, np.full(_SETTLING + _MEASURED, at), w) for s, w in zip(states, words, strict=True)]
        )[:, _SETTLING:]
        variance.append(float(energies.var()))
        friction.append(max(float(_MEASURED * energies.mean(axis=1).var(ddof=1)), variance[-1]))
        if at == end:
            return Pilot(np.array(betas), np.array(variance), np.array(friction))
        step = max(1 / math.sqrt(variance[-1]) if variance[-1] > 0 else math.inf, _GROWTH * abs(at - start))
        betas.append(end if step >= abs(end - at) else at + math.copysign(step, end - at))


def schedule(measured: Pilot, rows: np.ndarray, sweeps: int) -> tuple[np.ndarray, np.ndarray]:
    """Inverse temperatures of a path, with given ones among them.

    Args:
        measured: from the start to the end.
        rows: inverse temperatures that must be met, in order, shape (R,); the last is the end.
        sweeps: number of steps n.

    Returns:
        beta_0, ..., beta_n, shape (n + 1,), and the steps at which the rows are met, shape (R,).

    Raises:
        InvalidInput: fewer steps than rows.
    """
    start = measured.betas[0]
    later = rows[rows != start]
    marks = np.zeros(len(rows), int)
    if not later.size:
        return measured.betas[:1], marks
    if sweeps < later.size:
        raise InvalidInput(f"{sweeps} sweeps: a range of {later.size} temperatures needs as many at least")
    away = np.abs(measured.betas - start)
    length = measured.lengths
    length += _FLAT * (length[-1] + 1) * away / away[-1]  # where nothing fluctuates, by beta
    reached = np.interp(np.abs(later - start), away, length)
    order = np.arange(1, later.size + 1)
    steps = np.maximum.accumulate(np.rint(sweeps * reached / reached[-1]).astype(int) - order) + order
    steps = np.minimum(np.maximum(steps, order), sweeps - later.size + order)
    marks[len(rows) - later.size :] = steps
    lengths = np.interp(np.arange(sweeps + 1), [0, *steps], [0.0, *reached])
    betas = start + np.copysign(np.interp(lengths, length, away), later[-1] - start)
    betas[steps] = later
    return betas, marks


def usual_sweeps(measured: Pilot) -> int:
    """Sweeps of a path where none are asked for: enough for a gap of some length^1.5 / 1000 nats.

    That is 0.07 nats on 16x16 at criticality, and half a nat on 64x64.
    """
    return max(_FEWEST, math.ceil(_SWEEPS_BY_ROOT * math.sqrt(measured.lengths[-1])))
