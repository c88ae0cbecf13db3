"""`isingflow monte-carlo`: samples of the Ising model by Markov chains of spins, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isingflow.cli.lattices import MAGNET, beta_from, continuous_form, heading, known, lattice_from, size_option
from isingflow.cli.options import JSON, MOST_STREAMED, OUTPUT, QUIET, SEED, Size, Whole, check_new_file
from isingflow.cli.output import print_result, show_notes
from isingflow.cli.progress import Clock, progress_display

if TYPE_CHECKING:
    import numpy as np

    from isingflow.lattice import Lattice
    from isingflow.sampling import SpinChains

MOST_SITES = 2**24
CHAINS = 8
BATCH_NUMBERS = 2**22
"""Numbers in a batch of fields that are drawn at once."""


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

    from isingflow.estimators import mean
    from isingflow.exact import thermodynamics
    from isingflow.samples import sample_writer
    from isingflow.sampling import stream

    each, clock = -(-samples // chains), Clock()
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
        fields = FieldDraws(lattice, beta, None if exact is None else exact.log_z, seed)
        columns = {
            "spins": (np.int8, lattice.shape),
            "energy": (np.float64, ()),
            "magnetisation": (np.float64, ()),
            "log_weight": (np.float64, ()),
            "chain": (np.int32, ()),
            **fields.columns,
        }
        series = []
        with sample_writer(output, each * chains, columns, lattice=lattice, beta=beta) as writer:
            for block in blocks:
                rows = rows_in_time(block)
                writer.append(**rows, **fields.draw(rows["spins"]))
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


def rows_in_time(block: SpinChains) -> dict[str, np.ndarray]:
    """A block of chains as rows of a file, all chains at one time after all chains at the time before."""
    import numpy as np

    arrays = {"spins": block.spins, "energy": block.energy, "magnetisation": block.magnetisation}
    rows = {name: array.swapaxes(0, 1).reshape(-1, *array.shape[2:]) for name, array in arrays.items()}
    chains, samples = block.energy.shape
    return rows | {"log_weight": np.zeros(chains * samples), "chain": np.tile(np.arange(chains), samples)}


class FieldDraws:
    """Fields drawn from p(x | s), and their ln p(x) = -E(x) - ln Z, as far as both are affordable.

    Attributes:
        columns: type and shape of a row of what is drawn.
    """

    def __init__(self, lattice: Lattice, beta: float, log_z: float | None, seed: int) -> None:
        import numpy as np
        import torch

        self.target = continuous_form(lattice, beta)
        self.free_energy = None if self.target is None or log_z is None else self.target.free_energy(log_z)
        self.columns = {} if self.target is None else {"field": (np.float32, lattice.shape)}
        self.columns |= {} if self.free_energy is None else {"log_prob": (np.float64, ())}
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, spins: np.ndarray) -> dict[str, np.ndarray]:
        """What `columns` names, for spins of shape (n, *size)."""
        import torch

        if self.target is None:
            return {}
        rows = torch.from_numpy(spins).split(max(1, BATCH_NUMBERS // self.target.sites))
        field = torch.cat([self.target.sample_field(batch, self._generator) for batch in rows])
        if self.free_energy is None:
            return {"field": field.numpy()}
        energies = [self.target.energy(batch.double()) for batch in field.split(len(rows[0]))]
        return {"field": field.numpy(), "log_prob": (self.free_energy - torch.cat(energies)).numpy()}
