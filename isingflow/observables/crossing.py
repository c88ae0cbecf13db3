"""Where a dimensionless quantity is the same on two sizes of a lattice: an estimate of the critical point.

The Binder ratio and xi/L of a larger lattice are smaller than those of a smaller one where there is no order, and
larger where there is. Chains at several temperatures are taken together, so that both curves are known at every
temperature between; every draw of the bootstrap has a crossing of its own, and their spread is the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq

from isingflow.errors import InvalidInput
from isingflow.observables.reweighted import Reweighted, length_over_size
from isingflow.runtime.checks import choice, instance
from isingflow.statistics.estimate import Estimate

Draw = Callable[[Reweighted, dict[str, np.ndarray]], np.ndarray]

QUANTITIES: dict[str, Draw] = {
    "binder": lambda curve, found: found["binder"],
    "correlation_length_over_size": lambda curve, found: length_over_size(curve.lattice, found),
}
"""Dimensionless quantities, from what `Reweighted.values` and `replicates` give."""
GRID = 65
"""Temperatures at which two curves are compared."""
CLEAR = 2.0
"""Standard errors by which the curves differ on both sides of a crossing."""
CERTAIN = 5.0
"""Standard errors by which they differ where no draw has the other sign."""
MOST_LOST = 0.025
"""Share of the draws that may have no crossing."""


@dataclass(frozen=True)
class Crossing:
    """Where a quantity is the same on two sizes.

    Attributes:
        quantity: one of `QUANTITIES`.
        sizes: L of both lattices, the smaller first.
        beta: where they cross; its error is NaN where more than `MOST_LOST` of the draws have no crossing nearby.
        value: of the quantity there.
        nu: from the slopes there, 1/nu = ln(slope ratio) / ln(size ratio); NaN where the slopes do not tell.
    """

    quantity: str
    sizes: tuple[int, int]
    beta: Estimate
    value: Estimate
    nu: Estimate


def crossing(small: Reweighted, large: Reweighted, quantity: str) -> Crossing:
    """The crossing of two sizes within the temperatures that both have chains at.

    Args:
        small, large: chains of the smaller and of the larger lattice.
        quantity: one of `QUANTITIES`.

    Raises:
        InvalidInput: their temperatures do not overlap, the curves do not cross there, or there is no such quantity.

    Example:
        >>> from isingflow.evaluation.temperatures import scan
        >>> from isingflow.lattice import square
        >>> curves = [scan(square(n), [0.40, 0.44, 0.48], samples=1000).reweighted() for n in (4, 8)]
        >>> 0.42 < crossing(*curves, "binder").beta.value < 0.47
        True
    """
    for name, curve in (("small", small), ("large", large)):
        instance(name, curve, Reweighted, "a Reweighted")
    draw = QUANTITIES[choice("quantity", quantity, QUANTITIES)]
    sizes = max(small.lattice.shape), max(large.lattice.shape)
    words = f"{quantity} of L = {sizes[0]} and {sizes[1]}"
    low, high = max(small.low, large.low), min(small.high, large.high)
    if not low < high:
        raise InvalidInput(
            f"{words}: the temperatures do not overlap, beta {small.low:g} to {small.high:g} and {large.low:g} to "
            f"{large.high:g}"
        )

    def difference(betas: np.ndarray) -> np.ndarray:
        return draw(large, large.values(betas)) - draw(small, small.values(betas))

    def drawn(betas: np.ndarray) -> np.ndarray:
        return draw(large, large.replicates(betas)) - draw(small, small.replicates(betas))

    grid = np.linspace(low, high, GRID)
    bracket = _bracket(difference(grid), drawn(grid).std(axis=0, ddof=1), math.copysign(1, low + high))
    if bracket is None:
        raise InvalidInput(
            f"{words}: do not cross between beta {low:g} and {high:g}: expected the larger lattice below the smaller "
            "one at one end and above it at the other, beyond their errors"
        )
    first, last = grid[list(bracket)]
    there = float(brentq(lambda beta: difference(np.array([beta]))[0], first, last, xtol=1e-14))
    found = _roots(drawn, np.linspace(first, last, GRID), there)
    width = 6 * np.nanstd(found) if np.isfinite(found).sum() > 1 else last - first
    found = _roots(drawn, np.linspace(max(first, there - width), min(last, there + width), GRID), there)
    known = np.isfinite(found)
    lost = 1 - known.mean()
    error = float(found[known].std(ddof=1)) if lost <= MOST_LOST else math.nan
    value, slopes, replicates, drawn_slopes = _at(there, (first, last), small, large, draw)
    moved = (replicates + drawn_slopes[0] * (found - there))[known]
    nu = _nu(slopes, drawn_slopes, sizes)
    return Crossing(quantity, sizes, Estimate(there, error), Estimate(value, float(moved.std(ddof=1))), nu)


def _bracket(difference: np.ndarray, error: np.ndarray, sign: float) -> tuple[int, int] | None:
    """The points of the grid, clearly apart on both sides, between which the larger lattice comes out on top.

    Of several pairs the one that is clearest on its less clear side: noise crosses too, far from the transition. Then
    both move apart, as far as the sign stays the same, until every draw may be expected to cross between.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        clear = np.nan_to_num(sign * difference / error)
    marks = np.flatnonzero(np.abs(clear) > CLEAR)
    pairs = [(int(a), int(b)) for a, b in pairwise(marks) if clear[a] < 0 < clear[b]]
    if not pairs:
        return None
    left, right = max(pairs, key=lambda pair: min(-clear[: pair[0] + 1].min(), clear[pair[1] :].max()))
    while left > 0 and clear[left] > -CERTAIN and clear[left - 1] < 0:
        left -= 1
    while right < len(clear) - 1 and clear[right] < CERTAIN and clear[right + 1] > 0:
        right += 1
    return left, right


