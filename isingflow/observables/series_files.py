"""Files of short series along chains at several temperatures, as `isingflow monte-carlo` keeps them of a range.

    lattice, size               JSON text of `Lattice.to_dict`, and the shape of a configuration
    beta                        inverse temperatures, float64, (temperatures,)
    energy, magnetisation       E(s), total, and the mean spin, float64, (temperatures, chains, samples)
    structure_factor            S(k) at the smallest momentum, of the same shape; not of graphs
    sampler                     what moved the spins at each temperature, text, (temperatures,)

A file of samples at one temperature, as `monte-carlo --output FILE.npz` writes it, is read as such a series too.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isingflow.errors import FileError, InvalidInput
from isingflow.observables.files import magnet_arrays
from isingflow.observables.samples import Samples, lattice_of
from isingflow.observables.thermal import ThermalSeries
from isingflow.runtime import checks
from isingflow.runtime.files import read_arrays, reason, write_atomically

SERIES = ("energy", "magnetisation", "structure_factor")


def write_series(path: Path, series: Sequence[ThermalSeries], samplers: Sequence[str]) -> None:
    """Write chains of one lattice, as many and as long at every temperature.

    Raises:
        FileError: the file cannot be written.
    """
    lattice, known = series[0].lattice, SERIES[: 3 if series[0].structure_factor is not None else 2]
    content = io.BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        **magnet_arrays(lattice),
        beta=np.array([one.beta for one in series]),
        sampler=np.array(list(samplers)),
        **{name: np.stack([getattr(one, name) for one in series]) for name in known},
    )
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from None


def read_series(path: Path | str) -> list[ThermalSeries]:
    """The series of a file, one for each of its temperatures; from a file of samples at one temperature too.

    Raises:
        FileError: there is no such file, it is damaged, or it holds no chains of spins without weights.
    """
    arrays = read_arrays(path, ("beta", "size"))
    if "spins" in arrays or "field" in arrays:
        arrays.clear()
        return [_of_samples(Samples.read(path))]
    try:
        for name in SERIES[:2]:
            if name not in arrays:
                raise InvalidInput(f"the array {name} is missing")
        lattice = lattice_of(arrays)
        betas = checks.array("beta", arrays["beta"], (None,))
        parts = {name: checks.array(name, arrays[name]) for name in SERIES if name in arrays}
        for name, values in parts.items():
            if values.ndim != 3 or len(values) != len(betas):
                raise InvalidInput(f"{name} of shape {values.shape}: expected ({len(betas)}, chains, samples)")
        factors = parts.get("structure_factor", [None] * len(betas))
        rows = zip(betas.tolist(), parts["energy"], parts["magnetisation"], factors, strict=True)
        return [ThermalSeries(lattice, *row) for row in rows]
    except InvalidInput as error:
        raise FileError(f"{path}: not a file of series along chains: {reason(error)}") from None


def _of_samples(samples: Samples) -> ThermalSeries:
    """Of the chains of a file of samples."""
    spins, weights = samples.spins, samples.log_weight
    chains = spins is not None and not samples.drawn and spins.ndim == 2 + len(samples.lattice.shape)
    if spins is None or not chains or (weights is not None and np.ptp(weights) > 0):
        raise FileError(
            f"{samples.path}: expected spins of Markov chains without weights, as isingflow monte-carlo writes them"
        )
    try:
        return ThermalSeries.of(samples.lattice, samples.beta, spins)
    except InvalidInput as error:
        raise FileError(f"{samples.path}: {reason(error)}") from None
