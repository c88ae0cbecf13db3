"""`isingflow monte-carlo`: samples of the Ising model by Markov chains of spins, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from isingflow.cli.lattices import MAGNET, beta_from, lattice_from, size_option
from isingflow.cli.options import JSON, MOST_STREAMED, OUTPUT, QUIET, SEED, Command, Size, Whole, Word, check_new_file
from isingflow.cli.output import print_result, show_notes
from isingflow.runtime.progress import progress_of

MOST_SITES = 2**24
CHAINS = 8
ADDRESS_SPACE = 800 * 2**20
"""Bytes that compiled kernels and torch are loaded into, besides those of threads."""


@click.command("monte-carlo", cls=Command, address_space=ADDRESS_SPACE)
@size_option(Size(sites=MOST_SITES))
@MAGNET
@click.option(
    "--samples",
    type=Whole(2, MOST_STREAMED),
    required=True,
    metavar="N",
    help="How many in all, rounded up to a multiple of the chains.",
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
@OUTPUT
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
    output: Path,
    seed: int,
    quiet: bool,
    as_json: bool,
    **magnet: Any,
) -> None:
    """Samples of the Ising model by Markov chains: spins, energy, magnetisation and chain in one .npz file.

    Where the continuous form is affordable, fields drawn from p(x | s) and, where the exact free energy is known, their
    log_prob are added. Samples go to disk as they are drawn: they need not fit in memory.
    """
    check_new_file(output)
    show_notes(quiet or as_json)
    lattice = lattice_from(size, magnet)
    beta = beta_from(magnet, lattice)
    from isingflow.evaluation.spins import write_spins

    with progress_of("sweeps", quiet=quiet or as_json) as report_progress:
        report = write_spins(
            output,
            lattice,
            beta,
            samples=samples,
            chains=chains,
            sampler=sampler,
            every=every,
            thermalise=thermalise,
            seed=seed,
            report_progress=report_progress,
        )
    print_result(report.as_dict(), as_json, lambda: str(report))
