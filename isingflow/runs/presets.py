"""Named settings: for every kind of flow, on magnets and on data. A new preset is an entry."""

from __future__ import annotations

import math
from dataclasses import dataclass

from msgspec.structs import replace

from isingflow.architectures.base import Domain
from isingflow.architectures.build import AnyFlowConfig
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.architectures.start import StartOfData
from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice
from isingflow.runs.settings import MOST_ITERATIONS, TrainingConfig
from isingflow.runtime.checks import count, shown

SMALL_SITES = 256
"""Sites up to which a preset's evaluation has all its samples; on larger fields each costs more and says more."""
FEWEST_SAMPLES = 256
LARGE_SITES = 256
"""Least number of sites of the tori that a preset trains up from half their lengths."""
FEWEST_FITTED = 2048
"""Samples that products are fitted to on large tori, at least."""
FEWEST_TRAINED_ON = 8
"""Samples of a batch of large tori, at least."""


@dataclass(frozen=True)
class Preset:
    """A named pair of architecture and training.

    Attributes:
        flow: the architecture.
        training: as it is on data and on most lattices.
        fine: as it is on uniform tori with even lengths of `LARGE_SITES`, where the flow starts from that of half the
            lengths, its `coarse` being the training on the first torus that is not large (`training`, if None); on
            larger ones iterations and batch shrink with the square root of the sites, and the rate with the sites, so
            that what has carried over is not lost. None: as elsewhere.
        start: what a flow of data starts from, see `architectures.start`; None: the best for the data.
        more: a family, for all temperatures of a range, is trained for so many times the iterations.
        graph: as it is where the flow is made of what happens near single sites; None: as elsewhere.
    """

    flow: AnyFlowConfig
    training: TrainingConfig
    fine: TrainingConfig | None = None
    start: StartOfData | None = None
    graph: Preset | None = None
    more: int = 2

    def on(self, domain: Domain) -> Preset:
        """The preset as it is on a domain."""
        return self.graph if self.graph is not None and self.flow.fitted(domain).last else self

    def training_on(self, lattice: Lattice, carried_from: float = math.inf) -> TrainingConfig:
        """The training on a lattice: on large tori, one for every size from the smallest up.

        Args:
            lattice: of the magnet.
            carried_from: shortest length of the tori whose flow is carried over to larger ones.
        """
        half = _half_of_large(lattice)
        if self.fine is None or half is None:
            return evaluated_on(lattice.sites, self.training)
        if _half_of_large(half) is None:
            coarse = evaluated_on(half.sites, self.fine.coarse or self.training)
        else:
            coarse = self.training_on(half, carried_from)
        # A sample of a larger torus says more of what is local, and costs more.
        less = math.sqrt(LARGE_SITES / lattice.sites)
        return replace(
            evaluated_on(lattice.sites, self.fine),
            iterations=max(int(self.fine.iterations * less), 1),
            batch=max(int(self.fine.batch * less), FEWEST_TRAINED_ON),
            learning_rate=self.fine.learning_rate * less**2,
            fitting_samples=max(int(self.fine.fitting_samples * less), FEWEST_FITTED),
            coarse=coarse,
            carried=min(half.shape) >= carried_from,
        )


def _half_of_large(lattice: Lattice) -> Lattice | None:
    """The torus of half the lengths from which a preset may train up to this one; None where this one is not large."""
    return lattice.halved() if lattice.sites >= LARGE_SITES else None


