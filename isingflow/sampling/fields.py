"""Exact samples of the continuous density from samples of spins: x | s ~ Normal(A s, A), and what ln p(x) is."""

from __future__ import annotations

import numpy as np
import torch

from isingflow.errors import InvalidInput
from isingflow.runtime.checks import LARGEST_SEED, count, instance, number
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

BATCH_NUMBERS = 2**22
"""Numbers in a batch of fields that are drawn at once."""


class FieldDraws:
    """Fields drawn from p(x | s), with ln p(x) = -E(x) - ln Z where Z is known.

    Args:
        target: E.
        free_energy: -ln Z of the continuous representation, or None.
        seed: of the draws.

    Example:
        >>> from isingflow.lattice import square
        >>> draws = FieldDraws(HubbardStratonovich(square(4), beta=0.4), None, seed=0)
        >>> draws.draw(np.ones((10, 4, 4), np.int8))["field"].shape
        (10, 4, 4)
    """

    def __init__(self, target: HubbardStratonovich, free_energy: float | None, seed: int) -> None:
        self.target = instance("target", target, HubbardStratonovich, "a HubbardStratonovich")
        self.free_energy = None if free_energy is None else number("free_energy", free_energy)
        self._generator = torch.Generator().manual_seed(count("seed", seed, least=0, most=LARGEST_SEED))

    def draw(self, spins: np.ndarray) -> dict[str, np.ndarray]:
        """`field`, float32, and, where Z is known, `log_prob`, float64, for spins of shape (n, *size)."""
        rows, shape = max(1, BATCH_NUMBERS // self.target.sites), self.target.shape
        if instance("spins", spins, np.ndarray, "an array of spins").shape[1:] != shape:
            raise InvalidInput(f"spins is an array of shape {spins.shape}, expected (n, {', '.join(map(str, shape))})")
        fields, log_probs = [np.empty((0, *shape), np.float32)], [np.empty(0)]
        for start in range(0, len(spins), rows):
            field = self.target.sample_field(spins[start : start + rows], self._generator).float()
            fields.append(field.numpy())
            if self.free_energy is not None:
                log_probs.append((self.free_energy - self.target.energy(field.double())).numpy())
        drawn = {"field": np.concatenate(fields)}
        return drawn if self.free_energy is None else drawn | {"log_prob": np.concatenate(log_probs)}
