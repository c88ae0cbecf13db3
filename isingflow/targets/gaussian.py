"""The best centred Gaussian for a continuous Ising model: the classical mean-field bound, where flows start.

Of all covariances Sigma of x, the bound on -ln Z is smallest at Sigma^-1 = A^-1 - diag(c), c_i = E[sech^2 x_i]. It is
convex in Sigma, so the solution is unique and as symmetric as the lattice: where that is translation invariant, a
scalar root,

    s_k^2 = 1 / (1 - A_k c),   c = E[sech^2 x],   x ~ Normal(0, v),   v = mean_k A_k s_k^2;

elsewhere Newton's method, O(N^3) a step. In an external field the best Gaussian has a mean: see `polarised`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import erf
from torch import Tensor

from isingflow.flows.spectral import EigenBasis, SpectralBasis

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)


@dataclass(frozen=True)
class MeanField:
    """A Gaussian for a continuous Ising model, the best one of its kind, and the classical mean-field bound it gives.

    Attributes:
        free_energy: upper bound on -ln Z of the continuous representation, in nats, for the whole lattice.
        basis: eigenbasis of the Gaussian's covariance in the whitened field y = A^-1/2 x.
        variances: eigenvalues s_k^2 of that covariance, float64, shape `basis.values_shape`.
        curvature: c_i = E[sech^2 x_i], float64; a scalar where the lattice is translation invariant, else of its shape.
            The covariance is (I - A^1/2 diag(c) A^1/2)^-1.
        mean: E[x_i], float64; a scalar where the lattice is translation invariant, else of its shape.
    """

    free_energy: float
    basis: SpectralBasis
    variances: Tensor
    curvature: Tensor
    mean: Tensor

    def transform(self, latent: Tensor) -> Tensor:
        """Whitened deviation y = A^-1/2 (x - mean) from standard normal noise z, y = S z.

        S is the symmetric square root of the covariance of y.
        """
        return self.basis.multiply(latent, self.variances.sqrt())

    def inverse(self, whitened: Tensor) -> Tensor:
        """Standard normal noise z from the whitened deviation y."""
        return self.basis.multiply(whitened, self.variances.rsqrt())

    @property
    def logdet(self) -> Tensor:
        """ln det S, a scalar."""
        return self.basis.logdet(self.variances) / 2


def best_gaussian(
    basis: SpectralBasis, eigenvalues: Tensor, whitening_logdet: float, tilt: np.ndarray | None = None
) -> MeanField:
    """The best centred Gaussian for E(x) = x.A^-1.x / 2 - sum ln cosh x.

    Args:
        basis: eigenbasis of A.
        eigenvalues: of A, float64, shape `basis.values_shape`.
        whitening_logdet: ln det A^1/2.
        tilt: beta H of an external field, of a field's shape: the same Gaussian, with its bound in that field.
    """
    values = eigenvalues.cpu().numpy()
    tilts = np.zeros(1) if tilt is None else tilt.ravel()
    uniform, variances = uniform_curvature(values)
    if isinstance(basis, EigenBasis):
        root = root_of(basis, values)
        return gaussian_of(basis, root, by_site(root, uniform), np.zeros(len(root)), tilts, whitening_logdet)
    free_energy = uniform_bound(values, variances, 0.0, tilts, whitening_logdet)
    numbers = (torch.tensor(v, dtype=torch.float64) for v in (uniform, 0.0))
    return MeanField(free_energy, basis, *(v.to(eigenvalues.device) for v in (torch.from_numpy(variances), *numbers)))


def root_of(basis: EigenBasis, values: np.ndarray) -> np.ndarray:
    """A^1/2, shape (N, N)."""
    vectors = basis.vectors.cpu().numpy()
    return vectors * np.sqrt(values) @ vectors.T


def gaussian_of(
    basis: EigenBasis,
    root: np.ndarray,
    curvature: np.ndarray,
    pull: np.ndarray,
    tilt: np.ndarray,
    whitening_logdet: float,
) -> MeanField:
    """The Gaussian of these curvatures c and of the mean A m, m = `pull`, shape (N,) each, with its bound."""
    precisions, axes = np.linalg.eigh(np.eye(len(root)) - root * curvature @ root)
    variances = 1 / np.maximum(precisions, np.finfo(float).eps)
    half = root @ pull
    mean = root @ half
    log_cosh = gaussian_averages(((root @ axes) ** 2) @ variances, mean + tilt).ln_cosh.sum()
    free_energy = float(half @ half / 2 + _whitened(variances) - log_cosh) - whitening_logdet
    tensors = (variances, *(v.reshape(basis.shape) for v in (curvature, mean)))
    device = basis.vectors.device
    eigenbasis = EigenBasis(basis.shape, torch.from_numpy(axes)).to(device)
    return MeanField(free_energy, eigenbasis, *(torch.from_numpy(v).to(device) for v in tensors))


def uniform_bound(
    eigenvalues: np.ndarray, variances: np.ndarray, mean: float, tilt: np.ndarray, whitening_logdet: float
) -> float:
    """The bound of a translation-invariant Gaussian: whitened variances by momentum, and the mean of every x_i."""
    sites, variance = eigenvalues.size, np.mean(eigenvalues * variances)
    log_cosh = sites * np.mean(gaussian_averages(variance, mean + tilt).ln_cosh)
    pull = sites * mean**2 / (2 * eigenvalues.flat[0])
    return float(pull + _whitened(variances) - log_cosh) - whitening_logdet


def _whitened(variances: np.ndarray) -> float:
    """E[|y|^2 / 2 + ln p(y)] of the centred Gaussian of y with these variances."""
    return float((variances - np.log(variances) - 1 - math.log(2 * math.pi)).sum() / 2)


class Averages(NamedTuple):
    """Averages over x ~ Normal(a, v), each of the shape that v and a have together.

    Attributes:
        sech_squared, ln_cosh: E[sech^2 x] and E[ln cosh x].
        slope: d E[sech^2 x] / dv.
        tanh, third: E[tanh x], and d E[sech^2 x] / da = E[-2 tanh x sech^2 x].
    """

    sech_squared: np.ndarray
    ln_cosh: np.ndarray
    slope: np.ndarray
    tanh: np.ndarray
    third: np.ndarray


def gaussian_averages(variance: float | np.ndarray, mean: float | np.ndarray = 0.0) -> Averages:
    """Averages of ln cosh x and its derivatives over x ~ Normal(a, v), v > 0.

    Gauss-Legendre on the half line, on which the densities of x and -x are folded, between where the Gaussian (9 sigma)
    or the integrand (x = 20) has died out: exact to rounding for every v, where Gauss-Hermite would miss the narrow
    sech^2 of a large one. What does not die out, E|x| and E sign(x), is added in closed form; the slope is Stein's,
    E[((x - a)^2 / v - 1) sech^2 x] / (2 v).
    """
    v, a = (np.asarray(value, dtype=float)[..., None] for value in np.broadcast_arrays(variance, mean))
    sigma = np.sqrt(v)
    top = np.minimum(np.abs(a) + 9 * sigma, 20)
    bottom = np.minimum(np.maximum(np.abs(a) - 9 * sigma, 0), top)
    half = (top - bottom) / 2
    x = bottom + half * (_NODES + 1)
    here, there = (half * _WEIGHTS * np.exp(-((x - s * a) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v) for s in (1, -1))
    decay = np.exp(-2 * x)
    tanh, sech_squared = np.tanh(x), 1 / np.cosh(x) ** 2
    stein = here * ((x - a) ** 2 / v - 1) + there * ((x + a) ** 2 / v - 1)
    v, a, sigma = v[..., 0], a[..., 0], sigma[..., 0]
    sign = erf(a / (np.sqrt(2) * sigma))
    absolute = sigma * np.sqrt(2 / np.pi) * np.exp(-(a**2) / (2 * v)) + a * sign
    return Averages(
        sech_squared=((here + there) * sech_squared).sum(-1),
        ln_cosh=((here + there) * np.log1p(decay)).sum(-1) + absolute - np.log(2),
        slope=(stein * sech_squared).sum(-1) / (2 * v),
        tanh=sign - ((here - there) * 2 * decay / (1 + decay)).sum(-1),
        third=((here - there) * -2 * tanh * sech_squared).sum(-1),
    )


def uniform_curvature(eigenvalues: np.ndarray, mean: float = 0.0) -> tuple[float, np.ndarray]:
    """Curvature c < 1 / max A, the same on every site, and whitened variances 1 / (1 - A_k c): a scalar root.

    With mean zero the left side of E[sech^2 x] - c = 0 falls as c grows, so the root is unique. It is found in
    ln(1 - c max A), which keeps its relative accuracy deep in the ordered phase, where c max A is 1 to many digits.
    """
    largest = eigenvalues.max()

    def solution(log_margin: float) -> tuple[float, np.ndarray]:
        margin = math.exp(log_margin)
        return (1 - margin) / largest, 1 / (margin + (1 - margin) * (1 - eigenvalues / largest))

    def residual(log_margin: float) -> float:
        curvature, variances = solution(log_margin)
        return float(gaussian_averages(np.mean(eigenvalues * variances), mean).sech_squared) - curvature

    ordered = -math.log(eigenvalues.size * (1 + largest)) - 10
    return solution(brentq(residual, ordered, 0.0, xtol=1e-15, rtol=1e-14))


def by_site(root: np.ndarray, uniform: float) -> np.ndarray:
    """Curvatures c_i, shape (N,), of the best centred Gaussian without translation invariance; root = A^1/2.

    The convex dual of the bound, ln det(I - root diag(c) root) / 2 + sum_i [c_i v_i / 2 - E ln cosh] with
    c_i = E[sech^2 x] at x ~ Normal(0, v_i), is maximised over v by Newton steps in ln v, halved until it grows. It
    starts at a large v, well inside the region where the determinant is positive. At temperatures of order one it takes
    a dozen steps; below about 1/10 the limit on steps may come first, and the best Gaussian met on the way, or the one
    of `uniform` curvature, is returned: not the minimum, but a bound.
    """
    identity = np.eye(len(root))

    def gaussian(c: np.ndarray) -> tuple[float, np.ndarray]:
        """ln det of the whitened precision / 2 and the covariance of x; -inf if there is none."""
        try:
            factor = np.linalg.cholesky(identity - root * c @ root)
        except np.linalg.LinAlgError:
            return -math.inf, identity
        half = np.linalg.solve(factor, root)
        return float(np.log(np.diag(factor)).sum()), half.T @ half

    def bound(c: np.ndarray, half_logdet: float, variance: np.ndarray) -> float:
        return half_logdet + float((c * variance / 2 - gaussian_averages(variance).ln_cosh).sum())

    curvature = np.full(len(root), uniform)
    half_logdet, covariance = gaussian(curvature)
    best, least = curvature, bound(curvature, half_logdet, np.diag(covariance))
    variance = np.full(len(root), 8 * np.linalg.norm(root, 2) ** 4 / math.pi)
    curvature, _, slope, *_ = gaussian_averages(variance)
    half_logdet, covariance = gaussian(curvature)
    for _ in range(100):
        exact = np.diag(covariance)
        reached = bound(curvature, half_logdet, exact)
        if reached <= least + 1e-14 * abs(least):  # to rounding, the later one is the better solution
            best, least = curvature, reached
        if np.max(np.abs(exact / variance - 1)) < 1e-10:
            break
        dual = bound(curvature, half_logdet, variance)
        try:
            step = np.linalg.solve(identity - covariance**2 * slope, exact - variance) / variance
        except np.linalg.LinAlgError:  # deep in the ordered phase, to rounding
            break
        for halvings in range(30):
            trial = variance * np.exp(step / 2**halvings)
            curvature, _, slope, *_ = gaussian_averages(trial)
            half_logdet, covariance = gaussian(curvature)
            if bound(curvature, half_logdet, trial) >= dual - 1e-13 * abs(dual):
                break
        else:
            break
        variance = trial
    return best
