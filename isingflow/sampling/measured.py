"""What is measured on every field of chains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isingflow.observables import per_sample
from isingflow.sampling.sampler import device_of
from isingflow.targets.base import as_target

if TYPE_CHECKING:
    from isingflow.sampling.files import Chains

BATCH_SITES = 2**20
"""Sites of the fields that are looked at at once."""


def measured(chains: Chains, target: Any = None) -> dict[str, np.ndarray]:
    """Quantities by name, each float64, of shape (chains, samples).

    Of a magnet: `energy_per_site`, in an external field `magnetisation`, and `magnetisation_squared`, means given the
    field. Of other targets: `energy`, E(x)/N, where the target is given; `field_squared`, the mean of x^2 over sites;
    `magnetisation_squared`, that of x, squared.
    """
    if chains.lattice is not None:
        of = per_sample(chains.lattice, field=chains.field, beta=chains.beta)
        return {
            "energy_per_site": of.energy / chains.lattice.sites,
            **({} if chains.lattice.field is None else {"magnetisation": of.magnetisation}),
            "magnetisation_squared": of.magnetisation_squared,
        }
    found = {} if target is None else {"energy": energies(chains, target) / math.prod(chains.shape)}
    return found | {
        "field_squared": _of_each(chains, lambda x: (x**2).mean(1)),
        "magnetisation_squared": magnetisations(chains) ** 2,
    }


def magnetisations(chains: Chains) -> np.ndarray:
    """The mean over sites of x, of a magnet the mean spin given x: float64, shape (chains, samples)."""
    if chains.lattice is not None:
        return per_sample(chains.lattice, field=chains.field, beta=chains.beta).magnetisation
    return _of_each(chains, lambda x: x.mean(1))


def energies(chains: Chains, target: Any) -> np.ndarray:
    """E(x) of every field, float64, shape (chains, samples)."""
    follows = as_target(target)

    def energy(fields: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(fields.reshape(-1, *chains.shape)).to(device_of(follows))
        with torch.no_grad():
            return follows.energy(x).cpu().numpy()

    return _of_each(chains, energy)


def _of_each(chains: Chains, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A function of fields, float64 of shape (n, sites), in batches."""
    fields = chains.field.reshape(-1, math.prod(chains.shape))
    rows = max(1, BATCH_SITES // max(1, fields.shape[1]))
    starts = range(0, len(fields), rows)
    parts = [function(fields[start : start + rows].astype(np.float64)) for start in starts]
    return np.concatenate(parts).reshape(chains.field.shape[:2])
