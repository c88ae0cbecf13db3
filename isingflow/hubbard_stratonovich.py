"""The continuous representation of an Ising model: a density of real fields with the same partition function.

With A = K + a I positive definite (Hubbard 1959, Stratonovich 1957),

    E(x) = x.A^-1.x / 2 - sum_i ln cosh x_i,    Z = integral of exp(-E(x)) over R^N,
    -ln Z = -ln Z_Ising - ln det(A) / 2 + (N / 2) [ln(2 / pi) - a],

because exp(s.A.s / 2) is the Gaussian integral of exp(s.x - x.A^-1.x / 2) and the sum over s = +-1 gives 2 cosh x_i.
Both conditionals are exact: p(s_i = +1 | x) = sigmoid(2 x_i) and x | s ~ Normal(A s, A).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TypeVar

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice, check_beta
from isingflow.symmetry import Group

LogZ = TypeVar("LogZ")

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)


class SpectralBasis(nn.Module):
    """An orthonormal basis of fields, in which a symmetric matrix is its eigenvalues.

    Attributes:
        shape: shape of the fields.
        values_shape: shape of eigenvalues, one entry per basis vector.
    """

    shape: tuple[int, ...]
    values_shape: tuple[int, ...]

    def apply(self, field: Tensor, values: Tensor) -> Tensor:
        """Multiply by the symmetric matrix with these eigenvalues.

        Args:
            field: x, shape (..., *shape), of any float dtype.
            values: eigenvalues, shape (..., *values_shape), cast to the field's dtype and device.

        Returns:
            B x, shape (..., *shape).
        """
        raise NotImplementedError

    def power(self, field: Tensor) -> Tensor:
        """Squared coefficients of fields in this basis, shape (..., *values_shape); they add up to |x|^2."""
        raise NotImplementedError

    def trace(self, values: Tensor) -> Tensor:
        """Trace of the matrix with these eigenvalues: shape (...,)."""
        return values.flatten(-len(self.values_shape)).sum(-1)

    def logdet(self, values: Tensor) -> Tensor:
        """Logarithm of the absolute determinant of the matrix with these eigenvalues: shape (...,)."""
        return self.trace(values.abs().log())


class FourierBasis(SpectralBasis):
    """Plane waves on an lx x ly torus: the basis of every translation-invariant matrix.

    Values have shape (..., lx, ly), are indexed by momentum in fft2 order and must be even, value[k] = value[-k].

    Example:
        >>> FourierBasis((4, 4)).apply(torch.ones(4, 4), torch.full((4, 4), 2.0))[0]
        tensor([2., 2., 2., 2.])
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = self.values_shape = tuple(shape)

    def apply(self, field: Tensor, values: Tensor) -> Tensor:
        half = values[..., : self.shape[1] // 2 + 1].to(field)
        return torch.fft.irfft2(torch.fft.rfft2(field) * half, s=self.shape)

    def power(self, field: Tensor) -> Tensor:
        return torch.fft.fft2(field, norm="ortho").abs().square()


class EigenBasis(SpectralBasis):
    """Any orthonormal basis, given as the columns of an (N, N) matrix; values have shape (..., N)."""

    def __init__(self, shape: tuple[int, ...], vectors: Tensor) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.values_shape = (math.prod(shape),)
        self.register_buffer("vectors", vectors, persistent=False)

    def apply(self, field: Tensor, values: Tensor) -> Tensor:
        vectors = self.vectors.to(field)
        coefficients = field.flatten(-len(self.shape)) @ vectors * values.to(field)
        return (coefficients @ vectors.T).unflatten(-1, self.shape)

    def power(self, field: Tensor) -> Tensor:
        return (field.flatten(-len(self.shape)) @ self.vectors.to(field)).square()


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
        return self.basis.apply(latent, self.variances.sqrt())

    def inverse(self, whitened: Tensor) -> Tensor:
        """Standard normal noise z from the whitened field y."""
        return self.basis.apply(whitened, self.variances.rsqrt())

    @property
    def logdet(self) -> Tensor:
        """ln det S, a scalar."""
        return self.basis.logdet(self.variances) / 2


class HubbardStratonovich(nn.Module):
    """The continuous Ising density exp(-E(x)) / Z of a lattice at inverse temperature beta.

    Fields have shape (..., *lattice.shape) and any float dtype and device; results follow the field. Constants are
    float64: move the module between devices, leave its dtype alone. O(N log N) where the lattice is translation
    invariant, else O(N^2) after one O(N^3) diagonalisation.

    Args:
        lattice: the lattice; at most 16384 sites unless translation invariant.
        beta: inverse temperature, finite, of either sign.
        min_eigenvalue: smallest eigenvalue of A = K + a I, which fixes the offset a.

    Attributes:
        offset: a.
        basis: eigenbasis of A.
        eigenvalues: of A, float64, shape `basis.values_shape` ((lx, ly) by momentum, or (N,) ascending in J).
        whitening_logdet: ln det A^1/2, so that log p(y) = log p(x) + whitening_logdet for y = A^-1/2 x.

    Raises:
        InvalidInput: beta or min_eigenvalue out of range, or a lattice too large.

    Example:
        >>> from isingflow.lattice import square
        >>> target = HubbardStratonovich(square(4), beta=0.44)
        >>> round(target.offset, 12)
        1.86
    """

    eigenvalues: Tensor

    def __init__(self, lattice: Lattice, beta: float, min_eigenvalue: float = 0.1) -> None:
        super().__init__()
        self.lattice = lattice
        self.beta = check_beta(beta)
        if not isinstance(min_eigenvalue, Real) or not 0 < min_eigenvalue < math.inf:
            raise InvalidInput(f"min_eigenvalue {min_eigenvalue!r}: expected a positive number")
        self.shape = lattice.shape
        self.sites = lattice.sites
        if lattice.translation_invariant:
            strengths = lattice.spectrum()
            self.basis: SpectralBasis = FourierBasis(self.shape)
        else:
            strengths, vectors = np.linalg.eigh(lattice.couplings(1.0))
            self.basis = EigenBasis(self.shape, torch.from_numpy(vectors))
        spread = abs(self.beta) * float(np.ptp(strengths))
        if not spread <= 1e12 * min_eigenvalue:
            raise InvalidInput(
                f"beta {beta!r}: the smallest eigenvalue {min_eigenvalue} is lost in rounding beside {spread:g}; "
                f"expected beta times the couplings' spectral width to be at most {1e12 * min_eigenvalue:g}"
            )
        spectrum = self.beta * strengths
        self.offset = float(min_eigenvalue - spectrum.min())
        eigenvalues = torch.from_numpy(min_eigenvalue + (spectrum - spectrum.min()))
        self.register_buffer("eigenvalues", eigenvalues, persistent=False)
        self.whitening_logdet = float(self.basis.logdet(eigenvalues)) / 2

    def extra_repr(self) -> str:
        return f"{self.lattice}, beta={self.beta:g}, offset={self.offset:g}"

    @property
    def symmetry(self) -> Group:
        """The symmetry of the density: the lattice's."""
        return self.lattice.symmetry

    def energy(self, field: Tensor) -> Tensor:
        """Continuous Ising energy E(x) = x.(K + aI)^-1.x / 2 - sum ln cosh x.

        Args:
            field: configurations x, shape (..., *shape).

        Returns:
            E, shape (...), in units of k_B T; exp(-E) is the unnormalised density.

        Example:
            >>> from isingflow.lattice import square
            >>> target = HubbardStratonovich(square(4), beta=0.44)
            >>> target.energy(torch.zeros(2, 4, 4))
            tensor([0., 0.])
        """
        self._check_field(field)
        return self._energy(field, self.basis.apply(field, 1 / self.eigenvalues))

    def force(self, field: Tensor) -> Tensor:
        """-grad E = tanh x - A^-1 x, shape (..., *shape)."""
        return self.energy_and_force(field)[1]

    def energy_and_force(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """Energy, shape (...), and force, shape (..., *shape), for the price of one of them."""
        self._check_field(field)
        pull = self.basis.apply(field, 1 / self.eigenvalues)
        return self._energy(field, pull), torch.tanh(field) - pull

    def whiten(self, field: Tensor) -> Tensor:
        """y = A^-1/2 x, shape (..., *shape), in which E = |y|^2 / 2 - sum ln cosh (A^1/2 y)_i."""
        self._check_field(field)
        return self.basis.apply(field, self.eigenvalues.rsqrt())

    def unwhiten(self, whitened: Tensor) -> Tensor:
        """x = A^1/2 y, shape (..., *shape); its log-determinant is `whitening_logdet`."""
        self._check_field(whitened)
        return self.basis.apply(whitened, self.eigenvalues.sqrt())

    def free_energy(self, log_z_ising: LogZ) -> LogZ:
        """-ln Z of the continuous representation, in nats, from ln Z_Ising (a number, tensor or Estimate).

        Example:
            >>> from isingflow.lattice import CRITICAL_BETA, square
            >>> round(HubbardStratonovich(square(16), CRITICAL_BETA).free_energy(238.6422), 3)
            -592.876
        """
        return -log_z_ising + self._conversion

    def log_z_ising(self, free_energy: LogZ) -> LogZ:
        """ln Z_Ising from -ln Z of the continuous representation: the inverse of `free_energy`."""
        return -free_energy + self._conversion

    def sample_spins(self, field: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Spins drawn from p(s | x), where p(s_i = +1 | x) = sigmoid(2 x_i).

        Args:
            field: x, shape (..., *shape).
            generator: source of randomness on the field's device; torch's global one if not given.

        Returns:
            Spins +1 or -1, int8, shape (..., *shape).
        """
        self._check_field(field)
        uniform = torch.rand(field.shape, dtype=field.dtype, device=field.device, generator=generator)
        return (2 * (uniform < torch.sigmoid(2 * field)) - 1).to(torch.int8)

    def sample_field(self, spins: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fields drawn from p(x | s) = Normal(A s, A).

        Args:
            spins: +1 or -1, shape (..., *shape), of any dtype.
            generator: source of randomness on the spins' device; torch's global one if not given.

        Returns:
            x, shape (..., *shape); of the spins' dtype if that is a float, else torch's default dtype.

        Raises:
            InvalidInput: the shape differs from the lattice's, or an entry is neither +1 nor -1.
        """
        spins = spins if spins.is_floating_point() else spins.to(torch.get_default_dtype())
        self._check_field(spins)
        if not torch.all(spins.abs() == 1):
            raise InvalidInput("spins must be +1 or -1")
        noise = torch.randn(spins.shape, dtype=spins.dtype, device=spins.device, generator=generator)
        return self.basis.apply(spins, self.eigenvalues) + self.unwhiten(noise)

    def mean_field(self) -> MeanField:
        """The centred Gaussian with the smallest KL divergence to the density, and its bound on -ln Z.

        The covariance Sigma of x solves Sigma^-1 = A^-1 - diag(c), c_i = E[sech^2 x_i]. The bound is convex in Sigma,
        so the solution is unique and as symmetric as the lattice: where that is translation invariant, a scalar root,

            s_k^2 = 1 / (1 - A_k c),   c = E[sech^2 x],   x ~ Normal(0, v),   v = mean_k A_k s_k^2;

        elsewhere Newton's method, O(N^3) a step.

        Example:
            >>> from isingflow.lattice import CRITICAL_BETA, square
            >>> round(HubbardStratonovich(square(16), CRITICAL_BETA).mean_field().free_energy, 2)
            -557.71
        """
        eigenvalues = self.eigenvalues.cpu().numpy()
        uniform, variances = _uniform_mean_field(eigenvalues)
        basis: SpectralBasis = self.basis
        if isinstance(self.basis, FourierBasis):
            curvature, site_variances = np.array(uniform), np.mean(eigenvalues * variances)
        else:
            vectors = self.basis.vectors.cpu().numpy()
            root = vectors * np.sqrt(eigenvalues) @ vectors.T
            curvature = _site_mean_field(root, uniform)
            precisions, axes = np.linalg.eigh(np.eye(self.sites) - root * curvature @ root)
            variances = 1 / np.maximum(precisions, np.finfo(float).eps)
            site_variances = ((root @ axes) ** 2) @ variances
            basis = EigenBasis(self.shape, torch.from_numpy(axes)).to(self.eigenvalues.device)
            curvature = curvature.reshape(self.shape)
        gaussian = (variances - np.log(variances) - 1 - math.log(2 * math.pi)) / 2
        log_cosh = self.sites * np.mean(_gaussian_averages(site_variances)[1])
        free_energy = float(gaussian.sum() - log_cosh) - self.whitening_logdet
        variances, curvature = (torch.from_numpy(v).to(self.eigenvalues.device) for v in (variances, curvature))
        return MeanField(free_energy, basis, variances, curvature)

    @property
    def _conversion(self) -> float:
        return self.sites / 2 * (math.log(2 / math.pi) - self.offset) - self.whitening_logdet

    def _energy(self, field: Tensor, pull: Tensor) -> Tensor:
        return (field * pull / 2 - ln_cosh(field)).flatten(-len(self.shape)).sum(-1)

    def _check_field(self, field: Tensor) -> None:
        if tuple(field.shape[-len(self.shape) :]) != self.shape or not field.is_floating_point():
            shape = ", ".join(map(str, self.shape))
            raise InvalidInput(f"a {field.dtype} of shape {tuple(field.shape)}: expected floats, shape (..., {shape})")


def ln_cosh(x: Tensor) -> Tensor:
    """ln cosh x, elementwise, without overflow."""
    magnitude = x.abs()
    return magnitude + torch.log1p(torch.exp(-2 * magnitude)) - math.log(2)


def _gaussian_averages(variance: float | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _uniform_mean_field(eigenvalues: np.ndarray) -> tuple[float, np.ndarray]:
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
        return float(_gaussian_averages(np.mean(eigenvalues * variances))[0]) - curvature

    ordered = -math.log(eigenvalues.size * (1 + largest)) - 10
    return solution(brentq(residual, ordered, 0.0, xtol=1e-15, rtol=1e-14))


def _site_mean_field(root: np.ndarray, uniform: float) -> np.ndarray:
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
        return half_logdet + float((c * variance / 2 - _gaussian_averages(variance)[1]).sum())

    curvature = np.full(len(root), uniform)
    half_logdet, covariance = gaussian(curvature)
    best, least = curvature, bound(curvature, half_logdet, np.diag(covariance))
    variance = np.full(len(root), 8 * np.linalg.norm(root, 2) ** 4 / math.pi)
    curvature, _, slope = _gaussian_averages(variance)
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
            curvature, _, slope = _gaussian_averages(trial)
            half_logdet, covariance = gaussian(curvature)
            if bound(curvature, half_logdet, trial) >= dual - 1e-13 * abs(dual):
                break
        else:
            break
        variance = trial
    return best
