"""Named settings of flows of data, by family of data, kind of flow and name."""

from __future__ import annotations

from msgspec.structs import replace

from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.cp_image import ConvexImageFlowConfig
from isingflow.architectures.monge_ampere import FlowConfig
from isingflow.architectures.ot_flow import OTFlowConfig
from isingflow.runs.presets import Preset
from isingflow.runs.settings import TrainingConfig

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
