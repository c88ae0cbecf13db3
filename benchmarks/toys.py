"""OT-Flow against a standard continuous normalizing flow on two-dimensional toys: time to train and time to sample.

    OMP_NUM_THREADS=1 python benchmarks/toys.py --output docs/benchmarks/toys.json

The standard one is zuko's CNF as it comes: two layers of 64 units, exact trace by automatic differentiation, adaptive
Dormand-Prince, adjoint gradients; Adam at a constant rate. OT-Flow is trained as its quick preset on toys says, but
with the published penalties: paths are straighter, and samples take fewer steps. Both start from the same Gaussian
fitted to the data, see as many fresh samples in a batch, and share one thread of one process: the one that has used
less processor time takes the next iteration. The CNF has a fixed budget. The time to its final likelihood is when
OT-Flow's, on the same test data, is first as good. Choosing integration steps counts as training, measuring the
likelihood does not; nor does compilation, which an iteration of another OT-Flow has done before.

The file is written after every run. Where it exists, its runs with the same settings stay, and are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import zuko
from machine import describe
from msgspec.structs import asdict, replace
from torch import Tensor

from isingflow import datasets
from isingflow.datasets import Dataset
from isingflow.flows import Flow, GaussianWhitening, gradient_flows
from isingflow.flows.diagnostics import inverse_error, steps_needed, straightness, transport_cost
from isingflow.runs.config import DensityConfig
from isingflow.runtime.parallel import workers
from isingflow.training.optimisers import adam
from isingflow.training.problems import problem_of
from isingflow.training.schedules import learning_rate

CPU = torch.device("cpu")
TESTED, SAMPLED, PATHS = 2000, 10_000, 500
STEPS, ERRORS = 8, (0.05, 0.01)
PENALTIES = {"transport_cost": 0.01, "hjb": 0.05}
"""As published for toys, in units of the likelihood's weight."""
RATE = 1e-2
"""The CNF's: the better of 1e-3 and 1e-2 within 15 seconds on the moons, on a seed that is not measured."""


