"""Files of chains of fields, which hold all that it takes to continue them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow import lattice as lattices
from isingflow.errors import FileError, InvalidInput
from isingflow.lattice import Lattice, check_beta
from isingflow.observables.files import sample_writer
from isingflow.runtime.files import SPARE_BYTES, read_arrays

STATE_BYTES = 5
"""Per site of a kept state: float32 field and int8 spin."""


@dataclass(frozen=True, eq=False)
class Chains:
    """Fields and spins along Markov chains, with all that it takes to continue them.

    Attributes:
        field: float32, shape (chains, samples, *size).
        spins: int8, shape (chains, samples, *size), one draw of p(s | x) for every field.
        acceptance: fraction of the chains that moved at each step after the warm-up, float64, shape (steps,).
        lattice, beta: the magnet.
        seconds: time spent, warm-up included.
        identity: what the chains belong to and how they were made; chains continue only with the same.
        certified: whether the integration error of the flow they go through, if any, is within tolerance.
        steps: taken so far, those of the warm-up included.
        state, generator, settings: of the sampler, at the end.
    """

    field: np.ndarray
    spins: np.ndarray
    acceptance: np.ndarray
    lattice: Lattice
    beta: float
    seconds: float
    identity: dict[str, Any]
    certified: bool
    steps: int
    state: dict[str, Tensor]
    generator: Tensor
    settings: dict[str, Tensor]

    @property
    def samples(self) -> int:
        """Number of states kept of every chain."""
        return self.field.shape[1]

    def save(self, path: Path) -> None:
        """Write a .npz file, in one step, over an older one if there is one.

        Raises:
            FileError: the disk is too small, or the file cannot be written; an older one is intact.
        """
        columns = {"field": (np.float32, self.field.shape[1:]), "spins": (np.int8, self.spins.shape[1:])}
        constants = {
            "acceptance": self.acceptance,
            "seconds": np.float64(self.seconds),
            "identity": np.array(json.dumps(self.identity)),
            "certified": np.bool_(self.certified),
            "steps": np.int64(self.steps),
            "generator": self.generator.numpy(),
            **_named("state", self.state),
            **_named("setting", self.settings),
        }
        with sample_writer(path, len(self.field), columns, lattice=self.lattice, beta=self.beta, **constants) as file:
            for field, spins in zip(self.field, self.spins, strict=True):
                file.append(field=field[None], spins=spins[None])

    @classmethod
    def read(cls, path: Path) -> Chains:
        """The chains that `save` wrote.

        Raises:
            FileError: not a file of chains, or a damaged one.
        """
        names = ("acceptance", "lattice", "beta", "seconds", "identity", "certified", "steps", "generator")
        arrays = read_arrays(path, ("field", "spins", "state_position", *names))
        try:
            chains = cls(
                field=arrays["field"],
                spins=arrays["spins"],
                acceptance=arrays["acceptance"],
                lattice=lattices.from_dict(json.loads(str(arrays["lattice"]))),
                beta=check_beta(float(arrays["beta"])),
                seconds=float(arrays["seconds"]),
                identity=dict(json.loads(str(arrays["identity"]))),
                certified=bool(arrays["certified"]),
                steps=int(arrays["steps"]),
                state=_tensors("state", arrays),
                generator=torch.from_numpy(arrays["generator"]),
                settings=_tensors("setting", arrays),
            )
            chains._check()
        except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise FileError(f"{path}: not a file of chains: {error}") from None
        return chains

    def _check(self) -> None:
        """Refuse arrays that do not fit each other, or hold what chains do not."""
        field, spins, steps = self.field, self.spins, self.steps
        fits = field.ndim == 2 + len(self.lattice.shape) and field.shape[2:] == self.lattice.shape
        if not fits or spins.shape != field.shape or any(len(tensor) != len(field) for tensor in self.state.values()):
            raise InvalidInput("its arrays do not fit each other")
        if (field.dtype, spins.dtype) != (np.float32, np.int8):
            raise InvalidInput(f"field of {field.dtype} and spins of {spins.dtype}: expected float32 and int8")
        if not np.isfinite(field).all() or not np.all(np.abs(spins) == 1):
            raise InvalidInput("field must be finite, and spins +1 or -1")
        recorded = max(steps - self.identity["warm_up"], 0)
        if self.acceptance.shape != (recorded,) or self.samples != recorded // self.identity["every"]:
            raise InvalidInput(f"{self.samples} samples and {self.acceptance.shape} acceptances after {steps} steps")
        if self.acceptance.dtype.kind != "f" or not np.isfinite(self.acceptance).all():
            raise InvalidInput("acceptance must be finite")


def check_disk(path: Path, *, samples: int, chains: int, sites: int) -> None:
    """Refuse chains that `Chains.save` could not write to this path, before they are run.

    Raises:
        FileError: the folder cannot be written, or its disk is too small.
    """
    try:
        free = max(shutil.disk_usage(path.parent).free - SPARE_BYTES, 0)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from None
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"cannot write {path}: the folder {path.parent} cannot be written")
    # The arrays are written once, and once more when they are put together; what was kept before stays until then.
    needed = 3 * STATE_BYTES * chains * samples * sites
    if needed > free:
        raise FileError(
            f"{path}: {samples} samples of {chains} chains need {needed / 1e9:.3g} GB while they are written, "
            f"{free / 1e9:.3g} GB are free; at most {samples * free // needed} samples fit"
        )


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {f"{prefix}_{name}": tensor.cpu().numpy() for name, tensor in tensors.items()}


def _tensors(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    names = [name for name in arrays if name.startswith(f"{prefix}_")]
    return {name.removeprefix(f"{prefix}_"): torch.from_numpy(arrays[name]) for name in names}
