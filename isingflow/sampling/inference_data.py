"""Chains as arviz knows them: InferenceData with what was measured, statistics of the sampler, and the run's facts.

Names and groups follow arviz's schema. arviz 1 holds the same groups in a `xarray.DataTree`.
"""

from __future__ import annotations

import os
import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

import isingflow
from isingflow.errors import FileError, InvalidInput
from isingflow.sampling.chains import magnet
from isingflow.sampling.measured import energies, magnetisations, measured
from isingflow.targets.base import as_target

if TYPE_CHECKING:
    import xarray

    from isingflow.sampling.files import Chains

SUFFIX = ".nc"
"""Of the files that hold what arviz reads."""

Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]
"""Dimensions and values by name."""


def require_arviz() -> ModuleType:
    """The package arviz.

    Raises:
        InvalidInput: it is not installed, or not what writes its files.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # once a day, of its next version
            import arviz
            import h5netcdf  # noqa: F401
            import h5py  # noqa: F401, what h5netcdf writes with
    except ImportError as error:
        raise InvalidInput(
            f"InferenceData and {SUFFIX} files need the extra arviz: python -m pip install 'isingflow[arviz]' ({error})"
        ) from None
    return arviz


def inference_data(chains: Chains, target: Any = None) -> Any:
    """Chains as InferenceData; see `Chains.to_arviz`."""
    arviz = require_arviz()
    import xarray

    if not chains.samples:
        raise InvalidInput("these chains were stopped before their first sample: there is nothing to hand to arviz")
    if target is not None:
        _check_follows(chains, target)
    coordinates, sites = _coordinates(chains)
    posterior: Variables = {name: (("chain", "draw"), values) for name, values in measured(chains, target).items()}
    posterior["magnetisation"] = (("chain", "draw"), magnetisations(chains))
    posterior["field"] = (("chain", "draw", *sites), chains.field)
    if chains.spins is not None:
        posterior["spins"] = (("chain", "draw", *sites), chains.spins)
    groups = {
        "posterior": xarray.Dataset(posterior, coordinates, _attributes(chains)),
        "sample_stats": _sample_stats(chains, target),
    }
    # arviz 1 answers with a warning when it is asked for InferenceData.
    return arviz.InferenceData(**groups) if "InferenceData" in vars(arviz) else xarray.DataTree.from_dict(groups)


def write_netcdf(chains: Chains, path: Path, target: Any = None) -> None:
    """Chains in a netCDF file for arviz, in one step, over an older one if there is one.

    Raises:
        InvalidInput: as for `inference_data`.
        FileError: the file cannot be written; an older one is intact.
    """
    data, temporary = inference_data(chains, target), path.with_name(f".{path.name}.tmp")
    try:
        data.to_netcdf(str(temporary), engine="h5netcdf")
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise FileError(f"cannot write {path}: {reason}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _coordinates(chains: Chains) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Coordinates of all dimensions, and the names of those of a field."""
    found: dict[str, Any] = {"chain": np.arange(len(chains.field)), "draw": np.arange(chains.samples)}
    if chains.lattice is not None and chains.lattice.kind == "graph":
        return found | {"site": list(chains.lattice.labels)}, ("site",)
    names = {1: ("site",), 2: ("x", "y")}.get(len(chains.shape), tuple(f"axis_{i}" for i in range(len(chains.shape))))
    return found | {name: np.arange(length) for name, length in zip(names, chains.shape, strict=True)}, names


def _sample_stats(chains: Chains, target: Any) -> xarray.Dataset:
    """Statistics of the sampler at every draw."""
    import xarray

    shape = chains.field.shape[:2]
    used = chains.acceptance[: chains.samples * chains.identity["every"]]
    moved = used.reshape(chains.samples, -1).mean(1)
    stats: Variables = {"acceptance_rate": (("chain", "draw"), np.broadcast_to(moved, shape))}
    if "step_size" in chains.facts:
        stats["step_size"] = (("chain", "draw"), np.full(shape, float(chains.facts["step_size"])))
    if target is not None:
        stats["lp"] = (("chain", "draw"), -energies(chains, target))
    data = xarray.Dataset(stats, {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}, _attributes(chains))
    data["acceptance_rate"].attrs["description"] = (
        "fraction of all chains that moved, mean over steps since the last draw"
    )
    if "lp" in stats:
        data["lp"].attrs["description"] = "-E(x), the log-density of the field up to a constant"
    return data


def _check_follows(chains: Chains, target: Any) -> None:
    """Refuse a target that is not that of the chains, as far as they know it."""
    follows = as_target(target)
    here = (follows.title(), tuple(follows.shape), *magnet(follows))
    if here != (chains.title, chains.shape, chains.lattice, chains.beta):
        raise InvalidInput(f"the chains follow another target than {follows.title()}: {chains.title}")


def _attributes(chains: Chains) -> dict[str, Any]:
    """What a run is known by, in types that netCDF has."""
    known: dict[str, Any] = {
        "created_at": datetime.now(UTC).isoformat(),
        "inference_library": "isingflow",
        "inference_library_version": isingflow.__version__,
        "sampling_time": chains.seconds,
        "tuning_steps": chains.identity.get("warm_up"),
        "title": chains.title,
        "lattice": None if chains.lattice is None else str(chains.lattice),
        "beta": chains.beta,
        "certified": chains.certified,
        **{name: chains.identity.get(name) for name in ("sampler", "space", "every", "seed", "flow")},
        **chains.facts,
    }
    return {
        name: int(value) if isinstance(value, bool) else value for name, value in known.items() if value is not None
    }
