"""Resampling of weighted paths, or sequential Monte Carlo (Del Moral, Doucet and Jasra 2006).

Paths come in islands that know nothing of each other. Where the effective sample size of the weights W of an island of
m paths falls below m / 2, each path goes on as about m W_i / sum W copies, and all of them weigh the mean of W. The
counts are whole numbers of these expectations (systematic resampling: one uniform number for an island), so that the
mean weight of an island estimates Z without bias, however often it was resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SHARE = 0.5
"""Effective sample size of an island, relative to its paths, below which it is resampled."""


@dataclass(frozen=True, eq=False)
class Lineage:
    """Where the paths of islands come from.

    Attributes:
        ancestors: of every path, the index of the one that it began as, shape (n,).
        times: how often each island was resampled, shape (islands,).
    """

    ancestors: Tensor
    times: Tensor

    @classmethod
    def of(cls, paths: int, islands: int, device: torch.device) -> Lineage:
        """Of paths that were never resampled."""
        return cls(torch.arange(paths, device=device), torch.zeros(islands, dtype=torch.int64, device=device))

    @property
    def survivors(self) -> int:
        """Distinct ancestors."""
        return len(self.ancestors.unique())


def resampled(log_weight: Tensor, lineage: Lineage, generator: torch.Generator) -> tuple[Tensor, Tensor, Lineage]:
    """Resample the islands that need it. No random number is drawn where none does.

    Args:
        log_weight: ln W, float64, shape (n,), the paths of an island one after the other.
        lineage: of the paths so far.
        generator: on their device.

    Returns:
        ln W of the paths that go on, the indices of those that they go on from, shape (n,) both, and their lineage.

    Example:
        >>> log_weight, generator = torch.tensor([0.0, 0.0, 5.0, -5.0]).double(), torch.Generator()
        >>> found = resampled(log_weight, Lineage.of(4, 2, log_weight.device), generator)
        >>> found[1], found[2].times
        (tensor([0, 1, 2, 3]), tensor([0, 0]))
        >>> resampled(log_weight, Lineage.of(4, 1, log_weight.device), generator)[1]
        tensor([2, 2, 2, 2])
    """
    logs = log_weight.view(len(lineage.times), -1)
    largest = logs.amax(1, keepdim=True)
    weights = (logs - largest).exp()
    # Of an island without any weight this is NaN, and it stays as it is.
    share = weights.sum(1).square() / weights.square().sum(1) / logs.shape[1]
    light = (share < LEAST_SHARE).nonzero()[:, 0]
    rows = torch.arange(len(log_weight), device=log_weight.device).view_as(logs)
    if len(light) == 0:
        return log_weight, rows.flatten(), lineage
    uniform = torch.rand(len(light), dtype=logs.dtype, device=logs.device, generator=generator)
    rows[light] = rows[light].gather(1, systematic(weights[light], uniform))
    means = largest + weights.mean(1, keepdim=True).log()
    logs = logs.index_copy(0, light, means[light].expand(-1, logs.shape[1]))
    times = lineage.times.index_add(0, light, torch.ones_like(light))
    return logs.flatten(), rows.flatten(), Lineage(lineage.ancestors[rows.flatten()], times)


def systematic(weights: Tensor, uniform: Tensor) -> Tensor:
    """Indices of m copies in all, drawn from each set of m weights: places (u + i) / m in their cumulative sum.

    Args:
        weights: relative ones, none negative and not all zero, shape (sets, m).
        uniform: u of every set, in [0, 1), shape (sets,).

    Returns:
        Ascending indices, shape (sets, m). Index i comes m w_i / sum w times, rounded up or down: so often on average.

    Example:
        >>> systematic(torch.tensor([[1.0, 0.0, 2.0, 1.0]]), torch.tensor([0.5]))
        tensor([[0, 2, 2, 3]])
    """
    sums = weights.cumsum(1)
    steps = torch.arange(weights.shape[1], dtype=weights.dtype, device=weights.device)
    places = (steps + uniform[:, None]) / weights.shape[1] * sums[:, -1:]
    # Rounding must not reach a weight of zero behind the last one.
    last = torch.searchsorted(sums, sums[:, -1:].contiguous())
    return torch.searchsorted(sums, places, right=True).minimum(last)
