"""`isingflow train`: a flow on a magnet, new or resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.lattices import FAMILY, beta_from, lattice_from, size_option
from isingflow.cli.options import (
    DEVICE,
    JSON,
    QUIET,
    STRONGEST,
    TORCH,
    Command,
    Number,
    OneOf,
    Place,
    Size,
    device_from,
    settings_from,
)
from isingflow.cli.output import print_json, show_notes
from isingflow.cli.training import TRAINING, flow_option, print_finished, resume_words, run_to_resume, train_and_report
from isingflow.errors import InvalidInput, RunFolderError
from isingflow.runtime.differences import in_a_line

if TYPE_CHECKING:
    from isingflow.lattice import Lattice
    from isingflow.runs.config import AnyRunConfig, FamilyConfig, RunConfig
    from isingflow.runs.folder import AnyRun, RunFolder

MOST_SITES = 2**18


@click.command("train", cls=Command, address_space=TORCH, together=True)
@size_option(Size(sites=MOST_SITES))
@FAMILY
@flow_option()
@TRAINING
@click.option(
    "--bounds",
    type=OneOf("upper", "both"),
    metavar="upper|both",
    help="What training narrows: the bound on the free energy from above (the default), or both, with Monte Carlo "
    "samples: for flows that miss part of the magnet, as in the ordered phase and, by default, in weak fields.",
)
@click.option(
    "--from",
    "source",
    type=Place(),
    metavar="RUN",
    help="Start from this trained run, with its flow and training: at another temperature, of the torus of half or "
    "twice the lengths, at another rate, for more steps.",
)
@click.option(
    "--from-beta",
    type=Number(most=STRONGEST),
    metavar="B",
    help="Train at this beta, nearer to 0; evaluations anneal spins from there to the one asked for. Preset accurate "
    "plans so for large tori near criticality.",
)
@click.option("--rate", type=Number(positive=True), metavar="R", help="Learning rate, if not the preset's own.")
@DEVICE
@QUIET
@JSON
@click.pass_context
def command(
    ctx: click.Context,
    output: Path | None,
    source: Path | None,
    rate: float | None,
    time_limit: float | None,
    settings: tuple[tuple[str, Any], ...],
    resume: bool,
    device: str,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a flow on a magnet, evaluate it and draw its figures.

    Without options: 16x16, critical, preset quick, in a new numbered folder under runs/. Ctrl-C and SIGTERM save a
    checkpoint, print the command that resumes, and exit.
    """
    resumed = run_to_resume(resume, output)
    if resumed is not None and (source is not None or rate is not None):
        raise InvalidInput("--from and --rate are for a new run; --resume goes on with what the run has")
    show_notes(quiet or as_json)
    options["settings"] = settings_from(settings)
    from isingflow.runs.folder import RunFolder, open_family, open_magnet
    from isingflow.runs.shared import create

    earlier = None
    run: AnyRun
    if resumed is not None:
        run = RunFolder.open(resumed)
        if run.config.kind == "family":
            _check_family(run, options)
        else:
            run = magnet = open_magnet(resumed)
            if isinstance(options["field"], tuple):
                raise RunFolderError(f"--resume: not the run in {run.path}: its field differs")
            _check_unchanged(magnet, options)
        if print_finished(run, as_json):
            return
        where = device_from(device)
    else:
        family = any(isinstance(options[name], tuple) for name in ("beta", "field"))
        earlier = None if source is None else (open_family if family else open_magnet)(source)
        config = new_config(options, rate, earlier)
        where = device_from(device)
        _check_possible(config)
        run = create(output, config, begun=earlier is None)
    resuming = resume_words(["train"], run.path, device, time_limit)
    document = train_and_report(
        ctx,
        run,
        device=where,
        start=earlier,
        time_limit=time_limit,
        resuming=resuming,
        quiet=quiet,
        as_json=as_json,
    )
    print_json(document, as_json)


def new_config(options: dict[str, Any], rate: float | None, earlier: RunFolder[Any] | None) -> AnyRunConfig:
    """The configuration asked for; what was not given is the default, or as in the earlier run."""
    from isingflow.targets import HubbardStratonovich
    from isingflow.training.train import configured

    names = {"preset": "preset", "flow": "flow", "bounds": "bounds", "iterations": "steps", "settings": "settings"}
    given = {name: options[option] for name, option in names.items()}
    given |= {"seed": options["seed"] or 0, "learning_rate": rate}
    known = None if earlier is None else earlier.config
    if isinstance(options["beta"], tuple) or isinstance(options["field"], tuple):
        lattice, beta, betas, fields = _ranges(options, known)
        given |= {"from_beta": options["from_beta"], "betas": betas, "fields": fields}
        return configured(HubbardStratonovich(lattice, beta), earlier, **given)
    lattice = lattice_from(options["size"], options, None if known is None else known.lattice)
    beta, from_beta = _temperatures(options, lattice, known)
    return configured(HubbardStratonovich(lattice, beta), earlier, from_beta=from_beta, **given)


Ends = tuple[float, float]


