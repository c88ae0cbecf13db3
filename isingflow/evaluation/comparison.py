"""Flows of several kinds on the same data, side by side: their table, and the figure with all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from isingflow.datasets import Dataset
from isingflow.plots import comparison as plots
from isingflow.plots.densities import density_of, grid_of
from isingflow.plots.style import png
from isingflow.runs.config import by_hand
from isingflow.runs.entries import estimate_in
from isingflow.runs.folder import AnyRun
from isingflow.runs.loading import load
from isingflow.runtime import stopping
from isingflow.statistics.estimate import Estimate

LIKELIHOODS = {
    "start": "start_negative_log_likelihood",
    "train": "train_negative_log_likelihood",
    "validation": "validation_negative_log_likelihood",
    "test": "negative_log_likelihood",
}
"""Columns of the table, and what they are called in reports; those that no report has are left out."""
IMAGES = 8


def table(title: str, reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Reports of runs on the same data as one table, a line each.

    Args:
        title: what they are on.
        reports: by kind of flow, with the keys of `isingflow evaluate --json` on data.
    """
    shown = {name: key for name, key in LIKELIHOODS.items() if any(report.get(key) for report in reports.values())}
    rows = [["flow", *shown, "parameters", "seconds", "checked"]]
    for kind, report in reports.items():
        size = [f"{report.get('parameters', 0):,}", f"{report.get('training_seconds', 0):.0f}"]
        certified = "yes" if report.get("certified") else "NO"
        rows.append([kind, *(_told(report.get(key)) for key in shown.values()), *size, certified])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join([f"{title}: -ln p (nats)", *("  " + "  ".join(line) for line in lines)])


def figure(runs: Mapping[str, AnyRun], data: Dataset) -> bytes:
    """A PNG file: the likelihoods of some runs while they were trained, and what they learnt beside the data.

    Args:
        runs: trained and evaluated, by kind of flow.
        data: what all of them were trained on.
    """
    metrics = {kind: run.metrics() for kind, run in runs.items()}
    first = next(iter(runs.values()))
    level = estimate_in(first.report(), LIKELIHOODS["start"])
    flows = {kind: load(run, device=torch.device("cpu")) for kind, run in runs.items()}
    generator = torch.Generator().manual_seed(0)
    if data.dimension <= 2:
        grid = grid_of(data, generator)
        densities = {kind: density_of(flow, data, grid) for kind, flow in flows.items()}
        drawn = plots.with_densities(metrics, level, grid, densities, data.columns)
    elif data.image_shape is not None:
        images = {"data": next(data.test.batches(IMAGES, generator))}
        for kind, flow in flows.items():
            stopping.check()
            images[kind] = flow.sample(IMAGES, generator=torch.Generator().manual_seed(0))[0]
        levels = {kind: data.to_data(x).reshape(-1, *data.image_shape).numpy() for kind, x in images.items()}
        drawn = plots.with_images(metrics, level, levels)
    else:
        drawn = plots.likelihoods(metrics, level)
    certified = all((run.report() or {}).get("certified") for run in runs.values())
    title = f"{first.config.title()}; preset {first.config.preset}{by_hand(first.config)}, seed {first.config.seed}"
    return png(drawn, title, certified=certified)


def _told(entry: Mapping[str, Any] | None) -> str:
    """An estimate of a report; empty where there is none, or it is not finite."""
    known = entry is not None and None not in (entry.get("value"), entry.get("stderr"))
    return str(Estimate(entry["value"], entry["stderr"])) if entry is not None and known else ""
