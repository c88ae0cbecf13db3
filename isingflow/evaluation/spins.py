"""Samples of the Ising model by Markov chains of spins, in a file, and what they say: all that `monte-carlo` does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isingflow.errors import NoExactSolution
from isingflow.exact.continuous import CONTINUOUS_SITES
from isingflow.lattice import Lattice, external, heading
from isingflow.runtime import stopping
from isingflow.runtime.files import Columns, check_space
from isingflow.statistics.estimate import Estimate

if TYPE_CHECKING:
    from isingflow.exact.thermodynamics import Thermodynamics
    from isingflow.targets.hubbard_stratonovich import HubbardStratonovich


@dataclass(frozen=True)
class SpinsReport:
    """What samples of spins in a file say; made by `write_spins`. As a string it is a table.

    Attributes:
        output: the file.
        lattice, beta: the magnet.
        samples, chains: how many in all, of how many chains.
        sampler: what moved the spins.
        energy_per_site, magnetisation_squared: means.
        exact: what is known of the spins, ln Z too, which chains do not give; or None.
        seconds: that it took.
        magnetisation: in an external field, else None.
        exact_magnetisation: None where it is not known.
    """

    output: Path
    lattice: Lattice
    beta: float
    samples: int
    chains: int
    sampler: str
    energy_per_site: Estimate
    magnetisation_squared: Estimate
    exact: Thermodynamics | None
    seconds: float
    magnetisation: Estimate | None = None
    exact_magnetisation: float | None = None

    @property
    def exact_energy_per_site(self) -> float | None:
        """None where it is not known."""
        return None if self.exact is None else self.exact.energy_per_site

    @property
    def exact_free_energy_ising_per_site(self) -> float | None:
        """-T ln Z / N; None where it is not known, or the temperature is infinite."""
        return None if self.exact is None or not self.beta else -self.exact.log_z_per_site / self.beta

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with the keys of `isingflow monte-carlo --json`."""
        return {
            "output": str(self.output),
            "samples": self.samples,
            "chains": self.chains,
            "sampler": self.sampler,
            "size": list(self.lattice.size),
            "beta": self.beta,
            **external.entry(self.lattice.field),
            "energy_per_site": self.energy_per_site.as_dict(),
            "exact_energy_per_site": self.exact_energy_per_site,
            **(
                {}
                if self.magnetisation is None
                else {"magnetisation": self.magnetisation.as_dict(), "exact_magnetisation": self.exact_magnetisation}
            ),
            "exact_log_z_ising": None if self.exact is None else self.exact.log_z,
            "exact_free_energy_ising_per_site": self.exact_free_energy_ising_per_site,
            "magnetisation_squared": self.magnetisation_squared.as_dict(),
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        rows = [
            ("energy per site", self.energy_per_site, self.exact_energy_per_site),
            ("magnetisation", self.magnetisation, self.exact_magnetisation),
            ("magnetisation squared", self.magnetisation_squared, None),
        ]
        free = self.exact_free_energy_ising_per_site
        title = heading(self.lattice, self.beta)
        lines = [
            f"{title}: {self.samples} samples of {self.chains} chains ({self.sampler}) in {self.output}",
            *(
                f"  {name:<30}{estimate!s:>26}" + ("" if exact is None else f"    exact {exact:.8g}")
                for name, estimate, exact in rows
                if estimate is not None
            ),
        ]
        if free is not None:
            lines.append(f"  {'free energy per site, -T ln Z / N':<56}    exact {free:.8g}")
        return "\n".join(lines)


def write_spins(
    output: Path | str,
    lattice: Lattice,
    beta: float,
    *,
    samples: int,
    chains: int = 8,
    sampler: str | None = None,
    every: int = 1,
    thermalise: int | None = None,
    seed: int = 0,
    report_progress: Callable[[int, int], None] | None = None,
) -> SpinsReport:
    """Sample a magnet by Monte Carlo, into a .npz file: spins, energy, magnetisation and chain of every sample.

    Where the continuous form is affordable, fields drawn from p(x | s) and, where the exact free energy is known, their
    log_prob are added. Samples go to disk as they are drawn: they need not fit in memory.

    Args:
        output: the file.
        lattice, beta: the magnet.
        samples: how many in all, rounded up to a multiple of the chains.
        chains, sampler, every, thermalise, seed, report_progress: as for `monte_carlo.stream`.

    Raises:
        InvalidInput: as for `monte_carlo.stream`.
        FileError: the disk is too small, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> from isingflow.lattice import square
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = write_spins(Path(folder) / "spins.npz", square(4), 0.3, samples=100)
        >>> report.samples, report.sampler
        (104, 'wolff')
    """
    path, each, started = Path(output), -(-samples // chains), time.monotonic()
    columns: Columns = {
        "spins": (np.int8, lattice.shape),
        "energy": (np.float64, ()),
        "magnetisation": (np.float64, ()),
        "log_weight": (np.float64, ()),
        "chain": (np.int32, ()),
    }
    check_space(path, each * chains, columns)

    # After the disk: numba and torch take seconds to load.
    from isingflow.exact import thermodynamics
    from isingflow.monte_carlo import stream
    from isingflow.observables.files import rows_in_time, sample_writer
    from isingflow.sampling import FieldDraws
    from isingflow.statistics.free_energy import mean

    blocks = stream(
        lattice,
        beta,
        samples=each,
        chains=chains,
        sampler=sampler,
        every=every,
        thermalise=thermalise,
        seed=seed,
        report_progress=report_progress,
    )
    try:
        exact = stopping.watched(thermodynamics, lattice, beta)
    except NoExactSolution:
        exact = None
    target = continuous_form(lattice, beta)
    fields = None
    if target is not None:
        free_energy = None if exact is None else target.free_energy(exact.log_z)
        fields = FieldDraws(target, free_energy, seed)
        columns = {**columns, "field": (np.float32, lattice.shape)}
        if free_energy is not None:
            columns = {**columns, "log_prob": (np.float64, ())}
    energies, magnetisations = [], []
    with sample_writer(path, each * chains, columns, lattice=lattice, beta=beta) as writer:
        for block in blocks:
            rows = rows_in_time(block)
            writer.append(**rows, **(fields.draw(rows["spins"]) if fields else {}))
            energies.append(block.energy / lattice.sites)
            magnetisations.append(block.magnetisation)
        writer.constants["sampler"] = np.array(block.sampler)
    magnetisation = np.concatenate(magnetisations, axis=1)
    polarised = lattice.field is not None
    return SpinsReport(
        output=path,
        lattice=lattice,
        beta=beta,
        samples=each * chains,
        chains=chains,
        sampler=block.sampler,
        energy_per_site=mean(np.concatenate(energies, axis=1)),
        magnetisation_squared=mean(magnetisation**2),
        exact=exact,
        seconds=time.monotonic() - started,
        magnetisation=mean(magnetisation) if polarised else None,
        exact_magnetisation=exact.magnetisation_per_site if polarised and exact is not None else None,
    )


def continuous_form(lattice: Lattice, beta: float) -> HubbardStratonovich | None:
    """The continuous representation; None where its spectrum would take too long."""
    if lattice.sites > CONTINUOUS_SITES[lattice.translation_invariant]:
        return None
    from isingflow.targets.hubbard_stratonovich import HubbardStratonovich

    return HubbardStratonovich(lattice, beta)
