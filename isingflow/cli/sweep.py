"""`isingflow sweep`: one command at many sizes, temperatures and seeds, here or on a cluster."""

from __future__ import annotations

import json
import math
import time
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.axes import Axis
from isingflow.cli.lattices import beta_from, lattice_from
from isingflow.cli.options import (
    JSON,
    QUIET,
    STRONGEST,
    TORCH,
    Command,
    Number,
    OneOf,
    Place,
    Setting,
    Size,
    Whole,
    Word,
    check_once,
    device_from,
    repeated,
    settings_from,
    together,
)
from isingflow.cli.output import print_json, tell
from isingflow.cli.signals import to_continue
from isingflow.errors import InvalidInput
from isingflow.runtime import launched, stopping
from isingflow.runtime.numbers import finite_or_none
from isingflow.runtime.progress import progress_display
from isingflow.runtime.resources import duration

if TYPE_CHECKING:
    from isingflow.runs.config import AnyRunConfig
    from isingflow.runs.settings import TrainingConfig
    from isingflow.studies.plan import Study
    from isingflow.studies.table import Table

MODULES = {"train": "train", "anneal": "anneal", "monte-carlo": "monte_carlo", "exact": "exact"}
"""Commands with their modules."""
LEAST_SECONDS = {"train": 3.0, "anneal": 2.0, "monte-carlo": 2.0, "exact": 0.5}
"""That a command takes before it has done anything."""
MOST_UNASKED = 1000
"""Points that are run without being asked for twice."""
MOST_CHECKED = 100
"""Points that are looked at before anything is run."""
MOST_JOBS = 1024
CHAINED = 4
"""A point that starts from its neighbour trains with the first one's iterations divided by this."""
OTHERS = {"ignore_unknown_options": True, "allow_extra_args": True}
"""Options that are not the sweep's own are those of the command."""
NOT_OF_POINTS = ("resume", "ground-state")
"""Options of the commands that have no place in a sweep."""
LOOK = 1.0
"""Seconds between two looks at a study that is followed."""

AXES = together(
    click.option("--size", type=Axis(Size()), metavar="L,LXxLY,...", help="Lattice sizes: 8,16 or 8x16,16x32."),
    click.option("--beta", type=Axis(Number(most=STRONGEST)), metavar="B,...", help="Inverse temperatures."),
    click.option("--field", type=Axis(Number(most=STRONGEST)), metavar="H,...", help="External fields."),
    click.option("--seed", type=Axis(Whole(0, 2**62)), metavar="N,...", help="Random seeds."),
    click.option("--preset", type=Axis(Word()), metavar="NAME,...", help="Presets of train."),
    click.option("--flow", type=Axis(Word()), metavar="KIND,...", help="Flows of train."),
)


