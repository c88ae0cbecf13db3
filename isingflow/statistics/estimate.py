"""A number with its error bar: what every estimator returns, and how it prints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import array, number
from isingflow.runtime.numbers import finite_or_none


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error (one sigma, 68 %).

    Sums and differences treat their operands as independent; correlated quantities are combined by the estimator that
    knows their covariance, not here. What is not known is NaN, an error without bound infinite.

    Raises:
        InvalidInput: the error is negative, a factor not finite, or a divisor 0; WrongType: one of them is no number.

    Example:
        >>> print(Estimate(-592.8761, 0.0123))
        -592.876 ± 0.012
        >>> print(Estimate(1.0, 0.3) - 0.5)
        0.50 ± 0.30
    """

    value: float
    stderr: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", number("value", self.value, finite=False))
        object.__setattr__(self, "stderr", number("stderr", self.stderr, finite=False))
        if self.stderr < 0:
            raise InvalidInput(f"stderr is {self.stderr:g}, expected a number >= 0, or NaN where it is not known")

    def __add__(self, other: Estimate | float) -> Estimate:
        if isinstance(other, Estimate):
            return Estimate(self.value + other.value, math.hypot(self.stderr, other.stderr))
        return Estimate(self.value + number("summand", other, finite=False), self.stderr)

    __radd__ = __add__

    def __neg__(self) -> Estimate:
        return Estimate(-self.value, self.stderr)

    def __sub__(self, other: Estimate | float) -> Estimate:
        return self + (-other if isinstance(other, Estimate) else -number("what is subtracted", other, finite=False))

    def __rsub__(self, other: float) -> Estimate:
        return -self + other

    def __mul__(self, factor: float) -> Estimate:
        factor = number("factor", factor)
        return Estimate(self.value * factor, self.stderr * abs(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Estimate:
        divisor = number("divisor", divisor)
        if divisor == 0:
            raise InvalidInput("divisor is 0, expected another number")
        return Estimate(self.value / divisor, self.stderr / abs(divisor))

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

    Raises:
        InvalidInput: two shapes, no entries, or an error that is negative; WrongType: no real numbers.

    Example:
        >>> print(Estimates(np.array([1.0, 0.5]), np.array([0.0, 0.012]))[1])
        0.500 ± 0.012
    """

    value: np.ndarray
    stderr: np.ndarray

    def __post_init__(self) -> None:
        value = array("value", self.value, finite=False)
        stderr = array("stderr", self.stderr, value.shape, finite=False)
        if value.ndim == 0:
            raise InvalidInput("value is one number, expected an array; an Estimate holds one")
        if np.any(stderr < 0):
            raise InvalidInput("stderr has negative entries, expected numbers >= 0, or NaN where they are not known")
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "stderr", stderr)

    def __len__(self) -> int:
        return len(self.value)

    def scalars(self) -> list[Estimate]:
        """The entries of an array of one axis.

        Raises:
            InvalidInput: it has more axes.
        """
        if self.value.ndim != 1:
            raise InvalidInput(f"estimates of shape {self.value.shape}: expected one axis")
        return [
            Estimate(value, stderr) for value, stderr in zip(self.value.tolist(), self.stderr.tolist(), strict=True)
        ]

    def __getitem__(self, index: int | slice | tuple) -> Estimate | Estimates:
        return estimate_of(self.value[index], self.stderr[index])

    def as_dict(self) -> dict[str, list]:
        """The JSON form, nested lists "value" and "stderr"; null for what is not finite."""
        return finite_or_none({name: array.tolist() for name, array in vars(self).items()})


def estimate_of(value: np.ndarray | float, stderr: np.ndarray | float) -> Estimate | Estimates:
    """An Estimate of two numbers, Estimates of two arrays.

    Raises:
        InvalidInput: as theirs.

    Example:
        >>> print(estimate_of(1.5, 0.1), len(estimate_of(np.zeros(3), np.ones(3))))
        1.50 ± 0.10 3
    """
    values = array("value", value, finite=False)
    errors = array("stderr", stderr, values.shape, finite=False)
    return Estimate(values.item(), errors.item()) if values.ndim == 0 else Estimates(values, errors)
