"""The one-hidden-layer potential of Zhang, E and Wang (2018): phi(x) = sum_h a_h f(w_h.x + b_h).

    grad phi = W^T (a f'(Wx + b)),    laplacian phi = sum_h a_h |w_h|^2 f''(w_h.x + b_h)

f = softplus with a bias for generic data; f = ln cosh without one where phi must be even (Z2), as for magnets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.potentials.base import Field, Potential
from isingflow.potentials.hidden import ACTIVATIONS, Layer, hidden_layer
from isingflow.symmetry import Group

DENSE_ACTIVATIONS = ("lncosh", "softplus")


class DensePotential(Potential):
    """phi(x) = sum_h a_h f(w_h.x + b_h), the same at all times.

    Args:
        shape: shape of one field; N is its number of entries.
        hidden: number of hidden units.
        activation: "lncosh" (no bias: even in x) or "softplus" (with bias).
        generator: source of the initial weights: entries of w_h uniform within +-1/sqrt(N), a_h within
            +-1/sqrt(hidden), as in the paper's implementation.

    Example:
        >>> potential = DensePotential((4, 4), hidden=8, generator=torch.Generator().manual_seed(0))
        >>> gradient, laplacian = potential.bind()(torch.zeros(2, 4, 4), 0.0)
        >>> gradient.shape, laplacian.shape
        (torch.Size([2, 4, 4]), torch.Size([2]))
    """

    def __init__(
        self, shape: tuple[int, ...], hidden: int, *, activation: str = "lncosh", generator: torch.Generator
    ) -> None:
        super().__init__()
        if activation not in DENSE_ACTIVATIONS:
            raise InvalidInput(f"activation {activation!r}: expected one of {', '.join(DENSE_ACTIVATIONS)}")
        if hidden < 1:
            raise InvalidInput(f"hidden {hidden}: expected at least 1 unit")
        self.shape = tuple(shape)
        self.activation = activation
        self.symmetry = Group(self.shape, flip=activation == "lncosh")
        sites = math.prod(shape)
        self.weight = nn.Parameter(_uniform((hidden, sites), generator) / math.sqrt(sites))
        self.amplitude = nn.Parameter(_uniform((hidden,), generator) / math.sqrt(hidden))
        if activation == "lncosh":
            self.register_buffer("bias", torch.zeros(hidden), persistent=False)
        else:
            self.bias = nn.Parameter(torch.zeros(hidden))

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x), shape (n,)."""
        return ACTIVATIONS[self.activation].value(x.flatten(1) @ self.weight.T, self.bias) @ self.amplitude

    def bind(self) -> Field:
        """Gradient and Laplacian; two matrix products of n x N x hidden."""
        gamma = self.weight.square().sum(1)
        layer = Layer(self.activation, self.compiled)

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            columns = x.flatten(1).T
            gradient, laplacian = hidden_layer(columns, self.weight, self.bias, self.amplitude, gamma, layer)
            return gradient.T.reshape(x.shape), laplacian

        return field


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=generator) - 1
