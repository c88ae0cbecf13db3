"""The continuous representation of an Ising model: a density of real fields with the same partition function.

With A = K + a I positive definite (Hubbard 1959, Stratonovich 1957), in an external field H,

    E(x) = x.A^-1.x / 2 - sum_i ln cosh(x_i + beta H_i),    Z = integral of exp(-E(x)) over R^N,
    -ln Z = -ln Z_Ising - ln det(A) / 2 + (N / 2) [ln(2 / pi) - a],

because exp(s.A.s / 2) is the Gaussian integral of exp(s.x - x.A^-1.x / 2), and the sum over s = +-1 of
exp(s.(x + beta H)) gives 2 cosh(x_i + beta H_i). Both conditionals are exact: x | s ~ Normal(A s, A), and
p(s_i = +1 | x) = sigmoid(2 x_i + 2 beta H_i).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from isingflow.errors import InvalidInput, NoExactSolution
from isingflow.exact.continuous import MIN_EIGENVALUE, LogZ, continuous_form
from isingflow.exact.thermodynamics import Thermodynamics, thermodynamics
from isingflow.exact.transfer_matrix import LONGEST
from isingflow.flows.linear import Shift, SpectralScaling
from isingflow.flows.spectral import EigenBasis, FourierBasis, SpectralBasis
from isingflow.lattice import Lattice, check_beta, heading
from isingflow.lattice.graph import MAX_DENSE_SITES
from isingflow.lattice.symmetry import Group
from isingflow.runtime.checks import instance
from isingflow.runtime.fields import fields_of, stream
from isingflow.targets.base import Start, Target
from isingflow.targets.gaussian import MeanField, best_gaussian
from isingflow.targets.polarised import Gaussians, gaussians_in_field

if TYPE_CHECKING:
    from isingflow.monte_carlo.annealing import Clusters


class HubbardStratonovich(Target):
    """The continuous Ising density exp(-E(x)) / Z of a lattice at inverse temperature beta.

    Fields are tensors or arrays of real numbers, shape (..., *lattice.shape), on any device; float32 and float64 stay
    what they are, all else becomes torch's default type, and results follow the field. Constants are float64: move the
    module between devices, leave its dtype alone. O(N log N) where the lattice is translation
    invariant, else O(N^2) after one O(N^3) diagonalisation.

    Args:
        lattice: the lattice; at most 16384 sites unless translation invariant.
        beta: inverse temperature, finite, of either sign.
        min_eigenvalue: smallest eigenvalue of A = K + a I, which fixes the offset a.
        field: an external field instead of the lattice's own, as for `Lattice.with_field`.

    Attributes:
        offset: a.
        basis: eigenbasis of A.
        eigenvalues: of A, float64, shape `basis.values_shape` ((lx, ly) by momentum, or (N,) ascending in J).
        tilt: beta H, float64, of the lattice's shape; None without an external field.
        whitening_logdet: ln det A^1/2, so that log p(y) = log p(x) + whitening_logdet for y = A^-1/2 x.

    Raises:
        InvalidInput: beta, min_eigenvalue or field out of range, or a lattice too large; WrongType: none of these. All
            methods raise the same of fields that are not as above.

    Example:
        >>> from isingflow.lattice import square
        >>> target = HubbardStratonovich(square(4), beta=0.44)
        >>> round(target.offset, 12)
        1.86
    """

    eigenvalues: Tensor
    tilt: Tensor | None

    def __init__(
        self,
        lattice: Lattice,
        beta: float,
        min_eigenvalue: float = MIN_EIGENVALUE,
        *,
        field: float | np.ndarray | None = None,
    ) -> None:
        super().__init__()
        lattice = instance("lattice", lattice, Lattice, "a Lattice, for example isingflow.lattice.square(16)")
        self.lattice = lattice = lattice if field is None else lattice.with_field(field)
        self.beta = check_beta(beta)
        self.form = continuous_form(lattice, beta, min_eigenvalue)
        self.min_eigenvalue = float(min_eigenvalue)
        self.shape = lattice.shape
        self.offset = self.form.offset
        self.whitening_logdet = self.form.half_logdet
        self.basis: SpectralBasis
        if self.form.vectors is None:
            self.basis = FourierBasis(self.shape)
        else:
            self.basis = EigenBasis(self.shape, torch.from_numpy(self.form.vectors))
        # What takes long is found once, for training and evaluation alike.
        self._solved: list[Thermodynamics | None] = []
        self._gaussians: dict[torch.device, Gaussians] = {}
        self.register_buffer("eigenvalues", torch.from_numpy(self.form.eigenvalues), persistent=False)
        tilt = None if lattice.field is None else torch.from_numpy(self.beta * lattice.field_by_site)
        self.register_buffer("tilt", tilt, persistent=False)

    def extra_repr(self) -> str:
        return f"{self.lattice}, beta={self.beta:g}, offset={self.offset:g}"

    @cached_property
    def symmetry(self) -> Group:
        """The symmetry of the density: the lattice's."""
        return self.lattice.symmetry

    @property
    def parameters_by_name(self) -> dict[str, Any]:
        """Temperature and the choice of A; the lattice stands in the title."""
        return {"beta": self.beta, "min_eigenvalue": self.min_eigenvalue}

    def title(self) -> str:
        """The magnet in words."""
        return heading(self.lattice, self.beta)

    def at(self, *, beta: float) -> HubbardStratonovich:
        """The same magnet at another temperature."""
        return HubbardStratonovich(self.lattice, beta, self.min_eigenvalue).to(self.eigenvalues.device)

    def start(self) -> Start:
        """The best Gaussian; trained maps act on the whitened field y = A^-1/2 (x - mean).

        In a field so weak that states of both signs count, it is the best centred Gaussian, see `polarised.Gaussians`.
        """
        return self._start_from(self._solutions().start)

    def _start_from(self, gaussian: MeanField) -> Start:
        """The maps of a Gaussian."""
        field = [SpectralScaling(self.basis, self.eigenvalues.sqrt())]
        mean = [] if self.tilt is None else [Shift(gaussian.mean.expand(self.shape).clone())]
        return Start(
            latent=[SpectralScaling(gaussian.basis, gaussian.variances.sqrt())],
            field=[*field, *mean],
            variances=gaussian.variances if self.lattice.translation_invariant else None,
            metric=None if self.neighbours is None else self._couplings(),
        )

    @property
    def undecided(self) -> bool:
        """Whether the field prefers one sign of m and is so weak that states of the other count as well."""
        if self.tilt is None or not (torch.all(self.tilt >= 0) or torch.all(self.tilt <= 0)):
            return False
        best, start = self._solutions()
        return start is not best

    @property
    def neighbours(self) -> np.ndarray | None:
        """Pairs of bonded sites, shape (m, 2); None of lattices too large to list them."""
        return self.lattice.bonds if self.sites <= MAX_DENSE_SITES else None

    def _couplings(self) -> Tensor:
        """A, float64, sparse, shape (N, N)."""
        bonds, strengths = self.lattice.bonds.T, self.beta * self.lattice.strengths
        diagonal = np.broadcast_to(np.arange(self.sites), (2, self.sites))
        values = torch.from_numpy(np.concatenate([strengths, strengths, np.full(self.sites, self.offset)]))
        places = torch.from_numpy(np.concatenate([bonds, bonds[::-1], diagonal], 1))
        return torch.sparse_coo_tensor(places, values, [self.sites] * 2, device="cpu", check_invariants=True)

    def thermodynamics(self, longest: float = LONGEST) -> Thermodynamics | None:
        """The exact solution of the spins; None where there is none, or none that is known or takes no longer.

        Args:
            longest: seconds, as for `exact.thermodynamics`.
        """
        if not self._solved:
            try:
                self._solved.append(thermodynamics(self.lattice, self.beta, longest=longest))
            except NoExactSolution:
                if longest < LONGEST:
                    return None
                self._solved.append(None)
        return self._solved[0]

    def know(self, solution: Thermodynamics) -> None:
        """Take the exact solution of the spins from whoever has found it before."""
        self._solved[:] = [instance("solution", solution, Thermodynamics, "what exact.thermodynamics gives")]

    @property
    def known(self) -> Thermodynamics | None:
        """The exact solution of the spins, if it was found."""
        return self._solved[0] if self._solved else None

    def exact_free_energy(self, longest: float = LONGEST) -> tuple[float, str] | None:
        """-ln Z of the continuous representation and the exact method behind it; None as from `thermodynamics`."""
        solution = self.thermodynamics(longest)
        return None if solution is None else (self.free_energy(solution.log_z), solution.method)

    def reference(self, samples: int, *, chains: int, seed: int) -> Tensor:
        """Spins by Monte Carlo, int8, shape (chains, samples, *shape)."""
        from isingflow.monte_carlo import simulate

        states = simulate(self.lattice, self.beta, samples=samples, chains=chains, seed=seed)
        return torch.from_numpy(states.spins)

    def draw(self, field: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Spins drawn from p(s | x)."""
        return {"spins": self.sample_spins(field, generator)}

    def sweep(self, field: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Block Gibbs: s drawn from p(s | x), then a new x from p(x | s)."""
        field = self._taken("field", field)
        return self._field_of(self._spins_of(field, generator).to(field.dtype), generator)

    def reversible_sweep(self, field: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """s drawn from p(s | x), clusters of a Swendsen-Wang sweep where s is not frustrated, a new x from p(x | s)."""
        from isingflow.monte_carlo.source import random_stream

        field = self._taken("field", field)
        spins = self._spins_of(field, generator)
        if self._clusters is not None:
            seed = torch.randint(2**62, (), generator=stream(generator, field.device), device=field.device)
            states = spins.flatten(1).cpu().numpy()
            moved = self._clusters.moved(states, self.beta, random_stream(int(seed)))
            spins = torch.from_numpy(moved).view(spins.shape).to(field.device)
        return self._field_of(spins.to(field.dtype), generator)

    @cached_property
    def _clusters(self) -> Clusters | None:
        """What moves the spins; None where they are frustrated."""
        from isingflow.monte_carlo.annealing import Clusters
        from isingflow.monte_carlo.couplings import Couplings

        couplings = Couplings.of(self.lattice, self.beta)
        return None if couplings.gauge is None else Clusters(couplings)

    def energy(self, field: Tensor) -> Tensor:
        """Continuous Ising energy E(x) = x.(K + aI)^-1.x / 2 - sum ln cosh(x + beta H).

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
        field = self._taken("field", field)
        return self._energy(field, self.basis.multiply(field, 1 / self.eigenvalues))

    def force(self, field: Tensor) -> Tensor:
        """-grad E = tanh(x + beta H) - A^-1 x, shape (..., *shape)."""
        return self.energy_and_force(field)[1]

    def energy_and_force(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """Energy, shape (...), and force, shape (..., *shape), for the price of one of them."""
        field = self._taken("field", field)
        pull = self.basis.multiply(field, 1 / self.eigenvalues)
        return self._energy(field, pull), torch.tanh(self._tilted(field)) - pull

    def whiten(self, field: Tensor) -> Tensor:
        """y = A^-1/2 x, shape (..., *shape), in which E = |y|^2 / 2 - sum ln cosh((A^1/2 y)_i + beta H_i)."""
        return self.basis.multiply(self._taken("field", field), self.eigenvalues.rsqrt())

    def unwhiten(self, whitened: Tensor) -> Tensor:
        """x = A^1/2 y, shape (..., *shape); its log-determinant is `whitening_logdet`."""
        return self.basis.multiply(self._taken("whitened", whitened), self.eigenvalues.sqrt())

    def free_energy(self, log_z_ising: LogZ) -> LogZ:
        """-ln Z of the continuous representation, in nats, from ln Z_Ising (a number, tensor or Estimate).

        Example:
            >>> from isingflow.lattice import CRITICAL_BETA, square
            >>> round(HubbardStratonovich(square(16), CRITICAL_BETA).free_energy(238.6422), 3)
            -592.876
        """
        return self.form.free_energy(log_z_ising)

    def log_z_ising(self, free_energy: LogZ) -> LogZ:
        """ln Z_Ising from -ln Z of the continuous representation: the inverse of `free_energy`."""
        return self.form.log_z_ising(free_energy)

    def sample_spins(self, field: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Spins drawn from p(s | x), where p(s_i = +1 | x) = sigmoid(2 x_i + 2 beta H_i).

        Args:
            field: x, shape (..., *shape).
            generator: source of randomness on the field's device; torch's global one if not given.

        Returns:
            Spins +1 or -1, int8, shape (..., *shape).

        Raises:
            InvalidInput: an entry is NaN, or the generator on another device.
        """
        return self._spins_of(self._taken("field", field), generator)

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
        taken = self._taken("spins", spins)
        if not torch.all(taken.abs() == 1):
            raise InvalidInput("spins must be +1 or -1")
        return self._field_of(taken, generator)

    def mean_field(self) -> MeanField:
        """The Gaussian with the smallest KL divergence to the density, and its bound on -ln Z.

        Without an external field it is centred; in one, it is the best solution found of its equations.

        Example:
            >>> from isingflow.lattice import CRITICAL_BETA, square
            >>> round(HubbardStratonovich(square(16), CRITICAL_BETA).mean_field().free_energy, 2)
            -557.71
        """
        return self._solutions().best

    def _solutions(self) -> Gaussians:
        device = self.eigenvalues.device
        if device not in self._gaussians:
            known = self.basis, self.eigenvalues, self.whitening_logdet
            if self.tilt is None:
                gaussian = best_gaussian(*known)
                self._gaussians[device] = Gaussians(gaussian, gaussian)
            else:
                self._gaussians[device] = gaussians_in_field(*known, self.tilt.cpu().numpy())
        return self._gaussians[device]

    def _tilted(self, field: Tensor) -> Tensor:
        """x + beta H."""
        return field if self.tilt is None else field + self.tilt.to(field)

    def _energy(self, field: Tensor, pull: Tensor) -> Tensor:
        return (field * pull / 2 - ln_cosh(self._tilted(field))).flatten(-len(self.shape)).sum(-1)

    def _taken(self, name: str, field: Tensor) -> Tensor:
        """Fields that were handed in, as tensors of floats."""
        return fields_of(name, field, self.shape)

    def _spins_of(self, field: Tensor, generator: torch.Generator | None) -> Tensor:
        if torch.any(field.isnan()):
            raise InvalidInput("no spins can be drawn: the field has entries that are NaN")
        source = stream(generator, field.device)
        uniform = torch.rand(field.shape, dtype=field.dtype, device=field.device, generator=source)
        return (2 * (uniform < torch.sigmoid(2 * self._tilted(field))) - 1).to(torch.int8)

    def _field_of(self, spins: Tensor, generator: torch.Generator | None) -> Tensor:
        source = stream(generator, spins.device)
        noise = torch.randn(spins.shape, dtype=spins.dtype, device=spins.device, generator=source)
        return self.basis.multiply(spins, self.eigenvalues) + self.basis.multiply(noise, self.eigenvalues.sqrt())


def ln_cosh(x: Tensor) -> Tensor:
    """ln cosh x, elementwise, without overflow."""
    magnitude = x.abs()
    return magnitude + torch.log1p(torch.exp(-2 * magnitude)) - math.log(2)
