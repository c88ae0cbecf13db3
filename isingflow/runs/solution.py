"""The exact solution of a run's magnet, kept in its folder: it is found once, which can take a minute and gigabytes.

`exact.json` holds what `exact.thermodynamics` gave and a digest of it together with the lattice and the temperature. A
file that was damaged or changed, or is that of another magnet, is not believed: what it should say is found anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from typing import Any

from isingflow.errors import IsingflowError
from isingflow.exact.thermodynamics import Thermodynamics
from isingflow.lattice import Lattice
from isingflow.runs.entries import read_text
from isingflow.runs.folder import AnyRun
from isingflow.runtime.files import reason, write_atomically
from isingflow.runtime.launched import follows
from isingflow.runtime.numbers import parse
from isingflow.runtime.settings import Finite, Settings, Text, read
from isingflow.targets.base import SolvedOnce, Target

SOLUTION = "exact.json"

_log = logging.getLogger(__name__)


class Solution(Settings, frozen=True):
    """The entries of the file: those of `Thermodynamics`, and the digest."""

    log_z: Finite
    energy_per_site: Finite
    heat_capacity_per_site: Finite
    method: Text
    log_z_per_site: Finite
    magnetisation_per_site: Finite | None
    digest: Text


def recall(run: AnyRun, target: Target) -> None:
    """Let the magnet of a run know the solution that was kept; nothing where there is none, or of other targets."""
    if isinstance(target, SolvedOnce) and target.known is None:
        solution = solution_in(run, target.lattice, target.beta)
        if solution is not None:
            target.know(solution)


def keep(run: AnyRun, target: Target) -> None:
    """Write down the solution that the magnet of a run knows, if it is not there; where one can write."""
    if not isinstance(target, SolvedOnce) or target.known is None or follows():
        return
    if solution_in(run, target.lattice, target.beta) == target.known:
        return
    entries = asdict(target.known)
    entries["digest"] = _digest(target.lattice, target.beta, entries)
    try:
        write_atomically(run.path / SOLUTION, (json.dumps(entries, indent=2, allow_nan=False) + "\n").encode())
    except (OSError, ValueError) as error:
        _log.info("%s is not kept: %s", run.path / SOLUTION, reason(error))


def solution_in(run: AnyRun, lattice: Lattice, beta: float) -> Thermodynamics | None:
    """The solution that a run has kept of this magnet; None where there is none that can be believed."""
    path = run.path / SOLUTION
    try:
        text = read_text(path)
        if text is None:
            return None
        entries = read(parse(text), Solution, "an exact solution").to_dict()
    except (IsingflowError, ValueError) as error:
        _log.warning("%s is not believed, and made anew: %s", path, reason(error))
        return None
    if entries.pop("digest") != _digest(lattice, beta, entries):
        _log.warning("%s is not believed, and made anew: it was changed since, or is that of another magnet", path)
        return None
    return Thermodynamics(**entries)


def _digest(lattice: Lattice, beta: float, solution: dict[str, Any]) -> str:
    text = json.dumps({"lattice": lattice.to_dict(), "beta": beta, "solution": solution}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
