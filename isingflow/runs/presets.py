"""Named settings: for every kind of flow, on magnets and on data. A new preset is an entry."""

from __future__ import annotations

import math
from dataclasses import dataclass

from msgspec.structs import replace

from isingflow.architectures.base import Domain
from isingflow.architectures.build import AnyFlowConfig
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.cp_image import ConvexImageFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.architectures.start import StartOfData
from isingflow.errors import InvalidInput
from isingflow.lattice import Lattice
from isingflow.runs.settings import MOST_ITERATIONS, TrainingConfig
from isingflow.runtime.checks import count, shown

SMALL_SITES = 256
"""Sites up to which a preset's evaluation has all its samples; on larger fields each costs more and says more."""
FEWEST_SAMPLES = 1024
LARGE_SITES = 256
"""Least number of sites of the tori that a preset trains up from half their lengths."""
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
            larger ones iterations and batch shrink with the square root of the sites. None: as elsewhere.
        start: what a flow of data starts from, see `architectures.start`; None: the best for the data.
        graph: as it is where the flow is made of what happens near single sites; None: as elsewhere.
    """

    flow: AnyFlowConfig
    training: TrainingConfig
    fine: TrainingConfig | None = None
    start: StartOfData | None = None
    graph: Preset | None = None

    def on(self, domain: Domain) -> Preset:
        """The preset as it is on a domain."""
        return self.graph if self.graph is not None and self.flow.fitted(domain).last else self

    def training_on(self, lattice: Lattice) -> TrainingConfig:
        """The training on a lattice: on large tori, one for every size from the smallest up."""
        half = _half_of_large(lattice)
        if self.fine is None or half is None:
            return evaluated_on(lattice.sites, self.training)
        if _half_of_large(half) is None:
            coarse = evaluated_on(half.sites, self.fine.coarse or self.training)
        else:
            coarse = self.training_on(half)
        # A sample of a larger torus says more of what is local, and costs more.
        less = math.sqrt(LARGE_SITES / lattice.sites)
        return replace(
            evaluated_on(lattice.sites, self.fine),
            iterations=max(int(self.fine.iterations * less), 1),
            batch=max(int(self.fine.batch * less), FEWEST_TRAINED_ON),
            coarse=coarse,
        )


def _half_of_large(lattice: Lattice) -> Lattice | None:
    """The torus of half the lengths from which a preset may train up to this one; None where this one is not large."""
    return lattice.halved() if lattice.sites >= LARGE_SITES else None


def evaluated_on(sites: int, training: TrainingConfig) -> TrainingConfig:
    """The training, with fewer samples for its evaluation where fields are large."""
    samples = max(training.evaluation_samples * SMALL_SITES // sites, FEWEST_SAMPLES)
    return replace(training, evaluation_samples=min(samples, training.evaluation_samples))


_QUICK = TrainingConfig(iterations=300, batch=32, learning_rate=6e-3, gradient="path", evaluation_samples=4096)
_LOCAL = FlowConfig(potential="local", radial=0, oriented=0, hidden=8, radius=2, steps=6)
_BY_PATHS = TrainingConfig(batch=64, learning_rate=4e-2, gradient="path")

_RESIDUAL_LOCAL = OTFlowConfig(radial=0, oriented=0, features=8)
_CONVEX_LOCAL = ConvexFlowConfig(radial=0, oriented=0, features=8)
_CONVEX_BY_PATHS = TrainingConfig(batch=48, learning_rate=4e-2, gradient="path")

PRESETS = {
    "quick": Preset(
        FlowConfig(steps=6),
        _QUICK,
        replace(_QUICK, iterations=220, learning_rate=2e-3, coarse=replace(_QUICK, iterations=100, learning_rate=1e-2)),
        graph=Preset(_LOCAL, replace(_BY_PATHS, iterations=500, evaluation_samples=4096)),
    ),
    "accurate": Preset(
        FlowConfig(radial=6, oriented=4, hidden=64, steps=6),
        TrainingConfig(iterations=3000, batch=48, learning_rate=1e-2, gradient="path"),
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


TOY_DIMENSION = 3
"""Up to here data are toys: small networks, many samples."""

FEW_ROWS = 10_000
"""Training rows below which tables are blurred and trained with patience."""
SMALL_IMAGE = 256
"""Pixels up to which images are small: there are few of them, and exact log-determinants cost little."""

_DATA = TrainingConfig(iterations=600, batch=256, learning_rate=1e-2, beta2=0.999, tolerance=0.005, looseness=20.0)
_TOYS = replace(_DATA, iterations=1800, learning_rate=4e-3, beta2=0.99, looseness=10.0, transport_cost=0.01)
_FEW = {"noise": 0.3, "patience": 10, "tolerance": 0.05, "looseness": 2.0}
"""Of tables: what is learnt of few rows is soon their noise; and tenths of a nat matter, not thousandths."""
_TABLES = replace(_TOYS, iterations=600, learning_rate=3e-3, **_FEW)
_CONVEX_TABLES = replace(_DATA, learning_rate=3e-3, **_FEW)
_SMALL_IMAGES = replace(_DATA, iterations=300, batch=128, noise=0.2, patience=10, tolerance=0.1, looseness=2.0)
_PLANE = FlowConfig(potential="dense", hidden=128, radial=0, oriented=0, time_terms=3, steps=4, steepness=12.0)
_DENSE = FlowConfig(potential="dense", hidden=256, radial=0, oriented=0, time_terms=1, steps=3, steepness=12.0)
_RESIDUAL = OTFlowConfig(width=128, layers=1, radial=0, oriented=0, steps=2, steepness=4.0)
_STRAIGHT = {"transport_cost": 1e-3, "hjb": 2e-3}
"""OT-Flow's penalties on toys and tables; one layer that starts at zero is nearly straight without them, too."""
_IMAGE = FlowConfig(potential="image", hidden=16, radial=0, oriented=0, time_terms=3, steps=4)
_IMAGE_RESIDUAL = OTFlowConfig(steps=8, radial=0, oriented=0)
_IMAGES = TrainingConfig(
    iterations=300, batch=32, learning_rate=4e-3, beta2=0.999, clip=200.0, jitter=0.4, tolerance=1.0
)
_CONVEX = ConvexFlowConfig(blocks=4, width=32, layers=2, radial=0, oriented=0)
_SOFT_MAXIMUM = ConvexFlowConfig(network="log-sum-exp", blocks=3, width=256, radial=0, oriented=0)
_SOFT = replace(_DATA, iterations=2600, batch=1024, learning_rate=3e-2, beta2=0.99, check_every=100)
"""Its kernels are so quick that a step of 1,024 points takes half as long again as one of 256, and learns more."""

