"""Mean and covariance of rows that arrive in batches, so that they need not fit in memory.

Batches are merged by the update of Chan, Golub and LeVeque (1983): sums of squares are taken about the mean of each
batch, in float64, and never about zero, where a large mean would cancel all digits of a small variance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from isingflow.errors import InvalidInput, WrongType
from isingflow.runtime.checks import instance, shown


@dataclass(frozen=True)
class Moments:
    """What `moments` found.

    Attributes:
        count: number of rows.
        mean: float64, shape (d,).
        covariance: float64, shape (d, d), of denominator count: the maximum of the likelihood.
    """

    count: int
    mean: Tensor
    covariance: Tensor


def moments(batches: Iterable[Tensor]) -> Moments:
    """The moments of all rows of all batches, each of shape (n, d).

    Raises:
        InvalidInput: there are no rows, some entries are not finite, or rows differ in length; WrongType: no tensors.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0]])
        >>> found = moments(rows.split(2))
        >>> found.mean, found.covariance[0]
        (tensor([2., 3.], dtype=torch.float64), tensor([2.6667, 1.3333], dtype=torch.float64))
    """
    count = 0
    mean: Tensor | None = None
    squares: Tensor | None = None
    if isinstance(batches, Tensor):
        raise WrongType(f"batches is {shown(batches)}, expected an iterable of tensors of shape (n, d)")
    for batch in instance("batches", batches, Iterable, "an iterable of tensors"):
        instance("a batch", batch, Tensor, "a tensor of shape (n, d)")
        if batch.ndim != 2 or batch.is_complex() or batch.shape[1] != (batch.shape[1] if mean is None else len(mean)):
            wanted = "(n, d)" if mean is None else f"(n, {len(mean)})"
            raise InvalidInput(f"a batch is {shown(batch)}, expected real numbers of shape {wanted}")
        rows = batch.double()
        n = len(rows)
        if n == 0:
            continue
        if mean is None or squares is None:
            mean = rows.new_zeros(rows.shape[1])
            squares = rows.new_zeros(rows.shape[1], rows.shape[1])
        centre = rows.mean(0)
        deviations = rows - centre
        shift = centre - mean
        total = count + n
        squares.addmm_(deviations.T, deviations).addr_(shift, shift, alpha=count * n / total)
        mean += shift * (n / total)
        count = total
    if mean is None or squares is None:
        raise InvalidInput("no rows to take moments of")
    if not squares.isfinite().all():
        raise InvalidInput("moments of rows that are not all finite")
    return Moments(count, mean, squares / count)