@click.command("sweep", cls=Command, address_space=TORCH, context_settings=OTHERS)
@click.argument("what", metavar="[COMMAND]", type=OneOf(*MODULES), required=False)
@AXES
@click.option("--output", type=Place(), required=True, metavar="STUDY", help="The study's folder, new or begun.")
@click.option("--chain", type=OneOf("beta", "size"), metavar="beta|size", help="Trainings start from their neighbour.")
@click.option(
    "--chain-steps",
    type=Whole(1, 10**9),
    metavar="N",
    help=f"Iterations of those that do; by default those of the first divided by {CHAINED}.",
)
@click.option(
    "--chain-rate",
    type=Number(positive=True),
    metavar="R",
    help="Learning rate of those; by default that of the first.",
)
@click.option("--jobs", type=Whole(1, MOST_JOBS), default=1, metavar="N", help="Runs at a time; 1 by default.")
@click.option(
    "--launcher",
    type=OneOf("local", "slurm"),
    default="local",
    metavar="local|slurm",
    help="Where: on this machine, the default, or as an array of SLURM jobs.",
)
@click.option(
    "--slurm",
    type=Setting(),
    multiple=True,
    metavar="NAME=VALUE",
    help="Of the jobs, again for each: timeout_min=60, mem_gb=4, cpus_per_task=2, partition=NAME, ...",
)
@click.option("--dry-run", is_flag=True, help="Print the commands that are left, one a line; with slurm, a script.")
@click.option("--follow", is_flag=True, help="Show points as they end; without COMMAND, those of a sweep elsewhere.")
@click.option("--yes", is_flag=True, help=f"Also more than {MOST_UNASKED} points.")
@QUIET
@JSON
@click.pass_context
def command(
    ctx: click.Context,
    what: str | None,
    output: Path,
    chain: str | None,
    chain_steps: int | None,
    chain_rate: float | None,
    jobs: int,
    launcher: str,
    slurm: tuple[tuple[str, Any], ...],
    dry_run: bool,
    follow: bool,
    yes: bool,
    quiet: bool,
    as_json: bool,
    **axes: tuple[Any, ...] | None,
) -> None:
    """Run COMMAND (train, anneal, monte-carlo or exact) at all combinations of sizes, temperatures, fields and seeds.

    Values are lists, 8,16, or ranges, 0.3:0.6:13 (linear, ends included). All other options are those of COMMAND, the
    same for all points. A point is one ordinary run in STUDY/points; STUDY/table.csv, table.json and figure.png grow
    with every one. The same command goes on where it was stopped or killed: what is finished is skipped, what has
    failed is tried again. Without COMMAND the study in STUDY goes on as it is.
    """
    if launched.place().world > 1:
        raise InvalidInput("sweep starts processes of its own: run it without torchrun, with --jobs")
    given = {axis: values for axis, values in axes.items() if values is not None}
    parameters = settings_from(slurm)
    if parameters and launcher != "slurm":
        raise InvalidInput("--slurm goes with --launcher slurm")
    if what is not None:
        study = _asked(what, given, ctx.args, (chain, chain_steps, chain_rate), yes)
    else:
        study = _known(output, bool(given or ctx.args or chain or chain_steps or chain_rate))
    if what is None and follow:
        _follow(study, output, as_json)
        return
    if dry_run:
        _print_commands(study, output, launcher, jobs, parameters)
        return
    where = [] if launcher == "local" else ["--launcher", launcher]
    where += [word for name, value in parameters.items() for word in ("--slurm", f"{name}={value}")]
    to_continue(ctx, ["isingflow", "sweep", "--output", str(output), "--jobs", str(jobs), *where])
    table = _run(study, output, launcher, jobs, parameters, follow=follow, quiet=quiet or as_json)
    _answer(table, as_json, follow)


def _run(
    study: Study, output: Path, launcher: str, jobs: int, parameters: dict[str, Any], *, follow: bool, quiet: bool
) -> Table:
    """Run what is left, showing how far it is."""
    from isingflow.studies.launch import sweep
    from isingflow.studies.table import header, line

    cluster = None
    if launcher == "slurm":
        from isingflow.studies.cluster import Cluster

        cluster = Cluster(jobs, parameters)
    if follow and not quiet:
        click.echo(header(study))
    with progress_display(quiet or follow) as show:

        def report(table: Table, row: dict[str, Any]) -> None:
            if follow and not quiet:
                click.echo(line(study, row))
            show(len(table.ended), study.count, row["point"])

        return sweep(study, output, jobs=jobs, launcher=cluster, report=report)


def _known(output: Path, asked: bool) -> Study:
    """The study that is there; it has its command, axes and options."""
    from isingflow.studies.plan import read_study

    if asked:
        raise InvalidInput(f"which command? give one of {', '.join(MODULES)} before its options")
    return read_study(output)


def _answer(table: Table, as_json: bool, follow: bool) -> None:
    """Print the table; points that have failed, or were stopped, are an error."""
    if as_json:
        print_json(table.as_dict(), as_json)
    elif not follow:
        click.echo(table)
    unfinished = [row for row in table.rows.values() if row["status"] != "finished"]
    if unfinished:
        first = next((row for row in unfinished if row["error"]), unfinished[0])
        why = f": {first['point']}: {first['error']}" if first["error"] else ""
        raise InvalidInput(
            f"{len(unfinished)} of {len(table.rows)} points are not finished{why}; the same command tries them again"
        )


