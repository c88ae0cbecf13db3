"""OT-Flow's table of density estimation: likelihood, discrepancy, time and steps beside a free-form flow (FFJORD).

The five UCI sets of the paper where their files are found (`--data`); scikit-learn's tables; and densities of the same
dimensions, generated: a mixture of Gaussians behind two affine couplings by random networks, which has exact samples
and an exact density. FFJORD is zuko's free-form flow, trained by Hutchinson's trace and measured by the exact one.

Both flows start from the best Gaussian and see the same rows. Likelihoods are those of standardised columns. The
discrepancy of samples from test data is that of OT-Flow's code, the unbiased MMD with the kernel exp(-|x - y|^2), and
once more with exp(-|x - y|^2 / d), as the former vanishes between most points of many dimensions. Times are the
processor's.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures.item import Item, Options
from torch import Tensor

import isingflow
from isingflow import datasets
from isingflow.architectures.start import fitted_part
from isingflow.datasets import Dataset
from isingflow.datasets.tabular import BUNDLED
from isingflow.datasets.uci import UCIS
from isingflow.errors import DatasetError
from isingflow.evaluation.data import evaluate_density
from isingflow.flows import Flow

ROWS = 20_000
"""Of a generated set."""
COMPONENTS, HIDDEN = 5, 16
COMPARED = 2000
"""Samples and test rows between which the discrepancy is measured, and of which the free-form flow is measured."""
QUICK_ROWS = 2000
SECONDS = 20.0
"""Of the processor, that the free-form flow is trained."""
BATCH, RATE = 256, 3e-3
HIDDEN_LAYERS = (64, 64, 64)
Known = Callable[[Tensor], Tensor]


def generated(dimension: int, rows: int, seed: int = 0) -> tuple[np.ndarray, Known]:
    """Rows of a density that is known, and ln p of rows, float64.

    Args:
        dimension: d.
        rows: how many.
        seed: of the density and of the rows.
    """
    random = torch.Generator().manual_seed(1000 * dimension + seed)
    normal = lambda *shape: torch.randn(*shape, generator=random, dtype=torch.float64)  # noqa: E731
    means = 1.5 * normal(COMPONENTS, dimension)
    factors = torch.linalg.qr(normal(COMPONENTS, dimension, dimension))[0] * (
        0.3 + normal(COMPONENTS, 1, dimension).abs()
    )
    half = dimension // 2
    layers = []
    for width in (half, dimension - half):
        out = dimension - width
        layers.append(
            (normal(HIDDEN, width) / math.sqrt(width), normal(HIDDEN), normal(2 * out, HIDDEN) / math.sqrt(HIDDEN))
        )

    def shift_and_scale(layer: tuple[Tensor, Tensor, Tensor], known: Tensor) -> tuple[Tensor, Tensor]:
        first, bias, second = layer
        shift, scale = ((known @ first.T + bias).tanh() @ second.T).chunk(2, 1)
        return 2 * shift, scale.tanh()

    def log_prob(x: Tensor) -> Tensor:
        left, right = x.double().tensor_split([half], 1)
        shift, scale = shift_and_scale(layers[1], right)
        left, log_slope = (left - shift) * (-scale).exp(), -scale.sum(1)
        shift, scale = shift_and_scale(layers[0], left)
        right, log_slope = (right - shift) * (-scale).exp(), log_slope - scale.sum(1)
        mixture = torch.distributions.MultivariateNormal(means, scale_tril=torch.linalg.cholesky(factors @ factors.mT))
        each = mixture.log_prob(torch.cat([left, right], 1)[:, None])
        return each.logsumexp(1) - math.log(COMPONENTS) + log_slope

    component = torch.randint(COMPONENTS, (rows,), generator=random)
    z = means[component] + (factors[component] @ normal(rows, dimension, 1)).squeeze(2)
    left, right = z.tensor_split([half], 1)
    shift, scale = shift_and_scale(layers[0], left)
    right = right * scale.exp() + shift
    shift, scale = shift_and_scale(layers[1], right)
    left = left * scale.exp() + shift
    return torch.cat([left, right], 1).numpy(), log_prob


def discrepancy(x: Tensor, y: Tensor, alpha: float = 1.0) -> float:
    """The unbiased squared MMD of two sets of points with the kernel exp(-alpha |x - y|^2)."""
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-alpha * torch.cdist(a, b).square()).exp()

    n, m = len(x), len(y)
    own = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return float(own - 2 * kernel(x, y).mean())


def discrepancies(samples: Tensor, rows: Tensor) -> dict[str, float]:
    """Of samples of a flow from test rows, by both kernels."""
    dimension = rows.shape[1]
    return {"mmd": discrepancy(samples, rows), "mmd_wide": discrepancy(samples, rows, 1 / dimension)}


def ours(data: Dataset, preset: str, seed: int, rows: Tensor, iterations: int | None) -> tuple[dict[str, Any], Flow]:
    """OT-Flow by a preset."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        trained = isingflow.train(
            data,
            output=f"{folder}/run",
            flow="ot",
            preset=preset,
            seed=seed,
            iterations=iterations,
            device="cpu",
            progress=False,
        )
        seconds = time.process_time() - begun
        found = evaluate_density(trained.run, data, device=torch.device("cpu"))
        flow, training = trained.flow, trained.run.config.training
    begun = time.process_time()
    samples, _ = flow.sample(COMPARED, generator=torch.Generator().manual_seed(seed))
    numbers = {
        "negative_log_likelihood": found.test.as_dict(),
        "start_negative_log_likelihood": found.start.as_dict(),
        "parameters": found.parameters,
        "training_seconds": seconds,
        "iterations": training.iterations,
        "steps": found.integration_steps,
        "certified": found.certified,
        "integration_error_nats": found.integration_error,
        "inverse_error": found.inverse_error,
        "sampling_seconds": time.process_time() - begun,
        **discrepancies(samples, rows),
    }
    return numbers, flow


