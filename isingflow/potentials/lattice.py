"""A potential that is exactly symmetric under all translations and the point group, for the cost of convolutions.

The sum of a hidden layer over all translations is a circular convolution. With the kernels w_c of `kernels`,

    u_c = w_c * x,    phi(x, t) = sum_orientations sum_sites h(u; t) + (1/2) sum_k q(k, t) |x_k|^2,
    h(u; t) = sum_m a_m(t) f(v_m.u; b_m),

    grad phi      = sum_c w_c * (dh/du_c) + q * x
    laplacian phi = sum_sites sum_m a_m f''(v_m.u) v_m.G.v_m + sum_k q(k, t),    G_cd = <w_c, w_d>.

a(t) and q(k, t) are Chebyshev series in time and start at zero: the flow starts as the identity. Where the symmetry has
Z2, f is even in u, the algebraic soft |s|; else, as in an external field, it is softplus.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import Group
from isingflow.potentials.base import Field, chebyshev
from isingflow.potentials.kernels import ConvolutionalPotential
from isingflow.potentials.layers.convolutional import convolutional_layer, half_spectrum
from isingflow.potentials.layers.hidden import ACTIVATIONS, Layer
from isingflow.runtime.checks import count
from isingflow.runtime.fields import usual_defaults

EVEN, UNEVEN = "even-root", "softplus"


class LatticePotential(ConvolutionalPotential):
    """The potential above on a torus of any dimension, with Z2 where the symmetry has it.

    Args:
        symmetry: the symmetry to have: a group with all translations and inversion.
        radial: number of kernels that have the full point symmetry.
        oriented: number of kernels that have only the symmetry of a bond, per direction.
        hidden: number of hidden units.
        time_terms: number of Chebyshev polynomials in time.
        variances: variance of x by momentum when the flow starts, of a field's shape: kernels are scaled so that
            features start of order one. Ones if not given.
        generator: source of the initial kernels and weights.

    Raises:
        InvalidInput: a count is out of range.
        SymmetryMismatch: the group lacks what this potential has by construction.

    Example:
        >>> from isingflow.lattice.symmetry import square_torus_group
        >>> group = square_torus_group(4, 4)
        >>> potential = LatticePotential(group, radial=2, hidden=3, generator=torch.Generator().manual_seed(0))
        >>> gradient, laplacian = potential.bind()(torch.ones(2, 4, 4), 0.5)
        >>> gradient.shape, laplacian.shape
        (torch.Size([2, 4, 4]), torch.Size([2]))
    """

    even = False

    @usual_defaults()
    def __init__(
        self,
        symmetry: Group,
        *,
        radial: int,
        oriented: int = 0,
        hidden: int,
        time_terms: int = 3,
        variances: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        hidden, time_terms = count("hidden", hidden), count("time_terms", time_terms)
        super().__init__(symmetry, radial, oriented, variances, generator)
        features = radial + oriented
        self.activation = EVEN if symmetry.flip else UNEVEN
        self.weight = nn.Parameter(torch.randn(hidden, features, generator=generator) / math.sqrt(features))
        self.bias = nn.Parameter(torch.randn(hidden, generator=generator))
        self.amplitude = nn.Parameter(torch.zeros(hidden, time_terms))
        self.quadratic = nn.Parameter(torch.zeros(time_terms, self.momentum_classes))

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,)."""
        momenta = half_spectrum(x, len(self.shape))
        basis = self._basis(t, x)
        p = torch.einsum("mc,cons->mons", self.weight, self.features(momenta))
        hidden = ACTIVATIONS[self.activation].value(p, self.bias[:, None, None, None])
        return torch.einsum("m,mons->n", self.amplitude @ basis, hidden) + self.quadratic_value(basis, momenta)

    def _bind(self) -> Field:
        """Gradient and Laplacian; two FFTs per kernel, orientation and sample, two small matrix products per site."""
        spectra = self.spectra()
        weighted = spectra[:, 0] * self.conjugates
        gram = weighted.flatten(1) @ spectra[:, 0].flatten(1).T / math.prod(self.shape)
        gamma = ((self.weight @ gram) * self.weight).sum(1)
        layer = Layer(self.activation, self.compiled)
        # A Runge-Kutta method asks for the same times more than once.
        coefficients = lru_cache(lambda t: self._at(t, gamma))

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            amplitude, quadratic = coefficients(t)
            parameters = self.weight, self.bias, amplitude, gamma
            gradient, laplacian = convolutional_layer(layer, x, spectra, quadratic, *parameters)
            return gradient, laplacian

        return field

    def _at(self, t: float, like: Tensor) -> tuple[Tensor, Tensor]:
        """a_m(t), shape (hidden,), and q(k, t), of the shape of a half spectrum."""
        basis = self._basis(t, like)
        return self.amplitude @ basis, self.quadratic_spectrum(basis)

    def _basis(self, t: float, like: Tensor) -> Tensor:
        return chebyshev(t, self.amplitude.shape[1], like)
