"""OT-Flow's residual network made exactly symmetric under all translations, the point group and Z2.

    phi(x, t) = sum_orientations sum_sites F(u; t) + (1/2) sum_k q(k, t) |x_k|^2,    u_c = w_c * x

with the symmetric kernels w_c of `kernels` and the residual network F of `residual` on each site's features. It opens
with [s(V u + b) + s(V u - b)] / 2, b = b_0 + t b_1, which is even in u for every b: so is all that follows, and Z2
holds without a second pass. The Laplacian needs the Gram matrix of the kernels, features x features, and its cost is
linear in the number of sites. w and q start at zero: the flow starts as the identity.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, TimedField, chebyshev, chebyshev_slopes, untimed
from isingflow.potentials.kernels import ConvolutionalPotential
from isingflow.potentials.layers.convolutional import convolutional_layer, half_spectrum
from isingflow.potentials.layers.residual import EvenOpening, ResidualLayers, gram_root
from isingflow.potentials.resnet import uniform
from isingflow.runtime.checks import count
from isingflow.runtime.fields import usual_defaults

LAYERS = ResidualLayers(EvenOpening)


class LatticeResidualPotential(ConvolutionalPotential):
    """The translation-, point- and Z2-symmetric potential above on a torus of any dimension.

    Args:
        symmetry: the symmetry to have: a group with all translations, inversion and Z2.
        radial: number of kernels that have the full point symmetry.
        oriented: number of kernels that have only the symmetry of a bond, per direction.
        width: width of the network.
        layers: number of its layers, with the opening one.
        time_terms: number of Chebyshev polynomials in time of q.
        variances: as in `kernels.ConvolutionalPotential`.
        generator: source of the initial kernels and weights.

    Raises:
        InvalidInput: a count is out of range.
        SymmetryMismatch: the group lacks what this potential has by construction.

    Example:
        >>> from isingflow.lattice.symmetry import square_torus_group
        >>> group = square_torus_group(4, 4)
        >>> generator = torch.Generator().manual_seed(0)
        >>> potential = LatticeResidualPotential(group, radial=2, width=3, generator=generator)
        >>> gradient, laplacian = potential.bind()(torch.ones(2, 4, 4), 0.5)
        >>> gradient.shape, laplacian.shape
        (torch.Size([2, 4, 4]), torch.Size([2]))
    """

    @usual_defaults()
    def __init__(
        self,
        symmetry: Group,
        *,
        radial: int,
        oriented: int = 0,
        width: int,
        layers: int = 2,
        time_terms: int = 3,
        variances: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        width, layers = count("width", width), count("layers", layers)
        time_terms = count("time_terms", time_terms)
        super().__init__(symmetry, radial, oriented, variances, generator)
        features = radial + oriented
        self.opening = nn.Parameter(torch.randn(width, features, generator=generator) / math.sqrt(features))
        self.opening_bias = nn.Parameter(torch.randn(width, generator=generator))
        self.clock = nn.Parameter(torch.randn(width, generator=generator))
        self.kernels = nn.Parameter(uniform((layers - 1, width, width), width, generator))
        self.biases = nn.Parameter(uniform((layers - 1, width), width, generator))
        self.weight = nn.Parameter(torch.zeros(width))
        self.quadratic = nn.Parameter(torch.zeros(time_terms, self.momentum_classes))

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,)."""
        momenta = half_spectrum(x, len(self.shape))
        features = self.features(momenta)
        network = LAYERS.value(features.flatten(1), self._at(t, self.opening)).view(features.shape[1:])
        return network.sum((0, 2)) + self.quadratic_value(self._basis(t, x), momenta)

    def _bind(self) -> Field:
        """Gradient and Laplacian; two FFTs per kernel, orientation and sample, and the network once per site."""
        return untimed(self._bound(with_rate=False))

    def _bind_timed(self) -> TimedField:
        """Gradient, Laplacian and derivative by time, for one FFT more."""
        return self._bound(with_rate=True)

    def _bound(self, with_rate: bool) -> TimedField:
        spectra = self.spectra()
        weights = (self.conjugates / math.prod(self.shape)).sqrt()
        root = self.opening @ gram_root((spectra[:, 0] * weights).flatten(1))
        # A Runge-Kutta method asks for the same times more than once.
        at = lru_cache(lambda t: (self.quadratic_spectrum(self._basis(t, root)), self._at(t, root)))

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
            quadratic, parameters = at(t)
            gradient, laplacian, rate = convolutional_layer(LAYERS, x, spectra, quadratic, *parameters)
            if with_rate:
                slopes = chebyshev_slopes(t, len(self.quadratic), root)
                rate = rate + self.quadratic_value(slopes, half_spectrum(x, len(self.shape)))
            return gradient, laplacian, rate

        return field

    def _basis(self, t: float, like: Tensor) -> Tensor:
        return chebyshev(t, len(self.quadratic), like)

    def _at(self, t: float, root: Tensor) -> tuple[Tensor, ...]:
        """Parameters of the network at time t, in the order of `ResidualLayers`."""
        bias = self.opening_bias + t * self.clock
        return self.opening, bias, self.clock, self.kernels, self.biases, self.weight, root