_CONVEX_IMAGE = {
    "quick": Preset(ConvexImageFlowConfig(), replace(_IMAGES, learning_rate=3e-3)),
    "accurate": Preset(
        ConvexImageFlowConfig(blocks=4, width=32, resolutions=3),
        replace(_IMAGES, iterations=3000, learning_rate=3e-3),
    ),
    "paper": Preset(
        ConvexImageFlowConfig(blocks=9, width=64, layers=3, resolutions=3),
        TrainingConfig(
            iterations=78_000,
            batch=64,
            learning_rate=1e-3,
            schedule="constant",
            weight_decay=1e-6,
            clip=500.0,
            jitter=0.0,
            adapt_steps=False,
            tolerance=1.0,
        ),
        start="normal",
    ),
}

DATA_PRESETS: dict[str, dict[str, dict[str, Preset]]] = {
    "toys": {
        "monge-ampere": {
            "quick": Preset(
                _PLANE, replace(_TOYS, iterations=2000, learning_rate=8e-3, balance=5.0, transport_cost=0.03)
            ),
            "accurate": Preset(
                replace(_PLANE, hidden=256, time_terms=6),
                replace(_TOYS, iterations=12_000, batch=512, learning_rate=2.5e-3, balance=5.0),
            ),
        },
        "ot": {
            "quick": Preset(
                _RESIDUAL,
                replace(_TOYS, iterations=2500, learning_rate=1.6e-2, balance=5.0, transport_cost=1e-2, hjb=5e-2),
            ),
            "accurate": Preset(
                replace(_RESIDUAL, width=256),
                replace(_TOYS, iterations=12_000, batch=512, learning_rate=1.2e-2, balance=5.0, **_STRAIGHT),
            ),
        },
        "convex": {
            "quick": Preset(_SOFT_MAXIMUM, _SOFT),
            "accurate": Preset(replace(_SOFT_MAXIMUM, width=384), replace(_SOFT, iterations=7000)),
        },
    },
    "tables": {
        "monge-ampere": {
            "quick": Preset(replace(_DENSE, steepness=2.0), _TABLES),
            "accurate": Preset(
                replace(_DENSE, hidden=512, steepness=2.0), replace(_TABLES, iterations=2000, batch=512)
            ),
        },
        "ot": {
            "quick": Preset(replace(_RESIDUAL, steepness=1.0), replace(_TABLES, **_STRAIGHT)),
            "accurate": Preset(
                replace(_RESIDUAL, width=256, steepness=1.0),
                replace(_TABLES, iterations=2000, batch=512, **_STRAIGHT),
            ),
        },
        "convex": {
            "quick": Preset(replace(_CONVEX, width=64), _CONVEX_TABLES),
            "accurate": Preset(replace(_CONVEX, width=64), replace(_CONVEX_TABLES, iterations=4000)),
        },
    },
    "small images": {
        "monge-ampere": {
            "quick": Preset(_IMAGE, _SMALL_IMAGES),
            "accurate": Preset(_IMAGE, replace(_SMALL_IMAGES, iterations=1500)),
        },
        "ot": {
            "quick": Preset(replace(_RESIDUAL, steepness=1.0), replace(_SMALL_IMAGES, **_STRAIGHT)),
            "accurate": Preset(
                replace(_RESIDUAL, width=256, steepness=1.0), replace(_SMALL_IMAGES, iterations=1500, **_STRAIGHT)
            ),
        },
        "convex": {
            "quick": Preset(replace(_CONVEX, blocks=2, width=64), _SMALL_IMAGES),
            "accurate": Preset(replace(_CONVEX, width=128), replace(_SMALL_IMAGES, iterations=2000)),
        },
        "convex-image": _CONVEX_IMAGE,
    },
    "images": {
        "monge-ampere": {
            "quick": Preset(_IMAGE, _IMAGES),
            "accurate": Preset(_IMAGE, replace(_IMAGES, iterations=3000)),
            "paper": Preset(
                FlowConfig(
                    potential="dense",
                    hidden=1024,
                    radial=0,
                    oriented=0,
                    time_terms=1,
                    steepness=0.0,
                    time=10.0,
                    steps=100,
                ),
                TrainingConfig(
                    iterations=274_000,
                    batch=100,
                    learning_rate=1e-3,
                    schedule="constant",
                    weight_decay=1e-3,
                    beta2=0.999,
                    clip=0.0,
                    jitter=0.0,
                    adapt_steps=False,
                    tolerance=1.0,
                    check_every=500,
                ),
                start="normal",
            ),
        },
        "ot": {
            "quick": Preset(replace(_IMAGE_RESIDUAL, width=64), replace(_IMAGES, learning_rate=3e-3)),
            "accurate": Preset(
                replace(_IMAGE_RESIDUAL, width=256), replace(_IMAGES, iterations=3000, learning_rate=3e-3)
            ),
        },
        "convex": {
            "quick": Preset(replace(_CONVEX, blocks=1, width=128), replace(_IMAGES, learning_rate=3e-3)),
            "accurate": Preset(
                replace(_CONVEX, blocks=2, width=256), replace(_IMAGES, iterations=3000, learning_rate=3e-3)
            ),
        },
        "convex-image": _CONVEX_IMAGE,
    },
}
"""By family of data, kind of flow and name."""


