"""Finite-size scaling: the critical point and nu from a dimensionless quantity at several sizes and temperatures.

Near the critical point a quantity such as the Binder ratio or xi/L depends on size and temperature by one combination,

    R(beta, L) = f(x) + b L^-omega,     x = (beta - beta_c) L^(1/nu),

with f a polynomial, and the leading correction b of small sizes, whose exponent is given or which is left out. The fit
takes points with |x| up to a width, the largest at which chi^2 is acceptable: farther away no low polynomial does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import least_squares

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import array, number
from isingflow.statistics.estimate import Estimate

DEGREE = 3
"""Of the polynomial."""
ACCEPTED = 0.05
"""Least probability of chi^2 with which a fit is accepted."""
WIDTHS = 12
"""Tried, the largest first, each 0.8 of the one before."""
MOST = 100.0
"""Largest exponent."""
SPARE = 2
"""Points beyond the number of parameters that a fit has, at least."""


@dataclass(frozen=True, eq=False)
class ScalingFit:
    """What a fit has found.

    Attributes:
        beta: the critical inverse temperature.
        nu: the exponent of the correlation length.
        value: f(0), the quantity at the critical point in the limit of large sizes.
        coefficients: of f, the lowest first.
        omega: exponent of the correction; None without one.
        correction: its amplitude b, 0 without one.
        chi_squared, degrees: of the fit, and how many degrees of freedom it has.
        probability: that of a larger chi^2; errors are scaled up where it is below `ACCEPTED`.
        sizes: that took part.
        width: largest |x|.
        points: that took part.
    """

    beta: Estimate
    nu: Estimate
    value: Estimate
    coefficients: np.ndarray
    omega: float | None
    correction: Estimate
    chi_squared: float
    degrees: int
    probability: float
    sizes: tuple[float, ...]
    width: float
    points: int

    @property
    def accepted(self) -> bool:
        """Whether chi^2 is what it may be."""
        return self.probability >= ACCEPTED

    def corrected(self, values: np.ndarray, size: float) -> np.ndarray:
        """The quantity at a size without the correction: what f is fitted to."""
        return values - (0.0 if self.omega is None else self.correction.value * size**-self.omega)


def fit(
    sizes: np.ndarray,
    betas: np.ndarray,
    values: np.ndarray,
    errors: np.ndarray,
    *,
    beta: float,
    nu: float,
    omega: float | None = None,
) -> ScalingFit | None:
    """The fit in the largest window whose chi^2 is acceptable, else in the smallest that has points enough.

    Args:
        sizes, betas: of the points, shape (n,).
        values, errors: the quantity there with its standard errors, independent of each other, shape (n,).
        beta, nu: where the search begins.
        omega: exponent of the correction, which needs three sizes; None leaves it out.

    Returns:
        None where no window holds points enough, of two sizes at least, on both sides of the critical point.

    Raises:
        InvalidInput: shapes that do not fit, or numbers that are not finite; errors or sizes that are not positive.

    Example:
        >>> sizes, betas = (a.ravel() for a in np.meshgrid([8.0, 16.0, 32.0], np.linspace(0.42, 0.46, 9)))
        >>> x = (betas - 0.44) * sizes
        >>> found = fit(sizes, betas, 0.6 + 0.5 * x - 0.2 * x**2, np.full(27, 1e-3), beta=0.441, nu=1.1)
        >>> round(found.beta.value, 4), round(found.nu.value, 2)
        (0.44, 1.0)
    """
    sizes = array("sizes", sizes, (None,))
    betas, values, errors = (
        array(name, numbers, sizes.shape)
        for name, numbers in (("betas", betas), ("values", values), ("errors", errors))
    )
    if errors.min() <= 0 or sizes.min() <= 0:
        raise InvalidInput("errors and sizes: expected numbers > 0")
    beta, nu = number("beta", beta), number("nu", nu, above=0, most=MOST)
    omega = None if omega is None else number("omega", omega, above=0, most=MOST)
    widest = float(np.abs((betas - beta) * sizes ** (1 / nu)).max())
    best = None
    for width in widest * 0.8 ** np.arange(WIDTHS):
        found = _fit_within(float(width), sizes, betas, values, errors, beta, nu, omega)
        if found is not None and (best is None or found.probability > best.probability):
            best = found
        if best is not None and best.accepted:
            break
    return best


def _fit_within(
    width: float,
    sizes: np.ndarray,
    betas: np.ndarray,
    values: np.ndarray,
    errors: np.ndarray,
    beta: float,
    nu: float,
    omega: float | None,
) -> ScalingFit | None:
    """The fit to the points with |x| <= width, as the start has them; None where there are too few."""
    x = (betas - beta) * sizes ** (1 / nu)
    near = np.abs(x) <= width * (1 + 1e-12)
    if not near.any() or x[near].min() >= 0 or x[near].max() <= 0:
        return None
    taken, numbers = np.unique(sizes[near], return_counts=True)
    others = 0 if omega is None else 1
    degree = min(DEGREE, int(near.sum()) - 3 - others - SPARE, int(numbers.max()) - 1)
    if len(taken) < 2 + others or numbers.min() < 2 or degree < 1:
        return None
    sizes, betas, values, errors = sizes[near], betas[near], values[near], errors[near]
    scale = float(np.abs(x[near]).max())
    powers = np.arange(degree + 1)
    steps = np.array([scale / sizes.max() ** (1 / nu), 1 / nu])  # of what is not linear, so that all are of order one

    def arguments(parameters: np.ndarray) -> np.ndarray:
        there, exponent = np.array([beta, 1 / nu]) + steps * parameters[:2]
        return (betas - there) * sizes**exponent / scale

    small = np.empty((len(sizes), 0)) if omega is None else (sizes[:, None] / sizes.min()) ** -omega

    def design(parameters: np.ndarray) -> np.ndarray:
        return np.hstack([arguments(parameters)[:, None] ** powers, small]) / errors[:, None]

    def residuals(parameters: np.ndarray) -> np.ndarray:
        return design(parameters) @ parameters[2:] - values / errors

    first = np.linalg.lstsq(design(np.zeros(2)), values / errors, rcond=None)[0]
    solved = least_squares(residuals, np.concatenate([np.zeros(2), first]), x_scale="jac")
    there, exponent = np.array([beta, 1 / nu]) + steps * solved.x[:2]
    degrees = len(values) - len(solved.x)
    chi_squared = float(np.sum(solved.fun**2))
    probability = float(stats.chi2.sf(chi_squared, degrees))
    jacobian = np.asarray(solved.jac)
    stretch = 1.0 if probability >= ACCEPTED else np.sqrt(chi_squared / degrees)
    error = stretch * np.sqrt(np.maximum(np.diag(np.linalg.pinv(jacobian.T @ jacobian)), 0))
    if not (np.all(np.isfinite(solved.x)) and exponent > 0):
        return None
    return ScalingFit(
        beta=Estimate(float(there), float(steps[0] * error[0])),
        nu=Estimate(float(1 / exponent), float(steps[1] * error[1] / exponent**2)),
        value=Estimate(float(solved.x[2]), float(error[2])),
        coefficients=solved.x[2 : 3 + degree] / scale**powers,
        omega=omega,
        correction=Estimate(0.0, 0.0)
        if omega is None
        else Estimate(float(solved.x[-1]), float(error[-1])) * float(sizes.min() ** omega),
        chi_squared=chi_squared,
        degrees=degrees,
        probability=probability,
        sizes=tuple(taken.tolist()),
        width=width,
        points=len(values),
    )
