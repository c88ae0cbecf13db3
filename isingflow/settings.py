"""What can be set of a flow and of its training: plain frozen data, one class for every kind of flow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True)
class FlowConfig:
    """Architecture of a Monge-Ampere flow.

    Attributes:
        potential: "lattice" (exactly symmetric; needs translation invariance) or "dense" (one hidden layer: ln cosh for
            magnets, softplus with bias for data).
        hidden: number of hidden units.
        radial, oriented: lattice potential only, see `potentials.LatticePotential`.
        time_terms: number of polynomials in time; magnets' dense potential has none.
        average: dense potential of a magnet only: "none", "exact" or "sampled" average over the symmetry group.
        steepness: length of the initial directions of hidden units, in whitened coordinates; data only.
        whitened: magnets only: whether the flow starts from the best Gaussian (and acts on its whitened coordinates);
            else from a standard normal.
        time, steps, tableau: of the integration.
    """

    kind: ClassVar[str] = "monge-ampere"

    potential: str = "lattice"
    hidden: int = 32
    radial: int = 6
    oriented: int = 3
    time_terms: int = 4
    average: str = "none"
    steepness: float = 2.0
    whitened: bool = True
    time: float = 1.0
    steps: int = 8
    tableau: str = "rk4"


@dataclass(frozen=True)
class OTFlowConfig:
    """Architecture of an OT-Flow: a gradient flow whose potential is a residual network of field and time.

    Attributes:
        width, layers: of the network.
        rank: of the quadratic term A'A; data and magnets without translation invariance.
        steepness: length of the initial directions of the opening layer, in whitened coordinates; data only.
        radial, oriented, time_terms: kernels of the exactly symmetric network of translation-invariant magnets, and its
            quadratic term's polynomials in time, see `potentials.LatticeResidualPotential`.
        whitened: as for the Monge-Ampere flow.
        time, steps, tableau: of the integration.
    """

    kind: ClassVar[str] = "ot"

    width: int = 32
    layers: int = 2
    rank: int = 10
    steepness: float = 1.7
    radial: int = 4
    oriented: int = 2
    time_terms: int = 3
    whitened: bool = True
    time: float = 1.0
    steps: int = 4
    tableau: str = "rk4"


@dataclass(frozen=True)
class ConvexFlowConfig:
    """Architecture of a CP-Flow: gradients of input-convex networks, one after the other.

    Attributes:
        blocks: number of convex maps.
        width, layers, augmented, activation: of each network, see `potentials.ConvexPotential`.
        radial, oriented: kernels of the exactly symmetric network of translation-invariant magnets.
        logdet: "exact", or "lanczos": stochastic Lanczos quadrature, trained by conjugate gradients.
        whitened: as for the Monge-Ampere flow.
    """

    kind: ClassVar[str] = "convex"

    blocks: int = 3
    width: int = 24
    layers: int = 1
    augmented: bool = True
    activation: str = "squareplus"
    radial: int = 5
    oriented: int = 3
    logdet: str = "exact"
    whitened: bool = True


BOUNDS = ("upper", "both")
"""What training on a magnet can narrow, see `TrainingConfig.bounds`."""

AnyFlowConfig = FlowConfig | OTFlowConfig | ConvexFlowConfig

FLOWS: dict[str, type[AnyFlowConfig]] = {cls.kind: cls for cls in (FlowConfig, OTFlowConfig, ConvexFlowConfig)}
"""Settings by kind of flow."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a flow is trained.

    Attributes:
        iterations: number of optimiser steps.
        batch: samples per step.
        learning_rate: peak of the one-cycle schedule, or the constant rate.
        schedule: "one-cycle" or "constant".
        weight_decay, beta2, clip: of Adam (L2 form) and of the gradient's norm, for the loss of the whole lattice;
            clip 0 for none.
        jitter: relative half-width of random integration step lengths during training, 0 for a fixed grid.
        adapt_steps: whether training adds and removes integration steps to hold the error near its tolerance.
        transport_cost: weight of the penalty int |dx/dt|^2 / 2 dt.
        hjb: weight of the penalty int |d phi/dt + |grad phi|^2 / 2| dt; needs a potential with a derivative by time.
        force_matching: weight of the penalty |grad ln p + grad E|^2 / N; magnets only.
        bounds: magnets only: what is minimised, "upper": the variational bound on -ln Z, or "both": its distance from
            the lower bound, over Monte Carlo samples of the target. See `objectives`.
        tolerance: largest certified integration error, in nats, of the final flow.
        check_every: iterations between measurements of the integration error.
        evaluation_samples: samples of the report at the end.
        recompute: trade time for memory in backpropagation, see `flows.GradientFlow`.
        coarse: how the flow is trained first, on the lattice of half the lengths; None: it is not. See `coarse`.
    """

    iterations: int = 400
    batch: int = 32
    learning_rate: float = 1e-2
    schedule: str = "one-cycle"
    weight_decay: float = 0.0
    beta2: float = 0.99
    clip: float = 10.0
    jitter: float = 0.3
    adapt_steps: bool = True
    transport_cost: float = 0.0
    hjb: float = 0.0
    force_matching: float = 0.0
    bounds: str = "upper"
    tolerance: float = 0.01
    check_every: int = 25
    evaluation_samples: int = 16384
    recompute: bool = False
    coarse: TrainingConfig | None = None

    def scaled(self, iterations: int) -> TrainingConfig:
        """The same training with another number of iterations, that on smaller lattices in proportion."""
        coarse = self.coarse
        if coarse is not None:
            coarse = coarse.scaled(max(round(coarse.iterations * iterations / self.iterations), 1))
        return replace(self, iterations=iterations, coarse=coarse)

    def narrowing(self, bounds: str) -> TrainingConfig:
        """The same training with other `bounds`, on smaller lattices too."""
        return replace(self, bounds=bounds, coarse=self.coarse and self.coarse.narrowing(bounds))