def _as_published(
    width: int, batch: int, rate: float, steps: int, iterations: int, likelihood: float, hjb: float
) -> Preset:
    """OT-Flow's settings of a table: weights of its loss are L + likelihood * C + hjb * R, ours are in units of C."""
    return Preset(
        OTFlowConfig(width=width, layers=2, radial=0, oriented=0, steps=steps),
        TrainingConfig(
            iterations=iterations,
            batch=batch,
            learning_rate=rate,
            beta2=0.999,
            clip=0.0,
            jitter=0.0,
            adapt_steps=False,
            transport_cost=1 / likelihood,
            hjb=hjb / likelihood,
            tolerance=0.05,
            check_every=200,
        ),
        start="normal",
    )


UCI_PRESETS = {
    "power": _as_published(128, 10_000, 0.03, 10, 36_000, 500, 5),
    "gas": _as_published(350, 2000, 0.01, 10, 60_000, 1200, 40),
    "hepmass": _as_published(256, 2000, 0.02, 12, 40_000, 500, 40),
    "miniboone": _as_published(256, 2000, 0.02, 6, 8000, 100, 15),
    "bsds300": _as_published(512, 300, 0.001, 14, 120_000, 2000, 800),
}
"""OT-Flow's published settings of the UCI sets, by set: its presets `paper`.

The published rate is divided by ten (bsds300: 3.3) whenever the validation data stop improving, up to three times, and
parameters are kept within 1.5 in size; here the rate follows one cycle.
"""


def data_presets(name: str, dimension: int, image: bool) -> dict[str, dict[str, Preset]]:
    """By kind of flow, the presets of a data set: those of its family, and what was published for it."""
    found = DATA_PRESETS[family(dimension, image)]
    return found if name not in UCI_PRESETS else found | {"ot": found["ot"] | {"paper": UCI_PRESETS[name]}}


def suited(training: TrainingConfig, rows: int) -> TrainingConfig:
    """The training for so many rows: of many there is no need to blur them, nor to stop early."""
    return training if rows < FEW_ROWS else replace(training, noise=0.0, patience=0)


def family(dimension: int, image: bool) -> str:
    """Which presets are for data of this dimension: those of toys, tables, small images or images."""
    if image:
        return "small images" if dimension <= SMALL_IMAGE else "images"
    return "toys" if dimension <= TOY_DIMENSION else "tables"
