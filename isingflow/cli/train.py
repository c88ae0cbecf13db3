"""`isingflow train`: a new run or one to resume, its progress, and the signals that stop it."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.lattices import MAGNET, beta_from, lattice_from, size_option
from isingflow.cli.options import DEVICE, JSON, QUIET, Number, Size, Whole, device_from, seed_option
from isingflow.cli.output import print_result, show_notes
from isingflow.cli.progress import progress_display, time_left
from isingflow.cli.signals import StopRequest
from isingflow.errors import InvalidInput, RunFolderError

if TYPE_CHECKING:
    from isingflow.config import RunConfig
    from isingflow.runs import RunFolder
    from isingflow.training import Progress

MOST_SITES = 2**18


@click.command("train")
@size_option(Size(sites=MOST_SITES))
@MAGNET
@click.option("--preset", metavar="NAME", help="quick (the default), accurate, or paper: the published configuration.")
@click.option("--output", type=click.Path(path_type=Path), metavar="RUN", help="The run folder; runs/NNN by default.")
@click.option("--time-limit", type=Number(positive=True), metavar="S", help="Stop training after this many seconds.")
@click.option("--steps", type=Whole(1, 10**9), metavar="N", help="Number of training iterations.")
@click.option("--resume", is_flag=True, help="Continue the run in --output, as if it had not been interrupted.")
@seed_option(default=None)
@DEVICE
@QUIET
@JSON
@click.pass_context
def command(
    ctx: click.Context,
    output: Path | None,
    time_limit: float | None,
    resume: bool,
    device: str,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a flow, evaluate it and draw its figures.

    Without options: 16x16, critical, preset quick, in a new numbered folder under runs/. Ctrl-C and SIGTERM save a
    checkpoint, print the command that resumes, and exit.
    """
    if resume and output is None:
        raise InvalidInput("--resume: which run? give its folder with --output RUN")
    show_notes(quiet or as_json)
    from isingflow.runs import RunFolder

    if resume:
        run = RunFolder.open(output)
        _check_unchanged(run, options)
        report = _finished_report(run)
        if report is not None:
            document = {"run": str(run.path), "outcome": "finished", **report}
            print_result(
                document, as_json, lambda: f"{run.path} is finished already; its report:\n{_report_lines(report)}"
            )
            return
        where = device_from(device)
    else:
        config = _new_config(options)
        where = device_from(device)
        _check_possible(config)
        run = RunFolder.create(output, config)

    from isingflow import plots
    from isingflow.evaluation import evaluate
    from isingflow.training import Outcome, train

    logging.getLogger(__name__).info("run folder %s", run.path)
    stop = StopRequest()
    with stop.listening(), progress_display(quiet or as_json) as show:
        outcome = train(
            run,
            device=where,
            time_limit=time_limit,
            report_progress=lambda state: show(state.iteration, state.iterations, _progress_text(state)),
            should_stop=stop.requested,
        )
    if outcome is Outcome.INTERRUPTED:
        resuming = _resume_command(run, device, time_limit)
        print(f"interrupted and saved; to continue:\n  {resuming}", file=sys.stderr)
        ctx.exit(128 + (stop.signal or signal.SIGINT))
    evaluation = evaluate(run, samples=run.config.training.evaluation_samples, device=where)
    run.save_report(evaluation.as_dict())
    if not as_json:
        click.echo(evaluation.table())
    figures = plots.plot_run(run, evaluation.samples)
    document = {"run": str(run.path), "outcome": outcome.value, **evaluation.as_dict()}
    print_result(document, as_json, lambda: f"run folder {run.path}, figures in {figures[0].parent}")


def _new_config(options: dict[str, Any]) -> RunConfig:
    from isingflow.config import RunConfig

    preset, seed = options["preset"] or "quick", options["seed"] or 0
    lattice, beta = lattice_from(options["size"], options), beta_from(options)
    return RunConfig.from_preset(preset, lattice, beta, seed=seed, iterations=options["steps"])


def _check_possible(config: RunConfig) -> None:
    """Build the flow once before anything is written: what is impossible is said now."""
    from isingflow.hubbard_stratonovich import HubbardStratonovich
    from isingflow.model import build_flow

    build_flow(HubbardStratonovich(config.lattice, config.beta), config.flow, seed=config.seed)


def _check_unchanged(run: RunFolder, options: dict[str, Any]) -> None:
    """Options given to --resume must be the run's own."""
    from isingflow.config import RunConfig

    config = run.config
    lattice, beta = lattice_from(options["size"], options, config.lattice), config.beta
    if options["critical"] or options["beta"] is not None or options["temperature"] is not None:
        beta = beta_from(options)
    seed = config.seed if options["seed"] is None else options["seed"]
    iterations = options["steps"] or config.training.iterations
    wanted = replace(
        config, lattice=lattice, beta=beta, seed=seed, training=replace(config.training, iterations=iterations)
    )
    if options["preset"] is not None:
        wanted = RunConfig.from_preset(options["preset"], lattice, beta, seed=seed, iterations=iterations)
    differences = wanted.differences(config)
    if differences:
        raise RunFolderError(f"--resume: not the run in {run.path}: {'; '.join(differences)}")


def _finished_report(run: RunFolder) -> dict[str, Any] | None:
    """The report of a run that has nothing left to do."""
    report = run.report()
    if report is None or not run.has_checkpoint or not run.load_checkpoint()[1].get("finished"):
        return None
    return report


def _report_lines(report: dict[str, Any]) -> str:
    from isingflow.estimate import Estimate

    shown = {key: Estimate(**v) if isinstance(v, dict) else v for key, v in report.items() if v is not None}
    return "\n".join(f"  {key.replace('_', ' '):<28}{value}" for key, value in shown.items())


def _resume_command(run: RunFolder, device: str, time_limit: float | None) -> str:
    words = ["isingflow", "train", "--resume", "--output", str(run.path)]
    words += [] if device == "auto" else ["--device", device]
    words += [] if time_limit is None else ["--time-limit", f"{time_limit:g}"]
    return shlex.join(words)


READINGS = {
    "variational_free_energy": ("bound {:.2f}", 1),
    "gap_nats": ("gap {:.2f} nats", 1),
    "effective_sample_size": ("sample size {:.0f} %", 100),
    "negative_log_likelihood": ("-ln p {:.3f}", 1),
}
"""How the progress shows a reading: its text, and what it is multiplied by."""


def _progress_text(progress: Progress) -> str:
    parts = [f"first on {progress.lattice}:"] if progress.lattice else []
    shown = {name: reading for name, reading in READINGS.items() if name in progress.readings}
    parts += [text.format(scale * progress.readings[name]) for name, (text, scale) in shown.items()]
    if progress.integration_error is not None:
        parts.append(f"error {progress.integration_error:.1g}")
    return "  ".join([*parts, time_left(progress.remaining)])
