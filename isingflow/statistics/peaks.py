"""Where the heat capacity is largest, from free energy, energy and heat capacity at several temperatures together.

All three are derivatives of one function of beta,

    f = ln Z / N,    f' = -E / N,    f'' = C / (N beta^2),

so that one polynomial is fitted to all of them, each in units of its errors. The free energy, by far the best known,
holds the curve between the temperatures. Its degree is four more than what Akaike's criterion would choose, that of
the least chi^2 + 2 (degree + 1): what the polynomial still lacks is then smaller than its errors. Errors of position
and height are those of polynomials drawn from the fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import LARGEST_SEED, array, count, instance
from isingflow.statistics.estimate import Estimate

FEWEST, LEAST_DEGREE, MOST_DEGREE, MORE = 7, 4, 16, 4
"""Temperatures; degrees of the polynomial, and by how much it is above that of Akaike's criterion."""
POINTS, DRAWS = 2001, 400
"""Temperatures at which the curve is looked at; polynomials drawn for the errors."""


@dataclass(frozen=True)
class Peak:
    """The largest heat capacity between the first and the last temperature.

    Attributes:
        beta: where it is.
        height: per site.
        chi_squared, degrees: of the fit, and how many degrees of freedom it has; where their ratio is above 1, errors
            are larger by its square root.
    """

    beta: Estimate
    height: Estimate
    chi_squared: float
    degrees: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "beta": self.beta.as_dict(),
            "heat_capacity_per_site": self.height.as_dict(),
            "chi_squared": self.chi_squared,
            "degrees_of_freedom": self.degrees,
        }


def heat_capacity_peak(
    betas: np.ndarray | Sequence[float],
    log_z: Sequence[Estimate],
    energy: Sequence[Estimate],
    heat_capacity: Sequence[Estimate],
    *,
    seed: int = 0,
) -> Peak | None:
    """The largest heat capacity in a range of temperatures; None where it lies at an end, or at fewer than seven.

    Args:
        betas: inverse temperatures, in any order, all different.
        log_z, energy, heat_capacity: per site, at each of them, with errors above 0.
        seed: of the polynomials drawn for the errors.

    Raises:
        InvalidInput: temperatures that are equal, or estimates that are not as many as them; WrongType: other things.

    Example:
        Kaufman's 8x8, with errors as of some thousand samples; the peak is at 0.4234, of 1.1918:

        >>> import isingflow
        >>> from isingflow.lattice import square
        >>> betas, rng = np.linspace(0.3, 0.5, 9), np.random.default_rng(0)
        >>> exact = [isingflow.exact.thermodynamics(square(8), beta) for beta in betas]
        >>> log_z = [Estimate(one.log_z / 64 + 1e-4 * rng.normal(), 1e-4) for one in exact]
        >>> energy = [Estimate(one.energy_per_site + 3e-3 * rng.normal(), 3e-3) for one in exact]
        >>> capacity = [Estimate(one.heat_capacity_per_site + 0.02 * rng.normal(), 0.02) for one in exact]
        >>> found = heat_capacity_peak(betas, log_z, energy, capacity)
        >>> abs(found.beta.value - 0.4234) < 3 * found.beta.stderr < 0.03
        True
    """
    beta, seed = array("betas", betas, (None,)), count("seed", seed, least=0, most=LARGEST_SEED)
    if len(np.unique(beta)) < len(beta):
        raise InvalidInput("betas: expected different temperatures")
    given = {"log_z": log_z, "energy": energy, "heat_capacity": heat_capacity}
    values, errors = np.stack([_columns(name, part, len(beta)) for name, part in given.items()], 1)
    known = (beta > 0) & (errors > 0).all(0) & np.isfinite([values, errors]).all((0, 1))
    if known.sum() < FEWEST:
        return None
    beta, values, errors = beta[known], values[:, known], errors[:, known]
    units = np.stack([np.ones_like(beta), -np.ones_like(beta), 1 / beta**2])
    values, errors = values * units, errors * np.abs(units)
    most = min(MOST_DEGREE, values.size // 2)
    fits = [_fit(beta, values, errors, degree) for degree in range(LEAST_DEGREE, most + 1)]
    best = min(range(len(fits)), key=lambda place: fits[place].squared + 2 * fits[place].degree)
    fit = fits[min(best + MORE, len(fits) - 1)]

    degrees = values.size - fit.degree - 1
    noise = np.random.default_rng(seed).normal(size=(DRAWS, values.size)) * math.sqrt(max(fit.squared / degrees, 1.0))
    x = np.linspace(beta.min(), beta.max(), POINTS)
    drawn = np.vstack([fit.coefficients, fit.coefficients + noise @ fit.inverse.T])
    curves = drawn @ _basis(x, 2, fit.degree).T * x**2
    places, heights = curves.argmax(1), curves.max(1)
    if places[0] in (0, POINTS - 1):
        return None
    position, height = (Estimate(float(one[0]), float(one[1:].std())) for one in (x[places], heights))
    return Peak(position, height, fit.squared, degrees)


def _columns(name: str, estimates: Sequence[Estimate], wanted: int) -> np.ndarray:
    """Values and errors, shape (2, wanted)."""
    if len(instance(name, estimates, list | tuple, "a list of estimates")) != wanted:
        raise InvalidInput(f"{name} has {len(estimates)} estimates, expected one for each of {wanted} temperatures")
    for one in estimates:
        instance(f"an entry of {name}", one, Estimate, "an Estimate")
    return np.array([(one.value, one.stderr) for one in estimates]).reshape(wanted, 2).T


@dataclass(frozen=True)
class _Fit:
    """A polynomial through values of a function and its first two derivatives.

    Attributes:
        coefficients: of Chebyshev's polynomials, from the first to the last temperature, shape (degree + 1,).
        inverse: what they are of values in units of their errors, shape (degree + 1, values).
        squared: chi^2.
    """

    coefficients: np.ndarray
    inverse: np.ndarray
    squared: float

    @property
    def degree(self) -> int:
        """Of the polynomial."""
        return len(self.coefficients) - 1


def _basis(x: np.ndarray, order: int, degree: int) -> np.ndarray:
    """Derivatives of Chebyshev's polynomials from the least to the greatest x, shape (len(x), degree + 1)."""
    domain = (float(x.min()), float(x.max()))
    return np.stack([Chebyshev.basis(term, domain).deriv(order)(x) for term in range(degree + 1)], -1)


def _fit(beta: np.ndarray, values: np.ndarray, errors: np.ndarray, degree: int) -> _Fit:
    """By least squares; values and errors of the function and its derivatives, shape (3, len(beta))."""
    design = np.concatenate([_basis(beta, order, degree) / errors[order][:, None] for order in range(3)])
    scale, data = np.linalg.norm(design, axis=0), (values / errors).ravel()
    inverse = np.linalg.pinv(design / scale) / scale[:, None]
    coefficients = inverse @ data
    return _Fit(coefficients, inverse, float(np.square(data - design @ coefficients).sum()))
