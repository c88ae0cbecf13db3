"""Files of chains of fields, which hold all that it takes to continue them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
from isingflow.runtime import checks
from isingflow.runtime.checks import count, flag, number
from isingflow.runtime.files import ArrayWriter, Columns, check_memory, check_space, read_arrays, reason, text

COPIES = 3
"""Of the arrays on the disk while they are saved: as written, as put together, and as they were saved before."""


@dataclass(frozen=True, eq=False)
class Chains:
    """Fields along Markov chains, with all that it takes to continue them.

    Attributes:
        field: float32, shape (chains, samples, *shape).
        spins: int8, shape (chains, samples, *shape), one draw of p(s | x) for every field; None where the target has
            none.
        acceptance: fraction of the chains that moved at each step after the warm-up, float64, shape (steps,).
        title: the target in words.
        lattice, beta: of a magnet; None of other targets.
        seconds: time spent, warm-up included.
        identity: what the chains belong to and how they were made; chains continue only with the same.
        certified: whether the integration error of the flow they go through, if any, is within tolerance.
        steps: taken so far, those of the warm-up included.
        facts: what the sampler says of itself, see `Sampler.facts`.
        state, generator: of the sampler, at the end.
    """

    field: np.ndarray
    spins: np.ndarray | None
    acceptance: np.ndarray
    title: str
    lattice: Lattice | None
    beta: float | None
    seconds: float
    identity: dict[str, Any]
    certified: bool
    steps: int
    facts: dict[str, float | int | bool]
    state: dict[str, Tensor]
    generator: Tensor

    @property
    def samples(self) -> int:
        """Number of states kept of every chain."""
        return self.field.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one field."""
        return self.field.shape[2:]

    def to_arviz(self, target: Any = None) -> Any:
        """The chains as arviz's InferenceData (with arviz 1: a `xarray.DataTree` of the same groups).

        The group `posterior` holds `field`, `spins` where there are any, and what is measured on every field: of a
        magnet `energy_per_site`, `magnetisation` and `magnetisation_squared`. The group `sample_stats` holds
        `acceptance_rate` and, where known, `step_size` and `lp`, the log-density. Attributes are those of the run.

        Args:
            target: what the chains follow, for `lp`, and for the energy where that is no magnet's.

        Raises:
            InvalidInput: arviz is not installed, there are no samples, or the target is another one.

        Example:
            >>> from isingflow.lattice import square
            >>> from isingflow.sampling import sample_chains
            >>> from isingflow.targets import HubbardStratonovich
            >>> target = HubbardStratonovich(square(4), beta=0.3)
            >>> chains = sample_chains(None, target, sampler="gibbs", chains=4, samples=10)
            >>> dict(chains.to_arviz().posterior.sizes)
            {'chain': 4, 'draw': 10, 'x': 4, 'y': 4}
        """
        from isingflow.sampling.inference_data import inference_data  # an extra

        return inference_data(self, target)

    def save(self, path: Path) -> None:
        """Write a .npz file, in one step, over an older one if there is one.

        Raises:
            FileError: the disk is too small, or the file cannot be written; an older one is intact.
        """
        columns: dict[str, tuple[Any, tuple[int, ...]]] = {"field": (np.float32, self.field.shape[1:])}
        rows = {"field": self.field}
        if self.spins is not None:
            columns["spins"], rows["spins"] = (np.int8, self.spins.shape[1:]), self.spins
        constants = {
            "acceptance": self.acceptance,
            "title": np.array(self.title),
            "shape": np.array(self.shape),
            "seconds": np.array(self.seconds),
            "identity": np.array(json.dumps(self.identity)),
            "certified": np.array(self.certified),
            "steps": np.array(self.steps),
            "facts": np.array(json.dumps(self.facts)),
            "generator": self.generator.numpy(),
            **{f"state_{name}": tensor.cpu().numpy() for name, tensor in self.state.items()},
        }
        constants["digest"] = np.array(_digest(constants))
        if self.lattice is None or self.beta is None:
            writer = ArrayWriter(path, len(self.field), columns, **constants)
        else:
            writer = sample_writer(path, len(self.field), columns, lattice=self.lattice, beta=self.beta, **constants)
        with writer as file:
            for chain in range(len(self.field)):
                file.append(**{name: array[chain : chain + 1] for name, array in rows.items()})

    @classmethod
    def read(cls, path: Path) -> Chains:
        """The chains that `save` wrote.

        Raises:
            FileError: not a file of chains, a damaged one, or one of an earlier version.
        """
        arrays = read_arrays(path, ("field", "state_position"))
        if "facts" not in arrays and "setting_step_size" in arrays:
            raise FileError(
                f"{path}: chains of an earlier version of isingflow cannot be continued: begin new ones; "
                "isingflow observables still reads these"
            )
        try:
            if "digest" in arrays and text(arrays, "digest") != _digest(arrays):
                raise InvalidInput("what it says of its chains is not what was written")
            chains = cls(
                field=arrays["field"],
                spins=arrays.get("spins"),
                acceptance=arrays["acceptance"],
                title=text(arrays, "title"),
                lattice=lattices.from_dict(json.loads(text(arrays, "lattice"))) if "lattice" in arrays else None,
                beta=check_beta(number("beta", arrays["beta"])) if "beta" in arrays else None,
                seconds=number("seconds", arrays["seconds"], least=0),
                identity=dict(json.loads(text(arrays, "identity"))),
                certified=flag("certified", arrays["certified"][()]),
                steps=count("steps", arrays["steps"], least=0),
                facts=dict(json.loads(text(arrays, "facts"))),
                state={
                    name.removeprefix("state_"): torch.from_numpy(array)
                    for name, array in arrays.items()
                    if name.startswith("state_")
                },
                generator=torch.from_numpy(arrays["generator"]),
            )
            chains._check(tuple(checks.array("shape", arrays["shape"], (None,), integers=True, empty=True).tolist()))
        except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise FileError(f"{path}: not a file of chains: {reason(error)}") from None
        return chains

    def _check(self, shape: tuple[int, ...]) -> None:
        """Refuse arrays that do not fit each other, or hold what chains do not."""
        field, spins, steps = self.field, self.spins, self.steps
        fits = field.ndim == 2 + len(shape) and self.shape == shape
        fits = fits and len(self.state["position"]) == len(field)
        if not fits or (spins is not None and spins.shape != field.shape):
            raise InvalidInput("its arrays do not fit each other")
        if (self.lattice is None) != (self.beta is None) or (self.lattice is not None and self.lattice.shape != shape):
            raise InvalidInput("its lattice does not fit its arrays")
        if field.dtype != np.float32 or (spins is not None and spins.dtype != np.int8):
            raise InvalidInput(
                f"field of {field.dtype}, spins of {getattr(spins, 'dtype', None)}: expected float32, int8"
            )
        if not np.isfinite(field).all() or (spins is not None and not np.all(np.abs(spins) == 1)):
            raise InvalidInput("field must be finite, and spins +1 or -1")
        recorded = max(steps - self.identity["warm_up"], 0)
        if self.acceptance.shape != (recorded,) or self.samples != recorded // self.identity["every"]:
            raise InvalidInput(f"{self.samples} samples and {self.acceptance.shape} acceptances after {steps} steps")
        if self.acceptance.dtype.kind != "f" or not np.isfinite(self.acceptance).all():
            raise InvalidInput("acceptance must be finite")


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Of the small arrays of a file: what its chains are, and all that they continue from."""
    checksum = hashlib.sha256()
    for name in sorted(arrays.keys() - {"field", "spins", "seconds", "digest", "beta", "size", "lattice", "sites"}):
        array = np.asarray(arrays[name])
        checksum.update(f"{name} {array.dtype.str} {array.shape};".encode() + array.tobytes())
    return checksum.hexdigest()


def check_room(shape: tuple[int, ...], *, samples: int, chains: int, spins: bool, path: Path | None = None) -> None:
    """Refuse chains that memory or disk could not hold, before they are run.

    Args:
        shape: of one field.
        samples, chains: how many states of how many chains.
        spins: whether spins are kept beside fields.
        path: the file that they are to be saved to, if any.

    Raises:
        InvalidInput: memory could not.
        FileError: the disk could not, or the folder cannot be written.
    """
    columns: Columns = {"field": (np.float32, (chains, *shape))}
    if spins:
        columns = {**columns, "spins": (np.int8, (chains, *shape))}
    what = f"samples of {chains} chains"
    if path is not None:
        check_space(path, samples, columns, copies=COPIES, what=what)
    check_memory(samples, columns, what=what)