def evaluated_on(sites: int, training: TrainingConfig) -> TrainingConfig:
    """The training, with fewer samples for its evaluation where fields are large."""
    samples = max(training.evaluation_samples * SMALL_SITES // sites, FEWEST_SAMPLES)
    return replace(training, evaluation_samples=min(samples, training.evaluation_samples))


_QUICK = TrainingConfig(
    iterations=300, batch=32, learning_rate=6e-3, gradient="path", evaluation_samples=4096, fitting_samples=3072
)
_LOCAL = FlowConfig(potential="local", radial=0, oriented=0, hidden=8, radius=2, steps=6)
_BY_PATHS = TrainingConfig(batch=64, learning_rate=4e-2, gradient="path")

_RESIDUAL_LOCAL = OTFlowConfig(radial=0, oriented=0, features=8)
_CONVEX_LOCAL = ConvexFlowConfig(radial=0, oriented=0, features=8)
_CONVEX_BY_PATHS = TrainingConfig(batch=48, learning_rate=4e-2, gradient="path")

PRESETS = {
    "quick": Preset(
        FlowConfig(steps=6, products=4),
        _QUICK,
        replace(_QUICK, iterations=180, learning_rate=2e-3, coarse=replace(_QUICK, iterations=100, learning_rate=1e-2)),
        graph=Preset(_LOCAL, replace(_BY_PATHS, iterations=500, evaluation_samples=4096)),
    ),
    "accurate": Preset(
        FlowConfig(radial=6, oriented=4, hidden=64, steps=6, products=4),
        TrainingConfig(iterations=2000, batch=48, learning_rate=1e-2, gradient="path"),
        TrainingConfig(iterations=1200, batch=32, learning_rate=1e-3, gradient="path"),
        graph=Preset(_LOCAL, replace(_BY_PATHS, iterations=2000, learning_rate=3e-2)),
    ),
    "paper": Preset(
        FlowConfig(
            potential="dense",
            hidden=512,
            average="sampled",
            whitened=False,
            time=5.0,
            steps=12,
            training_steps=50,
            radial=0,
            oriented=0,
        ),
        TrainingConfig(
            iterations=2000,
            batch=64,
            learning_rate=1e-3,
            schedule="constant",
            weight_decay=1e-3,
            per_site=True,
            beta2=0.999,
            clip=0.0,
            jitter=0.0,
            adapt_steps=False,
            check_every=2000,
            evaluation_samples=64,
        ),
    ),
}
"""Monge-Ampere flows of magnets."""

MAGNET_PRESETS: dict[str, dict[str, Preset]] = {
    "monge-ampere": PRESETS,
    "ot": {
        "quick": Preset(
            OTFlowConfig(),
            TrainingConfig(iterations=300, batch=64, learning_rate=8e-3, evaluation_samples=4096),
            graph=Preset(_RESIDUAL_LOCAL, replace(_BY_PATHS, iterations=150, evaluation_samples=4096)),
        ),
        "accurate": Preset(
            OTFlowConfig(),
            TrainingConfig(iterations=1500, batch=64, learning_rate=8e-3),
            graph=Preset(_RESIDUAL_LOCAL, replace(_BY_PATHS, iterations=600)),
        ),
    },
    "convex": {
        "quick": Preset(
            ConvexFlowConfig(),
            TrainingConfig(iterations=300, batch=48, evaluation_samples=4096),
            graph=Preset(_CONVEX_LOCAL, replace(_CONVEX_BY_PATHS, iterations=150, evaluation_samples=4096)),
        ),
        "accurate": Preset(
            ConvexFlowConfig(),
            TrainingConfig(iterations=1800, batch=48),
            graph=Preset(_CONVEX_LOCAL, replace(_CONVEX_BY_PATHS, iterations=600)),
        ),
    },
}
"""By kind of flow, then by name."""


def find_preset(presets: dict[str, dict[str, Preset]], flow: str, name: str) -> Preset:
    """A preset by kind of flow and name.

    Raises:
        InvalidInput: unknown kind of flow or preset; the known ones are listed.
    """
    if not isinstance(flow, str) or flow not in presets:
        raise InvalidInput(f"flow {shown(flow)}: expected one of {', '.join(presets)}")
    if not isinstance(name, str) or name not in presets[flow]:
        raise InvalidInput(f"preset {shown(name)}: expected one of {', '.join(presets[flow])}")
    return presets[flow][name]


def shortened(training: TrainingConfig, iterations: int | None) -> TrainingConfig:
    """The training with this number of iterations, if one is given.

    Raises:
        InvalidInput: it is no number of iterations.
    """
    return training if iterations is None else training.scaled(count("iterations", iterations, most=MOST_ITERATIONS))
