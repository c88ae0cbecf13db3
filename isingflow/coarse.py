"""Training up from a smaller lattice: a flow learnt on an l x m torus starts the one on 2l x 2m.

What a lattice potential learns is local: kernels w(r), hidden units, and q(k, t), the spectrum of a kernel q(r, t). On
the larger torus every small displacement r becomes four, r + (l i, m j) with i, j = 0, 1, and its value goes to the
shortest of them (in equal parts where several are):

    W(R) = w(r) / n(r)  if R is one of the n(r) shortest images of r, else 0.

Kernels keep their point symmetry, because it moves displacements without changing their length, and their spectra agree
at the momenta that both lattices have. For a field x of the small torus, repeated to fill the large one, X(R) = x(r),
hence Phi(X, t) = 4 phi(x, t), exactly. What is left to learn are the longest waves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isingflow.config import RunConfig
from isingflow.errors import InvalidInput, RunFolderError
from isingflow.lattice import Lattice
from isingflow.potentials import LatticePotential
from isingflow.runs import RunFolder

if TYPE_CHECKING:
    from isingflow.training import Progress

FOLDER = "coarse"
"""Where a run folder keeps the run on the lattice of half the lengths: a complete run folder itself."""


def coarse_run(run: RunFolder) -> RunFolder | None:
    """The run on the smaller lattice with which a run starts, in its folder, created if need be; None if it has none.

    Raises:
        InvalidInput: there should be one, but not on this lattice or with this potential.
        RunFolderError: the folder cannot be written, or holds another run.
    """
    config = run.config.coarse
    if config is None:
        return None
    path = run.path / FOLDER
    if not (path / "config.json").exists():
        return RunFolder.create(path, config)
    coarse = RunFolder.open(path)
    differences = coarse.config.differences(config)
    if differences:
        raise RunFolderError(f"{path} is not how {run.path} starts: {'; '.join(differences)}")
    return coarse


def work(config: RunConfig) -> float:
    """The work of a whole training in updates of a site, that on smaller lattices included."""
    before = 0.0 if config.coarse is None else work(config.coarse)
    return before + config.lattice.sites * config.training.batch * config.training.iterations


def coarse_share(config: RunConfig) -> float:
    """The part of a whole training's work, 0 to 1, that is done on smaller lattices.

    Example:
        >>> from isingflow.config import TrainingConfig
        >>> from isingflow.lattice import square
        >>> training = TrainingConfig(iterations=100, coarse=TrainingConfig(iterations=400))
        >>> coarse_share(RunConfig(square(16), 0.4, "mine", training=training))
        0.5
    """
    return 0.0 if config.coarse is None else work(config.coarse) / work(config)


def on_the_way(
    report_progress: Callable[[Progress], None], config: RunConfig, time_limit: float | None
) -> Callable[[Progress], None]:
    """Progress of the training on the smaller lattice, with the time left of the whole one, for `report_progress`.

    Args:
        report_progress: gets what is reported.
        config: of the whole training.
        time_limit: of the whole training, in seconds, or None.
    """
    share = coarse_share(config)

    def report(progress: Progress) -> None:
        whole = (progress.seconds + progress.remaining) / share
        whole = whole if time_limit is None else min(whole, time_limit)
        lattice = progress.lattice or str(config.coarse.lattice)
        report_progress(replace(progress, lattice=lattice, remaining=max(whole - progress.seconds, 0.0)))

    return report


@torch.no_grad()
def enlarge(small: LatticePotential, large: LatticePotential, lattice: Lattice) -> None:
    """Give the potential of a torus the parameters learnt on the torus of half the lengths.

    Args:
        small: the potential on `lattice.halved()`.
        large: the potential on `lattice`, with as many kernels, hidden units and polynomials in time; overwritten.
        lattice: the larger torus.

    Raises:
        InvalidInput: the potentials are not on these lattices, or not of the same make.

    Example:
        >>> from isingflow.lattice import square
        >>> make = dict(radial=2, oriented=1, hidden=3, generator=torch.Generator().manual_seed(0))
        >>> small, large = (LatticePotential(square(n).symmetry, **make) for n in (6, 12))
        >>> enlarge(small, large, square(12))
        >>> x = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(1))
        >>> torch.allclose(large.value(x.repeat(1, 2, 2), 0.5), 4 * small.value(x, 0.5))
        True
    """
    half = lattice.halved()
    counts = [(len(p.radial), len(p.oriented), *p.amplitude.shape) for p in (small, large)]
    if half is None or (small.shape, large.shape) != (half.shape, lattice.shape) or counts[0] != counts[1]:
        raise InvalidInput(
            f"a potential of shape {small.shape}, make {counts[0]}, does not enlarge to shape {large.shape}, "
            f"make {counts[1]}, on {lattice}"
        )
    shares = _shares(lattice)
    radial = _enlarged(small.radial[:, small.radial_orbits], shares)
    large.radial.copy_(_by_orbit(radial, large.radial_orbits))
    oriented = _enlarged(small.oriented[:, small.oriented_orbits[0]], shares)
    large.oriented.copy_(_by_orbit(oriented, large.oriented_orbits[0]))
    kernel = torch.fft.irfft2(small.quadratic.double()[:, small.momentum_orbits], s=small.shape)
    quadratic = torch.fft.rfft2(_enlarged(kernel, shares)).real
    large.quadratic.copy_(_by_orbit(quadratic, large.momentum_orbits))
    for name in ("weight", "bias", "amplitude"):
        getattr(large, name).copy_(getattr(small, name))


def _shares(lattice: Lattice) -> Tensor:
    """1 / n(r) for the shortest images of every small displacement, else 0: float64, shape (2, lx / 2, 2, ly / 2)."""
    images = _squared_lengths(lattice).reshape(2, lattice.shape[0] // 2, 2, lattice.shape[1] // 2)
    shortest = images == images.min(axis=(0, 2), keepdims=True)
    return torch.from_numpy(shortest / shortest.sum(axis=(0, 2), keepdims=True))


def _squared_lengths(lattice: Lattice) -> np.ndarray:
    """Twice the squared length of the shortest way to every displacement on a torus: integers, shape (lx, ly).

    Integers, so that equal lengths are equal. On an oblique torus the shortest way may wind around a short side more
    than once.
    """
    unit_vectors = lattice.coordinates()[[lattice.shape[1], 1]]
    metric = np.rint(2 * unit_vectors @ unit_vectors.T).astype(int)
    turns = 1 + max(lattice.shape) // min(lattice.shape)
    displacement = np.indices(lattice.shape)
    shortest = None
    for winding in product(range(-turns, turns + 1), repeat=2):
        way = displacement + (np.array(winding) * lattice.shape)[:, None, None]
        length = np.einsum("axy,ab,bxy->xy", way, metric, way)
        shortest = length if shortest is None else np.minimum(shortest, length)
    return shortest


def _enlarged(kernels: Tensor, shares: Tensor) -> Tensor:
    """Kernels of shape (..., lx, ly) on the torus of twice the lengths, in float64."""
    return (kernels.double()[..., None, :, None, :] * shares).flatten(-2).flatten(-3, -2)


def _by_orbit(values: Tensor, orbits: Tensor) -> Tensor:
    """One value per label of values that are the same throughout every orbit: shape (..., number of orbits)."""
    _, first = np.unique(orbits.cpu().numpy(), return_index=True)
    return values.flatten(-2)[..., torch.from_numpy(first)]
