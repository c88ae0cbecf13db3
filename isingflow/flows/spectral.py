"""Orthonormal bases of fields in which the matrices of a lattice are diagonal.

Plane waves where there is translation invariance, and a product with a matrix is two FFTs; else any basis, as a matrix.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import instance, lengths

UNIT = 1e-3
"""How far the length of a basis vector may be from one."""


class SpectralBasis(nn.Module):
    """An orthonormal basis of fields, in which a symmetric matrix is its eigenvalues.

    Attributes:
        shape: shape of the fields.
        values_shape: shape of eigenvalues, one entry per basis vector.
    """

    shape: tuple[int, ...]
    values_shape: tuple[int, ...]

    def multiply(self, field: Tensor, values: Tensor) -> Tensor:
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
    """Plane waves on a torus of any dimension: the basis of every translation-invariant matrix.

    Values have the fields' shape, are indexed by momentum in fftn order and must be even, value[k] = value[-k].

    Example:
        >>> FourierBasis((4, 4)).multiply(torch.ones(4, 4), torch.full((4, 4), 2.0))[0]
        tensor([2., 2., 2., 2.])
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = self.values_shape = lengths("shape", shape)
        self._axes = tuple(range(-len(self.shape), 0))

    def multiply(self, field: Tensor, values: Tensor) -> Tensor:
        if not field.numel():  # of which there is no FFT
            return field
        half = values[..., : self.shape[-1] // 2 + 1].to(field)
        return torch.fft.irfftn(torch.fft.rfftn(field, dim=self._axes) * half, s=self.shape, dim=self._axes)

    def power(self, field: Tensor) -> Tensor:
        if not field.numel():
            return field
        return torch.fft.fftn(field, dim=self._axes, norm="ortho").abs().square()


class EigenBasis(SpectralBasis):
    """Any orthonormal basis, given as the columns of an (N, N) matrix; values have shape (..., N).

    With `persistent`, the matrix is part of the state, so that another can be loaded.
    """

    vectors: Tensor

    def __init__(self, shape: tuple[int, ...], vectors: Tensor, *, persistent: bool = False) -> None:
        super().__init__()
        self.shape = lengths("shape", shape)
        self.values_shape = (math.prod(self.shape),)
        instance("vectors", vectors, Tensor, "an orthonormal matrix")
        sites = math.prod(self.shape)
        if vectors.shape != (sites, sites) or not bool(((vectors.norm(dim=0) - 1).abs() < UNIT).all()):
            raise InvalidInput(f"vectors: expected an orthonormal matrix of shape {(sites, sites)}")
        self.register_buffer("vectors", vectors, persistent=persistent)

    def multiply(self, field: Tensor, values: Tensor) -> Tensor:
        vectors = self.vectors.to(field)
        coefficients = field.flatten(-len(self.shape)) @ vectors * values.to(field)
        return (coefficients @ vectors.T).unflatten(-1, self.shape)

    def power(self, field: Tensor) -> Tensor:
        return (field.flatten(-len(self.shape)) @ self.vectors.to(field)).square()
