"""Tables of few rows: every flow with its preset `quick`, on all parts of the data and beside what it starts from."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from figures.item import Item, Options

import isingflow
from isingflow import datasets
from isingflow.architectures.start import fitted_start
from isingflow.flows import Flow
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder

TABLES = {"wine": "gaussian", "breast-cancer": "gaussian", "digits": "copula"}
"""With the start that all of them had before there were others."""
KINDS = ("monge-ampere", "ot", "convex")
QUICK_ITERATIONS = 25


def _row(name: str, kind: str, seed: int, *, quick: bool) -> dict[str, Any]:
    """One flow, trained and evaluated."""
    data = datasets.load("tabular", path=name, seed=seed)
    plain = Flow((data.dimension,), fitted_start(data, TABLES[name], torch.Generator().manual_seed(seed)))
    rows = torch.cat(list(data.test.batches(5000, torch.Generator().manual_seed(0))))
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        config = DensityConfig.from_preset(
            "quick", data, path=name, flow=kind, seed=seed, iterations=QUICK_ITERATIONS if quick else None
        )
        run = RunFolder.create(Path(folder) / "run", config)
        trained = isingflow.train(run, data=data, progress=False)
        seconds = time.process_time() - begun
        found = isingflow.evaluate(trained, save=False)
    row = {
        "table": name,
        "flow": kind,
        "seed": seed,
        "training_processor_seconds": seconds,
        f"{TABLES[name]}_start": -plain.log_prob(rows).mean().item(),
        "start": config.start,
        **{f"start_{part}": found.starts[part].value for part in ("train", "validation", "test")},
        "train": found.train.value,
        "validation": found.validation.value,
        "test": found.test.value,
        "test_error": found.test.stderr,
        "kept_iteration": found.kept_iteration,
        "certified": found.certified,
    }
    print(
        " ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items())
    )
    return row


def _make(options: Options) -> dict[str, Any]:
    found = [_row(name, kind, seed, quick=options.quick) for seed in options.seeds for name in TABLES for kind in KINDS]
    medians = {
        name: {
            kind: statistics.median(row["test"] for row in found if (row["table"], row["flow"]) == (name, kind))
            for kind in KINDS
        }
        for name in TABLES
    }
    return {"unit": "nats per row, -ln p", "median_of_test": medians, "rows": found}


ITEMS = [
    Item(
        "few-rows",
        "OT-Flow",
        "density estimation on wine, breast cancer and digits, beside the start",
        "scikit-learn",
        3.0,
        _make,
    )
]
