"""`isingflow observables`: averages over the samples in a file, with error bars, beside the exact answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isingflow.cli.lattices import known
from isingflow.cli.options import JSON, STRONGEST, Number, Size
from isingflow.cli.output import print_result, show_notes, warn

if TYPE_CHECKING:
    from isingflow.lattice import Lattice

MOST_MOMENT_SITES = 144
"""Of lattices whose exact magnetisation takes seconds at most."""


@click.command("observables")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--size", type=Size(), metavar="L|LXxLY", help="Refuse a file of another size.")
@click.option("--beta", type=Number(most=STRONGEST), metavar="B", help="Refuse a file of another inverse temperature.")
@JSON
def command(file: Path, size: tuple[int, int] | None, beta: float | None, as_json: bool) -> None:
    """Energy, magnetisation, correlations: averages over samples that `sample`, `monte-carlo` or `hmc` wrote.

    Samples of a flow are weighted; chains have their autocorrelation in their errors.
    """
    show_notes(quiet=as_json)
    from isingflow.samples import Samples

    samples = Samples.read(file)
    samples.require(size=size, beta=beta)
    found = samples.observables()
    exact = _exact(samples.lattice, samples.beta)
    warnings = samples.warnings()
    for warning in warnings:
        warn(warning)
    document = {
        "lattice": samples.lattice.kind,
        "size": list(samples.lattice.size),
        "beta": samples.beta,
        "samples": found.samples,
        "effective_sample_size": found.effective_sample_size,
        "certified": samples.certified,
        **found.as_dict(),
        "autocorrelation_times": {name: tau.as_dict() for name, tau in found.autocorrelation_times.items()},
        "exact": exact,
        "warnings": warnings,
    }
    print_result(document, as_json, lambda: found.table(exact))


def _exact(lattice: Lattice, beta: float) -> dict[str, float]:
    """Exact answers by the names of the observables, as far as they are known and do not take long."""
    from isingflow.exact import moments, thermodynamics

    solution = known(thermodynamics, lattice, beta)
    answers = {}
    if solution is not None:
        names = ("energy_per_site", "heat_capacity_per_site")
        answers |= {name: getattr(solution, name) for name in names}
    magnetisation = known(moments, lattice, beta) if lattice.sites <= MOST_MOMENT_SITES else None
    if magnetisation is not None:
        names = ("magnetisation_abs", "magnetisation_squared", "magnetisation_fourth", "binder")
        answers |= {name: getattr(magnetisation, name) for name in names}
        answers["susceptibility"] = lattice.sites * magnetisation.magnetisation_squared
    return {name: value for name, value in answers.items() if math.isfinite(value)}
