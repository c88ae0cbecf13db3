"""`isingflow density`: a flow on data, new or resumed; or flows of all kinds, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.comparison import ALL, is_comparison, new_runs, resumed_runs, train_all
from isingflow.cli.data import Asked
from isingflow.cli.options import (
    DATA,
    DEVICE,
    JSON,
    QUIET,
    TORCH,
    Command,
    OneOf,
    Word,
    device_from,
    settings_from,
)
from isingflow.cli.output import print_json, show_notes
from isingflow.cli.training import (
    TRAINING,
    flow_option,
    print_finished,
    resume_words,
    run_to_resume,
    train_and_report,
)
from isingflow.errors import InvalidInput
from isingflow.runtime import launched

if TYPE_CHECKING:
    from isingflow.datasets import Dataset
    from isingflow.runs.config import DensityConfig
    from isingflow.runs.folder import RunFolder


@click.command("density", cls=Command, address_space=TORCH, together=True)
@click.argument("name", type=Word(), required=False, metavar="mnist|cifar10|TOY|tabular")
@click.argument("path", type=Word(), required=False, metavar="[FILE]")
@flow_option("; or all: one after the other, and one table")
@TRAINING
@click.option(
    "--start",
    type=OneOf("gaussian", "tails", "copula", "normal"),
    metavar="gaussian|tails|copula|normal",
    help="What is fitted first; by default the preset's own, copula for grey levels, else what suits the data better.",
)
@DATA
@DEVICE
@QUIET
@JSON
@click.pass_context
def command(
    ctx: click.Context,
    name: str | None,
    path: str | None,
    output: Path | None,
    time_limit: float | None,
    settings: tuple[tuple[str, Any], ...],
    resume: bool,
    root: Path | None,
    device: str,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a flow on data, evaluate it on data that it has not seen, and draw its figures.

    Data sets: mnist, cifar10; the toys eight-gaussians, two-spirals, moons, pinwheel, checkerboard, circles, rings,
    swiss-roll, bimodal, trimodal and claw, also as 8gaussians, 2spirals and swissroll; tabular with a FILE (.npy, .npz,
    HDF5, or text: .csv, .tsv, .csv.gz), or digits, wine, breast-cancer, diabetes, iris, or a UCI set by name.
    """
    resumed = run_to_resume(resume, output)
    show_notes(quiet or as_json)
    asked = Asked(name, path, root, options | {"settings": settings_from(settings)})
    data: Dataset
    if launched.place().world > 1 and options["flow"] == ALL:
        raise InvalidInput("--flow all trains one flow after the other: name one of them, or start one process")
    if options["flow"] == ALL or (resumed is not None and options["flow"] is None and is_comparison(resumed)):
        if resumed is not None:
            folder, runs = resumed, resumed_runs(resumed, asked)
            where, data = device_from(device), next(iter(runs.values())).config.data_set(root)
        else:
            where, data = device_from(device), asked.data_set()
            folder, runs = new_runs(output, asked, data)
        train_all(
            ctx,
            folder,
            runs,
            device=where,
            device_name=device,
            data=data,
            root=root,
            time_limit=time_limit,
            quiet=quiet,
            as_json=as_json,
        )
        return
    from isingflow.runs.folder import open_density
    from isingflow.runs.shared import create

    run: RunFolder[DensityConfig]
    if resumed is not None:
        run = open_density(resumed)
        asked.check_unchanged(run, options["flow"])
        if print_finished(run, as_json):
            return
        where, data = device_from(device), run.config.data_set(root)
    else:
        where, data = device_from(device), asked.data_set()
        run = create(output, asked.config(data, options["flow"]))
    resuming = resume_words(["density"], run.path, device, time_limit) + ([] if root is None else ["--data", str(root)])
    document = train_and_report(
        ctx, run, device=where, data=data, time_limit=time_limit, resuming=resuming, quiet=quiet, as_json=as_json
    )
    print_json(document, as_json)