def _roots(drawn: Callable[[np.ndarray], np.ndarray], grid: np.ndarray, near: float) -> np.ndarray:
    """The zero of every draw nearest to a temperature, between neighbours of a grid; NaN where there is none."""
    values = drawn(grid)
    left, right = values[:, :-1], values[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = np.where(left * right <= 0, grid[:-1] + np.diff(grid) * left / (left - right), np.nan)
    far = np.where(np.isfinite(roots), np.abs(roots - near), np.inf)
    return np.take_along_axis(roots, far.argmin(axis=1)[:, None], axis=1)[:, 0]


def _at(
    there: float, ends: tuple[float, float], small: Reweighted, large: Reweighted, draw: Draw
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """The quantity at the crossing and its slopes on both sizes, of all samples and of every draw."""
    step = min(there - ends[0], ends[1] - there, 1e-3 * abs(there)) or 1e-6 * abs(there)
    betas = np.array([there - step, there, there + step])
    of_small, of_large = (draw(curve, curve.values(betas)) for curve in (small, large))
    drawn_small, drawn_large = (draw(curve, curve.replicates(betas)) for curve in (small, large))
    slopes = np.array([(values[2] - values[0]) / (2 * step) for values in (of_small, of_large)])
    drawn = np.stack([(values[:, 2] - values[:, 0]) / (2 * step) for values in (drawn_small, drawn_large)])
    return float(of_small[1]), slopes, drawn_small[:, 1], drawn


def _nu(slopes: np.ndarray, drawn: np.ndarray, sizes: tuple[int, int]) -> Estimate:
    ratio = math.log(sizes[1] / sizes[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        value, others = ratio / np.log(slopes[1] / slopes[0]), ratio / np.log(drawn[1] / drawn[0])
    usable = bool(np.isfinite(value) and value > 0 and np.mean(np.isfinite(others) & (others > 0)) > 1 - MOST_LOST)
    if not usable:
        return Estimate(math.nan, math.nan)
    return Estimate(float(value), float(np.std(others[np.isfinite(others)], ddof=1)))
