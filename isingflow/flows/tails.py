"""Closed-form maps for columns that are skewed and rows that lie far out, where a Gaussian alone fits badly.

- `Powers`: x_i is the power of Yeo and Johnson (2000) undone, which straightens a skewed column with one number.
- `HeavyTails`: x = z exp(h |z|^2 / 2d), a Gaussian stretched along its radii (Tukey's h, in the form of Goerg 2015 for
  vectors); h = 0 is the identity, and the larger h the more often rows lie far from all others.

Noise -> `HeavyTails` -> `GaussianWhitening` -> `Powers` is an elliptical copula with three kinds of parameters, all by
maximum likelihood: powers column by column, the ellipse by its fixed point, h from a list.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows.base import Transform
from isingflow.flows.data import GaussianWhitening
from isingflow.runtime.checks import number
from isingflow.runtime.fields import numbers

STRETCHES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.8)
"""Candidates for h."""
ROUNDS = 40
"""Iterations of the fixed point."""
HALLEY = 12
"""Iterations of Lambert's function: from its start they converge to rounding in fewer."""


class Powers(Transform):
    """Columns of power l between 0 and 2: y = ((1 + x)^l - 1) / l for x >= 0, its mirror image with 2 - l below.

    Forward is from y to x. l = 1 is the identity, 0 and 2 are logarithms on the right and on the left.

    Args:
        powers: l, shape (d,).

    Raises:
        InvalidInput: a power is outside 0 to 2, where not every y belongs to an x.

    Example:
        >>> x, logdet = Powers(torch.tensor([0.0]))(torch.tensor([[1.0]]))
        >>> x, logdet
        (tensor([[1.7183]]), tensor([1.], dtype=torch.float64))
    """

    powers: Tensor

    def __init__(self, powers: Tensor) -> None:
        super().__init__()
        powers = numbers("powers", powers, (None,)).double()
        if not ((powers >= 0) & (powers <= 2)).all():
            raise InvalidInput("powers of columns are from 0 to 2")
        self.register_buffer("powers", powers)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x and sum ln dx/dy."""
        y = z.double()
        power = self._power(y)
        straight = power.abs() < 1e-9
        safe = torch.where(straight, 1.0, power)
        size = torch.where(straight, y.abs(), torch.log1p(safe * y.abs()) / safe)
        return (y.sign() * torch.expm1(size)).to(z), ((1 - power) * size).sum(1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y and sum ln dy/dx."""
        power = self._power(x)
        size = torch.log1p(x.double().abs())
        straight = power.abs() < 1e-9
        safe = torch.where(straight, 1.0, power)
        y = torch.where(straight, size, torch.expm1(safe * size) / safe)
        return (x.sign() * y).to(x), ((power - 1) * size).sum(1)

    def _power(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, self.powers, 2 - self.powers)


class HeavyTails(Transform):
    """x = z exp(h |z|^2 / 2d), with ln det = h |z|^2 / 2 + ln(1 + h |z|^2 / d).

    Args:
        stretch: h, not negative; a number in a tensor, so that it is part of a checkpoint.

    Example:
        >>> tails = HeavyTails(torch.tensor(0.5))
        >>> z = torch.tensor([[1.0, 2.0]])
        >>> torch.allclose(tails.inverse(tails(z)[0])[0], z)
        True
    """

    stretch: Tensor

    def __init__(self, stretch: Tensor) -> None:
        super().__init__()
        number("stretch", float(stretch), least=0, most=100)
        self.register_buffer("stretch", torch.as_tensor(stretch, dtype=torch.float64))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The stretched rows and ln det."""
        squares = z.double().square().sum(1)
        return (z.double() * (self._share(z) * squares / 2).exp()[:, None]).to(z), self._logdet(squares, z)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The rows before, by Lambert's function of their length, and ln det of the inverse."""
        share = self._share(x)
        exponent = lambert(share * x.double().square().sum(1))
        z = x.double() * (-exponent / 2).exp()[:, None]
        return z.to(x), -(x.shape[1] * exponent / 2 + torch.log1p(exponent))

    def _share(self, x: Tensor) -> Tensor:
        return self.stretch / x.shape[1]

    def _logdet(self, squares: Tensor, x: Tensor) -> Tensor:
        exponent = self._share(x) * squares
        return x.shape[1] * exponent / 2 + torch.log1p(exponent)


