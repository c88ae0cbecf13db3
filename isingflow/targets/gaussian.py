"""The best centred Gaussian for a continuous Ising model: the classical mean-field bound, where flows start.

Of all covariances Sigma of x, the bound on -ln Z is smallest at Sigma^-1 = A^-1 - diag(c), c_i = E[sech^2 x_i]. It is
convex in Sigma, so the solution is unique and as symmetric as the lattice: where that is translation invariant, a
scalar root,

    s_k^2 = 1 / (1 - A_k c),   c = E[sech^2 x],   x ~ Normal(0, v),   v = mean_k A_k s_k^2;

elsewhere Newton's method, O(N^3) a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from isingflow.flows.spectral import EigenBasis, SpectralBasis

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)


@dataclass(frozen=True)
class MeanField:
    """The best centred Gaussian for a continuous Ising model, and the classical mean-field bound it gives.

    Attributes:
        free_energy: upper bound on -ln Z of the continuous representation, in nats, for the whole lattice.
        basis: eigenbasis of the Gaussian's covariance in the whitened field y = A^-1/2 x.
        variances: eigenvalues s_k^2 of that covariance, float64, shape `basis.values_shape`.
        curvature: c_i = E[sech^2 x_i], float64; a scalar where the lattice is translation invariant, else of its shape.
            The covariance is (I - A^1/2 diag(c) A^1/2)^-1.
    """

    free_energy: float
    basis: SpectralBasis
    variances: Tensor
    curvature: Tensor

    def transform(self, latent: Tensor) -> Tensor:
        """Whitened field y from standard normal noise z, y = S z with S the covariance's symmetric square root."""
        return self.basis.multiply(latent, self.variances.sqrt())

    def inverse(self, whitened: Tensor) -> Tensor:
        """Standard normal noise z from the whitened field y."""
        return self.basis.multiply(whitened, self.variances.rsqrt())

    @property
    def logdet(self) -> Tensor:
        """ln det S, a scalar."""
        return self.basis.logdet(self.variances) / 2


def best_gaussian(basis: SpectralBasis, eigenvalues: Tensor, whitening_logdet: float) -> MeanField:
    """The best centred Gaussian for E(x) = x.A^-1.x / 2 - sum ln cosh x.

    Args:
        basis: eigenbasis of A.
        eigenvalues: of A, float64, shape `basis.values_shape`.
        whitening_logdet: ln det A^1/2.
    """
    device, sites = eigenvalues.device, eigenvalues.numel()
    values = eigenvalues.cpu().numpy()
    uniform, variances = _uniform(values)
    if isinstance(basis, EigenBasis):
        vectors = basis.vectors.cpu().numpy()
        root = vectors * np.sqrt(values) @ vectors.T
        curvature = _by_site(root, uniform)
        precisions, axes = np.linalg.eigh(np.eye(sites) - root * curvature @ root)
        variances = 1 / np.maximum(precisions, np.finfo(float).eps)
        site_variances = ((root @ axes) ** 2) @ variances
        curvature = curvature.reshape(basis.shape)
        basis = EigenBasis(basis.shape, torch.from_numpy(axes)).to(device)
    else:
        curvature, site_variances = np.array(uniform), np.mean(values * variances)
    gaussian = (variances - np.log(variances) - 1 - math.log(2 * math.pi)) / 2
    log_cosh = sites * np.mean(gaussian_averages(site_variances)[1])
    free_energy = float(gaussian.sum() - log_cosh) - whitening_logdet
    return MeanField(free_energy, basis, *(torch.from_numpy(v).to(device) for v in (variances, curvature)))


def gaussian_averages(variance: float | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[sech^2 x], E[ln cosh x] and d E[sech^2 x] / dv for x ~ Normal(0, v), each of v's shape.

    Gauss-Legendre on the half line up to where the Gaussian (9 sigma) or the integrand (x = 20) has died out: exact to
    rounding for every v, where Gauss-Hermite would miss the narrow sech^2 of a large one. The growing part of ln cosh,
    E|x| = sqrt(2 v / pi), is added in closed form; the derivative is Stein's, E[(x^2 / v - 1) sech^2 x] / (2 v).
    """
    variance = np.asarray(variance, dtype=float)[..., None]
    reach = np.minimum(9 * np.sqrt(variance), 20)
    x = reach * (_NODES + 1) / 2
    density = reach * _WEIGHTS * np.exp(-(x**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    sech_squared = density / np.cosh(x) ** 2
    ln_cosh_mean = (density * np.log1p(np.exp(-2 * x))).sum(-1) + np.sqrt(2 * variance[..., 0] / np.pi) - np.log(2)
    slope = (sech_squared * (x**2 / variance - 1)).sum(-1) / (2 * variance[..., 0])
    return sech_squared.sum(-1), ln_cosh_mean, slope


def _uniform(eigenvalues: np.ndarray) -> tuple[float, np.ndarray]:
    """Curvature c < 1 / max A, the same on every site, and whitened variances 1 / (1 - A_k c): a scalar root.

    The left side of E[sech^2 x] - c = 0 falls as c grows, so the root is unique. It is found in ln(1 - c max A), which
    keeps its relative accuracy deep in the ordered phase, where c max A is 1 to many digits.
    """
    largest = eigenvalues.max()

    def solution(log_margin: float) -> tuple[float, np.ndarray]:
        margin = math.exp(log_margin)
        return (1 - margin) / largest, 1 / (margin + (1 - margin) * (1 - eigenvalues / largest))

    def residual(log_margin: float) -> float:
        curvature, variances = solution(log_margin)
        return float(gaussian_averages(np.mean(eigenvalues * variances))[0]) - curvature

    ordered = -math.log(eigenvalues.size * (1 + largest)) - 10
    return solution(brentq(residual, ordered, 0.0, xtol=1e-15, rtol=1e-14))


def _by_site(root: np.ndarray, uniform: float) -> np.ndarray:
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
        return half_logdet + float((c * variance / 2 - gaussian_averages(variance)[1]).sum())

    curvature = np.full(len(root), uniform)
    half_logdet, covariance = gaussian(curvature)
    best, least = curvature, bound(curvature, half_logdet, np.diag(covariance))
    variance = np.full(len(root), 8 * np.linalg.norm(root, 2) ** 4 / math.pi)
    curvature, _, slope = gaussian_averages(variance)
    half_logdet, covariance = gaussian(curvature)
    for _ in range(100):
        exact = np.diag(covariance)
        reached = bound(curvature, half_logdet, exact)
        if reached <= least:
            best, least = curvature, reached
        if np.max(np.abs(exact / variance - 1)) < 1e-10:
            break
        dual = bound(curvature, half_logdet, variance)
        step = np.linalg.solve(identity - covariance**2 * slope, exact - variance) / variance
        for halvings in range(30):
            trial = variance * np.exp(step / 2**halvings)
            curvature, _, slope = gaussian_averages(trial)
            half_logdet, covariance = gaussian(curvature)
            if bound(curvature, half_logdet, trial) >= dual - 1e-13 * abs(dual):
                break
        else:
            break
        variance = trial
    return best
