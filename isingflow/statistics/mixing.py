"""What chains say of one quantity, and how well they mix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isingflow.runtime.checks import array
from isingflow.runtime.numbers import finite_or_none
from isingflow.statistics.chains import Diagnostics, autocorrelation_time, diagnostics
from isingflow.statistics.checks import LARGEST
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.jackknife import jackknife_mean


@dataclass(frozen=True)
class Mixing:
    """What chains say of one quantity.

    Attributes:
        mean: over all chains; its error honours their autocorrelation, and is NaN for a single sample.
        tau: integrated autocorrelation time in samples, 1/2 if they are independent; NaN below 4 samples a chain.
        effective_samples: independent samples that would give the same error.
        r_hat: whether the chains agree, 1 if so; NaN below 8 samples a chain.
        ess_bulk, ess_tail: effective samples of the centre and of the tails, by arviz; NaN below 8 samples a chain.
    """

    mean: Estimate
    tau: float
    effective_samples: float
    r_hat: float
    ess_bulk: float
    ess_tail: float

    @classmethod
    def of(cls, values: np.ndarray) -> Mixing:
        """Of values of shape (chains, samples).

        Raises:
            InvalidInput: of another shape, there are none, or they are not finite; WrongType: no real numbers.

        Example:
            >>> mixing = Mixing.of(np.random.default_rng(0).normal(size=(8, 1000)))
            >>> print(mixing.mean, round(mixing.tau, 1), round(mixing.r_hat, 2))
            0.001 ± 0.012 0.5 1.0
        """
        values = array("values", values, (None, None), most=LARGEST)
        samples = values.shape[1]
        if values.size == 1:
            mean = Estimate(float(values[0, 0]), math.nan)
        else:
            mean = jackknife_mean(values)
        tau = autocorrelation_time(values).value if samples >= 4 else math.nan
        unknown = Diagnostics(math.nan, math.nan, math.nan)
        found = diagnostics(values) if samples >= 8 else unknown
        return cls(mean, tau, values.size / (2 * tau), found.r_hat, found.ess_bulk, found.ess_tail)

    def as_dict(self) -> dict[str, float | None]:
        """The JSON form; null for what is not known or not finite."""
        return self.mean.as_dict() | finite_or_none({"tau": self.tau, "ess": self.effective_samples})

    def diagnostics_dict(self) -> dict[str, float | None]:
        """What arviz says, in the same form."""
        return finite_or_none({name: getattr(self, name) for name in ("r_hat", "ess_bulk", "ess_tail")})
