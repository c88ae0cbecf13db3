"""What the commands that train have in common: their options, a run to create or resume, its progress, its signals."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.options import Number, Option, Place, Setting, Whole, Word, seed_option, together
from isingflow.cli.output import print_result
from isingflow.cli.signals import to_continue
from isingflow.errors import InvalidInput
from isingflow.runtime import launched, stopping
from isingflow.runtime.progress import progress_of

if TYPE_CHECKING:
    import torch

    from isingflow.datasets import Dataset
    from isingflow.runs.folder import AnyRun
    from isingflow.training import Trained

EVALUATION_SHARE = 0.2
"""Of a time limit, what is left for the evaluation and the figures."""
FIGURES_SHARE = 0.2
"""Of that, what is left for the figures."""

TRAINING = together(
    click.option("--preset", type=Word(), metavar="NAME", help="quick (the default), accurate, or paper."),
    click.option("--output", type=Place(), metavar="RUN", help="Its folder; runs/NNN by default."),
    click.option("--time-limit", type=Number(positive=True), metavar="S", help="Seconds for training and evaluation."),
    click.option("--steps", type=Whole(1, 10**9), metavar="N", help="Number of training iterations."),
    click.option(
        "--set",
        "settings",
        type=Setting(),
        multiple=True,
        metavar="NAME=VALUE ...",
        help="Settings in place of the preset's own, such as flow.width=128 training.batch=512.",
    ),
    click.option("--resume", is_flag=True, help="Continue the run in --output, as if it had not been interrupted."),
    seed_option(default=None),
)
"""Options of every training, beside its flow."""


def flow_option(more: str = "") -> Option:
    """The kind of flow; what a command knows beside the three is said last."""
    return click.option("--flow", type=Word(), metavar="KIND", help=f"monge-ampere (the default), ot or convex{more}.")


def run_to_resume(resume: bool, output: Path | None) -> Path | None:
    """Where the run is that --resume goes on with; None for a new run."""
    if resume and output is None:
        raise InvalidInput("--resume: which run? give its folder with --output RUN")
    return output if resume else None


def print_finished(run: AnyRun, as_json: bool) -> bool:
    """Print the report of a run that has nothing left to do; whether it is one."""
    document = finished(run)
    if document is None:
        return False
    print_result(document, as_json, lambda: f"{run.path} is finished already; its report:\n{run.table}")
    return True


def finished(run: AnyRun) -> dict[str, Any] | None:
    """The document of a run that has nothing left to do; None of any other."""
    from isingflow.runs.loading import is_complete

    return {"run": str(run.path), "outcome": "finished", **(run.report() or {})} if is_complete(run) else None


def train_and_report(
    ctx: click.Context,
    run: AnyRun,
    *,
    device: torch.device,
    data: Dataset | None = None,
    start: AnyRun | None = None,
    time_limit: float | None,
    resuming: list[str],
    quiet: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Train a run, evaluate it, draw its figures and print its table; or, if interrupted, how to go on.

    Args:
        ctx: of the command.
        run: new, or to be continued.
        device: where to train.
        data: of a run on data.
        start: a trained run that this one starts from.
        time_limit: in seconds, of the training, earlier parts included, and of its evaluation together.
        resuming: words of the command that would continue the run.
        quiet: no progress.
        as_json: print nothing.

    Returns:
        The JSON document of the run.
    """
    from isingflow.training import train

    to_continue(ctx, resuming)
    trained = train(
        run,
        device=device,
        data=data,
        start=start,
        time_limit=None if time_limit is None else (1 - EVALUATION_SHARE) * time_limit,
        progress=not (quiet or as_json),
        should_stop=stopping.requested,
    )
    return report(trained, run, device=device, data=data, time_limit=time_limit, quiet=quiet, as_json=as_json)


def report(
    trained: Trained,
    run: AnyRun,
    *,
    device: torch.device,
    data: Dataset | None,
    time_limit: float | None,
    quiet: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Evaluate a trained run, draw its figures and print its table; arguments and result as of `train_and_report`.

    Of several processes all evaluate, and the first one does the rest.
    """
    from isingflow.evaluation.reports import draw_figures, evaluate
    from isingflow.runs.shared import shared
    from isingflow.runtime.sharing import sharing

    with sharing(device):  # where a signal to any of them stops all
        stopping.check()
    with shared(run).results(wait=True), nullcontext() if launched.follows() else run.drawing():
        left = None
        if time_limit is not None:
            spent = shared(run).load_checkpoint()[1]["seconds"]
            left = (1 - FIGURES_SHARE) * max(time_limit - spent, EVALUATION_SHARE * time_limit)
        with progress_of("samples", quiet=quiet or as_json) as show:
            evaluation = evaluate(trained, device=device, save=False, time_limit=left, report_progress=show)
        stopping.check()
        document = {"run": str(run.path), "outcome": trained.outcome.value, **evaluation.as_dict()}
        if launched.follows():
            return document
        run.save_report(evaluation.as_dict(), evaluation.table())
        if not as_json:
            click.echo(evaluation.table())
        figures = draw_figures(run, evaluation.samples, data)
    if not as_json:
        click.echo(f"run folder {run.path}, figures in {figures[0].parent}")
    return document


def resume_words(command: list[str], output: Path, device: str, time_limit: float | None) -> list[str]:
    """The command that continues what is in a folder."""
    words = [*launched.words(), *command, "--resume", "--output", str(output)]
    words += [] if device == "auto" else ["--device", device]
    return words + ([] if time_limit is None else ["--time-limit", f"{time_limit:g}"])
