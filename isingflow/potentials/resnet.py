"""OT-Flow's potential (Onken, Wu Fung, Li and Ruthotto 2021): a residual network and a quadratic form of s = (x, t).

    Phi(s) = w.N(s) + s.A^T A.s / 2 + b.s,    N a residual network, see `residual`

Our flows move along + grad phi and OT-Flow's along - grad Phi, so phi = -Phi here. Value, gradient, derivative by time
and Laplacian are in closed form; the Laplacian needs the Gram matrix of the opening kernel's rows, once per set of
parameters, and no Jacobian in the dimension of x. (OT-Flow's constant c moves nothing and is left out.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isingflow.lattice.symmetry import trivial_group
from isingflow.potentials.base import Field, Potential, Tables, TimedField, untimed
from isingflow.potentials.layers.residual import ResidualLayers, gram_root, residual_network
from isingflow.runtime.checks import count, lengths
from isingflow.runtime.fields import numbers, source, usual_defaults

OPENING_START = 3.0
"""First entries of the opening layer, in units of OT-Flow's: features that start sharper than the data learn faster."""
QUADRATIC_START = 0.1
"""Size of the first A^T A, in units of the identity's, over the space that it covers."""
REACH = 2.0
"""Distance from the origin within which units given by their directions bend: where whitened data are."""


class ResidualPotential(Potential):
    """phi(x, t) = -Phi(x, t) as above.

    Args:
        shape: shape of one field; d is its number of entries.
        width: width of the network.
        layers: number of its layers, with the opening one.
        rank: number of rows of A; more than d + 1 add nothing.
        directions: initial opening kernel without its column of time, shape (width, d), in place of uniform entries.
            The planes in which its units bend then lie within `REACH` of the origin.
        generator: source of the initial weights: entries of each kernel and bias uniform within +-1/sqrt(its inputs),
            as in OT-Flow's code, but those of the opening layer larger by `OPENING_START`, w zero instead of one and A
            small: the flow starts near the identity.

    Raises:
        InvalidInput: a count is out of range, or the directions are of another shape.

    Example:
        >>> potential = ResidualPotential((3,), width=8, generator=torch.Generator().manual_seed(0))
        >>> gradient, laplacian, rate = potential.bind_timed()(torch.zeros(2, 3), 0.5)
        >>> gradient.shape, laplacian.shape, rate.shape
        (torch.Size([2, 3]), torch.Size([2]), torch.Size([2]))
    """

    opening_parameters = ("opening", "opening_bias")

    @usual_defaults()
    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 64,
        layers: int = 2,
        rank: int = 10,
        directions: Tensor | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width, layers, rank = count("width", width), count("layers", layers), count("rank", rank)
        generator = source(generator)
        self.shape = lengths("shape", shape)
        self.symmetry = trivial_group(self.shape)
        inputs = math.prod(self.shape) + 1
        rank = min(rank, inputs)
        opening, bias = uniform((width, inputs), inputs, generator), uniform((width,), inputs, generator)
        if directions is None:
            opening, bias = OPENING_START * opening, OPENING_START * bias
        else:
            given = numbers("directions", directions, (width, inputs - 1)).float()
            opening = torch.cat([given, opening[:, -1:]], 1)
            bias = bias * math.sqrt(inputs) * REACH * opening[:, :-1].norm(dim=1)
        self.opening = nn.Parameter(opening)
        self.opening_bias = nn.Parameter(bias)
        self.kernels = nn.Parameter(uniform((layers - 1, width, width), width, generator))
        self.biases = nn.Parameter(uniform((layers - 1, width), width, generator))
        self.weight = nn.Parameter(torch.zeros(width))
        self.quadratic = nn.Parameter(
            torch.randn(rank, inputs, generator=generator) * (QUADRATIC_START / inputs) ** 0.5
        )
        self.linear = nn.Parameter(torch.zeros(inputs))

    def value(self, x: Tensor, t: float) -> Tensor:
        """phi(x, t), shape (n,)."""
        columns = x.flatten(1).T
        network = ResidualLayers().value(columns, self._at(t, self.opening[:, :-1]))
        rotated = self.quadratic[:, :-1] @ columns + t * self.quadratic[:, -1:]
        return network - rotated.square().sum(0) / 2 - self.linear[:-1] @ columns - t * self.linear[-1]

    def _bind(self) -> Field:
        """Gradient and Laplacian; products of n x d x (width + rank) and of n x width x width x min(width, d)."""
        return untimed(self._bind_timed())

    def _bind_timed(self) -> TimedField:
        """Gradient, Laplacian and derivative by time."""
        layers, root = ResidualLayers(), gram_root(self.opening[:, :-1])
        space, time = self.quadratic[:, :-1], self.quadratic[:, -1]
        trace = space.square().sum()

        def field(x: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
            columns = x.flatten(1).T
            gradient, laplacian, rate = residual_network(layers, columns, *self._at(t, root))
            rotated = torch.addmm(t * time[:, None], space, columns)
            gradient = torch.addmm(gradient - self.linear[:-1, None], space.T, rotated, alpha=-1)
            return gradient.T.reshape(x.shape), laplacian - trace, rate - time @ rotated - self.linear[-1]

        return field

    def tabulated(self, times: Sequence[float]) -> Tables | None:
        """As in `Tables`, if the opening layer is the only one."""
        if len(self.kernels):
            return None
        t = self.opening.new_tensor(times)[:, None]
        v, clock = self.opening[:, :-1], self.opening[:, -1]
        space, time = self.quadratic[:, :-1], self.quadratic[:, -1]
        drift = -(time @ space)
        # Parameters of no layers hold no numbers, but whoever asks for all gradients asks for theirs.
        none = self.kernels.sum() + self.biases.sum()
        return Tables(
            v,
            self.opening_bias + t * clock,
            -self.weight.expand(len(times), -1),
            v.square().sum(1),
            -(space.T @ space),
            t * drift - self.linear[:-1],
            -(self.weight * clock).expand(len(times), -1),
            drift.expand(len(times), -1),
            -t[:, 0] * time.square().sum() - self.linear[-1] + none,
        )

    def _at(self, t: float, root: Tensor) -> tuple[Tensor, ...]:
        """Of the network at time t, in the order of `ResidualLayers`."""
        clock = self.opening[:, -1]
        bias = self.opening_bias + t * clock
        return self.opening[:, :-1], bias, clock, self.kernels, self.biases, -self.weight, root


def uniform(shape: tuple[int, ...], inputs: int, generator: torch.Generator) -> Tensor:
    """Entries uniform within +-1/sqrt(inputs)."""
    return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(inputs)
