"""Where a flow starts: the maps that have a closed form, fitted to data or given by a target.

Of data, the maps from the trained ones to model space:

- "gaussian": the best Gaussian, for any data.
- "normal": nothing; the flow starts from a standard normal, as the published ones do.
- "tails": tables. A power of every column, and an ellipse that is stretched along its radii: see `flows.tails`.
- "copula": grey levels only. Exact marginals, one histogram a pixel, and the best Gaussian of their normal scores.

Of a target, what its `start` gives. A run folder holds a description of these maps and, in its checkpoint, their
tensors: nothing in it is ever imported or executed, so only the maps listed here can be made without the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

import torch

from isingflow.datasets.base import Dataset
from isingflow.datasets.spaces import Pixels
from isingflow.errors import InvalidInput
from isingflow.flows import Flow, GaussianWhitening, HistogramMarginals, Logit, Shift, SpectralScaling, Transform
from isingflow.flows.spectral import EigenBasis, FourierBasis, SpectralBasis
from isingflow.flows.tails import HeavyTails, Powers, blank_tails, fit_tails
from isingflow.runtime.fields import usual_defaults
from isingflow.runtime.files import listed
from isingflow.runtime.resources import require_memory

StartOfData = Literal["copula", "gaussian", "tails", "normal"]
STARTS: tuple[StartOfData, ...] = get_args(StartOfData)
BATCH = 5000
PLANE = 2
FITTED_ROWS = 2**15
"""Training rows that powers and tails are fitted to, at most."""


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
    if start == "tails":
        return list(fit_tails(next(dataset.train.batches(FITTED_ROWS, generator))))
    if space is None:
        return [GaussianWhitening.fit(dataset.train.batches(BATCH, generator))]
    cubes = (space.logit.inverse(x)[0] for x in dataset.train.batches(BATCH, generator))
    marginals = HistogramMarginals.fit(cubes, bins=space.levels)
    scores = (marginals.inverse(space.logit.inverse(x)[0])[0] for x in dataset.train.batches(BATCH, generator))
    return [GaussianWhitening.fit(scores), marginals, space.logit]


@usual_defaults()
def best_start(dataset: Dataset) -> StartOfData:
    """What a flow of these data starts from if nothing is said: a copula for grey levels, else what suits them better.

    Of a Gaussian and of powers with tails it is the one, fitted to training rows, under which validation rows are
    likelier. Up to two columns it is a Gaussian: toys have shapes, not tails.
    """
    if dataset.space.discrete:
        return "copula"
    if dataset.dimension <= PLANE or dataset.dependent:
        return "gaussian"
    generator = torch.Generator().manual_seed(0)
    rows, held = (next(part.batches(FITTED_ROWS, generator)) for part in (dataset.train, dataset.validation))
    shape = (dataset.dimension,)
    gaussian, tails = Flow(shape, [GaussianWhitening.fit([rows])]), Flow(shape, fit_tails(rows))
    return "tails" if tails.log_prob(held).mean() > gaussian.log_prob(held).mean() else "gaussian"


@usual_defaults()
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
    require_memory(
        f"a Gaussian in {dimension} dimensions", 4.0 * dimension * (dimension + levels), "fewer dimensions may fit"
    )
    whitening = GaussianWhitening(torch.zeros(dimension), torch.eye(dimension))
    if start == "gaussian":
        return [whitening]
    if start == "tails":
        return list(blank_tails(dimension))
    if levels < 2:
        raise InvalidInput(f"{levels} grey levels: a copula needs at least 2")
    return [whitening, HistogramMarginals(torch.full((dimension, levels), 1 / levels)), Logit()]


def check_start(dataset: Dataset, start: str) -> Pixels | None:
    """The space of the grey levels that a copula needs; None for other starts.

    Raises:
        InvalidInput: unknown start, a copula of data that are not grey levels, or a Gaussian of columns that follow
            from others.
    """
    _check_start(start)
    if start != "normal" and len(dataset.train) <= dataset.dimension:
        raise InvalidInput(
            f"{dataset.name}: {len(dataset.train)} training rows of {dataset.dimension} columns: what a flow starts "
            "from needs more rows than columns; leave columns out, or start from normal"
        )
    if start in ("gaussian", "tails") and dataset.dependent:
        raise InvalidInput(
            f"{dataset.name}: no Gaussian fits columns that follow from one another: {listed(dataset.dependent)}; "
            "leave some of them out, or start from normal"
        )
    if start != "copula":
        return None
    if not isinstance(dataset.space, Pixels):
        raise InvalidInput(f"{dataset.name}: a copula of marginal histograms needs grey levels; start from gaussian")
    return dataset.space


def _check_start(start: str) -> None:
    if start not in STARTS:
        raise InvalidInput(f"start {start!r}: expected one of {', '.join(STARTS)}")


@usual_defaults()
def fitted_part(flow: Flow) -> Flow:
    """The flow of data without what is trained: where its training started."""
    fitted = (GaussianWhitening, HistogramMarginals, Logit, HeavyTails, Powers)
    return Flow(flow.shape, [transform for transform in flow.transforms if isinstance(transform, fitted)]).to(
        flow.device
    )


def describe(transforms: Iterable[Transform]) -> list[dict[str, str]]:
    """The maps of a target's start in words, from which `blank` makes them; of an unknown map, the name of its class.

    Example:
        >>> describe([SpectralScaling(FourierBasis((4, 4)), torch.ones(4, 4))])
        [{'map': 'spectral-scaling', 'basis': 'fourier'}]
    """
    return [_described(transform) for transform in transforms]


@usual_defaults()
def blank(descriptions: Iterable[Mapping[str, str]], shape: Sequence[int]) -> list[Transform]:
    """The maps that `describe` described, as identities: for a checkpoint to be loaded into.

    Args:
        descriptions: of the maps.
        shape: of a field.

    Raises:
        InvalidInput: a map that only the target knows.
    """
    return [_blank(dict(description), tuple(shape)) for description in descriptions]


def kept(transforms: Iterable[Transform]) -> list[Transform]:
    """The same maps with all their tensors in their state: for a checkpoint that is to be loaded without the target."""
    return [_kept(transform) for transform in transforms]


def _described(transform: Transform) -> dict[str, str]:
    if type(transform) is SpectralScaling and type(transform.basis) in _BASES:
        return {"map": "spectral-scaling", "basis": _BASES[type(transform.basis)]}
    if type(transform) is GaussianWhitening:
        return {"map": "gaussian-whitening"}
    if type(transform) is Shift:
        return {"map": "shift"}
    return {"map": type(transform).__name__}


def _blank(description: dict[str, str], shape: tuple[int, ...]) -> Transform:
    for known, make in _BLANK:
        if description == known:
            return make(shape)
    raise InvalidInput(
        f"the flow starts with a {description.get('map')}, which only its target knows: hand the target, "
        "isingflow.load(run, target=...)"
    )


def _kept(transform: Transform) -> Transform:
    if type(transform) is Shift:
        return Shift(transform.mean, persistent=True)
    if type(transform) is not SpectralScaling:
        return transform
    basis = transform.basis
    if type(basis) is EigenBasis:
        basis = EigenBasis(basis.shape, basis.vectors, persistent=True)
    return SpectralScaling(basis, transform.scale, persistent=True)


def _blank_scaling(basis: SpectralBasis) -> Transform:
    return SpectralScaling(basis, torch.ones(basis.values_shape, dtype=torch.float64), persistent=True)


def _blank_eigen(shape: tuple[int, ...]) -> Transform:
    identity = torch.eye(math.prod(shape), dtype=torch.float64)
    return _blank_scaling(EigenBasis(shape, identity, persistent=True))


def _blank_gaussian(shape: tuple[int, ...]) -> Transform:
    return GaussianWhitening(torch.zeros(shape), torch.eye(math.prod(shape)))


_BASES = {FourierBasis: "fourier", EigenBasis: "eigen"}
_BLANK: list[tuple[dict[str, str], Callable[[tuple[int, ...]], Transform]]] = [
    ({"map": "spectral-scaling", "basis": "fourier"}, lambda shape: _blank_scaling(FourierBasis(shape))),
    ({"map": "spectral-scaling", "basis": "eigen"}, _blank_eigen),
    ({"map": "gaussian-whitening"}, _blank_gaussian),
    ({"map": "shift"}, lambda shape: Shift(torch.zeros(shape, dtype=torch.float64), persistent=True)),
]
"""What makes a map that can be made without its target, by its description."""
