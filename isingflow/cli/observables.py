"""`isingflow observables`: averages over the samples in a file, with error bars, beside the exact answers."""

from __future__ import annotations

from pathlib import Path

import click

from isingflow.cli.options import JSON, STRONGEST, Command, Number, Place, Size
from isingflow.cli.output import print_result, show_notes, warn
from isingflow.runtime import stopping


@click.command("observables", cls=Command)
@click.argument("file", type=Place())
@click.option("--size", type=Size(), metavar="L|LXxLY", help="Refuse a file of another size.")
@click.option("--beta", type=Number(most=STRONGEST), metavar="B", help="Refuse a file of another inverse temperature.")
@JSON
def command(file: Path, size: tuple[int, ...] | None, beta: float | None, as_json: bool) -> None:
    """Energy, magnetisation, correlations: averages over samples that `sample`, `monte-carlo` or `hmc` wrote.

    Samples of a flow are weighted; chains have their autocorrelation in their errors.
    """
    show_notes(quiet=as_json)
    from isingflow.exact import averages
    from isingflow.lattice import external
    from isingflow.observables.samples import Samples

    samples = Samples.read(file)
    if size is not None and len(size) == 1:
        size = size * len(samples.lattice.size)
    samples.require(size=size, beta=beta)
    found = stopping.watched(samples.observables)
    exact = stopping.watched(averages, samples.lattice, samples.beta)
    warnings = samples.warnings()
    for warning in warnings:
        warn(warning)
    document = {
        "lattice": samples.lattice.kind,
        "size": list(samples.lattice.size),
        "beta": samples.beta,
        **external.entry(samples.lattice.field),
        "samples": found.samples,
        "effective_sample_size": found.effective_sample_size,
        "certified": samples.certified,
        **found.as_dict(),
        "autocorrelation_times": {name: tau.as_dict() for name, tau in found.autocorrelation_times.items()},
        "exact": exact,
        "warnings": warnings,
    }
    print_result(document, as_json, lambda: found.table(exact))
