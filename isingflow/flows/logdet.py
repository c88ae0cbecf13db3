"""ln det of a convex function's Hessian, with its gradient: exact, or from products with vectors alone.

    d ln det H = tr(H^-1 dH) = E_r[z.(dH) r],    z = H^-1 r,    E[r r^T] = I

The exact way factorises H. The stochastic way never forms it (Huang et al. 2021, section 4): z comes from conjugate
gradients, whose memory does not grow with their iterations, and the value from stochastic Lanczos quadrature,
ln det H = E_r[r.ln(H).r]. Probes r are random signs, a fixed function of a seed and of the sample that they are for:
the same sample has the same log-determinant in any batch, until the seed is redrawn, while the errors of different
samples are independent, so that the scatter of a mean over samples holds the probes' share.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput, NotConverged
from isingflow.flows.base import LogdetEstimate
from isingflow.flows.solvers import small
from isingflow.flows.solvers.cholesky_kernels import factorised, inverted
from isingflow.flows.solvers.krylov import Product, Solution, conjugate_gradients, gauss_log, lanczos, radau_log
from isingflow.potentials.convex import Expansion
from isingflow.runtime.checks import count, number
from isingflow.runtime.hashing import GOLDEN, keys, mix

COMPILED = 16
"""Entries of a field up to which a compiled factorisation of the whole batch is the fastest."""
LARGEST_EXACT = 1024
"""Entries of a field up to which a Hessian is formed: 8 MB a sample in float64."""


class LogDeterminant(nn.Module):
    """How ln det of the Hessian is found; one that is stochastic can `estimate` its error."""

    stochastic = False

    def forward(self, expansion: Expansion, samples: Tensor) -> Tensor:
        """ln det, float64, shape (n,), differentiable once.

        Args:
            expansion: of the convex function about the samples' points.
            samples: what identifies the samples, shape (n, *shape).
        """
        raise NotImplementedError

    def solve(self, expansion: Expansion, right: Tensor) -> Tensor:
        """H^-1 right, shape (n, *shape), without a graph."""
        raise NotImplementedError

    def estimate(self, expansion: Expansion, samples: Tensor) -> LogdetEstimate:
        """ln det with its errors, without a graph; arguments as for the value itself."""
        raise NotImplementedError

    def redraw(self, generator: torch.Generator) -> None:
        """Draw anew what is random, if anything is."""


class CholeskyLogdet(LogDeterminant):
    """Exact, from the Hessian's Cholesky factor, O(N^3) a sample; of up to three entries of a GPU by the formula.

    Args:
        limit: most entries of a field.

    Raises (in use):
        InvalidInput: a field has more entries than the limit.
        NotConverged: a Hessian is not positive definite to rounding.
    """

    def __init__(self, limit: int = LARGEST_EXACT) -> None:
        super().__init__()
        self.limit = count("limit", limit)

    def forward(self, expansion: Expansion, samples: Tensor) -> Tensor:
        hessian = self._hessian(expansion)
        if hessian.device.type == "cpu" and hessian.shape[-1] <= COMPILED:
            return _CompiledLogdet.apply(hessian)
        if hessian.shape[-1] <= small.LARGEST:
            minors = small.minors(hessian.double())
            positive = (minors > 0).all(-1)
            if not positive.all():
                raise NotConverged("determinant of the Hessian", torch.where(positive, 0.0, math.inf), 0.0, 1)
            return minors[:, -1].log()
        factor = _factor(hessian.detach())
        value = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        if not hessian.requires_grad:
            return value
        inverse = torch.cholesky_inverse(factor).to(hessian)
        surrogate = (inverse * hessian).sum((-2, -1)).double()
        return value + (surrogate - surrogate.detach())

    @torch.no_grad()
    def solve(self, expansion: Expansion, right: Tensor) -> Tensor:
        factor = _factor(self._hessian(expansion))
        return torch.cholesky_solve(right.flatten(1)[..., None].double(), factor).view(right.shape).to(right)

    def _hessian(self, expansion: Expansion) -> Tensor:
        entries = expansion.gradient[0].numel()
        if entries > self.limit:
            raise InvalidInput(f"an exact log-determinant of {entries} entries: the limit is {self.limit}; use Lanczos")
        return expansion.hessian()


class _CompiledLogdet(torch.autograd.Function):
    """ln det, float64, of Hessians of shape (n, d, d); its derivative is the inverse."""

    @staticmethod
    def forward(ctx: Any, hessian: Tensor) -> Tensor:
        factor = hessian.detach().permute(1, 2, 0).to(torch.float64, memory_format=torch.contiguous_format, copy=True)
        value = factor.new_empty(len(hessian))
        if not factorised(factor.numpy(), value.numpy()):
            # Raises, and says of which samples
            _factor(hessian)
        ctx.factor, ctx.dtype = factor, hessian.dtype
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_value: Tensor) -> Tensor:
        inverse = torch.empty_like(ctx.factor)
        inverted(ctx.factor.numpy(), inverse.numpy())
        return (inverse * by_value).to(ctx.dtype).permute(2, 0, 1)


def _factor(hessian: Tensor) -> Tensor:
    """Lower triangular, float64."""
    factor, info = torch.linalg.cholesky_ex(hessian.double())
    if info.any():
        raise NotConverged("Cholesky factorisation of the Hessian", torch.where(info > 0, math.inf, 0.0), 0.0, 1)
    return factor


class LanczosLogdet(LogDeterminant):
    """Stochastic Lanczos quadrature for the value, conjugate gradients for the gradient.

    Args:
        probes: random vectors a sample.
        steps: Lanczos steps, products with the Hessian for each.
        tolerance: relative residual of conjugate gradients.
        iterations: most iterations of conjugate gradients.

    Attributes:
        cg_iterations: the most that a sample of the latest gradient took.

    Raises (in use):
        NotConverged: conjugate gradients did not reach their tolerance for some samples.

    Example:
        >>> from isingflow.potentials import ConvexPotential
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(3, 5, generator=generator)
        >>> expansion = ConvexPotential((5,), width=8, generator=generator).expand(x)
        >>> exact, estimate = CholeskyLogdet()(expansion, x), LanczosLogdet(probes=200).estimate(expansion, x)
        >>> bool(((estimate.value - exact).abs() < 4 * estimate.stderr).all())
        True
    """

    stochastic = True
    seed: Tensor

    def __init__(self, probes: int = 4, *, steps: int = 16, tolerance: float = 1e-3, iterations: int = 500) -> None:
        super().__init__()
        self.probes = count("probes", probes)
        self.steps = count("steps", steps)
        self.tolerance = number("tolerance", tolerance, above=0, below=1)
        self.iterations = count("iterations", iterations)
        self.cg_iterations = 0
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))

    def forward(self, expansion: Expansion, samples: Tensor) -> Tensor:
        probes = self.draw(samples)
        value = self.quadrature(expansion, probes).value
        if not expansion.gradient.requires_grad:
            return value
        surrogate, solution = self.surrogate(expansion, probes)
        self.cg_iterations = int(solution.iterations.max())
        return value + (surrogate - surrogate.detach())

    def draw(self, samples: Tensor, probes: int | None = None) -> Tensor:
        """Signs for these samples, shape (probes, n, *shape)."""
        key = keys(samples, self.seed)
        count = self.probes if probes is None else probes
        index = torch.arange(count * samples[0].numel(), device=key.device).view(count, 1, -1) * GOLDEN
        signs = torch.where(mix(key[:, None] + index) < 0, -1.0, 1.0)
        return signs.to(samples).view(count, *samples.shape)

    def estimate(self, expansion: Expansion, samples: Tensor) -> LogdetEstimate:
        """ln det with its errors, without a graph."""
        return self.quadrature(expansion, self.draw(samples))

    @torch.no_grad()
    def quadrature(self, expansion: Expansion, probes: Tensor) -> LogdetEstimate:
        """ln det with its errors from given probes, shape (probes, n, *shape).

        Exact if the probes are all unit vectors times sqrt(N), and as many steps.
        """
        t = lanczos(_flat(expansion, probes), probes.flatten(2), self.steps)
        above = gauss_log(t)
        below = radau_log(t, 0.999 * expansion.strength.double())
        count = len(probes)
        stderr = above.std(0) / math.sqrt(count) if count > 1 else torch.full_like(above[0], math.inf)
        return LogdetEstimate(above.mean(0), stderr, (above - below).clamp_min(0).mean(0))

    def surrogate(self, expansion: Expansion, probes: Tensor) -> tuple[Tensor, Solution]:
        """The mean over probes of z.H r, float64, shape (n,), whose derivative at fixed z and r is that of ln det.

        Returns:
            It, and the solution z = H^-1 r by conjugate gradients.

        Raises:
            NotConverged: some samples did not reach the tolerance.
        """
        with torch.no_grad():
            solution = self._conjugate(_flat(expansion, probes), probes.flatten(2))
        pulled = (solution.vectors.view(probes.shape) * expansion.product(probes)).flatten(2)
        return pulled.sum(2).double().mean(0), solution

    @torch.no_grad()
    def solve(self, expansion: Expansion, right: Tensor) -> Tensor:
        flat = right.flatten(1)
        return self._conjugate(_flat(expansion, right), flat).vectors.view(right.shape)

    def redraw(self, generator: torch.Generator) -> None:
        self.seed.copy_(torch.randint(-(2**62), 2**62, (), generator=generator, device=generator.device))

    def _conjugate(self, product: Product, right: Tensor) -> Solution:
        solution = conjugate_gradients(product, right, tolerance=self.tolerance, iterations=self.iterations)
        residuals = solution.residuals if right.ndim == 2 else solution.residuals.amax(0)
        if not (residuals <= self.tolerance).all():
            raise NotConverged("conjugate gradients", residuals, self.tolerance, self.iterations)
        return solution


def _flat(expansion: Expansion, like: Tensor) -> Product:
    """Products with the Hessian for flattened fields."""
    shape = expansion.gradient.shape[1:]
    return lambda v: expansion.product(v.view(*v.shape[:-1], *shape)).reshape(v.shape)