def free_form(data: Dataset, start: Flow, seed: int, rows: Tensor, seconds: float) -> dict[str, Any]:
    """FFJORD on the coordinates in which the best Gaussian is round: zuko's flow, for so many seconds."""
    from zuko.flows import CNF

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    flow = CNF(data.dimension, hidden_features=HIDDEN_LAYERS, exact=False)
    optimiser = torch.optim.Adam(flow.parameters(), lr=RATE)
    evaluations = 0

    def counted(*_: Any) -> None:
        nonlocal evaluations
        evaluations += 1

    begun, iterations = time.process_time(), 0
    while time.process_time() - begun < seconds:
        x = start.inverse(data.train.draw(BATCH, generator))[0]
        loss = -flow().log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        iterations += 1
        # From the peak to a thousandth along half a cosine, by the time that is left.
        part = min((time.process_time() - begun) / seconds, 1.0)
        optimiser.param_groups[0]["lr"] = RATE * (1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * part)) / 2)
    trained_for = time.process_time() - begun
    flow.transform.exact = True
    handle = flow.transform.ode.register_forward_hook(counted)
    with torch.no_grad():
        z, slope = start.inverse(rows)
        log_prob = torch.cat([flow().log_prob(part) for part in z.split(500)]).double() + slope
        used = evaluations / math.ceil(len(z) / 500)
        begun, evaluations = time.process_time(), 0
        samples = start(flow().sample((COMPARED,)))[0]
    sampling = time.process_time() - begun
    handle.remove()
    values = -log_prob
    return {
        "negative_log_likelihood": {
            "value": values.mean().item(),
            "stderr": (values.std() / len(values) ** 0.5).item(),
        },
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "training_seconds": trained_for,
        "iterations": iterations,
        "evaluations": used,
        "sampling_seconds": sampling,
        "sampling_evaluations": evaluations,
        **discrepancies(samples, rows),
    }


def tables(options: Options, folder: Path) -> dict[str, tuple[Dataset, str, Known | None]]:
    """Data sets by name, with the preset for them and their density where that is known."""
    found: dict[str, tuple[Dataset, str, Known | None]] = {}
    for name in UCIS:
        try:
            found[name] = datasets.load("tabular", path=name, root=options.data), "quick", None
        except DatasetError:
            continue
    for name in BUNDLED:
        found[name] = datasets.load("tabular", path=name), "quick", None
    for name, description in UCIS.items():
        if name not in found:
            rows, log_prob = generated(description.columns, QUICK_ROWS if options.quick else ROWS)
            file = folder / f"{description.columns}.npy"
            np.save(file, rows)
            found[f"generated, d = {description.columns}"] = datasets.load("tabular", path=file), "quick", log_prob
    return found


def otflow_tables(options: Options) -> dict[str, Any]:
    """All tables, one run of each flow for every seed."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (data, preset, known) in tables(options, Path(folder)).items():
            rows = next(data.test.batches(COMPARED, torch.Generator().manual_seed(0)))
            fresh = next(data.train.batches(COMPARED, torch.Generator().manual_seed(1)))
            entry: dict[str, Any] = {"dimension": data.dimension, "rows": len(data.train), "test_rows": len(data.test)}
            entry["data"] = discrepancies(fresh, rows)
            if known is not None:
                every = torch.cat(list(data.test.batches(COMPARED, torch.Generator().manual_seed(0))))
                exact = -(known(data.to_data(every)) + data.space.log_slope(every))
                entry["entropy"] = {"value": exact.mean().item(), "stderr": (exact.std() / len(exact) ** 0.5).item()}
            for seed in options.seeds:
                numbers, flow = ours(data, preset, seed, rows, 20 if options.quick else None)
                start = fitted_part(flow)
                entry.setdefault("ot", []).append(numbers)
                entry.setdefault("free_form", []).append(
                    free_form(
                        data, start, seed, rows[: 200 if options.quick else None], 1.0 if options.quick else SECONDS
                    )
                )
                samples = start.sample(COMPARED, generator=torch.Generator().manual_seed(seed))[0]
                entry.setdefault("gaussian", []).append(discrepancies(samples, rows))
            results[name] = entry
            print(name, entry, flush=True)
    return {"tables": results, "settings": {"seconds": SECONDS, "batch": BATCH, "rate": RATE, "hidden": HIDDEN_LAYERS}}


ITEMS = [
    Item(
        "ot-flow-tables",
        "OT-Flow",
        "tables: likelihood, MMD, time and steps beside FFJORD",
        "zuko; --data for the UCI sets",
        6,
        otflow_tables,
    )
]
