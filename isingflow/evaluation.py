"""What a trained flow is worth: its samples, and its free energies beside the exact answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isingflow import estimators
from isingflow.errors import CheckpointError
from isingflow.estimate import Estimate
from isingflow.flows import Flow
from isingflow.hubbard_stratonovich import HubbardStratonovich
from isingflow.lattice import CRITICAL_BETA
from isingflow.model import build_flow
from isingflow.parallel import Workers, workers
from isingflow.runs import RunFolder
from isingflow.training import exact_free_energy, load_flow

BATCH = 256
ERROR_SAMPLES = 512


@dataclass(frozen=True)
class SampleSet:
    """Independent samples of a flow; averages over the target need the weights exp(log_weight).

    Attributes:
        spins: int8, shape (n, *size), drawn from p(s | x).
        field: float32, shape (n, *size).
        log_prob: ln p(x), float64, shape (n,).
        log_weight: -E(x) - ln p(x), float64, shape (n,).
        beta: inverse temperature.
    """

    spins: np.ndarray
    field: np.ndarray
    log_prob: np.ndarray
    log_weight: np.ndarray
    beta: float

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of a spins file, by their names there."""
        return {
            "spins": self.spins,
            "field": self.field,
            "log_prob": self.log_prob,
            "log_weight": self.log_weight,
            "beta": np.float64(self.beta),
            "size": np.array(self.spins.shape[1:]),
        }


