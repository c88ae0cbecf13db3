"""What training on each size brings at the last one: bounds of every stage's flow, enlarged, on the same noise.

    isingflow train --size 128 --critical --preset accurate --set training.carried=false training.coarse.carried=false \
        --output RUN
    OMP_NUM_THREADS=1 python benchmarks/carried.py RUN

Every flow has the products that were fitted in the end, and half as many integration steps as the run's own: their
error is 16 times as large, some 0.01 nats. Gaps are in nats; `difference` is that from the flow which was trained on
all sizes. `carried.json` has a row for every run.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from machine import describe

import isingflow
from isingflow.flows import Flow, GradientFlow, gradient_flows
from isingflow.flows.products import fitted_map
from isingflow.runs.folder import open_magnet
from isingflow.training.inherit import inherit, trained_maps

FILE = Path("docs/benchmarks/carried.json")
ROWS = 8
"""Samples in flight at a time."""


def enlarged(stages: list[Path]) -> Flow:
    """The flow of the last of some run folders, on the lattice of the first one."""
    flow = isingflow.load(stages[-1])
    for stage in reversed(stages):
        larger = open_magnet(stage).config.new_flow()
        inherit(flow, larger)
        flow = larger
    return flow


def finish(earlier: Flow, flow: Flow) -> None:
    """Give a flow the products that were fitted to another one of the same lattice, and half of its steps."""
    for before, now in zip(_trained(earlier), _trained(flow), strict=True):
        now.steps = math.ceil(before.steps / 2)
    source, found = fitted_map(earlier), fitted_map(flow)
    found.potential.scales.copy_(source.potential.scales)
    found.potential.choose(source.potential.chosen)
    found.gradient.steps = source.gradient.steps


def _trained(flow: Flow) -> list[GradientFlow]:
    return [gradient for transform in trained_maps(flow) for gradient in gradient_flows(transform)]


@torch.no_grad()
def excesses(flow: Flow, target: isingflow.HubbardStratonovich, samples: int) -> torch.Tensor:
    """ln p + E + ln Z of samples, the same noise for every flow, shape (samples,)."""
    generator = torch.Generator().manual_seed(1)
    exact = target.exact_free_energy()[0]
    found = []
    for _ in range(samples // ROWS):
        field, log_prob = flow.sample(ROWS, generator=generator)
        found.append(log_prob.double() + target.energy(field.double()) - exact)
    return torch.cat(found)


def mean(values: torch.Tensor) -> dict[str, float]:
    return {"value": float(values.mean()), "stderr": float(values.std() / len(values) ** 0.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    stages = [arguments.run]
    while (stages[-1] / "coarse").exists():
        stages.append(stages[-1] / "coarse")
    final, config = isingflow.load(arguments.run), open_magnet(arguments.run).config
    target = config.target()
    own, rows = None, []
    for last in range(len(stages)):
        flow = enlarged(stages[: last + 1])
        finish(final, flow)
        found = excesses(flow, target, arguments.samples)
        own = found if own is None else own
        trained_on = list(open_magnet(stages[last]).config.lattice.shape)
        rows.append({"trained_up_to": trained_on, "gap_nats": mean(found), "difference": mean(found - own)})
        print(json.dumps(rows[-1]), flush=True)
    known = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else {}
    known[f"{config.lattice}, beta {config.beta:g}, {config.preset}, seed {config.seed}"] = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/carried.py RUN --samples {arguments.samples}",
        "threads": torch.get_num_threads(),
        **describe(),
        "stages": rows,
    }
    arguments.output.write_text(json.dumps({"rows": known}, indent=1) + "\n")


if __name__ == "__main__":
    main()
