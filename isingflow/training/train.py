"""Training as a notebook calls it: one function from what is to be sampled to a trained run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace

from isingflow.architectures.build import AnyFlowConfig
from isingflow.architectures.own import OwnFlow
from isingflow.datasets import Dataset
from isingflow.errors import InvalidInput
from isingflow.flows import Flow
from isingflow.runs.config import AnyRunConfig, DensityConfig, FamilyConfig, RunConfig, TargetConfig
from isingflow.runs.family import ends
from isingflow.runs.folder import AnyRun, RunFolder
from isingflow.runs.loading import load, opened
from isingflow.runs.overrides import overridden, still_true
from isingflow.runs.presets import FEWEST_SAMPLES
from isingflow.runs.shared import create, shared
from isingflow.runs.solution import recall
from isingflow.runs.warmer import beta_and_goal, planned
from isingflow.runtime import devices
from isingflow.runtime.checks import LARGEST_SEED, count, flag, function, instance, number
from isingflow.runtime.launched import follows
from isingflow.runtime.processes import first, placed
from isingflow.runtime.progress import is_watched, progress_display
from isingflow.targets.base import Target, TargetLike, as_target
from isingflow.targets.hubbard_stratonovich import HubbardStratonovich
from isingflow.training.foresight import check_shares, foresee
from isingflow.training.loop import fit
from isingflow.training.objectives import Objective
from isingflow.training.problems import Problem, Variational, problem_of
from isingflow.training.progress import Callback, Outcome, progress_text
from isingflow.training.trainer import Optimiser

logger = logging.getLogger(__name__)

DEFAULT_FLOW = "monge-ampere"
FINE = 0.5
"""Learning rate of a training that starts from a trained flow, in units of the earlier one's."""


@dataclass(frozen=True)
class Trained:
    """What a training has come to.

    Attributes:
        run: its folder.
        problem: what was trained on, with the flow.
        outcome: how it ended.
    """

    run: AnyRun
    problem: Problem[Any]
    outcome: Outcome

    @property
    def path(self) -> Path:
        """Of the run folder."""
        return self.run.path

    @property
    def flow(self) -> Flow:
        """The trained flow, in evaluation mode."""
        return self.problem.flow.eval()

    @property
    def target(self) -> Target | None:
        """What the flow was trained on; None for data."""
        return self.problem.target if isinstance(self.problem, Variational) else None

    def __str__(self) -> str:
        return f"{self.run.config}: {self.outcome.value}, {self.flow.parameter_count} parameters, in {self.path}"


