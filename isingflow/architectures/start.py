"""Where the flow of a data set starts: the maps from noise to model space that have a closed form.

- "gaussian": the best Gaussian, for any data.
- "normal": nothing; the flow starts from a standard normal, as the published ones do.
- "copula": grey levels only. Exact marginals, one histogram a pixel, and the best Gaussian of their normal scores.

A trained map belongs between the noise and these.
"""

from __future__ import annotations

import torch

from isingflow.datasets.base import Dataset
from isingflow.datasets.spaces import Pixels
from isingflow.errors import InvalidInput
from isingflow.flows import GaussianWhitening, HistogramMarginals, Logit, Transform

STARTS = ("copula", "gaussian", "normal")
BATCH = 5000


def fitted_start(dataset: Dataset, start: str, generator: torch.Generator) -> list[Transform]:
    """The closed-form maps from noise to model space, fitted to the training rows in two passes.

    Args:
        dataset: the data.
        start: one of `STARTS`.
        generator: of the jitter.

    Raises:
        InvalidInput: unknown start, or a copula of data that are not grey levels.

    Example:
        >>> from isingflow.datasets import load
        >>> maps = fitted_start(load("moons"), "gaussian", torch.Generator().manual_seed(0))
        >>> maps[0].mean.shape
        torch.Size([2])
    """
    space = check_start(dataset, start)
    if start == "normal":
        return []
    if space is None:
        return [GaussianWhitening.fit(dataset.train.batches(BATCH, generator))]
    cubes = (space.logit.inverse(x)[0] for x in dataset.train.batches(BATCH, generator))
    marginals = HistogramMarginals.fit(cubes, bins=space.levels)
    scores = (marginals.inverse(space.logit.inverse(x)[0])[0] for x in dataset.train.batches(BATCH, generator))
    return [GaussianWhitening.fit(scores), marginals, space.logit]


def blank_start(start: str, dimension: int, levels: int = 0) -> list[Transform]:
    """The same maps before anything is fitted: for a checkpoint to be loaded into.

    Args:
        start: one of `STARTS`.
        dimension: d.
        levels: number of grey levels, for a copula.

    Raises:
        InvalidInput: unknown start, or a copula without grey levels.
    """
    _check_start(start)
    if start == "normal":
        return []
    whitening = GaussianWhitening(torch.zeros(dimension), torch.eye(dimension))
    if start == "gaussian":
        return [whitening]
    if levels < 2:
        raise InvalidInput(f"{levels} grey levels: a copula needs at least 2")
    return [whitening, HistogramMarginals(torch.full((dimension, levels), 1 / levels)), Logit()]


def check_start(dataset: Dataset, start: str) -> Pixels | None:
    """The space of the grey levels that a copula needs; None for other starts.

    Raises:
        InvalidInput: unknown start, or a copula of data that are not grey levels.
    """
    _check_start(start)
    if start != "copula":
        return None
    if not isinstance(dataset.space, Pixels):
        raise InvalidInput(f"{dataset.name}: a copula of marginal histograms needs grey levels; start from gaussian")
    return dataset.space


def _check_start(start: str) -> None:
    if start not in STARTS:
        raise InvalidInput(f"start {start!r}: expected one of {', '.join(STARTS)}")
