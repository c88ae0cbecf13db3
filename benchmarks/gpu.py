"""What a graphics card is worth: steps, trainings, bridges, memory, rates, and the digits of log-densities.

    python benchmarks/gpu.py                                       # all rows on the card, into docs/benchmarks
    python benchmarks/gpu.py --list
    python benchmarks/gpu.py --only step-64 cpu-step-64 train-64
    python benchmarks/gpu.py --device cpu --quick --output /tmp/gpu.json

Critical tori, preset `accurate` with its own batch where no other is named. The file is written after every row; rows
that it holds are not measured again. A row that the machine cannot do says why, under `impossible`, and is tried again
by the next run. Figures go beside the file. `--quick` makes all rows tiny, to try the command out: its numbers mean
nothing, and go into a temporary folder unless --output says where.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from machine import describe
from matplotlib.figure import Figure
from torch import Tensor

import isingflow
from isingflow.errors import DeviceUnavailable
from isingflow.flows import Flow
from isingflow.lattice import CRITICAL_BETA, square
from isingflow.plots.style import ERROR, EXACT, FLOW, LOWER, STYLE, WIDTH, new_figure, png
from isingflow.runs.config import RunConfig
from isingflow.runs.folder import RunFolder
from isingflow.runs.overrides import overridden
from isingflow.runtime import devices
from isingflow.runtime.parallel import workers
from isingflow.training import Trained
from isingflow.training.foresight import foresee
from isingflow.training.kernels import choose_kernels
from isingflow.training.problems import problem_of
from isingflow.training.trainer import Trainer

FILE = Path("docs/benchmarks/gpu.json")
CPU = torch.device("cpu")
LENGTHS = (8, 16, 32, 64, 128)
TINY = {8: 4, 16: 6, 32: 8, 64: 10, 128: 12}
"""Lengths in their place in a quick run."""
TINY_SETTINGS = {"training.batch": 4, "training.evaluation_samples": 64}
WARM, MOST_STEPS, STEP_SECONDS = 3, 15, 20.0
"""Steps before any is timed, steps that are, and seconds after which there are no more of them; at least three."""
LOOSEST = 4.0
"""Error of float32 on the device, in units of that on a CPU, up to which both are rounding alone. TF32 and bf16, which
have 10 and 7 bits where float32 has 23, are far beyond."""


@dataclass(frozen=True)
class Bench:
    """Where rows are measured.

    Attributes:
        device: on which.
        quick: whether rows are tiny.
        folder: for runs.
    """

    device: torch.device
    quick: bool
    folder: Path

    def length(self, length: int) -> int:
        """Of a torus."""
        return TINY[length] if self.quick else length

    @torch.enable_grad()
    def train(self, length: int, preset: str) -> Trained:
        """A training of seed 0, for which rows without gradients may be the first to ask."""
        return isingflow.train(
            isingflow.HubbardStratonovich(square(self.length(length)), CRITICAL_BETA),
            preset=preset,
            iterations=3 if self.quick else None,
            settings=TINY_SETTINGS if self.quick else None,
            output=tempfile.mkdtemp(dir=self.folder),
            device=self.device,
            progress=False,
        )

    @cached_property
    def quick_16(self) -> Trained:
        """16x16 by preset `quick`, of which several rows are made."""
        return self.train(16, "quick")

    def seconds(self, work: Callable[[], Any]) -> float:
        """On the clock, until the device is done."""
        self._wait()
        begun = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def memory(self, found: dict) -> Iterator[None]:
        """Adds the most memory that tensors on a card take meanwhile, in bytes; None on a CPU."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        found["peak_bytes"] = torch.cuda.max_memory_allocated(self.device) if cuda else None


def step(bench: Bench, *, length: int, recompute: bool = False) -> dict:
    """Time and memory of training steps; `foreseen_bytes` is what a training is refused for, see `foresight`."""
    config = RunConfig.from_preset("accurate", square(bench.length(length)), CRITICAL_BETA)
    settings = {"training.recompute": recompute, **(TINY_SETTINGS if bench.quick else {})}
    problem = problem_of(overridden(config, settings), device=bench.device)
    needs, batch, found = foresee(problem), problem.training.batch, {}
    folder = RunFolder.create(tempfile.mkdtemp(dir=bench.folder), problem.config)
    with workers(bench.device) as pool, bench.memory(found):
        trainer = Trainer(folder, problem, None, pool)
        first, *_ = (bench.seconds(trainer.iterate) for _ in range(1 if bench.quick else WARM))
        times: list[float] = []
        while len(times) < MOST_STEPS and (len(times) < 3 or sum(times) < STEP_SECONDS):
            times.append(bench.seconds(trainer.iterate))
    return {
        "sites": config.lattice.sites,
        "batch": batch,
        "integration_steps": trainer.steps,
        "seconds": statistics.median(times),
        "seconds_per_sample": statistics.median(times) / batch,
        "first_step_seconds": first,
        "threads": pool.count,
        **found,
        "foreseen_bytes": needs and needs.memory,
    }