@dataclass(frozen=True)
class Evaluation:
    """Free energies of a run, in nats for the whole lattice, -ln Z of the continuous representation."""

    title: str
    size: tuple[int, ...]
    sites: int
    beta: float
    parameters: int
    training_seconds: float
    integration_steps: int
    integration_error: float
    tolerance: float
    mean_field: float
    variational: Estimate
    reweighted: Estimate
    lower_bound: Estimate
    effective_sample_size: float
    exact: float | None
    method: str | None
    samples: SampleSet

    @property
    def certified(self) -> bool:
        """Whether the integration error is within the run's tolerance."""
        return self.integration_error <= self.tolerance

    @property
    def gap(self) -> Estimate | None:
        """The bound minus the exact answer; None where that is unknown."""
        return None if self.exact is None else self.variational - self.exact

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow evaluate --json`."""
        return {
            "size": list(self.size),
            "sites": self.sites,
            "beta": self.beta,
            "samples": len(self.samples.log_weight),
            "parameters": self.parameters,
            "training_seconds": self.training_seconds,
            "certified": self.certified,
            "integration_error_nats": self.integration_error if math.isfinite(self.integration_error) else None,
            "integration_steps": self.integration_steps,
            "mean_field_free_energy": self.mean_field,
            "variational_free_energy": self.variational.as_dict(),
            "exact_free_energy": self.exact,
            "gap_nats": None if self.gap is None else self.gap.as_dict(),
            "reweighted_free_energy": self.reweighted.as_dict(),
            "lower_bound": self.lower_bound.as_dict(),
            "effective_sample_size": self.effective_sample_size,
        }

    def table(self) -> str:
        """Bounds, estimates and the exact answer, one a line, for people."""
        count = len(self.samples.log_weight)
        rows = [
            ("mean-field Gaussian bound", "", f"{self.mean_field:.2f}", self.mean_field),
            ("variational bound", f"({count} samples)", str(self.variational), self.variational.value),
            ("reweighted estimate", "", str(self.reweighted), self.reweighted.value),
        ]
        if self.exact is None:
            rows.append(("exact", "(no method known)", "", math.nan))
        else:
            rows.append((f"exact ({self.method.title()})", "", f"{self.exact:.4f}", self.exact))
        lines = [f"{self.title:<58}{'total (nats)':>22}{'per site':>13}"]
        for name, note, total, value in rows:
            per_site = "" if math.isnan(value) else f"{value / self.sites:.6f}"
            lines.append(f"  {name:<28}{note:<28}{total:>22}{per_site:>13}")
        verdict = "certified" if self.certified else f"NOT CERTIFIED: above its tolerance of {self.tolerance:g}"
        summary = [
            "" if self.gap is None else f"gap {self.gap} nats",
            f"effective sample size {100 * self.effective_sample_size:.2g} %",
            f"integration error {self.integration_error:.2g} nats ({verdict})",
        ]
        return "\n".join([*lines, "  " + "    ".join(filter(None, summary))])


def load(path: Any, *, device: torch.device | str = "cpu") -> Flow:
    """The trained flow of a run folder.

    Args:
        path: the run folder.
        device: where to put it.

    Returns:
        A flow with sample(n), log_prob(x), forward(z) and inverse(x), for fields of shape (n, lx, ly).

    Raises:
        RunFolderError: not a run folder, or (CheckpointError) its checkpoint is missing or unusable.
    """
    return load_run(RunFolder.open(path), torch.device(device))[0]


def load_run(run: RunFolder, device: torch.device) -> tuple[Flow, HubbardStratonovich, dict[str, Any]]:
    """The flow of a run in evaluation mode, its target, and the state saved with it."""
    target = HubbardStratonovich(run.config.lattice, run.config.beta)
    flow = build_flow(target, run.config.flow, seed=run.config.seed)
    tensors, state = run.load_checkpoint()
    load_flow(flow, tensors, state)
    if not all(bool(torch.isfinite(p).all()) for p in flow.parameters()):
        raise CheckpointError(f"{run.path}: the checkpoint holds parameters that are not finite")
    return flow.to(device).eval().requires_grad_(False), target.to(device), state


def draw_samples(run: RunFolder, *, samples: int, device: torch.device, seed: int = 0) -> SampleSet:
    """Samples of a trained flow with their log-probabilities, log-weights and spins."""
    flow, target, _ = load_run(run, device)
    with workers(device) as pool:
        return _draw(flow, target, samples, torch.Generator(device).manual_seed(seed), pool)


def evaluate(run: RunFolder, *, samples: int, device: torch.device, seed: int = 0) -> Evaluation:
    """Evaluate a trained flow on fresh samples.

    The integration error is the mean absolute change of ln p + E at half the step, over the first samples; statistical
    errors are one sigma.

    Args:
        run: a run folder with a checkpoint.
        samples: at least 2.
        device: where to evaluate.
        seed: of the samples.
    """
    flow, target, state = load_run(run, device)
    generator = torch.Generator(device).manual_seed(seed)
    exact, method = exact_free_energy(target)
    with workers(device) as pool:
        latent = flow.noise(min(samples, ERROR_SAMPLES), generator)
        error = estimators.integration_error(flow, target.energy, latent, pool).value
        drawn = _draw(flow, target, samples, generator, pool)
    weights = torch.from_numpy(drawn.log_weight)
    return Evaluation(
        title=_title(target),
        size=run.config.lattice.size,
        sites=target.sites,
        beta=target.beta,
        parameters=flow.parameter_count,
        training_seconds=float(state["seconds"]),
        integration_steps=int(state["steps"]),
        integration_error=error,
        tolerance=run.config.training.tolerance,
        mean_field=target.mean_field().free_energy,
        variational=estimators.variational_free_energy(weights),
        reweighted=estimators.reweighted_free_energy(weights),
        lower_bound=estimators.lower_bound(weights),
        effective_sample_size=estimators.effective_sample_size(weights),
        exact=exact,
        method=method,
        samples=drawn,
    )


@torch.no_grad()
def _draw(
    flow: Flow, target: HubbardStratonovich, samples: int, generator: torch.Generator, pool: Workers
) -> SampleSet:
    def push(latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        field, log_prob = estimators.pushed(flow, latent)
        return field, log_prob, estimators.log_weights(target.energy, field, log_prob)

    parts = []
    for start in range(0, samples, BATCH):
        latent = flow.noise(min(BATCH, samples - start), generator)
        field, log_prob, weights = map(torch.cat, zip(*pool.map(push, latent), strict=True))
        spins = target.sample_spins(field, generator)
        parts.append([tensor.cpu().numpy() for tensor in (spins, field, log_prob, weights)])
    return SampleSet(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)), beta=target.beta)


def _title(target: HubbardStratonovich) -> str:
    lattice = target.lattice
    uniform = lattice.kind == "square" and np.ndim(lattice.jx) == np.ndim(lattice.jy) == 0
    critical = uniform and lattice.jx == lattice.jy == 1 and target.beta == CRITICAL_BETA
    model = "Ising" if lattice.kind == "graph" else "2D Ising"
    return f"{model}, {lattice}, beta = {target.beta:.6f}" + (" (critical)" if critical else "")
