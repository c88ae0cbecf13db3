"""Writing files of samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isingflow.lattice import Lattice
from isingflow.runtime.files import ArrayWriter, Columns

if TYPE_CHECKING:
    from isingflow.monte_carlo.simulate import SpinChains


LARGEST_BETA = 1e6
"""Inverse temperature, in size, of what commands write."""


def sample_writer(
    path: Path, count: int, columns: Columns, *, lattice: Lattice, beta: float, **constants: np.ndarray | np.generic
) -> ArrayWriter:
    """A writer of a file of samples, with what every one of them says of its magnet.

    Args:
        path: the file.
        count: number of rows.
        columns: type and shape of a row of every array.
        lattice, beta: the magnet.
        constants: further arrays.
    """
    return ArrayWriter(path, count, columns, beta=np.float64(beta), **magnet_arrays(lattice), **constants)


def magnet_arrays(lattice: Lattice) -> dict[str, np.ndarray]:
    """What files say of the lattice of their samples."""
    sites = {"sites": np.array(lattice.labels)} if lattice.kind == "graph" else {}
    return {"size": np.array(lattice.size), "lattice": np.array(json.dumps(lattice.to_dict())), **sites}


def rows_in_time(block: SpinChains) -> dict[str, np.ndarray]:
    """A block of chains as rows of a file, all chains at one time after all chains at the time before."""
    arrays = {"spins": block.spins, "energy": block.energy, "magnetisation": block.magnetisation}
    rows = {name: array.swapaxes(0, 1).reshape(-1, *array.shape[2:]) for name, array in arrays.items()}
    chains, samples = block.energy.shape
    return rows | {"log_weight": np.zeros(chains * samples), "chain": np.tile(np.arange(chains), samples)}