def lambert(a: Tensor) -> Tensor:
    """w >= 0 with w e^w = a, for a >= 0; differentiable.

    Example:
        >>> lambert(torch.tensor([0.0, torch.e], dtype=torch.float64))
        tensor([0., 1.], dtype=torch.float64)
    """
    with torch.no_grad():
        w = torch.log1p(a)
        w = torch.where(w > 2, w - torch.log(w.clamp_min(1.0)), w)
        for _ in range(HALLEY):
            miss = w - a * (-w).exp()
            w = (w - miss / (w + 1 - (w + 2) * miss / (2 * w + 2))).clamp_min(0.0)
    # One step of Newton's from the solution changes nothing but gives it its derivative.
    return w - (w - a * (-w).exp()) / (w + 1)


def fit_tails(rows: Tensor) -> tuple[HeavyTails, GaussianWhitening, Powers]:
    """The maps from noise to rows, shape (n, d), by maximum likelihood.

    Raises:
        InvalidInput: the rows' covariance is singular.
    """
    x = rows.double()
    powers = Powers(torch.tensor([_power(column) for column in x.T.numpy()], dtype=torch.float64))
    y, _ = powers.inverse(x)
    fits = [_elliptical(y, stretch) for stretch in STRETCHES]
    tails, gaussian = min(fits, key=lambda fit: _misfit(y, *fit))
    return tails, gaussian, powers


def blank_tails(dimension: int) -> tuple[HeavyTails, GaussianWhitening, Powers]:
    """The same maps before anything is fitted: for a checkpoint to be loaded into."""
    gaussian = GaussianWhitening(torch.zeros(dimension), torch.eye(dimension))
    return HeavyTails(torch.zeros(())), gaussian, Powers(torch.ones(dimension))


def _power(column: np.ndarray) -> float:
    """The power after which a column is likeliest as a Gaussian."""
    values = torch.from_numpy(np.array(column))[:, None]

    def misfit(power: float) -> float:
        y, logdet = Powers(torch.tensor([power])).inverse(values)
        return float(y.var(correction=0).log() / 2 - logdet.mean())

    return float(minimize_scalar(misfit, bounds=(0.0, 2.0), method="bounded", options={"xatol": 1e-3}).x)


def _elliptical(y: Tensor, stretch: float) -> tuple[HeavyTails, GaussianWhitening]:
    """The likeliest ellipse of rows for a stretch, by reweighting: far rows count less."""
    d = y.shape[1]
    mean, covariance = y.mean(0), torch.cov(y.T, correction=0)
    for _ in range(ROUNDS if stretch else 0):
        away = y - mean
        squares = torch.linalg.solve(covariance, away.T).T.mul(away).sum(1).clamp_min(1e-12)
        exponent = lambert(stretch / d * squares)
        weights = (1 + stretch + 2 * stretch / d / (1 + exponent)) * (-exponent).exp() / (1 + exponent)
        mean = (weights[:, None] * y).sum(0) / weights.sum()
        away = y - mean
        covariance = (away.T * weights) @ away / len(y)
    return HeavyTails(torch.tensor(stretch)), GaussianWhitening(mean, (covariance + covariance.T) / 2)


def _misfit(y: Tensor, tails: HeavyTails, gaussian: GaussianWhitening) -> float:
    """-ln p of rows, up to a constant."""
    white, first = gaussian.inverse(y)
    z, second = tails.inverse(white)
    return float((z.square().sum(1) / 2 - first - second).mean())
