"""A number with its error bar: what every estimator returns, and how it prints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isingflow.runtime.numbers import finite_or_none


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error (one sigma, 68 %).

    Sums and differences treat their operands as independent; correlated quantities are combined by the estimator that
    knows their covariance, not here.

    Example:
        >>> print(Estimate(-592.8761, 0.0123))
        -592.876 ± 0.012
        >>> print(Estimate(1.0, 0.3) - 0.5)
        0.50 ± 0.30
    """

    value: float
    stderr: float

    def __add__(self, other: Estimate | float) -> Estimate:
        if isinstance(other, Estimate):
            return Estimate(self.value + other.value, math.hypot(self.stderr, other.stderr))
        return Estimate(self.value + other, self.stderr)

    __radd__ = __add__

    def __neg__(self) -> Estimate:
        return Estimate(-self.value, self.stderr)

    def __sub__(self, other: Estimate | float) -> Estimate:
        return self + (-other)

    def __rsub__(self, other: float) -> Estimate:
        return -self + other

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.stderr * abs(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Estimate:
        return self * (1.0 / divisor)

    def __str__(self) -> str:
        decimals = self.decimals
        return f"{self.value:.{decimals}f} ± {self.stderr:.{decimals}f}"

    @property
    def decimals(self) -> int:
        """Decimals that show two significant digits of the error."""
        if not (math.isfinite(self.stderr) and self.stderr > 0):
            return 6
        leading = math.floor(math.log10(self.stderr))
        if round(self.stderr / 10.0 ** (leading - 1)) == 100:
            leading += 1
        return min(max(1 - leading, 0), 12)

    def as_dict(self) -> dict[str, float | None]:
        """The JSON form {"value", "stderr"}; null for what is not finite."""
        return finite_or_none(vars(self))


@dataclass(frozen=True, eq=False)
class Estimates:
    """An array of values with their standard errors (one sigma each, correlated with each other in general).

    Example:
        >>> print(Estimates(np.array([1.0, 0.5]), np.array([0.0, 0.012]))[1])
        0.500 ± 0.012
    """

    value: np.ndarray
    stderr: np.ndarray

    def __len__(self) -> int:
        return len(self.value)

    def scalars(self) -> list[Estimate]:
        """The entries of an array of one axis."""
        return [
            Estimate(value, stderr) for value, stderr in zip(self.value.tolist(), self.stderr.tolist(), strict=True)
        ]

    def __getitem__(self, index: int | slice | tuple) -> Estimate | Estimates:
        return estimate_of(self.value[index], self.stderr[index])

    def as_dict(self) -> dict[str, list]:
        """The JSON form, nested lists "value" and "stderr"; null for what is not finite."""
        return finite_or_none({name: array.tolist() for name, array in vars(self).items()})


def estimate_of(value: np.ndarray, stderr: np.ndarray) -> Estimate | Estimates:
    if np.ndim(value) == 0:
        return Estimate(float(value), float(stderr))
    return Estimates(value, stderr)
