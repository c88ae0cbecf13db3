"""Fixed affine maps: shifts, and spectral scaling and whitening, diagonal in a known basis, O(N log N) on a torus."""

from __future__ import annotations

import torch
from torch import Tensor

from isingflow.errors import InvalidInput
from isingflow.flows.base import Transform
from isingflow.flows.spectral import SpectralBasis
from isingflow.runtime.checks import instance
from isingflow.runtime.fields import numbers


class SpectralScaling(Transform):
    """x = B z with B symmetric and positive, given by its eigenvalues in an orthonormal basis.

    Args:
        basis: in which B is diagonal.
        scale: eigenvalues of B, float64, in the basis' layout.
        persistent: whether the eigenvalues are part of the state, so that others can be loaded; ln det B follows them.

    Example:
        >>> from isingflow.flows.spectral import FourierBasis
        >>> double = SpectralScaling(FourierBasis((4, 4)), torch.full((4, 4), 2.0))
        >>> x, logdet = double(torch.ones(1, 4, 4))
        >>> x[0, 0], logdet
        (tensor([2., 2., 2., 2.]), tensor([11.0904], dtype=torch.float64))
    """

    scale: Tensor

    def __init__(self, basis: SpectralBasis, scale: Tensor, *, persistent: bool = False) -> None:
        super().__init__()
        self.basis = instance("basis", basis, SpectralBasis, "a SpectralBasis")
        positive = numbers("scale", scale, basis.values_shape)
        if not bool((positive > 0).all()):
            raise InvalidInput("scale: expected positive eigenvalues")
        self.register_buffer("scale", scale if isinstance(scale, Tensor) else positive, persistent=persistent)
        self._measure()
        self.register_load_state_dict_post_hook(SpectralScaling._measure)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """B z and ln det B."""
        return self.basis.multiply(z, self.scale), z.new_full((len(z),), self.logdet, dtype=torch.float64)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """B^-1 x and -ln det B."""
        return self.basis.multiply(x, 1 / self.scale), x.new_full((len(x),), -self.logdet, dtype=torch.float64)

    def _measure(self, *_: object) -> None:
        """ln det B, once for every scale."""
        self.logdet = float(self.basis.logdet(self.scale.double()))


class Shift(Transform):
    """x = z + mean.

    Args:
        mean: of the shape of a field, float64.
        persistent: whether it is part of the state, so that another can be loaded.

    Example:
        >>> x, logdet = Shift(torch.ones(2, 2))(torch.zeros(1, 2, 2))
        >>> x[0, 0], logdet
        (tensor([1., 1.]), tensor([0.], dtype=torch.float64))
    """

    mean: Tensor

    def __init__(self, mean: Tensor, *, persistent: bool = False) -> None:
        super().__init__()
        numbers("mean", instance("mean", mean, Tensor, "a tensor of the shape of a field"), mean.shape)
        self.register_buffer("mean", mean, persistent=persistent)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z + mean and 0."""
        return z + self.mean.to(z), z.new_zeros(len(z), dtype=torch.float64)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x - mean and 0."""
        return x - self.mean.to(x), x.new_zeros(len(x), dtype=torch.float64)
