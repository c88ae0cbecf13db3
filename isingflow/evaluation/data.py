"""What a flow trained on data is worth: the likelihood of data that it has never seen, beside the best Gaussian's.

Likelihoods are in nats per sample in model space, the space in which the flow lives; for grey levels also in bits per
dimension. They are exact up to the integration error, which is measured on the same samples at half the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow.architectures.start import fitted_part
from isingflow.datasets import Dataset, Split
from isingflow.evaluation.budget import PILOT, Budget, Meter
from isingflow.evaluation.verdict import FINER, checked
from isingflow.flows import Flow
from isingflow.flows.certificate import likelihood_error, pushed
from isingflow.flows.diagnostics import straightness, transport_cost
from isingflow.flows.mass import Defect, defect
from isingflow.runs.config import DensityConfig
from isingflow.runs.folder import AnyRun, of_kind
from isingflow.runs.loading import check_numbers, new_flow, opened, trained
from isingflow.runs.shared import shared
from isingflow.runtime import devices, stopping
from isingflow.runtime.checks import LARGEST_SEED, count, instance
from isingflow.runtime.parallel import Workers, workers
from isingflow.runtime.sharing import sharing
from isingflow.statistics.estimate import Estimate
from isingflow.statistics.free_energy import mean

BATCH = 250
TRAIN_SAMPLES = 2048
"""Training data whose likelihood is looked at, at most."""
ERROR_SAMPLES = 512
SHOWN = 512
"""Samples that are generated for the figures."""
DRAWING = 8
"""Cost of one of these, of its way back and of its path, in likelihoods."""


@dataclass(frozen=True)
class DensityEvaluation:
    """Negative log-likelihoods of a run on data, in nats per sample of model space.

    Attributes:
        shortened: whether there was time for fewer samples than there are.
        kept_iteration: of training, that the weights are of; 0 where the flow is its start.
        starts: of all parts of the data under what was fitted in closed form, before any training.
        train, validation, test: of these parts of the data, of the training part at most `TRAIN_SAMPLES`.
        bits_per_dimension: of the test data; None where data are not discrete.
        defect: total mass, and what the inverse misses, see `flows.mass`.
        transport_cost, straightness: of paths, see `flows.diagnostics`; straightness only where paths may be curved.
        samples: of the flow, points of model space, float32, shape (n, d).
    """

    title: str
    data: str
    dimension: int
    test_samples: int
    parameters: int
    training_seconds: float
    integration_steps: int
    integration_error: float
    tolerance: float
    shortened: bool
    kept_iteration: int
    starts: dict[str, Estimate]
    train: Estimate
    validation: Estimate
    test: Estimate
    bits_per_dimension: Estimate | None
    defect: Defect
    transport_cost: Estimate
    straightness: Estimate | None
    samples: np.ndarray

    def __str__(self) -> str:
        return self.table()

    @property
    def start(self) -> Estimate:
        """Of the test data, before any training."""
        return self.starts["test"]

    @property
    def inverse_error(self) -> float:
        """Relative distance of noise from its image under the flow and its inverse."""
        return self.defect.inverse_error

    @property
    def certified(self) -> bool:
        """Whether what is wrong with ln p, with the total mass and with the inverse is within the run's tolerance."""
        return not self.shortcomings

    @property
    def shortcomings(self) -> list[str]:
        """What is above the tolerance, in words."""
        mass, returned = self.defect.mass, self.dimension * self.defect.inverse_error
        found = {
            "integration error": self.integration_error,
            "total mass": 0.0 if mass is None else abs(mass - 1),
            "inverse error": returned,
        }
        return [name for name, error in found.items() if not error <= self.tolerance]

    @property
    def verdict(self) -> str:
        """Whether the likelihoods can be trusted, and if not, what to do, in one line."""
        if not self.certified:
            return f"the likelihoods cannot be trusted: {' and '.join(self.shortcomings)} too large; {FINER}"
        return f"the likelihoods can be trusted: integration, mass and inverse are within {self.tolerance:g} nats"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow evaluate --json` on data."""
        paths = {"transport_cost": self.transport_cost, "straightness": self.straightness}
        return {
            "data": self.data,
            "dimension": self.dimension,
            "samples": self.test_samples,
            "parameters": self.parameters,
            "training_seconds": self.training_seconds,
            "certified": self.certified,
            "integration_error_nats": self.integration_error if math.isfinite(self.integration_error) else None,
            "integration_steps": self.integration_steps,
            "mass": self.defect.mass if self.defect.mass is None or math.isfinite(self.defect.mass) else None,
            "shortened": self.shortened,
            "kept_iteration": self.kept_iteration,
            "start_negative_log_likelihood": self.start.as_dict(),
            "start_train_negative_log_likelihood": self.starts["train"].as_dict(),
            "start_validation_negative_log_likelihood": self.starts["validation"].as_dict(),
            "train_negative_log_likelihood": self.train.as_dict(),
            "validation_negative_log_likelihood": self.validation.as_dict(),
            "negative_log_likelihood": self.test.as_dict(),
            "bits_per_dimension": None if self.bits_per_dimension is None else self.bits_per_dimension.as_dict(),
            "inverse_error": self.inverse_error if math.isfinite(self.inverse_error) else None,
            **{name: None if estimate is None else estimate.as_dict() for name, estimate in paths.items()},
            "verdict": self.verdict,
        }

    def table(self) -> str:
        """Likelihoods, one a line, for people."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        lines = [f"{self.title:<40}{'start':>22}{'flow':>22}"]
        lines += [f"  {f'-ln p (nats), {name}':<38}{self.starts[name]!s:>22}{parts[name]!s:>22}" for name in parts]
        mass = self.defect.mass
        notes = {
            "the flow is its start: training found none that validation data like better": self.kept_iteration == 0,
            "of fewer samples than there are: the time limit left no room for all": self.shortened,
        }
        summary = [
            checked(self.certified, self.integration_error, self.tolerance, " and ".join(self.shortcomings)),
            "" if self.bits_per_dimension is None else f"{self.bits_per_dimension} bits per dimension",
            "" if mass is None else f"mass {mass:.5f}",
            f"inverse error {self.inverse_error:.1g}",
            "" if self.straightness is None else f"straightness {self.straightness.value:.3f}",
        ]
        told = [f"  {note}" for note, holds in notes.items() if holds]
        return "\n".join([*lines, "  " + "    ".join(filter(None, summary)), *told, f"  verdict: {self.verdict}"])


def evaluate_density(
    run: AnyRun,
    data: Dataset,
    *,
    device: torch.device,
    samples: int | None = None,
    seed: int = 0,
    time_limit: float | None = None,
    report_progress: Callable[[int, int], None] | None = None,
) -> DensityEvaluation:
    """Evaluate a flow trained on data.

    Args:
        run: a run folder with a checkpoint.
        data: what it was trained on.
        device: where to evaluate.
        samples: of the validation and of the test data each; all if not given.
        seed: of what is random in the data, and of the generated samples.
        time_limit: in seconds, for which fewer samples are taken if need be.
        report_progress: called with rows done and in all.

    Raises:
        RunFolderError: the run is not on data.
        CheckpointError: the checkpoint is missing or unusable.
        TrainingDiverged: the flow gives likelihoods that are not numbers.
    """
    config, device = of_kind(opened(run), DensityConfig).config, devices.resolve(device)
    samples = None if samples is None else count("samples", samples, least=2)
    seed = count("seed", seed, least=0, most=LARGEST_SEED)
    instance("data", data, Dataset, "the data set of the run")
    generator = torch.Generator().manual_seed(seed)
    with sharing(device) as pool:
        flow, state = trained(shared(run), new_flow(config), device)
        start = fitted_part(flow)

        def score(x: Tensor) -> list[Tensor]:
            log_prob = torch.cat(pool.map(flow.log_prob, x.to(device))).cpu()
            bits = data.bits_per_dimension(log_prob, x) if data.space.discrete else torch.zeros(0)
            return [log_prob, start.log_prob(x.to(device)).cpu(), bits]

        budget = Budget(time_limit)
        pilot = next(data.test.batches(PILOT, generator)).to(device)
        cost = budget.cost(lambda: pool.map(flow.log_prob, pilot))
        splits = {"test": data.test, "validation": data.validation, "train": data.train}
        wanted = {name: min(samples or len(split), len(split)) for name, split in splits.items()}
        wanted["train"] = min(wanted["train"], TRAIN_SAMPLES)
        shares = {"test": 0.3, "validation": 0.1, "train": 0.1}
        counts = {name: budget.samples(wanted[name], cost=cost, share=shares[name]) for name in splits}
        meter = Meter(report_progress, sum(counts.values()))
        scores = {name: _scores(score, split, counts[name], generator, meter) for name, split in splits.items()}
        log_prob, _, bits = scores["test"]
        check_numbers(log_prob)
        few = next(data.test.batches(budget.samples(ERROR_SAMPLES, cost=3 * cost, share=0.2), generator)).to(device)
        error = likelihood_error(flow, few, pool).value
        stopping.check()
        drawn = budget.samples(ERROR_SAMPLES, cost=DRAWING * cost, share=0.2)
        looked = pool.first(lambda: _looked_at(flow, drawn, seed, curved=bool(state["steps"])))
        generated, found, paths, straight = looked
    return DensityEvaluation(
        title=str(config),
        data=config.data,
        dimension=data.dimension,
        test_samples=len(log_prob),
        parameters=flow.parameter_count,
        training_seconds=float(state["seconds"]),
        integration_steps=int(state["steps"]),
        integration_error=error,
        tolerance=config.training.tolerance,
        shortened=counts != wanted,
        kept_iteration=0 if state.get("resting") else int((state.get("kept") or state)["iteration"]),
        starts={name: mean(-part[1]) for name, part in scores.items()},
        train=mean(-scores["train"][0]),
        validation=mean(-scores["validation"][0]),
        test=mean(-log_prob),
        bits_per_dimension=mean(bits) if len(bits) else None,
        defect=found,
        transport_cost=paths,
        straightness=straight,
        samples=generated,
    )


def _looked_at(
    flow: Flow, samples: int, seed: int, *, curved: bool
) -> tuple[np.ndarray, Defect, Estimate, Estimate | None]:
    """Generated points, what is wrong with the density, what its paths cost, and how straight those are that curve."""

    def stream() -> torch.Generator:
        return torch.Generator(flow.device).manual_seed(seed)

    shown = max(samples * SHOWN // ERROR_SAMPLES, PILOT)
    generated, _ = flow.sample(shown, generator=stream(), batch=BATCH)
    stopping.check()
    latent = flow.noise(samples, stream())
    found, paths = defect(flow, samples, seed), transport_cost(flow, latent)
    return generated.cpu().numpy(), found, paths, straightness(flow, latent) if curved else None


def stream_points(
    run: AnyRun, *, samples: int, device: torch.device, seed: int = 0, pool: Workers | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Samples of a flow trained on data, in blocks: points x of model space, shape (n, d), and ln p(x), on the CPU.

    Args:
        run: a run folder with a checkpoint, which is read at once.
        samples: how many.
        device: where to sample.
        seed: of the samples.
        pool: who shares the work; the threads of this process if not given.
    """
    device, samples = devices.resolve(device), count("samples", samples)
    generator = torch.Generator(device).manual_seed(count("seed", seed, least=0, most=LARGEST_SEED))
    flow, _ = trained(run, new_flow(run.config), device)

    @torch.no_grad()
    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        with workers(device) if pool is None else nullcontext(pool) as sharers:
            for start in range(0, samples, BATCH):
                latent = flow.noise(min(BATCH, samples - start), generator)
                shares = sharers.map(lambda share: pushed(flow, share), latent)
                x, log_prob = (torch.cat(parts).cpu() for parts in zip(*shares, strict=True))
                yield x, log_prob

    return blocks()


@torch.no_grad()
def _scores(
    score: Callable[[Tensor], list[Tensor]], split: Split, count: int, generator: torch.Generator, meter: Meter
) -> list[Tensor]:
    """What is found of the first rows of a split, in batches: they need not fit in memory."""
    wanted, found = min(count, len(split)), []
    for batch in split.batches(BATCH, generator):
        stopping.check()
        found.append(score(batch[:wanted]))
        meter.add(len(batch[:wanted]))
        wanted -= len(batch)
        if wanted <= 0:
            break
    return [torch.cat(parts) for parts in zip(*found, strict=True)]
