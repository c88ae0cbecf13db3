"""`isingflow observables`: averages over the samples in a file, with error bars, beside the exact answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from isingflow.cli.options import JSON, STRONGEST, Command, Number, Place, Size, check_new_file
from isingflow.cli.output import print_result, show_notes, warn
from isingflow.errors import InvalidInput
from isingflow.runtime import stopping

if TYPE_CHECKING:
    from isingflow.observables import Overlap


@click.command("observables", cls=Command)
@click.argument("file", type=Place())
@click.option("--size", type=Size(), metavar="L|LXxLY", help="Refuse a file of another size.")
@click.option("--beta", type=Number(most=STRONGEST), metavar="B", help="Refuse a file of another inverse temperature.")
@click.option("--overlap", is_flag=True, help="Of chains: overlaps q of replicas, their distribution and Binder ratio.")
@click.option("--figure", type=Place(), metavar="FILE.png", help="With --overlap: a new file for P(q).")
@JSON
def command(
    file: Path, size: tuple[int, ...] | None, beta: float | None, overlap: bool, figure: Path | None, as_json: bool
) -> None:
    """Energy, magnetisation, correlations: averages over samples that `sample`, `monte-carlo` or `hmc` wrote.

    Samples of a flow are weighted; chains have their autocorrelation in their errors.
    """
    show_notes(quiet=as_json)
    from isingflow.exact import averages
    from isingflow.lattice import external
    from isingflow.observables.samples import Samples

    if figure is not None:
        if not overlap:
            raise InvalidInput(f"--figure {figure}: it is of overlaps; give --overlap too")
        check_new_file(figure, (".png",), "--figure")
    samples = Samples.read(file)
    if size is not None and len(size) == 1:
        size = size * len(samples.lattice.size)
    samples.require(size=size, beta=beta)
    found = stopping.watched(samples.observables)
    exact = stopping.watched(averages, samples.lattice, samples.beta)
    replicas = stopping.watched(samples.overlap) if overlap else None
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
        **({} if replicas is None else {"overlap": replicas.as_dict()}),
    }
    if figure is not None and replicas is not None:
        _draw(replicas, figure)
    print_result(document, as_json, lambda: found.table(exact) + ("" if replicas is None else f"\n{replicas}"))


def _draw(found: Overlap, path: Path) -> None:
    from isingflow.plots.overlap import overlap_figure
    from isingflow.plots.style import png
    from isingflow.runtime.files import write_atomically

    write_atomically(path, png(overlap_figure(found), f"{found.lattice}: overlap of replicas"))