def training(bench: Bench, *, length: int) -> dict:
    """Preset `accurate` from its beginning to its evaluation."""
    found: dict[str, Any] = {}
    with bench.memory(found):
        begun = time.perf_counter()
        run = bench.train(length, "accurate")
        found["training_seconds"] = time.perf_counter() - begun
    report = isingflow.evaluate(run, device=bench.device).as_dict()
    names = ("sites", "gap_nats", "effective_sample_size", "integration_error_nats", "certified", "parameters")
    return {name: report[name] for name in names} | found | {"seconds": time.perf_counter() - begun}


def bridge(bench: Bench) -> dict:
    """Preset `quick` and a bridge of eight steps."""
    evaluation: list[Any] = []
    evaluate = partial(isingflow.evaluate, bench.quick_16, device=bench.device, anneal=8)
    seconds = bench.seconds(lambda: evaluation.append(evaluate()))
    report = evaluation[0].as_dict()
    annealed, exact = report["annealed"], report["exact_free_energy"]
    names = ("paths", "upper_bound", "lower_bound", "acceptance_ratio", "effective_sample_size")
    return {
        "training_seconds": report["training_seconds"],
        "plain_gap_nats": report["gap_nats"],
        "plain_effective_sample_size": report["effective_sample_size"],
        "gap_nats": annealed["upper_bound"]["value"] - exact,
        "gap_below_nats": exact - annealed["lower_bound"]["value"],
        **{name: annealed[name] for name in names},
        "bridge_seconds": annealed["seconds"],
        "evaluation_seconds": seconds,
    }


@torch.no_grad()
def rates(bench: Bench) -> dict:
    """Samples, and log-densities of given fields, a second, against how many are asked for at once."""
    flow = isingflow.load(bench.quick_16.path, device=bench.device)
    found = []
    for batch in (4, 16) if bench.quick else (64, 256, 1024, 4096, 16384):
        generator = torch.Generator(bench.device).manual_seed(0)
        field, _ = flow.sample(batch, generator=generator)
        samples = min(bench.seconds(partial(flow.sample, batch, generator=generator)) for _ in range(3))
        densities = min(bench.seconds(partial(flow.log_prob, field)) for _ in range(3))
        found.append(
            {"batch": batch, "samples_per_second": batch / samples, "log_densities_per_second": batch / densities}
        )
    return {"sites": flow.dimension, "by_batch": found}


@torch.no_grad()
def precision(bench: Bench) -> dict:
    """How far log-densities on the device are from those in float64 on a CPU: by rounding of float32, and no more.

    `fused` is with the kernels of a training. `tf32` is what this check would see if products were in TF32: they are so
    for that one line only.
    """
    flow = isingflow.load(bench.quick_16.path, device=CPU)
    field, _ = flow.sample(16 if bench.quick else 1024, generator=torch.Generator().manual_seed(0))
    exact = copy.deepcopy(flow).double().log_prob(field.double())
    off = {"cpu": largest(flow, field, exact)}
    tf32, sets = torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    if bench.device.type == "cuda":
        there = isingflow.load(bench.quick_16.path, device=bench.device)
        off["device"] = largest(there, field, exact)
        fused = copy.deepcopy(there)
        choose_kernels(fused, bench.device)
        off["fused"] = largest(fused, field, exact)
        try:
            torch.backends.cuda.matmul.allow_tf32 = True
            off["tf32"] = largest(there, field, exact)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = tf32
    return {
        "sites": flow.dimension,
        "samples": len(field),
        "largest_difference_nats": off,
        "tf32_allowed": tf32,
        "float32_matmul_precision": sets,
        "float32_throughout": not tf32
        and all(off.get(name, 0.0) <= LOOSEST * off["cpu"] for name in ("device", "fused")),
    }