def train(
    what: TargetLike | Dataset | AnyRun,
    *,
    output: Path | str | None = None,
    preset: str | None = None,
    flow: str | AnyFlowConfig | Flow | None = None,
    bounds: str | None = None,
    iterations: int | None = None,
    learning_rate: float | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    from_beta: float | None = None,
    betas: tuple[float, float] | None = None,
    fields: tuple[float, float] | None = None,
    start: AnyRun | Trained | Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    optimiser: Optimiser | None = None,
    objective: Objective | None = None,
    time_limit: float | None = None,
    target: TargetLike | None = None,
    data: Dataset | None = None,
    progress: bool | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train a flow, with the integration error under control, into a run folder.

    Args:
        what: a target (`HubbardStratonovich`, any `Target`, any object with `shape`, `symmetry` and `energy`), a data
            set, or the `RunFolder` of a run to begin or to go on with.
        output: a new or empty folder; the next number under runs/ if not given.
        preset: "quick" (the default), "accurate" or "paper".
        flow: "monge-ampere" (the default), "ot" or "convex"; settings of one of these; or a `Flow` of the user's own,
            which is then trained with the preset's settings.
        bounds: what is narrowed: "upper" or, of targets with samples of their own, "both"; by default "upper", and
            "both" for a magnet in a field so weak that states of either sign count, one of which "upper" would lose.
        iterations, learning_rate: of training, if not the preset's own.
        settings: of flow and training in place of the preset's own, by name, such as {"flow.width": 64,
            "training.batch": 512}; see `runs.overrides`. Of a run that starts from another: of training alone.
        seed: of the run.
        device: "cpu", "cuda", "cuda:1" or "auto".
        from_beta: of a magnet: the inverse temperature that its flow is trained at, nearer to 0; evaluations anneal
            spins from there to the magnet's own. Preset "accurate" plans so for large tori near criticality, see
            `runs.warmer`; the magnet's own beta switches that off.
        betas: of a magnet: least and greatest of a range of inverse temperatures, for all of which one flow is trained,
            see `flows.Family`; the magnet's own is not looked at.
        fields: of a magnet: the same of uniform external fields, in units of J, alone or beside `betas`; the magnet's
            own uniform field is not looked at.
        start: a trained run to start from (its folder, path or what `train` returned): at another temperature, with
            another rate, for more iterations, or of the torus of half or twice the lengths.
        callbacks: called with the `Progress` after every iteration; one that returns True ends the training.
        optimiser: makes an optimiser of the flow's parameters; Adam with the preset's settings if not given.
        objective: what is minimised, see `objectives.Objective`; the reverse KL divergence, by the gradient that the
            training names, if not given.
        time_limit: in seconds.
        target, data: what the run of a run folder is on, where that is the user's own target, or data.
        progress: whether to show it; if not given, on terminals and in notebooks.
        should_stop: asked after every iteration; True saves, and the run can go on later.

    Returns:
        The run folder, the flow and how the training ended.

    Raises:
        InvalidTarget, SymmetryMismatch: the target breaks a law, see `targets.check_target`.
        InvalidInput, RunFolderError, CheckpointError, TrainingDiverged: as they say; too little memory is InvalidInput.

    Example:
        >>> import tempfile
        >>> import isingflow
        >>> magnet = isingflow.HubbardStratonovich(isingflow.lattice.square(4), beta=0.3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained = train(magnet, output=f"{folder}/run", iterations=20, progress=False)
        ...     fine = train(magnet.at(beta=0.32), start=trained, iterations=5, output=f"{folder}/fine", progress=False)
        >>> trained.outcome.value, fine.flow.sample(3)[0].shape
        ('finished', torch.Size([3, 4, 4]))

        A callback that stops on a plateau, an optimiser and an objective of one's own:

        >>> from isingflow.training import Plateau
        >>> from isingflow.training.objectives import reverse_kl
        >>> def flattened(flow, target, z, settings):
        ...     loss, excess = reverse_kl(flow, target, z, settings)
        ...     return loss + 1e-3 * sum(p.square().sum() for p in flow.parameters()), excess
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = dict(iterations=20, progress=False)
        ...     stopped = train(magnet, output=f"{folder}/a", callbacks=[Plateau(patience=4)], **options)
        ...     sgd = train(magnet, output=f"{folder}/b", optimiser=lambda p: torch.optim.SGD(p, lr=1e-4), **options)
        ...     own = train(magnet, output=f"{folder}/c", objective=flattened, **options)
        >>> sgd.outcome.value, own.outcome.value
        ('finished', 'finished')
    """
    _check_options(preset=preset, bounds=bounds, iterations=iterations, learning_rate=learning_rate, seed=seed)
    for name, told in (("optimiser", optimiser), ("objective", objective)):
        function(name, told)
    for callback in instance("callbacks", callbacks, list | tuple, "a list of functions"):
        function("a callback", callback, optional=False)
    function("should_stop", should_stop, optional=False)
    if time_limit is not None:
        time_limit = number("time_limit", time_limit, finite=False, above=0)
    instance("output", output, Path | str | None, "a path")
    instance("data", data, Dataset | None, "a data set")
    shown = (is_watched() if progress is None else flag("progress", progress)) and not follows()
    where = placed(devices.resolve(device))
    source = None if start is None else _opened(start)
    own = flow if isinstance(flow, Flow) else None
    if isinstance(what, RunFolder):
        if settings:
            raise InvalidInput("settings are for a new run: the run of a folder has its own")
        if from_beta is not None:
            raise InvalidInput("from_beta is for a new run: the run of a folder has its own")
        for name, range_given in (("betas", betas), ("fields", fields)):
            if range_given is not None:
                raise InvalidInput(f"{name} are for a new run: the run of a folder has its own")
        run, config = what, what.config
    else:
        what = what if isinstance(what, Dataset) else as_target(what)
        run = None
        config = configured(
            what,
            source,
            preset=preset,
            flow=flow,
            bounds="upper" if bounds is None and objective is not None else bounds,
            seed=seed,
            iterations=iterations,
            learning_rate=learning_rate,
            settings=settings,
            from_beta=from_beta,
            betas=betas,
            fields=fields,
        )
        if isinstance(what, Dataset):
            target, data = None, what
        else:
            target, data = what if config.goal is None else config.target(), None
    if objective is not None and config.training.bounds == "both":
        raise InvalidInput("an objective takes the place of the upper bound alone: bounds 'both' has one of its own")
    given = None if target is None else as_target(target)
    try:
        problem = problem_of(config, device=where, target=given, data=data, flow=own, objective=objective)
        earlier = None if source is None else load(source, device=where)
        if earlier is not None:
            problem.begin(earlier)  # refused before anything is written
        check_shares(config)
        first(lambda: None if run is not None and run.has_checkpoint else foresee(problem, time_limit=time_limit))
        run = create(output, config, begun=earlier is None) if run is None else run
        logger.info("run folder %s", run.path)
        if isinstance(problem, Variational):
            recall(run, problem.target)
            problem.solve()
        with shared(run).training(), progress_display(quiet=not shown) as show:
            report = lambda state: show(state.iteration, state.iterations, progress_text(state))  # noqa: E731
            outcome = fit(
                shared(run),
                problem,
                time_limit=time_limit,
                callbacks=[report, *callbacks] if shown else callbacks,
                optimiser=optimiser,
                should_stop=should_stop,
                start=earlier,
            )
    except InvalidInput:
        if run is not None and not follows():
            run.discard_unused()
        raise
    return Trained(run, problem, outcome)


def configured(
    what: Target | Dataset,
    earlier: AnyRun | None = None,
    *,
    preset: str | None = None,
    flow: str | AnyFlowConfig | Flow | None = None,
    bounds: str | None = None,
    seed: int = 0,
    iterations: int | None = None,
    learning_rate: float | None = None,
    settings: Mapping[str, Any] | None = None,
    from_beta: float | None = None,
    betas: tuple[float, float] | None = None,
    fields: tuple[float, float] | None = None,
) -> AnyRunConfig:
    """The configuration of a new run; arguments as in `train`.

    Args:
        what: a target or a data set.
        earlier: a run to start from, whose flow and training are taken over, at a lower rate.

    Raises:
        InvalidInput: unknown names, a preset or flow beside an earlier run, or what is given twice.
    """
    for name, value in {"iterations": iterations, "learning_rate": learning_rate, "bounds": bounds}.items():
        if value is not None and f"training.{name}" in (settings or {}):
            raise InvalidInput(f"training.{name} is given twice: as a setting and as {name}")
    instance("flow", flow, str | AnyFlowConfig | Flow | None, "its name, settings of one, or a Flow")
    if earlier is not None and (preset or flow):
        raise InvalidInput("a run that starts from another has its preset and its flow: leave preset and flow out")
    own = OwnFlow.of(flow) if isinstance(flow, Flow) else flow
    kind = own if isinstance(own, str) else DEFAULT_FLOW
    if betas is None and fields is None:
        config = _by_preset(what, preset or "quick", kind, bounds, seed, iterations, from_beta)
    else:
        if from_beta is not None or bounds == "both":
            raise InvalidInput(
                "one flow for a range of temperatures or fields is trained at all of them, for the bound from above: "
                "leave out from_beta (--from-beta) and bounds 'both' (--bounds)"
            )
        config = _family(what, betas, fields, preset or "quick", kind, seed, iterations)
    if own is not None and not isinstance(own, str):
        config = replace(config, flow=own, training=config.training.alone())
    if earlier is not None:
        before = earlier.config.training
        training = replace(
            before.alone(),
            iterations=iterations or before.iterations,
            learning_rate=FINE * before.learning_rate,
            bounds=bounds or before.bounds,
            evaluation_samples=_as_dear(before.evaluation_samples, earlier.config, config),
        )
        flow = earlier.config.flow
        config = config.with_flow_of(earlier.config)
        if isinstance(what, Target) and flow.fitted(config.domain) != flow:
            raise InvalidInput(
                f"a flow learnt on {earlier.config} cannot start one on {config}: what fits is a run on a lattice "
                "of the same kind, of the same, of half or of twice the lengths"
            )
        if of_flow := [name for name in settings or {} if str(name).startswith("flow.")]:
            raise InvalidInput(f"{of_flow[0]}: a run that starts from another has its flow: only training.* can be set")
        config = replace(config, preset=earlier.config.preset, flow=flow, training=training)
        config = replace(config, settings=still_true(config, earlier.config.settings))
    if learning_rate is not None:
        config = replace(config, training=replace(config.training, learning_rate=learning_rate))
    return overridden(config, settings)


def _as_dear(samples: int, before: AnyRunConfig, now: AnyRunConfig) -> int:
    """Samples for the evaluation of a run that starts from another: fewer on a larger lattice, where each is dear."""
    sites, earlier = (math.prod(config.sample[1]) for config in (now, before))
    return samples if sites <= earlier else min(samples, max(samples * earlier // sites, FEWEST_SAMPLES))


def _by_preset(
    what: Target | Dataset,
    preset: str,
    flow: str,
    bounds: str | None,
    seed: int,
    iterations: int | None,
    from_beta: float | None,
) -> AnyRunConfig:
    options: dict[str, Any] = {"flow": flow, "seed": seed, "iterations": iterations}
    if isinstance(what, HubbardStratonovich):
        planned_beta = planned(what.lattice, what.beta, preset) if from_beta is None else number("from_beta", from_beta)
        beta, goal = beta_and_goal(what.beta, planned_beta)
        bounds = bounds or _usual_bounds(what if goal is None else what.at(beta=beta), preset)
        return RunConfig.from_preset(preset, what.lattice, beta, goal=goal, bounds=bounds, **options)
    if from_beta is not None:
        raise InvalidInput(f"from_beta is of magnets, whose spins can be annealed; there are none behind {what}")
    if isinstance(what, Dataset):
        return DensityConfig.from_preset(preset, what, **options)
    return TargetConfig.from_preset(preset, what, bounds=bounds or "upper", **options)


def _family(
    what: Target | Dataset,
    betas: tuple[float, float] | None,
    fields: tuple[float, float] | None,
    preset: str,
    flow: str,
    seed: int,
    iterations: int | None,
) -> FamilyConfig:
    if not isinstance(what, HubbardStratonovich):
        raise InvalidInput(f"betas and fields are of magnets, which have temperatures; {what} has none")
    low, high = (what.beta, what.beta) if betas is None else ends("betas", betas, "inverse temperature")
    lattice, span = what.lattice, None
    if betas is not None and not low < high:
        raise InvalidInput(f"betas are {low:g} and {high:g}: expected a range from a smaller to a larger value")
    if fields is not None:
        span = ends("fields", fields, "external field")
        if isinstance(lattice.field, np.ndarray):
            raise InvalidInput(f"fields are a range of uniform ones, and the field of {lattice}: leave one of them out")
        lattice = lattice.with_field(None)
    return FamilyConfig.from_preset(
        preset, lattice, low, high, fields=span, flow=flow, seed=seed, iterations=iterations
    )


def _usual_bounds(magnet: HubbardStratonovich, preset: str) -> str:
    """What is narrowed where nothing is said; the published settings stay as they are."""
    return "both" if magnet.undecided and preset != "paper" else "upper"


def _opened(run: AnyRun | Trained | Path | str) -> AnyRun:
    """The folder of a run, of what `train` returned, or at a path."""
    if isinstance(run, Trained):
        return run.run
    return opened(run)


def _check_options(*, preset: object, bounds: object, iterations: object, learning_rate: object, seed: object) -> None:
    """Refuse what cannot be a part of any configuration; None is what a preset says."""
    instance("preset", preset, str | None, "its name")
    instance("bounds", bounds, str | None, "upper or both")
    if iterations is not None:
        count("iterations", iterations)
    if learning_rate is not None:
        number("learning_rate", learning_rate, above=0)
    count("seed", seed, least=0, most=LARGEST_SEED)
