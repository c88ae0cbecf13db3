"""`isingflow monte-carlo`: Markov chains of spins: samples in a file, or a table at a range of temperatures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.lattices import MAGNETS, betas_from, lattice_from, size_option
from isingflow.cli.options import JSON, MOST_STREAMED, QUIET, SEED, Command, Place, Size, Whole, Word, check_new_file
from isingflow.cli.output import print_result, show_notes
from isingflow.errors import InvalidInput
from isingflow.runtime.progress import progress_of

if TYPE_CHECKING:
    from isingflow.evaluation.scanned import ScanReport
    from isingflow.evaluation.spins import SpinsReport

MOST_SITES = 2**24
CHAINS = 8
ADDRESS_SPACE = 800 * 2**20
"""Bytes that compiled kernels and torch are loaded into, besides those of threads."""
SAMPLES, TABLE, FIGURE = ".npz", ".csv", ".png"


@click.command("monte-carlo", cls=Command, address_space=ADDRESS_SPACE)
@size_option(Size(sites=MOST_SITES))
@MAGNETS
@click.option(
    "--samples",
    type=Whole(2, MOST_STREAMED),
    required=True,
    metavar="N",
    help="How many in all, at each temperature, rounded up to a multiple of the chains.",
)
@click.option("--chains", type=Whole(1, 10**5), default=CHAINS, metavar="C", help=f"Chains; {CHAINS} by default.")
@click.option(
    "--sampler",
    type=Word(),
    metavar="NAME",
    help="wolff, swendsen-wang, metropolis, heat-bath or tempering; by default what suits the couplings.",
)
@click.option("--every", type=Whole(1, 10**9), default=1, metavar="K", help="Sweeps per sample; 1 by default.")
@click.option("--thermalise", type=Whole(1, 10**9), metavar="T", help="Sweeps before the first sample.")
@click.option(
    "--output",
    type=Place(),
    metavar="FILE.npz|FILE.csv",
    help="A new file for the samples at one temperature; or for the table of a range, with FILE.npz for energy and "
    "magnetisation along the chains and FILE.png, a figure.",
)
@SEED
@QUIET
@JSON
def command(
    size: tuple[int, ...] | None,
    samples: int,
    chains: int,
    sampler: str | None,
    every: int,
    thermalise: int | None,
    output: Path | None,
    seed: int,
    quiet: bool,
    as_json: bool,
    **magnet: Any,
) -> None:
    """The Ising model by Markov chains: samples in a file, or a range of temperatures in a table.

    At one temperature spins, energy, magnetisation and chain of every sample go to one .npz file. Where the continuous
    form is affordable, fields drawn from p(x | s) and, where the exact free energy is known, their log_prob are added.
    Samples go to disk as they are drawn: they need not fit in memory.

    A range of temperatures gives energy, heat capacity, magnetisation, Binder ratio, susceptibility and correlation
    length at each, with errors, beside the exact answers; with --output FILE.csv as a table, with a figure and the
    series that `isingflow crossing` reads.
    """
    suffix = None if output is None else output.suffix
    if output is not None:
        check_new_file(output, (SAMPLES, TABLE))
    if output is not None and suffix == TABLE:
        for other in (SAMPLES, FIGURE):
            check_new_file(output.with_suffix(other), (other,))
    show_notes(quiet or as_json)
    lattice = lattice_from(size, magnet)
    betas = betas_from(magnet, lattice)
    if len(betas) > 1 and suffix == SAMPLES:
        raise InvalidInput(f"--output {output}: samples are kept at one temperature; a range goes to FILE.csv")
    if len(betas) == 1 and output is None:
        raise InvalidInput("--output is missing: a new file for the samples, FILE.npz, or FILE.csv for their averages")
    options: dict[str, Any] = {
        "chains": chains,
        "sampler": sampler,
        "every": every,
        "thermalise": thermalise,
        "seed": seed,
    }
    report: SpinsReport | ScanReport
    with progress_of("sweeps", quiet=quiet or as_json) as report_progress:
        if output is not None and suffix == SAMPLES:
            from isingflow.evaluation.spins import write_spins

            report = write_spins(output, lattice, betas[0], samples=samples, report_progress=report_progress, **options)
        else:
            from isingflow.evaluation.temperatures import scan

            each = max(-(-samples // chains), 2)
            report = found = scan(lattice, betas, samples=each, report_progress=report_progress, **options)
            if output is not None:
                found.write(output, output.with_suffix(SAMPLES), output.with_suffix(FIGURE))
    document = report.as_dict() | ({} if output is None else {"output": str(output)})
    print_result(document, as_json, lambda: str(report))
