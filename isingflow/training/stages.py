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
from typing import TYPE_CHECKING

from isingflow.errors import RunFolderError
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder

if TYPE_CHECKING:
    from isingflow.training.progress import Progress

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
        >>> from isingflow.runs.config import TrainingConfig
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