class OTFlow:
    """The quick preset, an iteration at a time, with its schedule and its control of the integration steps."""

    def __init__(self, data: Dataset, seed: int, **training: Any) -> None:
        config = DensityConfig.from_preset("quick", data, flow="ot", seed=seed)
        self.config = replace(config, training=replace(config.training, **training))
        self.problem = problem_of(self.config, device=CPU, data=data)
        self.flow = self.problem.flow
        self.generator = torch.Generator().manual_seed(seed + 1)
        self.optimizer = adam(self.flow, self.config.training)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.iteration, self.seconds = 0, 0.0

    @property
    def done(self) -> bool:
        """Whether the preset's iterations are over."""
        return self.iteration >= self.config.training.iterations

    def step(self) -> None:
        """One iteration."""
        training = self.config.training
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = learning_rate(training.schedule, peak, self.iteration / training.iterations)
        self.flow.train()
        self.flow.redraw(self.generator)
        loss, _ = self.problem.objective(self.problem.batch(training.batch, self.generator))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), training.clip)
        self.optimizer.step()
        self.flow.eval()
        self.iteration += 1
        if self.iteration % training.check_every == 0:
            with workers(CPU) as pool:
                errors = self.problem.errors(training.batch, self.generator, pool)
            self.problem.adapt_steps(torch.tensor(errors), training.looseness * training.tolerance)

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x), with its graph."""
        return self.flow.log_prob(x)

    @torch.no_grad()
    def sample(self, n: int) -> None:
        """n samples with their log-densities."""
        self.flow.sample(n, generator=self.generator)


class StandardCNF:
    """zuko's CNF on coordinates of unit variance."""

    done = False

    def __init__(self, data: Dataset, seed: int, *, batch: int, rate: float) -> None:
        self.data, self.batch = data, batch
        self.whitening = GaussianWhitening.fit(data.train.batches(TESTED, torch.Generator().manual_seed(seed)))
        self.generator = torch.Generator().manual_seed(seed + 1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.flow = zuko.flows.CNF(data.dimension)
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=rate)
        self.iteration, self.seconds = 0, 0.0

    def step(self) -> None:
        """One iteration."""
        self.flow.train()
        loss = -self.log_prob(self.data.train.draw(self.batch, self.generator)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.flow.eval()
        self.iteration += 1

    @torch.no_grad()
    def sample(self, n: int) -> None:
        """n samples without their log-densities."""
        self.whitening(self.flow().sample((n,)))

    @torch.no_grad()
    def sample_with_log_prob(self, n: int) -> None:
        """n samples with their log-densities."""
        self.whitening(self.flow().rsample_and_log_prob((n,))[0])

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x), with its graph."""
        y, logdet = self.whitening.inverse(x)
        return self.flow().log_prob(y.float()) + logdet


@torch.no_grad()
def loss(contestant: OTFlow | StandardCNF, x: Tensor) -> float:
    """Mean of -ln p(x)."""
    return -contestant.log_prob(x).mean().item()


def timed(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    before = time.process_time()
    work()
    return time.process_time() - before


def race(ot: OTFlow, cnf: StandardCNF, x: Tensor, budget: float, checks: int) -> dict[str, list[tuple[float, float]]]:
    """Train both in turns; (processor seconds, test -ln p) of each, at so many equal parts of its course."""
    curves = {"ot": [], "cnf": []}
    interval = max(ot.config.training.iterations // checks, 1)
    while not ot.done or cnf.seconds < budget:
        if not ot.done and (ot.seconds <= cnf.seconds or cnf.seconds >= budget):
            ot.seconds += timed(ot.step)
            if ot.iteration % interval == 0 or ot.done:
                curves["ot"].append((ot.seconds, loss(ot, x)))
        else:
            cnf.seconds += timed(cnf.step)
            if cnf.seconds >= budget * (len(curves["cnf"]) + 1) / checks:
                curves["cnf"].append((cnf.seconds, loss(cnf, x)))
    return curves


def reached(curve: list[tuple[float, float]], level: float) -> float | None:
    """When a curve is first at a level or below."""
    return next((seconds for seconds, value in curve if value <= level), None)


def sampling_times(ot: OTFlow, cnf: StandardCNF, repeats: int) -> dict[str, float]:
    """Median processor seconds of `SAMPLED` samples, the flows taking turns; OT-Flow's with log-densities."""
    works = {"ot": ot.sample, "cnf": cnf.sample, "cnf_with_log_prob": cnf.sample_with_log_prob}
    times = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(timed(lambda work=work: work(SAMPLED)))
    return {name: statistics.median(found) for name, found in times.items()}


def path_quality(flow: Flow, x: Tensor, seed: int) -> dict[str, float | int]:
    """Transport cost, straightness, inverse error at `STEPS` steps, and steps needed for integration errors."""
    latent = flow.noise(PATHS, torch.Generator().manual_seed(seed + 2))
    trained = [gradient.steps for gradient in gradient_flows(flow)]
    for gradient in gradient_flows(flow):
        gradient.steps = STEPS
    quality = {
        "transport_cost": transport_cost(flow, latent).value,
        "straightness": straightness(flow, latent).value,
        f"inverse_error_{STEPS}_steps": inverse_error(flow, latent).value,
    }
    for gradient, steps in zip(gradient_flows(flow), trained, strict=True):
        gradient.steps = steps
    needed = {f"steps_for_{error:g}_nats": steps_needed(flow, x[:PATHS], error) for error in ERRORS}
    return quality | {"steps_in_training": max(trained)} | needed


