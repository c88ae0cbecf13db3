"""Files of annealed paths: those that are run, and all that it takes to run the others."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isingflow import lattice as lattices
from isingflow.errors import FileError, InvalidInput
from isingflow.monte_carlo.annealing import MOVES
from isingflow.monte_carlo.equilibrium import Equilibrium
from isingflow.monte_carlo.paths import Paths
from isingflow.monte_carlo.schedule import Pilot
from isingflow.runtime.checks import array, choice, count, number
from isingflow.runtime.files import read_arrays, reason, text, write_atomically

_MEASURED = ("betas", "variance", "friction")
_NEVER = ("digest", "seconds")
"""Arrays that the digest leaves out."""


@dataclass(frozen=True, eq=False)
class PathFile:
    """What a file of paths holds.

    Attributes:
        request: what was asked for, as JSON has it.
        paths: as far as they were run.
        seconds: that it took.
    """

    request: dict[str, Any]
    paths: Paths
    seconds: float

    def save(self, path: Path) -> None:
        """Write the file in one step, over an older one if there is one.

        Raises:
            FileError: it cannot be written; an older one is intact.
        """
        found = self.paths
        arrays: dict[str, Any] = {
            "request": json.dumps(self.request),
            "schedule": found.betas,
            "marks": found.marks,
            "moves": found.moves,
            "forward": found.forward.copy(),  # threads go on to fill them
            "reverse": found.reverse.copy(),
            **{f"pilot_{name}": getattr(found.pilot, name) for name in _MEASURED},
            "seconds": self.seconds,
        }
        for name, states in (("start", found.at_start), ("end", found.at_end)):
            if states is not None:
                arrays |= {
                    f"{name}_states": np.packbits(states.states > 0, axis=-1),
                    f"{name}_r_hat": states.r_hat,
                    f"{name}_sampler": states.sampler,
                }
        arrays["digest"] = _digest(arrays)
        content = io.BytesIO()
        np.savez(content, **arrays)
        try:
            write_atomically(path, content.getvalue())
        except OSError as error:
            raise FileError(f"cannot write {path}: {error.strerror or error}") from None

    @classmethod
    def read(cls, path: Path) -> PathFile:
        """The file that `save` wrote.

        Raises:
            FileError: there is none, it is damaged, or it holds something else.
        """
        arrays = read_arrays(path, ("request", "forward", "reverse", "schedule", "end_states"))
        try:
            if text(arrays, "digest") != _digest(arrays):
                raise InvalidInput("it does not hold what was written")
            request = dict(json.loads(text(arrays, "request")))
            lattice, rows = lattices.from_dict(request["lattice"]), array("beta", request["beta"], (None,))
            schedule = array("schedule", arrays["schedule"], (None,))
            paths = Paths(
                lattice=lattice,
                rows=rows,
                start=number("from_beta", request["from_beta"]),
                betas=schedule,
                marks=array("marks", arrays["marks"], rows.shape, integers=True),
                moves=choice("moves", text(arrays, "moves"), MOVES),
                seed=count("seed", request["seed"], least=0),
                pilot=Pilot(*(array(name, arrays[f"pilot_{name}"], (None,)) for name in _MEASURED)),
                forward=array("forward", arrays["forward"], (None, len(rows)), finite=False),
                reverse=array("reverse", arrays["reverse"], (None, len(rows)), finite=False),
                at_start=_states(arrays, "start", lattice.sites) if "start_states" in arrays else None,
                at_end=_states(arrays, "end", lattice.sites),
            )
            return cls(request, paths, number("seconds", arrays["seconds"], least=0))
        except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise FileError(f"{path}: not a file of annealed paths: {reason(error)}") from None


def _states(arrays: Mapping[str, np.ndarray], name: str, sites: int) -> Equilibrium:
    bits = np.unpackbits(arrays[f"{name}_states"], axis=-1, count=sites)
    r_hat = number("R-hat", arrays[f"{name}_r_hat"], finite=False)
    return Equilibrium(2 * bits.astype(np.int8) - 1, r_hat, text(arrays, f"{name}_sampler"))


def _digest(arrays: Mapping[str, Any]) -> str:
    """Of all that paths are continued from."""
    checksum = hashlib.sha256()
    for name in sorted(arrays.keys() - _NEVER):
        entries = np.asarray(arrays[name])
        checksum.update(f"{name} {entries.dtype.str} {entries.shape};".encode() + entries.tobytes())
    return checksum.hexdigest()
