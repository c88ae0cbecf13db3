"""isingflow: free energies, samples and observables of Ising models from symmetric, invertible flows.

>>> import isingflow
>>> lattice = isingflow.lattice.square(16)
>>> target = isingflow.HubbardStratonovich(lattice, isingflow.lattice.CRITICAL_BETA)
>>> exact = isingflow.exact.thermodynamics(lattice, isingflow.lattice.CRITICAL_BETA)
>>> round(target.free_energy(exact.log_z), 4)
-592.8757
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from isingflow import lattice
from isingflow.statistics.estimate import Estimate

try:
    __version__ = version("isingflow")
except PackageNotFoundError:
    __version__ = "unknown"

__all__ = ["Estimate", "HubbardStratonovich", "exact", "lattice", "load"]

# Names that need torch or numba are imported when first used: `isingflow --help` starts at once.
_LAZY = {
    "HubbardStratonovich": ("isingflow.targets.hubbard_stratonovich", "HubbardStratonovich"),
    "load": ("isingflow.runs.loading", "load"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    if name == "exact":
        return import_module("isingflow.exact")
    raise AttributeError(f"module 'isingflow' has no attribute {name!r}")