def largest(flow: Flow, field: Tensor, exact: Tensor) -> float:
    """Difference of log-densities in float32, where the flow lives, from others."""
    return float((flow.log_prob(field.to(flow.device)).cpu().double() - exact).abs().max())


@dataclass(frozen=True)
class Row:
    """What is measured.

    Attributes:
        what: in words.
        measure: does it.
        on_cpu: whether it is measured on the CPU, whatever the device: to compare with.
    """

    what: str
    measure: Callable[[Bench], dict]
    on_cpu: bool = False


TRAININGS = {f"train-{n}": n for n in (16, 32, 64)}
ROWS = {
    **{f"step-{n}": Row(f"a training step on {n}x{n}", partial(step, length=n)) for n in LENGTHS},
    **{f"cpu-step-{n}": Row(f"the same on the CPU, {n}x{n}", partial(step, length=n), on_cpu=True) for n in LENGTHS},
    **{
        f"recompute-{n}": Row(f"the same with training.recompute, {n}x{n}", partial(step, length=n, recompute=True))
        for n in LENGTHS
    },
    "bridge-16": Row("16x16, preset quick, and a bridge of 8 steps", bridge),
    "rates": Row("samples and log-densities a second of that flow", rates),
    "precision": Row("log-densities of that flow against float64 on the CPU", precision),
    **{name: Row(f"{n}x{n}, preset accurate", partial(training, length=n)) for name, n in TRAININGS.items()},
}


def attempted(row: Row, bench: Bench) -> dict:
    """The row, or why there is none."""
    try:
        return row.measure(replace(bench, device=CPU) if row.on_cpu else bench)
    except Exception as error:  # what a strange machine raises is unknown, and must not end a night's run
        reason = str(error).partition("\n")[0]
        return {"impossible": f"{type(error).__name__}: {reason}"}
    finally:
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def measured(rows: dict[str, dict], kind: str, name: str) -> tuple[list[float], list[float]]:
    """Sites, and something of the rows of a kind that is known, on all tori on which it is."""
    found = [rows[f"{kind}-{n}"] for n in LENGTHS if f"{kind}-{n}" in rows]
    known = [row for row in found if row.get(name) is not None]
    return [row["sites"] for row in known], [row[name] for row in known]


def slopes(rows: dict[str, dict]) -> dict[str, float]:
    """Powers of N by which a step's time per sample grows, fitted to all tori."""
    found = {}
    for kind in ("step", "cpu-step", "recompute"):
        sites, seconds = measured(rows, kind, "seconds_per_sample")
        if len(sites) > 1:
            found[kind] = float(np.polyfit(np.log(sites), np.log(seconds), 1)[0])
    return found


COLOURS = dict(zip(TRAININGS, (FLOW, LOWER, ERROR), strict=True))
CURVES = (("step", "device", FLOW), ("recompute", "device, recompute", LOWER), ("cpu-step", "CPU", EXACT))
"""Rows that are drawn, what they are called, and their colours."""


@matplotlib.rc_context(STYLE)
def steps_figure(rows: dict[str, dict]) -> Figure:
    """Seconds of a step and sample against the sites."""
    (figure, ax), powers = new_figure(), slopes(rows)
    for kind, label, colour in CURVES:
        sites, seconds = measured(rows, kind, "seconds_per_sample")
        if sites:
            power = f", $N^{{{powers[kind]:.2f}}}$" if kind in powers else ""
            ax.plot(sites, seconds, "o-", color=colour, label=label + power)
    ax.set(xscale="log", yscale="log", xlabel="sites N", ylabel="seconds per training step and sample")
    ax.legend()
    return figure


@matplotlib.rc_context(STYLE)
def memory_figure(rows: dict[str, dict]) -> Figure:
    """Memory of a step against the sites: measured on a card, and at least, as foreseen before a training."""
    figure, ax = new_figure()
    for kind, label, colour in CURVES[:2]:
        for name, style, how in (("peak_bytes", "o-", "measured"), ("foreseen_bytes", "x:", "foreseen, at least")):
            sites, size = measured(rows, kind, name)
            if sites:
                ax.plot(sites, np.array(size) / 2**30, style, color=colour, label=f"{label}, {how}")
    ax.set(xscale="log", yscale="log", xlabel="sites N", ylabel="memory of a training step, GiB")
    ax.legend()
    return figure


