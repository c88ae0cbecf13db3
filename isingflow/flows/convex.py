"""CP-Flow (Huang et al. 2021, arXiv 2012.05942): x = grad F(z) with F strongly convex, Brenier's form of transport.

    ln p(x) = ln p(z) - ln det hess F(z),    z = argmin_z F(z) - x.z = grad F*(x)

The inverse is the gradient of the convex conjugate F*, found by minimisation. The derivative of z by x and the
parameters is that of grad F(z) = x, so it needs H^-1 and no graph through the iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from isingflow.errors import NotConverged
from isingflow.flows.base import LogdetEstimate, PathCost, Transform
from isingflow.flows.logdet import CholeskyLogdet, LogDeterminant
from isingflow.flows.solvers import lbfgs, newton
from isingflow.flows.solvers.lbfgs import Minimum
from isingflow.potentials.base import pulled_back
from isingflow.potentials.convex import ConvexFunction
from isingflow.potentials.layers import wanted
from isingflow.runtime.checks import count, instance, number

NEWTON_DIMENSION = 16
"""Largest dimension in which inverses are found by Newton's method."""


class ConvexFlow(Transform):
    """x = grad F(z), with ln det of the Hessian; its inverse minimises F(z) - x.z, by Newton's method or L-BFGS.

    Args:
        potential: F.
        logdet: how ln det is found; exactly if not given.
        tolerance: largest |grad F(z) - x| of an inverse, relative to max(|x|, sqrt N).
        iterations: most steps of the minimisation.

    Example:
        >>> from isingflow.potentials import ConvexPotential
        >>> generator = torch.Generator().manual_seed(0)
        >>> flow = ConvexFlow(ConvexPotential((4,), width=8, generator=generator))
        >>> z = torch.randn(3, 4, generator=generator)
        >>> x, logdet = flow(z)
        >>> back, inverse_logdet = flow.inverse(x)
        >>> torch.allclose(back, z, atol=1e-3), torch.allclose(logdet, -inverse_logdet, atol=1e-3)
        (True, True)
    """

    def __init__(
        self,
        potential: ConvexFunction,
        *,
        logdet: LogDeterminant | None = None,
        tolerance: float = 1e-5,
        iterations: int = 500,
    ) -> None:
        super().__init__()
        self.potential = instance("potential", potential, ConvexFunction, "a ConvexFunction")
        wanted = "a LogDeterminant, for example CholeskyLogdet()"
        self.logdet = CholeskyLogdet() if logdet is None else instance("logdet", logdet, LogDeterminant, wanted)
        self.tolerance = number("tolerance", tolerance, above=0, below=1)
        self.iterations = count("iterations", iterations)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """grad F(z) and ln det hess F(z), float64, shape (n,)."""
        expansion = self.potential.expand(z)
        return expansion.gradient, self.logdet(expansion, z)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z with grad F(z) = x, and -ln det hess F(z).

        Raises:
            NotConverged: the minimisation missed its tolerance for some samples.
        """
        minimum = self.minimise(x)
        if not (minimum.residuals <= self.tolerance).all():
            raise NotConverged("inversion of a convex flow", minimum.residuals, self.tolerance, self.iterations)
        z = minimum.points.view(x.shape)
        if torch.is_grad_enabled():
            expansion = self.potential.expand(z)
            z = z + _Implicit.apply(x - expansion.gradient, lambda v: self.logdet.solve(expansion, v))
        return z, -self.logdet(self.potential.expand(z), x)

    def forward_with_score(self, z: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As forward, with the score: H^-1 (grad ln p(z) - grad ln det H(z)), H = hess F, without an inversion."""
        expansion = self.potential.expand(z)
        with torch.enable_grad(), wanted.of_fields_alone():
            point = z.detach().requires_grad_()
            about = self.potential.expand(point)
            logdet = self.logdet(about, point)
            pulled = pulled_back([logdet], [torch.ones_like(logdet)], point)
        return expansion.gradient, logdet.detach(), self.logdet.solve(expansion, score - pulled)

    def minimise(self, x: Tensor) -> Minimum:
        """The minimum of F(z) - x.z for every sample, converged or not; without a graph."""
        rows = x.detach().flatten(1)
        shape = x.shape[1:]

        def conjugate(z: Tensor) -> tuple[Tensor, Tensor]:
            expansion = self.potential.expand(z.view(x.shape))
            return expansion.value - (z * rows).sum(1), expansion.gradient.flatten(1) - rows

        def curved(z: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            expansion, right = self.potential.of(index).expand(z.view(-1, *shape)), rows[index]
            return expansion.value - (z * right).sum(1), expansion.gradient.flatten(1) - right, expansion.hessian()

        scale = rows.norm(dim=1).clamp_min(math.sqrt(rows.shape[1]))
        if rows.shape[1] <= NEWTON_DIMENSION:
            return newton.minimise(curved, rows, scale, tolerance=self.tolerance, iterations=self.iterations)
        return lbfgs.minimise(conjugate, rows, scale, tolerance=self.tolerance, iterations=self.iterations)

    def forward_with_cost(self, z: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As forward, with the cost of straight paths at constant speed: transport |x - z|^2 / 2, no residual."""
        x, logdet = self(z)
        return x, logdet, _straight(z, x)

    def inverse_with_cost(self, x: Tensor, *, hjb: bool = False) -> tuple[Tensor, Tensor, PathCost]:
        """As inverse, with the cost of the same paths."""
        z, logdet = self.inverse(x)
        return z, logdet, _straight(z, x)

    @property
    def stochastic(self) -> bool:
        """Whether log-determinants are estimates by random probes."""
        return self.logdet.stochastic

    def logdet_error(self, z: Tensor, x: Tensor) -> LogdetEstimate | None:
        """ln det hess F(z) with its errors. Quadrature overestimates it: by so much may ln p(x) be too small."""
        return self.logdet.estimate(self.potential.expand(z), z) if self.stochastic else None

    def redraw(self, generator: torch.Generator) -> None:
        """Draw new probes for a stochastic log-determinant."""
        self.logdet.redraw(generator)


def _straight(start: Tensor, end: Tensor) -> PathCost:
    transport = (end - start).double().square().flatten(1).sum(1) / 2
    return PathCost(transport, torch.zeros_like(transport))


class _Implicit(torch.autograd.Function):
    """Zero, with the derivative H^-1 by its argument, the residual of an equation that is solved."""

    @staticmethod
    def forward(ctx, residual: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return torch.zeros_like(residual)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_step: Tensor) -> tuple[Tensor, None]:
        return ctx.solve(by_step), None
