"""`isingflow density --flow all`: the kinds of flow on the same data, one after the other, and one table of them.

OUTPUT/monge-ampere, OUTPUT/ot, OUTPUT/convex   their run folders
OUTPUT/report.json, report.txt, figures/flows.png   of all of them
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isingflow.cli.data import Asked
from isingflow.cli.output import print_result
from isingflow.cli.training import finished, resume_words, train_and_report
from isingflow.errors import InvalidInput, IsingflowError, RunFolderError
from isingflow.runtime import stopping

if TYPE_CHECKING:
    import torch

    from isingflow.datasets import Dataset
    from isingflow.runs.config import DensityConfig
    from isingflow.runs.folder import RunFolder

    Runs = dict[str, RunFolder[DensityConfig]]

ALL = "all"
FIGURE = "flows.png"


def is_comparison(output: Path) -> bool:
    """Whether a folder is no run, but holds runs of several kinds of flow."""
    from isingflow.architectures.build import FLOWS

    return not (output / "config.json").exists() and any((output / kind / "config.json").exists() for kind in FLOWS)


def new_runs(output: Path | None, asked: Asked, data: Dataset) -> tuple[Path, Runs]:
    """The folder of a new comparison, with a run folder for every kind of flow."""
    from isingflow.runs.folder import RUNS
    from isingflow.runs.making import new_folder, new_numbered_folder
    from isingflow.runtime.files import reason

    configs = _configs(asked, data)
    try:
        folder = new_numbered_folder(RUNS) if output is None else new_folder(output)
    except OSError as error:
        raise RunFolderError(f"cannot create the folder {output or RUNS}: {reason(error)}") from error
    return folder, _made(folder, configs)


def resumed_runs(output: Path, asked: Asked) -> Runs:
    """The runs of a comparison; those that its making did not come to are made now, if the data are named again."""
    from isingflow.architectures.build import FLOWS
    from isingflow.runs.folder import open_density

    there = {kind: open_density(output / kind) for kind in FLOWS if (output / kind / "config.json").exists()}
    if not there:
        raise RunFolderError(f"{output}: no runs of a comparison to go on with: leave --resume out to begin one")
    for kind, run in there.items():
        asked.check_unchanged(run, kind)
    missing = [kind for kind in FLOWS if kind not in there]
    if missing and asked.name is None:
        raise RunFolderError(
            f"{output}: no run of {', '.join(missing)} yet: give the command that began it again, with --resume"
        )
    made = _made(output, {kind: asked.config(asked.data_set(), kind) for kind in missing})
    return {kind: {**there, **made}[kind] for kind in FLOWS}


def train_all(
    ctx: click.Context,
    folder: Path,
    runs: Runs,
    *,
    device: torch.device,
    device_name: str,
    data: Dataset,
    root: Path | None,
    time_limit: float | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train the runs of a comparison that are not finished, and print the table of all.

    Args:
        ctx: of the command.
        folder: of the comparison.
        runs: by kind of flow.
        device, device_name: where to train, and what it was asked for as.
        data: what all of them are on.
        root: folder of data files.
        time_limit: of every training, in seconds.
        quiet: no progress.
        as_json: print one JSON document, a list of those of the runs.
    """
    from isingflow.evaluation import comparison
    from isingflow.runtime.files import write_atomically
    from isingflow.runtime.numbers import finite_or_none

    resuming = resume_words(["density"], folder, device_name, time_limit) + (
        [] if root is None else ["--data", str(root)]
    )
    documents = []
    for kind, run in runs.items():
        try:
            document = finished(run) or train_and_report(
                ctx,
                run,
                device=device,
                data=data,
                time_limit=time_limit,
                resuming=resuming,
                quiet=quiet,
                as_json=as_json,
            )
        except InvalidInput:
            _discard_unused(folder, runs)
            raise
        documents.append({"flow": kind, **document})
    stopping.check()
    reports = {document["flow"]: document for document in documents}
    table = comparison.table(next(iter(runs.values())).config.title(), reports)
    (folder / "figures").mkdir(exist_ok=True)
    write_atomically(folder / "figures" / FIGURE, comparison.figure(runs, data))
    write_atomically(folder / "report.txt", f"{table}\n".encode())
    write_atomically(folder / "report.json", (json.dumps(finite_or_none(documents), indent=2) + "\n").encode())
    print_result(documents, as_json, lambda: f"\n{table}\nin {folder}, figure {folder / 'figures' / FIGURE}")


def _configs(asked: Asked, data: Dataset) -> dict[str, DensityConfig]:
    """Of every kind of flow; what is not possible is said before anything is written."""
    from isingflow.architectures.build import FLOWS

    configs = {}
    for kind in FLOWS:
        try:
            configs[kind] = asked.config(data, kind)
            configs[kind].new_flow()
        except InvalidInput as error:
            raise InvalidInput(f"--flow all, {kind}: {error}") from None
    return configs


def _made(folder: Path, configs: dict[str, DensityConfig]) -> Runs:
    """Run folders within a folder; none of them where one cannot be made."""
    from isingflow.runs.folder import RunFolder

    made: Runs = {}
    try:
        for kind, config in configs.items():
            made[kind] = RunFolder.create(folder / kind, config)
    except IsingflowError:
        _discard_unused(folder, made)
        raise
    return made


def _discard_unused(folder: Path, runs: Runs) -> None:
    """Remove what holds nothing but configurations."""
    for run in runs.values():
        if run.path.exists():
            run.discard_unused()
    if not any(folder.iterdir()):
        folder.rmdir()