def _asked(
    what: str, axes: dict[str, Any], rest: list[str], chained: tuple[str | None, int | None, float | None], yes: bool
) -> Study:
    """The study asked for, looked at before anything is written."""
    from msgspec.structs import replace

    from isingflow.studies.plan import TAKEN, Study

    for axis in axes:
        if axis not in TAKEN[what]:
            raise InvalidInput(f"--{axis} does not go with {what}: leave it out")
    if not axes:
        raise InvalidInput(f"a sweep runs along some of {', '.join(f'--{axis}' for axis in TAKEN[what])}: give values")
    chain, steps, rate = chained
    if chain is None and (steps or rate):
        raise InvalidInput("--chain-steps and --chain-rate go with --chain")
    _check_cost(what, math.prod(len(values) for values in axes.values()), yes)
    asked: dict[str, Any] = {"command": what, **axes, **_options(what, rest), "chain": chain}
    study = Study(**asked, chained_steps=steps or (None if chain is None else 1), chained_rate=rate)
    trainings = _check(study)
    if chain is None:
        return study
    return replace(
        study,
        chained_steps=steps or max(min(training.iterations for training in trainings) // CHAINED, 1),
        chained_rate=rate or min(training.learning_rate for training in trainings),
    )


def _check_cost(what: str, points: int, yes: bool) -> None:
    from isingflow.studies.plan import MOST_POINTS

    seconds = points * LEAST_SECONDS[what]
    cost = f"{points} points take {duration(seconds)} at the very least, one at a time"
    if points > MOST_POINTS:
        raise InvalidInput(f"{cost}: expected at most {MOST_POINTS}")
    if points > MOST_UNASKED and not yes:
        raise InvalidInput(f"{cost}: give --yes if that is meant")


def _options(what: str, rest: list[str]) -> dict[str, Any]:
    """The options of the command itself as they were typed, and the settings of --set."""
    target = _command(what)
    parser = target.make_parser(click.Context(target, info_name=what))
    given, words, order = parser.parse_args(repeated("--set", rest))
    check_once(order)
    if words:
        raise InvalidInput(f"unexpected argument {words[0]}")
    found: dict[str, Any] = {}
    for option in target.params:
        value = given.get(option.name or "")
        if value is not None:
            name = option.opts[0].removeprefix("--")
            if name in NOT_OF_POINTS:
                raise InvalidInput(f"--{name} does not go with a sweep: leave it out")
            found[name] = value
    settings = [Setting().read(text) for text in found.pop("set", ())]
    return {"options": found, "settings": settings_from(settings)}


def _command(what: str) -> Command:
    return import_module(f"isingflow.cli.{MODULES[what]}").command


def _check(study: Study) -> list[TrainingConfig]:
    """Read the commands of a study as they will be read, once for every lattice and every flow.

    Returns:
        The settings of trainings, of none for other commands.

    Raises:
        InvalidInput: one of them cannot be run.
    """
    from isingflow.studies.plan import Study

    target, found = _command(study.command), []
    asked: dict[str, Any] = {name: getattr(study, name) for name in ("command", "options", "settings")}
    asked |= {axis: values[:1] for axis, values in study.axes.items()}
    kinds = {axis: values for axis, values in study.axes.items() if axis not in ("beta", "seed")}
    for values in islice(product(*kinds.values()), MOST_CHECKED):
        alone = Study(**asked | {axis: (value,) for axis, value in zip(kinds, values, strict=True)})
        words = alone.words(alone.first(), Path("study"))
        with target.make_context(study.command, words[1:]) as context:
            options = dict(context.params)
        if study.command == "train":
            found.append(_training(options).training)
        else:
            beta_from(options, lattice_from(options["size"], options))
    return found


def _training(options: dict[str, Any]) -> AnyRunConfig:
    """The configuration that a training with these options would have."""
    from isingflow.cli.train import new_config
    from isingflow.runs.folder import open_magnet

    device_from(options["device"])
    earlier = None if options["source"] is None else open_magnet(options["source"])
    return new_config(options | {"settings": settings_from(options["settings"])}, options["rate"], earlier)


def _follow(study: Study, output: Path, as_json: bool) -> None:
    """Show the points of a study as they end, until all have."""
    from isingflow.studies.points import Files
    from isingflow.studies.table import Table, header, line

    if not as_json:
        click.echo(header(study))
    table, shown = Table(study, output), set()
    while True:
        for point in study.points():
            row = table.put(point, Files.of(study, output, point).state())
            if row["status"] in ("finished", "failed") and point.name not in shown:
                shown.add(point.name)
                click.echo(json.dumps(finite_or_none(row)) if as_json else line(study, row))
        if len(shown) == study.count:
            return
        stopping.check()
        time.sleep(LOOK)


def _print_commands(study: Study, output: Path, launcher: str, jobs: int, parameters: dict[str, Any]) -> None:
    """Print what is left to run."""
    from isingflow.studies.plan import check_same
    from isingflow.studies.points import Files, Status
    from isingflow.studies.script import array_script, shell_line

    check_same(study, output)
    chains = [
        tuple(point for point in chain if Files.of(study, output, point).state().status is not Status.FINISHED)
        for chain in study.chains()
    ]
    left = [chain for chain in chains if chain]
    if done := study.count - sum(map(len, left)):
        tell(f"{done} of {study.count} points are finished")
    if not left:
        return
    if launcher == "slurm":
        click.echo(array_script(study, output, left, jobs=jobs, parameters=parameters))
    else:
        for chain in left:
            for point in chain:
                click.echo(shell_line(study, output, point))
