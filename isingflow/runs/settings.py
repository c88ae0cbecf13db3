"""What can be set of a training: frozen settings with limits, one class for every kind of flow."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta
from msgspec.structs import replace

from isingflow.runtime.settings import Count, CountFromZero, Fraction, NotNegative, Positive, Settings

Bounds = Literal["upper", "both"]
BOUNDS: tuple[Bounds, ...] = get_args(Bounds)
"""What training on a magnet can narrow, see `TrainingConfig.bounds`."""
Gradient = Literal["total", "path"]
Schedule = Literal["one-cycle", "constant"]
MOST_ITERATIONS = 10**9
LOOSENESS = 2.0
"""Integration error allowed while training, in units of the run's tolerance, where nothing else is said."""


class TrainingConfig(Settings, frozen=True):
    """How a flow is trained.

    Attributes:
        iterations: number of optimiser steps.
        batch: samples per step.
        learning_rate: peak of the one-cycle schedule, or the constant rate.
        schedule: "one-cycle" or "constant".
        balance: directions and biases of the opening layers of dense and residual potentials learn so many times as
            fast, all other parameters so many times as slowly, as the learning rate says.
        weight_decay, beta2, clip: of Adam (L2 form) and of the gradient's norm; clip 0 for none.
        per_site: whether the loss is divided by the number of sites; to Adam it is the same, but for the decay beside
            it, which is as many times stronger.
        jitter: relative half-width of random integration step lengths during training, 0 for a fixed grid.
        adapt_steps: whether training adds and removes integration steps to hold the error near its tolerance.
        transport_cost: weight of the penalty int |dx/dt|^2 / 2 dt.
        hjb: weight of the penalty int |d phi/dt + |grad phi|^2 / 2| dt; needs a potential with a derivative by time.
        force_matching: weight of the penalty |grad ln p + grad E|^2 / N; magnets only.
        bounds: magnets only: what is minimised, "upper": the variational bound on -ln Z, or "both": its distance from
            the lower bound, over Monte Carlo samples of the target. See `objectives`.
        gradient: targets only: how the upper bound is differentiated, "total": through samples and density, or "path":
            through the samples alone, with less noise; see `objectives.path_gradient`.
        noise: data only: part of a row's deviation, 0 to below 1, that is replaced by noise in training, in whitened
            coordinates: z becomes sqrt(1 - noise^2) z + noise xi, whose covariance is that of z.
        patience: data only: checks without better likelihood of the validation data after which the training ends;
            0: it does not end early. The weights that are best on them are kept in any case.
        tolerance: largest certified integration error, in nats, of the final flow.
        looseness: integration error allowed while training, in units of the tolerance.
        check_every: iterations between checks: of the integration error, and of validation data.
        evaluation_samples: samples of the report at the end.
        fitting_samples: samples that products of nearby sites are fitted to after the training, see `flow.products`;
            no more than twice as many as were trained on.
        recompute: trade time for memory in backpropagation, see `flows.GradientFlow`.
        coarse: how the flow is trained first, on the lattice of half the lengths; None: it is not. See `coarse`.
        carried: whether what was learnt there is only carried over: one iteration is made, whatever `iterations` says,
            and integration steps are set.
    """

    iterations: Annotated[int, Meta(ge=1, le=MOST_ITERATIONS)] = 400
    batch: Count = 32
    learning_rate: Positive = 1e-2
    schedule: Schedule = "one-cycle"
    balance: Positive = 1.0
    weight_decay: NotNegative = 0.0
    beta2: Fraction = 0.99
    clip: NotNegative = 10.0
    per_site: bool = False
    jitter: Fraction = 0.3
    adapt_steps: bool = True
    transport_cost: NotNegative = 0.0
    hjb: NotNegative = 0.0
    force_matching: NotNegative = 0.0
    bounds: Bounds = "upper"
    gradient: Gradient = "total"
    noise: Fraction = 0.0
    patience: CountFromZero = 0
    tolerance: Positive = 0.01
    looseness: Positive = LOOSENESS
    check_every: Count = 25
    evaluation_samples: Count = 16384
    fitting_samples: CountFromZero = 4096
    recompute: bool = False
    coarse: TrainingConfig | None = None
    carried: bool = False

    @property
    def updates(self) -> int:
        """Iterations that are made."""
        return 1 if self.carried else self.iterations

    def alone(self) -> TrainingConfig:
        """The same training without smaller lattices."""
        return replace(self, coarse=None, carried=False)

    def scaled(self, iterations: int) -> TrainingConfig:
        """The same training with another number of iterations, that on smaller lattices in proportion."""
        coarse = self.coarse
        if coarse is not None:
            coarse = coarse.scaled(max(round(coarse.iterations * iterations / self.iterations), 1))
        return replace(self, iterations=iterations, coarse=coarse)

    def narrowing(self, bounds: str) -> TrainingConfig:
        """The same training with other `bounds`, on smaller lattices too."""
        return replace(self, bounds=bounds, coarse=self.coarse and self.coarse.narrowing(bounds))