@matplotlib.rc_context(STYLE)
def trainings_figure(rows: dict[str, dict]) -> Figure:
    """Gaps and effective sample sizes of trainings against their seconds."""
    figure = Figure(figsize=(1.4 * WIDTH, 0.7 * WIDTH), layout="constrained")
    gaps, sizes = figure.subplots(1, 2)
    for name, row in rows.items():
        seconds, gap, colour = row["training_seconds"], row["gap_nats"], COLOURS[name]
        gaps.errorbar(seconds, gap["value"], gap["stderr"], fmt="o", color=colour, label=name)
        sizes.plot(seconds, 100 * row["effective_sample_size"], "o", color=colour, label=name)
    gaps.set(xlabel="seconds of training", ylabel="gap, nats", xlim=(0, None), ylim=(0, None))
    sizes.set(xlabel="seconds of training", ylabel="effective sample size, %", xlim=(0, None), ylim=(0, 100))
    gaps.legend()
    return figure


@matplotlib.rc_context(STYLE)
def rates_figure(row: dict) -> Figure:
    """Samples and log-densities a second against the batch."""
    (figure, ax), batches = new_figure(), [found["batch"] for found in row["by_batch"]]
    for name, colour in (("samples_per_second", FLOW), ("log_densities_per_second", LOWER)):
        ax.plot(batches, [found[name] for found in row["by_batch"]], "o-", color=colour, label=name.replace("_", " "))
    ax.set(xscale="log", yscale="log", xlabel="asked for at once", ylabel="per second")
    ax.legend()
    return figure


def draw(rows: dict[str, dict], folder: Path) -> None:
    """Write the figures of what there is."""
    trained = {name: rows[name] for name in TRAININGS if "gap_nats" in rows.get(name, {})}
    figures: dict[str, Callable[[], Figure]] = {}
    if slopes(rows):
        figures["steps"] = partial(steps_figure, rows)
    if any(measured(rows, kind, name)[0] for kind, *_ in CURVES for name in ("peak_bytes", "foreseen_bytes")):
        figures["memory"] = partial(memory_figure, rows)
    if trained:
        figures["trainings"] = partial(trainings_figure, trained)
    if "by_batch" in rows.get("rates", {}):
        figures["rates"] = partial(rates_figure, rows["rates"])
    for name, drawn in figures.items():
        (folder / f"gpu-{name}.png").write_bytes(png(drawn()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", metavar="cuda|cpu", help="where rows are measured; %(default)s")
    parser.add_argument("--quick", action="store_true", help="tiny rows, to try the command out")
    parser.add_argument("--output", type=Path, help=f"{FILE} if not given")
    parser.add_argument("--only", nargs="+", choices=[*ROWS], default=[*ROWS], metavar="ROW", help="see --list")
    parser.add_argument("--list", action="store_true", help="what there is")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for name, row in ROWS.items():
            print(f"{name:14} {row.what}")
        return
    try:
        device = devices.resolve(chosen.device)
    except DeviceUnavailable as error:
        parser.error(str(error))
    machine = describe()
    head = {"device": machine["gpu"] if device.type == "cuda" else machine["processor"], "quick": chosen.quick}
    file = chosen.output or (Path(tempfile.mkdtemp()) / FILE.name if chosen.quick else FILE)
    earlier = json.loads(file.read_text()) if file.exists() else head
    if {name: earlier[name] for name in head} != head:
        parser.error(f"{file} has rows of {earlier['device']}, quick: {earlier['quick']}: choose another --output")
    rows = earlier.get("rows", {})
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, chosen.quick, Path(folder))
        for name in chosen.only:
            row = ROWS[name]
            if "impossible" not in rows.get(name, {"impossible": "yet"}) or (row.on_cpu and device == CPU):
                continue
            rows[name] = attempted(row, bench) | {"what": row.what}
            print(name, json.dumps(rows[name]), flush=True)
            command = " ".join(["python", "benchmarks/gpu.py", *(sys.argv[1:] if arguments is None else arguments)])
            document = {"command": command, **machine, **head, "slopes": slopes(rows), "rows": rows}
            file.write_text(json.dumps(document, indent=1) + "\n")
    draw(rows, file.parent)
    print(file)
    if not rows.get("precision", {}).get("float32_throughout", True):
        parser.exit(1, "log-densities on this device are not those of float32: see the row precision\n")


if __name__ == "__main__":
    main()
