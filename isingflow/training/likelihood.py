"""Data as a problem: their likelihood, on rows that are trained on and on rows that are held back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isingflow.architectures.start import fitted_part
from isingflow.flows.certificate import likelihood_error
from isingflow.flows.mass import defect
from isingflow.runs.config import DensityConfig
from isingflow.runtime.parallel import Backend
from isingflow.training import objectives
from isingflow.training.base import SNAPSHOT_SAMPLES, Problem

if TYPE_CHECKING:
    from isingflow.datasets import Dataset

FEWEST_CHECKED, MOST_CHECKED, CHECKED_NUMBERS = 256, 1024, 2**15
"""Validation data that a training looks at now and then: rows, and numbers in them."""
DEFECT_SAMPLES = 256
VALIDATION = "validation_negative_log_likelihood"


class Likelihood(Problem[Tensor]):
    """A data set; the flow starts from what is fitted to its training part in closed form."""

    config: DensityConfig
    held_out: str | None = VALIDATION

    def __init__(self, data: Dataset, config: DensityConfig, *, device: torch.device) -> None:
        self.config = config
        self.source = torch.device("cpu")
        self.data = data
        self.flow = config.new_flow(data).to(device)
        self.start = fitted_part(self.flow)
        self.validation = _checked(data, config.seed).to(device)
        self.start_score = float(-self.start.log_prob(self.validation).mean())

    def batch(self, n: int, generator: torch.Generator) -> Tensor:
        """Training data, blurred where the training says so."""
        drawn = self._drawn(n, generator)
        return self._blurred(drawn, generator) if self.training.noise else drawn

    def _drawn(self, n: int, generator: torch.Generator) -> Tensor:
        return self.data.train.draw(n, generator).to(self.flow.device)

    @torch.no_grad()
    def _blurred(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Rows with part of their deviation in whitened coordinates replaced by noise; see `TrainingConfig.noise`."""
        z, _ = self.start.inverse(x)
        noise = torch.randn(z.shape, generator=generator).to(z)
        width = self.training.noise
        return self.start(math.sqrt(1 - width**2) * z + width * noise)[0]

    def objective(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and penalties; -ln p of every sample."""
        return objectives.negative_log_likelihood(self.flow, batch, self.training)

    def readings(self, values: Tensor) -> dict[str, float | None]:
        """The negative log-likelihood of the batch."""
        return {"negative_log_likelihood": float(values.mean())}

    def errors(self, n: int, generator: torch.Generator, pool: Backend) -> list[float]:
        """Change of ln p at half the step."""
        return [likelihood_error(self.flow, self._drawn(n, generator), pool).value]

    def defect(self) -> float:
        """The larger of what is missing from the total mass and what the inverse misses, see `flows.mass`."""
        return defect(self.flow, DEFECT_SAMPLES).nats

    @torch.no_grad()
    def check(self, pool: Backend) -> dict[str, float]:
        """The negative log-likelihood of some validation data, the same ones every time."""
        self.flow.eval()
        part = pool.part(self.validation)
        log_prob = pool.run(lambda: torch.cat(pool.map(self.flow.log_prob, part)))
        return {VALIDATION: float(-pool.gather(log_prob, len(self.validation)).mean())}

    def snapshot(self) -> np.ndarray | None:
        """Samples, float32."""
        generator = torch.Generator(self.flow.device).manual_seed(0)
        points = self.flow.sample(SNAPSHOT_SAMPLES, generator=generator)[0]
        return points.cpu().numpy() if points.isfinite().all() else None


def _checked(data: Dataset, seed: int) -> Tensor:
    """The rows that are looked at; few rows of grey levels are looked at several times, each with noise of its own."""
    rows = min(max(CHECKED_NUMBERS // data.dimension, FEWEST_CHECKED), MOST_CHECKED)
    times = max(rows // len(data.validation), 1) if data.space.discrete else 1
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([next(data.validation.batches(rows, generator)) for _ in range(times)])
