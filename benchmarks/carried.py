"""What training on each size brings at the last one: bounds of every stage's flow, enlarged, on the same noise.

    isingflow train --size 128 --critical --preset accurate --set training.carried=false training.coarse.carried=false \
        --output RUN
    OMP_NUM_THREADS=1 python benchmarks/carried.py RUN

Every flow has the products that were fitted in the end, and half as many integration steps as the run's own: their
error is some 16 times as large, 0.01 nats. Gaps are in nats; `difference` is that from the flow which was trained on
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
from isingflow.flows import Flow, approximations
from isingflow.flows.products import fitted_map
from isingflow.runs.folder import open_magnet
from isingflow.runs.making import COARSE
from isingflow.statistics.free_energy import mean
from isingflow.training.inherit import inherit

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
    fitted_map(flow).potential.load_state_dict(fitted_map(earlier).potential.state_dict())
    for before, now in zip(approximations(earlier), approximations(flow), strict=True):
        now.steps = math.ceil(before.steps / 2)
    fitted_map(flow).gradient.steps = fitted_map(earlier).gradient.steps


@torch.no_grad()
def excesses(flow: Flow, target: isingflow.HubbardStratonovich, samples: int) -> torch.Tensor:
    """ln p + E + ln Z of samples, the same noise for every flow, shape (samples,)."""
    exact, found = target.exact_free_energy()[0], []
    for rows in flow.noise(samples, torch.Generator().manual_seed(1)).split(ROWS):
        field, logdet = flow(rows)
        found.append(flow.base_log_prob(rows) - logdet + target.energy(field.double()) - exact)
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    stages = [arguments.run]
    while (stages[-1] / COARSE).exists():
        stages.append(stages[-1] / COARSE)
    final, config = isingflow.load(arguments.run), open_magnet(arguments.run).config
    target = config.target()
    own, rows = None, []
    for last in range(len(stages)):
        flow = enlarged(stages[: last + 1])
        finish(final, flow)
        found = excesses(flow, target, arguments.samples)
        own = found if own is None else own
        trained_on = list(open_magnet(stages[last]).config.lattice.shape)
        estimates = {"gap_nats": mean(found).as_dict(), "difference": mean(found - own).as_dict()}
        rows.append({"trained_up_to": trained_on, **estimates})
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