def _ranges(options: dict[str, Any], known: FamilyConfig | None) -> tuple[Lattice, float, Ends | None, Ends | None]:
    """Lattice and beta of a family, and its ranges of beta and fields; what was not given is as in a known family."""
    lattice, fields = _lattice_and_fields(options, known)
    if options["field"] is None and known is not None:
        fields = known.fields
    betas = options["beta"] if isinstance(options["beta"], tuple) else None
    if betas is not None and (options["critical"] or options["temperature"] is not None):
        raise InvalidInput("--critical and --temperature do not go with a range of temperatures: leave them out")
    if betas is None and known is not None and known.low < known.high and not _has_temperature(options):
        betas = known.low, known.high
    if betas is not None:
        beta = betas[0]
    else:
        beta = beta_from(options, lattice) if known is None or _has_temperature(options) else known.low
    return lattice, beta, betas, fields


def _lattice_and_fields(options: dict[str, Any], known: FamilyConfig | None) -> tuple[Lattice, Ends | None]:
    """The lattice asked for, and the range of fields on it, if one is."""
    fields = options["field"] if isinstance(options["field"], tuple) else None
    if fields is not None and options["field_seed"] is not None:
        raise InvalidInput(
            "--field-seed is of a random field of one strength, and --field a range of uniform ones: leave one out"
        )
    if fields is not None:
        options = options | {"field": None}
    return lattice_from(options["size"], options, None if known is None else known.lattice), fields


def _has_temperature(options: dict[str, Any]) -> bool:
    return options["critical"] or options["beta"] is not None or options["temperature"] is not None


def _temperatures(
    options: dict[str, Any], lattice: Lattice, known: RunConfig | None, *, resumed: bool = False
) -> tuple[float, float | None]:
    """The beta asked for, and that to train at, if it is another one; what was not given is as in a known run.

    A run that starts from the known one at a given beta is trained there; one that is resumed keeps its own.
    """
    given, from_beta = _has_temperature(options), options["from_beta"]
    if given or known is None:
        beta = beta_from(options, lattice)
    else:
        beta = known.beta if known.goal is None else known.goal
    if from_beta is None and known is not None and known.goal is not None and (resumed or not given):
        from_beta = known.beta
    return beta, from_beta


def _check_possible(config: AnyRunConfig) -> None:
    """Build the flow once before anything is written: what is impossible is said now."""
    from isingflow.runs.loading import new_flow

    new_flow(config)


def _check_family(run: AnyRun, options: dict[str, Any]) -> None:
    """Options given to --resume must be those of the family."""
    from isingflow.runs.config import FamilyConfig

    config = run.config
    assert isinstance(config, FamilyConfig)
    lattice, fields = _lattice_and_fields(options, config)
    lattice = lattice if config.fields is None else lattice.with_field(None)
    one = config.low == config.high
    if one and _has_temperature(options) and not isinstance(options["beta"], tuple):
        options = options | {"beta": beta_from(options, lattice), "critical": False, "temperature": None}
    known = {
        "beta": config.low if one else (config.low, config.high),
        "field": config.fields if fields is not None or config.fields is not None else options["field"],
        "seed": config.seed,
        "preset": config.preset,
        "flow": config.flow.kind,
        "steps": config.training.iterations,
        "bounds": "upper",
        "critical": False,
        "temperature": None,
        "from_beta": None,
    }
    changed = [name for name, value in known.items() if options[name] not in (None, value)]
    changed += [] if lattice == config.lattice else ["lattice"]
    changed += [name for name, value in options["settings"].items() if config.settings.get(name) != value]
    if changed:
        raise RunFolderError(f"--resume: not the run in {run.path}: its {', '.join(changed)} differ")


def _check_unchanged(run: RunFolder[RunConfig], options: dict[str, Any]) -> None:
    """Options given to --resume must be the run's own."""
    from msgspec.structs import replace

    from isingflow.runs.config import RunConfig
    from isingflow.runs.overrides import overridden
    from isingflow.runs.warmer import beta_and_goal

    config = run.config
    lattice = lattice_from(options["size"], options, config.lattice)
    beta, goal = beta_and_goal(*_temperatures(options, lattice, config, resumed=True))
    seed = config.seed if options["seed"] is None else options["seed"]
    iterations = options["steps"] or config.training.iterations
    bounds = options["bounds"] or config.training.bounds
    training = config.training.scaled(iterations).narrowing(bounds)
    wanted = replace(config, lattice=lattice, beta=beta, goal=goal, seed=seed, training=training)
    settings = options["settings"]
    if options["preset"] is not None or options["flow"] is not None:
        preset, flow = options["preset"] or config.preset, options["flow"] or config.flow.kind
        wanted = RunConfig.from_preset(
            preset, lattice, beta, goal=goal, flow=flow, bounds=bounds, seed=seed, iterations=iterations
        )
        settings = config.settings | settings
    differences = replace(overridden(wanted, settings), settings=config.settings).differences(config)
    if differences:
        raise RunFolderError(f"--resume: not the run in {run.path}: {in_a_line(differences)}")
