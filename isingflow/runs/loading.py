"""Trained flows from run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isingflow.errors import CheckpointError, InvalidInput, TrainingDiverged
from isingflow.flows import Flow, gradient_flows
from isingflow.runs.config import AnyRunConfig, DensityConfig
from isingflow.runs.folder import AnyRun, RunFolder
from isingflow.runs.making import COARSE, CONFIG
from isingflow.runtime import devices
from isingflow.runtime.checks import instance
from isingflow.runtime.files import reason
from isingflow.targets.base import TargetLike, as_target


def load(
    path: AnyRun | Path | str,
    *,
    device: torch.device | str = "cpu",
    target: TargetLike | None = None,
    flow: Flow | None = None,
) -> Flow:
    """The trained flow of a run folder.

    Args:
        path: the run folder, or a `RunFolder`.
        device: where to put it, "cpu", "cuda", "cuda:1" or "auto".
        flow: of a run whose flow is the user's own: one of the same make, which takes up what was learnt.
        target: of a run on a user's own target, where its flow starts with maps that only the target knows; no other
            run needs one.

    Returns:
        A flow with sample(n), log_prob(x), forward(z) and inverse(x), for fields of shape (n, lx, ly); data: (n, d).

    Raises:
        RunFolderError: not a run folder, or (CheckpointError) its checkpoint is missing or unusable.
        InvalidInput: the target is needed, or not that of the run; DeviceUnavailable: no such device.
    """
    run = opened(path)
    blank = new_flow(run.config, target) if flow is None else flow
    return trained(run, blank, devices.resolve(device))[0]


def opened(run: AnyRun | Path | str) -> AnyRun:
    """A run folder, or the one at a path.

    Raises:
        RunFolderError: there is none; WrongType: neither of these.
    """
    instance("run", run, RunFolder | Path | str, "a run folder, or its path")
    return run if isinstance(run, RunFolder) else RunFolder.open(run)


def trained(run: AnyRun, flow: Flow, device: torch.device) -> tuple[Flow, dict[str, Any]]:
    """A new flow with what a run has learnt, in evaluation mode, and the state saved with it.

    Raises:
        CheckpointError: the checkpoint is missing, unusable, of another architecture, or not finite.
        InvalidInput: the flow has fields of another shape; WrongType: it is none.
    """
    shape = run.config.sample[1]
    if instance("flow", flow, Flow, "a Flow").shape != shape:
        raise InvalidInput(f"flow has fields of shape {flow.shape}, the run of shape {shape}")
    tensors, state = run.load_checkpoint()
    restore(flow, tensors, state)
    if not all(bool(torch.isfinite(value).all()) for value in flow.state_dict().values()):
        raise CheckpointError(f"{run.path}: the checkpoint holds parameters that are not finite")
    return flow.to(device).eval().requires_grad_(False), state


def restore(flow: Flow, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Put the parameters and step number of a checkpoint into a flow.

    Raises:
        CheckpointError: they belong to another architecture.
    """
    prefix = "flow."
    parameters = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    try:
        flow.load_state_dict(parameters)
        if not any(name.endswith("step_count") for name in parameters):
            # Runs from before each gradient flow's steps were part of the checkpoint have one number for all.
            for gradient in gradient_flows(flow):
                gradient.steps = int(state["steps"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint does not fit the run's configuration: {reason(error)}") from None


def check_moments(name: str, moments: dict[str, Tensor], parameter: Tensor) -> None:
    """Refuse what is not Adam's state of a parameter.

    Raises:
        CheckpointError: it is not.
    """
    wanted = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
    fits = {key: value.shape for key, value in moments.items()} == wanted
    types = {value.dtype for value in moments.values()} - {torch.float32, parameter.dtype}
    numbers = all(bool(value.isfinite().all()) for value in moments.values())
    if not fits or types or not numbers or moments["step"] < 1 or bool((moments["exp_avg_sq"] < 0).any()):
        raise CheckpointError(f"the checkpoint does not fit the run: the optimiser's state of {name} is not one")


def learnt_in(run: AnyRun) -> AnyRun:
    """Where a flow was trained: in its run or, if it was carried over and that is kept, on a smaller lattice."""
    smaller = run.path / COARSE
    kept = run.config.training.carried and (smaller / CONFIG).exists()
    return learnt_in(RunFolder.open(smaller)) if kept else run


def is_certified(run: AnyRun) -> bool:
    """Whether the integration error is within its tolerance, as measured by the training and the last evaluation."""
    error = run.load_checkpoint()[1].get("integration_error_nats")
    known = isinstance(error, int | float) and error <= run.config.training.tolerance
    return known and (run.report() or {}).get("certified", True) is True


def is_complete(run: AnyRun) -> bool:
    """Whether nothing is left to do: trained to its end, with report and figures of what was learnt last."""
    if not run.has_checkpoint:
        return False
    state, report = run.load_checkpoint()[1], run.report() or {}
    reported = bool(run.table) and report.get("training_seconds") == state.get("seconds")
    return state.get("finished") is True and reported and run.has_figures


def check_numbers(log_prob: Tensor) -> None:
    """Refuse a flow that gives log-probabilities or log-weights, shape (n,), that are no numbers.

    Raises:
        TrainingDiverged: some are not.
    """
    lost = int(log_prob.isnan().sum())
    if lost:
        raise TrainingDiverged(
            f"the flow cannot be evaluated: its training has diverged, {lost} of {len(log_prob)} samples have "
            "probabilities that are not numbers; a lower learning rate or more integration steps may help"
        )


def new_flow(config: AnyRunConfig, target: TargetLike | None = None) -> Flow:
    """The untrained flow of a run, to load a checkpoint into.

    Args:
        config: of the run.
        target: of the run, where it is there already or the flow's start needs it.

    Raises:
        InvalidInput: the target is needed, or not that of the run.
    """
    if target is None:
        return config.new_flow()
    if isinstance(config, DensityConfig):
        raise InvalidInput(f"a run on data ({config}) has no target")
    return config.new_flow(as_target(target))
