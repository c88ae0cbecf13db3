"""The lattice phi^4 theory in two dimensions, in the convention of Albergo, Kanwar and Shanahan (2019), eq. 29.

    E(x) = sum_i [sum_mu (x_i - x_{i + mu})^2 + m^2 x_i^2 + lambda x_i^4]

on a periodic lattice: the kinetic term has no factor 1/2, and m^2 may be negative. Flows start from the best Gaussian,

    s_k^2 = 1 / (2 (khat^2 + m^2 + 6 lambda v)),    v = mean_k s_k^2,    khat^2 = sum_mu 4 sin^2(k_mu / 2).
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import brentq
from torch import Tensor

from isingflow.flows.linear import SpectralScaling
from isingflow.flows.spectral import FourierBasis
from isingflow.lattice.checks import MAX_LENGTH
from isingflow.lattice.symmetry import square_torus_group
from isingflow.runtime.checks import count, number
from isingflow.runtime.fields import fields_of
from isingflow.targets.base import Start, Target


class Phi4(Target):
    """phi^4 theory on an lx x ly torus, both lengths at least 3 (ly = lx if not given).

    Args:
        mass_squared: m^2, of either sign.
        coupling: lambda, positive.

    Raises:
        InvalidInput: a number out of range; WrongType: no number.

    Example:
        >>> Phi4(6, mass_squared=-4.0, coupling=6.975).energy(torch.ones(1, 6, 6))
        tensor([107.1000])
    """

    def __init__(self, lx: int, ly: int | None = None, *, mass_squared: float, coupling: float) -> None:
        super().__init__()
        lx = count("lx", lx, least=3, most=MAX_LENGTH)
        self.shape = (lx, lx if ly is None else count("ly", ly, least=3, most=MAX_LENGTH))
        self.mass_squared = number("mass_squared", mass_squared)
        self.coupling = number("coupling", coupling, above=0)
        self.symmetry = square_torus_group(*self.shape, axes_equal=self.shape[0] == self.shape[1])

    def energy(self, field: Tensor) -> Tensor:
        """E(x), shape (...), of fields of shape (..., lx, ly)."""
        field = fields_of("field", field, self.shape)
        kinetic = sum((field - field.roll(1, axis)).square() for axis in (-1, -2))
        return (kinetic + self.mass_squared * field.square() + self.coupling * field.pow(4)).sum((-1, -2))

    def start(self) -> Start:
        """The best centred Gaussian."""
        along, across = (4 * torch.sin(math.pi * torch.arange(n, dtype=torch.float64) / n).square() for n in self.shape)
        stiffness = 2 * (along[:, None] + across + self.mass_squared)
        least = max(-float(stiffness.min()) / (12 * self.coupling), 0.0)
        mismatch = lambda v: float((1 / (stiffness + 12 * self.coupling * v)).mean()) - v  # noqa: E731
        v = brentq(mismatch, least * (1 + 1e-12) + 1e-15, least + (12 * self.coupling) ** -0.5)
        variances = 1 / (stiffness + 12 * self.coupling * v)
        return Start(latent=[SpectralScaling(FourierBasis(self.shape), variances.sqrt())], variances=variances)
