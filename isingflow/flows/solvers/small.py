"""Symmetric positive matrices of one to three rows, by formula: batches of them cost a few elementwise operations."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 3
"""Rows of a matrix that counts as small."""


def minors(matrices: Tensor) -> Tensor:
    """Leading principal minors, the last one the determinant; all positive where the matrix is positive definite.

    Args:
        matrices: symmetric, shape (..., d, d), d from 1 to 3.

    Returns:
        Shape (..., d).

    Example:
        >>> minors(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
        tensor([2., 5.])
    """
    rows = [row.unbind(-1) for row in matrices.unbind(-2)]
    found = [rows[0][0]]
    if len(rows) > 1:
        found.append(rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0])
    if len(rows) > 2:
        first = rows[1][0] * rows[2][1] - rows[1][1] * rows[2][0]
        second = rows[0][0] * rows[2][1] - rows[0][1] * rows[2][0]
        found.append(rows[0][2] * first - rows[1][2] * second + rows[2][2] * found[1])
    return torch.stack(found, -1)


def solve(matrices: Tensor, right: Tensor) -> Tensor:
    """A^-1 r by Cramer's rule.

    Args:
        matrices: A, symmetric, shape (..., d, d), d from 1 to 3.
        right: r, shape (..., d).

    Example:
        >>> solve(torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([3.0, 4.0]))
        tensor([1., 1.])
    """
    if matrices.shape[-1] == 1:
        return right / matrices[..., 0]
    if matrices.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
        x, y = right.unbind(-1)
        return torch.stack([d * x - b * y, a * y - c * x], -1) / (a * d - b * c)[..., None]
    first, second, third = matrices.unbind(-2)
    columns = [
        torch.linalg.cross(second, third),
        torch.linalg.cross(third, first),
        torch.linalg.cross(first, second),
    ]
    determinant = (first * columns[0]).sum(-1, keepdim=True)
    scaled = [column * entry for column, entry in zip(columns, right[..., None, :].unbind(-1), strict=True)]
    return (scaled[0] + scaled[1] + scaled[2]) / determinant
