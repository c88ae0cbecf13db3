"""`isingflow crossing`: the critical point from Monte Carlo at several sizes and temperatures."""

from __future__ import annotations

from pathlib import Path

import click

from isingflow.cli.options import JSON, SEED, Command, Place, Whole, check_new_file
from isingflow.cli.output import print_result, show_notes

RESAMPLES = 200
TABLE, FIGURE = ".csv", ".png"


@click.command("crossing", cls=Command)
@click.argument("study", type=Place(), nargs=-1, required=True)
@click.option(
    "--resamples",
    type=Whole(10, 10**5),
    default=RESAMPLES,
    metavar="N",
    help=f"Draws of the bootstrap that gives the errors; {RESAMPLES} by default.",
)
@click.option(
    "--output", type=Place(), metavar="FILE.csv", help="A new file for the table, with FILE.png, a figure, beside it."
)
@SEED
@JSON
def command(study: tuple[Path, ...], resamples: int, output: Path | None, seed: int, as_json: bool) -> None:
    """Where the Binder ratio and xi/L of several sizes cross, and the critical point by finite-size scaling.

    STUDY is a folder, or several files or folders, with what `isingflow monte-carlo --output` wrote at several sizes
    and temperatures: series beside the tables of ranges, or samples at one temperature each; folders are searched
    through.
    """
    if output is not None:
        check_new_file(output, (TABLE,))
        check_new_file(output.with_suffix(FIGURE), (FIGURE,))
    show_notes(as_json)
    from isingflow.evaluation.crossings import crossings

    report = crossings(study, resamples=resamples, seed=seed)
    if output is not None:
        report.write(output, output.with_suffix(FIGURE))
    print_result(report.as_dict() | ({} if output is None else {"output": str(output)}), as_json, lambda: str(report))
