"""isingflow: free energies, samples and observables of Ising models from symmetric, invertible flows.

>>> import isingflow
>>> lattice = isingflow.lattice.square(16)
>>> target = isingflow.HubbardStratonovich(lattice, isingflow.lattice.CRITICAL_BETA)
>>> exact = isingflow.exact.thermodynamics(lattice, isingflow.lattice.CRITICAL_BETA)
>>> round(target.free_energy(exact.log_z), 4)
-592.8757
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isingflow import exact, lattice, testing
    from isingflow.evaluation.annealing import anneal
    from isingflow.evaluation.crossings import crossings
    from isingflow.evaluation.reports import evaluate, plot
    from isingflow.evaluation.temperatures import scan
    from isingflow.flows.base import Flow
    from isingflow.monte_carlo.simulate import simulate
    from isingflow.observables.measure import measure
    from isingflow.runs.loading import load
    from isingflow.statistics.estimate import Estimate
    from isingflow.targets.base import Target
    from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
    from isingflow.training.train import train

    __version__: str

__all__ = [
    "Estimate",
    "Flow",
    "HubbardStratonovich",
    "Target",
    "anneal",
    "crossings",
    "evaluate",
    "exact",
    "lattice",
    "load",
    "measure",
    "plot",
    "scan",
    "simulate",
    "testing",
    "train",
]

# Everything is imported when first used: `import isingflow` and `isingflow --help` load none of numpy, torch, numba.
_MODULES = ("exact", "lattice", "testing")
_NAMES = {
    "Estimate": "statistics.estimate",
    "Flow": "flows.base",
    "HubbardStratonovich": "targets.hubbard_stratonovich",
    "Target": "targets.base",
    "anneal": "evaluation.annealing",
    "crossings": "evaluation.crossings",
    "evaluate": "evaluation.reports",
    "load": "runs.loading",
    "measure": "observables.measure",
    "plot": "evaluation.reports",
    "scan": "evaluation.temperatures",
    "simulate": "monte_carlo.simulate",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"isingflow.{_NAMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"isingflow.{name}")
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("isingflow")
        except PackageNotFoundError:
            return "unknown"
    raise AttributeError(f"module 'isingflow' has no attribute {name!r}{_advice(name)}")


def _advice(name: str) -> str:
    """What may have been meant."""
    from difflib import get_close_matches
    from pathlib import Path

    room = Path(__file__).parent / name
    if not name.startswith("_") and (room.is_dir() or room.with_suffix(".py").is_file()):
        return f"; it is imported by itself: import isingflow.{name}"
    close = get_close_matches(name.lower(), [known.lower() for known in __all__])
    names = [known for word in close for known in __all__ if known.lower() == word]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
