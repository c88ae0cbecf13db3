"""The Hubbard-Stratonovich map between ln Z of the spins and -ln Z of the field.

With A = K + a I, whose smallest eigenvalue is positive by the choice of the offset a,

    -ln Z = -ln Z_Ising - ln det(A) / 2 + (N / 2) [ln(2 / pi) - a].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from isingflow.errors import InvalidInput, WrongType
from isingflow.lattice import Lattice, check_magnet
from isingflow.runtime.checks import array, number, shown
from isingflow.runtime.resources import require_memory
from isingflow.statistics.estimate import Estimate

if TYPE_CHECKING:
    from torch import Tensor

LogZ = TypeVar("LogZ", float, "Tensor", Estimate)

CONTINUOUS_SITES = {True: 2**20, False: 2048}
"""Most sites for which the continuous form is used, by translation invariance: the spectrum of more takes too long."""
MIN_EIGENVALUE = 0.1
"""Smallest eigenvalue of A, if not another is asked for."""
LARGEST_MIN_EIGENVALUE = 1e100
"""Beyond, sums over the spectrum overflow."""


@dataclass(frozen=True)
class ContinuousForm:
    """The spectrum of A = K + a I, and the constant between both free energies; made by `continuous_form`.

    Attributes:
        offset: a.
        eigenvalues: of A, float64: (lx, ly) by momentum where the lattice is translation invariant, else (N,).
        vectors: the eigenvectors as columns, (N, N), where there is no translation invariance; else None.
        half_logdet: ln det(A) / 2.
    """

    offset: float
    eigenvalues: np.ndarray
    vectors: np.ndarray | None
    half_logdet: float

    def free_energy(self, log_z_ising: LogZ) -> LogZ:
        """-ln Z of the field in nats, from ln Z_Ising (a number, tensor or Estimate)."""
        return -_checked("log_z_ising", log_z_ising) + self._constant

    def log_z_ising(self, free_energy: LogZ) -> LogZ:
        """ln Z_Ising from -ln Z of the field: the inverse of `free_energy`."""
        return -_checked("free_energy", free_energy) + self._constant

    @property
    def _constant(self) -> float:
        return self.eigenvalues.size / 2 * (math.log(2 / math.pi) - self.offset) - self.half_logdet


def continuous_form(lattice: Lattice, beta: float, min_eigenvalue: float = MIN_EIGENVALUE) -> ContinuousForm:
    """The spectrum of A = K + a I of a lattice at inverse temperature beta.

    O(N log N) where the lattice is translation invariant, else one O(N^3) diagonalisation.

    Args:
        lattice: at most 16384 sites unless translation invariant.
        beta: finite, of either sign.
        min_eigenvalue: smallest eigenvalue of A, which fixes a.

    Raises:
        InvalidInput: beta or min_eigenvalue out of range, a lattice too large, or too little memory for it.

    Example:
        >>> from isingflow.lattice import CRITICAL_BETA, square
        >>> form = continuous_form(square(16), CRITICAL_BETA)
        >>> round(form.offset, 4), round(form.free_energy(238.6422), 3)
        (1.8627, -592.876)
    """
    beta = check_magnet(lattice, beta)
    min_eigenvalue = number("min_eigenvalue", min_eigenvalue, above=0, most=LARGEST_MIN_EIGENVALUE)
    vectors = None
    if lattice.translation_invariant:
        strengths = lattice.spectrum()
    else:
        couplings = lattice.couplings(1.0)
        require_memory(f"the spectrum of {lattice}", 32.0 * lattice.sites**2, "a smaller lattice may fit")
        strengths, vectors = np.linalg.eigh(couplings)
    spread = abs(beta) * float(np.ptp(strengths))
    if not spread <= 1e12 * min_eigenvalue:
        raise InvalidInput(
            f"beta {beta!r}: the smallest eigenvalue {min_eigenvalue} is lost in rounding beside {spread:g}; "
            f"expected beta times the couplings' spectral width to be at most {1e12 * min_eigenvalue:g}"
        )
    spectrum = beta * strengths
    eigenvalues = min_eigenvalue + (spectrum - spectrum.min())
    half_logdet = float(np.log(np.abs(eigenvalues)).sum()) / 2
    return ContinuousForm(float(min_eigenvalue - spectrum.min()), eigenvalues, vectors, half_logdet)


def _checked(name: str, value: LogZ) -> LogZ:
    """A finite number, or a tensor of them, or an Estimate, as it is."""
    if not isinstance(value, Estimate):
        entries = array(name, value)
        if not (entries.ndim == 0 or hasattr(value, "detach")):
            raise WrongType(f"{name} is {shown(value)}, expected a number, a tensor or an Estimate")
    return value
