"""Paths of a curved flow beside those of a straight one, on one toy density: a figure of the OT-Flow poster.

    python benchmarks/paths.py --toy pinwheel --output docs/benchmarks/paths.json --figure docs/figures/transport.png

The straight one is OT-Flow as its quick preset says. The curved one is a Monge-Ampere flow whose potential depends on
time and is trained without penalties: nothing then keeps paths from taking detours.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from machine import describe
from msgspec.structs import replace

from isingflow import datasets
from isingflow.evaluation.data import evaluate_density
from isingflow.flows.diagnostics import trajectories
from isingflow.plots.style import png
from isingflow.plots.transport import trajectories_figure
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.loading import load
from isingflow.training import train

CPU = torch.device("cpu")
SHOWN = 200
CURVED = {"hidden": 128, "time_terms": 3, "steepness": 2.0, "steps": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", default="pinwheel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    arguments = parser.parse_args()

    data = datasets.load(arguments.toy, seed=arguments.seed)
    paths, reports = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for title, kind, flow_changes, training_changes in (
            ("no penalty", "monge-ampere", CURVED, {"transport_cost": 0.0, "learning_rate": 1e-2}),
            ("OT-Flow", "ot", {}, {}),
        ):
            config = DensityConfig.from_preset("quick", data, flow=kind, seed=arguments.seed)
            training = replace(config.training, **training_changes)
            config = replace(config, flow=replace(config.flow, **flow_changes), training=training)
            run = RunFolder.create(Path(scratch) / kind, config)
            train(run, device=CPU, data=data)
            flow = load(run.path)
            latent = flow.noise(SHOWN, torch.Generator().manual_seed(arguments.seed))
            paths[title] = trajectories(flow, latent)[0].numpy()
            reports[kind] = evaluate_density(run, data, device=CPU).as_dict()
            print(title, reports[kind]["straightness"], reports[kind]["negative_log_likelihood"], flush=True)
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    arguments.figure.write_bytes(
        png(trajectories_figure(paths), f"{arguments.toy}; preset quick, seed {arguments.seed}")
    )
    command = f"python benchmarks/paths.py {' '.join(sys.argv[1:])}"
    arguments.output.write_text(json.dumps({"command": command, **describe(), **reports}, indent=1) + "\n")


if __name__ == "__main__":
    main()
