"""`isingflow density`: a flow on data, new or resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
)
from isingflow.cli.output import show_notes
from isingflow.cli.training import TRAINING, print_finished, resume_words, run_to_resume, train_and_report
from isingflow.errors import InvalidInput, RunFolderError
from isingflow.runtime.differences import in_a_line

if TYPE_CHECKING:
    from isingflow.datasets import Dataset
    from isingflow.runs.config import DensityConfig
    from isingflow.runs.folder import RunFolder


@click.command("density", cls=Command, address_space=TORCH)
@click.argument("name", type=Word(), required=False, metavar="mnist|TOY|tabular")
@click.argument("path", type=Word(), required=False, metavar="[FILE]")
@TRAINING
@click.option(
    "--start",
    type=OneOf("gaussian", "copula", "normal"),
    metavar="gaussian|copula|normal",
    help="What is fitted first; the preset's own, copula for grey levels, gaussian for other data by default.",
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
    resume: bool,
    root: Path | None,
    device: str,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a flow on data, evaluate it on data that it has not seen, and draw its figures.

    Data sets: mnist; the toys eight-gaussians, two-spirals, moons, pinwheel, checkerboard, rings, swiss-roll, bimodal,
    trimodal and claw; tabular with a FILE (.npy, .npz, HDF5, or text: .csv, .tsv, .csv.gz), or digits, breast-cancer,
    or a UCI set by name.
    """
    resumed = run_to_resume(resume, output)
    show_notes(quiet or as_json)
    from isingflow.runs.folder import RunFolder, open_density

    if resumed is not None:
        run = open_density(resumed)
        _check_unchanged(run, name, path, options)
        if print_finished(run, as_json):
            return
        where, data = device_from(device), run.config.data_set(root)
    else:
        if name is None:
            raise InvalidInput(f"which data? give {_known()}")
        where = device_from(device)
        config, data = _new_config(name, path, root, options)
        run = RunFolder.create(output, config)
    resuming = resume_words(["density"], run, device, time_limit) + ([] if root is None else ["--data", str(root)])
    train_and_report(
        ctx, run, device=where, data=data, time_limit=time_limit, resuming=resuming, quiet=quiet, as_json=as_json
    )


def _known() -> str:
    from isingflow.datasets import NAMES

    return f"one of {', '.join(NAMES)}"


def _new_config(
    name: str, path: str | None, root: Path | None, options: dict[str, Any]
) -> tuple[DensityConfig, Dataset]:
    from isingflow import datasets
    from isingflow.architectures.start import check_start
    from isingflow.runs.config import DensityConfig

    seed = options["seed"] or 0
    data = datasets.load(name, path=path, root=root, seed=seed)
    config = DensityConfig.from_preset(
        options["preset"] or "quick",
        data,
        path=_absolute(path),
        start=options["start"],
        flow=options["flow"] or "monge-ampere",
        seed=seed,
        iterations=options["steps"],
    )
    check_start(data, config.start)
    return config, data


def _absolute(path: str | None) -> str | None:
    """Where a table is, from any working directory; the name of a known one stays as it is."""
    from isingflow.datasets import tabular

    return path if path is None or path in tabular.KNOWN else str(Path(path).resolve())


def _check_unchanged(
    run: RunFolder[DensityConfig], name: str | None, path: str | None, options: dict[str, Any]
) -> None:
    """What is given to --resume must be the run's own."""
    config = run.config
    given = {
        "data": name,
        "path": _absolute(path),
        "preset": options["preset"],
        "seed": options["seed"],
        "flow": options["flow"],
        "start": options["start"],
        "steps": options["steps"],
    }
    own = {
        "data": config.data,
        "path": config.path,
        "preset": config.preset,
        "seed": config.seed,
        "flow": config.flow.kind,
        "start": config.start,
        "steps": config.training.iterations,
    }
    given = {key: value for key, value in given.items() if value is not None}
    changed = [f"{key}: {value} here, {own[key]} there" for key, value in given.items() if value != own[key]]
    if changed:
        raise RunFolderError(f"--resume: not the run in {run.path}: {in_a_line(changed)}")
