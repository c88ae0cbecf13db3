"""What a flow is trained on, as the training loop knows it: batches, a loss with one value per sample, an error."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from isingflow.flows import ActNorm, Flow
from isingflow.flows.base import approximations
from isingflow.runs.config import AnyRunConfig
from isingflow.runs.settings import TrainingConfig
from isingflow.runtime.parallel import Backend, Batch
from isingflow.training.inherit import inherit
from isingflow.training.products import Fitted
from isingflow.training.schedules import controlled_steps

SNAPSHOT_SAMPLES = 25

Samples = TypeVar("Samples", bound=Batch)
"""What an objective is averaged over: noise, data, or noise beside fields of the target."""


class Stage(NamedTuple):
    """A problem that is trained on first.

    Attributes:
        name: of its folder inside the run folder.
        problem: smaller, or easier.
        share: the part of the whole training's work, 0 to 1, that is done by its end.
    """

    name: str
    problem: Problem[Any]
    share: float


class Problem(ABC, Generic[Samples]):
    """A flow, and what is asked of it.

    Attributes:
        config: of the run.
        flow: to be trained.
        source: where the generators of batches live.
        held_out: the reading of `check` by which the best weights are known, the lower the better; None: the last ones.
        start_score: that reading of what the flow starts from, without its trained maps.
    """

    config: AnyRunConfig
    flow: Flow
    source: torch.device
    held_out: str | None = None
    start_score: float = math.inf

    @property
    def training(self) -> TrainingConfig:
        """How the flow is trained."""
        return self.config.training

    @abstractmethod
    def batch(self, n: int, generator: torch.Generator) -> Samples:
        """What the objective is averaged over: noise or data, n samples."""

    def prepare(self, n: int, seed: int) -> None:
        """Show a batch to maps that start from one, before threads share batches."""
        if any(isinstance(module, ActNorm) for module in self.flow.modules()):
            self.flow.train()
            with torch.no_grad():
                self.objective(self.batch(n, torch.Generator(self.source).manual_seed(seed)))

    @abstractmethod
    def objective(self, batch: Samples) -> tuple[Tensor, Tensor]:
        """The loss, a scalar with its graph, and the values of every sample, float64, shape (n, ...), detached."""

    @abstractmethod
    def readings(self, values: Tensor) -> dict[str, float | None]:
        """What the metrics say of a batch, from its values; None where it is unknown."""

    @abstractmethod
    def errors(self, n: int, generator: torch.Generator, pool: Backend) -> list[float]:
        """The integration error of n fresh samples, in nats; several, where steps are adapted to each of them."""

    def adapt_steps(self, errors: Tensor, allowed: float) -> None:
        """Take the integration steps that should bring errors to what is allowed.

        Args:
            errors: as `errors` gives them, float64, shape (1,) or as many.
            allowed: each of them, in the same units.
        """
        worst = float(errors.max())
        for part in approximations(self.flow):
            part.steps = controlled_steps(part.steps, worst, allowed, part.order)

    def check(self, pool: Backend) -> dict[str, float]:
        """What the metrics say now and then, from other samples than those of the training."""
        return {}

    def defect(self) -> float:
        """How far the flow is from being a density, in nats, apart from the error of ln p; 0 where nobody asks."""
        return 0.0

    def forget(self) -> None:
        """Take back what was fitted, of weights that are trained on."""

    @property
    def fitting_cost(self) -> float:
        """Of a sample of `correct`, in units of one of the flow."""
        return 1.0

    def correct(self, samples: int, generator: torch.Generator, pool: Backend) -> Fitted | None:
        """Fit in closed form what can be fitted after the training; None where nothing is.

        Args:
            samples: to fit to, at most.
            generator: of their noise.
            pool: shares them.
        """
        return None

    @abstractmethod
    def snapshot(self) -> np.ndarray | None:
        """A few samples of the flow, always from the same noise; None of one that gives none: it has diverged."""

    def stages(self) -> Sequence[Stage]:
        """What is trained on first, in order; every one begins with what the one before has learnt."""
        return ()

    def begin(self, earlier: Flow) -> None:
        """Take over what another flow has learnt.

        Raises:
            InvalidInput: it is of another make; the message says what fits.
        """
        inherit(earlier, self.flow, adapt_steps=self.training.adapt_steps, looseness=self.training.looseness)
