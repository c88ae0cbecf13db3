"""Table 2 of CP-Flow: images in bits per dimension, with ablations, as far as two cores go.

MNIST from a standard normal, as published: logits of jittered levels, then convolutional input-convex maps, each behind
an activation normalisation. Every variant is trained for the same few iterations with the same seed, far from done: the
table ranks what helps early, and the command for a GPU in docs/papers/cp-flow-images.md trains the published sizes.

    full              two blocks, at one and at two pixels a side, 16 features, two layers
    no normalisation  without activation normalisation
    no augmentation   deeper layers do not see the image
    one resolution    both blocks at single pixels
    no convolution    the dense network of as many units (24)
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from figures.item import Item, Options
from msgspec.structs import replace

from isingflow import datasets
from isingflow.architectures.base import Domain
from isingflow.architectures.build import build_density_flow
from isingflow.architectures.cp_flow import ConvexFlowConfig
from isingflow.architectures.cp_image import ConvexImageFlowConfig
from isingflow.datasets import Dataset
from isingflow.flows import Flow, Inverted
from isingflow.statistics.free_energy import mean

ITERATIONS, BATCH, RATE, CLIP = 120, 16, 5e-3, 500.0
TEST = 128
FULL = ConvexImageFlowConfig(activation="gaussian")
VARIANTS: dict[str, Any] = {
    "full": FULL,
    "no normalisation": replace(FULL, normalised=False),
    "no augmentation": replace(FULL, augmented=False),
    "one resolution": replace(FULL, resolutions=1),
    "no convolution": ConvexFlowConfig(
        blocks=2, width=24, layers=2, activation="gaussian", radial=0, oriented=0, logdet="lanczos"
    ),
}


def trained(flow: Flow, data: Dataset, seed: int, iterations: int) -> float:
    """Train a flow by maximum likelihood; the processor seconds that it took."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(flow.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=iterations, pct_start=0.2)
    started = time.process_time()
    for _ in range(iterations):
        flow.redraw(generator)
        loss = -flow.log_prob(data.train.draw(BATCH, generator)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        optimiser.step()
        schedule.step()
    return time.process_time() - started


@torch.no_grad()
def scored(flow: Flow, data: Dataset, count: int) -> dict[str, Any]:
    """Bits per dimension of the first test images, with the limit on what Lanczos' quadrature adds to them."""
    x = next(data.test.batches(count, torch.Generator().manual_seed(0)))
    z, truncation = x, torch.zeros(len(x), dtype=torch.float64)
    for part in reversed(flow.transforms):
        before, z = z, part.inverse(z)[0]
        estimate = part.transform.logdet_error(before, z) if isinstance(part, Inverted) else None
        truncation += 0 if estimate is None else estimate.truncation
    return {
        "bits_per_dimension": mean(data.bits_per_dimension(flow.log_prob(x), x)).as_dict(),
        "quadrature_bits_per_dimension": float(truncation.mean()) / (data.dimension * math.log(2)),
    }


def make(options: Options) -> dict[str, Any]:
    """Bits per dimension of test images for every variant and seed."""
    iterations, test = (3, 8) if options.quick else (ITERATIONS, TEST)
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in options.seeds:
        data = datasets.load("mnist", root=options.data, seed=seed)
        for name, settings in VARIANTS.items():
            domain = Domain.of_data(data.dimension, data.image_shape[1] if data.image_shape else 0)
            flow = build_density_flow(domain, settings, [], seed=seed).train()
            seconds = trained(flow, data, seed, iterations)
            found = scored(flow.eval(), data, test)
            row = {"seed": seed, "parameters": flow.parameter_count, "training_processor_seconds": seconds, **found}
            rows.setdefault(name, []).append(row)
            print(f"{name}: {row}", flush=True)
    return {"iterations": iterations, "batch": BATCH, "test_images": test, "variants": rows}


ITEMS = [
    Item(
        "cp-flow-table-2",
        "CP-Flow",
        "bits per dimension of MNIST by convolutional input-convex networks, with ablations",
        "MNIST",
        4,
        make,
    )
]