def compare(name: str, seed: int, *, budget: float, rate: float, checks: int, repeats: int) -> tuple[dict, OTFlow]:
    """One toy and seed: both curves, the times to the CNF's final likelihood, and what OT-Flow's paths are like."""
    data = datasets.load(name, seed=seed)
    OTFlow(data, seed, **PENALTIES).step()
    ot = OTFlow(data, seed, **PENALTIES)
    cnf = StandardCNF(data, seed, batch=ot.config.training.batch, rate=rate)
    x = next(data.test.batches(TESTED, torch.Generator().manual_seed(seed)))
    curves = race(ot, cnf, x, budget, checks)
    level = curves["cnf"][-1][1]
    seconds, sampling = reached(curves["ot"], level), sampling_times(ot, cnf, repeats)
    return {
        "toy": name,
        "seed": seed,
        "cnf": {"iterations": cnf.iteration, "seconds": cnf.seconds, "negative_log_likelihood": level},
        "ot": {"iterations": ot.iteration, "seconds": ot.seconds, "negative_log_likelihood": curves["ot"][-1][1]},
        "ot_seconds_to_cnf": seconds,
        "training_ratio": None if seconds is None else cnf.seconds / seconds,
        "cnf_seconds_to_ot": reached(curves["cnf"], curves["ot"][-1][1]),
        "sampling_seconds": sampling,
        "sampling_ratio": sampling["cnf"] / sampling["ot"],
        "sampling_ratio_with_log_prob": sampling["cnf_with_log_prob"] / sampling["ot"],
        "paths": path_quality(ot.flow, x, seed),
        "curves": curves,
    }, ot


def medians(runs: list[dict]) -> dict[str, float]:
    """Over seeds; a level that OT-Flow never reaches counts as a ratio of zero."""
    found = {}
    for name in ("training_ratio", "sampling_ratio", "sampling_ratio_with_log_prob"):
        found[name] = statistics.median(run[name] or 0.0 for run in runs)
    for name in runs[0]["paths"]:
        found[name] = statistics.median(run["paths"][name] for run in runs)
    for kind in ("ot", "cnf"):
        found[f"{kind}_negative_log_likelihood"] = statistics.median(
            run[kind]["negative_log_likelihood"] for run in runs
        )
    return found


def earlier(file: Path, settings: dict[str, Any]) -> list[dict]:
    """The runs in a file of results, if it is there and of these settings."""
    if not file.exists():
        return []
    document = json.loads(file.read_text())
    return document["runs"] if all(document[name] == value for name, value in settings.items()) else []


def summary(run: dict) -> str:
    """A line for people."""
    ot, cnf = run["ot"], run["cnf"]
    ratio = "never" if run["training_ratio"] is None else f"in {run['training_ratio']:.1f} x less time"
    return (
        f"{run['toy']}, seed {run['seed']}: "
        f"CNF at {cnf['negative_log_likelihood']:.3f} nats after {cnf['seconds']:.0f} s, "
        f"OT-Flow there {ratio}, at {ot['negative_log_likelihood']:.3f} after {ot['seconds']:.0f} s; "
        f"samples in {run['sampling_ratio']:.1f} x less time, {run['sampling_ratio_with_log_prob']:.1f} x if the CNF's "
        f"have their log-densities too; {run['paths']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toys", nargs="+", default=["moons"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=30.0, help="processor seconds of the CNF's training")
    parser.add_argument("--rate", type=float, default=RATE, help="the CNF's learning rate")
    parser.add_argument("--checks", type=int, default=30, help="points of each curve")
    parser.add_argument("--repeats", type=int, default=3, help="timings of sampling")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    settings = {name: getattr(arguments, name) for name in ("budget", "rate", "checks", "repeats")}
    runs = earlier(arguments.output, settings)
    for seed in arguments.seeds:
        for name in arguments.toys:
            if any((run["toy"], run["seed"]) == (name, seed) for run in runs):
                continue
            run, ot = compare(name, seed, **settings)
            runs.append(run)
            print(summary(run), flush=True)
            toys = dict.fromkeys(run["toy"] for run in runs)
            document = {
                "command": f"OMP_NUM_THREADS=1 python benchmarks/toys.py {' '.join(sys.argv[1:])}",
                **describe(),
                "zuko": version("zuko"),
                **settings,
                "samples": SAMPLED,
                "preset": {"flow": asdict(ot.config.flow), "training": asdict(ot.config.training)},
                "median": {toy: medians([run for run in runs if run["toy"] == toy]) for toy in toys},
                "runs": runs,
            }
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
