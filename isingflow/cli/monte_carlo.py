"""`isingflow monte-carlo`: samples of the Ising model by Markov chains of spins, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from isingflow.cli.lattices import MAGNET, beta_from, continuous_form, known, lattice_from, size_option
from isingflow.cli.options import JSON, MOST_STREAMED, OUTPUT, QUIET, SEED, Size, Whole, check_new_file
from isingflow.cli.output import print_result, show_notes
from isingflow.runtime.progress import Clock, progress_display

MOST_SITES = 2**24
CHAINS = 8


@click.command("monte-carlo")
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
    size: tuple[int, int] | None,
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
    lattice, beta = lattice_from(size, magnet), beta_from(magnet)
    import numpy as np

    from isingflow.exact import thermodynamics
    from isingflow.lattice import heading
    from isingflow.monte_carlo import stream
    from isingflow.observables.files import rows_in_time, sample_writer
    from isingflow.runtime.files import check_space
    from isingflow.sampling import FieldDraws
    from isingflow.statistics.free_energy import mean

    each, clock = -(-samples // chains), Clock()
    columns = {
        "spins": (np.int8, lattice.shape),
        "energy": (np.float64, ()),
        "magnetisation": (np.float64, ()),
        "log_weight": (np.float64, ()),
        "chain": (np.int32, ()),
    }
    check_space(output, each * chains, columns)
    with progress_display(quiet or as_json) as show:
        blocks = stream(
            lattice,
            beta,
            samples=each,
            chains=chains,
            sampler=sampler,
            every=every,
            thermalise=thermalise,
            seed=seed,
            report_progress=lambda done, total: show(done, total, f"sweeps  {clock.left(done, total)}"),
        )
        exact = known(thermodynamics, lattice, beta)
        target = continuous_form(lattice, beta)
        free_energy = None if target is None or exact is None else target.free_energy(exact.log_z)
        fields = None if target is None else FieldDraws(target, free_energy, seed)
        columns |= {} if target is None else {"field": (np.float32, lattice.shape)}
        columns |= {} if free_energy is None else {"log_prob": (np.float64, ())}
        series = []
        with sample_writer(output, each * chains, columns, lattice=lattice, beta=beta) as writer:
            for block in blocks:
                rows = rows_in_time(block)
                writer.append(**rows, **(fields.draw(rows["spins"]) if fields else {}))
                series.append((block.energy / lattice.sites, block.magnetisation**2))
            writer.constants["sampler"] = np.array(block.sampler)
    energy, magnetisation_squared = (mean(np.concatenate(parts, axis=1)) for parts in zip(*series, strict=True))
    document = {
        "output": str(output),
        "samples": each * chains,
        "chains": chains,
        "sampler": block.sampler,
        "size": list(lattice.size),
        "beta": beta,
        "energy_per_site": energy.as_dict(),
        "exact_energy_per_site": None if exact is None else exact.energy_per_site,
        "magnetisation_squared": magnetisation_squared.as_dict(),
        "seconds": clock.seconds,
    }
    beside = "" if exact is None else f"    exact {exact.energy_per_site:.8g}"
    lines = [
        f"{heading(lattice, beta)}: {each * chains} samples of {chains} chains ({block.sampler}) in {output}",
        f"  {'energy per site':<30}{energy!s:>26}{beside}",
        f"  {'magnetisation squared':<30}{magnetisation_squared!s:>26}",
    ]
    print_result(document, as_json, lambda: "\n".join(lines))
